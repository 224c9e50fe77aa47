"""The last layer's MLP at the one position whose hidden state a first token needs.

An MLP computes each position from itself alone, and no layer follows the last. So while a prompt is read,
what the last MLP would give before the prompt's last token changes no answer, and is not computed.
"""

from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from typing import Any

from torch import Tensor, nn
from torch.nn import functional as F


def last_mlp(model: nn.Module, adapted: Iterable[str]) -> nn.Module | None:
    """The MLP of the last layer: a module that holds this layer's adapted projections, and no other
    weights. None where there is no such module, as with a router of experts.

    adapted: the projections' paths, in the order of the layers.
    """
    *_, path = (each.rpartition(".")[0] for each in adapted)
    layer = path.rpartition(".")[0]
    layers, mlp = model.get_submodule(layer.rpartition(".")[0]), model.get_submodule(path)
    own = {each.removeprefix(f"{path}.") for each in adapted if each.startswith(f"{layer}.")}
    weights = {name.partition(".")[0] for name, _ in mlp.named_parameters()}
    last = isinstance(layers, nn.ModuleList) and layers[-1] is model.get_submodule(layer)
    return mlp if last and own == weights else None


@contextmanager
def last_position_only(mlp: nn.Module | None) -> Iterator[None]:
    """Inside, an MLP [batch, seq, width] computes the last position only; the others get 0."""
    if mlp is None:
        yield
        return
    whole = mlp.forward

    def forward(x: Tensor, *more: Any, **named: Any) -> Tensor:
        last = whole(x[:, -1:].contiguous(), *more, **named)
        return F.pad(last, (0, 0, x.shape[1] - 1, 0))

    mlp.forward = forward
    try:
        yield
    finally:
        mlp.forward = whole
