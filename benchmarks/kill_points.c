/* Kills its process at the Nth system call that changes something under a folder.

   Loaded by LD_PRELOAD; KILL_POINTS names a file that holds a `struct control`, shared by all
   processes of a command. Each function below counts, perhaps kills, and then does what it always
   does: a call that is killed has not happened. */

#define _GNU_SOURCE
#include <dlfcn.h>
#include <fcntl.h>
#include <signal.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <sys/uio.h>
#include <unistd.h>

struct control {
  long count;        /* calls so far */
  long kill_at;      /* the call that kills; 0 for none */
  long interrupt_at; /* the call before which SIGINT is sent; 0 for none */
  char under[4072];  /* the folder, with no slash at its end */
};

static struct control *control;

__attribute__((constructor)) static void begin(void) {
  const char *path = getenv("KILL_POINTS");
  int fd = path ? open(path, O_RDWR | O_CLOEXEC) : -1;
  if (fd < 0) return;
  void *shared = mmap(NULL, sizeof *control, PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);
  close(fd);
  if (shared != MAP_FAILED) control = shared;
}

static int inside(const char *path) {
  char whole[8192];
  size_t length = strlen(control->under);
  if (!length) return 0;
  if (path[0] != '/') {
    if (!getcwd(whole, 4096)) return 0;
    strcat(whole, "/");
    strncat(whole, path, 4095);
    path = whole;
  }
  return !strncmp(path, control->under, length) && (path[length] == '/' || !path[length]);
}

static void count(void) {
  long now = __sync_add_and_fetch(&control->count, 1);
  if (now == control->interrupt_at) kill(getpid(), SIGINT);
  if (now == control->kill_at) kill(getpid(), SIGKILL);
}

static void at_path(const char *path) {
  if (control && path && inside(path)) count();
}

static void at_descriptor(int fd) {
  char link[64], path[4096];
  if (!control) return;
  snprintf(link, sizeof link, "/proc/self/fd/%d", fd);
  ssize_t length = readlink(link, path, sizeof path - 1);
  if (length <= 0) return;
  path[length] = 0;
  if (inside(path)) count();
}

#define REAL(name) __typeof__(&name) real = (__typeof__(&name))dlsym(RTLD_NEXT, #name)
#define ON_FD(type, name, parameters, arguments) \
  type name parameters { REAL(name); at_descriptor(fd); return real arguments; }
#define ON_PATH(type, name, parameters, arguments) \
  type name parameters { REAL(name); at_path(path); return real arguments; }
#define OPENS(name, parameters, before) \
  int name parameters { \
    REAL(name); \
    va_list rest; \
    va_start(rest, flags); \
    mode_t mode = flags & O_CREAT ? va_arg(rest, mode_t) : 0; \
    va_end(rest); \
    if (flags & (O_CREAT | O_TRUNC)) at_path(path); \
    return real(before path, flags, mode); \
  }
#define COMMA ,

OPENS(open, (const char *path, int flags, ...), )
OPENS(open64, (const char *path, int flags, ...), )
OPENS(openat, (int folder, const char *path, int flags, ...), folder COMMA)
OPENS(openat64, (int folder, const char *path, int flags, ...), folder COMMA)
ON_FD(ssize_t, write, (int fd, const void *data, size_t size), (fd, data, size))
ON_FD(ssize_t, writev, (int fd, const struct iovec *parts, int number), (fd, parts, number))
ON_FD(ssize_t, pwrite, (int fd, const void *data, size_t size, off_t at), (fd, data, size, at))
ON_FD(ssize_t, pwrite64, (int fd, const void *data, size_t size, off64_t at), (fd, data, size, at))
ON_FD(int, fsync, (int fd), (fd))
ON_FD(int, fdatasync, (int fd), (fd))
ON_FD(int, ftruncate, (int fd, off_t size), (fd, size))
ON_FD(int, ftruncate64, (int fd, off64_t size), (fd, size))
ON_FD(int, fchmod, (int fd, mode_t mode), (fd, mode))
ON_PATH(int, chmod, (const char *path, mode_t mode), (path, mode))
ON_PATH(int, truncate, (const char *path, off_t size), (path, size))
ON_PATH(int, unlink, (const char *path), (path))
ON_PATH(int, unlinkat, (int folder, const char *path, int flags), (folder, path, flags))
ON_PATH(int, rmdir, (const char *path), (path))
ON_PATH(int, mkdir, (const char *path, mode_t mode), (path, mode))
ON_PATH(int, mkdirat, (int folder, const char *path, mode_t mode), (folder, path, mode))
ON_PATH(int, rename, (const char *path, const char *to), (path, to))
ON_PATH(int, renameat, (int from, const char *path, int in, const char *to), (from, path, in, to))
ON_PATH(int, link, (const char *path, const char *to), (path, to))
ON_PATH(int, symlink, (const char *to, const char *path), (to, path))
