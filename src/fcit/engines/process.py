"""A worker process: a `ModelWorker` behind standard input and output (`python -m fcit.engines.process`).

It exits when its input ends, also in the middle of a turn, so that no worker outlives its server.
"""

import os
import queue
import sys
import threading
import traceback
from dataclasses import asdict
from pathlib import Path
from typing import IO

from fcit.benchmark.schedule import learners
from fcit.engines import wire
from fcit.engines.node import LocalClient, respond
from fcit.recipe.config import validate
from fcit.types import FcitError, Turn, Weights
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
    worker: ModelWorker | None = None
    while True:
        header, weights = inbox.get()
        try:
            if header["do"] == "config":
                worker = ModelWorker(validate(header["config"]))
                reply: wire.Frame = {}, {}
            else:
                assert worker is not None
                reply = handle(worker, header, weights)
        except FcitError as error:
            reply = {"error": str(error)}, {}
        except Exception:  # a bug: its traceback goes to the server, which raises it
            reply = {"crash": traceback.format_exc()}, {}
        wire.write_frame(sink, *reply)


def handle(worker: ModelWorker, header: wire.Header, weights: Weights) -> wire.Frame:
    """Answer one request of the server."""
    match header["do"]:
        case "start":
            return {}, flatten(worker.start())
        case "token width":
            return {"width": worker.token_width()}, {}
        case "check lengths":  # of the samples of all who will train on a task
            cut = count = 0
            for client, task in learners(worker.experiment.plan, header["task"]):
                data = worker.experiment.data(Turn(client, task, 0, 0), replay=False)
                cut += worker.check_lengths(data.samples)
                count += len(data.samples)
            return {"cut": cut, "count": count}, {}
        case "identify":
            return wire.pack_identity(worker.identify(wire.unpack_turn(header["turn"])))
        case "train":
            return wire.pack_update(*worker.train(*wire.unpack_job(header, weights)))
        case "place":
            worker.place(unflatten(weights))
            return {}, {}
        case "answer":
            data = worker.experiment.test(header["dataset"], header["indices"])
            return {"answers": [asdict(answer) for answer in worker.answer(data)]}, {}
        case "client":  # all that a node of a deployment does, for a client of a simulation
            client = LocalClient(header["client"], Path(header["memory"]))
            reply, tensors = respond(header["ask"], weights, client, worker)
            return {"answer": reply}, tensors
        case "score":
            return asdict(worker.score(header["client"], header["dataset"])), {}
        case unknown:
            raise ValueError(f"unknown request {unknown}")


if __name__ == "__main__":
    replies = os.fdopen(os.dup(1), "wb")
    os.dup2(2, 1)  # libraries print to standard error, apart from the replies
    serve(sys.stdin.buffer, replies)
