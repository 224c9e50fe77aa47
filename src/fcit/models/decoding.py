"""Greedy decoding of a batch, which stops early once nobody waits for it."""

from collections.abc import Callable
from typing import Any

import torch
from transformers import GenerationConfig, StoppingCriteriaList


def greedy(
    model: Any,
    tokenizer: Any,
    inputs: dict[str, Any],
    max_new_tokens: int,
    wanted: Callable[[], bool] | None = None,
) -> tuple[list[list[int]], set[int]]:
    """The new ids of each row, and the ids that end an answer.

    `wanted` is called after every token; decoding stops once it returns False.
    """
    eos, pad = tokenizer.eos_token_id, tokenizer.pad_token_id
    pad = eos if pad is None else pad
    ends = model.generation_config.eos_token_id or eos
    config = GenerationConfig(
        do_sample=False, max_new_tokens=max_new_tokens, eos_token_id=ends, pad_token_id=pad
    )
    stopping = StoppingCriteriaList()
    if wanted:
        stopping.append(
            lambda ids, *_, **__: torch.full((len(ids),), not wanted(), device=ids.device)
        )
    out = model.generate(**inputs, generation_config=config, stopping_criteria=stopping)
    rows = out[:, inputs["input_ids"].shape[1] :].tolist()
    return rows, {ends} if isinstance(ends, int) else set(ends)
