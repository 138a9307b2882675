/* run_output.c - what `rvengine run` tells: the answer, and with --verbose memory and times. */
#include <stdlib.h>
#include <string.h>

#include "tools/run.h"

static const char NAME[] = "run";

/* ---- text ----------------------------------------------------------------------------------- */

static int write_output(const run *r, const char *data, size_t bytes) {
    rv_error err;
    return output_write(r->o.output, data, bytes, &err) ? report(NAME, &err) : EXIT_OK;
}

static int print_plain(const run *r) {
    size_t bytes;
    const char *text = rv_job_text(r->job, &bytes);
    bool newline = bytes == 0 || text[bytes - 1] != '\n';
    if (r->o.output) {
        char *line = malloc(bytes + 1);
        if (!line) {
            say_error("run: out of memory");
            return EXIT_MEMORY;
        }
        memcpy(line, text, bytes);
        line[bytes] = '\n';
        int code = write_output(r, line, bytes + newline);
        free(line);
        return code;
    }
    if (!r->o.stream) print_text(text, bytes);
    if (newline) putchar('\n');
    return stdout_finish(NAME);
}

/* ---- JSON ----------------------------------------------------------------------------------- */

static json_t *ids_json(const int32_t *ids, uint32_t n) {
    json_t *list = json_array();
    for (uint32_t i = 0; i < n; i++)
        if (json_array_append_new(list, json_integer(ids[i]))) return json_decref(list), NULL;
    return list;
}

static json_t *logprobs_json(const float *values, uint32_t n) {
    json_t *list = json_array();
    for (uint32_t i = 0; i < n; i++)
        if (json_array_append_new(list, json_real((double)values[i]))) return json_decref(list), NULL;
    return list;
}

static json_t *images_json(const run *r) {
    json_t *list = json_array();
    for (uint32_t i = 0; i < r->talk.n_images; i++) {
        rv_image_info info = { .size = sizeof info };
        rv_error err;
        if (rv_inspect_image(&r->talk.images[i], r->o.load.model, &info, &err)) return json_decref(list), NULL;
        json_t *item = json_pack("{s:o, s:s, s:i, s:i, s:i, s:i, s:i, s:i}", "file", json_textz(r->talk.files[i].name),
                                 "format", info.format, "width", (int)info.width, "height", (int)info.height,
                                 "orientation", (int)info.orientation, "tile_rows", (int)info.rows, "tile_cols",
                                 (int)info.cols, "tile", (int)info.tile);
        if (json_array_append_new(list, item)) return json_decref(list), NULL;
    }
    return list;
}

static json_t *stats_json(const run *r, const rv_stats *s) {
    return json_pack("{s:i, s:i, s:i, s:i, s:i, s:o, s:o, s:o, s:o, s:o, s:o, s:o, s:I, s:s, s:i}", "images", (int)s->images, "tiles",
                     (int)s->tiles, "image_tokens", (int)s->image_tokens, "prompt_tokens", (int)s->prompt_tokens,
                     "answer_tokens", (int)s->answer_tokens, "load_ms", json_ms(r->load_ms), "image_ms",
                     json_ms((double)s->image_ms), "vision_ms", json_ms((double)s->vision_ms), "tower_ms", json_ms((double)s->tower_ms), "prefill_ms",
                     json_ms((double)s->prefill_ms), "decode_ms", json_ms((double)s->decode_ms), "total_ms",
                     json_ms((double)s->total_ms), "saturated", (json_int_t)s->saturated, "reduced", steps_text(s->reduced).text, "worker_restarts", r->restarts);
}

static json_t *model_json(const run *r, const rv_memory *m, const rv_stats *s) {
    return json_pack("{s:o, s:s, s:s, s:s, s:I, s:I, s:I, s:I}", "path", json_textz(r->o.load.model), "backend",
                     backend_name(m->backend), "weights", weights_name(m->weights_format), "compute",
                     compute_name(m->compute), "weights_bytes", (json_int_t)m->weights, "mapped_bytes",
                     (json_int_t)m->mapped, "host_bytes", (json_int_t)m->host_weights, "session_bytes", (json_int_t)s->device_bytes);
}

