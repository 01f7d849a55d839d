"""What ``ssh`` and the board's shell say when something is wrong, as one line that says what to do.

OpenSSH's client is not translated; the texts are those of its source (sshconnect.c, readconf.c, clientloop.c).
"""

from __future__ import annotations

import re
import signal

from edgekd.errors import EdgeKDError, HostError, fault

_LOGIN = "log in once by hand to see why: ssh {host}"
# First match wins: what ssh says, what it means, what to do.
_CAUSES: tuple[tuple[str, str, str], ...] = (
    ("REMOTE HOST IDENTIFICATION HAS CHANGED", "its host key is not the one that is known",
     "if you reinstalled the board: {offender}, then ssh {host} and compare the fingerprint; "
     "if not, somebody may stand in between"),
    ("is a revoked host key", "its host key is revoked", "do not connect; ask whoever revoked it"),
    ("Host key verification failed", "its host key is not known here",
     "run ssh {host} once, compare the fingerprint and accept it"),
    ("host key is known for", "its host key is not known here",
     "run ssh {host} once, compare the fingerprint and accept it"),
    ("UNPROTECTED PRIVATE KEY FILE", "the private key can be read by others", "run: chmod 600 on the key"),
    ("Too many authentication failures", "too many keys were offered",
     "name the right one in ~/.ssh/config: IdentityFile and IdentitiesOnly yes"),
    ("Permission denied", "no key was accepted, and passwords are not asked for",
     "run ssh-copy-id {host}, and ssh-add if the key has a passphrase"),
    ("Could not resolve hostname", "the name is unknown", "check the name, or give the address"),
    ("Connection refused", "nothing listens for ssh there", "switch ssh on at the board, check the port"),
    ("No route to host", "cannot be reached", "is it switched on and in this network?"),
    ("Network is unreachable", "cannot be reached", "is this machine in its network?"),
    ("Operation timed out", "no answer", "is it switched on and in this network?"),
    ("Connection timed out", "no answer", "is it switched on and in this network?"),
    ("Unable to negotiate", "no common key or cipher", _LOGIN),
    ("Bad configuration option", "the ssh configuration is wrong", _LOGIN),
    ("Can't open user config file", "the ssh configuration cannot be read", "check the path of the file"),
    ("Bad owner or permissions", "the ssh configuration can be written by others", "run: chmod 600 on it"),
    ("terminating,", "the ssh configuration is wrong", _LOGIN),
)  # fmt: skip


def login_failure(host: str, code: int, told: str) -> EdgeKDError:
    """Why no agent came to life.

    Args:
        code: exit status of ssh: 255 for its own failures, negative for a signal, else the remote command's.
        told: its standard error.
    """
    if code < 0:
        return HostError(fault(host, "ssh was ended while it connected", got=signal.Signals(-code).name))
    if code != 255:
        if code == 127 or ("python3" in told and "not found" in told):
            return HostError(fault(host, "has no python3", fix="install Python 3.8 or newer on the board"))
        got = last_line(told) or f"exit status {code}"
        return HostError(fault(host, "python3 does not start on the board", got=got))
    for text, what, fix in _CAUSES:
        if text in told:
            fix = fix.format(host=host, offender=_offender(told))
            return HostError(fault(host, what, got=_line_with(text, told), fix=fix))
    got = last_line(told) or f"ssh ended with status {code}"
    return HostError(fault(host, "ssh cannot connect", got=got, fix=_LOGIN.format(host=host)))


def lost(host: str, code: int | None, told: str, *, during: str) -> EdgeKDError:
    """Why an agent that lived does not answer any more.

    Args:
        code: exit status of ssh: negative for a signal, 255 for a lost connection or a program that a signal
            ended there; None while ssh still runs.
        during: what was going on.
    """
    again = "check its power and network and run the same command again"
    if code is None or code < 0 or (code == 255 and told.strip()):
        got = last_line(told) or ("no answer" if code is None else signal.Signals(-code).name)
        return EdgeKDError(fault(host, f"the connection was lost during {during}", got=got, fix=again))
    if code == 255:
        what = f"edgekd's agent on the board was killed, or the connection cut, during {during}"
        return EdgeKDError(fault(host, what, fix=again))
    if code > 128 and code - 128 in set(signal.Signals):
        got = signal.Signals(code - 128).name
        fix = "is its memory full? run the same command again"
        return EdgeKDError(
            fault(host, f"edgekd's agent on the board was killed during {during}", got=got, fix=fix)
        )
    got = last_line(told) or f"exit status {code}"
    return EdgeKDError(fault(host, f"edgekd's agent on the board ended during {during}", got=got, fix=again))


def last_line(told: str) -> str:
    """The last line that says something, at most 300 characters, free of control characters."""
    lines = [line.strip() for line in told.splitlines() if line.strip()]
    return printable(lines[-1][:300]) if lines else ""


def printable(text: str) -> str:
    """A board's words without what could move a terminal's cursor; lines stay lines."""
    return "".join(c if c.isprintable() or c == "\n" else " " for c in text)


def _line_with(text: str, told: str) -> str:
    line = next(line for line in told.splitlines() if text in line)
    return printable(line.strip(" @\r")[:300])


def _offender(told: str) -> str:
    """How to forget the old key: its line, as ssh names it, whatever the alias or the port."""
    found = re.search(r"^Offending .* key in (.+):(\d+)\s*$", told, re.MULTILINE)
    return (
        f"remove line {found.group(2)} of {printable(found.group(1))}" if found else "ssh-keygen -R its name"
    )
