// The groups behind pencils.hpp, compiled once per instruction set (isa.hpp).
#include "pencils_kernels.hpp"

#include "pencil_lanes.hpp"

namespace pyssl::PYSSL_ISA {
namespace {

// Groups of lanes whose QL iterations run side by side.
constexpr int side_by_side = 2;

template <class T>
constexpr Index index_lanes = sizeof(Index) / sizeof(T);

template <class T>
struct Scratch {
    Lanes<T>*square, *form, *metric, *work, *diag, *off, *factor, *stage;
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
        factor = take(d);
        stage = take(d);
        order = reinterpret_cast<Index*>(take(index_lanes<T> * d));
    }
};

template <class T>
std::size_t scratch_size(std::size_t d) {
    return (d * d + d * (d + 1) + (5 + index_lanes<T> + 2 * side_by_side) * d) * lane_count<T>;
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
    Lanes<T> inverse_, root_;
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
void eigenvalues(const PencilBatch<T>& batch, T* values, Index begin, Index end, T* memory, PencilFaults& faults) {
    constexpr int G = side_by_side, L = lane_count<T>;
    const Index d = batch.d;
    const Scratch<T> scratch(memory, d);
    StandardForm<T> form(batch, scratch, faults);
    for (Index from = begin; from < end; from += G * L) {
        Lanes<T> scale[G], unused;
        for (int g = 0; g < G; ++g) {
            const Index start = from + g * L;
            if (start < end) {
                form.load(start, group_size<T>(start, end), scale[g], unused);
                tridiagonalise<T>(scratch.form, d, scratch.work, scratch.diag + g, scratch.off + g, G, scratch.factor);
            } else {
                for (Index i = 0; i < d; ++i) scratch.diag[i * G + g] = scratch.off[i * G + g] = Lanes<T>{};
            }
        }
        ql<T, G>(scratch.diag, scratch.off, d, NotRotated{});
        for (int g = 0; g < G; ++g) {
            const Index start = from + g * L;
            if (start >= end) break;
            for (Index i = 0; i < d; ++i) scratch.work[i] = scratch.diag[i * G + g] * scale[g];
            sorting_network(d, [&](Index i, Index j) PYSSL_LAMBDA {
                const Lanes<T> a = scratch.work[i], b = scratch.work[j];
                scratch.work[i] = a > b ? a : b;
                scratch.work[j] = a > b ? b : a;
            });
            store_group<T>(scratch.work, d, group_size<T>(start, end), values + start * d);
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
        tridiagonalise<T>(scratch.form, d, scratch.work, scratch.diag, scratch.off, 1, scratch.factor);
        accumulate_reflections<T>(scratch.form, scratch.factor, d, z);
        ql<T, 1>(scratch.diag, scratch.off, d, RotatedColumns<T>{z, scratch.work, scratch.work + d, d});
        if (batch.metrics) solve_transposed<T>(scratch.metric, d, z);

        Mask<T>* const place = reinterpret_cast<Mask<T>*>(scratch.factor);
        for (Index i = 0; i < d; ++i) {
            place[i] = Mask<T>{} + typename Precision<T>::Integer(i);
            scratch.diag[i] *= value_scale;
        }
        sorting_network(d, [&](Index i, Index j) PYSSL_LAMBDA {
            const Lanes<T> a = scratch.diag[i], b = scratch.diag[j];
            const Mask<T> at_a = place[i], at_b = place[j];
            scratch.diag[i] = a > b ? a : b;
            scratch.diag[j] = a > b ? b : a;
            place[i] = a > b ? at_a : at_b;
            place[j] = a > b ? at_b : at_a;
        });
        store_group<T>(scratch.diag, d, count, values + from * d);
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
    const Lanes<T> bounds[2] = {relative * norm, T(0.57) * relative * norm};
    Mask<T> aboves[2], belows[2];
    count_beyond<T, 2>(diag, off, d, bounds, aboves, belows);
    above = aboves[0];
    below = belows[0];
    const Mask<T> undecided = (aboves[0] != aboves[1]) | (belows[0] != belows[1]);
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
        tridiagonalise<T>(scratch.form, d, scratch.work, scratch.diag, scratch.off, 1, scratch.factor);
        Mask<T> above, below;
        if (tolerance) {
            Lanes<T> bound{};
            for (Index l = 0; l < count; ++l) bound[l] = static_cast<T>(tolerance[from + l] / static_cast<double>(scale[l]));
            count_beyond<T, 1>(scratch.diag, scratch.off, d, &bound, &above, &below);
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
