"""A client's own floor of privacy: it clips and noises what it sends, whatever the recipe says."""

from dataclasses import replace

from fcit.aggregation.privacy import Privacy
from fcit.methods import Method
from fcit.optimizers import Optimizer
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
    pairs = ((update.adapters, received.adapters), (update.extras, received.extras))
    squares = [
        float((value - old[name][key]).double().square().sum())
        for sent, old in pairs
        for name, weights in sent.items()
        for key, value in weights.items()
    ]
    norm = sum(squares) ** 0.5
    factor = min(1.0, floor.clip_norm / norm) if norm else 1.0
    noise, std = floor.stream(0, "own"), floor.clip_norm * floor.noise_multiplier

    def hidden(sent: Parts, old: Parts) -> dict[str, Weights]:
        from torch import randn

        return {
            name: {
                key: old[name][key]
                + (value - old[name][key]) * factor
                + randn(value.shape, generator=noise) * std
                for key, value in weights.items()
            }
            for name, weights in sent.items()
        }

    adapters, extras = (hidden(sent, old) for sent, old in pairs)
    return replace(update, adapters=adapters, extras=extras)
