/* test_gpus.c - every kind of GPU opens and runs every kind of model, several GPUs serve one process, and an error stays where it belongs.
 *
 * The one idea: no GPU is needed for what the host does: see fake.h.  What kernels compute is tested in tests/gpu.
 */
#include <pthread.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>
#include <cmocka.h>
#include <cuda_runtime_api.h>

#include "engine/model.h"
#include "kernels/cuda/open.h"
#include "tests/engine/demo.h"
#include "tests/fake_gpu/fake.h"

enum { TOKENS = 12 };
#define GIGABYTE (UINT64_C(1) << 30)

static demo_receipt receipts[DEMO_RECEIPTS];
static const fake_gpu h100 = { 90, 4 * GIGABYTE };

static rv_model *loaded(const rv_load_options *o, const char *what) {
    rv_error err;
    rv_model *m;
    if (rv_model_load(RV_TEST_DEMO "/model", o, &m, &err)) fail_msg("%s: %s", what, err.message);
    return m;
}

static rv_session *opened(rv_model *m, uint32_t slots, const char *what) {
    const rv_session_options o = { .size = sizeof o, .slots = slots, .context = 512, .queue = 16 };
    rv_error err;
    rv_session *s;
    if (rv_session_new(m, &o, &s, &err)) fail_msg("%s: %s", what, err.message);
    return s;
}

static rv_job *submitted(rv_session *s, int i) {
    const demo_receipt *r = &receipts[i % DEMO_RECEIPTS];
    rv_image image = { .size = sizeof image, .data = r->file, .bytes = r->bytes };
    rv_request q = { .size = sizeof q, .images = &image, .n_images = 1, .prompt = r->prompt, .max_tokens = TOKENS };
    rv_error err;
    rv_job *job;
    if (rv_submit(s, &q, &job, &err)) fail_msg("%s", err.message);
    return job;
}

/* `n` receipts side by side; all of them are answered. */
static void answers(rv_session *s, int n, const char *what) {
    rv_job *jobs[8];
    rv_error err;
    for (int i = 0; i < n; i++) jobs[i] = submitted(s, i);
    for (uint32_t active = 1; active;)
        if (rv_step(s, &active, &err)) fail_msg("%s: %s", what, err.message);
    for (int i = 0; i < n; i++) {
        rv_stats stats = { .size = sizeof stats };
        if (rv_job_get_error(jobs[i], &err)) fail_msg("%s: %s", what, err.message);
        assert_int_equal(rv_job_get_stats(jobs[i], &stats), RV_OK);
        assert_int_equal(stats.answer_tokens, TOKENS);
        rv_job_free(jobs[i]);
    }
}

static void assert_clean(const char *what) {
    char alive[128];
    if (fake_misuse()) fail_msg("%s: %s", what, fake_misuse());
    if (fake_alive(alive, sizeof alive)) fail_msg("%s: left behind: %s", what, alive);
}

/* ---- every kind ---- */

static const struct { rv_weight_format weights; rv_compute compute; const char *name; } formats[] = {
    { RV_WEIGHTS_16BIT, RV_COMPUTE_BF16, "16 bit, bf16" }, { RV_WEIGHTS_16BIT, RV_COMPUTE_F16, "16 bit, f16" },
    { RV_WEIGHTS_INT8, RV_COMPUTE_AUTO, "int8" },          { RV_WEIGHTS_NF4, RV_COMPUTE_AUTO, "NF4" },
};

static void opens_and_answers(int32_t capability, int32_t kernels) {
    const fake_gpu gpu = { capability, 4 * GIGABYTE };
    for (size_t i = 0; i < sizeof formats / sizeof *formats; i++) {
        char what[96];
        const bool f16_only = kernels == 70 || capability < 80;
        if (f16_only && formats[i].compute == RV_COMPUTE_BF16) continue;
        snprintf(what, sizeof what, "capability %d.%d, kernels %d, %s", capability / 10, capability % 10, kernels, formats[i].name);
        fake_gpus(&gpu, 1);
        const rv_load_options o = { .size = sizeof o, .backend = RV_BACKEND_CUDA, .weights = formats[i].weights, .compute = formats[i].compute, .kernels = kernels };
        const uint64_t before = fake_launches();
        rv_model *m = loaded(&o, what);
        rv_session *s = opened(m, 4, what);
        answers(s, 1, what);
        answers(s, 4, what);
        assert_true(fake_launches() > before + 100);
        rv_session_free(s);
        rv_model_free(m);
        assert_clean(what);
    }
}

