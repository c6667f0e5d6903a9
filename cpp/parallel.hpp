// Threads for loops whose iterations are independent.
#pragma once

#include <algorithm>
#include <cstddef>
#include <exception>
#include <new>
#include <system_error>
#include <thread>
#include <vector>

#ifdef __linux__
#include <sys/mman.h>
#endif

#include "views.hpp"

namespace pyssl {

enum class Fill { zero, none };

// Memory aligned for the widest vectors, so that kernels may use aligned loads from scratch. What is large and written
// before it is read need not be filled: the threads that write it then share the cost of its pages.
template <class T>
class AlignedBuffer {
   public:
    explicit AlignedBuffer(std::size_t size, Fill fill = Fill::zero)
        : alignment_(bytes(size) >= large ? page : alignment),
          data_(static_cast<T*>(::operator new(bytes(size), std::align_val_t{alignment_}))) {
#ifdef __linux__
        // a wish, not a need: small pages cost a fault each, and lookups that a strided panel has too many of
        if (alignment_ == page) madvise(data_, bytes(size), MADV_HUGEPAGE);
#endif
        if (fill == Fill::zero) std::fill_n(data_, size, T{});
    }
    ~AlignedBuffer() { ::operator delete(data_, std::align_val_t{alignment_}); }
    AlignedBuffer(const AlignedBuffer&) = delete;
    AlignedBuffer& operator=(const AlignedBuffer&) = delete;

    T* data() const { return data_; }

   private:
    static constexpr std::size_t alignment = 64, page = std::size_t{1} << 21, large = 2 * page;

    static std::size_t bytes(std::size_t size) {
        if (size > static_cast<std::size_t>(-1) / sizeof(T)) throw std::bad_array_new_length{};
        return size * sizeof(T);
    }
    std::size_t alignment_;
    T* data_;
};

inline int resolve_num_threads(int num_threads) {
    if (num_threads > 0) return num_threads;
    // asked once: the answer is read from files, which costs more than a small kernel
    static const int automatic = static_cast<int>(std::max(1U, std::thread::hardware_concurrency()));
    return automatic;
}

// How many threads so many flops of a product are worth: starting one takes as long as some millions of them.
inline Index worth_threads(double flops) { return static_cast<Index>(std::min(1e6, 1.0 + flops / 2e7)); }

// Calls body(begin, end) on static chunks that cover [0, size), from at most num_threads threads (0 = as many as the
// machine has). No chunk is smaller than `grain` iterations except when it is the only one: starting a thread costs
// tens of microseconds, so grain should stand for more work than that.
//
// The chunks depend on the thread count; the bits of a result do not as long as iterations are independent. To reduce,
// let each iteration write a partial result of its own (over blocks of a fixed size) and add those up in order.
//
// The first exception, in the order of the chunks, is rethrown to the caller once every worker has finished.
template <class Body>
void parallel_for(Index size, int num_threads, Index grain, const Body& body) {
    if (size <= 0) return;
    const Index most = (size - 1) / std::max<Index>(grain, 1) + 1;
    const Index chunks = std::min<Index>(resolve_num_threads(num_threads), most);
    if (chunks <= 1) {
        body(Index{0}, size);
        return;
    }
    const Index quotient = size / chunks, remainder = size % chunks;
    const auto start = [=](Index c) { return c * quotient + std::min(c, remainder); };

    std::vector<std::exception_ptr> errors(static_cast<std::size_t>(chunks));
    const auto run = [&](Index c) {
        try {
            body(start(c), start(c + 1));
        } catch (...) {
            errors[static_cast<std::size_t>(c)] = std::current_exception();
        }
    };
    std::vector<std::thread> workers;
    workers.reserve(static_cast<std::size_t>(chunks - 1));
    for (Index c = 1; c < chunks; ++c) {
        try {
            workers.emplace_back(run, c);
        } catch (const std::system_error&) {
            run(c);  // no more threads to be had: the answer is the same, only later
        }
    }
    run(0);
    for (std::thread& worker : workers) worker.join();
    for (const std::exception_ptr& error : errors) {
        if (error) std::rethrow_exception(error);
    }
}

}  // namespace pyssl
