"""Whole runs whose tensors are packed, noised, or averaged by a rule that liars cannot steer."""

from __future__ import annotations

import copy
from dataclasses import replace
from pathlib import Path

import pytest

import fcit
from fcit.files import read_json, read_lines
from fcit.rounds.runfolder import RunFolder
from fcit.runs.uncovered import uncovered
from fcit.weights import nbytes


def made(table: dict, out: Path, method: str, **sections: dict) -> Path:
    changed = copy.deepcopy(table)
    changed["method"]["name"] = method
    changed["setting"]["order"] = ["IconQA"]
    changed["evaluation"] |= {"limit": 2, "general_questions": 0}
    for name, values in sections.items():
        changed[name] = changed.get(name, {}) | values
    return fcit.run(changed, out).folder


def states(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in folder.glob("state/*.safetensors")}


def test_int8_takes_a_third_of_the_bytes_and_the_same_bits_with_any_workers(
    table: dict, tmp_path: Path
) -> None:
    one = made(table, tmp_path / "one", "disco", federation={"wire": "int8"})
    two = made(table, tmp_path / "two", "disco", federation={"wire": "int8", "workers": 2})
    assert states(one) == states(two)
    state, _ = RunFolder(one).state()
    whole = nbytes(state.adapters["0"]) + nbytes(state.extras["projector"])
    for row in read_lines(one / "log.jsonl"):
        up = [size - token for size, token in zip(row["bytes_up"], row["bytes_token"], strict=True)]
        assert max(up) < whole / 3
        assert max(row["bytes_down"]) < whole / 3
        assert all(value.dtype.itemsize == 4 for value in state.adapters["0"].values())


def test_privacy_leaves_an_epsilon_and_noise_in_the_state(table: dict, tmp_path: Path) -> None:
    pytest.importorskip("dp_accounting")
    private = {"clip_norm": 0.5, "noise_multiplier": 1.0, "token_noise": 2.0}
    folder = made(
        table, tmp_path / "run", "disco", privacy=private, federation={"outlier_factor": 0}
    )
    spent = read_json(folder / "matrix.json")["privacy"]
    assert spent["epsilon"] > spent["epsilon_updates"] > 0 < spent["epsilon_tokens"]
    assert spent["delta"] == 1e-5
    assert "log.jsonl" in spent["uncovered"]
    assert "chance (from the training answers)" in spent["uncovered"]
    state, _ = RunFolder(folder).state()
    tokens = state.extras["identity"]
    members = len(state.extras["members"])
    assert int(tokens["samples"].sum()) == members
    moved = [value - state.extras["blank"][key] for key, value in state.adapters["0"].items()]
    deviation = sum(float(one.square().sum()) for one in moved) / sum(one.numel() for one in moved)
    assert deviation**0.5 > 0.1  # honest training moves a weight by a hundredth or two


def test_what_epsilon_does_not_cover_names_clients_memories_and_trackers(
    table: dict, tmp_path: Path
) -> None:
    pytest.importorskip("dp_accounting")
    private = {"clip_norm": 0.5, "noise_multiplier": 1.0}
    folder = made(
        table, tmp_path / "run", "fedsa_lora", privacy=private, federation={"outlier_factor": 0}
    )
    memories = "the clients' memories (state/clients-*.safetensors, clients)"
    told = read_json(folder / "matrix.json")["privacy"]["uncovered"]
    assert memories in told and list(folder.glob("state/clients-*.safetensors"))
    config = fcit.load(folder).config
    assert not any(part.startswith("tracking") for part in told)
    followed = replace(config, tracking=replace(config.tracking, to=("wandb",)))
    assert "tracking, and what trackers sent to other machines" in uncovered(
        followed, RunFolder(folder)
    )
    assert memories not in uncovered(config, RunFolder(tmp_path / "none"))


@pytest.mark.parametrize("rule", ["median", "krum"])
def test_cohorts_of_two_keep_the_mean_and_the_log_says_so(
    rule: str, table: dict, tmp_path: Path
) -> None:
    folder = made(table, tmp_path / rule, "finetune", federation={"robust": rule})
    plain = made(table, tmp_path / "mean", "finetune")
    assert states(folder) == states(plain)
    for row in read_lines(folder / "log.jsonl"):
        assert row["notes"] == [
            f"{name}: 2 clients are too few for {rule}; mean" for name in ("0", "projector")
        ]
    assert all("notes" not in row for row in read_lines(plain / "log.jsonl"))
