"""Augmentations as random affine maps: what they do to moments, exactly, and samples of them.

An augmentation knows how it changes the mean and the second moments of the data (theory 6), so
that landscapes need no views; `sample` draws the views that those moments belong to. Augmentations
compose with ``|``, from left to right, and each has a strength.

>>> import numpy as np, pyssl
>>> augmentation = pyssl.augment.Noise(0.5) | pyssl.augment.Mask(0.8)
>>> augmentation.moments(np.diag([4.0, 1.0])).alignments.round(3)
array([0.711, 0.533])
"""

from pyssl.augment._base import Augmentation, Composition, Family, Identity
from pyssl.augment._critical import critical_strengths
from pyssl.augment._grids import Blur, Crop, Resize
from pyssl.augment._group import Group
from pyssl.augment._linear import Linear, OneOf, Scale
from pyssl.augment._maps import Mask, Noise, Reflection

__all__ = [
    "Augmentation",
    "Blur",
    "Composition",
    "Crop",
    "Family",
    "Group",
    "Identity",
    "Linear",
    "Mask",
    "Noise",
    "OneOf",
    "Reflection",
    "Resize",
    "Scale",
    "critical_strengths",
]