static json_t *answer_json(const run *r) {
    rv_stats stats = { .size = sizeof stats };
    rv_memory memory = { .size = sizeof memory };
    rv_error err;
    size_t bytes;
    const char *text = rv_job_text(r->job, &bytes);
    const int32_t *ids, *prompt;
    const float *logprobs;
    bool cut = rv_job_get_state(r->job) == RV_JOB_CUT_SHORT;
    uint32_t n = rv_job_tokens(r->job, &ids, &logprobs), n_prompt = rv_job_prompt(r->job, &prompt);
    if (rv_job_get_stats(r->job, &stats) || rv_model_memory(r->model, &memory, &err)) return NULL;
    json_t *root = json_pack("{s:o, s:s, s:o, s:o, s:o, s:o, s:o, s:s}", "text", json_text(text, bytes), "finish_reason",
                             !cut ? "stop" : stats.looped ? "repetition" : "length", "tokens",
                             ids_json(ids, n), "prompt_tokens", ids_json(prompt, n_prompt), "images", images_json(r),
                             "stats", stats_json(r, &stats), "model", model_json(r, &memory, &stats), "version", rv_version());
    if (root && r->o.logprobs && json_object_set_new(root, "logprobs", logprobs_json(logprobs, n)))
        return json_decref(root), NULL;
    return root;
}

static int print_json(const run *r) {
    json_t *root = answer_json(r);
    return r->o.output ? json_write(NAME, r->o.output, root) : json_print(NAME, root, 0);
}

int run_print_answer(const run *r) { return r->o.json ? print_json(r) : print_plain(r); }

/* ---- --verbose ------------------------------------------------------------------------------ */

void run_say_memory(const run *r) {
    rv_memory model = { .size = sizeof model }, session = { .size = sizeof session };
    rv_error err;
    if (rv_model_memory(r->model, &model, &err) || rv_session_memory(r->session, &session, &err)) {
        report(NAME, &err);
        return;
    }
    say("model    %s: %s weights, %s products, on %s", r->o.load.model, weights_name(model.weights_format),
        compute_name(model.compute), backend_name(model.backend));
    say("memory   weights %s (%s of it mapped from files), cache %s, scratch %s", bytes_text(model.weights).text,
        bytes_text(model.mapped).text, bytes_text(session.cache).text, bytes_text(session.scratch).text);
    if (model.host_weights) say("         embedding and tile positions %s, in host memory", bytes_text(model.host_weights).text);
    say("load     %9.1f ms", r->load_ms);
}

void run_say_times(const run *r) {
    rv_stats s = { .size = sizeof s };
    if (!r->o.load.verbose || rv_job_get_stats(r->job, &s)) return;
    if (s.images) {
        say("image    %9.1f ms   %u image%s, %u tile%s", (double)s.image_ms, s.images, s.images == 1 ? "" : "s", s.tiles,
            s.tiles == 1 ? "" : "s");
        say("vision   %9.1f ms   %u keys", (double)s.vision_ms, s.image_tokens);
    }
    say("prefill  %9.1f ms   %u tokens", (double)s.prefill_ms, s.prompt_tokens);
    if (s.answer_tokens > 1 && s.decode_ms > 0)        /* the first token is prefill's */
        say("decode   %9.1f ms   %u tokens, %.1f tok/s", (double)s.decode_ms, s.answer_tokens,
            (s.answer_tokens - 1) * 1e3 / (double)s.decode_ms);
    else say("decode   %9.1f ms   %u token%s", (double)s.decode_ms, s.answer_tokens, s.answer_tokens == 1 ? "" : "s");
    say("total    %9.1f ms", (double)s.total_ms);
    if (s.saturated) say("warning: %llu values were clamped to the f16 range", (unsigned long long)s.saturated);
}
