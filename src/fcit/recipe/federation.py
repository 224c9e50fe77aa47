"""A recipe's `[federation]` section: who takes part, how replies are averaged, and the optimizer."""

from __future__ import annotations

import dataclasses
from typing import Annotated, Literal, Self

from pydantic import BaseModel, ConfigDict, Field, model_validator

from fcit.aggregation.averaging import Average
from fcit.aggregation.packing import Wire
from fcit.aggregation.privacy import Privacy
from fcit.aggregation.robust import Rule
from fcit.optimizers import Optimizer, find
from fcit.rounds.server import RoundRules
from fcit.types import FcitError

Positive = Annotated[int, Field(ge=1)]


class Section(BaseModel):
    """A recipe's section: unknown keys and wrong types are errors."""

    model_config = ConfigDict(extra="forbid", frozen=True, strict=True, allow_inf_nan=False)


class FederationSection(Section):
    """clients in all, of whom per_round train in each of a stage's rounds. min_samples: training
    samples of each dataset that every client gets at least. workers: parallel processes of the
    local engine (0: one a core on a CPU, one a GPU). average: of LoRA's factors A and B, or of
    their products (see `averaging`). optimizer: a file of `optimizers/`, beside any method;
    optimizer_options: its hyper-parameters. min_clients: accepted updates a round needs (0:
    everyone's). deadline: seconds a client has for its turn (0: none; across machines: that all of
    a round's clients have together, and 0 is an hour). outlier_factor: how many times the round's
    median change is too much to be averaged (0: no bound). robust: the rule by which a cohort's
    updates become one; byzantine_share: the share of a cohort that it withstands. wire: in what
    form tensors travel."""

    clients: Positive = 50
    per_round: Positive = 5
    rounds: Positive = 10
    min_samples: Positive = 1
    average: Average = "factors"
    optimizer: str = "fedavg"
    optimizer_options: dict[str, float] = {}
    engine: Literal["local", "flower"] = "local"
    workers: Annotated[int, Field(ge=0)] = 0
    min_clients: Annotated[int, Field(ge=0)] = 0
    deadline: Annotated[float, Field(ge=0, strict=False)] = 0.0
    outlier_factor: Annotated[float, Field(ge=0, strict=False)] = 1000.0
    robust: Rule = "mean"
    byzantine_share: Annotated[float, Field(gt=0, lt=0.5, strict=False)] = 0.2
    wire: Wire = "float32"

    @model_validator(mode="after")
    def _fits(self) -> Self:
        if self.per_round > self.clients:
            raise ValueError(f"per_round ({self.per_round}) exceeds clients ({self.clients})")
        if self.min_clients > self.per_round:
            raise ValueError(
                f"min_clients ({self.min_clients}) exceeds per_round ({self.per_round})"
            )
        if self.robust != "mean" and self.average == "product":
            raise ValueError('robust is for average = "factors"; leave one of them out')
        if self.robust != "mean" and self.optimizer == "scaffold":
            raise ValueError("robust: scaffold's control variates are plain means; choose another")
        try:
            known = [one.name for one in dataclasses.fields(find(self.optimizer))]
            for key in self.optimizer_options:
                if key not in known:
                    has = f"it has {', '.join(known)}" if known else "it has no options"
                    raise ValueError(f"optimizer_options: {self.optimizer} has no {key!r}; {has}")
            self.build_optimizer()
        except FcitError as error:
            raise ValueError(str(error)) from None
        return self

    def build_optimizer(self) -> Optimizer:
        """The federated optimizer with its hyper-parameters."""
        return find(self.optimizer)(**self.optimizer_options)

    def terms(self, privacy: Privacy, seed: int) -> RoundRules:
        """How rounds are held."""
        return RoundRules(
            self.average,
            self.min_clients,
            self.outlier_factor,
            self.robust,
            self.byzantine_share,
            self.wire,
            privacy,
            seed,
        )


class PrivacySection(Section):
    """Client-level differential privacy (see `privacy.Privacy`); clip_norm = 0: none."""

    clip_norm: Annotated[float, Field(ge=0, strict=False)] = 0.0
    noise_multiplier: Annotated[float, Field(ge=0, strict=False)] = 0.0
    token_noise: Annotated[float, Field(ge=0, strict=False)] = 0.0
    delta: Annotated[float, Field(gt=0, lt=1, strict=False)] = 1e-5
    seeded_noise: bool = True

    @model_validator(mode="after")
    def _clipped(self) -> Self:
        if not self.clip_norm and (self.noise_multiplier or self.token_noise):
            raise ValueError("noise hides only what is bounded; set clip_norm too")
        return self

    def covers(self, method: str, federation: FederationSection) -> None:
        """Raise ValueError on what is sent, or done, beside what would be clipped and noised."""
        from fcit.methods import find

        kind = find(method)
        for wrong, why in (
            (not kind.federated, f"{method} has no clients"),
            (kind.sends_statistics, f"{method}'s clients send more than what they trained"),
            (federation.optimizer == "scaffold", "scaffold's clients send control variates"),
            (federation.robust != "mean", "federation.robust is no mean"),
            (federation.average == "product", "federation.average = product is no mean"),
        ):
            if self.clip_norm and wrong:
                raise ValueError(f"privacy: {why}, which clipping and noise would not cover")
        if self.clip_norm and federation.outlier_factor:
            raise ValueError(
                "privacy: federation.outlier_factor compares clients' updates, so that one client's data "
                "decides whose are dropped; set federation.outlier_factor = 0 (clip_norm bounds them)"
            )

    def build(self) -> Privacy:
        """The values of the section."""
        return Privacy(**self.model_dump())
