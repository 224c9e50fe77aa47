"""scaffold: control variates against client drift (Karimireddy et al. 2020, SCAFFOLD: Stochastic
Controlled Averaging for Federated Learning, arXiv 1910.06378, Algorithm 1).

A client adds c - c_i to every gradient: c_i estimates its own gradient, c everyone's. Where it meets
this benchmark:

* The local optimizer is AdamW, so (x - y_i) / (K eta) is no gradient. The new c_i is the mean of the
  client's uncorrected gradients over its steps, which the paper's option II equals under SGD.
* A client's objective is its data of one task. Control variates belong to a (client, task), start anew
  with every stage, and every group of weights (a subspace, the projector) has its own.
* c is the mean of c_i over all who have one, weighted by samples as the model's average is, so that the
  corrections sum to zero. Whoever trains a group for the first time starts at c_i = c.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Annotated

from pydantic import Field

from fcit.optimizers.base import OWN, Local, Optimizer, Slots
from fcit.types import Turn, Update, Weights

if TYPE_CHECKING:
    from torch import Tensor

VARIATE, SAMPLES = "variate.", "samples."
"""Prefixes, before a group's name, of c and of the sample counts of those who have a c_i."""


@dataclass(frozen=True)
class Scaffold(Optimizer):
    """Control variates on clients and server."""

    lr: Annotated[float, Field(gt=0)] = 1.0
    """Server learning rate, eta_g: how far the server follows the round's average."""

    def begin(self, kept: Slots) -> Slots:
        return {}

    def send(self, kept: Slots, groups: Sequence[str]) -> Slots:
        return {group: kept[VARIATE + group] for group in groups if VARIATE + group in kept}

    def reports(self, groups: Sequence[str]) -> Sequence[str]:
        return groups

    def local(
        self, turn: Turn, trained: Mapping[str, Sequence[Tensor]], received: Slots, memory: Weights
    ) -> Local:
        return Controlled(turn, trained, received, memory)

    def collect(self, kept: Slots, turns: Sequence[Turn], updates: Sequence[Update]) -> Slots:
        """c <- c + sum_i n_i (c_i^+ - c_i) / n, with n the samples of all who have a c_i."""
        from torch import tensor, zeros_like

        result = dict(kept)
        tasks = {turn.client: turn.task.name for turn in turns}
        for group in sorted({group for update in updates for group in update.optimizer}):
            who = [update for update in updates if group in update.optimizer]
            fresh = {f"{one.client}/{tasks[one.client]}": tensor(one.samples) for one in who}
            counts = dict(sorted((kept.get(SAMPLES + group, {}) | fresh).items()))
            total = sum(int(count) for count in counts.values())
            c = dict(kept.get(VARIATE + group, {}))
            for update in who:
                for key, change in update.optimizer[group].items():
                    c[key] = c.get(key, zeros_like(change)) + change * (update.samples / total)
            result |= {VARIATE + group: c, SAMPLES + group: counts}
        return result

    def move(self, x: Tensor, mean: Tensor, kept: Weights) -> tuple[Tensor, Weights]:
        return mean + (self.lr - 1) * (mean - x), {}


class Controlled:
    """Adds c - c_i to a client's gradients, and measures its next c_i."""

    def __init__(
        self,
        turn: Turn,
        trained: Mapping[str, Sequence[Tensor]],
        received: Slots,
        memory: Weights,
    ):
        stage = f"{OWN}{turn.stage}/"
        self.here = f"{stage}{turn.task.name}/"
        self.others = {
            key: value
            for key, value in memory.items()
            if key.startswith(stage) and not key.startswith(self.here)
        }
        self.parameters: dict[tuple[str, str], Tensor] = {}
        self.own: dict[tuple[str, str], Tensor] = {}
        self.correction: dict[tuple[str, str], Tensor] = {}
        for group, parameters in trained.items():
            for number, parameter in enumerate(parameters):
                place = group, f"{number:04}"
                c = received.get(group, {}).get(place[1])
                c = parameter.new_zeros(parameter.shape) if c is None else c.to(parameter.device)
                mine = memory.get(self.here + "/".join(place))
                self.own[place] = c if mine is None else mine.to(parameter.device)
                self.parameters[place], self.correction[place] = parameter, c - self.own[place]
        self.total = {key: one.new_zeros(one.shape) for key, one in self.parameters.items()}
        self.steps = 0

    def correct(self) -> None:
        """Called after every backward pass."""
        self.steps += 1
        for place, parameter in self.parameters.items():
            if parameter.grad is not None:
                self.total[place] += parameter.grad
                parameter.grad += self.correction[place]

    def report(self) -> tuple[Slots, Weights]:
        """What c_i changed by, and the new c_i."""
        changes: Slots = {}
        kept = dict(self.others)
        for (group, number), total in self.total.items():
            mine = (total / max(1, self.steps)).cpu()
            kept[f"{self.here}{group}/{number}"] = mine
            changes.setdefault(group, {})[number] = mine - self.own[group, number].cpu()
        return changes, kept
