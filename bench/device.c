/* device.c - the hardware's side of every percentage: see device.h. */
#include "bench/device.h"

#include <stdbool.h>
#include <stdio.h>

static double larger(double a, double b) { return a > b ? a : b; }

rv_ceilings better_of(const rv_ceilings *a, const rv_ceilings *b) {
    rv_ceilings c = b->flop_s > a->flop_s ? *b : *a;
    c.read_bytes_s = larger(a->read_bytes_s, b->read_bytes_s);
    c.copy_bytes_s = larger(a->copy_bytes_s, b->copy_bytes_s);
    c.host_bytes_s = larger(a->host_bytes_s, b->host_bytes_s);
    return c;
}

json_t *ceilings_json(const rv_ceilings *c) {
    return json_pack("{s:f, s:f, s:f, s:I, s:i, s:f}", "read_bytes_s", c->read_bytes_s, "copy_bytes_s", c->copy_bytes_s, "flop_s", c->flop_s,
                     "buffer_bytes", (json_int_t)c->buffer_bytes, "product_side", (int)c->product_side,
                     "host_bytes_s", c->host_bytes_s);
}

uint64_t bytes_gone(uint64_t before, uint64_t now) { return now && now < before ? before - now : 0; }

short_text rate_text(double a_second, const char *what) {
    short_text s;
    bool tera = a_second >= 1e12;
    snprintf(s.text, sizeof s.text, "%.*f %s%s/s", tera && a_second < 1e14 ? 2 : a_second < 1e11 ? 1 : 0, a_second / (tera ? 1e12 : 1e9), tera ? "T" : "G", what);
    return s;
}

short_text number_text(double v) {
    short_text s = { "" };
    if (v > 0) snprintf(s.text, sizeof s.text, "%.*f", v >= 1000 ? 0 : v >= 100 ? 1 : v >= 1 ? 2 : 3, v);
    return s;
}

void print_ceilings(const rv_ceilings *before, const rv_ceilings *after) {
    rv_ceilings c = better_of(before, after);
    printf("ceilings   read %s, copy %s, product of side %u %s (the better of before and after:\n"
           "           read %s and %s, product %s and %s)\n\n", rate_text(c.read_bytes_s, "B").text, rate_text(c.copy_bytes_s, "B").text, c.product_side,
           rate_text(c.flop_s, "FLOP").text, rate_text(before->read_bytes_s, "B").text, rate_text(after->read_bytes_s, "B").text,
           rate_text(before->flop_s, "FLOP").text, rate_text(after->flop_s, "FLOP").text);
}
