"""fcit: Federated Continual Instruction Tuning of large multimodal models.

run = fcit.run("recipes/mini/task-hom.toml")     # or a table of the same form
run = fcit.load("runs/task-hom-disco-seed0")
run.results["last"]
run.generate("image.png", "What is the object in the image?")
"""

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


def _version() -> str:
    """The installed version; that of pyproject.toml where only the source tree is on the path."""
    import tomllib
    from importlib.metadata import PackageNotFoundError, version
    from pathlib import Path

    try:
        return version("fcit")
    except PackageNotFoundError:
        project = Path(__file__).parents[2] / "pyproject.toml"
        return (
            tomllib.loads(project.read_text())["project"]["version"]
            if project.is_file()
            else "unknown"
        )
