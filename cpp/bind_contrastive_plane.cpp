#include <pybind11/stl.h>

#include <optional>

#include "bind.hpp"
#include "contrastive_plane.hpp"

namespace pyssl {
namespace {

template <class T>
MatrixView<const T> coefficients(const py::array& array, const char* name, Index n) {
    return {input<T>(array, name, {plane_monomials, n}), plane_monomials, n};
}

VectorView<const double> axis(const py::array& array, const char* name) {
    const Shape shape = require_ndim(array, name, 1, "(points,)");
    if (shape[0] < 1) throw py::value_error(std::string(name) + " must not be empty");
    return {input<double>(array, name, shape), shape[0]};
}

void bound_plane_losses(const py::array& x, const py::array& y, const py::array& x_terms, const py::array& y_terms,
                        const py::array& positives, const std::optional<py::array>& offsets, const py::array& u,
                        const py::array& v, const py::array& out, int num_threads) {
    with_dtype(x, "x", [&](auto element) {
        using T = decltype(element);
        const Shape shape = require_ndim(x, "x", 3, "(3, n, k)");
        const Index n = shape[1], k = shape[2];
        if (shape[0] != plane_parts || n < 1 || k < 1) {
            throw py::value_error("x must be (3, n, k) and not empty, got " + text(shape));
        }
        const LogitPlane<T> plane{{input<T>(x, "x", shape), plane_parts, n, k},
                                  {input<T>(y, "y", shape), plane_parts, n, k},
                                  coefficients<T>(x_terms, "x_terms", n),
                                  coefficients<T>(y_terms, "y_terms", n),
                                  coefficients<double>(positives, "positives", n),
                                  offsets ? coefficients<double>(*offsets, "offsets", n)
                                          : MatrixView<const double>{nullptr, 0, 0},
                                  axis(u, "u"),
                                  axis(v, "v")};
        const MatrixView<double> result{output<double>(out, "out", {plane.u.size, plane.v.size}), plane.u.size,
                                        plane.v.size};
        checked_num_threads(num_threads);
        bool done = false;
        {
            const py::gil_scoped_release release;
            Interrupt interrupt;
            done = plane_losses(plane, result, num_threads, interrupt);
        }
        if (!done) throw py::error_already_set();
    });
}

}  // namespace

void bind_contrastive_plane(py::module_& m) {
    m.def("plane_losses", bound_plane_losses, py::arg("x").noconvert(), py::arg("y").noconvert(),
          py::arg("x_terms").noconvert(), py::arg("y_terms").noconvert(), py::arg("positives").noconvert(),
          py::arg("offsets").noconvert(), py::arg("u").noconvert(), py::arg("v").noconvert(),
          py::arg("out").noconvert(), py::arg("num_threads") = 0);
}

}  // namespace pyssl
