"""The training data of pretraining: chunks of generic scenes as packed arrays, prepared one ahead."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ProcessPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from functools import lru_cache
from multiprocessing import get_context
from typing import TYPE_CHECKING, Any

import numpy as np

from fcit.seeds import numpy_stream
from fcit.suite.drawn import pick
from tools.mini_models import generic

if TYPE_CHECKING:
    from tokenizers import Tokenizer

BATCH = 32
TEXT = 112
"""Text tokens behind each image: as many conversations as fit."""
CAPTION = 64
TEXTS = 6
"""Instructions beside each image of the CLIP: two about the image, the others made up."""
CHUNK = 1024
"""Scenes a side process prepares at a time."""
VOCABULARY = 1800


@dataclass(frozen=True)
class Drawn:
    """Prepared scenes: the fields of a batch (see losses.py), and the skills by row."""

    fields: dict[str, Any]
    skills: tuple[tuple[str, ...], ...] = ()

    def rows(self, start: int, count: int) -> dict[str, Any]:
        """One batch of rows."""
        return {name: array[start : start + count] for name, array in self.fields.items()}


@lru_cache(maxsize=4)
def tokenizer(seed: int) -> Tokenizer:
    """The tokenizer made from 3,000 scenes' texts and the word list."""
    from tools.mini_models import architecture as mini

    texts: list[str] = []
    for index in range(3000):
        scene = generic.sample(numpy_stream(seed, "pretrain-words", index))
        for saying in scene.sayings:
            texts += [saying.prompt, f" {saying.answer}"]
    names = [name.capitalize() for name in (*generic.TONES, *generic.KINDS) if len(name) > 1]
    openings = [f"{word}. {word}." for word in generic.OPENINGS for _ in range(len(texts) // 50)]
    return mini.build_tokenizer([*texts, *openings], [*generic.WORDS, *names], VOCABULARY)


PATCHES = ("kinds", "colours", "middles", "boxes")


def names(words: Tokenizer) -> tuple[list[int], list[int]]:
    """The token of each kind and colour that a patch may show; -1 if it is not a single token."""

    def token(name: str) -> int:
        text = name if len(name) == 1 else f" {name}"
        ids = words.encode(text).ids
        return ids[0] if len(ids) == 1 else -1

    kinds = [-1, *(token(name) for name in generic.KINDS[1:])]
    return kinds, [-1, *(token(name) for name in generic.TONES[1:])]


def _blank(size: int) -> dict[str, Any]:
    from tools.mini_models import architecture as mini

    fields: dict[str, Any] = {
        name: np.zeros((size, mini.PATCHES), np.int16) for name in PATCHES[:3]
    }
    fields["boxes"] = np.zeros((size, mini.PATCHES, 4), np.float32)
    fields["images"] = np.zeros((size, mini.SIZE, mini.SIZE, 3), np.uint8)
    return fields


def _show(fields: dict[str, Any], row: int, scene: generic.Scene) -> None:
    fields["images"][row] = np.asarray(scene.image)
    seen = generic.patches(scene.things)
    for name in PATCHES:
        fields[name][row] = getattr(seen, name)


def sight_chunk(seed: int, purpose: str, number: int, size: int = CHUNK) -> Drawn:
    """`size` pictures with a label for each patch, without text."""
    fields = _blank(size)
    for row in range(size):
        _show(fields, row, generic.sample(numpy_stream(seed, purpose, number, row)))
    return Drawn(fields)


def lmm_chunk(seed: int, purpose: str, number: int, size: int = CHUNK) -> Drawn:
    """`size` scenes, each with as many of its questions as fit, in random order. Half of them begin
    with a drill in text only."""
    from tools.mini_models import architecture as mini

    words = tokenizer(seed)
    fields = _blank(size) | {
        "ids": np.zeros((size, TEXT), np.int16),
        "part": np.zeros((size, TEXT), np.int16),
        "weight": np.zeros((size, TEXT), np.float32),
    }
    skills: list[tuple[str, ...]] = []
    for row in range(size):
        rng = numpy_stream(seed, purpose, number, row)
        scene = generic.sample(rng)
        _show(fields, row, scene)
        at, part = 0, 0
        asked: list[str] = []
        drills = [generic.drill(rng)] if rng.random() < 0.5 else []
        for skill, turns in (*drills, *conversations(rng, scene)):
            ids, learnt = mini.segment(words, turns)
            end = at + len(ids)
            if end > TEXT:
                continue
            part += 1
            asked.append(skill)
            fields["ids"][row, at:end] = ids
            fields["part"][row, at:end] = part
            # Long answers would dominate short ones: every answer counts, long ones a little more.
            fields["weight"][row, at:end] = np.array(learnt) / np.sqrt(sum(learnt) / len(turns))
            at = end
            if TEXT - at < 8:
                break
        skills.append(tuple(asked))
    return Drawn(fields, tuple(skills))


def conversations(
    rng: np.random.Generator, scene: generic.Scene
) -> Iterator[tuple[str, list[tuple[str, str]]]]:
    """A scene's questions as conversations in random order: mostly of one turn, some of two."""
    sayings = [formed(rng, scene.sayings[int(i)]) for i in rng.permutation(len(scene.sayings))]
    while sayings:
        take = 2 if rng.random() < 0.08 else 1
        skill = sayings[0].skill if take == 1 else "two turns"
        yield skill, [(worded(rng, saying.prompt), saying.answer) for saying in sayings[:take]]
        sayings = sayings[take:]


def formed(rng: np.random.Generator, saying: generic.Saying) -> generic.Saying:
    """A question as it is, with lettered options, or as a yes/no question."""
    if len(set(saying.pool) - {saying.answer}) < 1 or rng.random() < 0.66:
        return saying
    return generic.choose(rng, saying) if rng.random() < 0.5 else generic.doubt(rng, saying)


_NAMES = re.compile(r"\b(" + "|".join([*generic.TONES[1:], *generic.KINDS[1:20]]) + r")\b")
_LEADS = ("Look.", "See the picture.", "Tell me:", "Here it is.", "A picture.", "Please:")
_TAILS = ("One word.", "Keep it short.", "Answer in a word or two.", "Reply briefly.",
          "A word or short phrase will do.", "Just the answer.")  # fmt: skip


def worded(rng: np.random.Generator, prompt: str) -> str:
    """A prompt, sometimes with capitalized names, a format line, or filler words."""
    if rng.random() < 0.1:
        prompt = _NAMES.sub(lambda found: found[0].capitalize(), prompt)
    if rng.random() < 0.06:
        prompt = f"{pick(rng, _LEADS)} {prompt}"
    if rng.random() < 0.25:
        joint = "\n" if rng.random() < 0.6 else " "
        tail = pick(rng, _TAILS)
        if rng.random() < 0.5:
            tail = " ".join(_word(rng) for _ in range(int(rng.integers(3, 11)))).capitalize() + "."
        prompt = f"{prompt}{joint}{tail}"
    return prompt


def clip_chunk(seed: int, purpose: str, number: int, size: int = CHUNK) -> Drawn:
    """`size` scenes with a caption each, and with `TEXTS` instructions and their target features."""
    from tools.mini_models import architecture as mini

    words, aims = tokenizer(seed), directions(seed)
    fields = {
        "images": np.zeros((size, mini.SIZE, mini.SIZE, 3), np.uint8),
        "captions": np.zeros((size, CAPTION), np.int16),
        "texts": np.zeros((size, TEXTS, mini.CLIP_POSITIONS), np.int16),
        "aims": np.zeros((size, TEXTS, aims.shape[1]), np.float32),
    }
    for row in range(size):
        rng = numpy_stream(seed, purpose, number, row)
        scene = generic.sample(rng)
        fields["images"][row] = np.asarray(scene.image)
        saying = pick(rng, scene.sayings)
        told = scene.caption if rng.random() < 0.7 else f"{saying.prompt} {saying.answer}"
        fields["captions"][row] = _padded(words, told, CAPTION)
        for place in range(TEXTS):
            text = worded(rng, pick(rng, scene.sayings).prompt) if place < 2 else jargon(rng)
            ids = _padded(words, text, mini.CLIP_POSITIONS)
            fields["texts"][row, place] = ids
            fields["aims"][row, place] = aims[ids].sum(axis=0)
    return Drawn(fields)


@lru_cache(maxsize=4)
def directions(seed: int) -> np.ndarray:
    """The direction of each token in feature space: random, and longer for a rarer token.

    A text's target is the sum over its tokens. So texts are close to each other if they share words,
    and words that every instruction has (function words, format lines) count less.
    """
    from tools.mini_models import architecture as mini

    words = tokenizer(seed)
    seen, texts = np.ones(words.get_vocab_size()), 1
    for index in range(600):
        rng = numpy_stream(seed, "pretrain-rarity", index)
        for saying in generic.sample(rng).sayings:
            prompt = worded(rng, saying.prompt)
            seen[list({*words.encode(prompt).ids, *words.encode(pick(rng, FORMS)).ids})] += 1
            texts += 1
    # Bounded, so that a rare name does not outweigh the wording around it.
    length = np.clip(np.log(texts / seen), 0.3, 5.0)
    length[: len(mini.SPECIALS)] = 0.0
    rng = numpy_stream(seed, "pretrain-directions")
    drawn = rng.normal(size=(len(length), mini.CLIP_WIDTH)) / np.sqrt(mini.CLIP_WIDTH)
    return (drawn * length[:, None]).astype(np.float32)


FORMS = (
    "Answer with one word or phrase.",
    "Answer the question using few words.",
    "A single word or phrase.",
    "Answer with a letter from the choices.",
    "Answer directly with the given option's letter.",
    "Generate a caption.",
    "A brief caption for the image.",
    "Give the answer directly.",
)
"""Lines on the form of an answer, which tell little of what is asked."""


def jargon(rng: np.random.Generator) -> str:
    """An invented instruction of one to four sentences, so that the model learns to distinguish any
    wording."""
    sentences: list[str] = []
    for _ in range(1 if rng.random() < 0.6 else int(rng.integers(2, 5))):
        length = int(rng.integers(3, 13))
        text = " ".join(_word(rng) for _ in range(length)).capitalize()
        sentences.append(text + pick(rng, ("?", ".", ":", "")))
    if rng.random() < 0.5:
        sentences.append(pick(rng, (*_TAILS, *FORMS)))
    return pick(rng, (" ", "\n")).join(sentences)


_LITTLE = (
    "the", "the", "a", "is", "is", "of", "in", "what", "which", "how", "many", "this", "are", "to",
    "there", "does", "image", "picture", "number", "color", "name", "and", "it", "what", "count",
)  # fmt: skip


def _word(rng: np.random.Generator) -> str:
    return pick(rng, _LITTLE if rng.random() < 0.35 else generic.WORDS)


def _padded(words: Tokenizer, text: str, width: int) -> Any:
    from tools.mini_models.architecture import EOS

    ids = [*words.encode(text).ids[: width - 1], EOS]
    return np.array(ids + [0] * (width - len(ids)), np.int16)


@contextmanager
def batches_of(
    make: Callable[..., Drawn], seed: int, purpose: str, size: int
) -> Iterator[Callable[[int], dict[str, Any]]]:
    """A function from a step to the fields of `size` rows; another process prepares the next chunk."""
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
