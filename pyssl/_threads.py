"""How many threads the kernels use."""

from __future__ import annotations

import os

from pyssl import _checks

__all__ = ["get_num_threads", "set_num_threads"]


def _available() -> int:
    """Return the number of processors this process may run on."""
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


def _from_environment() -> int | None:
    text = os.environ.get("PYSSL_NUM_THREADS")
    if not text:
        return None
    try:
        count = int(text)
    except ValueError:
        raise ValueError(f"PYSSL_NUM_THREADS must be an integer, got {text!r}") from None
    if count < 1:
        raise ValueError(f"PYSSL_NUM_THREADS must be at least 1, got {count}")
    return count


_chosen: int | None = _from_environment()


def set_num_threads(n: int | None) -> None:
    """Set the number of threads that the kernels use.

    Results never depend on it: the same input gives the same bits.

    Parameters
    ----------
    n : int or None
        At least 1; None goes back to the default, all processors that the process may use.

    Raises
    ------
    ValueError
        For ``n < 1``.
    TypeError
        For anything but an integer or None.

    Examples
    --------
    >>> import pyssl
    >>> pyssl.set_num_threads(2)
    >>> pyssl.get_num_threads()
    2
    >>> pyssl.set_num_threads(None)
    """
    global _chosen
    _chosen = None if n is None else _checks.integer("n", n, minimum=1)


def get_num_threads() -> int:
    """Return the number of threads that the kernels use.

    The last `set_num_threads`, else the environment variable PYSSL_NUM_THREADS, else the number
    of processors that the process may run on.

    Returns
    -------
    int

    Examples
    --------
    >>> import pyssl
    >>> pyssl.get_num_threads() >= 1
    True
    """
    return _available() if _chosen is None else _chosen
