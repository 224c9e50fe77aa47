"""Every key of a recipe with its default and its description, which is the string below its field."""

import ast
import inspect
import json
import textwrap
from collections.abc import Iterable, Mapping
from dataclasses import MISSING, fields, is_dataclass
from typing import Any, NamedTuple

from fcit import methods, optimizers
from fcit.benchmark.settings import StageSpec
from fcit.recipe.config import Config

FREE_TO_CHANGE = (
    "federation.workers",
    "federation.engine",
    "federation.min_clients",
    "federation.deadline",
    "federation.outlier_factor",
    "tracking.to",
    "tracking.project",
)
"""Keys that a resumed run may change: speed and tolerated failures, nothing that training uses."""


class Key(NamedTuple):
    """One key of a section."""

    name: str
    default: str
    description: str


def sections() -> Iterable[tuple[str, list[Key]]]:
    """A recipe's keys in tables: their titles and keys."""
    config = Config()
    yield "Experiment", [Key("seed", "0", descriptions(Config)["seed"])]
    for section in fields(Config):
        value = getattr(config, section.name)
        if section.name == "method":
            own = "or a Python file with one of your own ([add-a-method.md](add-a-method.md))"
            told = f"Method to train with, {own}. A file's path starts at the recipe's folder."
            yield "method", [Key("method.name", '"disco"', told)]
            yield from _methods()
        elif is_dataclass(value):
            yield section.name, _keys(value, f"{section.name}.")
            if section.name == "setting":
                yield "setting.stages", _keys(StageSpec, "")
            if section.name == "federation":
                yield "federation.optimizer_options", list(_optimizers())


def _methods() -> Iterable[tuple[str, list[Key]]]:
    """Of every method the keys that finetune does not have, or has with another default."""
    usual = _keys(methods.find("finetune")(), "method.")
    yield "method: finetune", usual
    defaults = {key.name: key.default for key in usual}
    for name in methods.names():
        keys = _keys(methods.find(name)(), "method.")
        if own := [key for key in keys if defaults.get(key.name) != key.default]:
            yield f"method: {name}", own


def _optimizers() -> Iterable[Key]:
    for name in optimizers.names():
        yield from _keys(optimizers.find(name)(), f"{name}: ")


def _keys(value: Any, prefix: str) -> list[Key]:
    """The fields of a dataclass; defaults are those of an instance, or of the class where it has none."""
    kind = value if isinstance(value, type) else type(value)
    told = descriptions(kind)
    keys: list[Key] = []
    for field in fields(kind):
        default = field.default if value is kind else getattr(value, field.name)
        shown = "" if default is MISSING else _toml(default)
        keys.append(Key(prefix + field.name, shown, told.get(field.name, "")))
    return keys


def descriptions(kind: type) -> dict[str, str]:
    """The strings below a class's fields, and below those it inherits, each as one line."""
    told: dict[str, str] = {}
    for base in reversed(kind.__mro__[:-1]):
        (definition,) = ast.parse(textwrap.dedent(inspect.getsource(base))).body
        assert isinstance(definition, ast.ClassDef)
        for field, below in zip(definition.body, definition.body[1:], strict=False):
            match field, below:
                case (
                    ast.AnnAssign(target=ast.Name(id=name)),
                    ast.Expr(value=ast.Constant(value=str(text))),
                ):
                    told[name] = " ".join(text.split())
                case _:
                    pass
    return told


def _toml(value: Any) -> str:
    if isinstance(value, float):
        return f"{value:g}".replace("e-0", "e-") if value and value < 1e-3 else repr(value)
    return json.dumps(value)


def flat(table: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    """A nested table as {"section.key": value}."""
    keys: dict[str, Any] = {}
    for key, value in table.items():
        own = prefix + key
        keys |= flat(value, f"{own}.") if isinstance(value, Mapping) else {own: value}
    return keys
