// What the kernels for pairs of views compiled once per instruction set (isa.hpp) and pairs.hpp agree on.
#pragma once

#include "views.hpp"

namespace pyssl {

// Rows that are centred by one mean and packed at a time: enough that adding up the sums of blocks costs little, few
// enough that panels of them stay in the second-level cache.
constexpr Index pair_block = 384;

// Rows in a packed panel: one more, for what the distance to the mean of the rows before adds (pairs.hpp).
constexpr Index pair_depth = pair_block + 1;

// Columns that a task packs at most: a multiple of any kernel's panel.
constexpr Index pair_columns = 192;

// Columns of a pair of views that one task reads.
template <class T>
struct PairColumns {
    const T* x;         // (rows, count), rows `stride` apart
    const T* x_plus;    // the same
    Index rows, count, stride;
    const double* origin;  // (count,), subtracted before anything is added
};

template <class T>
struct PairKernels {
    // Packs (x + x+)/2 less its mean over the rows and, where they are wanted, the differences x - x+, in double. Of the
    // mean of the `before` rows seen so far it makes that of all rows; where there were any, the row that is appended to
    // the first panels brings what the distance of the two means adds to a scatter (Chan's formula).
    void (*pack)(const PairColumns<T>& columns, Index before,
                 double* mean,          // (count,), relative to the origin
                 double* middles,       // (count padded / unit, pair_depth, unit), as gram_kernels.hpp has panels
                 double* differences);  // the same, or null
};

}  // namespace pyssl
