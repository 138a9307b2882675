/* list.c - "1,8,32" on a command line: see list.h. */
#include "bench/list.h"

#include <stdlib.h>

#include "tools/files.h"

rv_status number_list_read(const char *text, const char *name, uint32_t most, number_list *out, rv_error *err) {
    *out = (number_list){ 0 };
    for (const char *at = text;;) {
        char *end;
        unsigned long n = *at >= '0' && *at <= '9' ? strtoul(at, &end, 10) : 0;
        if (n < 1 || n > most || (*end && *end != ',') || out->count == MOST_NUMBERS)
            return fail(err, RV_ERR_ARGUMENT, "--%s: must be up to %d numbers from 1 to %u with commas between, is \"%.100s\"", name, MOST_NUMBERS, most, text);
        out->n[out->count++] = (uint32_t)n;
        if (!*end) return RV_OK;
        at = end + 1;
    }
}
