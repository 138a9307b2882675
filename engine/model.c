/* model.c - loading and freeing a model. */
#include "engine/model.h"

#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "engine/abi.h"
#include "engine/base/file.h"
#include "engine/base/text.h"
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
    char line[512], *longer = NULL;                      /* a path alone may have 4096 bytes     */
    va_list args;
    va_start(args, format);
    const int n = vsnprintf(line, sizeof line, format, args);
    va_end(args);
    if (n >= (int)sizeof line && (longer = malloc((size_t)n + 1))) {
        va_start(args, format);
        vsnprintf(longer, (size_t)n + 1, format, args);
        va_end(args);
    }
    m->options.log(m->options.log_user, level, longer ? longer : line);
    free(longer);
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
        return rv_fail(err, RV_ERR_DEVICE_MEMORY, "the weights take %s and %s %s: raise the limit or free memory", rv_size_in_words(must).text,
                       asked->memory_limit ? "memory_limit is" : "the device has", rv_size_in_words(available).text);
    if (total > available)
        rv_model_log(m, RV_LOG_WARNING, "the weights (%s) are larger than the free memory (%s): "
                     "they will be read from disk again and again", rv_size_in_words(total).text, rv_size_in_words(available).text);
    return RV_OK;
}

/* Memory for what was measured.  Buffers of streamed layers lie behind the arena. */
static rv_status take_memory(rv_model *m, rv_error *err) {
    rv_streamed *s = &m->streamed;
    m->memory = rv_device_alloc(m->be, m->memory_bytes);
    if (m->table_bytes && !m->host_memory) m->host_memory = rv_host_alloc(m->be, m->table_bytes);
    if (s->host_bytes && !s->host) s->host = rv_host_alloc(m->be, s->host_bytes);
    for (int i = 0; i < RV_LANES && m->memory && s->host_bytes; i++) s->buffer[i] = (char *)m->memory + m->memory_bytes - (uint64_t)(RV_LANES - i) * s->buffer_bytes;
    if (m->memory && (m->host_memory || !m->table_bytes) && (s->host || !s->host_bytes)) return RV_OK;
    rv_status st = rv_finish(m->be, err);
    return st ? st : rv_fail_memory(err, "weights");
}

