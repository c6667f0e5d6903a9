// Mean and scatters of pairs of views in one reading (theory 1): of the middles (x + x+)/2 about their mean and of the
// differences x - x+ about zero. Widening, centring and packing are one step, so that no copy of the views in double ever
// reaches the memory.
//
// What the views cost is n d^2 multiplications for each scatter and the reading of 2 n d numbers. For every block of
// rows, panels of columns are packed while tiles of the two products take up those of the block before: threads meet
// once a block. Each tile adds up its blocks in their order, so that no bit depends on the number of threads.
#pragma once

#include <algorithm>
#include <optional>
#include <vector>

#include "gram_kernels.hpp"
#include "isa.hpp"
#include "pairs_kernels.hpp"
#include "parallel.hpp"
#include "schedule.hpp"
#include "views.hpp"

namespace pyssl {

#define PYSSL_DECLARE(ISA)                        \
    namespace ISA {                               \
    extern const PairKernels<float> pair_float;   \
    extern const PairKernels<double> pair_double; \
    extern const GramKernels<double> gram_double; \
    }
PYSSL_FOR_EACH_ISA(PYSSL_DECLARE)
#undef PYSSL_DECLARE

inline const PairKernels<float>& pair_kernels(float) { return PYSSL_SELECT(pair_float); }
inline const PairKernels<double>& pair_kernels(double) { return PYSSL_SELECT(pair_double); }

// The lower triangle of a sum of products of packed rows, tile by tile.
class TriangleSums {
   public:
    explicit TriangleSums(Index d)
        : d_(d), panels_((d + unit() - 1) / unit()), slices_(unit() / kernels().tile) {
        // a few panels of columns at a time, which stay in the second-level cache
        constexpr Index group = 8;
        for (Index start = 0; start < panels_; start += group) {
            for (Index i = start; i < panels_; ++i) {
                strips_.push_back({i, start, std::min(start + group, i + 1), tiles_});
                tiles_ += (strips_.back().last - start) * slices_;
            }
        }
        sums_.emplace(static_cast<std::size_t>(tiles_ * kernels().tile * unit()));
    }

    Index panels() const { return panels_; }
    Index strips() const { return static_cast<Index>(strips_.size()); }

    // Adds what `depth` rows of packed panels bring to one strip of tiles.
    void add(Index strip, const double* packed, Index depth) {
        const Strip& s = strips_[static_cast<std::size_t>(strip)];
        const auto panel = [&](Index p) { return packed + p * pair_depth * unit(); };
        const Index tile = kernels().tile;
        double* sums = sums_->data() + s.tile * tile * unit();
        for (Index j = s.first; j < s.last; ++j) {
            for (Index slice = 0; slice < slices_; ++slice, sums += tile * unit()) {
                // on the diagonal a slice needs the columns up to its own last
                const Index last = s.panel == j ? (slice + 1) * tile : unit();
                const Index vectors = (last * kernels().vectors + unit() - 1) / unit();
                kernels().accumulate(panel(s.panel) + slice * tile, panel(j), depth, vectors, sums);
            }
        }
    }

    // Both triangles.
    void write(MatrixView<double> out) const {  // (d, d)
        const Index tile = kernels().tile;
        for (const Strip& s : strips_) {
            const double* sums = sums_->data() + s.tile * tile * unit();
            for (Index j = s.first * unit(); j < s.last * unit(); j += unit()) {
                for (Index r = 0; r < unit(); ++r, sums += unit()) {
                    const Index row = s.panel * unit() + r;
                    if (row >= d_) continue;
                    for (Index c = j; c < std::min(j + unit(), row + 1); ++c) {
                        out(row, c) = out(c, row) = sums[c - j];
                    }
                }
            }
        }
    }

    static Index unit() { return kernels().unit; }

   private:
    static const GramKernels<double>& kernels() { return PYSSL_SELECT(gram_double); }

