"""A recipe's `[data]` section: which samples there are, and how many of them are used."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import Field, model_validator

from fcit.recipe.federation import Section

Size = Literal["tiny", "small", "full"]

SIZES: dict[Size, tuple[int, int]] = {
    "tiny": (600, 300),
    "small": (1200, 300),
    "full": (6000, 1000),
}
"""Training and test samples per dataset of the mini suite; a larger size extends a smaller one."""


class DataSection(Section):
    """root: a data folder in the official layout; absent: the mini suite, made in the user's cache.

    images: folders to find its images in, tried in order (absent: datasets/ of the root).
    size: of the mini suite (see SIZES); a root of your own has none ("").
    rules: Python files with scoring rules of your own, by dataset.
    train, test: the mini suite's samples per dataset (0: as its size says); with a root of your own,
    the first so many are read (0: all).
    """

    root: str = ""
    images: tuple[Annotated[str, Field(min_length=1)], ...] = Field(default=(), strict=False)
    size: Literal["tiny", "small", "full", ""] = "small"
    rules: dict[str, str] = Field(default_factory=dict[str, str])
    train: Annotated[int, Field(ge=0)] = 0
    test: Annotated[int, Field(ge=0)] = 0

    @model_validator(mode="before")
    @classmethod
    def _one_source(cls, table: Any) -> Any:
        """A root has no size, and the mini suite always has one."""
        if not isinstance(table, dict) or not isinstance(table.get("root", ""), str):
            return table
        given = table.get("size") or ""
        if not table.get("root"):
            if table.get("images"):
                raise ValueError("images are of a data folder of your own; set root too")
            return {key: value for key, value in table.items() if key != "size" or value != ""}
        if given:
            raise ValueError(
                f"size = {given!r} is of the mini suite, but root names a data folder; leave one of "
                "them out (train and test bound what is read of a folder)"
            )
        return table | {"size": ""}

    @property
    def counts(self) -> tuple[int, int]:
        """The mini suite's training and test samples per dataset."""
        train, test = SIZES[self.size or "small"]
        return self.train or train, self.test or test
