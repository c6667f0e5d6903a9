"""What a collapse costs or gains, which classes it takes, and depth."""

from __future__ import annotations

import numpy as np

import pyssl
from pyssl.testing import commuting_moments


class Downstream:
    """Learning curves of a probe, and the modes that it does better without."""

    d, k = 256, 64

    def setup(self) -> None:
        rng = np.random.default_rng(0)
        basis = np.linalg.qr(rng.standard_normal((self.d, self.d)))[0]
        self.covariance = (basis / np.arange(1.0, self.d + 1.0)) @ basis.T
        self.W = rng.standard_normal((self.k, self.d))
        self.target = rng.standard_normal(self.d)
        self.n_samples = np.arange(10, 1000, 10)
        small = 16
        self.moments = commuting_moments(np.linspace(0.9, 0.1, small), np.ones(small), rng)
        self.small_target = rng.standard_normal(small)

    def time_learning_curve(self) -> None:
        pyssl.downstream_risk(self.W, self.covariance, self.target, self.n_samples, 0.1, 1.0)

    def time_learning_curve_with_tuned_ridges(self) -> None:
        pyssl.downstream_risk(self.W, self.covariance, self.target, self.n_samples, 0.1, "optimal")

    def time_helpful_collapse(self) -> None:
        pyssl.helpful_collapse(self.moments, self.small_target, 20, noise=1.0)


class Imbalance:
    """Classes of a long-tailed mixture under noise."""

    d, classes = 64, 10

    def setup(self) -> None:
        rng = np.random.default_rng(0)
        priors = pyssl.long_tailed_priors(self.classes, 100.0)
        means = 3.0 * rng.standard_normal((self.classes, self.d)) / np.sqrt(self.d)
        self.mix = pyssl.Mixture(priors, means, np.eye(self.d) / self.d)
        self.aug = pyssl.augment.Noise(0.1)
        moments = self.mix.moments(self.aug)
        self.land = pyssl.InfoNCE().population(moments, 4, weight_decay=0.05)

    def time_class_retention(self) -> None:
        pyssl.class_retention(self.land, self.mix, self.aug)

    def time_critical_prior(self) -> None:
        last = self.classes - 1
        pyssl.critical_prior(
            pyssl.InfoNCE(), self.mix, self.aug, last, embedding_dim=4, weight_decay=0.05
        )


class Depth:
    """Deep landscapes: every well, and derivatives of the decay."""

    d, k = 128, 32
    params = (2, 4)
    param_names = ("depth",)

    def setup(self, depth: int) -> None:
        rng = np.random.default_rng(0)
        self.moments = commuting_moments(np.linspace(0.9, 0.1, self.d), np.ones(self.d), rng)
        self.land = self.make(depth)
        self.W = rng.standard_normal((self.k, self.d)) / np.sqrt(self.d)

    def make(self, depth: int) -> pyssl.Landscape:
        return pyssl.SpectralContrastive().population(
            self.moments, self.k, weight_decay=0.1, depth=depth
        )

    def time_classify(self, depth: int) -> None:
        pyssl.classify(self.make(depth))

    def time_value_and_gradient(self, depth: int) -> None:
        self.land.value_and_gradient(self.W)
