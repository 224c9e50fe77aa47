"""The methods: one file each; the file's name is the method's name on the command line."""

from __future__ import annotations

from fcit import lookup
from fcit.methods.base import Method

__all__ = ["Method", "find", "names"]

HELPERS = ("base",)


def names() -> list[str]:
    """All methods' names."""
    return lookup.names(__name__, HELPERS)


def find(name: str) -> type[Method]:
    """The class of a method. Raises FcitError when there is no file of that name."""
    return lookup.find(__name__, HELPERS, name, Method, "method.name")
