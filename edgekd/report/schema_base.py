"""What all parts of ``report.json`` are made of: numbers within their bounds, and how good a model's answers are."""

from __future__ import annotations

from typing import Annotated

from pydantic import BaseModel, ConfigDict, Field

Fraction = Annotated[float, Field(ge=0, le=1)]
Count = Annotated[int, Field(ge=0)]
Amount = Annotated[float, Field(ge=0)]


class Open(BaseModel):
    """Unknown keys are kept; NaN and infinities are refused: they are not JSON."""

    model_config = ConfigDict(
        extra="allow", allow_inf_nan=False, populate_by_name=True, protected_namespaces=()
    )


class Metrics(Open):
    top1: Fraction | None = None
    agreement: Fraction | None = Field(default=None, description="share of samples with the teacher's top-1")
    ece: Fraction | None = None
    nll: Amount | None = None
    f1_macro: Fraction | None = None
    f1_micro: Fraction | None = Field(default=None, description="with several labels a text")
    exact_match: Fraction | None = Field(default=None, description="share of texts with every label right")

    @property
    def accuracy(self) -> float | None:
        """What a reader asks first: top-1, or micro F1 with several labels a text."""
        return self.f1_micro if self.top1 is None else self.top1

    @property
    def accuracy_name(self) -> str:
        return "top-1" if self.f1_micro is None else "micro F1"
