// Symmetric eigenproblems, one per lane: reduction to tridiagonal form, QL iteration, Cholesky.
//
// Every lane goes through the same instructions. Where lanes differ in how often they iterate, those that are done keep
// what they have, so that a matrix gives the same bits whatever its neighbours are.
//
// A lower triangle is packed by rows: entry (r, c) is at r (r + 1)/2 + c. Matrices are scaled to entries of about 1, so
// that what is below `negligible` is lost in the rounding of anything else and its square root is too.
//
// Only for files compiled once per instruction set (isa.hpp).
#pragma once

#include "lanes.hpp"

namespace pyssl::PYSSL_ISA {
namespace {

template <class T>
using Mask = decltype(Lanes<T>{} < Lanes<T>{});

template <class T>
struct Precision;
template <>
struct Precision<double> {
    using Integer = std::int64_t;
    using Unsigned = std::uint64_t;
    static constexpr double eps = 0x1p-52;
    static constexpr double negligible = 0x1p-960;
    static constexpr double vanishing = 0x1p-120;  // to the power of `steps` it is still a number
    static constexpr int steps = 8;
    static constexpr int mantissa = 52, bias = 1023;
};
template <>
struct Precision<float> {
    using Integer = std::int32_t;
    using Unsigned = std::uint32_t;
    static constexpr float eps = 0x1p-23f;
    static constexpr float negligible = 0x1p-100f;
    static constexpr float vanishing = 0x1p-28f;
    static constexpr int steps = 4;
    static constexpr int mantissa = 23, bias = 127;
};

template <class T>
PYSSL_INLINE Lanes<T> square_root(Lanes<T> x) {
    Lanes<T> root;
#pragma GCC unroll 16
    for (int l = 0; l < lane_count<T>; ++l) {
        if constexpr (sizeof(T) == 8) {
            root[l] = __builtin_sqrt(x[l]);
        } else {
            root[l] = __builtin_sqrtf(x[l]);
        }
    }
    return root;
}

template <class T>
PYSSL_INLINE Lanes<T> magnitude(Lanes<T> x) {
    Mask<T> bits;
    __builtin_memcpy(&bits, &x, sizeof x);
    bits &= static_cast<typename Precision<T>::Integer>(~(typename Precision<T>::Unsigned(1) << (sizeof(T) * 8 - 1)));
    __builtin_memcpy(&x, &bits, sizeof x);
    return x;
}

template <class T>
PYSSL_INLINE Lanes<T> larger(Lanes<T> a, Lanes<T> b) {
    return a > b ? a : b;
}

template <class T>
PYSSL_INLINE bool any(Mask<T> mask) {
    typename Precision<T>::Integer found = 0;
#pragma GCC unroll 16
    for (int l = 0; l < lane_count<T>; ++l) found |= mask[l];
    return found != 0;
}

// The power of two not above x >= 0, and its inverse; both kept within the normal numbers.
template <class T>
PYSSL_INLINE void powers_of_two(Lanes<T> x, bool even, Lanes<T>& power, Lanes<T>& inverse) {
    using P = Precision<T>;
    using Integer = typename P::Integer;
    Mask<T> exponent;
    __builtin_memcpy(&exponent, &x, sizeof x);
    exponent >>= P::mantissa;
    if (even) exponent |= Integer(1);  // the bias is odd
    const Mask<T> most = Mask<T>{} + Integer(2 * P::bias - 1), least = Mask<T>{} + Integer(1);
    exponent = exponent > most ? most : exponent < least ? least : exponent;
    const Mask<T> bits = exponent << P::mantissa;
    const Mask<T> inverse_bits = (Integer(2 * P::bias) - exponent) << P::mantissa;
    __builtin_memcpy(&power, &bits, sizeof bits);
    __builtin_memcpy(&inverse, &inverse_bits, sizeof bits);
}

// A sum to twice the digits.
template <class T>
struct LongSum {
    Lanes<T> high{}, low{};

