"""The benchmark's four settings as data (task order, capability groups, heterogeneous tables), and
settings of one's own, spelled out."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Annotated, Any

from pydantic import BeforeValidator, Field

from fcit.benchmark.datasets import DATASETS, find
from fcit.types import FcitError, Setting, Stage, Task

TASK_ORDER = (
    "ImageNet-R",
    "ArxivQA",
    "IconQA",
    "CLEVR-Math",
    "OCR-VQA",
    "Flickr30k",
    "FigureQA",
    "super-CLEVR",
)
"""The stages of task-hom, and what the table of task-het counts from 0."""

GROUPS: dict[str, tuple[str, ...]] = {
    "General": ("A-OKVQA", "IconQA", "Grounding", "ImageNet-R"),
    "Chart": ("ArxivQA", "FigureQA", "DVQA"),
    "Math": ("CLEVR-Math", "super-CLEVR", "TabMWP"),
    "Other": ("Flickr30k", "OCR-VQA"),
}
"""Capability groups in the reference partition's order, which is the default stage order."""


@dataclass(frozen=True)
class NamedSetting:
    """A setting: what its stages choose from, and for each stage the index of every slot's task."""

    order: tuple[str, ...]
    table: tuple[tuple[int, ...], ...]

    @property
    def slots(self) -> int:
        """How many tasks a round has; 1 where all of its clients learn the same."""
        return len(self.table[0])


SETTINGS: dict[str, NamedSetting] = {
    "task-hom": NamedSetting(TASK_ORDER, tuple((index,) for index in range(len(TASK_ORDER)))),
    "task-het": NamedSetting(
        TASK_ORDER,
        (
            (1, 2, 4, 5, 6),
            (3, 4, 5, 7, 7),
            (0, 2, 3, 4, 5),
            (0, 0, 1, 3, 7),
            (1, 2, 4, 4, 5),
            (0, 3, 5, 7, 7),
            (2, 2, 5, 7, 7),
            (5, 5, 5, 6, 6),
        ),
    ),
    "cap-hom": NamedSetting(tuple(GROUPS), tuple((index,) for index in range(len(GROUPS)))),
    "cap-het": NamedSetting(
        tuple(GROUPS),
        ((0, 1, 1, 3, 3), (0, 2, 2, 2, 3), (1, 2, 2, 3, 3), (0, 0, 0, 1, 1)),
    ),
}
"""Guo et al. 2025, section 3; the heterogeneous tables are the reference implementation's."""


def setting(
    name: str,
    clients: int = 50,
    per_round: int = 5,
    rounds: int = 10,
    order: Sequence[str] | None = None,
) -> Setting:
    """One of the four settings, its stages spelled out.

    `order` replaces the default order: dataset names for task-*, group names for cap-*. In a
    homogeneous setting it may name any number of them, one stage each; a heterogeneous table needs
    as many as it counts. Raises FcitError on unknown groups, repeats and numbers that do not fit.
    """
    if name not in SETTINGS:
        raise FcitError(f"setting.name: no setting {name!r}; there are {', '.join(SETTINGS)}")
    _sized(clients, per_round, rounds)
    row = SETTINGS[name]
    tasks = _tasks(name, row, order)
    if row.slots == 1:
        stages = tuple(Stage((one,)) for one in tasks)
    else:
        if per_round != row.slots:
            raise FcitError(
                f"federation.per_round = {per_round}, but every round of {name} has {row.slots} "
                f"slots; set it to {row.slots}"
            )
        stages = tuple(Stage(tuple(tasks[index] for index in slots)) for slots in row.table)
    return Setting(name, stages, clients, per_round, rounds)


def _first_clients(value: Any) -> Any:
    """N stands for the first N clients."""
    if type(value) is int:
        if value < 1:
            raise ValueError("at least one client must take part")
        return tuple(range(value))
    return tuple(value) if isinstance(value, list) else value


