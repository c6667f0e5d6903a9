// What the kernels of contrastive_plane.hpp compiled once per instruction set (isa.hpp) and the code that calls them
// agree on.
#pragma once

#include "views.hpp"

namespace pyssl {

// The monomials 1, u, v, u^2, u v, v^2, in this order wherever a quadratic in (u, v) has its coefficients.
constexpr Index plane_monomials = 6;

// What moves along a plane: at its origin, and along both directions.
constexpr Index plane_parts = 3;

// Columns of the logit matrix per block; every tile size divides it.
constexpr Index plane_columns = 192;

// The points of a grid: every u with every v.
template <class T>
struct PlaneAxes {
    const T* u;
    Index u_count;
    const T* v;  // padded to a multiple of `lanes` of the kernels
    Index v_count;

    Index points() const { return u_count * v_count; }
};

template <class T>
struct PlaneKernels {
    Index strip;  // rows of the logit matrix that are packed together
    Index lanes;
    void (*pack_strip)(const T* const* parts,         // (3,) of (count, k)
                       Index count, Index k, T* strip);  // (3, k, strip)
    void (*pack_columns)(const T* const* parts,           // (3,) of (count, k)
                         Index count, Index k, T* panels);  // (plane_columns / tile, 3, k, tile)
    // The coefficients of x_i.y_j + x_term_i + y_term_j, which is a quadratic in (u, v) for each pair.
    void (*quadratics)(const T* strip, const T* panels, Index k,
                       const T* x_terms,  // (6, strip)
                       const T* y_terms,  // (6, plane_columns)
                       T* out);           // (strip, 6, plane_columns)
    // Adds 2^(logit - top) over the first `count` columns but `skip` to a row's sums at every point of a grid, and keeps
    // the largest logit so far in `top`: log-sum-exps in the making.
    void (*sum)(const T* quadratics,  // (6, plane_columns)
                Index count, Index skip, const PlaneAxes<T>& axes,
                T* top,      // (points,)
                double* sum  // (points,)
    );
    // log2(1 + 2^(log-sum-exp - positive)) = whole + log2(1 + rest) at every point of a grid, digits of a small one kept:
    // whole >= 0, 0 <= rest <= the number of columns.
    void (*excess)(const T* top,             // (points,)
                   const double* sum,        // (points,)
                   const double* positives,  // (6,)
                   const PlaneAxes<double>& axes,
                   double* whole,  // (points,)
                   double* rest    // (points,)
    );
};

}  // namespace pyssl
