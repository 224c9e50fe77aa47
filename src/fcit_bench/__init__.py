"""`fcit bench`: the speed of training and answering on a random model, compared with PEFT."""

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

TRAIN, GENERATE, MIXED, ALONE_CPU, ALONE_GPU = 0.97, 0.95, 1.1, 2.5, 6.0
"""The ratios' targets, and why that of mixed adapters is not higher: docs/performance.md."""


@dataclass(frozen=True)
class Options:
    """The model's sizes, and how much is timed."""

    hidden: int = 2048
    intermediate: int = 5504
    layers: int = 2
    rank: int = 8
    subspaces: int = 8
    batch: int = 16
    """Samples per training step, and questions per batch."""
    steps: int = 2
    """Training steps per turn."""
    tokens: int = 32
    """Tokens per answer."""
    alone: int = 2
    """Questions asked one by one for the last comparison."""
    rounds: int = 5
    """Repetitions of every measurement."""
    dropout: float = 0.05
    device: str = "auto"
    dtype: str = "auto"
    cpu_time: bool = False
    """Count this process's CPU seconds, which other work on the machine does not lengthen."""

    def __post_init__(self) -> None:
        for name in ("rank", "subspaces", "batch", "steps", "tokens", "alone", "rounds"):
            if getattr(self, name) < 1:
                raise FcitError(f"--{name}: {getattr(self, name)} must be at least 1")


@dataclass(frozen=True)
class Memory:
    """Bytes that training adds to the base model: ours and PEFT's."""

    learning: tuple[int, int]
    """Trained tensors, with gradients and AdamW's two moments."""
    kept: tuple[int, int]
    """Tensors that a step keeps for its backward pass."""
    peak: tuple[int, int]
    """The peak of a turn (on CUDA; elsewhere 0)."""
    stored: int
    """The bytes of all K blocks: the tolerance of the target. Only one of them is in the model."""

    @property
    def added(self) -> tuple[int, int]:
        """Ours and PEFT's: the peaks, or else the counted tensors."""
        return (
            self.peak
            if any(self.peak)
            else (self.learning[0] + self.kept[0], self.learning[1] + self.kept[1])
        )

    @property
    def over(self) -> int:
        """Ours minus PEFT's."""
        return self.added[0] - self.added[1]

    @property
    def met(self) -> bool:
        """Whether ours exceeds PEFT's by no more than the tolerance."""
        return self.over <= self.stored


@dataclass(frozen=True)
class Result:
    """Ratios by name, memory, and the conditions of the measurement."""

    ratios: Mapping[str, Ratio]
    memory: Memory
    options: Options
    machine: Mapping[str, Any] = field(default_factory=dict)

    def table(self) -> dict[str, Any]:
        """As JSON: one key per comparison, with its verdict."""
        ratios = {name: asdict(ratio) | {"met": ratio.met} for name, ratio in self.ratios.items()}
        memory = asdict(self.memory) | {"over": self.memory.over, "met": self.memory.met}
        return {
            **ratios,
            "train_memory_vs_peft": memory,
            "options": asdict(self.options),
            "machine": dict(self.machine),
        }


def measure(options: Options, watch: Watch | None = None) -> Result:
    """Time training turns and batches of answers, ours and PEFT's in alternation.

    The model is written to a temporary folder and loaded from it, like any model. Raises FcitError
    without PEFT, for a device that is not here, and for impossible sizes.
    """
    from fcit.models.device import choose
    from fcit_bench.random import Shape, write

    if find_spec("peft") is None:
        raise FcitError("fcit bench compares with PEFT, which is not installed: pip install peft")
    from fcit_bench.pair import Pair

    watch = watch or Silent()
    device, dtype = choose(options.device, options.dtype, "--device")
    if options.cpu_time and device != "cpu":
        raise FcitError(f"--cpu-time: the CPU waits while a {device} computes; leave it out")
    clock = time.process_time if options.cpu_time else time.perf_counter
    shape = Shape(options.hidden, options.intermediate, options.layers)
    load = [os.getloadavg()[0]]
    with tempfile.TemporaryDirectory(prefix="fcit-bench-") as folder:
        watch.say("making a model of random weights")
        parameters = write(Path(folder) / "model", shape, dtype, device)
        pair = Pair(Path(folder), options, device, dtype)
        seconds: dict[str, list[float]] = {}
        for label, made in (("turns of a client", pair.trains), ("answers", pair.answers)):
            contenders = made()  # after the turns, which leave one subspace in the model
            with watch.bar(label, options.rounds) as progress:
                seconds |= interleaved(contenders, options.rounds, progress, clock, pair.prepare)
        memory = pair.memory()
    load.append(os.getloadavg()[0])
    machine = {
        "device": device_name(device),
        "dtype": str(dtype).removeprefix("torch."),
        "parameters": parameters,
        "load": load,
    }
    return Result(ratios(seconds, options, device), memory, options, machine | versions())


def ratios(
    seconds: Mapping[str, Sequence[float]], options: Options, device: str
) -> dict[str, Ratio]:
    """Every comparison, from the seconds by contender."""
    turn = float(options.batch * options.steps)
    asked = float(options.batch)
    train = partial(ratio, seconds["train"], unit="samples/s", work=(turn, turn))
    answer = partial(ratio, seconds["answer"], unit="answers/s", work=(asked, asked))
    few = float(min(options.alone, options.batch))
    alone = ALONE_CPU if device == "cpu" else ALONE_GPU
    comparisons = {
        "train_vs_peft": train(seconds["train peft"], target=TRAIN),
        "generate_vs_peft": answer(seconds["answer peft"], target=GENERATE),
        "generate_vs_mixed": answer(seconds["answer mixed"], target=MIXED),
        "generate_vs_one_by_one": answer(seconds["alone"], work=(asked, few), target=alone),
        "generate_vs_base": answer(seconds["answer base"]),  # the cost of adapters as such
    }
    if "train float32" in seconds:  # PEFT's default for adapters
        comparisons["train_vs_peft_float32"] = train(seconds["train float32"])
        comparisons["generate_vs_peft_float32"] = answer(seconds["answer float32"])
    return comparisons


def versions() -> dict[str, Any]:
    """Threads, and versions of the packages that compute."""
    import torch

    packages = ("fcit", "torch", "transformers", "peft")
    return {"threads": torch.get_num_threads()} | {name: version(name) for name in packages}


def device_name(device: str) -> str:
    """A device, with the GPU's name."""
    import torch

    return f"{device}: {torch.cuda.get_device_name()}" if device == "cuda" else device
