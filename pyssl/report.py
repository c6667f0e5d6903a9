"""The main job: views in, one self-contained HTML page out, on what each loss keeps and loses.

``pyssl report`` is this module behind a command line. Pages need Matplotlib, the built-in digits
scikit-learn: ``python -m pip install "pyssl-landscapes[app]"``.
"""

from __future__ import annotations

import math
import os
import warnings
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, fields, replace
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from pyssl import _advice, _checks, _page, _views
from pyssl._checks import ThresholdWarning
from pyssl.collapse import CollapseReport, classify
from pyssl.losses import LOSSES, Loss
from pyssl.moments import Moments
from pyssl.spectral import SpectralLandscape

__all__ = ["Report", "as_dict", "build", "closed_form", "named_losses", "save"]

EMBEDDING_DIM = 12
TEMPERATURE = 1.0
# On the digits this decay shows every cause at once; on other data its meaning depends on their
# scale, so there the default is none.
DIGITS_WEIGHT_DECAY = 0.1

Progress = Callable[[int, int, str], None]

# The settings that have a spectral closed form, where they are not a loss's own defaults.
_SETTINGS: dict[str, dict[str, Any]] = {
    "barlow_twins": {"normalize": False, "redundancy": 1.0},
    "squared_vicreg": {"invariance": 2.0},
}
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
        " 1 its modes would be those of the spectral contrastive loss; 2 shows what more costs."
    ),
}


@dataclass(frozen=True, eq=False)
class Report:
    """What each loss keeps and loses, and the page that says so.

    Attributes
    ----------
    html : str
        One self-contained page.
    reports : dict of str to CollapseReport
        For each loss with a closed form, by name.
    missing : dict of str to str
        For each loss without one, the reason.

    Examples
    --------
    >>> import numpy as np, pyssl
    >>> moments = pyssl.Moments(np.eye(3), np.diag([0.9, 0.5, 0.1]))
    >>> report = pyssl.report.build(moments, losses=["infonce"], embedding_dim=2)
    >>> report.reports["infonce"].rank
    2
    """

    html: str
    reports: dict[str, CollapseReport]
    missing: dict[str, str]

    def __repr__(self) -> str:
        parts = [f"{name}: {each.rank}/{each.capacity}" for name, each in self.reports.items()]
        return f"Report({', '.join(parts)}; {len(self.html):,} characters of HTML)"


def named_losses(
    names: Iterable[str | Loss] | None = None, temperature: float = TEMPERATURE
) -> dict[str, Loss]:
    """Return losses by name, with the settings that have a spectral closed form.

    Parameters
    ----------
    names : iterable of str or Loss, optional
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
        Where this version has neither in closed form, with the reason.
    ValueError, TypeError
        For wrong arguments.

    Examples
    --------
    >>> import numpy as np, pyssl
    >>> moments = pyssl.Moments(np.eye(2), np.diag([0.9, 0.1]))
    >>> pyssl.report.closed_form(pyssl.InfoNCE(), moments, 1, 0.0).eigenvalues
    array([0.9, 0.1])
    """
    why: list[str] = []
    for level in (loss.population, loss.effective):
        try:
            land = level(moments, embedding_dim, weight_decay)
        except NotImplementedError as error:
            why.append(str(error).split(": ", 1)[-1])
            continue
        if isinstance(land, SpectralLandscape):
            return land
        why.append(f"its {level.__name__} landscape is not spectral")
    raise NotImplementedError("; ".join(dict.fromkeys(why)))


