"""Write scikit-learn's handwritten digits as a data folder for fcit with three datasets.

A data folder has the images in `datasets/`, and `instructions/<Name>/` with a train.json and a test.json
whose image paths start at `datasets/`. For your own data, replace `scans` and `QUESTIONS`.
"""

from __future__ import annotations

import argparse
import os
import shutil
import sys
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from PIL import Image

from fcit.files import write_json
from fcit.seeds import numpy_stream
from fcit.types import FcitError

SIDE = 48  # pixels: the mini model's input size (a scan has 8)
TEST_SHARE = 0.2


@dataclass(frozen=True)
class Question:
    """A dataset's question about a digit: wordings, format line, and the answer for each digit."""

    wordings: tuple[str, ...]
    format_line: str
    answers: tuple[str, ...]


QUESTIONS = {
    "Digit-Read": Question(
        (
            "Which digit is written here?",
            "What is the handwritten digit?",
            "Read the handwritten digit.",
        ),
        "Answer with a numeral.",
        tuple("0123456789"),
    ),
    "Digit-Parity": Question(
        (
            "Is the written number even or odd?",
            "Tell whether this number is even or odd.",
            "Is this an even number or an odd one?",
        ),
        "Reply even or odd.",
        ("even", "odd") * 5,
    ),
    "Digit-Size": Question(
        (
            "Is the written value five or more?",
            "Does the value reach five?",
            "Is the value at least five?",
        ),
        "Choose between yes and no.",
        ("no",) * 5 + ("yes",) * 5,
    ),
}


def scans() -> tuple[list[Image.Image], list[int]]:
    """The 1,797 scans as 48 x 48 images, dark ink on white, and the digit on each."""
    try:
        from sklearn.datasets import load_digits
    except ImportError:
        raise FcitError("the digits come with scikit-learn: pip install scikit-learn") from None
    ink, digits = load_digits(return_X_y=True)  # [1797, 64], 0 (paper) to 16 (ink)
    pixels = np.round(255 * (1 - ink.reshape(-1, 8, 8) / 16)).astype(np.uint8)
    images = [
        Image.fromarray(scan).resize((SIDE, SIDE), Image.Resampling.BICUBIC) for scan in pixels
    ]
    return images, [int(digit) for digit in digits]


def write(folder: Path, seed: int = 0) -> None:
    """Write the data folder completely or not at all. The same seed gives the same folder.

    A scan is a training image in all three datasets or a test image in all three, so no stage trains on
    an image that another one tests. Raises FcitError when the folder exists or cannot be written.
    """
    if folder.exists():
        raise FcitError(f"{folder}: exists already; remove it or name another folder")
    images, digits = scans()
    order = numpy_stream(seed, "digits split").permutation(len(images))
    test_scans = {int(at) for at in order[: round(TEST_SHARE * len(images))]}
    aside = folder.with_name(f".{folder.name}-{os.getpid()}.unfinished")
    try:
        (aside / "datasets" / "digits").mkdir(parents=True)
        for at, image in enumerate(images):
            image.save(aside / "datasets" / f"digits/{at:04d}.png")
        for name, question in QUESTIONS.items():
            wording = numpy_stream(seed, "digits wording", name)
            train, test = [], []
            for at, digit in enumerate(digits):
                prompt = f"{wording.choice(question.wordings)}\n{question.format_line}"
                shown, answer = {"image": f"digits/{at:04d}.png"}, question.answers[digit]
                human = {"from": "human", "value": f"<image>\n{prompt}"}
                turns = [human, {"from": "gpt", "value": answer}]
                if at in test_scans:
                    test.append({"question_id": at, **shown, "text": prompt, "answer": answer})
                else:
                    train.append({"id": at, **shown, "conversations": turns})
            write_json(aside / "instructions" / name / "train.json", train)
            write_json(aside / "instructions" / name / "test.json", test)
        aside.rename(folder)
    except OSError as error:
        raise FcitError(f"{folder}: cannot be written: {error.strerror}") from None
    finally:
        shutil.rmtree(aside, ignore_errors=True)


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description="Write the handwritten digits as a data folder.")
    default = Path(__file__).resolve().parent / "data"
    parser.add_argument("folder", nargs="?", type=Path, default=default, help="the folder to write")
    parser.add_argument("--seed", type=int, default=0, help="seed of the split and the wordings")
    options = parser.parse_args()
    try:
        write(options.folder, options.seed)
    except FcitError as error:
        print(f"make.py: {error}", file=sys.stderr)
        sys.exit(2)
    print(f"wrote {options.folder}; check it with: fcit data check {options.folder}")
