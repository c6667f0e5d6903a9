"""The main job: views in, one self-contained HTML page out, on what each loss keeps and loses.

``pyssl report`` is this module behind a command line. Pages need Matplotlib, the built-in digits
scikit-learn: ``python -m pip install "pyssl-landscapes[app]"``.
"""

from __future__ import annotations

import warnings
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, fields, replace
from typing import Any

import numpy as np
import numpy.typing as npt

from pyssl import _advice, _checks, _page, _views
from pyssl._as_dict import as_dict, verification_as_dict
from pyssl._checks import ThresholdWarning
from pyssl._saving import save, writable
from pyssl.classification import classify
from pyssl.collapse import CollapseReport
from pyssl.losses import LOSSES, Loss
from pyssl.moments import Moments
from pyssl.spectral import SpectralLandscape
from pyssl.verification import Verification
from pyssl.verification import verify as verify_views

__all__ = [
    "Comparison",
    "as_dict",
    "build",
    "closed_form",
    "compare",
    "named_losses",
    "own_settings",
    "save",
    "writable",
]

EMBEDDING_DIM = 12
TEMPERATURE = 1.0
_PAIRS_TRAINED = 2048
# On the digits this decay shows every cause at once; on other data its meaning depends on their
# scale, so there the default is none.
DIGITS_WEIGHT_DECAY = 0.1

Progress = Callable[[int, int, str], None]

# The settings that have a spectral closed form, where they are not a loss's own defaults.
_SETTINGS: dict[str, dict[str, Any]] = {
    "barlow_twins": {"redundancy": 1.0, "normalize": False},
    "squared_vicreg": {"invariance": 1.5},
}
# What a reader should know of these settings.
_REMARKS: dict[str, str] = {
    "infonce": (
        "Population form with infinitely many negatives. It is exact for Gaussian views and an"
        " approximation for others (see the notes on the data)."
    ),
    "spectral": "Exact for any distribution of the views.",
    "barlow_twins": (
        "Exact for any distribution of the views. This is the unnormalised form with redundancy"
        " weight 1; the standard, normalised one has no spectral closed form."
    ),
    "squared_vicreg": (
        "Exact for any distribution of the views. VICReg with squares for the hinge. At invariance"
        " 1 its modes would be those of the spectral contrastive loss; 1.5 shows what more costs."
    ),
}


