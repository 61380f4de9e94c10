// The memory laid open: what each read-out believes, at every delay at once.
"use strict";
globalThis.Echospan ??= {};

Echospan.Memory = class {
  constructor(table, maxDelay) {
    this.maxDelay = maxDelay;
    this.rows = {};
    const head = table.createTHead().insertRow();
    head.append(cell("th", "delay", "row"));
    this.heads = this.#each(head, (d) => cell("th", String(d), "col"));
    const body = table.createTBody();
    for (const [name, head] of [["read", "read"], ["believes", "believes"], ["sure", "sure %"], ["recall", "recall %"]]) {
      const row = body.insertRow();
      row.className = name;
      row.append(cell("th", head, "row"));
      this.rows[name] = this.#each(row, () => cell("td", ""));
    }
    for (const td of this.rows.believes) {
      const letter = document.createElement("span");
      const mark = document.createElement("small");
      td.append(letter, mark);
    }
  }

  // A cell for each delay, the oldest left, as the letters stand; by delay in what is returned.
  #each(row, make) {
    const cells = [];
    for (let d = this.maxDelay; d >= 0; d--) {
      cells[d] = make(d);
      row.append(cells[d]);
    }
    return cells;
  }

  draw(history, delay) {
    for (let d = 0; d <= this.maxDelay; d++) {
      const belief = history.beliefs?.[d];
      const truth = history.truth(d);
      const right = belief?.id === truth.id;
      const blank = right && truth.id === 0;
      this.heads[d].classList.toggle("asked", d === delay);
      this.rows.read[d].textContent = history.read ? truth.symbol : "";
      const [letter, mark] = this.rows.believes[d].children;
      letter.textContent = belief?.symbol ?? "";
      mark.textContent = !belief || blank ? "" : right ? "✓" : "✗";
      const kind = !belief ? "" : blank ? "blank" : right ? "right" : "wrong";
      this.rows.believes[d].className = d === delay ? `${kind} asked` : kind;
      this.rows.believes[d].style.setProperty("--sure", belief?.sure ?? 0);
      this.rows.sure[d].textContent = belief ? String(Math.floor(100 * belief.sure + 1e-6)) : "";
      const { answers, correct } = history.byDelay[d];
      this.rows.recall[d].textContent = answers ? String(Math.floor((100 * correct) / answers)) : "";
    }
  }
};

function cell(kind, text, scope) {
  const made = document.createElement(kind);
  made.textContent = text;
  if (scope) made.scope = scope;
  return made;
}
