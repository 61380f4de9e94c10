// node run_packed.js model.js < {packed, ids} > logits of every step, float32
"use strict";
const fs = require("node:fs");
(0, eval)(fs.readFileSync(process.argv[2], "utf8")); // as a page runs it: a script, no module
const { packed, ids } = JSON.parse(fs.readFileSync(0, "utf8"));
const model = globalThis.Echospan.load(packed);
for (const id of ids.slice(0, 50)) model.step(id);
model.reset();
const logits = ids.map((id) => Buffer.from(model.step(id).logits.buffer));
fs.writeFileSync(1, Buffer.concat(logits));
