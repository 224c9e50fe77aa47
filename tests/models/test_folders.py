"""Broken and hostile model folders: each ends in one line that names it, and none of its code runs."""

import inspect
import json
import shutil
import struct
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
import transformers
from PIL import Image
from safetensors.torch import load_file, save_file
from transformers import CLIPVisionModel

from fcit.models import CHECKPOINTS, folders
from fcit.models.folders import DEEPEST, load_weights
from fcit.models.identity import Encoder
from fcit.models.llava_original import CLIP_TEXT
from fcit.models.lmm import LMM
from fcit.models.loading import load
from fcit.models.size import TokenCounter, encoder_size, model_size
from fcit.types import FcitError

Change = Callable[[Path], Any]


def table(name: str, **more: Any) -> Change:
    """Adds entries to one of the folder's JSON files."""

    def change(folder: Path) -> None:
        path = folder / name
        held = json.loads(path.read_text()) if path.exists() else {}
        path.write_text(json.dumps(held | more))

    return change


def content(name: str, data: bytes) -> Change:
    """Replaces one of the folder's files."""
    return lambda folder: (folder / name).write_bytes(data)


def tensors(change: Callable[[dict[str, torch.Tensor]], Any]) -> Change:
    """Changes the folder's tensors."""

    def save(folder: Path) -> None:
        path = folder / "model.safetensors"
        held = load_file(path)
        change(held)
        save_file(held, path, {"format": "pt"})

    return save


def header(entries: dict[str, list[int]], data: bytes) -> bytes:
    """A safetensors file whose float32 vectors have these (length, start, end)."""
    described = {
        name: {"dtype": "F32", "shape": [length], "data_offsets": [start, end]}
        for name, (length, start, end) in entries.items()
    }
    text = json.dumps(described).encode()
    return struct.pack("<Q", len(text)) + text + data


def copied(name: str, change: Change, folder: Path) -> Path:
    shutil.copytree(CHECKPOINTS / name, folder / name)
    change(folder / name)
    return folder / name


BIAS = "multi_modal_projector.linear_1.bias"
WEIGHTS = [
    (content("model.safetensors", b""), r"model\.safetensors: no safetensors file: .*header"),
    (content("model.safetensors", struct.pack("<Q", 1 << 60) + b"{}"), "header too large"),
    (
        content("model.safetensors", header({"a": [4, 0, 8]}, b"0" * 8)),
        r"\.safetensors: no .* header",
    ),
    (
        content("model.safetensors", header({"a": [2, 0, 8], "b": [2, 4, 12]}, b"0" * 12)),
        "invalid offset",
    ),
    (content("model.safetensors", b"version https://git-lfs"), "header"),
    (
        lambda folder: (folder / "model.safetensors").rename(folder / "pytorch_model.bin"),
        "no safeten",
    ),
    (
        lambda folder: (folder / "model.safetensors").rename(folder / "model.gguf"),
        "its weights in model.gguf, which is no safeten",
    ),
    (tensors(lambda held: held.pop(BIAS)), f"lacks 1 of the model's tensors.*{BIAS}"),
    (tensors(lambda held: held.update({"image_newline": torch.ones(3)})), "first is image_newline"),
    (tensors(lambda held: held.update({BIAS: torch.ones(3)})), rf"{BIAS} is \[3\]"),
]


@pytest.mark.parametrize(("change", "said"), WEIGHTS)
def test_weights_that_are_not_the_models_are_refused(change: Change, said: str, tmp_path) -> None:
    folder = copied("mini-lmm", change, tmp_path)
    with pytest.raises(FcitError, match=said) as refused:
        load(folder, "cpu", torch.float32)
    assert "\n" not in str(refused.value) and str(folder) in str(refused.value)


@pytest.mark.parametrize("name", ["mini-clip", "mini-lmm"])
def test_the_command_that_the_refusal_of_a_pickle_names_makes_a_folder_that_loads(
    name: str, tmp_path
) -> None:
    def pickled(folder: Path) -> None:
        torch.save(load_file(folder / "model.safetensors"), folder / "pytorch_model.bin")
        (folder / "model.safetensors").unlink()

    folder = copied(name, pickled, tmp_path)

    def read(source: Path) -> torch.Tensor:
        if name == "mini-lmm":
            return load(source, "cpu", torch.float32)[0].get_input_embeddings().weight
        load_weights(CLIPVisionModel, source, "identity", CLIP_TEXT)  # as LLaVA's vision tower
        return Encoder(source).text(["What is it?"])

    with pytest.raises(
        FcitError, match=r"pytorch_model\.bin, which is no safe.*models\.md"
    ) as told:
        read(folder)
    exec(str(told.value).partition("(docs/models.md): ")[2], vars(transformers))
    assert torch.equal(read(folder), read(CHECKPOINTS / name))


def test_of_a_hub_id_without_safetensors_the_way_out_is_named(monkeypatch) -> None:
    said = "Please do not set `use_safetensors=True`."
    assert said in inspect.getsource(transformers.modeling_utils)

    def read(*given: Any, **options: Any) -> None:
        raise OSError(f"me/clip does not ... {said}")

    monkeypatch.setattr(CLIPVisionModel, "from_pretrained", read)
    with pytest.raises(FcitError, match="no safetensors files; download its folder and convert it"):
        load_weights(CLIPVisionModel, "me/clip", "identity")


