"""One validated, frozen configuration <-> TOML: every key a recipe may hold, and its default."""

import json
from collections.abc import Iterator, Mapping, Sequence
from copy import deepcopy
from dataclasses import asdict, dataclass, field, fields, is_dataclass
from functools import cache
from pathlib import Path
from typing import Annotated, Any, ClassVar, TypeVar, get_args, get_type_hints

from pydantic import ConfigDict, Field, PlainValidator, TypeAdapter, ValidationError

from fcit.aggregation.privacy import Privacy
from fcit.files import parse_toml, read_toml, write_text
from fcit.methods import Method, find, is_file, named, names, title
from fcit.recipe import sections, shipped
from fcit.recipe.paths import PATHS, anchor, anchored_path, require_installed, require_own_files
from fcit.recipe.renamed import announce, rename
from fcit.rounds.client import Training
from fcit.rounds.federation import Federation
from fcit.types import FcitError, did_you_mean, naming, readable

T = TypeVar("T")

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
    options, name = {k: v for k, v in table.items() if k != "name"}, str(table.get("name", METHOD))
    kind = find(name, options.pop("file_digest", "") if is_file(name) else "")
    known = _options(kind)
    if unknown := next((key for key in options if key not in known), None):
        hint = did_you_mean(unknown, known) or f"; it has {', '.join(sorted(known))}"
        raise FcitError(f"method: {title(name)} has no {unknown!r}{hint}")
    return kind(**options)


def _options(method: type[Method]) -> set[str]:
    """The names of a method's hyper-parameters."""
    return {option.name for option in fields(method)}


@dataclass(frozen=True)
class Config:
    """A whole experiment: a recipe with its defaults filled in."""

    __pydantic_config__: ClassVar = STRICT

    seed: Annotated[int, Field(ge=0, lt=2**63)] = 0
    """Seed of every random choice, and of the mini suite's data."""
    data: sections.DataSection = field(default_factory=sections.DataSection)
    model: sections.ModelSection = field(default_factory=sections.ModelSection)
    setting: sections.SettingSection = field(default_factory=sections.SettingSection)
    federation: Federation = field(default_factory=Federation)
    privacy: Privacy = field(default_factory=Privacy)
    training: Training = field(default_factory=Training)
    method: Annotated[Method, PlainValidator(build_method)] = field(
        default_factory=lambda: build_method({})
    )
    evaluation: sections.EvaluationSection = field(default_factory=sections.EvaluationSection)
    tracking: sections.TrackingSection = field(default_factory=sections.TrackingSection)

    def __post_init__(self) -> None:
        """Raise FcitError on what does not go together."""
        sections.check_together(self.method, self.federation, self.privacy)


def load(
    path: Path, changes: Sequence[str] = (), method: str | None = None, foreign: bool = False
) -> Config:
    """Read a recipe. `changes` are key=value strings ("federation.rounds=2"); `method` names another
    method than the recipe's (hyper-parameters the other method does not have are dropped). `foreign`: it
    is another person's, and must not make this machine run a file.

    A name without an ending is also that of a recipe that comes with fcit. Relative paths in the recipe
    start at its folder (in one of fcit's own, in the working folder). Raises FcitError naming the key at
    fault, and the file or the change that it comes from.
    """
    path, folder = shipped.find(path)
    table = read_toml(path, "recipe")
    if foreign:
        require_installed(_method_name(table), str(path))
    if isinstance(table.get("method"), dict):  # of a run whose config.toml is a new run's recipe
        table["method"].pop("file_digest", None)
    return _load(path, folder, table, changes, method)


def _load(
    path: Path, folder: Path, table: dict[str, Any], changes: Sequence[str], method: str | None
) -> Config:
    of_a_run = table.pop("versions", None)  # its config.toml: nobody is to edit it
    if of_a_run:
        require_own_files(table, path)
    table.pop("digest", None)
    anchor(table, folder)
    anchor(table, Path.cwd())
    with naming(str(path)):
        renamed = _rename(table)
    if of_a_run:
        _as_before(table)
    steps = [(str(path), table)]
    if method:
        with naming(f"--method {method}"):
            name = anchored_path(method, Path.cwd()) if is_file(method) else method
            steps.append((f"--method {method}", _switched(table, name)))
    for change in changes:
        source, table = f"--set {change}", deepcopy(steps[-1][1])
        with naming(source):
            _change(table, change)
            anchor(table, Path.cwd())
            renamed += _rename(table, overrule=True)
        steps.append((source, table))
    if renamed and not of_a_run:
        announce(str(path), tuple(renamed))
    try:
        return _checked(Config, steps[-1][1])
    except FcitError as error:
        fault = str(error)
    for source, table in steps:  # the first that has this fault brought it
        try:
            _checked(Config, table)
        except FcitError as error:
            if str(error) == fault:
                raise FcitError(f"{source}: {fault}") from None
    raise AssertionError(fault)


def load_run(path: Path, changes: Sequence[str] = (), method: str | None = None) -> Config:
    """As `load`, of the recipe in a run's folder, which may be another person's: it must not bring code
    (`paths.require_own_files`)."""
    table = read_toml(path, "recipe")
    require_own_files(table, path)
    return _load(path, path.parent, table, changes, method)


def _as_before(table: Mapping[str, Any]) -> None:
    """Give an older run's table the choices that all runs made before they were keys, in place."""
    setting, method = (table.get(key) for key in ("setting", "method"))
    if isinstance(setting, dict) and setting.get("name") not in ("task-hom", "task-het"):
        setting.setdefault("split", "per-dataset")
    if not isinstance(method, dict):
        return
    if method.get("name") == "disco" and method.get("max_subspaces"):
        method.setdefault("at_limit", "skip")
    if method.get("name") == "l2p":
        for key, value in (("start_from", "normal"), ("start_range", 0.02)):
            method.setdefault(key, value)


