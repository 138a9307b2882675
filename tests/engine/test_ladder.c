/* test_ladder.c - memory that is short or refused at every turn, and layers that stream: on a played GPU.
 *
 * The one idea: the linker puts this file in front of rv_cpu_open (--wrap), so that the CPU backend has what a GPU has: host memory of its
 * own, copies that arrive late, and allocations that a test can refuse.  A copy changes its buffer's bytes to rubbish at once and
 * brings the right ones when it is waited for, so that a missing wait shows in the answers.
 */
#include "tests/support/folder.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "engine/session.h"
#include "engine/synth.h"

static char model_dir[1024];

/* ---- the played GPU ---- */

static struct {
    bool on;
    long calls, fail_at, held;           /* allocations; the one that is refused, 0: none; not given back */
    bool in_use[RV_LANES];               /* between brought and spent                            */
    struct { void *to; const void *from; uint64_t bytes; } coming[RV_LANES];
    long brought;
} played;
static rv_backend_ops cpu;               /* its own                                             */

static bool refused(rv_backend *be, uint64_t bytes) {
    played.calls++;
    if (played.fail_at == 0 || --played.fail_at > 0) return false;
    rv_fail(&be->error, RV_ERR_DEVICE_MEMORY, "played GPU: out of memory: %llu bytes are refused", (unsigned long long)bytes);
    return true;
}

/* Weights of 16 bit, which the CPU reads in place, take memory on a GPU. */
static uint64_t weight_bytes(rv_backend *be, const rv_weight_spec *s) {
    const uint64_t bytes = cpu.weight_bytes(be, s), plain = (uint64_t)s->rows * (uint64_t)s->cols * 2;
    return s->format == RV_FORMAT_PLAIN && bytes < plain ? plain : bytes;
}

static void *take(rv_backend *be, uint64_t bytes) {
    if (refused(be, bytes)) return NULL;
    played.held++;
    return cpu.alloc(be, bytes);
}

static void give(rv_backend *be, void *memory) {
    played.held--;
    cpu.release(be, memory);
}

static void bring(rv_backend *be, int32_t lane, void *dst, const void *host, uint64_t bytes) {
    (void)be;
    assert_false(played.in_use[lane]);
    memset(dst, 0x7f, bytes);
    played.coming[lane].to = dst;
    played.coming[lane].from = host;
    played.coming[lane].bytes = bytes;
}

static void brought(rv_backend *be, int32_t lane) {
    (void)be;
    if (played.coming[lane].to) memcpy(played.coming[lane].to, played.coming[lane].from, played.coming[lane].bytes), played.brought++;
    played.coming[lane].to = NULL;
    played.in_use[lane] = true;
}

static void spent(rv_backend *be, int32_t lane) {
    (void)be;
    assert_true(played.in_use[lane]);
    played.in_use[lane] = false;
}

rv_status __real_rv_cpu_open(const rv_cpu_options *options, rv_backend **out, rv_error *err);
rv_status __wrap_rv_cpu_open(const rv_cpu_options *options, rv_backend **out, rv_error *err);
rv_status __wrap_rv_cpu_open(const rv_cpu_options *options, rv_backend **out, rv_error *err) {
    rv_status st = __real_rv_cpu_open(options, out, err);
    if (st || !played.on) return st;
    rv_backend_ops *ops = (rv_backend_ops *)(uintptr_t)(*out)->ops;      /* every CPU backend has a table of its own */
    cpu = *ops;
    ops->alloc = ops->host_alloc = take;
    ops->release = ops->host_release = give;
    ops->weight_bytes = weight_bytes;
    ops->bring = bring;
    ops->brought = brought;
    ops->spent = spent;
    return RV_OK;
}

/* A GPU that the driver lists and no kernels run on. */
static bool old_gpu;
uint32_t __real_rv_gpu_count(void);
uint32_t __wrap_rv_gpu_count(void);
uint32_t __wrap_rv_gpu_count(void) { return old_gpu ? 1 : __real_rv_gpu_count(); }

rv_status __real_rv_gpu_get(uint32_t i, rv_device *out, rv_error *err);
rv_status __wrap_rv_gpu_get(uint32_t i, rv_device *out, rv_error *err);
rv_status __wrap_rv_gpu_get(uint32_t i, rv_device *out, rv_error *err) {
    if (!old_gpu) return __real_rv_gpu_get(i, out, err);
    *out = (rv_device){ .backend = RV_BACKEND_CUDA, .name = "Tesla P100", .problem = "it has no tensor cores" };
    return RV_OK;
}

