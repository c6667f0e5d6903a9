// 2^x in vectors. Only for files compiled once per instruction set (isa.hpp).
#pragma once

#include "lanes.hpp"

namespace pyssl::PYSSL_ISA {
namespace {

template <class T>
struct Exp2;

// Below these exponents the result would leave the normal numbers; it stays at the smallest one instead, which beside
// the terms that a log-sum-exp keeps is nothing.
template <>
struct Exp2<float> {
    typedef std::uint32_t Integer;
    static constexpr float lowest = -126.0F, magic = 12582912.0F;  // 1.5 2^23: adding it rounds to an integer
    static constexpr int mantissa = 23;
    // fitted on [-1/2, 1/2] for the relative error, 2e-9 before rounding
    static constexpr float c[] = {1.0F, 0.6931472028551294F, 0.24022647913619713F, 0.0555033247102584F,
                                  0.009618437358281065F, 0.001339887444579392F, 0.00015353361821284113F};
};

template <>
struct Exp2<double> {
    typedef std::uint64_t Integer;
    static constexpr double lowest = -1022.0, magic = 6755399441055744.0;
    static constexpr int mantissa = 52;
    // Taylor: the last term left out is below 1e-17 on [-1/2, 1/2]
    static constexpr double c[] = {1.0,
                                   0.69314718055994530942,
                                   0.24022650695910071233,
                                   0.055504108664821579953,
                                   0.0096181291076284771620,
                                   0.0013333558146428443423,
                                   0.00015403530393381609954,
                                   1.5252733804059840280e-05,
                                   1.3215486790144309488e-06,
                                   1.0178086009239699728e-07,
                                   7.0549116208011233299e-09,
                                   4.4455382718708114976e-10,
                                   2.5678435993488205142e-11,
                                   1.3691488853904128881e-12};
};

// 2^x for x <= about the largest exponent.
template <class T>
PYSSL_INLINE Lanes<T> exp2(Lanes<T> x) {
    using E = Exp2<T>;
    typedef typename E::Integer Integers __attribute__((vector_size(PYSSL_VECTOR_BYTES)));
    const Lanes<T> floor = Lanes<T>{} + E::lowest;
    x = x < floor ? floor : x;
    const Lanes<T> shifted = x + E::magic;
    const Lanes<T> f = x - (shifted - E::magic);
    constexpr int degree = sizeof(E::c) / sizeof(T) - 1;
    Lanes<T> polynomial = Lanes<T>{} + E::c[degree];
#pragma GCC unroll 16
    for (int i = degree - 1; i >= 0; --i) polynomial = polynomial * f + E::c[i];
    // the low bits of `shifted` are the integer part: into the exponent with them. Unsigned, for what a caller masks
    // afterwards may be too large to have a power.
    const Integers exponent = reinterpret_cast<Integers>(shifted) << E::mantissa;
    return reinterpret_cast<Lanes<T>>(reinterpret_cast<Integers>(polynomial) + exponent);
}

}  // namespace
}  // namespace pyssl::PYSSL_ISA
