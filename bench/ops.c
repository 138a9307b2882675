/* ops.c - rvbench ops: single operations at the shapes of a model, without a model.
 *
 * The one idea: an operation is queued some hundred times between two waits (recorded once, where the backend can),
 * so that what is timed is the device and not the way to it.
 */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "bench/commands.h"
#include "bench/list.h"
#include "bench/ops.h"
#include "tools/files.h"
#include "tools/load.h"

static const char NAME[] = "ops";
enum { MOST_CALLS = 400, MOST_RESULTS = 256, DEFAULT_REPEAT = 5 };

static const shape shapes[] = {
    { .name = "11b", .hidden = 4096, .heads = 32, .kv_heads = 8, .head_dim = 128, .ffn = 14336, .vocab = 128256, .context = 4096, .n_cross = 8,
      .v_hidden = 1280, .v_heads = 16, .v_ffn = 5120, .v_out = 7680, .patch = 14, .tile = 560, .max_tiles = 4, .self_keys = 700 },
    { .name = "tiny", .hidden = 256, .heads = 4, .kv_heads = 2, .head_dim = 64, .ffn = 768, .vocab = 1016, .context = 1024, .n_cross = 2,
      .v_hidden = 160, .v_heads = 2, .v_ffn = 640, .v_out = 480, .patch = 14, .tile = 56, .max_tiles = 4, .self_keys = 100 },
};

static const command_help help = {
    .command = "ops",
    .usage = "rvbench ops [options]",
    .about = "Times single operations of the backend at the shapes of the published 11B model, on random data,\n"
             "and prints percent of what this device allows. No model is needed.",
    .after = "examples:\n"
             "  rvbench ops --rows 1,8\n"
             "  rvbench ops --only attend --json attend.json",
};

typedef struct ops_options {
    load_choice load;
    const char *rows, *many, *only, *json;
    uint64_t    repeat;
    int32_t     shape;
} ops_options;

static parse_result parse(ops_options *o, int argc, char **argv) {
    const option table[] = {
        { OPTION_GROUP, .name = "What is measured" },
        { OPTION_CHOICE, .name = "shape", .to = &o->shape, .choices = "11b|tiny", .help = "of which model (default 11b; tiny: for a try)" },
        { OPTION_TEXT, .name = "rows", .to = &o->rows, .value = "LIST", .help = "rows of decode operations (default 1,8,32)" },
        { OPTION_TEXT, .name = "prefill-rows", .to = &o->many, .value = "LIST", .help = "rows of prefill operations (default 200,1024)" },
        { OPTION_TEXT, .name = "only", .to = &o->only, .value = "TEXT", .help = "operations with this in their name, e.g. few_1_ or attend" },
        { OPTION_WHOLE, .name = "repeat", .to = &o->repeat, .min = 1, .max = MOST_REPEATS, .value = "N", .help = "default 5" },
        { OPTION_TEXT, .name = "json", .to = &o->json, .value = "FILE", .help = "everything as JSON, whole or not at all; -: stdout, and no table" },
        { OPTION_GROUP, .name = "Where it runs" },
        { OPTION_CHOICE, .name = "backend", .setting = true, .to = &o->load.backend, .choices = "auto|cpu|cuda", .help = "default auto: a GPU where there is one, else the CPU" },
        { OPTION_WHOLE, .name = "device", .setting = true, .to = &o->load.device, .max = 1023, .value = "N", .help = "which GPU (default 0)" },
        { OPTION_WHOLE, .name = "threads", .setting = true, .to = &o->load.threads, .min = 1, .max = 1024, .value = "N", .help = "CPU threads (default: one a core)" },
        { OPTION_BYTES, .name = "memory-limit", .setting = true, .to = &o->load.memory_limit, .value = "SIZE",
          .help = "measure over no more than about this, e.g. 1G (default: over\nwhat no cache holds)" },
        { OPTION_CHOICE, .name = "compute", .setting = true, .to = &o->load.compute, .choices = "auto|f32|bf16|f16", .help = "the operands' type (default auto: bf16 where this\ndevice has it)" },
        { OPTION_TEXT, .name = "env-file", .to = &o->load.env_file, .value = "FILE",
          .help = "settings as lines RV_MEMORY_LIMIT=1G; options win over RV_\nvariables, and these over the file" },
        { OPTION_END },
    };
    return options_parse(&help, table, argc, argv, NULL);
}

