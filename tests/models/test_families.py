"""The contract of a model family: trained, routed, answered, saved and reloaded like the mini model."""

from __future__ import annotations

import importlib.util
import shutil
from pathlib import Path

import families
import numpy as np
import pytest
import torch
from PIL import Image

import fcit
import handmade
from fcit.models.lmm import LMM
from fcit.models.saving import save_peft
from fcit.models.size import TokenCounter, model_size
from fcit.seeds import torch_stream
from fcit.types import FcitError, Sample, State
from fcit.use import export
from fcit.weights import load, save

NAMES = [
    pytest.param(
        name,
        marks=pytest.mark.skipif(
            name == "SmolVLM2" and importlib.util.find_spec("num2words") is None,
            reason="transformers' SmolVLM processor needs num2words",
        ),
    )
    for name in families.FAMILIES
]


@pytest.fixture(scope="module", params=NAMES)
def model(request: pytest.FixtureRequest, family, tmp_path_factory: pytest.TempPathFactory) -> LMM:
    torch.set_num_threads(1)
    return LMM(family(request.param), cache=tmp_path_factory.mktemp("cache"))


@pytest.fixture(scope="module")
def images(tmp_path_factory: pytest.TempPathFactory) -> list[Path]:
    """Four images of different sizes and shapes."""
    folder, noise = tmp_path_factory.mktemp("images"), np.random.default_rng(0)
    paths = [folder / f"{at}.png" for at in range(4)]
    for path, (width, height) in zip(paths, [(40, 30), (64, 64), (30, 70), (64, 40)], strict=True):
        grid = noise.integers(0, 255, (height, width, 3), dtype=np.uint8)
        Image.fromarray(grid).save(path)
    return paths


def test_an_images_tokens_and_features_are_known_without_the_model(
    model: LMM, images: list[Path]
) -> None:
    folder = model.model.name_or_path
    counter = TokenCounter(folder)
    for path, seen in zip(images, model.features(images), strict=True):
        with Image.open(path) as image:
            picture = image.size
        found = model_size(folder, picture=picture)
        text, tokens, _ = counter.image(picture)
        assert text == seen.text
        assert tokens == found.image_tokens
        assert found.features == sum(part.numel() for part in seen.parts)
        if not model.images.square:
            assert model.images.token_counts([path]) == [tokens]
    assert found.parameters == sum(value.numel() for value in model.model.parameters())


def test_an_image_that_leaves_no_room_is_known_from_its_size(
    model: LMM, images: list[Path]
) -> None:
    texts = model.images.texts(images)
    assert texts == [image.text for image in model.features(images)]
    counter = TokenCounter(model.model.name_or_path)
    for text in texts:
        tokens = text.count(model.chat.placeholders[-1])
        said = f"training.max_length: {tokens} tokens .*IconQA sample 0, whose image takes {tokens}"
        with pytest.raises(FcitError, match=said):
            counter.readers(tokens)[0].cuts_off(SAMPLES[0], text)
        counter.readers(2048)[0].cuts_off(SAMPLES[0], text)


ANSWERS = ["red star", "blue house", "two", "yes"]
SAMPLES = [
    Sample(str(at), "IconQA", f"{at}.png", f"What is number {at}?", (answer,))
    for at, answer in enumerate(ANSWERS)
]


def block(model: LMM, seed: int, std: float = 0.05) -> dict[str, torch.Tensor]:
    """A block that changes answers: both factors drawn."""
    noise = torch_stream(seed, "block")
    blank = model.subspaces.blank(4, 1.0, noise)
    return {key: torch.randn(value.shape, generator=noise) * std for key, value in blank.items()}


def theirs(model: LMM, sample: Sample, path: Path):
    """What the family's own processor makes of a whole conversation, beside pixels and all."""
    image = Image.open(path)
    if model.model.config.model_type == "paligemma":
        suffix = sample.answers[0]
        made = model.processor(
            images=image, text="<image>" + sample.prompt, suffix=suffix, return_tensors="np"
        )
        return made.convert_to_tensors("pt")
    user = {"role": "user", "content": [{"type": "image"}, {"type": "text", "text": sample.prompt}]}
    said = {"role": "assistant", "content": [{"type": "text", "text": sample.answers[0]}]}
    text = model.tokenizer.apply_chat_template(
        [user, said], chat_template=model.processor.chat_template, tokenize=False
    )
    begun = not text.startswith("<s>")
    return model.processor(
        images=[image], text=[text], return_tensors="pt", add_special_tokens=begun
    )


def test_ids_and_logits_are_those_of_transformers_own_path(model: LMM, images) -> None:
    model.receive(State(), 2.0)
    for sample, path in zip(SAMPLES, images, strict=True):
        batch = model.batch([sample], [path])
        inputs = theirs(model, sample, path)
        inputs.pop("labels", None)
        assert batch.ids.tolist() == inputs["input_ids"].tolist()
        with torch.no_grad():
            logits = model.model(**inputs).logits
            ours, _ = model.logits(batch)
        learnt = batch.labels[:, 1:] != -100
        torch.testing.assert_close(ours, logits[:, :-1][learnt], rtol=1e-4, atol=1e-5)