static void every_gpu_from_8_0_on_runs_every_kind_of_model(void **state) {
    static const int32_t capabilities[] = { 80, 86, 87, 89, 90, 100, 103, 120 };
    (void)state;
    for (size_t i = 0; i < sizeof capabilities / sizeof *capabilities; i++) opens_and_answers(capabilities[i], 0);
}

static void older_kernels_run_on_newer_gpus(void **state) {
    (void)state;
    opens_and_answers(80, 70);
    opens_and_answers(90, 70);
    opens_and_answers(90, 80);
    opens_and_answers(120, 70);
}

static void volta_and_turing_run_what_is_compiled_for_them(void **state) {
    (void)state;
    if (rv_cuda_this_build.oldest > 70) {
        print_message("this build has no code for 7.0 and 7.5: CUDA 13 makes none, 11.8 and 12.x do (RV_CUDA_ARCHS)\n");
        skip();
    }
    opens_and_answers(70, 0);
    opens_and_answers(75, 0);
}

/* ---- several GPUs ---- */

static int current_gpu(void) {
    int gpu = -1;
    assert_int_equal(cudaGetDevice(&gpu), cudaSuccess);
    return gpu;
}

static void set_current(int gpu) { assert_int_equal(cudaSetDevice(gpu), cudaSuccess); }

typedef struct elsewhere { rv_session *s; const char *what; } elsewhere;

static void *step_elsewhere(void *user) {
    const elsewhere *e = user;
    answers(e->s, 2, e->what);
    return current_gpu() == 0 ? user : NULL;
}

/* On a thread that has chosen no GPU, and keeps none. */
static void answers_elsewhere(rv_session *s, const char *what) {
    elsewhere e = { s, what };
    pthread_t thread;
    void *kept;
    assert_int_equal(pthread_create(&thread, NULL, step_elsewhere, &e), 0);
    pthread_join(thread, &kept);
    assert_non_null(kept);
}

static void two_gpus_serve_one_process(void **state) {
    const fake_gpu two[] = { h100, { 80, 4 * GIGABYTE } };
    rv_model *m[2];
    rv_session *s[2];
    (void)state;
    fake_gpus(two, 2);
    for (int i = 0; i < 2; i++) {
        const rv_load_options o = { .size = sizeof o, .backend = RV_BACKEND_CUDA, .device = i, .memory_limit = GIGABYTE };
        m[i] = loaded(&o, "a GPU each");
        assert_int_equal(((rv_cuda *)m[i]->be)->device, i);
        s[i] = opened(m[i], 2, "a GPU each");
    }
    for (int i = 0; i < 4; i++) answers(s[i % 2], 2, "in turn");
    for (int i = 0; i < 2; i++) answers_elsewhere(s[i], "on another thread");
    for (int i = 0; i < 2; i++) rv_session_free(s[i]), rv_model_free(m[i]);
    assert_clean("two GPUs");
}

