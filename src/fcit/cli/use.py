"""The commands that use a finished run: export, chat, serve."""

from __future__ import annotations

from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Annotated, Literal

from typer import Option

from fcit.cli.options import Device, Folder
from fcit.cli.screen import show
from fcit.files import check_new_folder
from fcit.types import FcitError


def export(
    folder: Folder,
    out: Annotated[
        Path | None, Option(help="The folder to write; new or empty. Optional with --push.")
    ] = None,
    subspace: Annotated[
        str | None,
        Option(
            metavar="NAME", help="One adapter as a PEFT folder: 0, 1, ... (or a dataset's name)."
        ),
    ] = None,
    everything: Annotated[
        bool, Option("--all", help="All adapters, the identity tokens, and a router.py.")
    ] = False,
    merged: Annotated[
        str | None,
        Option(
            metavar="DATASET|PROMPT",
            help="The whole model with its adapters merged, weighted for this dataset or prompt.",
        ),
    ] = None,
    vllm: Annotated[
        bool, Option("--vllm", help="The base model and plain LoRA folders, as vLLM serves them.")
    ] = False,
    predictions: Annotated[
        Literal["mcitlib", "lmms-eval"] | None,
        Option(help="The run's answers, as MCITlib's scripts or lmms-eval's from_log read them."),
    ] = None,
    dtype: Annotated[
        Literal["float32", "bfloat16", "float16"] | None,
        Option(help="Number format of merged weights and of vLLM's base model (float32)."),
    ] = None,
    push: Annotated[
        str | None,
        Option(metavar="OWNER/NAME", help="Upload it to this model repository of the hub."),
    ] = None,
    device: Device = "",
) -> None:
    """Export a run's model for use without fcit, with PEFT or with transformers alone.

    Each folder's README.md has the code that loads it. With a DATASET, --merged weighs the adapters by
    their mean activation factors on its test questions; any other text is routed like a question.

    Example:  fcit export runs/first --merged "How many icons are there?" --out my-model

    Example:  fcit export runs/first --subspace 0 --push OWNER/NAME

    --push makes a private repository, on the Hugging Face hub or $HF_ENDPOINT, if there is none. Log in
    before, with hf auth login.
    """
    asked = [subspace is not None, everything, merged is not None, vllm, bool(predictions)]
    if sum(asked) != 1:
        raise FcitError(
            "say what to export: one of --subspace NAME, --all, --merged DATASET|PROMPT, --vllm, "
            "--predictions FORM"
        )
    if push is not None and not push.strip():
        raise FcitError("--push: is empty; write OWNER/NAME")
    if merged is not None and not merged.strip():
        raise FcitError("--merged: is empty; write a dataset or a prompt")
    if push and predictions:
        raise FcitError("--push: takes a model; --predictions are not one")
    if not (out or push):
        raise FcitError("--out: say which folder to write")
    if dtype and not (merged is not None or vllm):
        raise FcitError("--dtype: belongs to --merged and --vllm")
    if out:
        check_new_folder(out)
    from fcit.runs import api
    from fcit.use import export as exports
    from fcit.use.export import push as pushing
    from fcit.use.export.answers import answers

    run = api.load(folder, device)
    if push:
        pushing.check(push)
    with TemporaryDirectory() as own:
        there = out or Path(own) / "export"
        if predictions:
            answers(run, predictions, there)
        elif subspace is not None:
            exports.subspace(run, subspace, there)
        elif merged is not None:
            exports.merged(run, merged, there, dtype or "float32")
        elif vllm:
            if note := exports.served(run, there, dtype or "float32"):
                show(f"note: {note}", err=True)
        else:
            exports.everything(run, there)
        if out:
            show(str(out))
        if push:
            show(f"uploaded to {pushing.push(there, push)}")


def chat(
    folder: Folder,
    image: Annotated[
        Path | None, Option(help="The image to ask about; /image PATH changes it.")
    ] = None,
    device: Device = "",
) -> None:
    """Ask a run's model about an image in the terminal, and see which subspaces answered.

    Every question stands alone: the model does not remember earlier ones. Questions can also come from
    a pipe, one per line.

    Example:  fcit chat runs/first --image photo.png
    """
    from fcit.cli.talk import talk
    from fcit.runs import api

    talk(api.load(folder, device), image)


def serve(
    folder: Folder,
    host: Annotated[str, Option(help="The address to listen on.")] = "127.0.0.1",
    port: Annotated[int, Option(help="0: any free port.", min=0, max=65535)] = 8000,
    key_file: Annotated[
        Path | None,
        Option(help="A file with the API key that clients must send (or $FCIT_SERVE_KEY)."),
    ] = None,
    name: Annotated[
        list[str] | None,
        Option(metavar="HOST", help="A host name used by a proxy in front; repeatable."),
    ] = None,
    batch: Annotated[int, Option(help="Maximum questions per batch.")] = 16,
    window: Annotated[float, Option(help="Milliseconds to wait for a fuller batch.")] = 5.0,
    waiting: Annotated[int, Option(help="Maximum concurrent requests (more get 429).")] = 64,
    body: Annotated[int, Option(help="Maximum bytes per request.")] = 8 << 20,
    pixels: Annotated[
        int, Option(help="Maximum pixels of an image padded to a square.")
    ] = 36_000_000,
    prompt: Annotated[int, Option(help="Maximum characters of a prompt.")] = 4000,
    tokens: Annotated[int, Option(help="Maximum tokens of an answer.")] = 512,
    timeout: Annotated[float, Option(help="Maximum seconds per answer.")] = 120.0,
    device: Device = "",
) -> None:
    """Serve a run's model: an OpenAI-compatible endpoint, and a page that shows which subspaces answered.

    POST /v1/chat/completions takes one user message with text and one image (a data: URL). Waiting
    requests are answered in one batch; each is routed by itself. Needs the extra fcit[serve].

    Example:  fcit serve runs/first --port 8000
    """
    from fcit.runs import api
    from fcit.use import serve as server

    limits = server.Limits(batch, window, waiting, body, pixels, prompt, tokens, timeout)
    run, key = api.load(folder, device), server.read_key(key_file)
    try:
        server.serve(run, host, port, key, limits, lambda text: show(text, err=True), name or ())
    except KeyboardInterrupt:
        show("stopped", err=True)
