"""Plans a run before anything is spent: who trains on what and when, bytes, memory and time.

`counts` counts samples, `rehearsal` runs the server's loop over blank tensors, `memory` gives memory, and
`estimates` time.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from math import ceil, prod
from pathlib import Path
from statistics import fmean
from typing import TYPE_CHECKING

from fcit.planning import estimates
from fcit.planning.counts import SampleCounts
from fcit.planning.memory import training_memory
from fcit.planning.rehearsal import StageTraffic, rehearse
from fcit.recipe.config import Config
from fcit.rounds.client import Data, steps
from fcit.runs.engine import workers
from fcit.types import FcitError
from fcit.watch import Silent, Watch
from fcit.worker.experiment import Experiment

if TYPE_CHECKING:
    import torch

FEATURE_WIDTH = 768
"""Width of an identity feature where the encoder's configuration is not on this disk: CLIP ViT-L/14's."""

MOST_ROUNDS = 2000
"""Rounds of a stage that are looked at one by one; later ones are like them."""


@dataclass(frozen=True)
class StagePlan:
    """One stage; None where a number cannot be known without the data or the model."""

    tasks: tuple[str, ...]
    clients: int
    rounds: int
    per_round: int
    sampled: int
    """Clients that take part in any round."""
    samples: int | None
    """Samples that all clients train on in all rounds."""
    steps: int | None
    tests: int | None
    """Questions asked after the stage."""
    turns: tuple[tuple[tuple[int, str], ...], ...] = ()
    """The clients of every round (of at most MOST_ROUNDS), each with its task."""
    down: int | None = None
    up: int | None = None
    """Bytes to and from a client in a round, the mean."""
    down_all: int | None = None
    up_all: int | None = None
    """Bytes to and from all clients in all rounds."""


@dataclass(frozen=True)
class Plan:
    """A whole run."""

    setting: str
    method: str
    model: str
    parameters: int | None
    device: str
    dtype: str
    workers: int
    stages: tuple[StagePlan, ...]
    zero_shot: int | None
    """Questions asked of the base model."""
    general: int = 0
    """Of these, the general ones, which the last stage asks again where the method can answer them."""
    memory: Mapping[str, int] = field(default_factory=dict[str, int])
    """Bytes in one process that trains on `device`, by what takes them."""
    seconds: Mapping[str, float] = field(default_factory=dict[str, float])
    """Of training and of answering."""
    measured: bool = False
    """Whether `seconds` come from real steps."""
    notes: tuple[str, ...] = ()
    """What could not be known, one line each."""


def plan(config: Config, measure: bool = False, watch: Watch | None = None) -> Plan:
    """Plan a run. Nothing is written, except that `measure` makes the mini suite where it is missing.

    Time comes from a few real steps of a small model, or of any where `measure` asks for them;
    otherwise no weights are read. Raises FcitError for a recipe that cannot be run with any data and
    model.
    """
    from fcit.models.device import choose

    experiment, notes = Experiment(config), list[str]()
    if measure:
        experiment.prepare(watch or Silent())
    try:
        (device, dtype), present = choose(config.model.device, config.model.dtype), True
    except FcitError as error:
        if measure:
            raise
        device, present = config.model.device, False
        _, dtype = choose("cpu", config.model.dtype.replace("auto", "bfloat16"))
        notes.append(f"time: {error}")
    counts = SampleCounts(experiment, notes)
    stages = [_stage(experiment, counts, stage) for stage in range(len(experiment.plan))]
    if any(stage.rounds > MOST_ROUNDS for stage in stages):
        notes.append(
            f"samples, steps and bytes of stages with more than {MOST_ROUNDS:,} rounds exactly: they "
            "are extrapolated from the first of them"
        )
    made = Plan(
        setting=experiment.setting.name,
        method=config.method.name,
        model=config.model.path or "the mini model",
        parameters=None,
        device=device,
        dtype=str(dtype).removeprefix("torch."),
        workers=workers(config),
        stages=tuple(stages),
        zero_shot=counts.questions(experiment.setting.datasets, general=True),
        general=counts.general,
    )
    with counts.some_data() as data:
        made = _with_costs(made, experiment, data, counts, dtype, present, measure, notes)
    return replace(made, notes=tuple(notes))


def _with_costs(
    made: Plan,
    experiment: Experiment,
    data: Data,
    counts: SampleCounts,
    dtype: torch.dtype,
    present: bool,
    measure: bool,
    notes: list[str],
) -> Plan:
    """The plan with bytes, memory and time, as far as data, model and device (`present`) allow."""
    from fcit.models.images import image_size
    from fcit.models.size import PHOTO, model_size

    config = experiment.config
    try:
        heaviest, seen = counts.heaviest()
        images, theirs = (list(map(image_size, rows.images)) for rows in (data, heaviest))
        largest = max([*images, *theirs, *map(image_size, seen)], key=prod, default=PHOTO)
        size = model_size(experiment.model_path(), config.model.identity, largest)
    except FcitError as error:
        if Path(experiment.model_path()).is_dir():
            raise
        notes.append(f"{error}; bytes, memory and time are left out")
        return made
    width, encoder = _encoder(experiment, notes)
    traffic = rehearse(experiment, size, width, MOST_ROUNDS)
    _check_subspaces(experiment, notes)
    stages = [_with_bytes(stage, sent) for stage, sent in zip(made.stages, traffic, strict=True)]
    made = replace(made, stages=tuple(stages), parameters=size.parameters)
    if not traffic:
        return made
    if not size.image_tokens:
        notes.append(
            "how many tokens an image takes, as the model's processor is not here; memory and time are "
            "left out"
        )
        return made
    usual, longest = (
        list(zip(rows.samples, sizes, strict=True))
        for rows, sizes in ((data, images), (heaviest, theirs))
    )
    lengths = estimates.sample_lengths(experiment, size, usual, longest, notes)
    trained, jobs = sum(stage.samples or 0 for stage in stages), traffic[-1]
    memory = training_memory(
        experiment, size, lengths, jobs.last, trained, dtype.itemsize, made.device
    )
    made = replace(made, memory=memory | ({"identity encoder": 4 * encoder} if encoder else {}))
    if config.model.device_map:
        notes.append(
            "how much of the memory each GPU gets (model.device_map); it is the sum over all of them"
        )
    if None in (made.zero_shot, *(stage.samples for stage in stages)):
        notes.append("time: some of the data is missing")
    elif present:
        measure = measure or size.parameters <= estimates.SMALL
        totals = trained, max(1, sum(stage.steps or 0 for stage in stages))
        if measure:
            batch, asked = ceil(trained / totals[1]), max(stage.tests or 0 for stage in stages)
            times = estimates.measured_times(config, jobs.usual, jobs.last, data, batch, asked)
        else:
            rate = estimates.products_per_second(made.device, dtype, config.training.threads)
            times = estimates.estimated_times(size, lengths, rate, totals, config)
        made = replace(made, seconds=_seconds(experiment, made, times), measured=measure)
    return made


def _seconds(experiment: Experiment, made: Plan, times: estimates.Times) -> dict[str, float]:
    """A run's seconds: workers share out the clients of a round, each training one at a time."""
    per_round = experiment.training_setting.per_round
    training = sum(stage.steps or 0 for stage in made.stages) * times.step
    training += len(made.stages) * per_round * times.last_round
    questions = (made.zero_shot or 0) + sum(stage.tests or 0 for stage in made.stages)
    return {
        "training": training * ceil(per_round / made.workers) / per_round,
        "answering": questions * times.answer / made.workers,
    }


