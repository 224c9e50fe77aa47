"""One recipe, the same bits under every engine: in one process, and in Flower's simulation."""

from __future__ import annotations

import copy
from pathlib import Path

import pytest

import fcit
from fcit import methods
from fcit.engines.node import load_memory
from fcit.recipe.config import Config, validate
from fcit.rounds.runfolder import RunFolder
from fcit.types import FcitError
from fcit.weights import flatten, to_bytes

pytest.importorskip("flwr")


def config(table: dict, engine: str, method: str, optimizer: str = "fedavg") -> Config:
    changed = copy.deepcopy(table)
    changed["data"]["train"] = 16
    changed["federation"] |= {"engine": engine, "optimizer": optimizer}
    changed["method"] = {"name": method}
    changed["evaluation"] = {"limit": 2, "max_new_tokens": 4, "general_questions": 2}
    return validate(changed)


def agree(one: Path, other: Path) -> None:
    """The same matrix, the same state, and the same memories, wherever clients keep them."""
    assert (one / "matrix.json").read_bytes() == (other / "matrix.json").read_bytes()
    if RunFolder(one).position() is None:  # zeroshot has no state
        assert RunFolder(other).position() is None
        return
    (mine, memory), (theirs, turns) = RunFolder(one).state(), RunFolder(other).state()
    assert to_bytes(flatten(mine)) == to_bytes(flatten(theirs))
    assert memory.keys() == turns.keys()
    run = (other / "flower.txt").read_text().strip()
    for client, kept in memory.items():
        stage, number = map(int, turns[client]["turn"])
        folder = other / "clients" / run / f"client-{client}"
        assert to_bytes(load_memory(folder, (stage, number))) == to_bytes(kept)


def test_disco_with_clients_of_two_ranks_has_the_same_bits_in_flowers_simulation(
    table: dict, tmp_path: Path
) -> None:
    ranked = table | {"federation": table["federation"] | {"ranks": [3, 8]}}
    for engine in ("local", "flower"):
        fcit.run(config(ranked, engine, "disco"), tmp_path / engine)
    agree(tmp_path / "local", tmp_path / "flower")


@pytest.mark.parametrize(
    "method",
    [
        # fedsa_lora's clients keep a memory between their turns
        pytest.param(name, marks=() if name == "fedsa_lora" else pytest.mark.slow)
        for name in methods.names()
        if name != "disco"
    ],
)
def test_engines_agree(method: str, table: dict, tmp_path: Path) -> None:
    for engine in ("local", "flower"):
        fcit.run(config(table, engine, method), tmp_path / engine)
    agree(tmp_path / "local", tmp_path / "flower")


@pytest.mark.slow
def test_a_simulation_cut_off_and_resumed_goes_on_from_its_clients_memories(
    table: dict, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """SCAFFOLD's clients keep what they drifted by. The round after the commit was trained already."""
    fcit.run(config(table, "local", "finetune", "scaffold"), tmp_path / "local")
    commit, moments = RunFolder.commit, [(1, 1)]

    def cut_off(self: RunFolder, state, position, memory=None) -> None:
        if moments and (position.stage, position.rounds) == moments[0]:
            del moments[0]
            raise KeyboardInterrupt
        commit(self, state, position, memory)

    monkeypatch.setattr(RunFolder, "commit", cut_off)
    simulated = config(table, "flower", "finetune", "scaffold")
    with pytest.raises(KeyboardInterrupt):
        fcit.run(simulated, tmp_path / "flower")
    with pytest.raises(FcitError, match="engine=flower"):
        fcit.run(config(table, "local", "finetune", "scaffold"), tmp_path / "flower", resume=True)
    fcit.run(simulated, tmp_path / "flower", resume=True)
    agree(tmp_path / "local", tmp_path / "flower")
