/* plan.c - defaults, and the memory plan.
 *
 * The one idea: planning runs the very code that loading runs, on arenas that only measure.
 */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "engine/abi.h"
#include "engine/base/file.h"
#include "engine/devices.h"
#include "engine/session.h"
#include "kernels/absent.h"
#include "loader/bnb.h"

static const float INT8_THRESHOLD = 6.f;     /* bitsandbytes' own */
enum { MAX_SLOTS = RV_FEW_ROWS, MAX_IMAGES = 1024, MAX_QUEUE = 1 << 20, DEFAULT_CONTEXT = 4096, CONSTRAINTS = 2, CONSTRAINT_BYTES = 15 << 18,
       MAX_CONSTRAINT_BYTES = 1 << 30 };

/* ---- defaults ---- */

static rv_status in_range(int32_t value, int32_t most, const char *what, rv_error *err) {
    if (value >= 0 && value <= most) return RV_OK;
    return rv_fail(err, RV_ERR_ARGUMENT, "rv_load_options.%s: must be from 0 to %d, is %d", what, most, value);
}

static rv_status check_options(const rv_load_options *o, rv_error *err) {
    rv_status st = RV_OK;
    TRY(in_range(o->backend, RV_BACKEND_CUDA, "backend", err));
    TRY(in_range(o->device, 1024, "device", err));
    TRY(in_range(o->weights, RV_WEIGHTS_NF4, "weights", err));
    TRY(in_range(o->modules, RV_MODULES_HF_LITERAL, "modules", err));
    TRY(in_range(o->int8_parity, RV_INT8_BY_CALL, "int8_parity", err));
    if (!(o->int8_threshold <= 65504)) TRY(rv_fail(err, RV_ERR_ARGUMENT, "rv_load_options.int8_threshold: must be at most 65504, is %g", (double)o->int8_threshold));
    TRY(in_range(o->compute, RV_COMPUTE_F16, "compute", err));
    TRY(in_range(o->threads, 1024, "threads", err));
    TRY(in_range(o->taps, RV_TAPS_LEAVING, "taps", err));
    TRY(in_range(o->reference, RV_REFERENCE_META, "reference", err));
    TRY(in_range(o->resize, RV_RESIZE_TV, "resize", err));
    TRY(in_range(o->attention, RV_ATTENTION_PLAIN, "attention", err));
    TRY(in_range(o->embedding, RV_EMBEDDING_HOST, "embedding", err));
    TRY(in_range(o->on_oom, RV_OOM_DEGRADE, "on_oom", err));
    if (o->kernels != 0 && o->kernels != 70 && o->kernels != 80 && o->kernels != 90)
        TRY(rv_fail(err, RV_ERR_ARGUMENT, "rv_load_options.kernels: must be 0, 70, 80 or 90, is %d", o->kernels));
done:
    return st;
}

static bool quantised(const rv_load_options *o) { return o->weights >= RV_WEIGHTS_INT8; }

static rv_status resolve_cpu(rv_dtype stored, rv_load_options *o, rv_error *err) {
    const rv_cpu_features cpu = rv_cpu_detect();
    o->backend = RV_BACKEND_CPU;
    if (o->device != 0) return rv_fail(err, RV_ERR_ARGUMENT, "device %d: the CPU is device 0", o->device);
    if (o->attention == RV_ATTENTION_PLAIN)
        return rv_fail(err, RV_ERR_UNSUPPORTED, "attention plain: the CPU backend has one kind of attention; leave it out, or use the cuda backend");
    if (o->embedding == RV_EMBEDDING_HOST)
        return rv_fail(err, RV_ERR_UNSUPPORTED, "embedding host: the CPU backend reads its tables where they lie in the files; leave it out, or use the cuda backend");
    if (rv_load_names_profile(o)) return rv_fail(err, RV_ERR_UNSUPPORTED, "GPU profile %.40s: the CPU backend has none; leave it out, or use the cuda backend", o->profile);
    if (o->kernels)
        return rv_fail(err, RV_ERR_UNSUPPORTED, "kernels sm%d: the CPU backend has no such sets; leave it out, or use the cuda backend", o->kernels);
    if (o->compute == RV_COMPUTE_F16)
        return rv_fail(err, RV_ERR_UNSUPPORTED, "compute f16: the CPU backend computes in f32 or bf16");
    if (o->compute == RV_COMPUTE_AUTO)
        o->compute = stored == RV_BF16 && cpu.avx512_bf16 ? RV_COMPUTE_BF16 : RV_COMPUTE_F32;
    return RV_OK;
}

