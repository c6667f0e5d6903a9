// The tiles behind contrastive.hpp, compiled once per instruction set (isa.hpp).
#include "contrastive_kernels.hpp"
#include "exp2.hpp"
#include "tiles.hpp"

namespace pyssl::PYSSL_ISA {
namespace {

// Logits: both operands come from the same packed panels, of which the rows of a tile are a slice; so its rows must
// divide its columns. Gradients: the weights are taken from where they are, and any shape will do.
constexpr int logit_rows = PYSSL_VECTOR_BYTES == 64 ? 8 : 4;
constexpr int logit_vectors = PYSSL_VECTOR_BYTES == 16 ? 2 : 3;

template <class T>
constexpr int unit = logit_vectors * lane_count<T>;

template <class T>
using LogitTile = Tile<T, logit_rows, logit_vectors>;

// How many of the rows (or columns) of a block that begins at `start` there is something to do for: a multiple of `unit`,
// and so of every other size of a tile. Between the end of the matrix and there is padding: rows of zeros, and weights 0.
// What lies behind is not touched.
template <class T>
PYSSL_INLINE Index extent(Index total, Index start) {
    static_assert(unit<T> % logit_rows == 0 && unit<T> % tile_rows == 0 && unit<T> % lane_count<T> == 0);
    return smaller(contrastive_block, round_up(total - start, unit<T>));
}

template <class T>
PYSSL_INLINE Index height_of(const LogitBlock<T>& block) {
    return extent<T>(block.rows, block.i0);
}

template <class T>
PYSSL_INLINE Index width_of(const LogitBlock<T>& block) {
    return extent<T>(block.columns, block.j0);
}

template <class T>
void pack_block_panels(const T* source, Index n, Index k, Index block, T* panels) {
    const Index height = extent<T>(n, block * contrastive_block);
    for (Index i = 0; i < height; i += unit<T>) {
        const Index row = block * contrastive_block + i;
        pack_rows<unit<T>>(source + row * k, n - row, k, k, panels + i * k);
    }
}

template <class T>
void pack_block_columns(const T* source, Index n, Index k, Index block, T* panels) {
    const Index row = block * contrastive_block, present = smaller(contrastive_block, n - row);
    const Index height = extent<T>(n, row), padded = round_up(k, tile_columns<T>);
    for (Index j = 0; j < padded; j += tile_columns<T>) {
        T* panel = panels + j * contrastive_block;
        pack_columns<tile_columns<T>>(source + row * k + j, smaller(k - j, tile_columns<T>), present, k, panel);
        for (Index e = present * tile_columns<T>; e < height * tile_columns<T>; ++e) panel[e] = T(0);
    }
}

// Whether all pairs of `height` rows from i and `width` columns from j of a block are negatives.
template <class T>
PYSSL_INLINE bool is_plain(const LogitBlock<T>& block, Index i, Index j, Index height, Index width) {
    const Index row = block.i0 + i, column = block.j0 + j;
    if (row + height > block.rows || column + width > block.columns) return false;
    // row - column takes all values from the lowest on: is a multiple of the period among them?
    const Index lowest = row - column - width + 1;
    const Index remainder = ((lowest % block.period) + block.period) % block.period;
    return remainder != 0 && remainder + height + width - 2 < block.period;
}

template <class T>
PYSSL_INLINE bool is_plain(const LogitBlock<T>& block) {
    return is_plain(block, 0, 0, contrastive_block, contrastive_block);
}

template <class T>
PYSSL_INLINE LogitTile<T> logits(const LogitBlock<T>& block, Index i, Index j) {
    LogitTile<T> tile{};
    const Index panel = i / unit<T>;
    multiply(tile, block.x_panels + panel * unit<T> * block.k + (i - panel * unit<T>), unit<T>,
             block.y_panels + j * block.k, block.k);
    return tile;
}

// Puts `nothing` where a tile at (i, j) of the block has no negative.
template <class T>
PYSSL_INLINE void mask(LogitTile<T>& tile, const LogitBlock<T>& block, Index i, Index j, T nothing) {
    constexpr int L = lane_count<T>;
    if (is_plain(block, i, j, logit_rows, unit<T>)) return;
    for (int r = 0; r < logit_rows; ++r) {
        const Index row = block.i0 + i + r;
        for (int v = 0; v < logit_vectors; ++v) {
            for (int l = 0; l < L; ++l) {
                const Index column = block.j0 + j + v * L + l;
                if (row >= block.rows || column >= block.columns || (row - column) % block.period == 0) {
                    tile.x[r][v][l] = nothing;
                }
            }
        }
    }
}

// 2^logit for a tile at (i, j) of the block; 0 for pairs that are no negatives.
template <bool Plain, class T>
PYSSL_INLINE LogitTile<T> powers(const LogitBlock<T>& block, Index i, Index j) {
    LogitTile<T> tile = logits(block, i, j);
#pragma GCC unroll 8
    for (int r = 0; r < logit_rows; ++r) {
#pragma GCC unroll 4
        for (int v = 0; v < logit_vectors; ++v) tile.x[r][v] = exp2<T>(tile.x[r][v]);
    }
    if constexpr (!Plain) mask(tile, block, i, j, T(0));
    return tile;
}

template <class T>
PYSSL_INLINE double total(Lanes<T> x) {
    double sum = 0.0;
    for (int l = 0; l < lane_count<T>; ++l) sum += static_cast<double>(x[l]);
    return sum;
}

// Where weight (i, j) of a block is: they lie in panels of `unit` columns, as the products that read them go through them.
template <class T>
PYSSL_INLINE Index weight_at(Index i, Index j) {
    const Index column = j % unit<T>;
    return (j - column) * contrastive_block + i * unit<T> + column;
}

template <class T>
PYSSL_INLINE void store_tile(const LogitTile<T>& tile, Index i, Index j,
                             T* target) {  // (block / unit, block, unit)
    target += weight_at<T>(i, j);
    for (int r = 0; r < logit_rows; ++r) {
        for (int v = 0; v < logit_vectors; ++v) store(target + r * unit<T> + v * lane_count<T>, tile.x[r][v]);
    }
}

template <bool Plain, bool Columns, bool Kept, class T>
void sum_tiles(const LogitBlock<T>& block, double* row_sums, double* column_sums, T* kept, T* scratch) {
    constexpr int L = lane_count<T>;
    const Index height = height_of(block), width = width_of(block);
    auto* rows = reinterpret_cast<Lanes<T>*>(scratch);  // (block,)
    for (Index i = 0; i < height; ++i) rows[i] = Lanes<T>{};
    for (Index j = 0; j < width; j += unit<T>) {
        Lanes<T> columns[logit_vectors]{};
        for (Index i = 0; i < height; i += logit_rows) {
            const LogitTile<T> tile = powers<Plain>(block, i, j);
            if constexpr (Kept) store_tile(tile, i, j, kept);
#pragma GCC unroll 8
            for (int r = 0; r < logit_rows; ++r) {
                Lanes<T> sum = tile.x[r][0];
#pragma GCC unroll 4
                for (int v = 1; v < logit_vectors; ++v) sum += tile.x[r][v];
                rows[i + r] += sum;
                if constexpr (Columns) {
#pragma GCC unroll 4
                    for (int v = 0; v < logit_vectors; ++v) columns[v] += tile.x[r][v];
                }
            }
        }
        if constexpr (Columns) {
            for (int v = 0; v < logit_vectors; ++v) {
                for (int l = 0; l < L; ++l) column_sums[j + v * L + l] += static_cast<double>(columns[v][l]);
            }
        }
    }
    for (Index i = 0; i < height; ++i) row_sums[i] += total<T>(rows[i]);
}

template <bool Columns, bool Kept, class T>
void sum_either(const LogitBlock<T>& block, double* row_sums, double* column_sums, T* kept, T* scratch) {
    is_plain(block) ? sum_tiles<true, Columns, Kept>(block, row_sums, column_sums, kept, scratch)
                    : sum_tiles<false, Columns, Kept>(block, row_sums, column_sums, kept, scratch);
}

template <class T>
void sum_block(const LogitBlock<T>& block, double* row_sums, double* column_sums, T* scratch) {
    column_sums == nullptr ? sum_either<false, false, T>(block, row_sums, nullptr, nullptr, scratch)
                           : sum_either<true, false, T>(block, row_sums, column_sums, nullptr, scratch);
}

template <class T>
PYSSL_INLINE Lanes<T> larger(Lanes<T> x, Lanes<T> y) {
    return x > y ? x : y;
}

template <class T>
void store_logits(const LogitBlock<T>& block, T* target) {  // (block / unit, block, unit)
    const Index height = height_of(block), width = width_of(block);
    const bool plain = is_plain(block);
    for (Index j = 0; j < width; j += unit<T>) {
        for (Index i = 0; i < height; i += logit_rows) {
            LogitTile<T> tile = logits(block, i, j);
            if (!plain) mask(tile, block, i, j, lowest_logit<T>);
            store_tile(tile, i, j, target);
        }
    }
}

// Adds a row of logits to its log-sum-exp; with Kept, 2^(logit - top) takes the place of the logits. Returns the power of
// two by which what was summed relative to the top before has become smaller.
template <bool Kept, class T>
PYSSL_INLINE T log_sum_row(T* row,  // (width / unit, unit), panels apart
                           Index width, T& top, double& total_sum) {
    constexpr int L = lane_count<T>;
    constexpr Index panel = contrastive_block * unit<T>;
    T* const end = row + width / unit<T> * panel;
    Lanes<T> tops = load(row);
    for (const T* x = row; x < end; x += panel) {
        for (int v = 0; v < logit_vectors; ++v) tops = larger<T>(tops, load(x + v * L));
    }
    T highest = top;
    for (int l = 0; l < L; ++l) highest = tops[l] > highest ? tops[l] : highest;
    Lanes<T> sum{};
    for (T* x = row; x < end; x += panel) {
        for (int v = 0; v < logit_vectors; ++v) {
            const Lanes<T> logit = load(x + v * L);
            const Lanes<T> power = logit > lowest_logit<T> ? exp2<T>(logit - highest) : Lanes<T>{};
            sum += power;
            if constexpr (Kept) store(x + v * L, power);
        }
    }
    const T scale = exp2<T>(Lanes<T>{} + (top - highest))[0];
    total_sum = total_sum * static_cast<double>(scale) + total<T>(sum);
    top = highest;
    return scale;
}

template <class T>
void log_sum_block(const LogitBlock<T>& block, LogSums<T> rows, LogSums<T> columns, T* scratch) {
    constexpr int L = lane_count<T>;
    const Index height = height_of(block), width = width_of(block);
    store_logits(block, scratch);
    if (columns.top != nullptr) {
        const auto at = [=](Index i, Index j) PYSSL_LAMBDA { return load(scratch + weight_at<T>(i, j)); };
        for (Index j = 0; j < width; j += L) {
            const Lanes<T> before = load(columns.top + j);
            Lanes<T> top = before;
            for (Index i = 0; i < height; ++i) top = larger<T>(top, at(i, j));
            Lanes<T> sum{};
            for (Index i = 0; i < height; ++i) {
                const Lanes<T> x = at(i, j);
                sum += x > lowest_logit<T> ? exp2<T>(x - top) : Lanes<T>{};
            }
            const Lanes<T> scale = exp2<T>(before - top);
            for (int l = 0; l < L; ++l) {
                columns.sum[j + l] = columns.sum[j + l] * static_cast<double>(scale[l]) + static_cast<double>(sum[l]);
            }
            store(columns.top + j, top);
        }
    }
    for (Index i = 0; i < height; ++i) {
        log_sum_row<false>(scratch + weight_at<T>(i, 0), width, rows.top[i], rows.sum[i]);
    }
}

template <bool Plain, bool Small, class T>
void weigh_tiles(const LogitBlock<T>& block, const Weights<T>& weights,
                 T* target) {  // (block / unit, block, unit)
    constexpr int L = lane_count<T>;
    const Index height = height_of(block), width = width_of(block);
    for (Index j = 0; j < width; j += unit<T>) {
        Lanes<T> b[logit_vectors], v[logit_vectors];
        for (int c = 0; c < logit_vectors; ++c) {
            b[c] = load(weights.b + j + c * L);
            if constexpr (!Small) v[c] = load(weights.v + j + c * L);
        }
        for (Index i = 0; i < height; i += logit_rows) {
            LogitTile<T> tile = Small ? powers<Plain>(block, i, j) : logits(block, i, j);
#pragma GCC unroll 8
            for (int r = 0; r < logit_rows; ++r) {
                const T a = weights.a[i + r], u = Small ? T(0) : weights.u[i + r];
#pragma GCC unroll 4
                for (int c = 0; c < logit_vectors; ++c) {
                    Lanes<T>& x = tile.x[r][c];
                    if constexpr (Small) {
                        x *= a + b[c];
                    } else {
                        x = a * exp2<T>(x - u) + b[c] * exp2<T>(x - v[c]);
                    }
                }
            }
            if constexpr (!Plain && !Small) mask(tile, block, i, j, T(0));
            store_tile(tile, i, j, target);
        }
    }
}

template <class T>
void transpose_block(const T* source, Index height, Index width,
                     T* target) {  // both (block / unit, block, unit)
    constexpr int L = lane_count<T>;
    for (Index i = 0; i < height; i += L) {
        for (Index j = 0; j < width; j += L) {
            Lanes<T> x[L];
#pragma GCC unroll 16
            for (int l = 0; l < L; ++l) x[l] = load(source + weight_at<T>(i + l, j));
            transpose<T>(x);
#pragma GCC unroll 16
            for (int l = 0; l < L; ++l) store(target + weight_at<T>(j + l, i), x[l]);
        }
    }
}

// gradient += W y for as many columns of y as there are in a panel, with W given by its transpose.
template <class T>
void add_weighted_panel(const T* transposed,  // (block / unit, block, unit)
                        Index height, Index depth,
                        const T* panel,  // (depth, tile_columns), from pack_columns
                        Index padded,
                        T* gradient) {  // (height, tile_columns), rows `padded` apart
    constexpr int L = lane_count<T>;
    for (Index i = 0; i < height; i += tile_rows) {
        Tile<T> tile;
        T* target = gradient + i * padded;
#pragma GCC unroll 16
        for (int r = 0; r < tile_rows; ++r) {
#pragma GCC unroll 4
            for (int v = 0; v < tile_vectors; ++v) tile.x[r][v] = load(target + r * padded + v * L);
        }
        multiply(tile, transposed + weight_at<T>(0, i), unit<T>, panel, depth);
#pragma GCC unroll 16
        for (int r = 0; r < tile_rows; ++r) {
#pragma GCC unroll 4
            for (int v = 0; v < tile_vectors; ++v) store(target + r * padded + v * L, tile.x[r][v]);
        }
    }
}

template <class T>
void add_weighted(const T* transposed, Index height, Index depth,
                  const T* columns,  // from pack_columns
                  Index k,
                  T* gradient) {  // (block, k padded)
    const Index padded = round_up(k, tile_columns<T>);
    for (Index j = 0; j < padded; j += tile_columns<T>) {
        add_weighted_panel(transposed, height, depth, columns + j * contrastive_block, padded, gradient + j);
    }
}

template <class T>
void gradient_block(const LogitBlock<T>& block, const Weights<T>& weights, bool small, const T* x_columns,
                    const T* y_columns, T* x_gradient, T* y_gradient, T* scratch) {
    T* transposed = scratch + weight_area;
    if (is_plain(block)) {
        small ? weigh_tiles<true, true>(block, weights, scratch) : weigh_tiles<true, false>(block, weights, scratch);
    } else {
        small ? weigh_tiles<false, true>(block, weights, scratch) : weigh_tiles<false, false>(block, weights, scratch);
    }
    const Index height = height_of(block), width = width_of(block);
    transpose_block(scratch, height, width, transposed);
    add_weighted(transposed, height, width, y_columns, block.k, x_gradient);
    if (y_gradient != nullptr) add_weighted(scratch, width, height, x_columns, block.k, y_gradient);
}

template <class T>
void attend_block(const LogitBlock<T>& block, bool small, LogSums<T> rows, const T* y_columns, T* powers, T* gradient,
                  T* scratch) {
    constexpr int L = lane_count<T>;
    const Index height = height_of(block), width = width_of(block);
    if (small) {
        sum_either<false, true, T>(block, rows.sum, nullptr, powers, scratch);
    } else {
        store_logits(block, powers);
        const Index padded = round_up(block.k, tile_columns<T>);
        for (Index i = 0; i < height; ++i) {
            const T scale = log_sum_row<true>(powers + weight_at<T>(i, 0), width, rows.top[i], rows.sum[i]);
            if (scale == T(1)) continue;
            T* row = gradient + i * padded;
            for (Index j = 0; j < padded; j += L) store(row + j, load(row + j) * scale);
        }
    }
    transpose_block(powers, height, width, scratch);
    add_weighted(scratch, height, width, y_columns, block.k, gradient);
}

template <class T>
void attend_back_block(const LogitBlock<T>& block, const T* powers, const T* tops, const T* a, const T* u,
                       const T* x_columns, T* gradient, T* scratch) {
    constexpr int L = lane_count<T>, W = tile_columns<T>;
    const Index height = height_of(block), width = width_of(block), padded = round_up(block.k, W);
    T* factors = scratch;  // (block,)
    for (Index i = 0; i < height; i += L) store(factors + i, load(a + i) * exp2<T>(load(tops + i) - load(u + i)));
    T* weighted = scratch + contrastive_block;  // (block, tile_columns)
    // The gradient's panel and a share of the powers of the next call have left this core's caches: asked for now, they
    // are back when it is their turn.
    constexpr Index line = 64 / sizeof(T);
    const Index share = round_up(weight_area / (padded / W), line);
    const T* next = powers + weight_area;
    for (Index j = 0; j < padded; j += W) {
        const T* panel = x_columns + j * contrastive_block;
        for (Index e = 0; e < share; e += line) __builtin_prefetch(next + e, 0, 2);
        next += share;
        for (Index i = 0; i < height; ++i) {
#pragma GCC unroll 4
            for (int v = 0; v < W; v += L) {
                __builtin_prefetch(gradient + i * padded + j + v, 1, 2);
                store(weighted + i * W + v, factors[i] * load(panel + i * W + v));
            }
        }
        add_weighted_panel(powers, width, height, weighted, padded, gradient + j);
    }
}

template <bool Plain, class T>
void sum_tangent_tiles(const LogitBlock<T>& block, const LogitBlock<T>& tangent, const Weights<T>& weights,
                       double* row_sums, double* column_sums, T* scratch) {
    constexpr int L = lane_count<T>;
    const Index height = height_of(block), width = width_of(block);
    auto* rows = reinterpret_cast<Lanes<T>*>(scratch);  // (block,)
    for (Index i = 0; i < height; ++i) rows[i] = Lanes<T>{};
    for (Index j = 0; j < width; j += unit<T>) {
        Lanes<T> v[logit_vectors], columns[logit_vectors]{};
        for (int c = 0; c < logit_vectors; ++c) v[c] = load(weights.v + j + c * L);
        for (Index i = 0; i < height; i += logit_rows) {
            LogitTile<T> tile = logits(block, i, j), slopes = logits(tangent, i, j);
            if constexpr (!Plain) {
                mask(tile, block, i, j, lowest_logit<T>);  // a positive's power may leave the type
                mask(slopes, block, i, j, T(0));
            }
            for (int r = 0; r < logit_rows; ++r) {
                for (int c = 0; c < logit_vectors; ++c) {
                    rows[i + r] += exp2<T>(tile.x[r][c] - weights.u[i + r]) * slopes.x[r][c];
                    columns[c] += exp2<T>(tile.x[r][c] - v[c]) * slopes.x[r][c];
                }
            }
        }
        if (column_sums == nullptr) continue;
        for (int c = 0; c < logit_vectors; ++c) {
            for (int l = 0; l < L; ++l) column_sums[j + c * L + l] += static_cast<double>(columns[c][l]);
        }
    }
    for (Index i = 0; i < height; ++i) row_sums[i] += total<T>(rows[i]);
}

template <class T>
void sum_tangent_block(const LogitBlock<T>& block, const LogitBlock<T>& tangent, const Weights<T>& weights,
                       double* rows, double* columns, T* scratch) {
    is_plain(block) ? sum_tangent_tiles<true>(block, tangent, weights, rows, columns, scratch)
                    : sum_tangent_tiles<false>(block, tangent, weights, rows, columns, scratch);
}

template <class T>
void hvp_block(const LogitBlock<T>& block, const LogitBlock<T>& tangent, const Weights<T>& weights, const T* row_means,
               const T* column_means, const T* x_columns, const T* dx_columns, const T* y_columns, const T* dy_columns,
               T* x_out, T* y_out, T* scratch) {
    constexpr int L = lane_count<T>;
    T *first = scratch, *second = scratch + weight_area;  // p and dp, (block / unit, block, unit)
    const bool plain = is_plain(block);
    const Index height = height_of(block), width = width_of(block);
    for (Index j = 0; j < width; j += unit<T>) {
        Lanes<T> b[logit_vectors], v[logit_vectors], means[logit_vectors];
        for (int c = 0; c < logit_vectors; ++c) {
            b[c] = load(weights.b + j + c * L);
            v[c] = load(weights.v + j + c * L);
            means[c] = load(column_means + j + c * L);
        }
        for (Index i = 0; i < height; i += logit_rows) {
            LogitTile<T> tile = logits(block, i, j), slopes = logits(tangent, i, j);
            for (int r = 0; r < logit_rows; ++r) {
                for (int c = 0; c < logit_vectors; ++c) {
                    Lanes<T>&x = tile.x[r][c], &s = slopes.x[r][c];
                    const Lanes<T> by_row = weights.a[i + r] * exp2<T>(x - weights.u[i + r]);
                    const Lanes<T> by_column = b[c] * exp2<T>(x - v[c]);
                    x = by_row + by_column;
                    s = by_row * (s - row_means[i + r]) + by_column * (s - means[c]);
                }
            }
            if (!plain) {
                mask(tile, block, i, j, T(0));
                mask(slopes, block, i, j, T(0));
            }
            store_tile(tile, i, j, first);
            store_tile(slopes, i, j, second);
        }
    }
    T *first_transposed = scratch + 2 * weight_area, *second_transposed = scratch + 3 * weight_area;
    transpose_block(first, height, width, first_transposed);
    transpose_block(second, height, width, second_transposed);
    add_weighted(second_transposed, height, width, y_columns, block.k, x_out);
    add_weighted(first_transposed, height, width, dy_columns, block.k, x_out);
    if (y_out == nullptr) return;
    add_weighted(second, width, height, x_columns, block.k, y_out);
    add_weighted(first, width, height, dx_columns, block.k, y_out);
}

}  // namespace

#define PYSSL_DEFINE(T)                                                                                               \
    extern const ContrastiveKernels<T> contrastive_##T;                                                               \
    const ContrastiveKernels<T> contrastive_##T{                                                                      \
        tile_columns<T>,   pack_block_panels<T>, pack_block_columns<T>, sum_block<T>,         log_sum_block<T>,       \
        gradient_block<T>, attend_block<T>,      attend_back_block<T>,  sum_tangent_block<T>, hvp_block<T>};
PYSSL_DEFINE(float)
PYSSL_DEFINE(double)
#undef PYSSL_DEFINE

}  // namespace pyssl::PYSSL_ISA
