/* run.h - what `rvengine run` was asked, between its two halves: cmd_run.c does, run_output.c tells. */
#ifndef RV_TOOLS_RUN_H
#define RV_TOOLS_RUN_H
#include "engine/rvconstraint.h"
#include "tools/load.h"
#include "tools/messages.h"

typedef struct run_options {
    load_choice load;
    text_list   images, stop;
    const char *prompt, *prompt_file, *messages, *raw, *raw_file, *system, *output, *date, *json_schema;
    uint64_t    max_tokens, top_k, seed;
    double      temperature, top_p, repetition_penalty;
    bool        temperature_given, top_k_given, top_p_given, seed_given;
    bool        sample, stream, json, logprobs, no_exif, control_tokens, double_bos, ignore_stop;
    int32_t     max_tiles, chat_template;      /* choices: places of 1|2|4 and auto|A|B */
    int32_t     worker;                        /* auto|on|off                            */
} run_options;

/* One run: everything that is freed at its end. */
typedef struct run {
    run_options  o;
    conversation talk;
    input        text;                         /* --prompt-file or --raw-file */
    rv_model    *model;
    rv_session  *session;
    rv_constraint *form;                       /* --json-schema             */
    rv_job      *job;
    double       load_ms;
    int          restarts;                     /* of the worker process, before this one */
    int          failed;                       /* --stream: stdout could not be written */
} run;

/* The answer as text or JSON, to stdout or --output; returns the exit code. */
int  run_print_answer(const run *r);
/* --verbose: memory before, times after. To stderr. */
void run_say_memory(const run *r);
void run_say_times(const run *r);
#endif
