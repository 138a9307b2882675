/* profile.h - `rvbench --gpu-profile NAME`: pages read as that GPU would read them, on the GPU that is there.
 *
 * The one idea: what was measured carries the name of the GPU it was measured on; what another GPU would do is projected from
 * counted work (tools/projection.h) and says so.  Phase 1: the same settings on every GPU (int8, one sequence); phase 2: the
 * profile's own best format and as many sequences as its plan carries.
 */
#ifndef RV_BENCH_PROFILE_H
#define RV_BENCH_PROFILE_H
#include "bench/power.h"
#include "bench/run.h"
#include "tools/projection.h"

enum { PHASES = 2, MOST_PAGES = 192 };

typedef struct phase {
    const char *name, *title;
    rv_weight_format asked;              /* AUTO: the profile's best                            */
    uint32_t slots_asked;                /* 0: as many as the plan carries                      */
    bool     measured;
    rv_memory plan, model, session;
    double   load_ms, session_ms;
    series   page, vision, prefill, first_token, decode;      /* one page alone: ms; tokens a second */
    uint32_t pages;                      /* read together                                       */
    double   batch_ms, joules, watts;    /* of those; 0: not known                              */
    uint64_t used_before, peak;          /* device bytes, contexts included                     */
    double   decode_bytes;               /* of one step of one sequence                         */
} phase;

typedef struct profile_run {
    run         *r;
    rv_profile   profile, here;          /* asked for; of the GPU that is there (size 0: none)  */
    rv_status    no_gpu;                 /* why there is none                                   */
    rv_error     why;
    power       *power;
    const char  *no_power;
    bool         peak_of_all;            /* NVML does not say what was in use before: peaks have other processes' memory in them */
    model_work   work;
    page_work    page;                   /* as measured                                         */
    double       price, price_here;      /* dollars an hour; 0: not known                       */
    phase        phases[PHASES];
    uint64_t     used_before;            /* by others, before a context was made here           */
} profile_run;

/* profile.c */
rv_status profile_measure(profile_run *p, rv_error *err);
/* profile_output.c */
void    profile_print(const profile_run *p);
json_t *profile_json(const profile_run *p);
/* cmd_profile.c: all of it; an exit code. */
int     profile_work(run *r);
/* A folder with random weights of the 11B shape: found or made, told on stderr. */
rv_status profile_model(char *folder, size_t bytes, rv_error *err);
#endif
