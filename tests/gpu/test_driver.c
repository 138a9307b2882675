/* test_driver.c - what is said about drivers and GPUs, whatever this machine has. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>
#include <cmocka.h>

#include "kernels/absent.h"
#include "kernels/cuda/open.h"

static rv_error verdict(cudaError_t e, int32_t count, int32_t driver) {
    rv_error err = { 0 };
    rv_status st = rv_cuda_verdict(e, count, driver, 13000, &err);
    assert_int_equal(st, err.code);
    if (err.code) assert_true(strlen(err.message) < sizeof err.message - 1 && !strchr(err.message, '\n'));
    return err;
}

static void assert_says(rv_error err, const char *what, const char *advice) {
    assert_int_equal(err.code, RV_ERR_UNSUPPORTED);
    if (!strstr(err.message, what) || !strstr(err.message, advice)) fail_msg("\"%s\" says neither \"%s\" nor \"%s\"", err.message, what, advice);
}

static void a_gpu_and_a_driver_are_enough(void **state) {
    (void)state;
    assert_int_equal(verdict(cudaSuccess, 1, 13000).code, RV_OK);
    assert_int_equal(verdict(cudaSuccess, 8, 13020).code, RV_OK);
}

static void no_driver_is_no_old_driver(void **state) {
    (void)state;
    assert_says(verdict(cudaErrorInsufficientDriver, 0, 0), "no NVIDIA driver on this machine", "CUDA 13.0 or newer");
    assert_says(verdict(cudaErrorInsufficientDriver, 0, 12040), "supports CUDA 12.4, this build needs 13.0", "update the driver");
    assert_says(verdict(cudaErrorCallRequiresNewerDriver, 0, 12080), "supports CUDA 12.8", "update the driver");
}

static void a_driver_without_a_gpu_says_where_it_may_hide(void **state) {
    (void)state;
    assert_says(verdict(cudaErrorNoDevice, 0, 13000), "no NVIDIA GPU", "CUDA_VISIBLE_DEVICES");
    assert_says(verdict(cudaSuccess, 0, 13000), "no NVIDIA GPU", "use the cpu backend");
}

static void a_broken_installation_is_named_with_its_remedy(void **state) {
    (void)state;
    assert_says(verdict(cudaErrorSystemDriverMismatch, 0, 13000), "cudaErrorSystemDriverMismatch", "restart the machine");
    assert_says(verdict(cudaErrorSystemNotReady, 0, 13000), "cudaErrorSystemNotReady", "nvidia-fabricmanager");
    assert_says(verdict(cudaErrorStubLibrary, 0, 13000), "cudaErrorStubLibrary", "driver's own");
    assert_says(verdict(cudaErrorCompatNotSupportedOnDevice, 0, 13000), "cudaErrorCompatNotSupportedOnDevice", "update the driver");
    assert_says(verdict(cudaErrorInitializationError, 0, 13000), "cudaErrorInitializationError", "nvidia-smi");
    assert_says(verdict(cudaErrorInvalidValue, 0, 13000), "cudaErrorInvalidValue", "use the cpu backend");
}

static const rv_cuda_built cuda11 = { 70, false }, cuda12 = { 70, true }, cuda13 = { 80, true };

static int32_t set_of(int32_t capability, int32_t wanted, rv_cuda_built built) {
    rv_error err;
    int32_t set = -1;
    rv_status st = rv_cuda_choose_set(capability, wanted, built, &set, &err);
    assert_int_equal(st == RV_OK, set != 0);
    return set;
}

static void each_gpu_gets_the_newest_kernels_that_it_runs(void **state) {
    (void)state;
    assert_int_equal(set_of(70, 0, cuda11), 70);
    assert_int_equal(set_of(75, 0, cuda12), 70);
    assert_int_equal(set_of(80, 0, cuda11), 80);
    assert_int_equal(set_of(80, 0, cuda13), 80);
    assert_int_equal(set_of(89, 0, cuda13), 80);
    assert_int_equal(set_of(90, 0, cuda13), 90);
    assert_int_equal(set_of(90, 0, cuda11), 80);
    assert_int_equal(set_of(100, 0, cuda13), 80);        /* 9.0a's code runs on 9.0 alone       */
    assert_int_equal(set_of(120, 0, cuda13), 80);
}