/* ---- a model and an answer ---- */

static char log_text[4096];
static void on_log(void *user, rv_log_level level, const char *line) {
    (void)user;
    if (level <= RV_LOG_WARNING) snprintf(log_text + strlen(log_text), sizeof log_text - strlen(log_text), "%s\n", line);
}

static rv_load_options with(rv_weight_format weights, int32_t gpu_layers, uint64_t limit) {
    return (rv_load_options){ .size = sizeof(rv_load_options), .backend = RV_BACKEND_CPU, .threads = 1, .weights = weights, .gpu_layers = gpu_layers, .memory_limit = limit, .log = on_log };
}

static rv_model *loaded(const rv_load_options *o) {
    rv_error err;
    rv_model *m;
    log_text[0] = '\0';
    if (rv_model_load(model_dir, o, &m, &err)) fail_msg("%s", err.message);
    return m;
}

static const rv_session_options room = { .size = sizeof room, .slots = 2, .context = 128 };

typedef struct said { int32_t ids[8]; float logprobs[8]; } said;

static said answer(rv_session *s, bool with_image) {
    enum { EDGE = 120 };
    static uint8_t pixels[EDGE * EDGE * 3];
    rv_error err;
    rv_job *job;
    said a;
    const int32_t *ids;
    const float *logprobs;
    for (size_t i = 0; i < sizeof pixels; i++) pixels[i] = (uint8_t)(i * 7 + i / 97);
    rv_image image = { .size = sizeof image, .data = pixels, .bytes = sizeof pixels, .width = EDGE, .height = EDGE };
    rv_request r = { .size = sizeof r, .images = &image, .n_images = with_image, .prompt = "What is it?", .max_tokens = 8, .flags = RV_REQUEST_IGNORE_STOP, .date = "26 Jul 2024" };
    if (rv_generate(s, &r, &job, &err)) fail_msg("%s", err.message);
    assert_int_equal(rv_job_tokens(job, &ids, &logprobs), 8);
    memcpy(a.ids, ids, sizeof a.ids);
    memcpy(a.logprobs, logprobs, sizeof a.logprobs);
    rv_job_free(job);
    return a;
}

static rv_session *opened(rv_model *m, const rv_session_options *o) {
    rv_error err;
    rv_session *s;
    if (rv_session_new(m, o, &s, &err)) fail_msg("%s", err.message);
    return s;
}

static rv_memory memory_of(const rv_model *m) {
    rv_error err;
    rv_memory is = { .size = sizeof is };
    if (rv_model_memory(m, &is, &err)) fail_msg("%s", err.message);
    return is;
}

/* ---- streaming ---- */

/* With an image and without one, which skips layers; then again, when the buffers hold what the pass before left in them. */
static void assert_same_answers(rv_model *a, rv_model *b) {
    rv_session *s[2] = { opened(a, &room), opened(b, &room) };
    static const bool images[] = { true, false, true };
    for (size_t i = 0; i < sizeof images / sizeof *images; i++) {
        said one = answer(s[0], images[i]), other = answer(s[1], images[i]);
        assert_memory_equal(&one, &other, sizeof one);
    }
    rv_session_free(s[0]);
    rv_session_free(s[1]);
}

static void streamed_layers_leave_every_bit_as_it_is(void **state) {
    (void)state;
    static const rv_weight_format formats[] = { RV_WEIGHTS_INT8, RV_WEIGHTS_NF4 };
    for (size_t f = 0; f < 2; f++) {
        rv_load_options o = with(formats[f], 0, 0);
        played.on = false;
        rv_model *whole = loaded(&o);
        played.on = true;
        const int32_t layers = whole->files.config.text.layers;
        const int32_t stays[] = { -1, 1, layers - 2 };
        for (size_t k = 0; k < sizeof stays / sizeof *stays; k++) {
            const int32_t stay = stays[k];
            o.gpu_layers = stay;
            played.brought = 0;
            rv_model *streams = loaded(&o);
            assert_same_answers(whole, streams);
            rv_memory is = memory_of(streams);
            assert_int_equal(is.gpu_layers, stay < 0 ? 0 : stay);
            assert_true(is.streamed > 0 && is.host_weights >= is.streamed);
            assert_true(played.brought > 0 || layers - stay <= RV_LANES);     /* which stay where they are */
            rv_model_free(streams);
        }
        rv_model_free(whole);
    }
    assert_int_equal(played.held, 0);
}

