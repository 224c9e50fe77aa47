"""The page and the help on recipe keys are made from the fields, and complete."""

from __future__ import annotations

import tomllib

import pytest
from typer.testing import CliRunner

from fcit import optimizers
from fcit.cli import app
from fcit.recipe.config import Config, to_table
from fcit.recipe.keys import Key, sections
from fcit.recipe.sections import SIZES
from tools.recipe_page import PATH, page

TABLES = dict(sections())
ALL = [key for keys in TABLES.values() for key in keys]


def test_the_page_is_up_to_date() -> None:
    assert PATH.read_text("utf-8") == page(), "run python tools/recipe_page.py"


@pytest.mark.parametrize("key", ALL, ids=lambda key: key.name)
def test_every_key_is_described_in_a_sentence(key: Key) -> None:
    assert key.description[:1].isupper() or key.description[:1] == "`", key
    assert key.description.endswith(".") and "|" not in key.description, key


def test_every_default_is_shown_as_a_recipe_would_say_it() -> None:
    titles = [title for title in TABLES if not title.startswith("method: ")]
    titles += ["method: finetune", "method: disco"]  # the default method's
    shown = {key.name: key.default for title in titles for key in TABLES[title]}
    table = to_table(Config())
    for section in table.keys() - {"seed"}:
        for name, value in table[section].items():
            key = f"{section}.{name}"
            assert tomllib.loads(f"v = {shown[key]}")["v"] == value, key


def test_a_default_that_a_method_changes_is_shown() -> None:
    told = {key.name: key.default for key in TABLES["method: disco_lda"]}
    assert (told["method.rank"], told["method.projector"]) == ("7", '"isolated"')
    assert "method.scale" not in told


def test_sizes_and_optimizers_are_named() -> None:
    told = {key.name: key.description for key in ALL}
    for size, (train, test) in SIZES.items():
        words = told["data.size"].partition(f"`{size}` (")[2].partition(")")[0]
        assert str(train) in words and str(test) in words
    assert all(f"`{name}`" in told["federation.optimizer"] for name in optimizers.names())


def test_help_keys_prints_every_key() -> None:
    done = CliRunner().invoke(app, ["run", "--help-keys"])
    assert done.exit_code == 0, done.output
    assert all(key.name in done.output for key in ALL)
    assert "`[[setting.stages]]`" in done.output and "see docs/privacy.md)" in done.output
