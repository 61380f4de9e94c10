// What was read, what was answered, and how often that was right: of one model, without drawing.
"use strict";
globalThis.Echospan ??= {};

Echospan.BLANK = "·";
Echospan.SHOWN = 64; // steps that are kept to be drawn

Echospan.History = class {
  constructor(maxDelay) {
    this.maxDelay = maxDelay;
    this.clear();
  }

  clear() {
    this.steps = []; // the last ones: {symbol, echo, delay, right, hidden}
    this.past = []; // symbols, the newest last: as many as the longest delay looks back
    this.beliefs = null; // of the newest step: [{symbol, sure}] by delay
    this.read = 0;
    this.answers = 0; // of the delay that was asked for at the time
    this.correct = 0;
    this.byDelay = Array.from({ length: this.maxDelay + 1 }, () => ({ answers: 0, correct: 0 }));
  }

  // The symbol read `delay` steps ago, or the blank where there was none.
  truth(delay) {
    return this.past[this.past.length - 1 - delay] ?? Echospan.BLANK;
  }

  // One step of a source, read while `delay` was asked for; a model that was not trained that far
  // answers nothing.
  add(step, delay) {
    this.past.push(step.symbol);
    if (this.past.length > this.maxDelay + 1) this.past.shift();
    this.read += 1;
    step.beliefs.forEach((belief, d) => {
      if (this.read <= d) return; // recall counts from the first symbol that can be asked for
      this.byDelay[d].answers += 1;
      this.byDelay[d].correct += belief.symbol === this.truth(d) ? 1 : 0;
    });
    const asked = delay <= this.maxDelay;
    const right = asked ? step.echo === this.truth(delay) : null;
    if (asked && this.read > delay) {
      this.answers += 1;
      this.correct += right ? 1 : 0;
    }
    this.beliefs = step.beliefs;
    this.steps.push({ symbol: step.symbol, echo: asked ? step.echo : "–", delay, right, hidden: step.hidden });
    if (this.steps.length > Echospan.SHOWN) this.steps.shift();
  }
};

// A share as people read it; a dash where nothing was asked.
Echospan.percent = (correct, answers) => {
  if (!answers) return "–";
  const share = (100 * correct) / answers;
  return `${correct === answers ? "100" : Math.min(share, 99.9).toFixed(1)} %`;
};
