"""Reads a run folder into frozen values; everything a report shows comes from here."""

import hashlib
import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Annotated, Any

from pydantic import BeforeValidator, ConfigDict

from fcit.benchmark import metrics
from fcit.methods import TokenRouted, title
from fcit.recipe import config as configs
from fcit.rounds.evaluate import chooses
from fcit.rounds.records import Numbers, Prediction, RoundLog, parse
from fcit.rounds.runfolder import ZERO_SHOT, RunFolder
from fcit.types import FcitError
from fcit.worker.experiment import Experiment


@dataclass(frozen=True)
class RunData:
    """All that a report uses of a run folder."""

    __pydantic_config__ = ConfigDict(coerce_numbers_to_str=True)

    path: Path
    setting: str
    method: str
    scoring: str
    seed: int
    datasets: tuple[str, ...]
    stages: tuple[str, ...]
    matrix: tuple[tuple[float | None, ...], ...]
    """Percent by stage and dataset; None where nothing was measured."""
    beta: float | None = None
    last: float | None = None
    avg: float | None = None
    zero_shot: Numbers = field(default_factory=dict)
    chance: Numbers = field(default_factory=dict)
    routing: Numbers = field(default_factory=dict)
    ahead: Numbers = field(default_factory=dict)
    general: Numbers = field(default_factory=dict)
    privacy: Annotated[Mapping[str, Any], BeforeValidator(lambda value: value or {})] = field(
        default_factory=dict
    )
    evaluated: str = ""
    """What the last row was computed in, where that is not what the run was."""
    config: Mapping[str, Any] = field(default_factory=dict)
    method_used: Any = None
    """The `Method`; None where this fcit does not know it."""
    rounds: tuple[RoundLog, ...] = ()
    partition: Mapping[str, tuple[int, ...]] = field(default_factory=dict)
    """Training samples of every client, by dataset."""
    dropped: Mapping[str, Mapping[str, Mapping[str, int]]] = field(default_factory=dict)
    """Records left out because of their image: how many, by dataset, split and image."""
    data: str = ""
    """The data folder the run was made on."""
    tokens: tuple[tuple[float, ...], ...] = ()
    """The server's identity tokens, one per subspace in order."""

    @property
    def reference(self) -> bool:
        """Whether this is a reference point and not a federated continual method."""
        return self.method_used is not None and self.method_used.reference

    @property
    def forgetting(self) -> Mapping[str, float]:
        """Points by dataset, from the matrix: older runs wrote zeros for the last stage's datasets."""
        return metrics.forgetting(self.matrix, self.datasets) if self.matrix else {}

    @property
    def token_routed(self) -> TokenRouted | None:
        """The method, if it routes by identity tokens."""
        return self.method_used if isinstance(self.method_used, TokenRouted) else None

    @property
    def unfinished(self) -> bool:
        """Whether stages are still to be run."""
        return len(self.matrix) < len(self.stages)

    def setting_of(self, section: str, key: str, default: Any = None) -> Any:
        """A value of the run's configuration."""
        table = self.config.get(section, {})
        return table.get(key, default) if isinstance(table, Mapping) else default


def read_run(path: Path) -> RunData:
    """Read a run folder. Raises FcitError naming the file that is missing, broken or changed."""
    folder = RunFolder(Path(path))
    if not folder.matrix.is_file():
        problem = "holds no matrix.json" if folder.path.is_dir() else "is not a folder"
        raise FcitError(f"{path}: {problem}; give the folder of a run (made by `fcit run`)")
    table, experiment = folder.table(), _experiment(folder)
    if experiment:
        folder.check(experiment.plan, experiment.method.single_row)
        versions = table.get("versions", {})  # and the defaults of keys that are newer than the run
        table = configs.to_table(experiment.config) | {"versions": versions}
    split = folder.read(folder.partition) if folder.partition.is_file() else {}
    parts = {
        "path": folder.path,
        "config": _named(table),
        "method_used": experiment and experiment.method,
        "rounds": tuple(folder.rounds()),
        "partition": split.get("datasets", {}),
        "dropped": split.get("dropped", {}),
        "data": split.get("data", ""),
    }
    if experiment and not chooses(experiment.method):  # which earlier versions did not ask
        parts["routing"] = {}
    folder.rows()
    run = parse(RunData, folder.read(folder.matrix) | parts, str(folder.matrix))
    return replace(run, tokens=_tokens(folder, run.token_routed))


