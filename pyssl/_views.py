"""Where pairs of views come from: the digits that scikit-learn ships, or an .npz file."""

from __future__ import annotations

import zipfile
import zlib
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from pyssl import _checks

__all__ = ["About", "Views", "digits", "read"]

Array = npt.NDArray[Any]

_NAMES = ("x", "x_plus")


@dataclass(frozen=True, eq=False)
class About:
    """What a page says and shows of the views.

    Attributes
    ----------
    title : str
    description : tuple of str
        Paragraphs of plain text.
    image_shape : (int, int) or None
        Of the images that the inputs are.
    gallery : (rows, columns, height, width) ndarray or None
        A few samples and their views.
    gallery_labels : tuple of str
        One for each row.
    gaussian : bool or None
        Whether the views are; None where nobody said.
    """

    title: str
    description: tuple[str, ...] = ()
    image_shape: tuple[int, int] | None = None
    gallery: Array | None = None
    gallery_labels: tuple[str, ...] = ()
    gaussian: bool | None = None


@dataclass(frozen=True, eq=False)
class Views:
    """Pairs of views (n, d), as found: `Moments.from_views` validates them."""

    x: Array
    x_plus: Array
    about: About


def digits(*, draws: int = 4, noise: float = 0.1, seed: int = 0) -> Views:
    """Return augmented views of the 1,797 handwritten digits that scikit-learn ships.

    Parameters
    ----------
    draws : int, optional
        Independent pairs of views for every digit.
    noise : float, optional
        Standard deviation of the noise; pixels lie in [0, 1].
    seed : int, optional

    Returns
    -------
    Views
        With n = 1,797 draws and d = 64.

    Raises
    ------
    ImportError
        Without scikit-learn.

    Examples
    --------
    >>> from pyssl._views import digits
    >>> digits(draws=1).x.shape
    (1797, 64)
    """
    with _checks.needs("the built-in digits need scikit-learn"):
        from sklearn.datasets import load_digits

    images = load_digits().images / 16.0
    clean = np.repeat(images, draws, axis=0)
    rng = np.random.default_rng(seed)
    x, x_plus = (_view(clean, noise, rng) for _ in range(2))
    n, height, width = clean.shape
    # the first of each digit, so that the gallery shows ten different ones
    shown = np.arange(10) * draws
    gallery = np.stack([clean[shown], x[shown], x_plus[shown]])
    description = (
        (
            f"The {len(images):,} handwritten digits that scikit-learn ships, {height} x {width}"
            " pixels between 0 (paper) and 1 (ink)."
        ),
        (
            "A view of a digit is made in three steps: with probability 1/2 the picture moves by"
            " one pixel up, down, left or right (paper moves in at the edge); Gaussian noise of"
            f" standard deviation {noise:g} is added to every pixel; the mean of all pixels is"
            " subtracted, so that brightness carries no information. The two views of a pair are"
            " drawn independently."
        ),
        (
            f"{draws} pairs for every digit make n = {n:,} pairs of d = {height * width} inputs"
            f" (seed {seed}). Pairs of the same digit are not independent, so the sampling noise is"
            f" somewhat larger than n suggests: between that of {len(images):,} and that of {n:,}"
            " independent pairs."
        ),
    )
    about = About(
        "Handwritten digits",
        description,
        (height, width),
        gallery,
        ("the digit", "one view", "the other view"),
        gaussian=False,
    )
    return Views(x.reshape(n, -1), x_plus.reshape(n, -1), about)


def _view(clean: Array, noise: float, rng: np.random.Generator) -> Array:
    """Draw one view of each image (n, height, width)."""
    n, height, width = clean.shape
    steps = np.array([(0, 0), (0, 1), (0, -1), (1, 0), (-1, 0)])
    chosen = 1 + steps[rng.choice(5, size=n, p=[0.5, 0.125, 0.125, 0.125, 0.125])]
    padded = np.pad(clean, ((0, 0), (1, 1), (1, 1)))
    rows = chosen[:, :1] + np.arange(height)
    columns = chosen[:, 1:] + np.arange(width)
    view = padded[np.arange(n)[:, None, None], rows[:, :, None], columns[:, None, :]]
    view += noise * rng.standard_normal(view.shape)
    view -= view.mean(axis=(1, 2), keepdims=True)
    return np.asarray(view)


def read(path: str | Path) -> Views:
    """Read pairs of views from an .npz file with the arrays ``x`` and ``x_plus``.

    Parameters
    ----------
    path : str or Path
        Read without pickle: an object array is refused.

    Returns
    -------
    Views

    Raises
    ------
    ValueError
        Where the file is missing, is no .npz file, or lacks an array; the message says what was
        found.
    MemoryError
        Where an array does not fit.

    Examples
    --------
    >>> from pyssl._views import read
    >>> read("nowhere.npz")
    Traceback (most recent call last):
        ...
    ValueError: nowhere.npz: no such file
    """
    path = Path(path)
    if path.is_dir():
        raise ValueError(f"{path}: is a folder, not an .npz file")
    try:
        content = np.load(path, allow_pickle=False)
    except FileNotFoundError:
        raise ValueError(f"{path}: no such file") from None
    except PermissionError:
        raise ValueError(f"{path}: no permission to read it") from None
    except (ValueError, EOFError, OSError, zipfile.BadZipFile):
        # NumPy's message suggests allow_pickle=True for any file that it does not know
        raise ValueError(f"{path}: not an .npz file of arrays x and x_plus") from None
    if not isinstance(content, np.lib.npyio.NpzFile):
        raise ValueError(  # a fault of the file, not of the argument's type
            f"{path}: a single array of shape {content.shape}, not an .npz file of arrays x and"
            " x_plus; write it with np.savez(path, x=x, x_plus=x_plus)"
        )
    with content:
        missing = [name for name in _NAMES if name not in content.files]
        if missing:
            found = ", ".join(content.files) or "nothing"
            raise ValueError(f"{path}: no array {' or '.join(missing)}; it holds {found}")
        x, x_plus = (_member(path, content, name) for name in _NAMES)
    return Views(x, x_plus, About(path.name))


def _member(path: Path, content: Any, name: str) -> Array:
    try:
        value = content[name]
    except (ValueError, EOFError, OSError, KeyError, zipfile.BadZipFile, zlib.error) as error:
        if "Object arrays" in str(error):
            raise ValueError(
                f"{path}: {name} is an object array, which is not read because it needs pickle;"
                " save plain numbers"
            ) from None
        raise ValueError(f"{path}: {name} can't be read: {error}") from None
    if not isinstance(value, np.ndarray):
        raise ValueError(f"{path}: {name} is not stored as an array")
    return value