@dataclass(frozen=True, eq=False, repr=False)
class Comparison:
    """What several losses keep and lose on the same views. Prints as tables.

    Attributes
    ----------
    moments : Moments
        Centred.
    losses : dict of str to Loss
        Every loss asked for, by name.
    landscapes : dict of str to SpectralLandscape
    reports : dict of str to CollapseReport
        For each loss with a closed form.
    warnings : dict of str to list of str
        What `classify` warned of.
    missing : dict of str to str
        For each loss without a closed form, the reason.
    embedding_dim : int
    weight_decay : float
    verifications : dict of str to Verification
        Where training was asked for, of each loss that has a minimiser.

    Examples
    --------
    >>> import numpy as np, pyssl
    >>> moments = pyssl.Moments(np.eye(3), np.diag([0.9, 0.5, 0.1]))
    >>> found = pyssl.report.compare(moments, losses=["infonce", "vicreg"], embedding_dim=2)
    >>> found.reports["infonce"].rank, list(found.missing)
    (2, ['vicreg'])
    """

    moments: Moments
    losses: dict[str, Loss]
    landscapes: dict[str, SpectralLandscape]
    reports: dict[str, CollapseReport]
    warnings: dict[str, list[str]]
    missing: dict[str, str]
    embedding_dim: int
    weight_decay: float
    verifications: dict[str, Verification]
    _about: _views.About

    def as_dict(self) -> dict[str, Any]:
        """Return everything as plain Python values that strict JSON can hold.

        Returns
        -------
        dict
            With ``reports`` by name, each as `as_dict` has it.

        Examples
        --------
        >>> import numpy as np, pyssl
        >>> moments = pyssl.Moments(np.eye(2), np.diag([0.9, 0.1]))
        >>> found = pyssl.report.compare(moments, losses=["spectral"]).as_dict()
        >>> found["reports"]["spectral"]["rank"]
        2
        """
        return {
            "source": self._about.title,
            "dim": self.moments.dim,
            "n_samples": self.moments.n_samples,
            "centered": True,
            "embedding_dim": self.embedding_dim,
            "weight_decay": self.weight_decay,
            "reports": {name: as_dict(each) for name, each in self.reports.items()},
            "warnings": {name: each for name, each in self.warnings.items() if each},
            "missing": dict(self.missing),
            "verifications": {
                name: verification_as_dict(each) for name, each in self.verifications.items()
            },
        }

    def summary(self) -> str:
        """Return one line a loss.

        Returns
        -------
        str

        Examples
        --------
        >>> import numpy as np, pyssl
        >>> moments = pyssl.Moments(np.eye(2), np.diag([0.9, 0.1]))
        >>> print(pyssl.report.compare(moments, losses=["spectral"]).summary())
        SpectralContrastive  no collapse: 2 of 2 modes learned
        """
        rows = [
            (type(self.losses[name]).__name__, _advice.headline(each))
            for name, each in self.reports.items()
        ]
        rows += [
            (type(self.losses[name]).__name__, f"left out: {why}")
            for name, why in self.missing.items()
        ]
        width = max(len(name) for name, _ in rows)
        return "\n".join(f"{name:<{width}}  {text}" for name, text in rows)

    def page(self, progress: Progress | None = None) -> str:
        """Return the HTML page.

        Parameters
        ----------
        progress : callable, optional
            As for `build`.

        Returns
        -------
        str

        Raises
        ------
        ImportError
            Without Matplotlib.

        Examples
        --------
        >>> import numpy as np, pyssl
        >>> moments = pyssl.Moments(np.eye(2), np.diag([0.9, 0.1]))
        >>> pyssl.report.compare(moments, losses=["spectral"]).page()[:15]
        '<!DOCTYPE html>'
        """
        tick, total = _ticker(progress), len(self.reports) + 1
        page = _page.Page(
            about=self._about,
            moments=self.moments,
            embedding_dim=self.embedding_dim,
            weight_decay=self.weight_decay,
            missing={type(self.losses[name]).__name__: why for name, why in self.missing.items()},
        )
        for step, (name, report) in enumerate(self.reports.items(), start=1):
            loss = self.losses[name]
            tick(step, total, type(loss).__name__)
            stock = named_losses([name], getattr(loss, "temperature", TEMPERATURE))[name]
            page.add(
                self.landscapes[name],
                report,
                name=type(loss).__name__,
                remark=_REMARKS.get(name, "") if loss == stock else "",
                kept=_advice.kept_and_lost(report),
                reasons=_advice.reasons(report),
                changes=_advice.changes(report, loss, self.moments),
                notes=[*report.notes, *self.warnings[name]],
                verification=self.verifications.get(name),
            )
        html = page.render()
        tick(total, total, "done")
        return html

    def __str__(self) -> str:
        parts = [
            "\n".join([str(each), *(f"warning: {text}" for text in self.warnings[name])])
            for name, each in self.reports.items()
        ]
        parts += [f"{name}: left out: {why}" for name, why in self.missing.items()]
        parts += [str(each) for each in self.verifications.values()]
        return "\n\n".join(parts)

    __repr__ = __str__


def named_losses(
    names: str | Loss | Iterable[str | Loss] | None = None, temperature: float = TEMPERATURE
) -> dict[str, Loss]:
    """Return losses by name, with the settings that have a spectral closed form.

    Parameters
    ----------
    names : str, Loss or iterable of them, optional
        Keys of `pyssl.LOSSES` or losses with settings of their own; all of the registry by default.
    temperature : float, optional
        tau > 0 for the losses that have one and are given by name.

    Returns
    -------
    dict of str to Loss

    Raises
    ------
    ValueError
        For an unknown name, a name that comes twice, or a temperature that is not positive.
    TypeError
        For anything but names and losses.

    Examples
    --------
    >>> import pyssl
    >>> pyssl.report.named_losses(["barlow_twins"])["barlow_twins"].normalize
    False
    """
    tau = _checks.real("temperature", temperature, minimum=0.0, open_minimum=True)
    if isinstance(names, str | Loss):
        names = [names]
    found: dict[str, Loss] = {}
    for name in LOSSES if names is None else names:
        _checks.instance("losses", name, (str, Loss), "names of losses, or losses")
        if isinstance(name, Loss):
            key, loss = name.key, name
        else:
            key = name
            if key not in LOSSES:
                raise ValueError(f"loss must be one of {', '.join(LOSSES)}, got {key!r}")
            settings = dict(_SETTINGS.get(key, {}))
            if any(item.name == "temperature" for item in fields(LOSSES[key])):  # type: ignore[arg-type]
                settings["temperature"] = tau
            loss = LOSSES[key](**settings)
        if key in found:
            raise ValueError(f"losses must be different, got {key} twice")
        found[key] = loss
    if not found:
        raise ValueError("losses must name at least one loss")
    return found


def own_settings() -> dict[str, str]:
    """Return what `named_losses` makes of names for which it does not take the defaults.

    Returns
    -------
    dict of str to str

    Examples
    --------
    >>> import pyssl
    >>> pyssl.report.own_settings()["squared_vicreg"]
    'SquaredVICReg(invariance=1.5)'
    """
    return {
        key: f"{LOSSES[key].__name__}({', '.join(f'{name}={x}' for name, x in settings.items())})"
        for key, settings in _SETTINGS.items()
    }


