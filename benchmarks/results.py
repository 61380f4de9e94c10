"""docs/results.md, made of the stored profiles.

    python -m benchmarks.results            # writes it
    python -m benchmarks.results --check    # exits 1 where the page is not what the profiles say

Stored are docs/profile.json (`echospan profile …`), docs/others.json (`python -m benchmarks.others
--save docs/others.json`) and docs/span.jsonl (`python -m benchmarks.span --save docs/span.jsonl`).
"""

import json
import sys
from itertools import groupby
from pathlib import Path

from echospan.profiling import Profile, combine

DOCS = Path(__file__).parents[1] / "docs"


def table(profiles: list[Profile]) -> str:
    """The profiles as a table in Markdown."""
    heads = [h or "rising" for h in profiles[0].row()]
    lines = ["| " + " | ".join(heads) + " |", "|---" + "|---:" * (len(heads) - 1) + "|"]
    for p in profiles:
        row = p.row()
        row[""] = "yes" if p.rising else "no"
        lines.append("| " + " | ".join(row.values()) + " |")
    return "\n".join(lines)


def page() -> str:
    """All of docs/results.md."""
    told = json.loads((DOCS / "profile.json").read_text())
    profiles = [Profile.from_json(json.dumps(p)) for p in told]
    first = profiles[0]
    parts = [
        "# Results",
        "Made by `python -m benchmarks.results` from the stored profiles; do not edit.",
        f"## {len(profiles)} architectures, delays 0 to {first.max_delay}",
        f"{first.settings['seconds']:g} s for each, all included; {first.threads} threads, torch "
        f"{first.versions['torch']}, echospan {first.versions['echospan']}. span: learnt end to "
        f"end; reads, stores: found by a linear and an MLP probe; all at {first.at:.0%} recall. "
        f"bits: recalled, of {first.bits_asked:.1f}; /state: for each number carried; grad: how "
        "far the gradient reaches; k/s: thousand symbols a second in training; µs: of one streamed "
        "symbol; rising: whether recall was still growing when the time was up.",
        "    echospan profile "
        + " ".join(p.name for p in profiles)
        + f" --max-delay {first.max_delay} --seconds {first.settings['seconds']:g}",
        table(profiles),
        "![Recall against delay](profile.svg)",
    ]
    others = DOCS / "others.json"
    if others.exists():
        theirs = [Profile.from_json(json.dumps(p)) for p in json.loads(others.read_text())]
        parts += [
            "## Layers that others wrote",
            "`python -m benchmarks.others`: packages from PyPI, their layers as they are, 128 "
            f"wide, delays 0 to {theirs[0].max_delay}, {theirs[0].settings['seconds']:g} s each, "
            "the rate found in short trials. A state of thousands of numbers is a past that is "
            "read again.",
            table(theirs),
        ]
    stored = DOCS / "span.jsonl"
    if stored.exists():
        runs = [Profile.from_json(line) for line in stored.read_text().splitlines()]
        runs.sort(key=lambda p: (p.settings["seconds"], p.name))
        for seconds, some in groupby(runs, key=lambda p: p.settings["seconds"]):
            parts += [
                f"## The span in {seconds:g} s",
                "`python -m benchmarks.span`; sizes and delays asked are each core's own.",
                "| core | hidden | delays asked | seeds | span | each seed |\n"
                "|---|---:|---:|---:|---:|---|\n"
                + "\n".join(
                    f"| {p.name} | {p.hidden} | 0 to {p.max_delay} | {len(p.seeds)} | {p.span} | "
                    + ", ".join(str(s.span) for s in p.seeds)
                    + (" (rising)" if p.rising else "")
                    + " |"
                    for _, same in groupby(some, key=lambda p: p.name)
                    for p in [combine(list(same))]
                ),
            ]
    return "\n\n".join(parts) + "\n"


def main() -> None:
    target = DOCS / "results.md"
    if "--check" in sys.argv:
        if target.read_text() != page():
            print("docs/results.md is stale; make it with python -m benchmarks.results")
            sys.exit(1)
        return
    target.write_text(page())


if __name__ == "__main__":
    main()
