/* list.h - "1,8,32" on a command line. */
#ifndef RV_BENCH_LIST_H
#define RV_BENCH_LIST_H
#include <stddef.h>

#include "engine/rvengine.h"

enum { MOST_NUMBERS = 8 };
typedef struct number_list { uint32_t n[MOST_NUMBERS]; size_t count; } number_list;

/* Numbers from 1 to `most`; `name` is the option's. RV_ERR_ARGUMENT says what is wrong. */
rv_status number_list_read(const char *text, const char *name, uint32_t most, number_list *out, rv_error *err);
#endif
