"""CrossQuant's diagnostic: the share of a layer's activations that its quantization rounds to zero.

W. Liu et al., "CrossQuant: A Post-Training Quantization Method with Smaller Quantization Kernel for Precise
Large Language Model Compression", 2024, arXiv 2410.07505: they call this share the quantization kernel and
find that accuracy falls with it. Values that were exactly zero before (behind a ReLU) are left out: nothing
is lost with them.
"""

from __future__ import annotations

from edgekd.quant.fake_quant import ActivationQuantizer
from edgekd.quant.histogram import Histogram
from edgekd.quant.observe import Observed
from edgekd.quant.qat import QuantizedModel
from edgekd.quant.simulate import range_key


def zero_share(histogram: Histogram, scale: float) -> float:
    """The share of the non-zero values within half a step of zero: a value in ``[-scale / 2, scale / 2]``
    rounds to the zero point."""
    total = float(histogram.counts.sum())
    return histogram.below(scale / 2) / total if total else 0.0


def zero_shares(model: QuantizedModel, observed: Observed) -> dict[str, float]:
    """By layer: the share of its input values, 0 to 1, that becomes zero under the present ranges."""
    shares = {}
    for site, range_site in model.placement.inputs.items():
        key = range_key(range_site)
        quantizer = model.quantizers[key]
        assert isinstance(quantizer, ActivationQuantizer)
        if key in observed.histograms:
            shares[site.module] = zero_share(observed.histograms[key], quantizer.numbers()[0])
    return shares
