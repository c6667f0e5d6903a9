"""Classification of landscapes: what is learned, what is lost, and why (theory 5)."""

from __future__ import annotations

import math
import warnings
from typing import Any

import numpy as np
import pytest

import pyssl
from pyssl import Cause, Collapse
from pyssl.testing import gaussian_views, random_moments, random_spectrum

BARLOW = pyssl.BarlowTwins(redundancy=1.0, normalize=False)
# (loss, bias): one of each that has a spectral landscape, and every setting that changes B
LOSSES: list[tuple[pyssl.Loss, bool]] = [
    (pyssl.InfoNCE(0.5), False),
    (pyssl.InfoNCE(0.5, "sqeuclidean", "joint"), False),
    (pyssl.InfoNCE(2.0, "dot"), False),
    (pyssl.InfoNCE(2.0, "dot", "joint"), False),
    (pyssl.SpectralContrastive(), False),
    (pyssl.SpectralContrastive(), True),
    (BARLOW, False),
    (pyssl.SquaredVICReg(0.5), False),
    (pyssl.SquaredVICReg(1.0), False),
    (pyssl.SquaredVICReg(1.5), False),
]
IDS = [f"{type(loss).__name__}-{index}" for index, (loss, _) in enumerate(LOSSES)]
every_loss = pytest.mark.parametrize(("loss", "bias"), LOSSES, ids=IDS)


def seeded(*key: int) -> np.random.Generator:
    return np.random.default_rng([5, 77, *key])


def undecayed(loss: pyssl.Loss, m: pyssl.Moments) -> np.ndarray:
    """Eigenvalues of B at g = 0, descending, by the formulas of theory 3 and 5."""
    sigma, a, c = m.covariance, m.cross_covariance, m.augmentation_covariance
    if isinstance(loss, pyssl.InfoNCE):
        B = a / loss.temperature
    elif isinstance(loss, pyssl.SpectralContrastive):
        B = 2.0 * m.cross_moment
    elif isinstance(loss, pyssl.SquaredVICReg):
        B = 2.0 * (sigma - loss.invariance * c)
    else:
        B = 2.0 * a
    return np.linalg.eigvalsh(B)[::-1]


def problem(loss: pyssl.Loss, d: int, rng: np.random.Generator, **options: Any) -> pyssl.Moments:
    m = random_moments(random_spectrum(d, rng, positive=True), rng, **options)
    return m.centered() if getattr(loss, "similarity", None) == "dot" else m


def land_of(loss: pyssl.Loss, bias: bool, m: pyssl.Moments, k: int, g: float) -> Any:
    return loss.population(m, k, weight_decay=g, bias=bias)


# ---- kinds and causes by counting ---------------------------------------------------------------


def test_kinds_and_causes_of_a_diagonal_problem() -> None:
    # a = 0.9, 0.5, 0.1, 0; lambda = a - g/2 at tau = 1; Sigma has rank 4 in 5 dimensions
    m = pyssl.Moments(np.diag([1.0, 1, 1, 1, 0]), np.diag([0.9, 0.5, 0.1, 0, 0]))
    learned, decay, capacity = Cause.LEARNED, Cause.DECAY, Cause.CAPACITY
    lost = [Cause.AUGMENTATION, Cause.NO_VARIATION]
    for k, g, kind, rank, causes in (
        (5, 0.0, Collapse.DIMENSIONAL, 3, [learned, learned, learned]),
        (3, 0.0, Collapse.NONE, 3, [learned, learned, learned]),
        (2, 0.0, Collapse.NONE, 2, [learned, learned, capacity]),
        (5, 0.4, Collapse.DIMENSIONAL, 2, [learned, learned, decay]),
        (1, 0.4, Collapse.NONE, 1, [learned, capacity, decay]),
        (5, 1.2, Collapse.DIMENSIONAL, 1, [learned, decay, decay]),
        (5, 2.0, Collapse.COMPLETE, 0, [decay, decay, decay]),
    ):
        report = pyssl.classify(pyssl.InfoNCE().population(m, k, weight_decay=g))
        assert (report.kind, report.rank, report.capacity) == (kind, rank, min(k, 4))
        assert report.modes.cause.tolist() == causes + lost
        assert report.weight_decay == g


