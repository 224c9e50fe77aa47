"""Exported folders answer as fcit does, with PEFT and transformers alone, by the code in their cards."""

from __future__ import annotations

import json
import re
import shutil
import subprocess
import sys
from dataclasses import dataclass, replace
from pathlib import Path
from types import SimpleNamespace

import pytest
from PIL import Image, ImageOps

import handmade
import zygote
from commandline import call, refused
from fcit.aggregation.privacy import Privacy
from fcit.methods import Gating
from fcit.methods.disco import Disco
from fcit.models import CHECKPOINTS
from fcit.models.chat import Chat
from fcit.models.images import open_image
from fcit.rounds.client import Data
from fcit.runs.api import Run
from fcit.types import FcitError, Sample
from fcit.use import export
from fcit.use.export import cards

PROMPT = handmade.PROMPTS[0]


@pytest.fixture(scope="module")
def image(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return handmade.picture(tmp_path_factory.mktemp("image") / "photo.png")


@pytest.fixture(scope="module")
def made(table: dict, tmp_path_factory: pytest.TempPathFactory):
    """Runs by method and options, each with its model loaded once."""
    room, found = tmp_path_factory.mktemp("runs"), {}

    def run(method: str = "disco", **options) -> Run:
        key = "-".join([method, *map(str, options.values())])
        if key not in found:
            found[key] = handmade.run(room / key, table, method, **options)
        return found[key]

    return run


def alone(run: Run, name: str, image: Path) -> str:
    """fcit's answer with one subspace open."""
    import torch

    worker = run.worker
    names = worker.model.subspaces.names
    worker.model.gate = torch.tensor([[float(one == name) for one in names]])
    return worker.model.generate([PROMPT], [image], 12)[0]


def answered(run: Run, image: Path) -> tuple[str, dict[str, float]]:
    found = run.answer(image, PROMPT)
    return found.text, found.activation


@pytest.mark.parametrize(
    "options",
    [{}, {"projector": "isolated"}, {"projector": "lora"}, {"projector": "frozen"}],
    ids=str,
)
def test_plain_peft_answers_as_one_subspace_does(
    options: dict, made, image: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    run = made(**options)
    want = [alone(run, name, image) for name in ("0", "1")]
    assert want[0] != want[1]
    export.subspace(run, "1", tmp_path / "one")
    assert handmade.by_the_card(tmp_path / "one", image, PROMPT, monkeypatch) == alone(
        run, "1", image
    )
    config = json.loads((tmp_path / "one" / "adapter_config.json").read_text())
    assert ("modules_to_save" in config) == (options.get("projector") != "frozen")
    assert "FigureQA" in (tmp_path / "one" / "README.md").read_text()


def test_a_card_shows_transparent_parts_as_the_run_does(
    made, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    drawn = Image.open(handmade.picture(tmp_path / "whole.png")).convert("RGBA")
    drawn.putalpha(Image.linear_gradient("L").resize(drawn.size))
    drawn.save(tmp_path / "clear.png")
    run = made()
    export.subspace(run, "1", tmp_path / "one")
    (code,) = re.findall(r"```python\n(.*?)```", (tmp_path / "one/README.md").read_text(), re.S)
    start = code.index("image = ImageOps")
    lines = code[start : code.index("\n", code.index('convert("RGB")'))]
    names = {"Image": Image, "ImageOps": ImageOps}
    monkeypatch.chdir(tmp_path)
    exec(lines.replace("photo.png", "clear.png"), names)
    assert names["image"].tobytes() == open_image(tmp_path / "clear.png").tobytes()


def test_an_adapters_name_may_have_a_dot(made, image: Path, tmp_path: Path, monkeypatch) -> None:
    """A dataset's name may, and individual's adapters are named by datasets."""
    run = made(projector="isolated")
    want, _ = answered(run, image)
    export.everything(run, tmp_path / "all")
    text = (tmp_path / "all/router.json").read_text()
    (tmp_path / "all/router.json").write_text(text.replace('"1"', '"WIT-2.0"'))
    (tmp_path / "all/adapters/1").rename(tmp_path / "all/adapters/WIT-2.0")
    assert handmade.by_the_card(tmp_path / "all", image, PROMPT, monkeypatch) == want


def test_peft_gives_the_logits_of_the_subspace(made, image: Path, tmp_path: Path) -> None:
    import torch
    from peft import PeftModel
    from transformers import AutoModelForImageTextToText

    run = made()
    export.subspace(run, "0", tmp_path / "one")
    model = run.worker.model
    model.gate = torch.tensor([[1.0, 0.0]])
    batch = model.batch([Sample("", "", "", PROMPT, ("seven",))], [image])
    pixels = model.processor.image_processor(_square(image), return_tensors="pt")["pixel_values"]
    with torch.no_grad():
        ours, _ = model.logits(batch)
        base = AutoModelForImageTextToText.from_pretrained(
            CHECKPOINTS / "mini-lmm", dtype=torch.float32
        )
        peft = PeftModel.from_pretrained(base, tmp_path / "one").eval()
        full = peft(input_ids=batch.ids, attention_mask=batch.mask, pixel_values=pixels).logits
        theirs = full[:, :-1][batch.labels[:, 1:] != -100]
    torch.testing.assert_close(ours, theirs, rtol=1e-4, atol=1e-4)


def _square(path: Path):
    from fcit.models.images import open_image, pad_to_square

    return pad_to_square(open_image(path))


@pytest.mark.parametrize(
    ("method", "options"),
    [
        ("disco", {}),
        ("disco", {"projector": "isolated"}),
        ("disco", {"projector": "lora"}),
        ("disco", {"gate": "argmax"}),
        ("disco", {"gate": "cosine"}),
        ("disco", {"router": "discriminant"}),
        ("disco", {"token": "both"}),
        ("disco", {"token": "image"}),
        ("disco_lda", {}),
        ("finetune", {}),
        ("olora", {}),
    ],
)
def test_all_adapters_and_their_router_answer_as_the_run_does(
    method: str,
    options: dict,
    made,
    image: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    run = made(method, **options)
    want, shares = answered(run, image)
    export.everything(run, tmp_path / "all")
    assert handmade.by_the_card(tmp_path / "all", image, PROMPT, monkeypatch) == want
    router = sys.modules["router"].Router(tmp_path / "all", CHECKPOINTS / "mini-clip")
    seen = [_square(image)] if "token" in options else []
    assert router.weights(PROMPT, *seen) == pytest.approx(shares, abs=1e-5)


def test_weights_of_a_base_in_a_folder_have_its_own_licence(made) -> None:
    for path, licence in (("", "apache-2.0"), (str(CHECKPOINTS / "mini-lmm"), "other")):
        run = Run(made().folder)
        run.worker = made().worker
        run.config = replace(run.config, model=replace(run.config.model, path=path))
        card = cards.card(run, "merged", target="IconQA", shares={}, dtype="float32")
        assert card.startswith(f"---\nlicense: {licence}\n")


def test_a_card_keeps_the_seed_of_the_noise_to_itself(made) -> None:
    run = Run(made().folder)
    run.worker = made().worker
    for privacy, named in (({}, True), ({"clip_norm": 1.0}, False)):
        rules = replace(run.config.federation, outlier_factor=0.0)
        run.config = replace(run.config, privacy=Privacy(**privacy), federation=rules, seed=8231)
        card = cards.card(run, "subspace", name="0")
        assert ("seed 8231" in card) == named and ("8231" in card) == named


@pytest.mark.parametrize("written", [True, False])
def test_a_client_of_vllm_asks_for_the_first_token_where_no_template_writes_it(
    written: bool, made, monkeypatch: pytest.MonkeyPatch
) -> None:
    """vLLM's endpoint adds no control token by itself."""
    monkeypatch.setattr(Chat, "writes_bos", property(lambda chat: written))
    more = {"names": ["0"], "modules": "", "limit": 8, "note": "", "dtype": "float32"}
    card = cards.card(made(), "vllm", **more)
    assert ('extra_body={"add_special_tokens": True}' in card) == (not written)


@pytest.mark.parametrize("router", ["cosine", "discriminant"])
def test_the_router_takes_the_image_where_tokens_are_of_both(
    router: str, made, image: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    run = made(token="both", router=router)
    export.everything(run, tmp_path / "all")
    monkeypatch.syspath_prepend(str(tmp_path / "all"))
    sys.modules.pop("router", None)
    import router  # type: ignore[import-not-found]

    found = router.Router(tmp_path / "all", CHECKPOINTS / "mini-clip")
    assert found.weights(PROMPT, _square(image)) == pytest.approx(answered(run, image)[1], abs=1e-5)
    with pytest.raises(ValueError, match="give the image too"):
        found.weights(PROMPT)
    with pytest.raises(FcitError, match="routes by images as well.*IconQA"):
        export.merged(run, PROMPT, tmp_path / "merged")


def test_the_router_needs_no_fcit(made, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    export.everything(made(), tmp_path / "all")
    code = (
        "import sys; sys.modules['fcit'] = None; sys.path.insert(0, '.'); import router;"
        f"r = router.Router('.', {str(CHECKPOINTS / 'mini-clip')!r});"
        f"w = r.weights({PROMPT!r}); assert max(w, key=w.get) == '0', w"
    )
    monkeypatch.setenv(zygote.FORK, "1")
    done = subprocess.run(
        [sys.executable, "-c", code], cwd=tmp_path / "all", capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr


@pytest.mark.parametrize("kind", ["text", "both"])
def test_the_router_embeds_with_other_encoders_as_the_run_does(
    kind: str, made, image: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    import torch

    from encoders import sentences, siglip
    from fcit.models.identity import Encoder
    from fcit.weights import cosine, save

    folder = (sentences if kind == "text" else siglip)(tmp_path / "encoder")
    (feature,) = Encoder(folder).embed(kind, [PROMPT], [image])  # type: ignore[arg-type]
    tokens = torch.randn(2, len(feature), generator=torch.Generator().manual_seed(5))
    export.everything(made(gate="cosine"), tmp_path / "all")
    save(tmp_path / "all" / "identity.safetensors", {"tokens": tokens})
    facts = json.loads((tmp_path / "all" / "router.json").read_text())
    (tmp_path / "all" / "router.json").write_text(json.dumps(facts | {"token": kind}))
    monkeypatch.syspath_prepend(str(tmp_path / "all"))
    sys.modules.pop("router", None)
    import router  # type: ignore[import-not-found]

    shares = router.Router(tmp_path / "all", folder).weights(PROMPT, _square(image))
    halves = zip(feature.chunk(2), tokens.chunk(2, dim=1), strict=True)
    parts = [(feature, tokens)] if kind == "text" else list(halves)
    want = sum(cosine(one[None], many)[0] for one, many in parts) / len(parts)
    assert [*shares.values()] == pytest.approx(want.tolist(), abs=1e-6)


@pytest.mark.parametrize(
    ("method", "options"), [("disco", {}), ("disco", {"projector": "frozen"}), ("olora", {})]
)
def test_weights_merged_for_a_prompt_answer_as_the_run_does(
    method: str,
    options: dict,
    table: dict,
    made,
    image: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    want, _ = answered(made(method, **options), image)
    run = handmade.run(tmp_path / "run", table, method, **options)
    changed = run.worker
    export.merged(run, PROMPT, tmp_path / "merged")
    assert handmade.by_the_card(tmp_path / "merged", image, PROMPT, monkeypatch) == want
    assert not list((tmp_path / "merged").glob("*.bin"))
    assert run.worker is not changed and run.generate(image, PROMPT) == want


def test_weights_merged_for_a_dataset_open_what_its_instructions_opened(
    table: dict, image: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    import torch

    run = handmade.run(tmp_path / "run", table, "hide")
    with pytest.raises(FcitError, match="IconQA.jsonl: does not exist"):
        export.merged(run, "IconQA", tmp_path / "merged")
    empty = dict.fromkeys(("question_id", "prompt", "prediction", "truth"), "") | {"score": 0}
    rows = [empty | {"activation": {"0": share, "1": 1 - share}} for share in (0.9, 0.5)]
    run.files.keep_answers("2", "IconQA", rows)
    worker = run.worker
    worker.method.activate(worker.model, torch.tensor([[0.7, 0.3]]))
    want = worker.model.generate([PROMPT], [image], 12)[0]
    export.merged(run, "IconQA", tmp_path / "merged")
    assert handmade.by_the_card(tmp_path / "merged", image, PROMPT, monkeypatch) == want
    assert "| 0 | 0.700000 |" in (tmp_path / "merged" / "README.md").read_text()


def test_a_dataset_of_individual_is_merged_with_its_own_projector(
    table: dict, image: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    run = handmade.run(tmp_path / "run", table, "individual")
    data = Data([Sample("", "FigureQA", "", PROMPT, ("",))], [image])
    want = run.worker.answer(data)[0].text
    export.everything(run, tmp_path / "all")
    export.merged(run, "FigureQA", tmp_path / "merged")
    assert handmade.by_the_card(tmp_path / "merged", image, PROMPT, monkeypatch) == want
    card = (tmp_path / "all" / "README.md").read_text()
    assert "weights = dict.fromkeys(['IconQA', 'FigureQA'], 0.0) | {'IconQA': 1.0}" in card


def test_exports_answer_without_the_penalties_of_the_base(
    table: dict, image: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    own = Path(shutil.copytree(CHECKPOINTS / "mini-lmm", tmp_path / "own"))
    file = own / "generation_config.json"
    changed = {"repetition_penalty": 5.0, "min_new_tokens": 9}
    file.write_text(json.dumps(json.loads(file.read_text()) | changed))
    run = handmade.run(tmp_path / "run", table, "finetune")
    run.config = replace(run.config, model=replace(run.config.model, path=str(own)))
    want = run.generate(image, PROMPT)
    export.everything(run, tmp_path / "all")
    shutil.copytree(own, tmp_path / "all" / "own")  # the card's path of one's copy
    assert handmade.by_the_card(tmp_path / "all", image, PROMPT, monkeypatch) == want
    export.merged(run, PROMPT, tmp_path / "merged")
    assert handmade.by_the_card(tmp_path / "merged", image, PROMPT, monkeypatch) == want
    assert "repetition_penalty" not in (tmp_path / "merged" / file.name).read_text()


def test_half_precision_is_written_when_asked_for(
    table: dict, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from fcit.weights import load

    run = handmade.run(tmp_path / "run", table, "finetune")
    words = ("export", run.folder, "--all", "--out", tmp_path / "x", "--dtype", "bfloat16")
    refused(call(*words), "--dtype: belongs to --merged and --vllm")
    with pytest.raises(FcitError, match="--dtype: 'int8'"):
        export.merged(run, PROMPT, tmp_path / "merged", "int8")  # type: ignore[arg-type]
    monkeypatch.setattr(run.worker.model.model, "is_quantized", True, raising=False)
    with pytest.raises(
        FcitError, match="run cannot be merged: the weights in .* are quantized; name one"
    ):
        export.merged(run, PROMPT, tmp_path / "merged")
    monkeypatch.setattr(run.worker.model.model, "is_quantized", True, raising=False)
    with pytest.raises(
        FcitError, match="^--vllm: .*run cannot be merged: the weights in .*quantized"
    ):
        export.served(run, tmp_path / "vllm")
    monkeypatch.undo()
    export.merged(run, PROMPT, tmp_path / "merged", "bfloat16")
    dtypes = {
        str(value.dtype) for value in load(tmp_path / "merged" / "model.safetensors").values()
    }
    assert dtypes == {"torch.bfloat16"}


@pytest.mark.parametrize(
    ("method", "said"),
    [
        ("l2p", "its `equip` adds"),
        ("moelora", "its `equip` adds"),
        ("zeroshot", "nothing to export"),
    ],
)
def test_what_no_adapter_expresses_is_refused(method: str, said: str, made, tmp_path: Path) -> None:
    run = made(method)
    for write in (export.everything, lambda run, out: export.subspace(run, "0", out)):
        with pytest.raises(FcitError, match=said):
            write(run, tmp_path / "out")
    with pytest.raises(FcitError, match=said):
        export.merged(run, PROMPT, tmp_path / "out")
    assert not list(tmp_path.iterdir())


def test_a_mistake_is_found_before_the_model_is_loaded(
    table: dict, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    run = handmade.run(tmp_path / "run", table, "hide")
    monkeypatch.setattr(Run, "load_worker", lambda *_: pytest.fail("the model was loaded"))
    for write, said in (
        (lambda run, out: export.subspace(run, "7", out), "no '7'"),
        (export.everything, "--all: hide has a `activate` of its own"),
        (export.served, "--vllm: hide has a `activate` of its own"),
    ):
        with pytest.raises(FcitError, match=said):
            write(run, tmp_path / "out")


def test_mistakes_leave_nothing_behind(made, tmp_path: Path) -> None:
    run = made()
    with pytest.raises(FcitError, match=r"no '7'; it has 0 \(IconQA\); 1 \(FigureQA\)"):
        export.subspace(run, "7", tmp_path / "out")
    with pytest.raises(FcitError, match="hide has a `activate` of its own"):
        export.everything(made("hide"), tmp_path / "out")
    with pytest.raises(FcitError, match="projectors of their own"):
        export.merged(made(projector="isolated"), PROMPT, tmp_path / "out")
    assert not list(tmp_path.iterdir())
    (tmp_path / "full").mkdir()
    (tmp_path / "full" / "mine.txt").write_text("kept")
    with pytest.raises(FcitError, match="not empty"):
        export.subspace(run, "0", tmp_path / "full")
    assert [path.name for path in (tmp_path / "full").iterdir()] == ["mine.txt"]


def test_a_quantised_run_is_exported_from_whole_weights(
    table: dict, tmp_path: Path, image: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    run = handmade.run(tmp_path / "run", table, "finetune")
    want, _ = answered(handmade.run(tmp_path / "plain", table, "finetune"), image)
    part = replace(run.config.model, quantize="4bit")
    run.config = replace(run.config, model=part)
    export.merged(run, PROMPT, tmp_path / "merged")
    assert handmade.by_the_card(tmp_path / "merged", image, PROMPT, monkeypatch) == want


@dataclass(frozen=True)
class RoutesItself(Disco):
    """A method with a formula that no `Gating` is."""

    def route(self, state, query):
        return {name: 0.5 for name in state.adapters}


@dataclass(frozen=True)
class Distances(Disco):
    """A method with another similarity than the cosine."""

    def likeness(self, rows, tokens):
        return -(rows - tokens).norm(dim=-1)[None]


@dataclass(frozen=True)
class Equipped(Disco):
    """A method that changes the model."""

    def equip(self, model, received) -> None:
        model.gate = None


@dataclass(frozen=True)
class SaysItsFormula(Disco):
    """A method whose formula is a `Gating`: the exported folder and the run both compute it."""

    @property
    def gating(self) -> Gating:
        return Gating("argmax")


def test_a_method_of_ones_own_is_not_exported_as_what_it_is_not(
    table: dict, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    run = handmade.run(tmp_path / "run", table)
    for method, hook in ((RoutesItself(), "route"), (Distances(), "likeness")):
        monkeypatch.setattr(run.experiment, "method", method)
        with pytest.raises(FcitError, match=f"has a `{hook}` of its own, and router.py would"):
            export.everything(run, tmp_path / "out")
    run.config = replace(run.config, method=Equipped())
    with pytest.raises(FcitError, match="cannot be exported: its `equip` adds"):
        export.subspace(run, "0", tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_a_method_of_ones_own_is_exported_by_the_formula_that_it_routes_by(
    table: dict, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    run = handmade.run(tmp_path / "run", table)
    monkeypatch.setattr(run.worker, "method", SaysItsFormula())
    export.everything(run, tmp_path / "out")
    facts = json.loads((tmp_path / "out" / "router.json").read_text())
    assert (facts["gate"], facts["token"]) == ("argmax", "text")


def test_tokens_that_are_not_one_per_adapter_are_refused(table: dict, tmp_path: Path) -> None:
    run = handmade.run(tmp_path / "run", table)
    run.state.adapters["2"] = run.state.adapters["0"]
    with pytest.raises(FcitError, match="adapters without an identity token"):
        export.everything(run, tmp_path / "out")


def test_why_a_dataset_has_no_shares_is_said(table: dict, tmp_path: Path) -> None:
    run = handmade.run(tmp_path / "run", table)
    with pytest.raises(FcitError, match="Grounding is no dataset of this run; it has IconQA, Fig"):
        export.merged(run, "Grounding", tmp_path / "out")
    part = replace(run.config.evaluation, where="clients")
    run.config = replace(run.config, evaluation=part)
    with pytest.raises(FcitError, match="clients scored their own"):
        export.merged(run, "IconQA", tmp_path / "out")


@pytest.mark.parametrize("token", ["text", "both"])
@pytest.mark.parametrize("gate", ["softmax", "slots", "argmax", "cosine", "concat"])
def test_router_and_disco_agree_on_any_tokens(token: str, gate: str) -> None:
    import torch

    from fcit.methods.base import Query
    from fcit.models.router import Router
    from fcit.types import State

    noise = torch.Generator().manual_seed(5)
    tokens, feature = (torch.randn(n, 8, generator=noise) for n in (5, 1))
    slots = gate == "slots"
    gate = "softmax" if slots else gate
    method = Disco(gate=gate, token=token, temperature=0.2, as_reference=slots)  # type: ignore[arg-type]
    held = {"identity": {"tokens": tokens, "samples": torch.ones(5)}}
    want = method.route(State({}, held), Query("", feature[0]))
    router = Router.__new__(Router)
    router.names, router.kind, router.compared = list(want), token, {"tokens": tokens}
    router.facts = {"gate": gate, "temperature": 0.2, "slots": 8 if slots else 0}
    text, image = feature[0].chunk(2) if token == "both" else (feature[0], None)
    router.features = SimpleNamespace(texts=lambda _: text[None], images=lambda _: image[None])  # type: ignore
    assert router.weights("", "seen") == pytest.approx(want, abs=1e-6)
