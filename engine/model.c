/* model.c - loading and freeing a model. */
#include "engine/model.h"

#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "engine/abi.h"
#include "engine/base/file.h"
#include "engine/session.h"
#include "engine/weight_cache.h"

static rv_status open_tokenizer(const char *dir, rv_files *f, rv_error *err) {
    rv_status st = rv_tokenizer_open(dir, &f->tokenizer, err);
    if (st) return st;
    if ((st = rv_prompt_check_tokenizer(f->tokenizer, &f->config, err))) return rv_fail_in(err, st, "%s/tokenizer.json", dir), st;
    return rv_prompt_style_load(dir, f->tokenizer, &f->style, err);
}

rv_status rv_files_open(const char *dir, bool with_tokenizer, rv_files *out, rv_error *err) {
    rv_files f = { 0 };
    rv_status st = RV_OK;
    TRY(rv_config_load(dir, &f.config, err));
    TRY(rv_checkpoint_open(dir, &f.checkpoint, err));
    TRY(rv_weights_check(&f.config, f.checkpoint, err));
    if (with_tokenizer) TRY(open_tokenizer(dir, &f, err));
done:
    if (st) rv_files_close(&f);
    else *out = f;
    return st;
}

void rv_files_close(rv_files *f) {
    rv_tokenizer_free(f->tokenizer);
    rv_checkpoint_close(f->checkpoint);
    *f = (rv_files){ 0 };
}

void rv_model_log(const rv_model *m, rv_log_level level, const char *format, ...) {
    if (!m->options.log) return;
    char line[512];
    va_list args;
    va_start(args, format);
    vsnprintf(line, sizeof line, format, args);
    va_end(args);
    m->options.log(m->options.log_user, level, line);
}

/* The time since the part before ended. */
static float lap(rv_model *m) {
    const double now = rv_now_ms(), ms = now - m->since_ms;
    m->since_ms = now;
    return (float)ms;
}

/* What does not fit is refused before anything is taken. Mapped weights come and go with the page cache, so they
 * alone are no reason to refuse, unless the caller set a limit. */
static rv_status check_fits(const rv_model *m, const rv_load_options *asked, uint64_t arena, uint64_t mapped, rv_error *err) {
    uint64_t available = rv_load_available(&m->options), total = arena + mapped;
    uint64_t must = asked->memory_limit ? total : arena;
    if (must > available)
        return rv_fail(err, RV_ERR_DEVICE_MEMORY, "the weights take %.2f GB and %s %.2f GB: raise the limit or free memory",
                       (double)must / 1e9, asked->memory_limit ? "memory_limit is" : "the device has", (double)available / 1e9);
    if (total > available)
        rv_model_log(m, RV_LOG_WARNING, "the weights (%.2f GB) are larger than the free memory (%.2f GB): "
                     "they will be read from disk again and again", (double)total / 1e9, (double)available / 1e9);
    return RV_OK;
}

/* Memory for what was measured. */
static rv_status take_memory(rv_model *m, rv_error *err) {
    m->memory = rv_device_alloc(m->be, m->memory_bytes);
    if (m->host_bytes && !m->host_memory) m->host_memory = rv_host_alloc(m->be, m->host_bytes);
    if (m->memory && (m->host_memory || !m->host_bytes)) return RV_OK;
    rv_status st = rv_finish(m->be, err);
    return st ? st : rv_fail_memory(err, "weights");
}

static rv_status place_in_memory(rv_model *m, rv_placing *how, rv_error *err) {
    rv_arena arena = { m->memory, 0, m->memory_bytes }, host = { m->host_memory, 0, m->host_bytes };
    how->host = m->host_bytes ? &host : NULL;
    rv_status st = rv_weights_place(&m->files.config, m->files.checkpoint, m->be, &arena, how, &m->weights, &m->mapped_bytes, err);
    how->host = NULL;
    return st;
}

