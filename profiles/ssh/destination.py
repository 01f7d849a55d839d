"""Where ``ssh`` goes and how it is called: checked host names, one argument list, the user's own configuration."""

from __future__ import annotations

import os
import re
from dataclasses import dataclass
from pathlib import Path

from edgekd.errors import UserInputError, fault

_NAME = r"[A-Za-z0-9_](?:[A-Za-z0-9._-]*[A-Za-z0-9_.])?"
_ADDRESS = r"[0-9A-Fa-f.]*:[0-9A-Fa-f:.]+(?:%[A-Za-z0-9_.-]+)?"  # IPv6, with its interface
_USER = r"[A-Za-z0-9_][A-Za-z0-9_.+-]*"
_PLAIN = re.compile(rf"(?:{_USER}@)?(?:{_NAME}|{_ADDRESS})")
_URI = re.compile(rf"ssh://(?:{_USER}@)?(?:{_NAME}|\[{_ADDRESS}\])(?::[0-9]{{1,5}})?")


@dataclass(frozen=True)
class SshOptions:
    """How to reach boards. The defaults leave everything to the user's own ssh set-up.

    Attributes:
        config: instead of ``~/.ssh/config``, as ``ssh -F``; by default what ``EDGEKD_SSH_CONFIG`` names, if set.
        python: interpreter on the board that has onnxruntime and numpy, as a path there; by default the venv
            of ``--setup-venv`` if there is one, else ``python3``.
        connect_seconds: to reach the board and log in.
        program: the OpenSSH client.
    """

    config: Path | None = None
    python: str | None = None
    connect_seconds: int = 15
    program: str = "ssh"


def check_host(host: str) -> str:
    """The host as given, or an error for what is an option, a piece of shell, or no name at all.

    Raises:
        UserInputError: not ``[user@]name``, an address, or ``ssh://[user@]name[:port]``; one line.
    """
    if not (_PLAIN.fullmatch(host) or _URI.fullmatch(host)):
        allowed = "[user@]name, an address, or ssh://[user@]name[:port]"
        fix = "give anything else an alias in ~/.ssh/config"
        raise UserInputError(fault("--host", "not a host name", got=host, allowed=allowed, fix=fix))
    return host


def ssh_command(host: str, remote: str, options: SshOptions) -> list[str]:
    """Argument list that runs ``remote`` on the board.

    Keys, agent, user, port, jump hosts and host aliases are the user's configuration. Fixed are: never ask
    (nobody may be there to answer), always verify the host key, notice within 15 s that the board is gone,
    and nothing that a plain command does not need.

    Args:
        remote: fixed text; it goes through the board's login shell.
    """
    fixed = {
        "BatchMode": "yes",
        "StrictHostKeyChecking": "yes",
        "ConnectTimeout": str(options.connect_seconds),
        "ServerAliveInterval": "5",
        "ServerAliveCountMax": "3",
        "ControlMaster": "no",  # an open master is used, none is left behind
        "RemoteCommand": "none",
        "RequestTTY": "no",
        "ClearAllForwardings": "yes",
        "ForwardAgent": "no",
        "ForwardX11": "no",
        "LogLevel": "INFO",
    }
    file = options.config or os.environ.get("EDGEKD_SSH_CONFIG")
    config = ["-F", str(file)] if file else []
    settings = [part for key, value in fixed.items() for part in ("-o", f"{key}={value}")]
    return [options.program, *config, *settings, "-T", "--", check_host(host), remote]
