"""The notebook examples/tour.ipynb: every cell works, in its order, in an empty folder."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

import fcit
from fcit.types import Sample

NOTEBOOK = Path(__file__).parents[1] / "examples" / "tour.ipynb"


@pytest.mark.slow
def test_the_tour_works_cell_by_cell(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for package in ("starlette", "uvicorn"):
        pytest.importorskip(package)
    monkeypatch.chdir(tmp_path)
    notebook = json.loads(NOTEBOOK.read_text("utf-8"))
    assert (notebook["nbformat"], notebook["metadata"]["kernelspec"]["name"]) == (4, "python3")
    assert len({cell["id"] for cell in notebook["cells"]}) == len(notebook["cells"])
    names: dict[str, object] = {}
    try:
        for cell in notebook["cells"]:
            text = "".join(cell["source"])
            if cell["cell_type"] == "code":
                assert cell["outputs"] == [] and cell["execution_count"] is None
                exec(compile(text, cell["id"], "exec"), names)
            else:
                assert cell["cell_type"] == "markdown" and text
    finally:
        if server := names.get("server"):
            server.kill()  # type: ignore[attr-defined]
    run, question = names["run"], names["question"]
    assert isinstance(run, fcit.Run) and isinstance(question, Sample)
    assert (
        run.answer(f"tour-data/datasets/{question.image}", question.prompt).text == names["reply"]
    )
    assert (tmp_path / "tour-adapter" / "adapter_config.json").is_file()