    PYSSL_INLINE void add(Lanes<T> x) {
        const Lanes<T> sum = high + x, part = sum - high;
        low += (high - (sum - part)) + (x - part);
        high = sum;
    }
    // x / this, in two parts.
    PYSSL_INLINE void divide(const LongSum& x, Lanes<T>& quotient, Lanes<T>& rest) const {
        quotient = x.high / high;
        Lanes<T> left = x.high;
        left -= quotient * high;
        left += x.low;
        left -= quotient * low;
        rest = left / high;
    }
};

PYSSL_INLINE Index packed(Index row) { return row * (row + 1) / 2; }

// ---- to tridiagonal form ---------------------------------------------------------------------------------------------

// With 32 registers (AVX-512) four rows and what they are multiplied with fit; with 16, only two.
constexpr int reflect_rows = PYSSL_VECTOR_BYTES == 64 ? 4 : 2;

// Rows first to first + R of A: A -= v w' + w v', and p += A x by the lower triangle alone.
template <int R, class T>
PYSSL_INLINE void reflect_and_multiply(Lanes<T>* a,         // packed
                                       Index first,         //
                                       const Lanes<T>* v,   // (first + R,)
                                       const Lanes<T>* w,   // (first + R,)
                                       const Lanes<T>* x,   // (first + R,)
                                       Lanes<T>* p) {       // (first + R,), the last R written, not read
    Lanes<T>* row[R];
    Lanes<T> vr[R], wr[R], xr[R], sum[R]{}, block[R]{};
#pragma GCC unroll 4
    for (int k = 0; k < R; ++k) {
        row[k] = a + packed(first + k);
        vr[k] = v[first + k];
        wr[k] = w[first + k];
        xr[k] = x[first + k];
    }
    for (Index c = 0; c < first; ++c) {
        const Lanes<T> vc = v[c], wc = w[c], xc = x[c];
        Lanes<T> pc = p[c];
#pragma GCC unroll 4
        for (int k = 0; k < R; ++k) {
            Lanes<T> entry = row[k][c];
            entry -= vr[k] * wc;
            entry -= wr[k] * vc;
            row[k][c] = entry;
            sum[k] += entry * xc;
            pc += entry * xr[k];
        }
        p[c] = pc;
    }
#pragma GCC unroll 4
    for (int c = 0; c < R; ++c) {
#pragma GCC unroll 4
        for (int k = c; k < R; ++k) {
            Lanes<T> entry = row[k][first + c];
            entry -= vr[k] * wr[c];
            entry -= wr[k] * vr[c];
            row[k][first + c] = entry;
            sum[k] += entry * xr[c];
            if (k > c) block[c] += entry * xr[k];
        }
    }
#pragma GCC unroll 4
    for (int k = 0; k < R; ++k) p[first + k] = sum[k] + block[k];
}

// A = Q T Q' by reflections I - t v v', from the last row up. The v of row i stays in that row of A, to the left of the
// diagonal; the update of A by one reflection and the product with the next are one pass.
//
// A reflection that is orthogonal only to rounding moves every eigenvalue that it touches by 4 times what t is off. So
// t = 2/v'v and the v'(tA)v/v'v of the update are kept to twice the digits: what is lost is then lost entry by entry.
template <class T>
PYSSL_INLINE void tridiagonalise(Lanes<T>* a,       // packed, overwritten
                                 Index d,           //
                                 Lanes<T>* work,    // (3, d)
                                 Lanes<T>* diag,    // (d,)
                                 Lanes<T>* off,     // (d,): off[i] couples i and i + 1, the last is 0
                                 Lanes<T>* factor)  // (d,) the t
{
    Lanes<T>* v = work;  // of the last reflection: as yet none
    Lanes<T>* w = work + d;
    Lanes<T>* p = work + 2 * d;
    for (Index i = 0; i < 2 * d; ++i) work[i] = Lanes<T>{};
    off[d - 1] = Lanes<T>{};
    for (Index i = d - 1; i > 0; --i) {
        Lanes<T>* x = a + packed(i);
        const Lanes<T> vi = v[i], wi = w[i];
        LongSum<T> square;  // of the part that the reflection removes, then of v
        for (Index c = 0; c < i; ++c) {
            Lanes<T> entry = x[c];
            entry -= vi * w[c];
            entry -= wi * v[c];
            x[c] = entry;
            if (c < i - 1) square.add(entry * entry);
        }
        diag[i] = x[i] - T(2) * vi * wi;
        const Lanes<T> head = x[i - 1], norm = square_root<T>(square.high + head * head);
        const Lanes<T> image = head > T(0) ? -norm : norm;
        const Mask<T> none = square.high <= Precision<T>::negligible;
        off[i - 1] = none ? head : image;
        x[i - 1] = head - image;
        square.add(x[i - 1] * x[i - 1]);
        square.high = none ? Lanes<T>{} + T(1) : square.high;
        const LongSum<T> two{Lanes<T>{} + T(2), Lanes<T>{}};
        Lanes<T> t, t_rest;
        square.divide(two, t, t_rest);
        t = none ? Lanes<T>{} : t;
        t_rest = none ? Lanes<T>{} : t_rest;
        factor[i] = t;

        for (Index r = 0; r + reflect_rows <= i; r += reflect_rows) {
            reflect_and_multiply<reflect_rows, T>(a, r, v, w, x, p);
        }
        for (Index r = i - i % reflect_rows; r < i; ++r) reflect_and_multiply<1, T>(a, r, v, w, x, p);
        LongSum<T> dot;
        for (Index c = 0; c < i; ++c) {
            const Lanes<T> rest = t_rest * p[c];
            p[c] = t * p[c] + rest;
            dot.add(p[c] * x[c]);
        }
        Lanes<T> along, along_rest;
        square.divide(dot, along, along_rest);
        for (Index c = 0; c < i; ++c) {
            Lanes<T> entry = p[c];
            entry -= along_rest * x[c];
            entry -= along * x[c];
            p[c] = entry;
        }
        v = x;
        Lanes<T>* const free = w;
        w = p;
        p = free;
    }
    diag[0] = a[0] - T(2) * v[0] * w[0];
}

// Z = Q of the function above. Columns in blocks, so that sums stay in registers.
template <int C, class T>
PYSSL_INLINE void reflect_columns(Lanes<T>* z,        // (n, C) of Z, rows `stride` apart
                                  Index n, Index stride,
                                  const Lanes<T>* v,  // (n,)
                                  Lanes<T> t) {
    Lanes<T> sum[C]{};
    for (Index k = 0; k < n; ++k) {
#pragma GCC unroll 8
        for (int c = 0; c < C; ++c) sum[c] += v[k] * z[k * stride + c];
    }
#pragma GCC unroll 8
    for (int c = 0; c < C; ++c) sum[c] *= t;
    for (Index k = 0; k < n; ++k) {
#pragma GCC unroll 8
        for (int c = 0; c < C; ++c) z[k * stride + c] -= v[k] * sum[c];
    }
}

template <class T>
PYSSL_INLINE void accumulate_reflections(const Lanes<T>* a,       // packed, from tridiagonalise
                                         const Lanes<T>* factor,  // (d,)
                                         Index d,
                                         Lanes<T>* z) {  // (d, d)
    for (Index i = 0; i < d * d; ++i) z[i] = Lanes<T>{};
    for (Index i = 0; i < d; ++i) z[i * d + i] = Lanes<T>{} + T(1);
    for (Index i = 2; i < d; ++i) {  // the reflection of row 1 is none: v has one entry
        Index c = 0;
        for (; c + 8 <= i; c += 8) reflect_columns<8, T>(z + c, i, d, a + packed(i), factor[i]);
        with_constant<8>(i - c + 1, [=](auto C) PYSSL_LAMBDA {
            if constexpr (C.value > 1) reflect_columns<C.value - 1, T>(z + c, i, d, a + packed(i), factor[i]);
        });
    }
}

// ---- QL --------------------------------------------------------------------------------------------------------------

// Where the groups of a QL iteration are: lanes have found the eigenvalues before `first`.
template <class T, int G>
struct Progress {
    Mask<T> first[G]{};
    Lanes<T> shift[G], floor[G];
    Index low[G]{};
};

// Moves `first` past what has converged and takes Wilkinson's shift at what has not; false when nothing is left.
template <class T, int G>
PYSSL_INLINE bool deflate(Progress<T, G>& progress,
                          const Lanes<T>* diag,  // (G, d)
                          const Lanes<T>* off,   // (G, d)
                          Index d) {
    using Integer = typename Precision<T>::Integer;
    bool left = false;
    for (int g = 0; g < G; ++g) {
        Mask<T> first = progress.first[g];
        Lanes<T> shift{};
        Index low = d - 1;
        for (Index i = progress.low[g]; i < d - 1; ++i) {
            const Mask<T> here = first == Integer(i);
            const Lanes<T> a = diag[g * d + i], b = diag[g * d + i + 1], e = off[g * d + i];
            // what rounding does to the two, or to the largest
            const Lanes<T> rounding = (Precision<T>::eps / 4) * (magnitude<T>(a) + magnitude<T>(b));
            const Lanes<T> small = larger<T>(progress.floor[g], rounding);
            const Mask<T> converged = magnitude<T>(e) <= small;
            const Lanes<T> half = T(0.5) * (b - a), root = square_root<T>(half * half + e * e);
            const Lanes<T> wilkinson = a - e * e / (half + (half < T(0) ? -root : root));
            first -= here & converged;  // a mask is -1
            shift = (here & ~converged) ? wilkinson : shift;
            if (low == d - 1 && any<T>(here & ~converged)) low = i;
            if (!any<T>(first > Integer(i))) break;
        }
        progress.first[g] = first;
        progress.shift[g] = shift;
        progress.low[g] = low;
        left |= low < d - 1;
    }
    return left;
}

// Eigenvalues of tridiagonal matrices by QL with explicit shifts: T - shift = Q L, T <- L Q + shift. A matrix that falls
// apart needs no care: the shift reaches every part. G groups of matrices, because each step waits for the one before.
// With Rotated, those rotations are applied to the columns of its matrix.
template <class T, int G, class Rotated>
PYSSL_INLINE void ql(Lanes<T>* diag,  // (G, d), the eigenvalues in the end
                     Lanes<T>* off,   // (G, d)
                     Index d, const Rotated& rotated) {
    using Integer = typename Precision<T>::Integer;
    Progress<T, G> progress;
    for (int g = 0; g < G; ++g) {
        Lanes<T> largest{};
        for (Index i = 0; i < d; ++i) {
            largest = larger<T>(largest, larger<T>(magnitude<T>(diag[g * d + i]), magnitude<T>(off[g * d + i])));
        }
        progress.floor[g] = (Precision<T>::eps / 16) * largest;
    }
    // 2 sweeps an eigenvalue are usual; the limit only keeps what is no number from going round for ever
    for (Index sweep = 0; sweep < 30 * d && deflate(progress, diag, off, d); ++sweep) {
        Index low = d - 1;
        for (int g = 0; g < G; ++g) low = progress.low[g] < low ? progress.low[g] : low;
        Lanes<T> pivot[G], gamma[G], c[G], s[G], last_diag[G], last_off[G];
#pragma GCC unroll 4
        for (int g = 0; g < G; ++g) {
            last_diag[g] = diag[g * d + d - 1];
            last_off[g] = Lanes<T>{};
            pivot[g] = gamma[g] = last_diag[g] - progress.shift[g];
            c[g] = Lanes<T>{} + T(1);
            s[g] = Lanes<T>{};
        }
        for (Index i = d - 2; i >= low; --i) {
#pragma GCC unroll 4
            for (int g = 0; g < G; ++g) {
                const Lanes<T> shift = progress.shift[g];
                const Mask<T> active = progress.first[g] <= Integer(i), ends = progress.first[g] == Integer(i);
                const Lanes<T> a = diag[g * d + i], e = off[g * d + i];
                Lanes<T> square = pivot[g] * pivot[g];
                square += e * e;
                const Mask<T> nothing = square <= Precision<T>::negligible;
                const Lanes<T> norm = nothing ? Lanes<T>{} : square_root<T>(square), inverse = T(1) / norm;
                const Lanes<T> cosine = nothing ? Lanes<T>{} + T(1) : pivot[g] * inverse;
                const Lanes<T> sine = nothing ? Lanes<T>{} : e * inverse;
                const Lanes<T> b = a - shift;
                Lanes<T> next = cosine * b;
                next -= sine * (c[g] * e);
                // cosine * next, from the smaller of the two squares alone: a rotation to all digits
                const Lanes<T> both = b + gamma[g], sine2 = sine * sine, cosine2 = cosine * cosine;
                Lanes<T> small_turn = b, large_turn = -gamma[g];
                small_turn -= sine2 * both;
                large_turn += cosine2 * both;
                const Lanes<T> next_gamma = sine2 < T(0.5) ? small_turn : large_turn;
                diag[g * d + i + 1] = active ? gamma[g] + (a - next_gamma) : last_diag[g];
                off[g * d + i + 1] = active ? s[g] * norm : last_off[g];
                last_diag[g] = ends ? shift + next_gamma : a;
                last_off[g] = ends ? sine * next : e;
                rotated.keep(i, active ? cosine : Lanes<T>{} + T(1), active ? sine : Lanes<T>{});
                pivot[g] = next;
                gamma[g] = next_gamma;
                c[g] = cosine;
                s[g] = sine;
            }
        }
#pragma GCC unroll 4
        for (int g = 0; g < G; ++g) {
            diag[g * d + low] = last_diag[g];
            off[g * d + low] = last_off[g];
        }
        rotated.apply(low);
    }
}

struct NotRotated {
    template <class Number>
    PYSSL_INLINE void keep(Index, Number, Number) const {}
    PYSSL_INLINE void apply(Index) const {}
};

template <int R, class T>
PYSSL_INLINE void rotate_rows(Lanes<T>* z,  // (R, d)
                              const Lanes<T>* cosine, const Lanes<T>* sine, Index low, Index d) {
    Lanes<T> upper[R];
#pragma GCC unroll 4
    for (int r = 0; r < R; ++r) upper[r] = z[r * d + d - 1];
    for (Index i = d - 2; i >= low; --i) {
        const Lanes<T> c = cosine[i], s = sine[i];
#pragma GCC unroll 4
        for (int r = 0; r < R; ++r) {
            const Lanes<T> lower = z[r * d + i];
            Lanes<T> turned = c * upper[r], rest = c * lower;
            turned += s * lower;
            rest -= s * upper[r];
            z[r * d + i + 1] = turned;
            upper[r] = rest;
        }
    }
#pragma GCC unroll 4
    for (int r = 0; r < R; ++r) z[r * d + low] = upper[r];
}

template <class T>
struct RotatedColumns {
    Lanes<T>* z;       // (d, d)
    Lanes<T>* cosine;  // (d,)
    Lanes<T>* sine;    // (d,)
    Index d;

