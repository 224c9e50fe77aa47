"""The methods: one file each; the file's name is the method's name on the command line."""

from __future__ import annotations

from fcit.files import find_class, modules
from fcit.methods.base import Method

__all__ = ["Method", "find", "names"]

HELPERS = ("base",)


def names() -> list[str]:
    """All methods' names."""
    return modules(__name__, HELPERS)


def find(name: str) -> type[Method]:
    """The class of a method. Raises FcitError when there is no file of that name."""
    return find_class(__name__, HELPERS, name, Method, "method.name")
