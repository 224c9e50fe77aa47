"""A federation of processes on loopback: folders, keys and commands as operators get them."""

from __future__ import annotations

import contextlib
import os
import signal
import socket
import ssl
import stat
import subprocess
import sys
import time
import tomllib
import urllib.error
import urllib.request
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path

import pytest
import tomli_w
from test_agree import config as short
from typer.testing import CliRunner

import fcit
from fcit.benchmark import datasets
from fcit.cli import app
from fcit.files import read_json, read_lines
from fcit.flower.shares import split
from fcit.recipe.config import Config, load, to_table, validate
from fcit.recipe.sections import DataSection
from fcit.rounds.runfolder import RunFolder
from fcit.runs.engine import deployment
from fcit.types import FcitError, Task, Turn
from fcit.watch import Silent
from fcit.weights import flatten, to_bytes
from fcit.weights import load as load_weights
from fcit.worker.experiment import Experiment

pytest.importorskip("flwr")

PATIENCE = 1200
"""Seconds that anything may take: every message starts a process, and test machines may be busy."""


WAIT = 240
"""Seconds that clients have where one of them stays away: more than a killed one takes to come back."""


def federation(table: dict, method: str = "disco") -> Config:
    """Two stages of one round, two of four clients."""
    config = to_table(short(table, "flower", method))
    config["federation"] |= {"rounds": 1, "deadline": PATIENCE}
    return validate(config)


# -- the folders ---------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def folders(table: dict, tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("deploy") / "federation"
    deployment(federation(table), out, ["localhost"], True, "/srv/fcit", Silent())
    return out


def test_every_machine_gets_a_folder_and_secrets_are_secret(folders: Path) -> None:
    assert sorted(path.name for path in folders.iterdir()) == [
        "README.md",
        *(f"client-{client}" for client in range(4)),
        "server",
    ]
    for secret in [folders / "server" / "server.key", *folders.glob("client-*/client.key")]:
        assert stat.S_IMODE(secret.stat().st_mode) == 0o600
    keys = {(folders / "server" / "clients" / f"client-{k}.pub").read_text() for k in range(4)}
    assert len(keys) == 4
    assert not list(folders.rglob("ca.key"))  # nobody can sign for another server
    scripts = [f"server/{name}" for name in ("start", "register", "run", "status")]
    for script in [*scripts, "client-2/start"]:
        subprocess.run(["sh", "-n", str(folders / script)], check=True)
        text = (folders / script).read_text()
        assert "FLWR_TELEMETRY_ENABLED=0" in text
        assert "FLWR_DISABLE_UPDATE_CHECK=1" in text
        assert "--insecure" not in text
    assert "--enable-supernode-auth" in (folders / "server" / "start").read_text()
    unit = (folders / "client-2" / "fcit-client-2.service").read_text()
    assert "ExecStart=/srv/fcit/client-2/start" in unit
    assert "ReadWritePaths=/srv/fcit/client-2\n" in unit
    assert 'HF_HOME="${HF_HOME:-$PWD/huggingface}"' in (folders / "client-2/start").read_text()
    project = tomllib.loads((folders / "server" / "app" / "pyproject.toml").read_text())
    components = project["tool"]["flwr"]["app"]["components"]
    assert components["clientapp"] == "fcit.runs.flower_app:client"


def test_a_client_with_a_folder_keeps_the_samples_that_it_does_in_one_process(
    folders: Path, table: dict
) -> None:
    config = federation(table, "replay")
    whole, kept = Experiment(config), 0
    for client in range(4):
        own = Experiment(config, DataSection(root=str(folders / f"client-{client}" / "data")))
        turn = Turn(client, Task("later", ()), 2, 0)
        assert own.rehearsed(turn) == whole.rehearsed(turn)
        kept += len(own.rehearsed(turn))
    assert kept > 0


def test_a_clients_folder_holds_its_share_and_no_one_elses(folders: Path, table: dict) -> None:
    config = federation(table)
    whole = Experiment(config)
    for client in range(4):
        data = folders / f"client-{client}" / "data"
        own = Experiment(config, DataSection(root=str(data)))
        held = set()
        for stage in whole.training_setting.stages:
            for task in stage.tasks:
                turn = Turn(client, task, 0, 0)
                mine, theirs = own.data(turn), whole.shares(task)[client]
                assert list(mine.samples) == theirs
                held |= {sample.image for sample in theirs}
                for path, image in zip(mine.images, whole.data(turn).images, strict=True):
                    assert Path(path).read_bytes() == Path(image).read_bytes()
        images = {
            str(path.relative_to(data / "datasets"))
            for path in (data / "datasets").rglob("*")
            if path.is_file()
        }
        assert images == held