    PYSSL_INLINE void keep(Index i, Lanes<T> c, Lanes<T> s) const {
        cosine[i] = c;
        sine[i] = s;
    }
    PYSSL_INLINE void apply(Index low) const {
        Index k = 0;
        for (; k + 4 <= d; k += 4) rotate_rows<4, T>(z + k * d, cosine, sine, low, d);
        for (; k < d; ++k) rotate_rows<1, T>(z + k * d, cosine, sine, low, d);
    }
};

// Calls exchange(i, j), i < j, for the comparisons that sort n numbers: Batcher's merge exchange.
template <class Exchange>
PYSSL_INLINE void sorting_network(Index n, const Exchange& exchange) {
    Index top = 1;
    while (2 * top < n) top *= 2;
    for (Index p = top; p > 0; p /= 2) {
        for (Index q = top, r = 0, distance = p;; distance = q - p, q /= 2, r = p) {
            for (Index i = 0; i + distance < n; ++i) {
                if ((i & p) == r) exchange(i, i + distance);
            }
            if (q == p) break;
        }
    }
}

// ---- the metric ------------------------------------------------------------------------------------------------------

// S = L L' in place. Returns the lanes in which S has a pivot within rounding of zero, and treats those pivots as 1.
template <class T>
PYSSL_INLINE Mask<T> cholesky(Lanes<T>* s, Index d) {  // packed
    Lanes<T> largest{};
    for (Index i = 0; i < d; ++i) largest = larger<T>(largest, s[packed(i) + i]);
    const Lanes<T> least = T(d) * Precision<T>::eps * largest;
    Mask<T> singular{};
    for (Index r = 0; r < d; ++r) {
        Lanes<T>* row = s + packed(r);
        Lanes<T> pivot = row[r];
        for (Index c = 0; c < r; ++c) {
            const Lanes<T>* other = s + packed(c);
            Lanes<T> sums[2] = {row[c], {}};
            for (Index m = 0; m < c; ++m) sums[m & 1] -= row[m] * other[m];
            row[c] = (sums[0] + sums[1]) / other[c];
            pivot -= row[c] * row[c];
        }
        const Mask<T> bad = ~(pivot > least);
        singular |= bad;
        row[r] = square_root<T>(bad ? Lanes<T>{} + T(1) : pivot);
    }
    return singular;
}

// A <- L^-1 A L^-T, column by column: the part of each that the columns before have made.
template <class T>
PYSSL_INLINE void congruence(Lanes<T>* a,        // packed
                             const Lanes<T>* l,  // packed
                             Index d,
                             Lanes<T>* column) {  // (d,)
    for (Index k = 0; k < d; ++k) {
        const Lanes<T> inverse = T(1) / l[packed(k) + k];
        const Lanes<T> corner = a[packed(k) + k] * inverse * inverse;
        const Lanes<T> half = T(-0.5) * corner;
        a[packed(k) + k] = corner;
        for (Index r = k + 1; r < d; ++r) {
            Lanes<T> entry = a[packed(r) + k] * inverse;
            entry += half * l[packed(r) + k];
            column[r] = entry;
        }
        for (Index r = k + 1; r < d; ++r) {
            const Lanes<T> ar = column[r], lr = l[packed(r) + k];
            Lanes<T>* row = a + packed(r);
            for (Index c = k + 1; c <= r; ++c) {
                Lanes<T> entry = row[c];
                entry -= ar * l[packed(c) + k];
                entry -= lr * column[c];
                row[c] = entry;
            }
        }
        for (Index r = k + 1; r < d; ++r) {
            const Lanes<T>* row = l + packed(r);
            Lanes<T> entry = column[r];
            entry += half * row[k];
            for (Index c = k + 1; c < r; ++c) entry -= row[c] * a[packed(c) + k];
            a[packed(r) + k] = entry / row[r];
        }
    }
}

// Z <- L^-T Z.
template <class T>
PYSSL_INLINE void solve_transposed(const Lanes<T>* l,  // packed
                                   Index d,
                                   Lanes<T>* z) {  // (d, d)
    for (Index k = d - 1; k >= 0; --k) {
        Lanes<T>* target = z + k * d;
        const Lanes<T> inverse = T(1) / l[packed(k) + k];
        for (Index j = 0; j < d; ++j) {
            Lanes<T> entry = target[j];
            for (Index m = k + 1; m < d; ++m) entry -= l[packed(m) + k] * z[m * d + j];
            target[j] = entry * inverse;
        }
    }
}

}  // namespace
}  // namespace pyssl::PYSSL_ISA
