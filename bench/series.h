/* series.h - repeated measurements: median and spread, and what they are to be compared with.
 *
 * The one idea: a number is never alone; it has its repeats, and where the hardware sets one, its floor.
 */
#ifndef RV_BENCH_SERIES_H
#define RV_BENCH_SERIES_H
#include <jansson.h>
#include <stdbool.h>
#include <stddef.h>

enum { MOST_REPEATS = 64 };

typedef struct series { double value[MOST_REPEATS]; size_t n; } series;

void   series_add(series *s, double value);       /* those beyond MOST_REPEATS are left out      */
double series_median(const series *s);            /* 0 when there is none, likewise below        */
double series_least(const series *s);
double series_most(const series *s);

/* What limits a stage at best. */
typedef enum { BOUND_NONE, BOUND_READ, BOUND_PRODUCT, BOUND_BOTH /* a sum of stages */, BOUND_FILES } bound;

/* What a stage has to compute and read; what can go on at the same time is one need. */
typedef struct need { double flop, bytes; } need;
enum { MOST_NEEDS = 2 };

typedef struct result {
    char        name[40], title[56];              /* for programs, for people                    */
    const char *unit;                             /* "ms", "us" or "tok/s"                       */
    series      values;
    need        needs[MOST_NEEDS];                /* one after the other                         */
    double      rows;                             /* of a rate: tokens that the needs make       */
    double      floor;                            /* what the hardware allows, in `unit`; 0: nothing known */
    bound       by;
    double      other;                            /* the other side's median; 0: none            */
    series      beside;                          /* FLOP a second of oneDNN after each of `values`, on which matrices (ops.h)   */
    const char *beside_name;
} result;

bool        is_rate(const result *r);             /* more is better                              */
/* Fills in floor and by from the needs; nothing when there are none. */
void        set_floor(result *r, double bytes_s, double flop_s);
double      percent_of_floor(const result *r);    /* 100: as fast as the hardware; 0: no floor   */
double      times_faster(const result *r);        /* than `other`; 0: no other                   */
const char *bound_name(bound by);
/* Name, unit, median, min, max, all values, floor and percent. NULL: out of memory. */
json_t     *result_json(const result *r);

double      now_ms(void);
#endif
