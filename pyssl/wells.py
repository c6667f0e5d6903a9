"""The wells of a deep linear model, one a mode: where they are, how deep, and behind which barrier.

Along a mode a deep model has the landscape f = r(n) - lambda n + c n^(1/D) of its amplitude n,
c = (g/2) D sigma^(-1/D) (theory 9). Its stationary points have r'(n) = theta lambda with theta in
(0, 1): the decay at which n is one, 2 sigma^(1/D) n^(1 - 1/D) (1 - theta) lambda, rises from 0 to a
maximum and falls to 0 again, so that below the maximum there are two, a barrier and a well.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from pyssl._pencil import Array
from pyssl._tables import ROWS_PRINTED, table_of_modes
from pyssl.potentials import Potential, Quartic

__all__ = ["ModeWells", "WellTable"]

# theta = 1/(1 + exp(-u)) keeps its digits at both ends; beyond these u amplitudes leave float64.
_LOWEST, _HIGHEST = -690.0, 575.0
# Halvings that take an interval of that length below one rounding of theta or 1 - theta.
_HALVINGS = 64
# Where the maximum of the decay is looked for, and other maxima beside it.
_GRID = np.linspace(-40.0, 40.0, 641)


@dataclass(frozen=True, eq=False, repr=False)
class WellTable:
    """The well of every mode of a deep linear model. Prints as a table.

    A state with the product W of the layers along a mode, at the singular value s, has the value
    f(s) beside the origin. nan stands where there is no well.

    Attributes
    ----------
    exists : (d,) ndarray of bool
        Whether the mode has a well: a minimum of f away from s = 0.
    is_global : (d,) ndarray of bool
        Whether it lies below the origin.
    learned : (d,) ndarray of bool
        Whether it is part of the global minimum, which has room for the k lowest.
    singular_value, amplitude, value : (d,) ndarray
        s at the well, n = sigma s^2 there, and f.
    barrier_singular_value, barrier_amplitude, barrier_height : (d,) ndarray
        The same at the maximum of f between the origin and the well.
    existence_decay : (d,) ndarray
        From this weight decay on there is no well.
    critical_weight_decay : (d,) ndarray
        From this weight decay on the well does not lie below the origin.
    weight_decay : float
    depth : int

    Notes
    -----
    Source: theory 9. Modes come by ascending value, those without a well last, by descending
    critical decay.

    Examples
    --------
    >>> import numpy as np, pyssl
    >>> moments = pyssl.Moments(np.eye(2), np.diag([0.9, 0.4]))
    >>> land = pyssl.SpectralContrastive().population(moments, 2, weight_decay=0.3, depth=2)
    >>> land.wells()
    depth 2, weight decay 0.3: 1 well learned
      mode       s  amplitude    value  barrier at   height  exists below  global below  state
         1  0.9039      0.817  -0.5319     0.08399  0.01255         1.315        0.9295  learned
         2     0.5       0.25   0.0125       0.211  0.02967        0.3895        0.2754  metastable
    """

    exists: npt.NDArray[np.bool_]
    is_global: npt.NDArray[np.bool_]
    learned: npt.NDArray[np.bool_]
    singular_value: Array
    amplitude: Array
    value: Array
    barrier_singular_value: Array
    barrier_amplitude: Array
    barrier_height: Array
    existence_decay: Array
    critical_weight_decay: Array
    weight_decay: float
    depth: int

    def __len__(self) -> int:
        return len(self.exists)

    @property
    def metastable(self) -> npt.NDArray[np.bool_]:
        """Which wells exist without lying below the origin, (d,)."""
        return np.asarray(self.exists & ~self.is_global)

    def __repr__(self) -> str:
        count = int(np.count_nonzero(self.learned))
        title = (
            f"depth {self.depth}, weight decay {self.weight_decay:g}:"
            f" {count} {'well' if count == 1 else 'wells'} learned"
        )
        columns = {
            "s": self.singular_value,
            "amplitude": self.amplitude,
            "value": self.value,
            "barrier at": self.barrier_singular_value,
            "height": self.barrier_height,
            "exists below": self.existence_decay,
            "global below": self.critical_weight_decay,
        }
        lines = [title, *table_of_modes(columns, ("state", self._state))]
        if len(self) > ROWS_PRINTED:
            lines.append(f"  ... and {len(self) - ROWS_PRINTED} more")
        return "\n".join(lines)

    def _state(self, row: int) -> str:
        if self.learned[row]:
            return "learned"
        if self.is_global[row]:
            return "no room"
        return "metastable" if self.exists[row] else "no well"


@dataclass(frozen=True, eq=False)
class ModeWells:
    """Wells, barriers and critical decays of modes with lambda > 0, (m,) each.

    Attributes
    ----------
    amplitude, value : at the well; nan where there is none, inf and -inf where it diverges.
    barrier_amplitude, barrier_height : nan where there is no well.
    existence, critical : the decays from which on there is no well, and no well below the origin.
    """

    amplitude: Array
    value: Array
    barrier_amplitude: Array
    barrier_height: Array
    existence: Array
    critical: Array

    @classmethod
    def of(
        cls,
        potential: Potential,
        eigenvalues: Array,
        deficits: Array,
        scales: Array,
        depth: int,
        weight_decay: float,
    ) -> ModeWells:
        """Solve modes with lambda > 0, r'(inf) - lambda >= 0 and sigma > 0 (m,) each.

        Raises NotImplementedError for a potential that gives a mode more than one well.
        """
        along = _Mode(potential, eigenvalues, deficits, scales, depth)
        with np.errstate(all="ignore"):  # ends of the brackets may over- and underflow
            return cls._of(along, weight_decay)

    @classmethod
    def _of(cls, along: _Mode, g: float) -> ModeWells:
        top, even = along.thresholds()
        existence, critical = (np.where(np.isinf(u), np.inf, along.decay(u)) for u in (top, even))
        exists = g < existence
        if g == 0.0:
            barrier, well = np.full(len(top), -np.inf), np.full(len(top), np.inf)
        else:
            lowest, highest = np.full(len(top), _LOWEST), np.full(len(top), _HIGHEST)
            top = np.minimum(top, highest)
            barrier = _bisect(lambda u: along.decay(u) - g, lowest, top)
            well = _bisect(lambda u: g - along.decay(u), top, highest)
            # what lies beyond the last u has an amplitude that float64 does not hold
            well = np.where(g - along.decay(highest) > 0.0, well, np.inf)
        columns = along.amplitude(well), along.value(well), along.amplitude(barrier)
        n, value, barrier_n = (np.where(exists, column, np.nan) for column in columns)
        height = np.where(exists, along.value(barrier), np.nan)
        return cls(n, value, barrier_n, height, existence, critical)


@dataclass(frozen=True, eq=False)
class _Mode:
    """f along modes, as functions of u: theta = 1/(1 + exp(-u)) is r'(n)/lambda."""

    potential: Potential
    eigenvalues: Array
    deficits: Array
    scales: Array
    depth: int

    def _at(self, u: Array) -> tuple[Array, Array, Array, Array]:
        """Return n, r'(n), r'(inf) - r'(n), and lambda - r'(n), none by subtraction."""
        share = 1.0 / (1.0 + np.exp(u))
        slope, drive = self.eigenvalues / (1.0 + np.exp(-u)), self.eigenvalues * share
        deficit = self.deficits + drive
        n = self.potential.amplitude(slope, deficit)
        return np.where(deficit > 0.0, n, np.inf), slope, deficit, drive

    def amplitude(self, u: Array) -> Array:
        return self._at(u)[0]

    def decay(self, u: Array) -> Array:
        """Return the weight decay at which the amplitude is stationary."""
        n, _, _, drive = self._at(u)
        power = 1.0 / self.depth
        return np.asarray(2.0 * drive * self.scales**power * n ** (1.0 - power))

    def value(self, u: Array) -> Array:
        """Return f where it is stationary: r - r' n + (D - 1)(lambda - r') n."""
        n, slope, deficit, drive = self._at(u)
        finite = np.isfinite(n)
        n = np.where(finite, n, 1.0)
        value = self.potential.gain(n, slope, deficit) + (self.depth - 1.0) * drive * n
        return np.where(finite, value, self.potential.asymptote)

    def thresholds(self) -> tuple[Array, Array]:
        """Return the u at which the well disappears, and at which it is level with the origin.

        u = inf for a decay that grows with the amplitude for ever, which no weight decay stops.
        """
        power = 1.0 / self.depth
        if isinstance(self.potential, Quartic):  # theta = (1 - p)/(2 - p), and twice that
            odds = np.full((2, len(self.scales)), [[1.0 - power], [2.0 / power - 2.0]])
            return np.log(odds[0]), np.log(odds[1])

        def rising(u: Array) -> Array:
            n, _, _, drive = self._at(u)
            return (1.0 - power) * drive - n * self.potential.curvature(n)

        falls = ~(rising(_GRID[:, None]) > 0.0)
        turns = np.count_nonzero(np.diff(falls, axis=0), axis=0)
        if (turns > 1).any():
            raise NotImplementedError(
                "the potential gives a mode of the deep model more than one well:"
                " n^(1 - 1/depth) (lambda - r'(n)) has several maxima at lambda ="
                f" {self.eigenvalues[turns > 1][0]:g}"
            )
        first = np.where(falls.any(axis=0), falls.argmax(axis=0), len(_GRID) - 1)
        top = _bisect(lambda u: -rising(u), _GRID[np.maximum(first - 1, 0)], _GRID[first])
        even = _bisect(lambda u: -self.value(u), top, np.full(len(top), _HIGHEST))
        endless = ~falls.any(axis=0)
        return np.where(endless, np.inf, top), np.where(endless, np.inf, even)


def _bisect(function: Callable[[Array], Array], low: Array, high: Array) -> Array:
    """Return where a function that is negative at `low` and positive at `high` crosses zero."""
    for _ in range(_HALVINGS):
        middle = 0.5 * (low + high)
        below = function(middle) < 0.0
        low, high = np.where(below, middle, low), np.where(below, high, middle)
    return 0.5 * (low + high)
