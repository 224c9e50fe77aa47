"""`fcit data fetch`: what a hub's repositories hold becomes a checked data folder, or one clear line."""

from __future__ import annotations

import io
import json
import tarfile
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace
from unicodedata import normalize

import pytest
from PIL import Image

import hub as hubs
import neighbours
import official
from commandline import call, refused
from fcit.benchmark import datasets
from fcit.benchmark.fetch import archives, fetch, tables
from fcit.benchmark.fetch.hub import _Bytes
from fcit.types import FcitError
from hub import below, files_below, tarred, zipped


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[hubs.Hub]:
    with hubs.serving(tmp_path_factory.mktemp("cache")) as hub:
        yield hub


@pytest.fixture
def hub(server: hubs.Hub, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> hubs.Hub:
    from huggingface_hub import constants

    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path / "cache"))
    for kept in (server.files, server.licences, server.asked, server.breaks):
        kept.clear()
    return server


def fcit_hub(hub: hubs.Hub, folder: Path) -> dict[str, bytes]:
    """FCIT's repository and the two that have more of its images."""
    whole = files_below(official.write(folder))
    texts = {n: d for n, d in whole.items() if not n.startswith("datasets/")}
    packed = below(texts, "instructions/", "all/") | below(
        texts, "partitioned_data/", "all/partitioned_data/"
    )
    hub.files["MLLM-CL/FCIT"] = {
        "README.md": b"# FCIT",
        "instruction/instruction_all.zip": zipped(packed | {"__MACOSX/all/._x.json": b"?"}),
        "dataset/DVQA.zip": zipped(below(whole, "datasets/DVQA/")),
        **below(whole, "datasets/FigureQA/", "dataset/FigureQA/"),
    }
    hub.files["HaiyangGuo/UCIT"] = {
        "UCIT/ImageNet-R/ImageNet-R.tar": tarred(
            below(whole, "datasets/ImageNet-R/", "imagenet-r/"), ""
        ),
        "UCIT/Flickr30k/Flickr30k.zip": zipped(below(whole, "datasets/Flickr30k/", "Flickr30k/")),
        "UCIT/IconQA/IconQA.zip": b"not asked for",
    }
    hub.files["MMInstruction/ArxivQA"] = {
        "arxivqa.jsonl": b"{}",
        "images.tgz": tarred(below(whole, "datasets/ArxivQA/images/", "images/")),
    }
    hub.licences["MLLM-CL/FCIT"] = "apache-2.0"
    return whole


def test_fcit_comes_from_three_repositories_and_says_what_is_missing(hub, tmp_path: Path) -> None:
    whole = fcit_hub(hub, tmp_path / "own")
    done = call("data", "fetch", "fcit", "--out", tmp_path / "data")
    assert done.returncode == 0, done.stderr
    got = files_below(tmp_path / "data")
    for name in ("DVQA", "FigureQA", "ImageNet-R", "Flickr30k", "ArxivQA"):
        start = f"datasets/{name}/"
        assert below(got, start) == below(whole, start) != {}
    for start in ("instructions/", "partitioned_data/"):
        assert below(got, start) == below(whole, start)
    assert not below(got, "datasets/IconQA/")
    assert (
        "images of ArxivQA: MMInstruction/ArxivQA at 01234567, licence: none named" in done.stdout
    )
    assert "licence: apache-2.0" in done.stdout and "apache-2.0" in got["SOURCES.md"].decode()
    assert (
        "bring yourself: 4 of 4 images of IconQA from https://iconqa.github.io/ into" in done.stdout
    )
    assert f"{tmp_path / 'data'}/datasets/IconQA\n" in done.stdout
    assert "UCIT/IconQA/IconQA.zip" not in [path for _, path, _ in hub.asked]


def test_a_malformed_record_is_told_where_images_are_missing_too(hub, tmp_path: Path) -> None:
    texts = below(fcit_hub(hub, tmp_path / "own"), "instructions/", "all/")
    name = next(file for file in texts if file.endswith("IconQA/val.json"))
    records = json.loads(texts[name])
    del records[0]["text"]
    texts[name] = json.dumps(records).encode()
    hub.files["MLLM-CL/FCIT"]["instruction/instruction_all.zip"] = zipped(texts)
    done = fetch("fcit", tmp_path / "data", only=["IconQA"])
    assert done.lacks
    assert [one.what for one in done.report.problems] == ["text: is missing"]


