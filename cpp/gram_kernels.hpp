// What the Gram kernels compiled once per instruction set (isa.hpp) and the code that calls them agree on.
#pragma once

#include "views.hpp"

namespace pyssl {

// Rows whose products are summed in the type of the data; the sums of blocks are added up in double.
constexpr Index gram_block = 384;

// Rows at a time in `mix`: a packed block of them stays in the second-level cache beside a panel of the matrix.
constexpr Index mix_block = 96;

// Rows at a time in `column_moments`.
constexpr Index moments_block = 128;

// Moments of the columns of a pair of matrices a and b: means, or sums of a and b; sums of squares and products; sums of
// (a - b)^2.
struct ColumnMoments {
    double *a, *b, *aa, *bb, *ab, *difference;  // (k,) each

    ColumnMoments(double* data, Index k)  // (6, k)
        : a(data), b(data + k), aa(data + 2 * k), bb(data + 3 * k), ab(data + 4 * k), difference(data + 5 * k) {}
};

// What `mix` adds to a product before it is written: see there. Columns are padded with zeros to a multiple of
// `mix_unit`.
template <class T>
struct MixTerms {
    const T* plus;            // (rows, q) or null: then the next four are not looked at
    const T* minus;           // (rows, q) or null
    const T* rows;            // (rows,) or null: ones
    const T* shift;           // (q padded,)
    const T* weight;          // (q padded,)
    const T* constant;        // (q padded,)
    const T* first_factor;    // (q padded,)
    const T* second_factor;   // (q padded,)
    bool add;
};

template <class T>
struct GramKernels {
    Index unit;      // columns in a panel
    Index tile;      // columns of A that make the rows of a tile; divides `unit`
    Index vectors;   // in a row of a panel
    Index mix_unit;  // columns in a panel of the matrix of `mix`
    Index mix_tile;  // rows in a panel of the left side of `mix`
    // (source - shift) scale in panels of columns.
    void (*pack)(const T* source,  // (count, k), rows `stride` apart
                 Index count, Index k, Index stride,
                 const T* shift,  // (k,)
                 const T* scale,  // (k,)
                 T* panels);      // (k padded / unit, gram_block, unit)
    // C += A'B for `tile` columns of a panel of A, given by a pointer into it, and the first `vectors` vectors of columns
    // of a panel of B.
    void (*accumulate)(const T* a, const T* b, Index depth, Index vectors,
                       double* c);  // (tile, unit)
    // The same rows side by side, for `mix`.
    void (*pack_left)(const T* source,  // (count, k)
                      Index count, Index k,
                      const T* shift,  // (k,)
                      const T* scale,  // (k,)
                      T* panels);      // (mix_block / mix_tile, k, mix_tile), and mix_unit more
    void (*pack_right)(const T* matrix,  // (k, q)
                       Index k, Index q,
                       T* panels);  // (k, q padded) in blocks of rows and panels of columns
    // out = [A M + rows weight (plus - minus - shift) + constant] first_factor second_factor, or out += it.
    void (*mix)(const T* left,   // from pack_left
                const T* right,  // from pack_right
                Index count, Index k, Index q, const MixTerms<T>& terms,
                T* scratch,  // (mix_block, mix_unit)
                T* out);     // (count, q)
    // Adds the sums over rows about a and b of `center` (nothing else of it is looked at) to what is there.
    void (*column_moments)(const T* a,  // (count, k)
                           const T* b,  // (count, k)
                           Index count, Index k, const ColumnMoments& center, const ColumnMoments& sums);
    void (*row_moments)(const T* a,  // (count, k)
                        const T* b,  // (count, k)
                        Index count, Index k,
                        double* aa,  // (count,) |a_i|^2
                        double* ab,  // (count,) a_i.b_i
                        double* bb);  // (count,)
};

}  // namespace pyssl
