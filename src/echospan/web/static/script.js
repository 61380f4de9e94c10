// Models that run in the page itself: sources of the same form as those behind a socket.
"use strict";
globalThis.Echospan ??= {};

Echospan.Local = class {
  constructor(model) {
    const { name, alphabet, maxDelay, delay, hidden, core, recall } = model;
    Object.assign(this, { model, name, alphabet, maxDelay, delay, hidden, core, recall });
  }

  async push(symbols, delay) {
    const steps = [...symbols].map((symbol) => this.#step(symbol, delay));
    // Between two batches the page is drawn and listens.
    if (steps.length > 1) await new Promise((resume) => setTimeout(resume));
    return steps;
  }

  async reset() {
    this.model.reset();
  }

  #step(symbol, delay) {
    const { hidden, logits } = this.model.step(this.alphabet.indexOf(symbol) + 1, delay);
    const symbols = this.alphabet.length + 1;
    const beliefs = [];
    for (let d = 0; d <= this.maxDelay; d++) {
      let best = d * symbols;
      for (let i = best + 1; i < (d + 1) * symbols; i++) if (logits[i] > logits[best]) best = i;
      let total = 0; // of the softmax, in which the most believed symbol has 1
      for (let i = d * symbols; i < (d + 1) * symbols; i++) total += Math.exp(logits[i] - logits[best]);
      const id = best - d * symbols;
      beliefs.push({ symbol: id ? this.alphabet[id - 1] : Echospan.BLANK, sure: 1 / total });
    }
    return { symbol, echo: beliefs[delay].symbol, hidden: hidden, beliefs };
  }
};

// A page that holds its models begins here.
addEventListener("DOMContentLoaded", () => {
  const packed = JSON.parse(document.getElementById("packed").textContent);
  Echospan.page = new Echospan.Page(packed.map((one) => new Echospan.Local(Echospan.load(one))));
});
