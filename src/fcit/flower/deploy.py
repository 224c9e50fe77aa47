"""What operators need to run a federation across machines: certificates, keys, commands, units.

One folder for the server and one for every client, each to be carried to its own machine.
"""

from __future__ import annotations

import datetime
import ipaddress
from collections.abc import Sequence
from pathlib import Path

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

from fcit.files import write_text
from fcit.flower import QUIET
from fcit.recipe.config import Config, to_table
from fcit.recipe.config import write as write_recipe

PORT = 9093
"""Of the SuperLink; a SuperNode's own port is for its own machine alone."""

VALID = datetime.timedelta(days=825)
PRIVATE = 0o600


def write(out: Path, hosts: Sequence[str], config: Config, install: str) -> None:
    """Write the folders `server` and `client-0`, `client-1`, ... below `out`, which is new or empty.

    hosts: names and addresses by which clients reach the server; the first one is the one they use.
    config: the recipe to run, for as many clients as it has. install: where the folders will stand on
    their machines.
    """
    server = out / "server"
    authority = _certificates(server, hosts)
    table = to_table(config)
    table["federation"]["engine"] = "flower"
    write_recipe(server / "recipe.toml", table)
    write_text(out / "README.md", _README.replace("HOST", hosts[0]))
    write_text(server / "app" / "pyproject.toml", _APP)
    _script(server / "start", _START_SERVER)
    _script(server / "register", _connect(hosts[0]) + _REGISTER)
    _script(server / "run", _connect(hosts[0]) + _RUN)
    write_text(server / "fcit-server.service", _unit("server", "the server", install))
    for client in range(config.federation.clients):
        folder = out / f"client-{client}"
        public = _node_key(folder)
        write_text(server / "clients" / f"client-{client}.pub", public)
        write_text(folder / "ca.crt", authority)
        (folder / "data").mkdir(parents=True, exist_ok=True)
        _script(folder / "start", _start_client(client, hosts[0]))
        name = f"client-{client}"
        write_text(folder / f"fcit-{name}.service", _unit(name, f"client {client}", install))


# -- keys and certificates ---------------------------------------------------------------------------


def _certificates(server: Path, hosts: Sequence[str]) -> str:
    """The server's key and certificate, signed by an authority whose key is then forgotten."""
    authority, key = (
        ec.generate_private_key(ec.SECP384R1()),
        ec.generate_private_key(ec.SECP384R1()),
    )
    issuer = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "fcit")])
    subject = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, hosts[0])])
    signs = x509.KeyUsage(False, False, False, False, False, True, True, False, False)
    root = (
        _certificate(issuer, issuer, authority.public_key())
        .add_extension(x509.BasicConstraints(ca=True, path_length=0), critical=True)
        .add_extension(signs, critical=True)
        .sign(authority, hashes.SHA384())
    )
    purpose = x509.ExtendedKeyUsage([ExtendedKeyUsageOID.SERVER_AUTH])
    own = (
        _certificate(subject, issuer, key.public_key())
        .add_extension(x509.BasicConstraints(ca=False, path_length=None), critical=True)
        .add_extension(x509.SubjectAlternativeName([_name(host) for host in hosts]), False)
        .add_extension(purpose, critical=False)
        .add_extension(
            x509.AuthorityKeyIdentifier.from_issuer_public_key(authority.public_key()), False
        )
        .sign(authority, hashes.SHA384())
    )
    pem = serialization.Encoding.PEM
    plain = serialization.NoEncryption()
    secret = key.private_bytes(pem, serialization.PrivateFormat.PKCS8, plain).decode()
    text = root.public_bytes(pem).decode()
    write_text(server / "ca.crt", text)
    write_text(server / "server.crt", own.public_bytes(pem).decode())
    _secret(server / "server.key", secret)
    return text


def _certificate(
    subject: x509.Name, issuer: x509.Name, key: ec.EllipticCurvePublicKey
) -> x509.CertificateBuilder:
    now = datetime.datetime.now(datetime.UTC)
    return (
        x509.CertificateBuilder()
        .subject_name(subject)
        .issuer_name(issuer)
        .public_key(key)
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - datetime.timedelta(hours=1))
        .not_valid_after(now + VALID)
        .add_extension(x509.SubjectKeyIdentifier.from_public_key(key), critical=False)
    )


def _name(host: str) -> x509.GeneralName:
    try:
        return x509.IPAddress(ipaddress.ip_address(host))
    except ValueError:
        return x509.DNSName(host)


