"""Digests of eight short runs: a change of the code that changes no number leaves them equal.

    python tools/digests.py [--only disco ewc] [--out digests.json] [--against digests.json]

Each run is trained anew in a temporary folder and has three digests: of the bytes of its state files
(`files`), of their tensors alone (`tensors`, equal if a key was only renamed), and of the accuracies in
matrix.json (`matrix`).
"""

from __future__ import annotations

import argparse
import hashlib
import json
import sys
import tempfile
from pathlib import Path
from typing import Any

from safetensors import safe_open

import fcit
from fcit.files import read_json, write_json
from fcit.types import FcitError

RUNS = {
    "finetune": {},
    "disco": {},
    "ewc": {},
    "moelora": {},
    "l2p": {},
    "hide": {},
    "scaffold": {"method": {"name": "finetune"}, "federation": {"optimizer": "scaffold"}},
    "flower": {"method": {"name": "disco"}, "federation": {"engine": "flower"}},
}


def recipe(name: str) -> dict:
    """A recipe with three stages of two rounds, two of four clients per round, and one dataset of each
    scoring rule."""
    table = {
        "seed": 3,
        "data": {"size": "tiny", "train": 60, "test": 24},
        "setting": {"name": "task-hom", "order": ["IconQA", "Flickr30k", "Grounding"]},
        "federation": {"clients": 4, "per_round": 2, "rounds": 2, "workers": 2, "min_samples": 4},
        "training": {"lr": 3e-3, "projector_lr": 1e-4, "batch_size": 8},
        "method": {"name": name},
        "evaluation": {"max_new_tokens": 12, "general_questions": 24},
    }
    for section, values in RUNS[name].items():
        table[section] = table[section] | values
    return table


def digest(parts: list[bytes]) -> str:
    """One digest of several byte strings, independent of their order."""
    inner = sorted(hashlib.sha256(part).digest() for part in parts)
    return hashlib.sha256(b"".join(inner)).hexdigest()[:16]


def tensors(file: Path) -> list[bytes]:
    """The tensors of a state file as type, shape and bytes, without names."""
    with safe_open(file, "pt") as opened:
        found = [opened.get_tensor(key) for key in opened.keys()]  # noqa: SIM118
    return [repr((one.dtype, tuple(one.shape), one.tolist())).encode() for one in found]


def digests(folder: Path) -> dict[str, str]:
    """The three digests of a run folder."""
    files = sorted((folder / "state").glob("*.safetensors"))
    matrix = json.loads((folder / "matrix.json").read_text(encoding="utf-8"))
    numbers = {key: matrix[key] for key in ("matrix", "last", "avg", "forgetting", "zero_shot")}
    return {
        "files": digest([file.read_bytes() for file in files]),
        "tensors": digest([one for file in files for one in tensors(file)]),
        "matrix": digest([json.dumps(numbers, sort_keys=True).encode()]),
    }


def whole(before: Any, name: str) -> bool:
    """Whether a file of digests has the three of a run."""
    held = before.get(name) if isinstance(before, dict) else None
    return isinstance(held, dict) and held.keys() >= {"files", "tensors", "matrix"}


def main() -> None:
    """Run, print, and compare if requested; exit with 1 if a digest differs."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--only", nargs="+", choices=RUNS, default=list(RUNS))
    parser.add_argument("--out", type=Path, help="write the digests as JSON")
    parser.add_argument("--against", type=Path, help="compare with digests written before")
    asked = parser.parse_args()
    found: dict[str, dict[str, str]] = {}
    before = read_json(asked.against) if asked.against else {}
    if asked.against and (
        lacking := sorted(name for name in asked.only if not whole(before, name))
    ):
        parser.error(f"--against: {asked.against} lacks digests of {', '.join(lacking)}")
    with tempfile.TemporaryDirectory() as room:
        for name in asked.only:
            fcit.run(recipe(name), out=Path(room) / name)
            found[name] = digests(Path(room) / name)
            print(name, *(f"{key} {value}" for key, value in found[name].items()), flush=True)
    if asked.out:
        write_json(asked.out, found)
    if asked.against:
        wrong = [f"{name}: {key}" for name in found for key in found[name]
                 if found[name][key] != before[name][key]]  # fmt: skip
        print("differ: " + ", ".join(wrong) if wrong else "all digests are equal")
        sys.exit(bool(wrong))


if __name__ == "__main__":
    try:
        main()
    except (FcitError, OSError) as error:
        print(f"digests.py: {error}", file=sys.stderr)
        sys.exit(2)
