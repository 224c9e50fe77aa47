"""Tokens with second moments: they average exactly, and route as discriminant analysis of all samples."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import pytest
import torch

from fcit.methods import Query, moments
from fcit.methods.disco import Disco
from fcit.types import FcitError, Identity, State
from fcit.weights import cosine

GENERATOR = torch.Generator().manual_seed(3)


def samples(center: list[int], count: int) -> torch.Tensor:
    """Features that vary much along one direction, which tells no class from another."""
    noise = torch.randn((count, 3), generator=GENERATOR) * torch.tensor([3.0, 0.3, 0.3])
    return torch.tensor(center, dtype=torch.float32) + noise


CLASSES = [
    samples([5.0, 1.0, 0.0], 200),
    samples([5.0, 0.0, 1.0], 300),
    samples([4.0, 0.9, 1.0], 100),
]


def by_hand(rows: torch.Tensor) -> torch.Tensor:
    """Log-probabilities [n, K] of equally frequent normal distributions with one covariance."""
    around = torch.cat([part - part.mean(dim=0) for part in CLASSES]).double()
    covariance = around.T @ around / len(around)
    covariance += moments.RIDGE * covariance.diagonal().mean() * torch.eye(3).double()
    normals = [
        torch.distributions.MultivariateNormal(part.double().mean(dim=0), covariance)
        for part in CLASSES
    ]
    logs = torch.stack([normal.log_prob(rows.double()) for normal in normals], dim=1)
    return logs.log_softmax(dim=1)


@pytest.mark.parametrize("size", [1, 2, 7, 128, 768])
def test_a_tokens_width_tells_the_features(size: int) -> None:
    assert moments.features(moments.width(size)) == size
    token = moments.token(torch.ones(2, size))
    assert token.shape == (moments.width(size),)
    assert torch.equal(moments.means(token), torch.ones(size))


def test_tokens_of_parts_average_to_the_token_of_the_whole() -> None:
    whole = torch.cat(CLASSES)
    counts = torch.tensor([float(len(part)) for part in CLASSES])
    parts = torch.stack([moments.token(part) for part in CLASSES])
    mean = (counts[:, None] * parts).sum(0) / counts.sum()
    torch.testing.assert_close(mean, moments.token(whole))


def test_a_variance_that_noise_made_negative_counts_as_none() -> None:
    """Otherwise features along it would speak against their own class."""
    tokens = torch.stack([moments.token(part) for part in CLASSES])
    tokens[:, moments.width(3) - 3] -= (
        0.2  # the second feature's second moment; its variance is 0.09
    )
    weights, bias = moments.discriminant(tokens, torch.tensor([200, 300, 100]))
    for number, part in enumerate(CLASSES):
        best = (part.double() @ weights.T + bias).argmax(dim=1)
        assert (best == number).double().mean() > 0.8


@dataclass(frozen=True)
class ByTask(Disco):
    """The subspace is the task, so that a test says which samples a subspace has."""

    def assign(self, state: State, identities: Sequence[Identity]) -> list[tuple[Identity, int]]:
        return [(each, int(each.task)) for each in sorted(identities, key=lambda one: one.task)]


def routed(method: Disco, clients: int) -> State:
    """The server's state after so many clients of each of three tasks sent their tokens."""
    blank = {"base_model.model.w.lora_A.weight": torch.ones(2, 3)}
    state = method.start(blank, {"p": torch.zeros(1)})
    identities = [
        Identity(3 * client + number, str(number), method.make_token(part), len(part))
        for number, whole in enumerate(CLASSES)
        for client, part in enumerate(whole.chunk(clients))
    ]
    return method.organise(state, identities)


@pytest.mark.parametrize("clients", [1, 5])
def test_shares_are_the_probabilities_of_the_subspaces(clients: int) -> None:
    """However the samples lie with clients; and they are right more often than cosines."""
    method = ByTask(router="discriminant")
    state = routed(method, clients)
    rows = torch.cat([part[:50] for part in CLASSES])
    right = by_hand(rows).exp()
    for row, shares in zip(rows, right, strict=True):
        found = method.route(state, Query("", row))
        assert list(found.values()) == pytest.approx(shares.tolist(), abs=1e-4)
    truth = torch.arange(3).repeat_interleave(50)
    share = float((right.argmax(dim=1) == truth).float().mean())
    assert share > 0.85
    tokens = method.tokens(state)
    assert tokens is not None
    by_cosine = cosine(rows, moments.means(tokens)).argmax(dim=1)
    assert float((by_cosine == truth).float().mean()) < share


def test_the_most_probable_alone_may_answer() -> None:
    method = ByTask(router="discriminant", gate="argmax")
    shares = method.route(routed(method, 1), Query("", CLASSES[1].mean(dim=0)))
    assert shares == {"0": 0.0, "1": 1.0, "2": 0.0}


def test_what_does_not_go_with_it_is_refused() -> None:
    with pytest.raises(
        FcitError, match="method.as_reference: the reference code routes by cosines"
    ):
        Disco(router="discriminant", as_reference=True)
    with pytest.raises(FcitError, match='method.gate: "cosine" needs'):
        Disco(router="discriminant", gate="cosine")
    assert Disco(router="discriminant").sends_statistics and not Disco().sends_statistics


def test_a_second_moment_that_no_samples_have_is_a_fault() -> None:
    method = Disco(router="discriminant")
    token = method.make_token(CLASSES[0])
    assert method.token_fault(token) == "" and Disco().token_fault(token) == ""
    assert method.token_fault(method.make_token(CLASSES[0][:1])) == "", "one sample has no variance"
    wide = torch.randn((5, 768), generator=GENERATOR) + 3
    assert method.token_fault(method.make_token(wide)) == "", "fewer samples than features"
    less = torch.cat([token[:3], 0.9 * token[3:]])
    said = "no samples have its second moment: a variance is below zero"
    assert method.token_fault(less) == said
    assert method.token_fault(token[:-1]) == "its 8 numbers are no mean with a second moment"


@pytest.mark.parametrize("size", [16, 128])
def test_where_samples_are_all_alike_the_nearest_mean_answers(size: int) -> None:
    """Their covariance is float32's rounding, of either sign."""
    points = torch.randn((6, size), generator=GENERATOR) + 2
    tokens = torch.stack([moments.token(point.expand(7, size)) for point in points])
    weights, bias = moments.discriminant(tokens, torch.full((6,), 7))
    found = points.double() @ weights.T + bias
    assert found.argmax(dim=1).tolist() == list(range(6))
