"""Miniatures of model families: each from its own config and processor classes, with random weights.

Their tokenizer is the mini model's, with the tokens a family needs added; the chat templates are short
forms of the families' own.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
import transformers as hf

from fcit.models import CHECKPOINTS
from fcit.models.processors import images_only

TEXT = {
    "hidden_size": 32,
    "intermediate_size": 48,
    "num_hidden_layers": 2,
    "num_attention_heads": 2,
    "num_key_value_heads": 2,
    "head_dim": 16,
    "max_position_embeddings": 1024,
    "tie_word_embeddings": True,
}
SIGLIP = {
    "hidden_size": 24,
    "intermediate_size": 40,
    "num_hidden_layers": 2,
    "num_attention_heads": 2,
    "image_size": 32,
    "patch_size": 8,
}
MROPE = {"rope_type": "default", "rope_theta": 10000.0, "mrope_section": [2, 3, 3]}


def template(image: str, user: str, assistant: str, end: str, start: str = "") -> str:
    """A chat template: what opens each side's turn, what stands for an image, what ends a turn."""
    return (
        f"{start}{{% for m in messages %}}{{% if m['role'] == 'user' %}}{user}{{% else %}}{assistant}"
        "{% endif %}{% for c in m['content'] %}{% if c['type'] == 'image' %}"
        f"{image}{{% else %}}{{{{ c['text'] }}}}{{% endif %}}{{% endfor %}}{end}\n{{% endfor %}}"
        f"{{% if add_generation_prompt %}}{assistant}{{% endif %}}"
    )


def tokenizer(*added: str, **special: str) -> Any:
    """The mini model's tokenizer with more tokens; `special` are names a processor asks it for."""
    made: Any = hf.PreTrainedTokenizerFast.from_pretrained(
        CHECKPOINTS / "mini-lmm", extra_special_tokens=special
    )
    made.chat_template = None
    made.add_tokens([*added, *special.values()], special_tokens=True)
    return made


def ids(made: Any, **names: str) -> dict[str, int]:
    """Token ids by the names a config has for them."""
    return {name: made.convert_tokens_to_ids(token) for name, token in names.items()}


def _text(made: Any, **more: Any) -> dict[str, Any]:
    own = {"vocab_size": len(made), "pad_token_id": 0, "bos_token_id": 1, "eos_token_id": 3}
    return TEXT | own | more


def onevision() -> tuple[Any, Any]:
    """Tiles of any number, a line-break embedding after every row, interpolation when too many."""
    made = tokenizer("<video>", image_token="<image>")
    pins = [[32, 32], [32, 64], [64, 32], [64, 64]]
    config = hf.LlavaOnevisionConfig(
        vision_config=hf.SiglipVisionConfig(**SIGLIP, vision_use_head=False),
        text_config=hf.Qwen2Config(**_text(made)),
        image_grid_pinpoints=pins,
        tie_word_embeddings=True,
        vision_aspect_ratio="anyres_max_9",
        **ids(made, image_token_index="<image>", video_token_index="<video>"),
    )
    images = hf.LlavaOnevisionImageProcessorPil(
        size={"height": 32, "width": 32}, image_grid_pinpoints=pins
    )
    processor = images_only(hf.LlavaOnevisionProcessor)(
        images,
        made,
        num_image_tokens=16,
        vision_feature_select_strategy="full",
        chat_template=template("<image>\n", "USER:", "ASSISTANT:", "</s>"),
    )
    return hf.LlavaOnevisionForConditionalGeneration(config), processor


def _qwen(made: Any, name: str, config: Any) -> tuple[Any, Any]:
    images = hf.Qwen2VLImageProcessorPil(
        patch_size=8, merge_size=2, min_pixels=16 * 16, max_pixels=64 * 64
    )
    processor = images_only(getattr(hf, f"{name}Processor"))(
        images,
        made,
        chat_template=template(
            "<|vision_start|><|image_pad|><|vision_end|>",
            "<|im_start|>user\n",
            "<|im_start|>assistant\n",
            "<|im_end|>",
        ),
    )
    return getattr(hf, f"{name}ForConditionalGeneration")(config), processor


QWEN = {
    "vision_start_token": "<|vision_start|>",
    "vision_end_token": "<|vision_end|>",
    "image_token": "<|image_pad|>",
    "video_token": "<|video_pad|>",
}
QWEN_IDS = {f"{name}_id": token for name, token in QWEN.items()}


