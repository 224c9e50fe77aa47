"""`data.missing = "drop"` leaves out records without their image before the split, and says so."""

from __future__ import annotations

import hashlib
import shutil
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import pytest

import fcit
import official
from fcit.benchmark.missing import told
from fcit.benchmark.settings import GROUPS
from fcit.files import read_json, write_json
from fcit.recipe.config import load, validate
from fcit.recipe.sections import DataSection
from fcit.report.groups import group_runs
from fcit.report.result_tables import overview, setting_table
from fcit.report.run_data import read_run
from fcit.runs.session import Session
from fcit.types import FcitError, Sample, Task, Turn
from fcit.watch import Silent
from fcit.worker.experiment import Experiment


@pytest.fixture
def data(suite: Path, tmp_path: Path) -> Path:
    """The small suite, without the images of two training samples and one test sample of IconQA."""
    root = tmp_path / "data"
    shutil.copytree(suite / "instructions", root / "instructions")
    shutil.copytree(suite / "datasets" / "IconQA", root / "datasets" / "IconQA")
    (root / "datasets" / "FigureQA").symlink_to(suite / "datasets" / "FigureQA")
    (root / "datasets" / "ImageNet-R").symlink_to(suite / "datasets" / "ImageNet-R")
    experiment = Experiment(validate({"data": {"root": str(root)}}))
    train = experiment.data_of(experiment.samples("IconQA", "train")).images
    test = experiment.data_of(experiment.samples("IconQA", "test")).images
    train[3].unlink()
    train[5].write_bytes(train[5].read_bytes()[:60])
    test[1].write_bytes(b"<html>404</html>")
    return root


def dropping(table: dict, data: Path, **changes: dict) -> dict:
    source = table["data"] | {"root": str(data), "missing": "drop", "train": 0}
    return table | {"data": source, "evaluation": table["evaluation"] | {"limit": 0}} | changes


def test_they_are_left_out_before_the_split(table: dict, data: Path) -> None:
    whole = Experiment(validate(dropping(table, data)))
    assert whole.left_out(train=True) == "IconQA 2 train, 1 test"
    assert sum(whole.counts(whole.training_setting)["IconQA"]) == 38
    assert len(whole.samples("IconQA", "test")) == 11
    whole.check_images(train=True)
    kept = {sample.id for share in whole.shares(Task("IconQA", ("IconQA",))) for sample in share}
    assert len(kept) == 38
    source = {"root": str(data), "missing": "drop", "test": 11}
    few = Experiment(validate(table | {"data": source, "evaluation": {}}))
    assert len(few.samples("IconQA", "test")) == 11, "the limit counts what is left"
    strict = Experiment(validate(table | {"data": {"root": str(data)}}))
    with pytest.raises(FcitError, match="no such image"):
        strict.check_images(train=True)


def test_a_client_drops_its_own_as_the_recipe_says(table: dict, data: Path) -> None:
    client = Experiment(validate(dropping(table, data)), DataSection(root=str(data)))
    turn = Turn(0, Task("IconQA", ("IconQA",)), 0, 0)
    assert len(client.data(turn).samples) == 38
    kept = Experiment(validate(table), DataSection(root=str(data)))
    assert len(kept.data(turn).samples) == 40


def test_a_published_split_loses_them_too(tmp_path: Path) -> None:
    root = official.write(tmp_path / "data")
    changes = "federation.clients=2", "federation.per_round=2", "setting.beta=0.5"
    recipe = tmp_path / "a.toml"
    recipe.write_text('[data]\nroot = "data"\nmissing = "drop"\n[setting]\nname = "cap-hom"\n')
    (root / "datasets/COCO2014/train2014/COCO_train2014_000000000001.jpg").unlink()
    experiment = Experiment(load(recipe, changes))
    shares = experiment.shares(Task("General", GROUPS["General"]))
    assert [len(share) for share in shares] == [2, 4], "A-OKVQA and Grounding share the image"
    assert told(experiment.folder.dropped) == "A-OKVQA 1 train; Grounding 1 train"
    for path in (root / "datasets/CLEVR/images/train").iterdir():
        path.unlink()
    with pytest.raises(FcitError, match="CLEVR-Math: all images of its train records are missing"):
        experiment.samples("CLEVR-Math", "train")


def test_a_client_that_is_left_without_samples_is_named_before_anything_is_trained(
    tmp_path: Path,
) -> None:
    official.write(tmp_path / "data")
    changes = "federation.clients=2", "federation.per_round=2", "setting.beta=0.5"
    recipe = tmp_path / "a.toml"
    recipe.write_text('[data]\nroot = "data"\nmissing = "drop"\n[setting]\nname = "cap-hom"\n')
    experiment = Experiment(load(recipe, changes))
    task = Task("General", GROUPS["General"])
    for path in experiment.data_of(experiment.shares(task)[1]).images:
        path.unlink(missing_ok=True)
    session = Session(load(recipe, changes), tmp_path / "run", Silent())
    with pytest.raises(
        FcitError, match=r'"drop" leaves client 1 without samples of General, .*seed$'
    ):
        session.prepare()


