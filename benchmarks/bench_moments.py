"""From views to moments."""

from __future__ import annotations

import numpy as np

import pyssl


class Estimate:
    """All pairs at once, and in chunks."""

    params = ((16, 256), ("float64", "float32"))
    param_names = ("d", "dtype")
    n = 10_000

    def setup(self, d: int, dtype: str) -> None:
        rng = np.random.default_rng(0)
        clean, noise = rng.standard_normal((self.n, d)), rng.standard_normal((2, self.n, d))
        views = (clean + 0.5 * noise).astype(dtype)
        self.x, self.x_plus = views[0], views[1]

    def time_from_views(self, *_: object) -> None:
        pyssl.Moments.from_views(self.x, self.x_plus)

    def time_accumulate_and_align(self, *_: object) -> None:
        accumulator = pyssl.MomentAccumulator(self.x.shape[1])
        for start in range(0, self.n, 500):
            rows = slice(start, start + 500)
            accumulator.update(self.x[rows], self.x_plus[rows])
        self.seen = accumulator.moments().alignments

    def peakmem_from_views(self, *_: object) -> None:
        pyssl.Moments.from_views(self.x, self.x_plus)
