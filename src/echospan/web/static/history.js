// What was read, what was answered, and how often that was right: of one model, without drawing.
"use strict";
globalThis.Echospan ??= {};

Echospan.SHOWN = 64; // steps that are kept to be drawn

Echospan.History = class {
  constructor(maxDelay) {
    this.maxDelay = maxDelay;
    this.clear();
  }

  clear() {
    this.steps = []; // the last ones: {symbol, echo, blank, delay, right, hidden}
    this.past = []; // ids and symbols, the newest last: as many as the longest delay looks back
    this.beliefs = null; // of the newest step: [{id, symbol, sure}] by delay
    this.read = 0;
    this.byDelay = Array.from({ length: this.maxDelay + 1 }, () => ({ answers: 0, correct: 0 }));
  }

  // What was read `delay` steps ago, {id, symbol}, or the blank where there was nothing.
  truth(delay) {
    return this.past[this.past.length - 1 - delay] ?? { id: 0, symbol: Echospan.BLANK };
  }

  // Answers at a delay and how many were right: of all letters, whatever was asked for meanwhile.
  score(delay) {
    return this.byDelay[delay] ?? { answers: 0, correct: 0 };
  }

  // One step of a source, read while `delay` was asked for; a model that was not trained that far
  // answers nothing.
  add(step, delay) {
    this.past.push({ id: step.id, symbol: step.symbol });
    if (this.past.length > this.maxDelay + 1) this.past.shift();
    this.read += 1;
    step.beliefs.forEach((belief, d) => {
      if (this.read <= d) return; // recall counts from the first symbol that can be asked for
      this.byDelay[d].answers += 1;
      this.byDelay[d].correct += belief.id === this.truth(d).id ? 1 : 0;
    });
    const asked = delay <= this.maxDelay;
    this.beliefs = step.beliefs;
    this.steps.push({
      symbol: step.symbol,
      echo: asked ? step.echo.symbol : "–",
      blank: asked && step.echo.id === 0,
      delay,
      right: asked ? step.echo.id === this.truth(delay).id : null,
      hidden: step.hidden,
    });
    if (this.steps.length > Echospan.SHOWN) this.steps.shift();
  }
};

// A share as people read it; a dash where nothing was asked.
Echospan.percent = (correct, answers) => {
  if (!answers) return "–";
  const share = (100 * correct) / answers;
  return `${correct === answers ? "100" : Math.min(share, 99.9).toFixed(1)} %`;
};