def test_a_run_counts_them_and_goes_on_with_the_same_samples_alone(
    table: dict, data: Path, tmp_path: Path
) -> None:
    said: list[str] = []
    watch = Silent()
    watch.say = said.append  # type: ignore[method-assign]
    config = validate(dropping(table, data, method={"name": "zeroshot"}))
    run = tmp_path / "run"
    session = Session(config, run, watch)
    session.open(resume=False)
    session.prepare()
    assert said == ["left out, as their images are missing or cannot be read: IconQA 1 test"]
    session = Session(validate(dropping(table, data)), tmp_path / "other", watch)
    session.open(resume=False)
    session.prepare()
    lost = read_json(session.folder.partition)["dropped"]["IconQA"]
    assert (sum(lost["train"].values()), sum(lost["test"].values())) == (2, 1)
    (session.folder.path / "predictions").mkdir()  # it has begun
    again = Session(validate(dropping(table, data)), tmp_path / "other", Silent())
    again.prepare()
    (name,) = lost["test"]
    shutil.copy(next((data / "datasets" / "FigureQA").rglob("*.png")), data / "datasets" / name)
    again = Session(validate(dropping(table, data)), tmp_path / "other", Silent())
    with pytest.raises(FcitError, match=r"partition\.json: made from other data than"):
        again.prepare()


def test_other_training_samples_are_refused_in_a_run_that_goes_on(
    table: dict, data: Path, tmp_path: Path
) -> None:
    changed = table | {"data": table["data"] | {"root": str(data), "missing": "drop"}}
    session = Session(validate(changed), tmp_path / "run", Silent())
    session.open(resume=False)
    session.prepare()
    (session.folder.path / "predictions").mkdir()  # it has begun
    Session(validate(changed), tmp_path / "run", Silent()).prepare()
    kept = read_json(session.folder.partition)
    older = {key: value for key, value in kept.items() if key not in ("digests", "digest")}
    session.folder.write(
        session.folder.partition, older | {"samples": {"IconQA": "of another form"}}
    )
    Session(validate(changed), tmp_path / "run", Silent()).prepare()
    (file,) = (data / "instructions" / "IconQA").glob("train*.json")
    rows = read_json(file)
    for row in rows:  # as many as before
        row["conversations"][1]["value"] = "another"
    write_json(file, rows)
    with pytest.raises(FcitError, match=r"partition\.json: made from other data than"):
        Session(validate(changed), tmp_path / "run", Silent()).prepare()


def test_the_digest_of_samples_is_the_same_with_every_version_of_python() -> None:
    """`repr` escapes what its version of Unicode does not know."""
    sample = Sample("1", "A", "a.png", "How is it?", ("\U0001fae8",), (("Why?", "b"),))
    experiment = SimpleNamespace(shares=lambda task, setting: [[sample], []])
    setting = SimpleNamespace(stages=[SimpleNamespace(tasks=[Task("A", ("A",))])])
    row = r'["1", "A", "a.png", "How is it?", ["\ud83e\udee8"], [["Why?", "b"]]]'
    expected = hashlib.sha256(f"{row}next clientnext client".encode()).hexdigest()
    assert Experiment.digests(experiment, setting) == {"A": expected}  # type: ignore[arg-type]


def test_table_and_report_tell_them_and_a_folder_has_general_questions(
    table: dict, data: Path, tmp_path: Path
) -> None:
    general = tmp_path / "general"
    for name in ("IconQA", "ImageNet-R"):
        shutil.copytree(data / "instructions" / name, general / "instruction" / name)
    (general / "dataset").symlink_to(data / "datasets")
    evaluation = table["evaluation"] | {"general": str(general), "limit": 3, "general_questions": 4}
    changed = dropping(table, data, method={"name": "zeroshot"}, evaluation=evaluation)
    run = fcit.run(validate(changed), tmp_path / "run")
    lost = "IconQA 1 test; general-IconQA 1 test"
    note = f"Left out, as their images are missing or cannot be read: {lost}."
    assert note in overview([run.folder])[0].notes
    found = read_run(run.folder)
    assert note in setting_table(group_runs([found])[0]).notes
    assert not any(
        "Left out" in note
        for note in setting_table(group_runs([replace(found, dropped={})])[0]).notes
    )
    answers = sorted((run.folder / "predictions" / "zero-shot").glob("general-*.jsonl"))
    assert [path.name for path in answers] == ["general-IconQA.jsonl", "general-ImageNet-R.jsonl"]
    rows = [read for path in answers for read in path.read_text().splitlines()]
    assert len(rows) == 2 * 4
    assert run.results["general"].keys() == {"before"}
    gone = Experiment(validate(table | {"evaluation": {"general": str(tmp_path / "gone")}}))
    with pytest.raises(FcitError, match=r"evaluation\.general: .*gone: no such folder"):
        gone.samples("IconQA", "test")
    with pytest.raises(FcitError, match="general_questions: the mini model has 300"):
        validate({"evaluation": {"general_questions": 301}})
    old = tmp_path / "old.toml"
    old.write_text("[evaluation]\ngeneral = 5\n")
    assert load(old).evaluation.general_questions == 5, "the key's earlier meaning"
