// InfoNCE and NT-Xent: log-sum-exps of the logits x_i.y_j and the gradients through them, block by block.
//
// The logit matrix (n, m) is never stored. Pass 1 sums its exponentials over rows and, where asked, columns; pass 2 makes
// every block again, turns it into weights and multiplies them into both gradients. When x and y are the same rows the
// matrix is symmetric, and each block serves its rows and its columns: 4 n^2 k flops for value and gradient, not 6.
//
// Logits are in units of log 2: callers scale x and y so that 2^(x.y) is what they want.
#pragma once

#include <cmath>
#include <limits>
#include <vector>

#include "contrastive_kernels.hpp"
#include "isa.hpp"
#include "parallel.hpp"
#include "schedule.hpp"
#include "views.hpp"

namespace pyssl {

#define PYSSL_DECLARE(ISA)                                    \
    namespace ISA {                                           \
    extern const ContrastiveKernels<float> contrastive_float;   \
    extern const ContrastiveKernels<double> contrastive_double; \
    }
PYSSL_FOR_EACH_ISA(PYSSL_DECLARE)
#undef PYSSL_DECLARE

inline const ContrastiveKernels<float>& contrastive_kernels(float) { return PYSSL_SELECT(contrastive_float); }
inline const ContrastiveKernels<double>& contrastive_kernels(double) { return PYSSL_SELECT(contrastive_double); }

// Rows of embeddings, packed once for both passes.
template <class T>
class PackedRows {
   public:
    PackedRows(const ContrastiveKernels<T>& kernels, MatrixView<const T> rows, bool gradient, int num_threads)
        : n(rows.rows),
          k(rows.columns),
          blocks((n + contrastive_block - 1) / contrastive_block),
          padded((k + kernels.column_unit - 1) / kernels.column_unit * kernels.column_unit),
          unit_(kernels.column_unit),
          panels_(size(k), Fill::none),
          columns_(gradient ? size(padded) : 0, Fill::none) {
        parallel_for(blocks, num_threads, 131072 / (contrastive_block * k) + 1, [&](Index begin, Index end) {
            for (Index block = begin; block < end; ++block) {
                kernels.pack_panels(rows.data, n, k, block, panels_.data() + block * contrastive_block * k);
                if (gradient) {
                    kernels.pack_columns(rows.data, n, k, block, columns_.data() + block * contrastive_block * padded);
                }
            }
        });
    }

    const T* panels(Index block) const { return panels_.data() + block * contrastive_block * k; }
    const T* columns(Index block) const { return columns_.data() + block * contrastive_block * padded; }
    // Row i, from the panels of columns.
    void row(Index i, T* target) const {  // (k,)
        const T* source = columns(i / contrastive_block) + i % contrastive_block * unit_;
        for (Index j = 0; j < k; j += unit_, source += contrastive_block * unit_) {
            std::copy_n(source, std::min(unit_, k - j), target + j);
        }
    }
    Index padded_rows() const { return blocks * contrastive_block; }

    const Index n, k, blocks, padded;

   private:
    std::size_t size(Index width) const { return static_cast<std::size_t>(blocks * contrastive_block * width); }
    Index unit_;
    AlignedBuffer<T> panels_, columns_;
};

// What both passes are told. `y` is `x` itself for a symmetric matrix.
template <class T>
struct Contrast {
    MatrixView<const T> x;  // (n, k)
    MatrixView<const T> y;  // (m, k)
    Index period;           // pairs with i - j a multiple of it are no negatives
    bool small;             // see ContrastiveKernels::sum
    int num_threads;

    bool symmetric() const { return x.data == y.data; }
};

template <class T>
LogitBlock<T> logit_block(const Contrast<T>& contrast, const PackedRows<T>& x, const PackedRows<T>& y, Index i, Index j) {
    return {x.panels(i), y.panels(j), x.k, i * contrastive_block, j * contrastive_block, x.n, y.n, contrast.period};
}

template <class T>
class Scratch {  // one piece for each worker
   public:
    explicit Scratch(Index workers) : data_(static_cast<std::size_t>(workers * contrastive_scratch), Fill::none) {}
    T* operator[](Index worker) const { return data_.data() + worker * contrastive_scratch; }