def _named(table: dict[str, Any]) -> dict[str, Any]:
    """A configuration with a method of one's own by its name instead of its path."""
    method = table.get("method")
    if not isinstance(method, Mapping):
        return table
    return table | {"method": {**method, "name": title(str(method.get("name", "")))}}


def _experiment(folder: RunFolder) -> Experiment | None:
    """The run's plan and method; None where another fcit made it, with keys that are unknown here."""
    try:
        return Experiment(configs.load_run(folder.config))
    except FcitError:
        return None


def read_runs(paths: Sequence[Path]) -> list[RunData]:
    """Read run folders, each once; a folder of run folders (a sweep's) stands for all below it.

    Raises FcitError when none is given.
    """
    if not paths:
        raise FcitError("no run folder given; name at least one made by `fcit run`")
    folders = {folder.resolve(): folder for path in paths for folder in _run_folders(Path(path))}
    return [read_run(folder) for folder in folders.values()]


def _run_folders(path: Path) -> list[Path]:
    """The run folders at or below a path; the path itself where there are none, to be refused."""
    found: list[Path] = []
    for folder, subfolders, files in os.walk(path):
        subfolders.sort()
        if "matrix.json" in files:
            found.append(Path(folder))
            subfolders.clear()  # a run folder holds no other
    return found or [path]


def predictions(run: RunData, dataset: str, stage: int | None = None) -> list[Prediction]:
    """A dataset's predictions after a stage (default: the final one); [] when there are none."""
    begun = ZERO_SHOT if not run.stages else ""
    folder, name = RunFolder(run.path), str(stage or len(run.matrix) or begun)
    file = folder.predictions(name, dataset)
    known = dataset in run.datasets and file.is_file()
    return folder.answers(name, dataset) if known else []


def questions_digest(rows: Sequence[Prediction]) -> str:
    """A digest of what was asked: answers with equal ones are answers to the same questions. (In the mini
    suite, a question's id is that of another question with another seed.)"""
    digest = hashlib.sha256()
    for row in rows:
        digest.update(repr((row.question_id, row.prompt, row.truth)).encode())
    return digest.hexdigest()


def by_data(runs: Sequence[RunData]) -> list[list[RunData]]:
    """Runs on different data folders apart: their training samples differ in number. (The same data may
    be in another place.) Of runs without a partition, such as deployments, only the place is known:
    where there are several parts, those in none of their places are one more."""
    parts: list[list[RunData]] = []
    unknown: list[RunData] = []
    for run in sorted(runs, key=lambda run: not run.partition):
        here = [part for part in parts if _place(run) in map(_place, part)]
        alike = [part for part in parts if not any(_other_data(run, each) for each in part)]
        if fits := here or (alike if run.partition else []):
            fits[0].append(run)
        elif run.partition:
            parts.append([run])
        else:
            unknown.append(run)
    if unknown and len(parts) == 1:
        parts[0] += unknown  # nothing says that their data are others
    elif unknown:
        parts.append(unknown)
    return parts


def _place(run: RunData) -> str:
    return run.setting_of("data", "root", "")


def _other_data(run: RunData, other: RunData) -> bool:
    totals = [{name: sum(part) for name, part in one.partition.items()} for one in (run, other)]
    return _place(run) != _place(other) and all(totals) and totals[0] != totals[1]


def _tokens(folder: RunFolder, method: TokenRouted | None) -> list[list[float]]:
    if method is None or not any(folder.states.glob("*.safetensors")):
        return []  # or a copy of the results without the weights
    from safetensors.numpy import load

    manifest = folder.manifest()
    try:
        files = folder.tensors("extras", method.tokens_name, manifest)
        stored: list[Any] = [load(data)["tokens"] for _, data in files]
    except FcitError:
        if manifest == folder.manifest():
            raise
        return _tokens(folder, method)  # the run committed meanwhile
    return [row for tokens in stored for row in method.token_mean(tokens).tolist()]
