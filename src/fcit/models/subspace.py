"""LoRA in K rank blocks (subspaces) beside a frozen Linear, weighted per sample by one gate.

Delta W = sum_k B_k A_k (Guo et al. 2025, section 4.1). A layer's blocks lie side by side in A [K*r, in]
and B [out, K*r], so K blocks cost two matrix products whatever K is. The gate scales the r columns of
each block: B diag(gate) A, which is also the paper's inference rule (SSA).
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from fcit.types import FcitError, Gate, Weights
from fcit.weights import tensor_names


@dataclass
class Control:
    """What all layers of one model share while they run."""

    gate: Gate = None
    dropout: float = 0.0
    """Probability of dropping a layer's input on its way to the blocks."""
    noise: torch.Generator | None = None
    """The random stream of the dropout; None turns it off."""
    _columns: tuple[Tensor, tuple[object, ...], Tensor] | None = None
    """The last gate that `columns` widened, what it was widened for, and the result."""

    def drop(self, x: Tensor) -> Tensor:
        """Inverted dropout from a named random stream (never the global one)."""
        if self.noise is None or self.dropout == 0.0:
            return x
        if x.is_cuda:  # the backward pass keeps a byte per number: on a GPU memory is what is short
            dropped = torch.empty(x.shape, dtype=torch.bool, device=self.noise.device)
            dropped.bernoulli_(self.dropout, generator=self.noise)
            return x.masked_fill(dropped.to(x.device), 0).div_(1 - self.dropout)
        # 16 random bits a number: `bernoulli_` takes five times as long.
        bits = torch.empty(-(-x.numel() // 4), dtype=torch.int64, device=self.noise.device)
        bits.random_(-(2**63), None, generator=self.noise)
        dropped = min(round(self.dropout * 2**16), 2**16 - 2)
        # Compared in place: 1 and 0 as numbers of 16 bits take a fraction of the time that bools take.
        keep = bits.view(torch.int16)[: x.numel()].view(x.shape).ge_(dropped - 2**15).to(x.device)
        kept = torch.ones((), dtype=x.dtype).div_(1 - dropped / 2**16)
        if x.dtype.itemsize == 2:  # 1 times the bits of a number is that number
            return x * keep.mul_(int(kept.view(torch.int16))).view(x.dtype)
        return x * keep.to(x.dtype).mul_(kept)

    def columns(self, layer: str, x: Tensor, rank: int, scale: float) -> Tensor | float:
        """What a layer's A x is multiplied with: the scale, times the gate of every column's block."""
        gate = self.gate
        if isinstance(gate, Tensor) and not gate.requires_grad:
            key = (gate._version, rank, scale, x.dtype, x.device)
            if self._columns is None or self._columns[0] is not gate or self._columns[1] != key:
                self._columns = (gate, key, _widen(gate, rank, scale, x))
            return self._columns[2]
        if callable(gate):
            gate = gate(layer, x)
        elif isinstance(gate, Mapping):
            gate = gate[layer]
        return scale if gate is None else _widen(gate, rank, scale, x)


def _widen(gate: Tensor, rank: int, scale: float, like: Tensor) -> Tensor:
    """A gate [batch, (seq,) K] as factors of the columns: [batch, 1 or seq, K * rank]."""
    gate = gate.unsqueeze(1) if gate.dim() == 2 else gate
    return gate.to(like).repeat_interleave(rank, dim=-1) * scale


class SubspaceLinear(nn.Module):
    """A frozen Linear and its K blocks; the first ones may be frozen, the others train."""

    def __init__(self, name: str, base: nn.Linear, control: Control):
        super().__init__()
        self.name, self.base, self.control = name, base, control
        self.rank, self.scale = 1, 1.0
        self.frozen: tuple[Tensor, Tensor] | None = None
        self.cast: tuple[Tensor, Tensor] | None = None
        self.rest: tuple[Tensor, Tensor] | None = None
        """Rows of A and columns of B of the learning block that do not learn."""
        self.A: nn.Parameter | None = None
        self.B: nn.Parameter | None = None

    def forward(self, x: Tensor) -> Tensor:
        y = self.base(x)
        pairs = [self._ready(x.dtype)] if self.frozen else []
        if self.A is not None and self.B is not None:
            pairs.append((self.A.to(x.dtype), self.B.to(x.dtype)))
        if self.rest:
            pairs.append((self.rest[0].to(x.dtype), self.rest[1].to(x.dtype)))
        if not pairs:
            return y
        columns, start = self.control.columns(self.name, x, self.rank, self.scale), 0
        x = self.control.drop(x)
        for a, b in pairs:
            end = start + a.shape[0]
            here = columns[..., start:end] if isinstance(columns, Tensor) else columns
            # Scaled where it is narrow, and added in place: wide passes over memory are what costs.
            # bitsandbytes' 8-bit product is a view that autograd forbids to change.
            more = F.linear(F.linear(x, a) * here, b)
            y = y + more if self.base.weight.dtype == torch.int8 else y.add_(more)
            start = end
        return y

    def _ready(self, dtype: torch.dtype) -> tuple[Tensor, Tensor]:
        """The frozen blocks in the numbers the model computes in: cast once, not at every token."""
        assert self.frozen is not None
        if self.cast is None or self.cast[0].dtype != dtype:
            self.cast = (self.frozen[0].to(dtype), self.frozen[1].to(dtype))
        return self.cast


def widths(text: Any) -> list[int]:
    """The intermediate sizes of a language model's configuration; Gemma 3n has one for each layer."""
    size = getattr(text, "intermediate_size", 0)
    return [*size] if isinstance(size, list | tuple) else [size]


def adapted_layers(model: Any) -> dict[str, nn.Linear]:
    """The layers that get adapters, by path: the language model's MLP projections.

    They are found by their shapes: an MLP projection joins the hidden and the intermediate size (gate,
    up, down; fused forms too). Raises FcitError where there are none, or where attention's projections
    have the same shape.
    """
    decoder, sizes = model.get_decoder(), model.config.get_text_config()
    hidden, wide = getattr(sizes, "hidden_size", 0), widths(sizes)
    shapes = [{hidden, n * width} for width in set(wide) for n in (1, 2)]
    root = next(path for path, module in model.named_modules() if module is decoder)
    modules: dict[str, Any] = dict(decoder.named_modules())
    lists = [path for path, module in modules.items() if isinstance(module, nn.ModuleList)]
    layers = max(lists, key=lambda path: len(modules[path]), default="")
    adapted = {
        f"{root}.{path}": module
        for path, module in modules.items()
        if path.startswith(f"{layers}.")
        and isinstance(module, nn.Linear)
        and {module.in_features, module.out_features} in shapes
    }
    found, sizes = type(decoder).__name__, f"{hidden} x {max(wide)}"
    if not adapted:
        raise FcitError(f"no MLP projections ({sizes}) found in {found}")
    if any(hidden in (width, 2 * width) for width in wide):
        raise FcitError(
            f"{found}: its MLP projections ({sizes}) cannot be told from attention's by their shapes"
        )
    return adapted


def blank_block(
    layers: Mapping[str, tuple[int, int]],
    rank: int,
    std: float = 0.0,
    noise: torch.Generator | None = None,
) -> Weights:
    """A block for layers of these shapes (in, out): A from N(0, std^2), or zero without `noise`; B zero,
    so that Delta W starts at nothing."""
    block: Weights = {}
    for path, (wide, out) in layers.items():
        name_a, name_b = tensor_names(path)
        a = torch.zeros(rank, wide)
        block[name_a] = a.normal_(0, std, generator=noise) if noise else a
        block[name_b] = torch.zeros(out, rank)
    return block


class Subspaces:
    """All subspace layers of one model: its blocks go in and out here, by name."""

    def __init__(self, model: nn.Module, layers: Mapping[str, nn.Linear]):
        self.control = Control()
        self.names: list[str] = []
        """The blocks' names, in the order of the gate's columns."""
        self.layers: dict[str, SubspaceLinear] = {}
        for path, base in layers.items():
            self.layers[path] = SubspaceLinear(path, base, self.control)
            model.set_submodule(path, self.layers[path])

    def blank(self, rank: int, std: float = 0.0, noise: torch.Generator | None = None) -> Weights:
        """A fresh block, which changes no output: see `blank_block`."""
        bases = {path: layer.base for path, layer in self.layers.items()}
        shapes = {path: (base.in_features, base.out_features) for path, base in bases.items()}
        return blank_block(shapes, rank, std, noise)

    def load(
        self,
        blocks: Mapping[str, Weights],
        scale: float,
        train: Sequence[str] = (),
        train_down: bool = True,
        rest: Weights | None = None,
    ) -> None:
        """Replace all blocks by these; those named in `train` can learn (`train_down`: A too). `rest`:
        more rows and columns of the one that learns, which do not.

        `self.names` lists the frozen blocks first, then the trained ones, each sorted by name. Raises
        FcitError when a block does not fit this model.
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
            layer.A = nn.Parameter(pair[0], train_down) if pair else None
            layer.B = nn.Parameter(pair[1]) if pair else None
            layer.rest = _stack(layer, path, [rest] if rest else [])
            if blocks:
                rows = [block[tensor_names(path)[0]].shape[0] for block in blocks.values()]
                layer.rank = max(*rows, min(rows) + len(layer.rest[0]) if layer.rest else 0)

    def trained(self) -> list[nn.Parameter]:
        """The parameters that learn."""
        pairs = [(layer.A, layer.B) for layer in self.layers.values()]
        return [
            value for pair in pairs for value in pair if value is not None and value.requires_grad
        ]

    def live(self, name: str, gradients: bool = False) -> Weights:
        """One block's tensors in place, gradients and all, under PEFT's names. `gradients`: instead, the
        gradients of a learning block, once they were computed."""
        number = self.names.index(name)
        block: Weights = {}
        for path, layer in self.layers.items():
            start, pair = number * layer.rank, layer.frozen
            frozen_rows = pair[0].shape[0] if pair else 0
            if start >= frozen_rows:
                assert layer.A is not None and layer.B is not None
                start, pair = start - frozen_rows, (layer.A, layer.B)
            assert pair is not None
            a, b = (whole.grad if gradients else whole for whole in pair)
            assert a is not None and b is not None
            rows, (name_a, name_b) = slice(start, start + layer.rank), tensor_names(path)
            block[name_a], block[name_b] = a[rows], b[:, rows]
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
    device, (name_a, name_b) = layer.base.weight.device, tensor_names(path)
    try:
        a = torch.cat([block[name_a] for block in blocks])
        b = torch.cat([block[name_b] for block in blocks], dim=1)
    except KeyError as error:
        raise FcitError(f"this adapter was made for another model: no {error.args[0]}") from None
    if a.shape[1] != layer.base.in_features or b.shape[0] != layer.base.out_features:
        raise FcitError(f"this adapter was made for another model: {path} has another shape")
    return a.to(device, torch.float32), b.to(device, torch.float32)