bool rv_load_names_profile(const rv_load_options *o) { return o->profile && *o->profile; }

void rv_load_cap(rv_load_options *o, const rv_profile *p) {
    const uint64_t most = rv_load_names_profile(o) ? p->usable : p->memory;
    if (most && o->memory_limit > most) o->memory_limit = most;
}

rv_status rv_load_profile(const rv_load_options *o, rv_profile *out, rv_error *err) {
    rv_device gpu = { .size = sizeof gpu };
    *out = (rv_profile){ .size = sizeof *out };
    if (rv_load_names_profile(o)) return rv_profile_find(o->profile, out, err);
    rv_status st = rv_device_get(RV_BACKEND_CUDA, (uint32_t)o->device, &gpu, err);
    return st ? st : rv_profile_of(&gpu, out, err);
}

/* A set runs on its own GPUs and on newer ones. */
static bool runs_set(const rv_load_options *o, int32_t set) {
    rv_device gpu = { .size = sizeof gpu };
    return rv_device_get(RV_BACKEND_CUDA, (uint32_t)o->device, &gpu, NULL) == RV_OK && gpu.arch >= set;
}

/* A profile brings its kernels, where nobody named others, and its 16-bit type. */
static rv_status resolve_profile(rv_load_options *o, bool plans, rv_error *err) {
    rv_profile p;
    if (!rv_load_names_profile(o)) return RV_OK;
    rv_status st = rv_load_profile(o, &p, err);
    if (st) return st;
    if (o->kernels > p.kernels)
        return rv_fail(err, RV_ERR_UNSUPPORTED, "kernels sm%d: a %s is of compute capability %d.%d; leave it out for sm%d", o->kernels, p.title, p.capability / 10, p.capability % 10,
                       p.kernels);
    if (!o->kernels) o->kernels = plans || runs_set(o, p.kernels) ? p.kernels : 0;   /* 0: the newest that there are */
    if (p.has_bf16) return RV_OK;
    if (o->compute == RV_COMPUTE_BF16) return rv_fail(err, RV_ERR_UNSUPPORTED, "compute bf16: a %s has no bf16: use f16, or leave it out", p.title);
    if (o->compute == RV_COMPUTE_AUTO) o->compute = RV_COMPUTE_F16;
    return RV_OK;
}

/* `plans`: of a GPU that need not be there, so any build can. */
static rv_status resolve_cuda(rv_dtype stored, rv_load_options *o, bool plans, rv_error *err) {
    if (!RV_HAS_CUDA && !(plans && rv_load_names_profile(o))) return rv_fail(err, RV_ERR_UNSUPPORTED, "backend cuda: this build has none; use the cpu backend, or build with: cmake --preset cuda");
    rv_status st = resolve_profile(o, plans, err);
    if (st) return st;
    o->backend = RV_BACKEND_CUDA;
    if (o->compute == RV_COMPUTE_F32)
        return rv_fail(err, RV_ERR_UNSUPPORTED, "compute f32: the CUDA backend computes in bf16 or f16");
    rv_device gpu = { .size = sizeof gpu };
    const bool volta = o->kernels ? o->kernels == 70 : !rv_gpu_get((uint32_t)o->device, &gpu, NULL) && gpu.arch == 70;
    if (volta && o->compute == RV_COMPUTE_BF16)
        return rv_fail(err, RV_ERR_UNSUPPORTED, "compute bf16: the sm70 kernels (V100) compute in f16, for Volta has no bf16; leave it out");
    if (o->compute == RV_COMPUTE_AUTO) o->compute = stored == RV_F16 || quantised(o) || volta ? RV_COMPUTE_F16 : RV_COMPUTE_BF16;
    return RV_OK;
}

/* ---- what weights are kept as ---- */

static const rv_format formats[] = { [RV_WEIGHTS_AUTO] = RV_FORMAT_PLAIN, [RV_WEIGHTS_16BIT] = RV_FORMAT_PLAIN, [RV_WEIGHTS_INT8] = RV_FORMAT_INT8,
                                     [RV_WEIGHTS_NF4] = RV_FORMAT_NF4, [RV_WEIGHTS_FP4] = RV_FORMAT_FP4 };

