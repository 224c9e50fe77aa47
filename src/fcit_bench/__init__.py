"""`fcit bench`: how fast a model of random weights trains and answers, beside PEFT."""

from __future__ import annotations

import os
import tempfile
import time
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from functools import partial
from importlib.metadata import version
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from fcit.types import FcitError
from fcit.watch import Silent, Watch
from fcit_bench.timing import Ratio, interleaved, ratio

TRAIN, GENERATE, MIXED, ALONE_CPU, ALONE_GPU = 0.97, 0.95, 1.3, 2.5, 6.0
"""What the ratios are to reach."""


@dataclass(frozen=True)
class Options:
    """The model's measures, and how much of what is timed.

    batch: samples of a training step and of a batch of questions. steps: of a client's turn. tokens: of
    an answer. alone: questions asked one by one for the last comparison. rounds: how often each is timed.
    cpu_time: count this process's own seconds on the CPU, which other work does not lengthen.
    """

    hidden: int = 2048
    intermediate: int = 5504
    layers: int = 2
    rank: int = 8
    subspaces: int = 8
    batch: int = 16
    steps: int = 2
    tokens: int = 32
    alone: int = 2
    rounds: int = 5
    dropout: float = 0.05
    device: str = "auto"
    dtype: str = "auto"
    cpu_time: bool = False

    def __post_init__(self) -> None:
        for name in ("rank", "subspaces", "batch", "steps", "tokens", "alone", "rounds"):
            if getattr(self, name) < 1:
                raise FcitError(f"--{name}: {getattr(self, name)} must be at least 1")


@dataclass(frozen=True)
class Memory:
    """Bytes that training adds to the base model on both sides: what learns, with gradients and AdamW's
    two moments; what a step keeps for its backward pass; the peak of a turn (CUDA alone: else 0).
    stored: the bytes of all K blocks, by which ours may be above PEFT's."""

    learning: tuple[int, int]
    kept: tuple[int, int]
    peak: tuple[int, int]
    stored: int

    @property
    def added(self) -> tuple[int, int]:
        """Ours and PEFT's: the peaks, or the tensors counted."""
        return (
            self.peak
            if any(self.peak)
            else (self.learning[0] + self.kept[0], self.learning[1] + self.kept[1])
        )

    @property
    def over(self) -> int:
        """By how much ours is above PEFT's."""
        return self.added[0] - self.added[1]

    @property
    def met(self) -> bool:
        """Whether the stored blocks account for it."""
        return self.over <= self.stored


@dataclass(frozen=True)
class Result:
    """Ratios by name, memory, and what they were measured with."""

    ratios: Mapping[str, Ratio]
    memory: Memory
    options: Options
    machine: Mapping[str, Any] = field(default_factory=dict)

    def table(self) -> dict[str, Any]:
        """As JSON: a key a comparison, and its verdict."""
        found = {name: asdict(one) | {"met": one.met} for name, one in self.ratios.items()}
        memory = asdict(self.memory) | {"over": self.memory.over, "met": self.memory.met}
        return {
            **found,
            "train_memory_vs_peft": memory,
            "options": asdict(self.options),
            "machine": dict(self.machine),
        }


def measure(options: Options, watch: Watch | None = None) -> Result:
    """Time training turns and batches of answers, ours and PEFT's in alternation.

    The model is written to a temporary folder and read back, as any model would be. Raises FcitError
    without PEFT, for a device that is not here, and for measures that no model has.
    """
    from fcit.models.device import choose
    from fcit_bench.random import Shape, write

    if find_spec("peft") is None:
        raise FcitError("fcit bench compares with PEFT, which is not here: pip install peft")
    from fcit_bench.pair import Pair

    watch = watch or Silent()
    device, dtype = choose(options.device, options.dtype)
    if options.cpu_time and device != "cpu":
        raise FcitError(f"--cpu-time: a {device} works while the CPU waits; leave it out")
    clock = time.process_time if options.cpu_time else time.perf_counter
    shape = Shape(options.hidden, options.intermediate, options.layers)
    load = [os.getloadavg()[0]]
    with tempfile.TemporaryDirectory(prefix="fcit-bench-") as folder:
        place = Path(folder)
        watch.say("making a model of random weights")
        parameters = write(place / "model", shape, dtype, device)
        pair = Pair(place, options, device, dtype)
        seconds: dict[str, list[float]] = {}
        for label, contenders in (
            ("turns of a client", pair.trains()),
            ("answers", pair.answers()),
        ):
            with watch.bar(label, options.rounds) as told:
                seconds |= interleaved(contenders, options.rounds, told, clock)
        memory = pair.memory()
    load.append(os.getloadavg()[0])
    machine = {
        "device": torch_name(device),
        "dtype": str(dtype).removeprefix("torch."),
        "parameters": parameters,
        "load": load,
    }
    return Result(ratios(seconds, options, device), memory, options, machine | versions())


def ratios(
    seconds: Mapping[str, Sequence[float]], options: Options, device: str
) -> dict[str, Ratio]:
    """Every comparison that was timed."""
    turn = float(options.batch * options.steps)
    asked = float(options.batch)
    train = partial(ratio, seconds["train"], unit="samples/s", work=(turn, turn))
    answer = partial(ratio, seconds["answer"], unit="answers/s", work=(asked, asked))
    few = float(min(options.alone, options.batch))
    alone = ALONE_CPU if device == "cpu" else ALONE_GPU
    found = {
        "train_vs_peft": train(seconds["train peft"], target=TRAIN),
        "generate_vs_peft": answer(seconds["answer peft"], target=GENERATE),
        "generate_vs_mixed": answer(seconds["answer mixed"], target=MIXED),
        "generate_vs_one_by_one": answer(seconds["alone"], work=(asked, few), target=alone),
        "generate_vs_base": answer(seconds["answer base"]),  # what adapters cost at all
    }
    if "train float32" in seconds:  # as PEFT makes adapters unless it is told otherwise
        found["train_vs_peft_float32"] = train(seconds["train float32"])
        found["generate_vs_peft_float32"] = answer(seconds["answer float32"])
    return found


def versions() -> dict[str, Any]:
    """Threads, and the packages that do the work."""
    import torch

    packages = ("fcit", "torch", "transformers", "peft")
    return {"threads": torch.get_num_threads()} | {name: version(name) for name in packages}


def torch_name(device: str) -> str:
    """A device with its maker's name, where it has one."""
    import torch

    return f"{device}: {torch.cuda.get_device_name()}" if device == "cuda" else device
