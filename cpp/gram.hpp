// Gram matrices over the rows of embeddings, products back onto the rows, and moments of columns and rows: what the
// losses of theory 3.3 to 3.5 are made of. With n rows of k numbers their value costs O(n k^2) and no n x n matrix.
//
// Matrices may be shifted and scaled column by column while they are packed, so that centred or standardised copies
// never exist. Sums over n are accumulated in the type of the data for `gram_block` rows and in double beyond.
// Threads share out entries of a result, or blocks of rows of a fixed size whose sums are added up in a fixed order: no
// bit of a result depends on their number.
#pragma once

#include <atomic>
#include <optional>
#include <vector>

#include "gram_kernels.hpp"
#include "isa.hpp"
#include "parallel.hpp"
#include "views.hpp"

namespace pyssl {

#define PYSSL_DECLARE(ISA)                      \
    namespace ISA {                             \
    extern const GramKernels<float> gram_float;   \
    extern const GramKernels<double> gram_double; \
    }
PYSSL_FOR_EACH_ISA(PYSSL_DECLARE)
#undef PYSSL_DECLARE

inline const GramKernels<float>& gram_kernels(float) { return PYSSL_SELECT(gram_float); }
inline const GramKernels<double>& gram_kernels(double) { return PYSSL_SELECT(gram_double); }

// A matrix as (data - shift) scale.
template <class T>
struct Scaled {
    MatrixView<const T> data;  // (n, k)
    const T* shift;            // (k,)
    const T* scale;            // (k,)
};

// Those panels of columns of a matrix that somebody needs, packed for a block of rows.
template <class T>
class PackedPanels {
   public:
    PackedPanels(const Scaled<T>& source, Index panels)
        : source_(source), kernels_(gram_kernels(T{})), place_(static_cast<std::size_t>(panels), -1) {}

    void need(Index panel) { place_[static_cast<std::size_t>(panel)] = 0; }

    // After the last need().
    void allocate() {
        for (Index& place : place_) {
            if (place == 0) place = size_++ * kernels_.unit * gram_block;
        }
        packed_.emplace(static_cast<std::size_t>(size_ * kernels_.unit * gram_block));
    }

    void pack(Index row, Index rows) {
        const Index k = source_.data.columns, unit = kernels_.unit, panels = static_cast<Index>(place_.size());
        for (Index first = 0; first < panels; ++first) {
            if (place_[static_cast<std::size_t>(first)] < 0) continue;
            Index last = first + 1;  // neighbours are packed together
            while (last < panels && place_[static_cast<std::size_t>(last)] >= 0) ++last;
            const Index column = first * unit, columns = std::min(last * unit, k) - column;
            kernels_.pack(source_.data.row(row) + column, rows, columns, k, source_.shift + column,
                          source_.scale + column, packed_->data() + place_[static_cast<std::size_t>(first)]);
            first = last;
        }
    }

    const T* panel(Index i) const { return packed_->data() + place_[static_cast<std::size_t>(i)]; }

