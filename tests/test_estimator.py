"""LinearSSL: the minimum of a loss behind scikit-learn's interface."""

from __future__ import annotations

import copy
import functools
import pickle

import numpy as np
import pytest

pytest.importorskip("sklearn")

import sklearn
from sklearn.base import clone
from sklearn.exceptions import NotFittedError
from sklearn.frozen import FrozenEstimator
from sklearn.linear_model import LogisticRegression
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler
from sklearn.utils.estimator_checks import parametrize_with_checks

import pyssl
from pyssl.estimator import LinearSSL

CLOSED_FORM = [
    pyssl.InfoNCE(),
    pyssl.InfoNCE(temperature=0.3, similarity="dot"),
    pyssl.InfoNCE(temperature=0.5, partition="joint"),
    pyssl.InfoNCE(similarity="dot", partition="joint"),
    pyssl.SpectralContrastive(),
    pyssl.BarlowTwins(redundancy=1.0, normalize=False),
    pyssl.SquaredVICReg(),
    pyssl.SquaredVICReg(invariance=3.0),
]


def views(n=400, d=6, noise=0.4, mean=5.0, seed=0, dtype=np.float64):
    rng = np.random.default_rng(seed)
    clean = mean + rng.standard_normal((n, d)) * np.linspace(2.0, 0.5, d)
    pair = clean + noise * rng.standard_normal((2, n, d))
    return tuple(pair.astype(dtype))


# ---- scikit-learn's own checks -------------------------------------------------------------------


class OneArraySSL(LinearSSL):
    """What the checks expect: `fit` takes one array, whose second view is made here."""

    def fit(self, X, y=None):
        x_plus = X
        if type(X) is np.ndarray and X.dtype.kind == "f" and X.ndim == 2:
            # weak enough for the check that a single feature is learned, and the same every time
            wobble = 1.0 + 0.1 * np.sin(np.arange(X.size, dtype=X.dtype)).reshape(X.shape)
            x_plus = X * wobble
        return super().fit(X, x_plus)

    def __sklearn_tags__(self):
        tags = super().__sklearn_tags__()
        tags.target_tags.required = False  # the adapter makes the second view itself
        return tags


@parametrize_with_checks(
    [
        OneArraySSL(),
        OneArraySSL(pyssl.SpectralContrastive(), embedding_dim=3),
        OneArraySSL(pyssl.BarlowTwins(redundancy=1.0, normalize=False), embedding_dim=2),
    ]
)
def test_scikit_learn_check(estimator, check):
    # No check is exempt: what does not apply to two views is what the adapter above supplies.
    check(estimator)


# Checks that hold for the two-view estimator itself, without the adapter.
NOT_FITTED_HERE = [
    "check_estimator_cloneable",
    "check_estimator_tags_renamed",
    "check_valid_tag_types",
    "check_estimator_repr",
    "check_no_attributes_set_in_init",
    "check_parameters_default_constructible",
    "check_get_params_invariance",
    "check_set_params",
    "check_mixin_order",
    "check_do_not_raise_errors_in_init_or_set_params",
    "check_estimators_unfitted",
    "check_transformers_unfitted",
]


@pytest.mark.parametrize("name", NOT_FITTED_HERE)
def test_scikit_learn_check_without_adapter(name):
    from sklearn.utils import estimator_checks

    if name == "check_transformers_unfitted":
        with pytest.raises(NotFittedError):
            LinearSSL().transform(np.eye(3))
        return
    getattr(estimator_checks, name)("LinearSSL", LinearSSL())


# ---- the solution --------------------------------------------------------------------------------


@pytest.mark.parametrize("loss", CLOSED_FORM, ids=repr)
@pytest.mark.parametrize("embedding_dim", [1, 4, 9])
def test_components_are_the_global_minimum(loss, embedding_dim):
    x, x_plus = views()
    ssl = LinearSSL(loss, embedding_dim=embedding_dim, weight_decay=0.05).fit(x, x_plus)

    moments = pyssl.Moments.from_views(x, x_plus)
    land = loss.population(moments.centered(), embedding_dim, weight_decay=0.05)
    minimum = land.minimum()
    value, gradient = land.value_and_gradient(ssl.components_)
    assert value == pytest.approx(minimum.value, rel=1e-10, abs=1e-12)
    assert np.abs(gradient).max() <= 1e-9 * max(1.0, np.abs(land.B).max())
    # nothing nearby is lower
    rng = np.random.default_rng(1)
    for size in (1e-3, 0.1, 1.0):
        steps = size * rng.standard_normal((50, *land.shape))
        assert (land.value(ssl.components_ + steps) >= value - 1e-12 * abs(value)).all()


