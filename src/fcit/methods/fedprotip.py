"""fedprotip: FedProTIP's gradient projection (Cha, Chen and Vikalo 2025, arXiv 2509.21606), for LoRA.

Weights change only in directions that old tasks' inputs do not have. If the columns of S span the inputs
x of a layer in old tasks, then dW (I - S S^T) x = 0: what the layer answers there stays as it was.
"""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from itertools import islice
from typing import Annotated, Any, ClassVar

from pydantic import Field

from fcit.methods.base import AtLeast1, newest
from fcit.methods.model import Model
from fcit.methods.stages import LoraPerStage
from fcit.seeds import torch_stream
from fcit.types import Stage, State, Tensor, Turn, Weights
from fcit.weights import factors

BASES, SKETCH, ENERGY = "bases", "sketch", "energy"

SAMPLES = 128
"""Maximum samples per client from which it measures its layers' inputs."""

ROUNDING = 1e-5
"""A direction with a smaller share of the inputs is float32's rounding of S, and is not added."""


@dataclass(frozen=True)
class Fedprotip(LoraPerStage):
    """From the paper's abstract and the authors' code (github.com/seohyeon-cha/FedProTIP at 12d2c22),
    which trains whole layers of a classifier with SGD. The same: after every stage clients find the
    principal directions of each layer's inputs; the server joins them into one S by the rule of GPM
    (Saha et al. 2021, arXiv 2103.09762, equations 8 and 9); later stages' updates are projected.

    Different: if A alone were projected, a change of B would still change B A x. So every stage gets a
    new LoRA whose A stays in the complement of S; the old ones are summed with it and do not learn.
    AdamW scales every weight by itself, so its step is projected and not the gradient. Clients measure
    in a stage's last round, on the weights that they have just trained. They send C Omega instead of
    bases, which have no mean: C = mean x x^T are their inputs' second moments, Omega is one Gaussian
    matrix, and the mean over clients is C Omega of all inputs. (It travels as a change of Omega, which
    they got, so that `federation.wire` rounds C Omega and not the difference of the two.) The shared
    projector is not protected. Task identity prediction, which masks the classes of other tasks, is left
    out: answers are words.
    """

    threshold: Annotated[float, Field(gt=0, lt=1)] = 0.7
    """Share of each layer's input energy (sum of squares) that the protected subspace must hold after a
    stage (epsilon). Later stages change no weight within it."""

    directions: AtLeast1 = 32
    """The most directions that a stage adds to a layer's protected subspace."""

    excludes: ClassVar[Mapping[str, str]] = {
        "krum": "it could take a stage's sketch and energy from different clients"
    }

    @property
    def sends_statistics(self) -> bool:
        return True

    def begin(self, state: State, stage: Stage) -> State:
        """A new LoRA with its A in the complement of S; and the stage's Omega."""
        state = super().begin(state, stage)
        name = newest(state)
        project(state.adapters[name], state.extras.get(BASES, {}))
        return replace(state, extras=state.extras | {SKETCH: self._omega(state, name)})

    def send(self, state: State, turn: Turn) -> State:
        """All LoRAs and S; in a stage's last round Omega, as the request to measure."""
        sent = super().send(state, turn)
        names = (BASES, SKETCH) if turn.last else (BASES,)
        more = {name: state.extras[name] for name in names if name in state.extras}
        return replace(sent, extras=sent.extras | more)

    def expects(self, received: State) -> State:
        from torch import full

        expected = super().expects(received)
        if SKETCH not in received.extras:
            return expected
        sketch = {path: 2 * omega for path, omega in received.extras[SKETCH].items()}
        # so large that a plan counts all directions
        energy = {path: full((1,), 1e9) for path in sketch}
        return replace(expected, extras=expected.extras | {SKETCH: sketch, ENERGY: energy})

    def objective(self, model: Model, received: State, memory: Weights, batch: Any) -> Tensor:
        """The cross-entropy, once the step before it is projected."""
        project(model.live(newest(received)), received.extras.get(BASES, {}))
        return super().objective(model, received, memory, batch)

    def report(
        self, model: Model, received: State, memory: Weights, batches: Iterable[Any]
    ) -> tuple[dict[str, Weights], Weights]:
        project(model.live(newest(received)), received.extras.get(BASES, {}))
        if SKETCH not in received.extras:
            return {}, memory
        sketch, energy = measured(model, received, batches)
        sketch = {path: value + received.extras[SKETCH][path] for path, value in sketch.items()}
        return {SKETCH: sketch, ENERGY: energy}, memory

    def end(self, state: State, stage: Stage) -> State:
        """S takes in the stage's inputs; A loses what server optimizers or int8 added within old S."""
        extras, name = dict(state.extras), newest(state)
        sketch, energy, old = extras.pop(SKETCH), extras.pop(ENERGY), extras.get(BASES, {})
        omega = self._omega(state, name)
        extras[BASES] = {
            path: grown(
                old.get(path), y - omega[path], omega[path], float(energy[path]), self.threshold
            )
            for path, y in sorted(sketch.items())
        }
        learnt = {key: value.clone() for key, value in state.adapters[name].items()}
        project(learnt, old)
        return replace(state, adapters=state.adapters | {name: learnt}, extras=extras)

    def _omega(self, state: State, name: str) -> Weights:
        """A stage's Omega for every layer, [in, directions], from N(0, 1)."""
        from torch import randn

        noise = torch_stream(self.seed(state), "sketch", name)
        wide = {path: a.shape[1] for path, (a, _) in sorted(factors(state.extras["blank"]).items())}
        return {
            path: randn(size, min(self.directions, size), generator=noise)
            for path, size in wide.items()
        }


