#include <pybind11/stl.h>

#include <optional>

#include "bind.hpp"
#include "contrastive.hpp"
#include "one_sided.hpp"
#include "row_dots.hpp"

namespace pyssl {
namespace {

template <class T>
Contrast<T> contrast_of(const py::array& x, const py::array& y, Index period, bool small, int num_threads) {
    const Shape rows = require_ndim(x, "x", 2, "(n, k)");
    const Index m = require_ndim(y, "y", 2, "(m, k)")[0];
    if (rows[0] < 1 || rows[1] < 1 || m < 1) throw py::value_error("x and y must not be empty, got " + text(rows));
    if (period < 1) throw py::value_error("period must be >= 1, got " + std::to_string(period));
    return {{input<T>(x, "x", rows), rows[0], rows[1]},
            {input<T>(y, "y", {m, rows[1]}), m, rows[1]},
            period,
            small,
            checked_num_threads(num_threads)};
}

VectorView<const double> doubles(const py::array& array, const char* name, Index size) {
    return {input<double>(array, name, {size}), size};
}

void bound_log_sum_exp(const py::array& x, const py::array& y, Index period, bool small, const py::array& rows,
                       const std::optional<py::array>& columns, int num_threads) {
    with_dtype(x, "x", [&](auto element) {
        using T = decltype(element);
        const Contrast<T> contrast = contrast_of<T>(x, y, period, small, num_threads);
        const VectorView<double> row_out{output<double>(rows, "rows", {contrast.x.rows}), contrast.x.rows};
        VectorView<double> column_out{nullptr, 0};
        if (columns) column_out = {output<double>(*columns, "columns", {contrast.y.rows}), contrast.y.rows};
        bool done = false;
        {
            const py::gil_scoped_release release;
            Interrupt interrupt;
            done = columns || contrast.symmetric()
                       ? log_sum_exp(contrast, row_out, column_out, interrupt)
                       : OneSided<T>(contrast, false).logs(row_out, interrupt);
        }
        if (!done) throw py::error_already_set();
    });
}

using Optional = std::optional<py::array>;

Projection projection_of(const Optional& project, const Optional& scale, Index n) {
    Projection projection{{nullptr, 0}, {nullptr, 0}};
    if (project) projection.project = doubles(*project, "project", n);
    if (scale) projection.scale = doubles(*scale, "scale", n);
    return projection;
}

void bound_weighted_sums(const py::array& x, const py::array& y, Index period, bool small,
                         const py::array& row_weights, const py::array& row_logs, const py::array& column_weights,
                         const py::array& column_logs, const py::array& positive, const Optional& x_project,
                         const Optional& x_scale, const Optional& y_project, const Optional& y_scale, double factor,
                         const py::array& x_gradient, const py::array& y_gradient, int num_threads) {
    with_dtype(x, "x", [&](auto element) {
        using T = decltype(element);
        const Contrast<T> contrast = contrast_of<T>(x, y, period, small, num_threads);
        const Index n = contrast.x.rows, k = contrast.x.columns;
        if (contrast.y.rows != n) throw py::value_error("x and y must have as many rows");
        const MatrixView<T> gx{output<T>(x_gradient, "x_gradient", {n, k}), n, k};
        const MatrixView<T> gy{output<T>(y_gradient, "y_gradient", {n, k}), n, k};
        const auto a = doubles(row_weights, "row_weights", n), u = doubles(row_logs, "row_logs", n);
        const auto b = doubles(column_weights, "column_weights", n), v = doubles(column_logs, "column_logs", n);
        const Finish x_finish{doubles(positive, "positive", n), projection_of(x_project, x_scale, n)};
        const Finish y_finish{doubles(positive, "positive", n), projection_of(y_project, y_scale, n)};
        bool done = false;
        {
            const py::gil_scoped_release release;
            Interrupt interrupt;
            done = weighted_sums(contrast, a, u, b, v, x_finish, y_finish, factor, gx, gy, interrupt);
        }
        if (!done) throw py::error_already_set();
    });
}

void bound_one_sided(const py::array& x, const py::array& y, bool small, const py::array& positives,
                     const Optional& x_project, const Optional& x_scale, const Optional& y_project,
                     const Optional& y_scale, double factor, const py::array& rows, const py::array& x_gradient,
                     const py::array& y_gradient, int num_threads) {
    with_dtype(x, "x", [&](auto element) {
        using T = decltype(element);
        const Index period = std::max<Index>(1, require_ndim(x, "x", 2, "(n, k)")[0]);
        const Contrast<T> contrast = contrast_of<T>(x, y, period, small, num_threads);
        const Index n = contrast.x.rows, k = contrast.x.columns;
        if (contrast.y.rows != n) throw py::value_error("x and y must have as many rows");
        const VectorView<const double> logits = doubles(positives, "positives", n);
        const Projection x_projection = projection_of(x_project, x_scale, n);
        const Projection y_projection = projection_of(y_project, y_scale, n);
        const VectorView<double> logs{output<double>(rows, "rows", {n}), n};
        const MatrixView<T> gx{output<T>(x_gradient, "x_gradient", {n, k}), n, k};
        const MatrixView<T> gy{output<T>(y_gradient, "y_gradient", {n, k}), n, k};
        bool done = false;
        {
            const py::gil_scoped_release release;
            Interrupt interrupt;
            done = OneSided<T>(contrast, true)
                       .gradient(logits, x_projection, y_projection, factor, logs, gx, gy, interrupt);
        }
        if (!done) throw py::error_already_set();
    });
}

// What both passes over tangents take.
template <class T>
struct TangentInputs {
    Contrast<T> contrast;
    Tangent<T> along;
    TangentWeights rows, columns;

