/* test_failures_gpu.c - memory that is not there and a GPU that fails: errors with advice, and who is not concerned goes on.
 *
 * The one idea: the linker puts this file between the library and the runtime's allocating calls (--wrap), so that they can be
 * counted and refused; what cuBLASLt and the driver take on their own shows in the device's free memory.
 */
#include <pthread.h>
#include <regex.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <cmocka.h>

#include "engine/model.h"
#include "engine/rvprofile.h"
#include "kernels/cuda/open.h"
#include "tests/engine/demo.h"
#include "tests/gpu/fault.h"

/* ---- between library and runtime ---- */

static struct { bool refuse; long calls, fail_at; } driver;       /* fail_at: that call from now on, alone; 0: none */

static bool is_refused(void) {
    driver.calls++;
    return driver.refuse || (driver.fail_at > 0 && --driver.fail_at == 0);
}

#define WRAP(name, parameters, arguments)                                                        \
    cudaError_t __real_##name parameters;                                                        \
    cudaError_t __wrap_##name parameters;                                                        \
    cudaError_t __wrap_##name parameters { return is_refused() ? cudaErrorMemoryAllocation : __real_##name arguments; }
WRAP(cudaMalloc, (void **p, size_t n), (p, n))
WRAP(cudaMallocAsync, (void **p, size_t n, cudaStream_t s), (p, n, s))
WRAP(cudaMallocFromPoolAsync, (void **p, size_t n, cudaMemPool_t pool, cudaStream_t s), (p, n, pool, s))
WRAP(cudaMallocPitch, (void **p, size_t *pitch, size_t w, size_t h), (p, pitch, w, h))
WRAP(cudaMallocManaged, (void **p, size_t n, unsigned flags), (p, n, flags))
WRAP(cudaMallocHost, (void **p, size_t n), (p, n))
WRAP(cudaHostAlloc, (void **p, size_t n, unsigned flags), (p, n, flags))
WRAP(cudaHostRegister, (void *p, size_t n, unsigned flags), (p, n, flags))
WRAP(cudaEventCreate, (cudaEvent_t *e), (e))
WRAP(cudaEventCreateWithFlags, (cudaEvent_t *e, unsigned flags), (e, flags))
WRAP(cudaStreamCreate, (cudaStream_t *s), (s))
WRAP(cudaStreamCreateWithFlags, (cudaStream_t *s, unsigned flags), (s, flags))
WRAP(cudaStreamCreateWithPriority, (cudaStream_t *s, unsigned flags, int priority), (s, flags, priority))
WRAP(cudaGraphInstantiateWithFlags, (cudaGraphExec_t *e, cudaGraph_t g, unsigned long long flags), (e, g, flags))

static uint64_t free_memory(void) {
    size_t unused = 0, total = 0;
    assert_int_equal(cudaMemGetInfo(&unused, &total), cudaSuccess);
    return unused;
}

/* Takes device memory until about `left` bytes are free. */
static void *take_all_but(uint64_t left) {
    void *hog = NULL;
    uint64_t unused = free_memory();
    assert_true(unused > left);
    assert_int_equal(__real_cudaMalloc(&hog, unused - left), cudaSuccess);
    return hog;
}

/* ---- the demo model ---- */

static demo_receipt receipts[DEMO_RECEIPTS];
static const uint64_t no_limit = UINT64_C(1) << 40;

/* With nothing that may be reduced; with_less: as users have it. */
static rv_on_oom on_oom = RV_OOM_FAIL;

static rv_status load(rv_backend_id backend, uint64_t limit, rv_model **out, rv_error *err) {
    rv_load_options o = { .size = sizeof o, .backend = backend, .memory_limit = limit, .on_oom = on_oom };
    *out = NULL;
    *err = (rv_error){ 0 };
    return rv_model_load(RV_TEST_DEMO "/model", &o, out, err);
}

