"""Plots draw what the results say: judged by the data of the artists, not by pixels."""

from __future__ import annotations

import sys

import numpy as np
import pytest

import pyssl

matplotlib = pytest.importorskip("matplotlib")
from matplotlib.colors import to_hex  # noqa: E402
from matplotlib.figure import Figure  # noqa: E402

from pyssl import plots  # noqa: E402
from pyssl.collapse import Cause  # noqa: E402


@pytest.fixture
def land() -> pyssl.SpectralLandscape:
    """A landscape with every cause: 3 learned, 1 without room, 1 decay, 1 augmentation, 2 flat."""
    sigma = np.diag([1.0, 1.0, 1.0, 1.0, 1.0, 1.0, 0.0, 0.0])
    a = np.diag([0.9, 0.8, 0.7, 0.6, 0.1, -0.2, 0.0, 0.0])
    moments = pyssl.Moments(sigma, a)
    found = pyssl.InfoNCE().population(moments, embedding_dim=3, weight_decay=0.4)
    assert isinstance(found, pyssl.SpectralLandscape)
    return found


@pytest.fixture
def report(land: pyssl.SpectralLandscape) -> pyssl.CollapseReport:
    return pyssl.classify(land)


def axes():
    return Figure().subplots()


def test_the_example_has_every_cause(report):
    assert [str(cause) for cause in report.modes.cause] == [
        *["learned"] * 3,
        "capacity",
        "decay",
        "augmentation",
        *["no variation"] * 2,
    ]


# ---- spectrum ------------------------------------------------------------------------------------


def test_spectrum_marks_every_mode_once_in_the_colour_of_its_cause(report):
    ax = plots.spectrum(report, axes())
    bottom = ax.get_ylim()[0]
    seen = {}
    for line in ax.get_lines():
        if line.get_linestyle() != "None":
            continue
        for number, height in zip(line.get_xdata(), line.get_ydata(), strict=True):
            seen[int(number)] = (float(height), line.get_color())
    assert sorted(seen) == list(range(1, 9))
    for number, (height, colour) in seen.items():
        critical = report.critical_weight_decay[number - 1]
        assert height == (critical if critical > 0.0 else bottom)
        assert colour == plots.CAUSE_COLOURS[report.modes.cause[number - 1]]


def test_spectrum_draws_both_thresholds(report):
    ax = plots.spectrum(report, axes())
    lines = {line.get_linestyle(): line for line in ax.get_lines() if len(line.get_xdata()) == 2}
    assert set(lines["--"].get_ydata()) == {report.weight_decay}
    assert set(lines[":"].get_xdata()) == {3.5}
    # learned exactly where the mark is above the one and left of the other
    for number, cause in enumerate(report.modes.cause, start=1):
        above = report.critical_weight_decay[number - 1] > report.weight_decay
        assert (cause is Cause.LEARNED) == (above and number < 3.5)


def test_spectrum_without_decay_or_limit_has_no_threshold_lines():
    moments = pyssl.Moments(np.eye(2), np.diag([0.9, 0.1]))
    report = pyssl.classify(pyssl.InfoNCE().population(moments, embedding_dim=5))
    ax = plots.spectrum(report, axes())
    assert all(line.get_linestyle() == "None" for line in ax.get_lines())


def classified(sigma, a, k, g):
    land = pyssl.SpectralContrastive().population(pyssl.Moments(sigma, a), k, g)
    return pyssl.classify(land)


@pytest.mark.parametrize("scale", [1e-3, 1e-6, 1e-20])
@pytest.mark.parametrize("g", [0.0, 1e-30])
def test_spectrum_reaches_down_to_every_mode_learned_and_to_the_decay(scale, g):
    # columns of different units: what is small is still learned, and drawn at its place
    spread = np.array([1.0, scale, 0.0])
    moments = pyssl.Moments(np.diag(spread), np.diag(0.9 * spread))
    land = pyssl.SpectralContrastive().population(moments, 3, g)
    report = pyssl.classify(land)
    ax = plots.spectrum(report, axes())
    bottom, top = ax.get_ylim()
    critical = report.critical_weight_decay
    drawn = {
        int(x): float(y)
        for line in ax.get_lines()
        if line.get_linestyle() == "None"
        for x, y in zip(line.get_xdata(), line.get_ydata(), strict=True)
    }
    for number in range(1, report.rank + 1):
        assert bottom < critical[number - 1] < top
        assert drawn[number] == critical[number - 1]
    assert drawn[3] == bottom
    assert g == 0.0 or bottom < g < top
    assert report.rank == (2 if scale > 1e-12 else 1)


