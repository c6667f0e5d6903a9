// InfoNCE on a plane of embeddings, x + u x' + v x'' against y + u y' + v y'': theory 3.1.
//
// A logit is then a quadratic in (u, v), whose six coefficients cost nine inner products a pair, once. A point of the
// grid costs a power and a few multiplications a pair, whatever k is.
//
// Logits are in units of log 2, as in contrastive.hpp. Neither the matrix nor its coefficients are ever stored: a strip
// of rows meets a block of columns at a piece of the grid.
#pragma once

#include <atomic>
#include <cmath>
#include <vector>

#include "contrastive_kernels.hpp"
#include "contrastive_plane_kernels.hpp"
#include "isa.hpp"
#include "parallel.hpp"
#include "views.hpp"

namespace pyssl {

#define PYSSL_DECLARE(ISA)                        \
    namespace ISA {                               \
    extern const PlaneKernels<float> plane_float;   \
    extern const PlaneKernels<double> plane_double; \
    }
PYSSL_FOR_EACH_ISA(PYSSL_DECLARE)
#undef PYSSL_DECLARE

inline const PlaneKernels<float>& plane_kernels(float) { return PYSSL_SELECT(plane_float); }
inline const PlaneKernels<double>& plane_kernels(double) { return PYSSL_SELECT(plane_double); }

// The logits x_i.y_j + x_term_i + y_term_j at the points of a grid; the positives are the pairs (i, i).
template <class T>
struct LogitPlane {
    BatchView<const T> x;                // (3, n, k)
    BatchView<const T> y;                // (3, n, k)
    MatrixView<const T> x_terms;         // (6, n)
    MatrixView<const T> y_terms;         // (6, n)
    MatrixView<const double> positives;  // (6, n)
    MatrixView<const double> offsets;    // (6, n), or empty: see plane_losses
    VectorView<const double> u, v;

    bool joint() const { return offsets.rows > 0; }
};

// sum_i (exp(x_i) - 1) = exp(shift) sum: small x keep their digits, large ones do not overflow.
struct PowerSum {
    double shift = 0.0, sum = 0.0;

    void raise(double to) {
        sum *= std::exp(shift - to);
        shift = to;
    }
    void add(double x) {
        if (x > shift + 1.0) raise(x);
        sum += shift == 0.0 ? std::expm1(x) : std::exp(x - shift) - std::exp(-shift);
    }
    void add(PowerSum other) {
        if (other.shift > shift) raise(other.shift);
        sum += other.sum * std::exp(other.shift - shift);
    }
    double log_mean(double count) const {
        const double mean = sum / count;
        return shift == 0.0 ? std::log1p(mean) : shift + std::log(std::exp(-shift) + mean);
    }
};

template <class T, class Poll>
class PlanePass {
   public:
    PlanePass(const LogitPlane<T>& plane, int num_threads, Poll& poll)
        : plane_(plane),
          kernels_(plane_kernels(T{})),
          num_threads_(num_threads),
          poll_(poll),
          n_(plane.x.rows),
          k_(plane.x.columns),
          column_blocks_((n_ + plane_columns - 1) / plane_columns),
          row_blocks_((n_ + block_rows - 1) / block_rows),
          v_count_((plane.v.size + kernels_.lanes - 1) / kernels_.lanes * kernels_.lanes),
          u_step_(std::max<Index>(1, piece / v_count_)),
          u_(plane.u.data, plane.u.data + plane.u.size),
          v_(static_cast<std::size_t>(v_count_)),
          wide_v_(v_.size()),
          panels_(static_cast<std::size_t>(column_blocks_ * plane_columns * plane_parts * k_)),
          y_terms_(static_cast<std::size_t>(column_blocks_ * plane_columns * plane_monomials)) {
        for (Index b = 0; b < plane.v.size; ++b) {
            wide_v_[static_cast<std::size_t>(b)] = plane.v[b];
            v_[static_cast<std::size_t>(b)] = static_cast<T>(plane.v[b]);
        }
        for (Index block = 0; block < column_blocks_; ++block) {
            const Index j = block * plane_columns, count = std::min(plane_columns, n_ - j);
            const T* parts[plane_parts];
            for (Index part = 0; part < plane_parts; ++part) parts[part] = plane.y[part].row(j);
            kernels_.pack_columns(parts, count, k_, panels_.data() + j * plane_parts * k_);
            for (Index p = 0; p < plane_monomials; ++p) {
                std::copy_n(plane.y_terms.row(p) + j, count,
                            y_terms_.data() + j * plane_monomials + p * plane_columns);
            }
        }
    }

