"""Children forked from one process that has imported torch and transformers once.

`Popen` stands for `subprocess.Popen` in a session of tests (see conftest.py). What it is asked to start
as `python -m fcit...` is a process of its own with its own pipes, environment, folder and signals, in
which the module runs as `__main__`. It only skips the start of Python, the imports and the reading of
the mini models, nine tenths of what a short child costs. pytest-xdist's own processes are forked too.
Everything else is started as always.
"""

from __future__ import annotations

import atexit
import contextlib
import gc
import importlib.util
import inspect
import json
import os
import runpy
import selectors
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import threading
import warnings
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from execnet.gateway_io import popen_bootstrapline

import warm

ADDRESS = "FCIT_TEST_ZYGOTE"
"""The environment variable with the path of its socket: children of children find it there."""
COLD = "FCIT_TEST_COLD"
"""A child with this variable is started, not forked."""
FORK = "FCIT_TEST_FORK"
"""A child with this variable is forked also if it is `python -c PROGRAM`."""
PRELOADED = (
    "fcit.runs.session",
    "fcit.worker.model",
    "fcit.models.identity",
    "transformers.models.clip.modeling_clip",
    "transformers.models.llava.modeling_llava",
    "transformers.models.llama.modeling_llama",
    "matplotlib.pyplot",
    *(["fcit.flower.simulation"] if importlib.util.find_spec("flwr") else []),
)
SOURCE = str(Path(__file__).resolve().parents[1] / "src")
"""A folder on PYTHONPATH that makes no difference: children import fcit from there anyway."""
_POPEN = subprocess.Popen
_ASKED = inspect.signature(_POPEN._execute_child)  # type: ignore[attr-defined]


def _own(environment: Mapping[str, str]) -> dict[str, str]:
    """The variables that Python reads when it starts: with others a child is started, not forked."""
    prefixes = ("PYTHON", "LC_", "LANG", "HF_HUB_OFFLINE", "MPL")
    own = {key: value for key, value in environment.items() if key.startswith(prefixes)}
    folders = own.pop("PYTHONPATH", "").split(os.pathsep)
    return own | {"PYTHONPATH": os.pathsep.join(x for x in folders if x not in ("", SOURCE))}


OWN = _own(os.environ)
_START = threading.Lock()


class Popen(subprocess.Popen):  # type: ignore[type-arg]
    """`subprocess.Popen` that has its `python -m fcit...` forked."""

    def _execute_child(self, args: Any, executable: Any, *rest: Any) -> None:
        asked = _ASKED.bind(self, args, executable, *rest).arguments
        environment = dict(os.environ if asked["env"] is None else asked["env"])
        words = _words(args, environment)
        if not words or asked["pass_fds"] or COLD in environment or _own(environment) != OWN:
            super()._execute_child(args, executable, *rest)  # type: ignore[misc]
            return
        self._status = socket.socket(socket.AF_UNIX)
        self._status.connect(start())
        own = [asked["p2cread"], asked["c2pwrite"], asked["errwrite"]]
        group = asked["process_group"]
        request = {
            "words": words,
            "env": environment | {ADDRESS: os.environ[ADDRESS]},
            "cwd": os.fspath(asked["cwd"] or Path.cwd()),
            "group": os.getpgrp() if group in (None, -1) else group,
            "session": bool(asked["start_new_session"]),
            "interrupt": signal.getsignal(signal.SIGINT) is not signal.SIG_IGN,
        }
        files = [fd if fd != -1 else number for number, fd in enumerate(own)]
        body = json.dumps(request).encode()
        socket.send_fds(self._status, [len(body).to_bytes(4, "big")], files)
        self._status.sendall(body)
        self.pid = int.from_bytes(_exactly(self._status, 4), "big")
        self._child_created = True
        pairs = ("p2cread", "p2cwrite", "c2pread", "c2pwrite", "errread", "errwrite")
        self._close_pipe_fds(*(asked[name] for name in pairs))  # type: ignore[attr-defined]

    def _ended(self, timeout: float | None) -> int | None:
        """Its status, once it has ended; None if it has not within the time."""
        self._status.settimeout(timeout)
        try:
            said = _exactly(self._status, 4)
        except (TimeoutError, BlockingIOError):
            return None
        self._status.close()
        return int.from_bytes(said, "big", signed=True)

    def _internal_poll(self, *rest: Any, **more: Any) -> int | None:
        if not hasattr(self, "_status"):
            return super()._internal_poll(*rest, **more)  # type: ignore[misc]
        if self.returncode is None and self._waitpid_lock.acquire(False):
            try:
                if self.returncode is None:
                    self.returncode = self._ended(0)
            finally:
                self._waitpid_lock.release()
        return self.returncode

    def _wait(self, timeout: float | None) -> int:
        if not hasattr(self, "_status"):
            return super()._wait(timeout=timeout)  # type: ignore[misc]
        with self._waitpid_lock:
            if self.returncode is None:
                self.returncode = self._ended(timeout)
        if self.returncode is None:
            raise subprocess.TimeoutExpired(self.args, timeout or 0.0)
        return self.returncode


