"""The weighted sum of a stage's objectives."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Literal

import torch
from torch import Tensor, nn

from edgekd.distill.features import match_layers
from edgekd.distill.objectives import build_objective
from edgekd.distill.objectives.base import Needs, Objective, Outputs
from edgekd.errors import PreconditionError, RecipeError, fault
from edgekd.recipe_stages import ObjectiveRecipe, TrainRecipe


class DistillationLoss:
    """``sum of weight * objective``.

    Attributes:
        needs: the union over the objectives: what the training loop has to compute.
        objectives: by name.
        weights: by name.
        layers: the layer requests of the objectives that read features, by name: "auto" or pairs.
        pairs: after :meth:`bind`, the (student, teacher) modules to capture, each once; the features in
            ``Outputs`` stand in this order.
    """

    def __init__(self, objectives: Mapping[str, ObjectiveRecipe], train: TrainRecipe) -> None:
        """
        Raises:
            RecipeError: an unknown objective, a setting it does not read, or a teacher cache asked for with
                an objective that reads features.
        """
        self.objectives: dict[str, Objective] = {}
        self.weights: dict[str, float] = {}
        self.layers: dict[str, Literal["auto"] | list[tuple[str, str]]] = {}
        self.needs = Needs()
        for name, recipe in objectives.items():
            objective = build_objective(name, recipe, train)
            self.objectives[name] = objective
            self.weights[name] = recipe.weight
            self.needs |= objective.needs
            if objective.needs.features:
                self.layers[name] = recipe.layers
        if train.teacher_cache and self.layers:
            refuse_cache_for_features(next(iter(self.layers)))
        self.pairs: list[tuple[str, str]] = []
        self._positions: dict[str, list[int]] = {}

    def bind(self, student: nn.Module, teacher: nn.Module, example: Tensor) -> list[tuple[str, str]]:
        """Choose the layers of each objective that reads features, by one forward pass of both models.

        Args:
            student, teacher: the modules themselves, not a wrapper for several processes.
            example: ``(batch, channels, height, width)`` on the models' device.

        Returns:
            ``pairs``; empty when no objective reads features.

        Raises:
            RecipeError: a layer that does not exist, or nothing to choose from.
        """
        self.pairs, self._positions = [], {}
        for name, layers in self.layers.items():
            chosen = match_layers(student, teacher, example, layers, where=f"objectives.{name}.layers")
            self.pairs += [pair for pair in chosen if pair not in self.pairs]
            self._positions[name] = [self.pairs.index(pair) for pair in chosen]
        return self.pairs

    def __call__(self, outputs: Outputs) -> tuple[Tensor, dict[str, Tensor]]:
        """
        Returns:
            The float32 scalar to minimise, and each objective's own value, unweighted and detached.

        Raises:
            PreconditionError: the batch lacks what an objective reads.
        """
        terms: list[Tensor] = []
        parts: dict[str, Tensor] = {}
        for name, objective in self.objectives.items():
            value = objective(self._view(name, outputs))
            parts[name] = value.detach()
            terms.append(self.weights[name] * value)
        return torch.stack(terms).sum(), parts

    def _view(self, name: str, outputs: Outputs) -> Outputs:
        """``outputs`` with the features of one objective alone."""
        if name not in self._positions:
            return outputs
        if not len(outputs.student_features) == len(outputs.teacher_features) == len(self.pairs):
            raise PreconditionError(
                fault(
                    f"objectives.{name}",
                    "the features do not fit the layer pairs",
                    got=f"{len(outputs.student_features)} and {len(outputs.teacher_features)}",
                    allowed=str(len(self.pairs)),
                )
            )
        positions = self._positions[name]
        return replace(
            outputs,
            student_features=[outputs.student_features[i] for i in positions],
            teacher_features=[outputs.teacher_features[i] for i in positions],
            layers=[self.pairs[i] for i in positions],
        )


def refuse_cache_for_features(objective: str) -> None:
    """
    Raises:
        RecipeError: always.
    """
    raise RecipeError(
        fault(
            "teacher_cache",
            f"true with objective {objective}, which reads features; the cache holds answers only",
            fix=f"set teacher_cache: false, or drop {objective}",
        )
    )