@every_loss
def test_causes_by_counting(loss: pyssl.Loss, bias: bool) -> None:
    seen = set()
    for seed in range(40):
        rng = seeded(seed)
        d, nulls, k = rng.integers([1, 0, 1], [6, 3, 8]).tolist()
        m = problem(loss, d, rng, nulls=nulls, mean=bool(rng.integers(2)))
        g = float(rng.choice([0.0, 0.3, 1.1, 4.0]))
        report = pyssl.classify(land_of(loss, bias, m, k, g))
        B0 = undecayed(loss, m.centered() if bias else m)
        variation = np.linalg.matrix_rank(
            m.second_moment if isinstance(loss, pyssl.SpectralContrastive) and not bias
            else m.covariance, hermitian=True,
        )  # fmt: skip
        worth = np.count_nonzero(B0 > 1e-12) + bias
        left = np.count_nonzero(B0 - g / 2 > 1e-12) + bias
        variation += bias
        expected = []
        for j in range(1, m.dim + bias + 1):
            if j <= min(k, left):
                expected.append(Cause.LEARNED)
            elif j > variation:
                expected.append(Cause.NO_VARIATION)
            elif j > worth:
                expected.append(Cause.AUGMENTATION)
            elif j > left:
                expected.append(Cause.DECAY)
            else:
                expected.append(Cause.CAPACITY)
        assert report.modes.cause.tolist() == expected
        assert report.rank == min(k, left)
        capacity = min(k, worth if loss is BARLOW else variation)
        assert report.capacity == capacity
        kind = Collapse.NONE if report.rank == capacity else Collapse.DIMENSIONAL
        assert report.kind == (kind if report.rank else Collapse.COMPLETE)
        seen.update(expected)
    assert {Cause.LEARNED, Cause.CAPACITY, Cause.DECAY, Cause.NO_VARIATION} <= seen


def test_augmentation_takes_what_decay_need_not() -> None:
    m = pyssl.Moments(np.eye(3), np.diag([0.9, 0.5, 0.2]))
    report = pyssl.classify(pyssl.SquaredVICReg(3.0).population(m, 3, weight_decay=1.0))
    # B = 2 (1 - 3 c) = 1.4, -1, -2.8 without decay
    assert report.modes.cause.tolist() == [
        Cause.LEARNED, Cause.AUGMENTATION, Cause.AUGMENTATION
    ]  # fmt: skip
    np.testing.assert_allclose(report.critical_weight_decay, [2.8, 0.0, 0.0])


def test_indefinite_sample_moments() -> None:
    # negative eigenvalues of a sample's A are no capacity of Barlow Twins, but are of the others
    rng = seeded(1)
    clean = rng.standard_normal((60, 2)) @ rng.standard_normal((2, 6))
    m = pyssl.Moments.from_views(*(clean + rng.standard_normal((60, 6)) for _ in range(2)))
    positive = int(np.count_nonzero(np.linalg.eigvalsh(m.cross_covariance) > 0.0))
    assert 2 < positive < 6
    report = pyssl.classify(BARLOW.population(m, 6))
    assert (report.kind, report.rank, report.capacity) == (Collapse.NONE, positive, positive)
    report = pyssl.classify(pyssl.InfoNCE().population(m, 6))
    assert (report.kind, report.rank, report.capacity) == (Collapse.DIMENSIONAL, positive, 6)
    lost = [Cause.AUGMENTATION] * (6 - positive)
    assert report.modes.cause.tolist() == [Cause.LEARNED] * positive + lost
    degenerate = pyssl.classify(BARLOW.population(m, 2))
    assert degenerate.minimum.degenerate
    assert any("arbitrary" in note for note in degenerate.notes)


