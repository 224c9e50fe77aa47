"""caption: answers are scored together as captions, by their n-grams in common with references."""

from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar

from fcit.benchmark import captions, records
from fcit.benchmark.rules.base import Accuracy, Mode, Rule, Truths
from fcit.files import read_json, write_json
from fcit.types import FcitError, Sample


@dataclass(frozen=True)
class Caption(Rule):
    """The metrics are those of `captions.evaluate`; reference mode needs Java."""

    tries: ClassVar[int] = 20
    by_id: ClassVar[bool] = False
    file: str
    """The COCO file of references, beside the test file; its image n is that of the n-th test record."""

    @property
    def files(self) -> tuple[str, ...]:
        return (self.file,)

    def truths(self, test: Path, count: int) -> Callable[[dict[str, Any], int], tuple[str, ...]]:
        texts = references(test.with_name(self.file), count)

        def captions_of(record: dict[str, Any], at: int) -> tuple[str, ...]:
            if not any(map(str.strip, texts.get(at + 1, ()))):
                raise records.RecordError(f"{self.file} has no annotation with image_id {at + 1}")
            return texts[at + 1]

        return captions_of

    def write(self, test: Path, samples: Sequence[Sample]) -> None:
        pairs = [(at, text) for at, sample in enumerate(samples, 1) for text in sample.answers]
        value = {
            "images": [
                {"id": at, "file_name": sample.image} for at, sample in enumerate(samples, 1)
            ],
            "annotations": [
                {"id": number, "image_id": image, "caption": text}
                for number, (image, text) in enumerate(pairs, 1)
            ],
        }
        write_json(test.with_name(self.file), value)

    def score(self, answers: Sequence[str], truths: Truths, mode: Mode) -> Accuracy:
        return Accuracy(*captions.evaluate(answers, truths, mode == "reference"))

    def best_constant(self, answers: Counter[str], truths: Truths, mode: Mode) -> str:
        frequent = [caption for caption, _ in answers.most_common(self.tries)]
        return captions.best_constant(frequent, truths, mode == "reference")

    def require(self, mode: Mode) -> None:
        if mode == "reference":
            captions.java()

    def key(
        self, file: Path, test_file: str, ids: Sequence[str], mode: Mode
    ) -> tuple[dict[str, tuple[str, ...]], Sequence[str]]:
        """`file` is the COCO file, whose images are 1, 2, ... In reference mode the n-th prediction is
        that of image n. In strict mode a question id is the number of an image, or that of a test record
        if the test file stands beside `file`."""
        texts = references(file)
        for number in range(1, max(texts, default=1) + 1):
            if number not in texts:
                raise FcitError(f"{file}: has no annotation with image_id {number}")
        truths = {str(number): texts[number] for number in range(1, len(texts) + 1)}
        if mode == "reference":
            if len(ids) > len(truths):
                raise FcitError(f"{len(ids)} texts, but {file} has {len(truths)} images")
            return truths, list(truths)[: len(ids)]
        beside = file.with_name(test_file)
        if beside.is_file():
            names = records.sound(records.parse(beside, records.stream(beside), records.identifier))
            if len({*names}) == len(names) == len(truths) and {*names} >= {*ids}:
                return dict(zip(names, truths.values(), strict=True)), ids
        if unknown := next((name for name in ids if name not in truths), None):
            raise FcitError(
                f"question_id {unknown!r} is none of the image numbers of {file} (1 to {len(truths)}), "
                f"and ids of {test_file} are known only if that stands beside it"
            )
        return truths, ids


def references(path: Path, count: int | None = None) -> dict[int, tuple[str, ...]]:
    """Captions by the number of their image (from 1) of a COCO caption file.

    `count` is how many test records there are, where that is known. Raises FcitError.
    """
    value = read_json(path)
    notes = value.get("annotations") if isinstance(value, dict) else None
    if not isinstance(notes, list):
        raise FcitError(f'{path}: must be an object with a list of "annotations"')
    captions: dict[int, tuple[str, ...]] = {}
    for number, note in enumerate(notes, 1):
        key = note.get("image_id") if isinstance(note, dict) else None
        caption = note.get("caption") if isinstance(note, dict) else None
        where = f"{path}, annotation {number}: "
        if not isinstance(caption, str) or type(key) is not int:
            raise FcitError(f'{where}needs a whole number "image_id" and a text "caption"')
        if count is not None and not 1 <= key <= count:
            raise FcitError(f"{where}image_id {key}, but the test file has {count} records")
        try:
            captions[key] = (*captions.get(key, ()), records.text(note, "caption"))
        except records.RecordError as error:
            raise FcitError(f"{where}{error}") from None
    return captions
