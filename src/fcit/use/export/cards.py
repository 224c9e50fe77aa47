"""The README.md of every exported folder: what it contains, which run made it, how to load it."""

import tomllib
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from fcit.runs.api import Run
from fcit.weights import split_projector

SQUARE = """\

def square(image):  # as the run padded its images
    side = max(image.size)
    whole = Image.new("RGB", (side, side), (122, 116, 104))
    whole.paste(image, ((side - image.width) // 2, (side - image.height) // 2))
    return whole


"""

CHAT = """\
text = processor.apply_chat_template(
    [{{"role": "user", "content": [{{"type": "image"}}, {{"type": "text", "text": {prompt}}}]}}],
    add_generation_prompt=True,
)
"""

CODE = """\
{imports}from PIL import Image
from transformers import AutoModelForImageTextToText, AutoProcessor
{local}
{load}processor = AutoProcessor.from_pretrained(".", backend="pil")

{square}{text}image = {image}
inputs = processor(images=[image], text=[text], return_tensors="pt"{more})
out = model.generate(**inputs, do_sample=False, max_new_tokens={tokens})
print(processor.decode(out[0, inputs["input_ids"].shape[1]:], skip_special_tokens=True))
"""

PROMPT = '"How many icons are there?"'
PEFT = "from peft import PeftModel\n"
BASE = "BASE = BASE_NAME\nbase = AutoModelForImageTextToText.from_pretrained(BASE)\n"
BESIDE = (
    "  # the folder of this name that the run used; put a copy of it, or a link, beside this file"
)

TESTED = (
    "Run this in the folder of this file. One image and one instruction at a time; the answer is\n"
    "greedy. In float32 the answers are fcit's own; in another number format a rare answer may differ.\n"
)


def base_name(run: Run) -> str:
    """The base model's name for other machines: a hub id, or the name of a folder."""
    return _outside(run.config.model.path, "mini-lmm")


def clip_name(run: Run) -> str:
    """The same for the model that computes identity tokens."""
    return _outside(run.config.model.identity, "mini-clip")


def subspace(run: Run, name: str) -> str:
    """The card of one PEFT adapter."""
    trained = ", ".join(run.trained_by.get(name, ()))
    code = _code(run, load=BASE + 'model = PeftModel.from_pretrained(base, ".")\n', imports=PEFT)
    whole = run.state.projector is not None or bool(split_projector(run.state.adapters[name])[1])
    also = ", and the projector the run trained" if whole else ""
    return (
        _head(run, f"Subspace {name}", "peft")
        + f"A LoRA of the language model's MLP projections{also}, as a PEFT adapter.\n"
        + (f"Trained by clients who learnt {trained}.\n" if trained else "")
        + TESTED
        + code
        + _facts(run)
    )


def everything(run: Run) -> str:
    """The card of a folder with all adapters and their router."""
    rows = "".join(f"| {name} | {', '.join(by)} |\n" for name, by in run.trained_by.items())
    routed = run.worker.method.tokens(run.state) is not None
    chooser = 'Router(".", CLIP).weights' if routed else 'Router(".").weights'
    chosen = f"weights = {chooser}(prompt)  # router.json says whether it needs the image too\n"
    if run.worker.method.gating.gate == "choose":
        names = list(run.state.adapters)
        chosen = f"weights = dict.fromkeys({names!r}, 0.0) | {{{names[0]!r}: 1.0}}\n"
    clip = f'CLIP = "{clip_name(run)}"{_beside(run.config.model.identity)}\n'
    load = BASE + (clip if routed else "")
    load += 'model = load(".", base)\nprompt = "How many icons are there?"\n'
    load += chosen + "open_adapters(model, weights)\n"
    local = "\nfrom router import Router, load, open_adapters\n"
    code = _code(run, load=load, local=local, prompt="prompt")
    return (
        _head(run, "All subspaces and their router", "peft")
        + "`adapters/` holds PEFT adapters, `identity.safetensors` the identity tokens that choose\n"
        "among them, and `projector.safetensors` the trained projector (in an adapter's folder: its\n"
        "own). `router.py` loads them and chooses adapters, one instruction at a time. An adapter used\n"
        "alone also needs the shared projector: `fcit export --subspace` writes both.\n"
        + f"\n| adapter | trained by clients who learnt |\n|---|---|\n{rows}\n"
        + TESTED
        + code
        + _facts(run)
    )


