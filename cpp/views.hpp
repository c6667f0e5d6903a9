// What a kernel sees of memory that somebody else owns. Every view is dense and in C order; its shape is written
// beside each parameter that takes one.
#pragma once

#include <cstddef>
#include <cstdint>

namespace pyssl {

using Index = std::int64_t;

template <class T>
struct VectorView {
    T* data;
    Index size;

    T& operator[](Index i) const { return data[i]; }
};

template <class T>
struct MatrixView {
    T* data;
    Index rows, columns;

    T* row(Index i) const { return data + i * columns; }
    T& operator()(Index i, Index j) const { return data[i * columns + j]; }
};

// Many small matrices of one shape, one after the other.
template <class T>
struct BatchView {
    T* data;
    Index size, rows, columns;

    Index stride() const { return rows * columns; }
    MatrixView<T> operator[](Index n) const { return {data + n * stride(), rows, columns}; }
};

}  // namespace pyssl
