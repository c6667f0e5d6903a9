// The kernels behind gram.hpp, compiled once per instruction set (isa.hpp).
#include "gram_kernels.hpp"
#include "tiles.hpp"

namespace pyssl::PYSSL_ISA {
namespace {

// ---- C = A'B --------------------------------------------------------------------------------------------------------

template <class T>
void pack_columns_scaled(const T* source, Index count, Index k, Index stride, const T* shift, const T* scale,
                         T* panels) {
    constexpr int L = lane_count<T>, width = gram_unit<T>;
    for (Index i = 0; i < count; ++i) {
        const T* row = source + i * stride;
        T* target = panels + i * width;
        Index j = 0;
        for (; j + width <= k; j += width, target += gram_block * width) {
#pragma GCC unroll 4
            for (int v = 0; v < gram_vectors; ++v) {
                const Index c = j + v * L;
                store(target + v * L, (load(row + c) - load(shift + c)) * load(scale + c));
            }
        }
        if (j < k) {
            for (Index c = 0; c < width; ++c) target[c] = j + c < k ? (row[j + c] - shift[j + c]) * scale[j + c] : T(0);
        }
    }
}

template <int V, class T>
PYSSL_INLINE void accumulate_vectors(const T* a, const T* b, Index depth, double* c) {
    constexpr int L = lane_count<T>, width = gram_unit<T>;
    Tile<T, gram_rows, V> tile{};
    for (Index p = 0; p < depth; ++p) {
        Lanes<T> column[V];
#pragma GCC unroll 4
        for (int v = 0; v < V; ++v) column[v] = *reinterpret_cast<const Lanes<T>*>(b + v * L);
#pragma GCC unroll 16
        for (int i = 0; i < gram_rows; ++i) {
#pragma GCC unroll 4
            for (int v = 0; v < V; ++v) tile.x[i][v] += a[i] * column[v];
        }
        a += width;
        b += width;
    }
#pragma GCC unroll 16
    for (int i = 0; i < gram_rows; ++i) {
#pragma GCC unroll 4
        for (int v = 0; v < V; ++v) {
            DoubleSum<T> sum;
            sum.set(c + i * width + v * L);
            sum.add(tile.x[i][v]);
            sum.get(c + i * width + v * L);
        }
    }
}

template <class T>
void accumulate_tile(const T* a, const T* b, Index depth, Index vectors, double* c) {
    with_constant<gram_vectors>(vectors, [&](auto v) PYSSL_LAMBDA {
        accumulate_vectors<decltype(v)::value>(a, b, depth, c);
    });
}

// ---- A M and what is added to it ------------------------------------------------------------------------------------

// Steps of the inner dimension after which a panel of M makes way for the next: 32 KiB with AVX-512.
constexpr Index depth_block = 256;

template <class T>
void pack_left_scaled(const T* source, Index count, Index k, const T* shift, const T* scale, T* panels) {
    constexpr int L = lane_count<T>;
    for (Index i = 0; i < count; i += tile_rows, panels += tile_rows * k) {
        const Index present = smaller(tile_rows, count - i);
        const T* rows = source + i * k;
        Index p = 0;
        if constexpr (L >= tile_rows) {
            for (; p + L <= k; p += L) {
                Lanes<T> x[L];
                const Lanes<T> s = load(shift + p), f = load(scale + p);
#pragma GCC unroll 16
                for (int l = 0; l < L; ++l) {
                    x[l] = l < smaller(present, tile_rows) ? (load(rows + l * k + p) - s) * f : Lanes<T>{};
                }
                transpose<T>(x);
                // the lanes beyond the panel's rows are overwritten by the next store
#pragma GCC unroll 16
                for (int l = 0; l < L; ++l) store(panels + (p + l) * tile_rows, x[l]);
            }
        }
        for (; p < k; ++p) {
            for (Index l = 0; l < tile_rows; ++l) {
                panels[p * tile_rows + l] = l < present ? (rows[l * k + p] - shift[p]) * scale[p] : T(0);
            }
        }
    }
}

template <class T>
void pack_right(const T* matrix, Index k, Index q, T* panels) {
    const Index padded = round_up(q, tile_columns<T>);
    for (Index p = 0; p < k; p += depth_block) {
        pack_columns<tile_columns<T>>(matrix + p * q, q, smaller(depth_block, k - p), q, panels + p * padded);
    }
}

// A tile of the product, or += one. Not inlined: the compiler keeps its sums in registers only if nothing else is near.
template <class T>
__attribute__((noinline)) void multiply_tile(const T* left,   // (depth, tile_rows)
                                             const T* right,  // (depth, tile_columns)
                                             Index depth, bool add,
                                             T* sums) {  // (tile_rows, tile_columns)
    constexpr int L = lane_count<T>;
    Tile<T> tile{};
    multiply(tile, left, tile_rows, right, depth);
#pragma GCC unroll 16
    for (int i = 0; i < tile_rows; ++i) {
#pragma GCC unroll 4
        for (int v = 0; v < tile_vectors; ++v) {
            T* target = sums + i * tile_columns<T> + v * L;
            store(target, add ? load(target) + tile.x[i][v] : tile.x[i][v]);
        }
    }
}

// Rows i0... and columns j... of a product, with everything that is added to them.
template <bool Whole, class T>
void finish(const T* sums,  // (tile_rows, tile_columns)
            Index i0, Index rows, Index j, Index q, const MixTerms<T>& terms, T* out) {
    constexpr int L = lane_count<T>;
    for (int v = 0; v < tile_vectors; ++v) {
        const Index c = j + v * L;
        if (!Whole && c >= q) return;
        const Lanes<T> constant = load(terms.constant + c), first = load(terms.first_factor + c),
                       second = load(terms.second_factor + c), shift = load(terms.shift + c),
                       weight = load(terms.weight + c);
        const auto get = [&](const T* source) PYSSL_LAMBDA {
            if (Whole || c + L <= q) return load(source);
            Lanes<T> x{};
            for (Index l = 0; l < q - c; ++l) x[l] = source[l];
            return x;
        };
        for (Index r = 0; r < (Whole ? tile_rows : smaller(rows, tile_rows)); ++r) {
            const Index at = (i0 + r) * q + c;
            Lanes<T> x = load(sums + r * tile_columns<T> + v * L) + constant;
            if (terms.plus) {
                Lanes<T> y = get(terms.plus + at);
                if (terms.minus) y -= get(terms.minus + at);
                y = (y - shift) * weight;
                x += terms.rows ? y * terms.rows[i0 + r] : y;
            }
            x = x * first * second;
            if (terms.add) x += get(out + at);
            if (Whole || c + L <= q) {
                store(out + at, x);
            } else {
                for (Index l = 0; l < q - c; ++l) out[at + l] = x[l];
            }
        }
    }
}

template <class T>
void mix_rows(const T* left, const T* right, Index count, Index k, Index q, const MixTerms<T>& terms, T* scratch,
              T* out) {
    constexpr int width = tile_columns<T>;
    const Index padded = round_up(q, width);
    for (Index j = 0; j < q; j += width) {
        for (Index p = 0; p < k; p += depth_block) {
            const Index steps = smaller(depth_block, k - p);
            const T* panel = right + p * padded + j * steps;
            for (Index i = 0; i < count; i += tile_rows) {
                T* sums = scratch + i * width;
                if (p + steps == k) {
                    // Rows lie too far apart for the machine to see these reads and writes coming.
                    for (Index r = i; r < smaller(i + tile_rows, count); ++r) {
                        for (Index c = j; c < smaller(j + width, q); c += lane_count<T>) {
                            __builtin_prefetch(out + r * q + c, 1);
                            if (terms.plus) __builtin_prefetch(terms.plus + r * q + c);
                            if (terms.minus) __builtin_prefetch(terms.minus + r * q + c);
                        }
                    }
                }
                multiply_tile(left + i * k + p * tile_rows, panel, steps, p > 0, sums);
                if (p + steps < k) continue;
                if (i + tile_rows <= count && j + width <= q) {
                    finish<true>(sums, i, tile_rows, j, q, terms, out);
                } else {
                    finish<false>(sums, i, count - i, j, q, terms, out);
                }
            }
        }
    }
}

// ---- moments of columns and rows ------------------------------------------------------------------------------------

template <class T, int Rows>
PYSSL_INLINE void add_columns(const T* a, const T* b, Index k, Index c, const ColumnMoments& center,
                              const ColumnMoments& sums) {
    const Lanes<double> mean_a = load(center.a + c), mean_b = load(center.b + c);
    Lanes<double> sum_a = load(sums.a + c), sum_b = load(sums.b + c), aa = load(sums.aa + c), bb = load(sums.bb + c),
                  ab = load(sums.ab + c), difference = load(sums.difference + c);
#pragma GCC unroll 8
    for (int r = 0; r < Rows; ++r) {
        // The same rows of both matrices often lie a power of two apart, and then the machine's own forecast fails.
        __builtin_prefetch(a + (Rows + r) * k + c);
        __builtin_prefetch(b + (Rows + r) * k + c);
        const Lanes<double> x = DoubleSum<T>::wide(a + r * k + c), y = DoubleSum<T>::wide(b + r * k + c);
        const Lanes<double> u = x - mean_a, w = y - mean_b, d = x - y;
        sum_a += u;
        sum_b += w;
        aa += u * u;
        bb += w * w;
        ab += u * w;
        difference += d * d;
    }
    store(sums.a + c, sum_a);
    store(sums.b + c, sum_b);
    store(sums.aa + c, aa);
    store(sums.bb + c, bb);
    store(sums.ab + c, ab);
    store(sums.difference + c, difference);
}

template <class T>
void column_moments(const T* a, const T* b, Index count, Index k, const ColumnMoments& center,
                    const ColumnMoments& sums) {
    // A few rows at a time over all columns: sums in registers, and reads in the order of the memory.
    constexpr int D = lane_count<double>, group = 8;
    const Index whole = k / D * D;
    for (Index i = 0; i < count; i += group) {
        const T *x = a + i * k, *y = b + i * k;
        const Index rows = smaller(group, count - i);
        for (Index c = 0; c < whole; c += D) {
            if (rows == group) {
                add_columns<T, group>(x, y, k, c, center, sums);
            } else {
                for (Index r = 0; r < rows; ++r) add_columns<T, 1>(x + r * k, y + r * k, k, c, center, sums);
            }
        }
        for (Index r = 0; r < rows; ++r) {
            for (Index c = whole; c < k; ++c) {
                const double s = static_cast<double>(x[r * k + c]), t = static_cast<double>(y[r * k + c]);
                const double u = s - center.a[c], w = t - center.b[c];
                sums.a[c] += u;
                sums.b[c] += w;
                sums.aa[c] += u * u;
                sums.bb[c] += w * w;
                sums.ab[c] += u * w;
                sums.difference[c] += (s - t) * (s - t);
            }
        }
    }
}

template <class T>
void row_moments(const T* a, const T* b, Index count, Index k, double* aa, double* ab, double* bb) {
    constexpr int D = lane_count<double>, chains = 4;
    for (Index i = 0; i < count; ++i) {
        const T *x = a + i * k, *y = b + i * k;
        Lanes<double> s[chains]{}, t[chains]{}, u[chains]{};
        Index j = 0;
        for (; j + chains * D <= k; j += chains * D) {
#pragma GCC unroll 4
            for (int c = 0; c < chains; ++c) {
                const Lanes<double> v = DoubleSum<T>::wide(x + j + c * D), w = DoubleSum<T>::wide(y + j + c * D);
                s[c] += v * v;
                t[c] += v * w;
                u[c] += w * w;
            }
        }
        double sums[3]{};
        const Lanes<double> first = (s[0] + s[1]) + (s[2] + s[3]), second = (t[0] + t[1]) + (t[2] + t[3]),
                            third = (u[0] + u[1]) + (u[2] + u[3]);
        for (int l = 0; l < D; ++l) {
            sums[0] += first[l];
            sums[1] += second[l];
            sums[2] += third[l];
        }
        for (; j < k; ++j) {
            const double v = static_cast<double>(x[j]), w = static_cast<double>(y[j]);
            sums[0] += v * v;
            sums[1] += v * w;
            sums[2] += w * w;
        }
        aa[i] = sums[0];
        ab[i] = sums[1];
        bb[i] = sums[2];
    }
}

template <class T>
constexpr GramKernels<T> kernels{gram_unit<T>,
                                 gram_rows,
                                 gram_vectors,
                                 tile_columns<T>,
                                 tile_rows,
                                 pack_columns_scaled<T>,
                                 accumulate_tile<T>,
                                 pack_left_scaled<T>,
                                 pack_right<T>,
                                 mix_rows<T>,
                                 column_moments<T>,
                                 row_moments<T>};

}  // namespace

extern const GramKernels<float> gram_float;
const GramKernels<float> gram_float = kernels<float>;
extern const GramKernels<double> gram_double;
const GramKernels<double> gram_double = kernels<double>;

}  // namespace pyssl::PYSSL_ISA
