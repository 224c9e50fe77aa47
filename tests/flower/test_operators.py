"""What operators meet: folders, certificates, keys, refusals in one line, a SuperExec that ends."""

from __future__ import annotations

import ipaddress
import os
import pwd
import signal
import socket
import stat
import subprocess
import sys
import threading
from email.utils import formatdate
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path
from ssl import PROTOCOL_TLS_SERVER, SSLContext
from types import SimpleNamespace
from typing import Any

import pytest
import tomli_w
from click import BadParameter
from typer.testing import CliRunner

from fcit.cli import app
from fcit.types import FcitError

pytest.importorskip("flwr")

from cryptography import x509
from flwr.supercore.exit import add_exit_handler

from fcit.flower import machine, operate, superlink, supernode
from fcit.flower.deploy import write_client_key


def init(folder: Path, *words: str) -> Path:
    """The folders that the command writes, whatever the umask is."""
    recipe = folder / "short.toml"
    recipe.write_text(tomli_w.dumps({"federation": {"clients": 2, "per_round": 2}}))
    umask = os.umask(0o000)
    try:
        out = folder / "federation"
        done = CliRunner().invoke(app, ["deploy", "init", str(recipe), "--out", str(out), *words])
    finally:
        os.umask(umask)
    assert done.exit_code == 0, done.output
    return out


@pytest.mark.parametrize(
    ("host", "reached"),
    [
        ("fcit.example.org", "fcit.example.org:9093"),
        ("192.0.2.7", "192.0.2.7:9093"),
        ("2001:db8::7", "[2001:db8::7]:9093"),
    ],
)
def test_one_host_gives_a_certificate_for_it_and_for_the_machine_itself(
    host: str, reached: str, tmp_path: Path
) -> None:
    out = init(tmp_path, "--host", host)
    certificate = x509.load_pem_x509_certificate((out / "server" / "server.crt").read_bytes())
    known = certificate.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
    own = {ipaddress.ip_address("127.0.0.1"), ipaddress.ip_address("::1"), "localhost"}
    named = {name.value for name in known}
    assert own < named and host in map(str, named)
    assert f"FCIT_SERVER:-{reached}" in (out / "client-1" / "start").read_text()
    assert f'host="${{FCIT_HOST:-{host}}}"' in (out / "server" / "start").read_text()
    assert "0.0.0.0:" not in (out / "server" / "start").read_text().replace("127.0.0.1:", "")
    for usable in (host, "127.0.0.1", "::1", "localhost", "0.0.0.0"):
        superlink.require_name(usable, out / "server" / "server.crt")
    with pytest.raises(FcitError, match=r"not valid for 192\.0\.2\.9, only for .*--host 192"):
        superlink.require_name("192.0.2.9", out / "server" / "server.crt")


