// n-back: letters appear one by one, and who plays says what was n letters ago. A person and each
// model play the same letters; n grows until they fail.
"use strict";
globalThis.Echospan ??= {};

Echospan.QUESTIONS = 6; // a round
Echospan.MISTAKES = 2; // that end it

// One round: what is shown, and what is right.
Echospan.Round = class {
  constructor(n, alphabet, draw = Math.random) {
    this.n = n;
    this.letters = Array.from(
      { length: n + Echospan.QUESTIONS },
      () => alphabet.characters[Math.floor(draw() * alphabet.length)],
    );
    this.place = 0;
    this.mistakes = 0;
  }

  get letter() { return this.letters[this.place]; }
  get asks() { return this.place >= this.n; }
  get right() { return this.letters[this.place - this.n]; }
  get failed() { return this.mistakes >= Echospan.MISTAKES; }
  get over() { return this.failed || this.place >= this.letters.length; }

  // True, false, or null where nothing was asked yet.
  answer(letter) {
    const judged = this.asks ? letter === this.right : null;
    if (judged === false) this.mistakes += 1;
    this.place += 1;
    return judged;
  }
};

// A model's part: how many mistakes it makes in a round, read from its beginning.
Echospan.mistakes = async (source, round) => {
  await source.reset();
  const steps = await source.push(round.letters, round.n);
  return steps.filter((step, t) => t >= round.n && step.echo.id !== steps[t - round.n].id).length;
};

Echospan.Game = class {
  constructor(root, sources, alphabet) {
    this.sources = sources;
    this.alphabet = alphabet;
    this.part = (name) => root.querySelector(`#${name}`);
    this.part("start").addEventListener("click", () => this.start());
    this.part("answer").addEventListener("input", (event) => {
      if (!event.isComposing) this.#typed();
    });
    this.part("answer").addEventListener("compositionend", () => this.#typed());
    this.part("answer").addEventListener("keydown", (event) => {
      if (event.key === "Enter" && !this.round.asks) this.#take("");
    });
  }

  start() {
    this.models = this.sources.map((source) => ({ source, span: 0, end: null }));
    this.span = 0;
    this.part("start").hidden = true;
    this.part("rules").hidden = true;
    this.part("result").hidden = true;
    this.part("round").hidden = false;
    this.part("feedback").textContent = "";
    this.#begin(1);
  }

  #begin(n) {
    this.round = new Echospan.Round(n, this.alphabet);
    this.played = this.#modelsPlay(this.round);
    this.#show();
    this.part("answer").focus();
  }

  #show() {
    const { n, place, asks } = this.round;
    const back = n === 1 ? "one letter ago" : `${n} letters ago`;
    this.part("asked").textContent = asks
      ? `n = ${n}: which letter was it ${back}? Question ${place - n + 1} of ${Echospan.QUESTIONS}.`
      : `n = ${n}: remember this letter, then press the space bar. Letter ${place + 1} of ${n}.`;
    this.part("letter").textContent = Echospan.visible(this.round.letter);
    this.part("answer").value = "";
  }

  #typed() {
    const letter = this.alphabet.find([...this.part("answer").value].at(-1) ?? "");
    if (!this.round.asks || letter) this.#take(letter ?? "");
    else this.part("answer").value = "";
  }

  async #take(letter) {
    const { round } = this;
    if (round.over) return;
    const right = round.right;
    const judged = round.answer(letter);
    if (judged !== null) {
      const [was, answered] = [right, letter].map(Echospan.visible);
      this.part("feedback").textContent = judged ? `✓ ${was} is right` : `✗ it was ${was}, not ${answered}`;
    }
    if (!round.over) {
      this.#show();
      return;
    }
    this.part("answer").value = "";
    await this.played;
    if (!round.failed) {
      this.span = round.n;
      this.part("feedback").textContent += `. Round n = ${round.n} is done; ${this.#toldOfModels(round.n)}`;
      this.#begin(round.n + 1);
    } else {
      await this.#alone(round.n + 1);
      this.#end(round.n);
    }
  }

  #toldOfModels(n) {
    return this.models
      .map(({ source, span }) => `${source.name} ${span >= n ? "goes on too" : `stopped at ${span}`}`)
      .join(", ");
  }

  // All models that are still in the game play a round.
  async #modelsPlay(round) {
    await Promise.all(
      this.models.map(async (model) => {
        if (model.end) return;
        if (round.n > model.source.maxDelay) {
          model.end = `it was trained no further than ${model.source.maxDelay}`;
          return;
        }
        const mistakes = await Echospan.mistakes(model.source, round);
        if (mistakes >= Echospan.MISTAKES) model.end = `${mistakes} mistakes at n = ${round.n}`;
        else model.span = round.n;
      }),
    );
  }

  // The person has failed: the models go on, each until it fails or has never been asked further.
  async #alone(n) {
    while (this.models.some((model) => !model.end)) {
      await this.#modelsPlay(new Echospan.Round(n, this.alphabet));
      n += 1;
    }
  }

  #end(n) {
    const rows = [["You", this.span, `${Echospan.MISTAKES} mistakes at n = ${n}`]];
    for (const { source, span, end } of this.models) rows.push([source.name, span, end]);
    this.part("spans").replaceChildren(
      ...rows.map((row) => {
        const tr = document.createElement("tr");
        for (const text of row) tr.insertCell().textContent = text;
        return tr;
      }),
    );
    this.part("round").hidden = true;
    this.part("result").hidden = false;
    this.part("start").hidden = false;
    this.part("start").textContent = "Play again";
    this.part("result-title").focus();
  }
};