def test_a_clients_folder_has_what_the_data_folder_says_of_a_dataset(
    suite: Path, table: dict, tmp_path: Path
) -> None:
    root, folder = tmp_path / "data", tmp_path / "client-0"
    (root / "instructions" / "Mine").mkdir(parents=True)
    (root / "datasets").symlink_to(suite / "datasets")
    for split_name in ("train", "test"):
        samples = datasets.read(suite, "DVQA", split_name)
        datasets.find("Mine").write(root, split_name, samples[:4])
    told = root / "instructions" / "Mine" / "dataset.toml"
    (told.parent / "train.json").rename(told.parent / "taught.json")
    told.write_text('train = "taught.json"\nrule = "containment"\n')
    changed = to_table(federation(table))
    changed["data"] = {"root": str(root)}
    changed["setting"]["order"] = ["Mine"]
    changed["federation"] |= {"clients": 1, "per_round": 1}
    split(validate(changed), [folder], Silent())
    assert datasets.find("Mine", folder) == datasets.find("Mine", root)
    assert len(datasets.read(folder, "Mine", "train")) == 4


def test_where_clients_score_each_gets_its_own_test_samples_too(
    table: dict, tmp_path: Path
) -> None:
    changed = to_table(federation(table))
    changed["setting"]["order"] = ["Flickr30k", "Grounding"]
    changed["evaluation"] |= {"where": "clients", "limit": 6}
    config = validate(changed)
    folders = [tmp_path / f"client-{client}" for client in range(4)]
    split(config, folders, Silent())
    whole = Experiment(config)
    for client, data in enumerate(folders):
        own = Experiment(config, DataSection(root=str(data)))
        for name in ("Flickr30k", "Grounding"):
            mine, theirs = own.test_share(name, client), whole.test_share(name, client)
            assert mine == theirs
            paths = [own.data_of(mine).images, whole.data_of(theirs).images]
            for copy, image in zip(*paths, strict=True):
                assert Path(copy).read_bytes() == Path(image).read_bytes()


def test_the_recipe_of_a_deployment_is_the_one_given(folders: Path, table: dict) -> None:
    assert load(folders / "server" / "recipe.toml").data == federation(table).data


def test_the_command_leaves_data_to_the_clients_unless_told_to_split(
    table: dict, tmp_path: Path
) -> None:
    recipe = tmp_path / "short.toml"
    recipe.write_text(tomli_w.dumps(to_table(federation(table))))
    out = tmp_path / "federation"
    words = ["deploy", "init", str(recipe), "--out", str(out), "--host", "fcit.example.org"]
    done = CliRunner().invoke(app, [*words, "--set", "federation.clients=2", "--set", "seed=9"])
    assert done.exit_code == 0, done.output
    assert sorted(path.name for path in out.glob("client-*")) == ["client-0", "client-1"]
    assert not any((out / "client-0" / "data").iterdir())
    assert "fcit.example.org:9093" in (out / "client-1" / "start").read_text()
    assert load(out / "server" / "recipe.toml").seed == 9


def test_what_cannot_be_deployed_is_refused(folders: Path, table: dict, tmp_path: Path) -> None:
    with pytest.raises(FcitError, match="not empty"):
        deployment(federation(table), folders, ["localhost"], False, "/srv", Silent())
    with pytest.raises(FcitError, match="multitask is not federated"):
        deployment(federation(table, "multitask"), tmp_path, ["x"], False, "/srv", Silent())
    noised = to_table(federation(table))
    noised["privacy"] |= {"clip_norm": 1.0, "noise_multiplier": 1.0}
    noised["federation"]["outlier_factor"] = 0
    with pytest.raises(FcitError, match="privacy.seeded_noise"):
        deployment(validate(noised), tmp_path, ["x"], False, "/srv", Silent())


# -- a federation that runs ------------------------------------------------------------------------------