static rv_model *loaded(rv_backend_id backend, uint64_t limit) {
    rv_error err;
    rv_model *m;
    if (load(backend, limit, &m, &err)) fail_msg("%s", err.message);
    return m;
}

static const rv_session_options small = { .size = sizeof small, .slots = 2, .context = 512, .queue = 16 },
                                large = { .size = sizeof large, .slots = 64, .context = 512, .queue = 16 };

static rv_session *opened(rv_model *m, const rv_session_options *o) {
    rv_error err;
    rv_session *s;
    if (rv_session_new(m, o, &s, &err)) fail_msg("%s", err.message);
    return s;
}

static rv_job *submitted(rv_session *s, int i, float temperature) {
    rv_error err;
    rv_job *job;
    const demo_receipt *r = &receipts[i % DEMO_RECEIPTS];
    rv_image image = { .size = sizeof image, .data = r->file, .bytes = r->bytes };
    rv_request q = { .size = sizeof q, .images = &image, .n_images = 1, .prompt = r->prompt, .temperature = temperature, .seed = (uint64_t)i };
    if (rv_submit(s, &q, &job, &err)) fail_msg("%s", err.message);
    return job;
}

static void finish_all(rv_session *s) {
    rv_error err;
    for (uint32_t active = 1; active;)
        if (rv_step(s, &active, &err)) fail_msg("%s", err.message);
}

static void assert_read(const rv_job *job, int i) {
    rv_error err;
    if (rv_job_get_error(job, &err)) fail_msg("%s", err.message);
    assert_string_equal(rv_job_text(job, NULL), receipts[i % DEMO_RECEIPTS].answer);
}

static void reads_a_receipt(rv_session *s, int i) {
    rv_job *job = submitted(s, i, 0);
    finish_all(s);
    assert_read(job, i);
    rv_job_free(job);
}

static void assert_says(const rv_error *err, rv_status code, const char *regex) {
    regex_t r;
    assert_int_equal(regcomp(&r, regex, REG_EXTENDED | REG_NOSUB), 0);
    if (err->code != code || regexec(&r, err->message, 0, NULL, 0)) fail_msg("%s: %s (wanted: %s)", rv_status_name(err->code), err->message, regex);
    regfree(&r);
}

/* Whatever the driver keeps once it has been used is there after this. */
static int set_up(void **state) {
    (void)state;
    demo_read(receipts);
    rv_model *m = loaded(RV_BACKEND_CUDA, 0);
    rv_session *s = opened(m, &small);
    uint64_t before = free_memory();
    reads_a_receipt(s, 0);
    print_message("the first request of a process: the driver took %.1f MB to load kernels\n", (double)(before - free_memory()) / 1e6);
    rv_session_free(s);
    rv_model_free(m);
    return 0;
}

static int tear_down(void **state) {
    (void)state;
    demo_free(receipts);
    return 0;
}

static int nothing_is_refused(void **state) {
    (void)state;
    driver.refuse = false;
    driver.fail_at = 0;
    return 0;
}

/* ---- memory ---- */

static void a_thousand_requests_pass_when_every_later_allocation_is_refused(void **state) {
    (void)state;
    enum { REQUESTS = 1000, AT_ONCE = 16 };
    const rv_session_options o = { .size = sizeof o, .slots = 8, .context = 512, .queue = AT_ONCE };
    rv_job *jobs[AT_ONCE];
    rv_model *m = loaded(RV_BACKEND_CUDA, 0);
    rv_session *s = opened(m, &o);
    uint64_t before = free_memory(), first = 0;
    driver.calls = 0;
    driver.refuse = true;
    for (int done = 0; done < REQUESTS; done += AT_ONCE) {
        for (int i = 0; i < AT_ONCE; i++) jobs[i] = submitted(s, done + i, i % 8 == 7 ? 1.f : 0.f);
        finish_all(s);
        for (int i = 0; i < AT_ONCE; i++) {
            if (i % 8 != 7) assert_read(jobs[i], done + i);
            rv_job_free(jobs[i]);
        }
        if (done == 0) first = free_memory();
    }
    driver.refuse = false;
    print_message("free device memory: %.1f MB with the session, %.1f after its first jobs, %.1f after %d\n", (double)before / 1e6,
                  (double)first / 1e6, (double)free_memory() / 1e6, REQUESTS);
    assert_int_equal(driver.calls, 0);
    assert_int_equal(free_memory(), before);
    rv_session_free(s);
    rv_model_free(m);
}