/* From the cache where it is good (how->filled says so), else from the checkpoint. */
static rv_status fill_memory(rv_model *m, rv_placing *how, rv_error *err) {
    bool pads_are_equal = false;
    rv_status st = RV_OK;
    TRY(take_memory(m, err));
    how->filled = m->cache && rv_weight_cache_read(m->cache, &pads_are_equal);
    m->times.plan = lap(m);
    TRY(place_in_memory(m, how, err));
    if (how->filled) m->weights.pads_are_equal = pads_are_equal;
    m->times.place = lap(m);
    void *unused = rv_model_warm(m);
    m->times.warm = lap(m);
    st = rv_finish(m->be, err);
    rv_device_release(m->be, unused);
    if (st || !how->filled || rv_weight_cache_arrived(m->cache)) goto done;
    how->filled = false;
    rv_weights_free(&m->files.config, m->be, &m->weights);
    rv_device_release(m->be, m->memory);                 /* and again: new memory is zero        */
    TRY(take_memory(m, err));
    TRY(place_in_memory(m, how, err));
    st = rv_finish(m->be, err);
done:
    m->times.wait = lap(m);
    return st;
}

static rv_status place_weights(rv_model *m, const char *model_dir, const rv_load_options *asked, rv_error *err) {
    rv_modules modules;
    rv_placing how = rv_load_placing(&m->files, &m->options, &modules);
    uint64_t available = rv_load_available(&m->options), mapped = 0;
    rv_status st = RV_OK;
    if (asked->memory_limit) available -= m->be->own_bytes < available ? m->be->own_bytes : available;
    TRY(rv_load_measure(&m->files, m->be, &m->options, available, &m->memory_bytes, &m->host_bytes, &mapped, err));
    if (m->host_bytes && asked->embedding == RV_EMBEDDING_AUTO)
        rv_model_log(m, RV_LOG_WARNING, "the weights do not fit on the device with the embedding: %.1f MB of tables stay in host memory", (double)m->host_bytes / 1e6);
    TRY(check_fits(m, asked, m->memory_bytes, mapped, err));
    TRY(rv_checkpoint_recheck(m->files.checkpoint, err));
    m->cache = rv_weight_cache_open(m, model_dir, &how);
    TRY(fill_memory(m, &how, err));
    atomic_store(&m->taken, m->memory_bytes + m->mapped_bytes + m->be->own_bytes);
    if (m->cache && how.filled) {
        rv_weight_cache_close(m->cache);
        m->cache = NULL;
    } else if (m->cache) rv_weight_cache_write(m->cache);
done:
    return st;
}

/* ---- the tokenizer and the backend at the same time: a GPU's start takes longer than 128,000 words ---- */

typedef struct opening { const char *dir; rv_files *files; rv_status st; rv_error err; } opening;

static void *run_opening(void *user) {
    opening *o = user;
    o->st = open_tokenizer(o->dir, o->files, &o->err);
    return NULL;
}

/* An error of the tokenizer's comes before one of the backend's, as if it had been opened first. */
static rv_status open_both(rv_model *m, const char *dir, rv_error *err) {
    opening o = { .dir = dir, .files = &m->files };
    pthread_t thread;
    bool beside = pthread_create(&thread, NULL, run_opening, &o) == 0;
    rv_status st = rv_load_backend(&m->options, false, &m->be, err);
    if (beside) pthread_join(thread, NULL);
    else run_opening(&o);
    if (o.st && err) *err = o.err;
    return o.st ? o.st : st;
}

