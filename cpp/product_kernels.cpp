// The products behind product.hpp, compiled once per instruction set (isa.hpp).
#include "product_kernels.hpp"
#include "tiles.hpp"

namespace pyssl::PYSSL_ISA {
namespace {

// 256 steps make a panel of B of 32 KiB with AVX-512, less than the 48 KiB of first-level cache it comes with.
constexpr Index depth_block = 256;

template <class T>
void pack_left(const T* a,  // (m, depth)
               Index m, Index depth, Index begin, Index end,
               T* packed) {  // (m rounded up, depth) in panels
    const Index padded = round_up(m, tile_rows);
    for (Index p = 0; p < depth; p += depth_block) {
        const Index steps = smaller(depth_block, depth - p);
        for (Index panel = begin; panel < end; ++panel) {
            const Index i = panel * tile_rows;
            pack_rows<tile_rows>(a + i * depth + p, m - i, steps, depth, packed + p * padded + i * steps);
        }
    }
}

template <class T>
PYSSL_INLINE void write(const Tile<T>& tile, Index rows, Index columns, bool add,
                        T* c,  // (rows, columns), rows `stride` apart
                        Index stride) {
    constexpr int L = lane_count<T>, width = tile_columns<T>;
    if (rows >= tile_rows && columns >= width) {
#pragma GCC unroll 16
        for (int i = 0; i < tile_rows; ++i) {
#pragma GCC unroll 4
            for (int v = 0; v < tile_vectors; ++v) {
                T* target = c + i * stride + v * L;
                store(target, add ? load(target) + tile.x[i][v] : tile.x[i][v]);
            }
        }
        return;
    }
    T edge[tile_rows * width];
    for (int i = 0; i < tile_rows; ++i) {
        for (int v = 0; v < tile_vectors; ++v) store(edge + i * width + v * L, tile.x[i][v]);
    }
    for (Index i = 0; i < smaller(rows, tile_rows); ++i) {
        for (Index j = 0; j < smaller(columns, width); ++j) {
            T& target = c[i * stride + j];
            target = add ? target + edge[i * width + j] : edge[i * width + j];
        }
    }
}

template <class T>
void multiply_columns(const T* packed,  // (m rounded up, depth) in panels
                      const T* b,       // (depth, n), or (n, depth) transposed
                      Index m, Index n, Index depth, bool transposed, bool add, Index begin, Index end,
                      T* scratch,  // (depth_block, end - begin rounded up)
                      T* c) {      // (m, n)
    constexpr int width = tile_columns<T>;
    const Index padded = round_up(m, tile_rows);
    for (Index p = 0; p < depth; p += depth_block) {
        const Index steps = smaller(depth_block, depth - p);
        if (transposed) {
            for (Index j = begin; j < end; j += width) {
                pack_rows<width>(b + j * depth + p, end - j, steps, depth, scratch + (j - begin) * steps);
            }
        } else {
            pack_columns<width>(b + p * n + begin, end - begin, steps, n, scratch);
        }
        for (Index i = 0; i < m; i += tile_rows) {
            for (Index j = begin; j < end; j += width) {
                Tile<T> tile{};
                multiply(tile, packed + p * padded + i * steps, tile_rows, scratch + (j - begin) * steps, steps);
                write(tile, m - i, end - j, add || p > 0, c + i * n + j, n);
            }
        }
    }
}

}  // namespace

extern const ProductKernels<float> product_float;
const ProductKernels<float> product_float{tile_rows, tile_columns<float>, depth_block, pack_left<float>,
                                          multiply_columns<float>};
extern const ProductKernels<double> product_double;
const ProductKernels<double> product_double{tile_rows, tile_columns<double>, depth_block, pack_left<double>,
                                            multiply_columns<double>};

}  // namespace pyssl::PYSSL_ISA
