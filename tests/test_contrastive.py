"""InfoNCE and NT-Xent on embeddings: the fused kernels against the formulas written out."""

from __future__ import annotations

import itertools

import mpmath
import numpy as np
import pytest

import pyssl
from pyssl import _contrastive, _core

INFONCE = [
    pyssl.InfoNCE(similarity=similarity, partition=partition, normalize=normalize, symmetric=both)
    for similarity, partition, normalize, both in itertools.product(
        ("sqeuclidean", "dot"), ("conditional", "joint"), (False, True), (False, True)
    )
    if not (partition == "joint" and both)
]
LOSSES = [pyssl.NTXent(), *INFONCE]


def with_temperature(loss, tau):
    if isinstance(loss, pyssl.NTXent):
        return pyssl.NTXent(tau)
    return pyssl.InfoNCE(
        tau, loss.similarity, loss.partition, normalize=loss.normalize, symmetric=loss.symmetric
    )


def log_sum_exp(s):
    """Along the last axis, of real or complex numbers."""
    top = s.real.max(axis=-1, keepdims=True)
    return np.log(np.exp(s - top).sum(axis=-1)) + top[..., 0]


def normalized(z):
    return z / np.sqrt((z * z).sum(axis=1, keepdims=True))  # analytic: for complex steps


def reference(loss, z, z_plus):
    """The definition, with the n x n matrix; accepts complex embeddings."""
    n, tau = len(z), loss.temperature
    if isinstance(loss, pyssl.NTXent):
        rows = normalized(np.concatenate([z, z_plus]))
        s = rows @ rows.T / tau
        positive = s[np.arange(2 * n), (np.arange(2 * n) + n) % (2 * n)]
        np.fill_diagonal(s, -np.inf)
        return (log_sum_exp(s) - positive).mean()
    if loss.normalize:
        z, z_plus = normalized(z), normalized(z_plus)
    if loss.similarity == "dot" or loss.normalize:
        s = z @ z_plus.T / tau
    else:
        s = -((z[:, None] - z_plus[None]) ** 2).sum(axis=-1) / (2 * tau)
    positive = np.diagonal(s)
    if loss.partition == "joint":
        return log_sum_exp(s.reshape(1, -1))[0] - np.log(n) - positive.mean()
    loss_rows = (log_sum_exp(s) - positive).mean()
    if not loss.symmetric:
        return loss_rows
    return 0.5 * loss_rows + 0.5 * (log_sum_exp(s.T) - positive).mean()


def problem(n, k, seed=0, spread=0.5, dtype=np.float64):
    rng = np.random.default_rng(seed)
    z = rng.standard_normal((n, k))
    pairs = z, z + spread * rng.standard_normal((n, k)), *rng.standard_normal((2, n, k))
    return tuple(a.astype(dtype) for a in pairs)


def stated(p, n=16, k=6):
    i, j = np.arange(n)[:, None], np.arange(k)[None]
    return np.sin(1 + 0.7 * p + 1.3 * i + 0.9 * j**2 + 0.37 * i * j)


@pytest.mark.parametrize(
    ("loss", "expected"),
    [
        (pyssl.NTXent(0.5), 1.73109826179325),
        (pyssl.NTXent(0.1), 0.042428195764801),
        (pyssl.InfoNCE(0.5, "dot", normalize=True), 1.20203691147686),
        (pyssl.InfoNCE(0.1, "dot", normalize=True), 0.0218325725232685),
        (pyssl.InfoNCE(0.5, "dot", normalize=True, symmetric=True), 1.2021495918515),
    ],
)
def test_stated_values(loss, expected):
    z, z_plus = stated(0), 0.8 * stated(0) + 0.3 * stated(1)
    assert abs(loss.value(z, z_plus) - expected) <= 1e-12


# 192 rows make a block: below one, across its edge, several; and both ways to keep exponentials
# inside their type
SIZES = [(2, 3, 0.5), (16, 6, 0.5), (97, 5, 0.002), (205, 33, 0.7), (400, 7, 3.0)]


