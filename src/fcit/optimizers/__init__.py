"""The federated optimizers, a file each: how clients correct their gradients, and how far the server
follows the average. They work with all methods that do not exclude them. The file's name is the
optimizer's name in a recipe."""

from fcit.classes import find_class
from fcit.files import modules
from fcit.optimizers.base import Optimizer

__all__ = ["Optimizer", "find", "names"]

HELPERS = ("base", "adaptive")


def names() -> list[str]:
    """All optimizers' names."""
    return modules(__name__, HELPERS)


def find(name: str) -> type[Optimizer]:
    """The class of an optimizer. Raises FcitError when there is no file of that name."""
    return find_class(__name__, HELPERS, name, Optimizer, "federation.optimizer")