def test_the_last_mlp_of_a_prompt_is_the_last_layers(model: LMM) -> None:
    assert model._last_mlp is model.model.get_decoder().layers[-1].mlp


def test_logits_as_large_as_a_real_models_are_the_familys(model: LMM, images) -> None:
    """What changes logits after the head, such as PaliGemma 2's cap, hardly shows in small ones."""
    model.receive(State(), 2.0)
    batch = model.batch(SAMPLES[:1], images[:1])
    inputs = theirs(model, SAMPLES[0], images[0])
    inputs.pop("labels", None)
    norm = model.model.get_decoder().norm.weight
    with torch.no_grad():
        before = norm.clone()
        try:
            norm.add_(1).mul_(300)  # Gemma's norm is one more than its weight
            logits = model.model(**inputs).logits
            ours, _ = model.logits(batch)
        finally:
            norm.copy_(before)
    assert logits.abs().max() > 10
    learnt = batch.labels[:, 1:] != -100
    torch.testing.assert_close(ours, logits[:, :-1][learnt], rtol=1e-3, atol=1e-3)


def test_what_training_teaches_as_the_end_of_an_answer_ends_it(model: LMM) -> None:
    ends = model.model.generation_config.eos_token_id
    assert model.tokenizer.convert_tokens_to_ids(model.chat.end) in (
        [ends] if isinstance(ends, int) else ends
    )


def test_greedy_answers_are_those_of_transformers_own_generate(model: LMM, images) -> None:
    model.receive(State({"0": block(model, 3)}), 2.0)
    for prompt, path in zip(ANSWERS, images, strict=True):
        image = Image.open(path)
        if model.model.config.model_type == "paligemma":
            inputs = model.processor(images=image, text="<image>" + prompt, return_tensors="np")
            inputs.convert_to_tensors("pt").pop("labels")
        else:
            content = [{"type": "image"}, {"type": "text", "text": prompt}]
            text = model.tokenizer.apply_chat_template(
                [{"role": "user", "content": content}],
                chat_template=model.processor.chat_template,
                tokenize=False,
                add_generation_prompt=True,
            )
            inputs = model.processor(
                images=[image],
                text=[text],
                return_tensors="pt",
                add_special_tokens=not text.startswith("<s>"),
            )
        out = model.model.generate(**inputs, max_new_tokens=5, do_sample=False)
        new = out[0, inputs["input_ids"].shape[1] :]
        answer = model.tokenizer.decode(new, skip_special_tokens=True).strip()
        assert model.generate([prompt], [path], 5) == [answer]


def test_no_text_forges_a_turn_an_image_or_an_end(model: LMM, images) -> None:
    (image, *_), control = model.features(images[:1]), model.chat.control
    special = {model.tokenizer.convert_tokens_to_ids(token) for token in control}
    forged = "".join(f"{token}x" for token in control)
    plain = Sample("1", "x", "a.png", "What?", ("it",))
    odd = Sample("1", "x", "a.png", f"What? {forged}", (f"it {forged}",))
    rows = [model.chat.conversation(sample, image.text)[0] for sample in (plain, odd)]
    own, other = ([token for token in row if token in special] for row in rows)
    assert own == other and len(rows[1]) > len(rows[0])


def test_only_the_answer_carries_loss(model: LMM, images) -> None:
    for sample, path in zip(SAMPLES, images, strict=True):
        labels = model.batch([sample], [path]).labels
        text = model.tokenizer.decode(labels[labels != -100], skip_special_tokens=True)
        assert text.strip() == sample.answers[0]
        last = int(labels[labels != -100][-1])
        assert model.tokenizer.added_tokens_decoder[last].special


def test_a_few_steps_learn_the_answers(model: LMM, images) -> None:
    model.receive(
        State({"0": block(model, 0, 0.02)}, {"projector": model.base_projector}), 2.0, ["0"], True
    )
    batch = model.batch(SAMPLES, images)
    adam = torch.optim.AdamW([*model.adapter_parameters(), *model.projector_parameters()], lr=3e-2)
    losses = []
    for _ in range(8):
        loss = model.loss(batch)
        adam.zero_grad()
        loss.backward()
        adam.step()
        losses.append(float(loss.detach()))
    assert losses[-1] < losses[0] - 0.2
    for parameters in (model.adapter_parameters(), model.projector_parameters()):
        assert all(value.grad is not None for value in parameters)
        assert any(value.grad.abs().sum() > 0 for value in parameters)
    moved = model.shared_projector()
    assert any(not torch.equal(moved[key], model.base_projector[key]) for key in moved)


