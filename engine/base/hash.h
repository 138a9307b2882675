/* hash.h - XXH3: whether bytes are what they were.  Not against those who mean harm. */
#ifndef RV_BASE_HASH_H
#define RV_BASE_HASH_H
#include <stddef.h>
#include <stdint.h>

typedef struct rv_hash { uint64_t low, high; } rv_hash;

uint64_t rv_hash64(const void *data, size_t bytes);
rv_hash  rv_hash128(const void *data, size_t bytes);
#endif
