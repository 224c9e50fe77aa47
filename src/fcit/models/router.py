"""Choose and open the adapters of this folder for an instruction; needs torch, transformers and peft.

    model = load(folder, AutoModelForImageTextToText.from_pretrained(base))
    weights = Router(folder, encoder).weights("How many icons are there?")
    open_adapters(model, weights)    # then model.generate(...), for this instruction

It belongs to a folder written by `fcit export --all`, which puts encoding.py beside it. Neither imports
anything else of fcit.
"""

import copy
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file
from torch import Tensor, nn
from torch.nn.functional import cosine_similarity

from fcit.models.encoding import Features


class Router:
    """How much each adapter gives for an instruction, by the identity tokens in this folder or, where the
    run routed by discriminant analysis, by its weights.

    encoder: the folder or hub id of the encoder that made the tokens (router.json names it). A run that
    does not route needs none.
    """

    def __init__(self, folder: str | Path, encoder: str | Path = ""):
        folder = Path(folder)
        self.facts = json.loads((folder / "router.json").read_text(encoding="utf-8"))
        self.names: list[str] = self.facts["adapters"]
        self.kind: str | None = self.facts["token"]
        if self.kind is not None:
            self.compared = load_file(folder / "identity.safetensors")
            self.features = Features(encoder)

    def weights(self, prompt: str, image: Any = None) -> dict[str, float]:
        """The activation factor of every adapter. image: a square PIL image in RGB, only where
        router.json says that tokens are made of images ("image", "both")."""
        if self.facts["gate"] == "choose":
            raise ValueError("this run does not route; give weights yourself, such as {name: 1.0}")
        if self.kind is None:
            return dict.fromkeys(self.names, 1.0)
        likeness = self._likeness(prompt, image)
        if self.facts["gate"] == "softmax":
            empty = likeness.new_zeros(max(0, self.facts["slots"] - len(likeness)))
            every = torch.cat([likeness, empty]) / self.facts["temperature"]
            shares = every.softmax(dim=0)[: len(likeness)]
        elif self.facts["gate"] == "argmax":
            shares = (likeness == likeness.max()).float()
            shares = shares / shares.sum()
        elif self.facts["gate"] == "cosine":
            shares = likeness
        else:
            shares = torch.ones_like(likeness)
        return dict(zip(self.names, shares.tolist(), strict=True))

    def _likeness(self, prompt: str, image: Any) -> Tensor:
        """Cosines [K], those of text and image averaged; or the scores of a discriminant analysis."""
        parts = [self.features.texts([prompt])] if self.kind != "image" else []
        if self.kind != "text":
            if image is None:
                raise ValueError("this run routes by images as well; give the image too")
            parts.append(self.features.images([image]))
        if "weights" in self.compared:
            feature = torch.cat(parts, dim=1)[0].double()
            return self.compared["weights"] @ feature + self.compared["bias"]
        tokens = self.compared["tokens"].chunk(len(parts), dim=1)
        cosines = [cosine_similarity(a, b) for a, b in zip(parts, tokens, strict=True)]
        return torch.stack(cosines).mean(dim=0)


class Projectors(nn.Module):
    """The adapters' own projectors, their outputs mixed by the adapters' weights."""

    def __init__(self, base: nn.Module, parts: Mapping[str, Mapping[str, Tensor]]):
        super().__init__()
        self.parts = nn.ModuleDict({_module(name): copy.deepcopy(base) for name in parts})
        for name, tensors in parts.items():
            self.parts[_module(name)].load_state_dict(tensors)
        self.weights: dict[str, float] = dict.fromkeys(parts, 1.0)

    def forward(self, features: Tensor) -> Tensor:
        """Image embeddings of vision features."""
        total = sum(self.weights.values())
        opened = {name: weight / total for name, weight in self.weights.items() if weight}
        return sum(weight * self.parts[_module(name)](features) for name, weight in opened.items())  # type: ignore


def load(folder: str | Path, base: nn.Module) -> Any:
    """The base model with all adapters of this folder beside each other, and the run's projector."""
    from peft import PeftModel

    folder = Path(folder)
    facts = json.loads((folder / "router.json").read_text(encoding="utf-8"))
    names, shared = facts["adapters"], folder / "projector.safetensors"
    own = {name: folder / "adapters" / name / "projector.safetensors" for name in names}
    for path, prefix in facts["projector"].items():
        if shared.is_file():
            base.get_submodule(path).load_state_dict(_under(prefix, shared))
        if all(file.is_file() for file in own.values()):
            parent, _, leaf = path.rpartition(".")
            parts = {name: _under(prefix, file) for name, file in own.items()}
            setattr(base.get_submodule(parent), leaf, Projectors(base.get_submodule(path), parts))
    first, *_ = inner = list(map(_module, names))
    model: Any = PeftModel.from_pretrained(base, folder / "adapters" / names[0], adapter_name=first)
    for name in names[1:]:
        model.load_adapter(folder / "adapters" / name, adapter_name=_module(name))
    model.base_model.set_adapter(inner)
    return model.eval()


def _module(name: str) -> str:
    """An adapter's name as a torch module may have it: without a dot."""
    return name.replace(".", "%2E")


def _under(prefix: str, path: Path) -> dict[str, Tensor]:
    """A file's tensors of one part of the projector, by their names in it."""
    tensors = load_file(path).items()
    return {name[len(prefix) :]: value for name, value in tensors if name.startswith(prefix)}


def open_adapters(model: Any, weights: Mapping[str, float]) -> None:
    """Let every adapter give as much as `weights` says, until the next call."""
    for module in model.modules():
        if isinstance(module, Projectors):
            module.weights = dict(weights)
        elif hasattr(module, "set_scale"):
            for name, weight in weights.items():
                module.set_scale(_module(name), weight)
