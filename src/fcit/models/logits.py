"""What comes after the last hidden state: a family's logits, and greedy answers."""

import re
from collections.abc import Callable
from typing import Any

import torch
from transformers import GenerationConfig, StoppingCriteriaList

from fcit.types import FcitError

AFTER_HEAD = re.compile(r"final_logit_softcapping|logits?_scal(e|ing)|logits?_multiplier")
"""Keys of a language model's configuration that change logits after the head."""

TOLERANCE = 1e-2
"""The largest difference from the family's own logits, as a share of the largest of them: bf16 rounds."""


@torch.no_grad()
def logit_cap(model: Any) -> float:
    """The cap c of a family that replaces its logits x by c tanh(x / c), such as PaliGemma 2; 0: none.

    Where the configuration names a change of logits, they are computed once and compared: a family may
    ignore what its language model's configuration says. Raises FcitError for one that changes them in
    another way: its loss would be that of another model.
    """
    text = model.config.get_text_config().to_dict()
    changes = {key: value for key, value in text.items() if AFTER_HEAD.fullmatch(key)}
    changes = {key: value for key, value in changes.items() if value not in (None, 0, 1)}
    if not changes:
        return 0.0
    cap = float(text.get("final_logit_softcapping") or 0.0)
    ids = torch.tensor([[1, 2]], device=model.get_input_embeddings().weight.device)
    hidden = model.base_model(input_ids=ids).last_hidden_state
    plain = model.get_output_embeddings()(hidden).float()
    theirs = model(input_ids=ids).logits.float().to(plain.device)
    ours = {0.0: plain} | ({cap: cap * torch.tanh(plain / cap)} if cap else {})
    gaps = {known: float((theirs - logits).abs().max()) for known, logits in ours.items()}
    nearest = min(gaps, key=lambda known: gaps[known])
    if gaps[nearest] > TOLERANCE * theirs.abs().max():
        raise FcitError(
            f"[model] path: {model.config.model_type} changes its logits by {', '.join(changes)} in a "
            "way that fcit does not know, so it cannot be trained"
        )
    return nearest


def greedy(
    model: Any,
    tokenizer: Any,
    inputs: dict[str, Any],
    max_new_tokens: int,
    wanted: Callable[[], bool] | None = None,
) -> tuple[list[list[int]], set[int]]:
    """The new ids of each row of a batch, decoded greedily, and the ids that end an answer.

    `wanted` is called after every token; decoding stops once it returns False.
    """
    ends = model.generation_config.eos_token_id
    config = GenerationConfig(
        do_sample=False,
        max_new_tokens=max_new_tokens,
        eos_token_id=ends,
        pad_token_id=tokenizer.pad_token_id,
    )
    stopping = StoppingCriteriaList()
    if wanted:
        stopping.append(
            lambda ids, *_, **__: torch.full((len(ids),), not wanted(), device=ids.device)
        )
    out = model.generate(**inputs, generation_config=config, stopping_criteria=stopping)
    rows = out[:, inputs["input_ids"].shape[1] :].tolist()
    return rows, {ends} if isinstance(ends, int) else set(ends or ())


def add_end(settings: Any, tokenizer: Any, token: str) -> None:
    """Let a model's generation settings end answers with the token that its chat template ends them with
    (""  for none), beside those that they name or, if they name none, the tokenizer's."""
    named = tokenizer.eos_token_id if settings.eos_token_id is None else settings.eos_token_id
    ends = [named] if isinstance(named, int) else list(named or ())
    own = tokenizer.convert_tokens_to_ids(token) if token else None
    if own is not None and own not in ends:
        ends.append(own)
    settings.eos_token_id = ends[0] if len(ends) == 1 else ends or None
