"""replay: experience replay from a small buffer at every client (Chaudhry et al. 2019, On Tiny Episodic
Memories in Continual Learning, arXiv 1902.10486), federated by FedAvg.

It breaks a rule of the setting, that nobody keeps old data, and stands for what keeping some is worth.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar

from fcit.methods.base import AtLeast1, Method
from fcit.seeds import numpy_stream
from fcit.types import Sample, Turn


@dataclass(frozen=True)
class Replay(Method):
    """One LoRA goes on through all stages. A client trains on its new samples mixed with its
    buffer: a few samples of every dataset that it had turns with in earlier stages. They never leave it.

    A turn is longer than other methods' turns, by up to `buffer` samples for every old dataset, and the
    client's weight in the average grows with it. In the paper every step takes as many samples from the
    memory as new ones, and the memory is filled while samples stream by. Here a buffered sample comes as
    often as a new one, and a client draws a dataset's buffer once from all that it has of it: its data,
    the recipe's plan and the seed say what is in it, so nothing is stored.
    """

    buffer: AtLeast1 = 10
    """Samples of each old dataset that a client keeps (all, where it has fewer)."""

    replays: ClassVar[bool] = True

    def rehearsed(self, turn: Turn, old: Sequence[Sample], seed: int) -> list[Sample]:
        """The client's buffer, without datasets that it trains on anyway."""
        kept: list[Sample] = []
        names = dict.fromkeys(sample.dataset for sample in old)
        for name in (name for name in names if name not in turn.task.datasets):
            samples = [sample for sample in dict.fromkeys(old) if sample.dataset == name]
            order = numpy_stream(seed, "buffer", turn.client, name).permutation(len(samples))
            kept += [samples[index] for index in sorted(order[: self.buffer])]
        return kept
