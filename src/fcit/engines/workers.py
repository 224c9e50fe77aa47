"""Workers answer requests on a model: one in a process of its own, or one in this process."""

import contextlib
import os
import subprocess
import sys
import threading
from pathlib import Path

from fcit.engines import wire
from fcit.recipe.config import Config, to_table
from fcit.types import FcitError, Weights


class WorkerDiedError(Exception):
    """A worker process ended in the middle of a request; `kind` is that of a Fault."""

    def __init__(self, kind: str, detail: str):
        super().__init__(detail)
        self.kind = kind


class WorkerProcess:
    """A process that answers requests on its pipes. gpu: the one that it sees ("": all)."""

    def __init__(self, config: Config, gpu: str = ""):
        threads = str(config.training.threads)
        variables = {
            "OMP_NUM_THREADS": threads,
            "MKL_NUM_THREADS": threads,
            "TOKENIZERS_PARALLELISM": "false",
            "HF_HUB_DISABLE_PROGRESS_BARS": "1",
            "TRANSFORMERS_VERBOSITY": "error",
            "FCIT_SERVER": str(os.getpid()),
        }
        if gpu:
            variables["CUDA_VISIBLE_DEVICES"] = gpu
        self.process = subprocess.Popen(
            [sys.executable, "-P", "-m", "fcit.engines.process"],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            env=os.environ | variables | search_path(),
            process_group=0,  # Ctrl-C reaches the server alone, which ends its workers
        )
        try:
            self.ask({"do": "config", "config": to_table(config)})
        except BaseException:  # such as a file of a method that changed meanwhile
            self.close()
            raise

    def ask(
        self, header: wire.Header, weights: Weights | None = None, deadline: float = 0.0
    ) -> wire.Frame:
        """Send a request and wait for its reply, at most `deadline` seconds (0: no limit)."""
        assert self.process.stdin and self.process.stdout
        late = threading.Event()

        def kill() -> None:
            late.set()
            self.process.kill()

        timer = threading.Timer(deadline, kill)
        if deadline:
            timer.start()
        try:
            wire.write_frame(self.process.stdin, header, weights)
            reply = wire.read_frame(self.process.stdout)
        except BrokenPipeError:
            reply = None
        except (ValueError, FcitError) as error:
            self.process.kill()
            raise WorkerDiedError(
                "garbled", f"the reply of its worker process cannot be read: {error}"
            ) from None
        finally:
            timer.cancel()
        if late.is_set():  # also where a reply came in the last moment: the process is killed
            raise WorkerDiedError(
                "timeout", f"no reply within federation.deadline ({deadline:g} s)"
            )
        if reply is None:
            status = self.process.wait()
            raise WorkerDiedError(
                "crash", f"its worker process exited with status {status} (out of memory?)"
            )
        if "error" in reply[0]:
            raise FcitError(reply[0]["error"])
        if "crash" in reply[0]:
            raise RuntimeError(f"in a worker process:\n{reply[0]['crash']}")
        return reply

    def close(self) -> None:
        """End the process, wait for it and close its pipes."""
        with contextlib.suppress(BrokenPipeError), self.process:
            self.process.kill()


class InProcessWorker:
    """Answers the same requests in this process (`workers = 1`)."""

    def __init__(self, config: Config):
        from fcit.worker.model import ModelWorker

        self.model_worker: ModelWorker = ModelWorker(config)

    def ask(
        self, header: wire.Header, weights: Weights | None = None, deadline: float = 0.0
    ) -> wire.Frame:
        """Answer a request; no deadline applies, as nothing could interrupt it."""
        from fcit.engines.process import handle

        return handle(self.model_worker, header, weights or {})

    def close(self) -> None:
        """There is no process to end."""


Worker = WorkerProcess | InProcessWorker


def cores() -> int:
    """The number of CPU cores that this process may use."""
    known = hasattr(os, "sched_getaffinity")
    return len(os.sched_getaffinity(0)) if known else os.cpu_count() or 1


def gpus() -> list[str]:
    """The GPUs that this process may use, as CUDA_VISIBLE_DEVICES names them."""
    import torch

    if not torch.cuda.is_available():
        return []
    named = os.environ.get("CUDA_VISIBLE_DEVICES", "").split(",")
    if any(named) and len(named) < torch.cuda.device_count():
        raise FcitError(
            "CUDA_VISIBLE_DEVICES was changed after torch began to use the GPUs; start Python anew"
        )
    return [named[at] if any(named) else str(at) for at in range(torch.cuda.device_count())]


def search_path() -> dict[str, str]:
    """The variable with which a new process imports this fcit where it is a source tree, which a notebook
    may have put on `sys.path` itself."""
    source = Path(__file__).parents[2]
    if not (source.parent / "pyproject.toml").is_file():
        return {}
    others = os.environ.get("PYTHONPATH")
    return {"PYTHONPATH": os.pathsep.join([str(source), *([others] if others else [])])}


def gpus_to_share(config: Config) -> list[str]:
    """The GPUs of which each worker gets one; none where the recipe names a GPU or a `device_map`."""
    model = config.model
    return gpus() if model.device in ("auto", "cuda") and not model.device_map else []
