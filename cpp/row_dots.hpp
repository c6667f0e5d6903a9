// Inner products of corresponding rows, accumulated in double.
#pragma once

#include "parallel.hpp"
#include "views.hpp"

namespace pyssl {

template <class T>
void row_dots(MatrixView<const T> a,     // (n, k)
              MatrixView<const T> b,     // (n, k)
              VectorView<double> out,    // (n,)
              int num_threads) {
    const Index k = a.columns;
    parallel_for(a.rows, num_threads, 65536 / (k + 1) + 1, [&](Index begin, Index end) {
        for (Index i = begin; i < end; ++i) {
            // eight chains of additions, in a fixed order: one alone would wait for itself
            constexpr Index chains = 8;
            double sums[chains] = {};
            const T *x = a.row(i), *y = b.row(i);
            Index j = 0;
            for (; j + chains <= k; j += chains) {
                for (Index c = 0; c < chains; ++c) {
                    sums[c] += static_cast<double>(x[j + c]) * static_cast<double>(y[j + c]);
                }
            }
            for (; j < k; ++j) sums[0] += static_cast<double>(x[j]) * static_cast<double>(y[j]);
            for (Index c = 1; c < chains; ++c) sums[0] += sums[c];
            out[i] = sums[0];
        }
    });
}

}  // namespace pyssl