def validate(table: Mapping[str, Any], source: str = "config", foreign: bool = False) -> Config:
    """A Config from a plain table; relative paths start at the current folder. foreign: see `load`.

    Raises FcitError naming the source and the key at fault.
    """
    own = deepcopy(dict(table))
    if foreign:
        require_installed(_method_name(own), source)
    with naming(source):
        anchor(own, Path.cwd())
        if renamed := _rename(own):
            announce(source, tuple(renamed))
        return _checked(Config, own)


def checked(kind: type[T], table: Mapping[str, Any], source: str) -> T:
    """A table as a dataclass of ours. Raises FcitError naming the source and the key at fault."""
    with naming(source):
        return _checked(kind, table)


_adapter = cache(TypeAdapter)


def _checked(kind: type[T], table: Mapping[str, Any]) -> T:
    try:
        # NumPy's and torch's numbers and arrays as Python's
        text = json.dumps(table, default=lambda v: v.tolist() if hasattr(v, "tolist") else str(v))
        return _adapter(kind).validate_json(text)
    except ValidationError as error:
        fault = error.errors()[0]
        unknown = fault["type"] == "unexpected_keyword_argument"
        hint = _meant(kind, fault["loc"]) if unknown else ""
        raise FcitError(f"{_key(fault['loc'])}: {readable(fault)}{hint}") from None


def _key(path: Sequence[str | int]) -> str:
    """Where in a recipe: section.key, and the entry of a list, counted from 1."""
    words = "".join(f", no. {part + 1}" if isinstance(part, int) else f".{part}" for part in path)
    return words.removeprefix(".") or "recipe"


def _meant(kind: type, path: Sequence[str | int]) -> str:
    """Which key an unknown one may have meant: of this name in another section, or of a similar name."""
    names = [part for part in path if isinstance(part, str)]
    known = list(_keys(kind))
    same = [key for key in known if key.rpartition(".")[2] == names[-1]]
    return (
        did_you_mean(".".join(names), known) if not same else f"; did you mean {' or '.join(same)}?"
    )


def _keys(kind: type, prefix: str = "") -> Iterator[str]:
    """The keys of a dataclass and of the dataclasses in it."""
    hints = get_type_hints(kind)
    for key in (entry.name for entry in fields(kind)):
        yield prefix + key
        for inner in (hints[key], *get_args(hints[key])):
            if is_dataclass(inner) and isinstance(inner, type):
                yield from _keys(inner, f"{prefix}{key}.")


def _rename(table: dict[str, Any], overrule: bool = False) -> list[str]:
    """Bring a table's keys up to date (see `renamed`); those of a method of one's own never changed."""
    if is_file(name := _method_name(table)):
        table = {key: value for key, value in table.items() if key != "method"}
    return rename(table, _options(find(name)) if name in names() else (), overrule)


def _method_name(table: Mapping[str, Any]) -> str:
    section = table.get("method")
    return str(section.get("name", METHOD)) if isinstance(section, Mapping) else ""


def _switched(table: Mapping[str, Any], method: str) -> dict[str, Any]:
    """A table with another method; hyper-parameters that only its own method has are left out (of a file
    of one's own, which is not run for this, all that the new method does not have)."""
    section, new, old = table.get("method"), _options(find(method)), _method_name(table)
    options = section if isinstance(section, dict) else {}
    known = _options(find(old)) if old in names() else set[str]()
    gone = {*options} if is_file(old) else known
    shared = {key: value for key, value in options.items() if key in new or key not in gone}
    return {**table, "method": shared | {"name": method}}


def to_table(config: Config) -> dict[str, Any]:
    """The resolved configuration as a plain table, the method's and the optimizer's defaults
    included."""
    table = json.loads(json.dumps(asdict(config)))  # tuples become lists
    table["method"] = named(config.method) | table["method"]
    table["federation"]["optimizer_options"] = asdict(config.federation.build_optimizer())
    return table


def write(path: Path, table: Mapping[str, Any]) -> None:
    """Write a table as TOML, whole or not at all."""
    import tomli_w

    write_text(path, tomli_w.dumps(table))


def anchored(change: str, folder: Path) -> str:
    """A change as `load` takes it, with its relative paths started at a folder."""
    key = change.partition("=")[0].strip()
    if not key.startswith(tuple(PATHS)):  # data.rules holds a path for every dataset
        return change
    _change(table := dict[str, Any](), change)
    anchor(table, folder)
    for name in key.split("."):
        table = table[name]
    return f"{key}={inline(table)}"


def inline(value: Any) -> str:
    """A value in TOML on one line."""
    if not isinstance(value, Mapping):
        return json.dumps(value, ensure_ascii=False)
    return f"{{{', '.join(f'{inline(key)} = {inline(each)}' for key, each in value.items())}}}"


def _change(table: dict[str, Any], change: str) -> None:
    key, equals, text = change.partition("=")
    if not equals or not key.strip():
        raise FcitError("write key=value, for example federation.rounds=2")
    value: Any = text.strip()
    try:
        value = parse_toml(f"value = {value}")["value"]
    except (ValueError, RecursionError) as error:
        if value[:1] in ("[", "{", '"', "'"):  # otherwise it is a text without quotes
            raise FcitError(
                f"not a value of TOML ({error}); a shell needs quotes around it, for example "
                """--set 'setting.order=["IconQA"]'"""
            ) from None
    *outer, leaf = key.strip().split(".")
    for section in outer:
        table = table.setdefault(section, {})
        if not isinstance(table, dict):
            raise FcitError(f"{section} is not a section")
    table[leaf] = value
