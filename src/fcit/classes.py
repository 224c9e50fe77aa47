"""The one class that a Python file defines: of fcit's own methods, optimizers and scoring rules, and of a
file of one's own anywhere."""

import hashlib
import importlib
import inspect
import sys
from collections.abc import Collection, Iterator
from contextlib import contextmanager
from functools import cache
from pathlib import Path
from types import ModuleType
from typing import TypeVar

from fcit.files import modules
from fcit.types import FcitError, naming

T = TypeVar("T")

OWN = "fcit_own_"
"""Prefix of the module names of users' files."""

_digests: dict[str, str] = {}
"""Of what users' files held when they were run, by module name."""


def find_class(
    package: str, helpers: Collection[str], name: str, base: type[T], key: str, own: str = ""
) -> type[T]:
    """The one subclass of `base` that a package's file of this name defines. Raises FcitError naming the
    recipe's `key` when there is no such file, with how to name one's own (`own`), and the file where it
    defines none or several."""
    if name not in (known := modules(package, helpers)):
        place = importlib.import_module(package).__path__[0]
        told = f"choose from {', '.join(known)} (files in {place})"
        raise FcitError("; ".join(filter(None, (f"{key}: there is no {name!r}", told, own))))
    module = importlib.import_module(f"{package}.{name}")
    with naming(str(module.__file__)):
        return _subclass(module, base)


def own_class(path: Path, base: type[T], known: str = "") -> type[T]:
    """The one subclass of `base` that a Python file of one's own defines. Runs the file once for each
    content of it. known: the digest that it must have ("": any).

    Call it for files that the user has named, never for what a data folder or a server names, and in
    `usable`. Raises FcitError where there is no such file, it has another digest, or it defines none or
    several.
    """
    if path.suffix != ".py" or not path.is_file():
        raise FcitError("no such Python file")
    path = path.resolve()
    source = path.read_bytes()
    if known not in ("", _digest(source)):
        raise FcitError(
            f"changed since this run began, so the run would mix two {base.__name__.lower()}s; put "
            "the old file back, or choose another --out"
        )
    return _subclass(_run(path, source), base)


def digest(kind: type) -> str:
    """A digest of the file of one's own that a class was made from, as it was then; "" for fcit's."""
    return _digests.get(kind.__module__, "")


def _digest(source: bytes) -> str:
    return hashlib.sha256(source).hexdigest()[:12]


@contextmanager
def usable(what: str) -> Iterator[None]:
    """Inside, whatever a file of one's own raises is a FcitError that begins with its name."""
    with naming(what):
        try:
            yield
        except FcitError:
            raise
        except (Exception, SystemExit) as error:
            raise FcitError(f"cannot be used: {type(error).__name__}: {error}") from None


@cache
def _run(path: Path, source: bytes) -> ModuleType:
    """A file as a module of its own name. Its bytes are compiled here: Python would trust a compiled file
    beside it that is as old, to the second."""
    made, place = _digest(source), _digest(str(path).encode())
    module = ModuleType(f"{OWN}{place}_{made}.{path.stem}")
    module.__file__, module.__package__ = str(path), ""
    _digests[module.__name__] = made
    sys.modules[module.__name__] = module  # dataclasses look for it
    exec(compile(source, str(path), "exec", dont_inherit=True), vars(module))
    return module


def _subclass(module: ModuleType, base: type[T]) -> type[T]:
    classes = filter(inspect.isclass, vars(module).values())
    own = [one for one in classes if issubclass(one, base) and one.__module__ == module.__name__]
    if len(own) != 1:
        raise FcitError(f"must define one subclass of {base.__name__}, not {len(own)}")
    return own[0]
