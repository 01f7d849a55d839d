"""The stages of a run, by the class of their settings."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from edgekd.recipe_stages import (
    ChannelStage,
    DepthStage,
    DistillStage,
    LowRankStage,
    PruneStage,
    PtqStage,
    QuantizeStage,
    WeightOnlyStage,
)
from edgekd.stages.base import Stage
from edgekd.stages.distill import Distill
from edgekd.stages.prune import Prune
from edgekd.stages.prune_channels import PruneChannels
from edgekd.stages.prune_depth import PruneDepth
from edgekd.stages.prune_low_rank import PruneLowRank
from edgekd.stages.ptq import PostTrainingQuantize
from edgekd.stages.quantize import Quantize
from edgekd.stages.weight_only import WeightOnly

STAGES: dict[type, Callable[[Any], Stage]] = {
    DistillStage: Distill,
    PruneStage: Prune,
    ChannelStage: PruneChannels,
    DepthStage: PruneDepth,
    LowRankStage: PruneLowRank,
    QuantizeStage: Quantize,
    PtqStage: PostTrainingQuantize,
    WeightOnlyStage: WeightOnly,
}

__all__ = ["STAGES", "Stage"]
