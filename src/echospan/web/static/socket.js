// Models behind a socket: a source for each. A connection that is lost is taken up again, and what
// was not answered is sent again under its number, so that nothing is read twice.
"use strict";
globalThis.Echospan ??= {};

// The socket's address, beside the page's: under the path of a proxy, too.
Echospan.beside = (page) => {
  const address = new URL("socket", page);
  address.protocol = address.protocol === "https:" ? "wss:" : "ws:";
  return address.href;
};

// Resolves to the sources. `status(kind, reason)` hears of "lost", "back", "forgotten" and "closed".
Echospan.connect = (status, address = Echospan.beside(document.baseURI)) =>
  new Promise((resolve) => {
    let token = null;
    let sources = null;
    let socket = null;
    let wait = 250;

    function open() {
      socket = new WebSocket(address);
      socket.onopen = () => socket.send(JSON.stringify({ hello: token }));
      socket.onmessage = ({ data }) => heard(JSON.parse(data));
      socket.onclose = ({ code, reason }) => lost(code, reason);
    }

    function heard(told) {
      if (!("welcome" in told)) {
        sources[told.model].heard(told);
        return;
      }
      const again = token !== null;
      token = told.welcome;
      wait = 250;
      if (sources === null) {
        sources = told.models.map((model, place) => new Source(model, place, send));
        resolve(sources);
        return;
      }
      told.models.forEach((model, place) => sources[place].resume(told.kept));
      if (again) status(told.kept ? "back" : "forgotten", "");
    }

    function lost(code, reason) {
      socket = null;
      if ([1003, 1007, 1008, 1009, 1011, 4000].includes(code)) {
        status("closed", reason); // it would be refused again
        return;
      }
      status("lost", reason);
      setTimeout(open, wait);
      wait = Math.min(2 * wait, 5000);
    }

    function send(frame) {
      if (socket?.readyState === WebSocket.OPEN) socket.send(JSON.stringify(frame));
    }

    open();
  });

class Source {
  constructor(told, place, send) {
    Object.assign(this, told);
    this.alphabet = new Echospan.Alphabet(told.alphabet);
    this.place = place;
    this.send = send;
    this.number = 0;
    this.unanswered = []; // {frame, delay, resolve}, the oldest first
  }

  // Steps for each of `characters`, all of which are in the model's alphabet; a frame holds so many.
  async push(characters, delay) {
    const ids = this.alphabet.encode(characters);
    const answers = [];
    for (let i = 0; i < ids.length; i += this.batch) {
      const part = ids.slice(i, i + this.batch);
      answers.push(this.#ask({ push: ++this.number, model: this.place, ids: part, delay }, delay));
    }
    return (await Promise.all(answers)).flat();
  }

  reset() {
    return this.#ask({ reset: ++this.number, model: this.place }, 0);
  }

  #ask(frame, delay) {
    return new Promise((resolve) => {
      this.unanswered.push({ frame, delay, resolve });
      this.send(frame);
    });
  }

  // A new connection: send again what has no answer. A server that has forgotten counts from 1.
  resume(kept) {
    if (!kept) {
      this.number = 0;
      for (const { frame } of this.unanswered) {
        frame["push" in frame ? "push" : "reset"] = ++this.number;
      }
    }
    for (const { frame } of this.unanswered) this.send(frame);
  }

  heard(told) {
    const { frame, delay, resolve } = this.unanswered[0] ?? {};
    if (!frame || (told.push ?? told.reset) !== (frame.push ?? frame.reset)) return;
    this.unanswered.shift();
    resolve("reset" in told ? [] : this.#steps(told, frame.ids, delay));
  }

  #steps(told, ids, delay) {
    const bytes = Int8Array.from(atob(told.hidden), (c) => c.charCodeAt(0));
    const first = told.said.length - told.scale.length; // only the last steps' states are sent
    return ids.map((id, t) => {
      const beliefs = told.said[t].map((best, d) => ({
        id: best,
        symbol: this.alphabet.draw(best),
        sure: told.sure[t][d] / 1000,
      }));
      const row = t - first;
      const hidden =
        row < 0
          ? null
          : Float32Array.from(
              bytes.subarray(row * this.hidden, (row + 1) * this.hidden),
              (v) => (v * told.scale[row]) / 127,
            );
      return { id, symbol: this.alphabet.draw(id), echo: beliefs[delay], hidden, beliefs };
    });
  }
}

// A page that was served begins here.
addEventListener("DOMContentLoaded", async () => {
  const status = (kind, reason) => {
    const because = reason ? ` (${reason})` : "";
    if (kind === "lost") Echospan.notice(`The connection is lost${because}; it is tried again, and what you type waits.`);
    if (kind === "closed") Echospan.notice(`The server has closed the connection${because}. Reload the page to begin anew.`);
    if (kind === "back") Echospan.notice("");
    if (kind === "forgotten") {
      Echospan.page?.forget();
      Echospan.notice("The server no longer knows what was typed before the connection was lost: the models begin anew.");
    }
  };
  const sources = await Echospan.connect(status);
  Echospan.page = new Echospan.Page(sources, `What you type is sent to ${location.host}, where the models run.`);
});
