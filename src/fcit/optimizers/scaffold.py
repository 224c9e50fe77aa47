"""scaffold: control variates against client drift (Karimireddy et al. 2020, SCAFFOLD: Stochastic
Controlled Averaging for Federated Learning, arXiv 1910.06378, Algorithm 1).

A client adds c - c_i to every gradient: c_i estimates its own gradient, c everyone's. In this benchmark:

* The local optimizer is AdamW, so (x - y_i) / (K eta) is no gradient. The new c_i is the mean of the
  client's uncorrected gradients over its steps, which the paper's option II equals under SGD.
* A client's objective is its data of one task. Control variates belong to a (client, task) and to a
  group of weights (a subspace, the projector), and start anew with every stage.
* c is the mean of all known c_i, weighted by samples as the model's average is, so that the corrections
  sum to zero. A client that trains a group for the first time starts at c_i = c.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from fcit.optimizers.base import Above0, Groups, Local, Optimizer
from fcit.types import Tensor, Turn, Update, Weights

VARIATE, SAMPLES = "variate.", "samples."
"""Prefixes, before a group's name, of c and of the sample counts of those who have a c_i."""


@dataclass(frozen=True)
class Scaffold(Optimizer):
    """Control variates on clients and server."""

    lr: Above0 = 1.0
    """Server learning rate, eta_g: how far the server follows the round's average."""

    def begin(self, stored: Groups) -> Groups:
        return {}

    def send(self, stored: Groups, groups: Sequence[str]) -> Groups:
        return {group: stored[VARIATE + group] for group in groups if VARIATE + group in stored}

    def reports(self, groups: Sequence[str]) -> Sequence[str]:
        return groups

    def local(
        self, turn: Turn, trained: Mapping[str, Sequence[Tensor]], received: Groups, memory: Weights
    ) -> Local:
        return Controlled(turn, trained, received, memory)

    def collect(self, stored: Groups, turns: Sequence[Turn], updates: Sequence[Update]) -> Groups:
        """c <- c + sum_i n_i (c_i^+ - c_i) / n, with n the samples of all who have a c_i."""
        from torch import tensor, zeros_like

        result = dict(stored)
        tasks = {turn.client: turn.task.name for turn in turns}
        for group in sorted({group for update in updates for group in update.optimizer}):
            senders = [update for update in updates if group in update.optimizer]
            counts = dict(stored.get(SAMPLES + group, {}))
            for update in senders:
                counts[f"{update.client}/{tasks[update.client]}"] = tensor(update.samples)
            total = sum(int(count) for count in counts.values())
            c = dict(stored.get(VARIATE + group, {}))
            for update in senders:
                for key, change in update.optimizer[group].items():
                    c[key] = c.get(key, zeros_like(change)) + change * (update.samples / total)
            result |= {VARIATE + group: c, SAMPLES + group: dict(sorted(counts.items()))}
        return result

    def move(self, x: Tensor, mean: Tensor, slots: Weights) -> tuple[Tensor, Weights]:
        return mean + (self.lr - 1) * (mean - x), {}


class Controlled(Local):
    """Adds c - c_i to a client's gradients, and measures its next c_i.

    Parameters are named `group/number`, and in the client's memory `stage/task/group/number`.
    """

    def __init__(
        self, turn: Turn, trained: Mapping[str, Sequence[Tensor]], received: Groups, memory: Weights
    ):
        stage = f"{turn.stage}/"
        self.prefix = f"{stage}{turn.task.name}/"
        self.other_tasks = {
            key: value
            for key, value in memory.items()
            if key.startswith(stage) and not key.startswith(self.prefix)
        }
        self.parameters: Weights = {}
        self.own: Weights = {}
        self.correction: Weights = {}
        for group, parameters in trained.items():
            for number, parameter in enumerate(parameters):
                key = f"{group}/{number:04}"
                zero = parameter.new_zeros(parameter.shape)
                c = received.get(group, {}).get(f"{number:04}", zero).to(parameter.device)
                self.own[key] = memory.get(self.prefix + key, c).to(parameter.device)
                self.parameters[key], self.correction[key] = parameter, c - self.own[key]
        self.total = {key: value.new_zeros(value.shape) for key, value in self.parameters.items()}
        self.steps = 0

    def correct(self) -> None:
        self.steps += 1
        for key, parameter in self.parameters.items():
            if parameter.grad is not None:
                self.total[key] += parameter.grad
                parameter.grad += self.correction[key]

    def report(self) -> tuple[Groups, Weights]:
        """The change of c_i, and the new c_i."""
        changes: Groups = {}
        memory = dict(self.other_tasks)
        for key, total in self.total.items():
            group, _, number = key.rpartition("/")
            own = (total / max(1, self.steps)).cpu()
            memory[self.prefix + key] = own
            changes.setdefault(group, {})[number] = own - self.own[key].cpu()
        return changes, memory