static void each_allocation_that_fails_is_an_error_and_leaks_nothing(void **state) {
    (void)state;
    uint64_t before = free_memory();
    int failures = 0, done_without = 0;
    for (long n = 1;; n++) {
        rv_model *m;
        rv_session *s = NULL;
        rv_error err;
        driver.fail_at = n;
        rv_status st = load(RV_BACKEND_CUDA, 0, &m, &err);
        if (!st) st = rv_session_new(m, &small, &s, &err);
        bool refused = driver.fail_at == 0;
        driver.fail_at = 0;
        if (refused && !st) {                             /* the pass in advance (engine/warm.c) is left out */
            done_without++;
            reads_a_receipt(s, 1);
        } else if (refused) {
            failures++;
            assert_true(st == RV_ERR_DEVICE_MEMORY || st == RV_ERR_MEMORY);
            assert_says(&err, st, "out of (device )?memory|pinned memory");
        } else if (st) fail_msg("%s", err.message);
        if (refused && m && !s) {                         /* the model is none the worse for it  */
            s = opened(m, &small);
            reads_a_receipt(s, 1);
        }
        rv_session_free(s);
        rv_model_free(m);
        if (free_memory() != before) fail_msg("allocation %ld: %.2f MB were not given back", n, (double)(int64_t)(before - free_memory()) / 1e6);
        if (!refused) break;
    }
    print_message("%d allocations refused, one at a time\n", failures);
    assert_true(failures >= 10);
    assert_true(done_without <= 1);
}

/* What may be reduced is: each refusal is answered by something smaller, on the CPU at last, or by an error. */
static void each_allocation_that_fails_is_answered_with_less(void **state) {
    (void)state;
    uint64_t before = free_memory();
    int reduced = 0, refused = 0;
    for (long n = 1;; n++) {
        rv_model *m;
        rv_session *s = NULL;
        rv_error err;
        on_oom = RV_OOM_AUTO;
        driver.fail_at = n;
        rv_status st = load(RV_BACKEND_AUTO, 0, &m, &err);
        const rv_session_options open = { .size = sizeof open, .context = 512, .queue = 16 };
        if (!st) st = rv_session_new(m, &open, &s, &err);
        bool was_refused = driver.fail_at == 0;
        driver.fail_at = 0;
        on_oom = RV_OOM_FAIL;
        if (st && !was_refused) fail_msg("%s", err.message);
        if (st) assert_true(st == RV_ERR_DEVICE_MEMORY || st == RV_ERR_MEMORY);
        if (was_refused) st ? refused++ : reduced++;
        if (s && n % 4 == 1) {                           /* and it works: some text comes            */
            rv_job *job = submitted(s, 1, 0);
            finish_all(s);
            assert_int_equal(rv_job_get_error(job, &err), RV_OK);
            rv_job_free(job);
        }
        rv_session_free(s);
        rv_model_free(m);
        if (free_memory() != before) fail_msg("allocation %ld: %.2f MB were not given back", n, (double)(int64_t)(before - free_memory()) / 1e6);
        if (!was_refused) break;
    }
    print_message("%d refusals answered with less, %d with an error\n", reduced, refused);
    assert_true(reduced >= 10);
}