def test_a_server_that_only_its_own_machine_can_reach_is_refused(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Debian's /etc/hosts gives the machine's own name this address."""
    found = [(2, 1, 6, "", ("127.0.1.1", 0))]
    monkeypatch.setattr(superlink.socket, "getaddrinfo", lambda *_, **__: found)
    with pytest.raises(FcitError, match=r"fcit\.example\.org is 127\.0\.1\.1 .*FCIT_HOST"):
        superlink.require_reachable("fcit.example.org")
    superlink.require_reachable("localhost")
    found.append((2, 1, 6, "", ("192.0.2.9", 0)))  # Flower listens on every address of the name
    superlink.require_reachable("fcit.example.org")


def test_everything_is_for_its_owner_alone_whatever_the_umask(tmp_path: Path) -> None:
    out = init(tmp_path, "--host", "localhost")
    for path in (out, *out.rglob("*")):
        assert not stat.S_IMODE(path.stat().st_mode) & 0o077, path
    assert "UMask=0077" in (out / "client-0" / "fcit-client-0.service").read_text()
    for script in ("server/start", "server/status", "client-0/start"):
        assert "umask 077" in (out / script).read_text()


@pytest.mark.parametrize("host", ["https://x.org", "x.org:9093", "[::1]", "a b", "-x", "x..y", ""])
def test_what_is_no_host_is_refused_and_nothing_written(host: str, tmp_path: Path) -> None:
    words = ["deploy", "init", "recipes/demo.toml", "--out", str(tmp_path / "out"), "--host", host]
    done = CliRunner().invoke(app, words)
    assert isinstance(done.exception, FcitError)
    assert "is no name or address of a machine" in str(done.exception)
    assert not (tmp_path / "out").exists()


# -- refusals of `start` ---------------------------------------------------------------------------


def test_a_port_that_is_taken_and_an_address_of_another_machine_are_named() -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        with pytest.raises(FcitError, match=r"127\.0\.0\.1.*in use; set FCIT_HOST"):
            machine.require_port("127.0.0.1", taken.getsockname()[1])
    with pytest.raises(FcitError, match=r"192\.0\.2\.1.*FCIT_HOST to an address of this machine"):
        machine.require_port("192.0.2.1", 0)
    with pytest.raises(FcitError, match="nowhere.invalid: .*FCIT_HOST"):
        machine.require_port("nowhere.invalid", 0)


def test_a_secret_that_others_may_read_and_a_folder_of_another_user_are_named(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "client.key").touch(0o600)
    machine.require_owner("client.key")
    (tmp_path / "client.key").chmod(0o640)
    with pytest.raises(FcitError, match=r"others may read this secret: chmod 600 client\.key"):
        machine.require_owner("client.key")
    with pytest.raises(FcitError, match="no such file"):
        machine.require_owner("server.key")
    monkeypatch.setattr(os, "getuid", lambda: tmp_path.stat().st_uid + 1)
    with pytest.raises(FcitError, match="belongs to the user"):
        machine.require_owner()
    monkeypatch.setattr(pwd, "getpwuid", {}.__getitem__)  # a container knows no such user
    with pytest.raises(FcitError, match=f"belongs to the user #{tmp_path.stat().st_uid}:"):
        machine.require_owner()


def test_a_certificate_that_is_missing_is_named(tmp_path: Path) -> None:
    with pytest.raises(FcitError, match=r"server\.crt: no such certificate"):
        machine.ask("127.0.0.1:1", tmp_path / "server.crt")


@pytest.mark.parametrize(
    "error",
    [
        FileNotFoundError(2, "No such file", "ca.crt"),
        FcitError("ca.crt"),
        BadParameter("ca.crt"),
    ],
)
def test_what_a_command_cannot_do_is_one_line(
    error: Exception, capsys: pytest.CaptureFixture[str]
) -> None:
    def command() -> None:
        raise error

    with pytest.raises(SystemExit) as ended:
        machine.in_one_line(command)
    said = capsys.readouterr().err
    assert ended.value.code == 2
    assert said.startswith("error: ") and "ca.crt" in said and said.count("\n") == 1


def test_ctrl_c_at_a_command_is_one_line(
    capsys: pytest.CaptureFixture[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def stopped(*_: object, **__: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(operate.subprocess, "run", stopped)
    with pytest.raises(SystemExit) as ended:
        machine.in_one_line(lambda: operate.run(tmp_path / "run", []))
    assert ended.value.code == 130
    assert capsys.readouterr().err == "the run goes on; ./status shows it\nstopped\n"


@pytest.mark.parametrize(
    ("skew", "what"), [(0, ""), (-7, "7 s ahead of the server's"), (400, "400 s behind")]
)
def test_a_clock_that_flower_would_refuse_is_named(skew: int, what: str, tmp_path: Path) -> None:
    """skew: how far the server's clock is ahead of this one's."""
    out = init(tmp_path, "--host", "fcit.example.org")

    class Health(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            self.send_response_only(200)
            self.send_header("Date", formatdate(machine.time.time() + skew + 0.5, usegmt=True))
            self.end_headers()

    context = SSLContext(PROTOCOL_TLS_SERVER)
    context.load_cert_chain(out / "server" / "server.crt", out / "server" / "server.key")
    with HTTPServer(("127.0.0.1", 0), Health) as server:
        server.socket = context.wrap_socket(server.socket, server_side=True)
        threading.Thread(target=server.handle_request, daemon=True).start()
        address = f"localhost:{server.server_address[1]}"
        ahead = machine.ask(address, out / "client-0" / "server.crt")
        if what:
            with pytest.raises(FcitError, match=f"{what}.*NTP"):
                machine.require_clock(ahead)
        else:
            machine.require_clock(ahead)
            thread = threading.Thread(target=server.handle_request, daemon=True)
            thread.start()
            (tmp_path / "other").mkdir()
            other = init(tmp_path / "other", "--host", "localhost") / "client-0" / "server.crt"
            with pytest.raises(FcitError, match="its certificate is not valid here"):
                machine.ask(address, other)
            thread.join()
    with pytest.raises(ConnectionError, match="does not answer: Connection refused"):
        machine.ask(address, out / "client-0" / "server.crt")


def test_a_client_looks_at_its_data_before_it_joins(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    out = init(tmp_path, "--host", "localhost")
    monkeypatch.chdir(out / "client-1")
    words = ["--superlink", "localhost:9", "--root-certificates", "server.crt", "--port", "0"]
    words += ["--auth-supernode-private-key", "client.key"]
    monkeypatch.setattr(sys, "argv", ["start", *words, "--node-config", 'client=1 data="data"'])
    with pytest.raises(FcitError, match="data: has no training samples of "):
        supernode.main()
    monkeypatch.setattr(sys, "argv", ["start", *words, "--node-config", 'client=2 data="data"'])
    with pytest.raises(FcitError, match="client 2: the recipe has clients 0 to 1"):
        supernode.main()
    monkeypatch.setattr(supernode, "check_data", lambda *_: None)
    monkeypatch.setattr(threading, "excepthook", threading.excepthook)  # put back afterwards
    monkeypatch.setattr(supernode, "flower_supernode", lambda: sys.exit(1))
    with pytest.raises(FcitError, match="localhost:9 does not answer"):
        supernode.main()
    monkeypatch.setattr(supernode, "ask", lambda *_: 0.0)
    with pytest.raises(
        FcitError, match=r"register its key on the server: \./register clients/client-2"
    ):
        supernode.main()


def joins(folder: Path, monkeypatch: pytest.MonkeyPatch, own: str = "") -> None:
    """A client whose data is complete starts, with its own entries of the node's configuration."""
    monkeypatch.chdir(init(folder, "--host", "localhost") / "client-1")
    words = ["--superlink", "localhost:9", "--root-certificates", "server.crt", "--port", "0"]
    words += ["--auth-supernode-private-key", "client.key"]
    node = f'client=1 data="{folder}/with spaces" {own}'
    monkeypatch.setattr(sys, "argv", ["start", *words, "--node-config", node])
    monkeypatch.setattr(threading, "excepthook", threading.excepthook)  # put back afterwards
    monkeypatch.setattr(supernode, "check_data", lambda *_: None)
    monkeypatch.setattr(supernode, "ask", lambda *_: 0.0)
    supernode.main()


@pytest.mark.parametrize("breaks", ["connection", "thread", "nothing"])
def test_a_client_that_is_no_longer_connected_ends_with_an_error_and_a_stopped_one_without(
    breaks: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    """Flower's main loop returns where it fails; its heartbeats end with their thread."""
    sent: list[tuple[int, int]] = []
    monkeypatch.setattr(os, "kill", lambda *given: sent.append(given))

    def beat() -> None:
        raise RuntimeError("Server error '500 Internal Server Error'\nfor url 'https://localhost'")

    def flower() -> None:
        if breaks == "connection":
            return
        if breaks == "thread":
            monkeypatch.setattr(signal, "getsignal", lambda _: flower)
            thread = threading.Thread(target=beat)
            thread.start()
            thread.join()
        sys.exit(0)  # as Flower does for every signal

    monkeypatch.setattr(supernode, "flower_supernode", flower)
    stopped: list[str] = []
    add_exit_handler(lambda: stopped.append("its HTTP server"))
    if breaks == "nothing":
        joins(tmp_path, monkeypatch)
    else:
        with pytest.raises(FcitError, match="client 1 is no longer connected"):
            joins(tmp_path, monkeypatch)
    assert stopped == ["its HTTP server"]
    assert sent == [(os.getpid(), signal.SIGTERM)] * (breaks == "thread")
    line = (
        "error: a thread of Flower's ended: RuntimeError: Server error '500 Internal Server Error'"
    )
    assert (line in capsys.readouterr().err) == (breaks == "thread")


@pytest.mark.parametrize(
    ("own", "odd"),
    [
        ("clip_norm = 1.0 noise_multiplier = 0.5", "clip_norm = 1.0 noise_multiplier = 0.5"),
        ("clip_norm=1.0 noise_multiplier= 0.5", "noise_multiplier= 0.5"),
        ("clip_norm=1.0 noise_multiplier", "noise_multiplier"),
        ("floor.toml", "floor.toml"),
        ("clip_norm=1.0 images='/a b'", ""),
    ],
)
def test_what_flower_would_ignore_in_a_nodes_configuration_is_refused(
    own: str, odd: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(supernode, "flower_supernode", lambda: sys.exit(0))
    if not odd:
        joins(tmp_path, monkeypatch, own)
        return
    with pytest.raises(
        FcitError, match=f"--node-config: '{odd}' is not key=value; write no spaces"
    ):
        joins(tmp_path, monkeypatch, own)


@pytest.mark.parametrize(
    ("own", "values"),
    [
        ("", "clip_norm = 0, noise_multiplier = 0, token_noise = 0"),
        ("clip_norm=1.0", "clip_norm = 1, noise_multiplier = 0, token_noise = 0"),
        (
            "clip_norm=1.0 noise_multiplier=0.5",
            "clip_norm = 1, noise_multiplier = 0.5, token_noise = 0",
        ),
    ],
)
def test_a_client_says_which_protection_is_in_force(
    own: str,
    values: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    """A unit's line Environment=FCIT_NODE_CONFIG=a b, without quotes, loses b without an error."""
    monkeypatch.chdir(init(tmp_path, "--host", "localhost") / "client-1")
    words = ["--superlink", "localhost:9", "--root-certificates", "server.crt", "--port", "0"]
    words += ["--auth-supernode-private-key", "client.key"]
    node = f'client=1 data="data" {own}'
    monkeypatch.setattr(sys, "argv", ["start", *words, "--node-config", node])
    with pytest.raises(FcitError, match="has no training samples of "):
        supernode.main()
    assert capsys.readouterr().out == f"client 1's own minimum of protection: {values}\n"


# -- keys ------------------------------------------------------------------------------------------


class FakeLink:
    """The SuperLink's list of keys."""

    def __init__(self) -> None:
        self.nodes: list[SimpleNamespace] = []

    def ListNodes(self, _: Any) -> SimpleNamespace:  # noqa: N802
        return SimpleNamespace(nodes_info=list(self.nodes))

    def RegisterNode(self, request: Any) -> None:  # noqa: N802
        node = SimpleNamespace(node_id=len(self.nodes), status="registered")
        node.public_key, node.name = request.public_key, request.name
        self.nodes.append(node)

    def UnregisterNode(self, request: Any) -> None:  # noqa: N802
        self.nodes[request.node_id].status = "unregistered"


def test_keys_are_registered_many_at_a_time_and_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture
) -> None:
    out, link = init(tmp_path, "--host", "localhost"), FakeLink()
    monkeypatch.chdir(out / "server")
    monkeypatch.setattr(operate, "read_superlink_connection", lambda _: None)
    monkeypatch.setattr(operate, "init_http_client_from_connection", lambda _: link)
    for words in (["clients/*.pub"], [], ["clients/client-0.pub", "clients/client-1.pub"]):
        operate.register(words, out)  # as from the folder above, whose shell expands nothing
    operate.register(["server/clients/client-1.pub"], out)
    assert [node.name for node in link.nodes] == ["client-0", "client-1"]
    assert "client-1: registered\nclient-0: is registered" in capsys.readouterr().out
    keys = Path("clients")
    (keys / "client-0.pub").write_bytes((keys / "client-1.pub").read_bytes())
    with pytest.raises(FcitError, match="this key is registered as client-1"):
        operate.register(["clients/client-0.pub"], out)
    (keys / "client-0.pub").write_text(write_client_key(tmp_path / "new.key"))
    with pytest.raises(FcitError, match=r"client-0 has another key; \./register --replace"):
        operate.register(["clients/client-0.pub"], out)
    operate.register(["--replace", "clients/client-0.pub"], out)
    assert [node.status for node in link.nodes] == ["unregistered", "registered", "registered"]
    for words in ("gone.pub", "", "/no/such/*.pub"):
        with pytest.raises(FcitError, match="no such key"):
            operate.register([words], out)
    operate.register([str(out / "server" / "clients" / "client-0.pub"), f"{out}/*/*/*-1.pub"], out)
    assert capsys.readouterr().out.endswith("client-0: is registered\nclient-1: is registered\n")
    (keys / "odd.pub").write_text("no key")
    with pytest.raises(FcitError, match=r"odd\.pub: no public key"):
        operate.register([], out)


# -- the SuperLink ---------------------------------------------------------------------------------


def test_a_superexec_that_ends_takes_the_superlink_with_it_and_says_why(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture
) -> None:
    monkeypatch.chdir(tmp_path)
    sent: list[tuple[int, int]] = []
    monkeypatch.setattr(os, "kill", lambda *given: sent.append(given))
    link: Any = superlink.Watched.__new__(superlink.Watched)
    words = ["sh", "-c", "echo '[SSL: CERTIFICATE_VERIFY_FAILED]' >&2; exit 1"]
    with subprocess.Popen(words, stderr=subprocess.PIPE) as process:
        link.superexec_process, link._started = process, True
        link._follow(process)
    reason = "Flower's SuperExec exited with status 1: [SSL: CERTIFICATE_VERIFY_FAILED]"
    assert operate.ENDED.read_text() == f"{reason}\n"
    assert sent == [(os.getpid(), signal.SIGTERM)]
    assert f"error: {reason}" in capsys.readouterr().err
    (tmp_path / "server.crt").touch()
    monkeypatch.setattr(operate, "ask", refused)
    monkeypatch.setattr(sys, "argv", ["operate", "run", "localhost:9", "run-folder"])
    with pytest.raises(FcitError, match=r"refused \(it ended: Flower's SuperExec .*\./start"):
        operate.main()


def refused(address: str, certificate: Path) -> float:
    raise ConnectionError(f"{address} does not answer: refused")


def test_other_machines_may_call_what_nodes_need_and_nothing_else() -> None:
    def allowed(path: str, client: str | None, own: str = "10.9.9.9") -> bool:
        caller = client and (client, 5)
        return superlink.is_allowed({"path": path, "client": caller, "server": (own, 9093)})

    for path in ("/v1/fleet/pull-messages", "/health"):
        assert allowed(path, "10.1.2.3")
    for path in ("/v1/control/start-run", "/v1/control/register-node", "/v1/runtime/x", "/"):
        assert not allowed(path, "10.1.2.3")
        assert not allowed(path, None)
        assert allowed(path, "127.0.0.1") and allowed(path, "::1")
        assert allowed(path, "10.1.2.3", own="10.1.2.3")  # from this machine, to its own address
