"""Spectral contrastive, Barlow Twins and VICReg on embeddings against dense references."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import mpmath
import numpy as np
import numpy.typing as npt
import pytest

import pyssl
from pyssl import _gram
from pyssl._barlow_twins import BarlowTwins
from pyssl._spectral_contrastive import SpectralContrastive
from pyssl._vicreg import SquaredVICReg, VICReg

Array = npt.NDArray[Any]

# n and k below, at, between and above multiples of blocks and tiles; n below, at and above k.
SHAPES = [
    (2, 1), (2, 3), (5, 1), (16, 6), (33, 33), (34, 33), (40, 70), (97, 24), (385, 33), (777, 65)
]  # fmt: skip


# ---- definitions, in the plainest NumPy: any dtype, complex and mpmath numbers too --------------


def off_diagonal(a: Array) -> Array:
    return a - np.diag(np.diagonal(a))


def spectral(z: Array, zp: Array, clip: float | None = None, negatives: str = "offdiagonal") -> Any:
    n = len(z)
    if clip is not None:
        z, zp = (np.stack([clipped(row, clip) for row in rows]) for rows in (z, zp))
    s = z @ zp.T
    if negatives == "all":
        square = (s * s).sum() / n**2
    else:
        square = (off_diagonal(s) ** 2).sum() / (n * (n - 1))
    return (square - 2 * np.trace(s) / n) / (clip or 1)


def clipped(row: Array, clip: float) -> Array:
    length = (row @ row) ** 0.5
    return row * (math.sqrt(clip) / length) if length.real >= math.sqrt(clip) else row


def barlow(
    z: Array, zp: Array, redundancy: float = 5e-3, normalize: bool = True, epsilon: float = 1e-5
) -> Any:
    n = len(z)
    z, zp = (a - a.sum(0) / n for a in (z, zp))
    if normalize:
        z, zp = (a / ((a * a).sum(0) / n + epsilon) ** 0.5 for a in (z, zp))
    c = z.T @ zp / n
    return ((np.diagonal(c) - 1) ** 2).sum() + redundancy * (off_diagonal(c) ** 2).sum()


def vicreg(
    z: Array,
    zp: Array,
    invariance: float = 25.0,
    variance: float = 25.0,
    covariance: float = 1.0,
    epsilon: float = 1e-4,
    halve_variance: bool = True,
) -> Any:
    n, k = z.shape
    loss = invariance * ((z - zp) ** 2).sum() / (n * k)
    for a in (z, zp):
        a = a - a.sum(0) / n  # noqa: PLW2901
        cov = a.T @ a / (n - 1)
        hinges = [1 - (v + epsilon) ** 0.5 for v in np.diagonal(cov)]
        active = sum(h for h in hinges if h.real > 0)
        loss = loss + variance * (0.5 if halve_variance else 1.0) * active / k
        loss = loss + covariance * (off_diagonal(cov) ** 2).sum() / k
    return loss


def squared_vicreg(z: Array, zp: Array, invariance: float = 1.0) -> Any:
    rows = np.concatenate([z, zp])
    rows = rows - rows.sum(0) / len(rows)
    excess = rows.T @ rows / len(rows) - np.eye(z.shape[1])
    return invariance * ((z - zp) ** 2).sum() / len(z) + (excess * excess).sum()


@dataclass(frozen=True)
class Case:
    kernel: Callable[..., Any]
    reference: Callable[..., Any]
    settings: dict[str, Any] = field(default_factory=dict)

    def loss(self, z: Array, zp: Array) -> Any:
        return self.kernel(z, zp, **self.settings)

    def expected(self, z: Array, zp: Array) -> Any:
        return self.reference(z, zp, **self.settings)

    def __str__(self) -> str:
        return "-".join([self.kernel.__name__, *(f"{k}={v}" for k, v in self.settings.items())])


CASES = [
    Case(SpectralContrastive, spectral),
    Case(SpectralContrastive, spectral, {"negatives": "all"}),
    Case(SpectralContrastive, spectral, {"clip": 2.0}),
    Case(SpectralContrastive, spectral, {"clip": 3.0, "negatives": "all"}),
    Case(BarlowTwins, barlow),
    Case(BarlowTwins, barlow, {"redundancy": 0.3, "epsilon": 0.1}),
    Case(BarlowTwins, barlow, {"redundancy": 0.7, "normalize": False}),
    Case(VICReg, vicreg),
    Case(VICReg, vicreg, {"halve_variance": False, "covariance": 3.0}),
    Case(SquaredVICReg, squared_vicreg),
    Case(SquaredVICReg, squared_vicreg, {"invariance": 2.5}),
]
CENTERED = [case for case in CASES if case.kernel is not SpectralContrastive]
every_case = pytest.mark.parametrize("case", CASES, ids=str)


def views(rng: np.random.Generator, n: int, k: int, dtype: Any = np.float64) -> tuple[Array, Array]:
    z = rng.standard_normal((n, k)) * np.linspace(0.5, 1.5, k)
    return z.astype(dtype), (0.8 * z + 0.5 * rng.standard_normal((n, k))).astype(dtype)


def issue_views(*, zero: bool = False) -> tuple[Array, Array]:
    i, j = np.arange(16)[:, None], np.arange(6)[None]
    s = [np.sin(1 + 0.7 * p + 1.3 * i + 0.9 * j**2 + 0.37 * i * j) for p in (0, 1)]
    if zero:
        return np.zeros((16, 6)), np.zeros((16, 6))
    return s[0], 0.8 * s[0] + 0.3 * s[1]


def joined(pair: tuple[Array, Array]) -> Array:
    return np.concatenate([a.astype(np.float64) for a in pair])


def distance(pair: tuple[Array, Array], other: tuple[Array, Array]) -> float:
    expected = joined(other)
    return float(np.linalg.norm(joined(pair) - expected) / np.linalg.norm(expected))


def slope(f: Callable[[Array, Array], Any], z: Array, zp: Array, d: Array, dp: Array) -> float:
    """Derivative of f along (d, dp) by the complex step."""
    h = 1e-30
    return float(f(z + 1j * h * d, zp + 1j * h * dp).imag / h)


# ---- values -------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("kernel", "settings", "expected"),
    [
        (SpectralContrastive, {"clip": 1.0}, -1.8449522856451),
        (SpectralContrastive, {"clip": 3.0}, -1.56500412703654),
        (SpectralContrastive, {}, -5.68166697609112),
        (SpectralContrastive, {"negatives": "all"}, -4.89191349477542),
        (BarlowTwins, {"redundancy": 5e-3}, 0.00131429418474311),
        (BarlowTwins, {"redundancy": 0.0051}, 0.00131625771413494),
        (VICReg, {}, 5.29751240521281),
        (VICReg, {"halve_variance": False}, 10.2100139467986),
    ],
)
def test_values_of_the_field(
    kernel: Callable[..., Any], settings: dict[str, Any], expected: float
) -> None:
    loss = kernel(*issue_views(), **settings)
    assert loss.value() == pytest.approx(expected, rel=1e-12)
    assert loss.value_and_gradient()[0] == loss.value()


@pytest.mark.parametrize("dtype", [np.float64, np.float32])
@pytest.mark.parametrize(
    ("kernel", "expected"),
    [(SpectralContrastive, 0.0), (BarlowTwins, 6.0), (VICReg, 24.75), (SquaredVICReg, 6.0)],
)
def test_collapsed_views(kernel: Callable[..., Any], expected: float, dtype: Any) -> None:
    z, zp = (a.astype(dtype) for a in issue_views(zero=True))
    loss = kernel(z, zp)
    value, gradient = loss.value_and_gradient()
    assert value == pytest.approx(expected, rel=1e-14, abs=0.0)
    assert not joined(gradient).any()
    assert np.isfinite(joined(loss.hvp(np.ones_like(z), z))).all()


@every_case
@pytest.mark.parametrize(("n", "k"), SHAPES)
def test_value_is_the_definition(rng: np.random.Generator, case: Case, n: int, k: int) -> None:
    z, zp = views(rng, n, k)
    assert case.loss(z, zp).value() == pytest.approx(case.expected(z, zp), rel=1e-12)


def test_value_in_many_digits(rng: np.random.Generator) -> None:
    """With views of a large mean, and nearly equal ones: what cancels in double."""
    z, zp = views(rng, 12, 3)
    zp = z + 1e-4 * zp
    with mpmath.workdps(50):
        exact = [np.array([[mpmath.mpf(float(x)) for x in row] for row in a]) for a in (z, zp)]
        for case in CASES:
            if case.settings.get("clip"):
                continue  # its length is not an array operation of mpmath numbers
            expected = float(case.expected(*exact))
            assert case.loss(z, zp).value() == pytest.approx(expected, rel=1e-11), str(case)


def test_negatives_that_vanish() -> None:
    """Orthogonal pairs: the sum over i != j is no difference of two large sums."""
    z = np.diag([1e8, 3.0, 1e-3])
    z[0, 1] = 1e-7
    loss = SpectralContrastive(z, z)
    # the only products over i != j: 3e-7, twice
    assert loss.terms()["negatives"] == pytest.approx(2 * 9e-14 / 6, rel=1e-12)


# ---- derivatives --------------------------------------------------------------------------------


@every_case
@pytest.mark.parametrize(("n", "k"), [(2, 3), (16, 6), (97, 24), (40, 70)])
def test_gradient_is_the_complex_step(rng: np.random.Generator, case: Case, n: int, k: int) -> None:
    z, zp = views(rng, n, k)
    gradient = joined(case.loss(z, zp).value_and_gradient()[1])
    for _ in range(4):
        d, dp = rng.standard_normal((2, n, k))
        expected = slope(case.expected, z, zp, d, dp)
        scale = np.linalg.norm(gradient) + abs(expected)
        assert float(np.sum(gradient * joined((d, dp)))) == pytest.approx(
            expected, rel=1e-9, abs=1e-9 * scale
        )


@every_case
@pytest.mark.parametrize(("n", "k"), [(2, 3), (16, 6), (97, 24), (40, 70)])
def test_hvp_is_the_slope_of_the_gradient(
    rng: np.random.Generator, case: Case, n: int, k: int
) -> None:
    z, zp = views(rng, n, k)
    d, dp = rng.standard_normal((2, n, k))
    hvp = joined(case.loss(z, zp).hvp(d, dp))

    def gradient(t: float) -> Array:
        return joined(case.loss(z + t * d, zp + t * dp).value_and_gradient()[1])

    # central differences of fourth and, with two steps, sixth order
    def difference(h: float) -> Array:
        near, far = gradient(h) - gradient(-h), gradient(2 * h) - gradient(-2 * h)
        return (8 * near - far) / (12 * h)

    h = 1e-3 if n > 2 else 1e-4
    expected = (16 * difference(h) - difference(2 * h)) / 15
    assert np.linalg.norm(hvp - expected) <= 1e-8 * np.linalg.norm(expected) + 1e-9


@every_case
@pytest.mark.parametrize("dtype", [np.float64, np.float32])
def test_hvp_is_symmetric(rng: np.random.Generator, case: Case, dtype: Any) -> None:
    z, zp = views(rng, 97, 24, dtype)
    d, dp, e, ep = rng.standard_normal((4, 97, 24)).astype(dtype)
    loss = case.loss(z, zp)
    first, second = joined(loss.hvp(d, dp)), joined(loss.hvp(e, ep))
    forth, back = np.sum(first * joined((e, ep))), np.sum(second * joined((d, dp)))
    scale = np.linalg.norm(first) * np.linalg.norm(joined((e, ep)))
    assert abs(forth - back) <= (1e-12 if dtype is np.float64 else 1e-6) * scale


@every_case
@pytest.mark.parametrize(("n", "k"), SHAPES)
@pytest.mark.parametrize("dtype", [np.float64, np.float32])
def test_derivatives_are_those_of_autograd(
    rng: np.random.Generator, case: Case, n: int, k: int, dtype: Any
) -> None:
    torch = pytest.importorskip("torch")
    z, zp = views(rng, n, k, dtype)
    d, dp = rng.standard_normal((2, n, k)).astype(dtype)
    if dtype is np.float32 and n == 2 and case.reference is barlow:
        pytest.skip("standardised pairs are +-1: their gradient is what rounding leaves")
    value, gradient = case.loss(z, zp).value_and_gradient()
    hvp = case.loss(z, zp).hvp(d, dp)
    expected, slopes, curvatures = torch_derivatives(torch, case, z, zp, d, dp)
    tolerance = 1e-9 if dtype is np.float64 else 1e-4
    assert value == pytest.approx(expected, rel=1e-12 if dtype is np.float64 else 1e-6)
    assert distance(gradient, slopes) <= 0.1 * tolerance
    assert distance(hvp, curvatures) <= tolerance


def torch_derivatives(torch: Any, case: Case, z: Array, zp: Array, d: Array, dp: Array) -> Any:
    """Value, gradient and hvp in float64 from PyTorch's own operations."""
    a, b, da, db = (torch.tensor(x.astype(np.float64)) for x in (z, zp, d, dp))
    a.requires_grad_()
    b.requires_grad_()
    value = torch_loss(torch, case, a, b)
    slopes = torch.autograd.grad(value, (a, b), create_graph=True)
    product = (slopes[0] * da).sum() + (slopes[1] * db).sum()
    curvatures = torch.autograd.grad(product, (a, b))
    arrays = [tuple(x.detach().numpy() for x in pair) for pair in (slopes, curvatures)]
    return value.item(), *arrays


