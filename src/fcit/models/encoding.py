"""How an identity encoder makes features of texts and images: CLIP, SigLIP, sentence-transformers.

It imports nothing of fcit: `fcit export --all` copies it beside router.py.
"""

import inspect
import json
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from torch.nn.functional import normalize
from transformers import AutoConfig, AutoImageProcessor, AutoModel, AutoTokenizer
from transformers.utils.hub import cached_file

POOLINGS: dict[str, Callable[[Tensor, int], Tensor]] = {
    "cls": lambda rows, start: rows[0],
    "max": lambda rows, start: rows[start:].amax(dim=0),
    "mean": lambda rows, start: rows[start:].mean(dim=0),
    "mean_sqrt_len_tokens": lambda rows, start: rows[start:].sum(dim=0) / len(rows[start:]) ** 0.5,
    "lasttoken": lambda rows, start: rows[-1],
}
"""sentence-transformers' poolings of one text's states [tokens, d], in the order in which it joins
several. The tokens before `start` are those of a prompt that is not to count."""

SETTINGS = [
    f"sentence_{name}_config.json"
    for name in ("bert", "roberta", "distilbert", "camembert", "albert", "xlm-roberta", "xlnet")
]
"""The names that sentence-transformers gives the settings of its Transformer module."""

PLAIN = {
    "transformer_task": "feature-extraction",
    "module_output_name": "token_embeddings",
    "tokenizer_args": {},
    "processor_kwargs": {},
    "processing_kwargs": {},
    "modality_config.text": {"method": "forward", "method_output_name": "last_hidden_state"},
}
"""Further settings, with the only values that are understood."""

BATCH, STEP = 8, 16
"""Most texts or images that run together; texts are filled up to a multiple of so many tokens."""
NUMBERS, NUMBERS_GPU = 40_000, 4_000_000
PIXELS, PIXELS_GPU = 20_000, 1_000_000
"""Most numbers of a batch's states (tokens times width), and most pixels of its images. A CPU gains from
batches of small ones only."""


