"""Functions of W on a plane W0 + u D1 + v D2, from products of the three (theory 2.8)."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt

Floats = npt.NDArray[Any]

# The monomials u^i v^j of what is quadratic in W, and which two of (W0, D1, D2) make each.
_EXPONENTS = [(0, 0), (1, 0), (0, 1), (2, 0), (1, 1), (0, 2)]
_PAIRS = [(0, 0), (0, 1), (0, 2), (1, 1), (1, 2), (2, 2)]


def quadratic(products: Floats) -> Floats:
    """Return the coefficients (6, ...) of a quadratic form from its products (3, 3, ...)."""
    return np.stack(
        [products[a, b] if a == b else products[a, b] + products[b, a] for a, b in _PAIRS]
    )


def gram(scaled: Floats, stack: Floats) -> Floats:
    """Return the coefficients (6, k, k) of W M W', from the stacks (3, k, d) of W M and of W."""
    return quadratic(np.einsum("aij,blj->abil", scaled, stack, optimize=True))


def trace(scaled: Floats, stack: Floats) -> Floats:
    """Return the coefficients (6,) of Tr[W M W'], from the stacks (3, k, d) of W M and of W."""
    return quadratic(np.einsum("aij,bij->ab", scaled, stack))


def monomials(u: float, v: Floats) -> Floats:
    """Return the monomials (n, 6) on a line of the grid, of one u and every v (n,)."""
    return np.stack([u**i * v**j for i, j in _EXPONENTS], axis=1)


def polynomial(second: Floats, fourth: Floats | None, u: Floats, v: Floats) -> Floats:
    """Evaluate a polynomial of degree 4 on a grid (m, n), at a few flops a point.

    `second` (6,) are coefficients of monomials, `fourth` (6, 6) of products of two of them.
    """
    coefficients = np.zeros((5, 5))
    for p, (i, j) in enumerate(_EXPONENTS):
        coefficients[i, j] += second[p]
        if fourth is not None:
            for q, (a, b) in enumerate(_EXPONENTS):
                coefficients[i + a, j + b] += fourth[p, q]
    return np.asarray(
        np.vander(u, 5, increasing=True) @ coefficients @ np.vander(v, 5, increasing=True).T
    )
