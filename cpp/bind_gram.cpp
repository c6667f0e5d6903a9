#include <pybind11/stl.h>

#include <optional>

#include "bind.hpp"
#include "gram.hpp"

namespace pyssl {
namespace {

template <class T>
Scaled<T> scaled(const py::array& array, const char* name, const py::array& columns, const char* columns_name,
                 const Shape& shape) {
    const T* data = input<T>(array, name, shape);
    const T* rows = input<T>(columns, columns_name, {2, shape[1]});
    return {{data, shape[0], shape[1]}, rows, rows + shape[1]};
}

Shape require_rows(const py::array& array, const char* name) {
    Shape shape = require_ndim(array, name, 2, "(n, k)");
    if (shape[0] < 1 || shape[1] < 1) {
        throw py::value_error(std::string(name) + " must not be empty, got " + text(shape));
    }
    return shape;
}

void bound_gram(const py::array& a, const py::array& a_columns, const std::optional<py::array>& b,
                const std::optional<py::array>& b_columns, const py::array& out, int num_threads) {
    checked_num_threads(num_threads);
    if (b.has_value() != b_columns.has_value()) throw py::value_error("b and b_columns must be given together");
    with_dtype(a, "a", [&](auto element) {
        using T = decltype(element);
        const Shape left = require_rows(a, "a");
        const Scaled<T> first = scaled<T>(a, "a", a_columns, "a_columns", left);
        Scaled<T> second = first;
        if (b) second = scaled<T>(*b, "b", *b_columns, "b_columns", {left[0], require_rows(*b, "b")[1]});
        const Index p = left[1], q = second.data.columns;
        const MatrixView<double> result{output<double>(out, "out", {p, q}), p, q};
        bool done = false;
        {
            const py::gil_scoped_release release;
            Interrupt interrupt;
            done = gram(first, second, !b, result, num_threads, interrupt);
        }
        if (!done) throw py::error_already_set();
    });
}

void bound_mix(const py::array& a, const py::array& a_columns, const py::array& matrix, const py::array& columns,
               const py::array& out, const std::optional<py::array>& plus, const std::optional<py::array>& minus,
               const std::optional<py::array>& rows, bool add, int num_threads) {
    checked_num_threads(num_threads);
    with_dtype(a, "a", [&](auto element) {
        using T = decltype(element);
        const Shape left = require_rows(a, "a");
        const Index n = left[0], k = left[1], q = require_rows(matrix, "matrix")[1];
        const Scaled<T> first = scaled<T>(a, "a", a_columns, "a_columns", left);
        const MatrixView<const T> second{input<T>(matrix, "matrix", {k, q}), k, q};
        Mix<T> extra{nullptr, nullptr, nullptr, input<T>(columns, "columns", {5, q}), add};
        if (plus) extra.plus = input<T>(*plus, "plus", {n, q});
        if (minus) extra.minus = input<T>(*minus, "minus", {n, q});
        if (rows) extra.rows = input<T>(*rows, "rows", {n});
        const MatrixView<T> result{output<T>(out, "out", {n, q}), n, q};
        require_apart(out, "out", a, "a");
        if (plus) require_apart(out, "out", *plus, "plus");
        if (minus) require_apart(out, "out", *minus, "minus");
        bool done = false;
        {
            const py::gil_scoped_release release;
            Interrupt interrupt;
            done = mix(first, second, extra, result, num_threads, interrupt);
        }
        if (!done) throw py::error_already_set();
    });
}

// Moments of two matrices of one shape.
template <class Body>
void with_pair(const py::array& a, const py::array& b, const Body& body) {
    with_dtype(a, "a", [&](auto element) {
        using T = decltype(element);
        const Shape shape = require_rows(a, "a");
        body(MatrixView<const T>{input<T>(a, "a", shape), shape[0], shape[1]},
             MatrixView<const T>{input<T>(b, "b", shape), shape[0], shape[1]});
    });
}

void bound_column_moments(const py::array& a, const py::array& b, const py::array& out, int num_threads) {
    checked_num_threads(num_threads);
    with_pair(a, b, [&](auto first, auto second) {
        const MatrixView<double> result{output<double>(out, "out", {6, first.columns}), 6, first.columns};
        const py::gil_scoped_release release;
        column_moments(first, second, result, num_threads);
    });
}

void bound_row_moments(const py::array& a, const py::array& b, const py::array& out, int num_threads) {
    checked_num_threads(num_threads);
    with_pair(a, b, [&](auto first, auto second) {
        const MatrixView<double> result{output<double>(out, "out", {3, first.rows}), 3, first.rows};
        const py::gil_scoped_release release;
        row_moments(first, second, result, num_threads);
    });
}

}  // namespace

void bind_gram(py::module_& m) {
    m.def("gram", bound_gram, py::arg("a").noconvert(), py::arg("a_columns").noconvert(), py::arg("b").noconvert(),
          py::arg("b_columns").noconvert(), py::arg("out").noconvert(), py::arg("num_threads") = 0);
    m.def("mix", bound_mix, py::arg("a").noconvert(), py::arg("a_columns").noconvert(), py::arg("matrix").noconvert(),
          py::arg("columns").noconvert(), py::arg("out").noconvert(), py::arg("plus").noconvert() = py::none(),
          py::arg("minus").noconvert() = py::none(), py::arg("rows").noconvert() = py::none(), py::arg("add") = false,
          py::arg("num_threads") = 0);
    m.def("column_moments", bound_column_moments, py::arg("a").noconvert(), py::arg("b").noconvert(),
          py::arg("out").noconvert(), py::arg("num_threads") = 0);
    m.def("row_moments", bound_row_moments, py::arg("a").noconvert(), py::arg("b").noconvert(),
          py::arg("out").noconvert(), py::arg("num_threads") = 0);
}

}  // namespace pyssl
