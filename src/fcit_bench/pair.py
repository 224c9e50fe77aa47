"""What is compared: training and answering of DISCO with K subspaces, and of PEFT's adapters."""

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

    def __init__(self, folder: Path, options: Options, device: str, dtype: torch.dtype):
        self.options, self.dtype = options, dtype
        self.method = Disco(rank=options.rank)
        self.ours = LMM(folder / "model", device, dtype)
        self.theirs = PeftLMM(
            folder / "model", self.ours, options.rank, self.method.scale, options.dropout,
            options.subspaces,
        )  # fmt: skip
        self.encoder = Encoder(CHECKPOINTS / "mini-clip", device)
        self.data = questions(folder, options.batch * options.steps)
        self.asked = Data(self.data.samples[: options.batch], self.data.images[: options.batch])
        self.state = state(self.method, self.ours, options.subspaces)
        turn = Turn(0, _task(0), stage=0, round=0)
        self.job = Job(turn, self.method.send(self.state, turn))
        self.theirs.put(self.state.adapters)

    def prepare(self, contender: str) -> None:
        """Give PEFT's adapters the number format of a contender; to be called before it, untimed."""
        float32 = contender.endswith("float32")
        self.theirs.numbers(torch.float32 if float32 else self.dtype)

    def trains(self) -> dict[str, Callable[[], object]]:
        """A client's whole turn: ours, PEFT's, and PEFT's with its default, adapters in float32."""
        contenders: dict[str, Callable[[], object]] = {
            "train": lambda: self._turn(self.ours),
            "train peft": lambda: self._turn(self.theirs),
        }
        if self.dtype != torch.float32:
            contenders["train float32"] = contenders["train peft"]
        return contenders

    def answers(self) -> dict[str, Callable[[], object]]:
        """A batch of questions: ours, routed over all subspaces; PEFT's with one adapter, with one of K
        per sample, and with none; and some of our questions one by one.

        Loads all subspaces first: call it after the turns, which leave one subspace in the model.
        """
        method, options = self.method, self.options
        self.ours.receive(self.state, method.scale)
        self.theirs.receive(self.state, method.scale)
        singles = [
            Data([s], [i]) for s, i in zip(self.asked.samples, self.asked.images, strict=True)
        ]
        names = [str(row % options.subspaces) for row in range(options.batch)]

        def routed(data: Data):
            assert len(self.ours.subspaces.names) == options.subspaces, "a turn came between"
            self.encoder.cache.clear()  # a question is routed once in an evaluation
            return answer(self.ours, self.encoder, method, self.state, data, options.tokens)

        def peft():
            prompts = [sample.prompt for sample in self.asked.samples]
            return self.theirs.generate(prompts, self.asked.images, options.tokens)

        def mixed():
            with self.theirs.mixed(names):
                return peft()

        def base():
            with self.theirs.peft.disable_adapter():
                return peft()

        contenders: dict[str, Callable[[], object]] = {
            "answer": lambda: routed(self.asked),
            "answer peft": peft,
            "answer mixed": mixed,
            "answer base": base,
            "alone": lambda: [routed(data) for data in singles[: options.alone]],
        }
        if self.dtype != torch.float32:
            contenders["answer float32"] = peft
        return contenders

    def memory(self) -> Memory:
        """What training adds on both sides: in tensors, and on CUDA at the peak of a turn."""
        from fcit_bench import Memory

        ours, theirs = self._added(self.ours), self._added(self.theirs)
        stored = sum(nbytes(block) for block in self.state.adapters.values())
        learning, kept, peak = zip(ours, theirs, strict=True)
        return Memory(learning, kept, peak, stored)

    def _turn(self, model: LMM):
        options = self.options
        training = Training(batch_size=options.batch, dropout=options.dropout)
        update, _ = take_turn(self.job, self.method, model, self.data, training, 0, {})
        return update

    def _added(self, model: LMM) -> tuple[int, int, int]:
        """Bytes of one side, as in `Memory`: learning, kept, peak."""
        self.theirs.numbers(self.dtype)
        model.receive(
            self.job.received, self.method.scale, self.method.trains(self.job.received), True
        )
        control = model.subspaces.control
        where = model.device if model.device.type == "cuda" else "cpu"
        control.dropout = self.options.dropout
        control.noise = torch_stream(0, "bench", device=where)
        parameters = [*model.adapter_parameters(), *model.projector_parameters()]
        learning = sum(4 * value.nbytes for value in parameters)
        kept = kept_bytes(model, model.batch(self.asked.samples, self.asked.images))
        peak = 0
        if model.device.type == "cuda":
            torch.cuda.reset_peak_memory_stats()
            before = torch.cuda.memory_allocated()
            self._turn(model)
            peak = torch.cuda.max_memory_allocated() - before
        return learning, kept, peak


def kept_bytes(model: LMM, batch: Batch) -> int:
    """Bytes that a loss keeps for its backward pass besides the model's weights, each counted once."""
    weights = {value.untyped_storage().data_ptr() for value in model.model.parameters()}
    kept: dict[int, torch.UntypedStorage] = {}

    def pack(value: torch.Tensor) -> torch.Tensor:
        storage = value.untyped_storage()
        if storage.data_ptr() not in weights:
            kept[storage.data_ptr()] = storage
        return value

    with torch.autograd.graph.saved_tensors_hooks(pack, lambda value: value):
        loss = model.loss(batch)
    del loss
    return sum(storage.nbytes() for storage in kept.values())


def questions(folder: Path, count: int) -> Data:
    """Samples about one image, which is written into the folder."""
    path = folder / "image.png"
    Image.new("RGB", (64, 48), (200, 30, 90)).save(path)
    samples = [
        Sample(str(at), "bench", path.name, QUESTION.format(at + 1), ("seven of them",))
        for at in range(count)
    ]
    return Data(samples, [path] * count)


def _task(number: int) -> Task:
    return Task(f"task{number}", ("bench",))


def state(method: Disco, model: LMM, subspaces: int) -> State:
    """A server's state after K tasks, each with a subspace of its own; blocks are random."""
    noise = torch_stream(0, "bench")
    blank = model.subspaces.blank(method.rank, method.init_std, noise)
    tokens = torch.randn(subspaces, 128, generator=noise)
    identities = [Identity(k, _task(k).name, token, 1) for k, token in enumerate(tokens)]
    state = method.organise(method.start(blank, model.base_projector), identities)
    blocks = {
        name: {key: torch.randn(x.shape, generator=noise) * 0.01 for key, x in block.items()}
        for name, block in state.adapters.items()
    }
    return replace(state, adapters=blocks)
