"""What must hold on a CUDA device. FCIT_TEST_DEVICE=cpu runs the same code on a CPU, as a rehearsal."""

from __future__ import annotations

import copy
import importlib.util
import os
from pathlib import Path

import pytest
import torch

import fcit
from fcit import methods
from fcit.files import read_json
from fcit.recipe.config import Config, validate
from fcit.rounds.client import Data
from fcit.types import FcitError, Job, Update
from fcit.worker.model import ModelWorker

pytestmark = pytest.mark.gpu

DEVICE = os.environ.get("FCIT_TEST_DEVICE", "cuda")
TOLERANCE = 1e-2
"""Of an update, as a share of its norm: both devices compute in float32, in different orders, and AdamW's
first steps go by the signs of gradients."""
WHOLE = {"dtype": "float32"}


def config(table: dict, method: str = "disco", /, **changes: dict) -> Config:
    """Two stages of two rounds with 12 samples per client, on the device under test."""
    table = copy.deepcopy(table) | {"method": {"name": method}}
    table["data"]["train"], table["federation"]["min_samples"] = 12, 2
    table["evaluation"] |= {"limit": 6, "general_questions": 1}
    for section, values in {"model": {}, "training": {}, **changes}.items():
        table[section] = table.get(section, {}) | values
    table["model"] = {"device": DEVICE} | table["model"]
    return validate(table)


def bits(folder: Path) -> dict[str, bytes]:
    """A run's states and results."""
    files = [folder / "matrix.json", *sorted((folder / "state").glob("*.safetensors"))]
    return {file.name: file.read_bytes() for file in files}


def turn(worker: ModelWorker) -> Update:
    """The first client's turn."""
    method, first = worker.method, worker.experiment.plan[0][0][0]
    state = method.begin(worker.start(), worker.experiment.setting.stages[0])
    if method.identity:
        state = method.organise(state, [worker.identify(first)])
    return worker.train(Job(first, method.send(state, first)), {})[0]


def difference(one: Update, other: Update) -> float:
    """Of two updates' adapters: the norm of the difference by the norm of the first."""
    (a,), (b,) = one.adapters.values(), other.adapters.values()
    assert a.keys() == b.keys()
    whole = torch.cat([a[key].double().flatten() for key in a])
    apart = whole - torch.cat([b[key].double().flatten() for key in a])
    return float(apart.norm() / whole.norm())


@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
def test_features_depend_on_nothing_beside_them(table: dict, dtype: str) -> None:
    """Neither an image's nor a text's, in batches of a fixed size."""
    worker = ModelWorker(config(table, model={"dtype": dtype}))
    data, model = worker.experiment.data(worker.experiment.plan[0][0][0]), worker.model
    prompts = [sample.prompt for sample in data.samples]

    def fresh(rows: list[int]) -> list[torch.Tensor]:
        model.forget()
        worker.encoder.cache.clear()
        seen = [one.parts[0] for one in model.features([data.images[at] for at in rows])]
        return [*seen, *worker.encoder.text([prompts[at] for at in rows])]

    count = len(prompts)
    alone = [fresh([at]) for at in range(count)]
    for rows in (list(range(count)), list(range(count))[::-1], [count - 1, 0, 0]):
        wanted = [alone[at][0] for at in rows] + [alone[at][1] for at in rows]
        found = fresh(rows)
        assert all(torch.equal(one, other) for one, other in zip(found, wanted, strict=True))


def test_a_turn_and_its_answers_are_the_cpus(table: dict) -> None:
    """In float32 without dropout, whose random numbers differ between devices."""
    rest = {"training": {"dropout": 0.0}}
    here = ModelWorker(config(table, model=WHOLE, **rest))
    there = ModelWorker(config(table, model=WHOLE | {"device": "cpu"}, **rest))
    assert difference(turn(there), turn(here)) < TOLERANCE
    data = there.experiment.test("IconQA", range(6))
    texts = []
    for worker in (there, here):
        worker.place(worker.method.begin(there.start(), there.experiment.setting.stages[0]))
        texts.append([one.text for one in worker.answer(data)])
    assert texts[0] == texts[1]


@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
def test_the_same_turn_has_the_same_bits(table: dict, dtype: str) -> None:
    worker = ModelWorker(config(table, model={"dtype": dtype}, training={"dropout": 0.1}))
    assert difference(turn(worker), turn(worker)) == 0.0


def test_an_answer_is_the_same_alone_and_in_a_batch(table: dict) -> None:
    worker = ModelWorker(config(table, model=WHOLE))
    worker.place(worker.method.begin(worker.start(), worker.experiment.setting.stages[0]))
    data = worker.experiment.test("FigureQA", range(6))
    alone = [
        worker.answer(Data([sample], [image]))[0].text
        for sample, image in zip(data.samples, data.images, strict=True)
    ]
    assert [one.text for one in worker.answer(data)] == alone


@pytest.mark.parametrize("method", methods.names())
def test_every_method_trains_and_answers(method: str, table: dict, tmp_path: Path) -> None:
    folder = fcit.run(config(table, method), tmp_path / "run").folder
    found = read_json(folder / "matrix.json")
    assert 0 <= found["last"] <= 100
    assert found["matrix"] or method == "zeroshot"


def test_two_workers_and_a_second_run_give_the_same_bits(table: dict, tmp_path: Path) -> None:
    one = fcit.run(config(table), tmp_path / "one").folder
    again = fcit.run(config(table), tmp_path / "again").folder
    assert bits(again) == bits(one)
    two = fcit.run(config(table, federation={"workers": 2}), tmp_path / "two").folder
    assert bits(two) == bits(one)


@pytest.mark.parametrize("training", [{"micro_batch": 2}, {"checkpointing": True}])
def test_ways_to_need_less_memory_give_the_same_turn(table: dict, training: dict) -> None:
    plain = {"dropout": 0.0, "batch_size": 4}
    usual = turn(ModelWorker(config(table, model=WHOLE, training=plain)))
    less = turn(ModelWorker(config(table, model=WHOLE, training=plain | training)))
    assert difference(usual, less) < TOLERANCE


@pytest.mark.skipif(not importlib.util.find_spec("bitsandbytes"), reason="needs bitsandbytes")
@pytest.mark.skipif(DEVICE == "cpu", reason="bitsandbytes' weights need CUDA")
@pytest.mark.parametrize("quantize", ["8bit", "4bit"])
def test_quantised_weights_train_and_answer(quantize: str, table: dict, tmp_path: Path) -> None:
    folder = fcit.run(config(table, model={"quantize": quantize}), tmp_path / "run").folder
    assert 0 <= read_json(folder / "matrix.json")["last"] <= 100


@pytest.mark.skipif(DEVICE == "cpu", reason="the limit is one of CUDA's memory")
def test_too_little_memory_is_one_line(table: dict) -> None:
    worker = ModelWorker(config(table))
    whole = turn(worker)
    used = torch.cuda.memory_reserved() / torch.cuda.get_device_properties(0).total_memory
    torch.cuda.set_per_process_memory_fraction(used / 2)
    torch.cuda.empty_cache()
    try:
        with pytest.raises(FcitError, match="training found too little memory; set training.micro"):
            turn(worker)
    finally:
        torch.cuda.set_per_process_memory_fraction(1.0)
    assert difference(whole, turn(worker)) == 0.0
