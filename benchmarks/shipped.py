"""The models that are shipped, made anew and compared with those in the package.

    python -m benchmarks.shipped                    # trains all of them and compares, about 40 s
    python -m benchmarks.shipped --only bits
    python -m benchmarks.shipped --write            # puts the new ones in their place

The recipe must be the one that the shipped one names. Where versions, threads and machine are
those that it was made with, the weights must be equal bit for bit; where they are not, each may
give a share of 1 − its target of wrong answers to a text of 2,000 symbols, at each delay asked.
Anything else ends with exit code 1. Run it with OMP_NUM_THREADS=1, as they were made.
"""

import argparse
import itertools
import random
import sys

from echospan import hub, shipping
from echospan.checkpoint import fingerprint
from echospan.evaluation import as_report, evaluate, length_recall, stream_errors
from echospan.model import EchoModel
from echospan.recipes import RECIPES, Recipe
from echospan.training import train


def made_anew(recipe: Recipe) -> EchoModel:
    """The model that the recipe makes here."""
    result = train(recipe)
    assert result.reached, "the target is not reached"
    return result.model


def write(name: str, model: EchoModel) -> None:
    """Put it into the package, measured on a million symbols of stream too."""
    recipe = RECIPES[name]
    symbols, errors = stream_errors(model, 1_000_000)
    more = {
        "stream": {"symbols": symbols, "errors": errors},
        "lengths": length_recall(model, recipe.window),
    }
    evaluation = as_report(model, evaluate(model, trials=50_000), recipe.training.target, more)
    folder = shipping.HERE / name
    hub.save_pretrained(
        model, folder, evaluation=evaluation, license="mit", overwrite=True, name=name
    )


def recipe_of(model: EchoModel) -> Recipe:
    """The recipe that made it."""
    assert model.made is not None
    return Recipe(model=model.config, training=model.made.training)


def differs(new: EchoModel, old: EchoModel, target: float) -> tuple[bool, str]:
    """Whether the two differ, and how they were compared."""
    if recipe_of(new) != recipe_of(old):
        return True, "it was made by another recipe"
    if new.made == old.made:
        return fingerprint(new) != fingerprint(old), "bit for bit"
    text = "".join(random.Random(0).choices(old.alphabet.characters, k=2_000))
    worst = 0.0
    for model, delay in itertools.product((new, old), old.config.asked):
        said, due = model.echo(text, delay)[delay:], text[: len(text) - delay]
        worst = max(worst, sum(a != b for a, b in zip(said, due, strict=True)) / len(due))
    return worst > 1 - target, f"by answers, at most {worst:.2%} of one's at a delay are wrong"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--only", nargs="+", default=list(RECIPES), choices=RECIPES)
    parser.add_argument("--write", action="store_true")
    args = parser.parse_args()
    bad = 0
    for name in args.only:
        model = made_anew(RECIPES[name])
        if args.write:
            write(name, model)
        target = RECIPES[name].training.target
        differ, how = differs(model, shipping.shipped(name), target)
        bad += differ
        print(f"{name}: {'DIFFERS' if differ else 'the same'}, {how}", flush=True)
    sys.exit(1 if bad else 0)


if __name__ == "__main__":
    main()
