"""Sweeps on disk: a zarr group that says what it is, and which of its chunks are whole."""

from __future__ import annotations

import hashlib
import json
import os
import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from pyssl import _checks
from pyssl._sweep_plan import OUTPUTS

__all__ = ["STATUS", "Store"]

STATUS = "status"
_MARK = "pyssl_sweep"
_EXTRA = '"pyssl-landscapes[sweep]"'


class Store:
    """One array for each output, chunk by chunk, and an int8 `status` of the chunks.

    The metadata is there first: the group appears under its name complete with it. zarr writes a
    chunk to another file and renames it; the status of a chunk is written after the outputs on it.
    What a killed run leaves is whole chunks, and perhaps outputs of one whose status is still 0:
    they are computed again.

    Parameters
    ----------
    path : where the group is or is to be.
    description : what the results depend on, for JSON.
    """

    def __init__(self, path: str | os.PathLike[str], description: Mapping[str, Any]) -> None:
        self.path = Path(path)
        self.description = json.loads(json.dumps(description))
        self._group: Any = None

    def check(self, resume: bool) -> None:
        """Raise ValueError for a store of another sweep, or one that is not to be resumed."""
        with _checks.needs("sweeps on disk need zarr", _EXTRA):
            import zarr  # noqa: F401

        if not self.path.exists():
            return
        try:
            text = (self.path / "zarr.json").read_text(encoding="utf-8")
            mark = json.loads(text)["attributes"][_MARK]
        except (OSError, ValueError, KeyError, TypeError):
            raise ValueError(f"store {str(self.path)!r} exists and is not a sweep") from None
        if not resume:
            raise ValueError(f"store {str(self.path)!r} exists; resume it, or choose another name")
        if mark["hash"] != _digest(self.description):
            raise ValueError(
                f"store {str(self.path)!r} was made by another sweep:"
                f" {_difference(mark['configuration'], self.description)}"
            )

    def open(
        self,
        shape: tuple[int, ...],
        chunks: tuple[int, ...],
        variables: Mapping[str, tuple[tuple[str, ...], npt.NDArray[Any], Mapping[str, Any]]],
        outputs: Mapping[str, Mapping[str, Any]],
        dims: tuple[str, ...],
        attributes: Mapping[str, Any],
    ) -> None:
        """Create the group, or open the one that the same sweep left.

        Parameters
        ----------
        shape, chunks : of the outputs.
        variables : name -> (dims, values, attributes), written now.
        outputs : name -> attributes, written later.
        dims : of the outputs.
        attributes : of the group.
        """
        import zarr

        if not self.path.exists():
            # under another name until it is complete, so that a store is never half a store
            partial = self.path.with_name(self.path.name + ".creating")
            shutil.rmtree(partial, ignore_errors=True)
            partial.parent.mkdir(parents=True, exist_ok=True)
            mark = {"configuration": self.description, "hash": _digest(self.description)}
            group = zarr.create_group(partial, attributes={**attributes, _MARK: mark})
            for name, (axes, values, told) in variables.items():
                text = values.dtype.kind == "U"  # only strings of any length are specified
                array = group.create_array(
                    name, shape=values.shape, dtype="string" if text else values.dtype,
                    chunks=values.shape, dimension_names=axes, attributes=dict(told),
                )  # fmt: skip
                array[...] = values.astype(object) if text else values
            for name, told in outputs.items():
                dtype, missing, _ = OUTPUTS[name]
                group.create_array(
                    name, shape=shape, chunks=chunks, dtype=dtype, fill_value=missing,
                    dimension_names=dims, attributes=dict(told),
                )  # fmt: skip
            grid = tuple(-(-n // c) for n, c in zip(shape, chunks, strict=True))
            group.create_array(
                STATUS, shape=grid, chunks=(1,) * len(grid), dtype="int8", fill_value=0,
                dimension_names=tuple(f"chunk_{name}" for name in dims),
                attributes={"long_name": "chunks that are complete: 1"},
            )  # fmt: skip
            partial.rename(self.path)
        self._group = zarr.open_group(self.path, mode="r+")
        for left in self.path.rglob("*.partial"):  # what a kill cut short
            left.unlink(missing_ok=True)

    def done(self) -> npt.NDArray[np.bool_]:
        """Return which chunks are complete, in the shape of their grid."""
        complete: npt.NDArray[np.bool_] = self._group[STATUS][...] == 1
        return complete

    def write(
        self, chunk: tuple[int, ...], block: tuple[slice, ...], results: Mapping[str, Any]
    ) -> None:
        """Write the outputs of a chunk, then its status."""
        for name, values in results.items():
            self._group[name][block] = values
        self._group[STATUS][chunk] = np.int8(1)

    def dataset(self) -> Any:
        """Return the whole as an xarray.Dataset that reads what is looked at."""
        import xarray as xr

        found = xr.open_zarr(self.path, chunks=None, consolidated=False)
        del found.attrs[_MARK]
        return found.drop_vars(STATUS)


def _digest(description: Mapping[str, Any]) -> str:
    return hashlib.sha256(json.dumps(description, sort_keys=True).encode()).hexdigest()


def _difference(made: Mapping[str, Any], asked: Mapping[str, Any]) -> str:
    """Say in what two descriptions differ."""
    told = []
    for key in {**made, **asked}:
        if made.get(key) == asked.get(key):
            continue
        if key == "moments":
            told.append("its moments are others")
        elif key == "axes":
            told.append(_difference_of_axes(made.get(key, []), asked.get(key, [])))
        else:
            told.append(f"its {key} is {made.get(key)!r}, not {asked.get(key)!r}")
    return "; ".join(told)


def _difference_of_axes(made: list[Any], asked: list[Any]) -> str:
    names = [[axis[0] for axis in axes] for axes in (made, asked)]
    if names[0] != names[1]:
        return f"its axes are {', '.join(names[0])}, not {', '.join(names[1])}"
    told = [
        f"its axis {name} has {size} value(s), not {wanted}"
        if size != wanted
        else f"its axis {name} has other values, from {first} to {last}, not {begin} to {end}"
        for (name, size, one, first, last), (_, wanted, other, begin, end) in zip(
            made, asked, strict=True
        )
        if one != other
    ]
    return "; ".join(told)
