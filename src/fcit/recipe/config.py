"""One validated, frozen configuration <-> TOML: every key a recipe may hold, and its default."""

from __future__ import annotations

import dataclasses
import json
import tomllib
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Annotated, Any, Literal, Self, TypeVar

from pydantic import BaseModel, ConfigDict, Field, TypeAdapter, ValidationError, model_validator

from fcit.benchmark.general import COUNT
from fcit.files import read_toml, write_text
from fcit.methods import names
from fcit.recipe.data import DataSection
from fcit.recipe.federation import FederationSection, Positive, PrivacySection, Section
from fcit.recipe.renamed import announce, rename
from fcit.recipe.setting import SettingSection
from fcit.recipe.tracking import TrackingSection
from fcit.types import FcitError

Model = TypeVar("Model", bound=BaseModel)

PATHS = ("data.root", "data.images", "data.rules", "model.path", "model.identity")
"""The keys that hold paths."""


class ModelSection(Section):
    """path: a Hugging Face LMM folder or hub id (absent: the mini model). identity: a CLIP (absent:
    the mini CLIP). device, dtype: "auto" chooses CUDA, MPS or CPU, and bf16 where the hardware
    computes in it. cache_features: keep frozen vision features in the user's cache folder.
    template: a chat template in place of the model's own: "vicuna-v1" (LLaVA-1.5's) or "paligemma".
    quantize: the language model's matrices in 8 or 4 bits (bitsandbytes, on CUDA). device_map: spread
    a model over several GPUs: "auto", "balanced" or "sequential" (accelerate)."""

    path: str = ""
    identity: str = ""
    device: str = "auto"
    dtype: Literal["auto", "float32", "bfloat16", "float16"] = "auto"
    cache_features: bool = True
    template: Literal["", "vicuna-v1", "paligemma"] = ""
    quantize: Literal["none", "8bit", "4bit"] = "none"
    device_map: Literal["", "auto", "balanced", "balanced_low_0", "sequential"] = ""


class TrainingSection(Section):
    """Local training (see `client.Training`): AdamW, cosine with warm-up, anew every turn."""

    lr: Annotated[float, Field(gt=0, strict=False)] = 2e-4
    projector_lr: Annotated[float, Field(ge=0, strict=False)] = 2e-5
    batch_size: Positive = 64
    epochs: Positive = 1
    warmup: Annotated[float, Field(ge=0, lt=1, strict=False)] = 0.03
    weight_decay: Annotated[float, Field(ge=0, strict=False)] = 0.0
    dropout: Annotated[float, Field(ge=0, lt=1, strict=False)] = 0.05
    max_grad_norm: Annotated[float, Field(gt=0, strict=False)] = 1.0
    max_length: Positive = 2048
    micro_batch: Annotated[int, Field(ge=0)] = 0
    checkpointing: bool = False
    threads: Positive = 1


def _fields(method: str) -> set[str]:
    from fcit.methods import find

    return {one.name for one in dataclasses.fields(find(method))}


class MethodSection(BaseModel):
    """name: a method; its hyper-parameters stand beside it (`fcit run --help` lists methods)."""

    model_config = ConfigDict(extra="allow", frozen=True)

    name: str = "disco"

    @model_validator(mode="after")
    def _known(self) -> Self:
        from fcit.methods import find

        try:
            fields = _fields(self.name)
            for key in self.model_extra or {}:
                if key not in fields:
                    raise ValueError(
                        f"{self.name} has no {key!r}; it has {', '.join(sorted(fields))}"
                    )
            TypeAdapter(find(self.name)).validate_json(
                json.dumps(self.model_extra or {}), strict=True
            )
        except FcitError as error:
            raise ValueError(str(error)) from None
        return self


class EvaluationSection(Section):
    """scoring: "strict" (correct) or "reference" (comparable with published tables; captions need
    Java). batch_size: answered at once (float sums, and so a rare answer, depend on it). limit:
    test samples per dataset (0: all). forward_transfer: after a stage also ask the datasets that
    the next one is the first to learn. general_questions: that many questions of the mini model's
    pretraining mixture are asked before and after (another model's mixture is not known: none).
    where: the server answers test samples of its own, or every client scores its own and sends
    sums."""

    scoring: Literal["strict", "reference"] = "strict"
    batch_size: Positive = 50
    max_new_tokens: Positive = 128
    limit: Annotated[int, Field(ge=0)] = 0
    where: Literal["server", "clients"] = "server"
    forward_transfer: bool = True
    general_questions: Annotated[int, Field(ge=0, le=COUNT)] = COUNT


