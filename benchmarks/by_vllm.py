"""Whether vLLM answers as a run did: exports the run for vLLM, asks vLLM test questions, and compares.

    .venv/bin/python benchmarks/by_vllm.py RUN --python PYTHON [--count 20]

PYTHON: the interpreter of an environment that has vLLM (its CPU build is enough); fcit need not be there.
Of every dataset's last answers, the first `count` that one adapter gave alone are asked again, greedily
and in float32. Exit status 1: more than 2 % differ.
"""

from __future__ import annotations

import base64
import json
import os
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

TOLERATED = 0.02
"""vLLM's kernels are its own: sums in another order may turn a rare answer."""


def main() -> None:
    """Export, ask, compare."""
    from command import options, positive

    parser = options(__doc__)
    parser.add_argument("run", type=Path)
    parser.add_argument("--python", required=True, metavar="PYTHON")
    parser.add_argument("--count", type=positive, default=20)
    given = parser.parse_args()
    from fcit.runs.api import Run
    from fcit.types import FcitError

    if not shutil.which(given.python):
        raise FcitError(f"--python: {given.python} is no program that can be started")
    run = Run(given.run)
    tokens = run.config.evaluation.max_new_tokens
    with tempfile.TemporaryDirectory() as room:
        folder, asked = Path(room) / "served", Path(room) / "asked.json"
        words = ["export", str(given.run), "--vllm", "--out", str(folder)]
        if status := subprocess.run([sys.executable, "-m", "fcit", *words]).returncode:
            sys.exit(status)  # it has said why
        names = sorted(path.name for path in (folder / "adapters").iterdir())
        rows = [row for file in last(given.run) for row in alone(file, names, given.count)]
        if not rows:
            raise FcitError(f"{given.run}: no question was answered by one adapter alone")
        for row in rows:
            samples = run.worker.experiment.samples(row["dataset"], "test")
            sample = next(each for each in samples if each.id == row["id"])
            row["url"] = picture(run.worker.experiment.folder.image(sample))
        sizes = run.worker.model.model.config.get_text_config()
        length = min(sizes.max_position_embeddings, 4096)
        facts = {"folder": str(folder), "tokens": tokens, "length": length, "rows": rows}
        asked.write_text(json.dumps(facts))
        environment = {name: value for name, value in os.environ.items() if name != "PYTHONPATH"}
        own = {"VLLM_NO_USAGE_STATS": "1", "DO_NOT_TRACK": "1", "HF_HUB_OFFLINE": "1"}
        own |= {"VLLM_CPU_KVCACHE_SPACE": "1", "VLLM_ENABLE_V1_MULTIPROCESSING": "0"}
        command = [given.python, __file__, "--ask", str(asked)]
        if status := subprocess.run(command, env=environment | own).returncode:
            raise FcitError(f"{given.python}: vLLM ended with status {status}")
        answers = json.loads(asked.with_suffix(".answers").read_text())
    others = [(row, new) for row, new in zip(rows, answers, strict=True) if row["answer"] != new]
    for row, new in others:
        print(f"{row['dataset']}: {row['answer']!r} of the run, {new!r} of vLLM")
    print(f"{len(rows) - len(others)} of {len(rows)} answers are the run's")
    sys.exit(len(others) > TOLERATED * len(rows))


def last(run: Path) -> list[Path]:
    """The answers after the last stage, a file for each dataset. Raises FcitError where the run has
    none."""
    from fcit.types import FcitError

    stages = [path for path in (run / "predictions").glob("*") if path.name.isdecimal()]
    if not stages:
        raise FcitError(f"{run}: has no predictions of a stage; finish the run first")
    return sorted(max(stages, key=lambda path: int(path.name)).glob("*.jsonl"))


def alone(file: Path, adapters: list[str], count: int) -> list[dict[str, str]]:
    """A dataset's first questions that one adapter answered alone. An export that joined all adapters
    into one answers as they did."""
    found: list[dict[str, str]] = []
    for line in file.read_text(encoding="utf-8").splitlines():
        row = json.loads(line)
        names = [name for name, share in row["activation"].items() if share]
        one = names[0] if len(names) == 1 and set(row["activation"].values()) <= {0.0, 1.0} else ""
        adapter = adapters[0] if len(adapters) == 1 else one
        if adapter in adapters:
            kept = {"id": row["question_id"], "prompt": row["prompt"]}
            answer = {"dataset": file.stem, "adapter": adapter, "answer": row["prediction"].strip()}
            found.append(kept | answer)
    return found[:count]


def picture(path: Path) -> str:
    """An image as a client of the export sends it: padded to a square, as PNG, in a data URL."""
    import io

    from fcit.models.images import open_image, pad_to_square

    file = io.BytesIO()
    pad_to_square(open_image(path)).save(file, "PNG")
    return "data:image/png;base64," + base64.b64encode(file.getvalue()).decode()


def ask(asked: Path) -> None:
    """Answer with vLLM, in its own environment."""
    from vllm import LLM, SamplingParams  # type: ignore[reportMissingImports]
    from vllm.lora.request import LoRARequest  # type: ignore[reportMissingImports]

    given = json.loads(asked.read_text())
    folder, rows = Path(given["folder"]), given["rows"]
    names = sorted(path.name for path in (folder / "adapters").iterdir())
    ranks = [
        json.loads((folder / "adapters" / name / "adapter_config.json").read_text())["r"]
        for name in names
    ]
    rank = min(size for size in (8, 16, 32, 64, 128, 256, 320, 512) if size >= max(ranks))
    model = LLM(
        model=str(folder / "base"),
        enable_lora=True,
        max_lora_rank=rank,
        max_loras=len(names),
        dtype="float32",
        enforce_eager=True,
        max_num_seqs=8,
        max_model_len=given["length"],
    )
    chats = [
        [
            {
                "role": "user",
                "content": [
                    {"type": "image_url", "image_url": {"url": row["url"]}},
                    {"type": "text", "text": row["prompt"]},
                ],
            }
        ]
        for row in rows
    ]
    loras = [
        LoRARequest(
            row["adapter"], 1 + names.index(row["adapter"]), f"{folder}/adapters/{row['adapter']}"
        )
        for row in rows
    ]
    greedy = SamplingParams(temperature=0, max_tokens=given["tokens"])
    answers = model.chat(chats, greedy, lora_request=loras, use_tqdm=False)
    texts = [answer.outputs[0].text.strip() for answer in answers]
    asked.with_suffix(".answers").write_text(json.dumps(texts))


if __name__ == "__main__":
    if sys.argv[1:2] == ["--ask"]:
        ask(Path(sys.argv[2]))
    else:
        from command import ended  # needs fcit, which vLLM's environment may lack

        ended(main)
