"""A method of one's own that merges subspaces: what is left counts as trained on what both were."""

from __future__ import annotations

import copy

import pytest

import fcit
from fcit import methods
from fcit.files import read_json, read_lines
from fcit.report.heatmaps import subspace_label
from fcit.report.run_data import read_run
from fcit.rounds.runfolder import RunFolder
from fcit.use.export.cards import card
from fcit.use.why import why

SOURCE = '''
from dataclasses import dataclass, replace
import torch
from fcit.methods import Method
from fcit.weights import cosine, mean

@dataclass(frozen=True)
class Merging(Method):
    """A subspace for each task, named by its first letter; after the second stage they become one."""

    identity = "text"

    def begin(self, state, stage):
        return state

    def organise(self, state, identities):
        for one in identities:
            if one.task[0] not in state.adapters:
                state = self.open(state, one.task[0])
                more = {"of " + one.task[0]: {"token": one.token}}
                state = replace(state, extras=state.extras | more)
        return state

    def adapter(self, state, turn):
        return turn.task.name[0]

    def end(self, state, stage):
        if len(state.adapters) < 2:
            return state
        adapters = {"I": mean(state.adapters.values(), [1, 1])}
        extras = state.extras | {"heirs": {"F": torch.tensor(0)}}
        return replace(state, adapters=adapters, extras=extras)

    def heirs(self, state):
        return dict.fromkeys(state.extras.get("heirs", {}), "I")

    def similarities(self, state, query):
        tokens = {name: state.extras["of " + name]["token"] for name in state.adapters}
        return {name: cosine(query.feature[None], each[None])[0, 0] for name, each in tokens.items()}

    def route(self, state, query):
        near = self.similarities(state, query)
        return {name: torch.tensor(float(value == max(near.values()))) for name, value in near.items()}
'''


@pytest.fixture(scope="module")
def run(table: dict, tmp_path_factory: pytest.TempPathFactory):
    place = tmp_path_factory.mktemp("merging")
    (place / "merging.py").write_text(SOURCE)
    changed = copy.deepcopy(table) | {"method": {"name": "merging"}}
    changed["data"]["train"], changed["federation"]["min_samples"] = 12, 2
    changed["evaluation"]["limit"] = 2
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(methods, "__path__", [*methods.__path__, str(place)])
        yield fcit.run(changed, place / "run")


def test_the_log_says_from_which_round_on_a_subspace_is_another(run: fcit.Run) -> None:
    rows = read_lines(run.files.log)
    assert [row.get("heirs") for row in rows] == [None, None, None, {"F": "I"}]
    assert list(RunFolder(run.folder).trainers(1)) == ["I"]
    assert RunFolder(run.folder).trainers() == {"I": {"IconQA": 4, "FigureQA": 4}}


def test_a_question_of_a_merged_subspace_is_at_home_in_its_heir(run: fcit.Run) -> None:
    assert read_json(run.files.matrix)["routing"] == {"IconQA": 100.0, "FigureQA": 100.0}
    found = why(run, "FigureQA")
    assert found.verdict == (
        "* trained on FigureQA. 0 of 2 questions went to a subspace that no client trained on FigureQA."
    )
    ((name, trained, own),) = ((one.name, one.trained, one.own) for one in found.subspaces)
    assert (name, [each.task for each in trained], own) == ("I", ["IconQA", "FigureQA"], True)
    assert [one.name for one in why(run, "IconQA", stage=1).subspaces] == ["I"]
    assert found.gate.endswith("Share: as the method's own route says.")
    assert "here the score of" in found.gate


def test_cards_and_reports_name_what_both_learnt(run: fcit.Run) -> None:
    assert run.trained_by == {"I": ["IconQA", "FigureQA"]}
    assert subspace_label(read_run(run.folder), "I") == "I IconQA, FigureQA"
    assert "clients who learnt IconQA, FigureQA" in card(run, "subspace", name="I")