def test_spectrum_of_a_mode_that_is_neither_learned_nor_within_14_decades():
    spread = np.array([1.0, 1e-9, 5e-15])
    report = classified(np.diag(spread), np.diag(spread), 1, 0.0)
    assert report.critical_weight_decay[2] > 0.0
    bottom, _ = plots.spectrum(report, axes()).get_ylim()
    assert report.critical_weight_decay[2] < bottom < report.critical_weight_decay[1]


@pytest.mark.parametrize("weight_decay", [0.0, 0.5])
def test_spectrum_of_nothing(weight_decay):
    moments = pyssl.Moments(np.zeros((2, 2)), np.zeros((2, 2)))
    land = pyssl.SpectralContrastive().population(moments, 1, weight_decay)
    ax = plots.spectrum(pyssl.classify(land), axes())
    (line,) = (line for line in ax.get_lines() if line.get_linestyle() == "None")
    assert set(line.get_ydata()) == {ax.get_ylim()[0]}


def test_spectrum_with_an_infinite_critical_decay():
    moments = pyssl.Moments(np.eye(2), np.diag([0.9, 0.1]), mean=[1.0, 0.0])
    land = pyssl.SpectralContrastive().population(moments, 2, 0.1, bias=True)
    ax = plots.spectrum(pyssl.classify(land), axes())
    assert np.isfinite(ax.get_ylim()).all()
    assert ax.get_lines()[0].get_ydata()[0] == ax.get_ylim()[1]


# ---- budget --------------------------------------------------------------------------------------


def test_budget_stacks_the_split(report):
    ax = plots.budget(report, axes())
    left, augmentation, decay = ax.containers
    table, inside = report.modes, slice(0, 6)
    np.testing.assert_array_equal(
        [bar.get_height() for bar in left], np.maximum(table.eigenvalue[inside], 0.0)
    )
    for bars, column in ((augmentation, table.augmentation), (decay, table.decay)):
        np.testing.assert_allclose([bar.get_height() for bar in bars], column[inside])
    for below, above in ((left, augmentation), (augmentation, decay)):
        np.testing.assert_allclose(
            [bar.get_y() for bar in above], [bar.get_y() + bar.get_height() for bar in below]
        )
    # where something is left the costs end at the signal, elsewhere beyond it
    tops = np.array([bar.get_y() + bar.get_height() for bar in decay])
    np.testing.assert_allclose(tops[:4], table.signal[:4])
    assert (tops[4:] > table.signal[4:6]).all()


def test_budget_of_a_landscape_without_a_loss():
    land = pyssl.SpectralLandscape(np.diag([2.0, 1.0]), np.eye(2), pyssl.Quartic(1.0), 1)
    left, augmentation, decay = plots.budget(pyssl.classify(land), axes()).containers
    assert [bar.get_height() for bar in left] == [2.0, 1.0]
    assert not any(bar.get_height() for bars in (augmentation, decay) for bar in bars)


def test_budget_of_nothing_and_of_few(report):
    moments = pyssl.Moments(np.zeros((2, 2)), np.zeros((2, 2)))
    nothing = pyssl.classify(pyssl.SpectralContrastive().population(moments, 1))
    assert not plots.budget(nothing, axes()).patches
    assert len(plots.budget(report, axes(), most=2).containers[0]) == 2


# ---- directions ----------------------------------------------------------------------------------


def test_modes_as_rows(land, report):
    ax = plots.modes(land, report, ax=axes())
    drawn = np.asarray(ax.get_images()[0].get_array())
    vectors = land.vectors.T
    expected = vectors / np.abs(vectors).max(axis=1, keepdims=True)
    expected[6:] = 0.0  # the modes without variation
    np.testing.assert_allclose(drawn, expected)
    labels = [label.get_text() for label in ax.get_yticklabels()]
    assert labels == [f"{i + 1}  {cause}" for i, cause in enumerate(report.modes.cause)]
    colours = [to_hex(patch.get_edgecolor()) for patch in ax.patches]
    assert colours == [plots.CAUSE_COLOURS[cause] for cause in report.modes.cause]