static void as_many_layers_as_there_are_leave_none_to_stream(void **state) {
    (void)state;
    rv_load_options o = with(RV_WEIGHTS_INT8, 1000, 0);
    rv_model *m = loaded(&o);
    assert_int_equal(memory_of(m).streamed, 0);
    rv_model_free(m);
}

/* ---- which rung ---- */

static uint64_t needed(rv_weight_format weights, uint64_t *session) {
    rv_error err;
    rv_memory plan = { .size = sizeof plan };
    rv_load_options o = with(weights, 0, UINT64_C(1) << 40);
    const rv_session_options one = { .size = sizeof one, .slots = 1 };
    if (rv_memory_plan(model_dir, &o, &one, &plan, &err)) fail_msg("%s", err.message);
    *session = plan.cache + plan.scratch;
    return plan.weights;
}

static void less_and_less_memory_goes_down_the_ladder(void **state) {
    (void)state;
    uint64_t session, whole = needed(RV_WEIGHTS_16BIT, &session), int8 = needed(RV_WEIGHTS_INT8, &session), nf4 = needed(RV_WEIGHTS_NF4, &session);
    /* The small model's tables and lm_head are most of it: but for the first two they stay where they are. */
    const struct { uint64_t limit; rv_embedding embedding; const char *keep; rv_weight_format weights; rv_steps some, none; } rungs[] = {
        { whole + session, RV_EMBEDDING_AUTO, NULL, RV_WEIGHTS_16BIT, 0, RV_STEP_TABLES | RV_STEP_HEAD | RV_STEP_INT8 | RV_STEP_STREAM },
        { whole + session - 1, RV_EMBEDDING_AUTO, NULL, RV_WEIGHTS_16BIT, RV_STEP_TABLES, RV_STEP_HEAD | RV_STEP_INT8 | RV_STEP_STREAM },
        { whole + session - 1, RV_EMBEDDING_DEVICE, NULL, RV_WEIGHTS_16BIT, RV_STEP_HEAD, RV_STEP_TABLES | RV_STEP_INT8 | RV_STEP_STREAM },
        { whole + session - 1, RV_EMBEDDING_DEVICE, "lm_head=16bit", RV_WEIGHTS_INT8, RV_STEP_INT8, RV_STEP_TABLES | RV_STEP_HEAD | RV_STEP_STREAM },
        { int8 + session, RV_EMBEDDING_DEVICE, "lm_head=16bit", RV_WEIGHTS_INT8, RV_STEP_INT8, RV_STEP_NF4 | RV_STEP_STREAM },
        { int8 + session - 1, RV_EMBEDDING_DEVICE, "lm_head=16bit", RV_WEIGHTS_NF4, RV_STEP_NF4, RV_STEP_INT8 | RV_STEP_STREAM },
        { nf4 + session - 1, RV_EMBEDDING_DEVICE, "lm_head=16bit", RV_WEIGHTS_NF4, RV_STEP_NF4 | RV_STEP_STREAM, RV_STEP_INT8 },
    };
    assert_true(nf4 < int8 && int8 < whole);
    for (size_t i = 0; i < sizeof rungs / sizeof *rungs; i++) {
        rv_load_options o = with(RV_WEIGHTS_AUTO, 0, rungs[i].limit);
        const rv_session_options one = { .size = sizeof one, .slots = 1 };
        rv_error err;
        rv_memory plan = { .size = sizeof plan };
        o.embedding = rungs[i].embedding;
        o.keep = rungs[i].keep;
        if (rv_memory_plan(model_dir, &o, &one, &plan, &err)) fail_msg("%s", err.message);
        assert_true(plan.fits);
        rv_model *m = loaded(&o);
        rv_memory is = memory_of(m);
        assert_int_equal(is.weights_format, rungs[i].weights);
        assert_int_equal(is.steps & rungs[i].some, rungs[i].some);
        assert_int_equal(is.steps & rungs[i].none, 0);
        assert_int_equal(is.steps, plan.steps);          /* the plan says what loading does         */
        assert_int_equal(is.weights, plan.weights);
        assert_int_equal(strstr(log_text, "memory: reduced, so that it fits") != NULL, is.steps != 0);
        rv_session *s = opened(m, &one);
        answer(s, true);
        rv_session_free(s);
        rv_model_free(m);
    }
}

/* A load takes twenty times as long under a sanitizer. */
#if defined __SANITIZE_ADDRESS__ || defined __SANITIZE_THREAD__
enum { LIMITS = 6 };
#else
enum { LIMITS = 24 };
#endif