def merged(run: Run, target: str, shares: Mapping[str, float], dtype: str) -> str:
    """The card of a model whose adapters were merged for one task."""
    rows = "".join(f"| {name} | {share:.6f} |\n" for name, share in shares.items())
    merged_for = (
        f"the test instructions of {target} (the mean of their activation factors)"
        if target in run.worker.experiment.setting.datasets
        else "this instruction:\n\n    " + target.replace("\n", "\n    ") + "\n"
    )
    code = _code(run, load='model = AutoModelForImageTextToText.from_pretrained(".")\n')
    return (
        _head(run, "A model merged for one task", "transformers")
        + f"The base model with the run's adapters and projector merged into its weights ({dtype}), as\n"
        f"the run activates them for {merged_for}\n\n| adapter | activation |\n|---|---|\n{rows}\n"
        + "For other instructions the run would activate other adapters; this model does not.\n"
        + TESTED
        + code
        + _facts(run)
    )


def _outside(path: str, mini: str) -> str:
    if not path:
        return mini
    return Path(path).name if Path(path).is_absolute() else path


def _beside(path: str) -> str:
    """A comment where the code loads a folder of the run's machine."""
    return BESIDE if Path(path).is_absolute() else ""


def _code(run: Run, load: str, imports: str = "", local: str = "", prompt: str = PROMPT) -> str:
    """A card's Python code, for the run's model family."""
    model = run.worker.model
    image, text, more = 'Image.open("photo.png").convert("RGB")', CHAT.format(prompt=prompt), ""
    if model.model.config.model_type == "paligemma":  # its processor writes the rest of the prompt
        text = f'text = "<image>" + {prompt}\n'
    elif model.chat.writes_bos:
        more = ", add_special_tokens=False"
    code = CODE.format(
        imports=imports,
        local=local,
        load=load.replace("BASE_NAME", f'"{base_name(run)}"{_beside(run.config.model.path)}'),
        square=SQUARE if model.images.square else "",
        text=text,
        image=f"square({image})" if model.images.square else image,
        more=more,
        tokens=run.config.evaluation.max_new_tokens,
    )
    return f"\n```python\n{code}```\n\n"


def _head(run: Run, title: str, library: str) -> str:
    return (
        f"---\nlicense: apache-2.0\nlibrary_name: {library}\nbase_model: {base_name(run)}\n"
        f"tags: [federated-continual-instruction-tuning, {run.config.method.name}]\n---\n"
        f"# {title}\n\n"
    )


def _facts(run: Run) -> str:
    """A table of facts about the run."""
    config = run.config
    text = (run.folder / "config.toml").read_text(encoding="utf-8")
    made: Mapping[str, Any] = tomllib.loads(text).get("versions", {})
    base = base_name(run)
    if not config.model.path:
        base += f", of fcit {made.get('fcit', '')} (digest {made.get('base', 'unknown')})"
    federation = config.federation
    facts = {
        "base model": base,
        "method": config.method.name,
        "setting": f"{config.setting.name}, beta {config.setting.beta}, seed {config.seed}",
        "federation": f"{federation.clients} clients, {federation.per_round} a round, "
        f"{federation.rounds} rounds a stage, {federation.optimizer}",
        "made with": ", ".join(
            f"{name} {made[name]}" for name in ("fcit", "torch", "transformers") if name in made
        ),
        "computed": made.get("computed", "unknown"),
    }
    if (run.folder / "matrix.json").is_file():
        results = run.results
        scores = {key: results.get(key) for key in ("last", "avg", "zero_shot_mean")}
        facts["accuracy of the run"] = (
            ", ".join(
                f"{key} {value:.2f}"
                for key, value in scores.items()
                if isinstance(value, int | float)
            )
            + f" ({config.evaluation.scoring} scoring)"
        )
    rows = "".join(f"| {key} | {value} |\n" for key, value in facts.items())
    return (
        f"## What made it\n\n| | |\n|---|---|\n{rows}\n"
        "Exported by fcit. The adapters are under Apache-2.0; the base model keeps its own licence.\n"
    )
