"""The front door: wrong arguments get the named error, odd but right arrays the right answer.

`DOORS` lists every public argument that takes an array; a new one is added with one line there.
"""

from __future__ import annotations

import inspect
import re
import warnings
from collections.abc import Callable
from dataclasses import dataclass
from decimal import Decimal
from fractions import Fraction
from functools import partial
from typing import Any

import hypothesis.extra.numpy as hnp
import numpy as np
import pytest
import scipy.sparse
from hypothesis import given, settings
from hypothesis import strategies as st

import pyssl
from pyssl import augment

pytest.importorskip("sklearn")

# ---- the doors -----------------------------------------------------------------------------------

RNG = np.random.default_rng(0)
SIGMA = np.array([[2.0, 0.5, 0.25], [0.5, 1.5, 0.0], [0.25, 0.0, 1.0]])
CROSS = 0.5 * SIGMA
MOMENTS = pyssl.Moments(SIGMA, CROSS)
X, X_PLUS = np.round(4.0 * RNG.standard_normal((2, 8, 3)) + np.array([5.0, 6.0, 7.0]))
W = np.round(3.0 * RNG.standard_normal((2, 3)))
BATCH = np.round(3.0 * RNG.standard_normal((9, 2, 3)))  # enough for the batched kernel
PENCILS = np.stack([SIGMA, CROSS, -SIGMA, -CROSS])
TOLERANCES = np.array([1.0, 0.0, 2.0, 3.0])
GRID = np.array([-1.0, 0.0, 2.0, 3.0])
SPECTRUM = np.array([3.0, 2.0, 2.0, 0.0])


def spectral(**options):
    return pyssl.SpectralLandscape(
        **{"B": CROSS, "S": SIGMA, "potential": pyssl.Quartic(0.5), "embedding_dim": 2, **options}
    )


ON_EMBEDDINGS = [loss() for loss in pyssl.LOSSES.values()]
QUARTIC = spectral()
CURVED = pyssl.InfoNCE().population(MOMENTS, embedding_dim=2, weight_decay=0.1)
MODES = CURVED.in_modes()
EMPIRICAL = pyssl.SpectralContrastive().empirical(X, X_PLUS, embedding_dim=2)
BARLOW = pyssl.BarlowTwins(0.25, normalize=False).population(MOMENTS, embedding_dim=2)
CORRELATION = pyssl.BarlowTwins(0.25).population(MOMENTS, embedding_dim=2)
VICREG = pyssl.VICReg(1.0, 2.0, 3.0).population(MOMENTS, embedding_dim=2)
FINITE = pyssl.InfoNCE(negatives=4).effective(MOMENTS, embedding_dim=2, weight_decay=0.1)
DOT = pyssl.InfoNCE(similarity="dot")
OFFSET = pyssl.Moments(SIGMA, CROSS, [0.5, -0.25, 1.0])
PENALISED = DOT.effective(OFFSET, embedding_dim=2)
BIASED = DOT.effective(
    pyssl.Moments(SIGMA[:2, :2], CROSS[:2, :2], [0.5, 1.0]), embedding_dim=2, bias=True
)
NTXENT = pyssl.NTXent().effective(MOMENTS, embedding_dim=2, weight_decay=0.1)
DEEP = pyssl.SpectralContrastive().population(MOMENTS, 2, weight_decay=0.25, depth=3)
ANGULAR = pyssl.NTXent().effective(MOMENTS, embedding_dim=2, angular="exact")
LANDSCAPES = (
    *(QUARTIC, CURVED, MODES, EMPIRICAL, BARLOW, CORRELATION, VICREG),
    *(FINITE, PENALISED, BIASED, NTXENT, DEEP),
)


def place(land, method):
    """Return the name under which a method is public: where it is defined, if that is public."""
    owner = getattr(land, method).__qualname__.split(".")[0]
    owners = [owner, *(base.__name__ for base in type(land).__mro__)]
    return f"{next(name for name in owners if name in pyssl.__all__)}.{method}"


NOISY = augment.Noise(SIGMA)


def of_augmentation(a):
    return a.moments(SIGMA)


FITTED = pyssl.LinearSSL(embedding_dim=2).fit(X, X_PLUS)


def updated(x, x_plus):
    accumulator = pyssl.MomentAccumulator(3)
    accumulator.update(x, x_plus)
    return accumulator.moments()


def fitted(x, x_plus):
    return pyssl.LinearSSL(embedding_dim=2).fit(x, x_plus)


def verified(x, x_plus):
    loss = pyssl.SpectralContrastive()
    return pyssl.verify(loss, x, x_plus, embedding_dim=1).trained_spectrum


def descended(start):
    result = pyssl.minimize(LANDSCAPES[0], start, closed_form=False)
    return result.weights, result.value


def values_of_pencil(b, s):
    return pyssl.pencils.eigh(b, s)[0]  # the signs of vectors are arbitrary


@dataclass(frozen=True)
class Door:
    """An argument that takes an array, and an array that it takes.

    `reads` names the malformations (keys of `MALFORMED`) that this argument gives a meaning to.
    """

    function: str
    argument: str
    call: Callable[[Any], Any]
    good: np.ndarray
    reads: tuple[str, ...] = ()
    named: bool = True  # scikit-learn's own messages do not name the argument
    keeps_float32: bool = False
    takes_a_word: bool = False  # then another one is a wrong value, of the right kind

    def __str__(self) -> str:
        return f"{self.function}-{self.argument}-{self.good.ndim}d"


def weights(function: str, argument: str, call: Callable[[Any], Any], good: np.ndarray) -> Door:
    # any number of leading axes is a batch, and one of no matrices too
    empty = ("no rows",) if good.ndim == 3 and "hvp" not in function else ()
    return Door(function, argument, call, good, ("more axes", *empty), keeps_float32=True)


def sklearn(*parts: Any, **options: Any) -> Door:
    # scikit-learn's rule: numbers in an object array are numbers
    return Door(*parts, ("objects",), named=False, **options)