@pytest.mark.parametrize("loss", CLOSED_FORM, ids=repr)
def test_attributes(loss):
    x, x_plus = views(d=5)
    ssl = LinearSSL(loss, embedding_dim=7, weight_decay=0.1).fit(x, x_plus)
    assert ssl.components_.shape == (7, 5)
    assert ssl.n_features_in_ == 5
    np.testing.assert_allclose(ssl.mean_, np.concatenate([x, x_plus]).mean(axis=0), rtol=1e-14)
    assert isinstance(ssl.moments_, pyssl.Moments) and ssl.moments_.n_samples == len(x)
    np.testing.assert_array_equal(ssl.moments_.mean, ssl.mean_)
    assert isinstance(ssl.collapse_, pyssl.CollapseReport)
    assert ssl.collapse_.weight_decay == 0.1
    assert ssl.collapse_.n_samples == len(x)
    # as many rows as modes learned, zeros below
    rank = ssl.collapse_.rank
    assert np.linalg.matrix_rank(ssl.components_) == rank
    assert (np.abs(ssl.components_[:rank]).max(axis=1) > 0.0).all()
    assert not ssl.components_[rank:].any()
    assert list(ssl.get_feature_names_out()) == [f"linearssl{i}" for i in range(7)]


def test_transform_is_the_centred_product():
    x, x_plus = views()
    ssl = LinearSSL(embedding_dim=3).fit(x, x_plus)
    z = ssl.transform(x)
    assert z.dtype == np.float64
    np.testing.assert_allclose(z, (x - ssl.mean_) @ ssl.components_.T, rtol=1e-12, atol=1e-12)
    # with the report's word for it: the modes are uncorrelated, their variance the amplitude
    both = np.concatenate([z, ssl.transform(x_plus)])
    covariance = both.T @ both / len(both)
    np.testing.assert_allclose(
        covariance, np.diag(ssl.collapse_.modes.amplitude[:3]), rtol=1e-9, atol=1e-12
    )


def test_the_mean_does_not_matter():
    loss = pyssl.SpectralContrastive()  # uncentred, it would spend a dimension on the mean
    x, x_plus = views(mean=0.0)
    here = LinearSSL(loss, 3).fit(x, x_plus)
    there = LinearSSL(loss, 3).fit(x + 1e3, x_plus + 1e3)
    np.testing.assert_allclose(there.components_, here.components_, rtol=1e-7, atol=1e-9)
    np.testing.assert_allclose(there.transform(x + 1e3), here.transform(x), rtol=1e-7, atol=1e-7)


def test_the_default_loss_is_infonce():
    x, x_plus = views()
    default, named = LinearSSL().fit(x, x_plus), LinearSSL(pyssl.InfoNCE()).fit(x, x_plus)
    np.testing.assert_array_equal(default.components_, named.components_)
    assert default.collapse_.loss == repr(pyssl.InfoNCE())
    assert default.components_.shape == (16, x.shape[1])


def test_complete_collapse_is_a_result():
    x, x_plus = views()
    ssl = LinearSSL(embedding_dim=2, weight_decay=1e3).fit(x, x_plus)
    assert ssl.collapse_.kind is pyssl.Collapse.COMPLETE
    assert not ssl.components_.any()
    assert not ssl.transform(x).any()


# ---- dtypes and layouts --------------------------------------------------------------------------


def test_float32():
    x, x_plus = views(dtype=np.float32, mean=1e4)
    single = LinearSSL(embedding_dim=3).fit(x, x_plus)
    double = LinearSSL(embedding_dim=3).fit(x.astype(np.float64), x_plus.astype(np.float64))
    np.testing.assert_array_equal(single.components_, double.components_)  # accumulated in double
    z = single.transform(x)
    assert z.dtype == np.float32
    assert single.transform(x.astype(np.float64)).dtype == np.float64
    # a float32 mean of 1e4 would be off by 5e-4
    np.testing.assert_allclose(z, double.transform(x.astype(np.float64)), rtol=1e-4, atol=2e-5)


