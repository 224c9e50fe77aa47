"""The federated optimisers: one file each; the file's name is the optimiser's name in a recipe."""

from __future__ import annotations

from fcit import lookup
from fcit.optimisers.base import Optimiser

__all__ = ["Optimiser", "find", "names"]

HELPERS = ("base", "adaptive")


def names() -> list[str]:
    """All optimisers' names."""
    return lookup.names(__name__, HELPERS)


def find(name: str) -> type[Optimiser]:
    """The class of an optimiser. Raises FcitError when there is no file of that name."""
    return lookup.find(__name__, HELPERS, name, Optimiser, "federation.optimizer")
