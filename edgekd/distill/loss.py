"""The weighted sum of a stage's objectives."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Literal

import torch
from torch import Tensor, nn

from edgekd.distill.attention_sites import AttentionPair, match_attention
from edgekd.distill.call_shapes import record_shapes
from edgekd.distill.features import match_embeddings, match_layers
from edgekd.distill.objectives import OBJECTIVES, build_objective
from edgekd.distill.objectives.base import Needs, Objective, Outputs
from edgekd.distill.objectives.hidden import HiddenStates
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
        adapters: after :meth:`bind`, the weights that the objectives themselves have (linear maps between
            different widths): they are trained with the student and then forgotten.
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
        self.adapters = nn.ModuleDict()
        self._positions: dict[str, list[int]] = {}
        self._attention: dict[str, AttentionPair] = {}

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
        self.pairs, self._positions, self._attention = [], {}, {}
        for name, layers in self.layers.items():
            chosen = self._choose(name, layers, student, teacher, example)
            self.pairs += [pair for pair in chosen if pair not in self.pairs]
            self._positions[name] = [self.pairs.index(pair) for pair in chosen]
        self._fit(student, teacher, example)
        return self.pairs

    def _choose(
        self,
        name: str,
        layers: Literal["auto"] | list[tuple[str, str]],
        student: nn.Module,
        teacher: nn.Module,
        example: Tensor,
    ) -> list[tuple[str, str]]:
        where = f"objectives.{name}.layers"
        reads = OBJECTIVES[name].reads
        if reads == "attention":
            self._attention[name] = match_attention(student, teacher, example, layers, where=where)
            return self._attention[name].modules
        if reads == "embedding":
            return match_embeddings(student, teacher, example, where=f"objectives.{name}")
        return match_layers(student, teacher, example, layers, where=where)

    def _fit(self, student: nn.Module, teacher: nn.Module, example: Tensor) -> None:
        """Let the objectives that have weights of their own make them, as their layers' widths want."""
        fitting = {name: each for name, each in self.objectives.items() if isinstance(each, HiddenStates)}
        if not fitting:
            return
        ours, theirs = record_shapes(student, example), record_shapes(teacher, example)
        for name, objective in fitting.items():
            pairs = [self.pairs[position] for position in self._positions[name]]
            made = objective.fit([(ours[mine], theirs[its]) for mine, its in pairs])
            self.adapters.update({f"{name}-{key}": adapter for key, adapter in made.items()})
        self.adapters.to(example.device)

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
        student = [outputs.student_features[i] for i in positions]
        teacher = [outputs.teacher_features[i] for i in positions]
        heads = None
        if name in self._attention:
            both = self._attention[name]
            student = [part.of(each) for part, each in zip(both.student.sources, student, strict=True)]
            teacher = [part.of(each) for part, each in zip(both.teacher.sources, teacher, strict=True)]
            heads = (both.student.heads, both.teacher.heads)
        return replace(
            outputs, student_features=student, teacher_features=teacher, heads=heads,
            layers=[self.pairs[i] for i in positions],
        )  # fmt: skip


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