def qwen25() -> tuple[Any, Any]:
    """Any grid of patches, windows put in and out of order, positions in three dimensions."""
    made = tokenizer("<|im_start|>", "<|im_end|>", **QWEN)
    vision = {
        "depth": 2,
        "hidden_size": 24,
        "intermediate_size": 40,
        "num_heads": 2,
        "patch_size": 8,
        "window_size": 32,
        "fullatt_block_indexes": [1],
        "out_hidden_size": 32,
    }
    config = hf.Qwen2_5_VLConfig(
        vision_config=vision,
        text_config=_text(made, rope_parameters=MROPE),
        tie_word_embeddings=True,
        **ids(made, **QWEN_IDS),
    )
    return _qwen(made, "Qwen2_5_VL", config)


def qwen3() -> tuple[Any, Any]:
    """Features of the tower's inner layers come to inner layers of the language model."""
    made = tokenizer("<|im_start|>", "<|im_end|>", **QWEN)
    vision = {
        "depth": 3,
        "hidden_size": 24,
        "intermediate_size": 40,
        "num_heads": 2,
        "patch_size": 8,
        "out_hidden_size": 32,
        "num_position_embeddings": 64,
        "deepstack_visual_indexes": [0, 1],
    }
    rope = {"rope_type": "default", "rope_theta": 10000.0, "mrope_section": [4, 2, 2]}
    config = hf.Qwen3VLConfig(
        vision_config=vision,
        text_config=_text(made, rope_parameters=rope),
        tie_word_embeddings=True,
        **ids(made, **QWEN_IDS),
    )
    return _qwen(made, "Qwen3VL", config)


IDEFICS = ("<fake_token_around_image>", "<global-img>", "<end_of_utterance>")


def _idefics(made: Any, name: str) -> tuple[Any, Any]:
    config = getattr(hf, f"{name}Config")(
        vision_config=SIGLIP,
        text_config=hf.LlamaConfig(**_text(made)),
        scale_factor=2,
        tie_word_embeddings=True,
        image_token_id=made.convert_tokens_to_ids("<image>"),
    )
    prepared = getattr(hf, f"{name}ImageProcessorPil")(
        size={"longest_edge": 64}, max_image_size={"longest_edge": 32}, do_image_splitting=True
    )
    kind = getattr(hf, f"{name}Processor")
    more = {"video_processor": None} if "video_processor" in kind.get_attributes() else {}
    kind = images_only(kind) if more else kind
    processor = kind(
        prepared,
        made,
        image_seq_len=4,
        chat_template=template("<image>", "User:", "Assistant:", "<end_of_utterance>", "<s>"),
        **more,
    )
    return getattr(hf, f"{name}ForConditionalGeneration")(config), processor


def _grid_tokens() -> list[str]:
    return [f"<row_{row}_col_{column}>" for row in range(1, 7) for column in range(1, 7)]


def idefics3() -> tuple[Any, Any]:
    """Tiles and a whole view, named in the prompt, pixels shuffled into channels."""
    made = tokenizer(*IDEFICS, *_grid_tokens(), image_token="<image>")
    return _idefics(made, "Idefics3")


def smolvlm() -> tuple[Any, Any]:
    """Idefics3's way with a smaller model."""
    made = tokenizer(*IDEFICS, *_grid_tokens(), image_token="<image>")
    return _idefics(made, "SmolVLM")


def internvl() -> tuple[Any, Any]:
    """Tiles and a thumbnail, pixels shuffled before the projector."""
    special = {
        "start_image_token": "<img>",
        "end_image_token": "</img>",
        "context_image_token": "<IMG_CONTEXT>",
        "video_token": "<video>",
    }
    made = tokenizer("<|im_start|>", "<|im_end|>", **special)
    vision = SIGLIP | {"image_size": [32, 32], "patch_size": [8, 8]}
    config = hf.InternVLConfig(
        vision_config=hf.InternVLVisionConfig(**vision),
        text_config=hf.Qwen2Config(**_text(made)),
        image_token_id=made.convert_tokens_to_ids("<IMG_CONTEXT>"),
        image_seq_length=4,
        downsample_ratio=0.5,
        tie_word_embeddings=True,
    )
    images = hf.GotOcr2ImageProcessorPil(
        size={"height": 32, "width": 32}, crop_to_patches=True, min_patches=1, max_patches=4
    )
    processor = images_only(hf.InternVLProcessor)(
        images,
        made,
        image_seq_length=4,
        chat_template=template(
            "<IMG_CONTEXT>\n", "<|im_start|>user\n", "<|im_start|>assistant\n", "<|im_end|>"
        ),
    )
    return hf.InternVLForConditionalGeneration(config), processor