def build(
    data: Moments | tuple[npt.ArrayLike, npt.ArrayLike] | _views.Views | None = None,
    *,
    losses: Iterable[str | Loss] | None = None,
    embedding_dim: int = EMBEDDING_DIM,
    weight_decay: float | None = None,
    temperature: float = TEMPERATURE,
    image_shape: tuple[int, int] | None = None,
    title: str | None = None,
    description: Sequence[str] = (),
    progress: Progress | None = None,
) -> Report:
    """Make the page: for each loss the table, the spectrum, the directions, a plane, and why.

    All losses see the same centred moments.

    Parameters
    ----------
    data : Moments or (x, x_plus), optional
        Moments of a pair of views, or the two views (n, d) themselves; the digits that
        scikit-learn ships, augmented, by default.
    losses : iterable of str or Loss, optional
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

    Returns
    -------
    Report
        The page is its ``html``; `save` writes it.

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
    Source: theory 2, 3 and 5.

    Examples
    --------
    >>> import numpy as np, pyssl
    >>> rng = np.random.default_rng(0)
    >>> clean = rng.standard_normal((200, 4))
    >>> x, x_plus = clean + 0.5 * rng.standard_normal((2, 200, 4))
    >>> report = pyssl.report.build((x, x_plus), losses=["infonce"], embedding_dim=2)
    >>> report.html.startswith("<!DOCTYPE html>")
    True
    """
    k = _checks.integer("embedding_dim", embedding_dim, minimum=1)
    chosen = named_losses(losses, temperature)
    if weight_decay is None:
        weight_decay = DIGITS_WEIGHT_DECAY if data is None else 0.0
    g = _checks.real("weight_decay", weight_decay, minimum=0.0)
    tick = progress or (lambda done, total, what: None)
    total = len(chosen) + 1

    tick(0, total, "views")
    about, moments = _moments(_views.digits() if data is None else data)
    if image_shape is None:
        image_shape = about.image_shape
    if image_shape is not None:
        image_shape = _checks.image_shape("image_shape", image_shape, moments.dim)
    lands, missing = _landscapes(chosen, moments, k, g)

    page = _page.Page(
        about=replace(
            about,
            title=about.title if title is None else title,
            description=tuple(description) or about.description,
            image_shape=image_shape,
        ),
        moments=moments,
        embedding_dim=k,
        weight_decay=g,
        built_in=data is None,
        missing={type(chosen[name]).__name__: why for name, why in missing.items()},
    )
    reports = {}
    for step, (name, land) in enumerate(lands.items(), start=1):
        loss = chosen[name]
        tick(step, total, type(loss).__name__)
        reports[name], caught = quietly_classified(land)
        stock = loss == named_losses([name], getattr(loss, "temperature", temperature))[name]
        page.add(
            land,
            reports[name],
            name=type(loss).__name__,
            remark=_REMARKS.get(name, "") if stock else "",
            kept=_advice.kept_and_lost(reports[name]),
            reasons=_advice.reasons(reports[name]),
            changes=_advice.changes(reports[name], loss, moments),
            notes=[*reports[name].notes, *caught],
        )
    html = page.render()
    tick(total, total, "done")
    return Report(html, reports, missing)


def quietly_classified(land: SpectralLandscape) -> tuple[CollapseReport, list[str]]:
    """Return the report of a landscape, and its threshold warnings as text.

    Parameters
    ----------
    land : SpectralLandscape

    Returns
    -------
    CollapseReport
    list of str

    Examples
    --------
    >>> import numpy as np, pyssl
    >>> moments = pyssl.Moments(np.eye(1), 0.5 * np.eye(1))
    >>> land = pyssl.InfoNCE().population(moments, 1, weight_decay=1.0)
    >>> len(pyssl.report.quietly_classified(land)[1])
    1
    """
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always", ThresholdWarning)
        report = classify(land)
    for each in caught:
        if not issubclass(each.category, ThresholdWarning):
            warnings.warn_explicit(each.message, each.category, each.filename, each.lineno)
    return report, [
        str(each.message) for each in caught if issubclass(each.category, ThresholdWarning)
    ]


