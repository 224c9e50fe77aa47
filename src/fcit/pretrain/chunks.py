"""What pretraining trains on: chunks of generic scenes as packed arrays, drawn one ahead."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future, ProcessPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from functools import lru_cache
from multiprocessing import get_context
from typing import TYPE_CHECKING, Any

import numpy as np

from fcit.benchmark import generic
from fcit.benchmark.generic.scene import pick
from fcit.seeds import numpy_stream

if TYPE_CHECKING:
    from tokenizers import Tokenizer

BATCH = 32
TEXT = 104
"""Text tokens behind each image: as many conversations as fit."""
CAPTION = 64
QUESTION = 40
PAIRS = 4
"""Pairs of instructions beside each image of the CLIP: texts are cheap, and contrast needs many."""
CHUNK = 1024
"""Scenes a side process prepares at a time."""
VOCABULARY = 1500


@dataclass(frozen=True)
class Drawn:
    """Prepared scenes: the fields of an LmmBatch or a ClipBatch, and the skills by row."""

    fields: dict[str, Any]
    skills: tuple[tuple[str, ...], ...] = ()

    def rows(self, start: int, count: int) -> dict[str, Any]:
        """One batch of rows."""
        return {name: array[start : start + count] for name, array in self.fields.items()}


@lru_cache(maxsize=4)
def tokenizer(seed: int) -> Tokenizer:
    """The tokenizer made from 3,000 scenes' texts and the word list."""
    from fcit.models import mini

    texts: list[str] = []
    for index in range(3000):
        scene = generic.sample(numpy_stream(seed, "pretrain-words", index))
        for saying in scene.sayings:
            texts += [saying.prompt, f" {saying.answer}"]
    names = [name.capitalize() for name in (*generic.TONES, *generic.KINDS) if len(name) > 1]
    openings = [f"{word}. {word}." for word in generic.OPENINGS for _ in range(len(texts) // 50)]
    return mini.build_tokenizer([*texts, *openings], [*generic.WORDS, *names], VOCABULARY)


PATCHES = ("kinds", "colours", "extents")


def _blank_patches(size: int) -> dict[str, Any]:
    from fcit.models import mini

    return {
        "kinds": np.zeros((size, mini.PATCHES), np.int16),
        "colours": np.zeros((size, mini.PATCHES), np.int16),
        "extents": np.zeros((size, mini.PATCHES, 4), np.float32),
    }


def sight_chunk(seed: int, purpose: str, number: int, size: int = CHUNK) -> Drawn:
    """`size` pictures of which it is known what each patch shows, without words."""
    from fcit.models import mini

    images = np.zeros((size, mini.SIZE, mini.SIZE, 3), np.uint8)
    fields = {"images": images, **_blank_patches(size)}
    for row in range(size):
        rng = numpy_stream(seed, purpose, number, row)
        scene = generic.sample(rng)
        while scene.things is None:
            scene = generic.sample(rng)
        images[row] = np.asarray(scene.image)
        for name, value in zip(PATCHES, generic.patches(scene.things), strict=True):
            fields[name][row] = value
    return Drawn(fields)


def lmm_chunk(seed: int, purpose: str, number: int, size: int = CHUNK) -> Drawn:
    """`size` scenes with as many of their questions, in random order, as fit."""
    from fcit.models import mini

    words = tokenizer(seed)
    fields = {
        "images": np.zeros((size, mini.SIZE, mini.SIZE, 3), np.uint8),
        "ids": np.zeros((size, TEXT), np.int16),
        "part": np.zeros((size, TEXT), np.int16),
        "weight": np.zeros((size, TEXT), np.float32),
        **_blank_patches(size),
    }
    skills: list[tuple[str, ...]] = []
    for row in range(size):
        rng = numpy_stream(seed, purpose, number, row)
        scene = generic.sample(rng)
        fields["images"][row] = np.asarray(scene.image)
        for name, value in zip(PATCHES, generic.patches(scene.things), strict=True):
            fields[name][row] = value
        at, part = 0, 0
        asked: list[str] = []
        for skill, turns in conversations(rng, scene):
            ids, learnt = mini.segment(words, turns)
            end = at + len(ids)
            if end > TEXT:
                continue
            part += 1
            asked.append(skill)
            fields["ids"][row, at:end] = ids
            fields["part"][row, at:end] = part
            # Long answers would drown the short ones; every answer counts, long ones a bit more.
            fields["weight"][row, at:end] = np.array(learnt) / np.sqrt(sum(learnt))
            at = end
            if TEXT - at < 8:
                break
        skills.append(tuple(asked))
    return Drawn(fields, tuple(skills))


def conversations(
    rng: np.random.Generator, scene: generic.Scene
) -> Iterator[tuple[str, list[tuple[str, str]]]]:
    """A scene's sayings as conversations in random order: mostly of one turn, some of two."""
    sayings = [scene.sayings[int(index)] for index in rng.permutation(len(scene.sayings))]
    if rng.random() < 0.35:
        sayings.sort(key=lambda saying: not saying.skill.endswith("dense"))
    while sayings:
        take = 2 if rng.random() < 0.08 else 1
        skill = sayings[0].skill if take == 1 else "two turns"
        yield skill, [(worded(rng, saying.prompt), saying.answer) for saying in sayings[:take]]
        sayings = sayings[take:]


_NAMES = re.compile(r"\b(" + "|".join([*generic.TONES[1:], *generic.KINDS[1:20]]) + r")\b")
_TAILS = ("One word.", "Keep it short.", "Answer in a word or two.", "Reply briefly.",
          "A word or short phrase will do.", "Just the answer.")  # fmt: skip


def worded(rng: np.random.Generator, prompt: str) -> str:
    """A prompt, sometimes with capital names, a line on the form of the answer, or idle words."""
    if rng.random() < 0.1:
        prompt = _NAMES.sub(lambda found: found[0].capitalize(), prompt)
    if rng.random() < 0.3:
        joint = "\n" if rng.random() < 0.6 else " "
        tail = pick(rng, _TAILS)
        if rng.random() < 0.5:
            tail = " ".join(_word(rng) for _ in range(int(rng.integers(3, 11)))).capitalize() + "."
        prompt = f"{prompt}{joint}{tail}"
    return prompt


def clip_chunk(seed: int, purpose: str, number: int, size: int = CHUNK) -> Drawn:
    """`size` scenes with a caption each, and `PAIRS` pairs of instructions of one kind beside it."""
    from fcit.models import mini

    words = tokenizer(seed)
    fields = {
        "images": np.zeros((size, mini.SIZE, mini.SIZE, 3), np.uint8),
        "captions": np.zeros((size, CAPTION), np.int16),
        "first": np.zeros((size, PAIRS, QUESTION), np.int16),
        "second": np.zeros((size, PAIRS, QUESTION), np.int16),
        "group": np.zeros((size, PAIRS), np.int64),
    }
    groups: dict[str, int] = {}
    for row in range(size):
        rng = numpy_stream(seed, purpose, number, row)
        scene = generic.sample(rng)
        fields["images"][row] = np.asarray(scene.image)
        saying = pick(rng, scene.sayings)
        told = scene.caption if rng.random() < 0.7 else f"{saying.prompt} {saying.answer}"
        fields["captions"][row] = _padded(words, told, CAPTION)
        for pair in range(PAIRS):
            kind, one, two = instruction_pair(rng, scene if pair == 0 else None)
            fields["first"][row, pair] = _padded(words, one, QUESTION)
            fields["second"][row, pair] = _padded(words, two, QUESTION)
            name = kind or f"{row}/{pair}"
            fields["group"][row, pair] = groups.setdefault(name, len(groups))
    return Drawn(fields)


def instruction_pair(
    rng: np.random.Generator, scene: generic.Scene | None = None
) -> tuple[str, str, str]:
    """Two instructions of one kind, and the kind's name ("" for a kind made up on the spot).

    With a scene it is a question of the scene's, worded twice. Else it is made-up jargon: sentences of
    little words, which all kinds share, and of a few words of the kind's own, with one or two places
    where anything of a list may stand, and a closing line that other kinds share too. So the encoder
    learns to tell apart wordings it never met.
    """
    if scene is not None:
        saying = pick(rng, scene.sayings)
        return saying.skill, worded(rng, saying.prompt), worded(rng, saying.prompt)
    own = [pick(rng, generic.WORDS) for _ in range(int(rng.integers(3, 7)))]
    lists = [[pick(rng, generic.WORDS) for _ in range(6)] for _ in range(int(rng.integers(1, 3)))]
    tail = pick(rng, (*_TAILS, "", ""))
    form = _form(rng, own, lists)
    other = form if rng.random() < 0.5 else _form(rng, own, lists)
    texts: list[str] = []
    for parts in (form, other):
        sentence = " ".join(pick(rng, part) for part in parts).capitalize()
        texts.append(f"{sentence}{pick(rng, ('?', '.'))} {tail}".strip())
    return "", texts[0], texts[1]


def _form(
    rng: np.random.Generator, own: Sequence[str], lists: Sequence[Sequence[str]]
) -> list[Sequence[str]]:
    """A sentence as the words that may stand at each place."""
    parts: list[Sequence[str]] = [
        (pick(rng, _LITTLE if rng.random() < 0.5 else own),)
        for _ in range(int(rng.integers(4, 12)))
    ]
    for choices in lists:
        parts.insert(int(rng.integers(len(parts) + 1)), choices)
    return parts


_LITTLE = (
    "the", "the", "a", "is", "is", "of", "in", "what", "which", "how", "many", "this", "are", "to",
    "there", "does", "image", "picture", "number", "color", "name", "and", "it", "what", "count",
)  # fmt: skip


def _word(rng: np.random.Generator) -> str:
    return pick(rng, _LITTLE if rng.random() < 0.35 else generic.WORDS)


def _padded(words: Tokenizer, text: str, width: int) -> Any:
    from fcit.models.mini import EOS

    ids = [*words.encode(text).ids[: width - 1], EOS]
    return np.array(ids + [0] * (width - len(ids)), np.int16)


@contextmanager
def batches_of(
    make: Callable[..., Drawn], seed: int, purpose: str, size: int
) -> Iterator[Callable[[int], dict[str, Any]]]:
    """A function from a step to the fields of `size` rows; a side process draws a chunk ahead."""
    per = CHUNK // size
    with ProcessPoolExecutor(1, mp_context=get_context("spawn")) as pool:
        waiting: dict[int, Future[Drawn]] = {}
        ready: dict[int, Drawn] = {}

        def batch(step: int) -> dict[str, Any]:
            number = step // per
            if number not in ready:
                ready.clear()
                for ahead in (number, number + 1):
                    if ahead not in waiting:
                        waiting[ahead] = pool.submit(make, seed, purpose, ahead, CHUNK)
                ready[number] = waiting.pop(number).result()
            return ready[number].rows(step % per * size, size)

        yield batch
