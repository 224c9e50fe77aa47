"""Gradient checkpointing: a layer's activations are recomputed instead of kept."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager, nullcontext
from functools import partial
from typing import Any

import torch
from torch import nn
from torch.utils.checkpoint import checkpoint
from transformers.modeling_layers import GradientCheckpointingLayer

from fcit.models.subspace import Control


def prepare(model: Any, control: Control) -> list[nn.Module]:
    """Make a model's language layers ready to be checkpointed, and return them.

    A recomputed layer draws its dropout from the same position in the random stream as the first time,
    so losses and gradients are those without checkpointing.
    """

    def contexts() -> tuple[Any, Any]:
        noise = control.noise
        return nullcontext(), _rewound(noise, noise.get_state()) if noise else nullcontext()

    run = partial(checkpoint, use_reentrant=False, context_fn=contexts)
    modules = model.get_decoder().modules()
    layers: list[Any] = [part for part in modules if isinstance(part, GradientCheckpointingLayer)]
    for layer in layers:
        layer.gradient_checkpointing, layer._gradient_checkpointing_func = True, run
    return layers


@contextmanager
def checkpointed(layers: Sequence[nn.Module]) -> Iterator[None]:
    """Inside, these layers keep no activations (where gradients are computed at all).

    transformers looks at a layer's own `training` flag; the modules in it stay in evaluation mode.
    """
    layers = layers if torch.is_grad_enabled() else ()
    for layer in layers:
        layer.training = True
    try:
        yield
    finally:
        for layer in layers:
            layer.training = False


@contextmanager
def _rewound(noise: torch.Generator, state: torch.Tensor) -> Iterator[None]:
    current = noise.get_state()
    noise.set_state(state)
    try:
        yield
    finally:
        noise.set_state(current)
