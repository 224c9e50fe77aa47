"""ewc: Elastic Weight Consolidation (Kirkpatrick et al. 2017, arXiv 1612.00796), federated by FedAvg.

Each stage's end leaves a quadratic pull on the adapter: towards the weights learnt, as strong as the
Fisher information says they matter. The pulls of several stages sum to one quadratic, so memory does
not grow with their number.
"""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from itertools import islice
from typing import Annotated, Any, ClassVar

from pydantic import Field

from fcit.methods.base import AtLeast0, Method
from fcit.methods.model import Model
from fcit.types import MOST, Stage, State, Tensor, Turn, Weights
from fcit.weights import summed

FISHER, CENTRE = "fisher", "fisher-centre"
MEASURE, MEASURED = "fisher-wanted", "fisher-measured"


@dataclass(frozen=True)
class Ewc(Method):
    """The Fisher information is the diagonal of the empirical Fisher per answer token: the squares of
    each sample's gradient of log p(answer), summed over samples and divided by the number of answer
    tokens. This is the curvature of the loss that is trained, the mean over answer tokens, so the pull
    does not grow with the length of answers, and with lambda = 1 it approximates an old stage's loss.
    The clients of a stage's last round measure it on the weights they have just trained, and the server
    averages by sample count, as it averages their losses. Where LoRA blocks are averaged as products,
    the server rotates A and B in their narrow side and the diagonal does not follow, which makes the
    pull an approximation.
    """

    ewc_lambda: AtLeast0 = 30.0
    """Weight lambda of the quadratic pull towards old weights. 5000 is published; here the Fisher
    information is a mean over answer tokens, so tune it."""

    fisher_samples: Annotated[int, Field(ge=1, le=MOST)] = 128
    """Maximum samples per client for the Fisher information."""

    @property
    def sends_statistics(self) -> bool:
        return True

    excludes: ClassVar[Mapping[str, str]] = {"ranks": "Fisher information is of whole adapters"}

    def send(self, state: State, turn: Turn) -> State:
        """Beside the adapter: the Fisher information and its centre; in a stage's last round, the
        request to measure it."""
        from torch import ones

        sent = super().send(state, turn)
        fisher = {key: state.extras[key] for key in (FISHER, CENTRE) if key in state.extras}
        request = {MEASURE: {"asked": ones(1)}} if turn.last else {}
        return replace(sent, extras=sent.extras | fisher | request)

    def expects(self, received: State) -> State:
        expected = super().expects(received)
        measured = {MEASURED: received.adapters["0"]} if MEASURE in received.extras else {}
        return State(expected.adapters, expected.extras | measured)

    def penalty(self, model: Model, received: State, memory: Weights, batch: Any) -> Tensor | float:
        """lambda / 2 sum F (theta - theta*)^2."""
        if FISHER not in received.extras:
            return 0.0
        fisher, centre = received.extras[FISHER], received.extras[CENTRE]
        return 0.5 * self.ewc_lambda * pull(model.live("0"), fisher, centre)

    def report(
        self, model: Model, received: State, memory: Weights, batches: Iterable[Any]
    ) -> tuple[dict[str, Weights], Weights]:
        if MEASURE not in received.extras:
            return {}, memory
        return {MEASURED: self._fisher(model, batches)}, memory

    def end(self, state: State, stage: Stage) -> State:
        """Add the stage's quadratic F (theta - theta*)^2 to those before. Up to a constant the sum is one
        quadratic, with the sum of the F and the mean of the theta* weighted by F."""
        extras = dict(state.extras)
        new, theta = extras.pop(MEASURED), state.adapters["0"]
        if FISHER not in extras:
            return replace(state, extras=extras | {FISHER: new, CENTRE: theta})
        old, centre = extras[FISHER], extras[CENTRE]
        total = {key: old[key] + new[key] for key in new}
        # where the total is 0 nothing pulls, so the newest value is taken
        shares = {key: (new[key] / total[key]).where(total[key] > 0, 1.0) for key in new}
        middle = {key: centre[key] + (theta[key] - centre[key]) * shares[key] for key in new}
        return replace(state, extras=extras | {FISHER: total, CENTRE: middle})

    def _fisher(self, model: Model, batches: Iterable[Any]) -> Weights:
        """The squared gradients of log p(answer | image, instruction), summed over samples, per answer
        token."""
        from torch.nn.functional import cross_entropy

        total: Weights = {}
        tokens = 0
        samples = (sample for batch in batches for sample in batch.each())
        for sample in islice(samples, self.fisher_samples):
            logits, answer = model.logits(sample)
            loss = cross_entropy(logits, answer, reduction="sum")
            for key, slope in model.gradient("0", loss).items():
                square = slope.detach().square()
                total[key] = total[key] + square if key in total else square
            tokens += len(answer)
        return {key: (value / tokens).cpu().contiguous() for key, value in total.items()}


def pull(theta: Weights, fisher: Weights, centre: Weights) -> Tensor:
    """sum F (theta - theta*)^2 over all tensors of an adapter; a scalar with a gradient."""
    return summed(
        (fisher[key].to(value.device) * (value - centre[key].to(value.device)) ** 2).sum()
        for key, value in sorted(theta.items())
        if key in fisher
    )
