"""fcit: Federated Continual Instruction Tuning of large multimodal models.

run = fcit.run("recipes/mini/task-hom.toml")     # or a table of the same form
run = fcit.load("runs/task-hom-disco-seed0")
run.results["last"]
run.generate("image.png", "What is the object in the image?")
"""

from functools import cache
from typing import TYPE_CHECKING

from fcit.types import FcitError

if TYPE_CHECKING:
    from fcit.runs.api import Run, load, run

    __version__: str

__all__ = ["FcitError", "Run", "__version__", "load", "run"]


def __getattr__(name: str) -> object:
    if name in ("Run", "load", "run"):
        from fcit.runs import api

        return getattr(api, name)
    if name == "__version__":
        return _version()
    raise AttributeError(f"module 'fcit' has no attribute {name!r}")


@cache
def _version() -> str:
    """That of pyproject.toml in a source tree, else that of the installed package. (A package of this
    name that is installed beside a source tree may be another project's.)"""
    import tomllib
    from importlib.metadata import PackageNotFoundError, version
    from pathlib import Path

    project = Path(__file__).parents[2] / "pyproject.toml"
    if project.is_file():
        return tomllib.loads(project.read_text("utf-8"))["project"]["version"]
    try:
        return version("fcit")
    except PackageNotFoundError:
        return "unknown"