   private:
    AlignedBuffer<T> data_;
};

template <class T>
void copy_rows(const AlignedBuffer<T>& source, Index stride, MatrixView<T> out) {
    for (Index i = 0; i < out.rows; ++i) std::copy_n(source.data() + i * stride, out.columns, out.row(i));
}

// log2 sum_j 2^(x_i.y_j) over the negatives of each row and each column; -inf where there is none. A symmetric matrix has
// only rows. Returns whether it came to the end (see BlockSchedule::run).
template <class T, class Poll>
bool log_sum_exp(const Contrast<T>& contrast,
                 VectorView<double> rows,     // (n,)
                 VectorView<double> columns,  // (m,), not written for a symmetric matrix
                 Poll& poll) {
    const ContrastiveKernels<T>& kernels = contrastive_kernels(T{});
    const bool symmetric = contrast.symmetric();
    const PackedRows<T> x(kernels, contrast.x, false, contrast.num_threads);
    const PackedRows<T> other(kernels, symmetric ? MatrixView<const T>{contrast.y.data, 0, x.k} : contrast.y, false,
                              contrast.num_threads);
    const PackedRows<T>& y = symmetric ? x : other;

    std::vector<double> row_sums(static_cast<std::size_t>(x.padded_rows())), column_sums;
    std::vector<T> row_tops(row_sums.size(), lowest_logit<T>), column_tops;
    if (!symmetric) {
        column_sums.resize(static_cast<std::size_t>(y.padded_rows()));
        column_tops.assign(column_sums.size(), lowest_logit<T>);
    }
    std::vector<double>& sums = symmetric ? row_sums : column_sums;
    std::vector<T>& tops = symmetric ? row_tops : column_tops;

    const BlockSchedule schedule(x.blocks, y.blocks, symmetric);
    const Scratch<T> scratch(schedule.worker_count(contrast.num_threads));
    const bool done = schedule.run(
        contrast.num_threads,
        [&](Index worker, Index i, Index j) {
            const LogitBlock<T> block = logit_block(contrast, x, y, i, j);
            const bool with_columns = !(symmetric && i == j);
            const Index row = i * contrastive_block, column = j * contrastive_block;
            double* column_sum = with_columns ? sums.data() + column : nullptr;
            if (contrast.small) {
                kernels.sum(block, row_sums.data() + row, column_sum, scratch[worker]);
            } else {
                T* column_top = with_columns ? tops.data() + column : nullptr;
                kernels.log_sum(block, {row_tops.data() + row, row_sums.data() + row}, {column_top, column_sum},
                                scratch[worker]);
            }
        },
        poll);

    const auto finish = [&](VectorView<double> out, const std::vector<double>& sum, const std::vector<T>& top) {
        for (Index i = 0; i < out.size; ++i) {
            const auto e = static_cast<std::size_t>(i);
            const double offset = contrast.small ? 0.0 : static_cast<double>(top[e]);
            out[i] = sum[e] > 0.0 ? offset + std::log2(sum[e]) : -std::numeric_limits<double>::infinity();
        }
    };
    finish(rows, row_sums, row_tops);
    if (!symmetric) finish(columns, column_sums, column_tops);
    return done;
}

// What scaling rows to one length does to gradients by them.
struct Projection {
    VectorView<const double> project;  // (n,), or empty for none
    VectorView<const double> scale;    // (n,), or empty for none
};

// What is left to do with a row h of sums: gradient_i = scale_i (h - x_i (x_i.h) project_i) with
// h = factor (sums_i + positive_i times the positive's row).
struct Finish {
    VectorView<const double> positive;  // (n,)
    Projection projection;
};

template <class T>
class RowFinish {
   public:
    RowFinish(const PackedRows<T>& own, const PackedRows<T>& partners, Index shift, const Finish& finish, double factor)
        : own_(own), partners_(partners), shift_(shift), finish_(finish), factor_(factor) {}

    struct Space {
        std::vector<T> row;
        std::vector<double> h;
        explicit Space(Index k) : row(static_cast<std::size_t>(k)), h(row.size()) {}
    };

