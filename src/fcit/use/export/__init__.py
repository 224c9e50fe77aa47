"""A run's model for use without fcit: a PEFT adapter, all adapters and a router, merged weights, or what
vLLM serves."""

import shlex
import shutil
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from statistics import fmean
from typing import Any, Literal

from fcit.benchmark import datasets
from fcit.files import clean, folder_aside, write_json, write_text
from fcit.methods import Method, Query, TokenRouted, moments
from fcit.models import CHECKPOINTS
from fcit.rounds.client import Data
from fcit.rounds.evaluate import activate
from fcit.runs.api import Run
from fcit.types import PROJECTOR, FcitError, Sample, Tensor, Weights, naming
from fcit.use.export import cards
from fcit.weights import factors, joined, save, split_prefix, whole_projector

DType = Literal["float32", "bfloat16", "float16"]

ROUTES = ("route", "activate", "similarities", "likeness")
"""The hooks that router.py does the work of: a method that changes them cannot be exported with it."""

VLLM_RANKS = (1, 8, 16, 32, 64, 128, 256, 320, 512)
"""The values that vLLM's `max_lora_rank` may have (vllm/config/lora.py)."""

VLLM_NOTES = {
    "concat": "",
    "argmax": "vLLM does not route: name the adapter that the run's router chooses (fcit export --all)",
    "choose": "vLLM does not route: name the adapter of the question's dataset",
    "softmax": "vLLM opens one adapter per request with weight 1, and this run weighs and mixes them, so "
    "its answers are not the run's (fcit serve mixes; fcit export --merged holds one mixture)",
}
"""What vLLM does not do, by a run's gating function."""
VLLM_NOTES["cosine"] = VLLM_NOTES["softmax"]


@dataclass(frozen=True)
class Adapter:
    """One adapter of a run."""

    block: Weights
    """Its LoRA tensors."""
    projector: Weights | None
    """The projector it was trained with; None: the base model's."""
    own: bool
    """Whether no other adapter has this projector."""


def subspace(run: Run, name: str, out: Path) -> None:
    """Write one adapter and its projector as a PEFT adapter folder.

    Raises FcitError when the run has no such adapter, or its adapters mean nothing alone.
    """
    run = _exportable(run)
    if name not in run.state.adapters:
        known = (f"{key} ({', '.join(tasks) or '-'})" for key, tasks in run.trained_by.items())
        raise FcitError(f"--subspace: {run.folder} has no {name!r}; it has {'; '.join(known)}")
    from fcit.models.saving import save_peft, save_processor

    adapter, model = _adapters(run)[name], run.worker.model
    scale, base, paths = run.config.method.scale, cards.base(run).name, model.vision.projector_paths
    with folder_aside(out) as folder:
        save_peft(folder, adapter.block, scale, base, adapter.projector, paths)
        save_processor(model, folder)
        _copy_mini(run, folder, clip=False)
        write_text(folder / "README.md", cards.card(run, "subspace", name=name))


def everything(run: Run, out: Path) -> None:
    """Write all adapters, identity tokens and projectors, and router.py, which activates adapters for an
    instruction without fcit.

    Raises FcitError for a method whose routes router.py cannot compute.
    """
    run = _exportable(run)
    method = run.experiment.method
    tokens = method.tokens(run.state)
    if (hook := _overridden(method, ROUTES)) or (
        tokens is not None and sorted(map(str, range(len(tokens)))) != sorted(run.state.adapters)
    ):
        why = f"a `{hook}` of its own" if hook else "adapters without an identity token"
        raise FcitError(
            f"--all: {run.config.method.name} has {why}, and router.py would choose other adapters than "
            "the run does; export --merged DATASET, or a --subspace"
        )
    from fcit.models import encoding, router
    from fcit.models.saving import save_peft, save_processor

    adapters = _adapters(run)
    with folder_aside(out) as folder:
        for name, adapter in adapters.items():
            path = folder / "adapters" / name
            save_peft(path, adapter.block, method.scale, cards.base(run).name)
            if adapter.own and adapter.projector:
                save(path / "projector.safetensors", adapter.projector)
        if run.state.projector is not None:
            save(folder / "projector.safetensors", run.state.projector)
        if tokens is not None:
            save(folder / "identity.safetensors", _routing(run, tokens))
        write_json(folder / "router.json", _router(run, list(adapters)))
        save_processor(run.worker.model, folder)
        _copy_mini(run, folder, clip=tokens is not None)
        code = Path(router.__file__).read_text(encoding="utf-8")
        write_text(folder / "router.py", code.replace("from fcit.models.encoding", "from encoding"))
        shutil.copyfile(encoding.__file__, folder / "encoding.py")
        write_text(folder / "README.md", cards.card(run, "all"))