# ---- critical weight decay ----------------------------------------------------------------------


@every_loss
def test_critical_weight_decay_is_where_the_rank_changes(loss: pyssl.Loss, bias: bool) -> None:
    rng = seeded(2)
    m = problem(loss, 5, rng, mean=True, nulls=1)
    for k in (2, 7):
        critical = pyssl.classify(land_of(loss, bias, m, k, 0.0)).critical_weight_decay
        assert critical.shape == (m.dim + bias,)
        assert (np.diff(critical[int(bias) :]) <= 0.0).all()
        if bias:
            assert critical[0] == math.inf  # no decay touches the constant
        expected = 2.0 * np.maximum(undecayed(loss, m.centered() if bias else m), 0.0)
        np.testing.assert_allclose(critical[int(bias) :], expected, rtol=1e-11, atol=1e-13)
        again = pyssl.classify(land_of(loss, bias, m, k, 0.7)).critical_weight_decay
        np.testing.assert_array_equal(again, critical)
        finite = critical[np.isfinite(critical) & (critical > 0.0)]
        assert len(finite) >= 1
        for g in finite:
            for factor in (1.0 - 1e-9, 1.0 + 1e-9):
                report = pyssl.classify(land_of(loss, bias, m, k, g * factor))
                assert report.rank == min(k, np.count_nonzero(critical > g * factor))
        above, below = (
            pyssl.classify(land_of(loss, bias, m, 7, finite[0] * factor)).rank
            for factor in (1.0 + 1e-9, 1.0 - 1e-9)
        )
        assert (above, below) == (int(bias), 1 + int(bias))


def test_critical_weight_decay_of_the_formulas() -> None:
    m = pyssl.Moments(np.diag([2.0, 1.0]), np.diag([1.2, 0.3]), [0.0, 1.0])
    for loss, bias, expected in (
        (pyssl.InfoNCE(0.5), False, [4.8, 1.2]),
        (pyssl.SpectralContrastive(), False, [5.2, 4.8]),  # A_u = diag(1.2, 1.3)
        (pyssl.SpectralContrastive(), True, [np.inf, 4.8, 1.2]),
        (BARLOW, False, [4.8, 1.2]),
        (pyssl.SquaredVICReg(1.2), False, [4.16, 0.64]),
    ):
        report = pyssl.classify(land_of(loss, bias, m, 2, 0.1))
        np.testing.assert_allclose(report.critical_weight_decay, expected, rtol=1e-13)


# ---- the split ----------------------------------------------------------------------------------


@every_loss
@pytest.mark.parametrize("g", [0.0, 0.6])
def test_split_is_exact(loss: pyssl.Loss, bias: bool, g: float) -> None:
    for seed in range(6):
        rng = seeded(3, seed)
        m = problem(loss, 4, rng, mean=True, nulls=seed % 2, commuting=seed % 3 == 0)
        land = land_of(loss, bias, m, 3, g)
        modes = pyssl.classify(land).modes
        on_range = np.isfinite(modes.signal)
        assert np.count_nonzero(on_range) >= 4
        total = modes.signal - modes.augmentation - modes.decay
        np.testing.assert_allclose(
            total[on_range], modes.eigenvalue[on_range], rtol=1e-11, atol=1e-12
        )
        assert (modes.augmentation[on_range] >= -1e-14).all()
        assert (modes.decay[on_range] >= 0.0).all()
        v = land.vectors
        np.testing.assert_allclose(
            (v.T @ land.S @ v)[np.ix_(on_range, on_range)], np.eye(on_range.sum()), atol=1e-11
        )
        np.testing.assert_allclose(
            (v.T @ land.B @ v)[np.ix_(on_range, on_range)],
            np.diag(modes.eigenvalue[on_range]),
            atol=1e-11,
        )
        weights = v[: m.dim, on_range]  # of the bias, only the weights decay
        np.testing.assert_allclose(
            modes.decay[on_range], g / 2 * np.sum(weights**2, axis=0), atol=1e-14
        )
        uncentred = isinstance(loss, pyssl.SpectralContrastive) and not bias
        sigma = m.second_moment if uncentred else m.covariance
        a = m.cross_moment if uncentred else m.cross_covariance
        one = int(bias)  # the constant is aligned with itself
        weights = weights[:, one:]
        alignment = modes.alignment[on_range]
        np.testing.assert_allclose(
            alignment[one:],
            np.einsum("ij,ik,kj->j", weights, a, weights)
            / np.einsum("ij,ik,kj->j", weights, sigma, weights),
            rtol=1e-11,
        )
        if bias:
            np.testing.assert_allclose(alignment[0], 1.0, rtol=1e-14)
        # the columns of the table in theory 5
        misaligned = 1.0 - alignment
        if isinstance(loss, pyssl.InfoNCE):
            signal, taken = 1.0 / loss.temperature, misaligned / loss.temperature
        elif isinstance(loss, pyssl.SpectralContrastive):
            signal, taken = 2.0, 2.0 * misaligned
        elif isinstance(loss, pyssl.SquaredVICReg):
            signal, taken = 2.0, 2.0 * loss.invariance * misaligned
        else:
            signal, taken = 2.0, 0.0 * misaligned
        np.testing.assert_allclose(modes.signal[on_range], signal)
        np.testing.assert_allclose(modes.augmentation[on_range], taken, atol=1e-12)


