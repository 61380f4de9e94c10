// A heat map of the hidden state: a row for each unit, a column for each of the last 64 steps.
"use strict";
globalThis.Echospan ??= {};

Echospan.Heat = class {
  constructor(canvas, units) {
    this.canvas = canvas;
    canvas.width = Echospan.SHOWN;
    canvas.height = units;
    this.paper = canvas.getContext("2d", { alpha: false });
    this.image = this.paper.createImageData(canvas.width, units);
    const dark = matchMedia("(prefers-color-scheme: dark)");
    this.colours = palette(dark.matches);
    dark.addEventListener("change", () => {
      this.colours = palette(dark.matches);
      if (this.steps) this.draw(this.steps);
    });
  }

  draw(steps) {
    this.steps = steps;
    const pixels = new Uint32Array(this.image.data.buffer);
    pixels.fill(this.colours[127]);
    let most = 1e-6; // the brightest colour is the largest value that is shown
    for (const { hidden } of steps) for (const v of hidden ?? []) most = Math.max(most, Math.abs(v));
    const first = Echospan.SHOWN - steps.length;
    steps.forEach(({ hidden }, i) => {
      if (!hidden) return;
      for (let unit = 0; unit < hidden.length; unit++) {
        pixels[unit * Echospan.SHOWN + first + i] = this.colours[127 + Math.round((127 * hidden[unit]) / most)];
      }
    });
    this.paper.putImageData(this.image, 0, 0);
  }
};

// From blue over the paper's colour to orange, 255 colours as canvas pixels.
function palette(dark) {
  const middle = dark ? [27, 30, 35] : [250, 249, 246];
  const [low, high] = dark ? [[92, 184, 255], [255, 158, 87]] : [[8, 81, 140], [190, 74, 8]];
  return Uint32Array.from({ length: 255 }, (_, i) => {
    const value = (i - 127) / 127;
    const end = value < 0 ? low : high;
    const share = Math.abs(value) ** 0.8;
    const [r, g, b] = middle.map((m, c) => Math.round(m + (end[c] - m) * share));
    return ((255 << 24) | (b << 16) | (g << 8) | r) >>> 0;
  });
}
