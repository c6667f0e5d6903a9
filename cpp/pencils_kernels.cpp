// The groups behind pencils.hpp, compiled once per instruction set (isa.hpp).
#include "pencils_kernels.hpp"

#include "pencil_counts.hpp"
#include "pencil_lanes.hpp"

namespace pyssl::PYSSL_ISA {
namespace {

// Groups of lanes whose QL iterations run side by side.
constexpr int side_by_side = 4;

template <class T>
constexpr Index index_lanes = sizeof(Index) / sizeof(T);

template <class T>
struct Scratch {
    Lanes<T>*square, *form, *metric, *work, *diag, *off, *diag_copy, *off_copy, *factor, *stage;
    Index* order;  // (lanes, d)

    Scratch(T* memory, Index d) {
        auto* next = reinterpret_cast<Lanes<T>*>(memory);
        const auto take = [&next](Index n) PYSSL_LAMBDA {
            Lanes<T>* const taken = next;
            next += n;
            return taken;
        };
        square = take(d * d);
        form = take(packed(d));
        metric = take(packed(d));
        work = take(3 * d);
        diag = take(side_by_side * d);
        off = take(side_by_side * d);
        diag_copy = take(side_by_side * d);
        off_copy = take(side_by_side * d);
        factor = take(d);
        stage = take(d);
        order = reinterpret_cast<Index*>(take(index_lanes<T> * d));
    }
};

template <class T>
std::size_t scratch_size(std::size_t d) {
    return (d * d + d * (d + 1) + (5 + index_lanes<T> + 4 * side_by_side) * d) * lane_count<T>;
}

// A group of symmetric matrices: their lower triangles divided by powers of two, so that the largest entries are
// between 1 and 2 (4, if the exponents are to be even).
template <class T>
struct Loaded {
    Lanes<T> power, inverse;
    Mask<T> bad;  // not finite or not symmetric within rounding: 0 instead
};

template <class T>
PYSSL_INLINE Loaded<T> load_group(const T* source,       // (count, d, d)
                                  Index count, Index d,  // count <= lanes
                                  bool even,
                                  Lanes<T>* square,    // (d, d)
                                  Lanes<T>* target) {  // packed
    constexpr int L = lane_count<T>;
    const Index n = d * d;
    if (count >= L) {
        gather(source, n, square);
    } else {
        for (Index e = 0; e < n; ++e) {
            square[e] = Lanes<T>{};
            for (Index l = 0; l < count; ++l) square[e][l] = source[l * n + e];
        }
    }
    Lanes<T> largest{}, gap{}, poison{};
    for (Index r = 0; r < d; ++r) {
        for (Index c = 0; c < r; ++c) {
            const Lanes<T> lower = square[r * d + c], upper = square[c * d + r];
            largest = larger<T>(largest, larger<T>(magnitude<T>(lower), magnitude<T>(upper)));
            gap = larger<T>(gap, magnitude<T>(lower - upper));
            poison += lower - lower;  // neither infinity nor NaN gives 0
            poison += upper - upper;
        }
        const Lanes<T> entry = square[r * d + r];
        largest = larger<T>(largest, magnitude<T>(entry));
        poison += entry - entry;
    }
    Loaded<T> loaded;
    // the rule of _checks.symmetric
    const Lanes<T> allowed = (T(64) * T(d) * Precision<T>::eps) * largest;
    loaded.bad = ~((gap <= allowed) & (poison == T(0)));
    powers_of_two<T>(largest, even, loaded.power, loaded.inverse);
    const Lanes<T> scale = loaded.inverse, half = T(0.5) * scale;
    for (Index r = 0; r < d; ++r) {
        Lanes<T>* row = target + packed(r);
        for (Index c = 0; c < r; ++c) {
            const Lanes<T> mean = half * square[r * d + c] + half * square[c * d + r];
            row[c] = loaded.bad ? Lanes<T>{} : mean;
        }
        row[r] = loaded.bad ? Lanes<T>{} : scale * square[r * d + r];
    }
    return loaded;
}

template <class T>
PYSSL_INLINE void report(Mask<T> bad, Index from, Index count, Index& fault) {
    if (!any<T>(bad)) return;
    for (Index l = 0; l < count; ++l) {
        if (bad[l]) PencilFaults::earliest(fault, from + l);
    }
}

template <class T>
PYSSL_INLINE Index group_size(Index from, Index end) {
    return end - from < lane_count<T> ? end - from : lane_count<T>;
}

// Brings pencils into lanes and to standard form; gives the powers of two that scale their eigenvalues and vectors.
template <class T>
class StandardForm {
   public:
    StandardForm(const PencilBatch<T>& batch, const Scratch<T>& scratch, PencilFaults& faults)
        : batch_(batch), scratch_(scratch), faults_(faults) {}