def rows_of(moments, loss=None):
    land = (loss or pyssl.InfoNCE()).population(moments, moments.dim, 0.0)
    ax = plots.modes(land, pyssl.classify(land), ax=axes())
    return np.asarray(ax.get_images()[0].get_array()), land


def test_modes_do_not_depend_on_the_units(rng):
    clean, units = (
        rng.standard_normal((500, 4)) @ rng.standard_normal((4, 4)),
        10.0 ** np.array([2, 1, 0, -2]),
    )
    x, x_plus = clean + [0.3, 0.6, 0.9, 1.2] * rng.standard_normal((2, 500, 4))
    plain, _ = rows_of(pyssl.Moments.from_views(x, x_plus).centered())
    scaled, _ = rows_of(pyssl.Moments.from_views(x * units, x_plus * units).centered())
    signs = np.sign(np.sum(plain * scaled, axis=1, keepdims=True))
    np.testing.assert_allclose(signs * scaled, plain, atol=1e-8)


def test_modes_are_correlations(rng):
    x = rng.standard_normal((400, 3)) @ rng.standard_normal((3, 3))
    moments = pyssl.Moments.from_views(x, x + rng.standard_normal(x.shape)).centered()
    for loss in (pyssl.InfoNCE(), pyssl.BarlowTwins(redundancy=1.0, normalize=False)):
        drawn, land = rows_of(moments, loss)
        root = np.linalg.cholesky(moments.covariance).T
        sample = np.concatenate([root, -root])  # centred, with that covariance up to a factor
        for row, vector in zip(drawn, land.vectors.T, strict=True):
            found = [np.corrcoef(sample @ vector, column)[0, 1] for column in sample.T]
            np.testing.assert_allclose(row, found / np.abs(found).max(), atol=1e-10)


def test_modes_of_a_constant_input_and_of_a_landscape_without_a_loss():
    moments = pyssl.Moments(np.diag([1.0, 0.0, 4.0]), np.diag([0.5, 0.0, 1.0]))
    drawn, _ = rows_of(moments)
    np.testing.assert_allclose(np.abs(drawn), [[1, 0, 0], [0, 0, 1], [0, 0, 0]], atol=1e-12)
    land = pyssl.SpectralLandscape(np.eye(2), np.diag([1.0, 1e-6]), pyssl.Quartic(1.0), 1)
    ax = plots.modes(land, pyssl.classify(land), ax=axes())
    np.testing.assert_allclose(np.abs(ax.get_images()[0].get_array()), [[0, 1], [1, 0]])


def test_modes_as_pictures(land, report):
    ax = plots.modes(land, report, (2, 4), axes(), most=5, columns=3)
    canvas = np.asarray(ax.get_images()[0].get_array().filled(np.nan))
    assert len(ax.patches) == 5
    assert [text.get_text() for text in ax.texts] == list("12345")
    for index, frame in enumerate(ax.patches):
        x, y = round(frame.get_x() + 0.5), round(frame.get_y() + 0.5)
        vector = land.vectors[:, index]
        np.testing.assert_allclose(
            canvas[y : y + 2, x : x + 4], vector.reshape(2, 4) / np.abs(vector).max()
        )
    assert np.isnan(canvas).any()  # the gaps


def test_pictures_on_their_own_range():
    images = np.array([[[2.0, 4.0]], [[5.0, 5.0]]])
    ax = plots.pictures(images, ax=axes(), signed=False, columns=1)
    canvas = np.asarray(ax.get_images()[0].get_array().filled(np.nan))
    np.testing.assert_array_equal(canvas[~np.isnan(canvas)], [0.0, 1.0, 0.0, 0.0])


# ---- planes --------------------------------------------------------------------------------------


def test_plane_draws_u_to_the_right():
    u, v = np.array([0.0, 1.0, 2.0]), np.array([0.0, 10.0])
    values = np.array([[0.0, 1.0], [2.0, 3.0], [4.0, 5.0]])
    ax = plots.plane(values, u, v, axes(), points={"here": (1.0, 10.0)})
    assert (ax.get_xlim(), ax.get_ylim()) == ((0.0, 2.0), (0.0, 10.0))
    (mark,) = ax.get_lines()
    assert (mark.get_xdata()[0], mark.get_ydata()[0]) == (1.0, 10.0)
    assert [text.get_text() for text in ax.texts] == ["here"]
    levels = ax.collections[0].levels
    assert levels[0] <= 0.0
    assert levels[-1] >= 5.0
    assert len(ax.figure.axes) == 2  # with its colour bar