@dataclass(frozen=True)
class StageSpec:
    """One `[[setting.stages]]` of a recipe."""

    slots: Annotated[tuple[str, ...], Field(min_length=1)]
    """The task of each client of a round, by ascending client id; or one task for all of them."""
    rounds: Annotated[int, Field(ge=0)] = 0
    """Rounds of this stage (0 = `federation.rounds`)."""
    clients: Annotated[tuple[int, ...], BeforeValidator(_first_clients)] = ()
    """The clients that take part, by number from 0; or a number N, for the first N. Empty: all."""


def own(
    name: str,
    tasks: Mapping[str, Sequence[str]],
    stages: Sequence[StageSpec],
    clients: int = 50,
    per_round: int = 5,
    rounds: int = 10,
) -> Setting:
    """A setting of one's own: any datasets, stages, slots, arrivals and revisits.

    `tasks` are datasets by the task's name; the datasets of the benchmark and its capability groups
    are tasks too. Raises FcitError naming the task or the stage (from 1) that does not fit.
    """
    _sized(clients, per_round, rounds)
    known = {one: Task(one, (one,)) for one in DATASETS}
    known |= {one: Task(one, datasets) for one, datasets in GROUPS.items()}
    for one, datasets in tasks.items():
        if len(set(datasets)) != len(datasets) or not datasets:
            raise FcitError(f"setting.tasks: {one} must name one dataset or several, each once")
        known[one] = Task(one, tuple(find(dataset).name for dataset in datasets))
    found: list[Stage] = []
    for number, stage in enumerate(stages, 1):
        where = f"setting.stages, stage {number}"
        if stranger := next((slot for slot in stage.slots if slot not in known), None):
            mine = (
                f"[setting.tasks] has {', '.join(tasks)}" if tasks else "name it in [setting.tasks]"
            )
            raise FcitError(f"{where}: no task {stranger!r}; {mine}")
        if len(stage.slots) not in (1, per_round):
            raise FcitError(
                f"{where}: {len(stage.slots)} slots, but federation.per_round = {per_round}; name one "
                f"task for all clients of a round, or {per_round}"
            )
        there = stage.clients or tuple(range(clients))
        if lost := next((one for one in there if not 0 <= one < clients), None):
            raise FcitError(
                f"{where}: client {lost}, but federation.clients = {clients}: they are 0 to "
                f"{clients - 1}"
            )
        if len(set(there)) != len(there) or len(there) < per_round:
            raise FcitError(
                f"{where}: {len(set(there))} clients of {len(there)} named; there must be at least "
                f"federation.per_round = {per_round}, each once"
            )
        slots = tuple(known[slot] for slot in stage.slots)
        found.append(Stage(slots, stage.rounds, tuple(sorted(stage.clients))))
    return Setting(name, tuple(found), clients, per_round, rounds)


def _sized(clients: int, per_round: int, rounds: int) -> None:
    for key, value in (("clients", clients), ("per_round", per_round), ("rounds", rounds)):
        if value < 1:
            raise FcitError(f"federation.{key} = {value}; it must be at least 1")
    if per_round > clients:
        raise FcitError(f"federation.per_round = {per_round} exceeds the {clients} clients")


def _tasks(name: str, row: NamedSetting, order: Sequence[str] | None) -> list[Task]:
    names = row.order if order is None else tuple(order)
    for one in names:
        if name.startswith("cap-") and one not in GROUPS:
            raise FcitError(
                f"setting.order: no capability group {one!r}; there are {', '.join(GROUPS)}"
            )
    if len(set(names)) != len(names):
        raise FcitError(f"setting.order: names a task twice: {', '.join(names)}")
    if row.slots > 1 and len(names) != len(row.order):
        raise FcitError(
            f"setting.order: {name} needs {len(row.order)} names, as its table does; got {len(names)}"
        )
    if not names:
        raise FcitError("setting.order: names nothing; leave it out for the default order")
    if name.startswith("cap-"):
        return [Task(one, GROUPS[one]) for one in names]
    return [Task(one, (find(one).name,)) for one in names]