def closed_form(
    loss: Loss, moments: Moments, embedding_dim: int, weight_decay: float
) -> SpectralLandscape:
    """Return a loss's spectral landscape: the population form, else the effective one.

    Parameters
    ----------
    loss : Loss
    moments : Moments
    embedding_dim : int
        k >= 1.
    weight_decay : float
        g >= 0.

    Returns
    -------
    SpectralLandscape

    Raises
    ------
    NotImplementedError
        Where this version has neither in closed form, with the reason why not the first.
    ValueError, TypeError
        For wrong arguments.

    Examples
    --------
    >>> import numpy as np, pyssl
    >>> moments = pyssl.Moments(np.eye(2), np.diag([0.9, 0.1]))
    >>> pyssl.report.closed_form(pyssl.InfoNCE(), moments, 1, 0.0).eigenvalues
    array([0.9, 0.1])
    """
    if loss.scale_free and moments.rank == 0:
        raise NotImplementedError("normalised losses have no value where nothing varies")
    why: list[str] = []
    for level in (loss.population, loss.effective):
        try:
            land = level(moments, embedding_dim, weight_decay)
        except NotImplementedError as error:
            why.append(str(error).split(": ", 1)[-1])
            continue
        if isinstance(land, SpectralLandscape):
            return land
        why.append("its landscape is not spectral")
    raise NotImplementedError(why[0])


def compare(
    data: Moments | tuple[npt.ArrayLike, npt.ArrayLike] | _views.Views | None = None,
    *,
    losses: str | Loss | Iterable[str | Loss] | None = None,
    embedding_dim: int = EMBEDDING_DIM,
    weight_decay: float | None = None,
    temperature: float = TEMPERATURE,
    image_shape: tuple[int, int] | None = None,
    title: str | None = None,
    description: Sequence[str] = (),
    progress: Progress | None = None,
    verify: bool = False,
) -> Comparison:
    """Classify what each loss keeps and loses on the same centred moments.

    Parameters
    ----------
    data, losses, embedding_dim, weight_decay, temperature
        As for `build`.
    image_shape, title, description, progress, verify
        As for `build`, for a page made of the result.

    Returns
    -------
    Comparison

    Raises
    ------
    ValueError
        For wrong views (the message names what was seen), a setting out of range, an unknown
        loss, or an image shape that does not hold d inputs.
    TypeError
        For arguments of the wrong kind.
    NotImplementedError
        Where none of the losses has a closed form in this version.
    ImportError
        Without scikit-learn, for the digits.

    Examples
    --------
    >>> import numpy as np, pyssl
    >>> moments = pyssl.Moments(np.eye(3), np.diag([0.9, 0.5, 0.1]))
    >>> pyssl.report.compare(moments, embedding_dim=2).reports["infonce"].rank
    2
    """
    k = _checks.integer("embedding_dim", embedding_dim, minimum=1)
    chosen = named_losses(losses, temperature)
    if weight_decay is None:
        weight_decay = DIGITS_WEIGHT_DECAY if data is None else 0.0
    g = _checks.real("weight_decay", weight_decay, minimum=0.0)
    if _checks.flag("verify", verify) and isinstance(data, Moments):
        raise TypeError("verify trains on views: data must be two arrays (x, x_plus), got Moments")
    tick = _ticker(progress)
    tick(0, len(chosen) + 1, "views")
    views = _views.digits() if data is None else data
    about, moments = _moments(views)
    shape = about.image_shape if image_shape is None else image_shape
    about = replace(
        about,
        title=about.title if title is None else title,
        description=tuple(description) or about.description,
        image_shape=(
            None if shape is None else _checks.image_shape("image_shape", shape, moments.dim)
        ),
    )
    lands: dict[str, SpectralLandscape] = {}
    missing: dict[str, str] = {}
    for name, loss in chosen.items():
        try:
            lands[name] = closed_form(loss, moments, k, g)
        except NotImplementedError as error:
            missing[name] = str(error)
    if not lands:
        each = "; ".join(f"{name}: {why}" for name, why in missing.items())
        raise NotImplementedError(f"no closed form in this version for {each}")
    found = {name: _quietly_classified(land) for name, land in lands.items()}
    return Comparison(
        moments=moments,
        losses=chosen,
        landscapes=lands,
        reports={name: report for name, (report, _) in found.items()},
        warnings={name: texts for name, (_, texts) in found.items()},
        missing=missing,
        embedding_dim=k,
        weight_decay=g,
        verifications=_verified(
            views,
            # where theory has no minimiser, training has no end
            {name: chosen[name] for name, land in lands.items() if land.minimum().attained},
            k,
            g,
            tick,
        )
        if verify
        else {},
        _about=about,
    )


