"""The other side of the comparison: the same model with PEFT's LoRA in the same layers."""

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

    Everything else is ours on both sides: the client's loop, its optimizer and batches, the loss,
    generation. So only the adapted layers differ in time. Its adapters are "0", "1", ...; the first is
    active.
    """

    def __init__(
        self, folder: Path, ours: LMM, rank: int, scale: float, dropout: float, count: int
    ):
        from peft import LoraConfig, get_peft_model

        super().__init__(folder, str(ours.device), ours.model.dtype)
        self.cache = ours.cache
        weights = {name.replace(".base.", "."): x for name, x in ours.model.named_parameters()}
        for path, layer in self.subspaces.layers.items():
            self.model.set_submodule(path, layer.base)
        for name, value in self.model.named_parameters():
            value.data = weights[name].data
        alpha: Any = scale * rank  # declared as int, but a float works
        config = LoraConfig(
            r=rank, lora_alpha=alpha, lora_dropout=dropout, target_modules=self.layers
        )
        with warnings.catch_warnings():  # PEFT uses an attribute that transformers deprecated
            warnings.filterwarnings("ignore", message=".*is_gradient_checkpointing")
            self.peft: Any = get_peft_model(self.model, config, "0")
            for name in map(str, range(1, count)):
                self.peft.add_adapter(name, config)
        self.peft.eval()
        self.numbers(self.model.dtype)

    def numbers(self, dtype: torch.dtype) -> None:
        """Set the adapters' number format: PEFT's default is float32, the model's is faster."""
        for name, value in self.peft.named_parameters():
            if ".lora_" in name:
                value.data = value.data.to(dtype)

    def put(self, adapters: dict[str, Weights]) -> None:
        """Copy blocks into the adapters of the same names."""
        from peft import set_peft_model_state_dict

        for name, block in adapters.items():
            set_peft_model_state_dict(self.peft, block, name)

    def receive(
        self,
        state: State,
        scale: float,
        train: Sequence[str] = (),
        train_projector: bool = False,
        train_down: bool = True,
    ) -> None:
        """Load the state's projector, and the adapter to train (if any) into adapter "0"."""
        super().receive(State({}, state.extras), scale, (), train_projector)
        for name in train:
            self.put({"0": state.adapters[name]})
        self.peft.set_adapter("0")
        for module in self.model.modules():
            if isinstance(module, nn.Dropout):
                module.train(bool(train))

    def adapter(self, name: str) -> Weights:
        """The active adapter as it now stands, under the names in PEFT's files."""
        return {
            key.replace(".0.weight", ".weight"): value.detach().cpu().float()
            for key, value in self.peft.named_parameters()
            if value.requires_grad
        }

    def adapter_parameters(self) -> list[nn.Parameter]:
        """The active adapter's parameters."""
        return [value for value in self.peft.parameters() if value.requires_grad]

    @contextmanager
    def mixed(self, names: Sequence[str]) -> Iterator[None]:
        """Inside, each sample of a batch uses the adapter with its name (as PEFT's `generate` does with
        adapter_names=)."""
        with self.peft._enable_peft_forward_hooks(adapter_names=list(names)):
            yield
