"""The model in plain JavaScript: size, equality with PyTorch, symbols a second in a browser.

    python -m benchmarks.browser                # the recipe `variable`, trained to its end
    python -m benchmarks.browser --quick        # hardly trained
    python -m benchmarks.browser --core lstm --seconds 10

Equality: answers to 10,000 random characters at every delay, letter for letter, in Chromium and in
node, where they are installed; what differs is a tie to rounding or a fault, as PyTorch's logits
tell. Speed: the best of five rounds over them, all read-outs asked.
"""

import argparse
import dataclasses
import html
import json
import random
import re
import shutil
import subprocess
import tempfile
from pathlib import Path

import torch

import echospan
from echospan.export import pack
from echospan.model import EchoModel
from echospan.recipes import RECIPES
from echospan.training import train

SCRIPT = Path(echospan.__file__).parent / "web" / "static" / "model.js"

WORK = """
const model = Echospan.load(given.packed);
const symbols = given.packed.alphabet.length + 1;
const best = ({ logits }) => Array.from({ length: model.maxDelay + 1 }, (_, d) => {
  const at = logits.subarray(d * symbols, (d + 1) * symbols);
  return at.indexOf(Math.max(...at));
});
const answers = given.ids.map((id) => best(model.step(id)));
let fastest = 0;
for (let round = 0; round < 5; round++) {
  const start = performance.now();
  for (const id of given.ids) model.step(id);
  fastest = Math.max(fastest, (given.ids.length / (performance.now() - start)) * 1000);
}
const told = JSON.stringify({ fastest, answers });
"""


def in_node(given: str) -> str:
    code = f"{SCRIPT.read_text()}\nconst given = {given};\n{WORK}\nconsole.log(told);"
    done = subprocess.run(["node", "-"], input=code, capture_output=True, text=True, check=True)
    return done.stdout


def in_chromium(given: str) -> str:
    page = (
        f"<script>{SCRIPT.read_text()}</script><script>const given = {given};\n{WORK}\n"
        'addEventListener("DOMContentLoaded", () => { document.body.textContent = told; });'
        "</script><body></body>"
    )
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder) / "page.html"
        file.write_text(page)
        command = ["chromium", "--headless", "--no-sandbox", "--disable-gpu", "--dump-dom"]
        done = subprocess.run(
            [*command, f"--user-data-dir={folder}/profile", file.as_uri()],
            capture_output=True,
            text=True,
            check=True,
        )
    return html.unescape(re.search(r"<body>(.*?)</body>", done.stdout, re.S)[1])  # type: ignore[index]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--quick", action="store_true")
    parser.add_argument("--core", default="gru")
    parser.add_argument("--seconds", type=float, default=600.0, help="of training, at most")
    args = parser.parse_args()
    recipe = RECIPES["variable"]
    recipe = dataclasses.replace(recipe, model=dataclasses.replace(recipe.model, core=args.core))
    budget = {"steps": 5} if args.quick else {"seconds": args.seconds}
    recipe = dataclasses.replace(recipe, training=dataclasses.replace(recipe.training, **budget))
    model: EchoModel = train(recipe).model.eval()
    ids = random.Random(0).choices(range(1, model.symbols), k=10_000)
    given = json.dumps({"packed": pack(model), "ids": ids})
    with torch.no_grad():
        logits = model(torch.tensor([ids]))[0][0]  # (step, delay, symbol)
    print(f"{args.core}: {len(json.dumps(pack(model))) / 1000:.0f} KB")
    for name, run in (("chromium", in_chromium), ("node", in_node)):
        if shutil.which(name) is None:
            print(f"{name}: not installed")
            continue
        told = json.loads(run(given))
        answers = torch.tensor(told["answers"])[..., None]
        behind = logits.amax(-1) - logits.gather(-1, answers).squeeze(-1)
        differ = int((answers.squeeze(-1) != logits.argmax(-1)).any(-1).sum())
        print(
            f"{name}: {told['fastest']:,.0f} symbols a second, {len(ids) - differ:,} of 10,000 "
            f"steps equal"
            + (
                f"; by PyTorch's logits at most {behind.max():.1g} behind the best"
                if differ
                else ""
            )
        )


if __name__ == "__main__":
    main()
