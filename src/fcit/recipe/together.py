"""What of a recipe goes together: method, federation and privacy."""

from fcit.aggregation.privacy import Privacy
from fcit.methods import Method
from fcit.rounds.federation import Federation
from fcit.types import FcitError


def check_together(method: Method, federation: Federation, privacy: Privacy) -> None:
    """Raise FcitError, naming the keys, on what a method excludes and on what clipping and noise would
    not cover."""
    named = f'method.name = "{method.name}"'
    for key, value in (
        (f'federation.average = "{federation.average}"', federation.average),
        (f'federation.robust = "{federation.robust}"', federation.robust),
        (f'federation.optimizer = "{federation.optimizer}"', federation.optimizer),
        ("federation.ranks", "ranks" if federation.ranks else ""),
        ("privacy.clip_norm", "privacy" if privacy.on else ""),
    ):
        if why := method.excludes.get(value):
            raise FcitError(f"{key} is incompatible with {named}: {why}")
    if federation.ranks and not method.federated:
        raise FcitError(f"federation.ranks is incompatible with {named}: it has no clients")
    if federation.ranks and (largest := max(federation.ranks)) != method.rank:
        raise FcitError(
            f"federation.ranks: the largest is {largest}, but method.rank is {method.rank}; "
            "make them equal"
        )
    if not privacy.on:
        return
    for excluded, why in (
        (not method.federated, f"{method.name} has no clients"),
        (method.sends_statistics, f"{method.name}'s clients send more than what they trained"),
        (federation.optimizer == "scaffold", "scaffold's clients send control variates"),
        (federation.robust != "mean", "federation.robust is not a mean"),
        (federation.average == "product", "federation.average = product is not a mean"),
    ):
        if excluded:
            raise FcitError(f"privacy: {why}, which clipping and noise would not cover")
    if federation.outlier_factor:
        raise FcitError(
            "privacy: federation.outlier_factor compares clients' updates, so that one client's data "
            "decides whose are dropped; set federation.outlier_factor = 0 (clip_norm bounds them)"
        )
