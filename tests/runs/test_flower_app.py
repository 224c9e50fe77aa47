"""What `flwr run` starts: what cannot be private is refused before anything begins."""

from __future__ import annotations

import copy
from pathlib import Path

import pytest
import tomli_w

from fcit.types import FcitError

pytest.importorskip("flwr")

from fcit.aggregation import privacy
from fcit.runs import flower_app


def given(table: dict, tmp_path: Path, **private: object) -> dict[str, str]:
    changed = copy.deepcopy(table) | {
        "privacy": {"clip_norm": 1.0, "noise_multiplier": 1.0} | private
    }
    changed["federation"]["outlier_factor"] = 0
    (tmp_path / "recipe.toml").write_text(tomli_w.dumps(changed))
    return {"recipe": str(tmp_path / "recipe.toml"), "out": str(tmp_path / "run")}


def never(*_: object):
    raise AssertionError("an engine was built")


def test_noise_that_clients_could_subtract_is_refused(table: dict, tmp_path: Path) -> None:
    with pytest.raises(FcitError, match="privacy.seeded_noise"):
        flower_app.run(given(table, tmp_path), never)
    assert not (tmp_path / "run").exists()


def test_the_accountant_is_asked_for_before_the_first_answer(
    table: dict, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def lacking() -> None:
        raise FcitError("privacy: needs dp-accounting")

    monkeypatch.setattr(privacy, "require", lacking)
    with pytest.raises(FcitError, match="needs dp-accounting"):
        flower_app.run(given(table, tmp_path, seeded_noise=False), never)


def test_the_server_writes_down_no_share_of_data_that_it_does_not_have(
    table: dict, tmp_path: Path
) -> None:
    pytest.importorskip("dp_accounting")
    with pytest.raises(AssertionError, match="an engine was built"):
        flower_app.run(given(table, tmp_path, seeded_noise=False), never)
    assert not (tmp_path / "run" / "partition.json").exists()