/* What the checkpoint's first quantised linear layer is stored as; PLAIN: none is quantised. */
static rv_format stored_format(const rv_files *f) {
    for (uint32_t i = 0; i < rv_checkpoint_count(f->checkpoint); i++) {
        const rv_tensor *t = rv_checkpoint_at(f->checkpoint, i);
        rv_format format = rv_modules_linear(t->name) ? rv_checkpoint_format(f->checkpoint, t) : RV_FORMAT_PLAIN;
        if (format != RV_FORMAT_PLAIN) return format;
    }
    return RV_FORMAT_PLAIN;
}

bool rv_files_quantised(const rv_files *f) { return stored_format(f) != RV_FORMAT_PLAIN; }

typedef struct sizing { const rv_modules *modules; rv_format format; bool nested; uint64_t bytes; } sizing;

static rv_status size_one(void *user, const rv_tensor_want *want, rv_error *err) {
    sizing *s = user;
    (void)err;
    if (want->row->kind != RV_KIND_WEIGHT) return RV_OK;
    rv_format format = rv_modules_linear(want->name) ? rv_modules_format_of(s->modules, want, s->format) : RV_FORMAT_PLAIN;
    s->bytes += rv_codes_bytes(format, s->nested, want->shape[0], want->elements / want->shape[0]);
    return RV_OK;
}

/* On a GPU, which is not open yet: about what the ladder will choose, for the numbers it is opened to compute in. */
static rv_weight_format that_may_fit(const rv_files *f, const rv_load_options *o) {
    const rv_modules modules = { o->modules, o->skip, o->keep };
    const uint64_t available = rv_load_available(o);
    for (rv_weight_format w = RV_WEIGHTS_16BIT; w < RV_WEIGHTS_NF4; w++) {
        sizing s = { &modules, formats[w], !o->nf4_single, 0 };
        rv_weights_each(&f->config, size_one, &s, NULL);
        if (s.bytes <= available) return w;
    }
    return RV_WEIGHTS_NF4;
}

/* On a CPU, where there is no ladder: the largest format that leaves room for a session as the options tell of it, else the largest that fits
 * alone; NF4 where none does, so that the message is about the smallest. */
static rv_status choose_on_cpu(const rv_files *f, rv_load_options *o, rv_error *err) {
    const uint64_t available = rv_load_available(o);
    uint64_t needed[RV_WEIGHTS_NF4 + 1] = { 0 }, device = 0, host, mapped = 0;
    rv_backend *be = NULL;
    rv_status st = rv_load_backend(o, true, &be, err);
    if (st) return st;
    const uint64_t session = rv_load_session_bytes(&f->config, be, o);
    for (rv_weight_format w = RV_WEIGHTS_16BIT; w <= RV_WEIGHTS_NF4; w++) {
        rv_load_options one = *o;
        one.weights = w;
        TRY(rv_load_measure(f, be, &one, available, &device, &host, &mapped, err));
        needed[w] = device + mapped + be->own_bytes;
    }
    o->weights = RV_WEIGHTS_AUTO;
    for (int with = 1; with >= 0 && o->weights == RV_WEIGHTS_AUTO; with--)
        for (rv_weight_format w = RV_WEIGHTS_NF4; w >= RV_WEIGHTS_16BIT; w--)
            if (needed[w] <= available && (!with || session <= available - needed[w])) o->weights = w;
    if (o->weights == RV_WEIGHTS_AUTO) o->weights = RV_WEIGHTS_NF4;
done:
    rv_backend_close(be);
    return st;
}

static void warn(void *user, const char *line) {
    const rv_load_options *o = user;
    o->log(o->log_user, RV_LOG_WARNING, line);
}

static rv_status resolve_weights(const rv_files *f, rv_load_options *o, rv_error *err) {
    const rv_modules modules = { o->modules, o->skip, o->keep };
    const rv_format stored = stored_format(f);
    rv_status st = rv_modules_check(&modules, &f->config, formats[o->weights], o->log ? warn : NULL, o, err);
    if (st) return st;
    if (stored == RV_FORMAT_PLAIN) {
        if (o->weights == RV_WEIGHTS_AUTO && o->backend == RV_BACKEND_CUDA) o->weights = that_may_fit(f, o);
        return RV_OK;
    }
    if (quantised(o) && formats[o->weights] != stored)
        return rv_fail(err, RV_ERR_ARGUMENT, "weights %s: the checkpoint holds %s weights already: leave it out, or ask for 16bit",
                       rv_format_name(formats[o->weights]), rv_format_name(stored));
    if (o->weights == RV_WEIGHTS_AUTO)
        for (rv_weight_format w = RV_WEIGHTS_INT8; w <= RV_WEIGHTS_FP4; w++)
            if (formats[w] == stored) o->weights = w;
    return RV_OK;
}