DOORS = [
    Door("Moments", "covariance", lambda a: pyssl.Moments(a, CROSS), SIGMA),
    Door("Moments", "cross_covariance", lambda a: pyssl.Moments(SIGMA, a), CROSS),
    Door("Moments", "mean", lambda a: pyssl.Moments(SIGMA, CROSS, a), X[0], ("None",)),
    Door(
        "Moments",
        "augmentation_covariance",
        lambda a: pyssl.Moments(SIGMA, CROSS, augmentation_covariance=a),
        SIGMA - CROSS,
        ("None",),
    ),
    Door("Moments.from_views", "x", lambda a: pyssl.Moments.from_views(a, X_PLUS), X),
    Door("Moments.from_views", "x_plus", lambda a: pyssl.Moments.from_views(X, a), X_PLUS),
    Door("MomentAccumulator.update", "x", lambda a: updated(a, X_PLUS), X),
    Door("MomentAccumulator.update", "x_plus", lambda a: updated(X, a), X_PLUS),
    Door("SpectralLandscape", "B", lambda a: spectral(B=a), CROSS),
    Door("SpectralLandscape", "S", lambda a: spectral(S=a), SIGMA),
    *(
        Door(f"AngularNTXentLandscape.{method}", "p", getattr(ANGULAR, method), np.abs(X[0]))
        for method in ("value_of_spectrum", "shares_of_spectrum")
    ),
    *(
        weights(place(land, method), "W", getattr(land, method), good)
        for land in LANDSCAPES
        for method in ("value", "gradient", "value_and_gradient", "hessian")
        for good in (W, BATCH)
    ),
    *(
        weights(place(land, "hvp"), argument, call, good)
        for land in LANDSCAPES
        for good in (W, BATCH)
        for argument, call in (
            ("W", lambda a, land=land, good=good: land.hvp(a, good + 1.0)),
            ("D", lambda a, land=land, good=good: land.hvp(good + 1.0, a)),
        )
    ),
    *(
        Door(
            place(land, "plane"),
            argument,
            lambda a, land=land, argument=argument: land.plane(
                **{"W0": W, "D1": W + 1.0, "D2": W - 2.0, "u": GRID, "v": GRID, argument: a}
            ),
            GRID if argument in "uv" else W,
            ("no rows", "no columns") if argument in "uv" else (),
        )
        for land in LANDSCAPES
        # some of these planes meet the origin, where two of them have no value
        if land not in (CORRELATION, NTXENT)
        for argument in ("W0", "D1", "D2", "u", "v")
    ),
    *(
        Door(
            f"Loss.{method}",
            argument,
            lambda a, loss=loss, method=method, argument=argument: getattr(loss, method)(
                **{"z": X, "z_plus": X_PLUS, argument: a}
            ),
            X,
        )
        for loss in ON_EMBEDDINGS
        for method in ("value", "value_and_gradient")
        for argument in ("z", "z_plus")
    ),
    *(
        Door(
            "Loss.hvp",
            argument,
            lambda a, loss=loss, argument=argument: loss.hvp(
                **{"z": X, "z_plus": X_PLUS, "dz": X_PLUS, "dz_plus": X, argument: a}
            ),
            X,
        )
        for loss in ON_EMBEDDINGS
        for argument in ("z", "z_plus", "dz", "dz_plus")
    ),
    *(
        Door(
            "Loss.terms",
            argument,
            lambda a, argument=argument: list(
                pyssl.InfoNCE().terms(**{"z": X, "z_plus": X_PLUS, argument: a}).values()
            ),
            X,
        )
        for argument in ("z", "z_plus")
    ),
    *(
        Door(
            "Loss.empirical",
            argument,
            lambda a, argument=argument: (
                pyssl.InfoNCE()
                .empirical(**{"x": X, "x_plus": X_PLUS, argument: a}, embedding_dim=2)
                .value(W)
            ),
            X,
        )
        for argument in ("x", "x_plus")
    ),
    *(
        weights(place(VICREG, method), "W", getattr(VICREG, method), good)
        for method in ("kinks", "kink_normals", "kkt_residual")
        for good in (W, BATCH)
    ),
    Door(
        "VICRegLandscape.with_slopes",
        "theta",
        lambda a: VICREG.with_slopes(a).value(W),
        np.array([0.0, 1.0]),
    ),
    Door(
        "gradient_flow",
        "start",
        lambda a: pyssl.gradient_flow(QUARTIC, a, [0.0, 0.1]).weights,
        0.125 * W,
        keeps_float32=True,
    ),
    Door(
        "gradient_flow",
        "times",
        lambda a: pyssl.gradient_flow(QUARTIC, 0.125 * W, a).values,
        np.array([0.0, 0.0625, 0.125]),
        ("infinity", "beyond float64"),
    ),
    Door("verify", "x", lambda a: verified(a, X_PLUS), X),
    Door("verify", "x_plus", lambda a: verified(X, a), X_PLUS),
    Door(
        "DeepLandscape.profile",
        "s",
        DEEP.profile,
        GRID,
        ("a column more", "no rows", "no columns"),
        keeps_float32=True,
    ),
    Door(
        "DeepLandscape.layers",
        "W",
        lambda a: np.concatenate([layer.ravel() for layer in DEEP.layers(a)]),
        W,
        ("None",),
        keeps_float32=True,
    ),
    weights("ModeLandscape.from_weights", "W", MODES.from_weights, W),
    weights("ModeLandscape.to_weights", "U", MODES.to_weights, W),
    weights("ModeLandscape.gradient_to_weights", "G", MODES.gradient_to_weights, W),
    *(
        Door(function.__name__, "spectrum", function, SPECTRUM, ("no rows", "no columns"))
        for function in (pyssl.effective_rank, pyssl.participation_ratio, pyssl.stable_rank)
    ),
    Door("minimize", "start", descended, W, ("None",)),
    Door("rankme", "embeddings", pyssl.rankme, X),
    Door(
        "pencils.eigenvalues",
        "B",
        pyssl.pencils.eigenvalues,
        SIGMA,
        ("more axes",),
        keeps_float32=True,
    ),
    Door(
        "pencils.eigenvalues",
        "S",
        lambda a: pyssl.pencils.eigenvalues(CROSS, a),
        SIGMA,
        ("more axes", "None"),
    ),
    Door(
        "pencils.eigh",
        "B",
        lambda a: values_of_pencil(a, None),
        SIGMA,
        ("more axes",),
        keeps_float32=True,
    ),
    Door(
        "pencils.eigh",
        "S",
        lambda a: values_of_pencil(CROSS, a),
        SIGMA,
        ("more axes", "None"),
    ),
    # counts are integers whatever comes in: as numbers, to compare them with others
    Door("pencils.inertia", "B", lambda a: 1.0 * pyssl.pencils.inertia(a), SIGMA, ("more axes",)),
    Door(
        "pencils.inertia",
        "tolerance",
        lambda a: 1.0 * pyssl.pencils.inertia(PENCILS, a),
        TOLERANCES,
        ("None", "scalar", "fewer axes"),
    ),
    Door(
        "pencils.counts_above",
        "A",
        lambda a: 1.0 * pyssl.pencils.counts_above(a, GRID),
        SIGMA,
        ("more axes",),
    ),
    Door(
        "pencils.counts_above",
        "thresholds",
        lambda a: 1.0 * pyssl.pencils.counts_above(SIGMA, a),
        GRID,
        ("more axes", "a column more", "no rows", "no columns"),
    ),
    sklearn("LinearSSL.fit", "x", lambda a: fitted(a, X_PLUS), X),
    sklearn("LinearSSL.fit", "x_plus", lambda a: fitted(X, a), X_PLUS),
    sklearn("LinearSSL.transform", "x", FITTED.transform, X, keeps_float32=True),
]

DOORS += [
    Door("Moments.from_data", "x", lambda a: pyssl.Moments.from_data(a, NOISY), X),
    Door(
        "Moments.from_sampler",
        "x",
        lambda a: pyssl.Moments.from_sampler(a, lambda rows, _: rows + 1.0, rng=0),
        X,
    ),
    Door("Augmentation.moments", "second_moment", NOISY.moments, SIGMA),
    Door(
        "Augmentation.moments",
        "mean",
        lambda a: NOISY.moments(np.outer(X[0], X[0]) + SIGMA, a),
        X[0],
        ("None",),
    ),
    Door("Augmentation.family", "second_moment", lambda a: NOISY.family(a)(), SIGMA),
    Door(
        "Augmentation.family",
        "mean",
        lambda a: NOISY.family(np.outer(X[0], X[0]) + SIGMA, a)(),
        X[0],
        ("None",),
    ),
    Door("Augmentation.sample", "x", augment.Linear(W).sample, X, ("no rows",), keeps_float32=True),
    Door(
        "critical_strengths",
        "second_moment",
        lambda a: augment.critical_strengths(pyssl.SquaredVICReg(2.0), NOISY, a),
        SIGMA,
    ),
    Door(
        "critical_strengths",
        "mean",
        lambda a: augment.critical_strengths(
            pyssl.SquaredVICReg(2.0), NOISY, np.outer(X[0], X[0]) + SIGMA, a
        ),
        X[0],
        ("None",),
    ),
    Door("Noise", "covariance", lambda a: of_augmentation(augment.Noise(a)), SIGMA, ("scalar",)),
    Door("Linear", "mean", lambda a: augment.Linear(a).mean, W),
    Door("Reflection", "vector", lambda a: augment.Reflection(a).vector, X[0]),
    Door(
        "OneOf",
        "probabilities",
        lambda a: of_augmentation(augment.OneOf([NOISY, augment.Mask(0.5)], a)),
        np.array([0.25, 0.75]),
        ("None",),
    ),
    Door(
        "Blur",
        "probabilities",
        lambda a: of_augmentation(augment.Blur((1, 3), [0.5, 1.0], a)),
        np.array([0.25, 0.75]),
        ("None",),
    ),
]

MEANS = np.array([[0.0, 1.0, 0.0], [3.0, 0.0, -2.0]])
PRIORS = np.array([0.25, 0.75])


def mixture(**options):
    return pyssl.Mixture(
        **{"priors": PRIORS, "means": MEANS, "within_covariance": SIGMA, **options}
    )


MIXTURE = mixture()


def of_mixture(mix):
    moments = mix.moments(NOISY)
    return moments, pyssl.class_retention(W, mix, NOISY)


