"""The generic mixture: the same scenes for one seed, answers that the picture bears out."""

from __future__ import annotations

import hashlib
import re
from collections import Counter

import numpy as np
import pytest

from fcit.benchmark import generic
from fcit.benchmark.draw import COLOURS, canvas
from fcit.benchmark.generic.scene import Thing, coordinates, region
from fcit.seeds import numpy_stream


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
        assert scene.sayings[-1].answer == scene.caption
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


def test_letters_of_an_option_point_at_the_right_one():
    for scene in _scenes(60, "portrait"):
        for saying in scene.sayings:
            if saying.skill == "name letter":
                assert scene.things is not None
                found = re.search(rf"\b{saying.answer}[).:]+ (\w+)", saying.prompt)
                assert found is not None
                assert found[1] == scene.things[0].kind


def test_patches_name_what_covers_them():
    blank, _, _ = generic.patches(None)
    assert (blank == -1).all()
    things = [Thing("star", "red", (0, 0, 16, 16)), Thing("cat", "blue", (40, 40, 48, 48))]
    kinds, tones, extents = generic.patches(things)
    assert extents[0].tolist() == [0.5, 0.5, 1.5, 1.5]
    assert kinds.shape == (36,)
    assert [generic.KINDS[kind] for kind in kinds[[0, 1, 2, 6, 7, 35]]] == [
        "star", "star", "empty", "star", "star", "cat",
    ]  # fmt: skip
    assert generic.TONES[tones[35]] == "blue"
    assert canvas().size == (48, 48)


def test_places_are_told_in_words_and_numbers():
    assert region((0, 0, 10, 10)) == "top left"
    assert region((20, 20, 28, 28)) == "center"
    assert region((40, 20, 48, 28)) == "middle right"
    assert coordinates((0, 12, 24, 48)) == "[0.00,0.25,0.50,1.00]"


def test_the_mixture_never_asks_a_question_of_the_mini_suite():
    mini = pytest.importorskip("fcit.benchmark.mini")
    theirs: set[str] = set()
    for name, module in vars(mini).items():
        if hasattr(module, "sample") and hasattr(module, "NAME"):
            for index in range(150):
                drawn = module.sample(numpy_stream(0, name, index))
                theirs.add(drawn.prompt.split("\n")[0])
    assert len(theirs) > 100
    ours = {saying.prompt for scene in _scenes(800) for saying in scene.sayings}
    assert not ours & theirs


def test_drills_can_be_answered_from_their_words():
    right = 0
    for index in range(200):
        saying = generic.drill(numpy_stream(0, "test-drills", index))
        if saying.skill == "drill join":
            joined = saying.prompt.removeprefix("Join ").removesuffix(".").replace(" ", "")
            right += joined.lower() == saying.answer
        elif saying.skill == "drill among":
            asked, listed = saying.prompt.removeprefix("Is ").removesuffix("?").split(" in ")
            right += (asked in listed.split(", ")) == (saying.answer == "yes")
        elif saying.skill == "drill add":
            one, _, two = saying.prompt.removesuffix("?").split(" ")
            right += int(one) + int(two) == int(saying.answer)
        else:
            right += saying.answer != ""
    assert right == 200
