"""Why a test question was answered as it was: where it was routed, and who trained what answered it."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from fcit.benchmark.datasets import find
from fcit.benchmark.layout import locate
from fcit.files import write_text
from fcit.methods import Method, TokenRouted
from fcit.report import run_data
from fcit.report.examples import RIGHT, embedded_image
from fcit.rounds import records
from fcit.rounds.evaluate import adapters_by_dataset, chooses, winner
from fcit.runs.api import Run
from fcit.types import FcitError

SHOWN = 8
"""Subspaces listed for a question on a screen or page; the rest gave the least."""


@dataclass(frozen=True)
class Trainers:
    """Who trained a subspace on one task."""

    task: str
    clients: tuple[int, ...]
    rounds: tuple[tuple[int, int], ...]
    """(stage, round), counted from 1."""

    def __str__(self) -> str:
        stages: dict[int, list[int]] = {}
        for stage, number in self.rounds:
            stages.setdefault(stage, []).append(number)
        when = "; ".join(
            f"stage {stage}, round{'s' * (len(numbers) > 1)} {_spans(numbers)}"
            for stage, numbers in stages.items()
        )
        who = f"client{'s' * (len(self.clients) > 1)} {_spans(self.clients)}"
        return f"{self.task} by {who} ({when})"


@dataclass(frozen=True)
class Subspace:
    """One subspace, and what happened to the dataset's questions that were routed to it."""

    name: str
    trained: tuple[Trainers, ...]
    own: bool
    """Whether clients trained it on the dataset."""
    questions: int
    """Questions for which it had the largest share."""
    score: float | None
    """Their mean score in percent."""


@dataclass(frozen=True)
class Factor:
    """How much one subspace gave to an answer."""

    subspace: str
    share: float
    """The activation factor."""
    cosine: float | None
    """Between the question's identity feature and the subspace's token; None if not recorded."""


@dataclass(frozen=True)
class Explained:
    """One test question; `factors` has the largest share first."""

    id: str
    prompt: str
    image: str
    answer: str
    truth: tuple[str, ...]
    score: float
    right: bool
    misrouted: bool
    """Whether no client trained the winning subspace on the question's dataset."""
    factors: tuple[Factor, ...]


@dataclass(frozen=True)
class Why:
    """How one dataset's test questions were routed after a stage."""

    run: str
    method: str
    dataset: str
    stage: int
    asked: int
    misrouted: int
    gate: str
    """How shares come from cosines, in a sentence."""
    recorded: bool
    """Whether the run recorded cosines (runs of earlier versions did not)."""
    trainers_known: bool
    """Whether it is known who trained each subspace. Of an imported checkpoint it is not, and nothing
    counts as misrouted."""
    chosen: bool
    """Whether a question chooses among the subspaces. With the gate "concat" each gives 1 to every
    question, and nothing counts as misrouted."""
    subspaces: tuple[Subspace, ...]
    questions: tuple[Explained, ...]
    """The question asked for, or all misrouted ones."""
    wrong: tuple[str, ...]
    """The ids of all questions with a wrong answer."""

    @property
    def verdict(self) -> str:
        """The outcome, and what a star means if there is one."""
        own = any(subspace.own for subspace in self.subspaces)
        return f"* trained on {self.dataset}. {self._outcome}" if own else self._outcome

    @property
    def _outcome(self) -> str:
        if not self.trainers_known:
            return (
                f"The imported checkpoint does not say who trained its subspaces on {self.dataset}."
            )
        if not self.chosen:
            return "Every subspace gives 1 to every question, so there is no choice to explain."
        if not any(subspace.own for subspace in self.subspaces):
            return f"No client had trained on {self.dataset} by the end of stage {self.stage}."
        return (
            f"{self.misrouted} of {self.asked} questions went to a subspace that no client trained on "
            f"{self.dataset}."
        )


def why(run: Run, dataset: str, id: str | None = None, stage: int | None = None) -> Why:
    """Explain one question of a dataset, or all that went to a subspace of another dataset.

    stage: from 1 (default: the last evaluated). Raises FcitError where the run does not route by
    identity tokens, or has no such dataset, stage or question.
    """
    data, experiment = run_data.read_run(run.files.path), run.experiment
    if not experiment.method.identity:
        raise FcitError(
            f"{run.folder}: {data.method} does not route questions by identity tokens, so there is no "
            "choice of a subspace to explain"
        )
    if dataset not in data.datasets:
        raise FcitError(f"{dataset}: not in this run; choose from {', '.join(data.datasets)}")
    stage = stage or len(data.matrix)
    asked = run_data.predictions(data, dataset, stage) if stage else []
    if not asked:
        raise FcitError(_missing(run.folder, data, dataset, stage))
    rows = [row for row in asked if row.activation]
    if not rows:
        raise FcitError(
            f"{run.folder}: no subspace had been trained by the end of stage {stage}, or {data.method} "
            "leaves the choice to gates within the model"
        )
    trained = trainers([entry for entry in data.rounds if entry.stage <= stage])
    tasks = [task for part in experiment.training_setting.stages for task in part.tasks]
    trained_on = {name: [entry.task for entry in entries] for name, entries in trained.items()}
    own = adapters_by_dataset(trained_on, tasks).get(dataset, set())
    chosen_from = chooses(experiment.method)
    wins = [winner(row.activation) if chosen_from else "" for row in rows]
    imported = run.files.imported
    strayed = [chosen_from and not imported and win not in own for win in wins]
    chosen = [
        (row, away)
        for row, away in zip(rows, strayed, strict=True)
        if (away if id is None else row.question_id == id)
    ]
    if id is not None and not chosen:
        known = ", ".join(row.question_id for row in rows[:5])
        raise FcitError(f"{dataset}: no question {id!r} after stage {stage}; ids are {known}, ...")
    names = sorted({*trained, *rows[0].activation}, key=lambda name: (len(name), name))
    root = Path(run.config.data.root or data.data)
    images = tuple(map(Path, run.config.data.images))
    folders = find(dataset, root).image_folders(root, images)
    return Why(
        str(run.folder),
        data.method,
        dataset,
        stage,
        len(rows),
        sum(strayed),
        _gate(experiment.method),
        bool(rows[0].similarity),
        not imported,
        chosen_from,
        tuple(_subspace(name, trained, own, rows, wins) for name in names),
        tuple(_explained(row, away, str(locate(folders, row.image))) for row, away in chosen),
        tuple(row.question_id for row in rows if row.score < RIGHT),
    )


