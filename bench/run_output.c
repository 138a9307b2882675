/* run_output.c - what `rvbench run` tells: a table for people, JSON for programs. */
#include <stdio.h>
#include <string.h>

#include "bench/device.h"
#include "bench/run.h"
#include "tools/json_read.h"

static const double MOST_MEDIAN = 1e12, MOST_BYTES = 1e18;

/* ---- the other side ---------------------------------------------------------------------------- */

rv_status run_read_hf(run *r, rv_error *err) {
    json_error_t why;
    input file;
    rv_status st = input_read(r->o.hf, &file, err);
    if (st) return st;
    r->hf = json_read(file.data, file.bytes, 0, &why);
    input_free(&file);
    if (!r->hf) return fail(err, RV_ERR_FORMAT, "%s: not JSON: %s (line %d)", r->o.hf, why.text, why.line);
    if (!json_is_array(json_object_get(r->hf, "results")))
        return fail(err, RV_ERR_FORMAT, "%s: has no \"results\": hf_bench.py or rvbench run --json writes them", r->o.hf);
    size_t i;
    json_t *row;
    double unused;
    json_array_foreach(json_object_get(r->hf, "results"), i, row)
        if ((st = json_amount(row, "median", 1e-12, MOST_MEDIAN, r->o.hf, &unused, err))) return st;
    return json_amount(json_object_get(r->hf, "memory"), "peak_bytes", 1, MOST_BYTES, r->o.hf, &unused, err);
}

void run_compare(run *r) {
    size_t k;
    json_t *row;
    json_array_foreach(json_object_get(r->hf, "results"), k, row) {
        const char *name = json_string_value(json_object_get(row, "name"));
        for (size_t i = 0; name && i < r->n_results; i++)
            if (strcmp(name, r->results[i].name) == 0) r->results[i].other = json_number_value(json_object_get(row, "median"));
    }
}

/* ---- the table --------------------------------------------------------------------------------- */

static void print_head(const run *r) {
    printf("rvbench run: rvengine %s, %s, %s products\n", rv_version(), r->device.name, compute_name(r->memory.plan.compute));
    printf("model      %s: %s weights in %zu file%s, %.0f %% of them in the page cache before the first load\n", r->o.load.model,
           bytes_text(r->files.bytes).text, r->files.n, r->files.n == 1 ? "" : "s", 100 * r->cached);
    print_ceilings(&r->before, &r->after);
    if (r->ceilings.backend == RV_BACKEND_CPU) print_libraries(&r->libraries);
}

static void print_result(const result *r, bool with_hf) {
    char reached[32] = "", faster[32] = "";
    if (r->floor > 0) snprintf(reached, sizeof reached, "%.1f %% of %s", percent_of_floor(r), bound_name(r->by));
    if (r->other > 0) snprintf(faster, sizeof faster, "%.1fx", times_faster(r));
    printf("%-37s %9s %9s %9s %-6s %9s  %-17s", r->title, number_text(series_median(&r->values)).text, number_text(series_least(&r->values)).text,
           number_text(series_most(&r->values)).text, r->unit, number_text(r->floor).text, reached);
    if (with_hf) printf(" %9s %7s", number_text(r->other).text, faster);
    putchar('\n');
}

/* Bytes of streamed layers a second, while one sequence decodes: every step needs them all once. */
static double streaming_rate(const run *r) {
    for (size_t i = 0; i < r->n_results; i++)
        if (strcmp(r->results[i].name, "decode_1") == 0) return (double)r->memory.plan.streamed * series_median(&r->results[i].values);
    return 0;
}

static void print_streaming(const run *r) {
    const double rate = streaming_rate(r), most = r->ceilings.host_bytes_s;
    if (!r->memory.plan.streamed) return;
    printf("           and %s of text layers in host memory, all but %d: they stream at %s while one sequence decodes", bytes_text(r->memory.plan.streamed).text,
           (int)r->memory.plan.gpu_layers, rate_text(rate, "B").text);
    if (most > 0) printf(", %.0f %% of the %s of a pinned copy", 100 * rate / most, rate_text(most, "B").text);
    putchar('\n');
}

