#include "bind.hpp"
#include "spectral.hpp"

namespace pyssl {
namespace {

// The arguments that the three functions share, taken out of their Python objects.
template <class T>
struct QuarticInputs {
    BatchView<const T> weights;         // (N, k, d)
    MatrixView<const T> signal, scale;  // (d, d)

    QuarticInputs(const py::array& w, const py::array& b, const py::array& s) {
        const Shape shape = require_ndim(w, "weights", 3, "(N, k, d)");
        const Index d = shape[2];
        weights = {input<T>(w, "weights", shape), shape[0], shape[1], d};
        signal = {input<T>(b, "signal", {d, d}), d, d};
        scale = {input<T>(s, "scale", {d, d}), d, d};
    }
    Shape shape() const { return {weights.size, weights.rows, weights.columns}; }
};

// A batch of results written beside the batch of weights.
template <class T>
BatchView<T> batch_output(const py::array& array, const char* name, const BatchView<const T>& like) {
    return {output<T>(array, name, {like.size, like.rows, like.columns}), like.size, like.rows, like.columns};
}

void value(const py::array& weights, const py::array& signal, const py::array& scale, double q,
           const py::array& value, int num_threads) {
    checked_num_threads(num_threads);
    with_dtype(weights, "weights", [&](auto element) {
        using T = decltype(element);
        const QuarticInputs<T> in(weights, signal, scale);
        const VectorView<T> out{output<T>(value, "value", {in.weights.size}), in.weights.size};
        require_apart(value, "value", weights, "weights");
        {
            const py::gil_scoped_release release;
            quartic_value(in.weights, in.signal, in.scale, q, out, num_threads);
        }
    });
}

void value_and_gradient(const py::array& weights, const py::array& signal, const py::array& scale, double q,
                        const py::array& value, const py::array& gradient, int num_threads) {
    checked_num_threads(num_threads);
    with_dtype(weights, "weights", [&](auto element) {
        using T = decltype(element);
        const QuarticInputs<T> in(weights, signal, scale);
        const VectorView<T> out{output<T>(value, "value", {in.weights.size}), in.weights.size};
        const BatchView<T> slope = batch_output<T>(gradient, "gradient", in.weights);
        require_apart(value, "value", weights, "weights");
        require_apart(gradient, "gradient", weights, "weights");
        require_apart(gradient, "gradient", value, "value");
        {
            const py::gil_scoped_release release;
            quartic_value_and_gradient(in.weights, in.signal, in.scale, q, out, slope, num_threads);
        }
    });
}

void hvp(const py::array& weights, const py::array& directions, const py::array& signal, const py::array& scale,
         double q, const py::array& out, int num_threads) {
    checked_num_threads(num_threads);
    with_dtype(weights, "weights", [&](auto element) {
        using T = decltype(element);
        const QuarticInputs<T> in(weights, signal, scale);
        const BatchView<const T> along{input<T>(directions, "directions", in.shape()), in.weights.size,
                                       in.weights.rows, in.weights.columns};
        const BatchView<T> result = batch_output<T>(out, "out", in.weights);
        require_apart(out, "out", weights, "weights");
        require_apart(out, "out", directions, "directions");
        {
            const py::gil_scoped_release release;
            quartic_hvp(in.weights, along, in.signal, in.scale, q, result, num_threads);
        }
    });
}

py::arg_v threads_argument() { return py::arg("num_threads") = 0; }
py::arg array_argument(const char* name) { return py::arg(name).noconvert(); }

}  // namespace

void bind_spectral(py::module_& m) {
    m.def("quartic_value", value, array_argument("weights"), array_argument("signal"), array_argument("scale"),
          py::arg("q"), array_argument("value"), threads_argument());
    m.def("quartic_value_and_gradient", value_and_gradient, array_argument("weights"), array_argument("signal"),
          array_argument("scale"), py::arg("q"), array_argument("value"), array_argument("gradient"),
          threads_argument());
    m.def("quartic_hvp", hvp, array_argument("weights"), array_argument("directions"), array_argument("signal"),
          array_argument("scale"), py::arg("q"), array_argument("out"), threads_argument());
}

}  // namespace pyssl
