"""Whether this interpreter has the versions that fcit needs, before a minute of a GPU is spent.

    .venv/bin/python benchmarks/gpu/needs.py

Each line names a package that is missing or too old. On a machine without a network, download the wheels
on another one and carry them along:

    pip download --dest wheels --only-binary :all: --python-version 3.12 'transformers>=5.20,<6'
    pip install --no-index --no-deps --target site wheels/*.whl
    export PYTHONPATH=$PWD/site
    sh benchmarks/gpu/run.sh OUT

Exit status 1 if anything that fcit itself needs is missing.
"""

from __future__ import annotations

import sys
import tomllib
from importlib import metadata
from pathlib import Path

try:
    from packaging.requirements import Requirement
except ImportError:
    sys.exit("needs.py: the package packaging is missing; carry its wheel along")

TESTS = ("pytest>=8.3", "pytest-xdist>=3.8", "peft>=0.18")
"""What the parts `tests` and `bench` need beside fcit's own dependencies."""


def missing(requirements: list[str]) -> list[str]:
    """A line for each requirement that this interpreter does not meet."""
    lines = []
    for requirement in map(Requirement, requirements):
        if requirement.marker is not None and not requirement.marker.evaluate():
            continue
        try:
            version = metadata.version(requirement.name)
        except metadata.PackageNotFoundError:
            lines.append(f"{requirement}: missing")
            continue
        if not requirement.specifier.contains(version, prereleases=True):
            lines.append(f"{requirement}: version {version} is here")
    return lines


def main() -> None:
    """Compare, and say what is missing."""
    project = Path(__file__).parents[2] / "pyproject.toml"
    own = tomllib.loads(project.read_text(encoding="utf-8"))["project"]["dependencies"]
    lines, for_tests = missing(own), missing(list(TESTS))
    for line in for_tests:
        print(f"needs.py: {line}; the parts tests and bench will fail", file=sys.stderr)
    if lines:
        sys.exit("\n".join(f"needs.py: {line}" for line in lines))
    print("needs.py: fcit's own needs are met")


if __name__ == "__main__":
    main()
