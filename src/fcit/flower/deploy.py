"""Writes what operators need to run a federation across machines: certificates, keys, scripts, units.

One folder is for the server and one for every client; each is to be copied to its own machine. The
scripts and units are in `templates`.
"""

import datetime
import ipaddress
import re
from collections.abc import Sequence
from pathlib import Path

from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric.ec import (
    SECP384R1,
    EllipticCurvePrivateKey,
    generate_private_key,
)
from cryptography.hazmat.primitives.serialization import (
    Encoding,
    NoEncryption,
    PrivateFormat,
    PublicFormat,
)
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID
from jinja2 import Environment, FileSystemLoader, StrictUndefined

from fcit.files import write_text
from fcit.flower import QUIET
from fcit.recipe.config import Config, to_table
from fcit.recipe.config import write as write_recipe
from fcit.types import FcitError

PORT = 9093
"""Port of the SuperLink; a SuperNode's own port is for its own machine alone."""

OWN_NAMES = "localhost", "127.0.0.1", "::1"
"""Names by which the server's own machine reaches it: SuperExec, `./run` and `./status` do."""

VALID = datetime.timedelta(days=825)


def write(out: Path, hosts: Sequence[str], config: Config, install: str) -> None:
    """Write the folders `server` and `client-0`, `client-1`, ... below `out`.

    hosts: names and addresses by which clients reach the server; they use the first one, and the server
    listens on it. config: the recipe to run, for as many clients as it has. install: the folder on the
    machines that will hold these folders. Raises FcitError for a host or a folder that cannot be one.
    """
    names = [_general_name(host) for host in dict.fromkeys((*hosts, *OWN_NAMES))]
    if not re.fullmatch(r"/[\w./+-]*", install):
        raise FcitError(f"--install: {install!r} must be an absolute path without spaces")
    templates = Environment(
        loader=FileSystemLoader(Path(__file__).parent / "templates"),
        undefined=StrictUndefined,
        keep_trailing_newline=True,
        trim_blocks=True,
    )
    bracketed = f"[{hosts[0]}]" if ":" in hosts[0] else hosts[0]
    templates.globals.update(
        host=hosts[0], bracketed=bracketed, port=PORT, quiet=QUIET, install=install
    )

    def fill(template: str, path: Path, **values: object) -> None:
        write_text(path, templates.get_template(template).render(values))
        if template.endswith(".sh"):
            path.chmod(0o700)

    server = out / "server"
    key = generate_private_key(SECP384R1())
    _write_secret(server / "server.key", key, PrivateFormat.PKCS8)
    certificate = _certificate(names, key)
    write_text(server / "server.crt", certificate)
    table = to_table(config)
    table["federation"]["engine"] = "flower"
    write_recipe(server / "recipe.toml", table)
    fill("README.md", out / "README.md")
    fill("app.toml", server / "app" / "pyproject.toml")
    for script in ("start", "register", "run", "status"):
        fill(f"{script}-server.sh", server / script)
    fill("unit.service", server / "fcit-server.service", title="the server", folder="server")
    for client in range(config.federation.clients):
        name = f"client-{client}"
        folder, title = out / name, f"client {client}"
        write_text(server / "clients" / f"{name}.pub", write_client_key(folder / "client.key"))
        write_text(folder / "server.crt", certificate)
        write_recipe(folder / "recipe.toml", table)
        (folder / "data").mkdir(parents=True, exist_ok=True)
        fill("start-client.sh", folder / "start", client=client)
        fill("unit.service", folder / f"fcit-{name}.service", title=title, folder=name)


def _general_name(host: str) -> x509.GeneralName:
    """A machine's address or name. Raises FcitError for what is neither."""
    try:
        return x509.IPAddress(ipaddress.ip_address(host))
    except ValueError:
        labels = host.split(".")
        if not all(re.fullmatch(r"(?!-)[A-Za-z0-9-]{1,63}(?<!-)", label) for label in labels):
            raise FcitError(
                f"--host: {host!r} is no name or address of a machine; leave out https://, port and "
                "brackets"
            ) from None
        return x509.DNSName(host)


def _certificate(hosts: Sequence[x509.GeneralName], key: EllipticCurvePrivateKey) -> str:
    """A server's certificate for these hosts, signed by its own key: nobody else signs for it."""
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "fcit")])
    now = datetime.datetime.now(datetime.UTC)
    builder = (
        x509.CertificateBuilder(name, name, key.public_key(), x509.random_serial_number())
        .not_valid_before(now - datetime.timedelta(hours=1))
        .not_valid_after(now + VALID)
    )
    for extension, critical in (
        (x509.SubjectAlternativeName(hosts), False),
        (x509.BasicConstraints(ca=False, path_length=None), True),
        (x509.ExtendedKeyUsage([ExtendedKeyUsageOID.SERVER_AUTH]), False),
        (x509.SubjectKeyIdentifier.from_public_key(key.public_key()), False),
    ):
        builder = builder.add_extension(extension, critical)
    return builder.sign(key, hashes.SHA384()).public_bytes(Encoding.PEM).decode()


def write_client_key(path: Path) -> str:
    """Write a client's private key; return its public key, which the server registers."""
    key = generate_private_key(SECP384R1())
    _write_secret(path, key, PrivateFormat.OpenSSH)
    public = key.public_key().public_bytes(Encoding.OpenSSH, PublicFormat.OpenSSH)
    return public.decode() + "\n"


def _write_secret(path: Path, key: EllipticCurvePrivateKey, form: PrivateFormat) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.touch(0o600)
    path.write_bytes(key.private_bytes(Encoding.PEM, form, NoEncryption()))
