"""Statistics of a client's identity features, and linear discriminant analysis (Fisher 1936) from them.

The mean and the second moment of a client's features stand in one row, as one identity token. Both are
means over samples. So the token of many clients is the mean of their tokens, weighted by their sample
counts, and it is exactly the token of all their samples together.
"""

from functools import lru_cache
from math import isqrt

from fcit.types import Tensor

RIDGE = 0.01
"""What is added to the covariance, as a share of its mean variance: 0 would not let it be inverted where
clients have few samples."""


def width(features: int) -> int:
    """How many numbers a token has: d of the mean, d (d + 1) / 2 of the second moment."""
    return features + features * (features + 1) // 2


def features(width: int) -> int:
    """The inverse of `width`."""
    return (isqrt(9 + 8 * width) - 3) // 2


def token(rows: Tensor) -> Tensor:
    """The token of samples with these features [n, d]: their mean, and the upper triangle of the mean of
    x x^T. Float32."""
    from torch import cat, triu_indices

    exact = rows.double()
    second = exact.T @ exact / len(rows)
    above, beside = triu_indices(*second.shape)
    return cat([exact.mean(dim=0), second[above, beside]]).float()


def means(tokens: Tensor) -> Tensor:
    """The means [..., d] in tokens [..., width(d)]."""
    return tokens[..., : features(tokens.shape[-1])]


@lru_cache(maxsize=4)
def discriminant(tokens: Tensor, samples: Tensor) -> tuple[Tensor, Tensor]:
    """The weights [K, d] and the bias [K] with which a feature x has the scores weights x + bias: up to a
    number that is the same for all k, the logarithm of the probability that x is of class k.

    The classes, with tokens [K, width(d)] of so many samples [K], are taken as normal distributions with
    one covariance C, that of all samples around their class's mean, and as equally frequent:
    score_k = m_k^T P x - m_k^T P m_k / 2, P = (C + RIDGE tr(C) / d)^-1. The results are kept for as long
    as a server answers with the same state.
    """
    import torch

    exact, shares = tokens.double(), samples.double() / samples.sum()
    mean = means(exact)
    size = mean.shape[1]
    above, beside = torch.triu_indices(size, size)
    covariance = exact.new_zeros(size, size)
    covariance[above, beside] = shares @ exact[:, size:]
    covariance = covariance + covariance.triu(1).T - (mean * shares[:, None]).T @ mean
    spread = covariance.diagonal().mean().clamp(min=1e-12)
    ridged = covariance + RIDGE * spread * torch.eye(size, dtype=exact.dtype)
    weights = mean @ ridged.inverse()
    return weights.float(), (-0.5 * (weights * mean).sum(dim=1)).float()
