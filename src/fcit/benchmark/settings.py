"""The benchmark's four settings as data (task order, capability groups, heterogeneous tables), and
settings of one's own, spelled out."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Annotated, Any

from pydantic import BeforeValidator, Field

from fcit.benchmark.datasets import DATASETS, OFFICIAL, find
from fcit.files import is_plain_name
from fcit.types import MOST, MOST_CLIENTS, FcitError, Setting, Stage, Task

GROUPS: dict[str, tuple[str, ...]] = {
    name: tuple(datasets) for name, datasets in OFFICIAL["groups"].items()
}
"""Capability groups in the reference partition's order, which is the default stage order."""


SETTINGS: dict[str, dict[str, Any]] = OFFICIAL["settings"]
"""The four settings (Guo et al. 2025, section 3): `order` is what the stages choose from, `table` has for
each stage the index of every slot's task. Without a table each stage has the next task, for all slots."""

TASK_ORDER: tuple[str, ...] = tuple(SETTINGS["task-hom"]["order"])
"""The stages of task-hom, and what the table of task-het counts from 0."""


def _first_clients(value: Any) -> Any:
    """N stands for the first N clients."""
    if type(value) is int:
        if value < 1:
            raise ValueError("at least one client must take part")
        if value > MOST_CLIENTS:
            raise ValueError(f"there are at most {MOST_CLIENTS:,} clients")
        return tuple(range(value))
    return tuple(value) if isinstance(value, list) else value


@dataclass(frozen=True)
class StageSpec:
    """One `[[setting.stages]]` of a recipe."""

    slots: Annotated[tuple[str, ...], Field(min_length=1)]
    """The task of each client of a round, by ascending client id; or one task for all of them."""
    rounds: Annotated[int, Field(ge=0, le=MOST)] = 0
    """Rounds of this stage (0 = `federation.rounds`)."""
    clients: Annotated[tuple[int, ...], BeforeValidator(_first_clients)] = ()
    """The clients that take part, by number from 0; or a number N, for the first N. Empty: all."""


def setting(
    name: str,
    clients: int = 50,
    per_round: int = 5,
    rounds: int = 10,
    order: Sequence[str] = (),
) -> Setting:
    """One of the four settings, its stages spelled out.

    `order` replaces the default order: dataset names for task-*, group names for cap-*. In a
    homogeneous setting it may name any number of them, one stage each; a heterogeneous table needs
    as many as it counts. Raises FcitError on unknown groups, repeats and numbers that do not fit.
    """
    default, table = SETTINGS[name]["order"], SETTINGS[name].get("table")
    names = order or default
    if len(set(names)) != len(names):
        raise FcitError(f"setting.order: names a task twice: {', '.join(names)}")
    if table and len(names) != len(default):
        raise FcitError(
            f"setting.order: {name} needs {len(default)} names, as its table does; got {len(names)}"
        )
    if table and per_round != (slots := len(table[0])):
        raise FcitError(
            f"federation.per_round = {per_round}, but every round of {name} has {slots} slots; "
            f"set it to {slots}"
        )
    table = table or [[index] for index in range(len(names))]
    tasks = {} if name.startswith("cap-") else {dataset: (dataset,) for dataset in names}
    if stranger := next((group for group in names if not tasks and group not in GROUPS), None):
        raise FcitError(
            f"setting.order: no capability group {stranger!r}; there are {', '.join(GROUPS)}"
        )
    stages = [StageSpec(tuple(names[index] for index in slots)) for slots in table]
    return own(name, tasks, stages, clients, per_round, rounds)


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
    if per_round > clients:
        raise FcitError(f"federation.per_round = {per_round} exceeds the {clients} clients")
    known = {dataset: Task(dataset, (dataset,)) for dataset in DATASETS}
    known |= {group: Task(group, datasets) for group, datasets in GROUPS.items()}
    for task, datasets in tasks.items():
        if len(set(datasets)) != len(datasets) or not datasets:
            raise FcitError(f"setting.tasks: {task} must name one dataset or several, each once")
        known[task] = Task(task, tuple(find(dataset).name for dataset in datasets))
        if not is_plain_name(task):
            raise FcitError(f"setting.tasks: {task!r} must be one plain name")
    spelled: list[Stage] = []
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
        pool = stage.clients or tuple(range(clients))
        if lost := next((client for client in pool if not 0 <= client < clients), None):
            raise FcitError(
                f"{where}: client {lost}, but federation.clients = {clients}: they are 0 to "
                f"{clients - 1}"
            )
        if len(set(pool)) != len(pool) or len(pool) < per_round:
            raise FcitError(
                f"{where}: {len(set(pool))} clients of {len(pool)} named; there must be at least "
                f"federation.per_round = {per_round}, each once"
            )
        slots = tuple(known[slot] for slot in stage.slots)
        spelled.append(Stage(slots, stage.rounds, tuple(sorted(stage.clients))))
    return Setting(name, tuple(spelled), clients, per_round, rounds)
