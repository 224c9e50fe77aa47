"""The generic mixture: the same scenes for one seed, answers that the picture bears out."""

from __future__ import annotations

import hashlib
import re
from collections import Counter

import numpy as np
import pytest

from fcit.seeds import numpy_stream
from fcit.suite.draw import COLOURS, canvas
from fcit.suite.grounding import written
from tools.mini_models import generic
from tools.mini_models.generic.scene import Thing, region


def _scenes(count: int, family: str | None = None, seed: int = 0) -> list[generic.Scene]:
    return [
        generic.sample(numpy_stream(seed, "test-generic", index), family) for index in range(count)
    ]


def _digest(scenes: list[generic.Scene]) -> str:
    parts = [
        scene.image.tobytes() + repr((scene.sayings, scene.caption)).encode() for scene in scenes
    ]
    return hashlib.sha256(b"".join(parts)).hexdigest()


def test_same_seed_gives_the_same_bytes_and_another_seed_others():
    assert _digest(_scenes(40)) == _digest(_scenes(40))
    assert _digest(_scenes(40)) != _digest(_scenes(40, seed=1))


@pytest.mark.parametrize("family", generic.FAMILIES)
def test_every_family_draws_a_picture_with_several_short_questions(family: str):
    for scene in _scenes(30, family):
        assert scene.image.size == (48, 48)
        assert scene.image.mode == "RGB"
        assert len(np.unique(np.asarray(scene.image).reshape(-1, 3), axis=0)) > 1
        assert len(scene.sayings) >= 4
        assert scene.things
        for saying in scene.sayings:
            assert saying.prompt.strip() == saying.prompt != ""
            assert saying.answer.strip() == saying.answer != ""


def test_counts_agree_with_what_was_drawn():
    asked = 0
    for scene in _scenes(60, "crowd"):
        assert scene.things is not None
        kinds = Counter(thing.kind for thing in scene.things)
        tones = Counter(thing.colour for thing in scene.things)
        for saying in scene.sayings:
            if saying.skill == "count all":
                assert int(saying.answer) == len(scene.things)
            if saying.skill == "kinds":
                assert int(saying.answer) == len(kinds)
            if saying.skill == "count color":
                named = [name for name in tones if re.search(rf"\b{name}\b", saying.prompt)]
                assert int(saying.answer) == tones[named[0]]
                asked += 1
    assert asked == 60


def test_things_are_drawn_in_their_colour_inside_their_box():
    for scene in _scenes(40, "view"):
        assert scene.things is not None
        thing = scene.things[-1]
        left, top, right, bottom = thing.box
        inside = np.asarray(scene.image)[top:bottom, left:right].astype(int)
        near = np.abs(inside - np.array(COLOURS[thing.colour])).sum(axis=-1) < 12
        assert near.sum() > 4


def test_options_and_doubts_are_about_the_answer():
    saying = generic.Saying("color", "Color?", "red", ("red", "blue", "green", "pink"))
    said = Counter[str]()
    for index in range(200):
        rng = numpy_stream(0, "test-forms", index)
        chosen = generic.choose(rng, saying)
        found = re.search(rf"\b{chosen.answer}[).:]* (\w+)", chosen.prompt)
        assert found is not None
        assert found[1] == "red"
        doubted = generic.doubt(rng, saying)
        assert ("red" in doubted.prompt) == (doubted.answer == "yes")
        said[chosen.answer] += 1
        said[doubted.answer] += 1
    assert min(said[word] for word in ("yes", "no")) > 70
    assert said["A"] > said["D"] > 0


def test_patches_name_what_covers_them():
    things = [Thing("star", "red", (0, 0, 16, 16)), Thing("cat", "blue", (40, 40, 48, 48)),
              Thing("line", "green", (16, 0, 24, 8), part=True)]  # fmt: skip
    seen = generic.patches(things)
    assert seen.kinds.shape == (36,)
    assert [generic.KINDS[kind] for kind in seen.kinds[[0, 1, 2, 3, 6, 7, 35]]] == [
        "star", "star", "line", "empty", "star", "star", "cat",
    ]  # fmt: skip
    assert generic.TONES[seen.colours[35]] == "blue"
    assert np.flatnonzero(seen.middles).tolist() == [7, 35]
    assert np.allclose(seen.boxes[[0, 2, 3]], [[0, 0, 1 / 3, 1 / 3], [-1] * 4, [-1] * 4])
    assert canvas().size == (48, 48)


def test_places_are_told_in_words_and_numbers():
    assert region((0, 0, 10, 10)) == "top left"
    assert region((20, 20, 28, 28)) == "center"
    assert region((40, 20, 48, 28)) == "middle right"
    assert written((0, 12, 24, 48)) == "[0.00,0.25,0.50,1.00]"


def test_the_mixture_never_asks_a_question_of_the_mini_suite():
    mini = pytest.importorskip("fcit.suite")
    theirs: set[str] = set()
    for name, module in vars(mini).items():
        if hasattr(module, "sample") and hasattr(module, "NAME"):
            for index in range(150):
                drawn = module.sample(numpy_stream(0, name, index), ("train", "test")[index % 2])
                theirs.add(drawn.prompt.split("\n")[0])
    assert len(theirs) > 100
    ours = {saying.prompt for scene in _scenes(800) for saying in scene.sayings}
    assert not ours & theirs


def test_drills_can_be_answered_from_their_words():
    checked = Counter[str]()
    for index in range(300):
        skill, turns = generic.drill(numpy_stream(0, "test-drills", index))
        assert all(prompt and answer for prompt, answer in turns)
        if skill == "drill add":
            for prompt, answer in turns:
                one, two = (int(number) for number in re.findall(r"\d+", prompt))
                results = {one + two, abs(one - two), max(one, two)}
                assert int(answer) in results
                checked[skill] += "plus" not in prompt or int(answer) == one + two
        if skill == "drill options":
            listed = turns[0][0]
            for letter, text in (
                (a, b) if len(a) == 1 else (b, a)
                for a, b in ((p.split("?")[0].split("\n")[-1], r) for p, r in turns[1:])
            ):
                assert letter in listed
                assert text in listed
                checked[skill] += 1
        if skill == "drill crowd":
            things = turns[0][0].split(". ")[0].split(", ")
            for prompt, answer in turns:
                if prompt.endswith("Count all."):
                    assert int(answer) == len(things)
                    checked[skill] += 1
    assert min(checked.values()) > 5
    assert set(checked) == {"drill add", "drill options", "drill crowd"}