DOORS += [
    Door("Mixture", "priors", lambda a: of_mixture(mixture(priors=a)), PRIORS),
    Door("Mixture", "means", lambda a: of_mixture(mixture(means=a)), MEANS),
    *(
        Door(
            "Mixture",
            "within_covariance",
            lambda a: of_mixture(mixture(within_covariance=a)),
            good,
        )
        for good in (SIGMA, np.stack([SIGMA, CROSS]))
    ),
    Door("Mixture.with_priors", "priors", lambda a: of_mixture(MIXTURE.with_priors(a)), PRIORS),
    Door(
        "Mixture.from_data",
        "x",
        lambda a: pyssl.Mixture.from_data(a, [0, 1, 0, 1, 0, 1, 0, 1]).moments(),
        X,
        ("a column more",),
    ),
    *(
        Door(
            "class_retention",
            "land",
            lambda a: pyssl.class_retention(a, MIXTURE, NOISY),
            good,
            # one column more is a bias
            ("more axes", "a column more", *(("no rows",) if good.ndim == 3 else ())),
            keeps_float32=True,
        )
        for good in (W, BATCH)
    ),
]

SAMPLES, NOISE, RIDGES = np.array([4.0, 9.0]), np.array([0.5, 2.0]), np.array([0.25, 3.0])
ANY_SHAPE = ("scalar", "more axes", "fewer axes")
CURVE = {"W": W, "covariance": SIGMA, "target": X[0], "n_samples": SAMPLES, "noise": 0.5}

DOORS += [
    *(
        Door(
            function.__name__,
            argument,
            lambda a, function=function, argument=argument, more=more: function(
                **{**CURVE, **more, argument: a}
            ),
            good,
            reads,
            keeps_float32=argument == "W",
        )
        for function, more in ((pyssl.downstream_risk, {"ridge": 1.0}), (pyssl.optimal_ridge, {}))
        for argument, good, reads in (
            ("W", W, ("more axes",)),
            ("covariance", SIGMA, ()),
            ("target", X[0], ()),
            ("n_samples", SAMPLES, (*ANY_SHAPE, "a column more", "no rows", "no columns")),
            ("noise", NOISE, ANY_SHAPE),
        )
    ),
    Door(
        "downstream_risk",
        "W",
        lambda a: pyssl.downstream_risk(a, SIGMA, X[0], 4, 0.5, 1.0),
        BATCH,
        ("more axes", "no rows"),
        keeps_float32=True,
    ),
    Door(
        "downstream_risk",
        "ridge",
        lambda a: pyssl.downstream_risk(**CURVE, ridge=a),
        RIDGES,
        (*ANY_SHAPE, "infinity", "beyond float64"),
        takes_a_word=True,
    ),
    *(
        Door(
            "downstream_split",
            argument,
            lambda a, argument=argument: (
                pyssl.downstream_split(**{**CURVE, "n_samples": 4, argument: a}, ridge=1.0).risk
            ),
            good,
        )
        for argument, good in (("W", W), ("covariance", SIGMA), ("target", X[0]))
    ),
    Door(
        "helpful_collapse",
        "target",
        lambda a: pyssl.helpful_collapse(MOMENTS, a, 9, noise=0.5).risk,
        X[0],
    ),
    Door(
        "helpful_collapse",
        "covariance",
        lambda a: pyssl.helpful_collapse(MOMENTS, X[0], 9, noise=0.5, covariance=a).risk,
        SIGMA,
        ("None",),
    ),
]

# Public, annotated with arrays, and no door: with the reason.
NO_DOORS = {
    "Landscape": "an interface",
    "sweep": "takes a mapping of arrays; see test_sweeps.py",
    **dict.fromkeys(
        (
            "CollapseReport",
            "ConstantEmbedding",
            "DownstreamRisk",
            "Flow",
            "HelpfulCollapse",
            "Minimum",
            "MinimizeResult",
            "ModeTable",
            "Origin",
            "RetentionTable",
            "Verification",
            "WellTable",
        ),
        "results: made by the library",
    ),
    **dict.fromkeys(
        ("Potential", "CustomPotential", "InfoNCEPotential", "Quartic"),
        "formulas on arrays that a landscape has checked; see test_potentials_are_elementwise",
    ),
}


# Constructors for the library's own use: `Loss.empirical` has checked the views.
MADE_BY_METHODS = {("EmpiricalLandscape", "x"), ("EmpiricalLandscape", "x_plus")}


def array_arguments():
    """Yield (function, argument) for all that pyssl offers and annotates with an array."""
    named = [(name, getattr(pyssl, name)) for name in pyssl.__all__]
    named += [(f"pencils.{name}", getattr(pyssl.pencils, name)) for name in pyssl.pencils.__all__]
    named += [(name, getattr(augment, name)) for name in augment.__all__]
    for name, item in named:
        functions = {}
        if inspect.isfunction(item):
            functions[name] = item
        elif inspect.isclass(item):
            functions[name] = item
            for attribute, function in inspect.getmembers(item, callable):
                owner = getattr(function, "__qualname__", "").split(".")[0]
                inherited = owner != name and owner in dict(named)
                if not attribute.startswith("_") and not inherited:
                    functions[f"{name}.{attribute}"] = function
        for qualified, function in functions.items():
            try:
                parameters = inspect.signature(function).parameters.values()
            except ValueError:  # of C
                continue
            for parameter in parameters:
                # what a callable takes and returns is checked where it is called
                annotation = str(parameter.annotation)
                if re.search(r"Array|Floats", annotation) and "Callable" not in annotation:
                    yield qualified, parameter.name


def test_every_public_array_argument_is_in_the_table():
    listed = {(door.function, door.argument) for door in DOORS}
    public = {
        (function, argument)
        for function, argument in array_arguments()
        if function not in NO_DOORS and function.split(".")[0] not in NO_DOORS
    } - MADE_BY_METHODS
    assert len(public) >= 30  # the search itself finds something
    assert public - listed == set(), "add these to DOORS"
    assert listed - public == set(), "these are gone"


def test_what_is_exempt_still_is():
    functions = {function for function, _ in array_arguments()}
    heads = {function.split(".")[0] for function in functions}
    assert set(NO_DOORS) - functions - heads == set()


def numbers(result: Any) -> list[np.ndarray]:
    """Return the arrays that make up a result."""
    match result:
        case pyssl.Moments():
            sigma, a, c = result.covariance, result.cross_covariance, result.augmentation_covariance
            return [sigma, a, c, result.mean, result.alignments]
        case pyssl.SpectralLandscape():
            return [result.B, result.S, result.eigenvalues]
        case pyssl.LinearSSL():
            return [result.components_, result.mean_]
        case tuple():
            return [part for item in result for part in numbers(item)]
        case _:
            return [np.asarray(result)]


def assert_answers_agree(got: Any, expected: Any, rtol: float) -> None:
    for left, right in zip(numbers(got), numbers(expected), strict=True):
        assert left.shape == right.shape
        finite = right[np.isfinite(right)]
        atol = rtol * np.abs(finite).max(initial=0.0)
        np.testing.assert_allclose(left, right, rtol=rtol, atol=atol, equal_nan=True)


@pytest.mark.parametrize("door", DOORS, ids=str)
def test_the_good_array_is_good(door):
    for part in numbers(door.call(door.good)):
        assert np.isfinite(part).all()


# ---- odd but right -------------------------------------------------------------------------------


def unaligned(a):
    buffer = np.zeros(a.nbytes + 1, np.uint8)
    result = buffer[1:].view(a.dtype).reshape(a.shape)
    result[...] = a
    assert not result.flags.aligned
    return result


def readonly(a):
    result = a.copy()
    result.flags.writeable = False
    return result


class Duck:
    """Something that is no array but can become one."""

    def __init__(self, values):
        self.values = values
        self.shape = values.shape

    def __len__(self):
        return len(self.values)

    def __array__(self, dtype=None, copy=None):
        return np.array(self.values, dtype=dtype)


# What a right answer must not depend on.
LAYOUTS = {
    "Fortran order": np.asfortranarray,
    "strides": lambda a: np.repeat(a, 3, axis=-1)[..., ::3],
    "negative strides": lambda a: np.ascontiguousarray(a[::-1, ...])[::-1, ...],
    "transposed": lambda a: np.ascontiguousarray(a.T).T,
    "read-only": readonly,
    "unaligned": unaligned,
    "byte-swapped": lambda a: a.astype(a.dtype.newbyteorder()),
    "nothing masked": lambda a: np.ma.array(a, mask=np.zeros(a.shape, bool)),
    "subclass": lambda a: a.view(type("Subclass", (np.ndarray,), {})),
    "duck": Duck,
    "list": lambda a: a.tolist(),
    "tuple of arrays": tuple,
}


