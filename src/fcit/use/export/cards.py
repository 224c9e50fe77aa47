"""The README.md of every exported folder: what it contains, which run made it, how to load it."""

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from jinja2 import Environment, Undefined

from fcit.models.llava_original import recognize
from fcit.models.loading import TOKENS
from fcit.models.processors import leaves_out_videos
from fcit.runs.api import Run
from fcit.types import PROJECTOR
from fcit.weights import split_prefix


@dataclass(frozen=True)
class Source:
    """Where a model comes from, on other machines."""

    name: str
    """A hub id, or the name of a folder."""
    code: str
    """Python for its folder or hub id."""
    hub: bool


def source(path: str, mini: str) -> Source:
    """Where the model of a recipe's key comes from; `mini` is used without one, and is exported too."""
    if not path:
        return Source(mini, json.dumps(mini), False)
    if Path(path).is_absolute() or Path(path).exists():
        name = Path(path).name
        kind = "a copy of this model"
        if Path(path).is_dir() and recognize(path):
            kind += " in transformers' format (fcit's docs/models.md: convert it once)"
        return Source(name, f"{json.dumps(name)}  # the path of {kind}", False)
    return Source(path, json.dumps(path), True)


def base(run: Run) -> Source:
    """The run's base model."""
    return source(run.config.model.path, "mini-lmm")


def encoder(run: Run) -> Source:
    """The model that computes the run's identity tokens."""
    return source(run.config.model.identity, "mini-clip")


def card(run: Run, kind: Literal["subspace", "all", "merged", "vllm"], **more: Any) -> str:
    """The text of one card. more: a subspace's `name`; merged weights' `target`, `shares`, `dtype`; for
    vLLM `names` of the adapters, `modules` (their folders), `limit` of the rank, `note`, `dtype`."""
    made: dict[str, Any] = run.files.table().get("versions", {})
    results = run.results if run.files.matrix.is_file() else {}
    scores = {key: results.get(key) for key in ("last", "avg")}
    last = run.files.rows()[-1:] if results else []
    table = [
        (name, *(f"{cell:.2f}" if isinstance(cell, int | float) else "–" for cell in cells))
        for row in last
        for name, *cells in zip(
            results["datasets"],
            [results.get("zero_shot", {}).get(name) for name in results["datasets"]],
            row,
            strict=True,
        )
    ]
    model, method = run.worker.model, run.worker.method
    own = split_prefix(run.state.adapters[more["name"]], PROJECTOR)[1] if kind == "subspace" else {}
    settings = model.model.generation_config
    environment = Environment(
        undefined=Undefined, trim_blocks=True, lstrip_blocks=True, keep_trailing_newline=True
    )
    template = Path(__file__).with_name("card.md").read_text(encoding="utf-8")
    return environment.from_string(template).render(
        kind=kind,
        run=run,
        config=run.config,
        made=made,
        numbers=str(made.get("computed", "auto")).split()[0],
        versions=[f"{key} {made[key]}" for key in ("fcit", "torch", "transformers") if key in made],
        table=table,
        data=run.config.data.root and Path(run.config.data.root).name,
        scores=[f"{k} {v:.2f}" for k, v in scores.items() if isinstance(v, int | float)],
        base=base(run),
        encoder=encoder(run),
        projector=run.state.projector is not None or bool(own),
        routed=method.tokens(run.state) is not None,
        chooses=method.gating.gate == "choose",
        square=model.images.square,
        videos=leaves_out_videos(model.processor) and type(model.processor).__name__,
        looks=kind == "all" and method.identity in ("image", "both"),
        family=model.model.config.model_type,
        writes_bos=model.chat.writes_bos,
        tokens={key: each for key in TOKENS if (each := getattr(settings, key)) is not None},
        **({"names": list(run.state.adapters)} | more),
    )
