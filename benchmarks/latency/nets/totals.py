"""Models of which no more is at hand than multiply-accumulates and parameters, as their authors state them.

NanoDet's "FLOPs" are twice the multiply-accumulates (its NanoDet-m, 0.72, is 0.34 layer by layer).
"""

from __future__ import annotations

from edgekd.profiles.estimation.operators import Workload

_NANODET = "github RangiLyu/nanodet README.md"
_SAM = "github mit-han-lab/efficientvit applications/efficientvit_sam/README.md"
# Model and shape; 1e6 multiply-accumulates and parameters.
_STATED: dict[tuple[str, str], tuple[float, float, str]] = {
    ("nasnet_mobile", "1x3x224x224"): (564, 5.3, "arXiv:1707.07012 table 3"),
    ("nanodet_plus_m", "1x3x320x320"): (450, 1.17, _NANODET),
    ("nanodet_plus_m", "1x3x416x416"): (760, 1.17, _NANODET),
    ("nanodet_plus_m_1.5x", "1x3x320x320"): (875, 2.44, _NANODET),
    ("nanodet_plus_m_1.5x", "1x3x416x416"): (1485, 2.44, _NANODET),
    ("efficientvit_sam_l0_sam", "1x3x512x512"): (35_000, 34.8, _SAM),
    ("efficientvit_sam_l1_sam", "1x3x512x512"): (49_000, 47.7, _SAM),
    ("efficientvit_sam_l2_sam", "1x3x512x512"): (69_000, 61.3, _SAM),
    ("efficientvit_sam_xl0_sam", "1x3x1024x1024"): (185_000, 117.0, _SAM),
    ("efficientvit_sam_xl1_sam", "1x3x1024x1024"): (322_000, 203.3, _SAM),
}


def stated_totals(model: str, shape: str) -> Workload | None:
    """A workload without operators."""
    if (model, shape) not in _STATED:
        return None
    macs, weights, source = _STATED[model, shape]
    sizes = tuple(int(size) for size in shape.split("x"))
    totals = {"macs": round(macs * 1e6), "weights": round(weights * 1e6)}
    return Workload(
        (), inputs={"input": sizes}, totals=totals, source=source, notes=("only totals are known",)
    )
