// What the pencil kernels compiled once per instruction set (isa.hpp) and the code that calls them agree on.
#pragma once

#include <cstddef>

#include "views.hpp"

namespace pyssl {

// Pencils (B, S) of symmetric matrices; both triangles are read and averaged.
template <class T>
struct PencilBatch {
    Index d;
    const T* forms;    // (N, d, d) B
    const T* metrics;  // (N, d, d) S, or (1, d, d), or null: the identity
    bool shared;       // whether there is one S for all
};

// The first matrix of a batch that the kernels have no answer for; -1 where there is none. What stands in its place is
// not specified; the others are as they would be without it.
struct PencilFaults {
    Index form = -1;        // B not finite, or not symmetric within rounding
    Index metric = -1;      // S not finite, or not symmetric within rounding
    Index indefinite = -1;  // S not positive definite at numerical rank

    void merge(const PencilFaults& other) {
        earliest(form, other.form);
        earliest(metric, other.metric);
        earliest(indefinite, other.indefinite);
    }
    static void earliest(Index& first, Index found) {
        if (found >= 0 && (first < 0 || found < first)) first = found;
    }
};

// Matrices are taken `group` at a time; `begin` must be a multiple of it. Scratch must be aligned for vectors and hold
// scratch_size(d) numbers.
template <class T>
struct PencilKernels {
    Index group;
    std::size_t (*scratch_size)(std::size_t d);
    void (*eigenvalues)(const PencilBatch<T>& batch,
                        T* values,               // (N, d), descending
                        Index begin, Index end,  // which of the N
                        T* scratch, PencilFaults& faults);
    void (*eigh)(const PencilBatch<T>& batch,
                 T* values,   // (N, d), descending
                 T* vectors,  // (N, d, d), as columns
                 Index begin, Index end, T* scratch, PencilFaults& faults);
    // How many eigenvalues of B lie above a tolerance, within it, and below minus it.
    void (*inertia)(const PencilBatch<T>& batch,
                    const double* tolerance,  // (N,) or null: d eps ||B||
                    Index* counts,            // (N, 3)
                    Index begin, Index end, T* scratch, PencilFaults& faults);
};

}  // namespace pyssl
