"""The commands that put a finished run to use: export, chat, serve."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from fcit.cli.options import Folder
from fcit.types import FcitError


def export(
    folder: Folder,
    out: Annotated[Path, typer.Option(help="The folder to write; new or empty.")],
    subspace: Annotated[
        str | None,
        typer.Option(
            metavar="NAME", help="One adapter, as a PEFT folder: 0, 1, ... (or a dataset)."
        ),
    ] = None,
    everything: Annotated[
        bool,
        typer.Option("--all", help="All adapters, identity tokens, and router.py to choose by."),
    ] = False,
    merged: Annotated[
        str | None,
        typer.Option(
            metavar="DATASET|PROMPT",
            help="The whole model, its adapters merged as they are opened for this task.",
        ),
    ] = None,
    dtype: Annotated[
        str, typer.Option(help="Of merged weights: float32, bfloat16 or float16.")
    ] = "float32",
) -> None:
    """Write a run's model for use without fcit: by PEFT, or by transformers alone.

    Every folder has a README.md with the code that loads it. Weights merged for a DATASET open what
    its test instructions opened on average; any other text is routed as an instruction.

    Example:  fcit export runs/first --merged "How many icons are there?" --out my-model
    """
    asked = [subspace is not None, everything, merged is not None]
    if sum(asked) != 1:
        raise FcitError(
            "say what to export: one of --subspace NAME, --all, --merged DATASET|PROMPT"
        )
    from fcit.runs import api
    from fcit.use import export as exports

    run = api.load(folder)
    if subspace is not None:
        exports.subspace(run, subspace, out)
    elif merged is not None:
        exports.merged(run, merged, out, dtype)  # type: ignore[arg-type]
    else:
        exports.everything(run, out)
    typer.echo(str(out))


def chat(
    folder: Folder,
    image: Annotated[
        Path | None, typer.Option(help="The image to ask about; /image PATH changes it.")
    ] = None,
) -> None:
    """Ask a run's model about an image in the terminal, and see which subspaces answered.

    The model takes one instruction at a time: it does not remember earlier ones. Questions can also
    come through a pipe, one a line.

    Example:  fcit chat runs/first --image photo.png
    """
    from fcit.cli.talk import talk
    from fcit.runs import api

    talk(api.load(folder), image)


def serve(
    folder: Folder,
    host: Annotated[str, typer.Option(help="Where to listen.")] = "127.0.0.1",
    port: Annotated[int, typer.Option(help="0: any free one.", min=0, max=65535)] = 8000,
    key_file: Annotated[
        Path | None,
        typer.Option(help="A file with the key clients must show (or $FCIT_SERVE_KEY)."),
    ] = None,
    name: Annotated[
        list[str] | None,
        typer.Option(metavar="HOST", help="What a proxy in front goes by; may be repeated."),
    ] = None,
    batch: Annotated[int, typer.Option(help="Questions answered at once.")] = 16,
    window: Annotated[float, typer.Option(help="Milliseconds a batch waits for more.")] = 5.0,
    waiting: Annotated[int, typer.Option(help="Requests inside at a time; then 429.")] = 64,
    body: Annotated[int, typer.Option(help="Bytes of a request at most.")] = 8 << 20,
    pixels: Annotated[
        int, typer.Option(help="Of an image padded to a square, at most.")
    ] = 36_000_000,
    prompt: Annotated[int, typer.Option(help="Characters of a prompt at most.")] = 4000,
    tokens: Annotated[int, typer.Option(help="Of an answer at most.")] = 512,
    timeout: Annotated[float, typer.Option(help="Seconds until an answer is given up.")] = 120.0,
) -> None:
    """Serve a run's model: an OpenAI-compatible endpoint, and a page that shows which subspaces
    answered.

    POST /v1/chat/completions takes one user message with text and one image (a data: URL). Requests
    that wait are answered in one batch, each routed by itself. Needs the extra fcit[serve].

    Example:  fcit serve runs/first --port 8000
    """
    from fcit.runs import api
    from fcit.use import serve as server

    limits = server.Limits(batch, window, waiting, body, pixels, prompt, tokens, timeout)
    run, key = api.load(folder), server.read_key(key_file)
    try:
        server.serve(
            run, host, port, key, limits, lambda text: typer.echo(text, err=True), name or ()
        )
    except KeyboardInterrupt:
        typer.echo("stopped", err=True)