def fixed_batch(one: int, most: int) -> int:
    """How many rows always run together: 1, 2, 4 or 8 that take `one` each, and at most `most` in all.

    Products of another size differ in their last bits. This size depends on a row alone, and batches are
    filled up to it, so what comes out for a row depends on no other.
    """
    return 1 << (min(max(most // one, 1), BATCH).bit_length() - 1)


@dataclass(frozen=True)
class Encoding:
    """How an encoder makes features, and how many numbers they have."""

    text: int
    """Numbers of a text feature."""
    image: int = 0
    """Numbers of an image feature; 0: there is no image tower."""
    length: int | None = None
    """Maximum tokens; None: as many as model and tokenizer take."""
    padded: bool = False
    """Every text is padded to that length."""
    poolings: tuple[str, ...] = ()
    """Of a sentence-transformers model; the others have a pooled state of their own."""
    prompt: str = ""
    """Comes before every text."""
    prompt_counts: bool = True
    """Its tokens are pooled too."""
    lower: bool = False
    normalized: bool = False

    def width(self, kind: str) -> int:
        """Numbers of a token of this kind."""
        return {"text": self.text, "image": self.image, "both": self.text + self.image}[kind]

    def refusal(self, kind: str) -> str:
        """Why it cannot make tokens of this kind ("text", "image", "both"); "" where it can."""
        if kind != "text" and not self.image:
            return f"has no image tower, which tokens of {kind} need; name a CLIP or a SigLIP"
        if kind == "both" and self.image != self.text:
            return (
                f"has {self.text} numbers for a text and {self.image} for an image, and tokens of both "
                "need the same number; take tokens of text, or another encoder"
            )
        return ""


def encoding(folder: str | Path, config: Any, local: bool = False) -> Encoding:
    """An encoder's, from its configuration files. local: look at this disk only.

    Raises ValueError where it is none of the three kinds, or where its files ask for more than is
    understood.
    """
    text: Any = getattr(config, "text_config", None)
    vision: Any = getattr(config, "vision_config", None)
    if config.model_type == "clip":
        return Encoding(text.hidden_size, config.projection_dim, text.max_position_embeddings)
    if config.model_type in ("siglip", "siglip2"):
        image = vision.hidden_size if getattr(vision, "vision_use_head", True) else 0
        return Encoding(text.projection_size, image, text.max_position_embeddings, padded=True)
    modules = _modules(_table(folder, "modules.json", local), config.model_type)
    if config.is_encoder_decoder:
        raise ValueError(f"its model_type is {config.model_type!r}, which has a decoder as well")
    pooling = _table(folder, name := f"{modules[1]}/config.json", local)
    poolings = _poolings(pooling, name)
    tables = (_table(folder, name, local) for name in SETTINGS)
    length, lower = _settings(next(filter(None, tables), {}))
    prompts = _table(folder, "config_sentence_transformers.json", local) or {}
    name = prompts.get("default_prompt_name")
    return Encoding(
        len(poolings) * config.get_text_config().hidden_size,
        length=length,
        poolings=poolings,
        prompt=str(prompts["prompts"][name]) if name else "",
        prompt_counts=bool(pooling.get("include_prompt", True)),
        lower=lower,
        normalized=len(modules) == 3,
    )


def _table(folder: str | Path, name: str, local: bool) -> Any:
    """One of a folder's or a hub id's JSON files; None where there is none."""
    path = cached_file(
        folder, name, local_files_only=local, _raise_exceptions_for_missing_entries=False
    )
    try:
        return path and json.loads(Path(path).read_text(encoding="utf-8"))
    except ValueError as error:
        raise ValueError(f"{name}: {error}") from None


def _modules(table: Any, family: str) -> list[str]:
    """The folders of a sentence-transformers model's modules: a Transformer, its Pooling, and perhaps a
    Normalize."""
    if table is None:
        raise ValueError(
            f"its model_type is {family!r}, neither a CLIP nor a SigLIP, and it has no modules.json, so "
            "it is no sentence-transformers model"
        )
    whole = [str(part["type"]) for part in table]
    ours = "sentence_transformers."
    types = [name.rpartition(".")[2] if name.startswith(ours) else name for name in whole]
    if types not in (["Transformer", "Pooling"], ["Transformer", "Pooling", "Normalize"]):
        raise ValueError(
            f"modules.json: {', '.join(types)}; understood are Transformer, Pooling and perhaps "
            "Normalize, those of sentence_transformers, in this order"
        )
    if table[0]["path"]:
        raise ValueError(f"modules.json: the Transformer is in {table[0]['path']!r}, not beside it")
    return [str(part["path"]) for part in table]


def _poolings(table: Any, file: str) -> tuple[str, ...]:
    """The poolings that a Pooling's config.json names, in its older or its newer form."""
    if table is None:
        raise ValueError(f"{file}: does not exist")
    if mode := table.get("pooling_mode"):
        names: set[str] = {mode} if isinstance(mode, str) else set(mode)
    else:
        start, old = "pooling_mode_", {"pooling_mode_mean_tokens": True} | table
        names = {key.removeprefix(start) for key in old if key.startswith(start) and old[key]}
        ends = {"cls_token": "cls", "max_tokens": "max", "mean_tokens": "mean"}
        names = {ends.get(name, name) for name in names}
    if not names or not names <= set(POOLINGS):
        raise ValueError(
            f"{file}: pooling by {', '.join(sorted(names)) or 'nothing'}; understood are "
            f"{', '.join(POOLINGS)}"
        )
    return tuple(name for name in POOLINGS if name in names)


def _settings(table: dict[str, Any]) -> tuple[int | None, bool]:
    """The maximum length of a Transformer, and whether it takes lower-case letters only."""
    table = table | {"modality_config.text": table.get("modality_config", {}).get("text")}
    for key, value in PLAIN.items():
        if (given := table.get(key) or value) != value:
            raise ValueError(f"{SETTINGS[0]}: {key} = {given!r}; understood is {value!r}")
    length = table.get("max_seq_length")
    if length is not None and (not isinstance(length, int) or length < 1):
        raise ValueError(
            f"{SETTINGS[0]}: max_seq_length = {length!r}; it must be a positive number"
        )
    return length, bool(table.get("do_lower_case"))


def read_hub(loader: Any, folder: str | Path, **options: Any) -> Any:
    """What one of transformers' classes reads from a folder or hub id."""
    return loader.from_pretrained(folder, trust_remote_code=False, **options)


class Features:
    """A frozen encoder: a text's or an image's feature is the same whatever it is computed beside.

    CLIP: the pooled text state, before the text projection, and the projected image state. SigLIP: the
    pooled states of text and image. A sentence-transformers model: what its folder's files say, as its
    `encode` computes it, but for control tokens that are written in a text, which are text here.
    read: reads the configuration, the model, the tokenizer and the image processor.
    """

    def __init__(
        self, folder: str | Path, device: str | torch.device = "cpu", read: Any = read_hub
    ):
        self.device, config = torch.device(device), read(AutoConfig, folder)
        self.encoding = encoding(folder, config)
        model = read(AutoModel, folder, dtype=torch.float32)
        self.model: Any = model.to(self.device).requires_grad_(False).eval()
        self.tokenizer: Any = read(AutoTokenizer, folder)
        self.image_processor: Any = None
        if self.encoding.image:
            self.image_processor = read(AutoImageProcessor, folder, backend="pil")
        text, own = config.get_text_config(), int(self.tokenizer.model_max_length)
        limit = getattr(text, "max_position_embeddings", None)
        self.length = self.encoding.length or min(limit or own, own)
        self.width = int(text.hidden_size)
        tower = self.model if self.encoding.poolings else self.model.text_model
        self.takes = set(inspect.signature(tower.forward).parameters)
        ends = config.model_type == "clip"  # what follows its first end does not count
        self.filler = getattr(self.tokenizer, "eos_token_id" if ends else "pad_token_id") or 0
        self.start = 0
        if (prompt := self.encoding.prompt) and not self.encoding.prompt_counts:
            ids = self._tokens([prompt])[0]["input_ids"]
            self.start = len(ids) - (ids[-1] in self.tokenizer.all_special_ids)

    @torch.no_grad()
    def texts(self, texts: Sequence[str]) -> Tensor:
        """The features [n, d] of texts, each cut at the encoder's length."""
        rows = self._tokens([self.encoding.prompt + text for text in texts])
        spans = [min(-(-len(row["input_ids"]) // STEP) * STEP, self.length) for row in rows]
        most = NUMBERS if self.device.type == "cpu" else NUMBERS_GPU
        found: dict[int, Tensor] = {}
        for span in set(spans):
            same = [at for at, its in enumerate(spans) if its == span]
            size = fixed_batch(span * self.width, most)
            for batch in (same[at : at + size] for at in range(0, len(same), size)):
                features = self._texts([rows[at] for at in batch], span, size)
                found |= zip(batch, features, strict=True)
        return torch.stack([found[at] for at in range(len(texts))])

    def _tokens(self, texts: Sequence[str]) -> list[dict[str, list[int]]]:
        """What the encoder takes of each text."""
        if self.encoding.poolings:
            texts = [text.strip() for text in texts]
        encoded = self.tokenizer(
            [text.lower() if self.encoding.lower else text for text in texts],
            split_special_tokens=True,  # a written "<|endoftext|>" is text
            truncation=True,
            max_length=self.length,
            padding="max_length" if self.encoding.padded else False,
        )
        taken = {key: rows for key, rows in encoded.items() if key in self.takes}
        return [{key: rows[at] for key, rows in taken.items()} for at in range(len(texts))]

    def _texts(self, rows: list[dict[str, list[int]]], span: int, size: int) -> list[Tensor]:
        """The features of texts, filled up to `size` rows of `span` tokens."""
        inputs: dict[str, Tensor] = {}
        for key in rows[0]:
            fill = self.filler if key == "input_ids" else 0
            filled = [row[key] + [fill] * (span - len(row[key])) for row in rows]
            inputs[key] = torch.tensor(
                filled + filled[-1:] * (size - len(rows)), device=self.device
            )
        how = self.encoding
        if not how.poolings:
            return list(self.model.text_model(**inputs).pooler_output[: len(rows)].float().cpu())
        found: list[Tensor] = []
        for row, states in zip(rows, self.model(**inputs).last_hidden_state, strict=False):
            own = states[: len(row["input_ids"])]
            pooled = torch.cat([POOLINGS[name](own, self.start) for name in how.poolings])
            found.append((normalize(pooled, dim=0) if how.normalized else pooled).float().cpu())
        return found

    @torch.no_grad()
    def images(self, images: Iterable[Any]) -> Tensor:
        """The features [n, d] of square PIL images in RGB."""
        most = PIXELS if self.device.type == "cpu" else PIXELS_GPU
        prepared = (self.image_processor(image, return_tensors="pt") for image in images)
        found: list[Tensor] = []
        for first in prepared:
            height, width = first["pixel_values"].shape[-2:]
            size = fixed_batch(height * width, most)
            rows = [first, *islice(prepared, size - 1)]
            filled = [*rows, *[first] * (size - len(rows))]
            inputs = {key: torch.cat([row[key] for row in filled]).to(self.device) for key in first}
            pooled = self.model.vision_model(**inputs).pooler_output
            if self.model.config.model_type == "clip":
                pooled = self.model.visual_projection(pooled)
            found.append(pooled[: len(rows)].float().cpu())
        return torch.cat(found)