    PYSSL_INLINE void load(Index from, Index count, Lanes<T>& value_scale, Lanes<T>& vector_scale) {
        const Index d = batch_.d, n = d * d;
        if (batch_.metrics && !(batch_.shared && ready_)) {
            Loaded<T> metric;
            if (batch_.shared) {
                metric = load_group(batch_.metrics, 1, d, true, scratch_.square, scratch_.metric);
                spread(metric);
            } else {
                metric = load_group(batch_.metrics + from * n, count, d, true, scratch_.square, scratch_.metric);
            }
            const Index known = batch_.shared ? 1 : count, first = batch_.shared ? 0 : from;
            report<T>(metric.bad, first, known, faults_.metric);
            const Mask<T> singular = cholesky<T>(scratch_.metric, d) & ~metric.bad;
            report<T>(singular, first, known, faults_.indefinite);
            inverse_ = metric.inverse;
            root_ = inverse_root(metric.inverse);
            ready_ = true;
        }
        const Loaded<T> form = load_group(batch_.forms + from * n, count, d, false, scratch_.square, scratch_.form);
        report<T>(form.bad, from, count, faults_.form);
        value_scale = form.power;
        vector_scale = Lanes<T>{} + T(1);
        if (batch_.metrics) {
            congruence<T>(scratch_.form, scratch_.metric, d, scratch_.work);
            value_scale *= inverse_;
            vector_scale = root_;
        }
    }

   private:
    // The first lane into all.
    PYSSL_INLINE void spread(Loaded<T>& metric) const {
        for (Index e = 0; e < packed(batch_.d); ++e) scratch_.metric[e] = Lanes<T>{} + scratch_.metric[e][0];
        metric.power = Lanes<T>{} + metric.power[0];
        metric.inverse = Lanes<T>{} + metric.inverse[0];
        metric.bad = Mask<T>{} + metric.bad[0];
    }
    // Of an even power of two: exact.
    static PYSSL_INLINE Lanes<T> inverse_root(Lanes<T> inverse) { return square_root<T>(inverse); }