def test_only_loads_what_it_needs(hub, tmp_path: Path) -> None:
    fcit_hub(hub, tmp_path / "own")
    done = fetch("fcit", tmp_path / "data", only=["ArxivQA"])
    assert datasets.present(tmp_path / "data") == ["ArxivQA"] and not done.lacks
    assert not done.report.problems and not done.report.published
    asked = {path for _, path, _ in hub.asked}
    assert asked == {"instruction/instruction_all.zip", "images.tgz"}
    refused(
        call("data", "fetch", "fcit", "--only", "ArxivQ", "--out", tmp_path / "x"),
        "--only ArxivQ: fcit has no such dataset; did you mean 'ArxivQA'?",
    )


def test_ucit_and_mllm_dcl_keep_their_layouts(hub, tmp_path: Path) -> None:
    own = files_below(neighbours.ucit(tmp_path / "ucit"))
    files = below(own, "", "UCIT/")
    for name in ("ImageNet-R", "VizWiz", "IconQA", "CLEVR", "Flickr30k"):
        images = below(files, f"UCIT/datasets/{name}/", f"{name}/")
        files = {n: d for n, d in files.items() if not n.startswith(f"UCIT/datasets/{name}/")}
        files[f"UCIT/datasets/{name}.zip"] = zipped(images)
    files = {n: d for n, d in files.items() if "datasets/ArxivQA" not in n}
    hub.files["HaiyangGuo/UCIT"] = files
    arxiv = below(own, "datasets/ArxivQA/")
    hub.files["MMInstruction/ArxivQA"] = {"images.tgz": tarred(arxiv)}
    done = fetch("ucit", tmp_path / "out")
    assert not done.report.problems and not done.lacks and not done.absent
    got = files_below(tmp_path / "out")
    assert {n: d for n, d in own.items() if "replay" not in n} == {
        n: d for n, d in got.items() if n != "SOURCES.md"
    }
    own = files_below(neighbours.mllm_dcl(tmp_path / "dcl"))
    hub.files["MLLM-CL/MLLM-CL"] = {
        "Ability_data/OCR.zip": b"another benchmark's",
        "Domain_data/RS.zip": zipped(below(own, "RS/")),
        **{
            f"Domain_data/{name}.tar.gz": tarred(below(own, f"{name}/", f"{name}/"))
            for name in neighbours.MLLM_DCL[1:]
        },
    }
    done = fetch("mllm-dcl", tmp_path / "out2")
    assert not done.report.problems and not done.lacks
    got = files_below(tmp_path / "out2")
    names = tuple(f"{name}/" for name in neighbours.MLLM_DCL)
    assert {n: d for n, d in own.items() if n.startswith(names)} == {
        n: d for n, d in got.items() if n != "SOURCES.md"
    }


def plants(count: int = 3) -> dict[str, bytes]:
    """A small data folder with one dataset."""
    pictures = {f"datasets/plants/{at}.png": picture(at) for at in range(count + 1)}
    taught = [neighbours.taught(f"plants/{at}.png", at, "fern", id=str(at)) for at in range(count)]
    asked = [neighbours.asked(f"plants/{count}.png", count, answer="moss")]
    return pictures | {
        "instructions/Plants/train.json": json.dumps(taught).encode(),
        "instructions/Plants/test.json": json.dumps(asked).encode(),
    }


def picture(shade: int) -> bytes:
    file = io.BytesIO()
    Image.new("RGB", (6, 4), (shade, 20, 90)).save(file, "PNG")
    return file.getvalue()


def test_a_dataset_whose_name_is_decomposed_is_kept(hub, tmp_path: Path) -> None:
    name = normalize("NFD", "Fougères")
    whole = {path.replace("Plants", name): data for path, data in plants().items()}
    hub.files["me/plants"] = whole
    done = call("data", "fetch", "me/plants", "--out", tmp_path / "data")
    assert done.returncode == 0, done.stderr
    assert files_below(tmp_path / "data").keys() - {"SOURCES.md"} == whole.keys()


