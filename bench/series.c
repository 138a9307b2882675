/* series.c - repeated measurements: see series.h. */
#include "bench/series.h"

#include <stdlib.h>
#include <string.h>
#include <time.h>

void series_add(series *s, double value) {
    if (s->n < MOST_REPEATS) s->value[s->n++] = value;
}

static int by_size(const void *a, const void *b) {
    double x, y;
    memcpy(&x, a, sizeof x);
    memcpy(&y, b, sizeof y);
    return (x > y) - (x < y);
}

static series sorted(const series *s) {
    series copy = *s;
    qsort(copy.value, copy.n, sizeof *copy.value, by_size);
    return copy;
}

double series_median(const series *s) {
    series in_order = sorted(s);
    size_t n = in_order.n;
    return n == 0 ? 0 : n % 2 ? in_order.value[n / 2] : (in_order.value[n / 2 - 1] + in_order.value[n / 2]) / 2;
}

double series_least(const series *s) { return s->n ? sorted(s).value[0] : 0; }
double series_most(const series *s) { return s->n ? sorted(s).value[s->n - 1] : 0; }

bool is_rate(const result *r) { return strcmp(r->unit, "tok/s") == 0; }

void set_floor(result *r, double bytes_s, double flop_s) {
    double seconds = 0;
    for (size_t i = 0; i < MOST_NEEDS && bytes_s > 0 && flop_s > 0; i++) {
        double read = r->needs[i].bytes / bytes_s, product = r->needs[i].flop / flop_s;
        if (read <= 0 && product <= 0) continue;
        bound by = read > product ? BOUND_READ : BOUND_PRODUCT;
        r->by = r->by == BOUND_NONE || r->by == by ? by : BOUND_BOTH;
        seconds += read > product ? read : product;
    }
    if (seconds > 0) r->floor = is_rate(r) ? r->rows / seconds : seconds * (strcmp(r->unit, "us") == 0 ? 1e6 : 1e3);
}

double percent_of_floor(const result *r) {
    double median = series_median(&r->values);
    if (r->floor <= 0 || median <= 0) return 0;
    return 100 * (is_rate(r) ? median / r->floor : r->floor / median);
}

double times_faster(const result *r) {
    double median = series_median(&r->values);
    if (r->other <= 0 || median <= 0) return 0;
    return is_rate(r) ? median / r->other : r->other / median;
}

const char *bound_name(bound by) {
    static const char *const names[] = { "", "read", "product", "both", "raw read" };
    return names[by];
}

json_t *result_json(const result *r) {
    json_t *values = json_array();
    for (size_t i = 0; i < r->values.n; i++) json_array_append_new(values, json_real(r->values.value[i]));
    json_t *root = json_pack("{s:s, s:s, s:f, s:f, s:f, s:o}", "name", r->name, "unit", r->unit, "median", series_median(&r->values),
                             "min", series_least(&r->values), "max", series_most(&r->values), "values", values);
    if (root && r->floor > 0) {
        json_object_set_new(root, "floor", json_real(r->floor));
        json_object_set_new(root, "floor_by", json_string(bound_name(r->by)));
        json_object_set_new(root, "percent_of_floor", json_real(percent_of_floor(r)));
    }
    if (root && r->beside.n) {
        json_object_set_new(root, "onednn_flop_s", json_real(series_median(&r->beside)));
        json_object_set_new(root, "onednn_product", json_string(r->beside_name));
    }
    if (root && r->other > 0) {
        json_object_set_new(root, "hf", json_real(r->other));
        json_object_set_new(root, "times_faster", json_real(times_faster(r)));
    }
    return root;
}

double now_ms(void) {
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return (double)t.tv_sec * 1e3 + (double)t.tv_nsec * 1e-6;
}
