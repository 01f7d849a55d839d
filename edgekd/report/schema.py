"""``report.json``, schema 1: the facts of a run, as data. Everything else in this room only draws them.

Fractions are 0 to 1, times are named in their unit, a number that does not exist is ``null`` (a label-free
run has no ``top1``). Keys that are not listed are kept: a newer writer does not break an older reader.
"""

from __future__ import annotations

from typing import Any, Literal

from pydantic import Field

from edgekd.report.schema_base import Amount, Count, Fraction, Metrics, Open
from edgekd.report.schema_deployed import DeployFacts

SCHEMA = 1


class RecipeFacts(Open):
    name: str
    hash: str


class ModelFacts(Open):
    """The specs as the user wrote them, such as ``timm:resnet18``; ``same``: the teacher itself."""

    teacher: str | None = None
    student: str | None = None


class DataFacts(Open):
    """``train``, ``validation`` and ``test`` are sample counts; ``classes`` a count.

    ``commonest`` is the share of the commonest class among the test samples, where each has one known label.
    """

    name: str
    train: Count
    validation: Count
    test: Count
    classes: int | None = None
    commonest: Fraction | None = None
    fingerprint: str | None = None
    provenance: dict[str, Any] = Field(default_factory=dict)


class MachineFacts(Open):
    """The machine that ran the stages and the local measurements; ``threads`` are those of training."""

    cpu: str | None = None
    cores: int | None = None
    threads: int | None = None


class Epoch(Open):
    """One epoch of a stage; ``teacher_seconds`` is the part of ``seconds`` that the teacher took."""

    epoch: int
    train_loss: float | None = None
    val_top1: Fraction | None = None
    val_agreement: Fraction | None = None
    val_f1_micro: Fraction | None = None
    lr: Amount | None = None
    seconds: Amount | None = None
    samples_per_second: Amount | None = None
    teacher_seconds: Amount | None = None


class KeptMagnitude(Open):
    """Share of the weights' magnitude that the mask keeps, before and after channel permutation."""

    before: Fraction | None = None
    after: Fraction | None = None


class KeptLayer(Open):
    """A layer in float; ``kl`` (nats) is what its integers alone did to the answers."""

    name: str
    reason: str = ""
    kl: Amount | None = None
    macs_share: Fraction | None = None


class StageQuantization(Open):
    """How a stage quantized. ``zero_shares``: by layer, the share of its inputs that becomes zero."""

    method: str | None = None
    algorithm: str | None = Field(default=None, description="of weight-only: rtn, gptq or awq")
    scheme: str | None = None
    smooth: float | str | None = None
    ranges: str | None = None
    kept_float: list[KeptLayer] = Field(default_factory=list)
    zero_shares: dict[str, Fraction] = Field(default_factory=dict)


class StageFacts(Open):
    """A stage and the torch model that it left, evaluated on the test split."""

    name: str
    metrics: Metrics
    params: Count | None = None
    nonzero_params: Count | None = None
    macs: Count | None = None
    seconds: Amount | None = None
    kept_magnitude: KeptMagnitude | Fraction | None = None
    quantization: StageQuantization | None = None
    history: list[Epoch] = Field(default_factory=list)
    notes: list[str] = Field(default_factory=list)


class TextBaseline(Open):
    """A method without a network, on the same texts: what any result has to be compared with."""

    name: str
    metrics: Metrics
    seconds: Amount | None = None


class Report(Open):
    schema_version: Literal[1] = Field(default=1, alias="schema")
    recipe: RecipeFacts
    task: str
    models: ModelFacts = ModelFacts()
    data: DataFacts
    versions: dict[str, str]
    torch_device: str
    machine: MachineFacts = MachineFacts()
    seeds: dict[str, int] = Field(default_factory=dict)
    seconds: Amount
    stages: list[StageFacts]
    text_baseline: TextBaseline | None = None
    deploy: list[DeployFacts]
    warnings: list[str] = Field(default_factory=list)
