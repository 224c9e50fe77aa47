"""A sweep's file, and the runs that it asks for."""

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from itertools import product
from pathlib import Path
from typing import Annotated, Any, ClassVar

from pydantic import BeforeValidator, Field

from fcit.files import read_toml
from fcit.methods import is_file, title
from fcit.recipe import config as configs
from fcit.recipe import shipped
from fcit.recipe.paths import anchored_path
from fcit.types import FcitError

Value = bool | int | float | str


def _listed(value: Any) -> Any:
    return (
        (value,) if isinstance(value, str) else tuple(value) if isinstance(value, list) else value
    )


@dataclass(frozen=True, kw_only=True)
class Part:
    """One `[[runs]]` of the file: every recipe with every method and seed."""

    name: str = ""
    """Name of the runs' folder (empty: the recipe's name)."""
    recipe: Annotated[tuple[str, ...], BeforeValidator(_listed), Field(min_length=1)]
    methods: Annotated[tuple[str, ...], Field(min_length=1)]
    seeds: Annotated[tuple[Annotated[int, Field(ge=0)], ...], Field(min_length=1)]
    set: tuple[str, ...] = ()
    """Changes to the recipe, as `--set` takes them."""
    grid: dict[str, Annotated[tuple[Value, ...], Field(min_length=1)]] = field(
        default_factory=dict[str, tuple[Value, ...]]
    )
    """Values to try, by key of the recipe: a run for every combination. They become part of the name."""

    def points(self) -> list[tuple[str, tuple[str, ...]]]:
        """Of every combination in `grid`, what it adds to the name, and its changes to the recipe."""
        keys = [key.rpartition(".")[2] for key in self.grid]
        return [
            (
                "".join(f"-{key}{value}" for key, value in zip(keys, values, strict=True)),
                tuple(
                    f"{key}={configs.inline(value)}"
                    for key, value in zip(self.grid, values, strict=True)
                ),
            )
            for values in product(*self.grid.values())
        ]


@dataclass(frozen=True, kw_only=True)
class File:
    """A sweep's file; relative paths, those in `set` and `methods` too, start at its folder."""

    __pydantic_config__: ClassVar = configs.STRICT

    out: str = ""
    set: tuple[str, ...] = ()
    """Changes to every run's recipe."""
    runs: Annotated[tuple[Part, ...], Field(min_length=1)]


@dataclass(frozen=True)
class SweepRun:
    """One run of a sweep."""

    name: str
    """The name of its part."""
    method: str
    seed: int
    recipe: Path
    changes: tuple[str, ...]
    folder: Path
    file: str = ""
    """The path of a method of one's own."""

    def __str__(self) -> str:
        return f"{self.name} {self.method} seed {self.seed}"

    @property
    def log(self) -> Path:
        """What the run printed."""
        return self.folder.with_name(f"{self.folder.name}.log")

    @property
    def clock(self) -> Path:
        """The file of the run's `Clock`."""
        return self.folder.with_name(f"{self.folder.name}.seconds.json")


def read(path: Path, out: Path | None = None) -> list[SweepRun]:
    """The runs of a sweep's file, in its order; `out` replaces the file's own.

    As with recipes, a name that is no file is that of a sweep that comes with fcit; its relative paths
    and its `runs` are in the working folder. Raises FcitError naming the file and the key at fault.
    """
    path, start = shipped.find(path, "sweep")
    ours = start != path.parent
    table = configs.checked(File, read_toml(path, "sweep"), str(path))
    out = out or (start / table.out if table.out and not ours else Path("runs") / path.stem)
    runs: dict[Path, SweepRun] = {}
    names = shipped.recipes()
    for number, part in enumerate(table.runs, 1):
        where = f"{path}: runs, no. {number}"
        for file, (point, tried), method, seed in product(
            part.recipe, part.points(), part.methods, part.seeds
        ):
            recipe = _recipe(path.parent / file, file, ours, names)
            name = (part.name or recipe.stem) + point
            if not re.fullmatch(r"\w[\w.+-]*", name):
                raise FcitError(f"{where}.name: {name!r} cannot be a folder's name")
            changes = [*table.set, *part.set, *tried, f"seed={seed}"]
            own = tuple(configs.anchored(change, start) for change in changes)
            file = anchored_path(method, start) if is_file(method) else ""
            folder = out.resolve() / name / title(file or method) / f"seed{seed}"
            run = SweepRun(name, title(file or method), seed, recipe, own, folder, file)
            if folder in runs:
                raise FcitError(f"{where}: {run} is there twice; give one another name")
            runs[folder] = run
    return list(runs.values())


def _recipe(beside: Path, file: str, ours: bool, names: Mapping[str, Path]) -> Path:
    """A recipe beside the sweep's file, or the name of one of those that come with fcit. ours: the sweep
    comes with fcit, so its recipes do, too."""
    if ours:
        return Path(next((name for name, path in names.items() if path.samefile(beside)), file))
    return Path(file) if file in names and not beside.is_file() else beside.resolve()


def choose(runs: Sequence[SweepRun], words: Sequence[str]) -> list[SweepRun]:
    """The runs with the given names and methods; no name means all names, likewise for methods.

    Raises FcitError on a word that is neither.
    """
    names = {run.name for run in runs} & set(words)
    methods = ({run.method for run in runs} & set(words)) - names
    if unknown := [word for word in words if word not in names | methods]:
        known = dict.fromkeys([*(run.name for run in runs), *(run.method for run in runs)])
        raise FcitError(
            f"--only {unknown[0]}: neither name nor method; there are {', '.join(known)}"
        )
    chosen = [
        run
        for run in runs
        if (not names or run.name in names) and (not methods or run.method in methods)
    ]
    if not chosen:
        raise FcitError(f"--only: no run is of {' and '.join(words)} together")
    return chosen
