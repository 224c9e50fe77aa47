"""A large multimodal model with subspaces: answers instructions about images, and learns from them."""

from __future__ import annotations

import io
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.func import functional_call
from torch.nn import functional as F
from transformers import AutoModelForImageTextToText, AutoProcessor, GenerationConfig
from transformers.modeling_outputs import BaseModelOutputWithPooling
from transformers.utils import logging

from fcit.models.batch import Batch, collate, make_room
from fcit.models.chat import Chat, Completion
from fcit.models.features import FeatureCache, fingerprint
from fcit.models.images import open_image
from fcit.models.subspace import Gate, Subspaces, projections
from fcit.types import PROJECTOR, FcitError, Sample, State, Weights

logging.disable_progress_bar()  # loading a few files is not worth a bar of its own


class LMM:
    """One base model in one process; adapters, projectors, gates and prompts are swapped in and out.

    `extra` holds a method's own modules (their parameters train with the adapters). `prompts`, when
    set, is given `base_embeds` and gives embeddings [batch, n, width] that stand before the image's.
    `gate` is a `subspace.Gate`.
    """

    def __init__(
        self,
        folder: str | Path,
        device: str = "cpu",
        dtype: torch.dtype = torch.float32,
        cache: Path | None = None,
        max_length: int = 2048,
    ):
        self.device = torch.device(device)
        try:
            self.processor = AutoProcessor.from_pretrained(folder, backend="pil")
            # On a CPU, torch's fused attention is slow to differentiate.
            model: Any = AutoModelForImageTextToText.from_pretrained(
                folder,
                dtype=dtype,
                use_safetensors=True,
                attn_implementation="eager" if self.device.type == "cpu" else None,
            )
        except (OSError, ValueError, KeyError) as error:
            line = str(error).strip().splitlines()[0]
            raise FcitError(f"[model] path: {folder} does not load as an LMM: {line}") from None
        self.model: Any = model.to(self.device).requires_grad_(False).eval()
        self.tokenizer = self.processor.tokenizer
        self.chat = Chat(self.processor, max_length)
        self.image_id = int(self.model.config.image_token_id)
        decoder, sizes = self.model.get_decoder(), self.model.config.get_text_config()
        root = next(name for name, part in self.model.named_modules() if part is decoder)
        found = projections(decoder, sizes.hidden_size, sizes.intermediate_size)
        self.subspaces = Subspaces(self.model, [f"{root}.{path}" for path in found])
        self.projector = self._find_projector(decoder)
        base = {name: value.detach().clone() for name, value in self.projector.named_parameters()}
        self.base_projector: Weights = {name: value.cpu().float() for name, value in base.items()}
        self._base, self.projectors = base, [base]
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
            blocks[name] = {k: v for k, v in weights.items() if not k.startswith(PROJECTOR)}
            isolated[name] = {
                k[len(PROJECTOR) :]: v for k, v in weights.items() if k.startswith(PROJECTOR)
            }
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

    def features(self, images: Sequence[Path]) -> Tensor:
        """Frozen vision features of image files: [batch, tokens, width], each computed once.

        One image is encoded at a time, so that a feature never depends on its neighbours.
        """
        rows = []
        for path in images:
            try:
                data = path.read_bytes()
            except OSError as error:
                raise FcitError(f"{path}: image cannot be read: {error.strerror}") from None
            rows.append(self.cache.get(data, lambda d=data, p=path: self._encode(d, p)))
        return torch.stack(rows).to(self.device)

    def batch(self, samples: Sequence[Sample], images: Sequence[Path]) -> Batch:
        """Training samples as one right-padded batch; only the assistant's words carry loss."""
        features = self.features(images)
        rows = [self.chat.turns(sample, features.shape[1]) for sample in samples]
        return collate(rows, self.tokenizer.pad_token_id or 0, features)

    def logits(self, batch: Batch) -> tuple[Tensor, Tensor]:
        """Logits [n, vocabulary] at the n answer tokens of a batch, and those tokens [n]."""
        ids, mask, labels, images = self._with_images(batch)
        hidden = self.model.base_model(
            input_ids=ids, attention_mask=mask, mm_encoder_outputs=images, use_cache=False
        ).last_hidden_state
        place = labels[:, 1:] != -100
        head = self.model.get_output_embeddings()
        return head(hidden[:, :-1][place]).float(), labels[:, 1:][place]

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
        self, prompts: Sequence[str], images: Sequence[Path], limits: Sequence[int]
    ) -> list[Completion]:
        """The same, each answer with its own limit and its counts of tokens."""
        features = self.features(images)
        texts = [self.chat.question(text, features.shape[1]) for text in prompts]
        encoded = self.tokenizer(texts, padding=True, padding_side="left", return_tensors="pt").to(
            self.device
        )
        labels = torch.full_like(encoded["input_ids"], -100)
        batch = Batch(encoded["input_ids"], encoded["attention_mask"], labels, features)
        ids, mask, _, outputs = self._with_images(batch)
        ends = self.model.generation_config.eos_token_id or self.tokenizer.eos_token_id
        config = GenerationConfig(
            do_sample=False,
            max_new_tokens=max(limits),
            eos_token_id=ends,
            pad_token_id=self.tokenizer.pad_token_id or self.tokenizer.eos_token_id,
        )
        out = self.model.generate(
            input_ids=ids,
            attention_mask=mask,
            mm_encoder_outputs=outputs,
            generation_config=config,
        )
        stops = {ends} if isinstance(ends, int) else set(ends)
        rows, asked = out[:, ids.shape[1] :].tolist(), mask.sum(dim=1).tolist()
        return [
            self.chat.completion(row, question, limit, stops)
            for row, question, limit in zip(rows, asked, limits, strict=True)
        ]

    @torch.no_grad()
    def base_embeds(self, batch: Batch) -> Tensor:
        """Image embeddings [batch, tokens, width] by the projector as it came: they never learn."""
        features = batch.features.to(next(iter(self._base.values())).dtype)
        return functional_call(self.projector, self._base, (features,))

    def _project(self, features: Tensor) -> Tensor:
        """Image embeddings from frozen features; isolated projectors are mixed by the gate."""
        parts = [
            functional_call(self.projector, one, (features.to(next(iter(one.values())).dtype),))
            for one in self.projectors
        ]
        if len(parts) == 1:
            return parts[0]
        gate = self.gate if isinstance(self.gate, Tensor) else None
        if gate is None:
            return torch.stack(parts).mean(0)
        shares = gate / gate.sum(-1, keepdim=True)
        return torch.einsum("bk,kbtd->btd", shares.to(parts[0].dtype), torch.stack(parts))

    def _with_images(self, batch: Batch):
        """Ids, mask, labels, and the image embeddings in the form transformers takes them."""
        embeds = self._project(batch.features).to(self.model.dtype)
        ids, mask, labels = batch.ids, batch.mask, batch.labels
        if self.prompts is not None:
            before = self.prompts(self.base_embeds(batch))
            embeds = torch.cat([before.to(embeds.dtype), embeds], dim=1)
            ids, mask, labels = make_room(batch, before.shape[1], self.image_id)
        outputs = {"image": BaseModelOutputWithPooling(pooler_output=tuple(embeds))}  # type: ignore
        return ids, mask, labels, outputs

    @torch.no_grad()
    def _encode(self, data: bytes, path: Path) -> Tensor:
        pixels = self.processor.image_processor(
            open_image(io.BytesIO(data), path), return_tensors="pt"
        )["pixel_values"]
        seen: list[Tensor] = []
        hook = self.projector.register_forward_pre_hook(lambda _, inputs: seen.append(inputs[0]))
        try:
            self.model.base_model.get_image_features(
                pixel_values=pixels.to(self.device, self.model.dtype)
            )
        finally:
            hook.remove()
        return seen[0][0]

    def _find_projector(self, decoder: nn.Module) -> nn.Module:
        vision = self.model.get_encoder(modality="image")
        for part in self.model.base_model.children():
            if part not in (vision, decoder) and any(True for _ in part.parameters()):
                return part
        raise FcitError(f"no projector found in {type(self.model).__name__}")