static void a_set_that_is_asked_for_is_had_where_it_runs(void **state) {
    (void)state;
    for (int32_t capability = 80; capability <= 120; capability += 10) {
        assert_int_equal(set_of(capability, 70, cuda13), 70);
        assert_int_equal(set_of(capability, 80, cuda13), 80);
        assert_int_equal(set_of(capability, 90, cuda13), capability == 90 ? 90 : 0);
    }
    assert_int_equal(set_of(70, 70, cuda11), 70);
    assert_int_equal(set_of(70, 80, cuda11), 0);
    assert_int_equal(set_of(90, 90, cuda11), 0);
}

static rv_error refused(int32_t capability, int32_t wanted, rv_cuda_built built) {
    rv_error err = { 0 };
    int32_t set = -1;
    rv_status st = rv_cuda_choose_set(capability, wanted, built, &set, &err);
    assert_int_equal(st, err.code);
    assert_int_equal(set, 0);
    assert_true(strlen(err.message) < sizeof ((rv_cuda_device_info *)NULL)->problem);
    return err;
}

static void a_gpu_without_kernels_hears_why_and_what_has_them(void **state) {
    (void)state;
    assert_says(refused(60, 0, cuda11), "6.0 has no tensor cores", "7.0 (V100) or newer");
    assert_says(refused(61, 70, cuda13), "6.1 has no tensor cores", "the cpu backend");
    assert_says(refused(70, 0, cuda13), "no code for a GPU of compute capability 7.0", "built with CUDA 11.8 or 12.x");
    assert_says(refused(75, 70, cuda13), "no code for a GPU of compute capability 7.5", "RV_CUDA_ARCHS");
    assert_says(refused(70, 80, cuda11), "kernels sm80: this GPU is of compute capability 7.0", "sm70");
    assert_says(refused(100, 90, cuda13), "kernels sm90: they run on compute capability 9.0 alone", "sm80");
    assert_says(refused(90, 90, cuda11), "kernels sm90: this package was built without them", "90a in RV_CUDA_ARCHS");
}

/* A build without CUDA plans for a GPU by sizes of its own: the backend's, but for some rounding in 4 bits. */
static void sizes_for_a_gpu_that_is_not_there_are_the_backends(void **state) {
    (void)state;
    static const rv_format formats[] = { RV_FORMAT_PLAIN, RV_FORMAT_INT8, RV_FORMAT_NF4 };
    static const int32_t shapes[][2] = { { 4096, 4096 }, { 6144, 4096 }, { 28672, 4096 }, { 4096, 14336 }, { 128256, 4096 }, { 1280, 1280 }, { 5120, 1280 } };
    rv_error err;
    rv_backend *absent, *planning;
    assert_int_equal(rv_absent_open(RV_F16, &absent, &err), RV_OK);
    rv_cuda_options o = { .arch = 80, .act = RV_F16, .plans = true };
    if (rv_cuda_open(&o, &planning, &err)) fail_msg("%s", err.message);
    assert_int_equal(absent->own_bytes, planning->own_bytes);
    assert_int_equal(absent->chunk_rows, planning->chunk_rows);
    assert_int_equal(rv_can_run_ahead(absent), rv_can_run_ahead(planning));
    for (size_t f = 0; f < 3; f++)
        for (size_t i = 0; i < sizeof shapes / sizeof *shapes; i++)
            for (int mixed = 0; mixed < 2; mixed++) {
                const int32_t rows = shapes[i][0], parts = mixed ? 2 : 1;
                rv_weight_spec s = { .name = "a weight", .rows = rows, .cols = shapes[i][1], .n_parts = parts, .use = RV_USE_TEXT, .format = formats[f], .nested = true,
                                     .part = { { .rows = rows / parts }, { .rows = rows / parts } }, .order = mixed ? RV_ORDER_GATE_UP : RV_ORDER_STACKED };
                uint64_t one = rv_weight_bytes(absent, &s), other = rv_weight_bytes(planning, &s);
                if (formats[f] != RV_FORMAT_NF4) assert_int_equal(one, other);
                else assert_in_range(one, other - other / 100 - 4096, other + other / 100 + 4096);
            }
    rv_backend_close(absent);
    rv_backend_close(planning);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(a_gpu_and_a_driver_are_enough),
        cmocka_unit_test(no_driver_is_no_old_driver),
        cmocka_unit_test(a_driver_without_a_gpu_says_where_it_may_hide),
        cmocka_unit_test(a_broken_installation_is_named_with_its_remedy),
        cmocka_unit_test(each_gpu_gets_the_newest_kernels_that_it_runs),
        cmocka_unit_test(sizes_for_a_gpu_that_is_not_there_are_the_backends),
        cmocka_unit_test(a_set_that_is_asked_for_is_had_where_it_runs),
        cmocka_unit_test(a_gpu_without_kernels_hears_why_and_what_has_them),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