static void sum_times(rv_model *m, double start) {
    const rv_load_parts *p = &m->be->load_parts;
    rv_load_times *t = &m->times;
    t->total = (float)(rv_now_ms() - start);
    t->pin = (float)p->start_ms;
    t->read = (float)p->read_ms;
    t->check = (float)p->check_ms;
    t->queue = (float)p->queue_ms;
    t->bus = (float)p->bus_ms;
    rv_model_log(m, RV_LOG_INFO, "loading took %.0f ms: files %.0f, device %.0f, plan %.0f, place %.0f, warm %.0f, wait %.0f; readers: pin %.0f, read %.0f, check %.0f, "
                 "queue %.0f, bus %.0f", (double)t->total, (double)t->files, (double)t->device, (double)t->plan, (double)t->place, (double)t->warm, (double)t->wait,
                 (double)t->pin, (double)t->read, (double)t->check, (double)t->queue, (double)t->bus);
}

rv_status rv_model_load(const char *model_dir, const rv_load_options *options, rv_model **out, rv_error *err) {
    rv_status st = RV_OK;
    if (!model_dir || !out) return rv_fail(err, RV_ERR_ARGUMENT, "rv_model_load: %s is NULL", model_dir ? "out" : "model_dir");
    rv_model *m = calloc(1, sizeof *m);
    if (!m) return rv_fail_memory(err, "model");
    pthread_mutex_init(&m->device, NULL);
    atomic_init(&m->refs, 1);
    rv_load_options asked;
    const double start = m->since_ms = rv_now_ms();
    TRY(rv_abi_read(&asked, sizeof asked, options, "rv_load_options", err));
    m->options = asked;
    TRY(rv_files_open(model_dir, false, &m->files, err));
    m->times.files = lap(m);
    TRY(rv_load_resolve(&m->files, &m->options, err));
    TRY(open_both(m, model_dir, err));
    m->times.device = lap(m);
    TRY(place_weights(m, model_dir, &asked, err));
    sum_times(m, start);
    rv_model_log(m, RV_LOG_INFO, "model loaded: %.1f MB mapped, %.1f MB taken, padding tiles computed %s",
                 (double)m->mapped_bytes / 1e6, (double)m->memory_bytes / 1e6, m->weights.pads_are_equal ? "once" : "in full");
done:
    if (st) rv_model_free(m);
    else *out = m;
    return st;
}

void rv_model_retain(rv_model *m) { atomic_fetch_add(&m->refs, 1); }

void rv_model_free(rv_model *m) {
    if (!m || atomic_fetch_sub(&m->refs, 1) > 1) return;
    rv_weight_cache_close(m->cache);                     /* reads the memory that goes next      */
    if (m->be) {
        rv_weights_free(&m->files.config, m->be, &m->weights);
        rv_device_release(m->be, m->memory);
        rv_host_release(m->be, m->host_memory);
        rv_backend_close(m->be);
    }
    rv_files_close(&m->files);
    pthread_mutex_destroy(&m->device);
    free(m);
}

rv_status rv_model_memory(const rv_model *m, rv_memory *out, rv_error *err) {
    if (!m) return rv_fail(err, RV_ERR_ARGUMENT, "rv_model_memory: model is NULL");
    rv_memory is = { .weights = m->memory_bytes + m->mapped_bytes, .mapped = m->mapped_bytes,
                     .available = rv_load_available(&m->options), .fits = 1, .weights_format = m->options.weights,
                     .compute = m->options.compute, .backend = m->options.backend,
                     .host = m->be->load_bytes + m->host_bytes, .host_weights = m->host_bytes, .embedding = m->options.embedding };
    is.scratch = m->be->own_bytes;
    is.total = is.weights + is.scratch;
    return rv_abi_write(out, &is, sizeof is, "rv_memory", err);
}

rv_status rv_model_load_times(const rv_model *m, rv_load_times *out, rv_error *err) {
    if (!m || !out) return rv_fail(err, RV_ERR_ARGUMENT, "rv_model_load_times: %s is NULL", m ? "out" : "model");
    return rv_abi_write(out, &m->times, sizeof m->times, "rv_load_times", err);
}

const rv_tokenizer *rv_model_tokenizer(const rv_model *m) { return m ? m->files.tokenizer : NULL; }
