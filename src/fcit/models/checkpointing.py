"""Gradient checkpointing: a layer's activations are recomputed instead of kept."""

from collections.abc import Iterator
from contextlib import contextmanager, nullcontext
from functools import partial
from typing import Any

import torch
from torch.utils.checkpoint import checkpoint
from transformers.modeling_layers import GradientCheckpointingLayer

from fcit.models.subspace import Control


@contextmanager
def checkpointed(model: Any, control: Control) -> Iterator[None]:
    """Inside, the language model's layers keep no activations (where gradients are computed at all).

    A recomputed layer draws its dropout from the same position in the random stream as the first time,
    so losses and gradients are those without checkpointing. transformers looks at a layer's own
    `training` flag; the modules in it stay in evaluation mode.
    """

    def contexts() -> tuple[Any, Any]:
        noise = control.noise
        return nullcontext(), _rewound(noise, noise.get_state()) if noise else nullcontext()

    run = partial(checkpoint, use_reentrant=False, context_fn=contexts)
    modules: Any = model.get_decoder().modules() if torch.is_grad_enabled() else ()
    layers: list[Any] = [part for part in modules if isinstance(part, GradientCheckpointingLayer)]
    for layer in layers:
        layer.gradient_checkpointing, layer._gradient_checkpointing_func = True, run
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
