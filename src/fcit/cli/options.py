"""What several commands share: arguments, what a shell completes, and what Ctrl-C does."""

import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Annotated, Literal

from typer import Argument, Option

from fcit.cli.screen import show
from fcit.recipe.shipped import recipes
from fcit.types import FcitError


def _methods() -> list[str]:
    """The methods that a shell offers (typer selects those that begin as typed)."""
    from fcit.methods import names

    return names()


def _keys() -> list[str]:
    """The recipe keys that a shell offers, each with its `=`."""
    from fcit.recipe.keys import sections

    return [f"{key.name}=" for _, keys in sections() for key in keys if "." in key.name]


def _usable(device: str) -> str:
    """A device that can be used here. Raises FcitError naming the option, not the recipe's key."""
    if device:
        from fcit.models.device import choose

        choose(device, "auto", "--device")
    return device


Recipe = Annotated[
    Path,
    Argument(
        help="A recipe (TOML file), or the name of one that comes with fcit (`fcit recipe`).",
        autocompletion=lambda: list(recipes()),
    ),
]
Folder = Annotated[Path, Argument(help="A run's folder.", metavar="RUN")]
Method = Annotated[
    str | None,
    Option(
        help="Use this method instead of the recipe's: finetune, lwf, ewc, l2p, olora, moelora, hide, "
        "fedprotip, disco, disco_lda, ffa_lora, fedsa_lora, fedex_lora, replay, a reference point "
        "(zeroshot, joint, individual, individual_central, multitask), or the Python file of a method of "
        "your own (the file is run).",
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
Device = Annotated[
    str,
    Option(
        help="Where the model answers (cpu, cuda, mps), instead of on the run's model.device.",
        callback=_usable,
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


def pairs(given: list[str] | None, option: str, form: str, example: str) -> dict[str, str]:
    """What an option gave as KEY=VALUE. Raises FcitError for anything else, which shows an example."""
    parts = [text.partition("=") for text in given or ()]
    for key, equals, value in parts:
        if not (key and value):
            raise FcitError(f"{option} {key}{equals}{value}: write {form}, for example {example}")
    return {key: value for key, _, value in parts}


def rule_files(given: list[str] | None) -> dict[str, str]:
    """The files of scoring rules by dataset. Raises FcitError for what is not NAME=FILE."""
    return pairs(given, "--rule", "NAME=FILE", "My-Plants=close.py")


@contextmanager
def stoppable(then: str) -> Iterator[None]:
    """Ctrl-C prints one line that says how to go on, and exits with status 130."""
    try:
        yield
    except KeyboardInterrupt:
        show(f"fcit: stopped; what was finished is kept; {then}", err=True)
        sys.exit(130)
