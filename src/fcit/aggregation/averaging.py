"""The exact average of LoRA blocks: the mean of the products B_k A_k, truncated to rank r.

Averaging the factors themselves is not that: mean(B) mean(A) is not mean(B A) (Sun et al. 2024, Improving
LoRA in Privacy-preserving Federated Learning, arXiv 2403.12313, section 3). The mean product and its
truncated SVD follow Bai et al. 2024 (Federated Fine-tuning of Large Language Models under Heterogeneous
Tasks and Client Resources, arXiv 2402.11505, section 3.2); no matrix of the layer's full size is made.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Literal

from fcit.types import State, Update, Weights
from fcit.weights import DOWN, LOW_A, LOW_B, UP, mean, threads

if TYPE_CHECKING:
    from torch import Tensor

Average = Literal["factors", "product"]
"""What is averaged: the factors A and B of a LoRA block, or their product."""

NOTHING = 1e-6
"""Singular values below this share of the largest are rounding errors of float32 factors."""


def exact(after: State, updates: Sequence[Update]) -> State:
    """`after` with the exact average of every adapter that came back, weighted by sample count."""
    adapters = dict(after.adapters)
    for name in sorted({name for update in updates for name in update.adapters}):
        cohort = [update for update in updates if name in update.adapters]
        blocks = [update.adapters[name] for update in cohort]
        mean_block = product_mean(blocks, [update.samples for update in cohort])
        adapters[name] = adapters[name] | mean_block
    return replace(after, adapters=adapters)


def product_mean(parts: Sequence[Mapping[str, Tensor]], counts: Sequence[int]) -> Weights:
    """LoRA blocks averaged as products, layer by layer, `counts` being the weights.

    Gives the best approximation of rank r to sum_k w_k B_k A_k (Eckart and Young 1936), in balanced
    factors (A A^T = B^T B), rotated towards the mean factors. So the factors change little from round to
    round where the product does, and server optimizers can follow them. Directions that the product lacks
    get a zero column in B and keep their row in A, or they could never learn again. Tensors that are not
    LoRA factors are averaged. A single part is returned unchanged.
    """
    if len(parts) == 1:
        return dict(parts[0])
    result = mean(parts, counts)
    shares = [count / sum(counts) for count in counts]
    with threads(1):  # so that the last bits do not depend on the number of cores
        for down, up in pairs(parts[0]):
            downs, ups = ([part[key] for part in parts] for key in (down, up))
            result[down], result[up] = _merge(downs, ups, shares, result[down], result[up])
    return result


def pairs(block: Mapping[str, Tensor]) -> list[tuple[str, str]]:
    """The names of A and B of every layer: of the language model's, and of a projector with LoRA."""
    ends = ((DOWN, UP), (LOW_A, LOW_B))
    named = ((key, key.removesuffix(down) + up, down) for key in block for down, up in ends)
    return [(key, other) for key, other, down in named if key.endswith(down) and other in block]


def _merge(
    downs: Sequence[Tensor], ups: Sequence[Tensor], shares: Sequence[float], a: Tensor, b: Tensor
) -> tuple[Tensor, Tensor]:
    """The factors A [r, in], B [out, r] of one layer's mean product; a and b are the mean factors."""
    import torch
    from torch.nn.functional import pad

    rank, kind = a.shape[0], a.dtype
    # sum_k w_k B_k A_k = L R with L [out, n r], R [n r, in]: its SVD needs the two small triangles only
    left = torch.cat([up.double() * share for up, share in zip(ups, shares, strict=True)], dim=1)
    right = torch.cat([down.double() for down in downs])
    q, upper = torch.linalg.qr(left)
    p, lower = torch.linalg.qr(right.T)
    u, s, v = torch.linalg.svd(upper @ lower.T, full_matrices=False)
    u, s, v = q @ u[:, :rank], s[:rank], v[:rank] @ p.T
    short = rank - len(s)  # only where a layer is narrower than r
    u, s, v = pad(u, (0, short)), pad(s, (0, short)), pad(v, (0, 0, 0, short))
    a, b = a.double(), b.double()
    there = s > NOTHING * s[0]
    root = torch.where(there, s, 0.0).sqrt()
    new_b = u * root
    new_a = v * torch.where(there, root, a.norm() / rank**0.5)[:, None]
    # the rotation nearest to the mean factors (orthogonal Procrustes; Schoenemann 1966)
    left, _, right = torch.linalg.svd(a @ new_a.T + b.T @ new_b)
    rotation = left @ right
    return (rotation @ new_a).to(kind).contiguous(), (new_b @ rotation.T).to(kind).contiguous()
