"""What is compared: DISCO with K subspaces, and PEFT's adapters, both at work."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

import torch
from PIL import Image

from fcit.methods.disco import Disco
from fcit.models import CHECKPOINTS
from fcit.models.identity import Encoder
from fcit.models.lmm import LMM
from fcit.rounds.client import Data, Training, take_turn
from fcit.rounds.evaluate import answer
from fcit.seeds import torch_stream
from fcit.types import Identity, Job, Sample, State, Task, Turn
from fcit.weights import nbytes
from fcit_bench.sides import PeftLMM

if TYPE_CHECKING:
    from fcit.models.batch import Batch
    from fcit_bench import Memory, Options

QUESTION = (
    "How many of the things in the picture numbered {} are larger than the smallest red one?\n"
    "Answer the question using a single word or phrase."
)


class Pair:
    """Both sides on one set of weights, with the same adapters, questions and images."""

    def __init__(self, place: Path, options: Options, device: str, dtype: torch.dtype):
        self.options, self.dtype = options, dtype
        self.method = Disco(rank=options.rank)
        self.ours = LMM(place / "model", device, dtype)
        self.theirs = PeftLMM(
            place / "model", self.ours, options.rank, self.method.scale, options.dropout,
            options.subspaces,
        )  # fmt: skip
        self.encoder = Encoder(CHECKPOINTS / "mini-clip", device)
        self.data = questions(place, options.batch * options.steps)
        self.asked = Data(self.data.samples[: options.batch], self.data.images[: options.batch])
        self.state = state(self.method, self.ours, options.subspaces)
        turn = Turn(0, _task(0), stage=0, round=0)
        self.job = Job(turn, self.method.send(self.state, turn))
        self.theirs.put(self.state.adapters)

    def trains(self) -> dict[str, Callable[[], object]]:
        """A client's turn, whole: ours, PEFT's, and PEFT's with adapters in float32 as it makes them."""
        found: dict[str, Callable[[], object]] = {
            "train": lambda: self._turn(self.ours),
            "train peft": lambda: self._peft_turn(self.dtype),
        }
        if self.dtype != torch.float32:
            found["train float32"] = lambda: self._peft_turn(torch.float32)
        return found

    def answers(self) -> dict[str, Callable[[], object]]:
        """A batch of questions: routed over all subspaces; PEFT's with one adapter, with one of K a
        sample, and with none; some questions one by one."""
        method, options = self.method, self.options
        self.ours.receive(self.state, method.scale)
        self.theirs.receive(self.state, method.scale)
        few = [Data([s], [i]) for s, i in zip(self.asked.samples, self.asked.images, strict=True)]
        names = [str(row % options.subspaces) for row in range(options.batch)]

        def routed(data: Data):
            return answer(self.ours, self.encoder, method, self.state, data, options.tokens)

        def peft(dtype: torch.dtype):
            self.theirs.numbers(dtype)
            prompts = [sample.prompt for sample in self.asked.samples]
            return self.theirs.generate(prompts, self.asked.images, options.tokens)

        def mixed():
            with self.theirs.mixed(names):
                return peft(self.dtype)

        def base():
            with self.theirs.peft.disable_adapter():
                return peft(self.dtype)

        found: dict[str, Callable[[], object]] = {
            "answer": lambda: routed(self.asked),
            "answer peft": lambda: peft(self.dtype),
            "answer mixed": mixed,
            "answer base": base,
            "alone": lambda: [routed(one) for one in few[: options.alone]],
        }
        if self.dtype != torch.float32:
            found["answer float32"] = lambda: peft(torch.float32)
        return found

    def memory(self) -> Memory:
        """What training adds on both sides, in tensors, and on CUDA at the peak of a turn."""
        from fcit_bench import Memory

        found = [self._added(model) for model in (self.ours, self.theirs)]
        (mine, kept, peak), (other, also, top) = found
        stored = sum(nbytes(block) for block in self.state.adapters.values())
        return Memory((mine, other), (kept, also), (peak, top), stored)

    def _turn(self, model: LMM):
        options = self.options
        training = Training(batch_size=options.batch, dropout=options.dropout)
        update, _ = take_turn(self.job, self.method, model, self.data, training, 0, {})
        return update

    def _peft_turn(self, dtype: torch.dtype):
        self.theirs.numbers(dtype)
        return self._turn(self.theirs)

    def _added(self, model: LMM) -> tuple[int, int, int]:
        """Bytes of one side: what learns with gradients and moments, what a step keeps, the peak."""
        self.theirs.numbers(self.dtype)
        model.receive(
            self.job.received, self.method.scale, self.method.trains(self.job.received), True
        )
        control = model.subspaces.control
        where = model.device if model.device.type == "cuda" else "cpu"
        control.dropout = self.options.dropout
        control.noise = torch_stream(0, "bench", device=where)
        parameters = [*model.adapter_parameters(), *model.projector_parameters()]
        learning = sum(4 * one.nbytes for one in parameters)
        kept = kept_bytes(model, model.batch(self.asked.samples, self.asked.images))
        peak = 0
        if model.device.type == "cuda":
            torch.cuda.reset_peak_memory_stats()
            before = torch.cuda.memory_allocated()
            self._turn(model)
            peak = torch.cuda.max_memory_allocated() - before
        return learning, kept, peak


def kept_bytes(model: LMM, batch: Batch) -> int:
    """Bytes that a loss keeps for its backward pass, beside the model's own weights: each once."""
    weights = {one.untyped_storage().data_ptr() for one in model.model.parameters()}
    held: dict[int, torch.UntypedStorage] = {}

    def pack(value: torch.Tensor) -> torch.Tensor:
        storage = value.untyped_storage()
        if storage.data_ptr() not in weights:
            held[storage.data_ptr()] = storage
        return value

    with torch.autograd.graph.saved_tensors_hooks(pack, lambda value: value):
        loss = model.loss(batch)
    del loss
    return sum(storage.nbytes() for storage in held.values())


def questions(place: Path, count: int) -> Data:
    """So many samples about one picture, which is drawn in the folder."""
    path = place / "image.png"
    Image.new("RGB", (64, 48), (200, 30, 90)).save(path)
    samples = [
        Sample(str(at), "bench", path.name, QUESTION.format(at + 1), ("seven of them",))
        for at in range(count)
    ]
    return Data(samples, [path] * count)


def _task(number: int) -> Task:
    return Task(f"task{number}", ("bench",))


def state(method: Disco, model: LMM, subspaces: int) -> State:
    """A server's state after K tasks, each the only one of its subspace; blocks as if trained."""
    noise = torch_stream(0, "bench")
    blank = model.subspaces.blank(method.rank, method.init_std, noise)
    tokens = torch.randn(subspaces, 128, generator=noise)
    known = [Identity(k, _task(k).name, token, 1) for k, token in enumerate(tokens)]
    state = method.organise(method.start(blank, model.base_projector), known)
    blocks = {
        name: {key: torch.randn(one.shape, generator=noise) * 0.01 for key, one in block.items()}
        for name, block in state.adapters.items()
    }
    return replace(state, adapters=blocks)
