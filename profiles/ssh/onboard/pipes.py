"""Everything that the agent reads and writes, in one thread: the caller, the guard, a worker, a monitor."""

from __future__ import annotations

import json
import os
import selectors
import signal
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

ENDINGS = (signal.SIGTERM, signal.SIGHUP, signal.SIGINT, signal.SIGALRM, signal.SIGPIPE)
_BLOCK = 1 << 16
_CALLER, _ANSWERS = 0, 1


class Gone(BaseException):
    """Nobody is there any more to work for. No error to report: there is nobody to report it to."""


class Pipes:
    """Waits on everything at once.

    Args:
        guard: file descriptor that ends when the guard does.
        lease_seconds: a caller that is silent for longer is gone, whatever its connection claims.
    """

    def __init__(self, guard: int, lease_seconds: int) -> None:
        self._guard = guard
        self._lease = lease_seconds
        self._buffer = bytearray()
        self._watched: dict[int, Callable[[bytes], None]] = {}
        self._selector = selectors.DefaultSelector()
        for descriptor in (_CALLER, guard):
            self._selector.register(descriptor, selectors.EVENT_READ)
        for number in ENDINGS:
            signal.signal(number, _leave)
        signal.alarm(lease_seconds)

    def request(self) -> dict[str, Any]:
        """The next request; lines without one are signs of life."""
        while True:
            end = self._buffer.find(b"\n")
            if end < 0:
                self._wait()
                continue
            line = bytes(self._buffer[:end])
            del self._buffer[: end + 1]
            if line.strip():
                return dict(json.loads(line))

    def blocks(self, size: int) -> Iterator[bytes]:
        """The ``size`` bytes that follow a request."""
        while size:
            if not self._buffer:
                self._wait()
                continue
            block = bytes(self._buffer[:size])
            del self._buffer[: len(block)]
            size -= len(block)
            yield block

    def answer(self, answer: dict[str, Any]) -> None:
        data = memoryview(json.dumps(answer).encode() + b"\n")
        while data:
            try:
                data = data[os.write(_ANSWERS, data) :]
            except OSError:
                raise Gone from None

    def pass_on(self, descriptor: int, data: bytes) -> bool:
        """Write to another process that may be slow to read; whether it took everything."""
        view = memoryview(data)
        os.set_blocking(descriptor, False)
        self._selector.register(descriptor, selectors.EVENT_WRITE)
        try:
            while view:
                if descriptor in self._wait():
                    view = view[os.write(descriptor, view) :]
            return True
        except OSError:
            return False
        finally:
            self._selector.unregister(descriptor)

    def line_of(self, descriptor: int) -> bytes | None:
        """One line of another process; None when it ended before. How long is the caller's to decide."""
        line = bytearray()
        self._selector.register(descriptor, selectors.EVENT_READ)
        try:
            while not line.endswith(b"\n"):
                if descriptor in self._wait():
                    block = os.read(descriptor, _BLOCK)
                    if not block:
                        return None
                    line += block
            return bytes(line)
        finally:
            self._selector.unregister(descriptor)

    def watch(self, descriptor: int, told: Callable[[bytes], None]) -> None:
        """Pass on what a process prints, whenever it does."""
        self._watched[descriptor] = told
        self._selector.register(descriptor, selectors.EVENT_READ)

    def _wait(self) -> set[int]:
        ready = {key.fd for key, _ in self._selector.select()}
        if self._guard in ready:
            raise Gone
        if _CALLER in ready:
            block = os.read(_CALLER, _BLOCK)
            if not block:
                raise Gone
            self._buffer += block
            signal.alarm(self._lease)
        for descriptor in ready & set(self._watched):
            block = os.read(descriptor, _BLOCK)
            if block:
                self._watched[descriptor](block)
            else:
                self._selector.unregister(descriptor)
                del self._watched[descriptor]
        return ready


def _leave(number: int, frame: object) -> None:
    raise Gone


def ignore_endings() -> None:
    """From here on nothing interrupts: what is left is cleaning up."""
    for number in ENDINGS:
        signal.signal(number, signal.SIG_IGN)
