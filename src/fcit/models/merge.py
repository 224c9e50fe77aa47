"""A model's opened adapters and its projector, added into the weights of a plain transformers model."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import torch
from torch import Tensor

from fcit.models.lmm import LMM
from fcit.models.subspace import SubspaceLinear
from fcit.types import FcitError


@torch.no_grad()
def save_merged(model: LMM, folder: Path, dtype: torch.dtype) -> None:
    """Write W + scale sum_k gate_k B_k A_k for every adapted W, and the projector, as a folder that
    transformers loads, its processor included. The gate must be in place, for one sample [1, K].

    The model cannot be used afterwards. Raises FcitError when no one set of weights answers as the
    model does: when gates or prompts depend on the input, or outputs of several projectors are mixed.
    """
    gate = model.gate
    if callable(gate) or model.prompts is not None:
        raise FcitError("its gates or prompts depend on the input, so no one set of weights is it")
    _settle_projector(model)
    for path, layer in model.subspaces.layers.items():
        shares = gate[path] if isinstance(gate, Mapping) else gate
        layer.base.weight.data = (layer.base.weight.float() + delta(layer, shares)).to(dtype)
        parent, _, leaf = path.rpartition(".")
        setattr(model.model.get_submodule(parent), leaf, layer.base)
    model.model.to(dtype).save_pretrained(folder)
    save_processor(model, folder)


def save_processor(model: LMM, folder: Path) -> None:
    """Write a model's processor, with the chat template that the model was asked in."""
    model.processor.chat_template = model.chat.template
    model.processor.save_pretrained(folder)


def delta(layer: SubspaceLinear, shares: Tensor | None) -> Tensor:
    """scale sum_k shares_k B_k A_k of one layer: [out, in] for shares [1, K] (None: all 1)."""
    if layer.frozen is None:
        return torch.zeros_like(layer.base.weight, dtype=torch.float32)
    a, b = layer.frozen
    if shares is not None:
        a = a * shares[0].float().repeat_interleave(layer.rank)[:, None]
    return layer.scale * (b @ a)


def _settle_projector(model: LMM) -> None:
    chosen = 0
    if len(model.projectors) > 1:
        shares = model.gate[0].tolist() if isinstance(model.gate, Tensor) else []
        if sorted(shares)[:-1] != [0.0] * (len(model.projectors) - 1):
            raise FcitError(
                "its subspaces have projectors of their own, and a mixture of their outputs is no "
                "one projector; export a single subspace, or all"
            )
        chosen = max(range(len(shares)), key=shares.__getitem__)
    for name, value in model.projectors[chosen].items():
        model.vision.weights()[name].data = value.detach().clone()
