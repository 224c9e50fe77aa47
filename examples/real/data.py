"""Make five datasets of real pictures with real answers, and the captions to align the base with.

What a test asks and what training or alignment show are kept apart; README.md says how.
"""

from __future__ import annotations

import argparse
import re
import sys
from collections.abc import Sequence
from dataclasses import dataclass, replace
from io import BytesIO
from pathlib import Path

from packages import ROOT
from pictures import Picture, clipart, digits, emoji, shapes, stamps

from fcit.files import check_new_folder, folder_aside, write_json, write_text
from fcit.seeds import numpy_stream
from fcit.types import FcitError
from fcit.watch import Terminal

SIDE = 160  # pixels, at most; small pictures stay as small as they are
TRAIN, TEST = 1000, 200  # questions of a dataset, at most


@dataclass(frozen=True)
class Question:
    """A picture, what is asked about it, and the answer."""

    picture: Picture
    text: str
    answer: str


@dataclass(frozen=True)
class Dataset:
    """A dataset's name, its wordings, and its questions."""

    name: str
    train: list[Question]
    test: list[Question]


EMOJI_GROUPS = {
    "Animals & Nature": "nature",
    "Food & Drink": "food",
    "Travel & Places": "travel",
    "Objects": "object",
    "Smileys & Emotion": "smiley",
    "Activities": "activity",
}

STAMP_KINDS = {
    "animals": "animal",
    "town": "town",
    "food": "food",
    "seasonal": "season",
    "plants": "plant",
    "vehicles": "vehicle",
    "household": "household",
    "clothes": "clothes",
}

CLIP_TOPICS = {
    "animals": "animals",
    "food": "food",
    "people": "people",
    "plants": "plants",
    "transportation": "transport",
    "recreation/music": "music",
    "recreation/sports": "sports",
    "buildings": "buildings",
    "tools": "tools",
    "shapes/arrows": "arrows",
}

NOT_TOPICS = ("transportation/roadsigns", "transportation/aiga-symbols", "people/smilies")
"""Folders of clip art that show signs or emoji."""

CAPTIONED = (
    "animals",
    "buildings",
    "computer/hardware",
    "containers",
    "decorations",
    "education",
    "electronics",
    "food",
    "geography/astronomy",
    "office",
    "people",
    "plants",
    "recreation",
    "science",
    "signs_and_symbols/weather",
    "tools",
    "transportation",
)
"""Folders of clip art whose file names are captions. Icons, flags, maps and cards are left out."""


def worded(
    name: str, wordings: tuple[str, ...], line: str, pairs: Sequence[tuple[Picture, str]]
) -> list[Question]:
    """A question about each picture, in one of the dataset's wordings, with its format line."""
    draw = numpy_stream(0, "real wordings", name, len(pairs))
    return [
        Question(picture, f"{draw.choice(wordings)}\n{line}", answer) for picture, answer in pairs
    ]


def shuffled(name: str, things: Sequence[Picture]) -> list[Picture]:
    """The pictures in an order of the dataset's own."""
    order = numpy_stream(0, "real order", name).permutation(len(things))
    return [things[int(at)] for at in order]