def _words(args: Any, environment: Mapping[str, str]) -> list[str]:
    """What to run, if this starts a module of fcit, pytest-xdist, or, with `FORK`, any program."""
    if not isinstance(args, list) or args[0] != sys.executable:
        return []
    rest = [str(word) for word in args[1:] if word not in ("-P", "-u", "-B")]
    module = rest[0] == "-m" and rest[1].startswith("fcit")
    program = rest[0] == "-c" and (FORK in environment or rest[1] == popen_bootstrapline)
    return rest if module or program else []


def _exactly(line: socket.socket, count: int) -> bytes:
    data = b""
    while len(data) < count:
        if not (more := line.recv(count - len(data))):
            raise RuntimeError("the process that forks the tests' children is gone")
        data += more
    return data


def possible() -> bool:
    """Whether children can be forked here: CUDA cannot be used in a child of a process that has it."""
    return (
        sys.platform == "linux" and COLD not in os.environ and not Path("/dev/nvidiactl").exists()
    )


def install() -> None:
    """Let tests' children be forked, where the system can."""
    if possible():
        subprocess.Popen = Popen  # type: ignore[misc]


def start() -> str:
    """Start the zygote unless there is one; where it listens."""
    with _START:
        if ADDRESS not in os.environ:
            place = tempfile.gettempdir()  # of a Unix socket the path has at most 107 bytes
            folder = tempfile.mkdtemp(
                prefix="fcit-zygote-", dir=place if len(place) < 75 else "/tmp"
            )
            os.environ[ADDRESS] = str(Path(folder) / "socket")
            with socket.socket(socket.AF_UNIX) as listener:
                listener.bind(os.environ[ADDRESS])
                listener.listen(64)
                kept, given = os.pipe()  # the zygote ends when this process does
                process = _POPEN(
                    [sys.executable, __file__, str(listener.fileno()), str(kept)],
                    pass_fds=[listener.fileno(), kept],
                    process_group=0,
                )
                os.close(kept)
                _STARTED.append((process, given))
    return os.environ[ADDRESS]


_STARTED: list[tuple[subprocess.Popen[bytes], int]] = []


def end() -> None:
    """End the zygote; its children are left alone."""
    while _STARTED:
        process, given = _STARTED.pop()
        os.close(given)
        process.wait()
        shutil.rmtree(Path(os.environ.pop(ADDRESS)).parent)


def running() -> list[tuple[int, dict[str, Any]]]:
    """The children that live: their process ids, and what was asked for (`words`, `env`, ...)."""
    if ADDRESS not in os.environ:
        return []
    files = Path(os.environ[ADDRESS]).parent.glob("*.json")
    found: list[tuple[int, dict[str, Any]]] = []
    for file in files:
        with contextlib.suppress(
            FileNotFoundError, json.JSONDecodeError
        ):  # it ends or begins just now
            found.append((int(file.stem), json.loads(file.read_text())))
    return found


