"""What several commands share: arguments, what a shell completes, and what Ctrl-C does."""

import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Annotated, Literal

from typer import Argument, Option

from fcit.cli.screen import show
from fcit.types import FcitError


def _methods(typed: str) -> list[str]:
    """The methods that a shell offers."""
    from fcit.methods import names

    return [name for name in names() if name.startswith(typed)]


def _recipes(typed: str) -> list[str]:
    """The recipes of fcit that a shell offers; it knows files by itself."""
    from fcit.recipe.shipped import recipes

    return [name for name in recipes() if name.startswith(typed)]


def _keys(typed: str) -> list[str]:
    """The recipe keys that a shell offers, each with its `=`."""
    from fcit.recipe.keys import sections

    keys = [key.name for _, keys in sections() for key in keys]
    return [f"{name}=" for name in keys if "." in name and name.startswith(typed)]


Recipe = Annotated[
    Path,
    Argument(
        help="A recipe (TOML file), or the name of one that comes with fcit (`fcit recipe`).",
        autocompletion=_recipes,
    ),
]
Folder = Annotated[Path, Argument(help="A run's folder.", metavar="RUN")]
Method = Annotated[
    str | None,
    Option(
        help="Use this method instead of the recipe's: finetune, lwf, ewc, l2p, olora, moelora, hide, "
        "fedprotip, disco, disco_lda, ffa_lora, fedsa_lora, fedex_lora, replay, or a reference point "
        "(zeroshot, joint, individual, individual_central, multitask).",
        autocompletion=_methods,
    ),
]
Changes = Annotated[
    list[str] | None,
    Option(
        "--set",
        metavar="KEY=VALUE",
        help="Change a recipe key, e.g. federation.rounds=2; repeatable.",
        autocompletion=_keys,
    ),
]
Json = Annotated[bool, Option("--json", help="Print JSON.")]
Scoring = Literal["strict", "reference"]
Images = Annotated[
    list[Path] | None,
    Option(
        "--images",
        metavar="DIR",
        help="The folder that image paths are relative to, instead of datasets/ in the data folder; "
        "several are tried in order.",
    ),
]
Rules = Annotated[
    list[str] | None,
    Option(
        "--rule",
        metavar="NAME=FILE",
        help="Score the dataset NAME by the rule in a Python file of your own (the file is run).",
    ),
]


def rule_files(given: list[str] | None) -> dict[str, str]:
    """The files of scoring rules by dataset. Raises FcitError for what is not NAME=FILE."""
    pairs = [text.partition("=") for text in given or ()]
    if wrong := next((name for name, _, file in pairs if not (name and file)), None):
        raise FcitError(f"--rule {wrong}: write NAME=FILE, for example My-Plants=close.py")
    return {name: file for name, _, file in pairs}


@contextmanager
def stoppable(then: str) -> Iterator[None]:
    """Ctrl-C prints one line that says how to go on, and exits with status 130."""
    try:
        yield
    except KeyboardInterrupt:
        show(f"fcit: stopped; what was finished is kept; {then}", err=True)
        sys.exit(130)
