"""pyssl: the loss landscapes of self-supervised learning, and what collapses on them.

Two views of the data go in; out come landscapes over the weights of a linear model, every
stationary point of them, and a report of the directions each loss keeps, loses, and why.

>>> import numpy as np, pyssl
>>> moments = pyssl.Moments(np.eye(3), np.diag([0.9, 0.5, 0.1]))
>>> land = pyssl.InfoNCE().population(moments, embedding_dim=3, weight_decay=0.4)
>>> pyssl.classify(land).rank
2
"""

from __future__ import annotations

from importlib.util import find_spec
from typing import TYPE_CHECKING, Any

try:
    from pyssl._core import __version__
except ImportError as error:
    raise ImportError(
        "pyssl's compiled extension is not built; run `python -m pip install -e .` in the source"
        f" tree, or import pyssl from another folder ({error})"
    ) from error

from pyssl import pencils
from pyssl._checks import ThresholdWarning
from pyssl._threads import get_num_threads, set_num_threads
from pyssl.angular import AngularNTXentLandscape
from pyssl.classification import classify
from pyssl.collapse import Cause, Collapse, CollapseReport, Mode, ModeTable
from pyssl.deep import DeepLandscape
from pyssl.empirical import EmpiricalLandscape
from pyssl.flow import Flow, FlowOutcome, FlowState, gradient_flow
from pyssl.hinge import VICRegLandscape
from pyssl.landscape import Landscape, ModeLandscape
from pyssl.loss import Loss
from pyssl.losses import (
    LOSSES,
    BarlowTwins,
    InfoNCE,
    NTXent,
    SpectralContrastive,
    SquaredVICReg,
    VICReg,
)
from pyssl.measures import effective_rank, participation_ratio, rankme, stable_rank
from pyssl.moments import MomentAccumulator, Moments
from pyssl.normalized import ConstantEmbedding, NTXentLandscape
from pyssl.numerical import NumericalLandscape
from pyssl.population import BarlowTwinsLandscape, NormalizedBarlowTwinsLandscape
from pyssl.potentials import CustomPotential, InfoNCEPotential, Potential, Quartic
from pyssl.solvers import MinimizeResult, MinimizeState, Outcome, minimize
from pyssl.spectral import SpectralLandscape
from pyssl.stationary import Minimum, Origin, StationaryPoint
from pyssl.sweeps import sweep
from pyssl.verification import Verification, verify
from pyssl.wells import WellTable

if TYPE_CHECKING:
    from pyssl import augment as augment
    from pyssl._retention_table import RetentionTable as RetentionTable
    from pyssl._retention_table import compare_retention as compare_retention
    from pyssl.downstream import DownstreamRisk as DownstreamRisk
    from pyssl.downstream import downstream_risk as downstream_risk
    from pyssl.downstream import downstream_split as downstream_split
    from pyssl.downstream import optimal_ridge as optimal_ridge
    from pyssl.estimator import LinearSSL as LinearSSL
    from pyssl.helpful import CollapseSetting as CollapseSetting
    from pyssl.helpful import HelpfulCollapse as HelpfulCollapse
    from pyssl.helpful import helpful_collapse as helpful_collapse
    from pyssl.imbalance import class_retention as class_retention
    from pyssl.imbalance import critical_prior as critical_prior
    from pyssl.mixture import Mixture as Mixture
    from pyssl.mixture import long_tailed_priors as long_tailed_priors

__all__ = [
    "LOSSES",
    "AngularNTXentLandscape",
    "BarlowTwins",
    "BarlowTwinsLandscape",
    "Cause",
    "Collapse",
    "CollapseReport",
    "CollapseSetting",
    "ConstantEmbedding",
    "CustomPotential",
    "DeepLandscape",
    "DownstreamRisk",
    "EmpiricalLandscape",
    "Flow",
    "FlowOutcome",
    "FlowState",
    "HelpfulCollapse",
    "InfoNCE",
    "InfoNCEPotential",
    "Landscape",
    "LinearSSL",
    "Loss",
    "MinimizeResult",
    "MinimizeState",
    "Minimum",
    "Mixture",
    "Mode",
    "ModeLandscape",
    "ModeTable",
    "MomentAccumulator",
    "Moments",
    "NTXent",
    "NTXentLandscape",
    "NormalizedBarlowTwinsLandscape",
    "NumericalLandscape",
    "Origin",
    "Outcome",
    "Potential",
    "Quartic",
    "RetentionTable",
    "SpectralContrastive",
    "SpectralLandscape",
    "SquaredVICReg",
    "StationaryPoint",
    "ThresholdWarning",
    "VICReg",
    "VICRegLandscape",
    "Verification",
    "WellTable",
    "__version__",
    "class_retention",
    "classify",
    "compare_retention",
    "critical_prior",
    "downstream_risk",
    "downstream_split",
    "effective_rank",
    "get_num_threads",
    "gradient_flow",
    "helpful_collapse",
    "long_tailed_priors",
    "minimize",
    "optimal_ridge",
    "participation_ratio",
    "pencils",
    "rankme",
    "set_num_threads",
    "stable_rank",
    "sweep",
    "verify",
]


def _installed(package: str) -> bool:
    try:
        return find_spec(package) is not None
    except ImportError:  # what an import hook that hides the package raises
        return False


if not _installed("sklearn"):  # `from pyssl import *` works without the optional packages
    __all__.remove("LinearSSL")

# What brings in optional or slow packages loads when it is first used.
_MODULES = "augment", "plots", "report"
_LAZY = {
    "CollapseSetting": "pyssl.helpful",
    "DownstreamRisk": "pyssl.downstream",
    "HelpfulCollapse": "pyssl.helpful",
    "LinearSSL": "pyssl.estimator",
    "Mixture": "pyssl.mixture",
    "RetentionTable": "pyssl._retention_table",
    "class_retention": "pyssl.imbalance",
    "compare_retention": "pyssl._retention_table",
    "critical_prior": "pyssl.imbalance",
    "downstream_risk": "pyssl.downstream",
    "downstream_split": "pyssl.downstream",
    "helpful_collapse": "pyssl.helpful",
    "long_tailed_priors": "pyssl.mixture",
    "optimal_ridge": "pyssl.downstream",
    **{name: f"pyssl.{name}" for name in _MODULES},
}


def __getattr__(name: str) -> Any:
    if name not in _LAZY:
        raise AttributeError(f"module 'pyssl' has no attribute {name!r}")
    import importlib

    module = importlib.import_module(_LAZY[name])
    return module if name in _MODULES else getattr(module, name)


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__, *_MODULES})
