// What the files compiled once per instruction set (isa.hpp) and the code that calls them agree on.
#pragma once

#include <cstddef>

#include "views.hpp"

namespace pyssl {

template <class T>
struct QuarticProblem {
    Index k, d;
    const T* minus_twice_signal;  // (d, d)
    const T* scale;               // (d, d)
    double q;
};

// Theory 2 with r(n) = q n^2; see spectral.hpp for the formulas. W's are taken `lanes` at a time. `begin` must be a multiple of
// lanes; scratch must be aligned for vectors and hold scratch_size(k, d) numbers.
template <class T>
struct QuarticKernels {
    Index lanes;
    std::size_t (*scratch_size)(std::size_t k, std::size_t d);
    void (*value)(const QuarticProblem<T>& problem,
                  const T* weights,        // (N, k, d)
                  T* value,                // (N,)
                  Index begin, Index end,  // which of the N
                  T* scratch);
    void (*value_and_gradient)(const QuarticProblem<T>& problem,
                               const T* weights,  // (N, k, d)
                               T* value,          // (N,)
                               T* gradient,       // (N, k, d)
                               Index begin, Index end, T* scratch);
    void (*hvp)(const QuarticProblem<T>& problem,
                const T* weights,     // (N, k, d)
                const T* directions,  // (N, k, d)
                T* out,               // (N, k, d)
                Index begin, Index end, T* scratch);
};

}  // namespace pyssl
