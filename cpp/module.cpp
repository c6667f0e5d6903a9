// The table of contents of pyssl._core.
#include <pybind11/pybind11.h>

#include "isa.hpp"

namespace pyssl {

void bind_contrastive(pybind11::module_& m);        // InfoNCE and NT-Xent on embeddings: theory 3.1, 3.2
void bind_contrastive_plane(pybind11::module_& m);  // InfoNCE on planes of embeddings: theory 3.1
void bind_gram(pybind11::module_& m);               // Gram matrices of embeddings: theory 3.3 to 3.5
void bind_pairs(pybind11::module_& m);              // mean and scatters of pairs of views: theory 1
void bind_pencils(pybind11::module_& m);            // many small symmetric problems at once: theory 2
void bind_product(pybind11::module_& m);            // dense products
void bind_spectral(pybind11::module_& m);           // the quartic spectral landscape, batched over W: theory 2

}  // namespace pyssl

PYBIND11_MODULE(_core, m) {
    m.attr("__version__") = PYSSL_VERSION;
    m.def("simd_level", [] { return pyssl::isa_name(); });
    pyssl::bind_contrastive(m);
    pyssl::bind_contrastive_plane(m);
    pyssl::bind_gram(m);
    pyssl::bind_pairs(m);
    pyssl::bind_pencils(m);
    pyssl::bind_product(m);
    pyssl::bind_spectral(m);
}