def test_table_of_modes() -> None:
    m = pyssl.Moments(np.diag([1.0, 1.0, 0.0]), np.diag([0.9, 0.1, 0.0]))
    land = pyssl.InfoNCE().effective(m, 3, weight_decay=0.4)
    modes = pyssl.classify(land).modes
    assert len(modes) == 3
    assert [row.cause for row in modes] == modes.cause.tolist()
    first, last = modes[0], modes[-1]
    np.testing.assert_allclose(
        [first.eigenvalue, first.alignment, first.signal, first.augmentation, first.decay],
        [0.7, 0.9, 1.0, 0.1, 0.2],
    )
    np.testing.assert_allclose(first.amplitude, 0.7 / 1.5)
    assert last.eigenvalue == -math.inf
    assert math.isnan(last.signal) and math.isnan(last.decay)
    assert last.alignment == 0.0 and last.amplitude == 0.0
    with pytest.raises(IndexError):
        modes[3]
    with pytest.raises(ValueError, match="read-only"):
        modes.eigenvalue[0] = 1.0


def test_soft_ranks_are_those_of_the_embedding() -> None:
    # of its covariance W Sigma W' (theory 5): neither a mean nor a constant unit is a dimension
    rng = seeded(4)
    for loss, bias in LOSSES:
        m = problem(loss, 4, rng, mean=True)
        land = land_of(loss, bias, m, 3, 0.2)
        report = pyssl.classify(land)
        W = land.minimum().weights[:, : m.dim]
        spectrum = np.maximum(np.linalg.eigvalsh(W @ m.covariance @ W.T), 0.0)
        p = spectrum / spectrum.sum()
        entropy = -np.sum(p[p > 1e-14] * np.log(p[p > 1e-14]))
        np.testing.assert_allclose(report.effective_rank, np.exp(entropy), rtol=1e-11)
        np.testing.assert_allclose(report.participation_ratio, 1 / np.sum(p**2), rtol=1e-11)
        np.testing.assert_allclose(report.stable_rank, 1 / p.max(), rtol=1e-11)
        assert 1.0 <= report.effective_rank <= (report.rank - bias) * (1 + 1e-12)


def test_soft_ranks_of_nothing_and_of_infinity() -> None:
    m = pyssl.Moments(np.eye(2), np.diag([1.0, 0.5]))
    collapsed = pyssl.classify(pyssl.InfoNCE().population(m, 2, weight_decay=4.0))
    assert collapsed.effective_rank == collapsed.stable_rank == 0.0
    diverging = pyssl.classify(pyssl.InfoNCE().population(m, 2))
    assert math.isnan(diverging.effective_rank) and math.isnan(diverging.participation_ratio)
    assert not diverging.minimum.attained
    assert diverging.rank == 2 and diverging.modes.amplitude[0] == math.inf
    assert any("diverge" in note for note in diverging.notes)


