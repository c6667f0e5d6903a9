// What the products compiled once per instruction set (isa.hpp) and the code that calls them agree on.
#pragma once

#include "views.hpp"

namespace pyssl {

// C = A B, or A B' with the rows of B given; or C += it. The inner dimension is cut into blocks of `depth_block`, so that a panel of
// B stays in the first-level cache; the packed A is laid out block by block.
template <class T>
struct ProductKernels {
    Index rows;         // of A that make a panel
    Index columns;      // of B that make a panel
    Index depth_block;  //
    void (*pack_left)(const T* a,  // (m, depth)
                      Index m, Index depth,
                      Index begin, Index end,  // which panels
                      T* packed);              // (m rounded up to `rows`, depth) in panels
    void (*multiply)(const T* packed,  // from pack_left
                     const T* b,       // (depth, n), or (n, depth) transposed
                     Index m, Index n, Index depth, bool transposed, bool add,
                     Index begin, Index end,  // which columns of C
                     T* scratch,              // (depth_block, end - begin rounded up to `columns`)
                     T* c);                   // (m, n)
};

}  // namespace pyssl
