"""Scoring rules: one file each, the file's name is the rule's. Each says when an answer is right, how the
truth is read, and what the best constant answer is. A file of your own may hold one more.
"""

import sys
from collections.abc import Mapping
from pathlib import Path
from unicodedata import normalize

from fcit.benchmark.rules.base import Accuracy, Mode, Rule
from fcit.benchmark.rules.own import guard
from fcit.classes import find_class, own_class, usable
from fcit.files import modules
from fcit.types import FcitError

__all__ = ["Accuracy", "Mode", "Rule", "find", "load", "names", "title"]

HELPERS = ("base", "own")


def names() -> list[str]:
    """The names of the package's rules."""
    return modules(__name__, HELPERS)


def find(name: str) -> type[Rule]:
    """The class of one of the package's rules. Raises FcitError when there is no file of that name."""
    own = "a rule of your own is named in the recipe ([data.rules]) or with --rule"
    return find_class(__name__, HELPERS, name, Rule, "rule", own)


def title(rule: Rule) -> str:
    """What a person calls a rule: "exact", or of a rule of your own the name of its file."""
    module = type(rule).__module__
    if module.startswith(f"{__name__}."):
        return module.rpartition(".")[2]
    return Path(getattr(sys.modules[module], "__file__", None) or module).name


def load(files: Mapping[str, str], source: str = "data.rules") -> dict[str, Rule]:
    """Rules of your own, by dataset: runs each Python file, which must define one subclass of Rule.

    Call it for files that the user has named, never for what a data folder or a server names. Raises
    FcitError naming `source`, the dataset and the file.
    """
    return {
        normalize("NFC", name): _load(Path(file), f"{source}: {name}: {file}")
        for name, file in files.items()
    }


def _load(path: Path, where: str) -> Rule:
    if path.as_posix() in names():
        named = f'in dataset.toml, rule = "{path}" names fcit\'s rule of this name'
        raise FcitError(f"{where}: no such Python file; {named}")
    with usable(where):
        kind = own_class(path, Rule)
        if kind.right is Rule.right and kind.score is Rule.score:
            raise FcitError(f"{kind.__name__} must define right(self, answer, truth, mode)")
        return guard(kind(), path.resolve())
