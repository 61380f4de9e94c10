// The rows of letters, aligned column by column: what was read, and below it what each model said.
"use strict";
globalThis.Echospan ??= {};

Echospan.Tape = class {
  constructor(element, names) {
    this.element = element;
    this.rows = [this.#row("read", "read"), ...names.map((name) => this.#row("echo", name))];
    this.columns = 0;
    new ResizeObserver(() => this.#fit()).observe(element);
    this.#fit();
  }

  #row(kind, name) {
    const row = document.createElement("div");
    row.className = `row ${kind}`;
    const label = document.createElement("span");
    label.className = "label";
    label.textContent = name;
    const cells = document.createElement("div");
    cells.className = "cells";
    row.append(label, cells);
    this.element.append(row);
    return { kind, cells };
  }

  // As many columns as there is room for.
  #fit() {
    const cell = parseFloat(getComputedStyle(this.element).getPropertyValue("--cell")) || 2;
    const rem = parseFloat(getComputedStyle(document.documentElement).fontSize);
    const room = Math.floor((this.rows[0].cells.clientWidth + 1) / (cell * rem));
    const columns = Math.max(4, Math.min(Echospan.SHOWN, room));
    if (columns === this.columns) return;
    this.columns = columns;
    for (const { kind, cells } of this.rows) {
      cells.replaceChildren(
        ...Array.from({ length: columns }, () => {
          const cell = document.createElement("span");
          cell.className = "cell";
          const above = document.createElement("b"); // a new delay, or nothing
          const letter = document.createElement("i");
          const below = document.createElement("u"); // right or wrong, for an answer
          cell.append(...(kind === "read" ? [above, letter] : [letter, below]));
          return cell;
        }),
      );
    }
    if (this.histories) this.draw(this.histories, this.delay);
  }

  // The letter that is due, `delay` before the newest, is framed.
  draw(histories, delay) {
    Object.assign(this, { histories, delay });
    this.rows.forEach(({ kind, cells }, place) => {
      const steps = histories[Math.max(0, place - 1)].steps.slice(-this.columns);
      const empty = this.columns - steps.length;
      for (let i = 0; i < this.columns; i++) {
        const step = steps[i - empty];
        const cell = cells.children[i];
        if (kind === "read") this.#read(cell, step, steps[i - empty - 1], this.columns - 1 - i === delay);
        else this.#said(cell, step);
      }
    });
  }

  #read(cell, step, before, due) {
    const [above, letter] = cell.children;
    const kind = step && due ? "cell due" : "cell";
    if (cell.className !== kind) cell.className = kind;
    set(letter, step?.symbol ?? "");
    set(above, step && step.delay !== before?.delay ? `d ${step.delay}` : "");
  }

  #said(cell, step) {
    const [letter, below] = cell.children;
    const blank = step && step.blank && step.right;
    const kind = !step || step.right === null ? "none" : blank ? "blank" : step.right ? "right" : "wrong";
    if (cell.className !== `cell ${kind}`) cell.className = `cell ${kind}`;
    set(letter, step?.echo ?? "");
    set(below, kind === "right" ? "✓" : kind === "wrong" ? "✗" : "");
  }
};

function set(element, text) {
  if (element.textContent !== text) element.textContent = text;
}