@pytest.mark.parametrize("door", DOORS, ids=str)
def test_layouts(door):
    expected = door.call(door.good)
    for layout, lay_out in LAYOUTS.items():
        got = outcome(door, lay_out(door.good))
        assert not isinstance(got, Exception), layout
        assert_answers_agree(got, expected, rtol=1e-12)


@pytest.mark.parametrize("door", DOORS, ids=str)
def test_real_dtypes_are_read_as_float64(door):
    for dtype in ("i1", "i8", "u2", "f2", "g", ">i4", ">f8"):
        good = door.good if dtype != "u2" else np.abs(door.good)
        values = good.astype(dtype)
        expected, got = outcome(door, values.astype(np.float64)), outcome(door, values)
        if isinstance(expected, Exception):  # truncated to integers, a covariance may not be one
            assert type(got) is type(expected), dtype
            assert str(got) == str(expected), dtype
        else:
            assert_answers_agree(got, expected, rtol=1e-12)
            assert {part.dtype for part in numbers(got)} == {np.dtype("f8")}, dtype


@pytest.mark.parametrize("order", ["<f4", ">f4"])
@pytest.mark.parametrize("door", DOORS, ids=str)
def test_float32(door, order):
    got = door.call(door.good.astype(order))  # the good arrays hold small integers and quarters
    assert_answers_agree(got, door.call(door.good), rtol=1e-5)
    # with a float64 companion (hvp) the wider of the two
    narrow = door.keeps_float32 and "hvp" not in door.function
    assert {part.dtype for part in numbers(got)} == {np.dtype("f4" if narrow else "f8")}


def test_hvp_keeps_float32_of_both():
    for land in LANDSCAPES:
        for point in (W, BATCH):
            single = point.astype(np.float32)
            assert land.hvp(single, single).dtype == np.float32
            assert land.hvp(single, point).dtype == land.hvp(point, single).dtype == np.float64


# ---- malformed -----------------------------------------------------------------------------------


def with_entry(value):
    def replaced(a):
        result = np.array(a, dtype=np.float64)
        result[(-1,) * a.ndim] = value
        return result

    return replaced


def hidden(a):
    mask = np.zeros(a.shape, bool)
    mask[(0,) * a.ndim] = True
    return np.ma.array(a, mask=mask)


def ragged(a):
    rows = a.tolist()
    rows[0] = [rows[0], rows[0]]
    return rows


# The error that each deserves: for its value or shape, for its kind.
MALFORMED: dict[str, tuple[type[Exception] | tuple[type[Exception], ...], Callable[[Any], Any]]] = {
    "NaN": (ValueError, with_entry(np.nan)),
    "infinity": (ValueError, with_entry(np.inf)),
    "minus infinity": (ValueError, with_entry(-np.inf)),
    "beyond float64": (ValueError, lambda a: np.where(a == a.max(), np.longdouble("1e400"), a)),
    "more axes": (ValueError, lambda a: a[None]),
    "fewer axes": (ValueError, lambda a: a.reshape(-1) if a.ndim > 1 else a[0]),
    "a column more": (ValueError, lambda a: np.concatenate([a, a[..., :1]], axis=-1)),
    "no rows": (ValueError, lambda a: a[:0]),
    "no columns": (ValueError, lambda a: a[..., :0]),
    "scalar": (ValueError, lambda a: 1.0),
    "ragged": (ValueError, ragged),
    "objects": (TypeError, lambda a: a.astype(object)),
    "complex": (TypeError, lambda a: a + 0j),
    "text": (TypeError, lambda a: a.astype(str)),
    "bytes": (TypeError, lambda a: a.astype("S")),
    "booleans": (TypeError, lambda a: a > 0.0),
    "dates": (TypeError, lambda a: a.astype("M8[D]")),
    "durations": (TypeError, lambda a: a.astype("m8[s]")),
    "records": (TypeError, lambda a: a.astype([("value", "f8")])),
    "hidden entries": (TypeError, hidden),
    "a word": (TypeError, lambda a: "covariance"),
    "None": (TypeError, lambda a: None),
    "mapping": (TypeError, lambda a: {"a": a}),
    "set": (TypeError, lambda a: {1.0, 2.0}),
    "generator": (TypeError, lambda a: (row for row in a)),
    "sparse": (TypeError, lambda a: scipy.sparse.coo_array(a.reshape(len(a), -1))),
}

# Where a spectrum may have any length, one more entry is no mistake.
ANY_LENGTH = (
    *("effective_rank", "participation_ratio", "stable_rank", "rankme"),
    *("Linear", "Reflection", "Moments.from_sampler"),
)


@pytest.mark.parametrize("kind", MALFORMED)
@pytest.mark.parametrize("door", DOORS, ids=str)
def test_malformed(door, kind):
    error, malform = MALFORMED[kind]
    free = kind == "a column more" and (door.function in ANY_LENGTH or door.argument in "uv")
    if kind in door.reads or free:
        door.call(malform(door.good))
        return
    if not door.named:  # scikit-learn's classes of errors: ValueError for text and complex numbers
        error = (ValueError, TypeError)
    if kind == "a word" and door.takes_a_word:
        error = ValueError
    name = rf"\b{door.argument}\b" if door.named else None
    if door.named and kind in ("a column more", "no rows") and door.argument == "x":
        name = r"\bx(_plus)?\b"  # of two views of different shapes either could be the wrong one
    with pytest.raises(error, match=name) as caught:
        door.call(malform(door.good))
    assert not isinstance(caught.value, np.linalg.LinAlgError)
    assert len(str(caught.value).splitlines()) == 1 or not door.named


def test_numbers_in_objects_are_read_by_the_estimator():
    for door in DOORS:
        if "objects" in door.reads:
            assert_answers_agree(door.call(door.good.astype(object)), door.call(door.good), 1e-12)


def test_batches_may_be_empty():
    for land in LANDSCAPES:
        none = np.zeros((0, 2, 3))
        assert land.value(none).shape == (0,)
        assert land.gradient(none).shape == (0, 2, 3)
        assert land.hvp(none, none).shape == (0, 2, 3)
        assert land.hessian(none).shape == (0, 6, 6)
        assert land.plane(W, W, W, [], GRID).shape == (0, 4)


# ---- properties ----------------------------------------------------------------------------------


def snapshot(value):
    """Return what must not change in what a user handed in."""
    if isinstance(value, np.ndarray) and not value.dtype.hasobject:
        return value.tobytes(), value.dtype, value.shape, value.strides, value.flags.writeable
    return repr(value)


def outcome(door: Door, value: Any) -> Any:
    """Return the answer, or the error; anything but a clear error or an answer fails the test."""
    before = snapshot(value)
    with warnings.catch_warnings(), np.errstate(all="ignore"):
        warnings.simplefilter("ignore")
        try:
            answer = door.call(value)
        except (ValueError, TypeError) as error:
            answer = error
    assert snapshot(value) == before
    if isinstance(answer, Exception):
        assert not isinstance(answer, np.linalg.LinAlgError), answer
        if door.named:  # the argument, or the one that it disagrees with
            assert re.search(rf"\b({door.argument}|covariance|x|x_plus|D|S)\b", str(answer)), answer
    return answer


def assert_as_the_plain_copy(door: Door, value: Any) -> None:
    """An answer is the one that a fresh float64 array of the same numbers gets."""
    got = outcome(door, value)
    if isinstance(got, Exception):
        return
    with np.errstate(all="ignore"):
        plain = np.array(value, dtype=np.float64)
    expected = outcome(door, plain)
    single = np.asarray(value).dtype.itemsize == 4 and np.asarray(value).dtype.kind == "f"
    if single:  # judged and rounded as float32: what overflows or fails there need not here
        assert all(part.dtype.kind == "f" for part in numbers(got))
        return
    assert not isinstance(expected, Exception), expected
    with np.errstate(all="ignore"):
        assert_answers_agree(got, expected, rtol=1e-9)


