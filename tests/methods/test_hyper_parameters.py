"""A method's fields say which values they allow, and a recipe with another value is refused."""

from __future__ import annotations

import pytest

from fcit.methods import find
from fcit.recipe.config import validate
from fcit.types import FcitError

WRONG = {
    "finetune": [{"rank": 0}, {"scale": 0.0}, {"init_std": float("inf")}, {"projector": "none"}],
    "disco": [
        {"tau": 2.0},
        {"temperature": 0.0},
        {"max_subspaces": -1},
        {"gate": "none"},
        {"at_limit": "none"},
        {"at_limit": "skip", "as_reference": True},
    ],
    "ewc": [{"ewc_lambda": -1.0}, {"fisher_samples": 0}],
    "fedprotip": [
        {"threshold": 1.0},
        {"threshold": 0.0},
        {"directions": 0},
        {"projector": "isolated"},
        {"projector": "lora"},
    ],
    "hide": [{"temperature": 0.0}, {"projector": "isolated"}, {"merge": "none"}],
    "l2p": [
        {"pool": 0},
        {"length": 0},
        {"top_k": 11},
        {"pull_weight": -1.0},
        {"start_from": "zero"},
        {"start_range": 0.0},
        {"projector": "isolated"},
    ],
    "lwf": [{"distillation_weight": -1.0}, {"distillation_temperature": 0.0}],
    "moelora": [{"experts": 0}, {"projector": "isolated"}],
    "olora": [
        {"orthogonality": float("nan")},
        {"projector": "isolated"},
        {"projector": "lora"},
    ],
    "replay": [{"buffer": 0}],
}


@pytest.mark.parametrize(
    ("method", "wrong"),
    [(method, wrong) for method, cases in WRONG.items() for wrong in cases],
    ids=str,
)
def test_impossible_hyper_parameters_are_refused(method: str, wrong: dict) -> None:
    with pytest.raises(FcitError, match=f"method.{next(iter(wrong))}"):
        validate({"method": {"name": method, **wrong}})
    with pytest.raises(FcitError, match=f"^method.{next(iter(wrong))}: [^\n]*$"):
        find(method)(**wrong)


def test_values_at_the_bounds_are_allowed() -> None:
    table = {"name": "disco", "tau": -1, "max_subspaces": 0, "temperature": 1e-9}
    assert validate({"method": table}).method.tau == -1.0
