"""Losses and held-out figures of both pretrainings: answers about images, and pairs of images and
texts.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional
from transformers import AttentionInterface

from tools.mini_models import architecture as mini

PLAIN = "fcit-plain"
"""Attention as plain matrix products: at this size faster on a CPU than torch's fused one."""


def _plain(
    module: Any,
    query: Tensor,
    key: Tensor,
    value: Tensor,
    mask: Tensor | None,
    scaling: float,
    **_: Any,
) -> tuple[Tensor, None]:
    scores = (query * scaling) @ key.transpose(2, 3)
    if mask is not None:
        scores = scores + mask
    return (scores.softmax(-1) @ value).transpose(1, 2).contiguous(), None


AttentionInterface.register(PLAIN, _plain)


@dataclass(frozen=True)
class SightBatch:
    """Images uint8 [n, 48, 48, 3], and patch labels as in `generic.Seen`: `kinds`, `colours` and
    `middles` [n, 36], `boxes` [n, 36, 4] (-1: none).
    """

    images: Any
    kinds: Any
    colours: Any
    middles: Any
    boxes: Any


@dataclass(frozen=True)
class LmmBatch(SightBatch):
    """Images with several short conversations each, packed after one image prefix.

    `ids` [n, t]; `part` [n, t], which conversation a token belongs to (0 = padding); `weight`
    [n, t], the weight of predicting this token.
    """

    ids: Any
    part: Any
    weight: Any


@dataclass(frozen=True)
class ClipBatch:
    """Images with a caption each, and instructions with the target directions of their features.

    `images` uint8 [n, 48, 48, 3]; `captions` [n, t]; `texts` [n, m, t]; `aims` [n, m, d]. Texts are
    token ids, padded on the right.
    """

    images: Any
    captions: Any
    texts: Any
    aims: Any


class Patches(nn.Module):
    """Auxiliary heads, not saved: linear predictions of patch labels from vision features."""

    def __init__(self, width: int, kinds: int, colours: int):
        super().__init__()
        self.kinds = nn.Linear(width, kinds)
        self.colours = nn.Linear(width, colours)
        self.middles = nn.Linear(width, 1)
        self.boxes = nn.Linear(width, 4)

    def forward(self, features: Tensor, batch: SightBatch) -> Tensor:
        """Cross-entropies of kinds, colours and middles plus the boxes' error; features [n, 36, w]."""
        loss = _cross(self.kinds(features), _tensor(batch.kinds))
        loss = loss + _cross(self.colours(features), _tensor(batch.colours))
        middles = self.middles(features)[..., 0].float()
        wanted = torch.from_numpy(batch.middles).float()
        loss = loss + functional.binary_cross_entropy_with_logits(middles, wanted)
        boxes = torch.from_numpy(batch.boxes)
        there = boxes[..., 0] >= 0
        off = self.boxes(features)[there].float() - boxes[there]
        return loss + 20 * functional.smooth_l1_loss(off, torch.zeros_like(off), beta=0.1)


def _cross(logits: Tensor, target: Tensor) -> Tensor:
    return functional.cross_entropy(logits.flatten(0, 1).float(), target.flatten(), ignore_index=-1)


def _tensor(array: Any) -> Tensor:
    return torch.from_numpy(array).long()


def sight_loss(model: Any, aid: Patches, batch: SightBatch) -> Tensor:
    """The loss of the patch labels alone: an image costs a tenth of what it costs with its text."""
    seen = model.model.vision_tower(pixel_values=mini.normalise(batch.images))
    return aid(seen.last_hidden_state[:, 1:], batch)


@dataclass(frozen=True)
class Names:
    """The token of each kind and each colour that a patch may show (-1: none), int64."""

    kinds: Tensor
    colours: Tensor


def lmm_loss(model: Any, aid: Patches, opening: Tensor, names: Names, batch: LmmBatch) -> Tensor:
    """The weighted cross-entropy of all answers of a batch, plus the loss of its patch labels.

    Patch labels are predicted twice: from the vision features, and as words from the projected
    features, so that image tokens become similar to the words for what they show.
    """
    features, last = _seen(model, batch)
    hidden, ids, _ = lmm_hidden(model, opening, batch, features)
    weights = torch.from_numpy(batch.weight).float()
    wanted = weights > 0
    logits = model.lm_head(hidden[wanted]).float()
    losses = functional.cross_entropy(logits, ids[wanted], reduction="none")
    weights = weights[wanted]
    loss = (losses * weights).sum() / weights.sum()
    return loss + 0.1 * aid(last, batch) + 0.1 * _worded(model, names, features, batch)


def _worded(model: Any, names: Names, features: Tensor, batch: LmmBatch) -> Tensor:
    """Cross-entropy of kind and colour, predicted as words from projected image tokens [n, 36, d]."""
    kinds, colours = names.kinds[_tensor(batch.kinds)], names.colours[_tensor(batch.colours)]
    told = kinds >= 0
    logits = model.lm_head(features[told]).float()
    loss = functional.cross_entropy(logits, kinds[told])
    return loss + functional.cross_entropy(logits, colours[told], ignore_index=-1)


def _seen(model: Any, batch: LmmBatch) -> tuple[Tensor, Tensor]:
    """Projected image tokens [n, 36, d], and the vision features before the projector."""
    seen = model.model.get_image_features(
        pixel_values=mini.normalise(batch.images),
        vision_feature_layer=-1,
        vision_feature_select_strategy="default",
    )
    return torch.stack(list(seen.pooler_output)), seen.last_hidden_state[:, 1:]