def test_only_names_folders_of_records_that_are_there(hub, tmp_path: Path) -> None:
    whole = plants()
    books = below(whole, "instructions/Plants/", "instructions/OCRVQA/")
    names = {"train.json": "train_10w.json", "test.json": "test_1w.json"}
    for path, data in books.items():
        folder, _, file = path.rpartition("/")
        whole[f"{folder}/{names[file]}"] = data
    hub.files["me/plants"] = whole
    refused(
        call(
            "data",
            "fetch",
            "me/plants",
            "--only",
            "Plants",
            "--only",
            "Plant",
            "--out",
            tmp_path / "x",
        ),
        "--only Plant: me/plants has no such folder of records; it has OCRVQA, Plants",
    )
    fetch("me/plants", tmp_path / "data", only=["OCR-VQA"])  # the dataset of this folder
    assert [path.name for path in (tmp_path / "data" / "instructions").iterdir()] == ["OCRVQA"]


@pytest.mark.parametrize("packed", [False, True])
def test_any_repository_that_is_a_data_folder(hub, tmp_path: Path, packed: bool) -> None:
    whole = plants()
    notes = {"notes/annotations.json": b"{}"}
    hub.files["me/plants"] = (
        {"all.tar.gz": tarred(below(whole | notes, "", "all/"))} if packed else whole | notes
    )
    done = call("data", "fetch", "me/plants", "--out", tmp_path / "data")
    assert done.returncode == 0, done.stderr
    got = files_below(tmp_path / "data")
    got.pop("SOURCES.md")
    assert got == whole


