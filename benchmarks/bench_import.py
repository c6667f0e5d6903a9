"""What importing costs, each time in a fresh interpreter."""

from __future__ import annotations


def timeraw_import() -> str:
    """Import pyssl and everything it needs."""
    return "import pyssl"


def timeraw_import_requirements() -> str:
    """Import what pyssl needs in any case, for comparison."""
    return "import numpy, scipy.linalg"
