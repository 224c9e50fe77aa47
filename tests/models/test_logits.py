"""The cap of a family's logits is what its code does, whatever its configuration names."""

from typing import Any

import pytest
import torch
import transformers as hf
from families import SIGLIP, TEXT

from fcit.models.logits import logit_cap
from fcit.types import FcitError

SIZES = TEXT | {"vocab_size": 100, "pad_token_id": 0}


def llava(text: Any) -> Any:
    """LLaVA's code, which never caps logits."""
    config = hf.LlavaConfig(
        vision_config=hf.SiglipVisionConfig(**SIGLIP),
        text_config=text,
        image_token_index=99,
        tie_word_embeddings=True,
    )
    return hf.LlavaForConditionalGeneration(config)


def gemma3(cap: float) -> Any:
    """Gemma 3's code, which does not cap them either."""
    config = hf.Gemma3Config(
        vision_config=hf.SiglipVisionConfig(**SIGLIP, vision_use_head=False),
        text_config=hf.Gemma3TextConfig(**SIZES, final_logit_softcapping=cap),
        mm_tokens_per_image=4,
        image_token_index=99,
        tie_word_embeddings=True,
    )
    return hf.Gemma3ForConditionalGeneration(config)


def paligemma2() -> Any:
    config = hf.PaliGemmaConfig(
        vision_config=hf.SiglipVisionConfig(**SIGLIP, vision_use_head=False),
        text_config=hf.Gemma2Config(**SIZES),
        projection_dim=32,
        image_token_index=99,
        tie_word_embeddings=True,
    )
    return hf.PaliGemmaForConditionalGeneration(config)


def cap_of(model: Any, scale: float) -> float:
    """The cap that is found for a model with embeddings of this size."""
    with torch.no_grad():
        model.get_input_embeddings().weight.normal_(0, scale)
    return logit_cap(model.eval())


@pytest.mark.parametrize("scale", [0.02, 10.0])
def test_the_cap_is_that_of_the_familys_code(scale: float) -> None:
    torch.manual_seed(0)
    assert cap_of(llava(hf.Gemma2Config(**SIZES)), scale) == 0
    assert cap_of(gemma3(30.0), scale) == 0
    assert cap_of(paligemma2(), scale) == 30


def test_logits_changed_in_another_way_are_refused_by_name() -> None:
    torch.manual_seed(0)
    model = paligemma2()
    forward = model.forward

    def shifted(**given: Any) -> Any:
        out = forward(**given)
        out.logits = out.logits + 1
        return out

    model.forward = shifted
    with pytest.raises(FcitError, match="paligemma changes its logits by final_logit_softcapping"):
        cap_of(model, 10.0)
