// The tiles behind spectral.hpp, compiled once per instruction set (isa.hpp).
//
// A tile is `lane_count` consecutive W's, transposed so that each vector holds one entry of all of them. Products with
// the shared B and S then need a broadcast of one number per multiply-add, which the instruction does for free, and
// nothing in the arithmetic is horizontal. Blocks of `block_rows x block_columns` vectors stay in registers.
#include "lanes.hpp"
#include "spectral_kernels.hpp"

namespace pyssl::PYSSL_ISA {
namespace {

// With 32 registers (AVX-512) 16 sums and their operands fit; with 16, only 8.
constexpr int block_rows = 4;
constexpr int block_columns = PYSSL_VECTOR_BYTES == 64 ? 4 : 2;

template <class T, int R, int C>
struct Block {
    Lanes<T> x[R][C];
};

// block += A M for a shared matrix M.
template <int R, int C, class T>
PYSSL_INLINE void add_shared_product(Block<T, R, C>& block,
                                     const Lanes<T>* a,  // (R, n) rows of A
                                     Index n,            //
                                     const T* m,         // (n, C) columns of M, rows `stride` apart
                                     Index stride) {
    for (Index i = 0; i < n; ++i) {
#pragma GCC unroll 8
        for (int r = 0; r < R; ++r) {
#pragma GCC unroll 8
            for (int c = 0; c < C; ++c) block.x[r][c] += a[r * n + i] * m[i * stride + c];
        }
    }
}

// block += A M for an M of each W's own.
template <int R, int C, class T>
PYSSL_INLINE void add_product(Block<T, R, C>& block,
                              const Lanes<T>* a,  // (R, n) rows of A
                              Index n,            //
                              const Lanes<T>* m,  // (n, C) columns of M, rows `stride` apart
                              Index stride) {
    for (Index i = 0; i < n; ++i) {
#pragma GCC unroll 8
        for (int r = 0; r < R; ++r) {
#pragma GCC unroll 8
            for (int c = 0; c < C; ++c) block.x[r][c] += a[r * n + i] * m[i * stride + c];
        }
    }
}

// block += A M'. On the diagonal only r >= c is needed.
template <bool Diagonal, int R, int C, class T>
PYSSL_INLINE void add_gram(Block<T, R, C>& block,
                           const Lanes<T>* a,  // (R, n)
                           const Lanes<T>* m,  // (C, n)
                           Index n) {
    for (Index j = 0; j < n; ++j) {
#pragma GCC unroll 8
        for (int r = 0; r < R; ++r) {
#pragma GCC unroll 8
            for (int c = 0; c < C; ++c) {
                if (!Diagonal || c <= r) block.x[r][c] += a[r * n + j] * m[c * n + j];
            }
        }
    }
}

// Calls body(r, c, Constant<R>, Constant<C>) for the register blocks that cover (rows, columns).
template <class Body>
PYSSL_INLINE void for_each_block(Index rows, Index columns, const Body& body) {
    for (Index r = 0; r < rows; r += block_rows) {
        with_constant<block_rows>(rows - r, [&](auto R) PYSSL_LAMBDA {
            for (Index c = 0; c < columns; c += block_columns) {
                with_constant<block_columns>(columns - c, [&](auto C) PYSSL_LAMBDA { body(r, c, R, C); });
            }
        });
    }
}

// Calls body(r, c, Constant<R>, Constant<C>, Constant<on the diagonal>) for blocks that cover the lower triangle.
template <class Body>
PYSSL_INLINE void for_each_lower_block(Index n, const Body& body) {
    for (Index r = 0; r < n; r += block_rows) {
        with_constant<block_rows>(n - r, [&](auto R) PYSSL_LAMBDA {
            for (Index c = 0; c < r; c += block_rows) body(r, c, R, Constant<block_rows>{}, Constant<0>{});
            body(r, r, R, R, Constant<1>{});
        });
    }
}

template <class T, int R, int C>
PYSSL_INLINE void copy(const Block<T, R, C>& block, Lanes<T>* target, Index stride) {
#pragma GCC unroll 8
    for (int r = 0; r < R; ++r) {
#pragma GCC unroll 8
        for (int c = 0; c < C; ++c) target[r * stride + c] = block.x[r][c];
    }
}

// target = A M for a shared matrix M.
template <class T>
PYSSL_INLINE void multiply_shared(const Lanes<T>* a,  // (k, d)
                                  const T* m,         // (d, d)
                                  Index k, Index d,
                                  Lanes<T>* target) {  // (k, d)
    for_each_block(k, d, [=](Index r, Index c, auto R, auto C) PYSSL_LAMBDA {
        Block<T, R.value, C.value> block{};
        add_shared_product(block, a + r * d, d, m + c, d);
        copy(block, target + r * d + c, d);
    });
}

// P = Y X' is symmetric because S is: the upper triangle is a copy. Adds its squared norm to `squares`: few enough
// terms at a time in T, and those sums in double.
template <class T>
PYSSL_INLINE void scaled_gram(const Lanes<T>* y,  // (k, d) X S
                              const Lanes<T>* x,  // (k, d)
                              Index k, Index d, T factor, DoubleSum<T>& squares,
                              Lanes<T>* p) {  // (k, k) factor P
    for_each_lower_block(k, [&](Index r0, Index c0, auto R, auto C, auto diagonal) PYSSL_LAMBDA {
        Block<T, R.value, C.value> block{};
        add_gram<diagonal.value>(block, y + r0 * d, x + c0 * d, d);
        Lanes<T> sum[R.value] = {};  // of each row, so that they need not wait for each other
#pragma GCC unroll 8
        for (int r = 0; r < R.value; ++r) {
#pragma GCC unroll 8
            for (int c = 0; c < (diagonal.value ? r + 1 : C.value); ++c) {
                const Lanes<T> entry = block.x[r][c];
                const Lanes<T> square = entry * entry;
                sum[r] += diagonal.value && c == r ? square : square + square;
                p[(r0 + r) * k + c0 + c] = p[(c0 + c) * k + r0 + r] = factor * entry;
            }
        }
#pragma GCC unroll 8
        for (int r = 0; r < R.value; ++r) squares.add(sum[r]);
    });
}

template <class T>
PYSSL_INLINE void write_value(const DoubleSum<T>& linear, const DoubleSum<T>& squares, double q, Index count,
                              T* value) {  // (count,)
    double a[lane_count<T>], b[lane_count<T>];
    linear.get(a);
    squares.get(b);
    for (Index l = 0; l < count; ++l) value[l] = static_cast<T>(0.5 * a[l] + q * b[l]);
}

// The last tile may lack W's: it is completed with zeros, in `staging`, and goes through the same instructions.
template <class T>
PYSSL_INLINE void gather_tile(const T* source,  // (count, n)
                              Index count, Index n,
                              T* staging,  // (L, n)
                              Lanes<T>* target) {  // (n,)
    if (count >= lane_count<T>) {
        gather(source, n, target);
        return;
    }
    for (Index e = 0; e < count * n; ++e) staging[e] = source[e];
    for (Index e = count * n; e < lane_count<T> * n; ++e) staging[e] = T(0);
    gather(staging, n, target);
}

template <class T>
PYSSL_INLINE void scatter_tile(const Lanes<T>* source,  // (n,)
                               Index count, Index n,
                               T* staging,  // (L, n)
                               T* target) {  // (count, n)
    if (count >= lane_count<T>) {
        scatter(source, n, target);
        return;
    }
    scatter(source, n, staging);
    for (Index e = 0; e < count * n; ++e) target[e] = staging[e];
}

// A batch streams through memory once, and a tile asks for all of its lines at the same moment: without the next tile
// under way meanwhile, reading and writing cost as much again as the arithmetic. For large tiles it makes no
// difference.
template <bool ForWriting, class T>
PYSSL_INLINE void prefetch_tile(const T* tile,  // (2 L, n), the second half is fetched
                                Index n) {
    constexpr Index line = 64, most = 16384;
    const Index bytes = lane_count<T> * n * static_cast<Index>(sizeof(T));
    if (bytes > most) return;
    const char* next = reinterpret_cast<const char*>(tile + lane_count<T> * n);
    for (Index i = 0; i < bytes; i += line) __builtin_prefetch(next + i, ForWriting, 3);
}

constexpr int scratch_tiles = 5;

template <class T>
std::size_t scratch_size(std::size_t k, std::size_t d) {
    return (scratch_tiles * k * d + 2 * k * k) * lane_count<T>;
}

// Scratch cut into tiles.
template <class T>
struct Tiles {
    T* staging;
    Lanes<T>*t[scratch_tiles - 1], *p, *dp;