    // The tiles of one panel of rows and some panels of columns.
    struct Strip {
        Index panel, first, last, tile;
    };
    Index d_, panels_, slices_, tiles_ = 0;
    std::vector<Strip> strips_;
    std::optional<AlignedBuffer<double>> sums_;
};

// Without differences, x+ may be x: then it is the mean and the scatter of one set of rows. Returns whether it came to
// the end: poll(), which only the calling thread asks, stops it.
template <class T, class Poll>
bool pair_scatter(MatrixView<const T> x,           // (n, d)
                  MatrixView<const T> x_plus,      // (n, d)
                  double* mean,                    // (d,) of the middles
                  MatrixView<double> middles,      // (d, d)
                  MatrixView<double> differences,  // (d, d), or of null
                  int num_threads, Poll& poll) {
    const Index n = x.rows, d = x.columns, blocks = (n + pair_block - 1) / pair_block;
    TriangleSums middle_sums(d);
    std::optional<TriangleSums> difference_sums;
    if (differences.data) difference_sums.emplace(d);
    // everything is relative to the middle of the first pair: which view is the first one does not matter
    std::vector<double> origin(static_cast<std::size_t>(d));
    for (Index c = 0; c < d; ++c) {
        origin[static_cast<std::size_t>(c)] = 0.5 * (static_cast<double>(x(0, c)) + static_cast<double>(x_plus(0, c)));
    }
    std::fill_n(mean, d, 0.0);

    // two sets of panels: one is packed while the other is multiplied
    const Index unit = TriangleSums::unit(), size = middle_sums.panels() * pair_depth * unit;
    const AlignedBuffer<double> packed(static_cast<std::size_t>(size * (differences.data ? 4 : 2)), Fill::none);
    const auto middles_of = [&](Index block) { return packed.data() + block % 2 * size; };
    const auto differences_of = [&](Index block) { return packed.data() + (2 + block % 2) * size; };
    const auto rows_of = [&](Index block) { return std::min(pair_block, n - block * pair_block); };

    const Index columns = pair_columns / unit * unit, groups = (d + columns - 1) / columns;
    const Index strips = middle_sums.strips(), products = strips * (differences.data ? 2 : 1);
    std::vector<Index> steps(static_cast<std::size_t>(blocks + 1), groups + products);
    steps.front() = groups;
    steps.back() = products;

    const auto pack = [&](Index block, Index group) {
        const Index c = group * columns, row = block * pair_block, at = c * pair_depth;
        const PairColumns<T> source{x.row(row) + c,     x_plus.row(row) + c, rows_of(block),
                                    std::min(columns, d - c), d,              origin.data() + c};
        pair_kernels(T{}).pack(source, row, mean + c, middles_of(block) + at,
                               differences.data ? differences_of(block) + at : nullptr);
    };
    const auto multiply = [&](Index block, Index product) {
        if (product < strips) {
            middle_sums.add(product, middles_of(block), rows_of(block) + (block > 0 ? 1 : 0));
        } else {
            difference_sums->add(product - strips, differences_of(block), rows_of(block));
        }
    };
    // meeting at every block takes as long as some 100,000 multiplications
    const double work = static_cast<double>(std::min(n, pair_block)) * static_cast<double>(d * d);
    const Index workers = std::min<Index>(resolve_num_threads(num_threads), 1 + static_cast<Index>(work / 2e6));
    const bool done = run_steps(
        steps, workers,
        [&](Index, Index step, Index task) {
            const Index packing = step < blocks ? groups : 0;
            if (task < packing) {
                pack(step, task);
            } else {
                multiply(step - 1, task - packing);
            }
        },
        poll);
    if (!done) return false;

    for (Index c = 0; c < d; ++c) mean[c] += origin[static_cast<std::size_t>(c)];
    middle_sums.write(middles);
    if (difference_sums) difference_sums->write(differences);
    return true;
}

}  // namespace pyssl
