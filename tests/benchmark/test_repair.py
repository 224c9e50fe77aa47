"""`fcit data check --fix`: a clean copy without records at fault, whole or not at all."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from typer.testing import CliRunner

import neighbours
import official
from fcit.benchmark import datasets
from fcit.benchmark.check import check
from fcit.benchmark.pictures import broken
from fcit.benchmark.repair import repair
from fcit.cli import app
from fcit.types import FcitError


def spoil(root: Path) -> None:
    """A missing image, two broken ones, a malformed record, a repeated id, a leak."""
    (root / "datasets/OCR-VQA/images/0140620001.jpg").unlink()
    cut = root / "datasets/Flickr30k/val/11.jpg"
    cut.write_bytes(cut.read_bytes()[:-9])
    (root / "datasets/ImageNet-R/train/n01443537/art_1.jpg").write_bytes(b"<html>gone</html>")
    for name, change in {
        "instructions/DVQA/train.json": {"conversations": []},
        "instructions/IconQA/val.json": {"question_id": 1},
    }.items():
        rows = json.loads((root / name).read_text())
        rows[0] |= change
        (root / name).write_text(json.dumps(rows))
    rows = json.loads((root / "instructions/TabMWP/test.json").read_text())
    taught = json.loads((root / "instructions/TabMWP/train.json").read_text())[0]
    rows[1] |= {"image": taught["image"], "text": taught["conversations"][0]["value"]}
    (root / "instructions/TabMWP/test.json").write_text(json.dumps(rows))


def test_a_clean_copy_has_no_faults_and_links_to_images(tmp_path: Path) -> None:
    root, out = official.write(tmp_path / "data"), tmp_path / "clean"
    spoil(root)
    # every client of the published task keeps a record
    client = root / "partitioned_data/Task-related/seq/1.0/Task1/client_0.json"
    rows = json.loads(client.read_text())
    other = json.loads(client.with_name("client_1.json").read_text())
    client.write_text(json.dumps(rows + other))
    done = CliRunner().invoke(app, ["data", "check", str(root), "--fix", str(out)])
    assert done.exit_code == 0, done.output
    assert "left out of instructions/OCRVQA/train_10w.json: 1" in done.output
    assert "symbolic links" in done.output
    assert check(out).problems == []
    assert [one.id for one in datasets.read(out, "OCR-VQA", "train")] == ["1"]
    whole, (kept,) = (
        datasets.read(root, "Flickr30k", "test"),
        datasets.read(out, "Flickr30k", "test"),
    )
    assert kept == whole[1], "its captions are renumbered with it"
    same = "instructions/AOKVQA/train.json"
    assert (out / same).read_bytes() == (root / same).read_bytes()
    pictures = [path for path in (out / "datasets").rglob("*.*") if not path.is_dir()]
    assert pictures and all(path.is_symlink() and path.is_file() for path in pictures)
    assert not (out / "datasets/Flickr30k/val/11.jpg").is_symlink()
    split = json.loads((out / client.relative_to(root)).read_text())
    assert split == other, "a published split loses the records too"
    done = CliRunner().invoke(app, ["data", "check", str(root), "--fix", str(out)])
    assert isinstance(done.exception, FcitError)
    assert str(done.exception).startswith(f"--fix: {out}: already exists")
    with pytest.raises(FcitError, match="already exists"):
        repair(root, check(root), out)


def test_what_no_copy_mends_is_refused_and_nothing_is_written(tmp_path: Path) -> None:
    root, out = neighbours.mllm_dcl(tmp_path / "data"), tmp_path / "clean"
    for path in (root / "RS" / "images").iterdir():
        path.unlink()
    with pytest.raises(FcitError, match=r"RS/train\.json: no record is left"):
        repair(root, check(root), out)
    (root / "Med" / "test.json").write_text("[{]")
    with pytest.raises(FcitError, match=r"cannot mend .*Med/test\.json: not valid JSON"):
        repair(root, check(root), out)
    assert [path.name for path in tmp_path.iterdir()] == ["data"]


def test_a_copy_keeps_the_form_of_its_folder(tmp_path: Path) -> None:
    for make in (neighbours.ucit, neighbours.mllm_dcl):
        root, out = make(tmp_path / make.__name__), tmp_path / f"{make.__name__}-clean"
        first = next(path for path in sorted(root.rglob("*.jpg")) if "sample" not in str(path))
        first.write_bytes(b"")
        assert sum(repair(root, check(root), out).values()) == 1
        assert check(out).problems == []
        assert datasets.present(out) == datasets.present(root)


def test_an_image_counts_as_broken_by_its_ends_or_where_it_cannot_be_decoded(
    tmp_path: Path,
) -> None:
    from PIL import Image

    sound, faulty = [], []
    for kind in ("JPEG", "PNG", "GIF", "WEBP", "BMP"):
        path = tmp_path / f"a.{kind}"
        Image.effect_noise((40, 30), 90).save(path, kind)
        data = path.read_bytes()
        sound.append(path)
        (padded := tmp_path / f"padded.{kind}").write_bytes(data + b"\0\0\0")
        sound.append(padded)
        for name, content in {
            "cut": data[: len(data) // 2],
            "none": b"",
            "page": b"<html>",
        }.items():
            (bad := tmp_path / f"{name}.{kind}").write_bytes(content)
            faulty.append(bad)
    faulty += [tmp_path / "missing.png", tmp_path]
    assert broken(sound + faulty) == set(faulty)
