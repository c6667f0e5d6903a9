"""The losses of the registry: on embeddings, and from moments to a classification."""

from __future__ import annotations

from itertools import islice

import numpy as np

import pyssl
from pyssl.report import closed_form, named_losses
from pyssl.testing import random_moments


class Embeddings:
    """A batch of embeddings: what a training step asks for."""

    params = (tuple(pyssl.LOSSES), ("float64", "float32"))
    param_names = ("loss", "dtype")
    n, k = 512, 64

    def setup(self, name: str, dtype: str) -> None:
        self.loss = pyssl.LOSSES[name]()
        clean, *noise = np.random.default_rng(0).standard_normal((5, self.n, self.k))
        self.z, self.z_plus, self.dz, self.dz_plus = (
            (clean + 0.5 * item).astype(dtype) for item in noise
        )

    def time_value(self, *_: object) -> None:
        self.loss.value(self.z, self.z_plus)

    def time_value_and_gradient(self, *_: object) -> None:
        self.loss.value_and_gradient(self.z, self.z_plus)

    def time_hvp(self, *_: object) -> None:
        self.loss.hvp(self.z, self.z_plus, self.dz, self.dz_plus)


class ClosedForm:
    """A landscape is made anew for each call: what it caches is part of the cost."""

    params = (tuple(pyssl.LOSSES), (16, 128))
    param_names = ("loss", "d")

    def setup(self, name: str, d: int) -> None:
        self.loss = named_losses(name)[name]
        self.moments = random_moments(np.linspace(0.9, 0.1, d), np.random.default_rng(0))
        self.k = d // 2
        self.landscape()  # a loss without closed form raises here, and asv skips it

    def landscape(self) -> pyssl.SpectralLandscape:
        return closed_form(self.loss, self.moments, self.k, 0.1)

    def time_classify(self, *_: object) -> None:
        pyssl.classify(self.landscape())

    def time_minimum_and_hundred_points(self, *_: object) -> None:
        land = self.landscape()
        land.minimum()
        for point in islice(land.stationary_points(), 100):
            self.seen = point.value, point.index
