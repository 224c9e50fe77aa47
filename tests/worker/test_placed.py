"""A placed state answers as its method says: what `equip` and `activate` set reaches the model."""

from __future__ import annotations

import gc
from dataclasses import replace
from itertools import combinations

import pytest
import torch

from fcit.aggregation.privacy import Privacy
from fcit.methods.hide import top
from fcit.methods.l2p import choice, pick, query
from fcit.methods.moelora import shares
from fcit.recipe.config import validate
from fcit.rounds.client import Data
from fcit.rounds.evaluate import Answer, activate
from fcit.seeds import torch_stream
from fcit.types import Identity, State, Weights
from fcit.worker.model import ModelWorker


def worker(table: dict, lmm, method: str, **options) -> ModelWorker:
    """A worker on the shared model."""
    made = ModelWorker(validate(table | {"method": {"name": method, "rank": 2, **options}}))
    made.__dict__["model"] = lmm
    return made


def noise(block: Weights, seed: int) -> Weights:
    drawn = torch_stream(seed, "block")
    return {key: torch.randn(value.shape, generator=drawn) * 0.2 for key, value in block.items()}


def logits(made: ModelWorker) -> torch.Tensor:
    data = made.experiment.test("IconQA", [0, 1, 2])
    with torch.no_grad():
        return made.model.logits(made.model.batch(data.samples, data.images))[0]


@pytest.fixture(autouse=True)
def _clean(lmm):
    yield
    lmm.receive(State(), 2.0)


def test_models_are_loaded_without_the_garbage_collector(table: dict, monkeypatch) -> None:
    for place in ("lmm.LMM", "identity.Encoder"):
        monkeypatch.setattr(f"fcit.models.{place}", lambda *_, **__: gc.isenabled())
    made = ModelWorker(validate(table))
    assert (made.model, made.encoder) == (False, False)
    assert gc.isenabled()


def test_moeloras_routers_gate_its_experts(table: dict, lmm) -> None:
    made = worker(table, lmm, "moelora", experts=3)
    state = made.start()
    experts = {name: noise(block, int(name)) for name, block in state.adapters.items()}
    found = []
    for scale in (0.0, 1.0):
        router = {path: scale * value for path, value in noise(state.extras["router"], 9).items()}
        made.place(replace(state, adapters=experts, extras=state.extras | {"router": router}))
        found.append(logits(made))
        lmm.gate = lambda path, x, router=router: shares(x, router[path])
        torch.testing.assert_close(logits(made), found[-1])
    lmm.gate = None  # every expert as a whole
    whole = logits(made)
    assert min((a - b).abs().max() for a, b in combinations([*found, whole], 2)) > 0.01


def test_l2ps_prompts_stand_before_the_image(table: dict, lmm) -> None:
    made = worker(table, lmm, "l2p", pool=4, length=2, top_k=2)
    lmm.receive(State(), 2.0)
    base = logits(made)
    state = made.start()
    pool = {"prompt": noise({"p": state.extras["pool"]["prompt"]}, 1)["p"] * 20}
    pool["key"] = state.extras["pool"]["key"]
    made.place(replace(state, extras=state.extras | {"pool": pool}))
    placed = logits(made)
    lmm.prompts = lambda embeds: pick(pool["prompt"], choice(query(embeds), pool["key"], 2))
    torch.testing.assert_close(logits(made), placed)
    assert (placed - base).abs().max() > 0.01


@pytest.mark.parametrize(("merge", "below"), [("sum", 1.0), ("mean", 0.5)])
def test_hides_shares_gate_the_last_layer_alone(table: dict, lmm, merge: str, below: float) -> None:
    made = worker(table, lmm, "hide", merge=merge)
    state = made.start()
    for stage in made.experiment.setting.stages:
        state = made.method.begin(state, stage)
    data = made.experiment.test("IconQA", [0, 1, 2])
    prompts = [sample.prompt for sample in data.samples]
    rows = made.encoder.embed("both", prompts, data.images)
    anchors = {"tokens": torch.stack([rows[0], -rows[0]]), "samples": torch.tensor([1, 1])}
    state = replace(state, extras=state.extras | {"anchors": anchors})
    made.place(state)
    routes = activate(lmm, made.encoder, made.method, state, data)
    last = top(lmm.layers)
    assert isinstance(lmm.gate, dict) and set(lmm.gate) == set(lmm.layers)
    for path, gate in lmm.gate.items():
        shared = [[route.activation[name] for name in "01"] for route in routes]
        wanted = shared if path in last else [[below, below]] * 3
        torch.testing.assert_close(gate, torch.tensor(wanted))
    assert 0 < len(last) < len(lmm.layers)
    assert routes[0].activation["0"] > 0.99


@pytest.mark.parametrize("by", ["the recipe", "the client"])
def test_a_token_leaves_its_client_hidden(table: dict, by: str) -> None:
    def token(noise: float) -> Identity:
        section = {"clip_norm": 1.0, "noise_multiplier": 1.0, "token_noise": noise}
        if by == "the recipe":
            rules = table["federation"] | {"outlier_factor": 0.0}
            changed = table | {"privacy": section, "federation": rules}
            made = ModelWorker(validate(changed))
        else:
            made = ModelWorker(validate(table), floor=Privacy(**section, seeded_noise=False))
        return made.identify(made.experiment.plan[0][0][0])

    plain = ModelWorker(validate(table))
    raw = plain.identify(plain.experiment.plan[0][0][0])
    assert raw.samples > 1
    hidden, noised = token(1e-6), token(0.5)
    assert hidden.samples == noised.samples == 1
    direction = raw.token / raw.token.norm()
    torch.testing.assert_close(hidden.token, direction, atol=1e-4, rtol=1e-3)
    assert float((noised.token - direction).std()) == pytest.approx(0.5, rel=0.25)


def test_samples_are_answered_in_a_runs_batches_and_in_their_order(
    table: dict, monkeypatch: pytest.MonkeyPatch
) -> None:
    made = ModelWorker(validate(table | {"evaluation": {"batch_size": 4, "limit": 6}}))
    samples = made.experiment.test("IconQA", list(range(6))).samples
    asked: list[int] = []

    def answer(data: Data) -> list[Answer]:
        asked.append(len(data.samples))
        return [Answer({}, {}, text=sample.id) for sample in data.samples]

    monkeypatch.setattr(made, "answer", answer)
    assert [one.text for one in made.answers(samples)] == [sample.id for sample in samples]
    assert asked == [4, 2]
