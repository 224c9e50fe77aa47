"""A run's training samples: which each client has, in partition.json, and whether they fit its model."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from fcit.benchmark.layout import PARTITIONS
from fcit.files import private
from fcit.rounds.client import told_of_cuts
from fcit.rounds.runfolder import RunFolder
from fcit.types import FcitError, Stage
from fcit.watch import Watch
from fcit.worker.experiment import Experiment

if TYPE_CHECKING:
    from fcit.runs.engine import AnyEngine


def write_partition(folder: RunFolder, experiment: Experiment, watch: Watch) -> None:
    """Write how many samples of each dataset every client has, with a digest of them.

    Raises FcitError where clients have other samples than when the run began.
    """
    setting = experiment.training_setting
    counts, published = experiment.counts(setting), sorted(experiment.published)
    if (experiment.root / PARTITIONS).is_dir():
        tasks = {task.name for stage in setting.stages for task in stage.tasks}
        drawn = sorted(tasks - experiment.published)
        kinds = {"published for": published, "drawn from the seed for": drawn}
        shares = [f"{kind} {', '.join(names)}" for kind, names in kinds.items() if names]
        watch.say(f"the clients' shares: {'; '.join(shares)}")
    file = folder.partition
    value = {"data": str(experiment.root), "published": published, "datasets": counts}
    value |= {"digests": experiment.digests(setting)}
    value |= {"dropped": experiment.folder.dropped} if experiment.folder.dropped else {}
    if file.is_file() and folder.begun():
        then = {"digests": value["digests"]} | folder.read(file)  # older runs have none
        if any(then.get(key) != value.get(key) for key in ("datasets", "dropped", "digests")):
            raise FcitError(f"{file}: made from other data than {experiment.root} now has")
    with private(folder.path):
        folder.write(file, value)


def check_lengths(engine: AnyEngine, stages: Sequence[Stage], watch: Watch) -> None:
    """Say of how many training samples of these stages `training.max_length` cuts off the end of an
    answer. Raise FcitError where one would be cut too short to train on, which would end the run when its
    turn comes."""
    names = dict.fromkeys(task.name for stage in stages for task in stage.tasks)
    if not names:
        return
    with watch.bar("lengths of training samples", len(names)) as step:
        found: list[tuple[int, int]] = []
        for lengths in engine.check_lengths(names):
            found.append(lengths)
            step(len(found))
    for name, (cut, count) in zip(names, found, strict=True):
        if told := told_of_cuts(cut, count):
            watch.say(f"{name}: {told}")