def as_dict(report: CollapseReport) -> dict[str, Any]:
    """Return a report as plain Python values that strict JSON can hold.

    Parameters
    ----------
    report : CollapseReport

    Returns
    -------
    dict
        With the report's fields; ``modes`` is a list of one dict a mode, with its critical weight
        decay, and ``weights`` (k lists of d) those of the minimum. What does not exist (nan) is
        None, infinities are the strings "Infinity" and "-Infinity".

    Raises
    ------
    TypeError
        For anything but a report.

    Examples
    --------
    >>> import json, numpy as np, pyssl
    >>> moments = pyssl.Moments(np.eye(2), np.diag([0.9, 0.1]))
    >>> report = pyssl.classify(pyssl.InfoNCE().population(moments, 2, weight_decay=0.4))
    >>> json.loads(json.dumps(pyssl.report.as_dict(report), allow_nan=False))["kind"]
    'dimensional'
    """
    _checks.instance("report", report, CollapseReport, "a CollapseReport")
    modes = []
    for index, mode in enumerate(report.modes):
        row = {item.name: getattr(mode, item.name) for item in fields(mode)}
        critical = float(report.critical_weight_decay[index])
        numbers = {name: _json(value) for name, value in row.items() if name != "cause"}
        modes.append(
            {**numbers, "critical_weight_decay": _json(critical), "cause": str(mode.cause)}
        )
    minimum = report.minimum
    return {
        "loss": report.loss,
        "kind": str(report.kind),
        "rank": report.rank,
        "capacity": report.capacity,
        "effective_rank": _json(report.effective_rank),
        "participation_ratio": _json(report.participation_ratio),
        "stable_rank": _json(report.stable_rank),
        "weight_decay": report.weight_decay,
        "n_samples": report.n_samples,
        "within_noise": report.within_noise,
        "value": _json(minimum.value),
        "attained": minimum.attained,
        "bounded": minimum.bounded,
        "modes": modes,
        "weights": [[_json(value) for value in row] for row in minimum.weights.tolist()],
        "notes": list(report.notes),
    }


def save(html: str | Report, path: str | os.PathLike[str]) -> Path:
    """Write a page whole or not at all.

    The page is written beside its target and then takes its place, so that neither an interruption
    nor a full disk leaves half a file.

    Parameters
    ----------
    html : str or Report
    path : path

    Returns
    -------
    Path
        Where it is.

    Raises
    ------
    ValueError
        Where the folder does not exist, or the path is a folder or a device.
    OSError
        Where it can't be written.

    Examples
    --------
    >>> import pathlib, tempfile, pyssl
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     path = pyssl.report.save("<!DOCTYPE html>", pathlib.Path(folder) / "page.html")
    ...     path.read_text()
    '<!DOCTYPE html>'
    """
    text = html.html if isinstance(html, Report) else html
    _checks.instance("html", text, str, "a string or a Report")
    path = writable(path)
    # through a link, so that the link stays and what it points to is replaced
    target = path.resolve()
    draft = target.with_name(f".{target.name}.{os.getpid()}.part")
    stream = open(draft, "x", encoding="utf-8")
    try:
        with stream:
            stream.write(text)
        os.replace(draft, target)
    except BaseException:  # an interruption too
        draft.unlink(missing_ok=True)
        raise
    return path


def writable(path: str | os.PathLike[str]) -> Path:
    """Return `path` if a page could be written there, so that no work is done in vain.

    Parameters
    ----------
    path : path

    Returns
    -------
    Path

    Raises
    ------
    ValueError
        Where the folder does not exist, or the path is a folder or a device.

    Examples
    --------
    >>> import pyssl
    >>> pyssl.report.writable("no/such/folder/page.html")
    Traceback (most recent call last):
        ...
    ValueError: no/such/folder: no such folder to write page.html into
    """
    path = Path(path)
    if not path.parent.is_dir():
        raise ValueError(f"{path.parent}: no such folder to write {path.name} into")
    if path.is_dir():
        raise ValueError(f"{path}: is a folder, not a file to write")
    if path.exists() and not path.is_file():  # replacing a device would destroy it
        raise ValueError(f"{path}: is not a regular file")
    return path


# ---- parts ---------------------------------------------------------------------------------------


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


def _landscapes(
    losses: dict[str, Loss], moments: Moments, k: int, g: float
) -> tuple[dict[str, SpectralLandscape], dict[str, str]]:
    """Return the landscapes of the losses with a closed form, and why the others have none."""
    lands, missing = {}, {}
    for name, loss in losses.items():
        try:
            lands[name] = closed_form(loss, moments, k, g)
        except NotImplementedError as error:
            missing[name] = str(error)
    if not lands:
        each = "; ".join(f"{name}: {why}" for name, why in missing.items())
        raise NotImplementedError(f"no closed form in this version for {each}")
    return lands, missing


def _json(value: float) -> float | str | None:
    if math.isfinite(value):
        return float(value)
    if math.isnan(value):
        return None
    return "Infinity" if value > 0.0 else "-Infinity"
