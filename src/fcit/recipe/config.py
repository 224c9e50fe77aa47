"""One validated, frozen configuration <-> TOML: every key a recipe may hold, and its default."""

import json
import tomllib
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field, fields
from functools import cache
from pathlib import Path
from typing import Annotated, Any, ClassVar, TypeVar

from pydantic import ConfigDict, Field, PlainValidator, TypeAdapter, ValidationError

from fcit.aggregation.privacy import Privacy
from fcit.files import read_toml, write_text
from fcit.methods import Method, find, names
from fcit.recipe.data import DataSection
from fcit.recipe.renamed import announce, rename
from fcit.recipe.sections import EvaluationSection, ModelSection, TrackingSection
from fcit.recipe.setting import SettingSection
from fcit.rounds.client import Training
from fcit.rounds.federation import Federation
from fcit.types import FcitError, readable

T = TypeVar("T")

PATHS = ("data.root", "data.images", "data.rules", "model.path", "model.identity")
"""The keys that hold paths."""

METHOD = "disco"
"""The method of a recipe that names none."""

STRICT = ConfigDict(extra="forbid", strict=True, allow_inf_nan=False)
"""Unknown keys and values of another type are errors, in nested dataclasses too."""


def build_method(table: Any) -> Method:
    """The method that a recipe's `[method]` table names, with its hyper-parameters.

    Raises FcitError naming the key at fault.
    """
    if isinstance(table, Method):
        return table
    if not isinstance(table, Mapping):
        raise FcitError("method: must be a section, [method]")
    options = {key: value for key, value in table.items() if key != "name"}
    name = str(table.get("name", METHOD))
    known = _options(name)
    if unknown := next((key for key in options if key not in known), None):
        raise FcitError(f"method: {name} has no {unknown!r}; it has {', '.join(sorted(known))}")
    return find(name)(**options)


def _options(method: str) -> set[str]:
    """The names of a method's hyper-parameters."""
    return {option.name for option in fields(find(method))}


@dataclass(frozen=True)
class Config:
    """A whole experiment: a recipe with its defaults filled in."""

    __pydantic_config__: ClassVar = STRICT

    seed: Annotated[int, Field(ge=0)] = 0
    """Seed of every random choice, and of the mini suite's data."""
    data: DataSection = field(default_factory=DataSection)
    model: ModelSection = field(default_factory=ModelSection)
    setting: SettingSection = field(default_factory=SettingSection)
    federation: Federation = field(default_factory=Federation)
    privacy: Privacy = field(default_factory=Privacy)
    training: Training = field(default_factory=Training)
    method: Annotated[Method, PlainValidator(build_method)] = field(
        default_factory=lambda: build_method({})
    )
    evaluation: EvaluationSection = field(default_factory=EvaluationSection)
    tracking: TrackingSection = field(default_factory=TrackingSection)

    def __post_init__(self) -> None:
        """Raise FcitError on what clipping and noise would not cover."""
        if not self.privacy.on:
            return
        method, federation = self.method, self.federation
        for excluded, why in (
            (not method.federated, f"{method.name} has no clients"),
            (method.sends_statistics, f"{method.name}'s clients send more than what they trained"),
            (federation.optimizer == "scaffold", "scaffold's clients send control variates"),
            (federation.robust != "mean", "federation.robust is not a mean"),
            (federation.average == "product", "federation.average = product is not a mean"),
        ):
            if excluded:
                raise FcitError(f"privacy: {why}, which clipping and noise would not cover")
        if federation.outlier_factor:
            raise FcitError(
                "privacy: federation.outlier_factor compares clients' updates, so that one client's data "
                "decides whose are dropped; set federation.outlier_factor = 0 (clip_norm bounds them)"
            )


def load(path: Path, changes: Sequence[str] = (), method: str | None = None) -> Config:
    """Read a recipe. `changes` are key=value strings ("federation.rounds=2"); `method` names another
    method than the recipe's (hyper-parameters the other method does not have are dropped).

    Relative paths in the recipe start at its folder. Raises FcitError naming the file and key.
    """
    table, source = read_toml(path, "recipe"), str(path)
    of_a_run = table.pop("versions", None)  # its config.toml: nobody is to edit it
    renamed = _rename(table, source)
    _anchor(table, path.parent)
    if method:
        _switch(table, method, source)
    for change in changes:
        _change(table, change)
        renamed += _rename(table, source, overrule=True)
    if renamed and not of_a_run:
        announce(source, tuple(renamed))
    return validate(table, source)