static rv_status count_4bit(void *user, const rv_tensor_want *want, rv_error *err) {
    sizing *s = user;
    (void)err;
    s->bytes += rv_modules_linear(want->name) && rv_modules_format_of(s->modules, want, s->format) >= RV_FORMAT_NF4;
    return RV_OK;
}

void rv_load_warn_of_idle(const rv_files *f, const rv_load_options *o) {
    const struct { const char *name; bool given; } lists[] = { { "modules hf-literal", o->modules != RV_MODULES_INTENDED }, { "skip list", o->skip && *o->skip },
                                                               { "keep list", o->keep && *o->keep }, { "nf4_single", o->nf4_single != 0 } };
    const char *why = rv_files_quantised(f) ? "the folder's weights are quantised already" : !quantised(o) ? "the weights are 16 bit" : NULL;
    const rv_modules modules = { o->modules, o->skip, o->keep };
    sizing four = { &modules, formats[o->weights], true, 0 };
    char line[120];
    if (!why && o->nf4_single) rv_weights_each(&f->config, count_4bit, &four, NULL);
    for (int i = 0; i < 4 && o->log; i++) {
        const char *of = why ? why : i == 3 && !four.bytes ? "no weights become 4 bit" : NULL;
        if (!of || !lists[i].given) continue;
        snprintf(line, sizeof line, "%s: changes nothing: %s", lists[i].name, of);
        o->log(o->log_user, RV_LOG_WARNING, line);
    }
}

/* What is told of sessions to come has their ranges. */
static rv_status check_session(const rv_config *config, const rv_load_options *o, rv_error *err) {
    static const char other[] = "rv_session_options";
    const rv_session_options session = rv_load_session(o);
    rv_error why;
    rv_status st = rv_session_check(config, &session, &why);
    return st ? rv_fail(err, st, "rv_load_options%s", why.message + sizeof other - 1) : RV_OK;
}

/* A named profile's usable memory is a limit like any other: formats are chosen by it. */
static rv_status limit_by_profile(rv_load_options *o, bool plans, rv_error *err) {
    rv_profile p;
    if (!rv_load_names_profile(o) || o->backend != RV_BACKEND_CUDA) return RV_OK;
    rv_status st = rv_load_profile(o, &p, err);
    if (st) return st;
    if (!o->memory_limit) o->memory_limit = plans ? p.usable : rv_load_available(o);
    rv_load_cap(o, &p);
    return RV_OK;
}

/* The GPU, where there is one that this build has kernels for; one that cannot be asked is taken too, and says why it cannot be used. */
static rv_backend_id choose_backend(const rv_load_options *o, bool plans) {
    rv_device gpu = { .size = sizeof gpu }, other = gpu;
    char line[480], hint[80] = "";
    if (plans && rv_load_names_profile(o)) return RV_BACKEND_CUDA;
    if (rv_gpu_count() == 0) return RV_BACKEND_CPU;
    if (rv_gpu_get((uint32_t)o->device, &gpu, NULL) || gpu.arch || o->device) return RV_BACKEND_CUDA;
    for (uint32_t i = 1; i < rv_gpu_count() && !*hint; i++)
        if (rv_gpu_get(i, &other, NULL) == RV_OK && other.arch) snprintf(hint, sizeof hint, " (device %u has kernels: %.40s)", i, other.name);
    snprintf(line, sizeof line, "the model runs on the CPU%s: GPU 0 (%.60s): %s", hint, gpu.name, gpu.problem);
    if (o->log) o->log(o->log_user, RV_LOG_WARNING, line);
    return RV_BACKEND_CPU;
}

