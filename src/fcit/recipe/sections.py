"""The recipe's sections `[model]`, `[evaluation]` and `[tracking]`."""

from dataclasses import dataclass
from typing import Annotated, Literal

from pydantic import Field

from fcit.benchmark.general import COUNT
from fcit.benchmark.reading import Reading
from fcit.types import MOST, FcitError


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
    """Data folder with general questions, the test records of all its datasets. Empty: those of the mini
    model, for the mini model only."""
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