/* A service that uses CUDA itself keeps the GPU that it has chosen. */
static void the_callers_gpu_stays_current(void **state) {
    const fake_gpu two[] = { h100, h100 };
    (void)state;
    for (int callers = 0; callers < 2; callers++)
        for (int ours = 0; ours < 2; ours++) {
            fake_gpus(two, 2);
            set_current(callers);
            const rv_load_options o = { .size = sizeof o, .backend = RV_BACKEND_CUDA, .device = ours, .weights = RV_WEIGHTS_NF4 };
            rv_device info = { .size = sizeof info };
            rv_ceilings peak = { .size = sizeof peak };
            rv_memory memory = { .size = sizeof memory };
            rv_error err;
            rv_model *m = loaded(&o, "another GPU is current");
            assert_int_equal(current_gpu(), callers);
            rv_session *s = opened(m, 2, "another GPU is current");
            assert_int_equal(current_gpu(), callers);
            answers(s, 2, "another GPU is current");
            assert_int_equal(current_gpu(), callers);
            for (uint32_t i = 0; i < 2; i++) {
                assert_int_equal(rv_device_get(RV_BACKEND_CUDA, i, &info, &err), RV_OK);
                assert_int_equal(rv_memory_plan(RV_TEST_DEMO "/model", &o, NULL, &memory, &err), RV_OK);
                assert_int_equal(rv_model_memory(m, &memory, &err), RV_OK);
                assert_int_equal(current_gpu(), callers);
            }
            if (rv_measure_ceilings(&o, &peak, &err)) fail_msg("%s", err.message);
            assert_int_equal(current_gpu(), callers);
            rv_session_free(s);
            assert_int_equal(current_gpu(), callers);
            rv_model_free(m);
            assert_int_equal(current_gpu(), callers);
            assert_clean("another GPU is current");
        }
}

/* Some bindings and video decoders make contexts; what is the library's is in the GPU's primary one, also where there is one GPU. */
static void a_context_of_the_callers_own_is_left_alone(void **state) {
    (void)state;
    for (size_t i = 0; i < sizeof formats / sizeof *formats; i++) {
        fake_gpus(&h100, 1);
        fake_own_context(1);
        const rv_load_options o = { .size = sizeof o, .backend = RV_BACKEND_CUDA, .weights = formats[i].weights, .compute = formats[i].compute };
        rv_model *m = loaded(&o, "a context of the caller's own");
        rv_session *s = opened(m, 2, "a context of the caller's own");
        answers(s, 2, "a context of the caller's own");
        answers_elsewhere(s, "on a thread without one");
        rv_session_free(s);
        rv_model_free(m);
        fake_own_context(0);
        assert_clean("a context of the caller's own");
    }
}

/* The file of quantised weights is written by a thread that begins with GPU 0, and read by several. */
static void the_cache_is_of_the_gpu_that_was_chosen(void **state) {
    const fake_gpu two[] = { h100, h100 };
    char folder[] = RV_TEST_TMP "/cacheXXXXXX", line[1200];
    (void)state;
    assert_non_null(mkdtemp(folder));
    for (int again = 0; again < 2; again++) {
        fake_gpus(two, 2);
        const rv_load_options o = { .size = sizeof o, .backend = RV_BACKEND_CUDA, .device = 1, .weights = RV_WEIGHTS_INT8, .cache_dir = folder };
        rv_model *m = loaded(&o, "with a cache");
        rv_session *s = opened(m, 1, "with a cache");
        answers(s, 1, "with a cache");
        rv_session_free(s);
        rv_model_free(m);
        assert_clean("with a cache");
    }
    snprintf(line, sizeof line, "rm -r '%s'", folder);
    assert_int_equal(system(line), 0);
}

/* ---- memory that is refused ---- */

/* The calls that are refused: all that opening a GPU and its loader make, and then, where one product after the other asks for the same, some. */
static int64_t after(int64_t nth) { return nth < 60 ? nth + 1 : nth + 31; }

/* Loads and opens with call `nth` refused; returns whether that call came. */
static bool refused_at(int64_t nth, rv_weight_format weights, rv_on_oom on_oom, rv_status *st, rv_steps *steps) {
    const rv_load_options o = { .size = sizeof o, .backend = RV_BACKEND_CUDA, .weights = weights, .on_oom = on_oom };
    const rv_session_options room = { .size = sizeof room, .slots = on_oom == RV_OOM_FAIL ? 2 : 0, .context = 512, .queue = 16 };
    rv_error err = { 0 };
    rv_model *m = NULL;
    rv_session *s = NULL;
    fake_gpus(&h100, 1);
    fake_refuse(nth);
    *st = rv_model_load(RV_TEST_DEMO "/model", &o, &m, &err);
    if (m) *steps = m->steps;
    if (!*st) *st = rv_session_new(m, &room, &s, &err);
    const bool came = fake_refused();
    fake_refuse(0);
    if (*st && *st != RV_ERR_DEVICE_MEMORY && *st != RV_ERR_MEMORY) fail_msg("call %lld refused: %s: %s", (long long)nth, rv_status_name(*st), err.message);
    if (*st && !strstr(err.message, "memory")) fail_msg("call %lld refused: %s", (long long)nth, err.message);
    if (s) answers(s, 1, "after a refusal");
    rv_session_free(s);
    rv_model_free(m);
    assert_clean("after a refusal");
    return came;
}