    bool run(MatrixView<double> out) {  // (u, v)
        const Index points = plane_.u.size * v_count_, pieces = (plane_.u.size + u_step_ - 1) / u_step_;
        const Index tasks = row_blocks_ * pieces;
        const Index workers = std::min<Index>(resolve_num_threads(num_threads_), tasks);
        // by blocks of rows, to be added up in their order
        std::vector<double> losses(plane_.joint() ? 0 : static_cast<std::size_t>(row_blocks_ * points));
        std::vector<PowerSum> powers(plane_.joint() ? static_cast<std::size_t>(row_blocks_ * points) : 0);
        std::atomic<Index> next{0};
        stop_.store(false);
        parallel_for(workers, static_cast<int>(workers), 1, [&](Index begin, Index end) {
            for (Index worker = begin; worker < end; ++worker) {
                Worker mine(*this);
                for (Index task = next.fetch_add(1); task < tasks; task = next.fetch_add(1)) {
                    const Index block = task / pieces, u = task % pieces * u_step_;
                    const Index at = block * points + u * v_count_;
                    mine.visit(block, u, worker == 0, plane_.joint() ? nullptr : losses.data() + at,
                               plane_.joint() ? powers.data() + at : nullptr);
                    if (stop_.load()) break;
                }
            }
        });
        const double count = static_cast<double>(n_);
        for (Index a = 0; a < out.rows; ++a) {
            for (Index b = 0; b < out.columns; ++b) {
                double loss = 0.0;
                PowerSum power;
                for (Index block = 0; block < row_blocks_; ++block) {
                    const auto e = static_cast<std::size_t>(block * points + a * v_count_ + b);
                    plane_.joint() ? power.add(powers[e]) : void(loss += losses[e]);
                }
                out(a, b) = plane_.joint() ? power.log_mean(count) : loss / count;
            }
        }
        return !stop_.load();
    }

   private:
    static constexpr double log2 = 0.69314718055994530942;
    static constexpr Index block_rows = 96;  // rows of one task: a multiple of every strip
    static constexpr Index piece = 1024;     // points of one task, where v has no more

    // What a thread works with.
    class Worker {
       public:
        explicit Worker(PlanePass& pass)
            : pass_(pass),
              kernels_(pass.kernels_),
              points_(pass.u_step_ * pass.v_count_),
              strip_(static_cast<std::size_t>(plane_parts * pass.k_ * kernels_.strip)),
              x_terms_(static_cast<std::size_t>(plane_monomials * kernels_.strip)),
              quadratics_(static_cast<std::size_t>(kernels_.strip * plane_monomials * plane_columns)),
              top_(static_cast<std::size_t>(kernels_.strip * points_)),
              sum_(static_cast<std::size_t>(kernels_.strip * points_)),
              whole_(static_cast<std::size_t>(points_)),
              rest_(whole_.size()),
              all_whole_(whole_.size()),
              all_rest_(whole_.size()) {}

        // One block of rows at the points from u on; only one of the results is not null.
        void visit(Index block, Index u, bool polls, double* losses, PowerSum* powers) {
            u_ = u;
            u_count_ = std::min(pass_.u_step_, pass_.plane_.u.size - u);
            const Index end = std::min((block + 1) * block_rows, pass_.n_);
            for (Index i = block * block_rows; i < end; i += kernels_.strip) {
                const Index rows = std::min(kernels_.strip, end - i);
                if (!sum(i, rows, polls)) return;
                losses ? add_losses(i, rows, losses) : add_powers(i, rows, powers);
            }
        }

