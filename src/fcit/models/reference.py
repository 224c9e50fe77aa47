"""Checkpoints of FCIT's reference implementation (Guo et al. 2025, arXiv 2503.12897).

After every round it saves a folder `llava_lora_finetune_epoch_N`: adapter_config.json; adapter_model.bin,
where each MLP projection has K slots `lora_A.loraA.k` [r/K, in] and `lora_B.loraB.k` [out, r/K]; and
non_lora_trainables.bin with the projector, each slot's identity token and its number of samples.
"""

import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor

from fcit.files import read_json
from fcit.models.llava_original import read_tensors
from fcit.models.size import ModelSize
from fcit.types import FcitError, Weights
from fcit.weights import tensor_names

LAYER = re.compile(r"layers\.\d+\.mlp\.\w+$")
LORA = re.compile(
    r"(layers\.\d+\.mlp\.\w+)\.lora_([AB])\.(?:default\.)?lora\2\.(\d+)\.(?:mlp\.)?weight$"
)
GATES = re.compile(r"\.lora_AB\.(?:default\.)?weight$")
"""The diagonal that the reference sets anew for every question."""
PROJECTOR = re.compile(r"mm_projector\.([02])\.(weight|bias)$")
PER_SLOT = re.compile(r"(global_text_feature|global_image_feature|cluster_text_size)\.(\d+)$")


@dataclass(frozen=True)
class Checkpoint:
    """K slots, in float32. A slot that no client opened has a token of zeros and no samples; in the
    reference it takes part in the softmax with a cosine of 0."""

    slots: tuple[Weights, ...]
    tokens: Tensor
    """Identity tokens of text [K, d]."""
    samples: Tensor
    """[K], whole numbers; the reference keeps them in bfloat16, so they are rounded above 256."""
    projector: Weights
    rank: int
    """Of each slot."""
    scale: float
    """LoRA's alpha / r."""


def read(folder: Path, size: ModelSize, width: int) -> Checkpoint:
    """The checkpoint in a folder. size: of the base model; width: d of its identity tokens.

    Raises FcitError naming the file that is missing, does not fit the base model, or has tensors that
    are not understood.
    """
    if not folder.is_dir():
        raise FcitError(f"{folder}: no such folder")
    total, alpha, count = _numbers(folder / "adapter_config.json")
    rank = total // count
    slots = _slots(folder / "adapter_model.bin", size.layers, count, rank)
    path = folder / "non_lora_trainables.bin"
    projector, tokens, samples = _others(path, size.projector, count)
    if tokens.shape[1] != width:
        raise FcitError(
            f"{path}: identity tokens of {tokens.shape[1]} numbers, but model.identity gives {width}; "
            "name the CLIP that the checkpoint was trained with"
        )
    if not tokens.any():
        raise FcitError(f"{path}: no slot has an identity token; nothing was trained")
    return Checkpoint(slots, tokens, samples, projector, rank, alpha / total)


def _numbers(path: Path) -> tuple[int, int, int]:
    """LoRA's r of all slots together, its alpha, and K."""
    try:
        table = read_json(path)
        total, alpha, count = (int(table[key]) for key in ("r", "lora_alpha", "expert_num"))
        if min(total, alpha, count) > 0 and total % count == 0:
            return total, alpha, count
    except (KeyError, TypeError, ValueError):
        pass
    raise FcitError(
        f"{path}: must have r, lora_alpha and expert_num (which divides r), as the reference "
        "implementation writes them"
    )


def _slots(
    path: Path, layers: Mapping[str, tuple[int, int]], count: int, rank: int
) -> tuple[Weights, ...]:
    """The LoRA blocks under fcit's names."""
    paths = {match[0]: layer for layer in layers if (match := LAYER.search(layer))}
    wanted = {
        (layer, side, slot): (rank, layers[layer][0]) if side == "A" else (layers[layer][1], rank)
        for layer in layers
        for side in "AB"
        for slot in range(count)
    }
    slots: list[Weights] = [{} for _ in range(count)]
    for key, value in _tensors(path).items():
        if GATES.search(key):
            continue
        match = LORA.search(key)
        place = (paths.get(match[1], ""), match[2], int(match[3])) if match else ("", "", 0)
        _fits(path, key, value, wanted.get(place))
        layer, side, slot = place
        slots[slot][tensor_names(layer)[side == "B"]] = value.float().contiguous()
    for slot, block in enumerate(slots):
        if len(block) < 2 * len(layers):
            raise FcitError(
                f"{path}: slot {slot} has {len(block)} of {2 * len(layers)} LoRA tensors"
            )
    return tuple(slots)


def _others(
    path: Path, projector: Mapping[str, tuple[int, ...]], count: int
) -> tuple[Weights, Tensor, Tensor]:
    """The projector under fcit's names, and the slots' tokens and samples."""
    ends = {"0": "linear_1", "2": "linear_2"}
    weights: Weights = {}
    kept: dict[str, dict[int, Tensor]] = {}
    for key, value in _tensors(path).items():
        if match := PER_SLOT.search(key):
            kept.setdefault(match[1], {})[int(match[2])] = value.float().flatten()
            continue
        end = f"{ends[match[1]]}.{match[2]}" if (match := PROJECTOR.search(key)) else "\n"
        name = next((name for name in projector if name.endswith(end)), "")
        _fits(path, key, value, projector.get(name))
        weights[name] = value.float().contiguous()
    tokens, sizes = (kept.get(name, {}) for name in ("global_text_feature", "cluster_text_size"))
    lost = sorted(projector.keys() - weights.keys())
    lost += [f"global_text_feature.{slot}" for slot in range(count) if slot not in tokens]
    lost += [f"cluster_text_size.{slot}" for slot in range(count) if slot not in sizes]
    if lost:
        raise FcitError(f"{path}: has no {lost[0]}")
    rows, counts = ([part[slot] for slot in range(count)] for part in (tokens, sizes))
    if len({row.shape for row in rows}) > 1 or {row.numel() for row in counts} != {1}:
        raise FcitError(f"{path}: its identity tokens, or their sizes, differ in shape")
    return weights, torch.stack(rows), torch.cat(counts).round().long()


def _tensors(path: Path) -> Mapping[str, Tensor]:
    if not path.is_file():
        raise FcitError(f"{path}: no such file; name a folder llava_lora_finetune_epoch_N")
    tensors = read_tensors(path)
    for key, value in tensors.items():
        if not bool(value.isfinite().all()):
            raise FcitError(f"{path}: {key} has numbers that are not finite")
    return tensors


def _fits(path: Path, key: str, value: Tensor, shape: tuple[int, ...] | None) -> None:
    if shape is None:
        raise FcitError(f"{path}: {key} is no tensor that fcit understands for this base model")
    if tuple(value.shape) != shape:
        raise FcitError(
            f"{path}: {key} is {[*value.shape]}, and the base model makes it {[*shape]}"
        )