def serve(listener: socket.socket, life: int) -> tuple[dict[str, Any], list[int]] | None:
    """Fork a child for every connection, and tell on it the child's process id and then its status.

    Returns in a child, with what it was asked to be, and, with None, when `life` ends.
    """
    lines: dict[int, socket.socket] = {}
    folder = Path(listener.getsockname()).parent
    wake, woken = socket.socketpair()
    woken.setblocking(False)
    signal.set_wakeup_fd(woken.fileno())
    signal.signal(signal.SIGCHLD, lambda *_: None)
    with selectors.DefaultSelector() as selector:
        for thing in (listener, wake, life):
            selector.register(thing, selectors.EVENT_READ)
        while True:
            ready = [key.fileobj for key, _ in selector.select()]
            if life in ready:
                return None
            if wake in ready:
                wake.recv(1024)
                _reap(lines, folder)
            if listener in ready:
                line, _ = listener.accept()
                size, files, _, _ = socket.recv_fds(line, 4, 3)
                body = _exactly(line, int.from_bytes(size, "big"))
                if not (pid := os.fork()):
                    signal.set_wakeup_fd(-1)
                    signal.signal(signal.SIGCHLD, signal.SIG_DFL)
                    for thing in (listener, wake, woken, line, *lines.values()):
                        thing.close()
                    os.close(life)
                    return json.loads(body), files
                for fd in files:
                    os.close(fd)
                (folder / f"{pid}.json").write_bytes(body)
                lines[pid] = line
                line.sendall(pid.to_bytes(4, "big"))


def _reap(lines: dict[int, socket.socket], folder: Path) -> None:
    while lines:
        pid, status = os.waitpid(-1, os.WNOHANG)
        if not pid:
            return
        (folder / f"{pid}.json").unlink()
        with contextlib.closing(lines.pop(pid)) as line, contextlib.suppress(OSError):
            line.sendall(os.waitstatus_to_exitcode(status).to_bytes(4, "big", signed=True))


def become(request: dict[str, Any], files: list[int]) -> None:
    """Run in this fork what was asked for."""
    import torch

    for number, fd in enumerate(files):
        os.dup2(fd, number)
        os.close(fd)
    if request["session"]:
        os.setsid()
    else:
        os.setpgid(0, request["group"])
    if request["interrupt"]:
        signal.signal(signal.SIGINT, signal.default_int_handler)
    os.chdir(request["cwd"])
    os.environ.clear()
    os.environ.update(request["env"])
    for number, name in enumerate(("stdin", "stdout", "stderr")):
        stream = open(  # noqa: SIM115
            number, "w" if number else "r", 1 if number == 2 else -1, closefd=False
        )
        setattr(sys, name, stream)
        setattr(sys, f"__{name}__", stream)
    if threads := os.environ.get("OMP_NUM_THREADS"):
        torch.set_num_threads(int(threads))
    install()
    how, what, *words = request["words"]
    try:
        if how == "-m":
            sys.argv = [what, *words]
            runpy.run_module(what, run_name="__main__", alter_sys=True)
        else:
            sys.argv = ["-c", *words]
            exec(compile(what, "<string>", "exec"), {"__name__": "__main__"})
    except SystemExit as asked:
        status = asked.code if isinstance(asked.code, int) else int(asked.code is not None)
    else:
        status = 0
    threading._shutdown()  # type: ignore[attr-defined]
    atexit._run_exitfuncs()
    sys.stdout.flush()
    os._exit(status)  # taking thousands of imported modules apart lasts as long as a short child


if __name__ == "__main__":
    import zygote  # as children and their children know this module
    from fcit.flower import hush

    hush()
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        for preloaded in zygote.PRELOADED:
            importlib.import_module(preloaded)
    warm.install()
    warm.fill()
    gc.collect()
    gc.freeze()
    with socket.socket(fileno=int(sys.argv[1])) as asked_here:
        child = zygote.serve(asked_here, int(sys.argv[2]))
    if child:
        zygote.become(*child)
