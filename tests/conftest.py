"""What all tests share: no display, no randomness that differs between runs, one BLAS thread."""

from __future__ import annotations

import os
from collections.abc import Iterator

import numpy as np
import pytest
import scipy.linalg  # noqa: F401  # loads the BLAS that is limited below
from hypothesis import settings
from threadpoolctl import threadpool_limits

os.environ.setdefault("MPLBACKEND", "Agg")

settings.register_profile("pyssl", derandomize=True, deadline=None)
settings.load_profile("pyssl")


@pytest.fixture(scope="session", autouse=True)
def _one_blas_thread() -> Iterator[None]:
    """Keep thousands of tiny products from waiting for threads that share two cores with others."""
    with threadpool_limits(1, user_api="blas"):
        yield


@pytest.fixture
def rng() -> np.random.Generator:
    return np.random.default_rng(20221001)