def torch_loss(torch: Any, case: Case, a: Any, b: Any) -> Any:
    settings, n, k = case.settings, *a.shape

    def off(c: Any) -> Any:
        return c - torch.diag(torch.diagonal(c))

    if case.reference is spectral:
        clip = settings.get("clip")
        if clip is not None:
            norms = [x.norm(dim=1, keepdim=True) for x in (a, b)]
            a, b = (
                torch.where(r >= clip**0.5, x / r * clip**0.5, x)
                for x, r in zip((a, b), norms, strict=True)
            )
        s = a @ b.T
        every = settings.get("negatives") == "all"
        square = (s**2).mean() if every else (off(s) ** 2).sum() / (n * (n - 1))
        return (square - 2 * torch.diagonal(s).mean()) / (clip or 1)
    if case.reference is barlow:
        if settings.get("normalize", True):
            a, b = (
                torch.nn.functional.batch_norm(
                    x, None, None, training=True, eps=settings.get("epsilon", 1e-5)
                )
                for x in (a, b)
            )
        else:
            a, b = a - a.mean(0), b - b.mean(0)
        c = a.T @ b / n
        redundancy = settings.get("redundancy", 5e-3)
        return ((torch.diagonal(c) - 1) ** 2).sum() + redundancy * (off(c) ** 2).sum()
    if case.reference is vicreg:
        share = 0.5 if settings.get("halve_variance", True) else 1.0
        loss = 25.0 * torch.nn.functional.mse_loss(a, b)
        for x in (a, b):
            hinge = torch.relu(1 - torch.sqrt(x.var(0) + 1e-4)).mean()
            cov = torch.cov(x.T).reshape(k, k)
            loss = loss + 25.0 * share * hinge
            loss = loss + settings.get("covariance", 1.0) * (off(cov) ** 2).sum() / k
        return loss
    cov = torch.cov(torch.cat([a, b]).T, correction=0).reshape(k, k)
    near = settings.get("invariance", 1.0) * ((a - b) ** 2).sum(1).mean()
    return near + ((torch.eye(k) - cov) ** 2).sum()


