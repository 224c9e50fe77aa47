"""The two sides of a comparison: our model, and the same model with PEFT's LoRA in the same places."""

from __future__ import annotations

import warnings
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from torch import nn

from fcit.models.lmm import LMM
from fcit.types import State, Weights


class PeftLMM(LMM):
    """An LMM whose MLP projections are PEFT's instead of ours, on the weights of another LMM.

    All else is ours on both sides: the client's loop, its optimizer and batches, the loss, generation. So
    what differs in time is the adapted layers. Its adapters are called "0", "1", ...; the first is
    active.
    """

    def __init__(
        self, folder: Path, ours: LMM, rank: int, scale: float, dropout: float, count: int
    ):
        from peft import LoraConfig, get_peft_model

        super().__init__(folder, str(ours.device), ours.model.dtype)
        self.cache = ours.cache
        same = {name.replace(".base.", "."): one for name, one in ours.model.named_parameters()}
        for path, layer in self.subspaces.layers.items():
            parent, _, leaf = path.rpartition(".")
            setattr(self.model.get_submodule(parent), leaf, layer.base)
        for name, own in self.model.named_parameters():
            own.data = same[name].data
        alpha: Any = scale * rank  # LoraConfig says int; a float is as good
        config = LoraConfig(
            r=rank, lora_alpha=alpha, lora_dropout=dropout, target_modules=self.layers
        )
        with warnings.catch_warnings():  # PEFT asks transformers for a name that it gave up
            warnings.filterwarnings("ignore", message=".*is_gradient_checkpointing")
            self.peft: Any = get_peft_model(self.model, config, "0")
            for name in map(str, range(1, count)):
                self.peft.add_adapter(name, config)
        self.peft.eval()
        self.numbers(self.model.dtype)

    def numbers(self, dtype: torch.dtype) -> None:
        """The adapters' number format: PEFT's own choice is float32, the model's is faster."""
        for name, value in self.peft.named_parameters():
            if ".lora_" in name:
                value.data = value.data.to(dtype)

    def put(self, adapters: dict[str, Weights]) -> None:
        """Take over blocks, name by name."""
        from peft import set_peft_model_state_dict

        for name, block in adapters.items():
            set_peft_model_state_dict(self.peft, block, name)

    def receive(
        self, state: State, scale: float, train: Sequence[str] = (), train_projector: bool = False
    ) -> None:
        """Put the state's projector in place, and its one adapter (if it is to learn) in the first's."""
        super().receive(State({}, state.extras), scale, (), train_projector)
        for name in train:
            self.put({"0": state.adapters[name]})
        self.peft.set_adapter("0")
        for part in self.model.modules():
            if isinstance(part, nn.Dropout):
                part.train(bool(train))

    def adapter(self, name: str) -> Weights:
        """The active adapter as it now stands."""
        parts = self.peft.named_parameters()
        return {key: one.detach().cpu().float() for key, one in parts if one.requires_grad}

    def adapter_parameters(self) -> list[nn.Parameter]:
        """The active adapter's."""
        return [value for value in self.peft.parameters() if value.requires_grad]

    @contextmanager
    def mixed(self, names: Sequence[str]) -> Iterator[None]:
        """For a while each sample of a batch has the adapter of its name (as PEFT's own `generate` with
        adapter_names= does it)."""
        with self.peft._enable_peft_forward_hooks(adapter_names=list(names)):
            yield
