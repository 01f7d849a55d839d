"""One ssh process and what goes through it: a Python program to the board's python3, then lines both ways."""

from __future__ import annotations

import contextlib
import os
import selectors
import subprocess
import tempfile
import time

from edgekd.errors import EdgeKDError, HostError, fault
from edgekd.profiles.ssh.destination import SshOptions, ssh_command
from edgekd.profiles.ssh.failures import login_failure, lost

MARK = b"edgekd-agent"
# All that the board's login shell ever reads. The program comes by standard input: its length, a line break,
# its text. Empty entries of sys.path are the folder where the login stands: a numpy.py there is not imported.
BOOTSTRAP = (
    "exec python3 -u -c 'import sys; sys.path = [p for p in sys.path if p]; "
    'sys.stdout.write("edgekd-agent %d %d\\n" % sys.version_info[:2]); sys.stdout.flush(); '
    'f = sys.stdin.buffer; exec(compile(f.read(int(f.readline())), "edgekd-agent", "exec"))\''
)
_NOISE_BYTES = 1 << 16  # what ~/.bashrc and the like may print before the mark
_MOST_LINE_BYTES = 1 << 28  # ten seconds of a model of some microseconds are tens of millions
_BEAT_SECONDS = 10.0
_STALL_SECONDS = 60.0
_CLOSE_SECONDS = 3.0


