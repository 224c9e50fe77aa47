"""A rule of one's own, held to what a rule promises: whatever it raises or returns becomes one line."""

from functools import wraps
from pathlib import Path
from traceback import extract_tb
from typing import Any

from fcit.benchmark.records import RecordError
from fcit.benchmark.rules.base import Accuracy, Rule
from fcit.types import FcitError, first_line, one_line

HOOKS = {
    "truth": (
        (str,),
        "text",
        '; raise RecordError("{field}: ...") for a truth that the rule cannot read',
    ),
    "check": (
        (type(None),),
        "nothing",
        '; raise RecordError("answer: ...") for an answer that cannot be right',
    ),
    "right": (
        (bool, int, float),
        "True, False or a number from 0 to 1",
        "; return False for an answer that cannot be read",
    ),
    "best_constant": ((str,), "text", ""),
    "score": ((Accuracy,), "an Accuracy", ""),
}
"""What each method may return, in words too, and what to do instead of raising anything else."""


def guard(rule: Rule, path: Path) -> Rule:
    """The rule itself, whose methods now raise only what a rule may: RecordError where a record is at
    fault, else FcitError, with the place in the file at `path`, which is as its code
    object has it."""
    for name in HOOKS:
        object.__setattr__(rule, name, _guarded(rule, name, path))
    return rule


def _guarded(rule: Rule, name: str, path: Path) -> Any:
    method, (kinds, promised, instead) = getattr(rule, name), HOOKS[name]
    of_record = name in ("truth", "check")
    fault = RecordError if of_record else FcitError
    called = f"{type(rule).__name__}.{name}"

    @wraps(method)
    def guarded(*given: Any) -> Any:
        asked = f"{called}({', '.join(map(repr, given))})" if name == "right" else called
        try:
            value = method(*given)
            if name == "right" and hasattr(value, "item"):  # NumPy's and PyTorch's scalars
                value = value.item()
        except fault:
            raise
        except (Exception, SystemExit) as error:
            lines = [
                at.lineno for at in extract_tb(error.__traceback__) if at.filename == str(path)
            ]
            where = f"{path.name}, line {lines[-1]}" if lines else path.name
            kind = type(error).__name__
            reason = kind if first_line(error) == kind else f"{kind}: {first_line(error)}"
            advice = (
                instead.format(field=rule.field) if lines else ""
            )  # else it takes other arguments
            raise fault(f"{where}: {one_line(asked)} raised {reason}{advice}") from None
        fits = isinstance(value, kinds) and (name != "right" or 0 <= value <= 1)
        if not fits:
            got = one_line(repr(value))
            raise fault(f"{path.name}: {one_line(asked)} must return {promised}, not {got}")
        return value

    return guarded