def _check_subspaces(experiment: Experiment, notes: list[str]) -> None:
    """Note where a method may not open a subspace for every task."""
    tasks = {task for stage in experiment.training_setting.stages for task in stage.tasks}
    most = experiment.method.subspace_limit
    if 0 < most < len(tasks):
        key = " (method.max_subspaces)" * hasattr(experiment.method, "max_subspaces")
        notes.append(
            f"which of the {len(tasks)} tasks share a subspace: the plan has {most} subspaces{key}"
        )


def _stage(experiment: Experiment, counts: SampleCounts, at: int) -> StagePlan:
    config, setting, method = experiment.config, experiment.training_setting, experiment.method
    stage, total = setting.stages[at], len(experiment.plan[at])
    rounds = experiment.plan[at][:MOST_ROUNDS]
    turns = [turn for round_turns in rounds for turn in round_turns]
    held = [counts.of_client(turn) for turn in turns]
    known = [count for count in held if count is not None]
    complete = len(known) == len(held)
    asked = experiment.setting.datasets if method.single_row else experiment.setting.seen(at)
    if at == len(experiment.plan) - 1:
        tests = counts.questions(asked, general=method.answers_general)
    elif method.single_row:
        tests = 0
    else:
        ahead = config.evaluation.forward_transfer
        tests = counts.questions(experiment.setting.seen(at + 1) if ahead else asked)
    taken = [steps(count, config.training.batch_size, setting.epochs) for count in known]
    return StagePlan(
        tasks=tuple(task.name for task in stage.tasks),
        clients=len(setting.pool(stage)),
        rounds=total,
        per_round=setting.per_round,
        sampled=len({turn.client for turn in turns}),
        samples=round(setting.epochs * sum(known) * total / len(rounds)) if complete else None,
        steps=round(sum(taken) * total / len(rounds)) if complete else None,
        tests=tests,
        turns=tuple(tuple((turn.client, turn.task.name) for turn in turns) for turns in rounds),
    )


def _encoder(experiment: Experiment, notes: list[str]) -> tuple[int, int]:
    """Width of identity tokens and parameters of their encoder; 0 for a method without tokens."""
    from fcit.models.size import encoder_size

    if (kind := experiment.method.identity) is None:
        return 0, 0
    try:
        return encoder_size(experiment.identity_path(), kind)
    except FcitError as error:
        if Path(experiment.identity_path()).is_dir():
            raise
        notes.append(
            f"{error}; identity features are taken to be {FEATURE_WIDTH} wide, and the memory of their "
            "encoder is left out"
        )
        return FEATURE_WIDTH * (2 if kind == "both" else 1), 0


def _with_bytes(stage: StagePlan, traffic: StageTraffic) -> StagePlan:
    down, up = ([size for turns in way for size in turns] for way in (traffic.down, traffic.up))
    means = {"down": round(fmean(down)), "up": round(fmean(up))}
    scale = stage.rounds / len(traffic.down)
    return replace(stage, **means, down_all=round(sum(down) * scale), up_all=round(sum(up) * scale))