# ---- flow ----------------------------------------------------------------------------------------


@pytest.fixture
def followed() -> pyssl.Flow:
    """Two modes learned one after the other, a third never, from time 0 to 4 and at infinity."""
    land = pyssl.SpectralLandscape(np.diag([2.0, 1.0, -1.0]), np.eye(3), pyssl.Quartic(0.5), 3)
    return pyssl.gradient_flow(land, 1e-3 * np.eye(3), [*np.linspace(0.0, 4.0, 41), np.inf])


def test_flow_draws_every_amplitude_at_every_finite_time(followed):
    ax = plots.flow(followed, axes())
    lines = [line for line in ax.get_lines() if line.get_label().startswith("mode")]
    assert [line.get_label() for line in lines] == ["mode 1", "mode 2", "mode 3"]
    for j, line in enumerate(lines):
        np.testing.assert_array_equal(line.get_xdata(), followed.times[:-1])
        np.testing.assert_array_equal(line.get_ydata(), followed.amplitudes[:-1, j])


def test_flow_marks_the_predicted_times_in_the_colours_of_the_modes(followed):
    lines = plots.flow(followed, axes()).get_lines()
    predicted = {line.get_color(): line.get_xdata()[0] for line in lines if is_dotted(line)}
    by_mode = [line.get_color() for line in lines if not is_dotted(line)]
    assert len(set(by_mode)) == 3
    assert predicted == dict(
        zip(by_mode[:2], followed.predicted_learning_times[:2], strict=True)
    )  # the third is not learned


def is_dotted(line) -> bool:
    return line.get_linestyle() == ":"


def test_flow_marks_no_time_after_its_end():
    land = pyssl.SpectralLandscape(np.diag([2.0, 1.0]), np.eye(2), pyssl.Quartic(0.5), 2)
    short = pyssl.gradient_flow(land, 1e-3 * np.eye(2), [0.0, 1.0, 2.0])
    marks = [line for line in plots.flow(short, axes()).get_lines() if is_dotted(line)]
    assert [mark.get_xdata()[0] for mark in marks] == [short.predicted_learning_times[0]]
    assert short.predicted_learning_times[1] > 2.0


def test_flow_leaves_out_times_that_were_not_reached():
    land = pyssl.SpectralLandscape(np.eye(2), np.diag([1.0, 0.0]), pyssl.Quartic(1.0), 1)
    diverged = pyssl.gradient_flow(land, [[0.1, 0.1]], [0.0, 1.0, 1000.0])
    assert diverged.outcome is pyssl.FlowOutcome.DIVERGED
    line = plots.flow(diverged, axes()).get_lines()[0]
    np.testing.assert_array_equal(line.get_xdata(), [0.0, 1.0])


def test_flow_of_a_few_modes(followed):
    labels = [line.get_label() for line in plots.flow(followed, axes(), most=1).get_lines()]
    assert labels == ["mode 1", "predicted"]


# ---- verification --------------------------------------------------------------------------------


@pytest.fixture
def check() -> pyssl.Verification:
    """Four modes: one as predicted, one beyond noise, one of unknown noise, one not learned."""
    return pyssl.Verification(
        loss="InfoNCE()",
        level="population",
        n_samples=1000,
        embedding_dim=4,
        weight_decay=0.1,
        theory_rank=3,
        trained_rank=2,
        alignments=np.array([0.9, 0.8, 0.7, 0.1]),
        theory_spectrum=np.array([2.0, 1.0, 0.5, 0.0]),
        trained_spectrum=np.array([2.1, 1.5, 0.0, 0.0]),
        noise=np.array([0.1, 0.05, np.inf, 0.0]),
        beyond_noise=np.array([False, True, False, False]),
        spectrum_error=0.25,
        subspace_angle=np.nan,
        theory_value=-1.0,
        trained_value=-0.9,
        converged=True,
        reasons=(),
    )


