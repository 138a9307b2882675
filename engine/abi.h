/* abi.h - reading and filling the public structs of older and newer callers.
 *
 * The one idea: a struct comes with its own size, so it is copied into the library's full-size
 * form once, at the border; nobody inside looks at a caller's struct again.
 */
#ifndef RV_ENGINE_ABI_H
#define RV_ENGINE_ABI_H
#include "engine/base/status.h"

/* Copies *from (which begins with its size_t size; NULL: all zero) into `to`, `known` bytes, missing fields zero.
 * RV_ERR_ARGUMENT for a size of 0; RV_ERR_ABI when it is longer than `known` and not zero there.
 * `what` names the struct in messages. */
rv_status rv_abi_read(void *to, size_t known, const void *from, const char *what, rv_error *err);
/* Whether rv_abi_write could fill *to: asked before what takes long, or cannot be taken back. */
rv_status rv_abi_fillable(const void *to, const char *what, rv_error *err);
/* Copies the full-size `from` into the caller's *to, as much as its size says; to->size stays. */
rv_status rv_abi_write(void *to, const void *from, size_t known, const char *what, rv_error *err);
/* Element i of an array of such structs whose stride is the first element's size. */
static inline const void *rv_abi_at(const void *first, uint32_t i) {
    return (const char *)first + (size_t)i * *(const size_t *)first;
}
#endif