@pytest.mark.parametrize("dtype", [np.int32, np.uint8, np.float16, ">f8", np.longdouble, object])
def test_other_dtypes_are_read_as_float64(dtype):
    x, x_plus = (np.round(4.0 * (side + 5.0)) for side in views())
    expected = LinearSSL(embedding_dim=3).fit(x, x_plus)
    got = LinearSSL(embedding_dim=3).fit(x.astype(dtype), x_plus.astype(dtype))
    np.testing.assert_array_equal(got.components_, expected.components_)
    np.testing.assert_array_equal(got.transform(x.astype(dtype)), expected.transform(x))
    assert got.transform(x.astype(dtype)).dtype == np.float64


# ---- scikit-learn's machinery --------------------------------------------------------------------


def test_clone_and_parameters():
    loss = pyssl.SquaredVICReg(2.0)
    ssl = LinearSSL(loss, embedding_dim=3, weight_decay=0.2).fit(*views())
    again = clone(ssl)
    assert again.get_params() == {"loss": loss, "embedding_dim": 3, "weight_decay": 0.2}
    assert not hasattr(again, "components_")
    again.set_params(embedding_dim=5, loss=pyssl.InfoNCE())
    assert again.fit(*views()).components_.shape == (5, 6)
    with pytest.raises(ValueError, match="'temperature'"):
        again.set_params(temperature=1.0)
    assert repr(LinearSSL(embedding_dim=2)) == "LinearSSL(embedding_dim=2)"


def pickled(item):
    return pickle.loads(pickle.dumps(item))


@pytest.mark.parametrize("duplicate", [pickled, copy.deepcopy])
@pytest.mark.parametrize("loss", CLOSED_FORM, ids=repr)
def test_copies(loss, duplicate):
    x, x_plus = views()
    ssl = LinearSSL(loss, embedding_dim=3).fit(x, x_plus)
    copied = duplicate(ssl)
    np.testing.assert_array_equal(copied.transform(x), ssl.transform(x))
    assert str(copied.collapse_) == str(ssl.collapse_)
    assert copied.get_params() == ssl.get_params()


def test_pipeline_of_the_fitted_estimator():
    rng = np.random.default_rng(3)
    label = np.repeat([0, 1], 200)
    clean = 3.0 * label[:, None] * np.eye(5)[0] + 0.3 * rng.standard_normal((400, 5))
    x, x_plus = clean + 0.3 * rng.standard_normal((2, 400, 5))
    ssl = LinearSSL(pyssl.InfoNCE(0.5), embedding_dim=2, weight_decay=0.1).fit(x, x_plus)
    before = ssl.components_.copy()
    model = make_pipeline(FrozenEstimator(ssl), StandardScaler(), LogisticRegression())
    assert model.fit(x, label).score(x_plus, label) > 0.95
    np.testing.assert_array_equal(ssl.components_, before)
    np.testing.assert_array_equal(model[0].transform(x), ssl.transform(x))


