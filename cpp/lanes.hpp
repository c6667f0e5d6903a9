// One small problem per lane of a vector register. `Lanes<T>` holds the same entry of several consecutive problems;
// arithmetic on it does the same to each, so that what a problem gives does not depend on its place in the batch.
//
// Only for files compiled once per instruction set (isa.hpp); everything here has internal linkage for that reason.
#pragma once

#include "views.hpp"

#define PYSSL_INLINE inline __attribute__((always_inline))
#define PYSSL_LAMBDA __attribute__((always_inline))

namespace pyssl::PYSSL_ISA {
namespace {

template <class T>
struct LanesOf {
    static constexpr int count = PYSSL_VECTOR_BYTES / sizeof(T);
    typedef T type __attribute__((vector_size(PYSSL_VECTOR_BYTES)));
    typedef T unaligned __attribute__((vector_size(PYSSL_VECTOR_BYTES), aligned(alignof(T)), may_alias));
};

template <class T>
using Lanes = typename LanesOf<T>::type;

template <class T>
constexpr int lane_count = LanesOf<T>::count;

template <class T>
PYSSL_INLINE Lanes<T> load(const T* source) {
    return *reinterpret_cast<const typename LanesOf<T>::unaligned*>(source);
}

template <class T>
PYSSL_INLINE void store(T* target, Lanes<T> x) {
    *reinterpret_cast<typename LanesOf<T>::unaligned*>(target) = x;
}

template <int... I>
struct Sequence {};

template <int N, int... I>
struct MakeSequence : MakeSequence<N - 1, N - 1, I...> {};

template <int... I>
struct MakeSequence<0, I...> {
    using type = Sequence<I...>;
};

// Swaps the off-diagonal H x H blocks of the rows (a, b), which lie H apart.
template <class T, int H, int... I>
PYSSL_INLINE void exchange(Lanes<T>& a, Lanes<T>& b, Sequence<I...>) {
    constexpr int L = lane_count<T>;
    const Lanes<T> low = __builtin_shufflevector(a, b, ((I & H) ? L + I - H : I)...);
    const Lanes<T> high = __builtin_shufflevector(a, b, ((I & H) ? L + I : I + H)...);
    a = low;
    b = high;
}

template <class T, int H = lane_count<T> / 2>
PYSSL_INLINE void transpose(Lanes<T>* x) {  // (L,) vectors of L lanes
    constexpr int L = lane_count<T>;
#pragma GCC unroll 16
    for (int i = 0; i < L; ++i) {
        if (!(i & H)) exchange<T, H>(x[i], x[i + H], typename MakeSequence<L>::type{});
    }
    if constexpr (H > 1) transpose<T, H / 2>(x);
}

// Brings L consecutive problems of n numbers each into lanes.
template <class T>
PYSSL_INLINE void gather(const T* source,    // (L, n)
                         Index n,            //
                         Lanes<T>* target    // (n,)
) {
    constexpr int L = lane_count<T>;
    Index e = 0;
    for (; e + L <= n; e += L) {
        Lanes<T> x[L];
#pragma GCC unroll 16
        for (int l = 0; l < L; ++l) x[l] = load(source + l * n + e);
        transpose<T>(x);
#pragma GCC unroll 16
        for (int l = 0; l < L; ++l) target[e + l] = x[l];
    }
    for (; e < n; ++e) {
        for (int l = 0; l < L; ++l) target[e][l] = source[l * n + e];
    }
}

template <class T>
PYSSL_INLINE void scatter(const Lanes<T>* source,  // (n,)
                          Index n,                 //
                          T* target                // (L, n)
) {
    constexpr int L = lane_count<T>;
    Index e = 0;
    for (; e + L <= n; e += L) {
        Lanes<T> x[L];
#pragma GCC unroll 16
        for (int l = 0; l < L; ++l) x[l] = source[e + l];
        transpose<T>(x);
#pragma GCC unroll 16
        for (int l = 0; l < L; ++l) store(target + l * n + e, x[l]);
    }
    for (; e < n; ++e) {
        for (int l = 0; l < L; ++l) target[l * n + e] = source[e][l];
    }
}

// A sum in double, lane by lane, whatever T is.
template <class T>
struct DoubleSum;

template <>
struct DoubleSum<double> {
    Lanes<double> sum{};

    static PYSSL_INLINE Lanes<double> wide(const double* source) { return load(source); }
    PYSSL_INLINE void set(const double* source) { sum = load(source); }  // (L,)
    PYSSL_INLINE void add(Lanes<double> x) { sum += x; }
    PYSSL_INLINE void get(double* target) const { store(target, sum); }  // (L,)
};

template <>
struct DoubleSum<float> {
    static constexpr int half = lane_count<float> / 2;
    typedef float HalfLanes __attribute__((vector_size(PYSSL_VECTOR_BYTES / 2)));
    Lanes<double> low{}, high{};

    template <int First, int... I>
    static PYSSL_INLINE Lanes<double> widen(Lanes<float> x, Sequence<I...>) {
        const HalfLanes part = __builtin_shufflevector(x, x, (First + I)...);
        return __builtin_convertvector(part, Lanes<double>);
    }
    // As many floats as there are lanes of doubles.
    static PYSSL_INLINE Lanes<double> wide(const float* source) {
        typedef float Unaligned __attribute__((vector_size(PYSSL_VECTOR_BYTES / 2), aligned(alignof(float)), may_alias));
        const HalfLanes part = *reinterpret_cast<const Unaligned*>(source);
        return __builtin_convertvector(part, Lanes<double>);
    }
    PYSSL_INLINE void set(const double* source) {  // (L,)
        low = load(source);
        high = load(source + half);
    }
    PYSSL_INLINE void add(Lanes<float> x) {
        using Half = typename MakeSequence<half>::type;
        low += widen<0>(x, Half{});
        high += widen<half>(x, Half{});
    }
    PYSSL_INLINE void get(double* target) const {  // (L,)
        store(target, low);
        store(target + half, high);
    }
};

// Calls body with n, 1 <= n <= Most, as a compile-time constant: the sizes of a register block.
template <int N>
struct Constant {
    static constexpr int value = N;
};

template <int Most, class Body>
PYSSL_INLINE void with_constant(Index n, const Body& body) {
    if constexpr (Most > 1) {
        if (n < Most) {
            with_constant<Most - 1>(n, body);
            return;
        }
    }
    body(Constant<Most>{});
}

}  // namespace
}  // namespace pyssl::PYSSL_ISA
