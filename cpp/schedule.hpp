// Which thread may work on which block of a matrix, when every block adds to something its row and its column own.
#pragma once

#include <algorithm>
#include <atomic>
#include <memory>
#include <vector>

#include "parallel.hpp"
#include "views.hpp"

namespace pyssl {

// Visits the blocks (I, J) of a matrix in rounds in which no row and no column comes twice; in the symmetric case only
// I <= J, and a row and a column of the same number count as one. Whoever works on a block may write to what belongs to
// its row and its column, and finds there what the rounds before have left: the order of all additions is that of the
// rounds, whatever the number of threads.
class BlockSchedule {
   public:
    BlockSchedule(Index row_blocks, Index column_blocks, bool symmetric)
        : rows_(row_blocks), columns_(column_blocks), symmetric_(symmetric) {
        // symmetric: a round-robin tournament, which needs an even number of players, after a round of (I, I)
        size_ = std::max(rows_, columns_);
        if (symmetric_) size_ += size_ % 2;
    }

    // Calls body(worker, I, J) for every block, from up to num_threads workers; stops early once poll(), which only the
    // calling thread asks, says so. Returns whether it came to the end.
    template <class Body, class Poll>
    bool run(int num_threads, const Body& body, Poll& poll) const {
        const Index workers = worker_count(num_threads);
        const Index count = symmetric_ ? size_ : 2 * size_;
        // how many rounds each row (and after them each column) has behind it
        const std::unique_ptr<std::atomic<Index>[]> behind(new std::atomic<Index>[static_cast<std::size_t>(count)]);
        for (Index i = 0; i < count; ++i) behind[static_cast<std::size_t>(i)].store(0);
        std::atomic<Index> next{0};
        std::atomic<bool> stop{false};
        parallel_for(workers, static_cast<int>(workers), 1, [&](Index begin, Index end) {
            for (Index worker = begin; worker < end; ++worker) {
                for (;;) {
                    const Index turn = next.fetch_add(1);
                    if (turn >= size_ * size_) break;  // as many rounds as slots in each
                    const Index round = turn / size_;
                    Index i = 0, j = 0;
                    if (!pair(round, turn % size_, i, j)) continue;
                    auto& row = behind[static_cast<std::size_t>(i)];
                    auto& column = behind[static_cast<std::size_t>(symmetric_ ? j : size_ + j)];
                    wait(row, round);
                    wait(column, round);
                    if (worker == 0 && poll()) stop.store(true);
                    if (i < rows_ && j < columns_ && !stop.load()) body(worker, i, j);
                    advance(row, round);
                    if (!symmetric_ || i != j) advance(column, round);
                }
            }
        });
        return !stop.load();
    }

    Index worker_count(int num_threads) const {
        const Index most = symmetric_ ? (size_ + 1) / 2 : std::min(rows_, columns_);
        return std::max<Index>(1, std::min<Index>(resolve_num_threads(num_threads), most));
    }

   private:
    // The block of a slot in a round; none in half of the slots of a tournament's rounds.
    bool pair(Index round, Index slot, Index& i, Index& j) const {
        if (!symmetric_) {
            i = slot;
            j = (slot + round) % size_;
            return true;
        }
        if (round == 0) {
            i = j = slot;
            return true;
        }
        if (slot >= size_ / 2) return false;
        const Index circle = size_ - 1, turn = round - 1;
        const Index a = slot == 0 ? circle : (turn + slot) % circle;
        const Index b = slot == 0 ? turn : (turn + circle - slot) % circle;
        i = std::min(a, b);
        j = std::max(a, b);
        return true;
    }

    static void wait(const std::atomic<Index>& behind, Index round) {
        for (Index seen = behind.load(); seen != round; seen = behind.load()) behind.wait(seen);
    }
    static void advance(std::atomic<Index>& behind, Index round) {
        behind.store(round + 1);
        behind.notify_all();
    }

    Index rows_, columns_, size_ = 0;
    bool symmetric_;
};

// Calls body(worker, step, task) for task = 0, ..., sizes[step] - 1 of one step after another: a task finds what all tasks
// of the steps before have left. For many short steps, whose threads are started once. Stops early as above.
template <class Body, class Poll>
bool run_steps(const std::vector<Index>& sizes, Index workers, const Body& body, Poll& poll) {
    struct Progress {
        std::atomic<Index> next{0}, done{0};
    };
    std::vector<Progress> progress(sizes.size());
    std::atomic<bool> stop{false};
    parallel_for(workers, static_cast<int>(workers), 1, [&](Index begin, Index end) {
        for (Index worker = begin; worker < end; ++worker) {
            for (std::size_t step = 0; step < sizes.size(); ++step) {
                auto& [next, done] = progress[step];
                for (Index task = next.fetch_add(1); task < sizes[step]; task = next.fetch_add(1)) {
                    if (worker == 0 && poll()) stop.store(true);
                    if (!stop.load()) body(worker, static_cast<Index>(step), task);
                    if (done.fetch_add(1) + 1 == sizes[step]) done.notify_all();
                }
                for (Index seen = done.load(); seen != sizes[step]; seen = done.load()) done.wait(seen);
            }
        }
    });
    return !stop.load();
}

}  // namespace pyssl