def test_labels_in_place_of_the_second_view():
    # the likely mistake: an unfrozen LinearSSL in a pipeline is given the labels
    x, _ = views()
    model = make_pipeline(LinearSSL(), LogisticRegression())
    with pytest.raises(ValueError, match=r"x_plus must have 2 dimension\(s\), got shape \(400,\)"):
        model.fit(x, np.repeat([0, 1], len(x) // 2))


def test_fit_transform():
    x, x_plus = views()
    expected = LinearSSL(embedding_dim=2).fit(x, x_plus).transform(x)
    np.testing.assert_array_equal(LinearSSL(embedding_dim=2).fit_transform(x, x_plus), expected)


def test_set_output():
    x, x_plus = views()
    ssl = LinearSSL(embedding_dim=2).set_output(transform="default").fit(x, x_plus)
    assert isinstance(ssl.transform(x), np.ndarray)
    with sklearn.config_context(transform_output="default"):
        assert isinstance(ssl.transform(x), np.ndarray)
    pandas = pytest.importorskip("pandas")
    frame = ssl.set_output(transform="pandas").transform(x)
    assert isinstance(frame, pandas.DataFrame)
    assert list(frame.columns) == ["linearssl0", "linearssl1"]


def test_feature_names():
    pandas = pytest.importorskip("pandas")
    x, x_plus = (pandas.DataFrame(side, columns=list("abcdef")) for side in views())
    ssl = LinearSSL(embedding_dim=2).fit(x, x_plus)
    assert list(ssl.feature_names_in_) == list("abcdef")
    with pytest.raises(ValueError, match="feature names"):
        LinearSSL(embedding_dim=2).fit(x, x_plus[list("abcdfe")])


# ---- what it refuses -----------------------------------------------------------------------------


def test_no_minimum_says_what_would_give_one():
    x, _ = views()
    with pytest.raises(ValueError, match=r"6 mode\(s\).*weight_decay must be positive, got 0"):
        LinearSSL(weight_decay=0.0).fit(x, x)
    # as it says
    assert LinearSSL(weight_decay=1e-6).fit(x, x).collapse_.minimum.attained
    # two of six features are not augmented
    x_plus = x.copy()
    x_plus[:, :4] += 0.1 * np.random.default_rng(0).standard_normal((len(x), 4))
    with pytest.raises(ValueError, match=r"2 mode\(s\)"):
        LinearSSL(weight_decay=0.0).fit(x, x_plus)
    # capacity does not change that: the modes that diverge come first
    with pytest.raises(ValueError, match=r"1 mode\(s\)"):
        LinearSSL(weight_decay=0.0, embedding_dim=1).fit(x, x_plus)
    # differences in what hardly varies at all augment nothing else, nor does the data's rounding
    hardly = np.random.default_rng(1).standard_normal((2, len(x), 1))
    pair = [np.hstack([x, 1e-9 * side]) for side in hardly]
    for rotation in (np.eye(7), np.linalg.qr(np.random.default_rng(2).standard_normal((7, 7)))[0]):
        with pytest.raises(ValueError, match=r"6 mode\(s\)"):
            LinearSSL(weight_decay=0.0).fit(*(side @ rotation for side in pair))
    # these losses have a minimum even so
    for loss in (pyssl.InfoNCE(similarity="dot"), pyssl.SpectralContrastive()):
        assert LinearSSL(loss, weight_decay=0.0).fit(x, x).collapse_.minimum.attained


SEARCHED = [
    pyssl.NTXent(),
    pyssl.VICReg(),
    pyssl.BarlowTwins(),
    pyssl.BarlowTwins(redundancy=2.0, normalize=False),
    pyssl.InfoNCE(negatives=7),
]


@pytest.mark.parametrize("loss", SEARCHED, ids=repr)
def test_losses_without_closed_form(loss):
    x, x_plus = views()
    ssl = LinearSSL(loss, embedding_dim=3).fit(x, x_plus)
    land = loss.sharpest(ssl.moments_.centered(), 3, 1e-3)[1]
    found = pyssl.minimize(land)
    decay = 0.0 if not land.scale_free else 0.5e-3  # what a scale-free landscape does not know
    value, best = (
        float(land.value(W)) - decay * float(np.sum(W**2)) for W in (ssl.components_, found.weights)
    )
    assert value == pytest.approx(best, rel=1e-8)
    assert ssl.collapse_.rank == np.linalg.matrix_rank(ssl.components_, tol=1e-6)
    z = ssl.transform(x)
    np.testing.assert_allclose(z, (x - ssl.mean_) @ ssl.components_.T)
    # signs do not depend on the search, nor does a call on the one before
    largest = np.take_along_axis(
        ssl.components_, np.abs(ssl.components_).argmax(axis=1)[:, None], axis=1
    )
    assert (largest >= 0.0).all()
    np.testing.assert_array_equal(
        LinearSSL(loss, embedding_dim=3).fit(x, x_plus).components_, ssl.components_
    )


def test_scales_of_embeddings_that_have_none():
    x, x_plus = views()
    units = LinearSSL(pyssl.BarlowTwins(), embedding_dim=3).fit(x, x_plus)
    sigma = units.moments_.covariance
    W = units.components_
    np.testing.assert_allclose(np.diagonal(W @ sigma @ W.T), 1.0)
    W = LinearSSL(pyssl.NTXent(), embedding_dim=3).fit(x, x_plus).components_
    assert np.trace(W @ sigma @ W.T) == pytest.approx(1.0)


def test_a_search_that_finds_nothing(monkeypatch):
    monkeypatch.setattr(
        pyssl.solvers, "minimize", functools.partial(pyssl.minimize, max_iterations=1)
    )
    with pytest.raises(ValueError, match="the search found no minimum"):
        LinearSSL(pyssl.VICReg(), 2).fit(*views())


def test_losses_without_a_landscape_in_the_moments():
    with pytest.raises(NotImplementedError, match="InfoNCE"):
        LinearSSL(pyssl.InfoNCE(normalize=True)).fit(*views())


@pytest.mark.parametrize(
    ("parameters", "error", "message"),
    [
        ({"loss": "infonce"}, TypeError, "loss must be a loss"),
        ({"loss": pyssl.InfoNCE}, TypeError, "loss must be a loss"),
        ({"embedding_dim": 0}, ValueError, "embedding_dim must be at least 1, got 0"),
        ({"embedding_dim": 2.0}, TypeError, "embedding_dim must be an integer, got 2.0"),
        ({"embedding_dim": True}, TypeError, "embedding_dim must be an integer, got True"),
        ({"weight_decay": -1.0}, ValueError, "weight_decay must be >= 0, got -1"),
        ({"weight_decay": np.nan}, ValueError, "weight_decay must be finite, got nan"),
        ({"weight_decay": "0.1"}, TypeError, "weight_decay must be a real number, got '0.1'"),
    ],
)
def test_bad_parameters(parameters, error, message):
    ssl = LinearSSL(**parameters)  # construction never validates: scikit-learn's rule
    with pytest.raises(error, match=message):
        ssl.fit(*views())


def test_bad_views():
    x, x_plus = views()
    shape = r"x_plus must have the shape of x \(400, 6\), got "
    with pytest.raises(ValueError, match=shape + r"\(399, 6\)"):
        LinearSSL().fit(x, x_plus[1:])
    with pytest.raises(ValueError, match=shape + r"\(400, 5\)"):
        LinearSSL().fit(x, x_plus[:, 1:])
    with pytest.raises(ValueError, match="1 sample"):
        LinearSSL().fit(x[:1], x_plus[:1])
    broken = x_plus.copy()
    broken[3, 2] = np.inf
    with pytest.raises(ValueError, match="x_plus contains infinity"):
        LinearSSL().fit(x, broken)
    with pytest.raises(TypeError, match="x_plus must not be masked: 1 entries"):
        LinearSSL().fit(x, np.ma.array(x_plus, mask=np.isinf(broken)))
    with pytest.raises(TypeError, match="x must not be masked"):
        LinearSSL().fit(np.ma.array(x, mask=np.isinf(broken)), x_plus)
    with pytest.raises(TypeError, match="missing 1 required positional argument: 'x_plus'"):
        LinearSSL().fit(x)


def test_bad_samples():
    ssl = LinearSSL()
    with pytest.raises(NotFittedError):
        ssl.transform(np.eye(6))
    ssl.fit(*views())
    with pytest.raises(ValueError, match="X has 5 features, but LinearSSL is expecting 6 features"):
        ssl.transform(np.zeros((3, 5)))
    with pytest.raises(ValueError, match="NaN"):
        ssl.transform(np.full((3, 6), np.nan))
    with pytest.raises(ValueError, match="2D array"):
        ssl.transform(np.zeros(6))


def test_data_without_variation():
    x = np.full((10, 3), 0.3)
    for loss in CLOSED_FORM:
        ssl = LinearSSL(loss, embedding_dim=2).fit(x, x)
        assert ssl.collapse_.rank == ssl.collapse_.capacity == 0, loss
        assert not ssl.transform(x + 1.0).any(), loss


def test_fit_leaves_the_arrays_of_the_user_alone():
    x, x_plus = views()
    copies = x.copy(), x_plus.copy()
    ssl = LinearSSL().fit(x, x_plus)
    ssl.transform(x)[:] = 0.0
    ssl.components_ *= 2.0  # its own: the report does not change with it
    np.testing.assert_array_equal(x, copies[0])
    np.testing.assert_array_equal(x_plus, copies[1])
    np.testing.assert_array_equal(2.0 * ssl.collapse_.minimum.weights, ssl.components_)