    void operator()(Index i, const T* sum, T* out, Space& space) const {  // (k,)
        auto& [row, h] = space;
        const auto& [project, scale] = finish_.projection;
        partners_.row((i + shift_) % partners_.n, row.data());
        for (std::size_t j = 0; j < h.size(); ++j) {
            h[j] = factor_ * (static_cast<double>(sum[j]) + finish_.positive[i] * static_cast<double>(row[j]));
        }
        if (project.size > 0 && project[i] != 0.0) {
            own_.row(i, row.data());
            double radial = 0.0;
            for (std::size_t j = 0; j < h.size(); ++j) radial += h[j] * static_cast<double>(row[j]);
            radial *= project[i];
            for (std::size_t j = 0; j < h.size(); ++j) h[j] -= radial * static_cast<double>(row[j]);
        }
        const double stretch = scale.size > 0 ? scale[i] : 1.0;
        for (std::size_t j = 0; j < h.size(); ++j) out[j] = static_cast<T>(stretch * h[j]);
    }

   private:
    const PackedRows<T>&own_, &partners_;
    const Index shift_;
    const Finish finish_;
    const double factor_;
};

template <class T>
void finish_rows(const AlignedBuffer<T>& sums,  // (blocks, block, k padded)
                 const PackedRows<T>& own, const PackedRows<T>& partners, Index shift, const Finish& finish,
                 double factor,
                 MatrixView<T> out,  // (n, k)
                 int num_threads) {
    const RowFinish<T> finish_row(own, partners, shift, finish, factor);
    parallel_for(out.rows, num_threads, 65536 / (out.columns + 1) + 1, [&](Index begin, Index end) {
        typename RowFinish<T>::Space space(out.columns);
        for (Index i = begin; i < end; ++i) finish_row(i, sums.data() + i * own.padded, out.row(i), space);
    });
}

// With w_ij = row_weight_i 2^(x_i.y_j - row_log_i) + column_weight_j 2^(x_i.y_j - column_log_j) over negatives, the sums
// sum_j w_ij y_j and sum_i w_ij x_i, finished. A symmetric matrix has w_ij with the rows' weights in both places, and
// only the first. Both x and y are read before anything is written: a gradient may take the place of its rows.
template <class T, class Poll>
bool weighted_sums(const Contrast<T>& contrast,
                   VectorView<const double> row_weights,     // (n,)
                   VectorView<const double> row_logs,        // (n,)
                   VectorView<const double> column_weights,  // (n,)
                   VectorView<const double> column_logs,     // (n,)
                   const Finish& x_finish, const Finish& y_finish, double factor,
                   MatrixView<T> x_gradient,  // (n, k)
                   MatrixView<T> y_gradient,  // (n, k)
                   Poll& poll) {
    const ContrastiveKernels<T>& kernels = contrastive_kernels(T{});
    const bool symmetric = contrast.symmetric();
    const PackedRows<T> x(kernels, contrast.x, true, contrast.num_threads);
    const PackedRows<T> other(kernels, symmetric ? MatrixView<const T>{contrast.y.data, 0, x.k} : contrast.y, true,
                              contrast.num_threads);
    const PackedRows<T>& y = symmetric ? x : other;

    // For small logits 2^(logit - log) = 2^logit 2^-log; padding weighs nothing.
    struct Side {
        std::vector<T> weight, log;
        Side(Index size, VectorView<const double> w, VectorView<const double> l, bool small)
            : weight(static_cast<std::size_t>(size)), log(static_cast<std::size_t>(size)) {
            for (Index i = 0; i < w.size; ++i) {
                const auto e = static_cast<std::size_t>(i);
                weight[e] = static_cast<T>(small ? w[i] * std::exp2(-l[i]) : w[i]);
                log[e] = static_cast<T>(small ? 0.0 : l[i]);
            }
        }
    };
    const Side row_side(x.padded_rows(), row_weights, row_logs, contrast.small);
    const Side column_side(y.padded_rows(), column_weights, column_logs, contrast.small);

    const AlignedBuffer<T> gx(static_cast<std::size_t>(x.padded_rows() * x.padded));
    const AlignedBuffer<T> gy(static_cast<std::size_t>(symmetric ? 0 : y.padded_rows() * y.padded));
    T* columns_gradient = symmetric ? gx.data() : gy.data();

    const BlockSchedule schedule(x.blocks, y.blocks, symmetric);
    const Scratch<T> scratch(schedule.worker_count(contrast.num_threads));
    const bool done = schedule.run(
        contrast.num_threads,
        [&](Index worker, Index i, Index j) {
            const Index row = i * contrastive_block, column = j * contrastive_block;
            const Weights<T> weights{row_side.weight.data() + row, row_side.log.data() + row,
                                     column_side.weight.data() + column, column_side.log.data() + column};
            kernels.gradient(logit_block(contrast, x, y, i, j), weights, contrast.small, x.columns(i), y.columns(j),
                             gx.data() + row * x.padded,
                             symmetric && i == j ? nullptr : columns_gradient + column * y.padded, scratch[worker]);
        },
        poll);
    if (!done) return false;
    const Index shift = symmetric ? contrast.period : 0;
    finish_rows(gx, x, y, shift, x_finish, factor, x_gradient, contrast.num_threads);
    if (!symmetric) finish_rows(gy, y, x, shift, y_finish, factor, y_gradient, contrast.num_threads);
    return true;
}

// Directions along which x and y move; dx and dy have the shapes of x and y.
template <class T>
struct Tangent {
    MatrixView<const T> dx;  // (n, k)
    MatrixView<const T> dy;  // (m, k)
};

// The weights of a pass over tangents, one entry a row or column of the matrix.
struct TangentWeights {
    VectorView<const double> weights, logs, means;
};

// Rows beside rows of another matrix, packed: (log 2 dx, x) and (y, log 2 dy), whose products are the tangents
// s_ij = log 2 (dx_i.y_j + x_i.dy_j) of the logits, no longer in units of log 2.
template <class T>
class PackedPair {
   public:
    PackedPair(const ContrastiveKernels<T>& kernels, MatrixView<const T> first, double first_factor,
               MatrixView<const T> second, double second_factor, int num_threads)
        : joined_(join(first, first_factor, second, second_factor)),
          packed(kernels, {joined_.data(), first.rows, 2 * first.columns}, false, num_threads) {}

