// Dense products from packed panels: the tile of a product that lives in registers.
//
// A panel of rows of A holds, for each step of the inner dimension, `tile_rows` numbers side by side; a panel of
// columns of B holds `tile_columns`. Edges are padded with zeros, so that there is one kernel and no special case.
// Every entry of a product is summed in the same order whatever tile it falls into.
//
// Only for files compiled once per instruction set (isa.hpp).
#pragma once

#include "lanes.hpp"

namespace pyssl::PYSSL_ISA {
namespace {

// As many sums as leave registers for a row of B and a broadcast: 24 of 32 registers with AVX-512, 12 of 16 with AVX2,
// 8 without a fused multiply-add, which needs one more for the product.
constexpr int tile_vectors = 2;
constexpr int tile_rows = PYSSL_VECTOR_BYTES == 64 ? 12 : PYSSL_VECTOR_BYTES == 32 ? 6 : 4;

template <class T>
constexpr int tile_columns = tile_vectors * lane_count<T>;

// The tile of A'B: both operands come from panels of one shape, of which its rows are a slice. So its rows divide its
// columns, and a symmetric product packs its rows once.
constexpr int gram_rows = PYSSL_VECTOR_BYTES == 64 ? 8 : 4;
constexpr int gram_vectors = PYSSL_VECTOR_BYTES == 32 ? 3 : 2;

template <class T>
constexpr int gram_unit = gram_vectors * lane_count<T>;

PYSSL_INLINE Index round_up(Index n, Index unit) { return (n + unit - 1) / unit * unit; }
PYSSL_INLINE Index smaller(Index a, Index b) { return a < b ? a : b; }

// Interleaves `count` rows of a row-major matrix, padded to Width with zeros.
template <int Width, class T>
PYSSL_INLINE void pack_rows(const T* source,  // (count, depth), rows `stride` apart
                            Index count, Index depth, Index stride,
                            T* panel) {  // (depth, Width)
    for (Index i = 0; i < Width; ++i) {
        for (Index p = 0; p < depth; ++p) panel[p * Width + i] = i < count ? source[i * stride + p] : T(0);
    }
}

// Splits rows of a row-major matrix into panels of Width columns, the last padded with zeros. Row by row over all
// panels: column by column, the rows of a matrix whose width is a power of two evict each other from the cache.
template <int Width, class T>
PYSSL_INLINE void pack_columns(const T* source,  // (depth, count), rows `stride` apart
                               Index count, Index depth, Index stride,
                               T* panels) {  // (count rounded up / Width, depth, Width)
    constexpr int L = lane_count<T>;
    for (Index p = 0; p < depth; ++p) {
        const T* row = source + p * stride;
        T* target = panels + p * Width;
        Index j = 0;
        for (; j + Width <= count; j += Width, target += depth * Width) {
#pragma GCC unroll 4
            for (int v = 0; v < Width / L; ++v) store(target + v * L, load(row + j + v * L));
        }
        if (j < count) {
            for (Index c = 0; c < Width; ++c) target[c] = j + c < count ? row[j + c] : T(0);
        }
    }
}

template <class T, int R = tile_rows, int V = tile_vectors>
struct Tile {
    Lanes<T> x[R][V];
};

// tile += A B over `depth` steps of the inner dimension; what A holds for one step lies `stride` behind the one before.
template <class T, int R, int V>
PYSSL_INLINE void multiply(Tile<T, R, V>& tile,
                           const T* a,    // (depth, R), rows `stride` apart
                           Index stride,  //
                           const T* b,    // (depth, V lanes), aligned for vectors
                           Index depth) {
    constexpr int L = lane_count<T>;
    for (Index p = 0; p < depth; ++p) {
        Lanes<T> column[V];
#pragma GCC unroll 4
        for (int v = 0; v < V; ++v) column[v] = *reinterpret_cast<const Lanes<T>*>(b + v * L);
#pragma GCC unroll 16
        for (int i = 0; i < R; ++i) {
#pragma GCC unroll 4
            for (int v = 0; v < V; ++v) tile.x[i][v] += a[i] * column[v];
        }
        a += stride;
        b += V * L;
    }
}

}  // namespace
}  // namespace pyssl::PYSSL_ISA