def test_verification_draws_training_over_theory(check):
    theory, training, beyond = plots.verification(check, axes()).containers
    assert [bar.get_height() for bar in theory] == [2.0, 1.0, 0.5, 0.0]
    assert [bar.get_x() + bar.get_width() / 2 for bar in theory] == pytest.approx([1, 2, 3, 4])
    assert training.lines[0].get_xydata().tolist() == [[1.0, 2.1], [3.0, 0.0], [4.0, 0.0]]
    assert beyond.lines[0].get_xydata().tolist() == [[2.0, 1.5]]
    assert to_hex(beyond.lines[0].get_color()) != to_hex(training.lines[0].get_color())
    labels = [part.get_label() for part in (theory, training, beyond)]
    assert labels == ["theory (rank 3)", "training (rank 2)", "beyond noise"]


def test_verification_bars_reach_three_standard_errors(check):
    _, training, beyond = plots.verification(check, axes()).containers
    lengths = {}
    for part in (training, beyond):
        for (x, low), (_, high) in part.lines[2][0].get_segments():
            lengths[round(x)] = high - low
    assert lengths == pytest.approx({1: 0.6, 2: 0.3, 3: 0.0, 4: 0.0})  # 3: unknown, so no bar


def test_verification_of_a_few_modes_and_without_disagreement(check):
    theory, training = plots.verification(check, axes(), most=1).containers
    assert len(theory) == 1
    assert training.lines[0].get_xydata().tolist() == [[1.0, 2.1]]


# ---- wells ---------------------------------------------------------------------------------------


def deep(g: float, **options) -> pyssl.DeepLandscape:
    moments = pyssl.Moments(np.eye(3), np.diag([0.9, 0.5, 0.35]))
    return pyssl.SpectralContrastive().population(moments, 3, g, depth=2, **options)


def test_wells_draws_every_profile_with_its_well_and_barrier():
    land = deep(0.3)
    table, ax = land.wells(), plots.wells(land, axes())
    curves, points = ax.get_lines()[:3], ax.get_lines()[3:-1]
    for j, curve in enumerate(curves):
        np.testing.assert_array_equal(curve.get_ydata(), land.profile(curve.get_xdata())[:, j])
    for j, (well, barrier) in enumerate(zip(points[::2], points[1::2], strict=True)):
        assert well.get_xydata()[0].tolist() == [table.singular_value[j], table.value[j]]
        at = [table.barrier_singular_value[j], table.barrier_height[j]]
        assert barrier.get_xydata()[0].tolist() == at
        assert well.get_color() == barrier.get_color() == curves[j].get_color()
        hollow = to_hex(well.get_markerfacecolor()) == "#ffffff"
        assert hollow == (not table.is_global[j])
        low, high = ax.get_ylim()
        assert low < table.value[j] < high
        assert table.barrier_height[j] < high
    assert [not table.is_global[j] for j in range(3)] == [False, False, True]
    assert ax.get_legend_handles_labels()[1] == ["mode 1", "mode 2", "mode 3", "well", "barrier"]


def test_wells_of_nothing_of_few_and_of_a_constant():
    ax = plots.wells(deep(9.0), axes())
    assert ax.get_legend_handles_labels()[1] == ["mode 1", "mode 2", "mode 3"]
    assert ax.get_xlim() == (0.0, 1.0)
    assert plots.wells(deep(0.1), axes(), most=2).get_legend_handles_labels()[1][:3] == [
        *("mode 1", "mode 2", "well"),
    ]
    # the constant function is mode 1, and no direction of W
    labels = plots.wells(deep(0.1, bias=True), axes()).get_legend_handles_labels()[1]
    assert labels[:3] == ["mode 2", "mode 3", "mode 4"]
    assert plots.wells(deep(0.0), axes()).get_ylim()[0] < 0.0


def test_reports_of_deep_models_are_drawn():
    for g in (0.3, 9.0):
        report = pyssl.classify(deep(g))
        bars = plots.budget(report, axes()).containers
        heights = [[bar.get_height() for bar in container] for container in bars]
        expected = [report.modes.eigenvalue, report.modes.augmentation, report.modes.decay]
        np.testing.assert_allclose(heights, np.nan_to_num(expected), rtol=1e-14)
        assert len(plots.spectrum(report, axes()).get_lines()) >= 2


# ---- refusals ------------------------------------------------------------------------------------


def scale_free_flow() -> pyssl.Flow:
    land = pyssl.NTXent().effective(pyssl.Moments(np.eye(2), np.diag([0.9, 0.1])), 2)
    return pyssl.gradient_flow(land, np.eye(2), [0.0, 0.1])