   private:
    static std::vector<T> join(MatrixView<const T> first, double first_factor, MatrixView<const T> second,
                               double second_factor) {
        const Index k = first.columns;
        std::vector<T> result(static_cast<std::size_t>(2 * first.rows * k));
        for (Index i = 0; i < first.rows; ++i) {
            T* target = result.data() + 2 * i * k;
            for (Index p = 0; p < k; ++p) {
                target[p] = static_cast<T>(first_factor * static_cast<double>(first(i, p)));
                target[k + p] = static_cast<T>(second_factor * static_cast<double>(second(i, p)));
            }
        }
        return result;
    }
    std::vector<T> joined_;

   public:
    const PackedRows<T> packed;
};

// Both passes over tangents: their means sum_j 2^(x_i.y_j - row_log_i) s_ij into `row_means` and `column_means`, and,
// given those back in the weights, what weighted_sums changes by along the direction with its weights held: with
// dw_ij = row_weight_i 2^(x_i.y_j - row_log_i) (s_ij - row_mean_i) + the same of the columns,
// x_out_i = sum_j dw_ij y_j + w_ij dy_j and y_out_j = sum_i dw_ij x_i + w_ij dx_i.
// As before, a symmetric matrix has only rows.
template <class T, class Poll>
class TangentPass {
   public:
    TangentPass(const Contrast<T>& contrast, const Tangent<T>& along, TangentWeights rows, TangentWeights columns,
                Poll& poll)
        : contrast_(contrast),
          kernels_(contrastive_kernels(T{})),
          symmetric_(contrast.symmetric()),
          x_(kernels_, contrast.x, true, contrast.num_threads),
          other_(kernels_, none_if_symmetric(contrast.y), true, contrast.num_threads),
          dx_(kernels_, along.dx, true, contrast.num_threads),
          other_dy_(kernels_, none_if_symmetric(along.dy), true, contrast.num_threads),
          left_(kernels_, along.dx, log2, contrast.x, 1.0, contrast.num_threads),
          right_(kernels_, contrast.y, 1.0, along.dy, log2, contrast.num_threads),
          rows_(x_.padded_rows(), rows),
          columns_(y().padded_rows(), columns),
          poll_(poll) {}

