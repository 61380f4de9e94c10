// What a screen reader is told while letters run: politely, seldom, and always the newest.
"use strict";
globalThis.Echospan ??= {};

Echospan.Voice = class {
  constructor(element, milliseconds = 2500) {
    this.element = element;
    this.milliseconds = milliseconds;
    this.waiting = null;
    this.timer = null;
  }

  // `text` may be a function, which is asked only when it is its turn to be said.
  say(text) {
    this.waiting = text;
    if (this.timer !== null) return;
    this.timer = setTimeout(() => {
      this.timer = null;
      this.element.textContent = typeof this.waiting === "function" ? this.waiting() : this.waiting;
    }, this.milliseconds);
  }
};