def _gate(method: Method) -> str:
    features = "text and image" if method.identity == "both" else method.identity
    gating, kind, number = method.gating, type(method), "cosine"
    compared = f"Cosine: of the question's {features} feature and the subspace's identity token."
    base = TokenRouted if isinstance(method, TokenRouted) else Method
    own = [name for name in ("similarities", "likeness") if hasattr(base, name)]
    discriminant = isinstance(method, TokenRouted) and method.discriminant
    if discriminant or any(getattr(kind, name) is not getattr(base, name) for name in own):
        number, compared = "score", f"Cosine: here the score of the question's {features} feature."
    if kind.route is not Method.route:
        return f"{compared} Share: as the method's own route says."
    empty = f" (0 for each empty one of {gating.slots} slots)" if gating.slots else ""
    over = "" if discriminant else f" over the temperature {gating.temperature:g}{empty}"
    shares = {
        "softmax": f"the softmax of the {number}s{over}.",
        "argmax": f"1 for the largest {number}.",
        "cosine": f"the {number}.",
    }
    return f"{compared} Share: {shares.get(gating.gate, '1 for every subspace.')}"


def trainers(rounds: Sequence[run_data.RoundLog]) -> dict[str, tuple[Trainers, ...]]:
    """Who trained each subspace in some rounds of the log, by subspace, then by task."""
    turns: dict[str, dict[str, list[tuple[int, tuple[int, int]]]]] = {}
    for entry, client, task, name in records.trained(rounds):
        turn = client, (entry.stage, entry.round)
        turns.setdefault(name, {}).setdefault(task, []).append(turn)
    return {
        name: tuple(
            Trainers(task, *(tuple(sorted(set(column))) for column in zip(*rows, strict=True)))
            for task, rows in tasks.items()
        )
        for name, tasks in turns.items()
    }


def _missing(folder: Path, run: run_data.RunData, dataset: str, stage: int) -> str:
    if run.setting_of("evaluation", "where") == "clients":
        return f"{folder}: its clients scored their own test samples; there are no predictions"
    stages = [
        path.parent.name
        for path in sorted(run.path.glob(f"predictions/*/{dataset}.jsonl"))
        if path.parent.name.isdecimal()
    ]
    hint = (
        f"there are some after stage {', '.join(stages)}" if stages else "the run is not that far"
    )
    return f"{folder}: no predictions of {dataset} after stage {stage}; {hint}"


def _subspace(
    name: str,
    trained: Mapping[str, tuple[Trainers, ...]],
    own: set[str],
    rows: Sequence[run_data.Prediction],
    wins: Sequence[str],
) -> Subspace:
    scores = [row.score for row, win in zip(rows, wins, strict=True) if win == name]
    mean = round(sum(scores) / len(scores), 2) if scores else None
    return Subspace(name, trained.get(name, ()), name in own, len(scores), mean)


def _explained(row: run_data.Prediction, misrouted: bool, image: str) -> Explained:
    shares = sorted(row.activation.items(), key=lambda item: -item[1])
    factors = tuple(Factor(name, share, row.similarity.get(name)) for name, share in shares)
    right = row.score >= RIGHT
    return Explained(
        row.question_id, row.prompt, image, row.prediction, row.truth, row.score, right,
        misrouted, factors,
    )  # fmt: skip


def _spans(numbers: Sequence[int]) -> str:
    """Ascending whole numbers as spans: `0-3, 7`."""
    parts: list[list[int]] = []
    for number in numbers:
        if parts and number == parts[-1][-1] + 1:
            parts[-1].append(number)
        else:
            parts.append([number])
    return ", ".join(f"{part[0]}-{part[-1]}" if len(part) > 1 else f"{part[0]}" for part in parts)


def write_page(routing: Why, out: Path, limit: int) -> None:
    """Write one self-contained HTML page with the first questions and their images."""
    from jinja2 import Environment, StrictUndefined

    environment = Environment(
        autoescape=True, undefined=StrictUndefined, trim_blocks=True, lstrip_blocks=True
    )
    template = environment.from_string(
        Path(__file__).with_name("why.html").read_text(encoding="utf-8")
    )
    pictures = [
        embedded_image([Path(question.image).parent], Path(question.image).name)
        for question in routing.questions[:limit]
    ]
    subspaces = {subspace.name: subspace for subspace in routing.subspaces}
    cards = list(zip(routing.questions, pictures, strict=False))
    write_text(out, template.render(why=routing, cards=cards, subspaces=subspaces, most=SHOWN))
