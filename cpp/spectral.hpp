// The quartic spectral landscape (theory 2 with r(n) = q n^2) of many small W at once:
//
//     L(W) = -Tr[W B W'] + q Tr[P P],   P = W S W',
//     gradient = -2 W B + 4 q P W S,
//     hvp along D = -2 D B + 4 q (dP W S + P D S),   dP = D S W' + W S D'.
//
// B (signal) and S (scale) are symmetric; the formulas use it and nothing checks it here.
#pragma once

#include "isa.hpp"
#include "parallel.hpp"
#include "spectral_kernels.hpp"
#include "views.hpp"

namespace pyssl {

#define PYSSL_DECLARE(ISA)                                \
    namespace ISA {                                       \
    extern const QuarticKernels<float> quartic_float;     \
    extern const QuarticKernels<double> quartic_double;   \
    }
PYSSL_FOR_EACH_ISA(PYSSL_DECLARE)
#undef PYSSL_DECLARE

inline const QuarticKernels<float>& quartic_kernels(float) { return PYSSL_SELECT(quartic_float); }
inline const QuarticKernels<double>& quartic_kernels(double) { return PYSSL_SELECT(quartic_double); }

// Runs one of the kernels above over the whole batch, on whole tiles of `lanes` W's.
template <class T, class Kernel>
void for_each_quartic_tile(BatchView<const T> weights,     // (N, k, d)
                           MatrixView<const T> signal,     // (d, d)
                           MatrixView<const T> scale,      // (d, d)
                           double q, int num_threads, const Kernel& kernel) {
    const QuarticKernels<T>& kernels = quartic_kernels(T{});
    const Index k = weights.rows, d = weights.columns, lanes = kernels.lanes;

    // Scaling B by a power of two loses nothing and saves a multiplication per entry of the gradient.
    const AlignedBuffer<T> minus_twice_signal(static_cast<std::size_t>(d * d));
    for (Index i = 0; i < d * d; ++i) minus_twice_signal.data()[i] = T(-2) * signal.data[i];
    const QuarticProblem<T> problem{k, d, minus_twice_signal.data(), scale.data, q};

    // About 2^21 multiplications a thread: some hundred microseconds.
    const Index tiles = (weights.size + lanes - 1) / lanes;
    const double work = static_cast<double>(k) * static_cast<double>(d + k) * static_cast<double>(d) * 2.0 *
                        static_cast<double>(lanes);
    const Index grain = static_cast<Index>(2097152.0 / (work + 1.0)) + 1;

    parallel_for(tiles, num_threads, grain, [&](Index begin, Index end) {
        const AlignedBuffer<T> scratch(kernels.scratch_size(static_cast<std::size_t>(k), static_cast<std::size_t>(d)));
        kernel(kernels, problem, begin * lanes, std::min(end * lanes, weights.size), scratch.data());
    });
}

template <class T>
void quartic_value(BatchView<const T> weights,  // (N, k, d)
                   MatrixView<const T> signal,  // (d, d)
                   MatrixView<const T> scale,   // (d, d)
                   double q,
                   VectorView<T> value,  // (N,)
                   int num_threads) {
    for_each_quartic_tile(weights, signal, scale, q, num_threads,
                          [&](const auto& kernels, const auto& problem, Index begin, Index end, T* scratch) {
                              kernels.value(problem, weights.data, value.data, begin, end, scratch);
                          });
}

template <class T>
void quartic_value_and_gradient(BatchView<const T> weights,  // (N, k, d)
                                MatrixView<const T> signal,  // (d, d)
                                MatrixView<const T> scale,   // (d, d)
                                double q,
                                VectorView<T> value,    // (N,)
                                BatchView<T> gradient,  // (N, k, d)
                                int num_threads) {
    for_each_quartic_tile(weights, signal, scale, q, num_threads,
                          [&](const auto& kernels, const auto& problem, Index begin, Index end, T* scratch) {
                              kernels.value_and_gradient(problem, weights.data, value.data, gradient.data, begin, end,
                                                         scratch);
                          });
}

template <class T>
void quartic_hvp(BatchView<const T> weights,     // (N, k, d)
                 BatchView<const T> directions,  // (N, k, d)
                 MatrixView<const T> signal,     // (d, d)
                 MatrixView<const T> scale,      // (d, d)
                 double q,
                 BatchView<T> out,  // (N, k, d)
                 int num_threads) {
    for_each_quartic_tile(weights, signal, scale, q, num_threads,
                          [&](const auto& kernels, const auto& problem, Index begin, Index end, T* scratch) {
                              kernels.hvp(problem, weights.data, directions.data, out.data, begin, end, scratch);
                          });
}

}  // namespace pyssl