def gemma3() -> tuple[Any, Any]:
    """An image's tokens see each other both ways; the projector pools."""
    special = {
        "boi_token": "<start_of_image>",
        "eoi_token": "<end_of_image>",
        "image_token": "<image_soft_token>",
    }
    made = tokenizer("<start_of_turn>", "<end_of_turn>", **special)
    config = hf.Gemma3Config(
        vision_config=hf.SiglipVisionConfig(**SIGLIP, vision_use_head=False),
        text_config=hf.Gemma3TextConfig(**_text(made), sliding_window=16),
        mm_tokens_per_image=4,
        tie_word_embeddings=True,
        **ids(
            made,
            boi_token_index="<start_of_image>",
            eoi_token_index="<end_of_image>",
            image_token_index="<image_soft_token>",
        ),
    )
    images = hf.Gemma3ImageProcessorPil(size={"height": 32, "width": 32})
    processor = hf.Gemma3Processor(
        images,
        made,
        image_seq_length=4,
        chat_template=template(
            "<start_of_image>",
            "<start_of_turn>user\n",
            "<start_of_turn>model\n",
            "<end_of_turn>",
            "<s>",
        ),
    )
    return hf.Gemma3ForConditionalGeneration(config), processor


def paligemma2() -> tuple[Any, Any]:
    """All before the answer sees itself both ways; no chat template."""
    made = tokenizer(image_token="<image>")
    images = hf.SiglipImageProcessorPil(size={"height": 32, "width": 32})
    images.image_seq_length = 16
    processor = hf.PaliGemmaProcessor(images, made)
    config = hf.PaliGemmaConfig(
        vision_config=hf.SiglipVisionConfig(**SIGLIP, vision_use_head=False),
        text_config=hf.Gemma2Config(**_text(made), sliding_window=16),
        projection_dim=32,
        tie_word_embeddings=True,
        image_token_index=made.convert_tokens_to_ids("<image>"),
    )
    return hf.PaliGemmaForConditionalGeneration(config), processor


def fastvlm() -> tuple[Any, Any]:
    """A convolutional tower: no patch size, and a map of features in place of a sequence. Its template
    begins with a system turn, its embeddings are tied, and its language model was read from a GGUF file,
    which its configuration goes on saying although the weights are dequantized."""
    made = tokenizer(image_token="<image>")
    tower = hf.EfficientNetConfig(
        image_size=64, width_coefficient=0.1, depth_coefficient=0.1, hidden_dim=128
    )
    tower.hidden_size = 128
    config = hf.FastVlmConfig(
        vision_config=tower,
        text_config=hf.Qwen2Config(**_text(made), quantization_config={"quant_method": "gguf"}),
        image_seq_length=4,
        tie_word_embeddings=True,
        **ids(made, image_token_id="<image>"),
    )
    images = hf.CLIPImageProcessorPil(size={"height": 64, "width": 64}, do_center_crop=False)
    processor = hf.LlavaProcessor(
        images,
        made,
        patch_size=32,
        vision_feature_select_strategy="full",
        chat_template=template(
            "<image>\n", "USER:", "ASSISTANT:", "</s>", "SYSTEM:You are helpful.</s>\n"
        ),
    )
    return hf.FastVlmForConditionalGeneration(config), processor


FAMILIES: dict[str, Callable[[], tuple[Any, Any]]] = {
    "LLaVA-OneVision": onevision,
    "Qwen2.5-VL": qwen25,
    "Qwen3-VL": qwen3,
    "SmolVLM2": smolvlm,
    "InternVL": internvl,
    "Gemma 3": gemma3,
    "PaliGemma 2": paligemma2,
    "Idefics3": idefics3,
    "FastVLM": fastvlm,
}


def write(family: str, folder: Path) -> Path:
    """A miniature of a family as a checkpoint folder."""
    torch.manual_seed(0)
    model, processor = FAMILIES[family]()
    # Random weights this small would give all images nearly the same features.
    with torch.no_grad():
        for name, value in model.named_parameters():
            if value.dim() > 1 and "embed_tokens" not in name:
                value.normal_(0, 0.1)
    model.generation_config.pad_token_id, model.generation_config.eos_token_id = 0, 3
    model.save_pretrained(folder)
    processor.save_pretrained(folder)
    return folder
