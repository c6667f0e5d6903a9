"""Many small symmetric matrices: eigenvalues, inertia, and where LAPACK takes over."""

from __future__ import annotations

import numpy as np

from pyssl import _core, get_num_threads, pencils


def _symmetric(n: int, d: int, dtype: str = "float64") -> np.ndarray:
    a = np.random.default_rng(0).standard_normal((n, d, d)).astype(dtype)
    return a + a.swapaxes(1, 2)


class Batch:
    """Batches of a fixed volume, in both precisions."""

    params = ((4, 16, 64), ("float64", "float32"))
    param_names = ("d", "dtype")

    def setup(self, d: int, dtype: str) -> None:
        self.B = _symmetric(2_000_000 // d**2, d, dtype)
        self.S = np.eye(d, dtype=dtype) + np.ones((d, d), dtype) / d

    def time_inertia(self, *_: object) -> None:
        pencils.inertia(self.B)

    def time_eigenvalues(self, *_: object) -> None:
        pencils.eigenvalues(self.B)

    def time_eigh(self, *_: object) -> None:
        pencils.eigh(self.B)

    def time_eigenvalues_of_pencils(self, *_: object) -> None:
        pencils.eigenvalues(self.B, self.S)


class Thresholds:
    """Counts along a shift axis."""

    def setup(self) -> None:
        self.A = _symmetric(1, 64)[0]
        self.many = _symmetric(1_000, 16)
        self.thresholds = np.linspace(-10.0, 10.0, 1_000)

    def time_one_matrix(self) -> None:
        pencils.counts_above(self.A, self.thresholds)

    def time_many_matrices(self) -> None:
        pencils.counts_above(self.many, self.thresholds)


class Crossover:
    """The kernels and LAPACK around `pencils._LARGEST_VALUES` and `pencils._LARGEST_VECTORS`."""

    params = ((128, 256, 384), (8, 64), ("kernels", "LAPACK"))
    param_names = ("d", "matrices", "by")

    def setup(self, d: int, n: int, by: str) -> None:
        self.B = _symmetric(n, d)
        self.values, self.vectors = np.empty((n, d)), np.empty((n, d, d))
        self.kernels = by == "kernels"
        self.threads = get_num_threads()

    def time_eigenvalues(self, *_: object) -> None:
        if self.kernels:
            _core.pencil_eigenvalues(self.B, None, self.values, self.threads)
        else:
            np.linalg.eigvalsh(self.B)

    def time_eigh(self, *_: object) -> None:
        if self.kernels:
            _core.pencil_eigh(self.B, None, self.values, self.vectors, self.threads)
        else:
            np.linalg.eigh(self.B)
