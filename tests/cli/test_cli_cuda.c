/* test_cli_cuda.c - a build with CUDA on machines that cannot use it: no driver, an old one, no GPU. */
#include <stdio.h>
#include <stdlib.h>

#include "engine/rvengine.h"
#include "tests/cli/program.h"

static void skip_with_a_gpu(void) {
    if (rv_device_count(RV_BACKEND_CUDA) > 0) skip();
}

static void without_a_gpu_cuda_is_refused_with_advice(void **state) {
    (void)state;
    skip_with_a_gpu();
    refuses(5, "no NVIDIA (driver|GPU).*use the cpu backend", "run", "-m", MODEL, "-p", "x", "--backend", "cuda");
    refuses(5, "no NVIDIA (driver|GPU).*use the cpu backend", "plan", "-m", MODEL, "--backend", "cuda");
}

static void without_a_gpu_auto_reads_on_the_cpu(void **state) {
    (void)state;
    skip_with_a_gpu();
    prints("SUPPLIER: ", "run", "-m", MODEL, "-i", RECEIPT, "--backend", "auto", "-n", "16");
    prints(" on cpu;", "plan", "-m", MODEL);
    refuses(5, "attention plain: the CPU backend has one kind", "run", "-m", MODEL, "-p", "x", "--attention", "plain");
}

static void doctor_says_why_there_is_no_gpu(void **state) {
    (void)state;
    skip_with_a_gpu();
    prints("backends +cpu, cuda\n.*WRONG GPU +no NVIDIA ", "doctor");
    prints("\n  (ok +driver +libcuda.so.1 is there|- +driver +libcuda.so.1 is not on this machine)", "doctor");
}

static void doctor_tells_toolkit_and_kernels(void **state) {
    (void)state;
    prints("cuda toolkit +1[1-9]\\.[0-9.]+\n +cuda kernels +sm_[0-9a sm_]*, PTX for newer GPUs\n", "doctor");
    prints("\"cuda toolkit\": \"1[1-9]\\.", "doctor", "--json");
}

/* The driver's library is found through the loader's path first. */
static void with_driver(const char *folder) {
    static char before[2048];
    char path[4096];
    const char *now = getenv("LD_LIBRARY_PATH");
    if (now && !*before) snprintf(before, sizeof before, "%s", now);
    snprintf(path, sizeof path, "%s%s%s", folder, *before ? ":" : "", before);
    assert_int_equal(setenv("LD_LIBRARY_PATH", path, 1), 0);
}

static void an_old_driver_is_an_error_that_says_to_update_it(void **state) {
    (void)state;
    with_driver(OLD_DRIVER);
    refuses(5, "the NVIDIA driver supports CUDA 10\\.2, this build needs 1[1-9]\\.[0-9]: update the driver", "run", "-m", MODEL, "-p", "x",
            "--backend", "cuda");
    prints("WRONG GPU +the NVIDIA driver supports CUDA 10\\.2", "doctor");
    prints(" on cpu;", "plan", "-m", MODEL);
}

static void a_driver_that_lists_no_gpu_is_another_error(void **state) {
    (void)state;
    with_driver(NEW_DRIVER);
    refuses(5, "no NVIDIA GPU: the driver lists none: .*CUDA_VISIBLE_DEVICES", "run", "-m", MODEL, "-p", "x", "--backend", "cuda");
    prints("WRONG GPU +no NVIDIA GPU", "doctor");
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(without_a_gpu_cuda_is_refused_with_advice),
        cmocka_unit_test(without_a_gpu_auto_reads_on_the_cpu),
        cmocka_unit_test(doctor_says_why_there_is_no_gpu),
        cmocka_unit_test(doctor_tells_toolkit_and_kernels),
        cmocka_unit_test(an_old_driver_is_an_error_that_says_to_update_it),
        cmocka_unit_test(a_driver_that_lists_no_gpu_is_another_error),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