/* ---- one case ----------------------------------------------------------------------------------- */

bool ops_wanted(const ops *o, const char *name) { return !o->only || strstr(name, o->only); }

static void queue(ops *o, op *c, int32_t calls) {
    for (int32_t i = 0; i < calls && !c->cannot; i++) c->call(o, c, i % c->copies);
}

/* Milliseconds of `calls` calls; from a tape where there is one. */
static double run_ms(ops *o, op *c, int32_t calls, rv_tape *tape) {
    double start = now_ms();
    if (tape) rv_play(o->be, tape);
    else queue(o, c, calls);
    rv_finish(o->be, NULL);
    return now_ms() - start;
}

static rv_compute act_compute(const ops *o) { return o->be->act == RV_BF16 ? RV_COMPUTE_BF16 : o->be->act == RV_F32 ? RV_COMPUTE_F32 : RV_COMPUTE_F16; }

static void measure(ops *o, op *c, result *r) {
    rv_tape *tape = NULL;
    int32_t calls = c->copies;
    run_ms(o, c, calls, NULL);                               /* warms up: modules, plans */
    double once = run_ms(o, c, calls, NULL) / calls;
    if (once * calls < o->batch_ms) calls = (int32_t)(o->batch_ms / (once > 1e-4 ? once : 1e-4));
    if (calls > MOST_CALLS) calls = MOST_CALLS;
    if (calls < c->copies) calls = c->copies;
    if (rv_can_run_ahead(o->be) && !c->cannot) {
        rv_record_tape(o->be);
        queue(o, c, calls);
        tape = rv_recorded(o->be);
        run_ms(o, c, calls, tape);
    }
    library_product *library = o->on_host && c->beside.rows && !c->cannot ? library_product_new(o->threads, c->beside, act_compute(o)) : NULL;
    for (uint64_t i = 0; i < o->repeat && !c->cannot; i++) {
        series_add(&r->values, run_ms(o, c, calls, tape) * 1e3 / calls);
        double rate = library ? library_product_run(library) : 0;
        if (rate > 0) series_add(&r->beside, rate);
    }
    library_product_free(library);
    rv_erase(o->be, tape);
}

void op_time(ops *o, op *c) {
    result r = { .unit = "us" };
    rv_error err;
    snprintf(r.name, sizeof r.name, "%s", c->name);
    snprintf(r.title, sizeof r.title, "%s", c->title);
    r.needs[0] = c->what;
    r.beside_name = c->beside_name;
    rv_finish(o->be, NULL);                                  /* arguments have arrived */
    if (!o->be->error.code) measure(o, c, &r);
    op_drop(o, c);
    if (rv_finish(o->be, &err)) o->status = err.code;
    else if (!c->cannot && o->n_results < o->room) o->results[o->n_results++] = r;
    if (interrupted() && o->status == RV_OK) o->status = RV_ERR_CANCELLED;
}

/* ---- all of them -------------------------------------------------------------------------------- */

static rv_status open_backend(const rv_ceilings *c, const ops_options *o, rv_backend **out, rv_error *err) {
    rv_dtype act = c->compute == RV_COMPUTE_F16 ? RV_F16 : c->compute == RV_COMPUTE_BF16 ? RV_BF16 : RV_F32;
#ifdef RV_CUDA
    if (c->backend == RV_BACKEND_CUDA)
        return rv_cuda_open(&(rv_cuda_options){ .device = (int32_t)o->load.device, .act = act, .int8 = { .threshold = 6 } }, out, err);
#endif
    return rv_cpu_open(&(rv_cpu_options){ .threads = (int32_t)o->load.threads, .act = act, .int8 = { .threshold = 6 } }, out, err);
}

