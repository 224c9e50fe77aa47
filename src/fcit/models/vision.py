"""Images in any family of models: what is frozen is computed once, the projector learns.

transformers gives every family one function from pixels to image embeddings, `get_image_features`, and
takes such embeddings back as `mm_encoder_outputs`. What reaches the projector is recorded there once
per image. From then on the projector alone runs, with whatever weights; what a family does after it
(tiles put together, new lines, windows put in order, features for deeper layers) is its own code
again, run over a vision tower whose layers are passed over.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor, nn
from torch.func import functional_call
from transformers.modeling_outputs import BaseModelOutputWithPooling

from fcit.types import FcitError, Weights

Embeds = list[Tensor]
"""An image's embeddings [n, width], and, in some families, more of the same shape for deeper layers."""


@dataclass(frozen=True)
class Seen:
    """One image as it comes to the projector.

    text: what stands for it in a prompt. parts: the input of each part of the projector. inputs: what
    the family's code takes beside pixels (grids, sizes, masks). pixels: the shape of the pixels.
    plain: the projector's output is already the embeddings. stacked: the model takes embeddings as
    one tensor, not as a list. skip: the vision tower's layers may be passed over.
    """

    text: str
    parts: tuple[Tensor, ...]
    inputs: dict[str, Tensor]
    pixels: tuple[int, ...]
    plain: bool = True
    stacked: bool = False
    skip: bool = True

    def to(self, device: torch.device) -> Seen:
        """The same, its tensors on a device."""
        inputs = {name: value.to(device) for name, value in self.inputs.items()}
        return replace(self, parts=tuple(part.to(device) for part in self.parts), inputs=inputs)

    def flat(self) -> Weights:
        """All of it as named tensors, for the cache."""
        form = [self.plain, self.stacked, self.skip]
        return {
            "text": torch.tensor(list(self.text.encode()), dtype=torch.uint8),
            "form": torch.tensor(form, dtype=torch.uint8),
            "pixels": torch.tensor(self.pixels),
            **{f"part.{at}": part.contiguous() for at, part in enumerate(self.parts)},
            **{f"input.{name}": value.contiguous() for name, value in self.inputs.items()},
        }

    @staticmethod
    def of(flat: Weights) -> Seen:
        """What `flat` was made of."""
        plain, stacked, skip = (bool(one) for one in flat["form"].tolist())
        count = sum(name.startswith("part.") for name in flat)
        return Seen(
            flat["text"].numpy().tobytes().decode(),
            tuple(flat[f"part.{at}"] for at in range(count)),
            {name[6:]: value for name, value in flat.items() if name.startswith("input.")},
            tuple(flat["pixels"].tolist()),
            plain,
            stacked,
            skip,
        )


