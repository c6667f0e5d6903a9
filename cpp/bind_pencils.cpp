#include <pybind11/stl.h>

#include <optional>
#include <tuple>

#include "bind.hpp"
#include "pencils.hpp"

namespace pyssl {
namespace {

// The indices of the first matrix that is not symmetric and finite, of the first such metric, and of the first metric
// that is not positive definite; -1 where there is none.
using Faults = std::tuple<Index, Index, Index>;

template <class T>
PencilBatch<T> pencil_batch(const py::array& forms, const Shape& shape, const std::optional<py::array>& metrics) {
    const Index d = shape[1];
    PencilBatch<T> batch{d, input<T>(forms, "forms", {shape[0], d, d}), nullptr, false};
    if (metrics) {
        const Index count = require_ndim(*metrics, "metrics", 3, "(N, d, d) or (1, d, d)")[0];
        batch.shared = count == 1;
        batch.metrics = input<T>(*metrics, "metrics", {batch.shared ? 1 : shape[0], d, d});
    }
    return batch;
}

Shape pencil_shape(const py::array& forms) {
    Shape shape = require_ndim(forms, "forms", 3, "(N, d, d)");
    if (shape[1] < 1) throw py::value_error("forms must be (N, d, d) with d >= 1, got " + text(shape));
    return shape;
}

template <class T, class Kernel>
Faults run(const Shape& shape, int num_threads, const Kernel& kernel) {
    PencilFaults faults;
    bool done = false;
    {
        const py::gil_scoped_release release;
        Interrupt interrupt;
        done = for_each_pencil<T>(shape[0], shape[1], num_threads, faults, interrupt, kernel);
    }
    if (!done) throw py::error_already_set();
    return {faults.form, faults.metric, faults.indefinite};
}

Faults eigenvalues(const py::array& forms, const std::optional<py::array>& metrics, const py::array& values,
                   int num_threads) {
    checked_num_threads(num_threads);
    const Shape shape = pencil_shape(forms);
    Faults faults;
    with_dtype(forms, "forms", [&](auto element) {
        using T = decltype(element);
        const PencilBatch<T> batch = pencil_batch<T>(forms, shape, metrics);
        T* const out = output<T>(values, "values", {shape[0], shape[1]});
        require_apart(values, "values", forms, "forms");
        if (metrics) require_apart(values, "values", *metrics, "metrics");
        faults = run<T>(shape, num_threads, [&](const auto& kernels, Index begin, Index end, T* scratch, auto& found) {
            kernels.eigenvalues(batch, out, begin, end, scratch, found);
        });
    });
    return faults;
}

Faults eigh(const py::array& forms, const std::optional<py::array>& metrics, const py::array& values,
            const py::array& vectors, int num_threads) {
    checked_num_threads(num_threads);
    const Shape shape = pencil_shape(forms);
    Faults faults;
    with_dtype(forms, "forms", [&](auto element) {
        using T = decltype(element);
        const PencilBatch<T> batch = pencil_batch<T>(forms, shape, metrics);
        T* const out = output<T>(values, "values", {shape[0], shape[1]});
        T* const columns = output<T>(vectors, "vectors", {shape[0], shape[1], shape[1]});
        for (const auto& [written, name] : {std::pair{values, "values"}, std::pair{vectors, "vectors"}}) {
            require_apart(written, name, forms, "forms");
            if (metrics) require_apart(written, name, *metrics, "metrics");
        }
        require_apart(values, "values", vectors, "vectors");
        faults = run<T>(shape, num_threads, [&](const auto& kernels, Index begin, Index end, T* scratch, auto& found) {
            kernels.eigh(batch, out, columns, begin, end, scratch, found);
        });
    });
    return faults;
}

Faults inertia(const py::array& forms, const std::optional<py::array>& tolerance, const py::array& counts,
               int num_threads) {
    checked_num_threads(num_threads);
    const Shape shape = pencil_shape(forms);
    Faults faults;
    with_dtype(forms, "forms", [&](auto element) {
        using T = decltype(element);
        const PencilBatch<T> batch = pencil_batch<T>(forms, shape, std::nullopt);
        const double* const bounds = tolerance ? input<double>(*tolerance, "tolerance", {shape[0]}) : nullptr;
        if (!py::isinstance<py::array_t<Index>>(counts)) {
            throw py::type_error("counts must be int64, got " + dtype_text(counts));
        }
        Index* const out = output<Index>(counts, "counts", {shape[0], 3});
        require_apart(counts, "counts", forms, "forms");
        if (tolerance) require_apart(counts, "counts", *tolerance, "tolerance");
        faults = run<T>(shape, num_threads, [&](const auto& kernels, Index begin, Index end, T* scratch, auto& found) {
            kernels.inertia(batch, bounds, out, begin, end, scratch, found);
        });
    });
    return faults;
}

py::arg_v threads_argument() { return py::arg("num_threads") = 0; }
py::arg array_argument(const char* name) { return py::arg(name).noconvert(); }

}  // namespace

void bind_pencils(py::module_& m) {
    m.def("pencil_eigenvalues", eigenvalues, array_argument("forms"), array_argument("metrics"),
          array_argument("values"), threads_argument());
    m.def("pencil_eigh", eigh, array_argument("forms"), array_argument("metrics"), array_argument("values"),
          array_argument("vectors"), threads_argument());
    m.def("pencil_inertia", inertia, array_argument("forms"), array_argument("tolerance"), array_argument("counts"),
          threads_argument());
}

}  // namespace pyssl
