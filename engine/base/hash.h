/* hash.h - XXH3: whether bytes are what they were.  Not against those who mean harm. */
#ifndef RV_BASE_HASH_H
#define RV_BASE_HASH_H
#include <stddef.h>
#include <stdint.h>

typedef struct rv_hash { uint64_t low, high; } rv_hash;

uint64_t rv_hash64(const void *data, size_t bytes);
rv_hash  rv_hash128(const void *data, size_t bytes);

/* The two forms of the first, which chooses by the CPU: the same numbers. */
uint64_t rv_hash64_plain(const void *data, size_t bytes);
uint64_t rv_hash64_avx2(const void *data, size_t bytes);     /* x86-64 with AVX2 only             */
#endif