def validate(table: Mapping[str, Any], source: str = "config") -> Config:
    """A Config from a plain table; relative paths start at the current folder.

    Raises FcitError naming the source and the key at fault.
    """
    own = {key: dict(part) if isinstance(part, Mapping) else part for key, part in table.items()}
    if renamed := _rename(own, source):
        announce(source, tuple(renamed))
    _anchor(own, Path.cwd())
    return checked(Config, own, source)


@cache
def _adapter(kind: type[T]) -> TypeAdapter[T]:
    return TypeAdapter(kind)


def checked(kind: type[T], table: Mapping[str, Any], source: str) -> T:
    """A table as a dataclass of ours. Raises FcitError naming the source and the key at fault."""
    try:
        return _adapter(kind).validate_json(json.dumps(table, default=str))
    except ValidationError as error:
        fault = error.errors()[0]
        raise FcitError(f"{source}: {_key(fault['loc'])}: {readable(fault)}") from None
    except FcitError as error:
        raise FcitError(f"{source}: {error}") from None


def _key(path: Sequence[str | int]) -> str:
    """Where in a recipe: section.key, and the entry of a list, counted from 1."""
    words = "".join(f", no. {part + 1}" if isinstance(part, int) else f".{part}" for part in path)
    return words.removeprefix(".") or "recipe"


def _rename(table: dict[str, Any], source: str, overrule: bool = False) -> list[str]:
    """Bring a table's keys up to date (see `renamed`)."""
    section = table.get("method")
    name = section.get("name", METHOD) if isinstance(section, dict) else ""
    try:
        return rename(table, _options(name) if name in names() else (), overrule)
    except FcitError as error:
        raise FcitError(f"{source}: {error}") from None


def _switch(table: dict[str, Any], method: str, source: str) -> None:
    """Name another method; hyper-parameters that only the recipe's own method has are left out."""
    section = table.get("method", {})
    if not isinstance(section, dict):
        raise FcitError(f"{source}: method: must be a section, [method]")
    old, new = _options(str(section.get("name", METHOD))), _options(method)
    shared = {key: value for key, value in section.items() if key in new or key not in old}
    table["method"] = shared | {"name": method}


def to_table(config: Config) -> dict[str, Any]:
    """The resolved configuration as a plain table, the method's and the optimizer's defaults
    included."""
    table = json.loads(json.dumps(asdict(config)))  # tuples become lists
    table["method"] = {"name": config.method.name} | table["method"]
    table["federation"]["optimizer_options"] = asdict(config.federation.build_optimizer())
    return table


def write(path: Path, table: Mapping[str, Any]) -> None:
    """Write a table as TOML, whole or not at all."""
    import tomli_w

    write_text(path, tomli_w.dumps(table))


def _anchor(table: dict[str, Any], folder: Path) -> None:
    """Make the recipe's relative paths start at its folder (a name that is no path stays a hub id)."""

    def start(value: Any, always: bool) -> Any:
        if isinstance(value, list | tuple):
            return [start(entry, always) for entry in value]
        if isinstance(value, Mapping):
            return {key: start(entry, always) for key, entry in value.items()}
        if not isinstance(value, str) or not value:
            return value
        path = (folder / Path(value).expanduser()).resolve()
        return str(path) if always or path.exists() else value

    for path in PATHS:
        section, key = path.split(".")
        values = table.get(section)
        if isinstance(values, dict) and key in values:
            values[key] = start(values[key], section == "data")


def anchored(change: str, folder: Path) -> str:
    """A change as `load` takes it, with its relative paths started at a folder."""
    key = change.partition("=")[0].strip()
    if key not in PATHS:
        return change
    table: dict[str, Any] = {}
    _change(table, change)
    _anchor(table, folder)
    section, name = key.split(".")
    return f"{key}={json.dumps(table[section][name], ensure_ascii=False)}"


def _change(table: dict[str, Any], change: str) -> None:
    key, equals, text = change.partition("=")
    if not equals or not key.strip():
        raise FcitError(f"--set {change}: write key=value, for example federation.rounds=2")
    try:
        value = tomllib.loads(f"value = {text}")["value"]
    except tomllib.TOMLDecodeError:
        value = text.strip()
    *sections, leaf = key.strip().split(".")
    for section in sections:
        table = table.setdefault(section, {})
        if not isinstance(table, dict):
            raise FcitError(f"--set {change}: {section} is not a section")
    table[leaf] = value
