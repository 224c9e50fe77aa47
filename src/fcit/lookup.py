"""Classes found by the name of their file: a folder of methods or of optimisers needs no register."""

from __future__ import annotations

import importlib
import inspect
import pkgutil
from collections.abc import Collection
from typing import TypeVar

from fcit.types import FcitError

T = TypeVar("T")


def names(package: str, helpers: Collection[str]) -> list[str]:
    """The names of a package's files, without those of its helpers."""
    found = (one.name for one in pkgutil.iter_modules(importlib.import_module(package).__path__))
    return sorted(name for name in found if name not in helpers)


def find(package: str, helpers: Collection[str], name: str, base: type[T], key: str) -> type[T]:
    """The one subclass of `base` that a package's file of this name defines.

    Raises FcitError naming the recipe's `key` when there is no such file.
    """
    known = names(package, helpers)
    if name not in known:
        raise FcitError(f"{key}: there is no {name!r}; choose from {', '.join(known)}")
    module = importlib.import_module(f"{package}.{name}")
    own = [
        value
        for value in vars(module).values()
        if inspect.isclass(value)
        and issubclass(value, base)
        and value.__module__ == module.__name__
    ]
    assert len(own) == 1, f"{module.__name__} must define exactly one {base.__name__}"
    return own[0]