static rv_status resolve(const rv_files *files, rv_load_options *o, bool plans, rv_error *err) {
    const rv_dtype stored = files ? files->config.dtype : RV_BF16;
    rv_status st = check_options(o, err);
    if (st == RV_OK && files) st = check_session(&files->config, o, err);
    if (st) return st;
    if (o->backend == RV_BACKEND_AUTO) o->backend = choose_backend(o, plans);
    if ((st = limit_by_profile(o, plans, err))) return st;
    if (!files) o->weights = RV_WEIGHTS_16BIT;
    else if ((st = resolve_weights(files, o, err))) return st;
    if (o->backend == RV_BACKEND_CUDA) return resolve_cuda(stored, o, plans, err);
    st = resolve_cpu(stored, o, err);
    return st || o->weights != RV_WEIGHTS_AUTO ? st : choose_on_cpu(files, o, err);
}

rv_status rv_load_resolve(const rv_files *files, rv_load_options *o, rv_error *err) { return resolve(files, o, false, err); }

rv_status rv_load_settle_compute(const rv_files *files, const rv_load_options *asked, rv_load_options *o, bool plans, rv_error *err) {
    rv_load_options again = *o;
    again.compute = asked->compute;
    again.embedding = RV_EMBEDDING_AUTO;
    rv_status st = o->backend == RV_BACKEND_CPU ? resolve_cpu(files->config.dtype, &again, err) : resolve_cuda(files->config.dtype, &again, plans, err);
    o->compute = again.compute;
    return st;
}

rv_placing rv_load_placing(const rv_files *f, const rv_load_options *o, rv_modules *modules) {
    *modules = (rv_modules){ o->modules, o->skip, o->keep };
    return (rv_placing){ .format = stored_format(f) == RV_FORMAT_PLAIN ? formats[o->weights] : RV_FORMAT_PLAIN, .as_stored = o->weights != RV_WEIGHTS_16BIT,
                         .nested = !o->nf4_single, .modules = modules, .progress = { o->progress, o->progress_user } };
}

rv_status rv_load_backend(const rv_load_options *o, bool plans, rv_backend **out, rv_error *err) {
#ifndef RV_CUDA
    if (o->backend == RV_BACKEND_CUDA) return rv_absent_open(o->compute == RV_COMPUTE_F16 ? RV_F16 : RV_BF16, out, err);
#endif
    const rv_int8_rules int8 = { o->int8_threshold == 0 ? INT8_THRESHOLD : o->int8_threshold < 0 ? 0 : o->int8_threshold,
                                 o->int8_parity == RV_INT8_BY_CALL };
#ifdef RV_CUDA
    if (o->backend == RV_BACKEND_CUDA) {
        rv_cuda_options cuda = { .device = o->device, .arch = o->kernels, .act = o->compute == RV_COMPUTE_F16 ? RV_F16 : RV_BF16,
                                 .plain_attention = o->attention == RV_ATTENTION_PLAIN, .plans = plans, .there = !rv_load_names_profile(o), .int8 = int8 };
        return rv_cuda_open(&cuda, out, err);
    }
#endif
    rv_cpu_options cpu = { .threads = plans ? 1 : o->threads, .act = o->compute == RV_COMPUTE_BF16 ? RV_BF16 : RV_F32, .int8 = int8 };
    return rv_cpu_open(&cpu, out, err);
}

uint64_t rv_load_available(const rv_load_options *o) {
    uint64_t total, unused;
    if (o->memory_limit) return o->memory_limit;
    rv_device gpu = { .size = sizeof gpu };
    if (o->backend == RV_BACKEND_CUDA) unused = rv_gpu_get((uint32_t)o->device, &gpu, NULL) ? 0 : gpu.memory_free;
    else rv_cpu_memory(&total, &unused);
    return unused - unused / 20;
}

/* Ranges of what was given; zeros stay. */
rv_status rv_session_check(const rv_config *config, const rv_session_options *o, rv_error *err) {
    rv_session_options resolved = *o;
    return rv_session_resolve(config, &resolved, err);
}

