"""Miniatures of families through a whole run: trained, routed, answered, and exported."""

from __future__ import annotations

import contextlib
import copy
import io
import re
import shutil
import sys
from pathlib import Path

import pytest

import fcit
import handmade
from fcit.files import read_json, write_json
from fcit.use import export

PROMPT = "How many icons are there?"


@pytest.mark.parametrize("name", ["Gemma 3", "Qwen3-VL"])
def test_a_run_of_disco_answers_and_its_card_says_the_same(
    name: str, family, table: dict, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    import torch
    from peft import PeftModel
    from transformers import AutoModelForImageTextToText

    folder = tmp_path / "model"
    shutil.copytree(family(name), folder)
    if name == "Qwen3-VL":  # as its published folders have
        videos = {"video_processor_type": "Qwen3VLVideoProcessor"}
        write_json(folder / "video_preprocessor_config.json", videos)
    recipe = copy.deepcopy(table) | {"model": {"path": str(folder), "dtype": "float32"}}
    recipe["federation"] |= {"rounds": 1}
    recipe["training"] |= {"lr": 3e-2}
    recipe["evaluation"] = {"max_new_tokens": 4, "limit": 3}
    fcit.run(recipe, tmp_path / "run")
    run = fcit.load(tmp_path / "run")
    assert len(run.results["matrix"]) == 2
    image = handmade.picture(tmp_path / "photo.png")
    found = run.answer(image, PROMPT)
    assert sorted(found.activation) == sorted(run.state.adapters)
    assert len(found.activation) > 1
    assert sum(found.activation.values()) == pytest.approx(1, abs=1e-5)

    export.subspace(run, "0", tmp_path / "one")
    model = run.worker.model
    model.gate = torch.tensor([[float(name == "0") for name in model.subspaces.names]])
    want = model.generate([PROMPT], [image], 4)[0]
    (code,) = re.findall(r"```python\n(.*?)```", (tmp_path / "one" / "README.md").read_text(), re.S)
    assert "square" not in code
    code = code.replace('"model"', repr(str(folder))).replace('"photo.png"', repr(str(image)))
    said = io.StringIO()
    with contextlib.chdir(tmp_path / "one"), contextlib.redirect_stdout(said):
        exec(compile(code, "card", "exec"), {})
    assert said.getvalue().strip() == want
    if name == "Gemma 3":
        return
    settings = tmp_path / "one/video_preprocessor_config.json"
    assert read_json(settings)["video_processor_type"] == "Qwen3VLVideoProcessor"
    base = AutoModelForImageTextToText.from_pretrained(folder, dtype=torch.float32)
    before = {name: value.clone() for name, value in base.named_parameters()}
    peft = PeftModel.from_pretrained(base, tmp_path / "one").merge_and_unload()
    learnt, moved = run.state.extras["projector"], False
    for place, prefix in model.vision.projector_paths.items():
        for name, value in peft.get_submodule(place).named_parameters():
            assert torch.equal(value, learnt[prefix + name])
            moved |= not torch.equal(value, before[f"{place}.{name}"])
    assert moved and len(model.vision.projector_paths) == 3

    export.everything(run, tmp_path / "all")
    monkeypatch.syspath_prepend(str(tmp_path / "all"))
    sys.modules.pop("router", None)
    import router  # type: ignore[import-not-found]

    opened = router.load(
        tmp_path / "all", AutoModelForImageTextToText.from_pretrained(folder, dtype=torch.float32)
    )
    for place, prefix in model.vision.projector_paths.items():
        part = opened.base_model.model.get_submodule(place)
        assert all(torch.equal(v, learnt[prefix + n]) for n, v in part.named_parameters())
