"""The mini models, read once by a process and copied for whoever loads them again."""

from __future__ import annotations

import copy
import functools
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

LOADERS = {
    "fcit.models.loading": ("load_weights", "load_processor"),
    "fcit.models.identity": ("load_weights", "pretrained"),
}
"""By module: the names under which it calls what reads a model's folder."""


def install() -> None:
    """Let the modules that are imported already read a mini model once."""
    for name, loaders in LOADERS.items():
        if module := sys.modules.get(name):
            for loader in loaders:
                if not hasattr(load := getattr(module, loader), "__wrapped__"):
                    setattr(module, loader, once(load))


def fill() -> None:
    """Read the mini models, so that this process's forks have them."""
    from fcit.models import CHECKPOINTS
    from fcit.models.identity import Encoder
    from fcit.models.lmm import LMM

    LMM(CHECKPOINTS / "mini-lmm")
    Encoder(CHECKPOINTS / "mini-clip")


def once(load: Callable[..., Any]) -> Callable[..., Any]:
    """`load`, which gives copies of what it has read of the package's own checkpoints."""
    from fcit.models import CHECKPOINTS

    kept: dict[Any, Any] = {}

    @functools.wraps(load)
    def loaded(*given: Any, **options: Any) -> Any:
        if not any(
            isinstance(one, str | Path) and Path(one).parent == CHECKPOINTS for one in given
        ):
            return load(*given, **options)
        key = (*map(str, given), *map(str, options.items()))
        if key not in kept:
            kept[key] = load(*given, **options)
        return copy.deepcopy(kept[key])

    return loaded
