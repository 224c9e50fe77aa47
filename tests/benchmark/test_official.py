"""The official layout end to end, each dataset with its oddities: read, check, stats, score."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any, ClassVar

import pytest

import official
from fcit.benchmark import datasets, predictions, stats
from fcit.benchmark.check import Problem, PublishedSplit, check
from fcit.benchmark.datasets import DATASETS, read
from fcit.benchmark.fetch.wanted import wanted
from fcit.benchmark.missing import missing
from fcit.benchmark.published import published
from fcit.benchmark.records import stream
from fcit.benchmark.settings import GROUPS
from fcit.files import read_json
from fcit.recipe.config import validate
from fcit.runs.session import Session
from fcit.types import FcitError, Task
from fcit.watch import Silent
from fcit.worker.experiment import Experiment
from official import Bars

TASK1 = "partitioned_data/Task-related/seq/1.0/Task1"
CAP1 = "partitioned_data/Capability-related/cap/0.5/Task1"


@pytest.fixture
def root(tmp_path: Path) -> Path:
    return official.write(tmp_path / "data")


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return official.write(tmp_path_factory.mktemp("official") / "data")


def edit(path: Path, number: int, **changes: Any) -> None:
    rows = json.loads(path.read_text("utf-8"))
    rows[number - 1] |= changes
    path.write_text(json.dumps(rows), encoding="utf-8")


def test_every_dataset_is_read(whole: Path) -> None:
    assert missing(whole, list(DATASETS.values())) == {}
    for name in DATASETS:
        for split in ("train", "test"):
            found = read(whole, name, split)
            assert len(found) == 2
            assert all(datasets.image_path(whole, one).is_file() for one in found)
            assert all("<image>" not in one.prompt and one.prompt for one in found)
    assert [one.id for one in read(whole, "ArxivQA", "train")] == ["0", "1"]  # no ids: their place
    assert read(whole, "ImageNet-R", "train")[1].prompt.startswith("What is the object?\nAnswer")
    assert read(whole, "ImageNet-R", "train")[0].image.startswith("ImageNet-R/train/")
    assert [one.answers for one in read(whole, "CLEVR-Math", "test")] == [("4",), ("0",)]
    assert read(whole, "TabMWP", "test")[1].answers == ("7.5",)
    first, second = read(whole, "Grounding", "train")
    assert first.more == (("And the mug?", "[0.43,0.0,0.9,0.66]"),)
    assert (second.more, second.answers) == ((), ("a spoon on the left",))
    assert read(whole, "Grounding", "test")[0].answers == ("[0.0,0.0,1.0,1.0]",)
    assert read(whole, "Flickr30k", "test")[1].answers == tuple(official.REFERENCES[1])


def test_the_published_split_is_read(whole: Path) -> None:
    found = published(whole, Task("General", GROUPS["General"]), 0.5, 2)
    assert found is not None
    assert [one.dataset for one in found[1]] == ["A-OKVQA", "IconQA", "Grounding", "ImageNet-R"]


def test_nothing_is_wrong_with_it(whole: Path) -> None:
    bars = Bars()
    report = check(whole, watch=bars)
    assert report.problems == []
    assert report.counts == {name: {"train": 2, "test": 2} for name in DATASETS}
    assert report.published == {
        TASK1: PublishedSplit("ImageNet-R", 2, 2, 0, 2), CAP1: PublishedSplit("General", 2, 8, 0, 8),
    }  # fmt: skip
    shown = len(list((whole / "datasets").rglob("*.*")))
    assert bars.ended == {
        "datasets": (14, 14),
        "images": (shown, shown),
    }  # twelve, two tasks' clients


def test_mistakes_in_the_published_split_are_found(root: Path) -> None:
    client = root / TASK1 / "client_1.json"
    edit(client, 1, image="ImageNet-R/train/lost.jpg")  # another record, and its image is missing
    (root / CAP1 / "client_0.json").rename(root / CAP1 / "client_5.json")
    edit(root / CAP1 / "client_1.json", 2, image="DVQA/images/x.png")
    edit(root / CAP1 / "client_1.json", 3, conversations=[])
    (root / TASK1).with_name("Task9").mkdir()
    (root / CAP1).parent.with_name("0.50").mkdir()
    (root / CAP1).parent.with_name("0.50").joinpath("Task1").mkdir()
    broken = root / TASK1 / "client_2.json"
    broken.write_text("[{]", encoding="utf-8")
    report = check(root)
    strange = "is of none of the benchmark's tasks and betas"
    other = "conversations: must be a list of pairs of a human and a gpt turn"
    (unread,) = (one for one in report.problems if one.file.endswith("client_2.json"))
    assert unread.what.startswith("not valid JSON")
    assert set(report.problems) == {
        unread,
        Problem(TASK1.replace("Task1", "Task9"), "", strange),
        Problem(CAP1.replace("0.5", "0.50"), "", strange),
        Problem(CAP1, "", "has 2 client files, but no client_0.json"),
        Problem(
            f"{CAP1}/client_1.json",
            "record 2",
            "image: 'DVQA/images/x.png' is of none of A-OKVQA, IconQA, Grounding, ImageNet-R",
        ),
        Problem(f"{CAP1}/client_1.json", "record 3", other),
        Problem(
            f"{TASK1}/client_1.json",
            "record 1 (id ImageNet-R-1)",
            "image 'ImageNet-R/train/lost.jpg': is missing",
        ),
    }
    assert len(report.problems) == 7
    assert report.published[TASK1] == PublishedSplit("ImageNet-R", 3, 2, 1, 2)
    assert report.published[CAP1] == PublishedSplit("General", 2, 6, 0, 8)


def test_a_broken_dataset_file_of_a_published_split_is_one_problem(root: Path) -> None:
    file = "instructions/ImageNet-R/dataset.toml"
    (root / file).write_text("rule = 3")
    report = check(root)
    (problem,) = report.problems
    assert (problem.file, problem.record) == (file, "")
    assert problem.what.startswith("rule: ")
    assert report.counts["ImageNet-R"] == {}
    assert report.published[TASK1] == PublishedSplit("ImageNet-R", 2, 0, 0, 0)
    assert report.published[CAP1] == PublishedSplit("General", 2, 0, 0, 6)


def test_a_fetch_leaves_files_that_cannot_be_read_to_the_check(root: Path) -> None:
    """What the others name is still taken out of archives."""

    def named() -> set[str]:
        return set(wanted(root, datasets.present(root), exact=True).paths)

    everything = named()
    (root / CAP1 / "client_1.json").write_text("[{")
    assert named() == everything
    (root / "instructions/ImageNet-R/dataset.toml").write_text("rule = 3")
    assert named() == everything - {"ImageNet-R"}
    assert len(everything) > 1


def test_stats_of_it(whole: Path) -> None:
    facts = {one.dataset: one for one in stats.collect(whole, "strict")}
    assert facts.keys() == DATASETS.keys()
    assert all((one.train, one.test) == (2, 2) for one in facts.values())
    assert facts["ArxivQA"].form == official.LETTER
    assert facts["FigureQA"].chance == 50  # "yes" or "no", each right once
    assert facts["CLEVR-Math"].chance == 50  # "4" is right once in two
    assert facts["Grounding"].chance == 0  # neither training box overlaps a test box by half


@pytest.mark.parametrize("name", DATASETS)
def test_its_truths_score_full_marks(whole: Path, name: str, tmp_path: Path) -> None:
    row = DATASETS[name]
    said = tmp_path / "said.jsonl"
    rows = [
        {"question_id": int(one.id), "text": one.answers[0], "model_id": "m"}
        for one in read(whole, name, "test")
    ]
    said.write_text("\n".join(map(json.dumps, rows)), encoding="utf-8")
    truth = whole / "instructions" / row.folder / (*row.rule.files, row.test_file)[0]
    found = predictions.score(name, truth, said, "strict")
    assert found.score == pytest.approx(100)
    assert (found.samples, found.questions, found.missing, found.repeated) == (2, 2, 0, 0)
    if not row.rule.files:
        assert predictions.score(name, truth, said, "reference").score == 100


def test_several_image_roots_are_tried_in_order(root: Path, tmp_path: Path) -> None:
    away = tmp_path / "disk2"
    away.mkdir()
    (root / "datasets" / "COCO2014").rename(away / "COCO2014")
    both = [root / "datasets", away]
    assert missing(root, [DATASETS["A-OKVQA"]]) == {"A-OKVQA": ["datasets/COCO2014"]}
    assert missing(root, list(DATASETS.values()), both) == {}
    assert check(root, images=both).problems == []
    lost = [one.what for one in check(root, images=both[:1]).problems]
    assert len(lost) == 6 and all(what.endswith("is missing") for what in lost)
    (sample, _) = read(root, "A-OKVQA", "train")
    assert datasets.image_path(root, sample, both) == away / sample.image
    assert datasets.image_path(root, sample, both[:1]) == both[0] / sample.image
    (root / "datasets" / sample.image).parent.mkdir(parents=True)
    (root / "datasets" / sample.image).touch()
    assert datasets.image_path(root, sample, both) == root / "datasets" / sample.image
    table = {
        "data": {"root": str(root), "images": [*map(str, both)]},
        "setting": {"name": "cap-hom"},
    }
    experiment = Experiment(validate(table))
    experiment.prepare(Silent())
    data = experiment.test("A-OKVQA", [0, 1])
    assert all(path.is_relative_to(away) for path in data.images)


def test_all_that_is_missing_is_told_in_one_line_before_anything_starts(root: Path) -> None:
    (root / "instructions/IconQA/val.json").unlink()
    (root / "instructions/Flickr30k-cap/val_coco_type.json").unlink()
    (root / "datasets/COCO2014").rename(root / "datasets/COCO")
    table = {"data": {"root": str(root)}, "setting": {"name": "cap-hom"}}
    with pytest.raises(FcitError) as caught:
        Experiment(validate(table)).prepare(Silent())
    assert str(caught.value) == (
        f"data.root: {root} lacks datasets/COCO2014 for A-OKVQA; instructions/IconQA/val.json for "
        "IconQA; datasets/COCO2014 for Grounding; instructions/Flickr30k-cap/val_coco_type.json for "
        "Flickr30k; it has the datasets ArxivQA, ImageNet-R, CLEVR-Math, super-CLEVR, OCR-VQA, "
        "TabMWP, FigureQA, DVQA"
    )
    own = {"data": {"root": str(root)}, "setting": {"name": "task-hom", "order": ["ArxivQ"]}}
    with pytest.raises(FcitError, match=r"has no dataset 'ArxivQ'; did you mean 'ArxivQA'\?"):
        Experiment(validate(own)).prepare(Silent())
    table["data"]["images"] = [str(root / "gone")]
    with pytest.raises(FcitError, match=r"data\.images: no such folder: .*gone"):
        Experiment(validate(table)).prepare(Silent())
    with pytest.raises(FcitError, match="set data.root too"):
        validate({"data": {"images": ["x"]}})


def test_repeated_test_ids_are_told_before_anything_starts(root: Path) -> None:
    edit(root / "instructions/IconQA/val.json", 2, question_id=0)
    table = {"data": {"root": str(root)}, "setting": {"name": "task-hom", "order": ["IconQA"]}}
    Experiment(validate(table)).prepare(Silent())  # who shows or deals the data scores nothing
    table["federation"] = {"clients": 1, "per_round": 1, "min_samples": 1}
    with pytest.raises(FcitError, match="IconQA: 2 samples have the id '0'; ids must differ"):
        Session(validate(table), root.parent / "run", Silent()).prepare()
    table["evaluation"] = {"scoring": "reference"}  # which counts as the published code does
    Session(validate(table), root.parent / "run", Silent()).prepare()


def test_whose_shares_are_published_is_told_and_none_are_cut(root: Path, tmp_path: Path) -> None:
    class Heard(Silent):
        lines: ClassVar[list[str]] = []

        def say(self, text: str) -> None:
            self.lines.append(text)

    table = {
        "data": {"root": str(root)},
        "setting": {"name": "cap-hom", "beta": 0.5, "order": ["General", "Math"]},
        "federation": {"clients": 2, "per_round": 1},
    }
    session = Session(validate(table), tmp_path / "run", Heard())
    session.open(resume=False)
    session.prepare()
    assert Heard.lines == [
        "the clients' shares: published for General; drawn from the seed for Math"
    ]
    assert read_json(session.folder.partition)["published"] == ["General"]
    table["data"]["train"] = 1
    with pytest.raises(FcitError, match=r"data\.train: 1, but .* published split of General"):
        Session(validate(table), tmp_path / "other", Silent()).prepare()


def test_java_is_asked_for_before_anything_starts(root: Path, monkeypatch) -> None:
    monkeypatch.setattr("shutil.which", lambda _: None)
    table = {"data": {"root": str(root)}, "evaluation": {"scoring": "reference"}}
    with pytest.raises(FcitError, match="need Java"):
        Experiment(validate(table)).prepare(Silent())
    table["setting"] = {"name": "cap-hom", "order": ["Math"]}
    Experiment(validate(table)).prepare(Silent())


@pytest.mark.parametrize("chunk", [1, 2, 7, 1000])
@pytest.mark.parametrize(
    "value", [[1], [12, 'a]"[', {"b": [1, {"c": "é,"}]}, None, -1.5e3], [{"a": "x" * 50}] * 3]
)
def test_records_are_the_same_however_a_file_is_cut(tmp_path: Path, value: Any, chunk: int) -> None:
    path = tmp_path / "a.json"
    for indent in (None, 4):
        path.write_text(" \n" + json.dumps(value, indent=indent) + "\n ", encoding="utf-8")
        assert list(stream(path, chunk)) == value


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("", "is empty"),
        ("[1, 2", "not valid JSON"),
        ("[1, 2,]", "not valid JSON"),
        ("[1 2]", "not valid JSON.*line 1 column 4"),
        ("[1] 2", "not valid JSON: Extra data"),
        ("1", "must hold a list of records, not a number"),
        ("[ ]", "holds no records"),
        ("[" * 100_000, "too deeply nested"),
        (b"[\xff]", "cannot be read"),
    ],
)
def test_what_is_no_list_of_records_is_told(tmp_path: Path, text: str | bytes, said: str) -> None:
    path = tmp_path / "a.json"
    path.write_bytes(text.encode() if isinstance(text, str) else text)
    with pytest.raises(FcitError, match=rf"a\.json: .*{said}|a\.json: {said}"):
        list(stream(path, 3))


MEASURE = """
import sys
from pathlib import Path
from fcit.benchmark.datasets import read
assert len(read(Path(sys.argv[1]), "Grounding", "train")) == 110_000
status = Path("/proc/self/status").read_text().split()
print(int(status[status.index("VmHWM:") + 1]) * 1024)
"""
"""Prints its peak memory; getrusage would count that of the process that started it."""


@pytest.mark.skipif(not Path("/proc/self/status").exists(), reason="needs /proc")
@pytest.mark.slow
def test_a_file_of_110_000_records_is_read_in_less_than_a_gigabyte(tmp_path: Path) -> None:
    file = tmp_path / "instructions/Grounding/train_11w.json"
    file.parent.mkdir(parents=True)
    with file.open("w", encoding="utf-8") as out:
        out.write("[")
        for at in range(110_000):
            turns = []
            for pair in range(6):  # several regions of an image, as officially
                said = f"Please give the bounding box of region {pair} of picture {at} at the left."
                turns.append({"from": "human", "value": ("" if pair else "<image>\n") + said})
                turns.append({"from": "gpt", "value": f"[0.1{at},0.1{pair},0.8{at},0.9{pair}]"})
            image = f"COCO2014/train2014/COCO_train2014_{at:012d}.jpg"
            record = {"id": str(at), "image": image, "conversations": turns}
            out.write((",\n" if at else "") + json.dumps(record, indent=4))
        out.write("]")
    done = subprocess.run(
        [sys.executable, "-c", MEASURE, str(tmp_path)], capture_output=True, text=True, check=True
    )
    assert file.stat().st_size > 150e6
    assert int(done.stdout) < 0.6e9  # what else a run needs fits in the rest of a gigabyte