static void a_model_that_does_not_fit_is_refused_with_numbers(void **state) {
    (void)state;
    rv_model *m;
    rv_error err;
    uint64_t before = free_memory();
    void *hog = take_all_but(UINT64_C(24) << 20);
    assert_int_equal(load(RV_BACKEND_CUDA, 0, &m, &err), RV_ERR_DEVICE_MEMORY);
    assert_says(&err, RV_ERR_DEVICE_MEMORY, "out of memory: .* wants [0-9.]+ MB, [0-9.]+ of [0-9.]+ MB are free: ask for less .*or free the GPU");
    cudaFree(hog);
    uint64_t opened_takes = RV_CUDA_WORKSPACE_BYTES + RV_CUDA_PARTIAL_BYTES + RV_CUDA_MARKS_BYTES + RV_CUDA_SUMS_BYTES;
    hog = take_all_but(opened_takes + (UINT64_C(20) << 20));
    assert_int_equal(load(RV_BACKEND_CUDA, 0, &m, &err), RV_ERR_DEVICE_MEMORY);
    assert_says(&err, RV_ERR_DEVICE_MEMORY, "the weights take [23][0-9]\\.[0-9] MB and the device has [0-3]?[0-9](\\.[0-9]+)? MB");
    assert_int_equal(load(RV_BACKEND_CUDA, no_limit, &m, &err), RV_ERR_DEVICE_MEMORY);
    assert_says(&err, RV_ERR_DEVICE_MEMORY, "wants 3[0-9.]+ MB, [0-9.]+ of [0-9.]+ MB are free");
    cudaFree(hog);
    assert_true(free_memory() >= before);                 /* pressed, the driver gives up some of its own */
    rv_session *s = opened(m = loaded(RV_BACKEND_CUDA, 0), &small);
    reads_a_receipt(s, 2);
    rv_session_free(s);
    rv_model_free(m);
}

static void a_session_that_does_not_fit_is_refused_and_the_others_go_on(void **state) {
    (void)state;
    rv_error err;
    rv_memory plan = { .size = sizeof plan };
    rv_model *m = loaded(RV_BACKEND_CUDA, no_limit);
    rv_session *s = opened(m, &small), *other = NULL;
    rv_job *job = submitted(s, 3, 0);
    assert_int_equal(rv_step(s, NULL, &err), RV_OK);
    uint64_t before = free_memory(), left = UINT64_C(24) << 20;
    void *hog = take_all_but(left);
    assert_int_equal(rv_memory_plan(RV_TEST_DEMO "/model", NULL, &large, &plan, &err), RV_OK);     /* which takes nothing */
    assert_false(plan.fits);
    assert_int_equal(rv_session_new(m, &large, &other, &err), RV_ERR_DEVICE_MEMORY);
    assert_says(&err, RV_ERR_DEVICE_MEMORY, "wants [0-9.]+ MB, [0-9.]+ of [0-9.]+ MB are free: ask for less \\(fewer slots");
    assert_null(other);
    finish_all(s);
    assert_read(job, 3);
    rv_job_free(job);
    cudaFree(hog);
    assert_true(free_memory() >= before);                 /* pressed, the driver gives up some of its own */
    other = opened(m, &large);
    reads_a_receipt(other, 4);
    rv_session_free(other);
    rv_session_free(s);
    rv_model_free(m);
}

/* ---- the other kernels ---- */

static void plain_attention_reads_the_same(void **state) {
    (void)state;
    rv_error err;
    rv_model *m;
    rv_load_options o = { .size = sizeof o, .backend = RV_BACKEND_CUDA, .attention = RV_ATTENTION_PLAIN };
    if (rv_model_load(RV_TEST_DEMO "/model", &o, &m, &err)) fail_msg("%s", err.message);
    assert_true(((rv_cuda *)m->be)->plain_attention);
    rv_session *s = opened(m, &small);
    for (int i = 0; i < DEMO_RECEIPTS; i++) reads_a_receipt(s, i);
    rv_session_free(s);
    rv_model_free(m);
}

/* ---- the device is lost ---- */

static void *wait_for(void *job) { return (void *)(intptr_t)rv_job_wait(job, 30000); }