REAL_DTYPES = st.sampled_from(["f2", "f4", "f8", "g", ">f4", ">f8", "i1", "i8", "u1", ">u4"])
ODD_DTYPES = st.sampled_from(["?", "c8", "c16", "O", "U3", "S2", "M8[s]", "m8[ms]"])


@pytest.mark.parametrize("door", DOORS, ids=str)
@settings(max_examples=20)
@given(data=st.data())
def test_arrays_of_anything(door, data):
    dtype = np.dtype(data.draw(REAL_DTYPES | ODD_DTYPES, label="dtype"))
    any_shape = hnp.array_shapes(min_dims=0, max_dims=4, min_side=0, max_side=4)
    shape = data.draw(st.just(door.good.shape) | any_shape, label="shape")
    if dtype.kind == "O":
        value = np.full(shape, data.draw(st.none() | st.text() | st.integers() | st.just({})))
        value = value.astype(object)
    elif dtype.kind == "g" or dtype.char == "g":
        value = data.draw(hnp.arrays("f8", shape)).astype("g")
    else:
        value = data.draw(hnp.arrays(dtype, shape), label="array")
    got = outcome(door, value)
    if dtype.kind in "iuf":
        assert_as_the_plain_copy(door, value)
        if not np.isfinite(value).all():
            assert isinstance(got, ValueError)
    elif value.size and "objects" not in door.reads:
        assert isinstance(got, TypeError)


@pytest.mark.parametrize("door", DOORS, ids=str)
@settings(max_examples=20)
@given(data=st.data())
def test_disfigured_good_arrays(door, data):
    power = data.draw(st.integers(-320, 308) | st.integers(-3, 3), label="power")
    with np.errstate(over="ignore"):
        value = door.good * 10.0**power
    if data.draw(st.booleans(), label="change an entry"):
        index = tuple(data.draw(st.integers(0, side - 1)) for side in value.shape)
        value[index] = data.draw(st.floats(), label="entry")
    dtype = data.draw(st.sampled_from(["f8", ">f8", "g", "f4", "f2"]), label="dtype")
    with np.errstate(over="ignore"):
        value = value.astype(dtype)
    finite = bool(np.isfinite(value).all())
    layouts = st.lists(st.sampled_from(list(LAYOUTS)[:7]), max_size=3)
    for layout in data.draw(layouts, label="layouts"):
        value = LAYOUTS[layout](value)
    assert_as_the_plain_copy(door, value)
    if not finite:
        assert isinstance(outcome(door, value), ValueError)


@given(
    spectrum=hnp.arrays("f8", st.integers(1, 6), elements=st.floats(1e-3, 1e3)),
    power=st.integers(-300, 300),
)
def test_soft_ranks_do_not_depend_on_the_scale(spectrum, power):
    for measure in (pyssl.effective_rank, pyssl.participation_ratio, pyssl.stable_rank):
        value = measure(spectrum)
        assert 1.0 - 1e-12 <= value <= len(spectrum) + 1e-12
        assert measure(spectrum * 10.0**power) == pytest.approx(value, rel=1e-12)
    diagonal = np.diag(spectrum)
    assert pyssl.rankme(diagonal * 10.0**power) == pytest.approx(pyssl.rankme(diagonal), rel=1e-9)


@pytest.mark.parametrize(
    "potential",
    [
        pyssl.Quartic(0.5),
        *(
            pyssl.InfoNCEPotential(0.5, similarity, partition)
            for similarity in ("sqeuclidean", "dot")
            for partition in ("conditional", "joint")
        ),
    ],
    ids=repr,
)
@pytest.mark.parametrize("kind", MALFORMED)
def test_potentials_are_elementwise(potential, kind):
    # They are formulas, not doors: NaN in, NaN out, and NumPy's own TypeErrors.
    malformed = MALFORMED[kind][1](GRID)
    for method in ("value", "slope", "curvature"):
        with warnings.catch_warnings(), np.errstate(all="ignore"):
            warnings.simplefilter("ignore")
            try:
                got = getattr(potential, method)(malformed)
            except (TypeError, ValueError, NotImplementedError):  # the last is a sparse matrix's
                continue
        if kind == "NaN" and method != "curvature":
            assert np.isnan(got[-1])


# ---- scalars and everything else -----------------------------------------------------------------

NOT_REAL = [
    ("0.1", "'0.1'"),
    (None, "None"),
    (1j, "1j"),
    (True, "True"),
    ([1.0], r"\[1.0\]"),
    (np.ones(2), r"an array of shape \(2,\)"),
    (Decimal(1), r"Decimal\('1'\)"),
]
NOT_INTEGER = [*NOT_REAL, (2.0, "2.0"), (np.float64(2.0), "2.0"), (Fraction(2), r"Fraction\(2,")]
NOT_FINITE = [(np.nan, "nan"), (np.inf, "inf"), (-np.inf, "-inf")]


def population(loss=None, **options):
    return (loss or pyssl.InfoNCE()).population(MOMENTS, **{"embedding_dim": 2, **options})


def scalar_cases():
    """Yield (call, argument, value, error, what the message says of the value)."""

    def effective(**options):
        return pyssl.InfoNCE().effective(MOMENTS, **{"embedding_dim": 2, **options})

    def points(**options):
        return QUARTIC.stationary_points(**options)

    def split(**options):
        return pyssl.downstream_split(**{**CURVE, "n_samples": 4, **options})

    def helpful(**options):
        return pyssl.helpful_collapse(MOMENTS, X[0], **{"n_samples": 4, **options})

    positive = [
        (pyssl.InfoNCE, "temperature"),
        (pyssl.NTXent, "temperature"),
        (pyssl.InfoNCEPotential, "temperature"),
        (pyssl.Quartic, "coefficient"),
        (pyssl.VICReg, "epsilon"),
    ]
    not_negative = [
        (population, "weight_decay"),
        (effective, "weight_decay"),
        (spectral, "weight_decay"),
        (pyssl.BarlowTwins, "redundancy"),
        (pyssl.BarlowTwins, "epsilon"),
        (pyssl.VICReg, "invariance"),
        (pyssl.VICReg, "variance"),
        (pyssl.VICReg, "covariance"),
        (pyssl.SquaredVICReg, "invariance"),
        (MOMENTS.with_augmentation_strength, "strength"),
        (split, "noise"),
        (helpful, "noise"),
    ]
    deep = partial(pyssl.DeepLandscape, spectral())
    not_negative.append((partial(deep, 2), "weight_decay"))
    for call, name in [*positive, *not_negative, (spectral, "constant")]:
        for value, shown in NOT_REAL:
            yield call, name, value, TypeError, rf"{name} must be a real number, got .*{shown}"
        for value, shown in NOT_FINITE:
            yield call, name, value, ValueError, rf"{name} must be finite, got {shown}"
        for value in (10**400, Fraction(10**400)):
            yield call, name, value, ValueError, rf"{name} must fit float64"
        if (call, name) != (spectral, "constant"):
            yield call, name, -0.5, ValueError, rf"{name} must be >=? 0, got -0.5"
    for call, name in positive:
        yield call, name, 0.0, ValueError, rf"{name} must be > 0, got 0"

    for call, name, least in [
        (population, "embedding_dim", 1),
        (effective, "embedding_dim", 1),
        (spectral, "embedding_dim", 1),
        (population, "depth", 1),
        (effective, "depth", 1),
        (deep, "depth", 2),
        (pyssl.MomentAccumulator, "dim", 1),
        (points, "max_rank", 0),
        (split, "n_samples", 1),
        (helpful, "n_samples", 1),
    ]:
        for value, shown in NOT_INTEGER:
            if not (name == "max_rank" and value is None):
                yield call, name, value, TypeError, rf"{name} must be an integer, got .*{shown}"
        message = rf"{name} must be at least {least}, got {least - 1}"
        yield call, name, least - 1, ValueError, message

    for call, name in [
        (population, "bias"),
        (effective, "bias"),
        (pyssl.InfoNCE, "normalize"),
        (pyssl.InfoNCE, "symmetric"),
        (pyssl.BarlowTwins, "normalize"),
        (pyssl.VICReg, "halve_variance"),
    ]:
        for value in (1, 0.0, "yes", None):
            yield call, name, value, TypeError, rf"{name} must be True or False, got {value!r}"

    for call, name in [
        (pyssl.InfoNCE, "similarity"),
        (pyssl.InfoNCE, "partition"),
        (partial(pyssl.InfoNCEPotential, 1.0), "similarity"),
        (partial(pyssl.InfoNCEPotential, 1.0), "partition"),
        (pyssl.SpectralContrastive, "negatives"),
    ]:
        yield call, name, "cosine", ValueError, rf"{name} must be one of '.*', got 'cosine'"
        for value in (None, 1, b"dot"):
            yield call, name, value, TypeError, rf"{name} must be one of '.*', got {value!r}"

    for value in (0, -3, 2.5, np.nan):
        yield pyssl.InfoNCE, "negatives", value, ValueError, rf"negatives must be .*, got {value}"
    for value in ("all", None, True):
        yield pyssl.InfoNCE, "negatives", value, TypeError, rf"negatives must be .*, got {value!r}"
    for value in (0.0, -1.0, np.inf):
        yield pyssl.SpectralContrastive, "clip", value, ValueError, r"clip must be .*, got"
    yield pyssl.SpectralContrastive, "clip", "1", TypeError, r"clip must be a real number, got '1'"