/* A long context gives up more of the weights, a short one less: the plan and the model are of one mind, and what is said to fit opens. */
static void choose_alike(void) {
    uint64_t session;
    const uint64_t whole = needed(RV_WEIGHTS_16BIT, &session), step = (whole + 4 * session) / LIMITS;
    const struct { uint32_t context, slots, images; } asked[] = { { 0, 0, 0 }, { 64, 1, 1 }, { 1024, 1, 0 }, { 1024, 4, 8 }, { 1024, 0, 3 } };
    int fit = 0, unlike = 0;
    for (uint64_t limit = step; limit <= LIMITS * step; limit += step) {
        rv_weight_format formats[5];
        for (size_t i = 0; i < sizeof asked / sizeof *asked; i++) {
            const rv_session_options so = { .size = sizeof so, .context = asked[i].context, .slots = asked[i].slots, .images = asked[i].images };
            rv_load_options o = with(RV_WEIGHTS_AUTO, 0, limit);
            rv_memory plan = { .size = sizeof plan };
            rv_error err;
            rv_model *m;
            rv_session *s = NULL;
            o.context = so.context, o.slots = so.slots, o.images = so.images;
            if (rv_memory_plan(model_dir, &o, &so, &plan, &err)) fail_msg("%s", err.message);
            formats[i] = plan.weights_format;
            if (rv_model_load(model_dir, &o, &m, &err)) {
                assert_false(plan.fits);
                continue;
            }
            assert_int_equal(memory_of(m).weights_format, plan.weights_format);
            assert_int_equal(memory_of(m).steps, plan.steps & ~(rv_steps)RV_STEP_SLOTS);
            assert_int_equal(memory_of(m).weights, plan.weights);
            assert_int_equal(rv_session_new(m, &so, &s, &err) == RV_OK, plan.fits);
            fit += plan.fits;
            rv_session_free(s);
            rv_model_free(m);
        }
        unlike += formats[1] != formats[3];
    }
    print_message("%d fit; %d limits at which a long context and many slots take smaller weights\n", fit, unlike);
    assert_true(fit > LIMITS && (unlike > 0 || LIMITS < 24));
}

static void plan_and_model_choose_alike_for_every_session(void **state) {
    (void)state;
    choose_alike();
    played.on = false;                                   /* and on the CPU, where size alone decides */
    choose_alike();
    played.on = true;
}

static void a_session_that_cannot_be_is_refused_before_loading(void **state) {
    (void)state;
    rv_error err;
    rv_model *m;
    rv_load_options o = with(RV_WEIGHTS_AUTO, 0, 0);
    o.context = 1 << 20;
    assert_int_equal(rv_model_load(model_dir, &o, &m, &err), RV_ERR_ARGUMENT);
    assert_non_null(strstr(err.message, "rv_load_options.context: must be at most"));
}

static void what_was_asked_for_by_name_stays_unless_it_may_be_reduced(void **state) {
    (void)state;
    uint64_t session, int8 = needed(RV_WEIGHTS_INT8, &session);
    rv_load_options o = with(RV_WEIGHTS_INT8, 0, int8 + session - 1);
    o.embedding = RV_EMBEDDING_DEVICE;
    rv_model *m = loaded(&o);
    assert_int_equal(memory_of(m).weights_format, RV_WEIGHTS_INT8);
    assert_int_equal(memory_of(m).steps, RV_STEP_STREAM);
    rv_model_free(m);
    o.on_oom = RV_OOM_DEGRADE;
    m = loaded(&o);
    assert_int_equal(memory_of(m).steps, RV_STEP_TABLES);
    rv_model_free(m);
    o.on_oom = RV_OOM_FAIL;
    o.memory_limit = int8 - 1;
    rv_error err;
    assert_int_equal(rv_model_load(model_dir, &o, &m, &err), RV_ERR_DEVICE_MEMORY);
    assert_non_null(strstr(err.message, "the weights take"));
}