@pytest.mark.parametrize("loss", LOSSES, ids=str)
@pytest.mark.parametrize(("n", "k", "tau"), SIZES)
def test_derivatives(loss, n, k, tau):
    loss = with_temperature(loss, tau)
    z, z_plus, dz, dz_plus = problem(n, k)
    expected = reference(loss, z, z_plus)
    value, (gz, gz_plus) = loss.value_and_gradient(z, z_plus)
    assert value == loss.value(z, z_plus)
    np.testing.assert_allclose(value, expected, rtol=1e-11, atol=1e-13)

    def along(t):
        return reference(loss, z + t * dz, z_plus + t * dz_plus)

    slope = along(1e-30j).imag / 1e-30
    scale = np.abs(gz * dz).sum() + np.abs(gz_plus * dz_plus).sum() + abs(slope)
    assert abs((gz * dz).sum() + (gz_plus * dz_plus).sum() - slope) <= 1e-9 * scale

    hz, hz_plus = loss.hvp(z, z_plus, dz, dz_plus)
    step = 1e-5
    up = loss.value_and_gradient(z + step * dz, z_plus + step * dz_plus)[1]
    down = loss.value_and_gradient(z - step * dz, z_plus - step * dz_plus)[1]
    for got, above, below in zip((hz, hz_plus), up, down, strict=True):
        difference = (above - below) / (2 * step)
        size = np.abs(np.concatenate([hz, hz_plus])).max() + np.abs(gz).max()
        np.testing.assert_allclose(got, difference, rtol=1e-5, atol=3e-4 * size)

    # symmetric: <a, H b> = <b, H a>
    other, other_plus = problem(n, k, seed=1)[2:]
    oz, oz_plus = loss.hvp(z, z_plus, other, other_plus)
    one = (hz * other).sum() + (hz_plus * other_plus).sum()
    two = (oz * dz).sum() + (oz_plus * dz_plus).sum()
    size = np.abs(hz * other).sum() + np.abs(hz_plus * other_plus).sum()
    assert abs(one - two) <= 1e-9 * size


@pytest.mark.parametrize("loss", LOSSES, ids=str)
@pytest.mark.parametrize(("n", "k", "tau"), [(16, 6, 0.5), (205, 9, 0.4)])
def test_derivatives_against_autograd(loss, n, k, tau):
    torch = pytest.importorskip("torch")
    functional = torch.nn.functional
    loss = with_temperature(loss, tau)
    arrays = problem(n, k)
    z, z_plus, dz, dz_plus = (torch.tensor(a) for a in arrays)
    z.requires_grad_()
    z_plus.requires_grad_()

    def formula(a, b):
        if isinstance(loss, pyssl.NTXent):
            rows = functional.normalize(torch.cat([a, b]), dim=1)
            s = rows @ rows.T / tau
            s = s.masked_fill(torch.eye(2 * n, dtype=torch.bool), float("-inf"))
            return functional.cross_entropy(s, (torch.arange(2 * n) + n) % (2 * n))
        if loss.normalize:
            a, b = functional.normalize(a, dim=1), functional.normalize(b, dim=1)
        s = a @ b.T / tau
        if loss.similarity == "sqeuclidean":
            s = s - (a * a).sum(1)[:, None] / (2 * tau) - (b * b).sum(1)[None] / (2 * tau)
        if loss.partition == "joint":
            return torch.logsumexp(s.flatten(), 0) - np.log(n) - s.diagonal().mean()
        there = functional.cross_entropy(s, torch.arange(n))
        back = functional.cross_entropy(s.T, torch.arange(n))
        return 0.5 * (there + back) if loss.symmetric else there

    expected = formula(z, z_plus)
    gradient = torch.autograd.grad(expected, (z, z_plus), create_graph=True)
    product = (gradient[0] * dz).sum() + (gradient[1] * dz_plus).sum()
    curvature = torch.autograd.grad(product, (z, z_plus))
    for dtype, rtol in ((np.float64, 1e-9), (np.float32, 1e-4)):
        given = [a.astype(dtype) for a in arrays]
        value, got = loss.value_and_gradient(*given[:2])
        assert abs(value - expected.item()) <= rtol * abs(expected.item())
        for one, other in ((got, gradient), (loss.hvp(*given), curvature)):
            right = np.concatenate([a.detach().numpy() for a in other])
            left = np.concatenate(one)
            assert left.dtype == dtype
            assert np.linalg.norm(left - right) <= rtol * np.linalg.norm(right)


