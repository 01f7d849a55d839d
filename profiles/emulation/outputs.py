"""What the Arm kernels answer against what this machine's do, on the same samples."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from edgekd.device import load_device
from edgekd.errors import ModelFileError, fault
from edgekd.profiles.emulation.cores import emulated_core
from edgekd.profiles.emulation.emulator import run_guest
from edgekd.profiles.session import open_session, run

if TYPE_CHECKING:
    from edgekd.device_spec import DeviceSpec

_STEPS = 2.0  # a rounding that falls the other way moves each of two logits by one quantization step
_EIGHT_BITS = 255
_LEVELS = 4096  # more distinct values than this are no quantized output


@dataclass(frozen=True)
class Disagreement:
    """One sample whose first choice differs.

    Attributes:
        margin: by how much the reference preferred its own choice over the emulated core's.
        steps: that margin in steps of the output's quantization; where it has none, in 1/255 of the sample's
            range, which is what eight bits would give it.
        near_tie: the margin is at most two steps: rounding explains it.
    """

    sample: int
    reference: int
    emulated: int
    margin: float
    steps: float
    near_tie: bool


@dataclass(frozen=True)
class Agreement:
    """First outputs ``(n, ...)`` of two runtimes on the same samples; the last axis is the choice.

    Attributes:
        core: the emulated one.
        top1: share of samples with the same first choice, 0 to 1.
        max_abs_diff: over all samples and outputs.
        step: of the output's quantization, the smallest distance between two values; 0 where it has none.
    """

    core: str
    runtime_version: str
    samples: int
    top1: float
    max_abs_diff: float
    mean_abs_diff: float
    step: float
    disagreements: tuple[Disagreement, ...]

    @property
    def explained(self) -> bool:
        """Every disagreement is a near tie."""
        return all(each.near_tie for each in self.disagreements)

    def to_json(self) -> dict[str, Any]:
        return {**vars(self), "disagreements": [vars(each) for each in self.disagreements]}


def emulate_outputs(
    model: Path, device: str | DeviceSpec, feeds: Mapping[str, np.ndarray], *, batch: int = 1
) -> Agreement:
    """Run samples through the board's kernels on an emulated core, and through this machine's.

    Args:
        feeds: for each input of the model the samples ``(n, ...)``, of its type.
        batch: samples at a time; must fit the model and divide ``n``.

    Raises:
        MissingDependencyError: qemu or the userland is missing; says what to install.
        DeviceError: the board's core cannot be emulated.
        ModelFileError: the file does not run, here or there.
    """
    spec = load_device(device) if isinstance(device, str) else device
    core = emulated_core(spec)
    model = Path(model).resolve()
    count = len(next(iter(feeds.values())))
    if count == 0 or count % batch:
        raise ModelFileError(
            fault("feeds", "samples must come in whole batches", got=count, allowed=str(batch))
        )
    session = open_session(model)
    chunks = [
        run(session, {name: values[start : start + batch] for name, values in feeds.items()})[0]
        for start in range(0, count, batch)
    ]
    request = {"do": "outputs", "model": str(model), "batch": batch}
    answer, folder, keeper = run_guest(request, feeds, core, counted=False)
    with keeper, np.load(folder / "outputs.npz", allow_pickle=False) as stored:
        emulated = np.asarray(stored[answer["outputs"][0]])
    return compare(
        np.concatenate(chunks), emulated, core=core.name, runtime_version=str(answer["runtime_version"])
    )


def compare(reference: np.ndarray, emulated: np.ndarray, *, core: str, runtime_version: str) -> Agreement:
    """Two sets of outputs ``(n, ...)`` to an :class:`Agreement`."""
    ours = reference.astype(np.float64).reshape(len(reference), -1)
    theirs = emulated.astype(np.float64).reshape(len(emulated), -1)
    difference = np.abs(ours - theirs)
    step = quantization_step(ours)
    found = []
    for sample in np.flatnonzero(ours.argmax(1) != theirs.argmax(1)):
        ours_first, theirs_first = int(ours[sample].argmax()), int(theirs[sample].argmax())
        margin = float(ours[sample, ours_first] - ours[sample, theirs_first])
        steps = margin / (step or float(np.ptp(ours[sample])) / _EIGHT_BITS)
        found.append(
            Disagreement(int(sample), ours_first, theirs_first, margin, steps, steps <= _STEPS + 1e-6)
        )
    return Agreement(
        core=core,
        runtime_version=runtime_version,
        samples=len(ours),
        top1=1.0 - len(found) / len(ours),
        max_abs_diff=float(difference.max()),
        mean_abs_diff=float(difference.mean()),
        step=step,
        disagreements=tuple(found),
    )


def quantization_step(values: np.ndarray) -> float:
    """Distance between neighbouring levels, if the values lie on a grid of few levels; else 0."""
    levels = np.unique(values)
    if not 2 < len(levels) <= _LEVELS or len(levels) > values.size // 4:
        return 0.0
    gaps = np.diff(levels)
    step = float(gaps.min())
    # On a grid every gap is a whole number of steps, but for float32's rounding.
    return step if np.abs(gaps / step - np.round(gaps / step)).max() < 0.02 else 0.0
