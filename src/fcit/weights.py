"""Arithmetic on Weights, and their one form on disk and on a wire (safetensors)."""

from __future__ import annotations

from collections.abc import Generator, Iterable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any

from fcit.files import reading, written_aside
from fcit.types import FcitError, Parts, State, Update, Weights, naming

if TYPE_CHECKING:
    import torch
    from torch import Tensor


PEFT_PREFIX = "base_model.model."
"""What PEFT puts before a layer's path in the names of a LoRA block's tensors."""

DOWN, UP = ".lora_A.weight", ".lora_B.weight"
"""The ends of the names of LoRA's factors A and B."""

LOW_A, LOW_B = ".A", ".B"
"""The ends of the names of the factors of a projector's LoRA."""

REST = "rest"
"""The extra with the rows of A and columns of B that a client of a lower rank does not train."""


@contextmanager
def threads(count: int) -> Generator[None]:
    """Inside, torch computes with so many CPU threads, which the last bits of sums depend on, and as in a
    new process: without the caller's autocast, default type, precision of products, or `no_grad`."""
    import torch

    with ExitStack() as stack:
        stack.callback(torch.set_num_threads, torch.get_num_threads())
        stack.callback(torch.set_default_dtype, torch.get_default_dtype())
        torch.set_num_threads(count)
        torch.set_default_dtype(torch.float32)
        with suppress(RuntimeError):  # where the caller has set `fp32_precision`, which stays
            stack.callback(torch.set_float32_matmul_precision, torch.get_float32_matmul_precision())
            torch.set_float32_matmul_precision("highest")
        for kind in filter(torch.is_autocast_enabled, ("cpu", "cuda", "mps", "xpu")):
            stack.enter_context(torch.autocast(kind, enabled=False))
        with torch.inference_mode(False), torch.enable_grad():
            yield


def tensor_names(path: str) -> tuple[str, str]:
    """PEFT's names of a layer's factors A and B."""
    return PEFT_PREFIX + path + DOWN, PEFT_PREFIX + path + UP


def factors(block: Weights) -> dict[str, tuple[Tensor, Tensor]]:
    """A LoRA block's factors by the path of their layer: A [r, in] and B [out, r]."""
    paths = [key[len(PEFT_PREFIX) : -len(DOWN)] for key in block if key.endswith(DOWN)]
    names = {path: tensor_names(path) for path in paths}
    return {path: (block[a], block[b]) for path, (a, b) in names.items()}


def joined(blocks: Sequence[Weights]) -> Weights:
    """LoRA blocks that are open together as one, of the sum of their ranks."""
    from torch import cat

    return {
        name: cat([block[name] for block in blocks], dim=int(name.endswith(UP)))
        for name in blocks[0]
    }


def ending(block: Mapping[str, Tensor], end: str, negate: bool = False) -> Weights:
    """The tensors of a block whose names have this end; `negate`: the others."""
    return {key: block[key] for key in block if key.endswith(end) != negate}


def redrawn(block: Weights, std: float, noise: torch.Generator) -> Weights:
    """A block whose factors A are drawn again from N(0, std^2), layer by layer in order of path."""
    fresh = dict(block)
    for path, (a, _) in sorted(factors(block).items()):
        fresh[tensor_names(path)[0]] = a.new_empty(a.shape).normal_(0, std, generator=noise)
    return fresh


def mean(parts: Iterable[Mapping[str, Tensor]], counts: Sequence[int]) -> Weights:
    """The average of `parts` weighted by `counts`, summed in the order given.

    Only one part is in memory at a time if the parts are read from files.
    Raises FcitError when the parts do not hold the same tensors.
    """
    total = sum(counts)
    result: Weights = {}
    for number, (part, count) in enumerate(zip(parts, counts, strict=True)):
        if not number:
            result = {name: value * (count / total) for name, value in part.items()}
            continue
        if part.keys() != result.keys():
            lacking = min(part.keys() ^ result.keys())
            raise FcitError(f"updates cannot be averaged: tensor {lacking} is not in all of them")
        for name in result:
            result[name] += part[name] * (count / total)
    return result


def summed(terms: Iterable[Tensor | float]) -> Tensor:
    """The sum of a scalar tensor and more scalars, on the first one's device: a model's layers may be on
    several."""
    first, *rest = terms
    total: Any = first
    for term in rest:
        total = total + (term if isinstance(term, int | float) else term.to(total.device))
    return total


def cosine(a: Tensor, b: Tensor) -> Tensor:
    """Cosine similarities of the rows of `a` [n, d] and `b` [m, d]: [n, m]."""
    from torch.nn.functional import normalize

    return normalize(a, dim=-1) @ normalize(b, dim=-1).T


def nbytes(weights: Mapping[str, Tensor]) -> int:
    """How many bytes the tensors take on a wire."""
    return sum(tensor.numel() * tensor.element_size() for tensor in weights.values())


def state_bytes(parts: Parts) -> int:
    """How many bytes several named Weights take on a wire."""
    return sum(nbytes(weights) for weights in parts.values())


KINDS = ("adapters", "extras", "optimizer")
"""The three kinds of named Weights in a State and an Update."""

MEMORY = "memory/"
"""Prefix of a client's memory beside `flatten`'s names."""


def kinds(value: State | Update) -> tuple[Parts, Parts, Parts]:
    """A State's or an Update's named Weights, in the order of KINDS."""
    return value.adapters, value.extras, value.optimizer


def find_nonfinite(parts: Parts, checked: Parts) -> str:
    """The name of the first tensor with a number that is not finite; "" where there is none. Weights that
    are also in `checked` are skipped."""
    for name, weights in parts.items():
        if weights is checked.get(name):
            continue
        for key, value in weights.items():
            if value.is_floating_point() and not value.isfinite().all():
                return f"{name}: {key}"
    return ""


