"""Miniatures of identity encoders, from their own configuration classes, with random weights."""

from __future__ import annotations

import json
import string
from pathlib import Path
from typing import Any

import tokenizers
import torch
import transformers as hf

SIZES = {
    "hidden_size": 16,
    "intermediate_size": 24,
    "num_hidden_layers": 1,
    "num_attention_heads": 2,
}
CHARACTERS = ["[PAD]", "[CLS]", "[SEP]", "[UNK]", *string.ascii_letters, " ", "?"]
LENGTH = 24
MEAN = {"word_embedding_dimension": 16, "pooling_mode_mean_tokens": True}
SHORT = {"max_seq_length": LENGTH, "do_lower_case": False}
OLD = [f"sentence_transformers.models.{name}" for name in ("Transformer", "Pooling", "Normalize")]


def tokenizer() -> Any:
    """A token for every character, between [CLS] and [SEP]."""
    model = tokenizers.models.WordLevel({c: i for i, c in enumerate(CHARACTERS)}, unk_token="[UNK]")
    made = tokenizers.Tokenizer(model)
    made.pre_tokenizer = tokenizers.pre_tokenizers.Split(tokenizers.Regex("."), "isolated")
    made.post_processor = tokenizers.processors.TemplateProcessing(
        "[CLS] $A [SEP]", special_tokens=[("[CLS]", 1), ("[SEP]", 2)]
    )
    names = {"pad": "[PAD]", "cls": "[CLS]", "sep": "[SEP]", "unk": "[UNK]"}
    special = {f"{name}_token": token for name, token in names.items()}
    return hf.PreTrainedTokenizerFast(tokenizer_object=made, model_max_length=LENGTH + 8, **special)


def write(folder: Path, **tables: Any) -> None:
    """JSON files of a folder, by their names without dots and slashes."""
    for name, table in tables.items():
        path = folder / (name.replace("__", "/") + ".json")
        path.parent.mkdir(exist_ok=True)
        path.write_text(json.dumps(table))


def sentences(
    folder: Path,
    pooling: dict[str, Any] | None = None,
    settings: dict[str, Any] | None = None,
    prompts: dict[str, Any] | None = None,
    types: list[str] | None = None,
) -> Path:
    """A sentence-transformers folder: a BERT, and the files that say how its states are pooled."""
    torch.manual_seed(0)
    config = hf.BertConfig(**SIZES, vocab_size=len(CHARACTERS), max_position_embeddings=LENGTH + 8)
    hf.BertModel(config).save_pretrained(folder)
    tokenizer().save_pretrained(folder)
    paths = ["", "1_Pooling", "2_Normalize"]
    rows = [{"idx": i, "type": t, "path": paths[i]} for i, t in enumerate(types or OLD[:2])]
    write(folder, modules=rows, sentence_bert_config=settings or SHORT)
    write(folder, **{"1_Pooling__config": MEAN if pooling is None else pooling})
    if prompts:
        write(folder, config_sentence_transformers=prompts)
    return folder


def siglip(folder: Path, version: str = "Siglip", **vision: Any) -> Path:
    """A SigLIP folder."""
    torch.manual_seed(0)
    text = SIZES | {"vocab_size": len(CHARACTERS), "max_position_embeddings": LENGTH}
    text |= {"pad_token_id": 0, "bos_token_id": 1, "eos_token_id": 2}
    sight = SIZES | {"patch_size": 8} | vision
    sight |= {"image_size": 32} if version == "Siglip" else {"num_patches": 16}
    config = getattr(hf, f"{version}Config")(text_config=text, vision_config=sight)
    getattr(hf, f"{version}Model")(config).save_pretrained(folder)
    tokenizer().save_pretrained(folder)
    fixed = {"size": {"height": 32, "width": 32}}
    size = fixed if version == "Siglip" else {"max_num_patches": 16, "patch_size": 8}
    getattr(hf, f"{version}ImageProcessorPil")(**size).save_pretrained(folder)
    return folder