rv_status rv_session_resolve(const rv_config *config, rv_session_options *o, rv_error *err) {
    uint32_t positions = (uint32_t)config->text.max_positions;
    if (!o->slots) o->slots = 1;
    if (!o->queue) o->queue = 4 * o->slots;
    if (!o->context) o->context = positions < DEFAULT_CONTEXT ? positions : DEFAULT_CONTEXT;
    if (!o->images) o->images = 2 * o->slots;
    if (!o->constraints) o->constraints = CONSTRAINTS;
    if (!o->constraint_bytes) o->constraint_bytes = CONSTRAINT_BYTES;
    if (o->slots > MAX_SLOTS) return rv_fail(err, RV_ERR_ARGUMENT, "rv_session_options.slots: must be at most %d, is %u", MAX_SLOTS, o->slots);
    if (o->queue > MAX_QUEUE) return rv_fail(err, RV_ERR_ARGUMENT, "rv_session_options.queue: must be at most %d, is %u", MAX_QUEUE, o->queue);
    if (o->images > MAX_IMAGES) return rv_fail(err, RV_ERR_ARGUMENT, "rv_session_options.images: must be at most %d, is %u", MAX_IMAGES, o->images);
    if (o->constraints > MAX_SLOTS) return rv_fail(err, RV_ERR_ARGUMENT, "rv_session_options.constraints: must be at most %d, is %u", MAX_SLOTS, o->constraints);
    if (o->constraint_bytes > MAX_CONSTRAINT_BYTES)
        return rv_fail(err, RV_ERR_ARGUMENT, "rv_session_options.constraint_bytes: must be at most 1 GiB, is %llu", (unsigned long long)o->constraint_bytes);
    if (o->context > positions)
        return rv_fail(err, RV_ERR_ARGUMENT, "rv_session_options.context: must be at most %u (max_position_embeddings), is %u", positions, o->context);
    if (o->context < 2) return rv_fail(err, RV_ERR_ARGUMENT, "rv_session_options.context: must be at least 2, is %u", o->context);
    return RV_OK;
}

/* ---- the plan ---- */

rv_status rv_load_measure(const rv_files *files, rv_backend *be, rv_load_options *o, uint64_t available, uint64_t *device, uint64_t *host,
                          uint64_t *mapped, rv_error *err) {
    rv_modules modules;
    rv_placing how = rv_load_placing(files, o, &modules);
    rv_weights *unused = calloc(1, sizeof *unused);
    rv_status st = unused ? RV_OK : rv_fail_memory(err, "memory plan");
    bool on_host = o->embedding == RV_EMBEDDING_HOST, again = o->embedding == RV_EMBEDDING_AUTO && rv_has_host_memory(be);
    for (bool ready = false; st == RV_OK && !ready;) {
        rv_arena weights = { 0 }, tables = { 0 };
        how.host = on_host ? &tables : NULL;
        st = rv_weights_place(&files->config, files->checkpoint, be, &weights, &how, unused, mapped, err);
        *device = weights.used;
        *host = tables.used;
        ready = !again || weights.used + *mapped <= available;
        if (!ready) again = false, on_host = true;
    }
    o->embedding = on_host ? RV_EMBEDDING_HOST : RV_EMBEDDING_DEVICE;
    if (unused) free(unused->codes);
    free(unused);
    return st;
}

uint64_t rv_host_room(const rv_load_options *o) {
    uint64_t total, unused;
    if (o->host_memory) return o->host_memory;
    rv_cpu_memory(&total, &unused);
    return unused / 2;
}

/* ---- the plan ---- */

typedef struct planning {
    const rv_files *files;
    rv_load_options asked, load;
    rv_profile      profile;             /* GPU backends                                        */
    rv_backend     *be;
    rv_rung         rung;
} planning;

static rv_status plan_weights(planning *p, rv_memory *out, rv_error *err) {
    uint64_t own = p->be->own_bytes < out->available ? p->be->own_bytes : out->available, weights = 0;
    rv_taking taking = { 0 };
    int32_t at = 0;
    rv_status st = RV_OK;
    if (!rv_has_host_memory(p->be) && p->load.gpu_layers)
        return rv_fail(err, RV_ERR_UNSUPPORTED, "gpu_layers: the CPU backend reads weights where they lie; leave it out, or use the cuda backend");
    if (!rv_has_host_memory(p->be)) {
        st = rv_load_measure(p->files, p->be, &p->load, out->available - own, &weights, &out->host_weights, &out->mapped, err);
        out->weights = weights + out->mapped;
        return st;
    }
    st = rv_load_climb(p->files, p->be, &p->asked, &p->load, &p->profile, false, &at, &p->rung, &taking, err);
    out->weights = taking.device + taking.mapped;
    out->mapped = taking.mapped;
    out->host_weights = taking.host;
    out->streamed = taking.streamed.host_bytes;
    out->steps = p->rung.steps;
    out->gpu_layers = p->rung.gpu_layers;
    return st;
}