def flatten(value: State | Update, memory: Weights | None = None) -> Weights:
    """A State or an Update as one flat dict: `adapters/<name>/<tensor>`, `extras/...`,
    `optimizer/...`; with a client's memory as `memory/<name>`.

    Raises FcitError for a name with a slash, which `unflatten` would take for a shorter one."""
    named = [name for parts in kinds(value) for name in parts]
    if wrong := next((name for name in named if "/" in name), None):
        raise FcitError(f"{wrong!r}: names of adapters, extras and optimizer parts have no slash")
    flat = {
        f"{kind}/{name}/{key}": tensor
        for kind, parts in zip(KINDS, kinds(value), strict=True)
        for name, weights in parts.items()
        for key, tensor in weights.items()
    }
    return flat | {MEMORY + name: tensor for name, tensor in (memory or {}).items()}


def split_prefix(weights: Weights, prefix: str) -> tuple[Weights, Weights]:
    """The tensors whose names do not start with a prefix, and the others without it."""
    rest = {name: value for name, value in weights.items() if not name.startswith(prefix)}
    return rest, {name[len(prefix) :]: weights[name] for name in weights if name not in rest}


def unflatten(flat: Weights) -> State:
    """The inverse of `flatten`."""
    parts: dict[str, dict[str, Weights]] = {kind: {} for kind in KINDS}
    for path, tensor in flat.items():
        kind, name, key = path.split("/", 2)
        parts[kind].setdefault(name, {})[key] = tensor
    return State(*parts.values())


def to_bytes(weights: Mapping[str, Tensor], note: Mapping[str, str] | None = None) -> bytes:
    """Weights in the safetensors format: the same tensors give the same bytes, but safetensors orders the
    keys of `note` in the header by chance. A tensor under two names is written twice."""
    from safetensors.torch import save

    tensors: Weights = {}
    pointers: set[int] = set()
    for name in sorted(weights):
        tensor = weights[name].contiguous()
        pointer = tensor.untyped_storage().data_ptr()
        tensors[name] = tensor.clone() if pointer in pointers else tensor
        pointers.add(pointer)
    return save(tensors, dict(note) if note else None)


def from_bytes(data: bytes) -> Weights:
    """The inverse of `to_bytes`. Raises FcitError when the bytes are not safetensors."""
    from safetensors.torch import load

    try:
        return dict(sorted(load(data).items()))  # safetensors' own order differs from call to call
    except Exception as error:  # safetensors raises almost anything on a bad header
        raise FcitError(f"not a safetensors message: {error}") from None


def save(
    path: Path, weights: Weights, durable: bool = True, note: Mapping[str, str] | None = None
) -> None:
    """Write a safetensors file, whole or not at all."""
    with written_aside(path, durable) as aside:
        aside.write_bytes(to_bytes(weights, note))


class Stored(Mapping[str, "Tensor"]):
    """The tensors under a prefix in a safetensors file, each read on use."""

    def __init__(self, path: Path, prefix: str, names: Sequence[str]):
        self.path, self.prefix, self.names = path, prefix, names
        self.file: Any = None

    def __getitem__(self, name: str) -> Tensor:
        if name not in self.names:
            raise KeyError(name)
        if self.file is None:
            from safetensors import safe_open

            self.file = safe_open(self.path, "pt")
        return self.file.get_tensor(self.prefix + name)

    def __iter__(self) -> Iterator[str]:
        return iter(self.names)

    def __len__(self) -> int:
        return len(self.names)


class StoredParts(Mapping[str, Stored]):
    """Named Weights in a safetensors file in the form of `flatten`: those of one kind."""

    def __init__(self, path: Path, kind: str, keys: Iterable[str]):
        self.path, self.kind = path, kind
        self.names: dict[str, list[str]] = {}
        for key in sorted(keys):
            first, name, rest = key.split("/", 2)
            if first == kind:
                self.names.setdefault(name, []).append(rest)

    def __getitem__(self, name: str) -> Stored:
        return Stored(self.path, f"{self.kind}/{name}/", self.names[name])

    def __iter__(self) -> Iterator[str]:
        return iter(self.names)

    def __len__(self) -> int:
        return len(self.names)


def low_rank(projector: Weights, rank: int, std: float, noise: torch.Generator) -> Weights:
    """LoRA factors of a projector's matrices [out, in], by their names: A [r, in] from N(0, std^2), and B
    [out, r] of zeros. Raises FcitError for a projector without matrices."""
    from torch import zeros

    made: Weights = {}
    for name, value in sorted(projector.items()):
        if value.dim() == 2:
            made[name + LOW_A] = zeros(rank, value.shape[1]).normal_(0, std, generator=noise)
            made[name + LOW_B] = zeros(value.shape[0], rank)
    if not made:
        raise FcitError('method.projector: "lora" needs a projector with matrices; use "shared"')
    return made


def whole_projector(base: Weights, trained: Weights, scale: float) -> Weights:
    """The projector that `trained` is, or the base's W + scale B A where it holds LoRA factors."""
    if not any(name.endswith(LOW_A) for name in trained):
        return trained
    whole: Weights = {}
    for name, value in base.items():
        a, b = trained.get(name + LOW_A), trained.get(name + LOW_B)
        if a is None or b is None:
            whole[name] = value.to(next(iter(trained.values())).dtype)
        else:
            whole[name] = value.to(a) + scale * (b @ a)
    return whole


def load(path: Path) -> Weights:
    """Read a safetensors file. Raises FcitError naming the file when it cannot be read."""
    with reading(path), naming(str(path)):
        return from_bytes(path.read_bytes())