def merged(run: Run, target: str, out: Path, dtype: DType = "float32") -> None:
    """Write the whole model, with the adapters merged as they are activated for one task, and its
    processor: a folder that transformers loads.

    target: a dataset of the run (its test instructions' mean activation factors), or any other text,
    which is routed as an instruction. The run loads its model again if it is used afterwards.
    Raises FcitError when no single set of weights answers as the run does.
    """
    run = _exportable(run)
    import torch

    from fcit.models.saving import save_merged

    number, shares = _dtype(dtype), _shares(run, target)
    card = cards.card(run, "merged", target=target, shares=shares, dtype=dtype)
    worker = run.give_worker()
    if shares:
        names = worker.model.subspaces.names
        row = torch.tensor([[shares[name] for name in names]], device=worker.model.device)
        worker.method.activate(worker.model, row)
    with folder_aside(out) as folder:
        save_merged(worker.model, folder, number, f"--merged: {run.folder}")
        write_text(folder / "README.md", card)


def served(run: Run, out: Path, dtype: DType = "float32") -> str:
    """Write what vLLM serves: the base model with the run's projector, and its adapters as plain LoRA.

    Adapters that the run always opens together become one, their sum. Returns in one line what vLLM does
    not do for this run; "": it answers as the run does. The run loads its model again if it is used
    afterwards. Raises FcitError where a base model and LoRA cannot be what the run trained.
    """
    run = _exportable(run)
    from fcit.models.saving import save_merged, save_peft

    method, name = run.experiment.method, run.config.method.name
    if hook := _overridden(method, ROUTES):
        raise FcitError(
            f"--vllm: {name} has a `{hook}` of its own, which LoRA cannot do; use fcit serve"
        )
    adapters = _adapters(run)
    if len(adapters) > 1 and any(adapter.own for adapter in adapters.values()):
        raise FcitError(
            f"--vllm: {name} trained a projector for each adapter, and vLLM has one for all; export "
            "--merged for each dataset, and serve these models side by side"
        )
    blocks = {key: adapter.block for key, adapter in adapters.items()}
    weighs = len(blocks) > 1 or method.gating.gate == "cosine" or method.gating.slots > 1
    note = VLLM_NOTES[method.gating.gate] if weighs else ""
    if len(blocks) > 1 and not note:
        blocks = {"all": joined(list(blocks.values()))}
    rank = max(a.shape[0] for block in blocks.values() for a, _ in factors(block).values())
    if rank > VLLM_RANKS[-1]:
        raise FcitError(
            f"--vllm: LoRA of rank {rank} is too large for vLLM: {VLLM_RANKS[-1]} at most"
        )
    with folder_aside(out) as folder:
        for key, block in blocks.items():
            save_peft(folder / "adapters" / key, block, method.scale, "base")
        limit = next(size for size in VLLM_RANKS if size >= rank)
        modules = " ".join(shlex.quote(f"{key}=adapters/{key}") for key in blocks)
        more = {"names": list(blocks), "modules": modules, "limit": limit, "note": note}
        write_text(folder / "README.md", cards.card(run, "vllm", dtype=dtype, **more))
        model, start = run.give_worker().model, f"--vllm: {run.folder}"
        save_merged(model, folder / "base", _dtype(dtype), start, adapters=False)
    return note


def _dtype(name: str) -> Any:
    import torch

    if name not in ("float32", "bfloat16", "float16"):
        raise FcitError(f"--dtype: {name!r}; there are float32, bfloat16 and float16")
    return getattr(torch, name)


def _exportable(run: Run) -> Run:
    """The run on its base model's unquantised weights (quantised ones cannot be merged).

    Raises FcitError when the method's adapters mean nothing without its own changes to the model.
    """
    if run.config.model.quantize != "none":
        unquantised = replace(run.config.model, quantize="none")
        config, files, run = run.config, run.files, Run(run.folder)
        run.config, run.files = replace(config, model=unquantised), files
    name, method = run.config.method.name, run.config.method
    if _overridden(method, ["equip"]):
        raise FcitError(
            f"{name} cannot be exported: its `equip` adds prompts, gates or modules to the model, which "
            "neither PEFT nor merged weights express; use fcit serve"
        )
    if not run.state.adapters:
        raise FcitError(f"{run.folder}: {name} trained nothing, so there is nothing to export")
    return run


