"""InfoNCE on planes: quadratics of logits against the loss point by point."""

from __future__ import annotations

import mpmath
import numpy as np
import pytest

import pyssl
from pyssl import _contrastive_plane, _core

LOSSES = [
    pyssl.InfoNCE(0.7, "dot"),
    pyssl.InfoNCE(0.7),
    pyssl.InfoNCE(0.7, "dot", symmetric=True),
    pyssl.InfoNCE(0.7, symmetric=True),
    pyssl.InfoNCE(0.7, "dot", partition="joint"),
    pyssl.InfoNCE(0.7, partition="joint"),
]
# below, at and above a strip of rows, a block of them, a block of columns
SIZES = [2, 3, 95, 97, 191, 194, 400]


def with_temperature(loss, tau):
    return pyssl.InfoNCE(tau, loss.similarity, partition=loss.partition, symmetric=loss.symmetric)


def parts(n, k=5, scale=1.0, dtype=np.float64):
    rng = np.random.default_rng(n)
    z = rng.standard_normal((3, n, k))
    z_plus = z + 0.3 * rng.standard_normal(z.shape)
    return (scale * z).astype(dtype), (scale * z_plus).astype(dtype)


def pointwise(loss, z, z_plus, u, v):
    z, z_plus = z.astype(np.float64), z_plus.astype(np.float64)
    return np.array(
        [[loss.value(*(a[0] + s * a[1] + t * a[2] for a in (z, z_plus))) for t in v] for s in u]
    )


def largest_logit(loss, z, z_plus, u, v):
    """What rounding errors of logits are relative to."""
    reach = [
        np.linalg.norm(a[0], axis=-1).max()
        + np.abs(u).max() * np.linalg.norm(a[1], axis=-1).max()
        + np.abs(v).max() * np.linalg.norm(a[2], axis=-1).max()
        for a in (z.astype(np.float64), z_plus.astype(np.float64))
    ]
    return reach[0] * reach[1] / loss.temperature


def assert_close(loss, z, z_plus, u, v):
    result = loss._plane(z, z_plus, u, v)
    assert result.shape == (len(u), len(v))
    assert result.dtype == np.float64
    expected = pointwise(loss, z, z_plus, u, v)
    size = largest_logit(loss, z, z_plus, u, v) + np.abs(expected).max()
    assert np.abs(result - expected).max() <= 4 * np.finfo(z.dtype).eps * size


@pytest.mark.parametrize("loss", LOSSES, ids=str)
@pytest.mark.parametrize("n", SIZES)
@pytest.mark.parametrize("dtype", [np.float64, np.float32])
def test_is_the_loss_point_by_point(loss, n, dtype):
    assert_close(loss, *parts(n, dtype=dtype), np.linspace(-1, 1, 3), np.linspace(-0.5, 1, 5))


@pytest.mark.parametrize("loss", LOSSES, ids=str)
@pytest.mark.parametrize("shape", [(1, 1), (1, 33), (33, 1), (9, 8), (8, 9), (5, 70), (70, 5)])
@pytest.mark.parametrize("dtype", [np.float64, np.float32])
def test_grids_of_any_shape(loss, shape, dtype):
    u, v = (np.linspace(-1.2, 1, size) for size in shape)
    assert_close(loss, *parts(13, dtype=dtype), u, v)


@pytest.mark.parametrize("loss", LOSSES, ids=str)
@pytest.mark.parametrize("k", [1, 2, 37])
def test_dimensions(loss, k):
    assert_close(loss, *parts(30, k), np.array([0.3]), np.linspace(-1, 1, 9))


@pytest.mark.parametrize("loss", LOSSES, ids=str)
@pytest.mark.parametrize("scale", [1e-20, 1e6, 1e15])
@pytest.mark.parametrize("dtype", [np.float64, np.float32])
def test_extremes(loss, scale, dtype):
    for tau in (1e-3, 1.0):
        other = with_temperature(loss, tau)
        z, z_plus = parts(101, scale=scale, dtype=dtype)
        assert_close(other, z, z_plus, np.linspace(-1, 1, 4), np.linspace(-0.5, 1, 11))


def test_small_losses_keep_their_digits():
    # the positives ahead by a few hundred: the loss is what the negatives add, far below rounding
    z = np.zeros((3, 4, 4))
    z[0] = 12.0 * np.eye(4)
    z[1] = np.eye(4)
    u, v = np.array([-1.0, 0.0, 1.0]), np.array([0.0, 2.0])
    for loss in (pyssl.InfoNCE(1.0), pyssl.InfoNCE(1.0, partition="joint")):
        result = loss._plane(z, z, u, v)
        exact = [[float(mpmath.log1p(3 * mpmath.exp(-((12 + s) ** 2)))) for _ in v] for s in u]
        assert max(map(max, exact)) < 1e-50
        np.testing.assert_allclose(result, exact, rtol=1e-12)


def test_losses_that_vanish():
    z = np.zeros((3, 2, 2))
    z[0] = 1e3 * np.eye(2)
    for loss in LOSSES[:4]:
        np.testing.assert_array_equal(
            with_temperature(loss, 1e-3)._plane(z, z, np.zeros(1), np.zeros(2)), 0.0
        )


def test_same_bits_for_any_number_of_threads():
    z, z_plus = parts(230, dtype=np.float32)
    u, v = np.linspace(-1, 1, 70), np.linspace(-1, 1, 33)
    for loss in LOSSES:
        results = []
        for threads in (1, 2, 4):
            pyssl.set_num_threads(threads)
            results.append(loss._plane(z, z_plus, u, v))
        pyssl.set_num_threads(None)
        for other in results[1:]:
            np.testing.assert_array_equal(other, results[0])


