"""The model as methods see it: the one description of what they may read, set and call."""

from collections.abc import Callable
from contextlib import AbstractContextManager
from typing import Any, Protocol

from fcit.types import Gate, State, Tensor, Weights


class Model(Protocol):
    """A base model with K adapters in place (`models.lmm.LMM`). A `batch` is a batch of training samples;
    `batch.each()` gives its samples one by one, each as a batch."""

    prompts: Callable[[Tensor], Tensor] | None
    """Given `base_embeds`, returns embeddings [batch, n, width] that are put before the image's."""

    extra: Any
    """A `torch.nn.ModuleDict` for the method's own modules: their parameters train with the adapters."""

    @property
    def gate(self) -> Gate:
        """How much each adapter gives: the frozen adapters come first, then those that train."""
        ...

    @gate.setter
    def gate(self, value: Gate) -> None: ...

    @property
    def device(self) -> Any:
        """The `torch.device` on which the model computes."""
        ...

    @property
    def layers(self) -> list[str]:
        """The paths of the adapted projections, from the language model's first layer to its last."""
        ...

    def blank(self, rank: int) -> Weights:
        """An adapter's LoRA block of this rank; all zero."""
        ...

    def logits(self, batch: Any) -> tuple[Tensor, Tensor]:
        """Logits [n, vocabulary] at the n answer tokens of a batch, and those tokens [n]."""
        ...

    def loss(self, batch: Any) -> Tensor:
        """Mean cross-entropy over the batch's answer tokens."""
        ...

    def live(self, name: str) -> Weights:
        """An adapter's tensors in place, with their gradients, by the names they have in a State."""
        ...

    def gradient(self, name: str, loss: Tensor) -> Weights:
        """The gradient of a loss by the tensors of `live`, for an adapter that trains."""
        ...

    def base_embeds(self, batch: Any) -> Tensor:
        """Image embeddings [batch, tokens, width] by the untrained projector: they never change. Images
        with unequal numbers of tokens: their means, [batch, 1, width]."""
        ...

    def instead(self, gate: Gate, projector: Weights | None = None) -> AbstractContextManager[None]:
        """Use another gate and, if given, projector inside `with`, without dropout and gradients."""
        ...


def parameters(model: Model, received: State, name: str) -> dict[str, Tensor]:
    """A received extra as parameters of the model, for `equip`: they train with the adapters, and
    `report` sends them back."""
    from torch.nn import Parameter, ParameterDict

    weights = {
        key: Parameter(value.to(model.device, copy=True))
        for key, value in sorted(received.extras[name].items())
    }
    model.extra[name] = ParameterDict({plain(key): value for key, value in weights.items()})
    return dict(weights)


def plain(key: str) -> str:
    """A tensor's name as the name of a parameter, which may contain no dots."""
    return key.replace(".", "/")
