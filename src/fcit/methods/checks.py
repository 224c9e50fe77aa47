"""What is wrong with a method before it runs: a class without decorators or types, or wrong values."""

from __future__ import annotations

from dataclasses import fields
from inspect import get_annotations
from types import NoneType
from typing import TYPE_CHECKING, get_args

from fcit.types import FcitError, check_fields

if TYPE_CHECKING:
    from fcit.methods.base import Method

PLAIN = (bool, int, float, str, tuple, list, NoneType)
"""What is a hyper-parameter's value, not a hook."""


def check(method: Method, base: type[Method], identities: object) -> None:
    """Raise FcitError on a class without its decorators or types, on a field that is not of its type and
    range, and on an `identity` that is none of a Literal's values, or None. base: the class `Method`."""
    kind, own = type(method), vars(type(method))
    if own.get("__annotations__") and "__dataclass_fields__" not in own:
        raise FcitError(f"{method.name}: put @dataclass(frozen=True) above {kind.__name__}")
    for hook, value in vars(base).items():
        if isinstance(value, property) and callable(getattr(kind, hook)):
            raise FcitError(f"{method.name}: put @property above {hook}")
    if hasattr(kind, "may_skip"):
        raise FcitError(f"{method.name}: may_skip is now asked_per (docs/add-a-method.md)")
    options = {field.name for field in fields(method)}
    for name in own.keys() - get_annotations(kind).keys():
        plain = isinstance(own[name], PLAIN) and not (name.startswith("_") or name.isupper())
        class_variable = hasattr(super(kind, method), name) and name not in options
        if plain and not class_variable:
            raise FcitError(
                f"{method.name}: add a type to {name} = {own[name]!r}, or it is no hyper-parameter: "
                f"{name}: {type(own[name]).__name__} (ClassVar[...] for a constant)"
            )
    check_fields(method, "method")
    if (found := method.identity) not in (None, *get_args(identities)):
        raise FcitError(
            f"{method.name}: identity is {found!r}; it must be None or one of "
            f"{', '.join(map(repr, get_args(identities)))}"
        )
