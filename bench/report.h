/* report.h - what runs with --gpu-profile wrote, side by side.
 *
 * The one idea: one list of entries, each a phase of a run as measured or as projected; every form (HTML, CSV, Markdown) is
 * made of that list, and an entry never loses the word that says which of the two it is.
 */
#ifndef RV_BENCH_REPORT_H
#define RV_BENCH_REPORT_H
#include <jansson.h>
#include <stdbool.h>
#include <stdio.h>

#include "engine/rvengine.h"

enum { MOST_FILES = 12, MOST_ENTRIES = 4 * MOST_FILES, HOURS_A_MONTH = 730 };

typedef struct entry {
    const char *file, *profile, *gpu, *phase, *weights;      /* gpu: that the numbers are about   */
    int         kernels, slots, source;  /* source: number of the file                           */
    bool        projection;
    /* 0: not known */
    double      page_ms, pages_minute, alone_ms, first_token_ms, vision_ms, prefill_ms, decode_tokens_s, batch_ms, peak_gb, limit_gb, planned_gb, bandwidth_percent,
                watts, joules_page, dollars_hour, dollars_1000;
} entry;

typedef struct comparison {
    json_t *roots[MOST_FILES];
    size_t  n_files, n;
    char    page[96];                    /* of all files: tiles and tokens, in words              */
    entry   entries[MOST_ENTRIES];
} comparison;

/* Reads the files; RV_ERR_FORMAT for one that no run with --gpu-profile wrote, or whose pages were others than the first's. */
rv_status comparison_read(const char *const *paths, size_t n, comparison *out, rv_error *err);
void      comparison_free(comparison *c);

/* What a file says about the GPU of its profile at its best: measured where that GPU was there, else projected. NULL: nothing. */
const entry *best_of(const comparison *c, int source);
/* Dollars a month for so many pages, GPUs rented by the month. */
double month_cost(const entry *e, double pages);
/* Where a GPU that is dearer by the hour costs no more than a cheaper one.  Whole GPUs are rented, so both costs are stairs and may cross often. */
typedef struct crossing {
    double first;                        /* pages a month where it does first; 0: nowhere looked at */
    double last;                         /* from here on one of the two is the cheaper for good      */
    bool   dearer_wins;                  /* .. the one that is dearer by the hour                    */
    double looked;                       /* pages looked at where that is not settled; 0: it is      */
} crossing;
crossing  crossing_of(const entry *cheap, const entry *dear);
/* The same as a sentence for every two files with a price: `begin` it, `name` writes a name, `end` it. */
typedef void (*text_fn)(FILE *to, const char *text);
void      crossings_tell(const comparison *c, FILE *to, const char *begin, text_fn name, const char *end);

/* Texts come from files: what steers terminals and breaks lines is shown as a blank in every form. */
bool is_control(char c);
void report_csv(const comparison *c, FILE *to);
void report_markdown(const comparison *c, FILE *to);
void report_html(const comparison *c, FILE *to);
#endif