class Link:
    """A program that runs on the board for as long as this object is open.

    Args:
        program: Python source; it finds the rest of what is sent in ``sys.stdin.buffer``.
        least: oldest Python that the program takes.
        beat: sent whenever nothing has been heard for 10 s, so that the board knows that somebody listens.

    Raises:
        HostError: the board cannot be reached or refuses, or its Python is missing or too old; one line.
    """

    def __init__(
        self,
        host: str,
        program: str,
        options: SshOptions,
        *,
        least: tuple[int, int] = (3, 8),
        beat: bytes = b"",
    ) -> None:
        if os.name != "posix":
            raise HostError(
                fault("--host", "works from Linux and macOS", got=os.name, fix="use WSL on Windows")
            )
        self.host = host
        self.during = "the start"
        self._beat = b""  # not before the program: it would be taken for a part of it
        self._pending = bytearray()
        self._stderr = tempfile.TemporaryFile()  # noqa: SIM115  (closed with the process)
        command = ssh_command(host, BOOTSTRAP, options)
        try:
            # A session of its own: Ctrl-C in the terminal is for the caller, who then closes the link.
            self._process = subprocess.Popen(  # noqa: S603
                command,
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=self._stderr,
                bufsize=0,
                start_new_session=True,
            )
        except OSError as error:
            self._stderr.close()
            fix = "install the OpenSSH client"
            raise HostError(fault(options.program, "cannot be run", got=error.strerror, fix=fix)) from None
        assert self._process.stdin and self._process.stdout
        self._stdin, self._stdout = self._process.stdin, self._process.stdout
        os.set_blocking(self._stdin.fileno(), False)
        try:
            self._greet(options.connect_seconds + 30.0, least)
            code = program.encode()
            self.send(b"%d\n" % len(code) + code)
            self._beat = beat
        except BaseException:
            self.close()
            raise

    @property
    def pid(self) -> int:
        return self._process.pid

    def send(self, data: bytes) -> None:
        """Write all of ``data``.

        Raises:
            EdgeKDError: the connection broke, or took nothing for a minute.
        """
        view, done = memoryview(data), 0
        with selectors.DefaultSelector() as selector:
            selector.register(self._stdin, selectors.EVENT_WRITE)
            while done < len(view):
                if not selector.select(_STALL_SECONDS):
                    raise self._lost()
                try:
                    done += os.write(self._stdin.fileno(), view[done : done + (1 << 16)])
                except BlockingIOError:
                    continue
                except OSError:
                    raise self._lost() from None

    def line(self, seconds: float) -> bytes:
        """The next line, without its end.

        Raises:
            EdgeKDError: the connection broke, or nothing came in time.
        """
        end, seen = time.monotonic() + seconds, 0
        while (place := self._pending.find(b"\n", seen)) < 0:
            seen = len(self._pending)
            block = self._read(end)
            if block is None:
                what = f"no answer in {seconds:.0f} s during {self.during}"
                raise EdgeKDError(fault(self.host, what, fix="is the board busy? run the same command again"))
            if not block:
                raise self._lost()
            self._pending += block
            if len(self._pending) > _MOST_LINE_BYTES:
                raise EdgeKDError(
                    fault(self.host, "prints without end", got=f"over {_MOST_LINE_BYTES} bytes")
                )
        line = bytes(self._pending[:place])
        del self._pending[: place + 1]
        return line

    def rest(self, seconds: float, most_bytes: int) -> tuple[bytes, int, str]:
        """Everything until the program ends: its output, exit status and standard error.

        Raises:
            EdgeKDError: it takes longer or prints more than that.
        """
        end = time.monotonic() + seconds
        while (block := self._read(end)) != b"":
            if block is None:
                raise EdgeKDError(
                    fault(self.host, f"did not end in {seconds:.0f} s", fix="is the board busy? try again")
                )
            self._pending += block
            if len(self._pending) > most_bytes:
                raise EdgeKDError(fault(self.host, "prints without end", got=f"over {most_bytes} bytes"))
        output = bytes(self._pending)
        self._pending.clear()
        return output, self._process.wait(), self.told()

    def told(self) -> str:
        """Standard error so far."""
        self._stderr.seek(0)
        return self._stderr.read(1 << 20).decode("utf-8", "replace")

    def close(self) -> None:
        """End ssh, and with it what runs on the board; also twice."""
        with contextlib.suppress(OSError):
            self._stdin.close()
        self._stdout.close()  # ssh must not wait for somebody who reads on
        try:
            self._process.wait(_CLOSE_SECONDS)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()
        self._stderr.close()

    def _greet(self, seconds: float, least: tuple[int, int]) -> None:
        end = time.monotonic() + seconds
        seen = 0
        while seen <= _NOISE_BYTES:
            while b"\n" not in self._pending:
                block = self._read(end)
                if block is None:
                    told = self.told() or "Connection timed out"
                    raise login_failure(self.host, 255, told)
                if not block:
                    raise login_failure(self.host, self._process.wait(), self.told())
                self._pending += block
            line, _, rest = bytes(self._pending).partition(b"\n")
            self._pending = bytearray(rest)
            seen += len(line) + 1
            mark, *version = line.split()[:3] or [b""]
            if mark == MARK and len(version) == 2:
                found = (int(version[0]), int(version[1]))
                if found >= least:
                    return
                raise HostError(
                    fault(
                        self.host, "python3 on the board is too old", got=f"{found[0]}.{found[1]}",
                        allowed=f"{least[0]}.{least[1]} or newer", fix="install a newer one as python3",
                    )
                )  # fmt: skip
        raise HostError(
            fault(self.host, "the login prints too much before it gets to python3", fix="quieten ~/.bashrc")
        )

    def _read(self, end: float) -> bytes | None:
        """Some bytes, none at the end of the output, None when the time is over. Beats while it waits."""
        with selectors.DefaultSelector() as selector:
            selector.register(self._stdout, selectors.EVENT_READ)
            while (left := end - time.monotonic()) > 0:
                if selector.select(min(left, _BEAT_SECONDS)):
                    return self._stdout.read(1 << 16)
                if self._beat and left > _BEAT_SECONDS:
                    self.send(self._beat)
        return None

    def _lost(self) -> EdgeKDError:
        try:
            code: int | None = self._process.wait(_CLOSE_SECONDS)
        except subprocess.TimeoutExpired:
            code = None
        return lost(self.host, code, self.told(), during=self.during)
