// Instruction sets. Files listed as KERNELS in CMakeLists.txt are compiled once for each of them, into a namespace
// named PYSSL_ISA with vectors of PYSSL_VECTOR_BYTES; which of the copies runs is decided here, on the user's machine.
// (GCC's target_clones would do for plain loops. It lowers explicit vectors before it clones, so that every copy would
// compute with those of the oldest machine.)
//
// A file so listed may include no standard header that defines functions: the linker keeps one copy of an inline
// function for the whole extension, and that may be the one that only newer machines can run.
#pragma once

#include <algorithm>
#include <cstdlib>
#include <cstring>

namespace pyssl {

enum class Isa { baseline, v3, v4 };

constexpr const char* isa_names[] = {"baseline", "x86-64-v3", "x86-64-v4"};

#ifdef PYSSL_MULTIARCH

inline Isa supported_isa() {
    // Exactly what the flags in CMakeLists.txt allow the compiler to use.
    __builtin_cpu_init();
    if (!__builtin_cpu_supports("avx2") || !__builtin_cpu_supports("fma")) return Isa::baseline;
    const bool v4 = __builtin_cpu_supports("avx512f") && __builtin_cpu_supports("avx512dq") &&
                    __builtin_cpu_supports("avx512bw") && __builtin_cpu_supports("avx512vl");
    return v4 ? Isa::v4 : Isa::v3;
}

#else

inline Isa supported_isa() { return Isa::baseline; }

#endif

// PYSSL_SIMD_LEVEL, one of the names above, asks for less than the machine has: to test the other copies.
inline Isa detect_isa() {
    const Isa most = supported_isa();
    const char* const wanted = std::getenv("PYSSL_SIMD_LEVEL");
    for (const Isa isa : {Isa::baseline, Isa::v3, Isa::v4}) {
        if (wanted && std::strcmp(wanted, isa_names[static_cast<int>(isa)]) == 0) return std::min(isa, most);
    }
    return most;
}

inline Isa isa() {
    static const Isa detected = detect_isa();
    return detected;
}

inline const char* isa_name() { return isa_names[static_cast<int>(isa())]; }

}  // namespace pyssl

// PYSSL_FOR_EACH_ISA(DECLARE) declares what every copy defines; PYSSL_SELECT(name) is the copy for this machine.
#ifdef PYSSL_MULTIARCH
#define PYSSL_FOR_EACH_ISA(DECLARE) DECLARE(baseline) DECLARE(v3) DECLARE(v4)
#define PYSSL_SELECT(name)                                    \
    (::pyssl::isa() == ::pyssl::Isa::v4   ? ::pyssl::v4::name \
     : ::pyssl::isa() == ::pyssl::Isa::v3 ? ::pyssl::v3::name \
                                          : ::pyssl::baseline::name)
#else
#define PYSSL_FOR_EACH_ISA(DECLARE) DECLARE(baseline)
#define PYSSL_SELECT(name) (::pyssl::baseline::name)
#endif