static rv_status plan_session(planning *p, const rv_session_options *session, rv_memory *out, rv_error *err) {
    const rv_config *config = &p->files->config;
    rv_session_options so = *session;
    rv_arena cache = { 0 }, scratch = { 0 };
    rv_session *s = calloc(1, sizeof *s);
    const uint64_t room = rv_load_room(&p->load, &p->profile), taken = out->weights + p->be->own_bytes;
    rv_status st = RV_OK;
    if (!s) TRY(rv_fail_memory(err, "memory plan"));
    s->streams = out->streamed > 0;
    rv_slots_settle(config, p->be, &p->load, &p->profile, &so, s->streams, room > taken ? room - taken : 0, &out->steps);
    TRY(rv_session_resolve(config, &so, err));
    s->options = so;
    rv_session_place(s, config, p->be, &cache, &scratch);
    out->cache = cache.used;
    out->scratch = scratch.used;
    out->slots = so.slots;
    out->context = so.context;
    out->images = so.images;
done:
    free(s);
    return st;
}

/* out->available is set. */
static rv_status measure(planning *p, const rv_session_options *session, rv_memory *out, rv_error *err) {
    rv_status st = plan_weights(p, out, err);
    if (st) return st;
    out->host = p->be->load_bytes + out->host_weights;
    out->cache_per_token = rv_cache_bytes_per_token(&p->files->config, p->be->act);
    out->cache_per_tile = rv_cache_bytes_per_tile(&p->files->config, p->be->act);
    if (session) st = plan_session(p, session, out, err);
    out->scratch += p->be->own_bytes;
    out->total = out->weights + out->cache + out->scratch;
    return st;
}

/* Its profile is known, its machine is not. */
static bool gpu_is_elsewhere(const rv_load_options *o, const rv_profile *p) {
    rv_device gpu = { .size = sizeof gpu };
    rv_profile here = { .size = sizeof here };
    return rv_load_names_profile(o) && (rv_device_get(RV_BACKEND_CUDA, (uint32_t)o->device, &gpu, NULL) || rv_profile_of(&gpu, &here, NULL) || strcmp(here.name, p->name));
}

rv_status rv_memory_plan(const char *model_dir, const rv_load_options *load, const rv_session_options *session,
                         rv_memory *out, rv_error *err) {
    if (!model_dir || !out) return rv_fail(err, RV_ERR_ARGUMENT, "rv_memory_plan: %s is NULL", model_dir ? "out" : "model_dir");
    rv_files files = { 0 };
    planning p = { .files = &files };
    rv_session_options so;
    rv_memory plan = { 0 };
    rv_status st = RV_OK;
    TRY(rv_abi_read(&p.asked, sizeof p.asked, load, "rv_load_options", err));
    TRY(rv_abi_read(&so, sizeof so, session, "rv_session_options", err));
    TRY(rv_files_open(model_dir, false, &files, err));
    p.load = p.asked;
    TRY(resolve(&files, &p.load, true, err));
    if (p.load.backend == RV_BACKEND_CUDA) {
        TRY(rv_load_profile(&p.load, &p.profile, err));
        rv_load_cap(&p.load, &p.profile);
        if (!p.load.host_memory && gpu_is_elsewhere(&p.load, &p.profile)) p.load.host_memory = UINT64_MAX;
        plan.host_limit = rv_host_room(&p.load);
    }
    plan.available = rv_load_available(&p.load);
    TRY(rv_load_backend(&p.load, true, &p.be, err));     /* a plan needs no pool; sizes do not depend on it */
    TRY(measure(&p, session ? &so : NULL, &plan, err));
    rv_load_warn_of_idle(&files, &p.load);
    plan.fits = plan.total <= plan.available;
    plan.weights_format = p.load.weights;
    plan.compute = p.load.compute;
    plan.backend = p.load.backend;
    plan.embedding = p.load.embedding;
    plan.kernels = p.load.backend != RV_BACKEND_CUDA ? 0 : p.load.kernels ? p.load.kernels : p.profile.kernels;
    st = rv_abi_write(out, &plan, sizeof plan, "rv_memory", err);
done:
    rv_backend_close(p.be);
    rv_files_close(&files);
    return st;
}
