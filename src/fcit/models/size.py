"""How large a model is and what training it takes, from its configuration alone: no weight is read."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from math import prod
from pathlib import Path
from typing import Any

import torch
from transformers import AutoConfig, AutoModelForImageTextToText, AutoProcessor

from fcit.models.chat import Chat
from fcit.models.subspace import projections
from fcit.models.vision import projector
from fcit.types import FcitError, Sample, Weights
from fcit.weights import PEFT_PREFIX

CACHE = 512 << 20
"""Bytes of vision features that a process keeps in memory at most (see `features.FeatureCache`)."""


@dataclass(frozen=True)
class Size:
    """Shapes of a model: parameters of its parts, the adapted layers (in, out), the projector's tensors,
    the language model's measures, an image's tokens and their width, and bytes of a number on disk."""

    decoder: int
    vision: int
    others: int
    layers: Mapping[str, tuple[int, int]]
    projector: Mapping[str, tuple[int, ...]]
    depth: int
    hidden: int
    intermediate: int
    heads: int
    vocabulary: int
    image_tokens: int
    image_width: int
    stored: int

    @property
    def parameters(self) -> int:
        """All of them."""
        return self.decoder + self.vision + self.others

    def blank(self, rank: int) -> Weights:
        """A block of adapters of this model's shapes; all zero."""
        block: Weights = {}
        for path, (wide, out) in self.layers.items():
            block[f"{PEFT_PREFIX}{path}.lora_A.weight"] = torch.zeros(rank, wide)
            block[f"{PEFT_PREFIX}{path}.lora_B.weight"] = torch.zeros(out, rank)
        return block

    def blank_projector(self) -> Weights:
        """A projector of this model's shapes; all zero."""
        return {name: torch.zeros(shape) for name, shape in self.projector.items()}