@pytest.mark.parametrize("loss", LOSSES, ids=str)
def test_same_bits_for_any_thread_count(loss):
    given = problem(700, 20)
    results = []
    for threads in (1, 2, 4):
        pyssl.set_num_threads(threads)
        value, gradient = loss.value_and_gradient(*given[:2])
        results.append((value, *gradient, *loss.hvp(*given)))
    pyssl.set_num_threads(None)
    for result in results[1:]:
        for left, right in zip(results[0], result, strict=True):
            np.testing.assert_array_equal(left, right)


@pytest.mark.parametrize("loss", LOSSES, ids=str)
@pytest.mark.parametrize("dtype", [np.float64, np.float32])
def test_arguments_are_left_alone(loss, dtype):
    given = problem(50, 4, dtype=dtype)
    before = [a.copy() for a in given]
    loss.value_and_gradient(*given[:2])
    loss.hvp(*given)
    for left, right in zip(given, before, strict=True):
        np.testing.assert_array_equal(left, right)


@pytest.mark.parametrize("tau", [0.1, 0.5])
@pytest.mark.parametrize(
    "loss", [loss for loss in LOSSES if getattr(loss, "normalize", True)], ids=str
)
def test_float32_accuracy(loss, tau):
    loss = with_temperature(loss, tau)
    given = problem(600, 64)
    single = [a.astype(np.float32) for a in given[:2]]
    value, gradient = loss.value_and_gradient(*(a.astype(np.float64) for a in single))
    value32, gradient32 = loss.value_and_gradient(*single)
    assert abs(value32 - value) <= 1e-6 * abs(value)
    left, right = np.concatenate(gradient32), np.concatenate(gradient)
    assert np.linalg.norm(left - right) <= 1e-5 * np.linalg.norm(right)


@pytest.mark.parametrize("similarity", ["dot", "sqeuclidean"])
def test_float32_accuracy_without_normalisation(similarity):
    # the logits are of order one, as they are where such a loss trains
    loss = pyssl.InfoNCE(1.0, similarity)
    single = [0.3 * a for a in problem(600, 16, dtype=np.float32)[:2]]
    value, gradient = loss.value_and_gradient(*(a.astype(np.float64) for a in single))
    value32, gradient32 = loss.value_and_gradient(*single)
    assert abs(value32 - value) <= 1e-6 * abs(value)
    left, right = np.concatenate(gradient32), np.concatenate(gradient)
    assert np.linalg.norm(left - right) <= 1e-5 * np.linalg.norm(right)


def exact(loss, z, z_plus):
    """The definition in 60 digits, for what would overflow or cancel in floating point."""
    with mpmath.workdps(60):
        tau, n = mpmath.mpf(loss.temperature), len(z)
        left, right = ([[mpmath.mpf(float(v)) for v in row] for row in a] for a in (z, z_plus))

        def unit(row):
            length = max(mpmath.sqrt(sum(v * v for v in row)), mpmath.mpf("1e-12"))
            return [v / length for v in row]

        def dot(a, b):
            return sum(x * y for x, y in zip(a, b, strict=True))

        if isinstance(loss, pyssl.NTXent):
            rows = [unit(row) for row in left + right]
            total = mpmath.mpf(0)
            for i, row in enumerate(rows):
                s = [dot(row, other) / tau for other in rows]
                own = s[(i + n) % (2 * n)]
                total += mpmath.log(sum(mpmath.exp(v - own) for j, v in enumerate(s) if j != i))
            return float(total / (2 * n))
        if loss.normalize:
            left, right = [unit(row) for row in left], [unit(row) for row in right]
        total = mpmath.mpf(0)
        for i, row in enumerate(left):
            if loss.similarity == "dot" or loss.normalize:
                s = [dot(row, other) / tau for other in right]
            else:
                s = [
                    -sum((a - b) ** 2 for a, b in zip(row, other, strict=True)) / (2 * tau)
                    for other in right
                ]
            total += mpmath.log(sum(mpmath.exp(v - s[i]) for v in s))
        return float(total / n)