static void assert_lost(rv_job *job) {
    rv_error err;
    assert_int_equal(rv_job_get_state(job), RV_JOB_FAILED);
    rv_job_get_error(job, &err);
    assert_says(&err, RV_ERR_DEVICE, "illegal memory access .*cudaErrorIllegalAddress.*restart the process");
    rv_job_free(job);
}

static void an_illegal_address_ends_every_job_and_the_process_lives(void **state) {
    (void)state;
    enum { JOBS = 5 };
    rv_error err = { 0 };
    rv_job *jobs[JOBS];
    pthread_t waiter;
    void *ended;
    uint32_t active;
    rv_model *m = loaded(RV_BACKEND_CUDA, 0), *again;
    rv_session *a = opened(m, &small), *b = opened(m, &small), *c = NULL;
    for (int i = 0; i < JOBS; i++) jobs[i] = submitted(a, i, 0);
    rv_job *elsewhere = submitted(b, 0, 0);
    assert_int_equal(pthread_create(&waiter, NULL, wait_for, jobs[JOBS - 1]), 0);
    for (int i = 0; i < 12; i++) assert_int_equal(rv_step(a, NULL, &err), RV_OK);
    assert_int_equal(rv_step(b, NULL, &err), RV_OK);
    assert_int_equal(rv_job_get_state(jobs[0]), RV_JOB_RUNNING);
    assert_int_equal(rv_job_get_state(jobs[JOBS - 1]), RV_JOB_QUEUED);

    assert_int_equal(fault_launch(((rv_cuda *)m->be)->stream), cudaSuccess);
    /* A step that had run before gives its tokens first. */
    for (int i = 0; i < 2 && rv_step(a, &active, &err) == RV_OK; i++) {}
    assert_int_equal(err.code, RV_ERR_DEVICE);
    assert_int_equal(active, 0);
    pthread_join(waiter, &ended);
    assert_int_equal((intptr_t)ended, 1);
    for (int i = 0; i < JOBS; i++) assert_lost(jobs[i]);
    assert_int_equal(rv_step(b, NULL, &err), RV_ERR_DEVICE);
    assert_lost(elsewhere);
    rv_job *late = submitted(a, 0, 0);
    assert_int_equal(rv_step(a, NULL, &err), RV_ERR_DEVICE);
    assert_lost(late);
    assert_int_equal(rv_session_new(m, &small, &c, &err), RV_ERR_DEVICE);
    assert_says(&err, RV_ERR_DEVICE, "restart the process");
    assert_int_equal(load(RV_BACKEND_CUDA, 0, &again, &err), RV_ERR_DEVICE);
    assert_says(&err, RV_ERR_DEVICE, "restart the process");
    rv_session_free(a);
    rv_session_free(b);
    rv_model_free(m);

    rv_session *on_cpu = opened(m = loaded(RV_BACKEND_CPU, 0), &small);
    reads_a_receipt(on_cpu, 5);
    rv_session_free(on_cpu);
    rv_model_free(m);
}

#define TEST(f) cmocka_unit_test_setup(f, nothing_is_refused)

int main(void) {
    const struct CMUnitTest tests[] = {
        TEST(a_thousand_requests_pass_when_every_later_allocation_is_refused),
        TEST(each_allocation_that_fails_is_an_error_and_leaks_nothing),
        TEST(each_allocation_that_fails_is_answered_with_less),
        TEST(a_model_that_does_not_fit_is_refused_with_numbers),
        TEST(a_session_that_does_not_fit_is_refused_and_the_others_go_on),
        TEST(plain_attention_reads_the_same),
        TEST(an_illegal_address_ends_every_job_and_the_process_lives),      /* last: no GPU after it */
    };
    if (rv_device_count(RV_BACKEND_CUDA) == 0) return puts("skipped: no GPU"), 77;
    return cmocka_run_group_tests(tests, set_up, tear_down);
}
