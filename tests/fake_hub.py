"""As much of the Hugging Face Hub as a model is put to and had from, on this machine, in memory."""

import base64
import hashlib
import json
import threading
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer


class Hub(BaseHTTPRequestHandler):
    """Repositories are what `files` of the server holds, by name: their files and their commits."""

    def log_message(self, *args):
        """Say nothing."""

    def answer(self, told, status=200, **headers):
        body = told if isinstance(told, bytes) else json.dumps(told).encode()
        self.send_response(status)
        for name, value in headers.items():
            self.send_header(name.replace("_", "-"), value)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(body)

    def missing(self):
        self.answer({"error": "not here"}, 404, X_Error_Code="RepoNotFound")

    def do_POST(self):
        data = self.rfile.read(int(self.headers["Content-Length"]))
        self.server.asked.append((self.path, self.headers.get("Authorization")))
        if self.headers.get("Authorization") != "Bearer hf_right":
            self.answer({"error": "who are you?"}, 401)
        elif self.path == "/api/repos/create":
            told = json.loads(data)
            name = (
                f"{told['organization']}/{told['name']}" if "organization" in told else told["name"]
            )
            self.server.repos.setdefault(name, {})
            self.answer({"url": f"{self.server.address}/{name}", "name": name})
        elif self.path == "/api/validate-yaml":
            self.answer({"errors": [], "warnings": []})
        elif "/preupload/" in self.path:
            files = json.loads(data)["files"]
            told = [
                {"path": f["path"], "uploadMode": "regular", "shouldIgnore": False} for f in files
            ]
            self.answer({"files": told})
        elif "/commit/" in self.path:
            repo = "/".join(self.path.split("/")[3:5])
            for line in map(json.loads, data.splitlines()):
                if line["key"] == "file":
                    content = base64.b64decode(line["value"]["content"])
                    self.server.repos[repo][line["value"]["path"]] = content
            url = f"{self.server.address}/{repo}/commit/{'c' * 40}"
            self.answer({"commitUrl": url, "commitOid": "c" * 40, "success": True})
        else:
            self.answer({"error": self.path}, 404)

    def do_GET(self):
        self.server.asked.append((self.path, self.headers.get("Authorization")))
        parts = self.path.partition("?")[0].strip("/").split("/")
        repo = "/".join(parts[2:4] if parts[0] == "api" else parts[:2])
        files = self.server.repos.get(repo)
        if files is None:
            self.missing()
        elif parts[0] == "api" and "tree" in parts:
            self.answer(
                [
                    {"type": "file", "path": name, "size": len(content), "oid": _oid(content)}
                    for name, content in files.items()
                ]
            )
        elif parts[0] == "api":
            siblings = [{"rfilename": name} for name in files]
            self.answer({"id": repo, "sha": "c" * 40, "siblings": siblings, "private": False})
        elif parts[4] in files:
            content = files[parts[4]]
            self.answer(content, ETag=f'"{_oid(content)}"', X_Repo_Commit="c" * 40)
        else:
            self.answer({"error": "no file"}, 404, X_Error_Code="EntryNotFound")

    do_HEAD = do_GET


def _oid(content):
    return hashlib.sha1(content).hexdigest()


@contextmanager
def running():
    """A Hub under way; its `address`, `repos` and what was `asked` of it."""
    server = ThreadingHTTPServer(("127.0.0.1", 0), Hub)
    server.address = f"http://127.0.0.1:{server.server_port}"
    server.repos, server.asked = {}, []
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    try:
        yield server
    finally:
        server.shutdown()
        server.server_close()
        thread.join()
