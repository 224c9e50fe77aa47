"""Miniatures of model families, each written once."""

from __future__ import annotations

from collections.abc import Callable
from functools import cache
from pathlib import Path

import families
import pytest


@pytest.fixture(scope="session")
def family(tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], Path]:
    """The checkpoint folder of a family by its name; to be read only."""

    @cache
    def folder(name: str) -> Path:
        return families.write(name, tmp_path_factory.mktemp("family") / "model")

    return folder
