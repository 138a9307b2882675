/* hash.c - see hash.h. Compiled in from xxhash's header: nothing to have at run time. */
#include "engine/base/hash.h"

#define XXH_INLINE_ALL
#include <xxhash.h>

uint64_t rv_hash64_plain(const void *data, size_t bytes) { return XXH3_64bits(data, bytes); }

uint64_t rv_hash64(const void *data, size_t bytes) {
#if defined(__x86_64__)
    if (__builtin_cpu_supports("avx2")) return rv_hash64_avx2(data, bytes);
#endif
    return rv_hash64_plain(data, bytes);
}

rv_hash rv_hash128(const void *data, size_t bytes) {
    XXH128_hash_t h = XXH3_128bits(data, bytes);
    return (rv_hash){ h.low64, h.high64 };
}