def test_terms_make_the_loss(rng: np.random.Generator) -> None:
    z, zp = views(rng, 50, 7)
    terms = SpectralContrastive(z, zp).terms()
    assert terms["alignment"] == pytest.approx(float(np.sum(z * zp)) / 50, rel=1e-13)
    assert terms["negatives"] - 2 * terms["alignment"] == pytest.approx(spectral(z, zp), rel=1e-12)
    terms = BarlowTwins(z, zp).terms()
    assert terms["on_diagonal"] == pytest.approx(barlow(z, zp, redundancy=0.0), rel=1e-12)
    both = terms["on_diagonal"] + terms["off_diagonal"]
    assert both == pytest.approx(barlow(z, zp, redundancy=1.0), rel=1e-12)
    terms = VICReg(z, zp).terms()
    for name in ("invariance", "variance", "covariance"):
        weights = {"invariance": 0.0, "variance": 0.0, "covariance": 0.0, name: 1.0}
        assert terms[name] == pytest.approx(vicreg(z, zp, **weights), rel=1e-12)
    terms = SquaredVICReg(z, zp).terms()
    assert terms["covariance"] == pytest.approx(squared_vicreg(z, zp, invariance=0.0), rel=1e-12)


# ---- extremes -----------------------------------------------------------------------------------


