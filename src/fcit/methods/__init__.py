"""The methods: one file each; the file's name is the method's name on the command line."""

from __future__ import annotations

import importlib
import inspect
import pkgutil

from fcit.methods.base import Method
from fcit.types import FcitError

__all__ = ["Method", "find", "names"]


def names() -> list[str]:
    """All methods' names."""
    return sorted(found.name for found in pkgutil.iter_modules(__path__) if found.name != "base")


def find(name: str) -> type[Method]:
    """The class of a method. Raises FcitError when there is no file of that name."""
    if name not in names():
        raise FcitError(
            f"method.name: there is no method {name!r}; choose from {', '.join(names())}"
        )
    module = importlib.import_module(f"{__name__}.{name}")
    own = [
        value
        for value in vars(module).values()
        if inspect.isclass(value)
        and issubclass(value, Method)
        and value.__module__ == module.__name__
    ]
    assert len(own) == 1, f"{module.__name__} must define exactly one Method"
    return own[0]
