"""The teacher of one stage: which network, in which precision, with which stored answers."""

from __future__ import annotations

import torch
from torch import nn

from edgekd.data.image_augment import ImageAugment
from edgekd.data.loader import require_no_augmentation
from edgekd.data.source import has_targets
from edgekd.distill.cache_key import CacheKey
from edgekd.distill.loss import DistillationLoss
from edgekd.distill.teacher import Teacher, fingerprint
from edgekd.distill.teacher_cache import TeacherCache
from edgekd.errors import PreconditionError, RecipeError, fault
from edgekd.preprocess_text import TextPreprocess
from edgekd.recipe_stages import TrainRecipe
from edgekd.schedule import augment_seed, autocast_dtype, batch_size_for, require_batch
from edgekd.stages.base import StageContext


def require_training(
    recipe: TrainRecipe, model: nn.Module, context: StageContext, *, folded: bool = False
) -> None:
    """What can be said of a stage's training before the first stage begins.

    Args:
        folded: the stage folds batch norms before it trains.

    Raises:
        RecipeError: an objective or an augmentation that does not exist, or settings that exclude each other.
        PreconditionError: a batch of 1 with batch norm, or features of a black-box teacher.
    """
    if not folded:
        require_batch(model, batch_size_for(recipe, context.data, context.accelerator), context.name)
    layers = DistillationLoss(recipe.objectives, recipe).layers
    black_box = context.teacher is not None and next(context.teacher.parameters(), None) is None
    if layers and black_box and getattr(recipe, "teacher", None) != "dense":
        raise PreconditionError(
            fault(f"{context.name}.objectives", "the teacher is a black box, whose features cannot be read",
                  got=", ".join(layers), fix="use kd")
        )  # fmt: skip
    if recipe.teacher_cache and has_targets(context.data.train.source):
        raise RecipeError(
            fault(f"{context.name}.teacher_cache", "stores which class is likeliest, not each label's own chance",
                  got=True, fix="set teacher_cache: false: the data have several labels a text")
        )  # fmt: skip
    if isinstance(context.preprocess, TextPreprocess):
        require_no_augmentation(recipe.augment, f"{context.name}.augment")
    else:
        ImageAugment(context.preprocess, recipe.augment).build()


def teacher_for(
    recipe: TrainRecipe, context: StageContext, module: nn.Module | None = None
) -> Teacher | None:
    """The stage's teacher; None when no objective asks one.

    Stored answers are shared by all stages of a run whose teacher, data and augmentation are equal: the
    cache's folder is named by its key.

    Args:
        module: instead of the run's teacher, such as the dense student before pruning.
    """
    module = module if module is not None else context.teacher
    needs = DistillationLoss(recipe.objectives, recipe).needs
    label_free = not (context.data.validation.labels >= 0).all()
    if module is None or not (needs.teacher_logits or needs.features or label_free):
        return None
    module.to(context.accelerator.device)
    module.to(memory_format=torch.channels_last)  # type: ignore[call-overload]  # measured 1.2 to 1.4x faster
    dtype = autocast_dtype(recipe, context.accelerator.device)
    cache = None
    if recipe.teacher_cache:
        key = CacheKey.of(
            teacher=fingerprint(module), data=context.data.fingerprint, samples=context.data.train.indices,
            augment=recipe.augment, preprocess=context.preprocess, seed=augment_seed(context.seed),
            top_k=recipe.cache_top_k, slots=recipe.cache_slots,
            batch_size=batch_size_for(recipe, context.data, context.accelerator),
            precision="fp32" if dtype is None else str(dtype),
        )  # fmt: skip
        cache = TeacherCache(
            context.cache_folder / key.hash()[:16], key, samples=context.data.train.indices,
            classes=context.classes, top_k=recipe.cache_top_k, slots=recipe.cache_slots,
        )  # fmt: skip
    return Teacher(module, needs=needs, cache=cache, autocast=dtype)
