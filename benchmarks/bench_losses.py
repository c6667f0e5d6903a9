"""The losses of the registry: on embeddings, and from moments to a classification."""

from __future__ import annotations

import timeit
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


class Planes:
    """A plane of the landscape of a batch, and what an evaluation a point would take instead."""

    params = (("dot", "sqeuclidean"), (False, True), ("float64", "float32"))
    param_names = ("similarity", "symmetric", "dtype")
    n, k, points = 512, 64, 32

    def setup(self, similarity: str, symmetric: bool, dtype: str) -> None:
        rng = np.random.default_rng(0)
        x, noise = rng.standard_normal((2, self.n, self.k)).astype(dtype)
        corners = rng.standard_normal((3, self.k, self.k)) / self.k**0.5
        self.corners = corners.astype(dtype)
        self.axis = np.linspace(-1.0, 1.0, self.points).astype(dtype)
        loss = pyssl.InfoNCE(1.0, similarity, symmetric=symmetric)
        self.land = loss.empirical(x, x + 0.2 * noise, embedding_dim=self.k)
        self.land.value(self.corners[0])

    def time_plane(self, *_: object) -> None:
        self.land.plane(*self.corners, self.axis, self.axis)

    def time_value(self, *_: object) -> None:
        self.land.value(self.corners[0])

    def track_times_faster_than_values(self, *_: object) -> float:
        plane = min(timeit.repeat(self.time_plane, number=1, repeat=2))
        value = min(timeit.repeat(self.time_value, number=1, repeat=10))
        return self.points**2 * value / plane


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