TABLES = [
    (content("config.json", b"[]"), r"config\.json: must be an object"),
    (content("config.json", b"{"), r"config\.json: not valid JSON"),
    (content("config.json", b"[" * 100_000), r"config\.json: .*too deeply nested"),
    (lambda folder: (folder / "config.json").unlink(), "there is no config.json in it$"),
    (
        lambda folder: (folder / "config.json").rename(folder / "tiny.gguf"),
        "no config.json in it; transformers converts its tiny.gguf",
    ),
    (content("tokenizer.json", b"{}"), r"tokenizer\.json: describes no tokenizer"),
    (content("tokenizer.json", b'{"model": {"merges": 3}}'), r"tokenizer\.json: describes no tok"),
    (content("tokenizer.json", b'{"version": '), r"tokenizer\.json: not valid JSON"),
    (lambda folder: (folder / "tokenizer.json").unlink(), r"there is no tokenizer\.json"),
    (
        table("processor_config.json", image_processor={"crop_size": {"width": 48}}),
        r"\(processor_\w+\.json, .*\) does not load",
    ),
    (
        content("processor_config.json", b"3"),
        r"processor_config\.json: must be an object, not a number",
    ),
    (content("adapter_config.json", b"{}"), "holds a PEFT adapter"),
    (table("config.json", num_hidden_layers=DEEPEST + 1), "num_hidden_layers = 1001 is too large"),
    (
        table("config.json", auto_map={"AutoConfig": "evil.A"}),
        r"config\.json: auto_map names Python",
    ),
    (table("processor_config.json", auto_map={"AutoProcessor": "evil.A"}), "auto_map names Python"),
    (
        table("tokenizer_config.json", auto_map={"AutoTokenizer": ["evil.A", None]}),
        "auto_map names",
    ),
    (
        table("preprocessor_config.json", auto_map={"AutoImageProcessor": "evil.A"}),
        "auto_map names",
    ),
]


@pytest.mark.parametrize(("change", "said"), TABLES)
def test_folders_are_refused_by_whoever_reads_them(change: Change, said: str, tmp_path) -> None:
    lmm, clip = (copied(name, change, tmp_path) for name in ("mini-lmm", "mini-clip"))
    for folder in (lmm, clip):
        (folder / "evil.py").write_text(f"open({str(tmp_path / 'ran')!r}, 'w')\nA = 1\n")
    for read in (
        lambda: load(lmm, "cpu", torch.float32),
        lambda: TokenCounter(lmm),
        lambda: Encoder(clip),
    ):
        with pytest.raises(FcitError, match=said) as refused:
            read()
        assert "\n" not in str(refused.value)
    if "config.json" in said.replace("\\", "").removeprefix("processor_"):
        for measure, folder in ((model_size, lmm), (encoder_size, clip)):
            with pytest.raises(FcitError):
                measure(folder)
    assert not (tmp_path / "ran").exists()


def test_code_of_a_type_that_transformers_does_not_know_never_runs(tmp_path: Path) -> None:
    """Without a table's auto_map, as for a hub id, transformers itself asks; the answer is always no."""
    folder = copied("mini-lmm", table("config.json", model_type="odd"), tmp_path)
    with pytest.raises(FcitError, match=r"\[model\] path: .* does not load: .*`odd`"):
        load(folder, "cpu", torch.float32)


def test_a_tokenizer_that_cannot_pad_is_refused_before_the_first_batch(tmp_path: Path) -> None:
    folder = copied("mini-lmm", lambda at: (at / "tokenizer_config.json").unlink(), tmp_path)
    with pytest.raises(
        FcitError, match=r"no padding token; set pad_token in tokenizer_config\.json"
    ):
        load(folder, "cpu", torch.float32)


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (
            table("processor_config.json", num_additional_image_tokens=2),
            r"its processor writes 37 .* makes 36; processor_config\.json and",
        ),
        (
            table("config.json", vision_feature_layer=99),
            r"of this config\.json takes no image: tuple",
        ),
        (table("config.json", vision_feature_layer=0), r"of this config\.json takes no image"),
        (
            table("tokenizer_config.json", image_token="<image>2"),
            r"no '<image>2', .*tokenizer_config",
        ),
    ],
)
def test_a_model_that_takes_images_otherwise_than_its_files_say_is_named(
    change: Change, said: str, tmp_path: Path
) -> None:
    Image.new("RGB", (48, 48)).save(tmp_path / "image.png")
    with pytest.raises(FcitError, match=rf"\[model\] \w+: .*{said}"):
        LMM(copied("mini-lmm", change, tmp_path)).generate(
            ["What is it?"], [tmp_path / "image.png"]
        )


def test_ctrl_c_while_a_fault_is_looked_for_is_no_fault(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def interrupted(path: str) -> None:
        raise KeyboardInterrupt

    folder = tmp_path / "model"
    shutil.copytree(CHECKPOINTS / "mini-lmm", folder)
    monkeypatch.setattr(folders, "Tokenizer", SimpleNamespace(from_file=interrupted))
    with pytest.raises(KeyboardInterrupt), folders.faults(folder):
        raise ValueError("something is wrong")
