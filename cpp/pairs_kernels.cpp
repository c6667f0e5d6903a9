// The kernels behind pairs.hpp, compiled once per instruction set (isa.hpp).
#include "pairs_kernels.hpp"
#include "tiles.hpp"

namespace pyssl::PYSSL_ISA {
namespace {

constexpr int unit = gram_unit<double>;

// The middle (x + x+)/2 and the difference x - x+ of L columns, or of one: with the origin subtracted from both before
// they are added, equal rows have no scatter at all, and a large mean costs no digits.
template <class V>
struct Pair {
    V x, x_plus;

    PYSSL_INLINE V middle(V origin) const { return 0.5 * ((x - origin) + (x_plus - origin)); }
    PYSSL_INLINE V difference() const { return x - x_plus; }
};

template <class T>
PYSSL_INLINE Pair<Lanes<double>> lanes_at(const PairColumns<T>& s, Index row, Index c) {
    const Index at = row * s.stride + c;
    return {DoubleSum<T>::wide(s.x + at), DoubleSum<T>::wide(s.x_plus + at)};
}

template <class T>
PYSSL_INLINE Pair<double> entry_at(const PairColumns<T>& s, Index row, Index c) {
    const Index at = row * s.stride + c;
    return {static_cast<double>(s.x[at]), static_cast<double>(s.x_plus[at])};
}

template <int Rows, class T>
PYSSL_INLINE void add_rows(const PairColumns<T>& s, Index row, Index c, double* sums) {
    const Lanes<double> origin = load(s.origin + c);
    Lanes<double> sum = load(sums + c);
#pragma GCC unroll 8
    for (int r = 0; r < Rows; ++r) {
        // rows often lie a power of two apart, and then the machine's own forecast fails
        __builtin_prefetch(s.x + (row + Rows + r) * s.stride + c);
        __builtin_prefetch(s.x_plus + (row + Rows + r) * s.stride + c);
        sum += lanes_at(s, row + r, c).middle(origin);
    }
    store(sums + c, sum);
}

// A few rows at a time over all columns: sums in registers, and reads in the order of the memory.
template <class T>
void sum_rows(const PairColumns<T>& s, double* sums) {  // (count,)
    constexpr int L = lane_count<double>, group = 8;
    for (Index c = 0; c < s.count; ++c) sums[c] = 0.0;
    const Index whole = s.count / L * L;
    for (Index i = 0; i < s.rows; i += group) {
        const Index rows = smaller(group, s.rows - i);
        for (Index c = 0; c < whole; c += L) {
            if (rows == group) {
                add_rows<group>(s, i, c, sums);
            } else {
                for (Index r = 0; r < rows; ++r) add_rows<1>(s, i + r, c, sums);
            }
        }
        for (Index c = whole; c < s.count; ++c) {
            for (Index r = 0; r < rows; ++r) sums[c] += entry_at(s, i + r, c).middle(s.origin[c]);
        }
    }
}

template <bool Differences, class T>
void pack_rows_centred(const PairColumns<T>& s, const double* offset, double* middles, double* differences) {
    constexpr int L = lane_count<double>;
    for (Index i = 0; i < s.rows; ++i) {
        Index j = 0, at = i * unit;
        for (; j + unit <= s.count; j += unit, at += pair_depth * unit) {
#pragma GCC unroll 4
            for (int v = 0; v < gram_vectors; ++v) {
                const Index c = j + v * L;
                const Pair<Lanes<double>> pair = lanes_at(s, i, c);
                store(middles + at + v * L, pair.middle(load(s.origin + c)) - load(offset + c));
                if constexpr (Differences) store(differences + at + v * L, pair.difference());
            }
        }
        if (j < s.count) {
            for (Index c = 0; c < unit; ++c) {
                const bool inside = j + c < s.count;
                const Pair<double> pair = inside ? entry_at(s, i, j + c) : Pair<double>{};
                middles[at + c] = inside ? pair.middle(s.origin[j + c]) - offset[j + c] : 0.0;
                if constexpr (Differences) differences[at + c] = pair.difference();
            }
        }
    }
}

template <class T>
void pack(const PairColumns<T>& s, Index before, double* mean, double* middles, double* differences) {
    // at most as many columns as a task has
    double offset[pair_columns];
    sum_rows(s, offset);
    const auto n = static_cast<double>(before), m = static_cast<double>(s.rows);
    for (Index c = 0; c < s.count; ++c) offset[c] /= m;
    if (differences) {
        pack_rows_centred<true>(s, offset, middles, differences);
    } else {
        pack_rows_centred<false>(s, offset, middles, nullptr);
    }
    const double weight = __builtin_sqrt(n * m / (n + m)), share = m / (n + m);
    const Index padded = round_up(s.count, unit);
    for (Index c = 0; c < padded; ++c) {
        const double delta = c < s.count ? offset[c] - mean[c] : 0.0;
        middles[(c / unit * pair_depth + s.rows) * unit + c % unit] = weight * delta;
        if (c < s.count) mean[c] += share * delta;
    }
}

}  // namespace

extern const PairKernels<float> pair_float;
const PairKernels<float> pair_float{pack<float>};
extern const PairKernels<double> pair_double;
const PairKernels<double> pair_double{pack<double>};

}  // namespace pyssl::PYSSL_ISA