@every_case
@pytest.mark.parametrize("scale", [1e-20, 1e15])
@pytest.mark.parametrize(("n", "k"), [(50, 7), (6, 9)])
def test_tiny_and_huge_embeddings(
    rng: np.random.Generator, case: Case, scale: float, n: int, k: int
) -> None:
    z, zp = (scale * a for a in views(rng, n, k))
    value, gradient = case.loss(z, zp).value_and_gradient()
    assert value == pytest.approx(case.expected(z, zp), rel=1e-12)
    single = [a.astype(np.float32) for a in (z, zp)]
    loss = case.loss(*single)
    assert loss.value() == pytest.approx(case.expected(*map(np.float64, single)), rel=1e-6)
    narrow = loss.value_and_gradient()[1]
    exact = case.loss(*map(np.float64, single)).value_and_gradient()[1]
    assert np.isfinite(joined(gradient)).all()
    for a, b in zip(narrow, exact, strict=True):
        # beyond what float32 holds: infinite, of the right sign
        inside = np.abs(b) < 1e38
        assert not np.isnan(a).any()
        assert (np.sign(a[~inside]) == np.sign(b[~inside])).all()
        floor = 1e-44 * math.sqrt(b.size)
        error = np.linalg.norm((a.astype(np.float64) - b)[inside])
        assert error <= 1e-5 * np.linalg.norm(b[inside]) + floor


