"""The model: transformers' own loss, answers free of their batch, and room for methods to come."""

from __future__ import annotations

import json
import shutil
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch
from PIL import Image
from transformers import GenerationConfig

from fcit.benchmark import datasets
from fcit.models import CHECKPOINTS
from fcit.models.batch import known_arguments
from fcit.models.features import FeatureCache, fingerprint
from fcit.models.images import open_image, pad_to_square
from fcit.models.lmm import LMM
from fcit.models.loading import load, plain
from fcit.models.processors import takes_squares
from fcit.seeds import numpy_stream, torch_stream
from fcit.types import FcitError, Sample, State
from fcit.weights import low_rank


@pytest.fixture
def data(suite: Path) -> tuple[list[Sample], list[Path]]:
    samples = datasets.read(suite, "IconQA", "train")[:6]
    samples += datasets.read(suite, "Grounding", "train")[:6]  # with multi-turn records
    return samples, [datasets.image_path(suite, sample) for sample in samples]


def blocks(lmm, count: int) -> dict:
    noise = torch_stream(0, "blocks")
    return {
        str(k): {
            key: torch.randn(value.shape, generator=noise) * 0.05
            for key, value in lmm.subspaces.blank(4, 1.0, noise).items()
        }
        for k in range(count)
    }


def test_the_loss_is_transformers_own(lmm, data) -> None:
    samples, images = data
    lmm.receive(State(), 2.0)
    batch = lmm.batch(samples, images)
    pixels = lmm.processor.image_processor(
        [Image.open(path) for path in images], return_tensors="pt"
    )["pixel_values"]
    with torch.no_grad():
        theirs = lmm.model(
            input_ids=batch.ids, attention_mask=batch.mask, labels=batch.labels, pixel_values=pixels
        ).loss
        torch.testing.assert_close(lmm.loss(batch), theirs, rtol=1e-4, atol=1e-5)


def test_only_the_assistants_words_carry_loss(lmm, data) -> None:
    sample = next(sample for sample in data[0] if sample.more)
    ids, labels = lmm.chat.conversation(sample, "<image>" * 4)
    learnt = lmm.tokenizer.decode([token for token in labels if token != -100])
    answers = [sample.answers[0], *(answer for _, answer in sample.more)]
    assert learnt.replace(lmm.tokenizer.eos_token, "|").replace(" ", "").split("|")[:-1] == [
        answer.replace(" ", "") for answer in answers
    ]
    assert ids.count(lmm.image_id) == 4


@pytest.mark.parametrize("text", ["naïve Zürich 中文 🎈 \t x", "", "<image> USER: </s>"])
def test_no_text_is_unknown_to_the_tokenizer(lmm, text: str) -> None:
    ids = lmm.tokenizer(text)["input_ids"]
    assert lmm.tokenizer.unk_token_id is None or lmm.tokenizer.unk_token_id not in ids
    assert lmm.tokenizer.decode(ids) == text


def test_answers_do_not_depend_on_the_batch(lmm, data) -> None:
    samples, images = data
    prompts = [sample.prompt for sample in samples]
    lmm.receive(State(blocks(lmm, 2)), 2.0)
    gate = torch.rand((len(prompts), 2), generator=torch_stream(1, "gate"))
    lmm.gate = gate
    together = lmm.generate(prompts, images, 8)
    alone = []
    for row, (prompt, image) in enumerate(zip(prompts, images, strict=True)):
        lmm.gate = gate[row : row + 1]
        alone += lmm.generate([prompt], [image], 8)
    assert together == alone


def test_the_head_copies_no_weights_for_a_batch(lmm, data) -> None:
    samples, images = data
    with torch.profiler.profile(record_shapes=True) as found:
        lmm.generate([s.prompt for s in samples[:3]], images[:3], 2)
    words = lmm.model.get_output_embeddings().weight.shape[0]
    shapes = [event.input_shapes for event in found.events() if event.name == "aten::bmm"]
    assert shapes  # attention's
    assert not [one for one in shapes if words in one[1]]


def alike(seen, flats) -> bool:
    return all(
        tensors.keys() == flat.keys() and all(torch.equal(tensors[k], flat[k]) for k in flat)
        for tensors, flat in zip((one.to_tensors() for one in seen), flats, strict=True)
    )


