"""edgekd's training loop against a bare PyTorch loop: same model, batches, optimizer and clipping, interleaved.

Both time an epoch's steps; validation and checkpoints, which a bare loop has not, are left out of both.
"""

from __future__ import annotations

import argparse
import statistics
import tempfile
import time
from pathlib import Path

import torch
from accelerate import Accelerator
from conditions import write
from torch.nn import functional as F

from edgekd.data.loader import train_loader
from edgekd.data.open import open_data
from edgekd.models.resolve import resolve_model
from edgekd.recipe import DataRecipe, InputRecipe
from edgekd.recipe_file import shipped_recipes
from edgekd.recipe_stages import AugmentRecipe, ObjectiveRecipe, TrainRecipe
from edgekd.train import fit
from edgekd.training import Training


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--samples", type=int, default=12_800)
    options = parser.parse_args()
    base = shipped_recipes()["demo"].parent
    data = open_data(
        DataRecipe(path="builtin:fashion-mnist", max_train=options.samples, max_test=1000), base=base
    )
    recipe = TrainRecipe(epochs=1, batch_size=128, augment=AugmentRecipe(crop_padding=2),
                         objectives={"ce": ObjectiveRecipe()})  # fmt: skip
    rates: dict[str, list[float]] = {"bare": [], "edgekd": []}
    for turn in range(options.rounds + 1):
        arms = [("bare", bare), ("edgekd", ours)]
        for name, arm in arms if turn % 2 else arms[::-1]:
            model = resolve_model("torch:fashion_nets.py:student", classes=10, input=InputRecipe(), base=base,
                                  where="student", role="student")  # fmt: skip
            model.module.requires_grad_(True)
            rate = arm(model, data, recipe)
            if turn:  # the first turn warms up
                rates[name].append(rate)
    ratios = [b / o for b, o in zip(rates["bare"], rates["edgekd"], strict=True)]
    write(
        f"loop-overhead-fashion-student-batch-{recipe.batch_size}",
        {
            "samples_per_second": rates,
            "overhead": [r - 1 for r in ratios],
            "median_overhead": statistics.median(ratios) - 1,
        },
    )


def bare(loaded, data, recipe) -> float:
    model = loaded.module.to(memory_format=torch.channels_last).train()
    optimizer = torch.optim.AdamW(
        model.parameters(), lr=recipe.lr, weight_decay=recipe.weight_decay, fused=True
    )
    loader = train_loader(data.train, loaded.preprocess, recipe.augment, batch_size=recipe.batch_size, seed=0, slot=0,
                          order_seed=0, workers=None)  # fmt: skip
    begun, samples = time.perf_counter(), 0
    for batch in loader:
        loss = F.cross_entropy(
            model(batch["inputs"].contiguous(memory_format=torch.channels_last)), batch["labels"]
        )
        optimizer.zero_grad(set_to_none=True)
        loss.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), recipe.clip_norm)
        optimizer.step()
        loss.item()
        samples += len(batch["inputs"])
    return samples / (time.perf_counter() - begun)


def ours(loaded, data, recipe) -> float:
    with tempfile.TemporaryDirectory() as folder:
        training = Training(stage="bench", data=data, preprocess=loaded.preprocess, seed=0,
                            folder=Path(folder), accelerator=Accelerator(cpu=True))  # fmt: skip
        result = fit(loaded.module, recipe, training)
    return result.history[0].samples_per_second


if __name__ == "__main__":
    main()
