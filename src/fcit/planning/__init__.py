"""What a run will be, before anything is spent: who trains on what and when, bytes, memory and time."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from statistics import fmean

from fcit.planning import estimates
from fcit.planning.counts import Counts
from fcit.planning.rehearsal import Traffic, rehearse
from fcit.recipe.config import Config
from fcit.rounds.client import steps
from fcit.runs.engine import workers
from fcit.types import FcitError, Task
from fcit.watch import Silent, Watch
from fcit.worker.experiment import Experiment

WIDTH = 768
"""Of an identity token where the encoder's configuration is not on this disk: CLIP ViT-L/14's."""


@dataclass(frozen=True)
class StagePlan:
    """One stage. samples, steps: of all its turns (None: the data is not here). tests: questions asked
    after it. turns: of every round the clients by number, each with its task. down, up: bytes to and
    from a client in a round, the mean; *_all: of all its turns."""

    tasks: tuple[str, ...]
    clients: int
    rounds: int
    per_round: int
    sampled: int
    samples: int | None
    steps: int | None
    tests: int | None
    turns: tuple[tuple[tuple[int, str], ...], ...] = ()
    down: int | None = None
    up: int | None = None
    down_all: int | None = None
    up_all: int | None = None


@dataclass(frozen=True)
class Plan:
    """A whole run. `zero_shot`: questions asked of the base model. `memory`: bytes by what takes them,
    in one process that trains, on `device`. `seconds`: training, answering; `measured` or estimated.
    `notes`: what could not be known, one line each."""

    setting: str
    method: str
    model: str
    parameters: int | None
    device: str
    dtype: str
    workers: int
    stages: tuple[StagePlan, ...]
    zero_shot: int | None
    memory: Mapping[str, int] = field(default_factory=dict[str, int])
    seconds: Mapping[str, float] = field(default_factory=dict[str, float])
    measured: bool = False
    notes: tuple[str, ...] = ()


def plan(config: Config, measure: bool = False, watch: Watch | None = None) -> Plan:
    """Plan a run: nothing is written, and no weight is read unless `measure` asks for real steps.

    Raises FcitError where the recipe cannot be run whatever data and model are there.
    """
    from fcit.models.device import choose
    from fcit.models.features import MEMORY_BYTES
    from fcit.models.memory import training_memory
    from fcit.models.size import PHOTO, model_size

    experiment, notes = Experiment(config), list[str]()
    if measure:
        experiment.prepare(watch or Silent())
    try:
        (device, dtype), here = choose(config.model.device, config.model.dtype), True
    except FcitError as error:
        if measure:
            raise
        device, here = config.model.device, False
        _, dtype = choose("cpu", config.model.dtype.replace("auto", "bfloat16"))
        notes.append(f"time: {error}")
    counts = Counts(experiment, notes)
    stages = [_stage(experiment, counts, at) for at in range(len(experiment.plan))]
    asked = counts.tests(experiment.setting.datasets, general=True)
    found = Plan(
        setting=experiment.setting.name,
        method=config.method.name,
        model=config.model.path or "the mini model",
        parameters=None,
        device=device,
        dtype=str(dtype).removeprefix("torch."),
        workers=workers(config),
        stages=tuple(stages),
        zero_shot=asked,
    )
    try:
        samples, pictures = counts.some()
        largest = max(pictures, key=estimates.area, default=PHOTO)
        size = model_size(experiment.model_path(), config.model.identity, largest)
    except FcitError as error:
        notes.append(f"{error}; bytes, memory and time are left out")
        return replace(found, notes=tuple(notes))
    width, encoder = _encoder(experiment, notes)
    traffic = rehearse(experiment, size, width)
    _capped(experiment, notes)
    stages = [_with_bytes(one, part) for one, part in zip(stages, traffic, strict=True)]
    found = replace(found, stages=tuple(stages), parameters=size.parameters)
    if traffic and not size.image_tokens:
        notes.append(
            "how many tokens an image takes, which the model's processor says; memory and time are "
            "left out"
        )
    elif traffic:
        spans = estimates.spans(experiment, size, samples, pictures, notes)
        count = sum(one.steps or 0 for one in stages)
        total = sum(one.samples or 0 for one in stages)
        images = total or MEMORY_BYTES  # not known: more than the cache will hold
        last, number = traffic[-1].last, dtype.itemsize
        load = estimates.load(experiment, last, spans, images, number, device)
        known = {"identity encoder": 4 * encoder} if encoder else {}
        found = replace(found, memory=training_memory(size, load) | known)
        if config.model.device_map:
            notes.append(
                "how much of the memory each GPU gets (model.device_map); it is the sum over all of them"
            )
        if None in (asked, *(one.samples for one in stages)):
            notes.append("time: not without all of the data")
        if not here or None in (asked, *(one.samples for one in stages)):
            return replace(found, notes=tuple(notes))
        questions = (asked or 0) + sum(one.tests or 0 for one in stages)
        if measure:
            timed = estimates.measured(config, traffic[-1].usual, last)
        else:
            rate = estimates.rate(device, dtype, config.training.threads)
            each, answer = estimates.seconds(size, spans, rate, config)
            timed = estimates.Timed(each * total / max(1, count), answer)
        turns = experiment.training_setting.per_round
        training = count * timed.step + len(stages) * turns * timed.extra
        seconds = {
            "training": training / min(found.workers, turns),
            "answering": questions * timed.answer / found.workers,
        }
        found = replace(found, seconds=seconds, measured=measure)
    return replace(found, notes=tuple(notes))


def _capped(experiment: Experiment, notes: list[str]) -> None:
    """Say so where a method may not open a subspace for every task."""
    tasks = {task for stage in experiment.training_setting.stages for task in stage.tasks}
    limit = experiment.method.subspace_limit
    if 0 < limit < len(tasks):
        notes.append(
            f"which of the {len(tasks)} tasks are alike: method.max_subspaces is {limit}, and "
            "so many are planned with; a run ends with an error where tokens are like none of them"
        )


def _stage(experiment: Experiment, counts: Counts, at: int) -> StagePlan:
    setting, method = experiment.training_setting, experiment.method
    stage, rounds = setting.stages[at], experiment.plan[at]
    batch = experiment.config.training.batch_size
    held = [_of(counts, turn.task, turn.client) for turns in rounds for turn in turns]
    known = [count for count in held if count is not None]
    whole = len(known) == len(held)
    asked = experiment.setting.datasets if method.single_row else experiment.setting.seen(at)
    if at == len(experiment.plan) - 1:
        tests = counts.tests(asked, general=method.answers_general)
    elif method.single_row:
        tests = 0
    else:
        ahead = experiment.config.evaluation.forward_transfer
        tests = counts.tests(experiment.setting.seen(at + 1) if ahead else asked)
    taken = [steps(count, batch, setting.epochs) for count in known]
    return StagePlan(
        tasks=tuple(task.name for task in stage.tasks),
        clients=len(setting.pool(stage)),
        rounds=len(rounds),
        per_round=setting.per_round,
        sampled=len({turn.client for turns in rounds for turn in turns}),
        samples=round(setting.epochs * sum(known)) if whole else None,
        steps=sum(taken) if whole else None,
        tests=tests,
        turns=tuple(tuple((one.client, one.task.name) for one in turns) for turns in rounds),
    )


def _of(counts: Counts, task: Task, client: int) -> int | None:
    held = counts.held(task)
    return held[client] if held else None


# -- bytes -----------------------------------------------------------------------------------------


def _encoder(experiment: Experiment, notes: list[str]) -> tuple[int, int]:
    """How wide identity tokens are, and the parameters of what makes them; 0 where there are none."""
    from fcit.models.size import encoder_size

    if experiment.method.identity is None:
        return 0, 0
    try:
        return encoder_size(experiment.identity_path())
    except FcitError as error:
        notes.append(
            f"{error}; identity tokens are taken to be {WIDTH} wide, and their encoder to take no memory"
        )
        return WIDTH, 0


def _with_bytes(stage: StagePlan, traffic: Traffic) -> StagePlan:
    down = [one for turns in traffic.down for one in turns]
    up = [one for turns in traffic.up for one in turns]
    return replace(
        stage, down=round(fmean(down)), up=round(fmean(up)), down_all=sum(down), up_all=sum(up)
    )
