"""Too little memory is one line that names the keys that need less, wherever a model works."""

from __future__ import annotations

import asyncio
from pathlib import Path

import pytest
import torch

import handmade
from fcit.models.device import TooLittleMemoryError
from fcit.models.folders import faults
from fcit.models.identity import Encoder
from fcit.models.llava_original import read_tensors
from fcit.models.lmm import LMM
from fcit.types import FcitError, State, Turn
from fcit.worker import model as worker_model
from fcit.worker.model import ModelWorker


def exhausted(*_: object, **__: object) -> None:
    raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 9 GiB.\nmore")


@pytest.fixture
def worker(table: dict, tmp_path: Path) -> ModelWorker:
    return handmade.run(tmp_path / "run", table).worker


def test_an_identity_token(worker: ModelWorker, monkeypatch: pytest.MonkeyPatch) -> None:
    turn: Turn = worker.experiment.plan[0][0][0]
    monkeypatch.setattr(Encoder, "embed", exhausted)
    said = f"the identity encoder of client {turn.client} found too little memory; name a smaller"
    with pytest.raises(FcitError, match=said):
        worker.identify(turn)


def test_the_encoder_itself(table: dict, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    config = handmade.run(tmp_path / "run", table).config
    monkeypatch.setattr(Encoder, "__init__", exhausted)
    with pytest.raises(FcitError, match="loading the identity encoder found too little memory"):
        ModelWorker(config).encoder  # noqa: B018


@pytest.mark.parametrize(
    ("place", "said"),
    [
        (
            "fcit.models.identity.Features",
            "loading the identity encoder found too little memory; name",
        ),
        (
            "fcit.models.loading.pretrained",
            "loading the model found too little memory; set model.dtype",
        ),
    ],
)
def test_their_weights(
    place: str, said: str, table: dict, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Loading names the file at fault; memory is none's."""
    config = handmade.run(tmp_path / "run", table).config

    def fail(*_: object, **__: object) -> None:
        with faults(tmp_path):
            exhausted()

    monkeypatch.setattr(place, fail)
    worker = ModelWorker(config)
    with pytest.raises(FcitError, match=said) as error:
        worker.encoder if "identity" in place else worker.model  # noqa: B018
    assert "(torch:" not in str(error.value) and str(tmp_path) in str(error.value)


def test_a_checkpoint_that_memory_does_not_hold_is_not_called_broken(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    for error in ("[enforce fail] DefaultCPUAllocator: can't allocate memory", "broken"):

        def fail(*_: object, error: str = error, **__: object) -> None:
            raise RuntimeError(error)

        monkeypatch.setattr(torch, "load", fail)
        with pytest.raises(FcitError, match=r"pytorch_model\.bin: ") as told, faults("llava"):
            read_tensors(Path("pytorch_model.bin"))
        assert isinstance(told.value, TooLittleMemoryError) == (error != "broken")
        assert ("not a checkpoint" in str(told.value)) == (error == "broken")


@pytest.mark.parametrize("place", [(LMM, "complete"), (LMM, "features"), (Encoder, "embed")])
def test_answers_of_a_run_and_of_the_endpoint(
    place: tuple[type, str], table: dict, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    pytest.importorskip("starlette")
    from fcit.use.serve.answerer import Answerer, Question

    run = handmade.run(tmp_path / "run", table)
    answerer, question = Answerer(run), Question("How many?", picture(tmp_path), 2)
    monkeypatch.setattr(*place, exhausted)
    with pytest.raises(
        FcitError, match="answering found .*; start fcit serve with a lower --batch"
    ):
        answerer([question])
    with pytest.raises(FcitError, match="answering found .*; lower evaluation.batch_size"):
        run.worker.answer(run.worker.experiment.test("IconQA", [0]))


def test_of_the_endpoint_it_is_no_fault_of_the_request(capsys: pytest.CaptureFixture[str]) -> None:
    pytest.importorskip("starlette")
    from starlette.requests import Request

    from fcit.use.serve import app

    error = TooLittleMemoryError("answering found too little memory; lower --batch")
    response = asyncio.run(app._error(Request({"type": "http"}), error))
    assert response.status_code == 503
    assert b"the server has too little memory" in response.body and b"--batch" not in response.body
    assert capsys.readouterr().err == f"fcit: {error}\n"


def test_training_and_loading(
    worker: ModelWorker, monkeypatch: pytest.MonkeyPatch, table: dict
) -> None:
    from fcit.types import Job

    turn: Turn = worker.experiment.plan[0][0][0]
    monkeypatch.setattr(worker_model, "take_turn", exhausted)
    with pytest.raises(
        FcitError, match="training found too little memory; set training.micro_batch"
    ):
        worker.train(Job(turn, State()), {})
    monkeypatch.setattr(LMM, "__init__", exhausted)
    with pytest.raises(FcitError, match="loading the model found too little memory"):
        ModelWorker(worker.config).model  # noqa: B018


def picture(folder: Path) -> bytes:
    return handmade.picture(folder / "photo.png").read_bytes()
