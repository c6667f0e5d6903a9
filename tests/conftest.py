"""What all tests share: no display, and no randomness that differs between runs."""

from __future__ import annotations

import os

import numpy as np
import pytest
from hypothesis import settings

os.environ.setdefault("MPLBACKEND", "Agg")

settings.register_profile("pyssl", derandomize=True, deadline=None)
settings.load_profile("pyssl")


@pytest.fixture
def rng() -> np.random.Generator:
    return np.random.default_rng(20221001)