def _node_key(folder: Path) -> str:
    """A client's private key, kept in its folder; its public key, to be registered."""
    key = ec.generate_private_key(ec.SECP384R1())
    form = serialization.PrivateFormat.OpenSSH
    plain = serialization.NoEncryption()
    _secret(
        folder / "client.key", key.private_bytes(serialization.Encoding.PEM, form, plain).decode()
    )
    ssh = serialization.Encoding.OpenSSH, serialization.PublicFormat.OpenSSH
    return key.public_key().public_bytes(*ssh).decode() + "\n"


def _secret(path: Path, text: str) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.touch(PRIVATE)  # before there is anything in it
    path.write_text(text)


# -- commands ------------------------------------------------------------------------------------------


def _script(path: Path, body: str) -> None:
    quiet = "".join(f"export {key}={value}\n" for key, value in QUIET.items())
    here = (
        'cd "$(dirname "$0")" || exit 1\n'
        'export FLWR_HOME="$PWD/flower" FCIT_CACHE="${FCIT_CACHE:-$PWD/cache}"\n'
        'export HF_HOME="${HF_HOME:-$PWD/huggingface}"\n'
    )
    write_text(path, f"#!/bin/sh\n{here}{quiet}{body}")
    path.chmod(0o755)


_START_SERVER = f"""\
exec python3 -m fcit.flower.superlink --host "${{FCIT_HOST:-0.0.0.0}}" --port "${{FCIT_PORT:-{PORT}}}" \\
  --ssl-ca-certfile ca.crt --ssl-certfile server.crt --ssl-keyfile server.key \\
  --enable-supernode-auth --database flower/state.db --disable-runtime-dependency-installation
"""

_REGISTER = """\
for key in "$@"; do
  flwr supernode register "$key" fcit --name "$(basename "$key" .pub)" || exit 1
done
"""

_RUN = """\
out="${FCIT_RUN:-$PWD/run-folder}"
exec flwr run app fcit --stream \\
  --run-config "recipe=\\"$PWD/recipe.toml\\" out=\\"$out\\" changes=\\"$*\\""
"""


def _start_client(client: int, host: str) -> str:
    return f"""\
data="${{FCIT_DATA:-$PWD/data}}"
exec flower-supernode --superlink "${{FCIT_SERVER:-{host}:{PORT}}}" --root-certificates ca.crt \\
  --auth-supernode-private-key client.key --port "${{FCIT_PORT:-9094}}" \\
  --node-config "client={client} data=\\"$data\\" memory=\\"$PWD/memory\\""
"""


def _unit(name: str, who: str, install: str) -> str:
    return f"""\
[Unit]
Description=fcit, {who}
Wants=network-online.target
After=network-online.target

[Service]
User=fcit
Environment=PATH={install}/venv/bin:/usr/bin:/bin
ExecStart={install}/{name}/start
Restart=always
RestartSec=10
ProtectSystem=strict
ReadWritePaths={install}/{name}
PrivateTmp=true
NoNewPrivileges=true

[Install]
WantedBy=multi-user.target
"""


def _connect(host: str) -> str:
    return f"""\
mkdir -p flower
cat > flower/config.toml <<END
[superlink]
default = "fcit"

[superlink.fcit]
address = "${{FCIT_SERVER:-{host}:{PORT}}}"
root-certificates = "$PWD/ca.crt"
END
"""


_APP = """\
[project]
name = "fcit-app"
version = "1.0.0"
description = "A run of fcit. Its code is the fcit that is installed on the server and on every node."
license = "Apache-2.0"
dependencies = []

[tool.flwr.app]
publisher = "fcit"

[tool.flwr.app.components]
serverapp = "fcit.runs.flower_app:server"
clientapp = "fcit.runs.flower_app:client"

[tool.flwr.app.config]
recipe = ""
out = ""
changes = ""
"""

_README = """\
# A federation of fcit

The server is reached as HOST. Every machine has fcit with Flower: `pip install 'fcit[flower]'`.

1. Carry `server/` to the server's machine and each `client-N/` to client N's own, over a safe way:
   `client.key` and `server.key` are secrets. Then delete this folder.
2. Each client puts its own data into `client-N/data`, in the official layout (`datasets/`,
   `instructions/NAME/train...json`). `recipe.toml` in `server/` names the server's data folder.
3. The server: `server/start`, or the systemd unit beside it. Then, once, all clients' keys:
   `server/register clients/*.pub`
4. Each client: `client-N/start`, or its unit.
5. The server: `server/run` begins the run in `server/run-folder`, and goes on with it if it was cut
   off. `FCIT_RUN=$PWD/second server/run seed=1` runs a changed recipe in another folder.

docs/deploy.md of fcit says more, docs/privacy.md what leaves a client.
"""
