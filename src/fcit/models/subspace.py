"""LoRA in K rank blocks (subspaces) beside a frozen Linear, opened per sample by one gate.

Delta W = sum_k B_k A_k (Guo et al. 2025, section 4.1). The blocks of a layer lie side by side in
A [K*r, in] and B [out, K*r], so that K blocks cost two matrix products whatever K is, and the gate
scales the r columns of each block: B diag(gate) A, which is also the paper's inference rule (SSA).
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from fcit.files import write_json
from fcit.types import FcitError, Weights
from fcit.weights import PEFT_PREFIX, load, save

Gate = Tensor | Mapping[str, Tensor] | Callable[[str, Tensor], Tensor] | None
"""How much each of the K blocks gives: None (all 1), [batch, K] for every layer, a table of these by
layer, or a function (layer, input [batch, seq, in]) -> [batch, K] or [batch, seq, K]."""


@dataclass
class Control:
    """What all layers of one model share while they run: the gate, and the dropout on their input."""

    gate: Gate = None
    dropout: float = 0.0
    noise: torch.Generator | None = None
    _wide: tuple[Tensor, tuple[object, ...], Tensor] | None = None

    def drop(self, x: Tensor) -> Tensor:
        """Inverted dropout from a named random stream (never the global one)."""
        if self.noise is None or self.dropout == 0.0:
            return x
        keep = torch.empty(x.shape, dtype=x.dtype, device=self.noise.device)
        keep.bernoulli_(1 - self.dropout, generator=self.noise)
        return x * keep.to(x.device).div_(1 - self.dropout)

    def at(self, layer: str, x: Tensor) -> Tensor | None:
        """The gate of one layer, ready to multiply: [batch, 1 or seq, K], or None."""
        gate = self.gate
        if callable(gate):
            gate = gate(layer, x)
        elif isinstance(gate, Mapping):
            gate = gate[layer]
        return gate.unsqueeze(1) if gate is not None and gate.dim() == 2 else gate

    def columns(self, layer: str, x: Tensor, rank: int, scale: float) -> Tensor | float:
        """What a layer's A x is multiplied with: the scale, times the gate of every column's block."""
        gate = self.gate
        if not isinstance(gate, Tensor) or gate.requires_grad:
            found = self.at(layer, x)
            return scale if found is None else _widen(found, rank, scale, x)
        form = (gate._version, rank, scale, x.dtype, x.device)
        if self._wide is None or self._wide[0] is not gate or self._wide[1] != form:
            found = self.at(layer, x)
            assert found is not None
            self._wide = (gate, form, _widen(found, rank, scale, x))
        return self._wide[2]


def _widen(gate: Tensor, rank: int, scale: float, like: Tensor) -> Tensor:
    return gate.to(like).repeat_interleave(rank, dim=-1) * scale


class SubspaceLinear(nn.Module):
    """A frozen Linear and its K blocks; the first ones may be frozen, the others train."""

    def __init__(self, name: str, base: nn.Linear, control: Control):
        super().__init__()
        self.name, self.base, self.control = name, base, control
        self.rank, self.scale = 1, 1.0
        self.frozen: tuple[Tensor, Tensor] | None = None
        self.cast: tuple[Tensor, Tensor] | None = None
        self.A: nn.Parameter | None = None
        self.B: nn.Parameter | None = None

    def forward(self, x: Tensor) -> Tensor:
        y = self.base(x)
        pairs = [self._ready(x.dtype)] if self.frozen else []
        if self.A is not None and self.B is not None:
            pairs.append((self.A.to(x.dtype), self.B.to(x.dtype)))
        if not pairs:
            return y
        columns, start = self.control.columns(self.name, x, self.rank, self.scale), 0
        x = self.control.drop(x)
        for a, b in pairs:
            end = start + a.shape[0]
            here = columns[..., start:end] if isinstance(columns, Tensor) else columns
            # Scaled where it is narrow, and added in place: wide passes over memory are what costs.
            y = y.add_(F.linear(F.linear(x, a) * here, b))
            start = end
        return y

    def _ready(self, dtype: torch.dtype) -> tuple[Tensor, Tensor]:
        """The frozen blocks in the numbers the model computes in: cast once, not at every token."""
        assert self.frozen is not None
        if self.cast is None or self.cast[0].dtype != dtype:
            self.cast = (self.frozen[0].to(dtype), self.frozen[1].to(dtype))
        return self.cast


def projections(decoder: nn.Module, hidden: int, intermediate: int) -> list[str]:
    """The paths, inside a language model, of its layers' MLP projections, found by their shapes.

    An MLP projection joins the hidden and the intermediate size (gate, up, down; fused forms too).
    """
    sizes = ({hidden, intermediate}, {hidden, 2 * intermediate})
    layers = max(
        (path for path, module in decoder.named_modules() if isinstance(module, nn.ModuleList)),
        key=lambda path: len(list(decoder.get_submodule(path).children())),
        default=None,
    )
    found = [
        path
        for path, module in decoder.named_modules()
        if layers is not None
        and path.startswith(layers + ".")
        and isinstance(module, nn.Linear)
        and hidden != intermediate
        and {module.in_features, module.out_features} in sizes
    ]
    if not found:
        raise FcitError(
            f"no MLP projections ({hidden} x {intermediate}) found in {type(decoder).__name__}"
        )
    return found


class Subspaces:
    """All subspace layers of one model, addressed by block: the only way blocks go in and out."""

    def __init__(self, model: nn.Module, paths: Sequence[str]):
        self.control = Control()
        self.names: list[str] = []
        self.layers: dict[str, SubspaceLinear] = {}
        for path in paths:
            parent, _, leaf = path.rpartition(".")
            base = model.get_submodule(path)
            assert isinstance(base, nn.Linear)
            self.layers[path] = SubspaceLinear(path, base, self.control)
            setattr(model.get_submodule(parent), leaf, self.layers[path])

    def blank(self, rank: int, std: float, noise: torch.Generator) -> Weights:
        """A fresh block: A from N(0, std^2), B zero, so that Delta W starts at nothing."""
        block: Weights = {}
        for path, layer in self.layers.items():
            a = torch.empty(rank, layer.base.in_features)
            block[f"{PEFT_PREFIX}{path}.lora_A.weight"] = a.normal_(0, std, generator=noise)
            block[f"{PEFT_PREFIX}{path}.lora_B.weight"] = torch.zeros(layer.base.out_features, rank)
        return block

    def load(self, blocks: Mapping[str, Weights], scale: float, train: Sequence[str] = ()) -> None:
        """Put these blocks in place of the present ones; those named in `train` can learn.

        Gate columns follow `self.names`: the frozen blocks first, then the trained, each in the order
        of their names. Raises FcitError when a block does not fit this model.
        """
        order = sorted(blocks, key=lambda name: (len(name), name))  # float sums depend on it
        frozen = [name for name in order if name not in train]
        trained = [name for name in order if name in train]
        self.names = frozen + trained
        for path, layer in self.layers.items():
            layer.scale = scale
            layer.frozen = _stack(layer, path, [blocks[name] for name in frozen])
            layer.cast = None
            pair = _stack(layer, path, [blocks[name] for name in trained])
            layer.A = nn.Parameter(pair[0]) if pair else None
            layer.B = nn.Parameter(pair[1]) if pair else None
            if blocks:
                first = next(iter(blocks.values()))
                layer.rank = first[f"{PEFT_PREFIX}{path}.lora_A.weight"].shape[0]

    def trained(self) -> list[nn.Parameter]:
        """The parameters that learn."""
        pairs = [(layer.A, layer.B) for layer in self.layers.values()]
        return [part for pair in pairs for part in pair if part is not None]

    def live(self, name: str) -> Weights:
        """One block's tensors in place, gradients and all, under PEFT's names."""
        return self._part(name, lambda whole: whole)

    def gradient(self, name: str) -> Weights:
        """A learning block's gradients, after they were computed, under PEFT's names."""

        def slope(whole: Tensor) -> Tensor:
            assert whole.grad is not None
            return whole.grad

        return self._part(name, slope)

    def _part(self, name: str, of: Callable[[Tensor], Tensor]) -> Weights:
        first = self.names.index(name)
        block: Weights = {}
        for path, layer in self.layers.items():
            start, pair = first * layer.rank, layer.frozen
            held = pair[0].shape[0] if pair else 0
            if start >= held:
                assert layer.A is not None and layer.B is not None
                start, pair = start - held, (layer.A, layer.B)
            assert pair is not None
            rows = slice(start, start + layer.rank)
            block[f"{PEFT_PREFIX}{path}.lora_A.weight"] = of(pair[0])[rows]
            block[f"{PEFT_PREFIX}{path}.lora_B.weight"] = of(pair[1])[:, rows]
        return block

    def block(self, name: str) -> Weights:
        """One block as it now stands, copied to the CPU."""
        return {
            key: value.detach().cpu().clone().contiguous() for key, value in self.live(name).items()
        }


def _stack(
    layer: SubspaceLinear, path: str, blocks: Sequence[Weights]
) -> tuple[Tensor, Tensor] | None:
    if not blocks:
        return None
    device = layer.base.weight.device
    try:
        a = torch.cat([block[f"{PEFT_PREFIX}{path}.lora_A.weight"] for block in blocks])
        b = torch.cat([block[f"{PEFT_PREFIX}{path}.lora_B.weight"] for block in blocks], dim=1)
    except KeyError as error:
        raise FcitError(f"this adapter was made for another model: no {error.args[0]}") from None
    if a.shape[1] != layer.base.in_features or b.shape[0] != layer.base.out_features:
        raise FcitError(f"this adapter was made for another model: {path} has another shape")
    return a.to(device, torch.float32), b.to(device, torch.float32)


def save_peft(
    folder: Path,
    block: Weights,
    scale: float,
    base: str,
    projector: Weights | None = None,
    places: Mapping[str, str] | None = None,
) -> None:
    """Write one block as a standard PEFT LoRA adapter folder (adapter_config.json + safetensors).

    projector: tensors that replace those of the modules in `places` (PEFT's modules_to_save), each a
    path and the prefix that its tensors' names have.
    """
    whole = {
        f"{PEFT_PREFIX}{path}.{name.removeprefix(prefix)}": value
        for path, prefix in (places or {}).items()
        for name, value in (projector or {}).items()
        if name.startswith(prefix)
    }
    assert len(whole) == len(projector or {})
    paths = sorted(
        key[len(PEFT_PREFIX) : -len(".lora_A.weight")] for key in block if ".lora_A." in key
    )
    rank = block[f"{PEFT_PREFIX}{paths[0]}.lora_A.weight"].shape[0]
    save(folder / "adapter_model.safetensors", block | whole)
    config: dict[str, Any] = {
        "peft_type": "LORA",
        "task_type": "CAUSAL_LM",
        "base_model_name_or_path": base,
        "r": rank,
        "lora_alpha": scale * rank,
        "lora_dropout": 0.0,
        "bias": "none",
        "target_modules": paths,
        "inference_mode": True,
    }
    if whole:
        config["modules_to_save"] = list(places or {})
    write_json(folder / "adapter_config.json", config)


def load_peft(folder: Path) -> tuple[Weights, float]:
    """Read a PEFT LoRA adapter folder: its block and its scale (lora_alpha / r)."""
    path = folder / "adapter_config.json"
    try:
        config = json.loads(path.read_text(encoding="utf-8"))
        scale = config["lora_alpha"] / config["r"]
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise FcitError(f"{path}: not a PEFT LoRA configuration: {error}") from None
    return load(folder / "adapter_model.safetensors"), scale