@pytest.mark.parametrize(
    ("call", "name", "value", "error", "message"),
    [
        pytest.param(*case, id=f"{number}-{case[1]}-{str(case[2])[:12]}")
        for number, case in enumerate(scalar_cases())
    ],
)
def test_scalars(call, name, value, error, message):
    with pytest.raises(error, match=message):
        call(**{name: value})


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: pyssl.InfoNCE().population(SIGMA, 2), r"moments must be pyssl.Moments, got nda"),
        (lambda: pyssl.InfoNCE().effective(None, 2), r"moments must be pyssl.Moments, got None"),
        (lambda: pyssl.InfoNCE().effective(pyssl.Moments, 2), r"moments must be pyssl.Moments"),
        (lambda: pyssl.classify(pyssl.InfoNCE()), r"landscape must be a landscape, got InfoNCE"),
        (lambda: pyssl.classify(SIGMA), r"landscape must be a landscape, got ndarray"),
        (lambda: pyssl.classify(pyssl.SpectralLandscape), r"landscape must be a landscape, got"),
        (
            lambda: pyssl.SpectralLandscape(CROSS, SIGMA, 1.0, 2),
            r"potential must be a pyssl.Potential, got 1.0",
        ),
        (
            lambda: pyssl.SpectralLandscape(CROSS, SIGMA, pyssl.Quartic, 2),
            r"potential must be a pyssl.Potential, got ABCMeta",
        ),
        (
            lambda: pyssl.MomentAccumulator(2).merge(MOMENTS),
            r"other must be a MomentAccumulator, got",
        ),
        (lambda: pyssl.classify(QUARTIC).modes["rank"], r"index must be an integer, got 'rank'"),
        (
            lambda: pyssl.helpful_collapse(SIGMA, X[0], 4),
            r"moments must be pyssl.Moments, got nda",
        ),
        (
            lambda: pyssl.helpful_collapse(MOMENTS, X[0], 4, loss=pyssl.InfoNCE),
            r"loss must be a loss, got",
        ),
        (
            lambda: pyssl.helpful_collapse(MOMENTS, X[0], 4, embedding_dim=2.0),
            r"embedding_dim must be an integer, got 2.0",
        ),
    ],
)
def test_kinds(call, message):
    with pytest.raises(TypeError, match=message):
        call()


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (
            lambda: pyssl.MomentAccumulator(2).merge(pyssl.MomentAccumulator(3)),
            r"other must have dim 2, got 3",
        ),
        (
            lambda: pyssl.MomentAccumulator(2).update(X, X_PLUS),
            r"x must be \(n, 2\), got \(8, 3\)",
        ),
        (
            lambda: pyssl.MomentAccumulator(3).update(X, X_PLUS[1:]),
            r"x_plus must have the shape of x \(8, 3\), got \(7, 3\)",
        ),
        (
            lambda: pyssl.Moments.from_views(X[:1], X_PLUS[:1]),
            r"at least 2 pairs of views, got 1",
        ),
        (
            lambda: pyssl.Moments.from_views(X[:, :0], X[:, :0]),
            r"x must be \(n, d\) with d >= 1, got \(8, 0\)",
        ),
        (
            lambda: pyssl.Moments.from_views(X, with_entry(np.nan)(X)),
            r"x_plus must be finite, got nan at x_plus\[7, 2\] \(row 7\)",
        ),
        (
            lambda: spectral(B=CROSS + np.eye(3)[[1, 2, 0]]),
            r"B must be symmetric, got 1.25 at \[0, 1\] and 0.25 at \[1, 0\]",
        ),
        (
            lambda: spectral(S=-SIGMA),
            r"S must be positive semidefinite, got an eigenvalue of -2",
        ),
        (lambda: spectral(S=np.eye(2)), r"S must be \(3, 3\), got \(2, 2\)"),
        (lambda: QUARTIC.value(W[:, :2]), r"W must be \(..., 2, 3\), got \(2, 2\)"),
        (
            lambda: QUARTIC.hvp(BATCH, BATCH[:4]),
            r"D must broadcast against W \(9, 2, 3\), got \(4, 2, 3\)",
        ),
        (
            lambda: QUARTIC.plane(W, BATCH, W, GRID, GRID),
            r"D1 must be \(2, 3\), got \(9, 2, 3\)",
        ),
        (
            lambda: pyssl.effective_rank([1.0, -0.5]),
            r"spectrum must not be negative, got -0.5",
        ),
        (
            lambda: pyssl.downstream_risk(W, SIGMA, X[0], [4, 0]),
            r"n_samples must be at least 1, got 0",
        ),
        (
            lambda: pyssl.downstream_risk(W, SIGMA, X[0], 4.5),
            r"n_samples must be whole, got 4.5",
        ),
        (
            lambda: pyssl.downstream_risk(W, SIGMA, X[0], 4, [0.5, -1.0]),
            r"noise must be >= 0, got -1",
        ),
        (
            lambda: pyssl.downstream_risk(W, SIGMA, X[0], 4, ridge=-2.0),
            r"ridge must be >= 0, got -2",
        ),
        (
            lambda: pyssl.downstream_split(W, SIGMA, X[0], 4, ridge=-2.0),
            r"ridge must be >= 0, got -2",
        ),
        (
            lambda: pyssl.downstream_risk(W, SIGMA, X[0], 4, ridge=[1.0, np.nan]),
            r"ridge must be finite, got nan at ridge\[1\]",
        ),
        (
            lambda: pyssl.downstream_risk(W, SIGMA, X[0], 4, ridge="best"),
            r"ridge must be one of 'optimal', got 'best'",
        ),
        (
            lambda: pyssl.downstream_risk(W, -SIGMA, X[0], 4),
            r"covariance must be positive semidefinite, got an eigenvalue of -2",
        ),
        (
            lambda: pyssl.downstream_risk(W[:, :2], SIGMA, X[0], 4),
            r"W must be \(..., k, 3\) with k >= 1, got \(2, 2\); covariance is \(3, 3\)",
        ),
        (
            lambda: pyssl.downstream_risk(BATCH, SIGMA, X[0], [4, 9]),
            r"n_samples must broadcast against what comes before it, \(9,\), got \(2,\)",
        ),
        (
            lambda: pyssl.helpful_collapse(MOMENTS, X[0], 4, covariance=np.eye(2)),
            r"covariance must be \(3, 3\), got \(2, 2\)",
        ),
        (
            lambda: pyssl.rankme(np.zeros((0, 3))),
            r"embeddings must have at least one row and column, got \(0, 3\)",
        ),
    ],
)
def test_values(call, message):
    with pytest.raises(ValueError, match=message):
        call()


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: population(pyssl.NTXent()), "NTXent.population: its expectation"),
        (lambda: pyssl.BarlowTwins().effective(MOMENTS, 2), "BarlowTwins.effective: normalised"),
        (lambda: pyssl.VICReg().effective(MOMENTS, 2), "VICReg.effective: the hinge"),
    ],
)
def test_levels_that_a_loss_does_not_have(call, message):
    with pytest.raises(NotImplementedError, match=message):
        call()