def project(block: Weights, bases: Weights) -> None:
    """A (I - S S^T) in every layer that has a basis S [in, k], in place."""
    from torch import no_grad

    with no_grad():
        for path, (a, _) in factors(block).items():
            if path in bases:
                s = bases[path].to(a.device)
                a.sub_(a @ s @ s.T)


def measured(model: Model, received: State, batches: Iterable[Any]) -> tuple[Weights, Weights]:
    """C Omega [in, m] and the energy mean |x|^2 [1] of every layer's inputs x, over the tokens of some
    training samples."""
    from torch import zeros

    omega = {path: value.to(model.device) for path, value in received.extras[SKETCH].items()}
    sketch = {path: value.new_zeros(value.shape) for path, value in omega.items()}
    energy = {path: zeros(1, device=model.device) for path in omega}
    count = 0
    samples = (sample for batch in batches for sample in batch.each())
    for sample in islice(samples, SAMPLES):
        tokens = sample.mask[0].bool()
        count += int(tokens.sum())

        def gate(path: str, x: Tensor, tokens: Tensor = tokens) -> Tensor:
            rows = x[0][tokens.to(x.device)].to(omega[path])
            sketch[path] += rows.T @ (rows @ omega[path])
            energy[path] += rows.square().sum()
            return x.new_ones(1, len(received.adapters))

        with model.instead(gate):
            model.logits(sample)
    return _means(sketch, count), _means(energy, count)


def _means(sums: Weights, count: int) -> Weights:
    return {path: (value / count).cpu() for path, value in sums.items()}


def grown(
    old: Tensor | None, sketch: Tensor, omega: Tensor, energy: float, threshold: float
) -> Tensor:
    """S [in, k] with as many more directions as it needs to hold the share `threshold` of `energy`.

    GPM decomposes inputs X; in their place F with F F^T = C Omega (Omega^T C Omega)^-1 Omega^T C, the
    Nystroem approximation of C (Tropp et al. 2017, arXiv 1706.05736).
    """
    import torch

    linalg: Any = torch.linalg  # torch gives it no types
    y, omega = sketch.double(), omega.double()
    small = omega.T @ y
    values, vectors = linalg.eigh((small + small.T) / 2)
    safe = values > 1e-6 * values.abs().max()
    f = y @ vectors[:, safe] / values[safe].sqrt()
    s = y[:, :0] if old is None else old.double()
    inside = s.T @ f
    u, sigma, _ = linalg.svd(f - s @ inside, full_matrices=False)
    held = inside.square().sum() + torch.cat([sigma[:0].new_zeros(1), sigma.square().cumsum(0)])
    count = int((held < threshold * energy).sum())  # the fewest that hold enough, or all
    count = min(count, max(0, len(s) - s.shape[1]), int((sigma > ROUNDING * f.norm()).sum()))
    new = u[:, :count].float().contiguous()  # bits depend on the layout, which a file does not keep
    return new if old is None else torch.cat([old, new], dim=1)
