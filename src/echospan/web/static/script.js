// Models that run in the page itself: sources of the same form as those behind a socket.
"use strict";
globalThis.Echospan ??= {};

const LARGEST = 3.4e38; // of float32, in short

Echospan.Local = class {
  constructor(model) {
    const { name, alphabet, maxDelay, delay, hidden, core, recall } = model;
    Object.assign(this, { model, name, maxDelay, delay, hidden, core, recall });
    this.alphabet = new Echospan.Alphabet(alphabet);
  }

  async push(characters, delay) {
    const steps = this.alphabet.encode(characters).map((id) => this.#step(id, delay));
    // Between two batches the page is drawn and listens.
    if (steps.length > 1) await new Promise((resume) => setTimeout(resume));
    return steps;
  }

  async reset() {
    this.model.reset();
  }

  // The figures are those that a server sends: NaN counts as the largest logit, as in PyTorch,
  // probabilities are in thousandths, and what is no number is drawn as 0 or as the largest.
  #step(id, delay) {
    const { hidden, logits } = this.model.step(id, delay);
    const symbols = this.alphabet.length + 1;
    const beliefs = [];
    for (let d = 0; d <= this.maxDelay; d++) {
      let best = d * symbols;
      for (let i = best + 1; i < (d + 1) * symbols; i++) {
        if (logits[i] > logits[best] || (Number.isNaN(logits[i]) && !Number.isNaN(logits[best]))) best = i;
      }
      let total = 0; // of the softmax, in which the most believed symbol has 1
      for (let i = d * symbols; i < (d + 1) * symbols; i++) total += Math.exp(logits[i] - logits[best]);
      const answer = best - d * symbols;
      const sure = Math.floor(1000 / total + 0.5) / 1000 || 0;
      beliefs.push({ id: answer, symbol: this.alphabet.draw(answer), sure });
    }
    const shown = hidden.map((v) => (Number.isNaN(v) ? 0 : Math.max(-LARGEST, Math.min(LARGEST, v))));
    return { id, symbol: this.alphabet.draw(id), echo: beliefs[delay], hidden: shown, beliefs };
  }
};

// A page that holds its models begins here.
addEventListener("DOMContentLoaded", () => {
  const packed = JSON.parse(document.getElementById("packed").textContent);
  const sources = packed.map((one) => new Echospan.Local(Echospan.load(one)));
  Echospan.page = new Echospan.Page(sources, "The model runs in this page: nothing that you type leaves it.");
});
