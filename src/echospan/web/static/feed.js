// Letters on their way to the models: typed, pasted or drawn at random; one batch at a time.
"use strict";
globalThis.Echospan ??= {};

Echospan.BATCH = 500; // letters that are read in one go
Echospan.SPEEDS = [1, 2, 4, 8, 16, 32, 100, 500]; // letters a second

Echospan.Feed = class {
  // `read(letters, delay)` resolves once they are answered; `changed()` tells that a state did.
  constructor(alphabet, read, changed) {
    Object.assign(this, { alphabet, read, changed });
    this.delay = 0; // that letters are asked for which are typed from now on
    this.groups = []; // {letters, next, delay}: letters from `next` on wait
    this.waiting = 0; // letters of all groups
    this.paused = false;
    this.playing = false;
    this.speed = 4;
    this.busy = Promise.resolve();
    this.running = false;
  }

  // The letters of `text` that the models know are read, and how many others there were is returned.
  push(text) {
    const characters = [...text];
    const known = characters.map((c) => this.alphabet.find(c)).filter((c) => c !== undefined);
    this.#wait(known);
    this.#run();
    this.changed();
    return characters.length - known.length;
  }

  #wait(letters) {
    if (!letters.length) return;
    this.groups.push({ letters, next: 0, delay: this.delay });
    this.waiting += letters.length;
  }

  // The next letters that are asked for at one delay, as many as one batch has.
  #take() {
    const { delay } = this.groups[0];
    const letters = [];
    while (letters.length < Echospan.BATCH && this.groups[0]?.delay === delay) {
      const group = this.groups[0];
      const end = Math.min(group.letters.length, group.next + Echospan.BATCH - letters.length);
      letters.push(...group.letters.slice(group.next, end));
      group.next = end;
      if (end === group.letters.length) this.groups.shift();
    }
    this.waiting -= letters.length;
    return { letters, delay };
  }

  pause(paused) {
    this.paused = paused;
    this.changed();
    this.#run();
    this.#tick();
  }

  play(playing) {
    this.playing = playing;
    this.changed();
    this.#tick();
  }

  // Forget what waits, let what is under way end, then do `what` before anything else is read.
  async clear(what) {
    this.groups = [];
    this.waiting = 0;
    this.busy = this.busy.then(what);
    await this.busy;
    this.#run();
  }

  #run() {
    if (this.running || this.paused || !this.waiting) return;
    this.running = true;
    this.busy = this.busy.then(async () => {
      while (this.waiting && !this.paused) {
        const { letters, delay } = this.#take();
        await this.read(letters, delay);
      }
      this.running = false;
      this.changed();
    });
  }

  // Random letters at the chosen speed; what falls due between two ticks comes in one batch.
  #tick() {
    clearTimeout(this.timer);
    if (!this.playing || this.paused) return;
    const wait = Math.max(1000 / this.speed, 50);
    this.timer = setTimeout(() => {
      const due = Math.max(1, Math.round((this.speed * wait) / 1000));
      if (this.waiting < due) {
        this.#wait(Array.from({ length: due }, () => this.alphabet.random()));
        this.#run();
      }
      this.#tick();
    }, wait);
  }
};
