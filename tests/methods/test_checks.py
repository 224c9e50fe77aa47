"""A class that is not written as docs/add-a-method.md says is refused where the method is made."""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar

import pytest

from fcit import methods
from fcit.methods import Method
from fcit.methods.disco import Disco
from fcit.methods.hide import Hide
from fcit.types import FcitError, State


def test_a_hyper_parameter_without_a_type_is_refused() -> None:
    @dataclass(frozen=True)
    class Untyped(Method):
        temperature = 0.1

    @dataclass(frozen=True)
    class Default(Method):
        rank = 4

    @dataclass(frozen=True)
    class Layers(Method):
        layers = (1, 2)

    @dataclass(frozen=True)
    class Skips(Method):
        @property
        def may_skip(self) -> bool:
            return True

    for kind, said in (
        (
            Untyped,
            "add a type to temperature = 0.1, or it is no hyper-parameter: temperature: float",
        ),
        (Default, "add a type to rank = 4, or it is no hyper-parameter: rank: int"),
        (Layers, r"add a type to layers = \(1, 2\), or it is no hyper-parameter: layers: tuple"),
        (Skips, "may_skip is now asked_per"),
    ):
        with pytest.raises(FcitError, match=said):
            kind()


def test_tokens_of_members_of_ones_own_are_not_counted_too_low() -> None:
    @dataclass(frozen=True)
    class PerStage(Disco):
        def member(self, state: State, client: int, task: str) -> str:
            return f"{client}/{task}/{len(state.adapters)}"

    @dataclass(frozen=True)
    class PerName(Hide):
        def member(self, state: State, client: int, task: str) -> str:
            return f"{client}/{task}"

    assert (PerStage().asked_per, Disco().asked_per) == ("round", "task")
    assert (PerName().asked_per, Hide().asked_per) == ("round", "stage")


def test_what_is_no_hyper_parameter_needs_no_type() -> None:
    @dataclass(frozen=True)
    class Fine(Method):
        LIMIT = 3
        _seen = 0.5
        replays = True
        share: float = 0.5
        kept: ClassVar[int] = 2

        @property
        def gates(self) -> float:
            return self.share

    assert Fine().replays
    for name in methods.names():
        methods.find(name)()


def test_an_identity_that_no_encoder_makes_is_refused() -> None:
    @dataclass(frozen=True)
    class Audible(Method):
        @property
        def identity(self):
            return "audio"

    with pytest.raises(
        FcitError, match="identity is 'audio'; it must be None or one of 'text', 'image', 'both'"
    ):
        Audible()


def test_a_file_with_two_methods_and_a_name_without_a_file_are_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    lines = ["from fcit.methods import Method", "class One(Method): ...", "class Two(Method): ..."]
    (tmp_path / "pairs.py").write_text("\n".join(lines))
    monkeypatch.setattr(methods, "__path__", [*methods.__path__, str(tmp_path)])
    with pytest.raises(FcitError, match=r"pairs\.py: must define one subclass of Method, not 2$"):
        methods.find("pairs")
    place = re.escape(str(Path(methods.__file__ or "").parent))
    with pytest.raises(
        FcitError, match=rf"there is no 'atlas'; .*zeroshot \(files in {place}\); a method"
    ):
        methods.find("atlas")
