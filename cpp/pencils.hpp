// Many small symmetric problems at once: eigenvalues, eigenvectors and inertia of B, or of the pencil (B, S) with S
// positive definite (theory 2.2, 2.4, 2.5).
//
//     B v = lambda S v,   v'Sv = 1;   S = L L', L^-1 B L^-T = Q T Q', T tridiagonal, QL on T; or Sturm counts of T.
#pragma once

#include <atomic>
#include <mutex>

#include "isa.hpp"
#include "parallel.hpp"
#include "pencils_kernels.hpp"
#include "views.hpp"

namespace pyssl {

#define PYSSL_DECLARE(ISA)                             \
    namespace ISA {                                    \
    extern const PencilKernels<float> pencil_float;    \
    extern const PencilKernels<double> pencil_double;  \
    }
PYSSL_FOR_EACH_ISA(PYSSL_DECLARE)
#undef PYSSL_DECLARE

inline const PencilKernels<float>& pencil_kernels(float) { return PYSSL_SELECT(pencil_float); }
inline const PencilKernels<double>& pencil_kernels(double) { return PYSSL_SELECT(pencil_double); }

// Runs kernel(kernels, begin, end, scratch, faults) over `size` matrices (d, d). Stops early once poll(), which only the
// calling thread asks, says so, and returns whether it came to the end.
template <class T, class Kernel, class Poll>
bool for_each_pencil(Index size, Index d, int num_threads, PencilFaults& faults, Poll& poll, const Kernel& kernel) {
    const PencilKernels<T>& kernels = pencil_kernels(T{});
    const Index group = kernels.group, groups = (size + group - 1) / group;
    // About 2^21 multiplications a thread: some hundred microseconds.
    const double work = 4.0 * static_cast<double>(d) * static_cast<double>(d + 4) * static_cast<double>(d) *
                        static_cast<double>(group);
    const Index grain = static_cast<Index>(2097152.0 / (work + 1.0)) + 1;
    std::atomic<bool> stop{false};
    std::mutex merging;
    parallel_for(groups, num_threads, grain, [&](Index begin, Index end) {
        const AlignedBuffer<T> scratch(kernels.scratch_size(static_cast<std::size_t>(d)));
        PencilFaults found;
        for (Index g = begin; g < end && !stop.load(std::memory_order_relaxed); g += grain) {
            kernel(kernels, g * group, std::min({(g + grain) * group, end * group, size}), scratch.data(), found);
            if (begin == 0 && poll()) stop.store(true);
        }
        const std::lock_guard<std::mutex> lock(merging);
        faults.merge(found);
    });
    return !stop.load();
}

}  // namespace pyssl