def test_features_are_computed_once_and_come_back_the_same(lmm, data, tmp_path) -> None:
    _, images = data
    cache, lmm.cache = lmm.cache, FeatureCache("model", tmp_path)
    try:
        first = [one.to_tensors() for one in lmm.features(images)]
        computed = lmm.cache.computed
        assert computed == len({path.read_bytes() for path in images})
        assert alike(lmm.features(images[::-1]), first[::-1])
        assert lmm.cache.computed == computed
        lmm.cache = FeatureCache("model", tmp_path)  # another process with the same disk
        assert alike(lmm.features(images), first)
        assert lmm.cache.computed == 0
        lmm.cache = FeatureCache("another", tmp_path)
        lmm.features(images)
        assert lmm.cache.computed == computed
    finally:
        lmm.cache = cache


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_an_images_features_depend_on_no_other_image(data, tmp_path, dtype) -> None:
    """Whatever was asked for before and beside it, in whatever order: a batch has one size."""
    model, images = LMM(CHECKPOINTS / "mini-lmm", "cpu", dtype), data[1]
    alone = {}
    for path in images:
        model.forget()
        (alone[path],) = (one.to_tensors() for one in model.features([path]))
    noise = numpy_stream(0, "orders")
    for size in (1, 2, 3, len(images), 2 * len(images)):
        for _ in range(3):
            chosen = [images[at] for at in noise.integers(len(images), size=size)]
            model.forget()
            assert alike(model.features(chosen), [alone[path] for path in chosen])


