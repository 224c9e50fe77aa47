"""A recipe's `[setting]` section: one of the four settings, or one of your own."""

from dataclasses import dataclass, field
from typing import Annotated, Literal

from pydantic import Field

from fcit.benchmark.settings import SETTINGS, StageSpec
from fcit.types import FcitError


@dataclass(frozen=True)
class SettingSection:
    """The `[setting]` section: the stages, and how unequal the clients' shares are."""

    name: Annotated[str, Field(pattern=r"^\w[\w.-]*$")] = "task-hom"
    """`task-hom` or `task-het` (one dataset per stage), `cap-hom` or `cap-het` (one group of datasets per
    stage); in the `het` settings each slot of a round has its own task. Any other name with
    `setting.stages`."""
    beta: Annotated[float, Field(gt=0, le=1e9)] = 1.0
    """Dirichlet concentration of the clients' sample counts; smaller is more unequal."""
    split: Literal["pooled", "per-dataset"] = "pooled"
    """How a task's samples are divided among the clients. `pooled`: those of all its datasets by one
    draw, as in the paper. `per-dataset`: those of each dataset by its own draw, so that clients also
    differ in their mix of datasets. Without effect where every task is one dataset."""
    order: tuple[str, ...] = ()
    """Order of the datasets or groups. Empty: the paper's."""
    sampling: Literal["derived", "reference"] = "derived"
    """How a round's clients are sampled: `derived` from the run's seed, or as in the `reference`
    implementation."""
    tasks: dict[str, tuple[str, ...]] = field(default_factory=dict[str, tuple[str, ...]])
    """For a setting of your own: the datasets of each task."""
    stages: tuple[StageSpec, ...] = ()
    """For a setting of your own: the stages, one `[[setting.stages]]` each (see below)."""

    def __post_init__(self) -> None:
        if self.name not in SETTINGS and not self.stages:
            raise FcitError(
                f"setting.name: {self.name!r} is none of {', '.join(SETTINGS)}; a setting of your own "
                "needs [[setting.stages]]"
            )
        if self.name in SETTINGS and (self.tasks or self.stages):
            raise FcitError(
                f"setting.name: {self.name} has its own tasks and stages; give yours another name"
            )
        if self.stages and self.order:
            raise FcitError("setting.order: only for the four settings; order your stages instead")