    TangentInputs(const py::array& x, const py::array& y, const py::array& dx, const py::array& dy, Index period,
                  const py::array& row_weights, const py::array& row_logs, const py::array& row_means,
                  const py::array& column_weights, const py::array& column_logs, const py::array& column_means,
                  int num_threads)
        : contrast(contrast_of<T>(x, y, period, false, num_threads)) {
        const Index n = contrast.x.rows, m = contrast.y.rows, k = contrast.x.columns;
        along = {{input<T>(dx, "dx", {n, k}), n, k}, {input<T>(dy, "dy", {m, k}), m, k}};
        rows = {doubles(row_weights, "row_weights", n), doubles(row_logs, "row_logs", n),
                doubles(row_means, "row_means", n)};
        columns = {doubles(column_weights, "column_weights", m), doubles(column_logs, "column_logs", m),
                   doubles(column_means, "column_means", m)};
    }
};

void bound_tangent_means(const py::array& x, const py::array& y, const py::array& dx, const py::array& dy, Index period,
                         const py::array& row_logs, const py::array& column_logs, const py::array& row_means,
                         const py::array& column_means, int num_threads) {
    with_dtype(x, "x", [&](auto element) {
        using T = decltype(element);
        const TangentInputs<T> in(x, y, dx, dy, period, row_logs, row_logs, row_logs, column_logs, column_logs,
                                  column_logs, num_threads);
        const Index n = in.contrast.x.rows, m = in.contrast.y.rows;
        const VectorView<double> rows{output<double>(row_means, "row_means", {n}), n};
        const VectorView<double> columns{output<double>(column_means, "column_means", {m}), m};
        bool done = false;
        {
            const py::gil_scoped_release release;
            Interrupt interrupt;
            done = TangentPass<T, Interrupt>(in.contrast, in.along, in.rows, in.columns, interrupt).means(rows, columns);
        }
        if (!done) throw py::error_already_set();
    });
}

void bound_tangent_sums(const py::array& x, const py::array& y, const py::array& dx, const py::array& dy, Index period,
                        const py::array& row_weights, const py::array& row_logs, const py::array& row_means,
                        const py::array& column_weights, const py::array& column_logs, const py::array& column_means,
                        const py::array& x_out, const py::array& y_out, int num_threads) {
    with_dtype(x, "x", [&](auto element) {
        using T = decltype(element);
        const TangentInputs<T> in(x, y, dx, dy, period, row_weights, row_logs, row_means, column_weights, column_logs,
                                  column_means, num_threads);
        const Index n = in.contrast.x.rows, m = in.contrast.y.rows, k = in.contrast.x.columns;
        const MatrixView<T> hx{output<T>(x_out, "x_out", {n, k}), n, k};
        const MatrixView<T> hy{output<T>(y_out, "y_out", {m, k}), m, k};
        bool done = false;
        {
            const py::gil_scoped_release release;
            Interrupt interrupt;
            done = TangentPass<T, Interrupt>(in.contrast, in.along, in.rows, in.columns, interrupt).hvp(hx, hy);
        }
        if (!done) throw py::error_already_set();
    });
}

void bound_row_dots(const py::array& a, const py::array& b, const py::array& out, int num_threads) {
    with_dtype(a, "a", [&](auto element) {
        using T = decltype(element);
        const Shape shape = require_ndim(a, "a", 2, "(n, k)");
        const MatrixView<const T> first{input<T>(a, "a", shape), shape[0], shape[1]};
        const MatrixView<const T> second{input<T>(b, "b", shape), shape[0], shape[1]};
        const VectorView<double> result{output<double>(out, "out", {shape[0]}), shape[0]};
        checked_num_threads(num_threads);
        {
            const py::gil_scoped_release release;
            row_dots(first, second, result, num_threads);
        }
    });
}

}  // namespace

void bind_contrastive(py::module_& m) {
    m.def("row_dots", bound_row_dots, py::arg("a").noconvert(), py::arg("b").noconvert(), py::arg("out").noconvert(),
          py::arg("num_threads") = 0);
    m.def("log_sum_exp", bound_log_sum_exp, py::arg("x").noconvert(), py::arg("y").noconvert(), py::arg("period"),
          py::arg("small"), py::arg("rows").noconvert(), py::arg("columns").noconvert() = py::none(),
          py::arg("num_threads") = 0);
    m.def("weighted_sums", bound_weighted_sums, py::arg("x").noconvert(), py::arg("y").noconvert(), py::arg("period"),
          py::arg("small"), py::arg("row_weights").noconvert(), py::arg("row_logs").noconvert(),
          py::arg("column_weights").noconvert(), py::arg("column_logs").noconvert(), py::arg("positive").noconvert(),
          py::arg("x_project").noconvert(), py::arg("x_scale").noconvert(), py::arg("y_project").noconvert(),
          py::arg("y_scale").noconvert(), py::arg("factor"), py::arg("x_gradient").noconvert(),
          py::arg("y_gradient").noconvert(), py::arg("num_threads") = 0);
    m.def("one_sided", bound_one_sided, py::arg("x").noconvert(), py::arg("y").noconvert(), py::arg("small"),
          py::arg("positives").noconvert(), py::arg("x_project").noconvert(), py::arg("x_scale").noconvert(),
          py::arg("y_project").noconvert(), py::arg("y_scale").noconvert(), py::arg("factor"),
          py::arg("rows").noconvert(), py::arg("x_gradient").noconvert(), py::arg("y_gradient").noconvert(),
          py::arg("num_threads") = 0);
    m.def("tangent_means", bound_tangent_means, py::arg("x").noconvert(), py::arg("y").noconvert(),
          py::arg("dx").noconvert(), py::arg("dy").noconvert(), py::arg("period"), py::arg("row_logs").noconvert(),
          py::arg("column_logs").noconvert(), py::arg("row_means").noconvert(), py::arg("column_means").noconvert(),
          py::arg("num_threads") = 0);
    m.def("tangent_sums", bound_tangent_sums, py::arg("x").noconvert(), py::arg("y").noconvert(),
          py::arg("dx").noconvert(), py::arg("dy").noconvert(), py::arg("period"), py::arg("row_weights").noconvert(),
          py::arg("row_logs").noconvert(), py::arg("row_means").noconvert(), py::arg("column_weights").noconvert(),
          py::arg("column_logs").noconvert(), py::arg("column_means").noconvert(), py::arg("x_out").noconvert(),
          py::arg("y_out").noconvert(), py::arg("num_threads") = 0);
}

}  // namespace pyssl
