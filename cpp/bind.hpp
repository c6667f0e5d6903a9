// From NumPy arrays to views: the only place that knows both sides. Arrays arrive checked by the Python layer; what is
// checked here is what a kernel relies on for its memory safety.
#pragma once

#include <pybind11/numpy.h>
#include <pybind11/pybind11.h>

#include <chrono>
#include <functional>
#include <string>
#include <vector>

#include "views.hpp"

namespace pyssl {

namespace py = pybind11;

using Shape = std::vector<Index>;

inline std::string text(const Shape& shape) {
    std::string result = "(";
    for (std::size_t i = 0; i < shape.size(); ++i) {
        if (i > 0) result += ", ";
        result += std::to_string(shape[i]);
    }
    return result + (shape.size() == 1 ? ",)" : ")");
}

inline Shape shape_of(const py::array& array) { return {array.shape(), array.shape() + array.ndim()}; }

inline std::string dtype_text(const py::array& array) { return py::cast<std::string>(py::str(array.dtype())); }

// Calls body(T{}) with the element type of an array. The one list of types there is.
template <class Body>
void with_dtype(const py::array& array, const char* name, const Body& body) {
    if (py::isinstance<py::array_t<double>>(array)) {
        body(double{});
    } else if (py::isinstance<py::array_t<float>>(array)) {
        body(float{});
    } else {
        throw py::type_error(std::string(name) + " must be float32 or float64, got " + dtype_text(array));
    }
}

inline Shape require_ndim(const py::array& array, const char* name, py::ssize_t ndim, const char* symbols) {
    if (array.ndim() != ndim) {
        throw py::value_error(std::string(name) + " must be " + symbols + ", got " + text(shape_of(array)));
    }
    return shape_of(array);
}

template <class T>
const T* input(const py::array& array, const char* name, const Shape& shape) {
    if (!py::isinstance<py::array_t<T>>(array)) {
        throw py::type_error(std::string(name) + " must be " + (sizeof(T) == 8 ? "float64" : "float32") +
                             " like the other arrays, got " + dtype_text(array));
    }
    if (shape_of(array) != shape) {
        throw py::value_error(std::string(name) + " must be " + text(shape) + ", got " + text(shape_of(array)));
    }
    constexpr int needed = py::array::c_style | py::detail::npy_api::NPY_ARRAY_ALIGNED_;
    if ((array.flags() & needed) != needed) {
        throw py::value_error(std::string(name) + " must be C-contiguous and aligned");
    }
    return static_cast<const T*>(array.data());
}

// Outputs are bound with .noconvert(): a silent copy would lose what is written.
template <class T>
T* output(const py::array& array, const char* name, const Shape& shape) {
    const T* data = input<T>(array, name, shape);
    if (!array.writeable()) throw py::value_error(std::string(name) + " must be writeable");
    return const_cast<T*>(data);
}

// Kernels write one problem while another is still to be read, from other threads too.
inline void require_apart(const py::array& written, const char* name, const py::array& other, const char* other_name) {
    const std::less<const char*> before;
    const auto* a = static_cast<const char*>(written.data());
    const auto* b = static_cast<const char*>(other.data());
    if (before(a, b + other.nbytes()) && before(b, a + written.nbytes())) {
        throw py::value_error(std::string(name) + " must not share memory with " + other_name);
    }
}

inline int checked_num_threads(int num_threads) {
    if (num_threads < 0) {
        throw py::value_error("num_threads must be >= 0 (0 = automatic), got " + std::to_string(num_threads));
    }
    return num_threads;
}

// Asks now and then, from the thread that called us, whether the user wants to stop.
class Interrupt {
   public:
    bool operator()() {
        const auto now = std::chrono::steady_clock::now();
        if (now - last_ < std::chrono::milliseconds(50)) return false;
        last_ = now;
        const py::gil_scoped_acquire acquire;
        return PyErr_CheckSignals() != 0;
    }

   private:
    std::chrono::steady_clock::time_point last_ = std::chrono::steady_clock::now();
};

}  // namespace pyssl