@dataclass
class Running:
    """A SuperLink and its SuperNodes, as processes."""

    root: Path
    port: int
    processes: dict[str, subprocess.Popen] = field(default_factory=dict)

    def environment(self, **more: str) -> dict[str, str]:
        path = f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"
        own = {"PATH": path, "OMP_NUM_THREADS": "1", "FCIT_SERVER": f"localhost:{self.port}"}
        # Tests wait for lines of the logs, and `hush` in an earlier one may have said ERROR.
        return os.environ | own | {"FLWR_LOG_LEVEL": "INFO"} | more

    def start(self, name: str, script: str, **more: str) -> subprocess.Popen:
        with (self.root / f"{name}.log").open("ab") as log:
            process = subprocess.Popen(
                ["sh", str(self.root / script)],
                env=self.environment(**more),
                stdout=log,
                stderr=log,
                start_new_session=True,
            )
        self.processes[name] = process
        return process

    def client(self, number: int) -> subprocess.Popen:
        return self.start(f"client-{number}", f"client-{number}/start", FCIT_PORT=str(free_port()))

    def runs(self, client: int) -> bool:
        process = self.processes.get(f"client-{client}")
        return process is not None and process.poll() is None

    def connected(self, client: int) -> int:
        """How often the SuperLink took a client."""
        log = self.root / f"client-{client}.log"
        return log.read_text().count("SuperNode ID") if log.is_file() else 0

    def register(self, *clients: int) -> None:
        self.do("server/register", *(f"clients/client-{client}.pub" for client in clients))

    def stop(self, name: str, how: signal.Signals = signal.SIGTERM) -> None:
        process = self.processes.pop(name)
        os.killpg(process.pid, how)
        process.wait(timeout=60)

    def do(self, script: str, *arguments: str, status: int = 0, **more: str) -> str:
        done = subprocess.run(
            ["sh", str(self.root / script), *arguments],
            env=self.environment(**more),
            cwd=self.root / "server",
            capture_output=True,
            text=True,
            timeout=2 * PATIENCE,
        )
        assert done.returncode == status, done.stdout + done.stderr
        return done.stdout + done.stderr

    def call(self, path: str, **headers: str) -> int:
        context = ssl.create_default_context(cafile=self.root / "server" / "server.crt")
        address = f"https://localhost:{self.port}{path}"
        request = urllib.request.Request(address, headers=headers)
        try:
            with urllib.request.urlopen(request, context=context, timeout=10) as answer:
                return answer.status
        except urllib.error.HTTPError as error:
            with error:
                return error.code


def free_port() -> int:
    with socket.socket() as one:
        one.bind(("127.0.0.1", 0))
        return one.getsockname()[1]


def until(ready, what: str) -> None:
    end = time.monotonic() + PATIENCE
    while not ready():
        assert time.monotonic() < end, what
        time.sleep(0.5)


@pytest.fixture(scope="module")
def running(folders: Path) -> Iterator[Running]:
    """A SuperLink with clients 0 to 2 registered and connected; client 3 is not registered."""
    running = Running(folders, free_port())
    try:
        running.start("server", "server/start", FCIT_PORT=str(running.port))

        def up() -> bool:
            try:
                return running.call("/health") == 200
            except OSError:
                return False

        until(up, "the SuperLink does not come up")
        running.register(0, 1, 2)
        for client in range(3):
            running.client(client)
        yield running
    finally:
        for name in list(running.processes):
            running.stop(name, signal.SIGKILL)


@pytest.fixture
def four(running: Running) -> Running:
    """All four clients registered and connected."""
    running.register(3)
    if not running.runs(3):
        rejoin(running, 3)
    return running


@pytest.mark.slow
def test_a_node_without_a_registered_key_is_refused(running: Running) -> None:
    stranger = running.client(3)
    assert stranger.wait(timeout=PATIENCE) != 0
    said = (running.root / "client-3.log").read_text()
    assert "Failed to activate SuperNode" in said
    assert "register its key on the server: ./register clients/client-3.pub" in said
    running.register(3)
    rejoin(running, 3)