def test_arguments_are_checked_before_levels():
    # a wrong argument is the user's, whatever the loss lacks
    for loss in pyssl.LOSSES.values():
        with pytest.raises(ValueError, match="weight_decay"):
            loss().population(MOMENTS, 2, weight_decay=-1.0)


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (
            lambda: NOISY.moments(np.eye(2)),
            r"second_moment must be \(3, 3\) for this augm.* \(2, 2\)",
        ),
        (lambda: NOISY.sample(np.ones((4, 2))), r"x must be \(n, 3\), got \(4, 2\)"),
        (
            lambda: pyssl.Moments.from_data(X[:, :2], NOISY),
            r"x must be \(n, 3\), got \(8, 2\)",
        ),
        (
            lambda: NOISY | augment.Noise(np.eye(2)),
            r"parts\[1\] must take 3 inputs, got one of 2",
        ),
        (
            lambda: augment.OneOf([NOISY, augment.Noise(np.eye(2))]),
            r"parts\[1\] must take 3 inputs, got one of 2",
        ),
        (
            lambda: augment.OneOf([NOISY, augment.Crop((1, 3), (1, 2))]),
            r"parts must make views of one dimension, got \[2, 3\]",
        ),
        (lambda: augment.OneOf([]), r"parts must hold at least one augmentation, got none"),
        (
            lambda: NOISY.moments(SIGMA, [2.0, 0.0, 0.0]),
            r"second_moment - mean mean' must be positive semidefinite, got an eigenvalue of -2",
        ),
        (lambda: NOISY.with_strength(-0.5), r"strength must be >= 0, got -0.5"),
        (lambda: NOISY.with_strength(np.nan), r"strength must be finite, got nan"),
        (lambda: NOISY.with_strength(np.inf), r"strength must be finite, got inf"),
        (lambda: augment.Scale(strength=-1.0), r"strength must be >= 0, got -1"),
        (lambda: augment.Noise(-1.0), r"covariance must be >= 0, got -1"),
        (lambda: augment.Noise(-SIGMA), r"covariance must be positive semidefinite"),
        (lambda: augment.Mask(1.5), r"keep must be >= 0 and <= 1, got 1.5"),
        (lambda: augment.Mask(-0.1), r"keep must be >= 0 and <= 1, got -0.1"),
        (lambda: augment.Mask(0.0, rescale=True), r"keep must be > 0 and <= 1, got 0"),
        (lambda: augment.Scale(variance=-0.1), r"variance must be >= 0, got -0.1"),
        (lambda: augment.Scale.uniform(2.0, 1.0), r"high must be >= 2, got 1"),
        (lambda: augment.Reflection([0.0, 0.0]), r"vector must not be zero"),
        (lambda: augment.Reflection([1.0, 0.0], 1.2), r"probability must be >= 0 and <= 1"),
        (
            lambda: augment.OneOf([NOISY, NOISY], [0.5, 0.6]),
            r"probabilities must have sum 1, got 1.1",
        ),
        (
            lambda: augment.OneOf([NOISY, NOISY], [1.5, -0.5]),
            r"probabilities must lie in \[0, 1\], got -0.5",
        ),
        (
            lambda: augment.Group([np.eye(2), [[1.0, 0.5], [0.0, 1.0]]]),
            r"maps\[1\] must be orthogonal, got g g' - I with an entry of 0.5",
        ),
        (
            lambda: augment.Group([np.eye(3), np.eye(3)[[1, 2, 0]]]),
            r"maps must be a group, whose mean is an orthogonal projection",
        ),
        (lambda: augment.Group([[0, 1], [1, 1]]), r"maps must hold permutations of 0..1, got"),
        (lambda: augment.Group([[0, 1], [1, 2]]), r"maps must hold permutations of 0..1, got"),
        (lambda: augment.Group(np.ones((2, 2, 3))), r"maps must be \(m, d, d\) or \(m, d\)"),
        (
            lambda: augment.Group(([[0, 1]], [[0, 1, 2]])),
            r"maps\[1\] must act on 2 inputs, got \(1, 3\)",
        ),
        (lambda: augment.Group.shifts((2, 0)), r"shape must be at least 1, got 0"),
        (lambda: augment.Group.flips((2, 2), 2), r"axes must name axes of a grid \(2, 2\), got 2"),
        (
            lambda: augment.Crop((2, 2), (3, 1)),
            r"windows must fit images of \(2, 2\), got \(3, 1\)",
        ),
        (lambda: augment.Crop((2, 2), [(1, 1), (2, 2)]), r"windows must be of one size unless"),
        (lambda: augment.Resize((2, 2), 3), r"size must be \(height, width\), got 3"),
        (lambda: augment.Blur((2, 2), -1.0), r"widths must be >= 0, got -1"),
        (lambda: augment.Blur((2, 2), []), r"widths must hold at least one width, got none"),
        (
            lambda: augment.Scale(sampler=lambda rng, n: np.ones(n + 1)).sample(X),
            r"sampler must return \(8,\), got \(9,\)",
        ),
        (
            lambda: augment.Scale(sampler=lambda rng, n: np.full(n, np.nan)).sample(X),
            r"what sampler returned must be finite, got nan",
        ),
        (
            lambda: augment.Linear(W, sampler=lambda rng, n: np.ones((n, 3, 2))).sample(X),
            r"sampler must return \(8, 2, 3\), got \(8, 3, 2\)",
        ),
        (
            lambda: augment.Linear(W, second_order=lambda m: m).moments(SIGMA),
            r"second_order must return \(2, 2\), got \(3, 3\)",
        ),
        (
            lambda: augment.Linear(W, second_order=lambda m: 0.5 * W @ m @ W.T).moments(SIGMA),
            r"second_order\(M\) - mean M mean' must be positive semidefinite",
        ),
        (
            lambda: pyssl.Moments.from_sampler(X, lambda rows, rng: rows[1:]),
            r"fn must return \(8, d\), one view of every row, got \(7, 3\)",
        ),
        (
            lambda: pyssl.Moments.from_sampler(X, lambda rows, rng: np.full_like(rows, np.nan)),
            r"what fn returned must be finite, got nan",
        ),
        (
            lambda: pyssl.Moments.from_sampler(X, lambda rows, rng: rows[:, 0]),
            r"what fn returned must have 2 dimension\(s\), got shape \(8,\)",
        ),
        (
            lambda: pyssl.Moments.from_sampler(X, NOISY.sample, views=1),
            r"views must be at least 2, got 1",
        ),
        (
            lambda: pyssl.Moments.from_sampler(X[:1], NOISY.sample),
            r"x must be \(n, d\) with n >= 2 and d >= 1, got \(1, 3\)",
        ),
        (
            lambda: augment.critical_strengths(pyssl.InfoNCE(), NOISY, SIGMA, weight_decay=-1.0),
            r"weight_decay must be >= 0, got -1",
        ),
        (
            lambda: augment.critical_strengths(pyssl.InfoNCE(), NOISY, SIGMA, maximum=0.0),
            r"maximum must be > 0, got 0",
        ),
    ],
)
def test_augmentations(call, message):
    with pytest.raises(ValueError, match=message):
        call()


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: NOISY | SIGMA, r"unsupported operand"),
        (lambda: augment.Composition(3), r"parts must be augmentations, got int"),
        (lambda: augment.Composition((NOISY, 3)), r"parts\[1\] must be an augmentation, got 3"),
        (lambda: augment.Mask("all"), r"keep must be a real number, got 'all'"),
        (lambda: augment.Mask(0.5, rescale=1), r"rescale must be True or False, got 1"),
        (lambda: augment.Scale(sampler=3), r"sampler must be callable or None, got int"),
        (lambda: pyssl.Moments.from_data(X, NOISY.sample), r"augmentation must be an augmentation"),
        (lambda: pyssl.Moments.from_sampler(X, NOISY), r"fn must be callable, got Noise"),
        (
            lambda: pyssl.Moments.from_sampler(X, lambda rows, rng: None),
            r"what fn returned must hold real numbers, got dtype object",
        ),
        (lambda: augment.critical_strengths(NOISY, NOISY, SIGMA), r"loss must be a loss, got"),
    ],
)
def test_augmentations_of_the_wrong_kind(call, message):
    with pytest.raises(TypeError, match=message):
        call()


INFONCE = pyssl.InfoNCE()


def critical(*parts, **options):
    mix, aug, index = parts or (MIXTURE, NOISY, 0)
    return pyssl.critical_prior(INFONCE, mix, aug, index, **{"embedding_dim": 2, **options})


