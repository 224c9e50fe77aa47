"""A setting of one's own, from its recipe to a report: arrivals, revisits, rounds of its own."""

from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

import fcit
from fcit.files import read_json, read_lines
from fcit.recipe import config as configs
from fcit.recipe.config import Config, validate
from fcit.report.page import write
from fcit.watch import Silent, Step
from fcit.worker.experiment import Experiment

RECIPE = Path(__file__).parents[2] / "recipes" / "own.toml"
SHORT = (
    "federation.min_samples=4",
    "federation.workers=1",
    "data.size=",
    "evaluation.limit=4",
    "evaluation.general_questions=0",
    "evaluation.max_new_tokens=4",
)


class Cut(BaseException):
    """Stands for kill -9."""


class Bars(Silent):
    """Remembers how far every bar went; ends the process at a turn of choice."""

    def __init__(self, cut: int = 0):
        self.cut, self.totals = cut, dict[str, int]()
        self.steps: list[float] = []

    @contextmanager
    def bar(self, label: str, total: int) -> Iterator[Step]:
        self.totals[label] = total

        def step(done: float, text: str = "") -> None:
            if "turns" in label:
                self.steps.append(done)
                if self.cut and done >= self.cut:
                    raise Cut

        yield step


def loaded(suite: Path, method: str = "disco") -> Config:
    return configs.load(RECIPE, [*SHORT, f"data.root={suite}"], method)


@pytest.fixture(scope="module")
def run(suite: Path, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Bars]:
    folder, watch = tmp_path_factory.mktemp("own") / "run", Bars()
    fcit.run(loaded(suite), folder, watch=watch)
    return folder, watch


def test_every_stage_has_its_own_rounds_slots_and_clients(run: tuple[Path, Bars]) -> None:
    rows = read_lines(run[0] / "log.jsonl")
    assert [(row["stage"], row["round"]) for row in rows] == [
        (1, 1), (1, 2), (1, 3), (2, 1), (2, 2), (3, 1), (3, 2),
    ]  # fmt: skip
    slots = {1: ["pictures"] * 3, 2: ["plots", "plots", "sums"], 3: ["pictures", "sums", "sums"]}
    there = {1: range(6), 2: (0, 1, 2, 6, 7, 8, 9), 3: range(10)}
    for row in rows:
        assert row["tasks"] == slots[row["stage"]]
        assert set(row["clients"]) <= set(there[row["stage"]])
    assert run[1].steps[-1] == run[1].totals["disco: clients' turns"] == 3 * 7


def test_a_revisit_is_a_row_and_no_new_dataset(run: tuple[Path, Bars]) -> None:
    matrix = read_json(run[0] / "matrix.json")
    assert matrix["setting"] == "growing"
    assert matrix["datasets"] == ["ImageNet-R", "FigureQA", "DVQA", "CLEVR-Math"]
    assert matrix["stages"] == ["pictures", "plots + sums", "pictures + sums"]
    measured = [[value is not None for value in row] for row in matrix["matrix"]]
    assert measured == [[True, False, False, False], [True] * 4, [True] * 4]


def test_samples_are_dealt_to_those_who_are_there(run: tuple[Path, Bars], suite: Path) -> None:
    counts = json.loads((run[0] / "partition.json").read_text())["datasets"]
    assert [sum(part) for part in counts.values()] == [40] * 4
    assert [client for client in range(10) if not counts["DVQA"][client]] == [3, 4, 5]
    assert all(counts["ImageNet-R"])


def test_it_goes_on_in_the_same_bits(run: tuple[Path, Bars], suite: Path, tmp_path: Path) -> None:
    with pytest.raises(Cut):
        fcit.run(loaded(suite), tmp_path / "run", watch=Bars(cut=13))  # in stage 2, round 2
    watch = Bars()
    fcit.run(loaded(suite), tmp_path / "run", resume=True, watch=watch)
    assert watch.steps[0] == 12
    for file in ("matrix.json", "state/state.json"):
        assert (tmp_path / "run" / file).read_bytes() == (run[0] / file).read_bytes()


def test_the_reference_points_and_the_report_know_it(
    run: tuple[Path, Bars], suite: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    alone = Experiment(loaded(suite, "individual"))
    assert [len(rounds) for rounds in alone.plan] == [3, 2, 2, 2]
    assert alone.training_setting.stages[2].clients == (0, 1, 2, 6, 7, 8, 9)
    everything = Experiment(loaded(suite, "multitask")).training_setting
    # turns / holders: pictures 11 / 10, plots 4 / 7, sums 6 / 10: 0.71 passes in the mean
    assert (everything.clients, everything.epochs) == (1, 1)
    together = Experiment(loaded(suite, "joint")).training_setting  # 7 rounds of 3 of 10 clients
    assert together.epochs == pytest.approx((1.1 + 4 / 7 + 4 / 7 + 0.6) / 4 / 2.1)
    table = {"method": {"name": "multitask"}, "federation": {"clients": 10, "rounds": 5}}
    assert Experiment(validate(table)).training_setting.epochs == 2.5  # not 2
    monkeypatch.setattr("fcit.report.style.to_svg", lambda figure: "<svg/>")
    monkeypatch.setattr("fcit.report.style.save_png", lambda figure, path: None)
    page = write([run[0]], tmp_path / "report")
    assert "growing" in page.read_text(encoding="utf-8")
