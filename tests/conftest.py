"""What many tests share: the mini model loaded once, a small mini suite, a short configuration."""

from __future__ import annotations

import os
import signal
import threading
from pathlib import Path

import pytest

import warm
import zygote

os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")
os.environ["no_proxy"] = os.environ["NO_PROXY"] = "127.0.0.1,localhost,::1"  # tests' own servers
os.environ.setdefault("OMP_NUM_THREADS", "1")  # a second thread waits for work by computing nothing
if threading.current_thread() is threading.main_thread():
    # A shell without job control starts background commands with Ctrl-C ignored, and so are their
    # children: tests of Ctrl-C pass there as well.
    signal.signal(signal.SIGINT, signal.default_int_handler)


def pytest_configure(config: pytest.Config) -> None:
    zygote.install()
    if config.getoption("numprocesses", None) and zygote.possible():
        zygote.start()  # one for all of this run's processes


def pytest_unconfigure() -> None:
    zygote.end()


def pytest_runtest_setup() -> None:
    warm.install()


@pytest.fixture(scope="session", autouse=True)
def _cache(tmp_path_factory: pytest.TempPathFactory):
    """Everything fcit makes again goes into a folder of the test run, also in subprocesses."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("FCIT_CACHE", str(tmp_path_factory.mktemp("cache")))
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
        "data": {"root": str(suite), "train": 20},
        "setting": {"name": "task-hom", "order": ["IconQA", "FigureQA"]},
        "federation": {"clients": 4, "per_round": 2, "rounds": 2, "workers": 1, "min_samples": 4},
        "training": {"lr": 3e-3, "projector_lr": 1e-4, "batch_size": 8},
        "method": {"name": "disco"},
        "evaluation": {"limit": 6, "max_new_tokens": 4, "general_questions": 2},
    }
