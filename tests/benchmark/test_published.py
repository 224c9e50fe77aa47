"""The published split: found by the publishers' task numbers, datasets told apart, sizes checked."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from fcit.benchmark.published import published
from fcit.benchmark.settings import GROUPS
from fcit.types import FcitError, Task


def task(name):
    return Task(name, GROUPS.get(name, (name,)))


def taught(
    image: str, asked: str = "<image>\nWhy?", answer: str = "so", **more: Any
) -> dict[str, Any]:
    said = [{"from": "human", "value": asked}, {"from": "gpt", "value": answer}]
    return {"image": image, "conversations": said} | more


def client_file(root: Path, place: str, client: int, records: list[Any]) -> None:
    path = root / "partitioned_data" / place / f"client_{client}.json"
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(records), encoding="utf-8")


def test_published_split_of_a_task_is_read(tmp_path):
    assert published(tmp_path, task("IconQA"), 1.0, 2) is None
    for client in range(2):
        record = taught("IconQA/iconqa_data/iconqa/a.png", id=f"c{client}")
        client_file(tmp_path, "Task-related/seq/1.0/Task3", client, [record] * (client + 1))
    found = published(tmp_path, task("IconQA"), 1, 2)
    assert found is not None
    assert [[(one.id, one.dataset) for one in part] for part in found] == [
        [("c0", "IconQA")],
        [("c1", "IconQA")] * 2,
    ]
    assert published(tmp_path, task("IconQA"), 0.5, 2) is None
    assert published(tmp_path, task("DVQA"), 1.0, 2) is None  # none is published for it alone
    with pytest.raises(FcitError, match=r"for 2 clients, but federation.clients = 3"):
        published(tmp_path, task("IconQA"), 1.0, 3)
    with pytest.raises(FcitError, match=r"for 2 clients, but federation.clients = 1"):
        published(tmp_path, task("IconQA"), 1.0, 1)


def test_published_split_of_a_capability_tells_its_datasets_apart(tmp_path):
    coco = "COCO2014/train2014/a.jpg"
    records = [
        taught("./ImageNet-R/train/a.jpg"),
        taught(coco),
        taught(coco, "Where is a?", "[0.1,0.2,0.3,0.44]"),
        taught(coco, "What is in [0.1, 0.2, 0.3, 1.0]?", "a dog"),
    ]
    place = "Capability-related/cap/5.0/Task1"
    client_file(tmp_path, place, 0, records)
    found = published(tmp_path, task("General"), 5.0, 1)
    assert found is not None
    assert [one.dataset for one in found[0]] == ["ImageNet-R", "A-OKVQA", "Grounding", "Grounding"]
    client_file(tmp_path, place, 0, [*records, taught("DVQA/images/a.png")])
    with pytest.raises(FcitError, match=r"client_0.json, record 5: image: 'DVQA/images/a.png'"):
        published(tmp_path, task("General"), 5.0, 1)
