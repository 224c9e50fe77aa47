"""How large a model is and how long its prompts are, from its configuration and processor alone."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from math import prod
from pathlib import Path
from typing import Any

import torch
from torch import nn
from transformers import AutoConfig, AutoModel

from fcit.models import llava_original
from fcit.models.chat import Chat
from fcit.models.encoding import encoding
from fcit.models.folders import faults, pretrained
from fcit.models.loading import blank_model
from fcit.models.processors import ImageReader, load_processor, prepare_blank, takes_squares
from fcit.models.subspace import adapted_layers, blank_block, widths
from fcit.models.vision import find_projector
from fcit.types import FcitError, Sample, Weights

PHOTO = (640, 480)
"""Width and height of a usual photograph, taken where no image is given."""


@dataclass(frozen=True)
class ModelSize:
    """Numbers of parameters, and the shapes that memory and time depend on."""

    decoder: int
    """Parameters of the language model without its embeddings."""
    matrices: int
    """Those in Linear layers, which quantization makes smaller."""
    vision: int
    """Parameters of the vision tower without the projector."""
    others: int
    """All other parameters."""
    layers: Mapping[str, tuple[int, int]]
    """Path of every adapted layer -> (in, out)."""
    projector: Mapping[str, tuple[int, ...]]
    """Name of every tensor of the projector -> shape."""
    depth: int
    hidden: int
    intermediate: int
    heads: int
    vocabulary: int
    stored: int
    """Bytes of a number on disk."""
    image_tokens: int = 0
    """Tokens of the given image in a prompt (0: there is no processor to ask)."""
    patches: int = 0
    """Its patches in the vision tower."""
    features: int = 0
    """The numbers of it that reach the projector."""

    @property
    def parameters(self) -> int:
        """The model's parameters."""
        return self.decoder + self.vision + self.others

    def blank(self, rank: int) -> Weights:
        """A block of adapters of this model's shapes; all zero."""
        return blank_block(self.layers, rank)

    def blank_projector(self) -> Weights:
        """A projector of this model's shapes; all zero."""
        return {name: torch.zeros(shape) for name, shape in self.projector.items()}


def model_size(
    folder: str | Path, clip: str | Path = "", picture: tuple[int, int] = PHOTO
) -> ModelSize:
    """The size of a model whose configuration is on this disk, for an image of this width and height.

    clip: see `loading.load`. Raises FcitError where there is no such configuration, or where the
    processor refuses such images.
    """
    with faults(folder):
        config = _config(folder, clip)
        model = blank_model(config)
        decoder, text = model.get_decoder(), config.get_text_config()
        parts, tower = find_projector(model), model.get_encoder(modality="image")
        embeddings, inside = _count(model.get_input_embeddings()), set(tower.modules())
        vision = _count(tower) - sum(_count(part) for _, part in parts if part in inside)
        tokens, patches = _image_tokens(folder, clip, config, picture)
        chosen = getattr(config, "vision_feature_layer", -1)
        levels = len(chosen) if isinstance(chosen, list | tuple) else 1
        return ModelSize(
            decoder=_count(decoder) - embeddings,
            matrices=sum(
                part.weight.numel() for part in decoder.modules() if isinstance(part, nn.Linear)
            ),
            vision=vision,
            others=_count(model) - _count(decoder) - vision + embeddings,
            layers={
                path: (linear.in_features, linear.out_features)
                for path, linear in adapted_layers(model).items()
            },
            projector={
                prefix + name: tuple(value.shape)
                for prefix, part in parts
                for name, value in part.named_parameters()
            },
            depth=text.num_hidden_layers,
            hidden=text.hidden_size,
            intermediate=max(widths(text)),
            heads=text.num_attention_heads,
            vocabulary=text.vocab_size,
            stored=(config.dtype or torch.float32).itemsize,
            image_tokens=tokens,
            patches=patches,
            features=patches * _width(config.vision_config) * levels * len(parts),
        )


