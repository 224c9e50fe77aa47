"""Ask a finished run its test questions in words that training did not have.

    .venv/bin/python examples/real/reworded.py runs/real/disco

Prints, for each dataset, the accuracy in the dataset's own words and in others, and how many of the
reworded questions open the same subspace most as they do in the dataset's own words.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import fcit
from fcit.types import FcitError, Sample

OTHERS = {
    "Digits": (
        "Somebody wrote one figure by hand. Which one?",
        "Tell me the number that the pen drew.",
        "From zero to nine, what do you see?",
    ),
    "Emoji-Group": (
        "Under what tab of an emoji keyboard would you look for this?",
        "Classify the little icon.",
        "Where in Unicode's chart does this symbol stand?",
    ),
    "Stamp-Kind": (
        "What is pictured, in general terms?",
        "Classify the object of this children's sticker.",
        "The picture shows something. Of what sort is it?",
    ),
    "Clip-Topic": (
        "Which theme fits this illustration?",
        "An office worker needs this graphic. Which folder is it in?",
        "Classify the illustration by subject.",
    ),
}
"""Easy-VQA's questions have many wordings of their own, so theirs stay."""

LINES = {
    "Digits": "A single figure, nothing else.",
    "Emoji-Group": "Possible answers: {}.",
    "Stamp-Kind": "The options are {}.",
    "Clip-Topic": "It is one of these: {}.",
    "Easy-VQA": "Answer in a single word without capitals.",
}
"""How to answer, said otherwise; {} is the list of answers in the dataset's own line."""


def reworded(name: str, samples: Sequence[Sample]) -> list[Sample]:
    """The questions of one dataset in other words, in turn."""
    asked = []
    for at, sample in enumerate(samples):
        question, line = sample.prompt.split("\n")
        if name in OTHERS:
            question = OTHERS[name][at % len(OTHERS[name])]
        for start in ("Name the group: ", "Reply with one of: ", "Choose a topic from "):
            line = line.removeprefix(start)
        answers = line.removesuffix(".")
        asked.append(replace(sample, prompt=f"{question}\n{LINES[name].format(answers)}"))
    return asked


def main() -> None:
    """Ask and print."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("run", type=Path, help="a finished run of recipe.toml or mixed.toml")
    run = fcit.Run(parser.parse_args().run)
    experiment = run.experiment
    if unknown := sorted(set(experiment.setting.datasets) - LINES.keys()):
        raise FcitError(
            f"{run.folder}: no other words for {unknown[0]}; give a run of examples/real"
        )
    worker = run.worker
    print("| dataset | own words | other words | same subspace |\n|---|---:|---:|---:|")
    for name in experiment.setting.datasets:
        samples = experiment.samples(name, "test")
        found = [worker.answers(asked) for asked in (samples, reworded(name, samples))]
        percents = [
            experiment.score(name, [one.text for one in answers], samples).percent
            for answers in found
        ]
        opened = [
            [max(one.activation, key=one.activation.__getitem__, default="") for one in answers]
            for answers in found
        ]
        same = sum(one == other for one, other in zip(*opened, strict=True))
        cells = " | ".join(f"{percent:.2f}" for percent in percents)
        print(f"| {name} | {cells} | {same} of {len(samples)} |", flush=True)


if __name__ == "__main__":
    try:
        main()
    except FcitError as error:
        print(f"reworded.py: {error}", file=sys.stderr)
        sys.exit(2)