class Vision:
    """The way of images through one model. Raises FcitError where a model has no such way."""

    def __init__(self, model: Any, processor: Any):
        self.model, self.processor = model, processor
        self.base = model.base_model
        takes = inspect.signature(self.base.forward).parameters
        if "mm_encoder_outputs" not in takes or not hasattr(self.base, "get_image_features"):
            raise FcitError(
                f"[model] path: {type(model).__name__} takes no image embeddings from outside; fcit "
                "trains models that do (docs/models.md)"
            )
        self.named = projector(model)
        self.layers = _longest(model.get_encoder(modality="image"))
        self.kind: type = BaseModelOutputWithPooling

    @property
    def device(self) -> torch.device:
        """Where the projector is."""
        return next(self.named[0][1].parameters()).device

    @property
    def places(self) -> dict[str, str]:
        """The path in the model of every part of the projector, and the prefix of its weights' names."""
        modules = list(self.model.named_modules())
        return {path: prefix for prefix, part in self.named for path, one in modules if one is part}

    def weights(self) -> Weights:
        """The projector's parameters, in place."""
        return {
            prefix + name: value
            for prefix, part in self.named
            for name, value in part.named_parameters()
        }

    @torch.no_grad()
    def see(self, text: str, made: dict[str, Any]) -> Seen:
        """One image, as `processors.prepared` made it, through the frozen tower."""
        device, dtype = self.device, self.model.dtype
        takes = inspect.signature(self.base.get_image_features).parameters
        inputs = {
            name: torch.as_tensor(value, device=device)
            for name, value in made.items()
            if name in takes and name != "pixel_values"
        }
        pixels = torch.as_tensor(made["pixel_values"]).to(device, dtype)
        calls: dict[nn.Module, list[tuple[Tensor, Tensor]]] = {part: [] for _, part in self.named}

        def record(part: nn.Module, args: Any, output: Tensor) -> None:
            calls[part].append((args[0], output))

        hooks = [part.register_forward_hook(record) for part in calls]
        try:
            output = self.base.get_image_features(pixel_values=pixels, **inputs, return_dict=True)
        finally:
            for hook in hooks:
                hook.remove()
        if any(len(made) != 1 for made in calls.values()):
            raise FcitError(
                f"{type(self.model).__name__}: its projector does not run once per image"
            )
        seen, given = zip(*(made[0] for made in calls.values()), strict=True)
        stacked = isinstance(output.pooler_output, Tensor)
        whole = _whole(output.pooler_output)
        plain = len(given) == 1 and torch.equal(given[0].reshape(-1, whole.shape[-1]), whole)
        one = Seen(text, seen, inputs, tuple(pixels.shape), plain, stacked)
        return one if plain else self._split(one, given, whole)

    def embed(self, images: Sequence[Seen], weights: Weights) -> list[Embeds]:
        """Embeddings of images (on the model's device) by a projector with these weights."""
        made = [
            self._run(part, prefix, weights, [one.parts[at] for one in images])
            for at, (prefix, part) in enumerate(self.named)
        ]
        return [
            [outs[0].flatten(0, -2)] if one.plain else self._after(one, outs)
            for one, *outs in zip(images, *made, strict=True)
        ]

    def outputs(self, images: Sequence[Seen], embeds: Sequence[Embeds]) -> dict[str, Any]:
        """Embeddings in the form in which transformers takes them."""
        pooled: Any = tuple(one[0] for one in embeds)
        if images[0].stacked:
            pooled = torch.cat(pooled)[None]
        deeper = {
            "deepstack_features": [
                list(level) for level in zip(*(e[1:] for e in embeds), strict=True)
            ]
        }
        given = deeper if len(embeds[0]) > 1 else {}
        return {"image": self.kind(pooler_output=pooled, **given)}

    def _run(
        self, part: nn.Module, prefix: str, weights: Weights, inputs: Sequence[Tensor]
    ) -> list[Tensor]:
        """One part's output for each image: in one call where their shapes allow."""
        own = {k[len(prefix) :]: v for k, v in weights.items() if k.startswith(prefix)}
        dtype = next(iter(own.values())).dtype
        if len({one.shape[1:] for one in inputs}) > 1:
            return [functional_call(part, own, (one.to(dtype),)) for one in inputs]
        rows = [len(one) for one in inputs]
        output = functional_call(part, own, (torch.cat(list(inputs)).to(dtype),))
        return list(output.split([count * len(output) // sum(rows) for count in rows]))

    def _after(self, one: Seen, given: Sequence[Tensor]) -> Embeds:
        """What the family makes of its projector's outputs for an image."""
        device, dtype = given[0].device, self.model.dtype
        # Ones, because some families drop tiles that are all zero.
        pixels = torch.ones((), device=device, dtype=dtype).expand(one.pixels)
        with ExitStack() as stack:
            for layer in self.layers if one.skip else ():
                stack.enter_context(_instead(layer, _pass))
            for (_, part), value in zip(self.named, given, strict=True):
                stack.enter_context(_instead(part, lambda *_, v=value, **__: v))
            output = self.base.get_image_features(
                pixel_values=pixels, **one.inputs, return_dict=True
            )
        self.kind = type(output)
        deeper = getattr(output, "deepstack_features", None) or ()
        return [_whole(output.pooler_output), *(_whole(level) for level in deeper)]

    def _split(self, one: Seen, given: Sequence[Tensor], whole: Tensor) -> Seen:
        """The image as `embed` can use it: the tower's layers passed over if that changes nothing."""
        for skip in (True, False):
            tried = replace(one, skip=skip)
            try:
                again = self._after(tried, given)[0]
            except (RuntimeError, TypeError, ValueError, IndexError):
                continue
            if again.shape == whole.shape and torch.equal(again, whole):
                return tried
        raise FcitError(
            f"[model] path: what {type(self.model).__name__} does after its projector depends on more "
            "than the projector's output; fcit cannot train it"
        )


def mix(parts: Sequence[Sequence[Embeds]], shares: Tensor) -> list[Embeds]:
    """Embeddings of the same images by K projectors, mixed by each image's shares [batch, K]."""
    levels = [[list(level) for level in zip(*part, strict=True)] for part in parts]
    mixed = []
    for rows in zip(*levels, strict=True):
        weights = shares.to(rows[0][0].dtype)
        if len({len(row) for row in rows[0]}) == 1:
            stacked = torch.stack([torch.stack(row) for row in rows])
            mixed.append(list(torch.einsum("bk,kbtd->btd", weights, stacked)))
            continue
        images = zip(weights, *rows, strict=True)
        mixed.append([torch.einsum("k,ktd->td", w, torch.stack(row)) for w, *row in images])
    return [list(one) for one in zip(*mixed, strict=True)]


def projector(model: Any) -> list[tuple[str, nn.Module]]:
    """A model's projector, found by its place: (prefix of its weights' names, module).

    It is the module beside the vision tower and the language model; where there is none, those at the
    end of the tower that come out as wide as the language model.
    """
    decoder, vision = model.get_decoder(), model.get_encoder(modality="image")
    audio = model.get_encoder(modality="audio")
    for part in model.base_model.children():
        if part not in (vision, decoder, audio) and any(True for _ in part.parameters()):
            return [("", part)]
    width, layers = model.config.get_text_config().hidden_size, _longest(vision)
    found: list[tuple[str, nn.Module]] = []
    for name, child in vision.named_children():
        several = isinstance(child, nn.ModuleList)
        for number, part in child.named_children() if several else [("", child)]:
            linear = [one for one in part.modules() if isinstance(one, nn.Linear)]
            if part not in layers and linear and linear[-1].out_features == width:
                found.append((f"{name}.{number}." if several else f"{name}.", part))
    if not found:
        raise FcitError(f"[model] path: no projector found in {type(model).__name__}")
    return found


def _longest(module: nn.Module) -> list[nn.Module]:
    """A tower's layers: its longest list of modules."""
    lists = [list(one) for one in module.modules() if isinstance(one, nn.ModuleList)]
    return max(lists, key=len, default=[])


def _whole(value: Any) -> Tensor:
    """Embeddings of one image, given as a tensor or a list of them, as [n, width]."""
    tensor = value if isinstance(value, Tensor) else torch.cat([*value])
    return tensor.reshape(-1, tensor.shape[-1])


def _pass(*args: Any, **named: Any) -> Any:
    return args[0] if args else named["hidden_states"]


@contextmanager
def _instead(module: nn.Module, forward: Callable[..., Any]) -> Iterator[None]:
    """For a while a module does this."""
    kept = module.__dict__.get("forward")
    module.forward = forward
    try:
        yield
    finally:
        if kept is None:
            del module.__dict__["forward"]
        else:
            module.forward = kept