def lmm_hidden(
    model: Any, opening: Tensor, batch: LmmBatch, features: Tensor | None = None
) -> tuple[Tensor, Tensor, Tensor]:
    """The hidden state that predicts each text token [n, t, d], the tokens, and their conversations.

    Each conversation attends only to the image and to itself, at the positions that it would have
    alone. So several share one pass over the image and train as separate ones would. (A conversation's
    first token has no valid hidden state here; it is never part of an answer.)
    """
    if features is None:
        features, _ = _seen(model, batch)
    embed = model.get_input_embeddings()
    ids, part = _tensor(batch.ids), _tensor(batch.part)
    head = embed(opening).to(features.dtype).expand(len(ids), -1, -1)
    start = int((opening == mini.IMAGE).nonzero()[0])
    end = start + mini.PATCHES
    text = embed(ids).to(features.dtype)
    embedded = torch.cat([head[:, :start], features, head[:, end:], text], dim=1)
    place, seen = layout(part, len(opening))
    # An additive mask, which every attention implementation accepts.
    mask = torch.zeros(seen.shape, dtype=features.dtype)
    mask = mask.masked_fill(~seen, torch.finfo(features.dtype).min)
    hidden = model.model.language_model(
        inputs_embeds=embedded, attention_mask=mask, position_ids=place, use_cache=False
    ).last_hidden_state
    return hidden[:, len(opening) - 1 : -1], ids, part


def layout(part: Tensor, opening: int) -> tuple[Tensor, Tensor]:
    """Positions [n, L] and attention mask [n, 1, L, L] of conversations packed after a prefix."""
    rows, width = part.shape
    index = torch.arange(width).expand(rows, -1)
    starts = torch.ones_like(part, dtype=torch.bool)
    starts[:, 1:] = part[:, 1:] != part[:, :-1]
    begun = torch.where(starts, index, 0).cummax(dim=1).values
    place = torch.cat([torch.arange(opening).expand(rows, -1), opening + index - begun], dim=1)
    whole = torch.cat([torch.zeros(rows, opening, dtype=part.dtype), part], dim=1)
    length = opening + width
    causal = torch.ones(length, length, dtype=torch.bool).tril()
    same = whole[:, :, None] == whole[:, None, :]
    shared = (torch.arange(length) < opening)[None, None, :]
    return place, ((same | shared) & causal)[:, None]


def clip_loss(model: Any, batch: ClipBatch) -> Tensor:
    """InfoNCE of images and captions, and the distance of instructions from their targets.

    The second term uses the pooled text output directly, because identity tokens are made of it.
    """
    seen = model.vision_model(pixel_values=mini.normalise(batch.images)).pooler_output
    image = functional.normalize(model.visual_projection(seen).float(), dim=-1)
    told = pooled(model, _tensor(batch.captions))
    text = functional.normalize(model.text_projection(told).float(), dim=-1)
    logits = image @ text.T * model.logit_scale.float().clamp(max=math.log(100)).exp()
    target = torch.arange(len(logits))
    loss = functional.cross_entropy(logits, target) + functional.cross_entropy(logits.T, target)
    return loss / 2 + 4 * (1 - _aimed(model, batch).mean())


def _aimed(model: Any, batch: ClipBatch) -> Tensor:
    """Cosines of the instructions' pooled outputs with their targets: [n * m]."""
    features = pooled(model, _tensor(batch.texts).flatten(0, 1)).float()
    return functional.cosine_similarity(features, torch.from_numpy(batch.aims).flatten(0, 1))


def pooled(model: Any, ids: Tensor) -> Tensor:
    """The text tower's pooled output [n, d], at each text's `</s>`."""
    ids = ids[:, : int((ids != mini.PAD).sum(1).max())]
    return model.text_model(input_ids=ids).pooler_output


@torch.no_grad()
def answered(model: Any, opening: Tensor, batch: LmmBatch) -> Any:
    """Which conversations greedy decoding answers exactly: bool [n, parts].

    If every token is the most likely one given the correct tokens before it, greedy decoding gives
    exactly the correct answer. This needs one pass.
    """
    model.eval()
    hidden, ids, part = lmm_hidden(model, opening, batch)
    weights = torch.from_numpy(batch.weight)
    wanted = weights > 0
    best = model.lm_head(hidden[wanted]).argmax(-1)
    wrong = torch.zeros_like(wanted)
    wrong[wanted] = best != ids[wanted]
    parts = int(part.max())
    return torch.stack([~(wrong & (part == one)).any(1) for one in range(1, parts + 1)], 1).numpy()


@torch.no_grad()
def clip_scores(model: Any, batch: ClipBatch) -> dict[str, float]:
    """How often the right caption among 64 is ranked first, and the cosine of instructions with their
    targets."""
    model.eval()
    found: list[Tensor] = []
    for start in range(0, len(batch.images) - len(batch.images) % 64 or 1, 64):
        rows = slice(start, start + 64)
        seen = model.vision_model(pixel_values=mini.normalise(batch.images[rows])).pooler_output
        told = pooled(model, _tensor(batch.captions[rows]))
        image = functional.normalize(model.visual_projection(seen), dim=-1)
        text = functional.normalize(model.text_projection(told), dim=-1)
        found.append((image @ text.T).argmax(1) == torch.arange(len(image)))
    return {
        "caption of 64": float(torch.cat(found).float().mean()),
        "cosine with the aim": float(_aimed(model, batch).mean()),
    }
