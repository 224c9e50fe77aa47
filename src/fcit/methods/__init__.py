"""The methods, a file each: what clients train and send, what the server keeps and averages, and which
adapters answer a question. The file's name is the method's name in a recipe and on the command line; a
method of one's own is the path of its file there. docs/add-a-method.md tells how to write one."""

import inspect
import re
from pathlib import Path

from fcit.classes import digest, find_class, own_class, usable
from fcit.files import modules
from fcit.methods.base import Above0, AtLeast0, AtLeast1, Gating, Method, Query, newest
from fcit.methods.model import Model, parameters
from fcit.methods.tokens import TokenRouted
from fcit.types import FcitError

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
    "is_file",
    "named",
    "names",
    "newest",
    "parameters",
    "title",
]

HELPERS = ("base", "checks", "gating", "model", "moments", "stages", "tokens")


def names() -> list[str]:
    """The names of fcit's methods."""
    return modules(__name__, HELPERS)


def is_file(name: str) -> bool:
    """Whether a recipe's `method.name` is the path of a file of one's own."""
    return name.endswith(".py")


def title(name: str) -> str:
    """What the method is called that a recipe names: a file of one's own by its name."""
    return Path(name).stem if is_file(name) else name


def named(method: Method) -> dict[str, str]:
    """What names a method in a recipe: its name, or the path and the digest of a file of one's own."""
    if made := digest(type(method)):
        return {"name": inspect.getfile(type(method)), "file_digest": made}
    return {"name": method.name}


def find(name: str, known: str = "") -> type[Method]:
    """The class of a method. A file of one's own is run, as `own_class` says (known: its digest). Raises
    FcitError when there is no such method, and when the file cannot be used."""
    if not is_file(name):
        own = "a method of your own is a file, such as mine.py"
        return find_class(__name__, HELPERS, name, Method, "method.name", own)
    with usable(f"method.name: {name}"):
        if (called := title(name)) in names():
            raise FcitError(f"{called} is one of fcit's methods; give the file another name")
        if not re.fullmatch(r"\w[\w-]*", called):
            raise FcitError("a method's name has letters, digits, _ and - only; rename the file")
        return own_class(Path(name), Method, known)
