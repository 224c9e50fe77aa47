"""Two tiny architectures, their tokenizer, and checkpoint folders in the usual format.

Both are plain Hugging Face folders: `AutoModelForImageTextToText`, `CLIPModel`, `AutoTokenizer` and
`AutoProcessor` load them without code of fcit.
"""

from __future__ import annotations

import copy
import shutil
from collections import Counter
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from fcit.files import write_text

if TYPE_CHECKING:
    from tokenizers import Tokenizer
    from transformers import CLIPModel, LlavaForConditionalGeneration

SIZE = 48
"""Image side in pixels."""
PATCH = 8
PATCHES = (SIZE // PATCH) ** 2
"""Image tokens the language model sees."""
VISION_WIDTH = 128
"""How wide the tiny LLaVA's vision features are."""
DEPTH = 4
"""Layers of the tiny LLaVA's vision tower, and of its language model."""
MAX_POSITIONS = 512
CLIP_POSITIONS, CLIP_WIDTH = 77, 128

# Id 2 is <unk>: transformers' CLIP treats an eos id of 2 as a legacy special case.
PAD, BOS, UNK, EOS, IMAGE, USER, ASSISTANT = range(7)
SPECIALS = ("<pad>", "<s>", "<unk>", "</s>", "<image>", "USER:", "ASSISTANT:")

CHAT_TEMPLATE = (
    "{% for message in messages %}"
    "{% if message['role'] == 'assistant' %}ASSISTANT: {% else %}USER: {% endif %}"
    "{% if message['content'] is string %}{{ message['content'] }}{% else %}"
    "{% for part in message['content'] if part['type'] == 'image' %}<image>\n{% endfor %}"
    "{% for part in message['content'] if part['type'] == 'text' %}{{ part['text'] }}{% endfor %}"
    "{% endif %}"
    "{% if message['role'] == 'assistant' %}</s>{% else %} {% endif %}"
    "{% endfor %}"
    "{% if add_generation_prompt %}ASSISTANT:{% endif %}"
)

MEAN = (0.48145466, 0.4578275, 0.40821073)
STD = (0.26862954, 0.26130258, 0.27577711)


def pieces(texts: Iterable[str]) -> Counter[str]:
    """Frequency of each pre-token of `texts`; pre-tokens are candidates for single tokens."""
    splitter = _pre_tokenizer()
    counts: Counter[str] = Counter()
    for text, times in Counter(texts).items():
        for piece, _ in splitter.pre_tokenize_str(text):
            counts[piece] += times
    return counts


def build_tokenizer(texts: Iterable[str], words: Sequence[str], size: int) -> Tokenizer:
    """A tokenizer of at most `size` tokens that splits a text into the fewest known pieces.

    Tokens are the 256 bytes (so no string is unknown, and decoding restores it exactly), single digits,
    each of `words` (after a space), and then the most frequent pre-tokens of `texts`. Words in capitals
    and words that are not in the table are tokenized letter by letter.
    """
    from tokenizers import AddedToken, Tokenizer, decoders, models, pre_tokenizers

    table: dict[str, None] = dict.fromkeys(SPECIALS)
    table.update(dict.fromkeys(sorted(pre_tokenizers.ByteLevel.alphabet())))
    counts = pieces(texts)
    table.update(dict.fromkeys(pieces(f" {word}" for word in words)))
    rest = [piece for piece, _ in sorted(counts.items(), key=_commonest) if piece not in table]
    rest = [piece for piece in rest if not piece.lstrip(_SPACE).isupper()]
    table.update(dict.fromkeys(rest[: max(0, size - len(table))]))
    # All tokens have the same cost, so the most likely split has the fewest tokens.
    scored = [(piece, -1.0) for piece in table]
    tokenizer = Tokenizer(models.Unigram(scored, unk_id=UNK, byte_fallback=False))
    tokenizer.pre_tokenizer = _pre_tokenizer()
    tokenizer.decoder = decoders.ByteLevel()
    tokenizer.add_special_tokens(
        [AddedToken(text, special=True, normalized=False) for text in SPECIALS]
    )
    return tokenizer


_SPACE = "\u0120"
"""How a byte-level tokenizer writes a space."""


def _commonest(item: tuple[str, int]) -> tuple[int, str]:
    return -item[1], item[0]


def _pre_tokenizer() -> Any:
    from tokenizers import pre_tokenizers

    return pre_tokenizers.Sequence(
        [
            pre_tokenizers.Digits(individual_digits=True),
            pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=True),
        ]
    )


