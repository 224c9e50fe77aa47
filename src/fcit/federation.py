"""A recipe's `[federation]` section: who takes part, how replies are averaged, and the optimiser."""

from __future__ import annotations

import dataclasses
from typing import Annotated, Literal, Self

from pydantic import BaseModel, ConfigDict, Field, model_validator

from fcit.averaging import Average
from fcit.optimisers import Optimiser, find
from fcit.types import FcitError

Positive = Annotated[int, Field(ge=1)]


class Section(BaseModel):
    """A recipe's section: unknown keys and wrong types are errors."""

    model_config = ConfigDict(extra="forbid", frozen=True, strict=True, allow_inf_nan=False)


class FederationSection(Section):
    """clients in all, of whom per_round train in each of a stage's rounds. minimum: training samples
    of each dataset that every client gets at least. workers: parallel processes of the local engine
    (0: one a core on a CPU, one on a GPU). deadline: seconds that the clients of a round have, with the
    flower engine. average: of LoRA's factors A and B, or of their products
    (see `averaging`). optimizer: a file of `optimisers/`, beside any method; optimizer_options: its
    hyper-parameters."""

    clients: Positive = 50
    per_round: Positive = 5
    rounds: Positive = 10
    minimum: Positive = 1
    average: Average = "factors"
    optimizer: str = "fedavg"
    optimizer_options: dict[str, float] = {}
    engine: Literal["local", "flower"] = "local"
    workers: Annotated[int, Field(ge=0)] = 0
    deadline: Annotated[float, Field(gt=0, strict=False)] = 3600.0

    @model_validator(mode="after")
    def _fits(self) -> Self:
        if self.per_round > self.clients:
            raise ValueError(f"per_round ({self.per_round}) exceeds clients ({self.clients})")
        try:
            known = [one.name for one in dataclasses.fields(find(self.optimizer))]
            for key in self.optimizer_options:
                if key not in known:
                    has = f"it has {', '.join(known)}" if known else "it has no options"
                    raise ValueError(f"optimizer_options: {self.optimizer} has no {key!r}; {has}")
            self.build_optimiser()
        except FcitError as error:
            raise ValueError(str(error)) from None
        return self

    def build_optimiser(self) -> Optimiser:
        """The federated optimiser with its hyper-parameters."""
        return find(self.optimizer)(**self.optimizer_options)
