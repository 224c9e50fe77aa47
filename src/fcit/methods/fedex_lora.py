"""fedex_lora: FedEx-LoRA (Singhal et al. 2025, ACL, FedEx-LoRA: Exact Aggregation for Federated and
Efficient Fine-Tuning of Large Language Models, arXiv 2410.09432).

Factors are averaged as in FedAvg, and what that loses, mean(B_k A_k) - mean(B_k) mean(A_k), is added to
the frozen weights. So the model that answers is exactly the mean of the clients' models.
"""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from math import ceil
from typing import ClassVar, Literal

from fcit.methods.base import Method
from fcit.types import State, Tensor, Turn, Update, Weights
from fcit.weights import DOWN, UP, factors

MEAN = "its residual belongs to the sample-weighted mean of A and of B"


@dataclass(frozen=True)
class FedexLora(Method):
    """Adapter "0" is trained. The residuals of all rounds are frozen adapters "1", "2", ... beside it,
    which take part in every answer: the base model itself stays as it is. A round of n clients adds n - 1
    of rank r. Where there are more than m = min(in, out) / r (rounded up), they become m, whose products
    are the dense residual: min(in, out) x (in + out) numbers a layer, a little more than the layer has
    (LLaVA-1.5-7B: 24 GB). A client gets all of them in every turn, since it may have missed any round; it
    sends what finetune's does. A server optimizer moves adapter "0" on from the mean of the models.

    It is a method and no averaging rule, as the paper adds to the one frozen model: several subspaces
    would each need their own.
    """

    projector: Literal["shared", "frozen"] = "shared"
    """Not "isolated": residuals have no projector."""

    excludes: ClassVar[Mapping[str, str]] = {
        **dict.fromkeys(("product", "median", "trimmed", "krum"), MEAN),
        "privacy": "the residual is made of single clients' changes, without clipping and noise",
    }

    def send(self, state: State, turn: Turn) -> State:
        return replace(super().send(state, turn), adapters=dict(state.adapters))

    def trains(self, received: State) -> list[str]:
        return ["0"]

    def aggregate(self, state: State, updates: Sequence[Update]) -> State:
        """FedAvg's average as adapter "0", and the residuals after it."""
        after = super().aggregate(state, updates)
        blocks = (update.adapters["0"] for update in updates)
        new = residuals(blocks, [update.samples for update in updates])
        old = [state.adapters[str(number)] for number in range(1, len(state.adapters))]
        frozen = {str(number): block for number, block in enumerate(folded([*old, *new]), 1)}
        return replace(after, adapters={"0": after.adapters["0"]} | frozen)


def residuals(blocks: Iterable[Mapping[str, Tensor]], counts: Sequence[int]) -> list[Weights]:
    """n - 1 blocks whose products sum to mean(B_k A_k) - mean(B_k) mean(A_k), `counts` being the weights.

    It is a covariance, sum_k w_k (B_k - mean B) (A_k - mean A), which grows client by client (Welford
    1962): by the product of a client's distances from the mean of those before it.
    """
    result: list[Weights] = []
    middle: Weights = {}
    seen, total = 0, sum(counts)
    for block, count in zip(blocks, counts, strict=True):
        change = {key: block[key] - middle[key] if seen else block[key] for key in block}
        if seen:
            share = seen * count / ((seen + count) * total)
            result.append({k: v * share if k.endswith(UP) else v for k, v in change.items()})
        seen += count
        step = count / seen
        middle = {k: middle[k] + v * step if middle else v for k, v in change.items()}
    return result


def folded(blocks: Sequence[Weights]) -> list[Weights]:
    """The same sum of products in at most m blocks: where there are more, B A = I M, or M I."""
    from torch import eye
    from torch.nn.functional import pad

    if not blocks:
        return []
    shapes = {path: (b.shape[0], a.shape[1]) for path, (a, b) in factors(blocks[0]).items()}
    rank = next(iter(factors(blocks[0]).values()))[0].shape[0]
    most = ceil(max(map(min, shapes.values())) / rank)
    if len(blocks) <= most:
        return list(blocks)
    result: list[Weights] = [{} for _ in range(most)]
    for key in blocks[0]:
        layer = key.removesuffix(DOWN)
        if layer == key:
            continue
        first, *rest = (block[layer + UP].double() @ block[key].double() for block in blocks)
        dense = sum(rest, start=first).to(blocks[0][key].dtype)
        unit = eye(min(dense.shape), dtype=dense.dtype)
        a, b = (dense, unit) if len(dense) <= dense.shape[1] else (unit, dense)
        a, b = pad(a, (0, 0, 0, most * rank - len(a))), pad(b, (0, most * rank - b.shape[1]))
        parts = zip(a.chunk(most), b.chunk(most, dim=1), strict=True)
        for block, (down, up) in zip(result, parts, strict=True):
            block[layer + DOWN], block[layer + UP] = down.contiguous(), up.contiguous()
    return result
