// One softmax for each row of the logit matrix: InfoNCE with anchors on one side.
//
// What a row weighs depends on that row alone, so logits need to be made only once: 6 n^2 k flops for value and gradient.
// The rows go in waves of some blocks, whose powers 2^(logit - top) are kept until the columns' gradient has taken them.
// Columns go in chunks of a few blocks, each with log-sum-exps and a gradient of its own, which makes enough tasks for
// many threads. Sums are taken in the order of chunks and blocks: the bits depend neither on threads nor on waves.
#pragma once

#include <cmath>

#include "contrastive.hpp"

namespace pyssl {

// A log-sum-exp in the making, from those of chunks.
struct LogSum {
    double top, sum = 0.0;

    void add(double other_top, double other_sum) {
        const double highest = std::max(top, other_top);
        sum = scaled(sum, top - highest) + scaled(other_sum, other_top - highest);
        top = highest;
    }
    double log() const { return sum > 0.0 ? top + std::log2(sum) : -std::numeric_limits<double>::infinity(); }

   private:
    static double scaled(double x, double exponent) { return exponent == 0.0 ? x : x * std::exp2(exponent); }
};

template <class T>
class OneSided {
   public:
    OneSided(const Contrast<T>& contrast, bool gradient)
        : contrast_(contrast),
          kernels_(contrastive_kernels(T{})),
          x_(kernels_, contrast.x, gradient, contrast.num_threads),
          y_(kernels_, contrast.y, gradient, contrast.num_threads),
          chunks_((y_.blocks + chunk_blocks - 1) / chunk_blocks) {}

    // log2 sum_j 2^(x_i.y_j) over the negatives of each row; -inf where there is none.
    template <class Poll>
    bool logs(VectorView<double> out,  // (n,)
              Poll& poll) const {
        const Index workers = worker_count(1, x_.blocks);
        const Scratch<T> scratch(workers);
        const auto body = [&](Index worker, Index, Index i) {
            std::vector<LogSum> rows(static_cast<std::size_t>(contrastive_block), LogSum{lowest()});
            Chunk chunk;
            for (Index c = 0; c < chunks_; ++c) {
                chunk.clear(lowest());
                for (Index j = first(c); j < first(c + 1); ++j) {
                    const LogitBlock<T> block = logit_block(contrast_, x_, y_, i, j);
                    if (contrast_.small) {
                        kernels_.sum(block, chunk.sums, nullptr, scratch[worker]);
                    } else {
                        kernels_.log_sum(block, {chunk.tops, chunk.sums}, {nullptr, nullptr}, scratch[worker]);
                    }
                }
                for (std::size_t e = 0; e < rows.size(); ++e) {
                    rows[e].add(static_cast<double>(chunk.tops[e]), chunk.sums[e]);
                }
            }
            const Index begin = i * contrastive_block, present = std::min(contrastive_block, out.size - begin);
            for (Index e = 0; e < present; ++e) out[begin + e] = rows[static_cast<std::size_t>(e)].log();
        };
        return run_steps({x_.blocks}, workers, body, poll);
    }

