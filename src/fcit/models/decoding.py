"""Greedy decoding of a batch, which ends early once nobody waits for it."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor
from transformers import GenerationConfig, StoppingCriteria, StoppingCriteriaList


def greedy(
    model: Any,
    tokenizer: Any,
    inputs: dict[str, Any],
    most: int,
    wanted: Callable[[], bool] | None = None,
) -> tuple[list[list[int]], set[int]]:
    """The ids that each row of a batch goes on with, at most `most`, and those that end an answer.
    `wanted` is asked at every token."""
    last, pad = tokenizer.eos_token_id, tokenizer.pad_token_id
    ends = model.generation_config.eos_token_id or last
    config = GenerationConfig(
        do_sample=False, max_new_tokens=most, eos_token_id=ends, pad_token_id=pad or last
    )
    stopping = StoppingCriteriaList([Unwanted(wanted)] if wanted else [])
    out = model.generate(**inputs, generation_config=config, stopping_criteria=stopping)
    rows = out[:, inputs["input_ids"].shape[1] :].tolist()
    return rows, {ends} if isinstance(ends, int) else set(ends)


class Unwanted(StoppingCriteria):
    """Ends all rows as soon as `wanted` says no."""

    def __init__(self, wanted: Callable[[], bool]):
        self.wanted = wanted

    def __call__(self, input_ids: Tensor, scores: Any, **more: Any) -> Tensor:
        return torch.full((len(input_ids),), not self.wanted(), device=input_ids.device)