/* Normal in sign and mantissa, around 0.01: what weights look like to a multiplier. */
static rv_status make_random(ops *o, rv_error *err) {
    const shape *s = o->s;
    uint64_t most = (uint64_t)s->ffn * (uint64_t)s->hidden * 2, head = (uint64_t)s->vocab * (uint64_t)s->hidden * 2, state = 88172645463325252u;
    if (head % 3 == 0) head /= 3;
    o->random_bytes = ((most > head ? most : head) + (1 << 20)) / 4096 * 4096;
    if (!(o->random = aligned_alloc(4096, o->random_bytes))) return fail(err, RV_ERR_MEMORY, "random values: out of memory");
    for (uint64_t i = 0; i < o->random_bytes; i += 8) {
        state ^= state << 13, state ^= state >> 7, state ^= state << 17;
        uint64_t four = (state & 0x80ff80ff80ff80ffu) | 0x3c003c003c003c00u;
        memcpy(o->random + i, &four, sizeof four);
    }
    return RV_OK;
}

static rv_status run_cases(ops *o, const number_list *few, const number_list *many, rv_error *err) {
    rv_enter(o->be);
    for (size_t i = 0; i < few->count; i++) ops_few(o, (int32_t)few->n[i]);
    for (size_t i = 0; i < many->count; i++) ops_many(o, (int32_t)many->n[i]);
    ops_vision(o, o->s->max_tiles);
    ops_vision(o, 1);
    ops_page(o);
    const rv_status st = o->status == RV_ERR_CANCELLED ? fail(err, RV_ERR_CANCELLED, "interrupted") : rv_finish(o->be, err);
    rv_leave(o->be);
    return st;
}

/* ---- output ------------------------------------------------------------------------------------- */

static void print(const ops *o, const rv_ceilings *before, const rv_ceilings *after) {
    printf("rvbench ops: rvengine %s, shape %s, %s products, backend %s\n", rv_version(), o->s->name, compute_name(before->compute), o->be->ops->name);
    print_ceilings(before, after);
    if (o->on_host) print_libraries(&o->libraries);
    printf("%-26s %-34s %9s %9s %9s    %9s  %-16s %10s %12s\n", "", "", "median", "min", "max", "floor", "reached", "", "");
    for (size_t i = 0; i < o->n_results; i++) {
        const result *r = &o->results[i];
        double s = series_median(&r->values) * 1e-6;
        char reached[32], library[64];
        reached[0] = library[0] = '\0';
        if (r->beside.n) {
            double rate = series_median(&r->beside);
            snprintf(library, sizeof library, "  oneDNN %s %s: %.0f %%", r->beside_name, rate_text(rate, "FLOP").text, 100 * r->needs[0].flop / s / rate);
        }
        if (r->floor > 0) snprintf(reached, sizeof reached, "%.1f %% of %s", percent_of_floor(r), bound_name(r->by));
        printf("%-26s %-34s %9s %9s %9s us %9s  %-16s %10s %12s%s\n", r->name, r->title, number_text(s * 1e6).text, number_text(series_least(&r->values)).text,
               number_text(series_most(&r->values)).text, number_text(r->floor).text, reached, r->needs[0].bytes > 0 ? rate_text(r->needs[0].bytes / s, "B").text : "",
               r->needs[0].flop > 0 ? rate_text(r->needs[0].flop / s, "FLOP").text : "", library);
    }
}

