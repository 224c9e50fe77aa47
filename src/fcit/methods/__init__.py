"""The methods, a file each: what clients train and send, what the server keeps and averages, and which
adapters answer a question. The file's name is the method's name in a recipe and on the command line;
docs/add-a-method.md tells how to write one."""

from fcit.files import find_class, modules
from fcit.methods.base import Above0, AtLeast0, AtLeast1, Gating, Method, Query, newest
from fcit.methods.model import Model, parameters
from fcit.methods.tokens import TokenRouted

__all__ = [
    "Above0",
    "AtLeast0",
    "AtLeast1",
    "Gating",
    "Method",
    "Model",
    "Query",
    "TokenRouted",
    "find",
    "names",
    "newest",
    "parameters",
]

HELPERS = ("base", "checks", "gating", "model", "moments", "stages", "tokens")


def names() -> list[str]:
    """All methods' names."""
    return modules(__name__, HELPERS)


def find(name: str) -> type[Method]:
    """The class of a method. Raises FcitError when there is no file of that name."""
    return find_class(__name__, HELPERS, name, Method, "method.name")