def compared(mix=MIXTURE, aug=NOISY, losses=(INFONCE,), **options):
    return pyssl.compare_retention(mix, aug, losses, **{"embedding_dim": 2, **options})


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: mixture(priors=[0.5, 0.6]), r"priors must sum to 1, got a sum of 1.1"),
        (lambda: mixture(priors=[1.0, 0.0]), r"priors must be > 0, got 0 at priors\[1\]"),
        (lambda: mixture(priors=[1.5, -0.5]), r"priors must be > 0, got -0.5 at priors\[1\]"),
        (lambda: mixture(priors=[1.0]), r"means must be \(1, d\) with d >= 1, got \(2, 3\)"),
        (
            lambda: mixture(within_covariance=np.eye(2)),
            r"within_covariance must be \(3, 3\) or \(2, 3, 3\) with means \(2, 3\), got \(2, 2\)",
        ),
        (
            lambda: mixture(within_covariance=np.stack([SIGMA, -SIGMA])),
            r"within_covariance\[1\] must be positive semidefinite, got an eigenvalue of -2",
        ),
        (lambda: mixture(within_covariance=-SIGMA), r"within_covariance must be positive semi"),
        (lambda: mixture(classes=["a", "a"]), r"classes must be 2 different names, got"),
        (lambda: mixture(classes=["a"]), r"classes must be 2 different names, got"),
        (lambda: mixture(n_samples=0), r"n_samples must be at least 1, got 0"),
        (lambda: pyssl.Mixture.from_data(X, [0, 1]), r"labels must be \(8,\), got \(2,\)"),
        (lambda: pyssl.Mixture.from_data(X, [[0], [1, 2]]), r"labels must be \(8,\)"),
        (lambda: pyssl.Mixture.from_data(X, [np.nan] * 8), r"labels must be finite, got nan"),
        (lambda: pyssl.Mixture.from_data(X[:1], [0]), r"x must be \(n, d\) with n >= 2"),
        (
            lambda: MIXTURE.moments(augment.Noise(np.eye(2))),
            r"aug must take 3 inputs, got one of 2",
        ),
        (lambda: MIXTURE.sample(-1), r"n must be at least 0, got -1"),
        (lambda: MIXTURE.with_prior(2, 0.5), r"class_index must be at most 1, got 2"),
        (lambda: MIXTURE.with_prior(-1, 0.5), r"class_index must be at least 0, got -1"),
        (lambda: MIXTURE.with_prior(0, 1.0), r"p must be > 0 and < 1, got 1"),
        (lambda: MIXTURE.with_prior(0, 0.0), r"p must be > 0 and < 1, got 0"),
        (lambda: MIXTURE.with_priors([0.2, 0.3, 0.5]), r"priors must be \(2,\), got \(3,\)"),
        (
            lambda: pyssl.Mixture([1.0], [[0.0]], [[1.0]]).with_prior(0, 0.5),
            r"a mixture of a single class has no other to rescale",
        ),
        (lambda: pyssl.long_tailed_priors(0, 2.0), r"n_classes must be at least 1, got 0"),
        (lambda: pyssl.long_tailed_priors(3, 0.5), r"ratio must be >= 1, got 0.5"),
        (
            lambda: pyssl.class_retention(np.ones((2, 5)), MIXTURE, NOISY),
            r"land must be \(..., k, 3\), or \(..., k, 4\), got \(2, 5\)",
        ),
        (
            lambda: pyssl.class_retention(
                QUARTIC, mixture(means=MEANS[:, :1], within_covariance=np.eye(1))
            ),
            r"land must be \(..., k, 1\), or \(..., k, 2\), got \(2, 3\)",
        ),
        (
            lambda: pyssl.class_retention(QUARTIC, MIXTURE, NOISY, loss=INFONCE),
            r"loss must be None where land is a landscape",
        ),
        (
            lambda: pyssl.class_retention(W, MIXTURE, augment.Noise(np.eye(2))),
            r"aug must take 3 inputs, got one of 2",
        ),
        (lambda: pyssl.class_retention(W, MIXTURE, restarts=0), r"restarts must be at least 1"),
        (lambda: critical(MIXTURE, NOISY, 2), r"class_index must be at most 1, got 2"),
        (lambda: critical(embedding_dim=0), r"embedding_dim must be at least 1, got 0"),
        (lambda: critical(weight_decay=-1.0), r"weight_decay must be >= 0, got -1"),
        (lambda: critical(threshold=0.0), r"threshold must be > 0 and < 1, got 0"),
        (lambda: critical(threshold=1.0), r"threshold must be > 0 and < 1, got 1"),
        (lambda: critical(smallest=0.5), r"smallest must be > 0 and < 0.5, got 0.5"),
        (lambda: critical(tolerance=0.0), r"tolerance must be > 0, got 0"),
        (lambda: critical(restarts=0), r"restarts must be at least 1, got 0"),
        (
            lambda: critical(pyssl.Mixture([1.0], [[0.0]], [[1.0]]), None, 0),
            r"mix must have at least two classes, got 1",
        ),
        (lambda: compared(losses=[]), r"losses must be at least one, got none"),
        (lambda: compared(weight_decay=[0.1, 0.2]), r"weight_decay must be one number or 1, got 2"),
        (lambda: compared(weight_decay=[-0.1]), r"weight_decay\[0\] must be >= 0, got -0.1"),
        (lambda: compared(threshold=2.0), r"threshold must be > 0 and < 1, got 2"),
    ],
)
def test_imbalance(call, message):
    with pytest.raises(ValueError, match=message):
        call()


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: pyssl.Mixture.from_data(X, [0, "a", None, 0, 0, 0, 0, 0]), r"labels can't be"),
        (lambda: mixture(classes=3), r"classes must be a sequence of names, got 3"),
        (lambda: mixture(classes=[[0], [1]]), r"classes must be a sequence of names, got"),
        (lambda: pyssl.Mixture.from_data(X, [0] * 8, shared=1), r"shared must be True or False"),
        (lambda: MIXTURE.moments(SIGMA), r"aug must be an augmentation such as .*, got ndarray"),
        (lambda: MIXTURE.sample(2.0), r"n must be an integer, got 2.0"),
        (lambda: MIXTURE.sample(2, stratified=1), r"stratified must be True or False, got 1"),
        (lambda: MIXTURE.with_prior("a", 0.5), r"class_index must be an integer, got 'a'"),
        (lambda: MIXTURE.with_prior(0, "a"), r"p must be a real number, got 'a'"),
        (lambda: pyssl.class_retention(W, MOMENTS, NOISY), r"mix must be a pyssl.Mixture, got"),
        (lambda: pyssl.class_retention(W, MIXTURE, 1.0), r"aug must be an augmentation .* got 1.0"),
        (lambda: pyssl.class_retention(W, MIXTURE, loss=3), r"loss must be a loss such as .*got 3"),
        (lambda: critical(MOMENTS, NOISY, 0), r"mix must be a pyssl.Mixture, got Moments"),
        (lambda: critical(MIXTURE, NOISY, 0.0), r"class_index must be an integer, got 0.0"),
        (lambda: critical(centered=1), r"centered must be True or False, got 1"),
        (lambda: compared(mix=MOMENTS), r"mix must be a pyssl.Mixture, got Moments"),
        (lambda: compared(losses=INFONCE), r"losses must be a sequence of losses, got InfoNCE"),
        (lambda: compared(losses="all"), r"losses must be a sequence of losses, got str"),
        (lambda: compared(losses=[NOISY]), r"losses\[0\] must be a loss such as .*, got"),
        (lambda: compared(weight_decay="0.1"), r"weight_decay must be a real number, got '0.1'"),
    ],
)
def test_imbalance_of_the_wrong_kind(call, message):
    with pytest.raises(TypeError, match=message):
        call()


def test_numpy_scalars_are_numbers():
    land = pyssl.InfoNCE(np.float32(0.5)).population(
        MOMENTS, np.int64(2), weight_decay=np.array(0.25), bias=np.bool_(False)
    )
    assert land.shape == (2, 3) and land.weight_decay == 0.25
    assert pyssl.MomentAccumulator(np.array(3)).dim == 3
    assert pyssl.Quartic(Fraction(1, 2)).coefficient == 0.5
