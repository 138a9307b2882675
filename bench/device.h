/* device.h - the hardware's side of every percentage. */
#ifndef RV_BENCH_DEVICE_H
#define RV_BENCH_DEVICE_H
#include "tools/report.h"

/* The better of two measurements of one device: clocks rise and fall. */
rv_ceilings better_of(const rv_ceilings *a, const rv_ceilings *b);
json_t     *ceilings_json(const rv_ceilings *c);
/* "ceilings   read .., copy .., product of side ..", and where they come from. */
void        print_ceilings(const rv_ceilings *before, const rv_ceilings *after);

/* Free bytes before and now (0: not known): how many are gone; 0: that cannot be told, as others gave some back meanwhile. */
uint64_t    bytes_gone(uint64_t before, uint64_t now);

short_text  rate_text(double a_second, const char *what);    /* "3.10 TB/s"                       */
short_text  number_text(double v);                            /* about four digits; "" for 0       */
#endif
