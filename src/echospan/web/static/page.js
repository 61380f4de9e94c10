// The page: it joins what is typed, the sources of steps, and all that is drawn of them.
"use strict";
globalThis.Echospan ??= {};

const part = (name) => document.getElementById(name);

Echospan.Page = class {
  // `where`: a sentence that says where what is typed goes.
  constructor(sources, where) {
    this.sources = sources;
    document.title = `Echospan: ${sources.map((s) => s.name).join(", ")}`;
    part("where").textContent = where;
    const common = sources[0].alphabet.characters.filter((c) => sources.every((s) => s.alphabet.has(c)));
    this.alphabet = new Echospan.Alphabet(common);
    this.histories = sources.map((source) => new Echospan.History(source.maxDelay));
    this.cards = sources.map((source) => new Echospan.Card(source));
    this.tape = new Echospan.Tape(part("tape"), sources.map((s) => s.name));
    this.voice = new Echospan.Voice(part("told"));
    this.feed = new Echospan.Feed(this.alphabet, (...batch) => this.#read(...batch), () => this.#state());
    this.game = new Echospan.Game(part("game"), sources, this.alphabet);
    this.due = false;
    this.#controls();
    addEventListener("hashchange", () => this.#view());
    this.#view();
    this.draw();
  }

  // Every model reads the same letters; each is asked at the delay that was set when they came.
  async #read(letters, asked) {
    const answers = await Promise.all(
      this.sources.map((source) => source.push(letters, Math.min(asked, source.maxDelay))),
    );
    answers.forEach((steps, i) => steps.forEach((step) => this.histories[i].add(step, asked)));
    this.#drawSoon();
    this.voice.say(() => this.#spoken());
  }

  // What the newest letters became, in words.
  #spoken() {
    const last = (history, what) => history.steps.slice(-5).map(what).join(" ");
    const said = this.sources.map((source, i) => {
      const history = this.histories[i];
      const { correct, answers } = history.score(this.delay);
      return `${source.name} says ${last(history, (s) => (s.blank ? "blank" : s.echo))}, ${Echospan.percent(correct, answers)} right`;
    });
    return `Read ${last(this.histories[0], (s) => s.symbol)}. ${said.join(". ")}.`;
  }

  #drawSoon() {
    if (this.due) return;
    this.due = true;
    requestAnimationFrame(() => this.draw());
  }

  draw() {
    this.due = false;
    this.tape.draw(this.histories, this.delay);
    this.cards.forEach((card, i) => card.draw(this.histories[i], this.delay));
    this.#state();
  }

  #controls() {
    const keys = part("keys");
    const longest = Math.max(...this.sources.map((s) => s.maxDelay));
    const all = Math.min(...this.sources.map((s) => s.maxDelay)); // at which every model answers
    part("delay").max = longest;
    this.#setDelay(Math.min(all, this.sources[0].delay ?? longest));
    part("delay").addEventListener("input", () => this.#setDelay(part("delay").valueAsNumber));
    part("speed").addEventListener("input", () => this.#setSpeed(part("speed").valueAsNumber));
    this.#setSpeed(part("speed").valueAsNumber);
    part("play").addEventListener("click", () => this.feed.play(!this.feed.playing));
    part("pause").addEventListener("click", () => this.feed.pause(!this.feed.paused));
    part("reset").addEventListener("click", () => this.reset());

    let taken = ""; // of the field: a phone's keyboard may keep a word open in it while it is typed
    const take = (closed) => {
      const text = keys.value;
      const added = text.startsWith(taken) ? text.slice(taken.length) : "";
      if (closed) keys.value = "";
      taken = closed ? "" : text;
      const skipped = this.feed.push(added);
      if (skipped && added.trim()) this.#skipped(skipped);
    };
    keys.addEventListener("input", (event) => take(!event.isComposing));
    keys.addEventListener("compositionend", () => take(true));
    keys.addEventListener("paste", (event) => {
      // The field would drop the ends of lines, which may be in an alphabet.
      const text = event.clipboardData?.getData("text/plain");
      if (!text) return;
      event.preventDefault();
      const skipped = this.feed.push(text.replace(/\r\n?/g, "\n"));
      if (skipped) this.#skipped(skipped);
    });
    keys.addEventListener("keydown", (event) => {
      if (event.altKey && (event.key === "ArrowUp" || event.key === "ArrowDown")) {
        event.preventDefault();
        this.#setDelay(Math.max(0, Math.min(longest, this.delay + (event.key === "ArrowUp" ? 1 : -1))));
      } else if (event.key === "Escape") {
        this.feed.pause(!this.feed.paused);
      } else if (event.key === "Enter" && !event.isComposing && this.alphabet.has("\n")) {
        this.feed.push("\n");
      }
    });
  }

  #skipped(count) {
    const many = count === 1 ? "One character is" : `${count.toLocaleString("en")} characters are`;
    this.told = `${many} no symbol of ${this.alphabet.draw(1)} to ${this.alphabet.draw(this.alphabet.length)} and left out.`;
    this.voice.say(this.told);
    this.#state();
    clearTimeout(this.untold);
    this.untold = setTimeout(() => {
      this.told = "";
      this.#state();
    }, 4000);
  }

  #setDelay(delay) {
    this.delay = delay;
    this.feed.delay = delay;
    part("delay").value = delay;
    part("delay-now").value = delay;
    this.#drawSoon();
  }

  #setSpeed(place) {
    this.feed.speed = Echospan.SPEEDS[place];
    part("speed-now").value = `${this.feed.speed} a second`;
    part("speed").setAttribute("aria-valuetext", part("speed-now").value);
  }

  // What waits, and which buttons are down.
  #state() {
    const { paused, playing, waiting } = this.feed;
    part("pause").setAttribute("aria-pressed", paused);
    part("play").setAttribute("aria-pressed", playing);
    const letters = waiting === 1 ? "One letter waits" : `${waiting.toLocaleString("en")} letters wait`;
    part("waiting").textContent = waiting && (paused || waiting > 1) ? `${letters}.` : (this.told ?? "");
  }

  async reset() {
    await this.feed.clear(async () => {
      await Promise.all(this.sources.map((source) => source.reset()));
      this.forget();
    });
    this.voice.say("Reset: nothing is remembered.");
  }

  // Nothing that was read is left.
  forget() {
    this.histories.forEach((history) => history.clear());
    this.draw();
  }

  // The view that the address names; the models begin anew in each.
  #view() {
    const game = location.hash === "#game";
    if (game === this.inGame) {
      part(game ? "answer" : "keys").focus();
      return;
    }
    const began = this.inGame !== undefined;
    this.inGame = game;
    part("game").hidden = !game;
    part("echo").hidden = game;
    for (const link of document.querySelectorAll("nav a")) {
      if (link.hash === (game ? "#game" : "#echo")) link.setAttribute("aria-current", "page");
      else link.removeAttribute("aria-current");
    }
    this.feed.play(false);
    if (began) this.reset();
    if (!game) part("keys").focus();
    else part("start").focus();
  }
};