def build(
    data: Moments | tuple[npt.ArrayLike, npt.ArrayLike] | _views.Views | None = None,
    *,
    losses: str | Loss | Iterable[str | Loss] | None = None,
    embedding_dim: int = EMBEDDING_DIM,
    weight_decay: float | None = None,
    temperature: float = TEMPERATURE,
    image_shape: tuple[int, int] | None = None,
    title: str | None = None,
    description: Sequence[str] = (),
    progress: Progress | None = None,
    verify: bool = False,
) -> str:
    """Make the page: for each loss the table, the spectrum, the directions, a plane, and why.

    Parameters
    ----------
    data : Moments or (x, x_plus), optional
        Moments of a pair of views, or the two views (n, d) themselves; the digits that
        scikit-learn ships, augmented, by default.
    losses : str, Loss or iterable of them, optional
        Keys of `pyssl.LOSSES` or losses with settings of their own; all of the registry by default.
    embedding_dim : int, optional
        k >= 1.
    weight_decay : float, optional
        g >= 0; by default 0.1 for the digits and 0 for other data.
    temperature : float, optional
        tau > 0 for the losses that have one and are given by name.
    image_shape : (int, int), optional
        Height and width where the inputs are pixels, to draw directions as images.
    title : str, optional
    description : sequence of str, optional
        Paragraphs of plain text on where the views come from.
    progress : callable, optional
        Called as ``progress(done, total, what)`` before each step and at the end.
    verify : bool, optional
        Whether to train each loss on the views too (at most 2048 pairs of them) and set the end
        beside what theory says: seconds to minutes a loss. Takes views, not moments.

    Returns
    -------
    str
        One self-contained HTML page; `save` writes it. The same input gives the same page.

    Raises
    ------
    ValueError
        For wrong views (the message names what was seen), a setting out of range, an unknown
        loss, or an image shape that does not hold d inputs.
    TypeError
        For arguments of the wrong kind.
    NotImplementedError
        Where none of the losses has a closed form in this version.
    ImportError
        Without Matplotlib, or without scikit-learn for the digits.

    Notes
    -----
    Source: theory 2, 3 and 5. The moments are centred, so that all losses can be compared.

    Examples
    --------
    >>> import numpy as np, pyssl
    >>> rng = np.random.default_rng(0)
    >>> clean = rng.standard_normal((200, 4))
    >>> x, x_plus = clean + 0.5 * rng.standard_normal((2, 200, 4))
    >>> pyssl.report.build((x, x_plus), losses="infonce", embedding_dim=2)[:15]
    '<!DOCTYPE html>'
    """
    found = compare(
        data,
        losses=losses,
        embedding_dim=embedding_dim,
        weight_decay=weight_decay,
        temperature=temperature,
        image_shape=image_shape,
        title=title,
        description=description,
        progress=progress,
        verify=verify,
    )
    return found.page(progress)


# ---- parts ---------------------------------------------------------------------------------------


def _ticker(progress: Progress | None) -> Progress:
    return progress if progress is not None else lambda done, total, what: None


def _moments(data: Any) -> tuple[_views.About, Moments]:
    """Return what is known about the views, and their centred moments."""
    if isinstance(data, Moments):
        return _views.About("Moments"), data.centered()
    if isinstance(data, _views.Views):
        return data.about, Moments.from_views(data.x, data.x_plus).centered()
    if not isinstance(data, tuple | list) or len(data) != 2:
        raise TypeError(
            f"data must be pyssl.Moments or two arrays (x, x_plus), got {type(data).__name__}"
        )
    return _views.About("Views"), Moments.from_views(*data).centered()


def _verified(
    data: Any, losses: dict[str, Loss], k: int, g: float, tick: Progress
) -> dict[str, Verification]:
    """Train every loss on the views, or on some of them evenly spread over all."""
    x, x_plus = (data.x, data.x_plus) if isinstance(data, _views.Views) else data
    x, x_plus = np.asarray(x), np.asarray(x_plus)
    some = np.linspace(0, len(x) - 1, min(len(x), _PAIRS_TRAINED)).round().astype(int)
    found = {}
    for step, (name, loss) in enumerate(losses.items(), start=1):
        tick(step, len(losses) + 1, f"training {type(loss).__name__}")
        found[name] = verify_views(loss, x[some], x_plus[some], embedding_dim=k, weight_decay=g)
    return found


def _quietly_classified(land: SpectralLandscape) -> tuple[CollapseReport, list[str]]:
    """Return the report of a landscape, and its threshold warnings as text."""
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        report = classify(land)
    texts = []
    for each in caught:
        if issubclass(each.category, ThresholdWarning):
            texts.append(str(each.message))
        else:
            warnings.warn_explicit(each.message, each.category, each.filename, each.lineno)
    return report, texts
