"""Fixed batches of test samples, and answers that are routed one by one whatever their batch."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch

from fcit.benchmark.datasets import image_path, read
from fcit.methods.base import Method, Query
from fcit.methods.disco import Disco
from fcit.models import CHECKPOINTS
from fcit.models.chat import Completion
from fcit.models.identity import Encoder
from fcit.rounds.client import Data
from fcit.rounds.evaluate import answer, chunks, routing
from fcit.rounds.records import Prediction
from fcit.seeds import torch_stream
from fcit.types import Identity, Sample, Stage, State, Task


def sample(number: int, prompt: str, dataset: str = "IconQA") -> Sample:
    return Sample(str(number), dataset, f"{number}.png", prompt, ("yes",))


@pytest.mark.parametrize(("count", "size"), [(0, 5), (1, 5), (5, 5), (103, 8), (7, 1), (3, 50)])
def test_chunks_hold_every_index_once(count: int, size: int) -> None:
    samples = [sample(i, "x" * ((i * 37) % 101)) for i in range(count)]
    found = chunks(samples, size)
    assert sorted(index for part in found for index in part) == list(range(count))
    assert all(len(part) == size for part in found[:-1])
    assert found == chunks(samples, size)
    lengths = [len(samples[i].prompt) for part in found for i in part]
    assert lengths == sorted(lengths)


def test_prompts_of_one_length_keep_their_order() -> None:
    assert chunks([sample(i, "same") for i in range(5)], 2) == [[0, 1], [2, 3], [4]]


def test_routing_counts_the_answers_whose_first_subspace_is_their_home() -> None:
    shares = [{"0": a, "1": 1 - a} for a in (0.9, 0.6, 0.2, 0.7)]
    rows = [Prediction("", "", "", (), 0.0, activation=share) for share in shares]
    assert routing(rows, {"0"}) == 75.0
    assert routing(rows, {"1"}) == 25.0
    assert routing(rows, {"0", "1"}) == 100.0


def test_answers_that_were_not_routed_do_not_count() -> None:
    unrouted = Prediction("", "", "", (), 0.0)
    routed = Prediction("", "", "", (), 0.0, activation={"0": 1.0})
    assert routing([unrouted, routed], {"0"}) == 100.0
    assert routing([unrouted], {"0"}) is None


# -- without a model -----------------------------------------------------------------------------


@dataclass
class Mirror:
    """A model that answers with its sample's row of the gate."""

    names: tuple[str, ...]
    gate: torch.Tensor | None = None
    device: torch.device = field(default_factory=lambda: torch.device("cpu"))

    @property
    def subspaces(self) -> SimpleNamespace:
        return SimpleNamespace(names=self.names)

    def complete(self, prompts, images, limits, wanted=None) -> list[Completion]:
        assert len(prompts) == len(images) == len(limits)
        texts = ["base"] * len(prompts)
        if self.gate is not None:
            texts = [" ".join(f"{share:.4f}" for share in row.tolist()) for row in self.gate]
        return [Completion(text, 1, 1, True) for text in texts]


@dataclass
class Compass:
    """An encoder whose features point where the prompt says, in degrees."""

    kinds: list[str] = field(default_factory=list)

    def embed(self, kind: str, prompts, images) -> torch.Tensor:
        self.kinds.append(kind)
        angles = torch.tensor([float(prompt) for prompt in prompts]).deg2rad()
        return torch.stack([angles.cos(), angles.sin()], dim=1)


def pointed(*angles: int) -> Data:
    samples = [sample(i, str(angle)) for i, angle in enumerate(angles)]
    return Data(samples, [Path(one.image) for one in samples])


def organised(method: Disco, *angles: int) -> State:
    start = method.start({"a": torch.zeros(1)}, {"w": torch.zeros(1)})
    tokens = Compass().embed("text", [str(angle) for angle in angles], [])
    return method.organise(start, [Identity(i, "t", row, 1) for i, row in enumerate(tokens)])


