"""Answer test samples: embed the instruction, route it, generate; then score into a matrix row."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from fcit.methods.base import Query
from fcit.types import Sample, State, Task

if TYPE_CHECKING:
    from fcit.methods import Method
    from fcit.models.chat import Completion
    from fcit.models.identity import Encoder
    from fcit.models.lmm import LMM
    from fcit.rounds.client import Data


@dataclass(frozen=True)
class Answer:
    """What the model said to one sample, and how much each adapter gave (by name)."""

    text: str
    activation: dict[str, float]


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
    found = complete(model, encoder, method, state, data, limits)
    return [Answer(one.text, row) for one, row in found]


def complete(
    model: LMM,
    encoder: Encoder | None,
    method: Method,
    state: State,
    data: Data,
    limits: Sequence[int],
    wanted: Callable[[], bool] | None = None,
) -> list[tuple[Completion, dict[str, float]]]:
    """The same, each answer with its own limit of tokens and its counts, beside how much each adapter
    gave. `wanted` is asked at every token; once it says no, answers end where they are."""
    shares = activate(model, encoder, method, state, data)
    prompts = [sample.prompt for sample in data.samples]
    said = model.complete(prompts, data.images, limits, wanted)
    return list(zip(said, shares, strict=True))


def activate(
    model: LMM, encoder: Encoder | None, method: Method, state: State, data: Data
) -> list[dict[str, float]]:
    """Route every sample by itself and open the model's adapters for the batch; the shares by name."""
    import torch

    prompts = [sample.prompt for sample in data.samples]
    features = [None] * len(prompts)
    if method.identity and encoder and state.adapters:
        features = list(encoder.embed(method.identity, prompts, data.images))
    shares = [
        dict(method.route(state, Query(sample.dataset, feature))) if state.adapters else {}
        for sample, feature in zip(data.samples, features, strict=True)
    ]
    names = model.subspaces.names
    if names and all(shares):
        table = [[row[name] for name in names] for row in shares]
        method.activate(model, torch.tensor(table, device=model.device))
    return shares


def chunks(samples: Sequence[Sample], size: int) -> list[list[int]]:
    """Fixed batches of test samples, of alike lengths: the same whoever computes them."""
    order = sorted(range(len(samples)), key=lambda i: (len(samples[i].prompt), i))
    return [order[at : at + size] for at in range(0, len(order), size)]


def homes(trainers: Mapping[str, Mapping[str, int]], tasks: Iterable[Task]) -> dict[str, set[str]]:
    """The adapters that each dataset trained, from the tasks that trained each adapter; none of a
    dataset that no client has trained on."""
    within = {task.name: task.datasets for task in tasks}
    found: dict[str, set[str]] = {}
    for adapter, names in trainers.items():
        for dataset in (one for name in names for one in within[name]):
            found.setdefault(dataset, set()).add(adapter)
    return found


def routing(rows: Sequence[dict], homes: Collection[str]) -> float:
    """Percent of answers whose largest activation factor is a subspace their dataset trained."""
    hits = [max(row["activation"], key=row["activation"].__getitem__) in homes for row in rows]
    return 100 * sum(hits) / len(hits)