   private:
    const Scaled<T> source_;
    const GramKernels<T>& kernels_;
    std::vector<Index> place_;  // in `packed_`, -1 where not needed
    Index size_ = 0;
    std::optional<AlignedBuffer<T>> packed_;
};

// C = A'B. Where `b` is `a`, only the tiles that reach below the diagonal are computed, and mirrored. Returns whether it
// came to the end: poll(), which only the calling thread asks, stops it.
template <class T, class Poll>
bool gram(const Scaled<T>& a,
          const Scaled<T>& b,        // (n, q)
          bool symmetric,            // b is a
          MatrixView<double> out,    // (p, q)
          int num_threads, Poll& poll) {
    const GramKernels<T>& kernels = gram_kernels(T{});
    const Index n = a.data.rows, p = out.rows, q = out.columns, unit = kernels.unit, tile = kernels.tile;
    const Index slices = unit / tile, vectors = kernels.vectors;
    const Index left = (p + unit - 1) / unit, right = (q + unit - 1) / unit;

    struct Item {
        Index i, slice, j;  // panel of A, slice of it, panel of B
        Index vectors;      // of the panel of B
    };
    std::vector<Item> items;
    // A few panels of B at a time, which stay in the second-level cache.
    constexpr Index panels = 8;
    for (Index start = 0; start < right; start += panels) {
        for (Index i = symmetric ? start : 0; i < left; ++i) {
            for (Index j = start; j < std::min(start + panels, symmetric ? i + 1 : right); ++j) {
                for (Index s = 0; s < slices && i * unit + s * tile < p; ++s) {
                    // on the diagonal a slice needs the columns up to its own last
                    const Index last = symmetric && i == j ? (s + 1) * tile : std::min(unit, q - j * unit);
                    items.push_back({i, s, j, (last * vectors + unit - 1) / unit});
                }
            }
        }
    }
    const auto count = static_cast<Index>(items.size());
    const AlignedBuffer<double> sums(static_cast<std::size_t>(count * tile * unit));

    // Every thread packs the panels that its own tiles need, one block of rows at a time: some are packed twice, which
    // costs less than waiting for one another at every block.
    std::atomic<bool> stop{false};
    const Index blocks = (n + gram_block - 1) / gram_block;
    const Index grain = (Index{1} << 20) / (n * tile * unit) + 1;
    parallel_for(count, num_threads, grain, [&](Index first, Index last) {
        PackedPanels<T> ours(a, left), theirs(b, symmetric ? 0 : right);
        PackedPanels<T>& others = symmetric ? ours : theirs;
        for (Index e = first; e < last; ++e) {
            ours.need(items[static_cast<std::size_t>(e)].i);
            others.need(items[static_cast<std::size_t>(e)].j);
        }
        ours.allocate();
        theirs.allocate();
        for (Index block = 0; block < blocks; ++block) {
            if (first == 0 && poll()) stop = true;
            if (stop) return;
            const Index row = block * gram_block, rows = std::min(gram_block, n - row);
            ours.pack(row, rows);
            theirs.pack(row, rows);
            for (Index e = first; e < last; ++e) {
                const Item& item = items[static_cast<std::size_t>(e)];
                kernels.accumulate(ours.panel(item.i) + item.slice * tile, others.panel(item.j), rows, item.vectors,
                                   sums.data() + e * tile * unit);
            }
        }
    });
    if (stop) return false;

    for (Index e = 0; e < count; ++e) {
        const Item& item = items[static_cast<std::size_t>(e)];
        const Index row = item.i * unit + item.slice * tile, column = item.j * unit;
        for (Index r = 0; r < std::min(tile, p - row); ++r) {
            const Index i = row + r, width = std::min(unit, (symmetric ? i + 1 : q) - column);
            const double inverse = 1.0 / static_cast<double>(a.scale[i]);
            for (Index c = 0; c < width; ++c) {
                const Index j = column + c;
                out(i, j) = sums.data()[(e * tile + r) * unit + c] * inverse / static_cast<double>(b.scale[j]);
                if (symmetric) out(j, i) = out(i, j);
            }
        }
    }
    return true;
}

// out_ij = f_j g_j [sum_l A_il M_lj + r_i w_j (plus_ij - minus_ij - s_j) + constant_j], or out += it. Without `plus` the
// middle term is absent, without `minus` or `rows` they are 0 and 1.
template <class T>
struct Mix {
    const T* plus;      // (n, q) or null
    const T* minus;     // (n, q) or null
    const T* rows;      // (n,) or null
    const T* columns;   // (5, q): s, w, constant, f, g
    bool add;
};

template <class T, class Poll>
bool mix(const Scaled<T>& a,
         MatrixView<const T> matrix,  // (k, q)
         const Mix<T>& extra,
         MatrixView<T> out,  // (n, q)
         int num_threads, Poll& poll) {
    const GramKernels<T>& kernels = gram_kernels(T{});
    const Index n = a.data.rows, k = matrix.rows, q = matrix.columns;
    const Index padded = (q + kernels.mix_unit - 1) / kernels.mix_unit * kernels.mix_unit;
    const AlignedBuffer<T> right(static_cast<std::size_t>(k * padded));
    kernels.pack_right(matrix.data, k, q, right.data());
    const AlignedBuffer<T> columns(static_cast<std::size_t>(5 * padded));
    for (Index c = 0; c < 5; ++c) std::copy_n(extra.columns + c * q, q, columns.data() + c * padded);

    std::atomic<bool> stop{false};
    const Index blocks = (n + mix_block - 1) / mix_block;
    const double work = static_cast<double>(mix_block * k) * static_cast<double>(q);  // of one block
    const Index grain = static_cast<Index>(1048576.0 / work) + 1;
    const Index workers = std::min<Index>(resolve_num_threads(num_threads), (blocks - 1) / grain + 1);
    std::atomic<Index> next{0};
    // Whoever is free takes the next block: a thread whose core is busy with something else holds up nobody.
    parallel_for(workers, num_threads, 1, [&](Index worker, Index) {
        const AlignedBuffer<T> left(static_cast<std::size_t>(mix_block * k + kernels.mix_unit));
        const AlignedBuffer<T> scratch(static_cast<std::size_t>(mix_block * kernels.mix_unit));
        for (Index block = next++; block < blocks; block = next++) {
            if (worker == 0 && poll()) stop = true;
            if (stop) return;
            const Index row = block * mix_block, count = std::min(mix_block, n - row);
            const auto part = [&](const T* source, Index width) { return source ? source + row * width : nullptr; };
            kernels.pack_left(a.data.row(row), count, k, a.shift, a.scale, left.data());
            const T* c = columns.data();
            const MixTerms<T> terms{part(extra.plus, q), part(extra.minus, q), part(extra.rows, 1),
                                    c,                   c + padded,           c + 2 * padded,
                                    c + 3 * padded,      c + 4 * padded,       extra.add};
            kernels.mix(left.data(), right.data(), count, k, q, terms, scratch.data(), out.row(row));
        }
    });
    return !stop;
}

// Adds `added` rows, their sums taken about the means of the `before` rows that `into` stands for. What is subtracted to
// centre them is no more than twice what the distance of the means adds again, so that no digits are lost, unless there
// are fewer rows before than added.
inline void merge_moments(const ColumnMoments& into, const ColumnMoments& sums, Index before, Index added, Index k) {
    const auto n = static_cast<double>(added);
    const double share = n / static_cast<double>(before + added);
    for (Index c = 0; c < k; ++c) {
        const double da = sums.a[c] / n, db = sums.b[c] / n;
        // centred sums, and n before/(before + n) da^2
        into.aa[c] += sums.aa[c] - n * share * da * da;
        into.bb[c] += sums.bb[c] - n * share * db * db;
        into.ab[c] += sums.ab[c] - n * share * da * db;
        into.difference[c] += sums.difference[c];
        into.a[c] += share * da;
        into.b[c] += share * db;
    }
}

// Means and centred moments of the columns of a and b, in one reading: blocks of rows are merged in a fixed order.
template <class T>
void column_moments(MatrixView<const T> a,   // (n, k)
                    MatrixView<const T> b,   // (n, k)
                    MatrixView<double> out,  // (6, k): means; sums of (a - mean)^2, (b - mean)^2, product, (a - b)^2
                    int num_threads) {
    constexpr Index segment = 2048;
    static_assert(segment % moments_block == 0);
    const GramKernels<T>& kernels = gram_kernels(T{});
    const Index n = a.rows, k = a.columns, segments = (n + segment - 1) / segment;
    std::vector<double> parts(static_cast<std::size_t>(segments * 6 * k));
    parallel_for(segments, num_threads, 1, [&](Index first, Index last) {
        std::vector<double> scratch(static_cast<std::size_t>(6 * k));
        const ColumnMoments sums(scratch.data(), k);
        for (Index s = first; s < last; ++s) {
            const ColumnMoments part(parts.data() + s * 6 * k, k);
            const Index start = s * segment, end = std::min(n, start + segment);
            for (Index row = start; row < end; row += moments_block) {
                const Index count = std::min(moments_block, end - row);
                const auto add = [&] {
                    std::fill(scratch.begin(), scratch.end(), 0.0);
                    kernels.column_moments(a.row(row), b.row(row), count, k, part, sums);
                };
                if (row == start) {
                    // nothing is known of the means yet: the first block is looked at twice
                    for (Index c = 0; c < k; ++c) {
                        part.a[c] = static_cast<double>(a(row, c));
                        part.b[c] = static_cast<double>(b(row, c));
                    }
                    add();
                    for (Index c = 0; c < k; ++c) {
                        part.a[c] += sums.a[c] / static_cast<double>(count);
                        part.b[c] += sums.b[c] / static_cast<double>(count);
                    }
                }
                add();
                merge_moments(part, sums, row - start, count, k);
            }
        }
    });
    // Segments bring centred sums with them: what the distance of their means adds to those is all that is left to do.
    std::copy_n(parts.data(), 6 * k, out.data);
    const ColumnMoments all(out.data, k);
    for (Index s = 1; s < segments; ++s) {
        const ColumnMoments part(parts.data() + s * 6 * k, k);
        const auto before = static_cast<double>(s * segment);
        const auto count = static_cast<double>(std::min(segment, n - s * segment));
        const double share = count / (before + count), weight = before * share;
        for (Index c = 0; c < k; ++c) {
            const double da = part.a[c] - all.a[c], db = part.b[c] - all.b[c];
            all.aa[c] += part.aa[c] + weight * da * da;
            all.bb[c] += part.bb[c] + weight * db * db;
            all.ab[c] += part.ab[c] + weight * da * db;
            all.difference[c] += part.difference[c];
            all.a[c] += share * da;
            all.b[c] += share * db;
        }
    }
}

// |a_i|^2, a_i.b_i and |b_i|^2, in double.
template <class T>
void row_moments(MatrixView<const T> a,   // (n, k)
                 MatrixView<const T> b,   // (n, k)
                 MatrixView<double> out,  // (3, n)
                 int num_threads) {
    const GramKernels<T>& kernels = gram_kernels(T{});
    parallel_for(a.rows, num_threads, 65536 / (a.columns + 1) + 1, [&](Index begin, Index end) {
        kernels.row_moments(a.row(begin), b.row(begin), end - begin, a.columns, out.row(0) + begin,
                            out.row(1) + begin, out.row(2) + begin);
    });
}

}  // namespace pyssl