@pytest.mark.slow
def test_a_node_that_claims_anothers_number_is_named_and_ends_a_run_that_needs_all(
    running: Running, tmp_path: Path
) -> None:
    script = running.root / "client-2" / "start"
    honest = script.read_text()
    running.stop("client-2")
    script.write_text(honest.replace("client=2", "client=1"))
    try:
        rejoin(running, 2)
        out = str(tmp_path / "deployed")
        said = running.do("server/run", "method=finetune", status=2, FCIT_RUN=out)
        assert "error: a node says it is client 1, and its key is registered as client-2" in said
        assert "Traceback" not in said
        assert "the run did not finish; mend what the lines above say" in said
        assert not (tmp_path / "deployed" / "log.jsonl").exists()
    finally:
        running.stop("client-2")
        script.write_text(honest)
        rejoin(running, 2)


@pytest.mark.slow
def test_operators_calls_from_other_machines_are_refused(running: Running) -> None:
    far = {"X-Forwarded-For": "10.1.2.3"}  # believed, as it comes from this machine
    assert running.call("/v1/control/start-run", **far) == 403
    assert running.call("/v1/control/start-run") != 403
    assert running.call("/health", **far) == 200


@pytest.mark.slow
@pytest.mark.parametrize(
    ("method", "optimizer"), [("disco", "fedavg"), ("finetune", "fedavg"), ("finetune", "scaffold")]
)
def test_a_deployment_has_the_same_bits_as_one_process(
    method: str, optimizer: str, four: Running, table: dict, tmp_path: Path
) -> None:
    """In scaffold's run a client is restarted in the middle of its turn."""
    table_here = to_table(federation(table, method))
    table_here["federation"] |= {"engine": "local", "optimizer": optimizer}
    local = fcit.run(validate(table_here), tmp_path / "local").folder
    out = tmp_path / "deployed"
    changes = [f"method={method}", f"federation.optimizer={optimizer}"]
    with ThreadPoolExecutor() as pool:
        log = pool.submit(four.do, "server/run", *changes, FCIT_RUN=str(out))
        if optimizer == "scaffold":
            restart_in_its_turn(four)
        said = log.result()
    assert (out / "matrix.json").is_file(), said
    assert (out / "matrix.json").read_bytes() == (local / "matrix.json").read_bytes()
    (mine, memory), (theirs, turns) = RunFolder(local).state(), RunFolder(out).state()
    assert to_bytes(flatten(mine)) == to_bytes(flatten(theirs))
    assert memory.keys() == turns.keys()
    assert bool(memory) == (optimizer == "scaffold")
    for client, kept in memory.items():
        stage, number = map(int, turns[client]["turn"])
        files = four.root.glob(f"client-{client}/memory/*/client-{client}/*.safetensors")
        (found,) = (file for file in files if file.name.startswith(f"stage{stage}-round{number}-"))
        assert to_bytes(load_weights(found)) == to_bytes(kept)


@pytest.mark.slow
def test_a_server_without_data_gets_its_clients_scores(
    four: Running, table: dict, tmp_path: Path
) -> None:
    changed = to_table(federation(table, "zeroshot"))
    changed["federation"]["engine"] = "local"
    changed["evaluation"]["where"] = "clients"
    split(validate(changed), [four.root / f"client-{k}" / "data" for k in range(4)], Silent())
    local = fcit.run(validate(changed), tmp_path / "local").folder
    out = tmp_path / "deployed"
    changes = ["method=zeroshot", "evaluation.where=clients", "data.root=/nowhere"]
    said = four.do("server/run", *changes, FCIT_RUN=str(out))
    assert (out / "matrix.json").is_file(), said
    assert (out / "matrix.json").read_bytes() == (local / "matrix.json").read_bytes()
    for name in ("IconQA", "FigureQA"):
        kept = read_json(out / "scores" / "zero-shot" / f"{name}.json")
        assert kept == read_json(local / "scores" / "zero-shot" / f"{name}.json")
        shares = [Experiment(validate(changed)).test_share(name, client) for client in range(4)]
        having = sum(map(bool, shares))  # with so few questions, not every client has some
        assert (kept["clients"], kept["faults"]) == (having, 0)


