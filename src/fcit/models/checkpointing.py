"""Gradient checkpointing: a layer's activations are computed again instead of kept."""

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

    A layer that runs again draws the dropout on its input again: from the same place in the random
    stream, so that losses and gradients are those without checkpointing.
    """

    def contexts() -> tuple[Any, Any]:
        noise = control.noise
        return nullcontext(), _rewound(noise, noise.get_state()) if noise else nullcontext()

    run = partial(checkpoint, use_reentrant=False, context_fn=contexts)
    layers: list[Any] = [
        part
        for part in model.get_decoder().modules()
        if isinstance(part, GradientCheckpointingLayer)
    ]
    for layer in layers:
        layer.gradient_checkpointing, layer._gradient_checkpointing_func = True, run
    return layers


@contextmanager
def checkpointed(layers: Sequence[nn.Module]) -> Iterator[None]:
    """For a while, and where gradients are wanted, these layers keep no activations.

    transformers asks a layer's own `training` flag; the modules inside stay in evaluation mode.
    """
    wanted = layers if torch.is_grad_enabled() else ()
    for layer in wanted:
        layer.training = True
    try:
        yield
    finally:
        for layer in wanted:
            layer.training = False


@contextmanager
def _rewound(noise: torch.Generator, state: torch.Tensor) -> Iterator[None]:
    now = noise.get_state()
    noise.set_state(state)
    try:
        yield
    finally:
        noise.set_state(now)