static void slots_are_as_many_as_fit(void **state) {
    (void)state;
    uint64_t session, whole = needed(RV_WEIGHTS_16BIT, &session);
    rv_error err;
    for (int factor = 1; factor < 8; factor += 3) {
        rv_load_options o = with(RV_WEIGHTS_16BIT, 0, whole + (uint64_t)factor * session + session / 2);
        const rv_session_options open = { .size = sizeof open };
        rv_memory plan = { .size = sizeof plan }, is = { .size = sizeof is };
        if (rv_memory_plan(model_dir, &o, &open, &plan, &err)) fail_msg("%s", err.message);
        rv_model *m = loaded(&o);
        rv_session *s = opened(m, &open);
        assert_int_equal(rv_session_memory(s, &is, &err), RV_OK);
        assert_int_equal(is.slots, plan.slots);
        assert_int_equal(is.total + memory_of(m).total, plan.total);
        assert_true(plan.slots >= (uint32_t)factor && plan.fits);
        if (plan.slots < 64) {                           /* one more does not fit                   */
            const rv_session_options more = { .size = sizeof more, .slots = plan.slots + 1 };
            assert_int_equal(rv_memory_plan(model_dir, &o, &more, &plan, &err), RV_OK);
            assert_true(!plan.fits || plan.steps);
        }
        answer(s, false);
        rv_session_free(s);
        rv_model_free(m);
    }
}

static void asked_for_slots_become_fewer_only_where_that_is_allowed(void **state) {
    (void)state;
    uint64_t session, whole = needed(RV_WEIGHTS_16BIT, &session);
    rv_error err;
    const rv_session_options many = { .size = sizeof many, .slots = 64 };
    const rv_session_options eight = { .size = sizeof eight, .slots = 8 };
    rv_memory plan = { .size = sizeof plan };
    rv_load_options o = with(RV_WEIGHTS_16BIT, 0, UINT64_C(1) << 40);
    assert_int_equal(rv_memory_plan(model_dir, &o, &eight, &plan, &err), RV_OK);
    o.memory_limit = whole + plan.total - plan.weights;
    rv_session *s;
    rv_model *m = loaded(&o);
    assert_int_equal(rv_session_new(m, &many, &s, &err), RV_ERR_DEVICE_MEMORY);
    assert_non_null(strstr(err.message, "ask for fewer slots"));
    rv_model_free(m);
    o.on_oom = RV_OOM_DEGRADE;
    m = loaded(&o);
    s = opened(m, &many);
    rv_memory is = { .size = sizeof is };
    assert_int_equal(rv_session_memory(s, &is, &err), RV_OK);
    assert_in_range(is.slots, 1, 63);
    assert_int_equal(is.slots, 8);
    assert_int_equal(is.steps & RV_STEP_SLOTS, RV_STEP_SLOTS);
    assert_non_null(strstr(log_text, "fewer slots"));
    answer(s, true);
    rv_session_free(s);
    rv_model_free(m);
}

static void every_rung_has_a_cache_file_of_its_own(void **state) {
    (void)state;
    char dir[1024];
    uint64_t session;
    const uint64_t int8 = needed(RV_WEIGHTS_INT8, &session);
    rv_steps seen[16];
    int n = 0, heads = 0;
    folder_new(dir, "cache");
    for (int i = 0; i < 60; i++) {
        rv_error err;
        rv_model *m;
        rv_load_options o = with(RV_WEIGHTS_INT8, 0, (int8 + session) / 60 * (uint64_t)(60 - i) + session / 60);
        o.on_oom = RV_OOM_DEGRADE, o.cache_dir = dir;
        log_text[0] = '\0';
        if (rv_model_load(model_dir, &o, &m, &err)) break;
        const rv_steps steps = memory_of(m).steps & ~(rv_steps)RV_STEP_SLOTS;
        rv_model_free(m);
        if (strstr(log_text, "weights cache")) fail_msg("%s", log_text);
        int k = 0;
        while (k < n && seen[k] != steps) k++;
        if (k < n || steps & RV_STEP_STREAM) continue;
        assert_true(n < 16);
        seen[n++] = steps;
        heads += (steps & RV_STEP_HEAD) != 0;
        assert_int_equal(folder_count(dir, NULL), n);
    }
    print_message("%d rungs, %d of them with lm_head in int8\n", n, heads);
    assert_true(heads > 0 && n > heads);
    folder_new(dir, "cache");
    rmdir(dir);
}

static void a_gpu_without_kernels_leaves_the_model_to_the_cpu(void **state) {
    (void)state;
    rv_error err;
    rv_memory plan = { .size = sizeof plan };
    rv_load_options o = with(RV_WEIGHTS_AUTO, 0, 0);
    o.backend = RV_BACKEND_AUTO;
    old_gpu = true, played.on = false;
    log_text[0] = '\0';
    if (rv_memory_plan(model_dir, &o, NULL, &plan, &err)) fail_msg("%s", err.message);
    assert_int_equal(plan.backend, RV_BACKEND_CPU);
    assert_non_null(strstr(log_text, "the model runs on the CPU: GPU 0 (Tesla P100): it has no tensor cores"));
    rv_model *m = loaded(&o);
    assert_int_equal(memory_of(m).backend, RV_BACKEND_CPU);
    assert_non_null(strstr(log_text, "the model runs on the CPU"));
    rv_model_free(m);
    old_gpu = false, played.on = true;
}