    bool means(VectorView<double> rows,        // (n,)
               VectorView<double> columns) {   // (m,); not written for a symmetric matrix
        std::vector<double> row_sums(rows_.weight.size()), column_sums(columns_.weight.size());
        std::vector<double>& other = symmetric_ ? row_sums : column_sums;
        const bool done = run([&](T* scratch, Index i, Index j, const Weights<T>& weights) {
            kernels_.tangent_sum(block(i, j), tangent(i, j), weights, row_sums.data() + i * contrastive_block,
                                 symmetric_ && i == j ? nullptr : other.data() + j * contrastive_block, scratch);
        });
        std::copy_n(row_sums.data(), rows.size, rows.data);
        if (!symmetric_) std::copy_n(column_sums.data(), columns.size, columns.data);
        return done;
    }

    bool hvp(MatrixView<T> x_out,    // (n, k)
             MatrixView<T> y_out) {  // (m, k); not written for a symmetric matrix
        const AlignedBuffer<T> hx(static_cast<std::size_t>(x_.padded_rows() * x_.padded));
        const AlignedBuffer<T> hy(static_cast<std::size_t>(symmetric_ ? 0 : y().padded_rows() * y().padded));
        T* other = symmetric_ ? hx.data() : hy.data();
        const bool done = run([&](T* scratch, Index i, Index j, const Weights<T>& weights) {
            const Index row = i * contrastive_block, column = j * contrastive_block;
            kernels_.hvp(block(i, j), tangent(i, j), weights, rows_.mean.data() + row, columns_.mean.data() + column,
                         x_.columns(i), dx_.columns(i), y().columns(j), dy().columns(j), hx.data() + row * x_.padded,
                         symmetric_ && i == j ? nullptr : other + column * y().padded, scratch);
        });
        copy_rows(hx, x_.padded, x_out);
        if (!symmetric_) copy_rows(hy, y().padded, y_out);
        return done;
    }

   private:
    static constexpr double log2 = 0.69314718055994530942;

    struct Side {
        std::vector<T> weight, log, mean;
        Side(Index size, const TangentWeights& from)
            : weight(padded(size, from.weights)), log(padded(size, from.logs)), mean(padded(size, from.means)) {}
        static std::vector<T> padded(Index size, VectorView<const double> values) {
            std::vector<T> result(static_cast<std::size_t>(size));
            for (Index i = 0; i < values.size; ++i) result[static_cast<std::size_t>(i)] = static_cast<T>(values[i]);
            return result;
        }
    };

    template <class Body>
    bool run(const Body& body) {
        const BlockSchedule schedule(x_.blocks, y().blocks, symmetric_);
        const Scratch<T> scratch(schedule.worker_count(contrast_.num_threads));
        return schedule.run(
            contrast_.num_threads,
            [&](Index worker, Index i, Index j) {
                const Index row = i * contrastive_block, column = j * contrastive_block;
                body(scratch[worker], i, j,
                     Weights<T>{rows_.weight.data() + row, rows_.log.data() + row, columns_.weight.data() + column,
                                columns_.log.data() + column});
            },
            poll_);
    }

    MatrixView<const T> none_if_symmetric(MatrixView<const T> rows) const {
        return symmetric_ ? MatrixView<const T>{rows.data, 0, rows.columns} : rows;
    }
    LogitBlock<T> block(Index i, Index j) const { return logit_block(contrast_, x_, y(), i, j); }
    LogitBlock<T> tangent(Index i, Index j) const {
        return logit_block(contrast_, left_.packed, right_.packed, i, j);
    }
    const PackedRows<T>& y() const { return symmetric_ ? x_ : other_; }
    const PackedRows<T>& dy() const { return symmetric_ ? dx_ : other_dy_; }

    const Contrast<T> contrast_;
    const ContrastiveKernels<T>& kernels_;
    const bool symmetric_;
    const PackedRows<T> x_, other_, dx_, other_dy_;
    const PackedPair<T> left_, right_;
    const Side rows_, columns_;
    Poll& poll_;
};

}  // namespace pyssl
