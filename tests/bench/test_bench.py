"""Both sides of the comparison compute the same, and its figures and refusals are plain."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from typer.testing import CliRunner

from fcit.types import FcitError
from fcit_bench import Options, measure
from fcit_bench.pair import Pair
from fcit_bench.random import Shape, write

SMALL = Options(
    hidden=128, intermediate=192, layers=1, rank=2, subspaces=3, batch=4, steps=1, tokens=3,
    rounds=1, dropout=0.0, device="cpu", dtype="float32",
)  # fmt: skip


@pytest.fixture(scope="module")
def pair(tmp_path_factory: pytest.TempPathFactory) -> Pair:
    place = tmp_path_factory.mktemp("pair")
    shape = Shape(SMALL.hidden, SMALL.intermediate, SMALL.layers, vocabulary=2048)
    write(place / "model", shape, torch.float32)
    return Pair(place, SMALL, "cpu", torch.float32)


def test_both_sides_train_the_same_adapter_to_the_same_numbers(pair: Pair) -> None:
    ours, theirs = (call() for call in pair.trains().values())
    assert theirs.metrics["loss"] == pytest.approx(ours.metrics["loss"], rel=1e-5)
    mine = next(iter(ours.adapters.values()))
    other = theirs.adapters["0"]
    assert mine.keys() == other.keys()
    for key, value in mine.items():
        torch.testing.assert_close(value, other[key], rtol=1e-3, atol=1e-5)
    sent = pair.job.received.adapters["0"]
    assert any(not torch.equal(value, sent[key]) for key, value in mine.items())


def test_peft_answers_as_ours_with_one_open_subspace_a_sample(pair: Pair) -> None:
    prompts, images = [sample.prompt for sample in pair.asked.samples], pair.asked.images
    strong = {
        name: {key: 30 * value for key, value in block.items()}
        for name, block in pair.state.adapters.items()
    }
    names = ["0", "2", "1", "2"]
    pair.ours.receive(replace(pair.state, adapters=strong), pair.method.scale)
    pair.theirs.put(strong)
    pair.theirs.receive(pair.state, pair.method.scale)
    pair.ours.gate = torch.eye(3)[[int(name) for name in names]]
    each = pair.ours.generate(prompts, images, 8)
    with pair.theirs.mixed(names):
        assert pair.theirs.generate(prompts, images, 8) == each
    pair.ours.gate = torch.eye(3)[[0] * 4]
    first = pair.ours.generate(prompts, images, 8)
    assert pair.theirs.generate(prompts, images, 8) == first
    assert each[0] == first[0]
    assert each[1] != first[1]


def test_answers_without_adapters_are_the_base_models(pair: Pair) -> None:
    prompts, images = [sample.prompt for sample in pair.asked.samples], pair.asked.images
    strong = {
        name: {key: 30 * value for key, value in block.items()}
        for name, block in pair.state.adapters.items()
    }
    base = replace(pair.state, adapters={})
    contenders = pair.answers()
    pair.theirs.put(strong)
    answers = contenders["answer base"]()
    adapted = contenders["answer peft"]()
    pair.theirs.put(pair.state.adapters)
    pair.ours.receive(base, pair.method.scale)
    assert answers == pair.ours.generate(prompts, images, SMALL.tokens)
    assert answers != adapted


def test_answers_are_asked_of_all_subspaces(pair: Pair) -> None:
    early = pair.answers()["answer"]
    pair.trains()["train"]()
    with pytest.raises(AssertionError, match="a turn came between"):
        early()
    assert pair.answers()["answer"]()
    assert len(pair.ours.subspaces.names) == pair.options.subspaces


def test_both_sides_stand_on_one_set_of_weights(pair: Pair) -> None:
    mine = {one.data_ptr() for one in pair.ours.model.parameters()}
    other = [one for name, one in pair.theirs.model.named_parameters() if ".lora_" not in name]
    assert all(one.data_ptr() in mine for one in other)


def test_pefts_adapters_have_the_numbers_that_a_row_names(
    pair: Pair, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(pair, "dtype", torch.bfloat16)
    for row, dtype in (("train peft", torch.bfloat16), ("answer float32", torch.float32)):
        pair.prepare(row)
        named = pair.theirs.peft.named_parameters()
        assert {value.dtype for name, value in named if ".lora_" in name} == {dtype}


def test_training_adds_no_more_memory_than_peft_and_the_stored_blocks(pair: Pair) -> None:
    found = pair.memory()
    assert found.learning[0] == found.learning[1] > 0
    assert found.stored == 3 * 2 * 4 * sum((128 + 192,) * 3)
    assert found.kept[0] > 0
    assert found.met


def test_the_command_writes_every_ratio_with_its_verdict(tmp_path: Path) -> None:
    from fcit.cli import app

    path = tmp_path / "bench.json"
    sizes = {"hidden": 128, "intermediate": 192, "layers": 1, "rank": 2, "subspaces": 2, "batch": 2}
    sizes |= {"steps": 1, "tokens": 2, "rounds": 1}
    words = [word for name, value in sizes.items() for word in (f"--{name}", str(value))]
    done = CliRunner().invoke(
        app, ["bench", "--device", "cpu", "--dtype", "bfloat16", *words, "--json", str(path)]
    )
    assert done.exit_code == 0, done.output
    found = json.loads(path.read_text())
    for name in (
        "train_vs_peft",
        "generate_vs_peft",
        "generate_vs_mixed",
        "generate_vs_one_by_one",
    ):
        assert found[name]["ratio"] > 0
        assert found[name]["met"] is (found[name]["ratio"] >= found[name]["target"])
        assert name in done.output
    for name in ("generate_vs_base", "train_vs_peft_float32"):
        assert found[name]["ratio"] > 0
        assert (found[name]["target"], found[name]["met"]) == (None, None)
    assert found["machine"]["threads"] == torch.get_num_threads()


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"batch": 0}, "--batch: 0 must be at least 1"),
        ({"hidden": 100}, "hidden: 100 is not a multiple of 64"),
        ({"intermediate": 128}, "intermediate: 128"),
        ({"intermediate": 64}, "intermediate: 64"),
        ({"layers": 0}, "layers: 0"),
        ({"device": "nowhere"}, "--device: 'nowhere' cannot be used here"),
    ],
)
def test_measures_that_no_model_has_are_refused(changes: dict, said: str) -> None:
    with pytest.raises(FcitError, match=said):
        measure(replace(SMALL, **changes))


def test_without_peft_there_is_one_line(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("fcit_bench.find_spec", lambda name: None)
    with pytest.raises(FcitError, match="pip install peft"):
        measure(SMALL)
