"""The compiled kernels. Arrays are C-contiguous, of one dtype; results go into the arrays given."""

from typing import Any

import numpy as np
import numpy.typing as npt

__version__: str

def simd_level() -> str: ...
def product(
    a: npt.NDArray[np.floating[Any]],  # (m, depth)
    b: npt.NDArray[np.floating[Any]],  # (depth, n), or (n, depth) transposed
    out: npt.NDArray[np.floating[Any]],  # (m, n)
    transposed: bool = False,
    add: bool = False,
    num_threads: int = 0,
) -> None: ...
def quartic_value(
    weights: npt.NDArray[np.floating[Any]],  # (N, k, d)
    signal: npt.NDArray[np.floating[Any]],  # (d, d)
    scale: npt.NDArray[np.floating[Any]],  # (d, d)
    q: float,
    value: npt.NDArray[np.floating[Any]],  # (N,)
    num_threads: int = 0,
) -> None: ...
def quartic_value_and_gradient(
    weights: npt.NDArray[np.floating[Any]],  # (N, k, d)
    signal: npt.NDArray[np.floating[Any]],  # (d, d)
    scale: npt.NDArray[np.floating[Any]],  # (d, d)
    q: float,
    value: npt.NDArray[np.floating[Any]],  # (N,)
    gradient: npt.NDArray[np.floating[Any]],  # (N, k, d)
    num_threads: int = 0,
) -> None: ...
def quartic_hvp(
    weights: npt.NDArray[np.floating[Any]],  # (N, k, d)
    directions: npt.NDArray[np.floating[Any]],  # (N, k, d)
    signal: npt.NDArray[np.floating[Any]],  # (d, d)
    scale: npt.NDArray[np.floating[Any]],  # (d, d)
    q: float,
    out: npt.NDArray[np.floating[Any]],  # (N, k, d)
    num_threads: int = 0,
) -> None: ...
