"""ONNX Runtime, with any of its execution providers."""

from __future__ import annotations

from collections import Counter
from pathlib import Path
from typing import Any

from edgekd.profiles.inputs import random_inputs, text_limits
from edgekd.profiles.runner import RunSettings
from edgekd.profiles.runtimes.loaded import Loaded
from edgekd.profiles.runtimes.providers import PROVIDERS
from edgekd.profiles.session import open_session, runtime


def version() -> str:
    return str(runtime().__version__)


def load(path: Path, settings: RunSettings) -> Loaded:
    """Open a session. ``run()`` of one session may be called from several threads at once."""
    session = open_session(path, threads=settings.threads, provider=settings.provider, flush_denormals=True)
    feeds = random_inputs(
        session.get_inputs(),
        batch=settings.batch,
        shape=settings.shape,
        seed=settings.seed,
        text=text_limits(session),
    )
    shapes = {name: list(values.shape) for name, values in feeds.items()}
    return Loaded(
        lambda: session.run(None, feeds),
        shapes,
        provider=settings.provider,
        notes=_elsewhere(session, settings.provider),
    )


def _elsewhere(session: Any, provider: str) -> list[str]:
    """Nodes that the provider did not take: they run on the CPU, with copies to and fro."""
    tell = getattr(session, "get_provider_graph_assignment_info", None)  # ONNX Runtime 1.24 and later
    if provider == "cpu" or tell is None:
        return []
    nodes: Counter[str] = Counter()
    for part in tell():
        nodes[part.ep_name] += len(part.get_nodes())
    left = sum(nodes.values()) - nodes[PROVIDERS[provider]]
    if not left:
        return []
    return [f"{left} of {sum(nodes.values())} nodes do not run on {provider} but on the cpu"]
