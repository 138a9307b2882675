/* run.h - `rvbench run` between its parts: cmd_run.c (what was asked, and the order of things), run_load.c (the
 * model into memory), run_stages.c (requests), run_output.c (what is told).
 */
#ifndef RV_BENCH_RUN_H
#define RV_BENCH_RUN_H
#include "bench/context.h"
#include "bench/products.h"
#include "bench/inputs.h"
#include "bench/list.h"
#include "bench/page_cache.h"
#include "bench/series.h"
#include "tools/files.h"
#include "tools/load.h"

enum { MOST_RESULTS = 64 };

typedef struct run_options {
    load_choice load;
    const char *image, *batch, *json, *hf;
    uint64_t    repeat, tokens, prompt, long_prompt;
    double      price;                            /* --gpu-profile: dollars an hour; 0: the profile's */
    bool        batch_given, long_given, hf_given, price_given;
    int32_t     tiles;                            /* choice: place of 1|2|4                      */
    bool        cold;
} run_options;

/* Device bytes: what was planned, and what the device says is gone. */
typedef struct memory_use {
    rv_memory plan;                               /* of model and session                        */
    uint64_t  context;                            /* of a process, before it allocates; 0: not known */
    uint64_t  free_before, free_ready, free_after;/* before the model; model and session; after all requests */
} memory_use;

typedef struct run {
    run_options  o;
    number_list  batches;
    json_t      *hf;                              /* --hf: its file                              */
    rv_device    device;
    rv_ceilings  ceilings, before, after;         /* the better of the two runs counts           */
    library_products libraries;                   /* a CPU's                                     */
    rv_model_info *info;
    weight_files files;
    double       cached;                          /* share of the files in memory before the first load */
    memory_use   memory;
    second_process second;
    rv_model    *model;
    rv_session  *session;
    page         page, small;                     /* drawn; small: of one tile                   */
    input        file;                            /* --image                                     */
    rv_image     image, single;                   /* what is seen, and what of one tile          */
    uint32_t     tiles, context;                  /* of `image`; tokens of a session             */
    char        *prompt, *text_prompt, *long_prompt;
    uint32_t     prompt_tokens, text_tokens, long_tokens;
    result       results[MOST_RESULTS];
    size_t       n_results;
} run;

/* The result of that name, made with its title when it is new. Stages add their values to it as they go. */
result *run_result(run *r, const char *unit, const char *name, const char *title, ...) __attribute__((format(printf, 4, 5)));

/* run_load.c */
rv_status run_load(run *r, rv_error *err);        /* the model, `repeat` times, and the session  */
rv_session_options run_room(const run *r, uint32_t slots);

/* run_stages.c: everything between a model in memory and the last number */
rv_status run_stages(run *r, rv_error *err);

/* run_output.c */
rv_status run_read_hf(run *r, rv_error *err);
void      run_compare(run *r);                    /* fills in the other side's numbers           */
void      run_print(const run *r);
json_t   *run_json(const run *r);
#endif
