"""A large multimodal model with subspaces: answers instructions about images, and learns from them."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from transformers.utils import logging

from fcit.models.batch import Batch, collate, make_room
from fcit.models.chat import Chat, Completion
from fcit.models.checkpointing import checkpointed, prepare
from fcit.models.decoding import greedy
from fcit.models.device import give_back
from fcit.models.features import FeatureCache, fingerprint
from fcit.models.images import read
from fcit.models.loading import load
from fcit.models.pictures import Pictures
from fcit.models.processors import Prepared
from fcit.models.subspace import Gate, Subspaces, projections
from fcit.models.vision import Embeds, Seen, Vision, mix
from fcit.types import PROJECTOR, FcitError, Sample, State, Weights
from fcit.weights import parted

logging.disable_progress_bar()  # loading a few files is not worth a bar of its own

GRID = "image_grid_thw"
"""How families that place image tokens in two dimensions call an image's grid."""


class LMM:
    """One base model in one process; adapters, projectors, gates and prompts are swapped in and out.

    `extra` holds a method's own modules (their parameters train with the adapters). `prompts`, when
    set, is given `base_embeds` and gives embeddings [batch, n, width] that stand before the image's.
    `gate` is a `subspace.Gate`. `quantize`, `device_map`, `clip`: see `loading.load`; `template`: see
    `chat.Chat`.
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
        self.vision = Vision(self.model, self.processor)
        self.device = self.model.get_input_embeddings().weight.device
        self.tokenizer = self.processor.tokenizer
        config = self.model.config
        self.image_id = int(config.image_token_id)
        self.chat = Chat(self.processor, max_length, self.image_id, template, config.model_type)
        self.pictures = Pictures(self.processor, config.model_type == "llava")
        decoder, sizes = self.model.get_decoder(), config.get_text_config()
        root = next(name for name, part in self.model.named_modules() if part is decoder)
        found = projections(decoder, sizes.hidden_size, sizes.intermediate_size)
        self.subspaces = Subspaces(self.model, [f"{root}.{path}" for path in found])
        self._again: list[nn.Module] = []
        base = {name: value.detach().clone() for name, value in self.vision.weights().items()}
        self.base_projector: Weights = {name: value.cpu().float() for name, value in base.items()}
        self._base, self.projectors = base, [base]
        self._takes = set(inspect.signature(self.model.base_model.forward).parameters)
        self.isolated = False
        self.extra = nn.ModuleDict()
        self.prompts: Callable[[Tensor], Tensor] | None = None
        self.cache = FeatureCache(fingerprint(self.model, self.processor), cache)

    @property
    def gate(self):
        """How much each block gives (see `subspace.Gate`)."""
        return self.subspaces.control.gate

    @gate.setter
    def gate(self, value) -> None:
        self.subspaces.control.gate = value

    @property
    def layers(self) -> list[str]:
        """The paths of the adapted projections, from the language model's first layer to its last."""
        return list(self.subspaces.layers)

    def receive(
        self,
        state: State,
        scale: float,
        train: Sequence[str] = (),
        train_projector: bool = False,
    ) -> None:
        """Put a state's adapters and projector in place; those in `train` can then learn."""
        blocks, isolated = {}, {}
        for name, weights in state.adapters.items():
            blocks[name], isolated[name] = parted(weights)
        self.subspaces.load(blocks, scale, train)
        per_block = [isolated[name] for name in self.subspaces.names if isolated[name]]
        self.isolated = bool(per_block)
        chosen = per_block or [state.extras.get("projector", self.base_projector)]
        dtype = torch.float32 if train_projector else self.model.dtype
        self.projectors = [
            {name: one[name].to(self.device, dtype, copy=True) for name in sorted(one)}
            for one in chosen
        ]
        if train_projector:
            for value in self.projectors[-1].values():
                value.requires_grad_(True)
        self.gate, self.prompts, self.extra = None, None, nn.ModuleDict()
        self.subspaces.control.noise = None

    def adapter(self, name: str) -> Weights:
        """One adapter as it now stands: its block, and its projector where it has its own."""
        return self.subspaces.block(name) | {
            key: value.detach().cpu().float() for key, value in self._own_projector(name).items()
        }

    def live(self, name: str) -> Weights:
        """The tensors of `adapter` in place, gradients and all: what a penalty pulls at."""
        return self.subspaces.live(name) | self._own_projector(name)

    def gradient(self, name: str, loss: Tensor) -> Weights:
        """The gradient of a loss by the tensors of `live`; the adapter must be one that learns."""
        own = self._own_projector(name)
        learning = [*self.subspaces.trained(), *own.values()]
        for value, slope in zip(learning, torch.autograd.grad(loss, learning), strict=True):
            value.grad = slope
        slopes = {key: value.grad for key, value in own.items() if value.grad is not None}
        return self.subspaces.gradient(name) | slopes

    @contextmanager
    def instead(self, gate: Gate, projector: Weights | None = None) -> Iterator[None]:
        """For a while another model, to learn from: this gate, this projector if one is given, no
        dropout and no gradients."""
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
        """What learns at the adapters' rate: the trained blocks and a method's own modules."""
        return [*self.subspaces.trained(), *self.extra.parameters()]

    def projector_parameters(self) -> list[Tensor]:
        """What learns at the projector's rate."""
        return [value for one in self.projectors for value in one.values() if value.requires_grad]

    def checkpoint(self, on: bool) -> None:
        """Whether the language model's layers keep no activations while training, but are computed
        again for the gradient: the same numbers in less memory and more time."""
        self._again = prepare(self.model, self.subspaces.control) if on else []

    def features(self, images: Sequence[Path]) -> list[Seen]:
        """Image files as they come to the projector, each computed once.

        One image is encoded at a time, so that a feature never depends on its neighbours; the next one is
        opened and prepared meanwhile.
        """
        rows = []
        for path, key, made in self.pictures.opened(images, self.cache):
            found = self.cache.get(key, partial(self._see, path, made))
            rows.append(Seen.of(found).to(self.device))
        return rows

    def _see(self, path: Path, made: Prepared | None) -> Weights:
        # none was made, but the features were forgotten since
        return self.vision.see(*(made or self.pictures.prepared(path, read(path)))).flat()

    def batch(self, samples: Sequence[Sample], images: Sequence[Path]) -> Batch:
        """Training samples as one right-padded batch; only the assistant's words carry loss."""
        seen = self.features(images)
        rows = [self.chat.turns(s, one.text) for s, one in zip(samples, seen, strict=True)]
        return collate(rows, self.tokenizer.pad_token_id or 0, seen, self.device)

    def logits(self, batch: Batch) -> tuple[Tensor, Tensor]:
        """Logits [n, vocabulary] at the n answer tokens of a batch, and those tokens [n]."""
        inputs, labels = self._inputs(batch)
        with checkpointed(self._again):
            hidden = self.model.base_model(**inputs, use_cache=False).last_hidden_state
        labels = labels.to(hidden.device)  # a model spread over GPUs ends on another than it starts
        place = labels[:, 1:] != -100
        head = self.model.get_output_embeddings()
        words = head(hidden[:, :-1][place]).float()
        return words, labels[:, 1:][place].to(words.device)

    def loss(self, batch: Batch) -> Tensor:
        """Mean cross-entropy over the batch's answer tokens."""
        return F.cross_entropy(*self.logits(batch))

    @torch.no_grad()
    def generate(
        self, prompts: Sequence[str], images: Sequence[Path], max_new_tokens: int = 128
    ) -> list[str]:
        """Greedy answers to one prompt about one image each, as one left-padded batch."""
        limits = [max_new_tokens] * len(prompts)
        return [one.text for one in self.complete(prompts, images, limits)]

    @torch.no_grad()
    def complete(
        self,
        prompts: Sequence[str],
        images: Sequence[Path],
        limits: Sequence[int],
        wanted: Callable[[], bool] | None = None,
    ) -> list[Completion]:
        """The same, each answer with its own limit and its counts of tokens; cut short as soon as
        `wanted`, asked at every token, says no."""
        seen = self.features(images)
        asked = zip(prompts, seen, strict=True)
        encoded = self.chat.ids([self.chat.question(text, one.text) for text, one in asked])
        ids, mask = (encoded[key].to(self.device) for key in ("input_ids", "attention_mask"))
        inputs, _ = self._inputs(Batch(ids, mask, torch.full_like(ids, -100), tuple(seen)))
        rows, ends = greedy(self.model, self.tokenizer, inputs, max(limits), wanted)
        give_back(self.device.type, self.parameters)
        asked = mask.sum(dim=1).tolist()
        return [
            self.chat.completion(row, question, limit, ends)
            for row, question, limit in zip(rows, asked, limits, strict=True)
        ]

    @torch.no_grad()
    def base_embeds(self, batch: Batch) -> Tensor:
        """Image embeddings by the projector as it came, which never learns: [batch, tokens, width], or
        their means [batch, 1, width] where images have different numbers of tokens."""
        rows = [one[0] for one in self.vision.embed(batch.images, self._base)]
        if len({len(row) for row in rows}) > 1:
            rows = [row.mean(dim=0, keepdim=True) for row in rows]
        return torch.stack(rows)

    def project(self, images: Sequence[Seen]) -> list[Embeds]:
        """Image embeddings from frozen features; isolated projectors are mixed by the gate."""
        parts = [self.vision.embed(images, one) for one in self.projectors]
        if len(parts) == 1:
            return parts[0]
        gate = self.gate if isinstance(self.gate, Tensor) else None
        if gate is None:
            shares = torch.full((len(images), len(parts)), 1 / len(parts), device=self.device)
        else:
            shares = (gate / gate.sum(-1, keepdim=True)).expand(len(images), -1)
        return mix(parts, shares)

    def _inputs(self, batch: Batch) -> tuple[dict[str, Any], Tensor]:
        """What transformers' forward takes, image embeddings among it, and the labels."""
        embeds = self.project(batch.images)
        ids, mask, labels = batch.ids, batch.mask, batch.labels
        grids = [one.inputs[GRID] for one in batch.images if GRID in one.inputs]
        if self.prompts is not None:
            if grids:
                raise FcitError(
                    f"method: its prompts stand before the image, but {type(self.model).__name__} "
                    "places image tokens by their grid; take another method or model"
                )
            before = self.prompts(self.base_embeds(batch)).to(self.model.dtype)
            embeds = [[torch.cat([p, e[0]])] for p, e in zip(before, embeds, strict=True)]
            ids, mask, labels = make_room(batch, before.shape[1], self.image_id)
        embeds = [[part.to(self.model.dtype) for part in one] for one in embeds]
        inputs = {
            "input_ids": ids,
            "attention_mask": mask,
            "mm_encoder_outputs": self.vision.outputs(batch.images, embeds),
        }
        if GRID in self._takes and grids:
            inputs[GRID] = torch.cat(grids)
        for name in ("mm_token_type_ids", "token_type_ids"):
            if name in self._takes:
                inputs[name] = self._types(ids, labels)
        return inputs, labels

    def _types(self, ids: Tensor, labels: Tensor) -> Tensor:
        """Which tokens are an image's; for PaliGemma, which are the answer and all after it."""
        if self.model.config.model_type == "paligemma":
            return ((labels != -100).cumsum(dim=1) > 0).long()
        return (ids == self.image_id).long()
