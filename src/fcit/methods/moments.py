"""Statistics of a client's identity features, and linear discriminant analysis (Fisher 1936) from them.

The mean and the second moment of a client's features stand in one row, as one identity token. Both are
means over samples. So the mean of clients' tokens, weighted by their sample counts, is the token of all
their samples together (up to float32's rounding).
"""

from functools import lru_cache
from math import isqrt
from typing import Any

from fcit.types import Tensor

RIDGE = 0.01
"""What is added to the covariance, as a share of its mean variance: 0 would not let it be inverted where
clients have few samples."""

LEAST = 1e-3
"""A lower bound of the mean variance, as a share of the features' mean square: where all samples are
alike, their variance is nothing but float32's rounding."""

ROUNDING = 1e-5
"""How far below zero a variance may lie, as a share of the features' squared length."""


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


def fault(token: Tensor) -> str:
    """What is wrong with a client's token, in words; "": nothing.

    The covariance of samples is nowhere below zero, but for float32's rounding.
    """
    import torch

    size = features(len(token))
    if width(size) != len(token):
        return f"its {len(token)} numbers are no mean with a second moment"
    linalg: Any = torch.linalg
    exact = token.double()
    covariance = _covariance(exact)
    scale = float(exact[:size].square().sum() + covariance.diagonal().clamp(min=0).sum())
    failed = linalg.cholesky_ex(covariance + ROUNDING * scale * torch.eye(size).to(exact)).info
    return "no samples have its second moment: a variance is below zero" if int(failed) else ""


def _covariance(token: Tensor) -> Tensor:
    """The covariance [d, d] in a token [width(d)]."""
    from torch import triu_indices

    mean = means(token)
    size = len(mean)
    above, beside = triu_indices(size, size)
    second = token.new_zeros(size, size)
    second[above, beside] = second[beside, above] = token[size:]
    return second - mean[:, None] * mean


@lru_cache(maxsize=4)
def discriminant(tokens: Tensor, samples: Tensor) -> tuple[Tensor, Tensor]:
    """The weights [K, d] and the bias [K], float64, by which a feature x has the scores weights x + bias.

    A score is the logarithm of the probability that x is of class k, up to a number that is the same for
    all k. The classes, with tokens [K, width(d)] of so many samples [K], are taken as normal
    distributions with one covariance C, that of all samples around their class's mean, and as equally
    frequent: score_k = m_k^T P x - m_k^T P m_k / 2, P = (C + RIDGE v I)^-1. Eigenvalues of C below 0,
    from noise, count as 0; v is their mean, and at least LEAST times the means' mean square. The results
    are kept for as long as a server answers with the same state.
    """
    import torch

    linalg: Any = torch.linalg
    exact, shares = tokens.double(), samples.double() / samples.sum()
    mean, size = means(exact), features(exact.shape[1])
    covariance = exact.new_zeros(size, size)
    for share, token in zip(shares, exact, strict=True):
        covariance += share * _covariance(token)
    square = (shares[:, None] * mean.square()).sum() / size
    values, vectors = linalg.eigh(covariance)
    values = values.clamp(min=0)
    variance = max(float(values.mean()), LEAST * float(square))
    weights = mean @ (vectors / (values + RIDGE * variance)) @ vectors.T
    return weights, -0.5 * (weights * mean).sum(dim=1)
