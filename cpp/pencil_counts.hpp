// Sturm counts of tridiagonal matrices, one per lane, and eigenvalues that they confirm or correct.
//
// Only for files compiled once per instruction set (isa.hpp).
#pragma once

#include "pencil_lanes.hpp"

namespace pyssl::PYSSL_ISA {
namespace {

// How many eigenvalues of T (sign 1) or -T (sign -1) lie above each of K bounds; what equals a bound is not above it.
//
// Leading minors p of sign T - bound by their recurrence of three terms, without a division: each agreement of signs is
// an eigenvalue above. The counts are those of a T that differs by rounding in each entry. A minor that vanishes beside
// the one before is replaced by one that is too small to matter; now and then both are scaled.
template <int K, class T>
PYSSL_INLINE void count_above(const Lanes<T>* diag,   // (d,)
                              const Lanes<T>* off,    // (d,)
                              Index d,                //
                              const T* sign,          // (K,)
                              const Lanes<T>* bound,  // (K,)
                              Mask<T>* above) {       // (K,)
    constexpr T least = Precision<T>::vanishing;
    constexpr int sign_bit = sizeof(T) * 8 - 1;
    Lanes<T> minor[K], before[K];
#pragma GCC unroll 4
    for (int k = 0; k < K; ++k) {
        minor[k] = Lanes<T>{} + T(1);
        before[k] = Lanes<T>{};
        above[k] = Mask<T>{} + typename Precision<T>::Integer(d);
    }
    Lanes<T> square{};
    for (Index i = 0; i < d; ++i) {
        const Lanes<T> a = diag[i];
        const bool scaled = i % Precision<T>::steps == Precision<T>::steps - 1;
#pragma GCC unroll 4
        for (int k = 0; k < K; ++k) {
            Lanes<T> next = -square * before[k];
            next += (sign[k] * a - bound[k]) * minor[k];
            const Lanes<T> nothing = least * minor[k];
            next = magnitude<T>(next) <= magnitude<T>(nothing) ? -nothing : next;
            Mask<T> now, last;
            __builtin_memcpy(&now, &next, sizeof now);
            __builtin_memcpy(&last, &minor[k], sizeof last);
            above[k] += (now ^ last) >> sign_bit;
            before[k] = minor[k];
            minor[k] = next;
        }
        if (scaled) {
#pragma GCC unroll 4
            for (int k = 0; k < K; ++k) {
                Lanes<T> power, inverse;
                powers_of_two<T>(larger<T>(magnitude<T>(minor[k]), magnitude<T>(before[k])), false, power, inverse);
                minor[k] *= inverse;
                before[k] *= inverse;
            }
        }
        square = off[i] * off[i];
    }
}

// QL leaves errors that grow with d. Eigenvalues, descending, that Sturm counts do not confirm to 3 eps ||T|| are found
// by bisection; the others stay as they are, exact ones exact.
template <class T>
PYSSL_INLINE void refine(const Lanes<T>* diag,  // (d,)
                         const Lanes<T>* off,   // (d,)
                         Index d,
                         Lanes<T>* values) {  // (d,)
    using Integer = typename Precision<T>::Integer;
    constexpr T signs[4] = {1, 1, 1, 1};
    const Lanes<T> norm = larger<T>(magnitude<T>(values[0]), magnitude<T>(values[d - 1]));
    const Lanes<T> width = (T(3) * Precision<T>::eps) * norm;
    for (Index i = 0; i < d; i += 2) {
        const Index j = i + 1 < d ? i + 1 : i;
        const Lanes<T> bounds[4] = {values[i] - width, values[i] + width, values[j] - width, values[j] + width};
        Mask<T> above[4];
        count_above<4, T>(diag, off, d, signs, bounds, above);
        const Mask<T> low[2] = {above[0] <= Integer(i), above[2] <= Integer(j)};
        const Mask<T> high[2] = {above[1] > Integer(i), above[3] > Integer(j)};
        if (!any<T>(low[0] | high[0] | low[1] | high[1])) continue;
        Lanes<T> from[2], to[2];
#pragma GCC unroll 2
        for (int k = 0; k < 2; ++k) {
            const Lanes<T> value = values[k ? j : i];
            from[k] = low[k] ? value - T(64) * width : value + width;
            to[k] = low[k] ? value - width : value + T(64) * width;
        }
        for (int halving = 0; halving < 5; ++halving) {
            const Lanes<T> middle[2] = {T(0.5) * (from[0] + to[0]), T(0.5) * (from[1] + to[1])};
            count_above<2, T>(diag, off, d, signs, middle, above);
#pragma GCC unroll 2
            for (int k = 0; k < 2; ++k) {
                const Mask<T> lower = above[k] > Integer(k ? j : i);
                from[k] = lower ? middle[k] : from[k];
                to[k] = lower ? to[k] : middle[k];
            }
        }
        values[i] = (low[0] | high[0]) ? T(0.5) * (from[0] + to[0]) : values[i];
        values[j] = (low[1] | high[1]) ? T(0.5) * (from[1] + to[1]) : values[j];
    }
    for (Index i = 1; i < d; ++i) values[i] = values[i] < values[i - 1] ? values[i] : values[i - 1];
}

}  // namespace
}  // namespace pyssl::PYSSL_ISA