@pytest.mark.parametrize(
    ("call", "error", "message"),
    [
        (lambda land, r: plots.spectrum(land), TypeError, "report must be a CollapseReport"),
        (lambda land, r: plots.budget(None), TypeError, "report must be a CollapseReport"),
        (
            lambda land, r: plots.flow(scale_free_flow(), most=0),
            ValueError,
            "most must be at least 1, got 0",
        ),
        (lambda land, r: plots.budget(r, most=0), ValueError, "most must be at least 1, got 0"),
        (lambda land, r: plots.modes(r, r), TypeError, "landscape must be a SpectralLandscape"),
        (lambda land, r: plots.modes(land, r, (3, 3)), ValueError, "hold 8 inputs, got 3 x 3"),
        (lambda land, r: plots.modes(land, r, 8), ValueError, r"must be \(height, width\), got 8"),
        (lambda land, r: plots.modes(land, r, (2.0, 4)), TypeError, r"shape\[0\] must be an int"),
        (lambda land, r: plots.flow(r), TypeError, "flow must be a Flow"),
        (lambda land, r: plots.flow(scale_free_flow()), ValueError, "flow must have amplitudes"),
        (lambda land, r: plots.wells(land), TypeError, "landscape must be a DeepLandscape"),
        (lambda land, r: plots.wells(deep(0.3), most=0), ValueError, "most must be at least 1"),
        (lambda land, r: plots.verification(r), TypeError, "check must be a Verification"),
        (lambda land, r: plots.pictures(np.ones((2, 2))), ValueError, "must have 3 dimension"),
        (lambda land, r: plots.pictures(np.ones((0, 2, 2))), ValueError, "at least one pixel"),
        (lambda land, r: plots.pictures(np.ones((1, 2, 2)), ["a", "b"]), ValueError, "labels must"),
        (lambda land, r: plots.plane(np.ones((2, 3)), [0, 1], [0, 1]), ValueError, r"\(2, 2\)"),
        (lambda land, r: plots.plane([[1.0, 2.0]], [0], [0, 1]), ValueError, "at least"),
        (
            lambda land, r: plots.plane([[1.0, np.nan], [0.0, 1.0]], [0, 1], [0, 1]),
            ValueError,
            "values must be finite, got nan",
        ),
    ],
)
def test_refusals_name_the_argument(land, report, call, error, message):
    with pytest.raises(error, match=message):
        call(land, report)


def test_report_of_another_landscape_is_refused(land):
    moments = pyssl.Moments(np.eye(2), np.diag([0.9, 0.1]))
    other = pyssl.classify(pyssl.InfoNCE().population(moments, embedding_dim=1))
    with pytest.raises(ValueError, match="landscape with 8 modes, got 2"):
        plots.modes(land, other)


def test_without_matplotlib_one_sentence_says_how_to_install_it(monkeypatch, report):
    for name in ("matplotlib", "matplotlib.pyplot"):
        monkeypatch.setitem(sys.modules, name, None)
    with pytest.raises(ImportError, match=r'pip install "pyssl-landscapes\[app\]"'):
        plots.spectrum(report)


def test_without_axes_a_new_figure_is_made(report):
    import matplotlib.pyplot as plt

    backend = matplotlib.get_backend()
    ax = plots.spectrum(report)
    assert ax.figure in map(plt.figure, plt.get_fignums())
    assert matplotlib.get_backend() == backend
    plt.close("all")


# ---- retention -----------------------------------------------------------------------------------


def test_retention_draws_every_class_by_its_prior_and_hatches_what_is_open():
    means = 3.0 * np.eye(4)
    mix = pyssl.Mixture([0.1, 0.6, 0.1, 0.2], means, 0.1 * np.eye(4), classes="abcd")
    losses = [pyssl.SpectralContrastive(), pyssl.BarlowTwins(1.0, normalize=False)]
    table = pyssl.compare_retention(
        mix, pyssl.augment.Noise(1.0), losses, embedding_dim=2, centered=True
    )
    ax = plots.retention(table, axes())
    order = [1, 3, 0, 2]  # ties in their order
    np.testing.assert_array_equal(ax.get_images()[0].get_array(), table.retention[:, order])
    assert [label.get_text()[0] for label in ax.get_xticklabels()] == list("bdac")
    assert [label.get_text() for label in ax.get_yticklabels()] == list(table.losses)
    hatched = {(patch.get_x() + 0.5, patch.get_y() + 0.5) for patch in ax.patches}
    assert hatched == {(column, 1.0) for column, c in enumerate(order) if table.open[1, c]}
    assert hatched
    written = [text.get_text() for text in ax.texts]
    assert written[0] == f"{table.retention[0, 1]:.2f}"
    assert written.count("open") == len(hatched)