    // The same, and the gradients by x and y of the mean over rows of log(1 + 2^(log_i - positive_i)), times `factor` n,
    // with what a Finish does to its rows. A gradient may take the place of its rows.
    template <class Poll>
    bool gradient(VectorView<const double> positives,  // (n,) the logits of the pairs (i, i)
                  const Projection& x_projection, const Projection& y_projection, double factor,
                  VectorView<double> logs,   // (n,)
                  MatrixView<T> x_gradient,  // (n, k)
                  MatrixView<T> y_gradient,  // (n, k)
                  Poll& poll) const {
        const Index blocks = y_.blocks, padded = x_.padded, n = x_.n;
        const Index wave = std::min(x_.blocks, std::max<Index>(1, wave_bytes / (blocks * weight_area * Index{sizeof(T)})));
        const Index waves = (x_.blocks + wave - 1) / wave;

        const AlignedBuffer<T> powers(size(wave * blocks * weight_area), Fill::none);  // (wave, blocks, block, block)
        const AlignedBuffer<T> tops(size(wave * blocks * contrastive_block));   // (wave, blocks, block) of the powers
        std::vector<Chunk> chunks(size(wave * chunks_));
        const AlignedBuffer<T> partial(size(wave * chunks_ * contrastive_block * padded), Fill::none);
        // of the rows of a wave, whose powers weigh a 2^(top - u)
        const AlignedBuffer<T> a(size(wave * contrastive_block)), u(size(wave * contrastive_block));
        const AlignedBuffer<T> gy(size(y_.padded_rows() * padded), Fill::none);
        std::vector<double> pull(size(n));  // the weights of the positives

        const RowFinish<T> finish_x(x_, y_, 0, {{pull.data(), n}, x_projection}, factor);
        const RowFinish<T> finish_y(y_, x_, 0, {{pull.data(), n}, y_projection}, factor);

        constexpr Index task_rows = contrastive_block / 4;
        std::vector<Index> sizes;
        const auto wave_size = [&](Index w) { return std::min(wave, x_.blocks - w * wave); };
        for (Index w = 0; w < waves; ++w) {
            sizes.insert(sizes.end(), {wave_size(w) * chunks_, wave_size(w) * 4, blocks});
        }
        const Index workers = worker_count(3, std::max(wave * chunks_, blocks));
        const Scratch<T> scratch(workers);

        const auto attend = [&](Index worker, Index w, Index task) {
            const Index i = task / chunks_, c = task % chunks_, height = wave_size(w);
            Chunk& chunk = chunks[size(task)];
            chunk.clear(lowest());
            T* sums = partial.data() + task * contrastive_block * padded;
            std::fill_n(sums, contrastive_block * padded, T(0));
            for (Index j = first(c); j < first(c + 1); ++j) {
                const Index at = j * height + i;
                kernels_.attend(logit_block(contrast_, x_, y_, w * wave + i, j), contrast_.small,
                                {chunk.tops, chunk.sums}, y_.columns(j), powers.data() + at * weight_area, sums,
                                scratch[worker]);
                std::copy_n(chunk.tops, contrastive_block, tops.data() + at * contrastive_block);
            }
        };
        const auto finish_rows = [&](Index w, Index task) {
            std::vector<T> sums(size(padded));
            typename RowFinish<T>::Space space(x_.k);
            for (Index row = task * task_rows; row < (task + 1) * task_rows; ++row) {
                const Index i = row / contrastive_block, e = row % contrastive_block, anchor = w * wave * contrastive_block + row;
                if (anchor >= n) break;
                const Chunk* own = chunks.data() + i * chunks_;
                LogSum total{lowest()};
                for (Index c = 0; c < chunks_; ++c) total.add(static_cast<double>(own[c].tops[e]), own[c].sums[e]);
                logs[anchor] = total.log();
                const double share = expit(log2 * (logs[anchor] - positives[anchor]));
                const double weight = total.sum > 0.0 ? share / total.sum : 0.0;
                pull[size(anchor)] = -share;
                a.data()[row] = static_cast<T>(weight);
                u.data()[row] = static_cast<T>(total.top);

                std::fill(sums.begin(), sums.end(), T(0));
                for (Index c = 0; c < chunks_; ++c) {
                    const double scale = weight * std::exp2(static_cast<double>(own[c].tops[e]) - total.top);
                    const T* source = partial.data() + ((i * chunks_ + c) * contrastive_block + e) * padded;
                    for (Index p = 0; p < padded; ++p) sums[size(p)] += static_cast<T>(scale) * source[p];
                }
                finish_x(anchor, sums.data(), x_gradient.row(anchor), space);
            }
        };
        const auto attend_back = [&](Index worker, Index w, Index j) {
            T* sums = gy.data() + j * contrastive_block * padded;
            if (w == 0) std::fill_n(sums, contrastive_block * padded, T(0));
            for (Index i = 0; i < wave_size(w); ++i) {
                const Index at = j * wave_size(w) + i, row = i * contrastive_block;
                kernels_.attend_back(logit_block(contrast_, x_, y_, w * wave + i, j), powers.data() + at * weight_area,
                                     tops.data() + at * contrastive_block, a.data() + row, u.data() + row,
                                     x_.columns(w * wave + i), sums, scratch[worker]);
            }
            if (w + 1 < waves) return;
            typename RowFinish<T>::Space space(x_.k);
            for (Index e = j * contrastive_block; e < std::min(y_.n, (j + 1) * contrastive_block); ++e) {
                finish_y(e, gy.data() + e * padded, y_gradient.row(e), space);
            }
        };
        const auto body = [&](Index worker, Index step, Index task) {
            const Index w = step / 3;
            if (step % 3 == 0) {
                attend(worker, w, task);
            } else if (step % 3 == 1) {
                finish_rows(w, task);
            } else {
                attend_back(worker, w, task);
            }
        };
        return run_steps(sizes, workers, body, poll);
    }

   private:
    static constexpr double log2 = 0.69314718055994530942;
    static constexpr Index chunk_blocks = 3;
    static constexpr Index wave_bytes = Index{8} << 20;

    struct Chunk {
        T tops[contrastive_block];
        double sums[contrastive_block];

        void clear(T top) {
            std::fill_n(tops, contrastive_block, top);
            std::fill_n(sums, contrastive_block, 0.0);
        }
    };

    static std::size_t size(Index n) { return static_cast<std::size_t>(n); }
    static double expit(double t) {
        const double e = std::exp(-std::fabs(t));
        return (t >= 0.0 ? 1.0 : e) / (1.0 + e);
    }
    // Where tops begin; those of small logits stay there.
    T lowest() const { return contrast_.small ? T(0) : lowest_logit<T>; }
    Index first(Index chunk) const { return std::min(y_.blocks, chunk * chunk_blocks); }
    Index worker_count(Index products, Index most) const {
        const double flops = 2.0 * static_cast<double>(products) * static_cast<double>(x_.n) *
                             static_cast<double>(y_.n) * static_cast<double>(x_.k);
        return std::min({Index{resolve_num_threads(contrast_.num_threads)}, most, worth_threads(flops)});
    }

    const Contrast<T> contrast_;
    const ContrastiveKernels<T>& kernels_;
    const PackedRows<T> x_, y_;
    const Index chunks_;
};

}  // namespace pyssl