# ---- thresholds and noise -----------------------------------------------------------------------


@pytest.mark.parametrize(
    ("loss", "bias", "g"),
    [
        (pyssl.InfoNCE(0.5), False, 2.0),  # 2 a/tau
        (pyssl.SpectralContrastive(), False, 2.0),  # 4 a
        (pyssl.SpectralContrastive(), True, 2.0),
        (BARLOW, False, 2.0),
        (pyssl.SquaredVICReg(1.5), False, 1.0),  # 4 (1 - 1.5 c)
        (pyssl.SquaredVICReg(2.0), False, 0.0),  # the augmentation alone: 1 - 2 c = 0
    ],
)
def test_threshold_warning(loss: pyssl.Loss, bias: bool, g: float) -> None:
    m = pyssl.Moments(np.eye(3), np.diag([0.75, 0.5, 0.375]))
    with pytest.warns(pyssl.ThresholdWarning, match="within rounding") as caught:
        report = pyssl.classify(land_of(loss, bias, m, 4, g))
    assert caught[0].filename == __file__
    assert report.rank == 1 + bias  # on the threshold counts as not learned (theory 2.4)
    # the capacity decides without it: no warning (an error in these tests)
    pyssl.classify(land_of(loss, bias, m, 1 + bias, g))
    for factor in (1.0 - 1e-9, 1.0 + 1e-9):
        if g:
            pyssl.classify(land_of(loss, bias, m, 4, g * factor))


@every_loss
def test_no_warning_for_ordinary_rank_deficiency(loss: pyssl.Loss, bias: bool) -> None:
    # zero eigenvalues of A, or of Sigma, at g = 0 are the rank itself and no coincidence
    for seed in range(10):
        rng = seeded(6, seed)
        d = int(rng.integers(2, 8))
        alignments = random_spectrum(d, rng, positive=True, zeros=int(rng.integers(1, d)))
        m = random_moments(alignments, rng, nulls=seed % 3, commuting=seed % 2 == 0)
        with warnings.catch_warnings():
            warnings.simplefilter("error")
            report = pyssl.classify(land_of(loss, bias, m, d + 3, 0.0))
        if not isinstance(loss, pyssl.SquaredVICReg) or loss.invariance == 1.0:
            assert report.rank == np.count_nonzero(alignments) + bias


def test_no_warning_for_sample_moments_of_low_rank_data() -> None:
    rng = seeded(7)
    for n in (20, 3000):
        shape = rng.standard_normal((3, 9))
        clean = rng.standard_normal((n, 3)) @ shape + 100.0
        noise = [0.3 * rng.standard_normal((n, 3)) @ shape for _ in range(2)]
        m = pyssl.Moments.from_views(clean + noise[0], clean + noise[1])
        assert m.rank == 3
        for loss in (pyssl.InfoNCE(), BARLOW, pyssl.SquaredVICReg(), pyssl.SquaredVICReg(1.5)):
            report = pyssl.classify(loss.population(m, 9))
            assert report.rank == 3
            assert report.modes.cause.tolist()[3:] == [Cause.NO_VARIATION] * 6


