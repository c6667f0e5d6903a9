"""The compiled kernels. Arrays are C-contiguous, of one dtype; results go into the arrays given."""

from typing import Any

import numpy as np
import numpy.typing as npt

__version__: str

def simd_level() -> str: ...
def pair_scatter(
    x: npt.NDArray[np.floating[Any]],  # (n, d)
    x_plus: npt.NDArray[np.floating[Any]] | None,  # (n, d)
    mean: npt.NDArray[np.float64],  # (d,)
    middles: npt.NDArray[np.float64],  # (d, d)
    differences: npt.NDArray[np.float64] | None,  # (d, d)
    num_threads: int = 0,
) -> None: ...
def pencil_eigenvalues(
    forms: npt.NDArray[np.floating[Any]],  # (N, d, d)
    metrics: npt.NDArray[np.floating[Any]] | None,  # (N, d, d) or (1, d, d)
    values: npt.NDArray[np.floating[Any]],  # (N, d)
    num_threads: int = 0,
) -> tuple[int, int, int]: ...
def pencil_eigh(
    forms: npt.NDArray[np.floating[Any]],  # (N, d, d)
    metrics: npt.NDArray[np.floating[Any]] | None,  # (N, d, d) or (1, d, d)
    values: npt.NDArray[np.floating[Any]],  # (N, d)
    vectors: npt.NDArray[np.floating[Any]],  # (N, d, d)
    num_threads: int = 0,
) -> tuple[int, int, int]: ...
def pencil_inertia(
    forms: npt.NDArray[np.floating[Any]],  # (N, d, d)
    tolerance: npt.NDArray[np.float64] | None,  # (N,)
    counts: npt.NDArray[np.int64],  # (N, 3)
    num_threads: int = 0,
) -> tuple[int, int, int]: ...
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
def row_dots(
    a: npt.NDArray[np.floating[Any]],  # (n, k)
    b: npt.NDArray[np.floating[Any]],  # (n, k)
    out: npt.NDArray[np.float64],  # (n,)
    num_threads: int = 0,
) -> None: ...
def log_sum_exp(
    x: npt.NDArray[np.floating[Any]],  # (n, k)
    y: npt.NDArray[np.floating[Any]],  # (m, k), or x itself: a symmetric matrix
    period: int,
    small: bool,
    rows: npt.NDArray[np.float64],  # (n,)
    columns: npt.NDArray[np.float64] | None = None,  # (m,)
    num_threads: int = 0,
) -> None: ...
def weighted_sums(
    x: npt.NDArray[np.floating[Any]],  # (n, k)
    y: npt.NDArray[np.floating[Any]],  # (n, k)
    period: int,
    small: bool,
    row_weights: npt.NDArray[np.float64],  # (n,)
    row_logs: npt.NDArray[np.float64],  # (n,)
    column_weights: npt.NDArray[np.float64],  # (n,)
    column_logs: npt.NDArray[np.float64],  # (n,)
    positive: npt.NDArray[np.float64],  # (n,)
    x_project: npt.NDArray[np.float64] | None,  # (n,)
    x_scale: npt.NDArray[np.float64] | None,  # (n,)
    y_project: npt.NDArray[np.float64] | None,  # (n,)
    y_scale: npt.NDArray[np.float64] | None,  # (n,)
    factor: float,
    x_gradient: npt.NDArray[np.floating[Any]],  # (n, k), may be x
    y_gradient: npt.NDArray[np.floating[Any]],  # (n, k), may be y
    num_threads: int = 0,
) -> None: ...
def one_sided(
    x: npt.NDArray[np.floating[Any]],  # (n, k)
    y: npt.NDArray[np.floating[Any]],  # (n, k)
    small: bool,
    positives: npt.NDArray[np.float64],  # (n,)
    x_project: npt.NDArray[np.float64] | None,  # (n,)
    x_scale: npt.NDArray[np.float64] | None,  # (n,)
    y_project: npt.NDArray[np.float64] | None,  # (n,)
    y_scale: npt.NDArray[np.float64] | None,  # (n,)
    factor: float,
    rows: npt.NDArray[np.float64],  # (n,), written
    x_gradient: npt.NDArray[np.floating[Any]],  # (n, k), may be x
    y_gradient: npt.NDArray[np.floating[Any]],  # (n, k), may be y
    num_threads: int = 0,
) -> None: ...
def tangent_means(
    x: npt.NDArray[np.floating[Any]],  # (n, k)
    y: npt.NDArray[np.floating[Any]],  # (m, k)
    dx: npt.NDArray[np.floating[Any]],  # (n, k)
    dy: npt.NDArray[np.floating[Any]],  # (m, k)
    period: int,
    row_logs: npt.NDArray[np.float64],  # (n,)
    column_logs: npt.NDArray[np.float64],  # (m,)
    row_means: npt.NDArray[np.float64],  # (n,), written
    column_means: npt.NDArray[np.float64],  # (m,), written
    num_threads: int = 0,
) -> None: ...
def tangent_sums(
    x: npt.NDArray[np.floating[Any]],  # (n, k)
    y: npt.NDArray[np.floating[Any]],  # (m, k)
    dx: npt.NDArray[np.floating[Any]],  # (n, k)
    dy: npt.NDArray[np.floating[Any]],  # (m, k)
    period: int,
    row_weights: npt.NDArray[np.float64],  # (n,)
    row_logs: npt.NDArray[np.float64],  # (n,)
    row_means: npt.NDArray[np.float64],  # (n,)
    column_weights: npt.NDArray[np.float64],  # (m,)
    column_logs: npt.NDArray[np.float64],  # (m,)
    column_means: npt.NDArray[np.float64],  # (m,)
    x_out: npt.NDArray[np.floating[Any]],  # (n, k)
    y_out: npt.NDArray[np.floating[Any]],  # (m, k)
    num_threads: int = 0,
) -> None: ...
def plane_losses(
    x: npt.NDArray[np.floating[Any]],  # (3, n, k)
    y: npt.NDArray[np.floating[Any]],  # (3, n, k)
    x_terms: npt.NDArray[np.floating[Any]],  # (6, n)
    y_terms: npt.NDArray[np.floating[Any]],  # (6, n)
    positives: npt.NDArray[np.float64],  # (6, n)
    offsets: npt.NDArray[np.float64] | None,  # (6, n)
    u: npt.NDArray[np.float64],
    v: npt.NDArray[np.float64],
    out: npt.NDArray[np.float64],  # (u, v)
    num_threads: int = 0,
) -> None: ...
def gram(
    a: npt.NDArray[np.floating[Any]],  # (n, p)
    a_columns: npt.NDArray[np.float64],
    b: npt.NDArray[np.floating[Any]] | None,  # (n, q), or None for a itself
    b_columns: npt.NDArray[np.float64] | None,
    out: npt.NDArray[np.float64],  # (p, q)
    num_threads: int = 0,
) -> None: ...
def mix(
    a: npt.NDArray[np.floating[Any]],  # (n, p)
    a_columns: npt.NDArray[np.float64],
    matrix: npt.NDArray[np.float64],  # (p, q)
    columns: npt.NDArray[np.float64],
    out: npt.NDArray[np.floating[Any]],  # (n, q)
    plus: npt.NDArray[np.floating[Any]] | None = None,  # (n, q)
    minus: npt.NDArray[np.floating[Any]] | None = None,  # (n, q)
    rows: npt.NDArray[np.float64] | None = None,
    add: bool = False,
    num_threads: int = 0,
) -> None: ...
def column_moments(
    a: npt.NDArray[np.floating[Any]],  # (n, k)
    b: npt.NDArray[np.floating[Any]],  # (n, k)
    out: npt.NDArray[np.float64],
    num_threads: int = 0,
) -> None: ...
def row_moments(
    a: npt.NDArray[np.floating[Any]],  # (n, k)
    b: npt.NDArray[np.floating[Any]],  # (n, k)
    out: npt.NDArray[np.float64],
    num_threads: int = 0,
) -> None: ...