class Config(Section):
    """A whole experiment. seed: of every random choice, and of the mini suite's data."""

    seed: Annotated[int, Field(ge=0)] = 0
    data: DataSection = DataSection()
    model: ModelSection = ModelSection()
    setting: SettingSection = SettingSection()
    federation: FederationSection = FederationSection()
    privacy: PrivacySection = PrivacySection()
    training: TrainingSection = TrainingSection()
    method: MethodSection = MethodSection()
    evaluation: EvaluationSection = EvaluationSection()
    tracking: TrackingSection = TrackingSection()

    @model_validator(mode="after")
    def _private(self) -> Self:
        """What privacy does not go together with."""
        self.privacy.covers(self.method.name, self.federation)
        return self


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


def checked(model: type[Model], table: Mapping[str, Any], source: str) -> Model:
    """A table as a model of ours. Raises FcitError naming the source and the key at fault."""
    try:
        return model.model_validate(table)
    except ValidationError as error:
        first = error.errors()[0]
        raise FcitError(f"{source}: {_place(first)}{_plain(first)}") from None


def _rename(table: dict[str, Any], source: str, overrule: bool = False) -> list[str]:
    """Bring a table's keys up to date (see `renamed`)."""
    section = table.get("method")
    name = section.get("name", "disco") if isinstance(section, dict) else ""
    try:
        return rename(table, _fields(name) if name in names() else (), overrule)
    except FcitError as error:
        raise FcitError(f"{source}: {error}") from None


def _switch(table: dict[str, Any], method: str, source: str) -> None:
    """Name another method; what only the recipe's own method has is left out."""
    part = table.get("method", {})
    if not isinstance(part, dict):
        raise FcitError(f"{source}: method: must be a section, [method]")
    named = part.get("name", MethodSection.model_fields["name"].default)
    mine, theirs = _fields(method), _fields(str(named))
    kept = {key: value for key, value in part.items() if key in mine or key not in theirs}
    table["method"] = kept | {"name": method}


def to_table(config: Config) -> dict[str, Any]:
    """The resolved configuration as a plain table, the method's and the optimizer's defaults
    included."""
    from fcit.methods import find

    table = config.model_dump(mode="json")
    extra = config.method.model_extra or {}
    defaults = {one.name: one.default for one in dataclasses.fields(find(config.method.name))}
    table["method"] = {"name": config.method.name} | defaults | extra
    options = dataclasses.asdict(config.federation.build_optimizer())
    table["federation"]["optimizer_options"] = options
    return table


def build_method(config: Config):
    """The method object with its hyper-parameters."""
    from fcit.methods import find

    return TypeAdapter(find(config.method.name)).validate_python(config.method.model_extra or {})


def write(path: Path, table: Mapping[str, Any]) -> None:
    """Write a table as TOML, whole or not at all."""
    import tomli_w

    write_text(path, tomli_w.dumps(table))


def _anchor(table: dict[str, Any], folder: Path) -> None:
    """Make the recipe's relative paths start at its folder (a name that is no path stays a hub id)."""

    def start(value: Any, always: bool) -> Any:
        if isinstance(value, list | tuple):
            return [start(one, always) for one in value]
        if isinstance(value, Mapping):
            return {key: start(one, always) for key, one in value.items()}
        if not isinstance(value, str) or not value:
            return value
        found = (folder / Path(value).expanduser()).resolve()
        return str(found) if always or found.exists() else value

    for place in PATHS:
        section, key = place.split(".")
        part = table.get(section)
        if isinstance(part, dict) and key in part:
            part[key] = start(part[key], section == "data")


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


def _place(error: Mapping[str, Any]) -> str:
    """Where in a recipe: section.key, and the entry of a list, counted from 1."""
    parts = error["loc"]
    if parts == ("setting",) and error["type"] == "value_error":
        return ""  # what concerns all of the section names the key itself
    named = "".join(f", no. {one + 1}" if isinstance(one, int) else f".{one}" for one in parts)
    return f"{named.removeprefix('.') or 'recipe'}: "


def _plain(error: Mapping[str, Any]) -> str:
    if error["type"] == "extra_forbidden":
        return "unknown key"
    message = str(error["msg"]).removeprefix("Value error, ")
    value = error.get("input")
    shown = f" (got {value!r})" if isinstance(value, str | int | float | bool) else ""
    return message[0].lower() + message[1:] + shown
