// Dense products C = A B and A B', or C += them, in which no bit depends on the number of threads.
//
// BLAS has them too; the one that NumPy and SciPy ship picks its kernels by the name of the processor, and on one it does
// not know leaves half of the machine's arithmetic unused.
#pragma once

#include "isa.hpp"
#include "parallel.hpp"
#include "product_kernels.hpp"
#include "views.hpp"

namespace pyssl {

#define PYSSL_DECLARE(ISA)                            \
    namespace ISA {                                   \
    extern const ProductKernels<float> product_float;   \
    extern const ProductKernels<double> product_double; \
    }
PYSSL_FOR_EACH_ISA(PYSSL_DECLARE)
#undef PYSSL_DECLARE

inline const ProductKernels<float>& product_kernels(float) { return PYSSL_SELECT(product_float); }
inline const ProductKernels<double>& product_kernels(double) { return PYSSL_SELECT(product_double); }

template <class T>
void product(MatrixView<const T> a,  // (m, depth)
             MatrixView<const T> b,  // (depth, n), or (n, depth) transposed
             bool transposed, bool add,
             MatrixView<T> c,  // (m, n)
             int num_threads) {
    const ProductKernels<T>& kernels = product_kernels(T{});
    const Index m = a.rows, depth = a.columns, n = c.columns;
    if (depth == 0) {
        if (!add) std::fill_n(c.data, m * n, T(0));
        return;
    }
    const Index panels = (m + kernels.rows - 1) / kernels.rows;
    const AlignedBuffer<T> packed(static_cast<std::size_t>(panels * kernels.rows * depth));
    // some ten microseconds a thread: 2^14 numbers to move, 2^20 multiplications
    parallel_for(panels, num_threads, 16384 / (kernels.rows * depth) + 1, [&](Index begin, Index end) {
        kernels.pack_left(a.data, m, depth, begin, end, packed.data());
    });

    // Up to 128 columns at a time: with 256 steps of the inner dimension, what stays in the second-level cache. Fewer
    // where all threads are to have some.
    const Index threads = resolve_num_threads(num_threads);
    const Index share = (n + threads - 1) / threads;
    const Index width = std::min<Index>(128, (share + kernels.columns - 1) / kernels.columns * kernels.columns);
    const Index blocks = (n + width - 1) / width;
    const Index grain = static_cast<Index>(1048576.0 / (static_cast<double>(m * depth) * static_cast<double>(width))) + 1;
    parallel_for(blocks, num_threads, grain, [&](Index begin, Index end) {
        const AlignedBuffer<T> scratch(static_cast<std::size_t>(kernels.depth_block * width));
        for (Index block = begin; block < end; ++block) {
            kernels.multiply(packed.data(), b.data, m, n, depth, transposed, add, block * width,
                             std::min(n, (block + 1) * width), scratch.data(), c.data);
        }
    });
}

}  // namespace pyssl
