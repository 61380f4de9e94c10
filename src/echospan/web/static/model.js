// A model as echospan.export.pack writes it, at work without a server. Float32 like PyTorch's: what
// is kept from step to step is rounded to it, sums are taken in double precision.
"use strict";
globalThis.Echospan ??= {};

(() => {
  const FORMAT = 1;

  // base64 of float32, the lowest byte first.
  const numbers = ({ data }) => {
    const text = atob(data);
    const bytes = Uint8Array.from(text, (c) => c.charCodeAt(0));
    const view = new DataView(bytes.buffer);
    return Float32Array.from({ length: bytes.length / 4 }, (_, i) => view.getFloat32(4 * i, true));
  };

  // out = weight x + bias, weight (rows, x.length); four rows share what is loaded of x.
  const product = (out, weight, x, bias) => {
    const rows = out.length;
    const n = x.length;
    let row = 0;
    for (; row + 4 <= rows; row += 4) {
      const a = row * n, b = a + n, c = b + n, d = c + n;
      let p = bias[row], q = bias[row + 1], r = bias[row + 2], s = bias[row + 3];
      for (let i = 0; i < n; i++) {
        const v = x[i];
        p += weight[a + i] * v;
        q += weight[b + i] * v;
        r += weight[c + i] * v;
        s += weight[d + i] * v;
      }
      out[row] = p;
      out[row + 1] = q;
      out[row + 2] = r;
      out[row + 3] = s;
    }
    for (; row < rows; row++) {
      let p = bias[row];
      for (let i = 0; i < n; i++) p += weight[row * n + i] * x[i];
      out[row] = p;
    }
  };

  const sigmoid = (x) => 1 / (1 + Math.exp(-x));

  // By name: a core's state at the beginning, and what a step makes of it and of the projected
  // input x, in place. The first `hidden` numbers of a state are the output.
  const elman = (f) => ({ recurrent }, hidden) => {
    const last = new Float32Array(hidden);
    return {
      size: hidden,
      step(h, x) {
        last.set(h);
        product(h, recurrent, last, x);
        for (let i = 0; i < hidden; i++) h[i] = f(h[i]);
      },
    };
  };

  const CORES = {
    rnn: elman((x) => Math.max(0, x)),
    rnn_tanh: elman(Math.tanh),

    gru({ recurrent, candidate }, hidden) {
      const bias = new Float32Array(3 * hidden);
      const gates = new Float32Array(3 * hidden); // r, z, n
      return {
        size: hidden,
        step(h, x) {
          bias.set(x.subarray(0, 2 * hidden));
          bias.set(candidate, 2 * hidden);
          product(gates, recurrent, h, bias);
          for (let i = 0; i < hidden; i++) {
            const z = sigmoid(gates[hidden + i]);
            const n = Math.tanh(x[2 * hidden + i] + sigmoid(gates[i]) * gates[2 * hidden + i]);
            h[i] = (1 - z) * n + z * h[i];
          }
        },
      };
    },

    lstm({ recurrent }, hidden) {
      const gates = new Float32Array(4 * hidden); // input, forget, cell, output
      return {
        size: 2 * hidden, // the output, then the cell
        step(state, x) {
          product(gates, recurrent, state.subarray(0, hidden), x);
          for (let i = 0; i < hidden; i++) {
            const entered = sigmoid(gates[i]) * Math.tanh(gates[2 * hidden + i]);
            const cell = Math.fround(sigmoid(gates[hidden + i]) * state[hidden + i] + entered);
            state[hidden + i] = cell;
            state[i] = sigmoid(gates[3 * hidden + i]) * Math.tanh(cell);
          }
        },
      };
    },

    min_gru(weights, hidden) {
      const layers = 1 + Object.keys(weights).filter((name) => name.startsWith("bias_")).length;
      const gates = new Float32Array(2 * hidden); // z, candidate
      return {
        size: layers * hidden, // the last layer first
        step(state, x) {
          let from = x;
          for (let layer = 0; layer < layers; layer++) {
            const at = (layers - 1 - layer) * hidden;
            const h = state.subarray(at, at + hidden);
            for (let i = 0; i < hidden; i++) {
              const z = sigmoid(from[i]);
              h[i] = (1 - z) * h[i] + z * from[hidden + i];
            }
            if (layer + 1 === layers) break;
            product(gates, weights[`weight_${layer + 1}`], h, weights[`bias_${layer + 1}`]);
            from = gates;
          }
        },
      };
    },

    // Complex numbers, real and imaginary parts side by side.
    lru({ eigenvalues }, hidden) {
      return {
        size: hidden,
        step(h, x) {
          for (let i = 0; i < hidden; i += 2) {
            const a = eigenvalues[i], b = eigenvalues[i + 1];
            const re = h[i], im = h[i + 1];
            h[i] = a * re - b * im + x[i];
            h[i + 1] = a * im + b * re + x[i + 1];
          }
        },
      };
    },
  };

  // An object with {name, alphabet, maxDelay, delay, hidden, core, recall} and
  //   step(symbol) -> {hidden: Float32Array(hidden), logits: Float32Array((maxDelay + 1) · symbols)}
  //   reset()
  // where a symbol is 1 for the alphabet's first character, and logits stand by delay. A model that
  // is told the delay runs once for each of them; step(symbol, delay) says whose hidden is shown.
  Echospan.load = (packed) => {
    if (packed.format !== FORMAT) {
      throw new Error(`a model of format ${packed.format}, not ${FORMAT}; export it anew`);
    }
    const make = Object.hasOwn(CORES, packed.core) ? CORES[packed.core] : null;
    if (!make) throw new Error(`no core ${packed.core} runs in a page; open it with echospan serve`);
    const { name, alphabet, maxDelay, delay, hidden, core, recall } = packed;
    const weights = {};
    for (const part in packed.weights) weights[part] = numbers(packed.weights[part]);
    const { read, told, readouts, offsets } = weights;
    const symbols = packed.weights.read.shape[0];
    const width = packed.weights.read.shape[1];
    const { size, step } = make(weights, hidden);
    const states = Array.from({ length: told ? maxDelay + 1 : 1 }, () => new Float32Array(size));
    const x = new Float32Array(width);

    return {
      name, alphabet, maxDelay, delay, hidden, core, recall,

      step(symbol, shown = maxDelay) {
        if (!Number.isInteger(symbol) || symbol < 0 || symbol >= symbols) {
          throw new RangeError(`no symbol ${symbol}; use 0 to ${symbols - 1}`);
        }
        const logits = new Float32Array((maxDelay + 1) * symbols);
        states.forEach((state, d) => {
          x.set(read.subarray(symbol * width, (symbol + 1) * width));
          if (told) for (let i = 0; i < width; i++) x[i] += told[d * width + i];
          step(state, x);
          const out = told ? logits.subarray(d * symbols, (d + 1) * symbols) : logits;
          product(out, readouts, state.subarray(0, hidden), offsets);
        });
        return { hidden: states[told ? shown : 0].slice(0, hidden), logits };
      },

      reset() {
        for (const state of states) state.fill(0);
      },
    };
  };
})();
