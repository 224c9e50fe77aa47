"""The recipe's sections `[data]`, `[model]`, `[setting]`, `[evaluation]` and `[tracking]`, and what of
method, federation and privacy goes together."""

from dataclasses import dataclass, field
from typing import Annotated, Literal
from unicodedata import normalize

from pydantic import Field

from fcit.aggregation.privacy import Privacy
from fcit.benchmark.general import COUNT
from fcit.benchmark.reading import Reading
from fcit.benchmark.settings import SETTINGS, StageSpec
from fcit.methods import Method
from fcit.rounds.federation import Federation
from fcit.types import MOST, FcitError

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
    """Records without their image. `error`: a missing file ends the run before it trains; one that cannot
    be read, only when its turn comes (`fcit data check` finds it before). `drop`: both are left out
    before anything is split, and counted in `partition.json`, the table and the report."""
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
                "folder; leave one of them out: delete data.size, or --set data.size= (data.train and "
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


@dataclass(frozen=True)
class ModelSection:
    """The `[model]` section: the base model and where it runs."""

    path: str = ""
    """Hugging Face folder or hub id of an image-text-to-text model, or a folder in LLaVA's original
    format ([models.md](models.md)). Empty: the mini model."""
    identity: str = ""
    """Folder or hub id of the encoder of identity tokens: a CLIP, a SigLIP, or a sentence-transformers
    model (tokens of text only). Empty: the mini CLIP."""
    device: str = "auto"
    """`cuda`, `mps` or `cpu`. `auto`: CUDA, then MPS, then CPU."""
    dtype: Literal["auto", "float32", "bfloat16", "float16"] = "auto"
    """`float32`, `bfloat16` or `float16`. `auto`: bfloat16 where the hardware supports it, otherwise
    float32."""
    cache_features: bool = True
    """Store the frozen vision features in the cache folder."""
    template: Literal["", "vicuna-v1", "paligemma"] = ""
    """Chat template: `vicuna-v1` (LLaVA-1.5's) or `paligemma`. Empty: the model's own."""
    quantize: Literal["none", "8bit", "4bit"] = "none"
    """Quantize the language model: `8bit` or `4bit` (bitsandbytes, CUDA only)."""
    device_map: Literal["", "auto", "balanced", "balanced_low_0", "sequential"] = ""
    """Spread the model over several GPUs: `auto`, `balanced`, `balanced_low_0` or `sequential`
    (accelerate)."""


@dataclass(frozen=True)
class SettingSection:
    """The `[setting]` section: the stages, and how unequal the clients' shares are."""

    name: Annotated[str, Field(pattern=r"^\w[\w.-]*$")] = "task-hom"
    """`task-hom`, `task-het`: a task is one dataset. `cap-hom`, `cap-het`: a task is a group of datasets.
    `hom`: all clients of a stage learn one task. `het`: every slot of a round is given a task. Any other
    name needs `setting.stages`."""
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
    """For a setting of your own: the datasets of each task, such as `mine = ["My-A", "My-B"]`."""
    stages: tuple[StageSpec, ...] = ()
    """For a setting of your own: the stages, one `[[setting.stages]]` each (see below)."""

    def __post_init__(self) -> None:
        if self.name not in SETTINGS and not self.stages:
            raise FcitError(
                f"setting.name: {self.name!r} is none of {', '.join(SETTINGS)}; a setting of your own "
                "needs [[setting.stages]], each with slots = [TASKS]"
            )
        if self.name in SETTINGS and (self.tasks or self.stages):
            raise FcitError(
                f"setting.name: {self.name} has its own tasks and stages; give yours another name"
            )
        if self.stages and self.order:
            raise FcitError("setting.order: only for the four settings; order your stages instead")


@dataclass(frozen=True)
class EvaluationSection:
    """The `[evaluation]` section: what is asked after each stage, and how answers are scored."""

    scoring: Literal["strict", "reference"] = "strict"
    """`strict`: correct. `reference`: as in the published code, bugs included, for comparison with
    published tables (captions need Java)."""
    reading: Reading = "whole"
    """What of an answer is scored, for all methods alike. `whole`: all of it. `first line`: the
    first line that has text. `short`: the first sentence, without "The answer is" or an article before
    it, for models that answer in sentences and datasets whose truths are words."""
    batch_size: Annotated[int, Field(ge=1, le=MOST)] = 50
    """Test samples per batch. Float sums depend on it, so a few answers may too."""
    max_new_tokens: Annotated[int, Field(ge=1, le=MOST)] = 128
    """Maximum length of an answer, in tokens."""
    limit: Annotated[int, Field(ge=0, le=MOST)] = 0
    """Maximum test samples per dataset (0 = all), drawn as `data.test` draws them."""
    where: Literal["server", "clients"] = "server"
    """Who scores. `server`: on the test sets. `clients`: each client on its own test samples; only sums
    are sent, so there are no predictions, no chance and no routing accuracy, and captions are scored
    one by one."""
    forward_transfer: bool = True
    """After each stage, also evaluate the datasets that the next stage introduces."""
    general: str = ""
    """Data folder with general questions, the test records of all its datasets. Empty: the 300
    built-in questions, asked only with the mini model."""
    general_questions: Annotated[int, Field(ge=0, le=MOST)] = COUNT
    """General questions (of each dataset of `general`) asked before and after training, to measure
    forgetting of the base model (0 = none)."""

    @property
    def scored(self) -> str:
        """How answers are scored, as tables say it: runs that differ in it are not compared."""
        return self.scoring if self.reading == "whole" else f"{self.scoring} ({self.reading})"

    def __post_init__(self) -> None:
        if not self.general and self.general_questions > COUNT:
            raise FcitError(
                f"evaluation.general_questions: the mini model has {COUNT}; evaluation.general names more"
            )


@dataclass(frozen=True)
class TrackingSection:
    """The `[tracking]` section: experiment trackers that follow a run (see `runs.tracking`)."""

    to: tuple[Literal["tensorboard", "wandb", "mlflow"], ...] = ()
    """Trackers to report to: `tensorboard`, `wandb`, `mlflow`."""
    project: Annotated[str, Field(min_length=1)] = "fcit"
    """Project in wandb, experiment in MLflow."""

    def __post_init__(self) -> None:
        if len(set(self.to)) < len(self.to):
            raise FcitError("tracking.to names a tracker twice")


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
    if federation.ranks and method.projector == "lora":
        raise FcitError(
            'federation.ranks is incompatible with method.projector = "lora": the projector\'s LoRA has '
            "one rank for all clients"
        )
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
