"""Every loss by name."""

from __future__ import annotations

from pyssl.contrastive_losses import InfoNCE, NTXent, SpectralContrastive
from pyssl.loss import Loss
from pyssl.redundancy_losses import BarlowTwins, SquaredVICReg, VICReg

__all__ = [
    "LOSSES",
    "BarlowTwins",
    "InfoNCE",
    "Loss",
    "NTXent",
    "SpectralContrastive",
    "SquaredVICReg",
    "VICReg",
]

# Tests, benchmarks and the command line go through it.
LOSSES: dict[str, type[Loss]] = {
    loss.key: loss
    for loss in (InfoNCE, NTXent, SpectralContrastive, BarlowTwins, VICReg, SquaredVICReg)
}