static json_t *ops_json(const ops *o, const rv_ceilings *before, const rv_ceilings *after, const rv_device *device) {
    rv_ceilings c = better_of(before, after);
    if (o->on_host) libraries_are_the_ceiling(&o->libraries, &c);
    json_t *results = json_array();
    for (size_t i = 0; i < o->n_results; i++) {
        json_t *row = result_json(&o->results[i]);
        if (row) json_object_set_new(row, "bytes", json_real(o->results[i].needs[0].bytes));
        if (row) json_object_set_new(row, "flop", json_real(o->results[i].needs[0].flop));
        if (json_array_append_new(results, row)) return json_decref(results), NULL;
    }
    return json_pack("{s:s, s:s, s:s, s:o, s:o, s:s, s:s, s:o, s:o, s:o}", "tool", "rvbench", "command", "ops", "version", rv_version(), "build", json_build(),
                     "device", json_device(device), "shape", o->s->name, "compute", compute_name(before->compute), "ceilings", ceilings_json(&c), "libraries", libraries_json(&o->libraries), "results", results);
}

static int tell(const ops *o, const ops_options *asked, const rv_ceilings *before, const rv_ceilings *after, const rv_device *device) {
    bool to_stdout = asked->json && strcmp(asked->json, "-") == 0;
    if (to_stdout) return json_print(NAME, ops_json(o, before, after, device), 0);
    print(o, before, after);
    int code = stdout_finish(NAME);
    return code || !asked->json ? code : json_write(NAME, asked->json, ops_json(o, before, after, device));
}

static rv_status measure_device(const ops_options *asked, rv_ceilings *out, rv_error *err) {
    rv_load_options load = load_options(&asked->load);
    out->size = sizeof *out;
    return rv_measure_ceilings(&load, out, err);
}

static rv_status run_all(ops *o, const ops_options *asked, rv_ceilings *before, rv_ceilings *after, rv_device *device, rv_error *err) {
    number_list few = { 0 }, many = { 0 };
    rv_status st = RV_OK;
    TRY(number_list_read(asked->rows, "rows", RV_FEW_ROWS, &few, err));
    TRY(number_list_read(asked->many, "prefill-rows", (uint32_t)o->s->context, &many, err));
    if (asked->json && strcmp(asked->json, "-") != 0) TRY(output_check(asked->json, err));
    TRY(measure_device(asked, before, err));
    TRY(rv_device_get(before->backend, (uint32_t)asked->load.device, device, err));
    o->on_host = before->backend == RV_BACKEND_CPU;
    if (o->on_host) measure_libraries(asked->load.threads, &o->libraries);
    o->threads = asked->load.threads;
    o->beyond_caches = UINT64_C(256) << 20;
    if (asked->load.memory_limit && asked->load.memory_limit / 2 < o->beyond_caches) o->beyond_caches = asked->load.memory_limit / 2;
    o->batch_ms = o->on_host ? 2 : 8;
    TRY(make_random(o, err));
    TRY(open_backend(before, asked, &o->be, err));
    TRY(run_cases(o, &few, &many, err));
    TRY(measure_device(asked, after, err));
    if (o->on_host) measure_libraries(asked->load.threads, &o->libraries);
    rv_ceilings c = better_of(before, after);
    if (o->on_host) libraries_are_the_ceiling(&o->libraries, &c);
    for (size_t i = 0; i < o->n_results; i++) set_floor(&o->results[i], c.read_bytes_s, c.flop_s);
done:
    return st;
}

int cmd_ops(int argc, char **argv) {
    static result results[MOST_RESULTS];
    ops_options asked = { .repeat = DEFAULT_REPEAT, .rows = "1,8,32", .many = "200,1024" };
    parse_result parsed = parse(&asked, argc, argv);
    if (parsed != PARSE_OK) return parse_exit(parsed, NAME);
    if (stdout_check(NAME)) return EXIT_IO;
    ops o = { .s = &shapes[asked.shape], .only = asked.only, .repeat = asked.repeat, .results = results, .room = MOST_RESULTS };
    rv_ceilings before = { 0 }, after = { 0 };
    rv_device device = { .size = sizeof device };
    rv_error err = { 0 };
    int code = run_all(&o, &asked, &before, &after, &device, &err) ? report(NAME, &err) : tell(&o, &asked, &before, &after, &device);
    rv_backend_close(o.be);
    free(o.random);
    return code;
}