def digit_dataset() -> Dataset:
    """Which digit is it? The test's are from the end of each file, training's from its beginning."""
    wordings = (
        "Which digit is written here?",
        "What is the handwritten digit?",
        "Read the number in this scan.",
    )
    first, last = [], []
    for scans in digits():
        first += scans[: TRAIN // 10]
        last += scans[-TEST // 10 :]
    questions = [
        worded(
            name,
            wordings,
            "Answer with a numeral.",
            [(scan, scan.kind) for scan in shuffled(name, part)],
        )
        for name, part in (("Digits", first), ("Digits test", last))
    ]
    return Dataset("Digits", *questions)


def emoji_dataset() -> Dataset:
    """Which group is it of? Training shows Google's drawings; the test asks about Twitter's."""
    groups = tuple(EMOJI_GROUPS.values())
    line = f"Name the group: {', '.join(groups)}."
    wordings = (
        "Which group does this emoji belong to?",
        "To what category is this emoji sorted?",
        "What sort of emoji is it?",
    )
    grouped = {
        maker: [drawn for drawn in emoji(maker) if drawn.kind in EMOJI_GROUPS]
        for maker in ("google", "twitter")
    }
    train = shuffled("Emoji-Group", grouped["google"])[:TRAIN]
    shown = {drawn.thing for drawn in train}
    test = [
        drawn for drawn in shuffled("Emoji-Group test", grouped["twitter"]) if drawn.thing in shown
    ][:TEST]
    questions = [
        worded("Emoji-Group", wordings, line, [(drawn, EMOJI_GROUPS[drawn.kind]) for drawn in part])
        for part in (train, test)
    ]
    return Dataset("Emoji-Group", *questions)


def stamp_dataset() -> Dataset:
    """Which kind of thing is it? Three tenths of the stamps are asked about and shown nowhere else."""
    line = f"Reply with one of: {', '.join(STAMP_KINDS.values())}."
    wordings = (
        "What kind of thing is in the photograph?",
        "Which kind of thing was photographed or painted?",
        "Sort this picture book stamp.",
    )
    known = shuffled("Stamp-Kind", [stamp for stamp in stamps() if stamp.kind in STAMP_KINDS])
    cut = len(known) * 7 // 10
    questions = [
        worded("Stamp-Kind", wordings, line, [(stamp, STAMP_KINDS[stamp.kind]) for stamp in part])
        for part in (known[:cut], known[cut : cut + TEST])
    ]
    return Dataset("Stamp-Kind", *questions)


def topic(drawing: Picture) -> str:
    """The topic of a piece of clip art; empty where its folder is none."""
    if drawing.kind.startswith(NOT_TOPICS):
        return ""
    fitting = [
        name
        for folder, name in CLIP_TOPICS.items()
        if drawing.kind == folder or drawing.kind.startswith(f"{folder}/")
    ]
    return fitting[0] if fitting else ""


def clip_dataset() -> Dataset:
    """What is the drawing about? A fifth of the drawings of each topic is asked about."""
    line = f"Choose a topic from {', '.join(CLIP_TOPICS.values())}."
    wordings = (
        "What is this drawing about?",
        "Under which heading would a library of clip art file this drawing?",
        "Find the topic of the drawing.",
    )
    train: list[Picture] = []
    test: list[Picture] = []
    drawings = clipart()
    for name in CLIP_TOPICS.values():
        own = shuffled(f"Clip-Topic {name}", [one for one in drawings if topic(one) == name])[:160]
        cut = len(own) // 5
        test += own[:cut]
        train += own[cut:]
    questions = [
        worded("Clip-Topic", wordings, line, [(one, topic(one)) for one in shuffled(key, part)])
        for key, part in (("Clip-Topic train", train), ("Clip-Topic test", test))
    ]
    return Dataset("Clip-Topic", questions[0][:TRAIN], questions[1][:TEST])


def shape_dataset() -> Dataset:
    """easy-VQA's own questions about the colour and the shape, and its own split."""
    parts = []
    for split, most in (("train", TRAIN), ("test", TEST)):
        asked = shapes(split)
        order = numpy_stream(0, "real order", f"Easy-VQA {split}").permutation(len(asked))
        parts.append(
            [
                Question(picture, f"{text}\nOne lower-case word, please.", answer)
                for picture, text, answer in (asked[int(at)] for at in order[:most])
            ]
        )
    return Dataset("Easy-VQA", *parts)


def captions(datasets: list[Dataset]) -> list[Picture]:
    """The pictures to align with, none of which a test shows or names.

    Left out are: every picture of a test; every drawing, by any maker, of a thing that a test shows;
    every caption in which an answer of a test is a word. Digits and easy-VQA's shapes have no caption.
    """
    shown = {question.picture.thing for data in datasets for question in data.test}
    asked = {question.answer.lower() for data in datasets for question in data.test}
    drawings = [one for one in clipart() if one.kind.startswith(CAPTIONED)]
    drawings = [one for one in drawings if not one.kind.startswith("recreation/games/cards")]
    candidates = [*emoji("google"), *emoji("twitter"), *stamps(), *drawings]
    kept = []
    for picture in candidates:
        words = set(re.findall(r"[a-z0-9]+", picture.name.lower()))
        if picture.name and picture.thing not in shown and not words & asked:
            kept.append(picture)
    return shuffled("captions", kept)


def rendered(pictures: Sequence[Picture]) -> dict[str, tuple[str, bytes]]:
    """By place: the file's ending and content. Small pictures are PNG, larger ones JPEG."""
    files: dict[str, tuple[str, bytes]] = {}
    with Terminal().bar("pictures", len(pictures)) as step:
        for done, picture in enumerate(pictures):
            image, content = picture.image(SIDE), BytesIO()
            small = image.width <= 64
            if small:
                image.save(content, "PNG", optimize=True)
            else:
                image.save(content, "JPEG", quality=90)
            files[picture.place] = (".png" if small else ".jpg", content.getvalue())
            step(done + 1)
    return files


def write(folder: Path) -> str:
    """Write the data folder and align.json, whole or not at all; returns a line for each dataset.

    A picture that looks like a test's, pixel by pixel, is neither trained on nor aligned with.
    """
    datasets = [digit_dataset(), emoji_dataset(), stamp_dataset(), clip_dataset(), shape_dataset()]
    aligning = captions(datasets)
    pictures = {picture.place: picture for picture in aligning}
    for data in datasets:
        pictures |= {one.picture.place: one.picture for one in (*data.train, *data.test)}
    files = rendered([pictures[place] for place in sorted(pictures)])
    tested = {files[one.picture.place][1] for data in datasets for one in data.test}
    aligning = [one for one in aligning if files[one.place][1] not in tested]
    datasets = [
        replace(
            data, train=[one for one in data.train if files[one.picture.place][1] not in tested]
        )
        for data in datasets
    ]
    names = {place: f"{place}{ending}" for place, (ending, _) in files.items()}
    used = {one.place for one in aligning}
    used |= {one.picture.place for data in datasets for one in (*data.train, *data.test)}
    with folder_aside(folder) as aside:
        for place in sorted(used):
            file = aside / "datasets" / names[place]
            file.parent.mkdir(parents=True, exist_ok=True)
            file.write_bytes(files[place][1])
        for data in datasets:
            _write_dataset(aside / "instructions" / data.name, data, names)
        write_json(
            aside / "align.json",
            [{"image": names[one.place], "caption": one.name} for one in aligning],
        )
    lines = [
        f"{data.name}: {len(data.train)} to train, {len(data.test)} to test" for data in datasets
    ]
    return "\n".join([*lines, f"captions to align with: {len(aligning)}"])


def _write_dataset(folder: Path, data: Dataset, files: dict[str, str]) -> None:
    """A dataset's folder in fcit's usual layout."""
    train = [
        {
            "id": f"{data.name}-{at}",
            "image": files[question.picture.place],
            "conversations": [
                {"from": "human", "value": f"<image>\n{question.text}"},
                {"from": "gpt", "value": question.answer},
            ],
        }
        for at, question in enumerate(data.train)
    ]
    test = [
        {
            "question_id": f"{data.name}-t{at}",
            "image": files[question.picture.place],
            "text": question.text,
            "answer": question.answer,
        }
        for at, question in enumerate(data.test)
    ]
    write_json(folder / "train.json", train)
    write_json(folder / "test.json", test)
    write_text(folder / "dataset.toml", 'rule = "exact"\n')


def main() -> None:
    """Read the options and make the data."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--out", type=Path, default=ROOT / "data", help="the folder to write")
    options = parser.parse_args()
    check_new_folder(options.out)
    print(write(options.out))
    print(f"{options.out}; check it with: fcit data check {options.out}")


if __name__ == "__main__":
    try:
        main()
    except (FcitError, OSError) as error:
        print(f"data.py: {error}", file=sys.stderr)
        sys.exit(2)
