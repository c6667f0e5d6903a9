"""From views to moments."""

from __future__ import annotations

import argparse
import tempfile
import time
from pathlib import Path

import numpy as np
from scipy.linalg.blas import dsyrk

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


class Stream:
    """Float32 pairs from a file, against the two BLAS products in float64 that they need at least.

    The rate does not depend on how long the file is. `python -m benchmarks.bench_moments` prints
    the ratio, `--pairs 1000000` for the file that the project's target speaks of, and the peak of
    the memory that is the process's own (what it reads of the file, the kernel takes back).
    """

    d, n, chunk = 512, 32_768, 8192
    timeout = 600

    def setup(self, *_: object) -> None:
        self.folder = tempfile.TemporaryDirectory()
        self.views = write_pairs(Path(self.folder.name), self.n, self.d)
        self.block = np.random.default_rng(0).standard_normal((2, 2048, self.d))

    def teardown(self, *_: object) -> None:
        self.folder.cleanup()

    def time_stream(self, *_: object) -> None:
        x, x_plus = (np.load(path, mmap_mode="r") for path in self.views)
        accumulator = pyssl.MomentAccumulator(self.d)
        for start in range(0, self.n, self.chunk):
            rows = slice(start, start + self.chunk)
            accumulator.update(x[rows], x_plus[rows])
        self.seen = accumulator.moments()

    def time_from_views(self, *_: object) -> None:
        x, x_plus = (np.load(path, mmap_mode="r") for path in self.views)
        self.seen = pyssl.Moments.from_views(x, x_plus)

    def time_bare_products(self, *_: object) -> None:
        matrices = [np.zeros((self.d, self.d), order="F") for _ in range(2)]
        for _ in range(0, self.n, len(self.block[0])):
            for index, rows in enumerate(self.block):
                matrices[index] = dsyrk(
                    1.0, rows.T, beta=1.0, c=matrices[index], lower=1, overwrite_c=1
                )


def write_pairs(folder: Path, n: int, d: int) -> list[Path]:
    """Write float32 pairs of views to two files."""
    rng = np.random.default_rng(0)
    paths = [folder / "x.npy", folder / "x_plus.npy"]
    files = [
        np.lib.format.open_memmap(path, "w+", dtype=np.float32, shape=(n, d)) for path in paths
    ]
    for start in range(0, n, 4096):
        clean = rng.standard_normal((min(4096, n - start), d), dtype=np.float32)
        for file in files:
            noise = rng.standard_normal(clean.shape, dtype=np.float32)
            file[start : start + len(clean)] = clean + np.float32(0.5) * noise
    for file in files:
        file.flush()
    return paths


def own_memory() -> float:
    """Return the memory of this process that is no file, in MiB (Linux)."""
    status = Path("/proc/self/status").read_text(encoding="utf-8")
    return int(status.split("RssAnon:")[1].split()[0]) / 1024


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--pairs", type=int, default=Stream.n)
    parser.add_argument("--repeat", type=int, default=5)
    options = parser.parse_args()
    bench = Stream()
    bench.n = options.pairs
    bench.setup()
    calls = bench.time_bare_products, bench.time_stream, bench.time_from_views
    times: dict[str, list[float]] = {call.__name__: [] for call in calls}
    for _ in range(options.repeat):  # in turn, so that all meet the same machine
        for call in calls:
            start = time.perf_counter()
            call()
            times[call.__name__].append(time.perf_counter() - start)
    bare = min(times["time_bare_products"])
    for name, values in times.items():
        print(f"{name}: {1e6 * min(values) / bench.n:.2f} us a pair, {bare / min(values):.1%}")
    print(f"own memory {own_memory():.0f} MiB")
    bench.teardown()


if __name__ == "__main__":
    main()
