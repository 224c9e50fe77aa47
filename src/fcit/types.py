"""The few values that travel through fcit, and the one error a person can cause."""

from __future__ import annotations

from collections.abc import Callable, Mapping
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
    Weights = dict
    Gate = object


PROJECTOR = "projector."
"""Prefix of a projector's tensors where they travel inside an adapter (isolated projectors)."""

SHARED_PROJECTOR = "projector"
"""Name in `State.extras` of the one projector that all clients train."""


Parts = Mapping[str, Mapping[str, "Tensor"]]
"""Named Weights to be read, which may lie in a file until they are."""


class FcitError(Exception):
    """Something a person caused and can mend; the message names what and how."""


def first_line(error: BaseException) -> str:
    """The first line of an error's message, or its type where it has none."""
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


def readable(fault: Mapping[str, Any]) -> str:
    """One of the errors of a pydantic ValidationError, in one line."""
    if fault["type"] == "unexpected_keyword_argument":
        return "unknown key"
    if fault["type"] == "dataclass_type":
        return "must be a section"
    message = str(fault["msg"]).removeprefix("Value error, ").removeprefix("Input ")
    value = fault.get("input")
    shown = f" (got {value!r})" if isinstance(value, str | int | float | bool) else ""
    return message[0].lower() + message[1:] + shown


@dataclass(frozen=True)
class Sample:
    """One image, one instruction, and what a right answer looks like.

    `image` is a path relative to the data folder's `datasets/`. `prompt` is the first human turn with
    its format line, without the image placeholder. `answers` holds one answer (several references for
    a caption). `more` holds later (human, assistant) turns of a multi-turn training record.
    """

    id: str
    dataset: str
    image: str
    prompt: str
    answers: tuple[str, ...]
    more: tuple[tuple[str, str], ...] = ()


@dataclass(frozen=True)
class Task:
    """What one client learns in one stage: one dataset, or the datasets of a capability."""

    name: str
    datasets: tuple[str, ...]


@dataclass(frozen=True)
class Stage:
    """The tasks a stage's clients learn: one task (homogeneous), or one per slot of a round.

    `rounds` 0: as many as the setting says. `clients`: who may be sampled; none named: all.
    """

    tasks: tuple[Task, ...]
    rounds: int = 0
    clients: tuple[int, ...] = ()

    @property
    def datasets(self) -> tuple[str, ...]:
        """The stage's datasets, in order of first appearance."""
        return tuple(dict.fromkeys(name for task in self.tasks for name in task.datasets))


@dataclass(frozen=True)
class Setting:
    """Stages, and how many clients meet them for how long."""

    name: str
    stages: tuple[Stage, ...]
    clients: int = 50
    per_round: int = 5
    rounds: int = 10
    epochs: float = 1

    @property
    def datasets(self) -> tuple[str, ...]:
        """All datasets of the setting, in order of first appearance."""
        return tuple(dict.fromkeys(name for stage in self.stages for name in stage.datasets))

    def rounds_of(self, stage: Stage) -> int:
        """How many rounds a stage has."""
        return stage.rounds or self.rounds

    def pool(self, stage: Stage) -> tuple[int, ...]:
        """The clients that a stage's rounds are sampled from, ascending."""
        return stage.clients or tuple(range(self.clients))

    def holders(self, dataset: str) -> tuple[int, ...]:
        """The clients that may ever learn a dataset, ascending: its samples are dealt to them."""
        pools = [self.pool(stage) for stage in self.stages if dataset in stage.datasets]
        return tuple(sorted({client for pool in pools for client in pool}))

    def seen(self, stage: int) -> tuple[str, ...]:
        """The datasets that any client has trained on once `stage` (from 0) has ended."""
        return tuple(
            dict.fromkeys(name for part in self.stages[: stage + 1] for name in part.datasets)
        )


@dataclass(frozen=True, slots=True)
class Turn:
    """Who trains on what, and when: one client's place in one round (all counted from 0); `last` in
    the last round of a stage."""

    client: int
    task: Task
    stage: int
    round: int
    last: bool = False


@dataclass(frozen=True)
class State:
    """All the server remembers between rounds; saved, it is the checkpoint.

    `adapters` are LoRA blocks by subspace name; `extras` is everything else by name: the projector,
    identity tokens, a method's own tensors. `optimizer` belongs to the federated optimizer alone
    (momenta, control variates); what of it a client needs is sent in the same field.
    """

    adapters: dict[str, Weights] = field(default_factory=dict[str, Weights])
    extras: dict[str, Weights] = field(default_factory=dict[str, Weights])
    optimizer: dict[str, Weights] = field(default_factory=dict[str, Weights])

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
    """What a client sends back; `samples` weighs it in the average; `optimizer` is for the federated
    optimizer alone. `memory`: what the engine is to keep for the client from here on, once the update
    is accepted (None: what it has)."""

    client: int
    samples: int
    adapters: Parts
    extras: Parts
    metrics: Mapping[str, float]
    optimizer: Parts = field(default_factory=dict[str, Weights])
    memory: Weights | None = None


LINE = 200
"""How many characters of others' words go to logs and screens."""


def one_line(said: str) -> str:
    """Others' words as one line of printable characters, LINE at most, the middle of a longer one left
    out."""
    plain = "".join(one if one.isprintable() else " " for one in said)
    plain = " ".join(plain.split())
    if len(plain) <= LINE:
        return plain
    half = (LINE - 5) // 2
    return f"{plain[:half]} ... {plain[-half:]}"


@dataclass(frozen=True)
class Fault:
    """What went wrong with one client in one round, in one word and in one line.

    Engines say "crash", "timeout" (past the deadline), "garbled" (cannot be decoded), "duplicate" or
    "late"; the server adds what `acceptance` finds wrong with a reply. `detail` may be a client's own
    words, and goes to logs and screens: it is made `one_line`.
    """

    client: int
    kind: str
    detail: str

    def __post_init__(self) -> None:
        object.__setattr__(self, "detail", one_line(self.detail))


@dataclass(frozen=True)
class Score:
    """What a client says of its own test samples of a dataset: the sum of their scores (each 0 to 100),
    and how many they are."""

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
