/* test_devices_gpu.c - a model on each of two GPUs in one process; skipped, visibly, where there are fewer.
 *
 * What host code does wrong with several GPUs shows without any (tests/fake_gpu); here the driver says whether a pushed context is what it takes.
 */
#include <pthread.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>
#include <cmocka.h>
#include <cuda_runtime_api.h>

#include "engine/rvengine.h"
#include "kernels/cuda/open.h"
#include "tests/engine/demo.h"

enum { GPUS = 2, JOBS = 6 };

static demo_receipt receipts[DEMO_RECEIPTS];
static const rv_weight_format formats[] = { RV_WEIGHTS_16BIT, RV_WEIGHTS_INT8, RV_WEIGHTS_NF4 };

static int current_gpu(void) {
    int gpu = -1;
    assert_int_equal(cudaGetDevice(&gpu), cudaSuccess);
    return gpu;
}

typedef struct place { rv_model *model; rv_session *session; char text[JOBS][1024]; } place;

/* JOBS receipts side by side, whose answers are kept. */
static void read_receipts(place *p) {
    rv_job *jobs[JOBS];
    rv_error err;
    for (int i = 0; i < JOBS; i++) {
        const demo_receipt *r = &receipts[i];
        rv_image image = { .size = sizeof image, .data = r->file, .bytes = r->bytes };
        rv_request q = { .size = sizeof q, .images = &image, .n_images = 1, .prompt = r->prompt };
        if (rv_submit(p->session, &q, &jobs[i], &err)) fail_msg("%s", err.message);
    }
    for (uint32_t active = 1; active;)
        if (rv_step(p->session, &active, &err)) fail_msg("%s", err.message);
    for (int i = 0; i < JOBS; i++) {
        if (rv_job_get_error(jobs[i], &err)) fail_msg("%s", err.message);
        snprintf(p->text[i], sizeof p->text[i], "%s", rv_job_text(jobs[i], NULL));
        rv_job_free(jobs[i]);
    }
}

static void *read_elsewhere(void *user) {
    read_receipts(user);
    return current_gpu() == 0 ? user : NULL;
}

static void open_on(place *p, int32_t device, rv_weight_format weights, const char *cache) {
    const rv_load_options load = { .size = sizeof load, .backend = RV_BACKEND_CUDA, .device = device, .weights = weights, .cache_dir = cache };
    const rv_session_options room = { .size = sizeof room, .slots = 4, .context = 512, .queue = 16 };
    rv_error err;
    if (rv_model_load(RV_TEST_DEMO "/model", &load, &p->model, &err)) fail_msg("GPU %d: %s", device, err.message);
    if (rv_session_new(p->model, &room, &p->session, &err)) fail_msg("GPU %d: %s", device, err.message);
}

static void assert_same(const place *a, const place *b) {
    for (int i = 0; i < JOBS; i++) assert_string_equal(a->text[i], b->text[i]);
}

/* First of all, while nobody has used GPU 0. */
static void a_model_on_another_gpu_takes_nothing_of_the_first(void **state) {
    CUresult (*state_of)(CUdevice, unsigned *, int *);
    place p = { 0 };
    unsigned flags;
    int active = -1;
    void *entry;
    (void)state;
    assert_int_equal(rv_cuda_driver_entry("cuDevicePrimaryCtxGetState", &entry), cudaSuccess);
    memcpy(&state_of, &entry, sizeof state_of);
    open_on(&p, 1, RV_WEIGHTS_NF4, NULL);
    read_receipts(&p);
    assert_int_equal(current_gpu(), 0);
    rv_session_free(p.session);
    rv_model_free(p.model);
    assert_int_equal(state_of(0, &flags, &active), CUDA_SUCCESS);
    assert_int_equal(active, 0);                         /* no context, which would take half a gigabyte */
}

static void two_gpus_read_the_same(void **state) {
    (void)state;
    for (size_t f = 0; f < sizeof formats / sizeof *formats; f++) {
        place p[GPUS], again[GPUS];
        for (int g = 0; g < GPUS; g++) open_on(&p[g], g, formats[f], NULL);
        for (int g = 0; g < GPUS; g++) read_receipts(&p[g]);
        assert_same(&p[0], &p[1]);
        for (int g = 0; g < GPUS; g++) again[g] = p[g];
        pthread_t threads[GPUS];
        for (int g = 0; g < GPUS; g++) assert_int_equal(pthread_create(&threads[g], NULL, read_elsewhere, &again[g]), 0);
        for (int g = 0; g < GPUS; g++) {
            void *kept;
            pthread_join(threads[g], &kept);
            assert_non_null(kept);
            assert_same(&again[g], &p[g]);
        }
        for (int g = 0; g < GPUS; g++) rv_session_free(p[g].session), rv_model_free(p[g].model);
    }
}

static void the_callers_gpu_and_cache_are_left_alone(void **state) {
    char folder[] = RV_TEST_TMP "/devicesXXXXXX", line[1200];
    place p[2];
    (void)state;
    assert_non_null(mkdtemp(folder));
    for (int callers = 0; callers < GPUS; callers++)
        for (int ours = 0; ours < GPUS; ours++) {
            assert_int_equal(cudaSetDevice(callers), cudaSuccess);
            for (int k = 0; k < 2; k++) {                /* the second one reads the cache       */
                open_on(&p[k], ours, RV_WEIGHTS_INT8, folder);
                read_receipts(&p[k]);
                assert_int_equal(current_gpu(), callers);
                rv_session_free(p[k].session);
                rv_model_free(p[k].model);
                assert_int_equal(current_gpu(), callers);
            }
            assert_same(&p[0], &p[1]);
        }
    assert_int_equal(cudaSetDevice(0), cudaSuccess);
    snprintf(line, sizeof line, "rm -r '%s'", folder);
    assert_int_equal(system(line), 0);
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

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(a_model_on_another_gpu_takes_nothing_of_the_first),
        cmocka_unit_test(two_gpus_read_the_same),
        cmocka_unit_test(the_callers_gpu_and_cache_are_left_alone),
    };
    if (rv_device_count(RV_BACKEND_CUDA) < GPUS) return puts("skipped: fewer than two GPUs"), 77;
    return cmocka_run_group_tests(tests, set_up, tear_down);
}
