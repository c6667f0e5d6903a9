// The sums behind contrastive_plane.hpp, compiled once per instruction set (isa.hpp).
//
// One point of the grid per lane: a logit's coefficients are the same for all of them, sums and maxima over a row of
// the matrix need no shuffles, and no pair needs a mask.
#include "contrastive_plane_kernels.hpp"

#include "contrastive_kernels.hpp"
#include "exp2.hpp"
#include "tiles.hpp"

namespace pyssl::PYSSL_ISA {
namespace {

// Independent vectors per step: enough to hide how long one power takes.
constexpr int group = 4;

// Columns that are summed in T before a sum goes on in double.
constexpr Index short_sum = 32;

template <class T>
void pack_strip(const T* const* parts, Index count, Index k, T* strip) {
    for (Index part = 0; part < plane_parts; ++part) {
        pack_rows<tile_rows>(parts[part], count, k, k, strip + part * k * tile_rows);
    }
}

template <class T>
void pack_columns_of(const T* const* parts, Index count, Index k, T* panels) {
    constexpr int C = tile_columns<T>;
    for (Index j = 0; j < plane_columns; j += C) {
        const Index present = smaller(count, j + C) - smaller(count, j);
        for (Index part = 0; part < plane_parts; ++part) {
            pack_rows<C>(parts[part] + smaller(count, j) * k, present, k, k, panels);
            panels += k * C;
        }
    }
}

template <class T>
void quadratics(const T* strip, const T* panels, Index k, const T* x_terms, const T* y_terms, T* out) {
    constexpr int L = lane_count<T>, C = tile_columns<T>;
    constexpr Index factors[plane_monomials][2] = {{0, 0}, {0, 1}, {0, 2}, {1, 1}, {1, 2}, {2, 2}};
    for (Index j = 0; j < plane_columns; j += C, panels += plane_parts * k * C) {
        for (Index p = 0; p < plane_monomials; ++p) {
            const Index a = factors[p][0], b = factors[p][1];
            Tile<T> tile{};
            multiply(tile, strip + a * k * tile_rows, tile_rows, panels + b * k * C, k);
            if (a != b) multiply(tile, strip + b * k * tile_rows, tile_rows, panels + a * k * C, k);
            for (int r = 0; r < tile_rows; ++r) {
                for (int c = 0; c < tile_vectors; ++c) {
                    const Lanes<T> terms = x_terms[p * tile_rows + r] + load(y_terms + p * plane_columns + j + c * L);
                    store(out + (r * plane_monomials + p) * plane_columns + j + c * L, tile.x[r][c] + terms);
                }
            }
        }
    }
}

// The quadratic in v that is left of one in (u, v) at one u, for each column.
template <class T>
struct Line {
    alignas(64) T constant[plane_columns], linear[plane_columns];
    const T* square;  // (plane_columns,)

    PYSSL_INLINE void fold(const T* q, T u) {  // (6, plane_columns)
        for (Index j = 0; j < plane_columns; j += lane_count<T>) {
            const auto at = [=](Index p) PYSSL_LAMBDA { return load(q + p * plane_columns + j); };
            store(constant + j, at(0) + u * (at(1) + u * at(3)));
            store(linear + j, at(2) + u * at(4));
        }
        square = q + 5 * plane_columns;
    }
    PYSSL_INLINE Lanes<T> operator()(Index j, Lanes<T> v) const {
        return constant[j] + v * (linear[j] + v * square[j]);
    }
};

template <int V, class T>
PYSSL_INLINE void sum_group(const Line<T>& line, Index count, Index skip,
                            const T* v,    // (V lanes,)
                            T* top,        // (V lanes,)
                            double* sum) {  // (V lanes,)
    constexpr int L = lane_count<T>;
    const Index ends[2][2] = {{0, smaller(skip, count)}, {skip + 1, count}};
    Lanes<T> at[V], highest[V];
#pragma GCC unroll 8
    for (int c = 0; c < V; ++c) {
        at[c] = load(v + c * L);
        highest[c] = load(top + c * L);
    }
    for (const auto& range : ends) {
        for (Index j = range[0]; j < range[1]; ++j) {
#pragma GCC unroll 8
            for (int c = 0; c < V; ++c) {
                const Lanes<T> x = line(j, at[c]);
                highest[c] = x > highest[c] ? x : highest[c];
            }
        }
    }
    DoubleSum<T> sums[V];
#pragma GCC unroll 8
    for (int c = 0; c < V; ++c) {
        alignas(64) T scale[L];
        store(scale, exp2<T>(load(top + c * L) - highest[c]));
        for (int l = 0; l < L; ++l) sum[c * L + l] *= static_cast<double>(scale[l]);
        sums[c].set(sum + c * L);
        store(top + c * L, highest[c]);
    }
    for (const auto& range : ends) {
        for (Index first = range[0]; first < range[1]; first += short_sum) {
            const Index last = smaller(first + short_sum, range[1]);
            Lanes<T> partial[V]{};
            for (Index j = first; j < last; ++j) {
#pragma GCC unroll 8
                for (int c = 0; c < V; ++c) partial[c] += exp2<T>(line(j, at[c]) - highest[c]);
            }
#pragma GCC unroll 8
            for (int c = 0; c < V; ++c) sums[c].add(partial[c]);
        }
    }
#pragma GCC unroll 8
    for (int c = 0; c < V; ++c) sums[c].get(sum + c * L);
}

template <class T>
void sum_row(const T* quadratics, Index count, Index skip, const PlaneAxes<T>& axes, T* top, double* sum) {
    constexpr int L = lane_count<T>;
    Line<T> line;
    for (Index a = 0; a < axes.u_count; ++a) {
        line.fold(quadratics, axes.u[a]);
        for (Index b = 0; b < axes.v_count; b += group * L) {
            with_constant<group>(smaller(group, (axes.v_count - b) / L), [&](auto vectors) PYSSL_LAMBDA {
                sum_group<decltype(vectors)::value>(line, count, skip, axes.v + b, top + b, sum + b);
            });
        }
        top += axes.v_count;
        sum += axes.v_count;
    }
}

template <class T>
void excess(const T* top, const double* sum, const double* p, const PlaneAxes<double>& axes, double* whole,
            double* rest) {
    constexpr int L = lane_count<double>;
    for (Index a = 0; a < axes.u_count; ++a) {
        const double u = axes.u[a];
        const double constant = p[0] + u * (p[1] + u * p[3]), linear = p[2] + u * p[4], square = p[5];
        for (Index b = 0; b < axes.v_count; b += L) {
            const Index e = a * axes.v_count + b;
            const Lanes<double> v = load(axes.v + b), zero{}, s = load(sum + e);
            const Lanes<double> gap = DoubleSum<T>::wide(top + e) - (constant + v * (linear + v * square));
            const Lanes<double> below = gap > zero ? -gap : gap;
            const Lanes<double> power = below < Exp2<double>::lowest ? zero : exp2<double>(below);
            store(whole + e, gap > zero ? gap : zero);
            store(rest + e, gap > zero ? power + (s - 1.0) : power * s);
        }
    }
}

}  // namespace

#define PYSSL_DEFINE(T)                                                                                      \
    extern const PlaneKernels<T> plane_##T;                                                                  \
    const PlaneKernels<T> plane_##T{tile_rows,     lane_count<T>, pack_strip<T>, pack_columns_of<T>, \
                                    quadratics<T>, sum_row<T>,    excess<T>};
PYSSL_DEFINE(float)
PYSSL_DEFINE(double)
#undef PYSSL_DEFINE

}  // namespace pyssl::PYSSL_ISA