@pytest.mark.parametrize("case", CENTERED, ids=str)
@pytest.mark.parametrize(
    ("dtype", "mean"), [(np.float64, 1e6), (np.float32, 1e3), (np.float32, 1e6)]
)
def test_large_mean(rng: np.random.Generator, case: Case, dtype: Any, mean: float) -> None:
    z, zp = ((a + mean).astype(dtype) for a in views(rng, 500, 9))
    # what the loss does not see is taken off in double, exactly enough
    shift = z.astype(np.float64).mean(0)
    reference = (z.astype(np.float64) - shift, zp.astype(np.float64) - shift)
    value, gradient = case.loss(z, zp).value_and_gradient()
    assert value == pytest.approx(
        case.expected(*reference), rel=1e-9 if dtype is np.float64 else 1e-6
    )
    exact = case.loss(*reference).value_and_gradient()[1]
    assert distance(gradient, exact) <= (1e-8 if dtype is np.float64 else 1e-5)


@every_case
def test_zero_and_repeated_rows(rng: np.random.Generator, case: Case) -> None:
    z, zp = views(rng, 30, 5)
    z[:7], zp[3:9] = 0.0, 0.0
    z[10:20], zp[10:20] = z[10], zp[10]
    loss = case.loss(z, zp)
    value, gradient = loss.value_and_gradient()
    assert value == pytest.approx(case.expected(z, zp), rel=1e-12)
    assert np.isfinite(joined(gradient)).all()
    d, dp = rng.standard_normal((2, 30, 5))
    if "clip" not in case.settings:  # a zero row has no complex length
        assert float(np.sum(joined(gradient) * joined((d, dp)))) == pytest.approx(
            slope(case.expected, z, zp, d, dp), rel=1e-9
        )
    assert np.isfinite(joined(loss.hvp(d, dp))).all()


def test_clipping_takes_the_clipped_branch_at_its_edge() -> None:
    z = np.array([[3.0, 4.0], [1.0, 0.0]])  # |z_0| = 5 = sqrt(25)
    gradient = SpectralContrastive(z, z, clip=25.0).value_and_gradient()[1][0]
    assert gradient[0] @ z[0] == pytest.approx(0.0, abs=1e-15)  # a clipped row has no radial slope
    assert gradient[1] @ z[1] != 0.0


# ---- types and threads --------------------------------------------------------------------------


@every_case
@pytest.mark.parametrize(("n", "k"), [(16, 6), (300, 40), (2000, 33), (60, 64)])
def test_float32_is_close(rng: np.random.Generator, case: Case, n: int, k: int) -> None:
    z, zp = views(rng, n, k, np.float32)
    value, gradient = case.loss(z, zp).value_and_gradient()
    exact, expected = case.loss(*(a.astype(np.float64) for a in (z, zp))).value_and_gradient()
    assert all(a.dtype == np.float32 for a in gradient)
    assert value == pytest.approx(exact, rel=1e-6)
    assert distance(gradient, expected) <= 1e-5


@every_case
@pytest.mark.parametrize("dtype", [np.float64, np.float32])
@pytest.mark.parametrize(("n", "k"), [(9000, 40), (1500, 130), (90, 100)])
def test_bits_do_not_depend_on_threads(
    rng: np.random.Generator, case: Case, dtype: Any, n: int, k: int
) -> None:
    z, zp = views(rng, n, k, dtype)
    d, dp = rng.standard_normal((2, n, k)).astype(dtype)
    results = []
    try:
        for threads in (1, 2, 4):
            pyssl.set_num_threads(threads)
            value, gradient = case.loss(z, zp).value_and_gradient()
            results.append(
                (value, *(a.tobytes() for a in (*gradient, *case.loss(z, zp).hvp(d, dp))))
            )
    finally:
        pyssl.set_num_threads(None)
    assert results[0] == results[1] == results[2]