    const PencilBatch<T>& batch_;
    const Scratch<T>& scratch_;
    PencilFaults& faults_;
    Lanes<T> inverse_{}, root_{};
    bool ready_ = false;
};

template <class T>
PYSSL_INLINE void store_group(const Lanes<T>* source,  // (n,)
                              Index n, Index count,
                              T* target) {  // (count, n)
    if (count == lane_count<T>) {
        scatter<T>(source, n, target);
    } else {
        for (Index l = 0; l < count; ++l) {
            for (Index e = 0; e < n; ++e) target[l * n + e] = source[e][l];
        }
    }
}

template <class T>
PYSSL_INLINE void copy(const Lanes<T>* source, Index n, Lanes<T>* target) {
    for (Index i = 0; i < n; ++i) target[i] = source[i];
}

template <class T>
void eigenvalues(const PencilBatch<T>& batch, T* values, Index begin, Index end, T* memory, PencilFaults& faults) {
    constexpr int G = side_by_side, L = lane_count<T>;
    const Index d = batch.d;
    const Scratch<T> scratch(memory, d);
    StandardForm<T> form(batch, scratch, faults);
    for (Index from = begin; from < end; from += G * L) {
        Lanes<T> scale[G], unused;
        Index groups = 0;
        for (; groups < G && from + groups * L < end; ++groups) {
            const Index start = from + groups * L;
            form.load(start, group_size<T>(start, end), scale[groups], unused);
            tridiagonalise<T>(scratch.form, d, scratch.work, scratch.diag + groups * d, scratch.off + groups * d,
                              scratch.factor);
        }
        Lanes<T>*diag = scratch.diag_copy, *off = scratch.off_copy;
        copy<T>(scratch.diag, groups * d, diag);
        copy<T>(scratch.off, groups * d, off);
        if (groups == G) {
            ql<T, G>(diag, off, d, NotRotated{});
        } else {
            for (Index g = 0; g < groups; ++g) ql<T, 1>(diag + g * d, off + g * d, d, NotRotated{});
        }
        for (Index g = 0; g < groups; ++g) {
            const Index start = from + g * L;
            Lanes<T>* const sorted = diag + g * d;
            sorting_network(d, [=](Index i, Index j) PYSSL_LAMBDA {
                const Lanes<T> a = sorted[i], b = sorted[j];
                sorted[i] = a > b ? a : b;
                sorted[j] = a > b ? b : a;
            });
            refine<T>(scratch.diag + g * d, scratch.off + g * d, d, sorted);
            for (Index i = 0; i < d; ++i) sorted[i] *= scale[g];
            store_group<T>(sorted, d, group_size<T>(start, end), values + start * d);
        }
    }
}

template <class T>
void eigh(const PencilBatch<T>& batch, T* values, T* vectors, Index begin, Index end, T* memory, PencilFaults& faults) {
    constexpr int L = lane_count<T>;
    const Index d = batch.d, n = d * d;
    const Scratch<T> scratch(memory, d);
    StandardForm<T> form(batch, scratch, faults);
    for (Index from = begin; from < end; from += L) {
        const Index count = group_size<T>(from, end);
        Lanes<T>* const z = scratch.square;
        Lanes<T> value_scale, vector_scale;
        form.load(from, count, value_scale, vector_scale);
        tridiagonalise<T>(scratch.form, d, scratch.work, scratch.diag, scratch.off, scratch.factor);
        accumulate_reflections<T>(scratch.form, scratch.factor, d, z);
        Lanes<T>* const sorted = scratch.diag_copy;
        copy<T>(scratch.diag, d, sorted);
        copy<T>(scratch.off, d, scratch.off_copy);
        ql<T, 1>(sorted, scratch.off_copy, d, RotatedColumns<T>{z, scratch.work, scratch.work + d, d});
        if (batch.metrics) solve_transposed<T>(scratch.metric, d, z);

        Mask<T>* const place = reinterpret_cast<Mask<T>*>(scratch.factor);
        for (Index i = 0; i < d; ++i) place[i] = Mask<T>{} + typename Precision<T>::Integer(i);
        sorting_network(d, [=](Index i, Index j) PYSSL_LAMBDA {
            const Lanes<T> a = sorted[i], b = sorted[j];
            const Mask<T> at_a = place[i], at_b = place[j];
            sorted[i] = a > b ? a : b;
            sorted[j] = a > b ? b : a;
            place[i] = a > b ? at_a : at_b;
            place[j] = a > b ? at_b : at_a;
        });
        refine<T>(scratch.diag, scratch.off, d, sorted);
        for (Index i = 0; i < d; ++i) sorted[i] *= value_scale;
        store_group<T>(sorted, d, count, values + from * d);
        for (Index l = 0; l < count; ++l) {
            for (Index j = 0; j < d; ++j) scratch.order[l * d + j] = place[j][l];
        }
        T* const stage = reinterpret_cast<T*>(scratch.stage);
        for (Index k = 0; k < d; ++k) {
            for (Index j = 0; j < d; ++j) z[k * d + j] *= vector_scale;
            scatter<T>(z + k * d, d, stage);
            for (Index l = 0; l < count; ++l) {
                T* const row = vectors + (from + l) * n + k * d;
                for (Index j = 0; j < d; ++j) row[j] = stage[l * d + scratch.order[l * d + j]];
            }
        }
    }
}

// The counts for the tolerance d eps ||B||. The row sums of T bound its norm to a factor of sqrt(3); the eigenvalues are
// only computed where the counts differ between the two ends of that interval.
template <class T>
PYSSL_INLINE void count_at_rank_tolerance(const Scratch<T>& scratch, Index d, Mask<T>& above, Mask<T>& below) {
    const Lanes<T>*diag = scratch.diag, *off = scratch.off;
    Lanes<T> norm{}, before{};
    for (Index i = 0; i < d; ++i) {
        const Lanes<T> after = magnitude<T>(off[i]);
        norm = larger<T>(norm, before + magnitude<T>(diag[i]) + after);
        before = after;
    }
    const T relative = T(d) * Precision<T>::eps;
    const Lanes<T> most = relative * norm, least = T(0.57) * most;
    constexpr T signs[4] = {1, -1, 1, -1};
    const Lanes<T> bounds[4] = {most, most, least, least};
    Mask<T> counts[4];
    count_above<4, T>(diag, off, d, signs, bounds, counts);
    above = counts[0];
    below = counts[1];
    const Mask<T> undecided = (counts[0] != counts[2]) | (counts[1] != counts[3]);
    if (!any<T>(undecided)) return;
    ql<T, 1>(scratch.diag, scratch.off, d, NotRotated{});
    norm = Lanes<T>{};
    for (Index i = 0; i < d; ++i) norm = larger<T>(norm, magnitude<T>(diag[i]));
    Mask<T> exactly_above{}, exactly_below{};
    for (Index i = 0; i < d; ++i) {
        exactly_above -= diag[i] > relative * norm;
        exactly_below -= -diag[i] > relative * norm;
    }
    above = undecided ? exactly_above : above;
    below = undecided ? exactly_below : below;
}

template <class T>
void inertia(const PencilBatch<T>& batch, const double* tolerance, Index* counts, Index begin, Index end, T* memory,
             PencilFaults& faults) {
    constexpr int L = lane_count<T>;
    const Index d = batch.d;
    const Scratch<T> scratch(memory, d);
    StandardForm<T> form(batch, scratch, faults);
    for (Index from = begin; from < end; from += L) {
        const Index count = group_size<T>(from, end);
        Lanes<T> scale, unused;
        form.load(from, count, scale, unused);
        tridiagonalise<T>(scratch.form, d, scratch.work, scratch.diag, scratch.off, scratch.factor);
        Mask<T> above, below;
        if (tolerance) {
            Lanes<T> bound{};
            for (Index l = 0; l < count; ++l) {
                bound[l] = static_cast<T>(tolerance[from + l] / static_cast<double>(scale[l]));
            }
            constexpr T signs[2] = {1, -1};
            const Lanes<T> bounds[2] = {bound, bound};
            Mask<T> counts[2];
            count_above<2, T>(scratch.diag, scratch.off, d, signs, bounds, counts);
            above = counts[0];
            below = counts[1];
        } else {
            count_at_rank_tolerance(scratch, d, above, below);
        }
        for (Index l = 0; l < count; ++l) {
            Index* const row = counts + (from + l) * 3;
            row[0] = above[l];
            row[1] = d - above[l] - below[l];
            row[2] = below[l];
        }
    }
}

}  // namespace

extern const PencilKernels<float> pencil_float;
const PencilKernels<float> pencil_float{side_by_side * lane_count<float>, scratch_size<float>, eigenvalues<float>,
                                        eigh<float>, inertia<float>};
extern const PencilKernels<double> pencil_double;
const PencilKernels<double> pencil_double{side_by_side * lane_count<double>, scratch_size<double>, eigenvalues<double>,
                                          eigh<double>, inertia<double>};

}  // namespace pyssl::PYSSL_ISA