def test_answers_do_not_depend_on_the_batch(model: LMM, images) -> None:
    sent = {str(at): block(model, at) for at in range(2)}
    for at, part in enumerate(sent.values()):
        scaled = {key: value * (1 + at / 2) for key, value in model.base_projector.items()}
        part |= {f"projector.{key}": value for key, value in scaled.items()}
    model.receive(State(sent), 2.0)
    gate = torch.tensor([[1.0, 0.0], [0.5, 0.5], [0.2, 0.8], [0.0, 1.0]])
    model.gate = gate
    together, answered = [], model.generate(ANSWERS, images, 5)
    with torch.no_grad():
        logits, _ = model.logits(model.batch(SAMPLES, images))
    for at, path in enumerate(images):
        model.gate = gate[at : at + 1]
        assert model.generate([ANSWERS[at]], [path], 5) == answered[at : at + 1]
        with torch.no_grad():
            together.append(model.logits(model.batch([SAMPLES[at]], [path]))[0])
    torch.testing.assert_close(torch.cat(together), logits, rtol=1e-3, atol=1e-4)


def test_saved_adapters_come_back_with_the_same_logits(model: LMM, images, tmp_path) -> None:
    made = block(model, 7)
    model.receive(State({"0": made}, {"projector": model.base_projector}), 2.0)
    batch = model.batch(SAMPLES, images)
    with torch.no_grad():
        before, _ = model.logits(batch)
        save_peft(tmp_path, model.adapter("0"), 2.0, "model")
        model.receive(State(), 2.0)
        without, _ = model.logits(batch)
        again = load(tmp_path / "adapter_model.safetensors")
        model.receive(State({"0": again}), 2.0)
        after, _ = model.logits(batch)
    assert torch.equal(before, after)
    assert not torch.equal(before, without)


def test_frozen_features_are_computed_once(model: LMM, images) -> None:
    model.receive(State(), 2.0)
    model.features(images)
    computed = model.cache.computed
    runs = []
    inside = next(
        iter(model.vision.layers[0].children())
    )  # where layers are passed over, it never runs
    hook = inside.register_forward_hook(lambda *_: runs.append(1))
    try:
        model.cache.memory.clear()  # what comes back from the disk is as good
        first = model.loss(model.batch(SAMPLES, images))
        torch.testing.assert_close(model.loss(model.batch(SAMPLES, images)), first)
    finally:
        hook.remove()
    assert model.cache.computed == computed
    assert not runs
    assert all(one.plain or one.skip for one in model.features(images))


def test_a_tower_that_cannot_be_passed_over_runs_whole(family, images) -> None:
    """Where its layers are not what they seem, the frozen tower runs again, to the same embeddings."""
    model = LMM(family("LLaVA-OneVision"))
    seen = model.features(images)
    wanted = model.project(seen)
    model.vision.layers = [model.vision.base.vision_tower.embeddings]
    model.cache.memory.clear()
    again = model.features(images)
    assert all(one.skip for one in seen if not one.plain)
    assert not any(one.skip for one in again if not one.plain)
    for ours, theirs in zip(model.project(again), wanted, strict=True):
        assert torch.equal(ours[0], theirs[0])


def test_an_image_that_the_processor_refuses_has_no_size(family, tmp_path: Path) -> None:
    folder = shutil.copytree(family("Qwen2.5-VL"), tmp_path / "model")
    with pytest.raises(FcitError, match="the model takes no image of 2000 x 4 pixels"):
        model_size(folder, picture=(2000, 4))
    (folder / "preprocessor_config.json").unlink(missing_ok=True)
    (folder / "processor_config.json").unlink()
    assert model_size(folder, picture=(2000, 4)).image_tokens == 0  # no processor tells


def test_an_exported_card_answers_in_the_runs_numbers_where_the_base_is_stored_in_others(
    family, table: dict, images: list[Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A convolutional tower refuses pixels of another type than its weights'. Weights dequantized from
    a GGUF file can be merged, too."""
    weights = shutil.copytree(family("FastVLM"), tmp_path / "base") / "model.safetensors"
    save(weights, {name: value.bfloat16() for name, value in load(weights).items()})
    table = table | {
        "model": {"path": str(tmp_path / "base"), "device": "cpu", "dtype": "float32"},
        "setting": {"name": "task-hom", "order": ["IconQA"]},
        "federation": table["federation"] | {"rounds": 1},
        "training": table["training"] | {"lr": 0.05},
    }
    run = fcit.run(table, tmp_path / "run")
    export.subspace(run, "0", tmp_path / "one")
    card = (tmp_path / "one" / "README.md").read_text()
    assert 'from_pretrained(BASE, dtype="float32")' in card
    (tmp_path / "one" / "base").symlink_to(tmp_path / "base")  # "your copy of this model"
    prompt = "How many?"
    said = handmade.by_the_card(tmp_path / "one", images[0], prompt, monkeypatch)
    assert said == run.generate(images[0], prompt) != ""
    export.merged(fcit.Run(run.folder), prompt, tmp_path / "whole")
    assert handmade.by_the_card(tmp_path / "whole", images[0], prompt, monkeypatch) == said
    assert "quantization_config" not in (tmp_path / "whole" / "config.json").read_text()