@pytest.mark.parametrize("scale", [30.0, 1e3, 1e5])
def test_one_long_row_does_not_cost_the_others_their_digits(scale: float) -> None:
    rng = np.random.default_rng(5)
    z = rng.standard_normal((400, 8))
    z_plus = z + 0.1 * rng.standard_normal(z.shape)
    z[0] *= scale
    z_plus[0] *= scale
    pair = z.astype(np.float32), z_plus.astype(np.float32)
    loss = pyssl.SpectralContrastive()
    value, gradient = loss.value_and_gradient(*pair)
    wide, wide_plus = (a.astype(np.float64) for a in pair)
    n, s = len(z), wide @ wide_plus.T
    expected = (np.sum(off_diagonal(s) ** 2) / (n * (n - 1))) - 2 * np.diagonal(s).mean()
    # of the two terms that the loss is the difference of
    size = np.sum(off_diagonal(s) ** 2) / (n * (n - 1)) + 2 * np.abs(np.diagonal(s)).mean()
    assert abs(value - expected) <= 1e-6 * size
    slope = 2 / (n * (n - 1)) * off_diagonal(s) @ wide_plus - 2 / n * wide_plus
    assert np.linalg.norm(gradient[0] - slope) <= 1e-5 * np.linalg.norm(slope)
    assert gradient[0].dtype == np.float32
    assert loss.terms(*pair)["negatives"] >= 0.0
    assert loss.hvp(*pair, *pair)[0].dtype == np.float32


@pytest.mark.parametrize(
    ("n", "p", "q"), [(2, 1, 1), (383, 32, 70), (385, 300, 41), (769, 33, 290)]
)
@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_gram_matrices_of_every_share_of_tiles(
    rng: np.random.Generator, n: int, p: int, q: int, dtype: Any
) -> None:
    """A thread packs only what its own tiles need, other panels for every number of threads."""
    a, b = (rng.standard_normal((n, k)).astype(dtype) for k in (p, q))
    sides = [
        _gram.Side.of(x, x.mean(axis=0, dtype=np.float64), x.std(axis=0, dtype=np.float64))
        for x in (a, b)
    ]
    wide = [side.data - side.center for side in sides]
    results = []
    try:
        for threads in (1, 2, 3, 5):
            pyssl.set_num_threads(threads)
            results.append((_gram.gram(*sides), _gram.gram(sides[0]), _gram.gram(sides[1])))
    finally:
        pyssl.set_num_threads(None)
    expected = (wide[0].T @ wide[1], wide[0].T @ wide[0], wide[1].T @ wide[1])
    tolerance = 50 * np.finfo(dtype).eps
    for result in results:
        for c, first, dense in zip(result, results[0], expected, strict=True):
            assert c.tobytes() == first.tobytes()
            assert np.abs(c - dense).max() <= tolerance * n


@pytest.mark.parametrize("loss", [cls() for cls in pyssl.LOSSES.values()], ids=str)
@pytest.mark.parametrize("shape", [(5, 9), (40, 3)])
@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf])
def test_what_is_not_finite_is_named(
    rng: np.random.Generator, loss: pyssl.Loss, shape: tuple[int, int], dtype: Any, bad: float
) -> None:
    """Entries are not looked at before their sums: none may get lost in those."""
    z, zp = views(rng, *shape, dtype)
    spoiled = zp.copy()
    spoiled[3, 1:] = [bad, -bad][: shape[1] - 1] + [1.0] * (shape[1] - 3)
    for method in (loss.value, loss.value_and_gradient, loss.terms):
        for pair, name in (((z, spoiled), "z_plus"), ((spoiled, z), "z")):
            with pytest.raises(
                ValueError, match=rf"^{name} must be finite, got \S+ at .*\(row 3\)"
            ):
                method(*pair)


def test_sums_that_overflow_are_no_error(rng: np.random.Generator) -> None:
    z, zp = views(rng, 6, 3, np.float32)
    for loss in (pyssl.SpectralContrastive(), pyssl.VICReg()):
        with np.errstate(over="ignore"):
            assert loss.value(np.float32(1e36) * z, np.float32(1e36) * zp) > 1e30
