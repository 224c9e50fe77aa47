"""A client's own floor of privacy: it clips and noises what it sends, whatever the recipe says."""

from dataclasses import replace

from fcit.aggregation.privacy import Privacy, aggregate
from fcit.methods import Method
from fcit.optimizers import Optimizer
from fcit.rounds.acceptance import sizes
from fcit.types import FcitError, Parts, State, Update, Weights

NO_FLOOR = Privacy(seeded_noise=False)


def check_floor(method: Method, optimizer: Optimizer) -> None:
    """Raise FcitError where clients send more than changes, which clipping and noise would not cover."""
    kind = type(optimizer).__name__.lower()
    for excluded, who in (
        (method.sends_statistics, method.name),
        (optimizer.reports(("adapters.0", "projector")), kind),
    ):
        if excluded:
            raise FcitError(
                f"clip_norm: {who} sends more than the change of what it trained, which this client's "
                "own clipping and noise (--node-config) would not cover"
            )


def stronger(recipe: Privacy, floor: Privacy) -> Privacy:
    """The recipe's privacy with at least the floor's noise on tokens, which then nobody can repeat."""
    if not floor.on:
        return recipe
    noise = max(recipe.token_noise, floor.token_noise)
    return replace(floor, token_noise=noise)


def hide_update(update: Update, received: State, floor: Privacy) -> Update:
    """An update whose change has at most the norm `clip_norm`, with noise of the standard deviation
    clip_norm * noise_multiplier on every number. Sample count, loss and steps stay as they are."""

    def held(base: Parts, parts: Parts) -> dict[str, Weights]:
        return {name: {key: base[name][key] for key in parts[name]} for name in parts}

    old = State(held(received.adapters, update.adapters), held(received.extras, update.extras))
    norm, _ = sizes(update, old, list(update.extras))
    noise = floor.stream(0, "own")
    hidden = aggregate(old, State(), [old], [update], [norm], floor, noise)
    return replace(update, adapters=hidden.adapters, extras=hidden.extras)