static void each_refusal_is_an_error_about_memory_and_leaves_nothing_behind(void **state) {
    static const rv_weight_format kinds[] = { RV_WEIGHTS_16BIT, RV_WEIGHTS_INT8, RV_WEIGHTS_NF4 };
    (void)state;
    for (size_t k = 0; k < sizeof kinds / sizeof *kinds; k++) {
        int failures = 0;
        rv_status st;
        rv_steps steps = 0;
        for (int64_t n = 1; refused_at(n, kinds[k], RV_OOM_FAIL, &st, &steps); n = after(n)) failures += st != RV_OK;
        print_message("format %d: %d refusals were errors\n", (int)kinds[k], failures);
        assert_true(failures >= 30);
    }
}

/* One step down for one refusal: an error that is not cleared away would cost another. */
static void each_refusal_costs_one_rung(void **state) {
    int reduced = 0;
    rv_status st;
    (void)state;
    for (int64_t n = 1;; n = after(n)) {
        rv_steps steps = 0;
        if (!refused_at(n, RV_WEIGHTS_AUTO, RV_OOM_AUTO, &st, &steps)) break;
        if (st) continue;                                /* opening the GPU itself               */
        if (steps & (steps - 1)) fail_msg("call %lld refused: steps %x", (long long)n, (unsigned)steps);
        reduced += steps != 0;
    }
    print_message("%d refusals while loading cost a step\n", reduced);
    assert_true(reduced >= 10);
}

/* From far too little to more than enough, in 16 bit at last: each amount gets an answer, or is too little by its code. */
static void any_amount_of_memory_is_answered_or_refused(void **state) {
    int refused = 0, reduced = 0, whole = 0;
    (void)state;
    for (uint64_t megabytes = 120; megabytes <= 460; megabytes += megabytes < 180 ? 2 : 40) {
        const fake_gpu gpu = { 90, megabytes << 20 };
        const rv_load_options o = { .size = sizeof o, .backend = RV_BACKEND_CUDA };
        const rv_session_options room = { .size = sizeof room, .context = 512, .queue = 16 };
        char what[64];
        rv_error err = { 0 };
        rv_model *m = NULL;
        rv_session *s = NULL;
        snprintf(what, sizeof what, "%llu MiB", (unsigned long long)megabytes);
        fake_gpus(&gpu, 1);
        rv_status st = rv_model_load(RV_TEST_DEMO "/model", &o, &m, &err);
        if (!st) st = rv_session_new(m, &room, &s, &err);
        if (!st) answers(s, 1, what);
        else if (st != RV_ERR_DEVICE_MEMORY) fail_msg("%s: %s", what, err.message);
        *(st ? &refused : m->steps ? &reduced : &whole) += 1;
        rv_session_free(s);
        rv_model_free(m);
        assert_clean(what);
    }
    print_message("%d refused, %d answered with less, %d in full\n", refused, reduced, whole);
    assert_true(refused && reduced && whole);
}

static int set_up(void **state) {
    (void)state;
    demo_read(receipts);
    return 0;
}

static int tear_down(void **state) {
    (void)state;
    demo_free(receipts);
    return 0;
}

