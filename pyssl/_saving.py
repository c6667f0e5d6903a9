"""Files that appear whole or not at all."""

from __future__ import annotations

import os
from pathlib import Path

from pyssl import _checks

__all__ = ["save", "writable"]


def save(html: str, path: str | os.PathLike[str]) -> Path:
    """Write a page whole or not at all.

    The page is written beside its target and then takes its place, so that neither an interruption
    nor a full disk leaves half a file.

    Parameters
    ----------
    html : str
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
    _checks.instance("html", html, str, "a string")
    path = writable(path)
    # through a link, so that the link stays and what it points to is replaced
    target = path.resolve()
    draft = target.with_name(f".{target.name}.{os.getpid()}.part")
    stream = draft.open("x", encoding="utf-8")  # where that fails the file is not ours to remove
    try:
        with stream:
            stream.write(html)
        draft.replace(target)
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