    Tiles(T* scratch, Index k, Index d) {
        Lanes<T>* next = reinterpret_cast<Lanes<T>*>(scratch);
        for (Lanes<T>*& tile : t) {
            tile = next;
            next += k * d;
        }
        p = next;
        dp = p + k * k;
        staging = reinterpret_cast<T*>(dp + k * k);
    }
};

template <bool WithGradient, class T>
PYSSL_INLINE void value_tiles(const QuarticProblem<T>& problem,
                              const T* weights,  // (N, k, d)
                              T* value,          // (N,)
                              T* gradient,       // (N, k, d)
                              Index begin, Index end, T* scratch) {
    const Index k = problem.k, d = problem.d, n = k * d;
    const Tiles<T> tiles(scratch, k, d);
    Lanes<T>*const x = tiles.t[0], *const y = tiles.t[1], *const g = tiles.t[2], *const p = tiles.p;
    const T four_q = static_cast<T>(4 * problem.q);

    for (Index w = begin; w < end; w += lane_count<T>) {
        const Index count = end - w < lane_count<T> ? end - w : lane_count<T>;
        gather_tile(weights + w * n, count, n, tiles.staging, x);
        if (w + lane_count<T> < end) {
            prefetch_tile<false>(weights + w * n, n);
            if constexpr (WithGradient) prefetch_tile<true>(gradient + w * n, n);
        }
        multiply_shared(x, problem.scale, k, d, y);
        DoubleSum<T> linear, squares;
        scaled_gram(y, x, k, d, four_q, squares, p);
        for_each_block(k, d, [&](Index r0, Index c0, auto R, auto C) PYSSL_LAMBDA {
            Block<T, R.value, C.value> block{};
            add_shared_product(block, x + r0 * d, d, problem.minus_twice_signal + c0, d);
            Lanes<T> sum[R.value] = {};
#pragma GCC unroll 8
            for (int r = 0; r < R.value; ++r) {
#pragma GCC unroll 8
                for (int c = 0; c < C.value; ++c) sum[r] += x[(r0 + r) * d + c0 + c] * block.x[r][c];
            }
#pragma GCC unroll 8
            for (int r = 0; r < R.value; ++r) linear.add(sum[r]);
            if constexpr (WithGradient) {
                add_product(block, p + r0 * k, k, y + c0, d);
                copy(block, g + r0 * d + c0, d);
            }
        });
        write_value(linear, squares, problem.q, count, value + w);
        if constexpr (WithGradient) scatter_tile(g, count, n, tiles.staging, gradient + w * n);
    }
}

template <class T>
void value_kernel(const QuarticProblem<T>& problem, const T* weights, T* value, Index begin, Index end, T* scratch) {
    value_tiles<false, T>(problem, weights, value, nullptr, begin, end, scratch);
}

template <class T>
void value_and_gradient_kernel(const QuarticProblem<T>& problem, const T* weights, T* value, T* gradient, Index begin,
                               Index end, T* scratch) {
    value_tiles<true, T>(problem, weights, value, gradient, begin, end, scratch);
}

template <class T>
void hvp_kernel(const QuarticProblem<T>& problem,
                const T* weights,     // (N, k, d)
                const T* directions,  // (N, k, d)
                T* out,               // (N, k, d)
                Index begin, Index end, T* scratch) {
    const Index k = problem.k, d = problem.d, n = k * d;
    const Tiles<T> tiles(scratch, k, d);
    Lanes<T>*const x = tiles.t[0], *const y = tiles.t[1], *const v = tiles.t[2], *const u = tiles.t[3];
    Lanes<T>*const p = tiles.p, *const dp = tiles.dp;
    const T four_q = static_cast<T>(4 * problem.q);

    for (Index w = begin; w < end; w += lane_count<T>) {
        const Index count = end - w < lane_count<T> ? end - w : lane_count<T>;
        gather_tile(weights + w * n, count, n, tiles.staging, x);
        gather_tile(directions + w * n, count, n, tiles.staging, v);
        if (w + lane_count<T> < end) {
            prefetch_tile<false>(weights + w * n, n);
            prefetch_tile<false>(directions + w * n, n);
            prefetch_tile<true>(out + w * n, n);
        }
        multiply_shared(x, problem.scale, k, d, y);
        multiply_shared(v, problem.scale, k, d, u);
        DoubleSum<T> unused;
        scaled_gram(y, x, k, d, four_q, unused, p);
        // dP = U X' + X U' with U = D S, again by its lower triangle.
        for_each_lower_block(k, [&](Index r0, Index c0, auto R, auto C, auto diagonal) PYSSL_LAMBDA {
            Block<T, R.value, C.value> block{};
            add_gram<diagonal.value>(block, u + r0 * d, x + c0 * d, d);
            add_gram<diagonal.value>(block, x + r0 * d, u + c0 * d, d);
            for (int r = 0; r < R.value; ++r) {
                for (int c = 0; c < (diagonal.value ? r + 1 : C.value); ++c) {
                    dp[(r0 + r) * k + c0 + c] = dp[(c0 + c) * k + r0 + r] = four_q * block.x[r][c];
                }
            }
        });
        // X is spent: its tile takes the result.
        for_each_block(k, d, [&](Index r0, Index c0, auto R, auto C) PYSSL_LAMBDA {
            Block<T, R.value, C.value> block{};
            add_shared_product(block, v + r0 * d, d, problem.minus_twice_signal + c0, d);
            add_product(block, dp + r0 * k, k, y + c0, d);
            add_product(block, p + r0 * k, k, u + c0, d);
            copy(block, x + r0 * d + c0, d);
        });
        scatter_tile(x, count, n, tiles.staging, out + w * n);
    }
}

}  // namespace

extern const QuarticKernels<float> quartic_float;
const QuarticKernels<float> quartic_float{lane_count<float>, scratch_size<float>, value_kernel<float>,
                                          value_and_gradient_kernel<float>, hvp_kernel<float>};
extern const QuarticKernels<double> quartic_double;
const QuarticKernels<double> quartic_double{lane_count<double>, scratch_size<double>, value_kernel<double>,
                                            value_and_gradient_kernel<double>, hvp_kernel<double>};

}  // namespace pyssl::PYSSL_ISA
