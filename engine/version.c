/* version.c - what this library is and was built with. */
#include "engine/rvengine.h"

#define TEXT_(x) #x
#define TEXT(x) TEXT_(x)

#ifdef __SANITIZE_ADDRESS__
#define SANITIZER " (address sanitizer)"
#elif defined __SANITIZE_THREAD__
#define SANITIZER " (thread sanitizer)"
#else
#define SANITIZER ""
#endif

#ifdef __clang__
#define COMPILER "clang " __clang_version__
#else
#define COMPILER "gcc " __VERSION__
#endif

const char *rv_version(void) { return RV_VERSION; }

uint32_t rv_abi(void) { return RV_ABI; }

const char *rv_build_info(void) {
    return "version: " RV_VERSION "\n"
           "abi: " TEXT(RV_ABI) "\n"
           "compiler: " COMPILER SANITIZER "\n"
#ifdef RV_CUDA
           "backends: cpu, cuda\n"
           "cuda toolkit: " RV_CUDA_TOOLKIT "\n"
           "cuda kernels: sm_" RV_CUDA_KERNELS ", PTX for newer GPUs\n"
#else
           "backends: cpu\n"
#endif
           "cpu matrix library: "
#ifdef RV_ONEDNN
           "oneDNN\n"
#else
           "none (own kernels only)\n"
#endif
           "images: libjpeg-turbo, libpng, giflib\n";
}