def _copy_mini(run: Run, folder: Path, clip: bool) -> None:
    """Copy the mini models that a run used, which only this package has, so that the card loads them."""
    model = run.config.model
    for name, own in (("mini-lmm", model.path), *([("mini-clip", model.identity)] if clip else [])):
        if not own:
            shutil.copytree(CHECKPOINTS / name, folder / name)


def _overridden(method: Method, hooks: Sequence[str]) -> str:
    """The first of these hooks that a method's own class has changed; "" where none."""
    base = TokenRouted if isinstance(method, TokenRouted) else Method
    changed = (name for name in hooks if hasattr(base, name))
    return next((n for n in changed if getattr(type(method), n) is not getattr(base, n)), "")


def _adapters(run: Run) -> dict[str, Adapter]:
    """The run's adapters in order of their names, those with numbers by number."""
    adapters: dict[str, Adapter] = {}
    for name in sorted(run.state.adapters, key=lambda name: (len(name), name)):
        block, own = split_prefix(run.state.adapters[name], PROJECTOR)
        own = whole_projector(run.worker.model.base_projector, own, run.worker.method.scale)
        adapters[name] = Adapter(block, own or run.state.projector, bool(own))
    return adapters


def _routing(run: Run, tokens: Tensor) -> Weights:
    """What router.py compares an instruction's feature with."""
    method = run.worker.method
    if not isinstance(method, TokenRouted) or not method.discriminant:
        return {"tokens": tokens}
    samples = run.state.extras[method.tokens_name]["samples"]
    weights, bias = moments.discriminant(tokens, samples)
    return {"weights": weights, "bias": bias}


def _router(run: Run, names: list[str]) -> dict[str, Any]:
    """The content of router.json."""
    method = run.worker.method
    token = method.identity if method.tokens(run.state) is not None else None
    return {
        "adapters": names,
        "token": token,
        "gate": method.gating.gate,
        "temperature": method.gating.temperature,
        "slots": method.gating.slots,
        "projector": run.worker.model.vision.projector_paths,
        "base": cards.base(run).name,
        "encoder": cards.encoder(run).name if token else "",
    }


def _shares(run: Run, target: str) -> Mapping[str, float]:
    """Activation factors: the mean over a dataset's test instructions, or those of one instruction."""
    worker = run.worker
    if target in (*worker.experiment.setting.datasets, *datasets.DATASETS):
        if worker.method.gating.gate == "choose":
            return worker.method.route(run.state, Query(target, None))
        return _mean_shares(run, target)
    if worker.method.identity in ("image", "both"):
        raise FcitError(
            f"--merged: {run.config.method.name} routes by images as well, so a prompt alone does not "
            f"choose; name a dataset: {', '.join(worker.experiment.setting.datasets)}"
        )
    with naming("--merged"):
        data = Data([Sample("", "", "", clean(target), ("",))], [Path()])
    encoder = worker.encoder if worker.method.identity else None
    return activate(worker.model, encoder, worker.method, run.state, data)[0].activation


def _mean_shares(run: Run, dataset: str) -> Mapping[str, float]:
    """The mean of the activation factors in the last stage's predictions."""
    known = run.worker.experiment.setting.datasets
    if dataset not in known:
        raise FcitError(
            f"--merged: {dataset} is no dataset of this run; it has {', '.join(known)}; or give a prompt"
        )
    if run.config.evaluation.where == "clients":
        raise FcitError(
            f"--merged: {dataset}: this run's clients scored their own test samples, and so "
            "there are no activation factors; give a prompt instead"
        )
    position = run.files.position()
    assert position is not None
    stage = "1" if run.worker.method.single_row else str(position.stage + 1)
    file = run.files.predictions(stage, dataset)
    if not file.is_file():
        raise FcitError(
            f"--merged: {file}: does not exist; finish the run, or give a prompt instead"
        )
    rows = [row.activation for row in run.files.answers(stage, dataset)]
    return {name: fmean(row[name] for row in rows) for name in rows[0]} if rows else {}