def test_retention_of_many_classes_has_no_numbers_and_undefined_ones_are_blank():
    means = np.linspace(-3.0, 3.0, 41)[:, None] * [1.0, 0.0]
    mix = pyssl.Mixture(np.full(41, 1.0 / 41.0), means, np.eye(2))
    table = pyssl.compare_retention(mix, None, [pyssl.SpectralContrastive()], embedding_dim=1)
    ax = plots.retention(table, axes())
    assert not ax.texts
    assert len(ax.get_xticklabels()) < 41
    # the class at the mean has no offset
    assert np.isnan(table.retention).sum() == 1
    assert np.isnan(np.asarray(ax.get_images()[0].get_array())).sum() == 1


def test_retention_takes_a_table():
    with pytest.raises(TypeError, match="table must be a RetentionTable, got"):
        plots.retention(np.eye(2))


# ---- downstream ----------------------------------------------------------------------------------


def test_downstream_stacks_what_is_learned_and_missed():
    W = np.diag([2.0, 1.0, 0.5, 0.0])
    split = pyssl.downstream_split(W, np.eye(4), [1.0, 0.5, 1.0, 2.0], 9, noise=0.3, ridge=1.0)
    ax = plots.downstream(split, axes())
    learned, missed, lost, noise = ax.containers
    tops = [bar.get_y() + bar.get_height() for bar in missed]
    np.testing.assert_allclose(tops, split.coefficients**2)
    np.testing.assert_allclose([bar.get_height() for bar in missed], split.bias)
    np.testing.assert_allclose([bar.get_y() for bar in missed], [b.get_height() for b in learned])
    assert lost[0].get_height() == split.lost == 4.0
    assert noise[0].get_height() == 0.3
    assert lost[0].get_x() > missed[-1].get_x() + 1.0
    assert f"{split.risk:.3g}" in ax.get_xlabel()
    assert [len(each) for each in plots.downstream(split, axes(), most=2).containers[:2]] == [2, 2]
    # nothing lost, no noise: no bars for them
    full = pyssl.downstream_split(np.eye(2), np.eye(2), [1.0, 0.5], 9)
    assert [c.get_label() for c in plots.downstream(full, axes()).containers] == [
        "learned",
        "missed",
    ]
    nothing = pyssl.downstream_split(np.zeros((2, 2)), np.eye(2), [1.0, 0.5], 9)
    assert plots.downstream(nothing, axes()).containers[-1][0].get_height() == 1.25


def test_helpful_collapse_draws_the_error_over_the_modes_left():
    moments = pyssl.Moments(np.eye(4), np.diag([0.9, 0.7, 0.4, 0.2]))
    found = pyssl.helpful_collapse(moments, [1.0, 1.0, 0.0, 0.0], 15, noise=2.0)
    curve, everything, best = plots.helpful_collapse(found, axes()).get_lines()
    assert curve.get_xdata().tolist() == [0, 1, 2, 3, 4]
    assert curve.get_ydata().tolist() == [one.risk for one in found.weight_decays]
    assert set(everything.get_ydata()) == {found.risk_of_everything}
    assert set(best.get_ydata()) == {found.risk}
    assert best.get_label() == "best 2 modes"


@pytest.mark.parametrize(
    ("call", "error", "message"),
    [
        (plots.downstream, TypeError, "split must be a DownstreamRisk"),
        (plots.helpful_collapse, TypeError, "found must be a HelpfulCollapse"),
        (
            lambda r: plots.downstream(
                pyssl.downstream_split(np.eye(2), np.eye(2), [1.0, 0.5], 9), most=0
            ),
            ValueError,
            "most must be at least 1, got 0",
        ),
    ],
)
def test_downstream_pictures_name_the_argument(report, call, error, message):
    with pytest.raises(error, match=message):
        call(report)
