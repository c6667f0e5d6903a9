// What the contrastive kernels compiled once per instruction set (isa.hpp) and the code that calls them agree on.
#pragma once

#include "views.hpp"

namespace pyssl {

// Rows per block of the logit matrix. A block of it, of both sets of rows and of both gradients fit the second-level
// cache at a few hundred dimensions; every tile size divides it.
constexpr Index contrastive_block = 192;

// One block of logits x_i.y_j, in units of log 2: rows [i0, i0 + block) and columns [j0, j0 + block) of the matrix. Pairs
// with i - j a multiple of `period` are no negatives: the anchor itself, and the positives.
template <class T>
struct LogitBlock {
    const T* x_panels;  // (block / unit, k, unit), from pack_panels
    const T* y_panels;  //
    Index k;
    Index i0, j0;
    Index rows, columns;  // of the matrix: those beyond are padding
    Index period;
};

// sum_j 2^(logit - top_i) for the rows of a block, or the same for its columns: a log-sum-exp in the making.
template <class T>
struct LogSums {
    T* top;       // (block,) the largest logit so far; lowest_logit before the first
    double* sum;  // (block,)
};

// Weights a_i 2^(logit - u_i) + b_j 2^(logit - v_j).
template <class T>
struct Weights {
    const T* a;  // (block,) of rows
    const T* u;  // (block,)
    const T* b;  // (block,) of columns
    const T* v;  // (block,)
};

template <class T>
struct ContrastiveKernels {
    Index column_unit;  // k is padded to a multiple of it in what pack_columns makes, and in gradients
    // Rows side by side, for the logits.
    void (*pack_panels)(const T* source,  // (n, k)
                        Index n, Index k, Index block,
                        T* panels);  // (block / unit, k, unit)
    // A row-major block in panels of columns, for the gradients.
    void (*pack_columns)(const T* source,  // (n, k)
                         Index n, Index k, Index block,
                         T* panels);  // (k padded / column_unit, block, column_unit)
    // Adds sum 2^logit over the rows and, unless null, the columns of a block to what is there. For logits so small that
    // neither their powers nor sums of them leave the numbers of type T.
    void (*sum)(const LogitBlock<T>& block,
                double* rows,     // (block,)
                double* columns,  // (block,) or null
                T* scratch);
    // The same for any logits, relative to the largest so far.
    void (*log_sum)(const LogitBlock<T>& block, LogSums<T> rows,
                    LogSums<T> columns,  // null: rows only
                    T* scratch);
    // Weights times the columns' y into the rows' gradient and, unless null, their transpose times the rows' x into the
    // columns'. `small` as in sum: then u and v are taken to be 0.
    void (*gradient)(const LogitBlock<T>& block, const Weights<T>& weights, bool small,
                     const T* x_columns,  // from pack_columns
                     const T* y_columns,  //
                     T* x_gradient,       // (block, k padded)
                     T* y_gradient,       // (block, k padded) or null
                     T* scratch);
    // The logits of one side's softmax, made once: adds to the sums like log_sum (or, where `small`, like sum, the tops
    // untouched), keeps the powers 2^(logit - top), 0 for what is no negative, and adds them times y to the gradient, which
    // remains relative to the tops as they rise.
    void (*attend)(const LogitBlock<T>& block, bool small, LogSums<T> rows,
                   const T* y_columns,  // from pack_columns
                   T* powers,           // (block, block), in panels of the kernel's own
                   T* gradient,         // (block, k padded)
                   T* scratch);
    // Adds the transposed powers, those of row i times a_i 2^(top_i - u_i), times x to the gradient of the columns.
    // The powers of the next call had best lie behind these: they are fetched in advance.
    void (*attend_back)(const LogitBlock<T>& block, const T* powers,
                        const T* tops,             // (block,) those that the powers are relative to
                        const T* a, const T* u,    // (block,)
                        const T* x_columns,        // from pack_columns
                        T* gradient,               // (block, k padded)
                        T* scratch);
    // With the tangents s of the logits, made like them from (dx, x) and (y, dy): adds sum_j 2^(logit - u_i) s_ij over the
    // rows and, unless null, sum_i 2^(logit - v_j) s_ij over the columns.
    void (*tangent_sum)(const LogitBlock<T>& block, const LogitBlock<T>& tangent, const Weights<T>& weights,
                        double* rows,     // (block,)
                        double* columns,  // (block,) or null
                        T* scratch);
    // The derivative of `gradient` along (dx, dy), but for what the weights a and b contribute: with p the weights,
    // dp_ij = a_i 2^(logit - u_i) (s_ij - mean_i) + b_j 2^(logit - v_j) (s_ij - mean_j), adds dp y + p dy, and likewise
    // for the columns.
    void (*hvp)(const LogitBlock<T>& block, const LogitBlock<T>& tangent, const Weights<T>& weights,
                const T* row_means,                         // (block,)
                const T* column_means,                      // (block,)
                const T* x_columns, const T* dx_columns,    // from pack_columns
                const T* y_columns, const T* dy_columns,    //
                T* x_out,                                   // (block, k padded)
                T* y_out,                                   // (block, k padded) or null
                T* scratch);
};

// What no logit reaches: where a running maximum begins.
template <class T>
constexpr T lowest_logit = sizeof(T) == 4 ? T(-1e38) : T(-1e300);

constexpr Index weight_area = contrastive_block * contrastive_block;
constexpr Index contrastive_scratch = 4 * weight_area;

}  // namespace pyssl
