/* abi.c - reading and filling the public structs of older and newer callers; version facts. */
#include "engine/abi.h"

#include <string.h>

rv_status rv_abi_read(void *to, size_t known, const void *from, const char *what, rv_error *err) {
    memset(to, 0, known);
    if (!from) {
        memcpy(to, &known, sizeof known);
        return RV_OK;
    }
    size_t size;
    memcpy(&size, from, sizeof size);
    if (size < sizeof size)
        return rv_fail(err, RV_ERR_ARGUMENT, "%s.size: must be sizeof(%s), is %zu", what, what, size);
    if (size > 65536)
        return rv_fail(err, RV_ERR_ARGUMENT, "%s.size: must be sizeof(%s), is %zu: was the struct zeroed first?", what, what, size);
    for (size_t i = known; i < size; i++)
        if (((const char *)from)[i])
            return rv_fail(err, RV_ERR_ABI, "%s: the caller was built for a newer rvengine (this is ABI %d) and uses a "
                           "field this library does not know", what, RV_ABI);
    memcpy(to, from, size < known ? size : known);
    memcpy(to, &known, sizeof known);
    return RV_OK;
}

rv_status rv_abi_fillable(const void *to, const char *what, rv_error *err) {
    size_t size;
    if (!to) return rv_fail(err, RV_ERR_ARGUMENT, "%s: is NULL", what);
    memcpy(&size, to, sizeof size);
    if (size < sizeof size || size > 65536)
        return rv_fail(err, RV_ERR_ARGUMENT, "%s.size: must be sizeof(%s), is %zu", what, what, size);
    return RV_OK;
}

rv_status rv_abi_write(void *to, const void *from, size_t known, const char *what, rv_error *err) {
    size_t size;
    rv_status st = rv_abi_fillable(to, what, err);
    if (st) return st;
    memcpy(&size, to, sizeof size);
    memset(to, 0, size);
    memcpy(to, from, size < known ? size : known);
    memcpy(to, &size, sizeof size);
    return RV_OK;
}