static rv_status place_in_memory(rv_model *m, rv_placing *how, rv_error *err) {
    const uint64_t buffers = m->streamed.host_bytes ? RV_LANES * m->streamed.buffer_bytes : 0;
    rv_arena arena = { m->memory, 0, m->memory_bytes - buffers }, host = { m->host_memory, 0, m->table_bytes };
    how->host = m->table_bytes ? &host : NULL;
    how->streamed = m->streamed.host_bytes ? &m->streamed : NULL;
    if (how->streamed) rv_streamed_begin(&m->streamed, m->streamed.first, m->streamed.end);
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

/* What a rung that failed had taken. */
static void give_back(rv_model *m) {
    if (!m->be) return;
    rv_streamed_drain(&m->streamed, m->be);
    rv_finish(m->be, NULL);                              /* readers of a load that failed half way still write there */
    rv_weights_free(&m->files.config, m->be, &m->weights);
    rv_device_release(m->be, m->memory);
    rv_host_release(m->be, m->host_memory);
    rv_host_release(m->be, m->streamed.host);
    m->memory = m->host_memory = NULL;
    m->streamed = (rv_streamed){ 0 };
    m->memory_bytes = m->table_bytes = m->mapped_bytes = 0;
}

/* m->options, its memory's sizes and m->rung are settled. */
static rv_status place_weights(rv_model *m, const char *model_dir, const rv_load_options *asked, rv_error *err) {
    rv_modules modules;
    rv_placing how = rv_load_placing(&m->files, &m->options, &modules);
    rv_status st = RV_OK;
    how.head_int8 = m->rung.head_int8;
    TRY(check_fits(m, asked, m->memory_bytes, m->mapped_bytes, err));
    TRY(rv_checkpoint_recheck(m->files.checkpoint, err));
    if (!m->streamed.host_bytes) m->cache = rv_weight_cache_open(m, model_dir, &how);
    TRY(fill_memory(m, &how, err));
    atomic_store(&m->taken, m->memory_bytes + m->mapped_bytes + m->be->own_bytes);
    if (m->cache && how.filled) {
        rv_weight_cache_close(m->cache);
        m->cache = NULL;
    } else if (m->cache) rv_weight_cache_write(m->cache);
done:
    if (st && m->cache) rv_weight_cache_close(m->cache), m->cache = NULL;
    return st;
}

/* Where weights are read in place, and where there is no ladder. */
static rv_status place_on_cpu(rv_model *m, const char *model_dir, const rv_load_options *asked, rv_error *err) {
    uint64_t available = rv_load_available(&m->options);
    if (asked->gpu_layers)
        return rv_fail(err, RV_ERR_UNSUPPORTED, "gpu_layers: the CPU backend reads weights where they lie; leave it out, or use the cuda backend");
    if (asked->memory_limit) available -= m->be->own_bytes < available ? m->be->own_bytes : available;
    rv_status st = rv_load_measure(&m->files, m->be, &m->options, available, &m->memory_bytes, &m->table_bytes, &m->mapped_bytes, err);
    return st ? st : place_weights(m, model_dir, asked, err);
}

/* ---- down the ladder ---- */

static bool is_memory(rv_status st) { return st == RV_ERR_DEVICE_MEMORY || st == RV_ERR_MEMORY; }

static void say_steps(const rv_model *m, const char *why) {
    char steps[200];
    if (!m->steps) return;
    rv_steps_text(m->steps, steps, sizeof steps);
    rv_model_log(m, RV_LOG_WARNING, "memory: %s, so that it fits: %s%s%s", why ? "reduced after a refusal" : "reduced", steps, why ? ": " : "", why ? why : "");
    if (m->streamed.host_bytes)
        rv_model_log(m, RV_LOG_WARNING, "memory: the weights of %d text layers (%s) stay in host memory and stream over PCIe: every step waits for them",
                     m->streamed.end - m->streamed.first, rv_size_in_words(m->streamed.host_bytes).text);
}

/* While a model is loaded, `be` is the loading thread's whenever it is open. */
static rv_status open_backend(rv_model *m, rv_error *err) {
    rv_status st = rv_load_backend(&m->options, false, &m->be, err);
    if (st == RV_OK) rv_model_lock(m);
    return st;
}

static void close_backend(rv_model *m) {
    if (!m->be) return;
    rv_model_unlock(m);
    rv_backend_close(m->be);
    m->be = NULL;
}

/* The backend computes in what the options say now. */
static rv_status reopen(rv_model *m, rv_error *err) {
    const rv_dtype act = m->options.compute == RV_COMPUTE_F16 ? RV_F16 : RV_BF16;
    if (m->be->act == act || m->options.backend != RV_BACKEND_CUDA) return RV_OK;
    close_backend(m);
    return open_backend(m, err);
}

static rv_status place_rung(rv_model *m, const char *model_dir, const rv_load_options *asked, const rv_taking *taking, rv_error *err) {
    rv_status st = reopen(m, err);
    if (st) return st;
    m->steps = m->rung.steps;
    m->memory_bytes = taking->device;
    m->mapped_bytes = taking->mapped;
    m->table_bytes = taking->host - taking->streamed.host_bytes;
    m->streamed = taking->streamed;
    return place_weights(m, model_dir, asked, err);
}

/* One rung after the other until the memory for one is there. */
static rv_status place_on_gpu(rv_model *m, const char *model_dir, const rv_load_options *asked, rv_error *err) {
    rv_error why = { 0 };
    rv_status st = RV_OK;
    for (int32_t at = 0;; at++) {
        rv_taking taking;
        TRY(rv_load_climb(&m->files, m->be, asked, &m->options, &m->profile, true, &at, &m->rung, &taking, err));
        if (at >= RV_MOST_RUNGS && why.code) {           /* nothing smaller is left              */
            *err = why;
            return why.code;
        }
        st = place_rung(m, model_dir, asked, &taking, err);
        if (st == RV_OK) say_steps(m, why.code ? why.message : NULL);
        if (!is_memory(st) || asked->on_oom == RV_OOM_FAIL || at >= RV_MOST_RUNGS || !m->be) break;
        why = *err;
        give_back(m);
        rv_forgive(m->be);
    }
done:
    return st;
}

/* The CPU, where nobody asked for the GPU by name. */
static rv_status fall_to_cpu(rv_model *m, const char *model_dir, const rv_load_options *asked, rv_error *err) {
    const rv_error why = *err;
    rv_load_options cpu = *asked;
    rv_status st = RV_OK;
    cpu.backend = RV_BACKEND_CPU;
    cpu.device = cpu.gpu_layers = cpu.kernels = 0;
    cpu.profile = NULL;
    cpu.embedding = RV_EMBEDDING_AUTO;
    cpu.log = NULL;                                      /* what there is to warn of was said for the GPU */
    give_back(m);
    close_backend(m);
    m->rung = (rv_rung){ 0 };
    m->options = cpu;
    TRY(rv_load_resolve(&m->files, &m->options, err));
    TRY(open_backend(m, err));
    m->steps = RV_STEP_CPU;
    m->options.log = asked->log;
    rv_model_log(m, RV_LOG_WARNING, "memory: the model runs on the CPU after all, which is many times slower: %s", why.message);
    st = place_on_cpu(m, model_dir, &cpu, err);
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
    rv_status st = open_backend(m, err);
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

/* The GPU's profile and its kernels, now that it is open. */
static rv_status settle_profile(rv_load_options *o, rv_profile *out, rv_error *err) {
    rv_device gpu = { .size = sizeof gpu };
    rv_status st = rv_load_profile(o, out, err);
    if (st == RV_OK && !o->kernels && (st = rv_device_get(RV_BACKEND_CUDA, (uint32_t)o->device, &gpu, err)) == RV_OK) o->kernels = gpu.arch;
    if (st == RV_OK) rv_load_cap(o, out);
    return st;
}

static rv_status load_on(rv_model *m, const char *model_dir, const rv_load_options *asked, rv_error *err) {
    rv_load_options with_limit = *asked;
    rv_status st = open_both(m, model_dir, err);
    m->times.device = lap(m);
    if (st || !rv_has_host_memory(m->be)) return st ? st : place_on_cpu(m, model_dir, asked, err);
    if (m->options.backend == RV_BACKEND_CUDA) TRY(settle_profile(&m->options, &m->profile, err));
    with_limit.memory_limit = m->options.memory_limit;
    st = place_on_gpu(m, model_dir, &with_limit, err);
done:
    return st;
}

rv_status rv_model_load(const char *model_dir, const rv_load_options *options, rv_model **out, rv_error *err) {
    rv_status st = RV_OK;
    rv_error own = { 0 };
    if (!model_dir || !out) return rv_fail(err, RV_ERR_ARGUMENT, "rv_model_load: %s is NULL", model_dir ? "out" : "model_dir");
    if (!err) err = &own;                                /* the ladder says why it was needed     */
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
    if (m->files.config.generation.ignored[0])
        rv_model_log(m, RV_LOG_WARNING, "generation_config.json: not applied: %s", m->files.config.generation.ignored);
    TRY(rv_load_resolve(&m->files, &m->options, err));
    st = load_on(m, model_dir, &asked, err);
    if (is_memory(st) && m->options.backend == RV_BACKEND_CUDA && asked.backend == RV_BACKEND_AUTO && asked.on_oom != RV_OOM_FAIL && !rv_load_names_profile(&asked))
        st = fall_to_cpu(m, model_dir, &asked, err);
    if (st) goto done;
    rv_load_warn_of_idle(&m->files, &m->options);
    m->options.profile = NULL;                           /* the caller's                         */
    sum_times(m, start);
    rv_model_log(m, RV_LOG_INFO, "model loaded: %.1f MB mapped, %.1f MB taken, padding tiles computed %s",
                 (double)m->mapped_bytes / 1e6, (double)m->memory_bytes / 1e6, m->weights.pads_are_equal ? "once" : "in full");
done:
    if (m->be) rv_model_unlock(m);
    if (st) rv_model_free(m);
    else *out = m;
    return st;
}

void rv_model_retain(rv_model *m) { atomic_fetch_add(&m->refs, 1); }

void rv_model_lock(rv_model *m) {
    pthread_mutex_lock(&m->device);
    rv_enter(m->be);
}

void rv_model_unlock(rv_model *m) {
    rv_leave(m->be);
    pthread_mutex_unlock(&m->device);
}

void rv_model_free(rv_model *m) {
    if (!m || atomic_fetch_sub(&m->refs, 1) > 1) return;
    rv_weight_cache_close(m->cache);                     /* reads the memory that goes next      */
    if (m->be) {
        rv_model_lock(m);
        give_back(m);
        close_backend(m);
    }
    rv_files_close(&m->files);
    pthread_mutex_destroy(&m->device);
    free(m);
}

rv_status rv_model_memory(const rv_model *m, rv_memory *out, rv_error *err) {
    if (!m) return rv_fail(err, RV_ERR_ARGUMENT, "rv_model_memory: model is NULL");
    const uint64_t host = m->table_bytes + m->streamed.host_bytes;
    rv_memory is = { .weights = m->memory_bytes + m->mapped_bytes, .mapped = m->mapped_bytes,
                     .available = rv_load_available(&m->options), .fits = 1, .weights_format = m->options.weights,
                     .compute = m->options.compute, .backend = m->options.backend,
                     .host = m->be->load_bytes + host, .host_weights = host, .embedding = m->options.embedding,
                     .steps = m->steps, .gpu_layers = m->rung.gpu_layers, .streamed = m->streamed.host_bytes,
                     .kernels = m->options.kernels };
    is.scratch = m->be->own_bytes;
    is.total = is.weights + is.scratch;
    return rv_abi_write(out, &is, sizeof is, "rv_memory", err);
}

rv_status rv_model_load_times(const rv_model *m, rv_load_times *out, rv_error *err) {
    if (!m || !out) return rv_fail(err, RV_ERR_ARGUMENT, "rv_model_load_times: %s is NULL", m ? "out" : "model");
    return rv_abi_write(out, &m->times, sizeof m->times, "rv_load_times", err);
}

const rv_tokenizer *rv_model_tokenizer(const rv_model *m) { return m ? m->files.tokenizer : NULL; }
