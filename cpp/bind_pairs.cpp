#include <pybind11/stl.h>

#include <optional>

#include "bind.hpp"
#include "pairs.hpp"

namespace pyssl {
namespace {

void bound_pair_scatter(const py::array& x, const std::optional<py::array>& x_plus, const py::array& mean,
                        const py::array& middles, const std::optional<py::array>& differences, int num_threads) {
    checked_num_threads(num_threads);
    if (x_plus.has_value() != differences.has_value()) {
        throw py::value_error("x_plus and differences must be given together");
    }
    with_dtype(x, "x", [&](auto element) {
        using T = decltype(element);
        const Shape shape = require_ndim(x, "x", 2, "(n, d)");
        const Index n = shape[0], d = shape[1];
        if (n < 1 || d < 1) throw py::value_error("x must not be empty, got " + text(shape));
        const MatrixView<const T> first{input<T>(x, "x", shape), n, d};
        MatrixView<const T> second = first;
        double* const average = output<double>(mean, "mean", {d});
        const MatrixView<double> scatter{output<double>(middles, "middles", {d, d}), d, d};
        MatrixView<double> between{nullptr, d, d};
        if (x_plus) {
            second.data = input<T>(*x_plus, "x_plus", shape);
            between.data = output<double>(*differences, "differences", {d, d});
        }
        bool done = false;
        {
            const py::gil_scoped_release release;
            Interrupt interrupt;
            done = pair_scatter(first, second, average, scatter, between, num_threads, interrupt);
        }
        if (!done) throw py::error_already_set();
    });
}

}  // namespace

void bind_pairs(py::module_& m) {
    m.def("pair_scatter", bound_pair_scatter, py::arg("x").noconvert(), py::arg("x_plus").noconvert(),
          py::arg("mean").noconvert(), py::arg("middles").noconvert(), py::arg("differences").noconvert(),
          py::arg("num_threads") = 0);
}

}  // namespace pyssl