/* What loading refuses or gives to the CPU, the plan does too. */
static void plan_and_load_take_the_same_kernels_and_backend(void **state) {
    static const struct { int32_t capability, kernels; rv_backend_id asked, is; rv_status st; const char *says; } all[] = {
        { 80, 90, RV_BACKEND_CUDA, 0, RV_ERR_UNSUPPORTED, "kernels sm90: they run on compute capability 9.0 alone" },
        { 60, 0, RV_BACKEND_CUDA, 0, RV_ERR_UNSUPPORTED, "has no tensor cores" },
        { 60, 0, RV_BACKEND_AUTO, RV_BACKEND_CPU, RV_OK, NULL },
        { 80, 0, RV_BACKEND_AUTO, RV_BACKEND_CUDA, RV_OK, NULL },
    };
    (void)state;
    for (size_t i = 0; i < sizeof all / sizeof *all; i++) {
        const fake_gpu gpu = { all[i].capability, 4 * GIGABYTE };
        const rv_load_options o = { .size = sizeof o, .backend = all[i].asked, .kernels = all[i].kernels };
        rv_memory plan = { .size = sizeof plan }, is = { .size = sizeof is };
        rv_model *m = NULL;
        rv_error err;
        fake_gpus(&gpu, 1);
        assert_int_equal(rv_memory_plan(RV_TEST_DEMO "/model", &o, NULL, &plan, &err), all[i].st);
        if (all[i].st && !strstr(err.message, all[i].says)) fail_msg("%s", err.message);
        assert_int_equal(rv_model_load(RV_TEST_DEMO "/model", &o, &m, &err), all[i].st);
        if (all[i].st && !strstr(err.message, all[i].says)) fail_msg("%s", err.message);
        if (m) {
            assert_int_equal(rv_model_memory(m, &is, &err), RV_OK);
            assert_int_equal(is.backend, all[i].is);
            assert_int_equal(plan.backend, all[i].is);
            rv_model_free(m);
        }
        assert_clean("plan and load");
    }
}

/* A limit that is more than the GPU has, and a long context. */
static void plan_and_load_choose_the_same_weights_on_a_gpu(void **state) {
    static const struct { uint64_t limit; uint32_t context, slots; } all[] = { { 100 * GIGABYTE, 0, 0 }, { 0, 2048, 1 }, { 150 << 20, 512, 1 }, { 150 << 20, 2048, 1 }, { 170 << 20, 2048, 1 } };
    (void)state;
    for (size_t i = 0; i < sizeof all / sizeof *all; i++) {
        const fake_gpu gpu = { 90, GIGABYTE };
        const rv_load_options o = { .size = sizeof o, .backend = RV_BACKEND_CUDA, .memory_limit = all[i].limit, .context = all[i].context, .slots = all[i].slots };
        const rv_session_options so = { .size = sizeof so, .context = all[i].context, .slots = all[i].slots };
        rv_memory plan = { .size = sizeof plan }, is = { .size = sizeof is };
        rv_session *s = NULL;
        rv_error err;
        fake_gpus(&gpu, 1);
        if (rv_memory_plan(RV_TEST_DEMO "/model", &o, &so, &plan, &err)) fail_msg("%s", err.message);
        assert_true(plan.available <= GIGABYTE);
        rv_model *m = loaded(&o, "as planned");
        assert_int_equal(rv_model_memory(m, &is, &err), RV_OK);
        assert_int_equal(is.weights, plan.weights);
        assert_int_equal(is.weights_format, plan.weights_format);
        assert_int_equal(rv_session_new(m, &so, &s, &err) == RV_OK, plan.fits);
        rv_session_free(s);
        rv_model_free(m);
        assert_clean("as planned");
    }
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(plan_and_load_take_the_same_kernels_and_backend),
        cmocka_unit_test(plan_and_load_choose_the_same_weights_on_a_gpu),
        cmocka_unit_test(every_gpu_from_8_0_on_runs_every_kind_of_model),
        cmocka_unit_test(older_kernels_run_on_newer_gpus),
        cmocka_unit_test(volta_and_turing_run_what_is_compiled_for_them),
        cmocka_unit_test(two_gpus_serve_one_process),
        cmocka_unit_test(the_callers_gpu_stays_current),
        cmocka_unit_test(a_context_of_the_callers_own_is_left_alone),
        cmocka_unit_test(the_cache_is_of_the_gpu_that_was_chosen),
        cmocka_unit_test(each_refusal_is_an_error_about_memory_and_leaves_nothing_behind),
        cmocka_unit_test(each_refusal_costs_one_rung),
        cmocka_unit_test(any_amount_of_memory_is_answered_or_refused),
    };
    return cmocka_run_group_tests(tests, set_up, tear_down);
}
