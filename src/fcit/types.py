"""The values that rooms exchange, and FcitError, the error that users can cause."""

from __future__ import annotations

from collections.abc import Callable, Generator, Iterable, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field, fields
from functools import cache
from typing import TYPE_CHECKING, Any, get_type_hints

if TYPE_CHECKING:
    from pydantic import TypeAdapter
    from torch import Tensor

    Weights = dict[str, Tensor]
    """Flat and on the CPU: the only tensors that cross a wire."""

    Gate = Tensor | Mapping[str, Tensor] | Callable[[str, Tensor], Tensor] | None
    """How much each of the K adapters in a model gives: None (all 1), [batch, K] for every layer, a
    table of these by layer path, or a function (layer path, input [batch, seq, in]) -> [batch, K] or
    [batch, seq, K]."""
else:
    Tensor = object
    Weights = dict
    Gate = object


PROJECTOR = "projector."
"""Prefix of a projector's tensors where they travel inside an adapter (isolated projectors)."""

SHARED_PROJECTOR = "projector"
"""Name in `State.extras` of the one projector that all clients train."""

Parts = Mapping[str, Mapping[str, "Tensor"]]
"""Named Weights to read; they may be in a file until they are used."""

MOST, MOST_CLIENTS = 1_000_000_000, 1_000_000  # of a recipe's counts, and of its clients
LINE = 200  # maximum length of a client's message in logs and on screens


class FcitError(Exception):
    """An error that the user can fix; the message says what is wrong and what to do."""


@contextmanager
def naming(source: str) -> Generator[None]:
    """Inside, a FcitError begins with the name of what is at fault."""
    try:
        yield
    except FcitError as error:
        raise FcitError(f"{source}: {error}") from None


def extra(name: str) -> str:
    """The command that installs an extra of fcit; the name fcit on PyPI is another project's."""
    return f"pip install 'fcit[{name}] @ git+https://github.com/fcit-project/fcit'"


def first_line(error: BaseException) -> str:
    """The first line of an error's message, or its type; of the system's errors, file and reason."""
    if isinstance(error, OSError) and error.strerror:
        return f"{error.filename}: {error.strerror}" if error.filename else error.strerror
    return (str(error).strip() or type(error).__name__).splitlines()[0].rstrip(".")


def check_fields(value: Any, section: str) -> None:
    """Raise FcitError, naming `section.field`, where a frozen dataclass's field is not of its annotated
    type and range, such as `Annotated[float, Field(gt=0)]` with pydantic's `Field`. A whole number in a
    float's place becomes a float."""
    from pydantic import ValidationError

    for name, adapter in _adapters(value.__class__).items():
        try:
            object.__setattr__(value, name, adapter.validate_python(getattr(value, name)))
        except ValidationError as error:
            raise FcitError(f"{section}.{name}: {readable(error.errors()[0])}") from None


@cache
def _adapters(kind: type) -> dict[str, TypeAdapter[Any]]:
    from pydantic import ConfigDict, TypeAdapter

    hints = get_type_hints(kind, include_extras=True)
    strict = ConfigDict(strict=True, allow_inf_nan=False)
    return {each.name: TypeAdapter(hints[each.name], config=strict) for each in fields(kind)}


PLAIN = {
    "unexpected_keyword_argument": "unknown key",
    "dataclass_type": "must be a section",
    "missing": "is missing",
    "bool_type": "must be true or false",
    "int_type": "must be a whole number",
    "int_from_float": "must be a whole number",
    "float_type": "must be a number",
    "string_type": "must be text",
    "tuple_type": "must be a list",
    "dict_type": "must be a table of keys and values",
}
"""pydantic's types of errors, in the words of a recipe."""


def readable(fault: Mapping[str, Any]) -> str:
    """One of the errors of a pydantic ValidationError, in one line."""
    if (kind := fault["type"]) in ("unexpected_keyword_argument", "dataclass_type", "missing"):
        return PLAIN[kind]
    message = PLAIN.get(kind) or str(fault["msg"]).removeprefix("Value error, ")
    message = message.removeprefix("Input ")
    value = fault.get("input")
    shown = f" (got {value!r})" if isinstance(value, str | int | float | bool) else ""
    return message[0].lower() + message[1:] + shown


@dataclass(frozen=True)
class Sample:
    """One image, one instruction, and its answer."""

    id: str
    dataset: str
    image: str
    """Path relative to the data folder's `datasets/`."""
    prompt: str
    """The first human turn with its format line, without the image placeholder."""
    answers: tuple[str, ...]
    """One answer, or several references for a caption."""
    more: tuple[tuple[str, str], ...] = ()
    """Later (human, assistant) turns of a training record."""


@dataclass(frozen=True)
class Task:
    """What one client learns in one stage: one dataset, or the datasets of a capability."""

    name: str
    datasets: tuple[str, ...]


