"""Answer test samples: embed the instruction, route it, generate; then score into a matrix row."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from fcit.methods.base import Method, Query
from fcit.rounds.hooks import routed
from fcit.rounds.records import Prediction
from fcit.types import FcitError, Sample, State, Task

if TYPE_CHECKING:
    from fcit.models.chat import Completion
    from fcit.models.identity import Encoder
    from fcit.models.lmm import LMM
    from fcit.rounds.client import Data


@dataclass(frozen=True)
class Route:
    """How one test instruction was routed."""

    activation: dict[str, float]
    """The activation factor of every adapter, by name; empty where the model decides by itself."""
    similarity: dict[str, float] = field(default_factory=dict[str, float])
    """Cosine to every subspace's identity token, or its score, by name; empty without identity tokens."""


@dataclass(frozen=True, kw_only=True)
class Answer(Route):
    """The model's answer to one sample, and how it was routed."""

    text: str


def answer(
    model: LMM,
    encoder: Encoder | None,
    method: Method,
    state: State,
    data: Data,
    max_new_tokens: int = 128,
) -> list[Answer]:
    """Greedy answers to a batch of samples, each routed by itself (never by its batch).

    The state must be in place (`model.receive`). Raises FcitError on an image that cannot be read.
    """
    limits = [max_new_tokens] * len(data.samples)
    completions = complete(model, encoder, method, state, data, limits)
    return [Answer(**vars(route), text=said.text) for said, route in completions]


def complete(
    model: LMM,
    encoder: Encoder | None,
    method: Method,
    state: State,
    data: Data,
    limits: Sequence[int],
    wanted: Callable[[], bool] | None = None,
) -> list[tuple[Completion, Route]]:
    """Like `answer`, with token counts and a token limit for each sample. `wanted` is called at every
    token; generation stops once it returns False."""
    routes = activate(model, encoder, method, state, data)
    prompts = [sample.prompt for sample in data.samples]
    completions = model.complete(prompts, data.images, limits, wanted)
    return list(zip(completions, routes, strict=True))


def activate(
    model: LMM, encoder: Encoder | None, method: Method, state: State, data: Data
) -> list[Route]:
    """Route every sample by itself and set the model's gate for the batch."""
    import torch

    prompts = [sample.prompt for sample in data.samples]
    features = [None] * len(prompts)
    if method.identity and encoder and state.adapters:
        features = list(encoder.embed(method.identity, prompts, data.images))
    queries = [
        Query(sample.dataset, feature)
        for sample, feature in zip(data.samples, features, strict=True)
    ]
    routes = [
        Route(*routed(method, state, each)) if state.adapters else Route({}) for each in queries
    ]
    names = model.subspaces.names
    if names and any(route.activation for route in routes):
        if not all(route.activation for route in routes):
            raise FcitError(
                f"{method.name}: route gives shares for some questions only, and {{}} for others"
            )
        table = [[route.activation[name] for name in names] for route in routes]
        method.activate(model, torch.tensor(table, device=model.device))
    return routes


def chunks(samples: Sequence[Sample], size: int) -> list[list[int]]:
    """Fixed batches of test samples, of alike lengths: the same whoever computes them."""
    order = sorted(range(len(samples)), key=lambda i: (len(samples[i].prompt), i))
    return [order[at : at + size] for at in range(0, len(order), size)]


def adapters_by_dataset(
    trainers: Mapping[str, Iterable[str]], tasks: Iterable[Task]
) -> dict[str, set[str]]:
    """The adapters that clients of each dataset trained, from the tasks that trained each adapter.

    A dataset that no client has trained on is not among the keys.
    """
    datasets = {task.name: task.datasets for task in tasks}
    adapters: dict[str, set[str]] = {}
    for adapter, names in trainers.items():
        for dataset in (dataset for name in names for dataset in datasets[name]):
            adapters.setdefault(dataset, set()).add(adapter)
    return adapters


def chooses(method: Method) -> bool:
    """Whether a question is routed by its identity feature, so that one adapter may give more than
    another. With "concat" each gives 1."""
    concat = type(method).route is Method.route and method.gating.gate == "concat"
    return method.identity is not None and not concat


def winner(activation: Mapping[str, float]) -> str:
    """The adapter with the largest activation factor."""
    return max(activation, key=activation.__getitem__)


def routing(rows: Sequence[Prediction], own: Collection[str]) -> float | None:
    """Percent of routed answers whose largest activation factor is an adapter that their dataset trained;
    None where no answer was routed."""
    wins = [winner(row.activation) in own for row in rows if row.activation]
    return 100 * sum(wins) / len(wins) if wins else None