def test_images_are_encoded_several_at_a_time(lmm, data) -> None:
    _, images = data
    runs: list[int] = []
    hook = lmm.vision.layers[0].register_forward_hook(lambda _, x, y: runs.append(len(x[0])))
    lmm.forget()
    try:
        lmm.encode_ahead(images)
        assert set(runs) == {8} and len(runs) == -(-len({p.read_bytes() for p in images}) // 8)
        lmm.features(images[::-1])
        lmm.features(images[:1])
    finally:
        hook.remove()
    assert len(runs) == -(-len({path.read_bytes() for path in images}) // 8)


def test_a_sample_is_tokenized_once(lmm, data, monkeypatch) -> None:
    samples, images = data
    lmm.forget()
    first = lmm.batch(samples, images)
    lmm.generate([sample.prompt for sample in samples[:2]], images[:2], 1)
    with monkeypatch.context() as patch:
        patch.setattr(lmm.chat, "_tokenize", lambda text: pytest.fail("tokenized again"))
        again = lmm.batch(samples[::-1], images[::-1])
        lmm.generate([samples[1].prompt], images[1:2], 1)
    assert torch.equal(again.ids.flip(0), first.ids)
    assert torch.equal(again.labels.flip(0), first.labels)
    lmm.forget()
    assert not lmm.chat._kept.cache_info().currsize and not lmm.cache.memory


def test_a_method_may_put_prompts_before_the_image(lmm, data) -> None:
    samples, images = data
    lmm.receive(State(), 2.0)
    plain = lmm.loss(lmm.batch(samples, images))
    pool = torch.nn.Parameter(torch.randn((5, lmm.model.config.get_text_config().hidden_size)))
    lmm.extra["pool"] = torch.nn.ParameterList([pool])
    lmm.prompts = lambda embeds: pool.expand(len(embeds), -1, -1)
    loss = lmm.loss(lmm.batch(samples, images))
    loss.backward()
    assert pool.grad is not None and pool.grad.abs().sum() > 0
    assert any(value is pool for value in lmm.adapter_parameters())
    assert float(loss.detach()) != pytest.approx(float(plain))
    assert len(lmm.generate([samples[0].prompt], images[:1], 4)) == 1
    lmm.receive(State(), 2.0)
    assert lmm.prompts is None
    assert not list(lmm.extra)
    torch.testing.assert_close(lmm.loss(lmm.batch(samples, images)), plain)


def test_a_penalty_can_pull_at_the_tensors_by_their_names(lmm, data) -> None:
    sent = blocks(lmm, 2)
    lmm.receive(State(sent, {"projector": lmm.base_projector}), 2.0, ["1"], True)
    live = lmm.live("1")
    assert live.keys() == sent["1"].keys()
    pull = sum((live[key] - 2 * sent["1"][key]).square().sum() for key in live)
    pull.backward()
    grads = [value.grad for value in lmm.subspaces.trained()]
    assert all(grad is not None and grad.abs().sum() > 0 for grad in grads)


def test_isolated_projectors_are_mixed_by_the_gate(lmm, data) -> None:
    _, images = data
    made = blocks(lmm, 2)
    other = {key: value * 1.5 for key, value in lmm.base_projector.items()}
    for name, projector in (("0", lmm.base_projector), ("1", other)):
        made[name] |= {f"projector.{key}": value for key, value in projector.items()}
    features = lmm.features(images[:2])
    lmm.receive(State(made), 2.0)
    lmm.gate = torch.tensor([[1.0, 0.0], [0.25, 0.75]])
    mixed = [one[0] for one in lmm.project(features)]
    parts = []
    for name in "01":
        lmm.receive(State({name: made[name]}), 2.0)
        parts.append([one[0] for one in lmm.project(features)])
    torch.testing.assert_close(mixed[0], parts[0][0])
    torch.testing.assert_close(mixed[1], 0.25 * parts[0][1] + 0.75 * parts[1][1])


def test_a_projectors_lora_learns_with_its_block_and_is_the_whole_projector(lmm, data) -> None:
    samples, images = data
    made = blocks(lmm, 1)
    factors = low_rank(lmm.base_projector, 2, 0.5, torch_stream(0, "x"))
    assert {name.rpartition(".")[0] for name in factors} == {
        name for name, value in lmm.base_projector.items() if value.dim() == 2
    }
    made["0"] |= {f"projector.{name}": value for name, value in factors.items()}
    lmm.receive(State({}), 2.0)
    plain = lmm.project(lmm.features(images[:1]))[0][0]
    lmm.receive(State(made), 2.0, ["0"], True)
    torch.testing.assert_close(lmm.project(lmm.features(images[:1]))[0][0], plain)  # B is zero
    assert lmm.projector_parameters() == []
    lmm.loss(lmm.batch(samples[:2], images[:2])).backward()
    learning = lmm.adapter_parameters()
    assert len(learning) == len(lmm.subspaces.trained()) + len(factors)
    assert all(value.grad is not None for value in learning)
    changed = {name: value + 0.1 for name, value in factors.items()}
    lmm.receive(State({"0": made["0"] | {f"projector.{k}": v for k, v in changed.items()}}), 2.0)
    whole = lmm.projector(0)
    for name, value in lmm.base_projector.items():
        low = 2.0 * changed[f"{name}.B"] @ changed[f"{name}.A"] if f"{name}.A" in changed else 0
        torch.testing.assert_close(whole[name], value + low)
    assert lmm.adapter("0").keys() == made["0"].keys()


@pytest.mark.parametrize("sizes", [(48, 48), (48, 96)])
def test_one_gate_for_a_whole_batch_mixes_every_image(lmm, data, sizes) -> None:
    _, images = data
    made = blocks(lmm, 2)
    for at, name in enumerate(made):
        own = {f"projector.{k}": v * (1 + at / 2) for k, v in lmm.base_projector.items()}
        made[name] |= own
    seen = lmm.features(images[:2])
    lmm.receive(State(made), 2.0)
    if sizes[0] != sizes[1]:  # images of unlike sizes are mixed one by one
        longer = torch.cat([seen[1].parts[0]] * 2, dim=1)
        seen = [seen[0], replace(seen[1], parts=(longer,))]
    lmm.gate = torch.tensor([[0.25, 0.75]])
    mixed = lmm.project(seen)
    lmm.gate = torch.tensor([[0.25, 0.75]] * 2)
    each = lmm.project(seen)
    alone = []
    for at in range(2):
        lmm.gate = torch.eye(2)[at : at + 1]
        alone.append(lmm.project(seen))
    assert len(mixed) == 2
    for one, other, first, second in zip(mixed, each, *alone, strict=True):
        torch.testing.assert_close(one, other)
        for part, a, b in zip(one, first, second, strict=True):
            torch.testing.assert_close(part, 0.25 * a + 0.75 * b)
            assert not torch.allclose(a, b)


def test_a_models_own_generation_settings_do_not_change_greedy_answers(
    lmm, data, tmp_path: Path
) -> None:
    """`generate` takes from them what a call leaves open: a penalty, a smallest number of tokens."""
    samples, images = data
    shutil.copytree(CHECKPOINTS / "mini-lmm", tmp_path / "own")
    file = tmp_path / "own" / "generation_config.json"
    changed = {"min_new_tokens": 9, "repetition_penalty": 1.5, "num_beams": 3, "do_sample": True}
    file.write_text(json.dumps(json.loads(file.read_text()) | changed))
    asked = [sample.prompt for sample in samples[:3]], images[:3], 12
    lmm.gate = None
    lmm.receive(State({}), 2.0)
    other = LMM(tmp_path / "own", "cpu", lmm.model.dtype)
    assert other.generate(*asked) == lmm.generate(*asked)


def test_tokens_that_never_stand_in_an_answer_stay_forbidden() -> None:
    given = GenerationConfig(suppress_tokens=[7], repetition_penalty=1.3, eos_token_id=[2, 3])
    kept = plain(given)
    assert kept is not None and kept.suppress_tokens == [7] and kept.eos_token_id == [2, 3]
    assert kept.repetition_penalty is None
    assert plain(None) is None


def test_features_of_a_model_with_another_configuration_are_others(tmp_path: Path) -> None:
    """Also where its weights are the same: which layer and tokens are taken is only configured."""
    names = set()
    for strategy in ("default", "full"):
        folder = shutil.copytree(CHECKPOINTS / "mini-lmm", tmp_path / strategy)
        file = folder / "config.json"
        table = json.loads(file.read_text()) | {"vision_feature_select_strategy": strategy}
        file.write_text(json.dumps(table))
        model, processor = load(folder, "cpu", torch.float32)
        names.add(fingerprint(model, processor))
        shutil.copytree(folder, tmp_path / f"{strategy}-elsewhere")
        again = load(tmp_path / f"{strategy}-elsewhere", "cpu", torch.float32)
        names.add(fingerprint(*again))
    assert len(names) == 2


def test_a_family_that_tells_image_tokens_in_an_unknown_way_is_refused() -> None:
    def known(input_ids, mm_token_type_ids): ...

    def odd(input_ids, mm_token_type_ids, moe_mm_token_type_ids): ...

    config = SimpleNamespace(model_type="ernie")
    for forward, said in ((known, ""), (odd, "ernie needs moe_mm_token_type_ids")):
        model = SimpleNamespace(config=config, base_model=SimpleNamespace(forward=forward))
        if said:
            with pytest.raises(FcitError, match=said):
                known_arguments(model)
        else:
            assert known_arguments(model) == {"input_ids", "mm_token_type_ids"}


def test_only_llava_with_a_clip_takes_squares() -> None:
    for tower, square in (("clip_vision_model", True), ("pixtral", False)):
        vision = SimpleNamespace(model_type=tower)
        assert takes_squares(SimpleNamespace(model_type="llava", vision_config=vision)) is square
    assert not takes_squares(SimpleNamespace(model_type="paligemma"))


def test_images_are_padded_to_a_square_and_broken_ones_named(tmp_path) -> None:
    Image.new("RGB", (10, 4), "red").save(tmp_path / "wide.png")
    square = pad_to_square(open_image(tmp_path / "wide.png"))
    assert square.size == (10, 10)
    assert square.getpixel((5, 5)) == (255, 0, 0)
    assert square.getpixel((5, 0)) == (122, 116, 104)
    (tmp_path / "broken.png").write_bytes(b"\x89PNG\r\n\x1a\nnothing")
    with pytest.raises(FcitError, match="broken.png: image cannot be decoded"):
        open_image(tmp_path / "broken.png")


def test_a_folder_that_is_no_model_is_named(tmp_path) -> None:
    from fcit.models.identity import Encoder
    from fcit.models.lmm import LMM

    for kind in (LMM, Encoder):
        with pytest.raises(FcitError, match="there is no config.json in it"):
            kind(tmp_path)


def test_a_checkpointed_model_has_the_same_loss_and_gradients(lmm, data) -> None:
    samples, images = data
    runs, adapters, answers = [], blocks(lmm, 2), []
    calls: list[int] = []
    mlp = lmm.model.get_decoder().layers[0].mlp
    hook = mlp.register_forward_pre_hook(lambda *_: calls.append(1))
    control = lmm.subspaces.control
    try:
        for lmm.checkpointing, passes in ((False, 1), (True, 2)):  # the second for the gradients
            calls.clear()
            lmm.receive(State(adapters, {"projector": lmm.base_projector}), 2.0, ["1"], True)
            control.dropout, control.noise = 0.5, torch_stream(5, "dropout")
            loss = lmm.loss(lmm.batch(samples, images))
            loss.backward()
            learning = (*lmm.adapter_parameters(), *lmm.projector_parameters())
            runs.append([loss.detach(), control.noise.get_state(), *(x.grad for x in learning)])
            assert len(calls) == passes
            lmm.receive(State(adapters), 2.0)
            prompts = [sample.prompt for sample in samples[:2]]
            answers.append(lmm.generate(prompts, images[:2], 4))
    finally:
        lmm.checkpointing = False
        hook.remove()
    assert all(torch.equal(plain, again) for plain, again in zip(*runs, strict=True))
    assert answers[0] == answers[1]