@pytest.mark.parametrize(
    "loss",
    [
        pyssl.NTXent(0.5),
        pyssl.NTXent(1e-3),
        pyssl.InfoNCE(0.5),
        pyssl.InfoNCE(1e-3),
        pyssl.InfoNCE(0.5, "dot"),
        pyssl.InfoNCE(1e-3, "dot"),
        pyssl.InfoNCE(1e-3, "dot", normalize=True),
    ],
    ids=str,
)
@pytest.mark.parametrize("dtype", [np.float64, np.float32])
@pytest.mark.parametrize("kind", ["plain", "1e-20", "1e15", "zero rows", "duplicates", "two", "k1"])
def test_extremes(loss, dtype, kind):
    n, k = {"two": (2, 3), "k1": (9, 1)}.get(kind, (9, 4))
    z, z_plus, *_ = problem(n, k, seed=3)
    if kind in ("1e-20", "1e15"):
        z, z_plus = float(kind) * z, float(kind) * z_plus
    elif kind == "zero rows":
        z[2] = z_plus[2] = z_plus[5] = 0.0
    elif kind == "duplicates":
        z[3:6], z_plus[:] = z[0], z
    z, z_plus = z.astype(dtype), z_plus.astype(dtype)
    value, gradient = loss.value_and_gradient(z, z_plus)
    expected = exact(loss, z, z_plus)
    # a loss is as well conditioned as its logits are large: their rounding is what it may lose
    tau = loss.temperature
    normalize = isinstance(loss, pyssl.NTXent) or loss.normalize
    logits = 1.0 / tau if normalize else float((np.float64(np.abs(z).max()) ** 2) * k * 4 / tau)
    tolerance = 8 * np.finfo(dtype).eps * (min(1.0, abs(expected)) * logits + abs(expected))
    assert abs(value - expected) <= tolerance
    for part in gradient:
        assert part.dtype == dtype
        assert np.isfinite(part).all()


def test_a_small_loss_keeps_its_digits():
    # log(1 + x) of a tiny x: lost where log-sum-exp and positive are subtracted
    z = 40.0 * np.eye(4)
    value = pyssl.InfoNCE(40.0, "dot").value(z, z)
    np.testing.assert_allclose(value, np.log1p(3 * np.exp(-40.0)), rtol=1e-12)


@pytest.mark.parametrize("partition", ["conditional", "joint"])
@pytest.mark.parametrize("dtype", [np.float64, np.float32])
def test_close_views_keep_their_distance(partition, dtype):
    z = np.random.default_rng(0).standard_normal((50, 8)).astype(dtype)
    loss = pyssl.InfoNCE(0.5, partition=partition)
    assert loss.terms(z, z)["alignment"] == 0.0
    assert loss.value(z, z) > 0.0
    close = (z + dtype(1e-4) * z[::-1]).astype(dtype)
    gap = close.astype(np.float64) - z
    expected = (gap**2).sum(axis=1).mean() / (2 * 0.5)
    np.testing.assert_allclose(loss.terms(z, close)["alignment"], expected, rtol=2e-3)
    spread = pyssl.InfoNCE(1e-3, partition="joint").value(z, close)
    exponents = (gap**2).sum(axis=1) / (2e-3)
    exact = np.log(np.exp(exponents.mean() - exponents).mean())
    np.testing.assert_allclose(spread, exact, rtol=1e-2)


def test_terms_add_up():
    z, z_plus, *_ = problem(30, 4)
    for loss in LOSSES:
        terms = loss.terms(z, z_plus)
        assert set(terms) == {"alignment", "log_partition"}
        np.testing.assert_allclose(sum(terms.values()), loss.value(z, z_plus), rtol=1e-12)


def test_alignment_is_minus_the_mean_logit_of_positives():
    z, z_plus, *_ = problem(30, 4)
    terms = pyssl.InfoNCE(0.5, "dot").terms(z, z_plus)
    np.testing.assert_allclose(terms["alignment"], -(z * z_plus).sum(axis=1).mean() / 0.5)


def test_sphere_makes_similarities_equal():
    z, z_plus, *_ = problem(30, 4)
    dot, distance = (
        pyssl.InfoNCE(0.3, similarity, normalize=True) for similarity in ("dot", "sqeuclidean")
    )
    assert dot.value(z, z_plus) == distance.value(z, z_plus)


def test_distances_do_not_see_an_offset():
    z, z_plus, *_ = problem(30, 4)
    loss = pyssl.InfoNCE(0.5)
    here, there = (loss.value_and_gradient(z + t, z_plus + t) for t in (0.0, 1e6))
    np.testing.assert_allclose(there[0], here[0], rtol=1e-8)
    np.testing.assert_allclose(there[1][0], here[1][0], atol=1e-8 * np.abs(here[1][0]).max())


