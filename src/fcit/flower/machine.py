"""What `start`, `register`, `run` and `status` check of their own machine before Flower begins."""

import os
import pwd
import socket
import ssl
import sys
import time
import urllib.request
from argparse import ArgumentParser, Namespace
from collections.abc import Callable
from email.utils import parsedate_to_datetime
from pathlib import Path

import click

from fcit.files import reading
from fcit.types import FcitError, first_line

AHEAD, BEHIND = 5, 300
"""Seconds by which Flower lets a client's clock be ahead of the server's, and behind it."""


def in_one_line(command: Callable[[], None]) -> None:
    """Run a command; an error that its user can mend is one line on standard error and exit status 2, and
    so is Ctrl-C, with exit status 130."""
    try:
        command()
    except click.ClickException as error:
        message = error.format_message()
    except FcitError as error:
        message = str(error)
    except OSError as error:
        message = first_line(error)
    except KeyboardInterrupt:
        print("stopped", file=sys.stderr)
        sys.exit(130)
    else:
        return
    print(f"error: {message}", file=sys.stderr)
    sys.exit(2)


def arguments(*names: str) -> Namespace:
    """These of the options that are given to Flower too."""
    parser = ArgumentParser(add_help=False)
    for name in names:
        parser.add_argument(f"--{name}", required=True)
    return parser.parse_known_args()[0]


def require_owner(*secrets: str) -> None:
    """Raise FcitError where this folder is another user's, or where others may read one of its secrets:
    what one user writes here, the unit's user could not read."""
    folder = Path.cwd()
    if (owner := folder.stat().st_uid) != os.getuid():
        try:
            name = pwd.getpwuid(owner).pw_name
        except KeyError:  # in a container
            name = f"#{owner}"
        raise FcitError(
            f"{folder} belongs to the user {name}: do this as {name} (sudo -u {name} ...)"
        )
    for secret in map(folder.joinpath, secrets):
        if not os.access(secret, os.R_OK):
            raise FcitError(f"{secret}: no such file, or not readable; fcit deploy init wrote it")
        if secret.stat().st_mode & 0o077:
            raise FcitError(f"{secret}: others may read this secret: chmod 600 {secret.name}")


def require_port(host: str, port: int) -> None:
    """Raise FcitError where nothing can listen on this address and port."""
    try:
        kind, _, _, _, address = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)[0]
    except OSError as error:
        raise FcitError(
            f"{host}: {error.strerror}; set FCIT_HOST to an address of this machine"
        ) from None
    try:
        with socket.socket(kind, socket.SOCK_STREAM) as listener:
            listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            listener.bind(address)
    except OSError as error:
        raise FcitError(
            f"{host} ({address[0]}), port {port}: {error.strerror}; set FCIT_HOST to an address of this "
            "machine (0.0.0.0: all of them), FCIT_PORT to a free port"
        ) from None


def ask(address: str, certificate: Path) -> float:
    """How many seconds this machine's clock is ahead of that of the SuperLink at `address`.

    Raises FcitError where the certificate is not the server's, and ConnectionError where nobody answers.
    """
    with reading(certificate, "certificate"):
        context = ssl.create_default_context(cafile=certificate)
    try:
        url = f"https://{address}/health"
        with urllib.request.urlopen(url, context=context, timeout=10) as reply:
            there = parsedate_to_datetime(reply.headers["Date"]).timestamp()
    except OSError as error:
        reason = getattr(error, "reason", error)
        if isinstance(reason, ssl.SSLCertVerificationError):
            raise FcitError(
                f"{address}: its certificate is not valid here: {reason.verify_message}; {certificate} "
                "and the server's folder must come from one fcit deploy init, with --host for this name"
            ) from None
        what = getattr(reason, "strerror", None) or first_line(error)
        raise ConnectionError(f"{address} does not answer: {what}") from None
    return time.time() - there


def require_clock(ahead: float) -> None:
    """Raise FcitError where Flower would refuse this machine because of its clock."""
    if not -BEHIND < ahead < AHEAD:
        how = f"{ahead:.0f} s ahead of" if ahead > 0 else f"{-ahead:.0f} s behind"
        raise FcitError(
            f"this machine's clock is {how} the server's; Flower allows {AHEAD} s ahead and {BEHIND} s "
            "behind: set both by NTP (timedatectl set-ntp true)"
        )
