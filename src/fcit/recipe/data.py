"""A recipe's `[data]` section: which samples there are, and how many of them are used."""

from dataclasses import dataclass, field
from typing import Annotated, Literal
from unicodedata import normalize

from pydantic import Field

from fcit.types import FcitError

Size = Literal["tiny", "small", "full"]

SIZES: dict[Size, tuple[int, int]] = {
    "tiny": (600, 300),
    "small": (1200, 300),
    "full": (6000, 1000),
}
"""Training and test samples per dataset of the mini suite; a larger size extends a smaller one."""


@dataclass(frozen=True)
class DataSection:
    """The `[data]` section: a data folder, or the mini suite."""

    root: str = ""
    """Data folder ([add-a-dataset.md](add-a-dataset.md)). Empty: the mini suite, made on first use in
    the cache folder (`$FCIT_CACHE`, otherwise the user's)."""
    images: tuple[Annotated[str, Field(min_length=1)], ...] = ()
    """Folders that image paths start at, tried in order. Empty: `datasets/` in the root."""
    size: Literal["tiny", "small", "full", ""] = ""
    """Size of the mini suite: `tiny` (600 training and 300 test samples per dataset), `small` (1200 and
    300, the default) or `full` (6000 and 1000). Not for a root of your own."""
    rules: dict[str, str] = field(default_factory=dict[str, str])
    """Python files with scoring rules of your own, by dataset ([add-a-dataset.md](add-a-dataset.md))."""
    missing: Literal["error", "drop"] = "error"
    """Records whose image is missing or cannot be read: an `error` before the run starts, or `drop` them
    before anything is split, and count them in `partition.json`, the table and the report."""
    train: Annotated[int, Field(ge=0, le=10_000_000)] = 0
    """Training samples per dataset (0 = all, or as `size` says). From a data folder they are drawn by
    the seed, with each answer's share as in the whole. A published split is used whole."""
    test: Annotated[int, Field(ge=0, le=10_000_000)] = 0
    """Test samples per dataset (0 = all, or as `size` says), drawn as training samples are."""

    def __post_init__(self) -> None:
        if self.images and not self.root:
            raise FcitError("data.images belongs to a data folder of your own; set data.root too")
        if self.size and self.root:
            raise FcitError(
                f"data.size = {self.size!r} is a size of the mini suite, but data.root names a data "
                "folder; leave one of them out, with --set data.size= for example (data.train and "
                "data.test limit what is read of a folder)"
            )
        rules = {normalize("NFC", name): file for name, file in self.rules.items()}
        object.__setattr__(self, "rules", rules)
        if not self.root:
            object.__setattr__(self, "size", self.size or "small")

    @property
    def counts(self) -> tuple[int, int]:
        """The mini suite's training and test samples per dataset."""
        train, test = SIZES[self.size or "small"]
        return self.train or train, self.test or test