def test_exponentials_both_ways_agree():
    z, z_plus, *_ = problem(300, 8)
    contrasts = [_contrastive.ntxent(z, z_plus, temperature=0.2) for _ in range(2)]
    contrasts[1].__dict__["_small"] = False
    small, large = (contrast.value_and_gradient() for contrast in contrasts)
    assert contrasts[0]._small
    np.testing.assert_allclose(small[0], large[0], rtol=1e-14)
    for left, right in zip(small[1], large[1], strict=True):
        np.testing.assert_allclose(left, right, atol=1e-15)


# ---- logits made once ----------------------------------------------------------------------------

ONE_SIDED = [loss for loss in INFONCE if loss.partition == "conditional" and not loss.symmetric]


def both_ways(loss, z, z_plus):
    """Value and gradients with logits made once and, as for more rows than that, made twice."""
    once = loss.value_and_gradient(z, z_plus)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(_contrastive, "_ONE_SIDED", 0)
        twice = loss.value_and_gradient(z, z_plus)
    return once, twice


# 192 rows make a block, three of those a chunk: at the edges of both, and of the tiles' columns
@pytest.mark.parametrize(
    ("n", "k"), [(191, 5), (192, 32), (193, 33), (576, 4), (577, 2), (1000, 9)]
)
@pytest.mark.parametrize("loss", ONE_SIDED, ids=str)
@pytest.mark.parametrize(("dtype", "eps"), [(np.float64, 1e-13), (np.float32, 2e-5)])
def test_logits_made_once_and_twice_agree(loss, n, k, dtype, eps):
    for tau in (0.7, 0.004):  # the second takes running maxima
        z, z_plus, *_ = problem(n, k, dtype=dtype)
        once, twice = both_ways(with_temperature(loss, tau), z, z_plus)
        assert once[0] == twice[0]
        scale = np.linalg.norm(np.concatenate(twice[1]))
        for left, right in zip(once[1], twice[1], strict=True):
            # of logits as large as 1/tau the rounding is that much larger, too
            tolerance = eps * max(1.0, 0.1 / tau) * scale
            assert np.linalg.norm(left - right) <= tolerance


def softmax_gradients(x, y):
    """Of the mean of log(1 + sum over j != i of 2^(x_i.y_j - x_i.y_i)), densely."""
    n = len(x)
    s = np.log(2.0) * (x @ y.T)
    p = np.exp(s - log_sum_exp(s)[:, None]) - np.eye(n)
    return np.log(2.0) / n * (p @ y), np.log(2.0) / n * (p.T @ x)


def one_sided(x, y, threads, small):
    n = len(x)
    positives, logs = (x * y).sum(axis=1, dtype=np.float64), np.empty(n)
    out = np.empty_like(x), np.empty_like(y)
    nothing = (None,) * 4
    _core.one_sided(
        x, y, small, positives, *nothing, np.log(2.0) / n, logs, *out, num_threads=threads
    )
    return logs, *out


@pytest.mark.parametrize("small", [True, False])
def test_several_waves_against_the_dense_matrix(small):
    # 8 MiB hold 3 of the 15 row blocks at a time in double precision
    n, k = 2700, 6
    rng = np.random.default_rng(4)
    x, y = rng.standard_normal((2, n, k))
    logs, *gradients = one_sided(x, y, 2, small)
    s = x @ y.T
    np.fill_diagonal(s, -np.inf)
    expected = log_sum_exp(np.log(2.0) * s) / np.log(2.0)
    np.testing.assert_allclose(logs, expected, rtol=1e-13, atol=1e-13)
    for got, expected in zip(gradients, softmax_gradients(x, y), strict=True):
        np.testing.assert_allclose(got, expected, atol=1e-13 * np.abs(expected).max())
    for threads in (1, 3, 8):
        for left, right in zip((logs, *gradients), one_sided(x, y, threads, small), strict=True):
            np.testing.assert_array_equal(left, right)