def test_pieces_of_a_grid_do_not_change_a_bit(monkeypatch):
    z, z_plus = parts(110)
    u, v = np.linspace(-1, 1, 12), np.linspace(-1, 1, 40)
    whole = [loss._plane(z, z_plus, u, v) for loss in LOSSES]
    monkeypatch.setattr(_contrastive_plane, "_LONGEST", 16)
    monkeypatch.setattr(_contrastive_plane, "_SUMS", 100)
    for loss, expected in zip(LOSSES, whole, strict=True):
        np.testing.assert_array_equal(loss._plane(z, z_plus, u, v), expected)


def test_a_large_grid_is_taken_in_pieces(monkeypatch):
    seen = []

    def record(x, *rest, **_):
        u, v, out = rest[5:]
        seen.append(-(-x.shape[1] // 96) * len(u) * -(-len(v) // 16) * 16)
        out[...] = u[:, None] + v

    monkeypatch.setattr(_core, "plane_losses", record)
    u, v = np.linspace(0, 1, 1000), np.linspace(0, 1, 1500)
    result = pyssl.InfoNCE()._plane(*parts(300, 1), u, v)
    np.testing.assert_array_equal(result, u[:, None] + v)
    assert max(seen) * 16 <= 32 * 2**20


def test_pays():
    pays = _contrastive_plane.pays
    assert not pays(4096, 64, 2, 2, 1)
    assert pays(4096, 64, 30, 30, 1)
    assert pays(4096, 64, 30, 30, 2)
    assert pays(16, 4, 2, 2, 1)  # calls are what costs


@pytest.mark.parametrize("loss", LOSSES, ids=str)
@pytest.mark.parametrize("bias", [False, True])
@pytest.mark.parametrize("decay", [0.0, 0.4])
def test_landscapes_take_it(loss, bias, decay, monkeypatch):
    rng = np.random.default_rng(5)
    x = rng.standard_normal((70, 6)) + 3.0
    x_plus = x + 0.2 * rng.standard_normal(x.shape)
    land = loss.empirical(x, x_plus, embedding_dim=3, weight_decay=decay, bias=bias)
    corners = 0.5 * rng.standard_normal((3, *land.shape))
    u, v = np.linspace(9.0, 10.0, 6), np.linspace(-2.0, 1.0, 7)
    expected = [[land.value(corners[0] + s * corners[1] + t * corners[2]) for t in v] for s in u]
    monkeypatch.setattr(land, "_total", None)
    surface = land.plane(*corners, u, v)
    assert surface.dtype == np.float64
    logits = np.square(corners[1] * 10.0).sum() * np.square(x).sum(axis=1).max() / 0.7
    np.testing.assert_allclose(surface, expected, rtol=1e-13, atol=1e-15 * logits)


def test_landscapes_in_float32():
    rng = np.random.default_rng(6)
    x = rng.standard_normal((70, 6)).astype(np.float32)
    x_plus = x + np.float32(0.2) * rng.standard_normal(x.shape, dtype=np.float32)
    land = pyssl.InfoNCE().empirical(x, x_plus, embedding_dim=3)
    corners = rng.standard_normal((3, *land.shape), dtype=np.float32)
    axis = np.linspace(-1, 1, 12, dtype=np.float32)
    narrow = land.plane(*corners, axis, axis)
    assert narrow.dtype == np.float32
    wide = land.plane(*corners, axis.astype(np.float64), axis)
    assert wide.dtype == np.float64
    np.testing.assert_allclose(narrow, wide, rtol=1e-5)
    assert np.abs(narrow - wide).max() > 1e-8 * wide.max()  # it is evaluated in float32


def test_normalised_embeddings_go_point_by_point():
    assert not pyssl.InfoNCE(normalize=True)._plane_pays(100, 4, 50, 50)
    assert not pyssl.NTXent()._plane_pays(100, 4, 50, 50)
    with pytest.raises(NotImplementedError):
        pyssl.NTXent()._plane(*parts(4), np.zeros(1), np.zeros(1))


def kernel_arguments():
    z, z_plus = parts(6)
    terms = np.zeros((6, 6))
    return {
        "x": z,
        "y": z_plus,
        "x_terms": terms,
        "y_terms": terms,
        "positives": terms,
        "offsets": None,
        "u": np.zeros(2),
        "v": np.zeros(3),
        "out": np.empty((2, 3)),
    }


@pytest.mark.parametrize(
    ("name", "value", "error"),
    [
        ("x", np.zeros((2, 6, 5)), ValueError),
        ("y", np.zeros((3, 7, 5)), ValueError),
        ("y", np.zeros((3, 6, 5), np.float32), TypeError),
        ("x_terms", np.zeros((6, 5)), ValueError),
        ("y_terms", np.zeros((5, 6)), ValueError),
        ("positives", np.zeros((6, 6), np.float32), TypeError),
        ("offsets", np.zeros((6, 7)), ValueError),
        ("u", np.zeros(0), ValueError),
        ("v", np.zeros((1, 3)), ValueError),
        ("out", np.empty((3, 2)), ValueError),
        ("num_threads", -1, ValueError),
    ],
)
def test_the_kernel_refuses(name, value, error):
    _core.plane_losses(**kernel_arguments())
    with pytest.raises(error, match=name):
        _core.plane_losses(**kernel_arguments() | {name: value})
