"""Images in any family of models: frozen features are computed once, the projector learns.

transformers gives every family one function from pixels to image embeddings, `get_image_features`, and
takes such embeddings back as `mm_encoder_outputs`. What reaches the projector is recorded once per image.
From then on the projector alone runs, with whatever weights. What a family does after its projector
(joining tiles, adding line breaks, reordering windows, features for deeper layers) is done by its own
code, run again with the vision tower's layers skipped.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor, nn
from torch.func import functional_call
from transformers.modeling_outputs import BaseModelOutputWithPooling

from fcit.models.encoding import PIXELS, PIXELS_GPU, fixed_batch
from fcit.models.features import ImageFeatures
from fcit.models.processors import PreparedImage
from fcit.types import FcitError, Weights, one_line

Embeds = list[Tensor]
"""An image's embeddings [n, width], and in some families more of the same shape for deeper layers."""


class Vision:
    """The image side of one model. Raises FcitError where a model takes no image embeddings."""

    def __init__(self, model: Any):
        self.model, self.base = model, model.base_model
        parameters = inspect.signature(self.base.forward).parameters
        if "mm_encoder_outputs" not in parameters or not hasattr(self.base, "get_image_features"):
            raise FcitError(
                f"[model] path: {type(model).__name__} takes no image embeddings from outside; fcit "
                "trains models that do (docs/models.md)"
            )
        self._arguments = set(inspect.signature(self.base.get_image_features).parameters)
        self.projector = find_projector(model)
        self.layers = _layers(model.get_encoder(modality="image"))
        self.output_type: type = BaseModelOutputWithPooling
        self.alone = False
        """Whether every image runs by itself."""

    @property
    def device(self) -> torch.device:
        """Where the tower is."""
        return next(self.projector[0][1].parameters()).device

    @property
    def projector_paths(self) -> dict[str, str]:
        """The path in the model of every part of the projector -> the prefix of its weights' names."""
        prefixes = {part: prefix for prefix, part in self.projector}
        modules = self.model.named_modules()
        return {path: prefixes[module] for path, module in modules if module in prefixes}

    def weights(self) -> Weights:
        """The projector's parameters, in place."""
        return {
            prefix + name: value
            for prefix, part in self.projector
            for name, value in part.named_parameters()
        }

    def batch_size(self, image: PreparedImage) -> int:
        """How many images like this one run through the tower together: always exactly so many, so that
        their features depend on no other image. Images with more than pixels, or in parts, run alone."""
        pixels = image.inputs["pixel_values"]
        if self.alone or self._more(image) or len(pixels.shape) != 4 or len(pixels) != 1:
            return 1
        most = PIXELS if self.device.type == "cpu" else PIXELS_GPU
        return fixed_batch(pixels.shape[-1] * pixels.shape[-2], most)

    @torch.no_grad()
    def encode(self, images: Sequence[PreparedImage]) -> list[ImageFeatures]:
        """Images of one shape, at most `batch_size` of them, through the frozen tower."""
        size = self.batch_size(images[0])
        if size == 1:
            return [self._encode_alone(image) for image in images]
        rows = [*images, *[images[-1]] * (size - len(images))]
        parts, outputs, output = self._recorded([row.inputs["pixel_values"] for row in rows], {})
        each, stacked = list(output.pooler_output), isinstance(output.pooler_output, Tensor)
        split = all(len(x) == size for x in (*parts, *outputs, each))
        if not split or not all(
            _same([x[at] for x in outputs], _flat(row)) for at, row in enumerate(each)
        ):
            self.alone = True  # the family's code does more after its projector
            return [self._encode_alone(image) for image in images]
        return [
            ImageFeatures(
                image.text,
                tuple(part[at : at + 1].clone() for part in parts),
                {},
                tuple(image.inputs["pixel_values"].shape),
                stacked=stacked,
            )
            for at, image in enumerate(images)
        ]

    def _encode_alone(self, image: PreparedImage) -> ImageFeatures:
        more = {
            name: torch.as_tensor(x, device=self.device) for name, x in self._more(image).items()
        }
        pixels = image.inputs["pixel_values"]
        parts, outputs, output = self._recorded([pixels], more)
        stacked, embeds = isinstance(output.pooler_output, Tensor), _flat(output.pooler_output)
        plain = _same(outputs, embeds)
        found = ImageFeatures(image.text, parts, more, tuple(pixels.shape), plain, stacked)
        return found if plain else self._checked(found, outputs, embeds)

    def _more(self, image: PreparedImage) -> dict[str, Any]:
        """What the family's code takes of an image beside its pixels."""
        names = (self._arguments & image.inputs.keys()) - {"pixel_values"}
        return {name: image.inputs[name] for name in sorted(names)}

    def _recorded(
        self, images: Sequence[Any], more: dict[str, Tensor]
    ) -> tuple[tuple[Tensor, ...], tuple[Tensor, ...], Any]:
        """The input and the output of each part of the projector, and what the whole returns."""
        pixels = torch.cat([torch.as_tensor(pixels) for pixels in images]).to(
            self.device, self.model.dtype
        )
        calls: dict[nn.Module, list[tuple[Tensor, Tensor]]] = {
            part: [] for _, part in self.projector
        }

        def record(part: nn.Module, args: Any, output: Tensor) -> None:
            calls[part].append((args[0], output))

        hooks = [part.register_forward_hook(record) for part in calls]
        try:
            output = self.base.get_image_features(pixel_values=pixels, **more, return_dict=True)
        except (AttributeError, IndexError, KeyError, TypeError, ValueError) as error:
            raise FcitError(
                f"[model] path: a {type(self.model).__name__} of this config.json takes no image: "
                f"{one_line(str(error))}"
            ) from None
        finally:
            for hook in hooks:
                hook.remove()
        if any(len(recorded) != 1 for recorded in calls.values()):
            raise FcitError(
                f"{type(self.model).__name__}: its projector does not run once per image"
            )
        parts, outputs = zip(*(recorded[0] for recorded in calls.values()), strict=True)
        return parts, outputs, output

    def project(self, images: Sequence[ImageFeatures], weights: Weights) -> list[Embeds]:
        """Embeddings of images (on the model's device) by a projector with these weights."""
        outputs = [
            self._run(part, prefix, weights, [image.parts[at] for image in images])
            for at, (prefix, part) in enumerate(self.projector)
        ]
        return [
            [parts[0].flatten(0, -2)] if image.plain else self._finish(image, parts)
            for image, *parts in zip(images, *outputs, strict=True)
        ]

    def outputs(self, images: Sequence[ImageFeatures], embeds: Sequence[Embeds]) -> dict[str, Any]:
        """Embeddings in the form in which transformers takes them."""
        pooled: Any = tuple(levels[0] for levels in embeds)
        if images[0].stacked:
            pooled = torch.cat(pooled)[None]
        deeper = [list(level) for level in zip(*(levels[1:] for levels in embeds), strict=True)]
        fields = {"deepstack_features": deeper} if deeper else {}
        return {"image": self.output_type(pooler_output=pooled, **fields)}

    def _run(
        self, part: nn.Module, prefix: str, weights: Weights, inputs: Sequence[Tensor]
    ) -> list[Tensor]:
        """One part's output for each image: in one call where their shapes allow."""
        own = {k[len(prefix) :]: v for k, v in weights.items() if k.startswith(prefix)}
        dtype = next(iter(own.values())).dtype
        if len({x.shape[1:] for x in inputs}) > 1:
            return [functional_call(part, own, (x.to(dtype),)) for x in inputs]
        rows = [len(x) for x in inputs]
        output = functional_call(part, own, (torch.cat(list(inputs)).to(dtype),))
        return list(output.split([count * len(output) // sum(rows) for count in rows]))

    def _finish(self, image: ImageFeatures, outputs: Sequence[Tensor]) -> Embeds:
        """What the family makes of its projector's outputs for an image."""
        # Ones, because some families drop tiles that are all zero.
        pixels = torch.ones((), device=outputs[0].device, dtype=self.model.dtype)
        with ExitStack() as stack:
            for layer in self.layers if image.skip else ():
                stack.enter_context(_replaced(layer, _identity))
            for (_, part), value in zip(self.projector, outputs, strict=True):
                stack.enter_context(_replaced(part, lambda *_, v=value, **__: v))
            output = self.base.get_image_features(
                pixel_values=pixels.expand(image.pixels), **image.inputs, return_dict=True
            )
        self.output_type = type(output)
        deeper = getattr(output, "deepstack_features", None) or ()
        return [_flat(output.pooler_output), *map(_flat, deeper)]

    def _checked(
        self, image: ImageFeatures, outputs: Sequence[Tensor], embeds: Tensor
    ) -> ImageFeatures:
        """The image in the form that `_finish` turns into the same embeddings as the whole model: with
        the tower's layers skipped if that changes nothing."""
        for skip in (True, False):
            candidate = replace(image, skip=skip)
            try:
                finished = self._finish(candidate, outputs)[0]
            except (RuntimeError, TypeError, ValueError, IndexError):
                continue
            if torch.equal(finished, embeds):
                return candidate
        raise FcitError(
            f"[model] path: what {type(self.model).__name__} does after its projector depends on more "
            "than the projector's output; fcit cannot train it, or processor_config.json is of another"
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
    return [list(levels) for levels in zip(*mixed, strict=True)]


def find_projector(model: Any) -> list[tuple[str, nn.Module]]:
    """A model's projector: (prefix of its weights' names, module) of each part.

    It is the module beside the vision tower and the language model; where there is none, those at the
    end of the tower whose output is as wide as the language model.
    """
    decoder, vision = model.get_decoder(), model.get_encoder(modality="image")
    audio = model.get_encoder(modality="audio")
    for module in model.base_model.children():
        if module not in (vision, decoder, audio) and any(True for _ in module.parameters()):
            return [("", module)]
    width, layers = model.config.get_text_config().hidden_size, _layers(vision)
    parts: list[tuple[str, nn.Module]] = []
    for name, child in vision.named_children():
        several = isinstance(child, nn.ModuleList)
        for number, part in child.named_children() if several else [("", child)]:
            linear = [module for module in part.modules() if isinstance(module, nn.Linear)]
            if part not in layers and linear and linear[-1].out_features == width:
                parts.append((f"{name}.{number}." if several else f"{name}.", part))
    if not parts:
        raise FcitError(f"[model] path: no projector found in {type(model).__name__}")
    return parts


def _layers(tower: nn.Module) -> list[nn.Module]:
    """A tower's layers: its longest list of modules."""
    lists = [list(module) for module in tower.modules() if isinstance(module, nn.ModuleList)]
    return max(lists, key=len, default=[])


def _same(outputs: Sequence[Tensor], embeds: Tensor) -> bool:
    """Whether the projector's output already is the embeddings."""
    return len(outputs) == 1 and torch.equal(outputs[0].reshape(-1, embeds.shape[-1]), embeds)


def _flat(value: Any) -> Tensor:
    """Embeddings of one image, given as a tensor or a list of them, as [n, width]."""
    tensor = value if isinstance(value, Tensor) else torch.cat([*value])
    return tensor.reshape(-1, tensor.shape[-1])


def _identity(*args: Any, **named: Any) -> Any:
    return args[0] if args else named["hidden_states"]


@contextmanager
def _replaced(module: nn.Module, forward: Callable[..., Any]) -> Iterator[None]:
    """For a while this is a module's forward pass."""
    original = module.__dict__.get("forward")
    module.forward = forward
    try:
        yield
    finally:
        if original is None:
            del module.__dict__["forward"]
        else:
            module.forward = original
