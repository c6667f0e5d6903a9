"""Sweeps as TOML files: what `pyssl sweep` reads (the format is in docs/api/command-line.md)."""

from __future__ import annotations

import dataclasses
import tomllib
from collections.abc import Mapping
from pathlib import Path
from typing import Any, cast

import numpy as np

from pyssl import _checks, _views
from pyssl.loss import Loss
from pyssl.losses import LOSSES
from pyssl.moments import Moments

__all__ = ["read", "synthetic"]

_KEYS = (
    "loss", "moments", "axes", "outputs", "embedding_dim", "weight_decay", "level", "bias",
    "chunk_size",
)  # fmt: skip
_RANGE = ("from", "to", "points", "spacing")
_SYNTHETIC = ("dim", "spectral_exponent", "noise")


def read(path: str | Path) -> dict[str, Any]:
    """Read the arguments of `pyssl.sweep` from a TOML file.

    Parameters
    ----------
    path : str or Path

    Returns
    -------
    dict

    Raises
    ------
    ValueError, TypeError
        For a file or a value that is wrong; the message names the key and what was seen.
    """
    path = Path(path)
    try:
        content = tomllib.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise ValueError(f"{path}: no such file") from None
    except OSError as error:
        raise ValueError(f"{path}: can't be read: {error.strerror}") from None
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise ValueError(f"{path}: is not TOML: {error}") from None
    _known("", content, _KEYS)
    for key in ("loss", "moments", "axes"):
        if key not in content:
            raise ValueError(f"{path}: {key} is missing")
    axes = {
        name: _axis(f"axes.{name}", value)
        for name, value in _table("axes", content["axes"]).items()
    }
    loss = _loss(content["loss"])
    moments = _moments(content["moments"], axes, path.parent)
    rest = {key: content[key] for key in _KEYS[3:] if key in content}
    return {"loss": loss, "moments": moments, "axes": axes, **rest}


def synthetic(*, dim: int, spectral_exponent: float = 1.0, noise: float = 0.1) -> Moments:
    """Return moments of data with a power law: A = diag(j^-exponent), Sigma = A + noise I."""
    spectrum = np.arange(1.0, dim + 1.0) ** -spectral_exponent
    return Moments(np.diag(spectrum + noise), np.diag(spectrum))


def _loss(value: Any) -> Loss:
    settings = {"name": value} if isinstance(value, str) else dict(_table("loss", value))
    if "name" not in settings:
        raise ValueError("loss.name is missing")
    kind = LOSSES[_checks.choice("loss.name", settings.pop("name"), tuple(LOSSES))]
    _known("loss.", settings, tuple(field.name for field in dataclasses.fields(cast(Any, kind))))
    return kind(**settings)


def _moments(value: Any, axes: dict[str, Any], folder: Path) -> Any:
    table = _table("moments", value)
    if "views" in table:
        _known("moments.", table, ("views",))
        _checks.instance("moments.views", table["views"], str, "the path of an .npz file")
        views = _views.read(folder / table["views"])
        return Moments.from_views(views.x, views.x_plus).centered()
    _known("moments.", table, ("views", *_SYNTHETIC))
    if "dim" not in table:
        raise ValueError("moments must have views, the path of an .npz file, or dim")
    settings: dict[str, Any] = {
        "dim": _checks.integer("moments.dim", table["dim"], minimum=1),
        **{
            key: _checks.real(f"moments.{key}", item, minimum=0.0)
            for key, item in table.items()
            if key != "dim"
        },
    }
    swept = [name for name in _SYNTHETIC[1:] if name in axes]
    for name in swept:
        if name in settings:
            raise ValueError(f"moments.{name} = {settings[name]:g} is an axis too: give it once")
        for item in _checks.array(f"axes.{name}", axes[name], ndim=1):
            _checks.real(f"axes.{name}", float(item), minimum=0.0)
    if not swept:
        return synthetic(**settings)
    return lambda **point: synthetic(**settings, **_known("axes.", point, _SYNTHETIC[1:]))


def _axis(key: str, value: Any) -> Any:
    """Return the values of an axis: a list, or a table with from, to, points and spacing."""
    if isinstance(value, list):
        for item in value:
            if isinstance(item, bool) or not isinstance(item, int | float):
                raise TypeError(f"{key} must hold numbers, got {item!r}")
        if not value:
            raise ValueError(f"{key} must have at least one value, got []")
        return value
    if not isinstance(value, dict):
        raise TypeError(f"{key} must be a list or a table with from, to and points, got {value!r}")
    _known(f"{key}.", value, _RANGE)
    for name in _RANGE[:3]:
        if name not in value:
            raise ValueError(f"{key}.{name} is missing")
    first, last = (_checks.real(f"{key}.{name}", value[name]) for name in ("from", "to"))
    count = _checks.integer(f"{key}.points", value["points"], minimum=1)
    spacing = _checks.choice(f"{key}.spacing", value.get("spacing", "linear"), ("linear", "log"))
    if spacing == "linear":
        return np.linspace(first, last, count)
    for name, end in (("from", first), ("to", last)):
        _checks.real(f"{key}.{name}", end, minimum=0.0, open_minimum=True)
    return np.geomspace(first, last, count)


def _table(key: str, value: Any) -> Mapping[str, Any]:
    if not isinstance(value, dict):
        raise TypeError(f"{key} must be a table, got {value!r}")
    return value


def _known(prefix: str, table: Mapping[str, Any], keys: tuple[str, ...]) -> Mapping[str, Any]:
    for key, value in table.items():
        if key not in keys:
            raise ValueError(f"{prefix}{key} = {value!r} is unknown; known are {', '.join(keys)}")
    return table
