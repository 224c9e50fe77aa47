"""A recipe's `[setting]` section: one of the four settings, or one of your own, spelled out."""

from __future__ import annotations

from typing import Annotated, Any, Literal, Self

from pydantic import Field, field_validator, model_validator

from fcit.benchmark.settings import SETTINGS
from fcit.recipe.federation import Section


class StageSection(Section):
    """slots: the task of every client of a round, by ascending id; or one task for all of them.
    rounds: of this stage (0: federation.rounds). clients: who is there, by number from 0, or how many
    of the first (absent: all)."""

    slots: Annotated[tuple[str, ...], Field(min_length=1, strict=False)]
    rounds: Annotated[int, Field(ge=0)] = 0
    clients: tuple[int, ...] = Field(default=(), strict=False)

    @field_validator("clients", mode="before")
    @classmethod
    def _first(cls, value: Any) -> Any:
        """So many clients are the first so many."""
        if type(value) is int:
            if value < 1:
                raise ValueError("at least one client must be there")
            return tuple(range(value))
        return value


class SettingSection(Section):
    """name: one of the four settings, or any name for one of your own with tasks and stages. beta:
    Dirichlet concentration of the clients' sample counts (smaller: more unequal). order: the stages'
    datasets or capability groups (absent: the paper's). sampling: of each round's clients, from the
    run's seed or as the reference implementation does. tasks: the datasets of each task of your own.
    stages: see StageSection."""

    name: Annotated[str, Field(pattern=r"^\w[\w.-]*$")] = "task-hom"
    beta: Annotated[float, Field(gt=0, strict=False)] = 1.0
    order: tuple[str, ...] = Field(default=(), strict=False)
    sampling: Literal["derived", "reference"] = "derived"
    tasks: dict[str, Annotated[tuple[str, ...], Field(strict=False)]] = Field(default={})
    stages: tuple[StageSection, ...] = Field(default=(), strict=False)

    @model_validator(mode="after")
    def _one_form(self) -> Self:
        """One of the four, or one spelled out."""
        four = ", ".join(SETTINGS)
        if self.name not in SETTINGS and not self.stages:
            raise ValueError(
                f"setting.name: {self.name!r} is none of {four}; a setting of your own needs "
                "[[setting.stages]]"
            )
        if self.name in SETTINGS and (self.tasks or self.stages):
            raise ValueError(
                f"setting.name: {self.name} has its own tasks and stages; give yours another name"
            )
        if self.stages and self.order:
            raise ValueError("setting.order: is of the four settings; the stages are the order")
        return self