def test_within_noise() -> None:
    # in units of alignment the threshold of all of these is a = 0.2, the noise sqrt(2d/n) = 0.14
    sigma, a = np.eye(4), np.diag([0.9, 0.5, 0.25, 0.12])
    m = pyssl.Moments(sigma, a, n_samples=400)
    many = pyssl.Moments(sigma, a, n_samples=40_000)
    for loss, g in (
        (pyssl.InfoNCE(0.5), 0.8),
        (pyssl.InfoNCE(0.5, "dot", "joint"), 0.8),
        (pyssl.SpectralContrastive(), 0.8),
        (pyssl.SquaredVICReg(), 0.8),
        (BARLOW, 0.8),  # its eigenvalues 2 - g/(2 a) are in other units
    ):
        report = pyssl.classify(loss.population(m, 4, weight_decay=g))
        assert (report.within_noise, report.n_samples) == (2, 400)
        assert any("400 pairs" in note and "2 mode(s)" in note for note in report.notes)
        assert pyssl.classify(loss.population(many, 4, weight_decay=g)).within_noise == 0
        population = pyssl.Moments(sigma, a)
        report = pyssl.classify(loss.population(population, 4, weight_decay=g))
        assert (report.within_noise, report.n_samples, report.notes) == (0, None, ())
    # beyond invariance 1 the same noise of an alignment moves lambda further
    for inv in (0.5, 2.0, 5.0):
        threshold = 1.0 - 0.8 / inv  # of a, where 2 - 2 inv (1 - a) = g/2 = 0.4
        a = threshold + np.array([0.15, 0.09, -0.09, -0.15])
        m = pyssl.Moments(sigma, np.diag(a), n_samples=400)
        report = pyssl.classify(pyssl.SquaredVICReg(inv).population(m, 4, weight_decay=0.8))
        assert report.within_noise == 2
    rng = seeded(8)
    estimated = pyssl.Moments.from_views(*gaussian_views(m, 50, rng))
    assert pyssl.classify(pyssl.InfoNCE().population(estimated, 4)).n_samples == 50


# ---- landscapes of one's own, what is missing, printing -----------------------------------------


def test_landscape_without_a_loss() -> None:
    land = pyssl.SpectralLandscape(
        np.diag([2.0, 1.0, -1.0]), np.eye(3), pyssl.Quartic(0.5), 2, weight_decay=1.0
    )
    report = pyssl.classify(land)
    assert (report.kind, report.rank, report.capacity) == (Collapse.NONE, 2, 2)
    np.testing.assert_allclose(report.modes.signal, [2.0, 1.0, -1.0])
    np.testing.assert_allclose(report.modes.decay, 0.5)
    assert np.isnan(report.modes.alignment).all() and np.isnan(report.modes.augmentation).all()
    np.testing.assert_allclose(report.critical_weight_decay, [4.0, 2.0, 0.0])
    np.testing.assert_allclose(report.effective_rank, pyssl.effective_rank([1.5, 0.5]))
    assert report.loss == ""


def test_unbounded_landscape_is_reported() -> None:
    land = pyssl.SpectralLandscape(
        [[1.0, 0.0], [0.0, 1.0]], np.diag([1.0, 0.0]), pyssl.Quartic(1.0), 2
    )
    report = pyssl.classify(land)
    assert any("unbounded" in note for note in report.notes)
    assert not report.minimum.bounded
    assert math.isnan(report.effective_rank)
    assert "unbounded" in str(report)


def test_what_cannot_be_classified() -> None:
    with pytest.raises(TypeError, match="landscape must be a landscape"):
        pyssl.classify(pyssl.InfoNCE())  # type: ignore[arg-type]
    land = pyssl.SpectralLandscape(np.eye(2), np.eye(2), pyssl.Quartic(1.0), 2)
    with pytest.raises(NotImplementedError, match="ModeLandscape is neither spectral nor"):
        pyssl.classify(land.in_modes())


@every_loss
def test_report_prints(loss: pyssl.Loss, bias: bool) -> None:
    m = problem(loss, 4, seeded(9), nulls=1)
    report = pyssl.classify(land_of(loss, bias, m, 2, 0.1))
    text = str(report)
    assert repr(report) == text
    lines = text.splitlines()
    assert lines[0] == repr(loss)
    assert f"{report.rank} of {report.capacity} modes learned" in lines[1]
    header = next(line for line in lines if line.lstrip().startswith("mode"))
    for column in ("eigenvalue", "alignment", "amplitude", "signal", "augmentation", "decay",
                   "critical decay", "cause"):  # fmt: skip
        assert column in header
    rows = lines[lines.index(header) + 1 : lines.index(header) + 1 + len(report.modes)]
    for number, (row, cause) in enumerate(zip(rows, report.modes.cause, strict=True), start=1):
        assert row.split()[0] == str(number)
        assert row.endswith(str(cause))
    assert all(line == line.rstrip() for line in lines)
    assert len(str(report.modes).splitlines()) == 1 + len(report.modes)


