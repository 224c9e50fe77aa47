"""A worker process: a `ModelWorker` behind standard input and output (`python -m fcit.engines.process`).

It ends when its input ends, also in the middle of a turn, so that no worker outlives its server.
"""

from __future__ import annotations

import os
import queue
import sys
import threading
import traceback
from dataclasses import asdict
from pathlib import Path
from typing import IO

from fcit.engines import wire
from fcit.engines.node import Place, respond
from fcit.recipe.config import validate
from fcit.rounds.client import Data
from fcit.types import FcitError, Weights
from fcit.weights import flatten, unflatten
from fcit.worker.model import ModelWorker


def serve(source: IO[bytes], sink: IO[bytes]) -> None:
    """Answer requests until the input ends."""
    inbox: queue.Queue[wire.Frame] = queue.Queue()

    def listen() -> None:
        while (frame := wire.read_frame(source)) is not None:
            inbox.put(frame)
        os._exit(0)

    threading.Thread(target=listen, daemon=True).start()
    site: ModelWorker | None = None
    while True:
        header, weights = inbox.get()
        try:
            if header["do"] == "config":
                site = ModelWorker(validate(header["config"]))
                reply: wire.Frame = {}, {}
            else:
                assert site is not None
                reply = handle(site, header, weights)
        except FcitError as error:
            reply = {"error": str(error)}, {}
        except Exception:  # a defect of ours: its traceback goes to the server, which raises it
            reply = {"crash": traceback.format_exc()}, {}
        wire.write_frame(sink, *reply)


def handle(site: ModelWorker, header: wire.Header, weights: Weights) -> wire.Frame:
    """One request to a site, in and out of the wire's form."""
    match header["do"]:
        case "start":
            return {}, flatten(site.start())
        case "identify":
            return wire.pack_identity(site.identify(wire.unpack_turn(header["turn"])))
        case "train":
            return wire.pack_update(*site.train(*wire.unpack_job(header, weights)))
        case "place":
            site.place(unflatten(weights))
            return {}, {}
        case "answer":
            data: Data = site.experiment.test(header["dataset"], header["indices"])
            return {"answers": [asdict(answer) for answer in site.answer(data)]}, {}
        case "client":  # of a simulation: the whole of what a node of a deployment does
            where = header["place"]
            place = Place(int(where["client"]), Path(where["memory"]))
            reply, tensors = respond(header["ask"], weights, place, site)
            return {"answer": reply}, tensors
        case "score":
            return wire.pack_score(site.score(header["client"], header["dataset"]))
        case unknown:
            raise ValueError(f"unknown request {unknown}")


if __name__ == "__main__":
    replies = os.fdopen(os.dup(1), "wb")
    os.dup2(2, 1)  # what a library prints must not mix with the replies
    serve(sys.stdin.buffer, replies)
