"""Recipe keys that were renamed: the old names still load, with a line that says the new ones."""

import sys
from collections.abc import Collection
from functools import cache
from typing import Any

from fcit.types import FcitError

RENAMED = {
    "model.features": "cache_features",
    "federation.minimum": "min_samples",
    "federation.absurd": "outlier_factor",
    "federation.lying": "byzantine_share",
    "privacy.clip": "clip_norm",
    "privacy.noise": "noise_multiplier",
    "privacy.repeatable": "seeded_noise",
    "evaluation.ahead": "forward_transfer",
    "evaluation.general": "general_questions",
    "method.subspaces": "max_subspaces",
    "method.distillation": "distillation_weight",
    "method.softening": "distillation_temperature",
    "method.consolidation": "ewc_lambda",
    "method.chosen": "top_k",
    "method.attraction": "pull_weight",
    "method.sharpness": "temperature",
}
"""A key's old name, and the new one in the same section."""


def rename(table: dict[str, Any], method: Collection[str], overrule: bool = False) -> list[str]:
    """Give the keys of a recipe's table their new names, in place, and return the old ones.

    method: the keys that the recipe's method has; one of these is never renamed. overrule: a key under
    its old name counts where both are given; otherwise FcitError is raised.
    """
    renamed: list[str] = []
    for old, name in RENAMED.items():
        section, _, key = old.partition(".")
        values = table.get(section)
        if not isinstance(values, dict) or key not in values:
            continue
        if section == "method" and (key in method or name not in method):
            continue
        if old == "evaluation.general" and isinstance(values[key], str):
            continue  # it names a folder now
        if name in values and not overrule:
            raise FcitError(f"{old} is now {section}.{name}; give one of the two")
        values[name] = values.pop(key)
        renamed.append(old)
    return renamed


@cache  # a sweep loads the same recipe many times
def announce(source: str, renamed: tuple[str, ...]) -> None:
    """Print which keys of a recipe have new names, in one line on standard error."""
    pairs = (f"{old} is now {old.partition('.')[0]}.{RENAMED[old]}" for old in renamed)
    print(f"{source}: {', '.join(pairs)}", file=sys.stderr)