def test_long_reports_are_cut() -> None:
    rng = seeded(10)
    m = random_moments(random_spectrum(40, rng, positive=True), rng, nulls=10)
    report = pyssl.classify(pyssl.SpectralContrastive().population(m, 30))
    text = str(report)
    assert "... and 26 more: 6 learned, 10 no variation, 10 capacity" in text
    assert len(text.splitlines()) < 40


# ---- soft measures ------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "measure", [pyssl.effective_rank, pyssl.participation_ratio, pyssl.stable_rank]
)
def test_soft_measures(measure: Any) -> None:
    for m in (1, 2, 7):
        np.testing.assert_allclose(measure(np.ones(m)), m, rtol=1e-14)
        np.testing.assert_allclose(measure([*np.ones(m), 0.0, 0.0]), m, rtol=1e-14)
    assert measure([]) == measure([0.0, 0.0]) == 0.0
    spectrum = np.array([3.0, 1.0, 0.5, 1e-30])
    for scale in (1e-300, 1e300):
        np.testing.assert_allclose(measure(scale * spectrum), measure(spectrum), rtol=1e-12)
    assert 1.0 < measure(spectrum) < 3.0
    for bad in ([1.0, -1e-3], [np.nan], [np.inf], [[1.0]]):
        with pytest.raises(ValueError, match="spectrum must"):
            measure(bad)


def test_soft_measures_by_their_formulas() -> None:
    p = np.array([0.5, 0.3, 0.2])
    np.testing.assert_allclose(pyssl.effective_rank(4 * p), np.exp(-np.sum(p * np.log(p))))
    np.testing.assert_allclose(pyssl.participation_ratio(4 * p), 1 / np.sum(p * p))
    np.testing.assert_allclose(pyssl.stable_rank(4 * p), 2.0)


def test_rankme() -> None:
    rng = seeded(11)
    z = rng.standard_normal((50, 4))
    s = np.linalg.svd(z, compute_uv=False)
    p = s / s.sum()
    np.testing.assert_allclose(pyssl.rankme(z), np.exp(-np.sum(p * np.log(p))), rtol=1e-13)
    np.testing.assert_allclose(pyssl.rankme(np.outer(z[:, 0], [1.0, 2.0])), 1.0, rtol=1e-10)
    assert pyssl.rankme(np.zeros((3, 2))) == 0.0
    with pytest.raises(ValueError, match="embeddings must"):
        pyssl.rankme(np.zeros((0, 2)))


def test_constant_data_print_what_they_lack():
    report = pyssl.classify(pyssl.InfoNCE().population(pyssl.Moments(*np.zeros((2, 2, 2))), 2))
    assert report.kind == pyssl.Collapse.COMPLETE
    assert "complete collapse: there is no variation to learn, weight decay 0" in str(report)


@pytest.mark.parametrize("excess", [1.01, 1.1])
def test_what_rounding_leaves_where_augmentation_cancels_the_signal_is_not_learned(excess):
    # B = 2 (1 - excess) A <= 0, of low rank: its null space has the rounding of A, not of B
    loss, kinds = pyssl.SquaredVICReg(1.5), []
    for seed in range(40):
        factor = np.random.default_rng(seed).normal(size=(5, 1 + seed % 4))
        a = factor @ factor.T
        c = 2.0 * excess * a
        m = pyssl.Moments(a + c, a, augmentation_covariance=c)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", pyssl.ThresholdWarning)
            kinds.append(pyssl.classify(loss.population(m, 5)).kind)
    assert set(kinds) == {Collapse.COMPLETE}