def test_an_interrupted_download_goes_on_where_it_broke(
    hub, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("huggingface_hub.file_download.time.sleep", lambda seconds: None)
    monkeypatch.setattr("huggingface_hub.constants.DOWNLOAD_CHUNK_SIZE", 1000)
    noise = {f"noise{at}.bin": picture(at) for at in range(2000)}
    hub.files["me/plants"] = {"all.zip": zipped(plants() | noise)}
    hub.breaks.add("all.zip")
    fetch("me/plants", tmp_path / "data")
    ranges = [wanted for _, _, wanted in hub.asked]
    assert len(ranges) == 2 and not ranges[0] and int(ranges[1].strip("bytes=-")) > 0
    fetch("me/plants", tmp_path / "again")  # all of it is in the cache
    assert len(hub.asked) == 2
    assert files_below(tmp_path / "data") == files_below(tmp_path / "again")


def test_what_the_hubs_library_tells_its_bars_is_counted_once() -> None:
    reports = pytest.importorskip("huggingface_hub.utils._xet_progress_reporting")
    counted = _Bytes()
    options = {"reconstruction_desc": "", "log_level": 30, "total": 50}
    bars = reports.XetDownloadProgressReporter(tqdm_class=counted.of("a", int), **options)
    for share in (0.5, 1.0):
        bars.update_progress(
            SimpleNamespace(
                total_bytes_completed=50 * share,
                total_transfer_bytes_completed=40 * share,
                total_bytes=50,
                total_bytes_completion_rate=1.0,
                total_transfer_bytes_completion_rate=1.0,
            )
        )
    bars.close()
    assert counted.sum == 50


def test_archives_are_unpacked_without_trust(
    hub, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    link = tarfile.TarInfo("datasets/plants/0.png")
    link.type, link.linkname = tarfile.SYMTYPE, "/etc/passwd"
    files = plants()
    del files["datasets/plants/0.png"]
    hub.files["me/links"] = {"all.tar": tarred(files, "", link)}
    done = call("data", "fetch", "me/links", "--out", tmp_path / "links")
    refused(done, "is written, but has problems (1)")
    assert "image 'plants/0.png': is missing" in done.stdout
    for at, name in enumerate(
        ("../../evil.json", "/evil.json", "C:\\evil.json", "a\\..\\..\\e.json")
    ):
        for data in (zipped({name: b"[]"}), tarred({name: b"[]"})):
            hub.files[f"me/evil{at}"] = {"all.zip": data}
            with pytest.raises(FcitError, match=r"all\.zip: .* leaves the folder"):
                fetch(f"me/evil{at}", tmp_path / "evil")
    monkeypatch.setattr(archives, "MORE", 1000)
    monkeypatch.setattr(archives, "TIMES", 20)
    hub.files["me/bomb"] = {"all.zip": zipped({"Plants/train.json": bytes(1 << 20)})}
    refused(
        call("data", "fetch", "me/bomb", "--out", tmp_path / "bomb"), "more than 20 times its size"
    )
    whole = zipped(plants())
    for data in (
        whole[:-40],
        whole[:200] + bytes(400) + whole[600:],
        tarred(plants())[:-30],
        b"rar",
    ):
        hub.files["me/broken"] = {"all.zip": data}
        with pytest.raises(FcitError, match=r"me/broken: all\.zip: "):
            fetch("me/broken", tmp_path / "broken")
    assert not [path for path in tmp_path.iterdir() if path.name in ("evil", "bomb", "broken")]
    assert not list(tmp_path.glob(".aside*"))


def test_what_the_hub_does_not_have_is_one_line(
    hub, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from huggingface_hub import constants

    out = ("--out", tmp_path / "data")
    refused(
        call("data", "fetch", "fcti", *out), "there are fcit, ucit, mllm-dcl; did you mean 'fcit'?"
    )
    refused(
        call("data", "fetch", "me/none", *out), "me/none: no such repository on http://127.0.0.1"
    )
    refused(call("data", "fetch", "a/b/c", *out), "a/b/c: is not a repository name")
    hub.files["me/empty"] = {"README.md": b"#"}
    refused(call("data", "fetch", "me/empty", *out), "me/empty: holds no records that fcit knows")
    refused(call("data", "fetch", "me/empty", "--column", "image", *out), "write KIND=NAME")
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
    refused(call("data", "fetch", "me/empty", *out), "me/empty: ", "HF_HUB_OFFLINE is set")
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", False)
    monkeypatch.setattr(constants, "ENDPOINT", "http://127.0.0.1:1")
    refused(call("data", "fetch", "me/empty", *out), "http://127.0.0.1:1 cannot be asked")
    (tmp_path / "data").mkdir()
    (tmp_path / "data" / "x").touch()
    refused(call("data", "fetch", "fcit", *out), "already exists and is not empty")


# -- tables ----------------------------------------------------------------------------------------


def table(rows: int, first: int = 0, **more: object) -> bytes:
    import pyarrow
    from pyarrow import parquet

    columns = {
        "image": [{"bytes": picture(at), "path": None} for at in range(first, first + rows)],
        "question": [f"<image>What is {at}?" for at in range(rows)],
        "answer": list(range(rows)),
        "other": [None] * rows,
    } | more
    features = {"features": {"answer": {"_type": "ClassLabel", "names": ["fern", "moss"]}}}
    said = pyarrow.table(columns).replace_schema_metadata(
        {"huggingface": json.dumps({"info": features})}
    )
    file = io.BytesIO()
    parquet.write_table(said, file)
    return file.getvalue()


def test_tables_become_a_dataset(hub, tmp_path: Path) -> None:
    hub.files["me/Leaves"] = {
        "data/train-00000-of-00002.parquet": table(2),
        "data/train-00001-of-00002.parquet": table(3, 2),
        "data/test-00000-of-00001.parquet": table(2, 5),
        "data/validation-00000-of-00001.parquet": b"not needed",
    }
    done = call("data", "fetch", "me/Leaves", "--out", tmp_path / "data")
    assert done.returncode == 0, done.stderr
    taught = datasets.read(tmp_path / "data", "Leaves", "train")
    assert [s.answers[0] for s in taught] == ["fern", "moss", "fern", "moss", "2"]
    assert taught[0].prompt == "What is 0?"
    assert len(datasets.read(tmp_path / "data", "Leaves", "test")) == 2
    assert (tmp_path / "data/datasets" / taught[4].image).read_bytes() == picture(4)


def test_tables_with_other_columns_and_one_split(hub, tmp_path: Path) -> None:
    pictures = [[picture(at)] for at in range(10)]
    hub.files["me/DVQA"] = {
        "one/0000.parquet": table(10, 0, img=pictures, query=["Which?"] * 10),
        "two/0000.parquet": b"of another configuration",
    }
    words = ("data", "fetch", "me/DVQA", "--only", "one", "--out", tmp_path / "data")
    named = ("--column", "image=img", "--column", "question=query")
    done = call(*words, *named)
    assert done.returncode == 0, done.stderr
    assert "DVQA-table: 8 train, 2 test, rule exact" in done.stdout
    hub.files["me/other"] = {"one/0000.parquet": table(2, 0, img=["a.png", "b.png"])}
    out = ("--out", tmp_path / "bad")
    refused(call("data", "fetch", "me/DVQA", "--only", "three", *out), "there are one, two")
    for change, said in (
        (("image=imgs",), "no column imgs; there are image, question, answer, other, img"),
        (("image=img",), "one/0000.parquet, row 1, column image: must hold one image's bytes"),
        (("images=img",), "--column images: write one of image=NAME"),
        (("answer=other",), "column answer: must be text, not null"),
    ):
        with pytest.raises(FcitError, match=said):
            columns = dict(text.split("=") for text in change)
            fetch("me/other", tmp_path / "bad", columns=columns)
    assert not (tmp_path / "bad").exists()


def test_splits_are_told_by_how_names_begin(hub, tmp_path: Path) -> None:
    hub.files["me/Leaves"] = {
        "data/trainval-0.parquet": table(3),
        "data/Testmini-0.parquet": table(2, 5),
    }
    fetch("me/Leaves", tmp_path / "data")
    assert len(datasets.read(tmp_path / "data", "Leaves", "train")) == 3
    assert len(datasets.read(tmp_path / "data", "Leaves", "test")) == 2
    made = (tmp_path / "data" / "datasets" / "Leaves").stat().st_mode
    assert made == (tmp_path / "data" / "datasets").stat().st_mode
    hub.files["me/more"] = {
        "data/train-0.parquet": table(3),
        "data/test-0.parquet": table(2, 5),
        "data/testmini-0.parquet": table(1, 5),  # some of the same questions
        "data/devices-0.parquet": table(1, 7),
    }
    fetch("me/more", tmp_path / "more")
    counts = [len(datasets.read(tmp_path / "more", "more", split)) for split in ("train", "test")]
    assert counts == [3, 2]
    hub.files["me/odd"] = {"test-0.parquet": table(2), "main-0.parquet": table(2, 2)}
    with pytest.raises(FcitError, match=r"main-0\.parquet: of which split\?"):
        fetch("me/odd", tmp_path / "odd")


@pytest.mark.parametrize(
    ("rows", "taught", "asked"),
    [
        ({"train": 3, "trainval": 0, "val": 2}, 3, 2),  # trainval is train and val
        ({"trainval": 3, "val": 0, "test": 2}, 3, 2),
        ({"trainval": 10, "val": 0}, 8, 2),
        ({"train": 3, "testA": 2, "testB": 1, "val": 0}, 3, 3),
        ({"trainA": 3, "trainB": 1, "valUnseen": 2}, 4, 2),
        ({"TRAIN": 3, "TestMini": 2}, 3, 2),
        ({"trainVal": 3, "Testing": 2}, 3, 2),
    ],
)
def test_no_row_counts_twice_and_names_in_camel_case_are_understood(
    hub, tmp_path: Path, rows: dict[str, int], taught: int, asked: int
) -> None:
    """Tables with 0 rows are no tables: they must not be read."""
    first, files = 0, {}
    for name, count in rows.items():
        files[f"data/{name}-00000-of-00001.parquet"] = table(count, first) if count else b"no table"
        first += count
    hub.files["me/Leaves"] = files
    assert fetch("me/Leaves", tmp_path / "data").report.problems == []
    parts = [datasets.read(tmp_path / "data", "Leaves", split) for split in ("train", "test")]
    assert [*map(len, parts)] == [taught, asked]


def test_tables_called_like_an_official_folder(hub, tmp_path: Path) -> None:
    hub.files["me/OCRVQA"] = {"train-0.parquet": table(2), "test-0.parquet": table(2, 2)}
    done = fetch("me/OCRVQA", tmp_path / "data")
    assert done.report.problems == []
    assert len(datasets.read(tmp_path / "data", "OCRVQA-table", "test")) == 2
    with pytest.raises(FcitError, match="--only tset: no such folder of tables"):
        fetch("me/OCRVQA", tmp_path / "new", only=["tset"])


def test_rows_are_numbered_through_all_tables_without_splits(hub, tmp_path: Path) -> None:
    hub.files["me/Leaves"] = {"one.parquet": table(3), "two.parquet": table(3, 3)}
    done = fetch("me/Leaves", tmp_path / "data")
    assert done.report.problems == []
    parts = [datasets.read(tmp_path / "data", "Leaves", split) for split in ("train", "test")]
    ids = sorted(sample.id for samples in parts for sample in samples)
    assert ids == ["1", "2", "3", "4", "5", "6"]


def test_tables_that_cannot_be_read(hub, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    hub.files["me/Leaves"] = {"train.parquet": b"PAR1 no more"}
    with pytest.raises(FcitError, match=r"train\.parquet: cannot be read: "):
        fetch("me/Leaves", tmp_path / "data")
    monkeypatch.setattr(tables, "find_spec", lambda name: None)
    with pytest.raises(FcitError, match=r"pip install 'fcit\[parquet\] @ git"):
        fetch("me/Leaves", tmp_path / "data")