static void print_memory(const run *r) {
    const memory_use *m = &r->memory;
    printf("\nmemory     planned %s: weights %s, cache %s, scratch %s\n", bytes_text(m->plan.total).text, bytes_text(m->plan.weights).text,
           bytes_text(m->plan.cache).text, bytes_text(m->plan.scratch).text);
    if (m->plan.host_weights > m->plan.streamed)
        printf("           and %s of tables in host memory\n", bytes_text(m->plan.host_weights - m->plan.streamed).text);
    print_streaming(r);
    const uint64_t ready = bytes_gone(m->free_before, m->free_ready), after = bytes_gone(m->free_before, m->free_after);
    if (ready && after)
        printf("           taken   %s with the session ready, %s after all requests (planned %+.1f MiB)\n", bytes_text(ready).text, bytes_text(after).text,
               ((double)after - (double)m->plan.total) / 1048576);
    else if (m->free_before) printf("           taken   not known: another process gave memory back meanwhile\n");
    if (m->context) printf("           context %s more, before anything is allocated\n", bytes_text(m->context).text);
    double peak = json_number_value(json_object_get(json_object_get(r->hf, "memory"), "peak_bytes"));
    if (peak > 0) printf("           Hugging Face: %s at most, its context not counted\n", bytes_text((uint64_t)peak).text);
}

void run_print(const run *r) {
    bool with_hf = r->hf != NULL;
    print_head(r);
    printf("%-37s %9s %9s %9s %-6s %9s  %-17s%s\n", "", "median", "min", "max", "", "floor", "reached", with_hf ? "        HF  faster" : "");
    for (size_t i = 0; i < r->n_results; i++) print_result(&r->results[i], with_hf);
    print_memory(r);
}

/* ---- JSON -------------------------------------------------------------------------------------- */

static json_t *memory_json(const memory_use *m) {
    json_t *root = json_pack("{s:I, s:I, s:I, s:I, s:I}", "planned", (json_int_t)m->plan.total, "weights", (json_int_t)m->plan.weights, "cache",
                             (json_int_t)m->plan.cache, "scratch", (json_int_t)m->plan.scratch, "host_weights",
                             (json_int_t)m->plan.host_weights);
    const uint64_t ready = bytes_gone(m->free_before, m->free_ready), after = bytes_gone(m->free_before, m->free_after);
    if (root && ready) json_object_set_new(root, "taken_ready", json_integer((json_int_t)ready));
    if (root && after) json_object_set_new(root, "taken_after", json_integer((json_int_t)after));
    if (root && m->plan.streamed) json_object_set_new(root, "streamed", json_integer((json_int_t)m->plan.streamed));
    if (root && m->context) json_object_set_new(root, "context", json_integer((json_int_t)m->context));
    return root;
}

static json_t *settings_json(const run *r) {
    json_t *batches = json_array();
    for (size_t i = 0; i < r->batches.count; i++) json_array_append_new(batches, json_integer((json_int_t)r->batches.n[i]));
    return json_pack("{s:o, s:i, s:i, s:i, s:i, s:i, s:i, s:o, s:s, s:s}", "image", r->o.image ? json_textz(r->o.image) : json_string("drawn"),
                     "tiles", (int)r->tiles, "prompt_tokens", (int)r->prompt_tokens, "text_tokens", (int)r->text_tokens, "long_tokens",
                     (int)r->long_tokens, "answer_tokens", (int)r->o.tokens, "repeat", (int)r->o.repeat, "batch", batches, "weights",
                     weights_name(r->memory.plan.weights_format), "compute", compute_name(r->memory.plan.compute));
}

static json_t *model_json(const run *r) {
    json_t *root = json_pack("{s:o, s:I, s:f}", "path", json_textz(r->o.load.model), "file_bytes", (json_int_t)r->files.bytes,
                             "page_cache_share", r->cached);
    const char *key;
    for (uint32_t i = 0; root && (key = rv_model_info_key(r->info, i)); i++) json_object_set_new(root, key, json_textz(rv_model_info_get(r->info, key)));
    return root;
}

json_t *run_json(const run *r) {
    json_t *results = json_array();
    for (size_t i = 0; i < r->n_results; i++)
        if (json_array_append_new(results, result_json(&r->results[i]))) return json_decref(results), NULL;
    json_t *root = json_pack("{s:s, s:s, s:s, s:o, s:o, s:o, s:o, s:o, s:o, s:o, s:o, s:o}", "tool", "rvbench", "command", "run", "version", rv_version(),
                             "build", json_build(), "device", json_device(&r->device), "model", model_json(r), "settings", settings_json(r),
                             "ceilings", ceilings_json(&r->ceilings), "libraries", libraries_json(&r->libraries), "results", results, "memory", memory_json(&r->memory),
                             "ceilings_before_and_after", json_pack("[o, o]", ceilings_json(&r->before), ceilings_json(&r->after)));
    return root;
}