def lmm(vocabulary: int) -> LlavaForConditionalGeneration:
    """The tiny LLaVA with random weights: a ViT 128 wide, a two-layer projector, a Llama 192 wide."""
    from transformers import (
        CLIPVisionConfig,
        LlamaConfig,
        LlavaConfig,
        LlavaForConditionalGeneration,
    )

    vision = CLIPVisionConfig(
        hidden_size=VISION_WIDTH,
        intermediate_size=512,
        num_hidden_layers=DEPTH,
        num_attention_heads=4,
        image_size=SIZE,
        patch_size=PATCH,
        projection_dim=128,
    )
    text = LlamaConfig(
        vocab_size=vocabulary,
        hidden_size=192,
        intermediate_size=512,
        num_hidden_layers=DEPTH,
        num_attention_heads=4,
        num_key_value_heads=4,
        max_position_embeddings=MAX_POSITIONS,
        tie_word_embeddings=True,
        pad_token_id=PAD,
        bos_token_id=BOS,
        eos_token_id=EOS,
    )
    config = LlavaConfig(
        vision_config=vision,
        text_config=text,
        image_token_index=IMAGE,
        image_seq_length=PATCHES,
        vision_feature_layer=-1,
        vision_feature_select_strategy="default",
        projector_hidden_act="gelu",
        tie_word_embeddings=True,
    )
    model = LlavaForConditionalGeneration(config)
    model.generation_config.pad_token_id = PAD
    model.generation_config.bos_token_id = BOS
    model.generation_config.eos_token_id = EOS
    return model


def clip(vocabulary: int) -> CLIPModel:
    """The tiny CLIP with random weights; pooled text and projected image are both 128 wide."""
    from transformers import CLIPConfig, CLIPModel, CLIPTextConfig, CLIPVisionConfig

    text = CLIPTextConfig(
        vocab_size=vocabulary,
        hidden_size=CLIP_WIDTH,
        intermediate_size=256,
        num_hidden_layers=2,
        num_attention_heads=4,
        max_position_embeddings=CLIP_POSITIONS,
        projection_dim=CLIP_WIDTH,
        pad_token_id=PAD,
        bos_token_id=BOS,
        eos_token_id=EOS,
    )
    vision = CLIPVisionConfig(
        hidden_size=96,
        intermediate_size=256,
        num_hidden_layers=3,
        num_attention_heads=4,
        image_size=SIZE,
        patch_size=PATCH,
        projection_dim=128,
    )
    config = CLIPConfig(
        text_config=text.to_dict(), vision_config=vision.to_dict(), projection_dim=128
    )
    return CLIPModel(config)


def image_processor() -> Any:
    """The image processor of both models: images of 48 pixels pass unscaled, others are scaled to 48
    pixels."""
    from transformers import CLIPImageProcessorPil

    return CLIPImageProcessorPil(
        size={"shortest_edge": SIZE},
        crop_size={"height": SIZE, "width": SIZE},
        image_mean=list(MEAN),
        image_std=list(STD),
    )


def normalise(images: Any) -> Any:
    """Images uint8 [n, 48, 48, 3] (NumPy) as the processor's pixel values [n, 3, 48, 48]."""
    import torch

    pixels = torch.from_numpy(images).permute(0, 3, 1, 2).float() / 255
    mean, std = torch.tensor(MEAN), torch.tensor(STD)
    return (pixels - mean[:, None, None]) / std[:, None, None]


