"""A resumable training loop: Muon and AdamW with a cosine schedule, and saved states."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from fcit.files import read_json, write_json
from fcit.weights import Weights, load, save


@dataclass(frozen=True)
class Plan:
    """Steps and learning rates; `minutes` between saved states."""

    steps: int
    rate: float
    warm: int = 200
    decay: float = 0.05
    minutes: float = 1.0


def train(
    modules: Mapping[str, nn.Module],
    loss: Callable[[int], Tensor],
    plan: Plan,
    state: Path | None = None,
    told: Callable[[int, float], None] | None = None,
    pause: Callable[[int], None] | None = None,
) -> list[float]:
    """Minimize `loss(step)` over `modules` with warm-up and a cosine schedule; returns the losses in
    order.

    Hidden matrices use Muon (K. Jordan et al., 2024; a lower loss at equal steps, docs/log.md), all
    other parameters AdamW. With `state` (a folder) it saves a state every `plan.minutes`, and a second
    call continues from it. `told(step, loss)` is called after every step, `pause(step)` after a state
    was saved.
    """
    named = {
        f"{title}.{name}": tensor
        for title, module in modules.items()
        for name, tensor in module.named_parameters()
    }
    optimizers = _optimizers(named, plan)
    losses = _resume(named, optimizers, state)
    saved = time.monotonic()
    for step in range(len(losses), plan.steps):
        with torch.autocast("cpu", torch.bfloat16):
            value = loss(step)
        for optimizer in optimizers:
            optimizer.zero_grad(set_to_none=True)
        value.backward()
        nn.utils.clip_grad_norm_(list(named.values()), 1.0)
        for optimizer in optimizers:
            for group in optimizer.param_groups:
                group["lr"] = plan.rate * share(step, plan)
            optimizer.step()
        losses.append(float(value.detach()))
        if told is not None:
            told(step, losses[-1])
        if state is not None and time.monotonic() - saved > 60 * plan.minutes:
            _keep(named, optimizers, state, losses)
            saved = time.monotonic()
            if pause is not None:
                pause(step)
    if state is not None:
        _keep(named, optimizers, state, losses)
    return losses


def _optimizers(named: Mapping[str, Tensor], plan: Plan) -> list[torch.optim.Optimizer]:
    hidden = [
        tensor
        for name, tensor in named.items()
        if tensor.ndim == 2 and "embed" not in name and not name.startswith("aid.")
    ]
    chosen = {id(tensor) for tensor in hidden}
    rest = [tensor for tensor in named.values() if id(tensor) not in chosen]
    muon = torch.optim.Muon(
        hidden, lr=plan.rate, weight_decay=plan.decay, adjust_lr_fn="match_rms_adamw"
    )
    adam = torch.optim.AdamW(rest, lr=plan.rate, betas=(0.9, 0.98), weight_decay=0.0)
    return [muon, adam]


def share(step: int, plan: Plan) -> float:
    """The fraction of the full learning rate at a step: linear warm-up, then a cosine to zero."""
    warm = min(plan.warm, plan.steps // 5)
    if step < warm:
        return (step + 1) / warm
    return 0.5 * (1 + math.cos(math.pi * (step - warm) / max(1, plan.steps - warm)))


def _keep(
    named: Mapping[str, Tensor],
    optimizers: list[torch.optim.Optimizer],
    folder: Path,
    losses: list[float],
) -> None:
    """Write a file of tensors, then the JSON file that names it: a crash between the two loses
    nothing."""
    flat: Weights = {f"weight/{name}": tensor.detach() for name, tensor in named.items()}
    for number, optimizer in enumerate(optimizers):
        for index, slots in optimizer.state_dict()["state"].items():
            flat.update({f"slot/{number}/{index}/{name}": one for name, one in slots.items()})
    file = f"at-{len(losses)}.safetensors"
    save(folder / file, flat)
    write_json(folder / "state.json", {"file": file, "losses": losses}, indent=None)
    for old in folder.glob("at-*.safetensors"):
        if old.name != file:
            old.unlink()


def _resume(
    named: Mapping[str, Tensor], optimizers: list[torch.optim.Optimizer], folder: Path | None
) -> list[float]:
    if folder is None or not (folder / "state.json").is_file():
        return []
    kept = read_json(folder / "state.json")
    flat = load(folder / kept["file"])
    slots: list[dict[int, dict[str, Any]]] = [{} for _ in optimizers]
    with torch.no_grad():
        for name, tensor in flat.items():
            kind, rest = name.split("/", 1)
            if kind == "weight":
                named[rest].copy_(tensor)
            else:
                number, index, slot = rest.split("/")
                slots[int(number)].setdefault(int(index), {})[slot] = tensor
    for optimizer, found in zip(optimizers, slots, strict=True):
        optimizer.load_state_dict({**optimizer.state_dict(), "state": found})
    return list(kept["losses"])