       private:
        // The log-sum-exps of a strip of rows over all columns.
        bool sum(Index i, Index rows, bool polls) {
            const LogitPlane<T>& plane = pass_.plane_;
            const T* parts[plane_parts];
            for (Index part = 0; part < plane_parts; ++part) parts[part] = plane.x[part].row(i);
            kernels_.pack_strip(parts, rows, pass_.k_, strip_.data());
            for (Index p = 0; p < plane_monomials; ++p) {
                std::copy_n(plane.x_terms.row(p) + i, rows, x_terms_.data() + p * kernels_.strip);
            }
            std::fill(top_.begin(), top_.end(), lowest_logit<T>);
            std::fill(sum_.begin(), sum_.end(), 0.0);
            const PlaneAxes<T> axes{pass_.u_.data() + u_, u_count_, pass_.v_.data(), pass_.v_count_};
            for (Index j = 0; j < pass_.n_; j += plane_columns) {
                if (polls && pass_.poll_()) pass_.stop_.store(true);
                if (pass_.stop_.load()) return false;
                kernels_.quadratics(strip_.data(), pass_.panels_.data() + j * plane_parts * pass_.k_, pass_.k_,
                                    x_terms_.data(), pass_.y_terms_.data() + j * plane_monomials, quadratics_.data());
                const Index count = std::min(plane_columns, pass_.n_ - j);
                for (Index r = 0; r < rows; ++r) {
                    const Index own = i + r - j, skip = own >= 0 && own < count ? own : count;
                    kernels_.sum(quadratics_.data() + r * plane_monomials * plane_columns, count, skip, axes,
                                 top_.data() + r * points_, sum_.data() + r * points_);
                }
            }
            return true;
        }

        void excess(Index i, Index r) {
            double positives[plane_monomials];
            for (Index p = 0; p < plane_monomials; ++p) positives[p] = pass_.plane_.positives(p, i + r);
            const PlaneAxes<double> axes{pass_.plane_.u.data + u_, u_count_, pass_.wide_v_.data(), pass_.v_count_};
            kernels_.excess(top_.data() + r * points_, sum_.data() + r * points_, positives, axes, whole_.data(),
                            rest_.data());
        }

        // A sum of logarithms is that of a product: one logarithm for a strip, (1 + a)(1 + b) - 1 = a + b + a b.
        void add_losses(Index i, Index rows, double* losses) {
            std::fill(all_whole_.begin(), all_whole_.end(), 0.0);
            std::fill(all_rest_.begin(), all_rest_.end(), 0.0);
            for (Index r = 0; r < rows; ++r) {
                excess(i, r);
                for (std::size_t e = 0; e < rest_.size(); ++e) {
                    all_whole_[e] += whole_[e];
                    all_rest_[e] += rest_[e] + all_rest_[e] * rest_[e];
                }
            }
            const Index points = u_count_ * pass_.v_count_;
            for (Index e = 0; e < points; ++e) {
                const auto at = static_cast<std::size_t>(e);
                losses[e] += log2 * all_whole_[at] + std::log1p(all_rest_[at]);
            }
        }

        void add_powers(Index i, Index rows, PowerSum* powers) {
            const LogitPlane<T>& plane = pass_.plane_;
            for (Index r = 0; r < rows; ++r) {
                excess(i, r);
                const auto c = [&](Index p) { return plane.offsets(p, i + r); };
                for (Index a = 0; a < u_count_; ++a) {
                    const double u = plane.u[u_ + a];
                    for (Index b = 0; b < plane.v.size; ++b) {
                        const double v = plane.v[b];
                        const Index e = a * pass_.v_count_ + b;
                        const double offset =
                            c(0) + u * (c(1) + u * c(3)) + v * (c(2) + u * c(4) + v * c(5));
                        const auto at = static_cast<std::size_t>(e);
                        powers[e].add(log2 * (offset + whole_[at]) + std::log1p(rest_[at]));
                    }
                }
            }
        }

        PlanePass& pass_;
        const PlaneKernels<T>& kernels_;
        const Index points_;
        Index u_ = 0, u_count_ = 0;
        AlignedBuffer<T> strip_;
        std::vector<T> x_terms_, quadratics_, top_;
        std::vector<double> sum_, whole_, rest_, all_whole_, all_rest_;
    };

    const LogitPlane<T> plane_;
    const PlaneKernels<T>& kernels_;
    const int num_threads_;
    Poll& poll_;
    const Index n_, k_, column_blocks_, row_blocks_, v_count_, u_step_;
    std::vector<T> u_, v_;
    std::vector<double> wide_v_;
    AlignedBuffer<T> panels_, y_terms_;
    std::atomic<bool> stop_{false};
};

// The loss at every point of a grid: mean_i log(1 + sum_{j != i} 2^(logit_ij - positive_i)); with offsets, joined before
// the logarithm is taken: log mean_i exp(log 2 offset_i + the same logarithm). Returns whether it came to the end.
template <class T, class Poll>
bool plane_losses(const LogitPlane<T>& plane,
                  MatrixView<double> out,  // (u, v)
                  int num_threads, Poll& poll) {
    return PlanePass<T, Poll>(plane, num_threads, poll).run(out);
}

}  // namespace pyssl