def test_every_sample_opens_its_own_gate_in_the_models_order_of_names() -> None:
    method, encoder = Disco(), Compass()
    state = organised(method, 0, 90, 180)
    model = Mirror(("2", "0", "1"))
    found = answer(model, encoder, method, state, pointed(0, 90, 180, 45))  # type: ignore[arg-type]
    for one in found:
        row = [f"{one.activation[name]:.4f}" for name in model.names]
        assert one.text == " ".join(row)
    firsts = [max(one.activation, key=one.activation.__getitem__) for one in found]
    assert firsts[:3] == ["0", "1", "2"]
    assert found[0].similarity == pytest.approx({"0": 1, "1": 0, "2": -1}, abs=1e-6)
    assert found[3].activation["0"] == pytest.approx(found[3].activation["1"], abs=1e-5)
    assert encoder.kinds == ["text"]


def test_a_questions_cosines_are_computed_once() -> None:
    class Counting(Disco):
        def similarities(self, state: State, query: Query) -> Mapping[str, float]:
            asked.append(query.dataset)
            return super().similarities(state, query)

    asked: list[str] = []
    method = Counting()
    state, model = organised(method, 0, 90), Mirror(("0", "1"))
    plain = answer(model, Compass(), Disco(), state, pointed(0, 45))  # type: ignore[arg-type]
    assert answer(model, Compass(), method, state, pointed(0, 45)) == plain  # type: ignore[arg-type]
    assert len(asked) == 2


def test_a_method_without_tokens_asks_no_encoder() -> None:
    method = Method()
    start = method.start({"a": torch.zeros(1)}, {"w": torch.zeros(1)})
    state = method.begin(start, Stage((Task("t", ("t",)),)))
    encoder = Compass()
    found = answer(Mirror(("0",)), encoder, method, state, pointed(0, 90))  # type: ignore[arg-type]
    assert [one.activation for one in found] == [{"0": 1.0}] * 2
    assert [one.text for one in found] == ["1.0000"] * 2
    assert not encoder.kinds


def test_zero_shot_opens_nothing() -> None:
    encoder = Compass()
    found = answer(Mirror(()), encoder, Disco(), State(), pointed(0, 90))  # type: ignore[arg-type]
    assert [one.activation for one in found] == [one.similarity for one in found] == [{}, {}]
    assert [one.text for one in found] == ["base", "base"]
    assert not encoder.kinds


# -- with the mini model -------------------------------------------------------------------------


def test_a_batch_of_mixed_datasets_is_routed_as_its_samples_alone(lmm, suite: Path) -> None:
    encoder, method = Encoder(CHECKPOINTS / "mini-clip"), Disco()
    names = ("IconQA", "FigureQA", "Flickr30k")
    noise = torch_stream(0, "test")
    state = method.start(lmm.subspaces.blank(method.rank, 0.01, noise), lmm.base_projector)
    train = {name: [one.prompt for one in read(suite, name, "train")[:20]] for name in names}
    tokens = [encoder.text(train[name]).mean(dim=0) for name in names]
    state = method.organise(
        state,
        [Identity(i, name, tokens[i], 20) for i, name in enumerate(names)],
    )
    assert len(state.adapters) == 3
    for block in state.adapters.values():
        for key, value in block.items():
            block[key] = value + 0.02 * torch.randn(value.shape, generator=noise)
    lmm.receive(state, method.scale)
    samples = [one for name in names for one in read(suite, name, "test")[:3]]
    images = [image_path(suite, one) for one in samples]
    together = answer(lmm, encoder, method, state, Data(samples, images), 4)
    for i, one in enumerate(together):
        alone = Encoder(CHECKPOINTS / "mini-clip") if i == 0 else encoder
        (single,) = answer(lmm, alone, method, state, Data([samples[i]], [images[i]]), 4)
        assert single.activation == one.activation
        assert list(one.activation) == ["0", "1", "2"]
        assert sum(one.activation.values()) == pytest.approx(1.0, abs=1e-5)
    mirrored = answer(lmm, encoder, method, state, Data(samples[::-1], images[::-1]), 4)
    assert [one.activation for one in mirrored[::-1]] == [one.activation for one in together]
    homes = [max(one.activation, key=one.activation.__getitem__) for one in together]
    assert homes == ["0"] * 3 + ["1"] * 3 + ["2"] * 3
