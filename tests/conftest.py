"""What many tests share: the mini model loaded once, a small mini suite, a short configuration."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

import pytest

os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")


@pytest.fixture(scope="session", autouse=True)
def _cache(tmp_path_factory: pytest.TempPathFactory):
    """Everything fcit makes again goes into a folder of the test run, also in subprocesses."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("FCIT_CACHE", str(tmp_path_factory.mktemp("cache")))
        yield


@pytest.fixture(scope="session")
def _warm_processes(_cache: None) -> Iterator[None]:
    yield
    import warm

    warm.end()


@pytest.fixture(scope="module")
def warm_workers(_warm_processes: None) -> Iterator[None]:
    """Engines take over the worker processes of earlier ones: for tests of results, not of processes."""
    from fcit.engines import local
    from warm import WarmWorker

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(local, "WorkerProcess", WarmWorker)
        yield


@pytest.fixture(scope="session")
def suite(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A small mini suite: 40 training and 12 test samples of each dataset."""
    from fcit import suite as mini

    root = tmp_path_factory.mktemp("suite") / "mini"
    mini.write(root, seed=0, train=40, test=12)
    return root


@pytest.fixture(scope="session")
def lmm():
    """The mini model, loaded once; tests put in place what they need."""
    import torch

    from fcit.models import CHECKPOINTS
    from fcit.models.lmm import LMM

    torch.set_num_threads(1)
    return LMM(CHECKPOINTS / "mini-lmm")


@pytest.fixture(scope="session")
def table(suite: Path) -> dict:
    """A configuration that runs in seconds: two stages of two rounds, two of four clients."""
    return {
        "seed": 3,
        "data": {"root": str(suite)},
        "setting": {"name": "task-hom", "order": ["IconQA", "FigureQA"]},
        "federation": {"clients": 4, "per_round": 2, "rounds": 2, "workers": 1, "min_samples": 4},
        "training": {"lr": 3e-3, "projector_lr": 1e-4, "batch_size": 8},
        "method": {"name": "disco"},
        "evaluation": {"max_new_tokens": 6, "general_questions": 4},
    }
