#include "bind.hpp"
#include "product.hpp"

namespace pyssl {
namespace {

void bound_product(const py::array& a, const py::array& b, const py::array& out, bool transposed, bool add,
                   int num_threads) {
    checked_num_threads(num_threads);
    with_dtype(a, "a", [&](auto element) {
        using T = decltype(element);
        const Shape left = require_ndim(a, "a", 2, "(m, depth)");
        const Shape right = require_ndim(b, "b", 2, transposed ? "(n, depth)" : "(depth, n)");
        const Index m = left[0], depth = left[1], n = right[transposed ? 0 : 1];
        const MatrixView<const T> first{input<T>(a, "a", left), m, depth};
        const MatrixView<const T> second{input<T>(b, "b", transposed ? Shape{n, depth} : Shape{depth, n}), right[0],
                                         right[1]};
        const MatrixView<T> result{output<T>(out, "out", {m, n}), m, n};
        require_apart(out, "out", a, "a");
        require_apart(out, "out", b, "b");
        {
            const py::gil_scoped_release release;
            product(first, second, transposed, add, result, num_threads);
        }
    });
}

}  // namespace

void bind_product(py::module_& m) {
    m.def("product", bound_product, py::arg("a").noconvert(), py::arg("b").noconvert(), py::arg("out").noconvert(),
          py::arg("transposed") = false, py::arg("add") = false, py::arg("num_threads") = 0);
}

}  // namespace pyssl