@pytest.mark.slow
def test_a_client_killed_without_a_word_rejoins_and_one_that_stays_away_is_left_out(
    four: Running, tmp_path: Path
) -> None:
    """All four clients are asked in both stages: in the first one a client is killed in its turn and
    started again, as its unit would; in the second one another is killed and stays away."""
    out = tmp_path / "deployed"
    terms = {"per_round": 4, "min_clients": 3, "deadline": WAIT}
    changes = ["method=finetune", *(f"federation.{key}={value}" for key, value in terms.items())]
    with ThreadPoolExecutor() as pool:
        log = pool.submit(four.do, "server/run", *changes, FCIT_RUN=str(out))
        back = in_its_turn(four)
        four.stop(f"client-{back}", signal.SIGKILL)
        rejoin(four, back)
        until(lambda: (out / "log.jsonl").is_file() or log.done(), "no round was finished")
        gone = in_its_turn(four)
        four.stop(f"client-{gone}", signal.SIGKILL)
        said = log.result()
    assert (out / "matrix.json").is_file(), said
    first, second = read_lines(out / "log.jsonl")
    assert first["clients"] == [0, 1, 2, 3]
    assert "faults" not in first
    assert second["clients"] == [client for client in range(4) if client != gone]
    assert [(one["client"], one["kind"]) for one in second["faults"]] == [(gone, "timeout")]
    assert f"client {gone} (timeout" in said
    rejoin(four, gone)


@pytest.mark.slow
def test_a_killed_servers_run_goes_on_and_nobody_in_its_journal_trains_again(
    four: Running, table: dict, tmp_path: Path
) -> None:
    """One client is away, so that the round cannot end before the kill."""
    table_here = to_table(federation(table, "finetune"))
    table_here["federation"] |= {"engine": "local", "per_round": 4}
    local = fcit.run(validate(table_here), tmp_path / "local").folder
    out = tmp_path / "deployed"
    words = ["server/run", "method=finetune", "federation.per_round=4"]
    with ThreadPoolExecutor() as pool:
        first = pool.submit(four.do, *words, status=2, FCIT_RUN=str(out))
        gone = in_its_turn(four)
        four.stop(f"client-{gone}", signal.SIGKILL)
        others = {client for client in range(4) if client != gone}
        kept = {f"{client}.safetensors" for client in others}
        journal = out / "journal"
        until(lambda: kept <= {file.name for file in journal.glob("*")}, "no replies are kept")
        (server,) = holders(out / ".lock")
        os.kill(server, signal.SIGKILL)
        trained = errands(four)
        rejoin(four, gone)
        until(first.done, "Flower does not see that its run was killed")
        assert not (out / "log.jsonl").exists()
        said = four.do(*words, FCIT_RUN=str(out))
    assert (out / "matrix.json").is_file(), said
    now = errands(four)
    assert {client: now[client] - trained[client] for client in others} == dict.fromkeys(others, 1)
    assert (out / "matrix.json").read_bytes() == (local / "matrix.json").read_bytes()
    mine, theirs = RunFolder(local).state()[0], RunFolder(out).state()[0]
    assert to_bytes(flatten(mine)) == to_bytes(flatten(theirs))


def holders(file: Path) -> list[int]:
    """The processes that have a file open."""
    found = []
    for process in Path("/proc").glob("[0-9]*"):
        with contextlib.suppress(OSError):
            if any(one.readlink() == file for one in (process / "fd").iterdir()):
                found.append(int(process.name))
    return found


def errands(running: Running) -> dict[int, int]:
    """How often each client was asked to train."""
    logs = {client: running.root / f"client-{client}.log" for client in range(4)}
    return {
        client: log.read_text().count("Receiving: train message")
        for client, log in logs.items()
        if log.is_file()
    }


def in_its_turn(running: Running) -> int:
    """The first client that gets something to train, once it has."""
    before = errands(running)
    until(lambda: errands(running) != before, "no client was asked to train")
    return next(client for client, count in errands(running).items() if count != before[client])


def restart_in_its_turn(running: Running) -> None:
    """End the first client that gets something to train, and start it again."""
    client = in_its_turn(running)
    running.stop(f"client-{client}")
    running.client(client)


def rejoin(running: Running, client: int) -> None:
    """Start a client again and again until the SuperLink takes it, which it does once it no longer
    takes the one that was killed for present."""
    before = running.connected(client)

    def back() -> bool:
        if not running.runs(client):
            running.client(client)
        return running.connected(client) > before

    until(back, f"client {client} was not taken")