def _width(vision: Any) -> int:
    """The width of a tower's features: Qwen2-VL's `hidden_size` is that of what its merger makes of
    them."""
    return vision.embed_dim if vision.model_type == "qwen2_vl_vision" else vision.hidden_size


def _config(folder: str | Path, clip: str | Path) -> Any:
    if llava_original.recognize(folder):
        return llava_original.configure(Path(folder), clip)[0]
    return pretrained(AutoConfig, folder, local_files_only=True)


def _image_tokens(
    folder: str | Path, clip: str | Path, config: Any, picture: tuple[int, int]
) -> tuple[int, int]:
    """An image's tokens and patches: LLaVA-1.5's are fixed, others' depend on the image."""
    if takes_squares(config):
        patches = (config.vision_config.image_size // config.vision_config.patch_size) ** 2
        return patches, patches
    try:
        counter = TokenCounter(folder, clip)
    except FcitError:
        return 0, 0
    return counter.image(picture)[1:]


class TokenCounter:
    """Counts tokens with a model's processor.

    clip: see `loading.load`; template: see `chat.Chat`; local: use only files on this disk. Raises
    FcitError where there is no processor.
    """

    def __init__(
        self, folder: str | Path, clip: str | Path = "", template: str = "", local: bool = True
    ):
        self.template = template
        self.config: Any
        if llava_original.recognize(folder):
            with faults(folder):
                self.config, self.processor = llava_original.configure(Path(folder), clip)
        else:
            self.config = pretrained(AutoConfig, folder, local_files_only=local)
            self.processor = load_processor(folder, local=local)

    def image(self, size: tuple[int, int]) -> tuple[str, int, int]:
        """Of an image of this width and height: the text that stands for it in a prompt, that text's
        tokens, and the vision tower's patches. Raises FcitError where the processor refuses it."""
        prepared, tokens = prepare_blank(self.processor, size)
        return prepared.text, tokens, self._patches(prepared.inputs["pixel_values"].shape, tokens)

    def _patches(self, shape: tuple[int, ...], tokens: int) -> int:
        """Pixels are a row for each patch, or tiles [..., channels, height, width].

        A convolutional tower has no patches: each place of its last map is a token of the image.
        """
        if len(shape) == 2:
            return shape[0]
        side: Any = getattr(self.config.vision_config, "patch_size", None)
        if side is None:
            return tokens
        height, width = (side, side) if isinstance(side, int) else side
        return prod(shape[:-3]) * (shape[-2] // height) * (shape[-1] // width)

    def readers(self, max_length: int) -> tuple[Chat, ImageReader]:
        """What reads conversations and images for the model, as in `lmm.LMM`."""
        chat = Chat(self.processor, max_length, self.config, self.template)
        return chat, ImageReader(self.processor, takes_squares(self.config))

    def lengths(
        self, samples: Sequence[Sample], images: Sequence[str], max_length: int
    ) -> list[tuple[int, int]]:
        """Each training sample's tokens, and those of its answers. images: what stands for each one's."""
        chat, _ = self.readers(max_length)
        rows = [chat.conversation(*pair) for pair in zip(samples, images, strict=True)]
        return [(len(ids), sum(label != -100 for label in labels)) for ids, labels in rows]


def encoder_size(folder: str | Path, kind: str = "text", local: bool = True) -> tuple[int, int]:
    """The width of an identity encoder's tokens, and its number of parameters.

    kind: of the tokens asked for. local: look at this disk only. Raises FcitError where its configuration
    cannot be read or is none that is understood, or where it makes no such tokens.
    """
    config = pretrained(AutoConfig, folder, "identity", local_files_only=local)
    with faults(folder, "identity", ()):
        found = encoding(folder, config, local)
        if refusal := found.refusal(kind):
            raise FcitError(f"[model] identity: {folder} {refusal}")
        with torch.device("meta"):
            model = AutoModel.from_config(config)
        return found.width(kind), _count(model)


def _count(part: Any) -> int:
    return sum(value.numel() for value in part.parameters())
