"""The kinds of `faults.py` that come over a wire: requests to `fcit serve`, and clients' replies."""

from __future__ import annotations

import base64
import io
import json
import warnings
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from faults import TRACEBACK, Case, draw
from garble import ODD, odd_json
from PIL import Image

from fcit.methods import find
from fcit.methods.base import Method
from fcit.optimizers import find as find_optimizer
from fcit.rounds.federation import Federation
from fcit.rounds.server import FederatedRun, take_round
from fcit.seeds import torch_stream
from fcit.types import (
    Fault,
    FcitError,
    Identity,
    Job,
    Setting,
    Stage,
    State,
    Task,
    Turn,
    Update,
    Weights,
)
from fcit.weights import flatten


def requests(folder: Path, count: int, seed: int) -> Iterator[Case]:
    """Requests to an endpoint whose model repeats the question, in this process."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # starlette's, of a name in anyio
        from starlette.testclient import TestClient

    from fcit.models.chat import Completion
    from fcit.rounds.evaluate import Route
    from fcit.use.serve.app import Served, build
    from fcit.use.serve.requests import Limits

    def answer(questions: Sequence[Any], wanted: Callable[[], bool]) -> list[Any]:
        return [(Completion(one.prompt, 7, 3, True), Route({"0": 1.0})) for one in questions]

    out = io.BytesIO()
    Image.new("RGB", (8, 8), "teal").save(out, "PNG")
    picture = "data:image/png;base64," + base64.b64encode(out.getvalue()).decode()
    parts = [
        {"type": "image_url", "image_url": {"url": picture}},
        {"type": "text", "text": "What is this?"},
    ]
    body = {
        "model": "parrot", "messages": [{"role": "user", "content": parts}], "max_tokens": 4,
        "temperature": 0, "stream": False, "n": 1,
    }  # fmt: skip
    app = build(answer, Served("parrot", {"0": ["IconQA"]}, {}, 5), Limits(body=50_000, prompt=300))
    with TestClient(app, base_url="http://127.0.0.1", raise_server_exceptions=False) as client:
        for number in range(count):
            generator = draw(seed, "requests", number)
            what, method, path, raw, headers = _request(body, generator)
            try:
                reply = client.request(method, path, content=raw, headers=headers)
            except Exception as error:  # of the client: such a request cannot be sent at all
                yield Case("not sent", what, "not sent", repr(error))
                continue
            if reply.status_code >= 500:
                yield Case(f"{method} {path}", what, TRACEBACK, reply.text[:200])
            elif reply.status_code < 400:
                yield Case(f"{method} {path}", what, "answered")
            else:
                told = reply.text
                try:
                    said = method == "HEAD" or isinstance(json.loads(told)["error"]["message"], str)
                except (ValueError, KeyError, TypeError):
                    said = False
                outcome = "refused in OpenAI's form" if said else "refused in another form"
                yield Case(f"{method} {path}", what, outcome, told[:200])


def _request(
    body: dict[str, Any], generator: np.random.Generator
) -> tuple[str, str, str, bytes, dict[str, str]]:
    method, path, headers = "POST", "/v1/chat/completions", {"content-type": "application/json"}
    what = ("value", "value", "value", "bits", "end", "headers", "path")[generator.integers(7)]
    if what == "value":
        what, body = odd_json(body, generator)
    raw = json.dumps(body).encode()
    if what == "bits":
        changed = bytearray(raw)
        for _ in range(3):
            changed[generator.integers(len(raw))] = generator.integers(256)
        raw = bytes(changed)
    elif what == "end":
        raw = raw[: generator.integers(len(raw))]
    elif what == "headers":
        name = ("content-type", "host", "authorization", "origin", "content-encoding")
        value = ("", "text/plain", "evil.example", "Bearer \x7f", "gzip", "a" * 9000)
        what = name[generator.integers(5)]
        headers[what] = value[generator.integers(6)]
    elif what == "path":
        paths = ("/", "/v1/models", "/v1/models/../x", "/health", "/%00", "/v1/chat/completions/")
        method = ("GET", "POST", "PUT", "DELETE", "HEAD", "PATCH")[generator.integers(6)]
        path = paths[generator.integers(6)]
    return what, method, path, raw, headers


TASK = Task("red", ("red",))
TURNS = [Turn(client, TASK, 0, 0, True) for client in (1, 4, 6, 7)]
ODD_CLIENT = 4
LAYER = "base_model.model.layers.0.mlp.up_proj"
BLANK = {f"{LAYER}.lora_A.weight": torch.ones(2, 6), f"{LAYER}.lora_B.weight": torch.zeros(5, 2)}
METHODS = (
    "finetune", "disco", "hide", "ewc", "moelora", "olora", "l2p", "lwf", "replay", "ffa_lora",
    "fedsa_lora", "fedex_lora", "fedprotip", "disco_lda",
)  # fmt: skip
RANKS = ("finetune", "disco", "lwf", "replay", "ffa_lora")
"""Methods tried with clients of two ranks as well."""

TENSORS: dict[str, Callable[[torch.Tensor], Any]] = {
    "NaN": lambda x: x * float("nan"),
    "one infinity": lambda x: x.index_put((torch.tensor(0),), torch.tensor(float("inf"))),
    "1e9 times": lambda x: x * 1e9,
    "1e30 times": lambda x: x * 1e30,
    "3e38": lambda x: torch.full_like(x, 3e38),
    "denormal": lambda x: x * 1e-42,
    "zeros": torch.zeros_like,
    "a row less": lambda x: x[:-1],
    "a dimension more": lambda x: x[None],
    "flat": lambda x: x.reshape(-1),
    "no number": lambda x: x.flatten()[:0],
    "float64": lambda x: x.double(),
    "float16": lambda x: x.half(),
    "float8": lambda x: x.to(torch.float8_e4m3fn),
    "int64": lambda x: x.long(),
    "bool": lambda x: x.bool(),
    "complex": lambda x: x.to(torch.complex64),
    "sparse": lambda x: x.to_sparse(),
    "on no device": lambda x: x.to("meta"),
    "negative": lambda x: -x,
    "a list": lambda x: x.tolist(),
    "nothing": lambda x: None,
    "text": lambda x: "x",
}


@dataclass
class Crowd:
    """Clients that send what is expected, moved a little; one of them is odd."""

    method: Method
    odd: Callable[[Update], Any] = lambda one: one
    odd_token: Callable[[Identity], Any] = lambda one: one

    def identify(self, turns: Sequence[Turn]) -> Iterator[Identity | Fault]:
        for turn in turns:
            token = self.method.make_token(torch.tensor([[1.0, 0.1, 1.0, 0.1]]))
            one = Identity(turn.client, turn.task.name, token, 3)
            yield self.odd_token(one) if turn.client == ODD_CLIENT else one

    def run(self, jobs: Sequence[Job]) -> Iterator[Update | Fault]:
        for job in jobs:
            noise = torch_stream(0, "honest", job.turn.client)
            expected = self.method.expects(job.received)
            adapters, extras = _moved(expected.adapters, noise), _moved(expected.extras, noise)
            one = Update(job.turn.client, 10, adapters, extras, {"loss": 1.0})
            yield self.odd(one) if job.turn.client == ODD_CLIENT else one


def _moved(parts: Mapping[str, Weights], noise: torch.Generator) -> dict[str, Weights]:
    moved: dict[str, Weights] = {}
    for name, part in parts.items():
        drawn = {
            key: 0.1 * torch.randn(value.shape, generator=noise) for key, value in part.items()
        }
        # Fisher information is a mean of squares.
        moved[name] = {
            key: part[key] + (step.abs() if name.startswith("fisher") else step)
            for key, step in drawn.items()
        }
    return moved


def replies(folder: Path, count: int, seed: int) -> Iterator[Case]:
    """Odd identity tokens and updates of one client among four, for several methods. An oddity that
    cannot be made of a reply is no case."""
    honest: dict[str, State] = {}
    for number in range(count):
        generator = draw(seed, "replies", number)
        name = METHODS[generator.integers(len(METHODS))]
        optimizer = ("fedavg", "fedadam", "scaffold")[generator.integers(3)] if number % 3 else ""
        ranks = (1, 2) if name in RANKS and optimizer != "scaffold" and number % 2 else ()
        token = name in ("disco", "disco_lda", "hide") and generator.random() < 0.4
        told: list[str] = []

        def spoil(one: Any, generator=generator, told=told) -> Any:
            try:
                what, one = _odd_reply(one, generator)
            except (RuntimeError, ValueError, KeyError, IndexError):
                what = ""
            told.append(what)
            return one

        method = find(name)(rank=2)  # type: ignore[call-arg]
        key = f"{name} {optimizer}{' of two ranks' * bool(ranks)}"
        if key not in honest:
            honest[key] = _round(method, optimizer, Crowd(method), ranks)[0]
        crowd = Crowd(method, **{"odd_token" if token else "odd": spoil})
        where = f"{key}: {'token' if token else 'update'}"
        try:
            state, faults = _round(method, optimizer, crowd, ranks)
        except FcitError as error:
            yield Case(where, told[-1], "the round is refused", str(error))
            continue
        except Exception as error:
            yield Case(where, told[-1], TRACEBACK, repr(error))
            continue
        if not told[-1]:
            continue
        finite, size = _size(state)
        if not finite:
            yield Case(where, told[-1], "STATE NOT FINITE")
        elif faults:
            kinds = {fault.kind for fault in faults}
            yield Case(where, told[-1], "fault named", ", ".join(sorted(kinds)))
        elif size > 100 * _size(honest[key])[1]:
            yield Case(where, told[-1], "STATE MOVED FAR", f"{size:.3g}")
        else:
            yield Case(where, told[-1], "accepted, harmless")


def _round(
    method: Method, optimizer: str, crowd: Crowd, ranks: tuple[int, ...]
) -> tuple[State, list[Fault]]:
    """A stage of one round."""
    state = method.begin(method.start(BLANK, {"w": torch.zeros(7)}, 0), Stage((TASK,)))
    setting = Setting("one round", (Stage((TASK,)),), 8, 4, 1)
    optimizing = find_optimizer(optimizer or "fedavg")()
    federation = Federation(clients=8, per_round=4, min_clients=2, ranks=ranks)
    width = method.token_width(4)
    run = FederatedRun(setting, [[TURNS]], method, optimizing, federation, token_width=width)
    state, done = take_round(run, state, TURNS, crowd)
    return method.end(state, Stage((TASK,))), list(done.faults)


def _size(state: State) -> tuple[bool, float]:
    values = [value.double() for value in flatten(state).values() if value.numel()]
    finite = all(bool(value.isfinite().all()) for value in values)
    return finite, max(float(value.abs().max()) for value in values)


def _odd_reply(one: Any, generator: np.random.Generator) -> tuple[str, Any]:
    """A token or an update with one thing odd, and what that is ("": it stays as it is)."""
    values = {**ODD, "2^31-1": 2**31 - 1, "2^31": 2**31, "1.5": 1.5}
    word = sorted(values)[generator.integers(len(values))]
    if generator.random() < 0.25:
        fields = ["samples", "client"]
        fields += ["task"] if isinstance(one, Identity) else ["metrics", "memory", "optimizer"]
        field = fields[generator.integers(len(fields))]
        new = values[word]
        if field == "client" and type(new) is not int:
            field = "samples"  # a client that is no number does not pass `wire`
        if field in ("metrics", "memory", "optimizer") and generator.random() < 0.5:
            new = {"loss": new} if field == "metrics" else {"a": new}
        return f"{field} is {word}", replace(one, **{field: new})
    change = sorted(TENSORS)[generator.integers(len(TENSORS))]
    if isinstance(one, Identity):
        more = {"samples": 2**31 - 1} if generator.random() < 0.3 else {}
        return f"token: {change}{' of 2^31-1' * bool(more)}", replace(
            one, token=TENSORS[change](one.token), **more
        )
    kind = "adapters" if one.adapters and generator.random() < 0.6 else "extras"
    parts = {name: dict(part) for name, part in getattr(one, kind).items()}
    if not parts:
        return "", one
    name = sorted(parts)[generator.integers(len(parts))]
    key = sorted(parts[name])[generator.integers(len(parts[name]))]
    match generator.integers(8):
        case 0:
            change, _ = "left out", parts[name].pop(key)
        case 1:
            change, parts[name]["more"] = "one more", torch.ones(2)
        case 2:
            change, parts["more"] = "a group more", {"a": torch.ones(2)}
        case 3:
            change, _ = "a group left out", parts.pop(name)
        case _:
            parts[name][key] = TENSORS[change](parts[name][key])
    return f"{kind}.{name}.{key}: {change}", replace(one, **{kind: parts})
