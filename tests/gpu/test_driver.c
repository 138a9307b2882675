/* test_driver.c - what is said about drivers and GPUs, whatever this machine has. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>
#include <cmocka.h>

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

static void each_gpu_gets_the_newest_kernels_that_it_runs(void **state) {
    (void)state;
    assert_int_equal(rv_cuda_set(70, true), 0);
    assert_int_equal(rv_cuda_set(75, true), 0);
    assert_int_equal(rv_cuda_set(80, true), 80);
    assert_int_equal(rv_cuda_set(89, true), 80);
    assert_int_equal(rv_cuda_set(90, true), 90);
    assert_int_equal(rv_cuda_set(90, false), 80);
    assert_int_equal(rv_cuda_set(100, true), 80);        /* 9.0a's code runs on 9.0 alone       */
    assert_int_equal(rv_cuda_set(120, true), 80);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(a_gpu_and_a_driver_are_enough),
        cmocka_unit_test(no_driver_is_no_old_driver),
        cmocka_unit_test(a_driver_without_a_gpu_says_where_it_may_hide),
        cmocka_unit_test(a_broken_installation_is_named_with_its_remedy),
        cmocka_unit_test(each_gpu_gets_the_newest_kernels_that_it_runs),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