/* ---- refusals ---- */

/* Each allocation of loading and of a session in its turn: something smaller is taken, or an error says what to do. */
static void refuse_each(rv_weight_format weights, int32_t gpu_layers, rv_on_oom on_oom, int *degraded, int *errors) {
    *degraded = *errors = 0;
    for (long n = 1;; n++) {
        rv_error err;
        rv_model *m = NULL;
        rv_session *s = NULL;
        rv_load_options o = with(weights, gpu_layers, 0);
        const rv_session_options open = { .size = sizeof open, .slots = on_oom == RV_OOM_FAIL ? 2 : 0, .context = 128 };
        o.on_oom = on_oom;
        log_text[0] = '\0';
        played.fail_at = n;
        rv_status st = rv_model_load(model_dir, &o, &m, &err);
        if (st == RV_OK) st = rv_session_new(m, &open, &s, &err);
        bool was_refused = played.fail_at == 0;
        played.fail_at = 0;
        if (!was_refused && st) fail_msg("%s", err.message);
        if (was_refused && st) {
            assert_int_equal(st, RV_ERR_DEVICE_MEMORY);
            assert_non_null(strstr(err.message, "out of memory"));
            ++*errors;
        } else if (was_refused) {
            assert_true(strlen(log_text) > 0);           /* nothing is reduced in silence           */
            ++*degraded;
        }
        if (s) answer(s, true);
        rv_session_free(s);
        rv_model_free(m);
        assert_int_equal(played.held, 0);
        if (!was_refused) break;
    }
}

static void a_refusal_takes_the_next_rung(void **state) {
    (void)state;
    int degraded, errors;
    refuse_each(RV_WEIGHTS_AUTO, 0, RV_OOM_AUTO, &degraded, &errors);
    print_message("left open: %d refusals answered with less, %d with an error\n", degraded, errors);
    assert_true(degraded >= 2);
    refuse_each(RV_WEIGHTS_INT8, 1, RV_OOM_AUTO, &degraded, &errors);
    print_message("int8, streaming: %d with less, %d with an error\n", degraded, errors);
    assert_true(degraded + errors >= 4);
}

static void a_refusal_is_an_error_where_nothing_may_be_reduced(void **state) {
    (void)state;
    int degraded, errors;
    refuse_each(RV_WEIGHTS_INT8, 0, RV_OOM_FAIL, &degraded, &errors);
    assert_int_equal(degraded, 0);
    assert_true(errors >= 3);
}

/* ---- */

static int set_up(void **state) {
    (void)state;
    rv_error err;
    rv_synth_options o = { .size = sizeof o, .shape = "tiny" };
    if (rv_synthesise(folder_new(model_dir, "model"), &o, NULL, &err)) fail_msg("%s", err.message);
    played.on = true;
    return 0;
}

static int tear_down(void **state) {
    (void)state;
    folder_new(model_dir, "model");
    return rmdir(model_dir);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(streamed_layers_leave_every_bit_as_it_is),
        cmocka_unit_test(as_many_layers_as_there_are_leave_none_to_stream),
        cmocka_unit_test(less_and_less_memory_goes_down_the_ladder),
        cmocka_unit_test(plan_and_model_choose_alike_for_every_session),
        cmocka_unit_test(a_session_that_cannot_be_is_refused_before_loading),
        cmocka_unit_test(what_was_asked_for_by_name_stays_unless_it_may_be_reduced),
        cmocka_unit_test(every_rung_has_a_cache_file_of_its_own),
        cmocka_unit_test(a_gpu_without_kernels_leaves_the_model_to_the_cpu),
        cmocka_unit_test(slots_are_as_many_as_fit),
        cmocka_unit_test(asked_for_slots_become_fewer_only_where_that_is_allowed),
        cmocka_unit_test(a_refusal_takes_the_next_rung),
        cmocka_unit_test(a_refusal_is_an_error_where_nothing_may_be_reduced),
    };
    return cmocka_run_group_tests(tests, set_up, tear_down);
}
