"""The federated optimisers: one file each; the file's name is the optimiser's name in a recipe."""

from __future__ import annotations

import importlib
import inspect
import pkgutil

from fcit.optimisers.base import Optimiser
from fcit.types import FcitError

__all__ = ["Optimiser", "find", "names"]

HELPERS = ("base", "adaptive")


def names() -> list[str]:
    """All optimisers' names."""
    return sorted(
        found.name for found in pkgutil.iter_modules(__path__) if found.name not in HELPERS
    )


def find(name: str) -> type[Optimiser]:
    """The class of an optimiser. Raises FcitError when there is no file of that name."""
    if name not in names():
        raise FcitError(
            f"federation.optimizer: there is no {name!r}; choose from {', '.join(names())}"
        )
    module = importlib.import_module(f"{__name__}.{name}")
    own = [
        value
        for value in vars(module).values()
        if inspect.isclass(value)
        and issubclass(value, Optimiser)
        and value.__module__ == module.__name__
    ]
    assert len(own) == 1, f"{module.__name__} must define exactly one Optimiser"
    return own[0]
