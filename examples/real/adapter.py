"""What alignment changes: a projector and LoRA factors; stored in a small file, and added to the base.

python examples/real/adapter.py aligned.safetensors --base data/real/base --out aligned-base
"""

from __future__ import annotations

import argparse
import json
import shutil
import sys
from pathlib import Path
from typing import Any

import torch
from packages import ROOT
from safetensors import safe_open
from torch import Tensor, nn
from transformers import AutoModelForImageTextToText

from fcit.files import check_new_folder, folder_aside, write_text
from fcit.types import FcitError
from fcit.weights import load, save

SCALE = 2.0  # of B A, as LoRA's alpha / r
PROJECTOR = "projector."


class LowRank(nn.Module):
    """A frozen linear layer plus `scale` B A x. A and B are set from outside before every step."""

    def __init__(self, base: nn.Linear, rank: int):
        super().__init__()
        self.base = base
        self.shapes = ((rank, base.in_features), (base.out_features, rank))
        self.a: Tensor | None = None
        self.b: Tensor | None = None

    def forward(self, x: Tensor) -> Tensor:
        y = self.base(x)
        if self.a is None or self.b is None:
            return y
        return y + (x @ self.a.T) @ self.b.T


class Factors:
    """LoRA factors of all linear layers of a language model, as one flat trained tensor in float32.

    One tensor means one cast and one optimizer step for hundreds of matrices.
    """

    def __init__(self, model: nn.Module, rank: int, seed_stream: torch.Generator):
        self.layers: dict[str, LowRank] = {}
        for path, layer in list(model.named_modules()):
            if isinstance(layer, nn.Linear):
                parent, _, name = path.rpartition(".")
                wrapped = LowRank(layer, rank)
                setattr(model.get_submodule(parent), name, wrapped)
                self.layers[path] = wrapped
        device = next(model.parameters()).device
        parts = []
        for layer in self.layers.values():
            a, b = layer.shapes
            parts.append(torch.randn(a, generator=seed_stream).flatten() * a[1] ** -0.5)
            parts.append(torch.zeros(b).flatten())
        self.sizes = [part.numel() for part in parts]
        self.flat = torch.cat(parts).to(device).requires_grad_(True)

    def set(self, dtype: torch.dtype) -> None:
        """Give the layers their factors, in `dtype`; gradients flow back to `flat`."""
        pieces = iter(self.flat.to(dtype).split(self.sizes))
        for layer in self.layers.values():
            a, b = layer.shapes
            layer.a, layer.b = next(pieces).view(a), next(pieces).view(b) * SCALE

    def weights(self) -> dict[str, Tensor]:
        """The factors by the path of their layer, in bfloat16."""
        pieces = iter(self.flat.detach().cpu().split(self.sizes))
        found = {}
        for path, layer in self.layers.items():
            for name, shape in zip(("A", "B"), layer.shapes, strict=True):
                found[f"{path}.{name}"] = next(pieces).view(shape).bfloat16().clone()
        return found


def store(
    path: Path, factors: dict[str, Tensor], projector: nn.Module, card: dict[str, str]
) -> None:
    """Write the aligned projector and factors, in bfloat16, with what is to be known of them."""
    trained = {
        f"{PROJECTOR}{name}": value.detach().cpu().bfloat16()
        for name, value in projector.state_dict().items()
    }
    save(path, {**trained, **factors}, note=card)


def add(model: Any, trained: dict[str, Tensor]) -> None:
    """Put a stored projector and the products of the stored factors into a FastVLM model.

    The sums are made in float32 and rounded to the model's type once.
    """
    projector = {
        name.removeprefix(PROJECTOR): value
        for name, value in trained.items()
        if name.startswith(PROJECTOR)
    }
    model.model.multi_modal_projector.load_state_dict(projector)
    for name in [name for name in trained if name.endswith(".A")]:
        path = name.removesuffix(".A")
        layer = model.model.language_model.get_submodule(path)
        a, b = trained[name].float(), trained[f"{path}.B"].float()
        layer.weight.data = (layer.weight.float() + SCALE * (b @ a)).to(layer.weight.dtype)


def note(path: Path) -> dict[str, str]:
    """What a stored file says of itself."""
    with safe_open(path, "pt") as file:
        return dict(file.metadata() or {})


def apply(path: Path, base: Path, out: Path) -> None:
    """Write the base with what a stored file adds to it, and a model card, whole or not at all."""
    if not (base / "config.json").exists():
        raise FcitError(f"{base}: no base; make it with base.py")
    trained, card = load(path), note(path)
    model: Any = AutoModelForImageTextToText.from_pretrained(base, dtype="auto")
    try:
        add(model, trained)
    except (RuntimeError, AttributeError, KeyError) as error:
        raise FcitError(f"{path}: does not fit {base}: {error}") from None
    with folder_aside(out) as aside:
        model.save_pretrained(aside)
        for file in base.iterdir():
            if not (aside / file.name).exists() and file.suffix in (".json", ".jinja"):
                shutil.copy(file, aside / file.name)
        write_text(aside / "README.md", model_card(card))


def model_card(card: dict[str, str]) -> str:
    """The aligned base's model card, with the settings and losses of its alignment."""
    lines = "\n".join(f"* {key}: {value}" for key, value in sorted(card.items()))
    return f"""# An image-text-to-text model of 139 million parameters

EfficientNet-Lite0 (ImageNet; Apache-2.0), a projector of two layers, and SmolLM2-135M-Instruct
(Apache-2.0; 4-bit weights, dequantized), joined as transformers' FastVLM: 49 tokens for an image of
224 x 224 pixels. The projector, and LoRA factors that are added to the language model, learned from
captions of emoji, clip art and Tux Paint's stamps; examples/real/README.md of fcit lists sources and
licenses. It is for experiments with federated tuning: it names simple drawings, and often wrongly.

{lines}
"""


def main() -> None:
    """Read the options and write the aligned base."""
    parser = argparse.ArgumentParser(description=__doc__)
    here = Path(__file__).resolve().parent / "aligned.safetensors"
    parser.add_argument("file", nargs="?", type=Path, default=here, help="what align.py stored")
    parser.add_argument("--base", type=Path, default=ROOT / "base", help="the base's folder")
    parser.add_argument("--out", type=Path, default=ROOT / "base-aligned", help="folder to write")
    options = parser.parse_args()
    check_new_folder(options.out)
    apply(options.file, options.base, options.out)
    print(f"{options.out}: {json.dumps(note(options.file))}")


if __name__ == "__main__":
    try:
        main()
    except (FcitError, OSError) as error:
        print(f"adapter.py: {error}", file=sys.stderr)
        sys.exit(2)