@dataclass(frozen=True)
class Stage:
    """What a stage's clients learn."""

    tasks: tuple[Task, ...]
    """One task (homogeneous), or one per slot of a round."""
    rounds: int = 0
    """0: as many as the setting says."""
    clients: tuple[int, ...] = ()
    """The clients that may be sampled; empty: all."""

    @property
    def datasets(self) -> tuple[str, ...]:
        """The stage's datasets, in order of first appearance."""
        return tuple(dict.fromkeys(name for task in self.tasks for name in task.datasets))


@dataclass(frozen=True)
class Setting:
    """The stages of a run, and its numbers of clients, rounds and local epochs."""

    name: str
    stages: tuple[Stage, ...]
    clients: int = 50
    per_round: int = 5
    rounds: int = 10
    epochs: float = 1

    @property
    def datasets(self) -> tuple[str, ...]:
        """All datasets of the setting, in order of first appearance."""
        return self.seen(len(self.stages) - 1)

    def rounds_of(self, stage: Stage) -> int:
        """How many rounds a stage has."""
        return stage.rounds or self.rounds

    def pool(self, stage: Stage) -> tuple[int, ...]:
        """The clients that a stage's rounds are sampled from, ascending."""
        return stage.clients or tuple(range(self.clients))

    def holders(self, dataset: str) -> tuple[int, ...]:
        """The clients that may ever learn a dataset, ascending: its samples are split among them."""
        pools = [self.pool(stage) for stage in self.stages if dataset in stage.datasets]
        return tuple(sorted({client for pool in pools for client in pool}))

    def together(self, dataset: str) -> tuple[str, ...]:
        """The datasets that belong to the same tasks as `dataset` does, itself included."""
        tasks = {task.datasets for stage in self.stages for task in stage.tasks}
        tasks_of = {name: {each for each in tasks if name in each} for name in self.datasets}
        return tuple(name for name in tasks_of if tasks_of[name] == tasks_of[dataset])

    def seen(self, stage: int) -> tuple[str, ...]:
        """The datasets that any client has trained on once `stage` (from 0) has ended."""
        stages = self.stages[: stage + 1]
        return tuple(dict.fromkeys(name for each in stages for name in each.datasets))


@dataclass(frozen=True, slots=True)
class Turn:
    """One client's work in one round; client, stage and round count from 0."""

    client: int
    task: Task
    stage: int
    round: int
    last: bool = False
    """Whether it is the last round of its stage."""


@dataclass(frozen=True)
class State:
    """All the server remembers between rounds; saved, it is the checkpoint."""

    adapters: dict[str, Weights] = field(default_factory=dict[str, Weights])
    """LoRA blocks by subspace name."""
    extras: dict[str, Weights] = field(default_factory=dict[str, Weights])
    """Everything else by name: the projector, identity tokens, a method's own tensors."""
    optimizer: dict[str, Weights] = field(default_factory=dict[str, Weights])
    """Only for the federated optimizer: momenta, control variates; a client gets its part."""

    @property
    def projector(self) -> Weights | None:
        """The projector that all clients train; None where there is none (isolated, frozen)."""
        return self.extras.get(SHARED_PROJECTOR)


@dataclass(frozen=True)
class Job:
    """One client's work in one round: its turn, what the server sends it, and the local epochs."""

    turn: Turn
    received: State
    epochs: float = 1


@dataclass(frozen=True)
class Update:
    """What a client sends back."""

    client: int
    samples: int
    """Its weight in the average."""
    adapters: Parts
    extras: Parts
    metrics: Mapping[str, float]
    optimizer: Parts = field(default_factory=dict[str, Weights])
    """Only for the federated optimizer."""
    memory: Weights | None = None
    """The client's new memory, which the engine keeps once the update is accepted (None: unchanged)."""


def did_you_mean(word: str, known: Iterable[str]) -> str:
    """The end of an error about an unknown word: `; did you mean 'rounds'?`, or nothing."""
    from difflib import get_close_matches

    (match,) = get_close_matches(word, list(known), 1) or [""]
    return f"; did you mean {match!r}?" if match else ""


def one_line(text: str) -> str:
    """A text as one line of printable characters; if it is longer than LINE, the middle is left out."""
    plain = "".join(letter if letter.isprintable() else " " for letter in text)
    plain = " ".join(plain.split())
    if len(plain) <= LINE:
        return plain
    half = (LINE - 5) // 2
    return f"{plain[:half]} ... {plain[-half:]}"


@dataclass(frozen=True)
class Fault:
    """What went wrong with one client in one round."""

    client: int
    kind: str
    """One word: "crash", "timeout" (past the deadline), "garbled" (cannot be decoded), "duplicate",
    "late", or what `acceptance` says."""
    detail: str
    """One line; it may be the client's own words."""

    def __post_init__(self) -> None:
        object.__setattr__(self, "detail", one_line(self.detail))


@dataclass(frozen=True)
class Score:
    """A client's scores (each 0 to 100) on its own test samples of a dataset: their sum and number."""

    client: int
    dataset: str
    total: float
    count: int


@dataclass(frozen=True)
class Identity:
    """A client's identity token for a task (Guo et al. 2025, section 4): [d], and its sample count."""

    client: int
    task: str
    token: Tensor
    samples: int
