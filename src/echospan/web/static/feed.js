// Letters on their way to the models: typed, pasted or drawn at random; one batch at a time.
"use strict";
globalThis.Echospan ??= {};

Echospan.BATCH = 500; // letters that are read in one go
Echospan.SPEEDS = [1, 2, 4, 8, 16, 32, 100, 500]; // letters a second

Echospan.Feed = class {
  // `read(letters)` resolves once they are answered; `changed()` tells that a state did.
  constructor(alphabet, read, changed) {
    Object.assign(this, { alphabet, read, changed });
    this.waiting = "";
    this.paused = false;
    this.playing = false;
    this.speed = 4;
    this.busy = Promise.resolve();
    this.running = false;
  }

  // The letters of `text` that the models know are read, and how many others there were is returned.
  push(text) {
    const known = [...text].map((c) => this.#known(c)).filter(Boolean);
    this.waiting += known.join("");
    this.#run();
    this.changed();
    return [...text].length - known.length;
  }

  #known(c) {
    return [c, c.toLowerCase(), c.toUpperCase()].find((form) => this.alphabet.includes(form));
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
    this.waiting = "";
    this.busy = this.busy.then(what);
    await this.busy;
    this.#run();
  }

  #run() {
    if (this.running || this.paused || !this.waiting) return;
    this.running = true;
    this.busy = this.busy.then(async () => {
      while (this.waiting && !this.paused) {
        const letters = this.waiting.slice(0, Echospan.BATCH);
        this.waiting = this.waiting.slice(Echospan.BATCH);
        await this.read(letters);
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
      if (this.waiting.length < due) {
        for (let i = 0; i < due; i++) {
          this.waiting += this.alphabet[Math.floor(Math.random() * this.alphabet.length)];
        }
        this.#run();
      }
      this.#tick();
    }, wait);
  }
};