def size(folder: str | Path) -> Size:
    """The size of a model whose configuration is on this disk. Raises FcitError where it is not."""
    try:
        config: Any = AutoConfig.from_pretrained(folder, local_files_only=True)
        with torch.device("meta"):
            model: Any = AutoModelForImageTextToText.from_config(config)
    except (OSError, ValueError, KeyError) as error:
        line = str(error).strip().splitlines()[0].rstrip(".")
        raise FcitError(f"[model] path: {folder}: no configuration to plan with: {line}") from None
    decoder, text = model.get_decoder(), config.get_text_config()
    root = next(name for name, part in model.named_modules() if part is decoder)
    found = projections(decoder, text.hidden_size, text.intermediate_size)
    linear = {path: decoder.get_submodule(path) for path in found}
    learnt = {
        prefix + name: tuple(value.shape)
        for prefix, part in projector(model)
        for name, value in part.named_parameters()
    }
    eyes = config.vision_config
    if config.model_type != "llava":
        raise FcitError(
            f"[model] path: {folder}: how many tokens an image takes is not known beforehand for "
            f"{config.model_type}; fcit plan knows llava"
        )
    vision = _count(model.get_encoder(modality="image"))
    chosen = getattr(config, "vision_feature_layer", -1)
    return Size(
        decoder=_count(decoder) - _count(model.get_input_embeddings()),
        vision=vision,
        others=_count(model) - _count(decoder) - vision + _count(model.get_input_embeddings()),
        layers={
            f"{root}.{path}": (one.in_features, one.out_features) for path, one in linear.items()
        },
        projector=learnt,
        depth=text.num_hidden_layers,
        hidden=text.hidden_size,
        intermediate=text.intermediate_size,
        heads=text.num_attention_heads,
        vocabulary=text.vocab_size,
        image_tokens=(eyes.image_size // eyes.patch_size) ** 2,
        image_width=eyes.hidden_size * (len(chosen) if isinstance(chosen, list | tuple) else 1),
        stored=(config.dtype or torch.float32).itemsize,
    )


def identity_width(folder: str | Path) -> int:
    """How wide an identity encoder's text features are. Raises FcitError where it cannot be read."""
    try:
        return int(
            AutoConfig.from_pretrained(folder, local_files_only=True).text_config.hidden_size
        )
    except (OSError, ValueError, AttributeError) as error:
        line = str(error).strip().splitlines()[0].rstrip(".")
        raise FcitError(f"[model] identity: {folder}: no configuration: {line}") from None


def lengths(
    folder: str | Path, samples: Sequence[Sample], tokens: int, max_length: int
) -> list[tuple[int, int]]:
    """Training samples' tokens in all, and those that answer; `tokens` is what an image takes.

    Raises FcitError where the model's processor is not on this disk.
    """
    try:
        processor = AutoProcessor.from_pretrained(folder, backend="pil", local_files_only=True)
    except (OSError, ValueError, KeyError) as error:
        line = str(error).strip().splitlines()[0].rstrip(".")
        raise FcitError(f"[model] path: {folder}: no processor: {line}") from None
    image = processor.tokenizer.convert_tokens_to_ids(processor.image_token)
    chat = Chat(processor, max_length, image)
    rows = [chat.turns(sample, processor.image_token * tokens) for sample in samples]
    return [(len(ids), sum(label != -100 for label in labels)) for ids, labels in rows]


@dataclass(frozen=True)
class Load:
    """One pass of training: samples at once, tokens of the longest, tokens answered in all; `blocks`
    adapters of a rank, of which `trained` learn; whether the projector learns; images of a whole step
    and in all; bytes of a number; whether attention's scores are kept (on a CPU, whose memory also holds
    messages and the cache of features), whether there is dropout, whether layers are computed again."""

    batch: int
    length: int
    answered: int
    blocks: int
    trained: int
    rank: int
    projector: bool
    step: int
    images: int
    number: int
    scores: bool
    dropout: bool
    checkpointing: bool


def memory(of: Size, load: Load) -> dict[str, int]:
    """Bytes at the peak of a client's turn, by what takes them.

    Counted from what autograd keeps of a Llama-like layer whose own weights are frozen: the inputs of
    norms (in float32), of attention's two products and of its softmax, of the activation and the
    product after it, and of the adapters' factors A with their dropout.
    """
    block = sum(load.rank * (wide + out) for wide, out in of.layers.values())
    head = sum(prod(shape) for shape in of.projector.values())
    rows, number = load.batch * load.length, load.number
    thin, wide = rows * of.hidden, rows * of.intermediate
    scores = load.batch * of.heads * load.length**2 if load.scores else 0
    half = number < 4
    adapted = (4 * thin + 2 * wide) if load.dropout else (thin + wide)
    layer = (
        2 * thin * 4
        + 3 * thin * number
        + scores * (4 + (number if half else 0))
        + (0 if load.scores else thin * number)
        + (3 * wide + adapted) * number
    )
    passing = max(4 * wide * number, 2 * scores * 4)
    kept = of.depth * (thin * number if load.checkpointing else layer)
    again = layer if load.checkpointing else 0
    words = load.answered * of.vocabulary * (4 * 3 + (number if half else 0))
    images = of.image_tokens * of.image_width * number
    parts = {
        "base model": of.parameters * number,
        "adapters": load.blocks * block * 4,
        "gradients and AdamW": 3 * 4 * (load.trained * block + load.projector * head),
        "projector": (2 * 4 + number) * head,
        "received": 4 * (load.blocks * block + head) if load.scores else 0,
        "vision features": load.step * images + min(CACHE, load.images * images) * load.scores,
        "activations": kept + 3 * thin * number + 2 * load.batch * of.image_tokens * of.hidden * 4,
        "passing": max(words, again + passing),
    }
    # A CPU's weights are the mapped file itself, unless they are wanted in another form.
    file = of.parameters * of.stored if load.scores and of.stored != number else 0
    more = file + parts["base model"] - sum(parts.values())
    return parts | {"more, while loading": more} if more > 0 else parts


def _count(part: Any) -> int:
    return sum(value.numel() for value in part.parameters())
