// The table of contents of pyssl._core.
#include <pybind11/pybind11.h>

#include "isa.hpp"

namespace pyssl {

void bind_product(pybind11::module_& m);   // dense products
void bind_spectral(pybind11::module_& m);  // the quartic spectral landscape, batched over W: theory 2

}  // namespace pyssl

PYBIND11_MODULE(_core, m) {
    m.attr("__version__") = PYSSL_VERSION;
    m.def("simd_level", [] { return pyssl::isa_name(); });
    pyssl::bind_product(m);
    pyssl::bind_spectral(m);
}