@pytest.mark.parametrize("rising", [True, False])
def test_maxima_that_move_from_block_to_block(rising):
    # each block of columns lies a hundred powers of two above (or below) the one before it, and
    # every third row sees them the other way round
    n = 800
    rng = np.random.default_rng(5)
    height = np.linspace(0.0, 500.0, n) * (1.0 if rising else -1.0)
    x = np.column_stack([np.where(np.arange(n) % 3 == 0, -1.0, 1.0), rng.standard_normal((n, 3))])
    y = np.column_stack([height, rng.standard_normal((n, 3))])
    logs, *gradients = one_sided(x, y, 2, False)
    s = x @ y.T
    np.fill_diagonal(s, -np.inf)
    expected = log_sum_exp(np.log(2.0) * s) / np.log(2.0)
    np.testing.assert_allclose(logs, expected, rtol=1e-13, atol=1e-13)
    for got, expected in zip(gradients, softmax_gradients(x, y), strict=True):
        np.testing.assert_allclose(got, expected, atol=1e-12 * np.abs(expected).max())


def test_views_of_very_different_lengths():
    # the logits are small, the rows are not: products with powers must stay inside float32
    rng = np.random.default_rng(6)
    z, z_plus = rng.standard_normal((2, 300, 4)).astype(np.float32)
    loss = pyssl.InfoNCE(0.05, "dot")
    plain = loss.value_and_gradient(z, z_plus)
    lever = np.float32(2.0**80)
    value, (gz, gz_plus) = loss.value_and_gradient(z / lever, z_plus * lever)
    np.testing.assert_allclose(value, plain[0], rtol=1e-6)
    for got, expected in ((gz / lever, plain[1][0]), (gz_plus * lever, plain[1][1])):
        np.testing.assert_allclose(got, expected, atol=1e-5 * np.abs(expected).max())


@pytest.mark.parametrize(
    ("changed", "error", "match"),
    [
        ({"y": np.zeros((4, 2))}, ValueError, "as many rows"),
        ({"y": np.zeros((5, 3))}, ValueError, r"y must be \(5, 2\), got \(5, 3\)"),
        ({"positives": np.zeros(4)}, ValueError, r"positives must be \(5,\), got \(4,\)"),
        ({"rows": np.zeros(5, np.float32)}, TypeError, "rows must be float64"),
        ({"x_gradient": np.zeros((5, 2), np.float32)}, TypeError, "x_gradient must be float64"),
        ({"x_scale": np.zeros(6)}, ValueError, r"scale must be \(5,\)"),
        ({"num_threads": -1}, ValueError, "num_threads must be >= 0"),
    ],
)
def test_one_sided_checks_what_its_memory_safety_needs(changed, error, match):
    arrays = {name: np.zeros((5, 2)) for name in ("x", "y", "x_gradient", "y_gradient")}
    nothing = dict.fromkeys(("x_project", "x_scale", "y_project", "y_scale"))
    arguments = arrays | nothing | {"positives": np.zeros(5), "rows": np.zeros(5)}
    with pytest.raises(error, match=match):
        _core.one_sided(**(arguments | {"small": True, "factor": 1.0} | changed))


@pytest.mark.parametrize("loss", LOSSES, ids=str)
def test_one_pair_has_no_negatives(loss):
    with pytest.raises(ValueError, match="z must have at least 2 rows"):
        loss.value(np.ones((1, 3)), np.ones((1, 3)))


def test_bad_rows_are_named():
    z = np.ones((5, 3))
    bad = z.copy()
    bad[3, 1] = np.nan
    with pytest.raises(ValueError, match=r"z_plus must be finite.*row 3"):
        pyssl.NTXent().value(z, bad)
    with pytest.raises(ValueError, match=r"dz must be \(5, 3\), got \(4, 3\)"):
        pyssl.NTXent().hvp(z, z, z[:4], z)


def test_one_far_anchor_spoils_no_other_row():
    # its square, about 2e12, has no digits in float32 for distances of order 1
    rng = np.random.default_rng(0)
    z = rng.standard_normal((256, 64))
    z_plus = z + 0.01 * rng.standard_normal((256, 64))
    z[0] *= 1e6
    single, single_plus = z.astype(np.float32), z_plus.astype(np.float32)
    loss = pyssl.InfoNCE(1.0)
    value, (gradient, _) = loss.value_and_gradient(single, single_plus)
    exact, (reference, _) = loss.value_and_gradient(
        single.astype(np.float64), single_plus.astype(np.float64)
    )
    assert gradient.dtype == np.float32
    assert abs(value - exact) <= 1e-6 * abs(exact) + 1e-12
    np.testing.assert_allclose(gradient[1:], reference[1:], atol=1e-9)
