// Characters of an alphabet, by code points as Python counts them: a string of JavaScript is indexed
// by UTF-16 units, two of which make an emoji. Ids are those of the models: 1 for the first
// character, 0 for the blank.
"use strict";
globalThis.Echospan ??= {};

Echospan.BLANK = "·";

Echospan.Alphabet = class {
  constructor(characters) {
    this.characters = [...characters];
    this.ids = new Map(this.characters.map((c, i) => [c, i + 1]));
  }

  get length() { return this.characters.length; }

  has(character) { return this.ids.has(character); }

  // The ids of the characters of a string or an array, all of which are in the alphabet.
  encode(characters) {
    return Array.from(characters, (c) => {
      const id = this.ids.get(c);
      if (id === undefined) throw new RangeError(`the character ${JSON.stringify(c)} is not in the alphabet`);
      return id;
    });
  }

  // A character in the form that is in the alphabet: itself, or in the other case; else undefined.
  find(character) {
    return [character, character.toLowerCase(), character.toUpperCase()].find((form) => this.has(form));
  }

  // What is drawn for an id: the blank has a mark, and what is invisible has a sign.
  draw(id) {
    return id ? Echospan.visible(this.characters[id - 1]) : Echospan.BLANK;
  }

  random() {
    return this.characters[Math.floor(Math.random() * this.length)];
  }
};

// A character as it can be seen on its own: spaces and controls as their pictures or numbers, a
// combining mark on a circle.
Echospan.visible = (character) => {
  const code = character.codePointAt(0);
  if (code === 0x20) return "␣";
  if (code < 0x20) return String.fromCodePoint(0x2400 + code);
  if (/^\p{M}/u.test(character)) return `\u25cc${character}`;
  if (/^[\p{Z}\p{C}]/u.test(character)) return code.toString(16).padStart(4, "0");
  return character;
};
