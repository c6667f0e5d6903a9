"""What a landscape answers: values, derivatives, planes, mode coordinates, batches, amplitudes."""

from __future__ import annotations

import numpy as np

import pyssl
from pyssl.testing import random_pencil

POTENTIALS = {
    "quartic": pyssl.Quartic(0.5),
    **{
        f"{similarity}-{partition}": pyssl.InfoNCEPotential(1.0, similarity, partition)
        for similarity in ("sqeuclidean", "dot")
        for partition in ("conditional", "joint")
    },
}


class _Landscape:
    """Eigenvalues on both sides of zero, and weights of the size of the minimiser's."""

    def prepare(
        self, potential: str, d: int, k: int, dtype: str = "float64", batch: tuple[int, ...] = ()
    ) -> None:
        rng = np.random.default_rng(0)
        B, S = random_pencil(np.linspace(0.9, -0.3, d), rng)
        self.land = pyssl.SpectralLandscape(B, S, POTENTIALS[potential], embedding_dim=k)
        W, D = 0.1 * rng.standard_normal((2, *batch, k, d)) / d**0.5
        self.W, self.D = W.astype(dtype), D.astype(dtype)
        self.land.value(self.W)  # what is computed once for a landscape


class Potentials(_Landscape):
    """Every potential at one size."""

    params = (tuple(POTENTIALS),)
    param_names = ("potential",)

    def setup(self, potential: str) -> None:
        self.prepare(potential, 256, 32)
        self.axis = np.linspace(-1.0, 1.0, 16)

    def time_value_and_gradient(self, _: str) -> None:
        self.land.value_and_gradient(self.W)

    def time_hvp(self, _: str) -> None:
        self.land.hvp(self.W, self.D)

    def time_plane(self, _: str) -> None:
        self.land.plane(self.W, self.D, self.W, self.axis, self.axis)


class Sizes(_Landscape):
    """One W of two sizes, in both precisions."""

    params = (((64, 16), (512, 64)), ("float64", "float32"))
    param_names = ("(d, k)", "dtype")

    def setup(self, size: tuple[int, int], dtype: str) -> None:
        self.prepare("quartic", *size, dtype)
        self.modes = self.land.in_modes()
        self.U = self.modes.from_weights(self.W)

    def time_value(self, *_: object) -> None:
        self.land.value(self.W)

    def time_value_and_gradient(self, *_: object) -> None:
        self.land.value_and_gradient(self.W)

    def time_value_and_gradient_in_modes(self, *_: object) -> None:
        self.modes.value_and_gradient(self.U)

    def time_from_weights(self, *_: object) -> None:
        self.modes.from_weights(self.W)


class Batch(_Landscape):
    """Many small W in one call."""

    params = (("quartic", "sqeuclidean-conditional"), ((8, 4), (32, 8)), ("float64", "float32"))
    param_names = ("potential", "(d, k)", "dtype")

    def setup(self, potential: str, size: tuple[int, int], dtype: str) -> None:
        self.prepare(potential, *size, dtype, (2_000,))

    def time_value_and_gradient(self, *_: object) -> None:
        self.land.value_and_gradient(self.W)

    def time_hvp(self, *_: object) -> None:
        self.land.hvp(self.W, self.D)


class Plane(_Landscape):
    """A picture's worth of points on a quartic landscape."""

    def setup(self) -> None:
        self.prepare("quartic", 512, 64)
        self.axis = np.linspace(-1.0, 1.0, 1024)

    def time_plane(self) -> None:
        self.land.plane(self.W, self.D, self.W, self.axis, self.axis)


class Amplitudes:
    """The inverse of r', elementwise."""

    params = ((*POTENTIALS, "custom"),)
    param_names = ("potential",)

    def setup(self, potential: str) -> None:
        if potential == "custom":
            self.potential: pyssl.Potential = pyssl.CustomPotential(
                lambda n: n**3 + n**2, lambda n: 3.0 * n**2 + 2.0 * n, lambda n: 6.0 * n + 2.0
            )
        else:
            self.potential = POTENTIALS[potential]
        self.slope = np.linspace(0.001, 0.999, 10_000)
        self.potential.amplitude(self.slope, 1.0 - self.slope)

    def time_amplitude(self, _: str) -> None:
        self.potential.amplitude(self.slope, 1.0 - self.slope)