// One model, opened: its score, what it holds, and its hidden state.
Echospan.Card = class {
  constructor(source) {
    const card = part("model").content.cloneNode(true);
    const find = (selector) => card.querySelector(selector);
    this.source = source;
    find("h2").textContent = source.name;
    find(".about").textContent = `${source.core}, ${source.hidden} units, delays\u00a00\u2060–\u2060${source.maxDelay}`;
    find(".scroll").setAttribute("aria-label", `What ${source.name} holds now`);
    find("canvas").setAttribute("aria-label", `Heat map of ${source.name}'s ${source.hidden} hidden units over the last ${Echospan.SHOWN} steps`);
    this.score = find(".score output");
    this.of = find(".score span");
    this.scroll = find(".scroll");
    this.memory = new Echospan.Memory(find("table"), source.maxDelay);
    this.heat = new Echospan.Heat(find("canvas"), source.hidden);
    part("models").append(card);
    this.scroll.scrollLeft = this.scroll.scrollWidth; // the newest is right
  }

  draw(history, delay) {
    const { correct, answers } = history.score(delay);
    this.score.value = Echospan.percent(correct, answers);
    const known = this.source.recall?.[delay];
    this.of.textContent =
      delay > this.source.maxDelay
        ? `trained to delay ${this.source.maxDelay} only`
        : `of ${answers.toLocaleString("en")} answers right` +
          (known === undefined ? "" : `; ${(100 * known).toFixed(1)} % in its evaluation at delay ${delay}`);
    this.memory.draw(history, delay);
    this.heat.draw(history.steps);
  }
};

Echospan.notice = (text) => {
  part("notice").textContent = text;
  part("notice").hidden = !text;
};
