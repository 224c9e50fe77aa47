"""Scoring rules: one file each, the file's name is the rule's. Each says when an answer is right, how the
truth is read, and what the best constant answer is. A file of your own may hold one more.
"""

import hashlib
import sys
from collections.abc import Mapping
from importlib.util import module_from_spec, spec_from_file_location
from pathlib import Path
from unicodedata import normalize

from fcit.benchmark.rules.base import Accuracy, Mode, Rule
from fcit.benchmark.rules.own import guard
from fcit.files import find_class, modules, subclasses
from fcit.types import FcitError

__all__ = ["Accuracy", "Mode", "Rule", "find", "load", "names", "title"]

HELPERS = ("base", "own")


def names() -> list[str]:
    """The names of the package's rules."""
    return modules(__name__, HELPERS)


def find(name: str) -> type[Rule]:
    """The class of one of the package's rules. Raises FcitError when there is no file of that name."""
    try:
        return find_class(__name__, HELPERS, name, Rule, "rule")
    except FcitError as error:
        own = "a rule of your own is named in the recipe ([data.rules]) or with --rule"
        raise FcitError(f"{error}; {own}") from None


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
    if path.suffix != ".py" or not path.is_file():
        own = path.as_posix() in names()
        named = f'; in dataset.toml, rule = "{path}" names fcit\'s rule of this name' if own else ""
        raise FcitError(f"{where}: no such Python file{named}")
    name = f"fcit_rule_{hashlib.sha256(str(path.resolve()).encode()).hexdigest()[:16]}"
    spec = spec_from_file_location(name, path)
    assert spec and spec.loader
    module = sys.modules[name] = module_from_spec(spec)
    try:
        spec.loader.exec_module(module)
        kinds = subclasses(module, Rule)
        if len(kinds) != 1:
            raise FcitError(f"must define one subclass of Rule, not {len(kinds)}")
        if kinds[0].right is Rule.right and kinds[0].score is Rule.score:
            raise FcitError(f"{kinds[0].__name__} must define right(self, answer, truth, mode)")
        return guard(kinds[0](), Path(spec.origin or path))
    except FcitError as error:
        raise FcitError(f"{where}: {error}") from None
    except (Exception, SystemExit) as error:  # whatever the file does
        raise FcitError(f"{where}: cannot be used: {type(error).__name__}: {error}") from None
