"""What a method's hooks return, checked before it is sent, kept or used."""

from __future__ import annotations

from collections.abc import Mapping
from math import isfinite
from typing import TYPE_CHECKING

from fcit.methods.base import Method, Query
from fcit.types import FcitError, State
from fcit.weights import find_nonfinite, kinds

if TYPE_CHECKING:
    from typing import Any

    from fcit.types import Weights


def checked(method: Method, hook: str, after: State, before: State | None = None) -> State:
    """The state that a hook returned. Raises FcitError, naming the method, the hook and the part, unless
    it is a State that can be sent and stored, and is finite in what it changed of the state before."""
    if not isinstance(after, State):
        raise FcitError(f"{method.name}: {hook} returned {_kind(after)}; it must return a State")
    for kind in ("adapters", "extras"):
        if fault := _fault(kind, getattr(after, kind)):
            raise FcitError(f"{method.name}: {hook} left {fault}")
    for parts, old in zip(kinds(after), kinds(before), strict=True) if before else ():
        if tensor := find_nonfinite(parts, old):
            lower = ", or start again with a lower federation.outlier_factor" * (hook == "end")
            raise FcitError(
                f"{method.name}: {hook} made numbers that are not finite ({tensor}) of numbers that are; "
                f"repair the method{lower}"
            )
    return after


def _fault(kind: str, parts: Mapping[str, Weights]) -> str:
    if not isinstance(parts, Mapping):
        return f"{_kind(parts)} in {kind}, which must be a dict"
    for name, weights in parts.items():
        place = f"{kind}[{name!r}]"
        if not isinstance(name, str) or "/" in name:
            return f"{place}; a name is text without a slash"
        if not isinstance(weights, Mapping):
            return f"{_kind(weights)} in {place}, which must be a dict of tensors"
        for key, tensor in weights.items():
            if not hasattr(tensor, "is_floating_point"):
                return f"{_kind(tensor)} in {place}[{key!r}]; {kind} hold tensors"
    return ""


def _kind(value: object) -> str:
    name = type(value).__name__
    return "None" if value is None else f"{'an' if name[0] in 'aeiou' else 'a'} {name}"


def heirs(method: Method, state: State) -> dict[str, str]:
    """For every adapter that has merged into another, by name: the one that it is in now.

    Raises FcitError where it is still there itself, or is in none that is."""
    into, found = _mapping(method, "heirs", method.heirs(state)), dict[str, str]()
    for gone in into:
        heir, steps = into[gone], len(into)
        while isinstance(heir, str) and heir in into and steps:
            heir, steps = into[heir], steps - 1
        if not isinstance(heir, str) or gone in state.adapters or heir not in state.adapters:
            raise FcitError(
                f"{method.name}: heirs says that adapter {gone!r} is now in {heir!r}; it must name one "
                f"that is gone, and one of {_names(state)}"
            )
        found[gone] = heir
    return found


def routed(method: Method, state: State, query: Query) -> tuple[dict[str, float], dict[str, float]]:
    """A question's share of every adapter, and its similarities. Raises FcitError unless all are finite
    numbers, and there is no share (the model decides by itself) or one for every adapter."""
    near = _numbers(method, "similarities", method.similarities(state, query))
    hook = "similarities" if type(method).route is Method.route else "route"
    if hook == "route":
        shares = _numbers(method, hook, method.route(state, query))
    else:  # the similarities are computed once
        shares = method.gating.shares(state.adapters, near, query.dataset)
    if shares and shares.keys() != state.adapters.keys():
        raise FcitError(
            f"{method.name}: {hook} names the adapters {', '.join(sorted(shares))}, and the state has "
            f"{_names(state)}; give every adapter a number, or none"
        )
    return shares, near


def _numbers(method: Method, hook: str, given: Mapping[str, Any]) -> dict[str, float]:
    numbers: dict[str, float] = {}
    for name, value in _mapping(method, hook, given).items():
        try:
            numbers[name] = float(value)
        except (TypeError, ValueError, RuntimeError):  # the last: a tensor of several numbers
            numbers[name] = float("nan")
        if not isfinite(numbers[name]):
            raise FcitError(
                f"{method.name}: {hook} gives adapter {name!r} {value!r}, which is no finite number"
            )
    return numbers


def _mapping(method: Method, hook: str, given: Mapping[str, Any]) -> Mapping[str, Any]:
    if not isinstance(given, Mapping):
        raise FcitError(f"{method.name}: {hook} returned {_kind(given)}; it must return a dict")
    if others := [name for name in given if not isinstance(name, str)]:
        raise FcitError(f"{method.name}: {hook} names {others[0]!r}; names of adapters are text")
    return given


def _names(state: State) -> str:
    return ", ".join(sorted(state.adapters)) or "none"
