"""A large multimodal model with subspaces: answers instructions about images, and learns from them."""

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, nullcontext
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from fcit.models.batch import TYPES, Batch, add_image_tokens, collate, known_arguments, token_types
from fcit.models.chat import Chat, Completion
from fcit.models.checkpointing import checkpointed
from fcit.models.device import keep_memory, release_memory
from fcit.models.features import FeatureCache, ImageFeatures, fingerprint
from fcit.models.last_layer import last_mlp, last_position_only
from fcit.models.loading import load
from fcit.models.logits import add_end, greedy, logit_cap
from fcit.models.processors import ImageReader, takes_squares
from fcit.models.subspace import Subspaces, adapted_layers
from fcit.models.vision import Embeds, Vision, mix
from fcit.types import PROJECTOR, FcitError, Gate, Sample, State, Weights
from fcit.weights import LOW_A, REST, split_prefix, whole_projector

GRID = "image_grid_thw"
"""The name of an image's grid in families that place image tokens in two dimensions."""


class LMM:
    """One base model in one process; adapters, projectors, gates and prompts are swapped in and out.

    It is the `methods.model.Model` of methods. `checkpointing` makes training take less memory and more
    time, with the same numbers. quantize, device_map, clip: see `loading.load`; template: `chat.Chat`.
    """

    def __init__(
        self,
        folder: str | Path,
        device: str = "cpu",
        dtype: torch.dtype = torch.float32,
        cache: Path | None = None,
        max_length: int = 2048,
        *,
        quantize: str = "none",
        device_map: str = "",
        template: str = "",
        clip: str | Path = "",
    ):
        self.model, self.processor = load(folder, device, dtype, quantize, device_map, clip)
        self.parameters = self.model.num_parameters()
        self.vision = Vision(self.model)
        self.device = self.model.get_input_embeddings().weight.device
        keep_memory(self.device.type, self.parameters)
        self.tokenizer = self.processor.tokenizer
        config = self.model.config
        self.chat = Chat(self.processor, max_length, config, template)
        add_end(self.model.generation_config, self.tokenizer, self.chat.end)
        self.image_id = self.chat.image_id
        self.images = ImageReader(self.processor, takes_squares(config))
        self.subspaces = Subspaces(self.model, adapted_layers(self.model))
        self._cap = logit_cap(self.model)
        self._last_mlp = last_mlp(self.model, self.subspaces.layers)
        self.layers = list(self.subspaces.layers)
        """The paths of the adapted projections, from the language model's first layer to its last."""
        self.blank = self.subspaces.blank
        self.checkpointing = False
        base = {name: value.detach().clone() for name, value in self.vision.weights().items()}
        self.base_projector: Weights = {name: value.cpu().float() for name, value in base.items()}
        self._base, self.projectors, self._scale = base, [base], 1.0
        self._arguments = known_arguments(self.model)
        self.isolated = False
        self.extra = nn.ModuleDict()
        self.prompts: Callable[[Tensor], Tensor] | None = None
        self.cache = FeatureCache(fingerprint(self.model, self.processor), cache)

    @property
    def gate(self) -> Gate:
        """The weight of each block."""
        return self.subspaces.control.gate

    @gate.setter
    def gate(self, value: Gate) -> None:
        self.subspaces.control.gate = value

    def receive(
        self,
        state: State,
        scale: float,
        train: Sequence[str] = (),
        train_projector: bool = False,
        train_down: bool = True,
    ) -> None:
        """Replace adapters and projector by a state's; those in `train` can then learn (`train_down`:
        their factors A too)."""
        pairs = {name: split_prefix(weights, PROJECTOR) for name, weights in state.adapters.items()}
        blocks = {name: block for name, (block, _) in pairs.items()}
        self.subspaces.load(blocks, scale, train, train_down, state.extras.get(REST))
        per_block = [own for name in self.subspaces.names if (own := pairs[name][1])]
        self.isolated, self._scale = bool(per_block), scale
        chosen = per_block or [self.base_projector if state.projector is None else state.projector]
        dtype = torch.float32 if train_projector else self.model.dtype
        self.projectors = [
            {name: weights[name].to(self.device, dtype, copy=True) for name in sorted(weights)}
            for weights in chosen
        ]
        last = self.projectors[-1] if train_projector else {}
        learning: list[Any] = [value.requires_grad_(True) for value in last.values()]
        low_rank = any(name.endswith(LOW_A) for name in last)
        self._learning = (learning, []) if low_rank else ([], learning)  # with blocks, or apart
        self.gate, self.prompts, self.extra = None, None, nn.ModuleDict()
        self.subspaces.control.noise = None

    def adapter(self, name: str) -> Weights:
        """One adapter as it now stands: its block, and its projector where it has its own."""
        return self.subspaces.block(name) | {
            key: value.detach().cpu().float() for key, value in self._own_projector(name).items()
        }

    def live(self, name: str) -> Weights:
        """The tensors of `adapter` in place, gradients and all, for a penalty on them."""
        return self.subspaces.live(name) | self._own_projector(name)

    def gradient(self, name: str, loss: Tensor) -> Weights:
        """The gradient of a loss with respect to the tensors of `live`; the adapter must learn."""
        own = self._own_projector(name)
        learning = [*self.subspaces.trained(), *own.values()]
        for value, gradient in zip(learning, torch.autograd.grad(loss, learning), strict=True):
            value.grad = gradient
        gradients = {key: value.grad for key, value in own.items() if value.grad is not None}
        return self.subspaces.live(name, gradients=True) | gradients

    @contextmanager
    def instead(self, gate: Gate, projector: Weights | None = None) -> Iterator[None]:
        """Inside, the model is a teacher with this gate and projector (default: its own): no dropout, no
        gradients."""
        control, own = self.subspaces.control, self.projectors
        kept, dtype = (control.gate, control.noise), next(iter(own[0].values())).dtype
        if projector is not None:
            self.projectors = [{k: projector[k].to(self.device, dtype) for k in sorted(projector)}]
        control.gate, control.noise = gate, None
        try:
            with torch.no_grad():
                yield
        finally:
            self.projectors, (control.gate, control.noise) = own, kept

    def _own_projector(self, name: str) -> Weights:
        if not self.isolated:
            return {}
        own = self.projectors[self.subspaces.names.index(name)]
        return {PROJECTOR + key: value for key, value in own.items()}

    def shared_projector(self) -> Weights:
        """The projector as it now stands, on the CPU."""
        return {key: value.detach().cpu().float() for key, value in self.projectors[0].items()}

    def adapter_parameters(self) -> list[nn.Parameter]:
        """What learns at the adapters' learning rate: the trained blocks and a method's own modules."""
        return [*self.subspaces.trained(), *self._learning[0], *self.extra.parameters()]

    def projector_parameters(self) -> list[Tensor]:
        """What learns at the projector's learning rate: none of a projector's LoRA."""
        return self._learning[1]

    def projector(self, at: int) -> Weights:
        """The whole projector of a block that has its own, or (0) of all."""
        return whole_projector(self._base, self.projectors[at], self._scale)

    def features(self, images: Sequence[Path]) -> list[ImageFeatures]:
        """Frozen features of image files, each computed once, in batches of a fixed size."""
        rows = self.images.frozen(images, self.vision, self.cache)
        return [ImageFeatures.from_tensors(tensors).to(self.device) for tensors in rows]

    def encode_ahead(self, images: Sequence[Path]) -> None:
        """Compute features that are needed soon: a tower encodes several images as fast as one."""
        self.images.frozen(images, self.vision, self.cache)

    def forget(self) -> None:
        """Forget the images and texts of earlier calls."""
        self.cache.forget()
        self.chat.forget()
        self.images.forget()

    def batch(self, samples: Sequence[Sample], images: Sequence[Path]) -> Batch:
        """Training samples as one right-padded batch; only the assistant's words carry loss."""
        features = self.features(images)
        pairs = zip(samples, features, strict=True)
        rows = [self.chat.row(sample, image.text) for sample, image in pairs]
        return collate(rows, self.tokenizer.pad_token_id, features, self.device)

    def logits(self, batch: Batch) -> tuple[Tensor, Tensor]:
        """Logits [n, vocabulary] at the n answer tokens of a batch, and those tokens [n]."""
        inputs, labels = self._inputs(batch)
        again = checkpointed(self.model, self.subspaces.control)
        with again if self.checkpointing else nullcontext():
            hidden = self.model.base_model(**inputs, use_cache=False).last_hidden_state
        labels = labels.to(hidden.device)  # a model spread over GPUs ends on another than it starts
        answered = labels[:, 1:] != -100
        head = self.model.get_output_embeddings()
        logits = head(hidden[:, :-1][answered]).float()
        if self._cap:
            logits = self._cap * torch.tanh(logits / self._cap)
        return logits, labels[:, 1:][answered].to(logits.device)

    def loss(self, batch: Batch) -> Tensor:
        """Mean cross-entropy over the batch's answer tokens."""
        return F.cross_entropy(*self.logits(batch))

    @torch.no_grad()
    def generate(
        self, prompts: Sequence[str], images: Sequence[Path], max_new_tokens: int = 128
    ) -> list[str]:
        """Greedy answers to one prompt about one image each, as one left-padded batch."""
        completions = self.complete(prompts, images, [max_new_tokens] * len(prompts))
        return [completion.text for completion in completions]

    @torch.no_grad()
    def complete(
        self,
        prompts: Sequence[str],
        images: Sequence[Path],
        limits: Sequence[int],
        wanted: Callable[[], bool] | None = None,
    ) -> list[Completion]:
        """As `generate`, with a limit of tokens for each answer and its counts of tokens.

        `wanted` is called after every token; once it returns False, answers end where they are.
        """
        features = self.features(images)
        encoded = self.chat.encode(prompts, [image.text for image in features])
        ids, mask = (encoded[key].to(self.device) for key in ("input_ids", "attention_mask"))
        inputs, _ = self._inputs(Batch(ids, mask, torch.full_like(ids, -100), tuple(features)))
        # a gate that is computed from a layer's input may look at all positions of it
        with last_position_only(None if callable(self.gate) else self._last_mlp):
            rows, ends = greedy(self.model, self.tokenizer, inputs, max(limits), wanted)
        release_memory(self.device.type, self.parameters)
        lengths = mask.sum(dim=1).tolist()
        return [
            self.chat.completion(row, length, limit, ends)
            for row, length, limit in zip(rows, lengths, limits, strict=True)
        ]

    @torch.no_grad()
    def base_embeds(self, batch: Batch) -> Tensor:
        """Image embeddings by the base model's own projector, which never learns: [batch, tokens, width],
        or their means [batch, 1, width] where images have different numbers of tokens."""
        rows = [levels[0] for levels in self.vision.project(batch.images, self._base)]
        if len({len(row) for row in rows}) > 1:
            rows = [row.mean(dim=0, keepdim=True) for row in rows]
        return torch.stack(rows)

    def project(self, images: Sequence[ImageFeatures]) -> list[Embeds]:
        """Image embeddings from frozen features; isolated projectors are mixed by the gate."""
        parts = [
            self.vision.project(images, self.projector(k)) for k in range(len(self.projectors))
        ]
        if len(parts) == 1:
            return parts[0]
        gate = self.gate if isinstance(self.gate, Tensor) else None
        if gate is None:
            shares = torch.full((len(images), len(parts)), 1 / len(parts), device=self.device)
        else:
            shares = (gate / gate.sum(-1, keepdim=True)).expand(len(images), -1)
        return mix(parts, shares)

    def _inputs(self, batch: Batch) -> tuple[dict[str, Any], Tensor]:
        """The arguments of transformers' forward, image embeddings among them, and the labels."""
        embeds = self.project(batch.images)
        ids, mask, labels = batch.ids, batch.mask, batch.labels
        grids = [image.inputs[GRID] for image in batch.images if GRID in image.inputs]
        for image, levels in zip(batch.images, embeds, strict=True):
            # counting in `ids` would stop a GPU
            count = image.text.count(self.chat.placeholders[-1])
            if count != len(levels[0]):
                raise FcitError(
                    f"[model] path: its processor writes {count} image tokens where the model makes "
                    f"{len(levels[0])}; processor_config.json and config.json must be of one model"
                )
        if self.prompts is not None:
            if grids:
                raise FcitError(
                    f"method: its prompts are put before the image, but {type(self.model).__name__} "
                    "places image tokens by their grid; choose another method or model"
                )
            before = self.prompts(self.base_embeds(batch)).to(self.model.dtype)
            embeds = [[torch.cat([p, e[0]])] for p, e in zip(before, embeds, strict=True)]
            ids, mask, labels = add_image_tokens(batch, before.shape[1], self.image_id)
        embeds = [[level.to(self.model.dtype) for level in levels] for levels in embeds]
        inputs = {
            "input_ids": ids,
            "attention_mask": mask,
            "mm_encoder_outputs": self.vision.outputs(batch.images, embeds),
        }
        if GRID in self._arguments and grids:
            inputs[GRID] = torch.cat(grids)
        for name in TYPES:
            if name in self._arguments:
                inputs[name] = token_types(ids, labels, self.image_id, self.model.config.model_type)
        return inputs, labels