def save_lmm(folder: Path, model: Any, tokenizer: Tokenizer, card: str) -> None:
    """Write the tiny LLaVA as a checkpoint folder in half precision, completely or not at all."""
    from transformers import LlavaProcessor, PreTrainedTokenizerFast

    wrapped = PreTrainedTokenizerFast(
        tokenizer_object=tokenizer,
        pad_token="<pad>",
        bos_token="<s>",
        eos_token="</s>",
        unk_token="<unk>",
        extra_special_tokens={"image_token": "<image>"},
        model_max_length=MAX_POSITIONS,
        padding_side="left",
        clean_up_tokenization_spaces=False,
        chat_template=CHAT_TEMPLATE,
    )
    processor = LlavaProcessor(
        image_processor=image_processor(),
        tokenizer=wrapped,
        patch_size=PATCH,
        vision_feature_select_strategy="default",
        num_additional_image_tokens=1,
        chat_template=CHAT_TEMPLATE,
    )
    _save(folder, model, [processor], card)


def save_clip(folder: Path, model: Any, tokenizer: Tokenizer, card: str) -> None:
    """Write the tiny CLIP as a checkpoint folder; its tokenizer ends every text with `</s>`."""
    from tokenizers import Tokenizer, processors
    from transformers import CLIPProcessor, PreTrainedTokenizerFast

    ending = Tokenizer.from_str(tokenizer.to_str())
    ending.post_processor = processors.TemplateProcessing(
        single="$A </s>", pair="$A $B </s>", special_tokens=[("</s>", EOS)]
    )
    wrapped = PreTrainedTokenizerFast(
        tokenizer_object=ending,
        pad_token="<pad>",
        bos_token="<s>",
        eos_token="</s>",
        unk_token="<unk>",
        model_max_length=CLIP_POSITIONS,
        padding_side="right",
        clean_up_tokenization_spaces=False,
    )
    _save(folder, model, [CLIPProcessor(image_processor(), wrapped)], card)


def _save(folder: Path, model: Any, parts: Sequence[Any], card: str) -> None:
    """Write to a temporary folder, then replace `folder`. Where a kill came between both renames, the old
    one is put back first."""
    old = folder.with_name(f".old-{folder.name}")
    if old.exists() and not folder.exists():
        old.rename(folder)
    aside = folder.with_name(f".aside-{folder.name}")
    shutil.rmtree(aside, ignore_errors=True)
    aside.mkdir(parents=True)
    copy.deepcopy(model).half().save_pretrained(aside)
    for part in parts:
        part.save_pretrained(aside)
    write_text(aside / "README.md", card)
    shutil.rmtree(old, ignore_errors=True)
    if folder.exists():
        folder.rename(old)
    aside.rename(folder)
    shutil.rmtree(old, ignore_errors=True)


def segment(tokenizer: Tokenizer, turns: Sequence[tuple[str, str]]) -> tuple[list[int], list[bool]]:
    """Token ids of a conversation after `USER: <image>` and a line break, and which of them are
    learned: the answers and their `</s>`.
    """
    ids: list[int] = []
    learnt: list[bool] = []
    for number, (prompt, answer) in enumerate(turns):
        opening = "USER: " if number else ""
        asked = tokenizer.encode(f"{opening}{prompt} ASSISTANT:").ids
        said = [*tokenizer.encode(f" {answer}").ids, EOS]
        ids += asked + said
        learnt += [False] * len(asked) + [True] * len(said)
    return ids, learnt


def prefix(tokenizer: Tokenizer) -> list[int]:
    """The beginning of every conversation about an image: `USER: `, the image tokens, a line break."""
    opening = tokenizer.encode("USER: <image>\n").ids
    at = opening.index(IMAGE)
    return [*opening[:at], *[IMAGE] * PATCHES, *opening[at + 1 :]]
