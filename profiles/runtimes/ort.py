"""ONNX Runtime, with any of its execution providers."""

from __future__ import annotations

from pathlib import Path

from edgekd.profiles.inputs import random_inputs, text_limits
from edgekd.profiles.runner import RunSettings
from edgekd.profiles.runtimes.loaded import Loaded
from edgekd.profiles.session import open_session, runtime


def version() -> str:
    return str(runtime().__version__)


def load(path: Path, settings: RunSettings) -> Loaded:
    """Open a session. ``run()`` of one session may be called from several threads at once."""
    session = open_session(path, threads=settings.threads, provider=settings.provider)
    feeds = random_inputs(
        session.get_inputs(),
        batch=settings.batch,
        shape=settings.shape,
        seed=settings.seed,
        text=text_limits(session),
    )
    shapes = {name: list(values.shape) for name, values in feeds.items()}
    return Loaded(lambda: session.run(None, feeds), shapes, provider=settings.provider)
