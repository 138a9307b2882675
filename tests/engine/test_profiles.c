/* test_profiles.c - GPUs by name, and what is decided for them: on any machine. */
#include <setjmp.h>
#include <stdarg.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <string.h>
#include <cmocka.h>

#include "engine/rvprofile.h"

#define GB UINT64_C(1000000000)

static rv_profile named(const char *name) {
    rv_profile p = { .size = sizeof p };
    rv_error err;
    if (rv_profile_find(name, &p, &err)) fail_msg("%s", err.message);
    return p;
}

static rv_profile of_device(const char *name, int32_t capability, uint64_t memory) {
    rv_device d = { .size = sizeof d, .backend = RV_BACKEND_CUDA, .cores = 100, .memory_total = memory };
    rv_profile p = { .size = sizeof p };
    rv_error err;
    snprintf(d.name, sizeof d.name, "%s", name);
    snprintf(d.features, sizeof d.features, "compute_%d driver_13.0", capability);
    if (rv_profile_of(&d, &p, &err)) fail_msg("%s", err.message);
    return p;
}

/* The sizes of the 11B shape, GB: spec quantisation.md. */
static const rv_sizes sizes_11b = { .size = sizeof sizes_11b, .weights = { 0, 21340 * GB / 1000, 12620 * GB / 1000, 8390 * GB / 1000 }, .tables = 1200 * GB / 1000, .rest = 1200 * GB / 1000 };

static rv_precision decide(const char *profile, uint32_t devices) {
    rv_profile p = named(profile);
    rv_precision is = { .size = sizeof is };
    rv_error err;
    if (rv_profile_decide(&p, devices, 0, &sizes_11b, &is, &err)) fail_msg("%s", err.message);
    return is;
}

/* ---- memory left free ---- */

static void buffers_follow_the_class(void **state) {
    (void)state;
    static const struct { const char *name; uint64_t buffer; } all[] = {
        { "h200", 20 * GB }, { "h100", 12 * GB }, { "a100", 12 * GB }, { "a10g", 48 * GB / 10 }, { "a10", 48 * GB / 10 }, { "a30", 48 * GB / 10 },
        { "l40s", 96 * GB / 10 }, { "l40", 96 * GB / 10 }, { "a6000", 96 * GB / 10 }, { "rtx4090", 48 * GB / 10 }, { "rtx5090", 64 * GB / 10 }, { "v100", 4 * GB }, { "t4", 32 * GB / 10 },
    };
    for (size_t i = 0; i < sizeof all / sizeof *all; i++)
        if (named(all[i].name).buffer != all[i].buffer) fail_msg("%s leaves %llu bytes", all[i].name, (unsigned long long)named(all[i].name).buffer);
}

static void large_memories_are_capped(void **state) {
    (void)state;
    assert_int_equal(of_device("NVIDIA H200", 90, 200 * GB).buffer, 20 * GB);
    assert_int_equal(of_device("NVIDIA A10G", 86, 48 * GB).buffer, 6 * GB);
    assert_int_equal(of_device("NVIDIA L40S", 89, 96 * GB).buffer, 12 * GB);
    assert_int_equal(of_device("Tesla V100-SXM2-32GB", 70, 32 * GB).buffer, 4 * GB);
    assert_int_equal(of_device("NVIDIA Whatever", 120, 96 * GB).buffer, 8 * GB);
}

static void two_gpus_have_a_rule_of_their_own_and_the_rest_keeps_its_buffer(void **state) {
    (void)state;
    assert_int_equal(named("v100").usable, 128 * GB / 10);
    assert_int_equal(named("h200").usable, 13395 * GB / 100);
    for (uint32_t i = 0; i < rv_profile_count(); i++) {
        rv_profile p = { .size = sizeof p };
        assert_int_equal(rv_profile_at(i, &p, NULL), RV_OK);
        assert_true(p.usable < p.memory && p.usable >= p.memory / 2);
        if (strcmp(p.name, "v100") && strcmp(p.name, "h200")) assert_int_equal(p.usable, p.memory - p.buffer);
    }
}

/* ---- which row a GPU has ---- */

static void a_gpu_is_known_by_its_whole_name(void **state) {
    (void)state;
    static const struct { const char *name; int32_t capability; const char *row; } all[] = {
        { "Tesla V100-SXM2-16GB", 70, "v100" }, { "Tesla V100-PCIE-32GB", 70, "v100" }, { "NVIDIA A10G", 86, "a10g" }, { "NVIDIA A10", 86, "a10" },
        { "NVIDIA A100-SXM4-80GB", 80, "a100" }, { "NVIDIA A100 80GB PCIe", 80, "a100" }, { "NVIDIA L40S", 89, "l40s" }, { "NVIDIA L40", 89, "l40" },
        { "NVIDIA H100 80GB HBM3", 90, "h100" }, { "NVIDIA H200", 90, "h200" }, { "NVIDIA RTX A6000", 86, "a6000" }, { "NVIDIA GeForce RTX 4090", 89, "rtx4090" },
        { "NVIDIA GeForce RTX 4090 Laptop GPU", 89, "generic" }, { "NVIDIA GeForce RTX 3090 Ti", 86, "generic" }, { "NVIDIA B200", 100, "generic" }, { "Tesla T4", 75, "t4" },
        { "NVIDIA A100X", 80, "generic" }, { "NVIDIA H100", 80, "generic" },
    };
    for (size_t i = 0; i < sizeof all / sizeof *all; i++) {
        rv_profile p = of_device(all[i].name, all[i].capability, 24 * GB);
        if (strcmp(p.name, all[i].row)) fail_msg("%s is taken for %s", all[i].name, p.name);
        assert_string_equal(p.title, all[i].name);
        assert_int_equal(p.memory, 24 * GB);
    }
}

static void an_unknown_gpu_gets_kernels_by_its_capability(void **state) {
    (void)state;
    static const int32_t sets[][2] = { { 60, 0 }, { 61, 0 }, { 70, 70 }, { 72, 70 }, { 75, 70 }, { 80, 80 }, { 86, 80 }, { 89, 80 }, { 90, 90 }, { 100, 80 }, { 120, 80 } };
    for (size_t i = 0; i < sizeof sets / sizeof *sets; i++) {
        rv_profile p = of_device("NVIDIA Something", sets[i][0], 32 * GB);
        assert_int_equal(p.kernels, sets[i][1]);
        assert_int_equal(p.has_bf16, sets[i][0] >= 80);
    }
    assert_int_equal(of_device("NVIDIA GeForce RTX 6090", 120, 32 * GB).memory_class, RV_GPU_CONSUMER);
    assert_int_equal(of_device("NVIDIA GeForce GTX 1650", 75, 4 * GB).memory_class, RV_GPU_OTHER);
}

static void an_unknown_name_is_an_error_that_lists_those_there_are(void **state) {
    (void)state;
    rv_error err;
    rv_profile p = { .size = sizeof p };
    assert_int_equal(rv_profile_find("v101", &p, &err), RV_ERR_ARGUMENT);
    assert_non_null(strstr(err.message, "\"v101\": must be one of v100, a10g,"));
    assert_non_null(strstr(err.message, "t4"));
    assert_int_equal(rv_profile_find(NULL, &p, &err), RV_ERR_ARGUMENT);
    assert_int_equal(rv_profile_find("H100", &p, &err), RV_OK);
    assert_int_equal(rv_profile_at(rv_profile_count(), &p, &err), RV_ERR_ARGUMENT);
}

static void a_package_is_named_for_every_gpu_but_those_too_old(void **state) {
    (void)state;
    const char *why;
    assert_non_null(strstr(rv_package_for(70, &why), "CUDA 11.8 or 12.x"));
    assert_null(why);
    assert_non_null(strstr(rv_package_for(90, &why), "CUDA 13"));
    assert_null(rv_package_for(60, &why));
    assert_non_null(strstr(why, "below 7.0"));
}

/* ---- precision ---- */

static void precision_is_what_memory_allows(void **state) {
    (void)state;
    static const struct { const char *name; uint32_t devices; rv_weight_format weights; bool split; } all[] = {
        { "v100", 1, RV_WEIGHTS_INT8, false }, { "a10g", 1, RV_WEIGHTS_INT8, false }, { "a10g", 2, RV_WEIGHTS_16BIT, true }, { "a10g", 4, RV_WEIGHTS_16BIT, true },
        { "v100", 2, RV_WEIGHTS_16BIT, true }, { "l40s", 1, RV_WEIGHTS_16BIT, false }, { "a100", 1, RV_WEIGHTS_16BIT, false }, { "h100", 1, RV_WEIGHTS_16BIT, false },
        { "h200", 1, RV_WEIGHTS_16BIT, false }, { "h200", 2, RV_WEIGHTS_16BIT, false }, { "t4", 1, RV_WEIGHTS_INT8, false },
    };
    for (size_t i = 0; i < sizeof all / sizeof *all; i++) {
        rv_precision is = decide(all[i].name, all[i].devices);
        if (is.weights != all[i].weights || !is.split != !all[i].split || !is.fits) fail_msg("%u x %s: %s", all[i].devices, all[i].name, is.reason);
    }
    assert_int_equal(decide("v100", 1).embedding, RV_EMBEDDING_HOST);
    assert_int_equal(decide("a10g", 1).embedding, RV_EMBEDDING_DEVICE);
}

static void less_than_is_usable_makes_it_smaller(void **state) {
    (void)state;
    rv_profile p = named("h100");
    rv_precision is = { .size = sizeof is };
    rv_error err;
    assert_int_equal(rv_profile_decide(&p, 1, 15 * GB, &sizes_11b, &is, &err), RV_OK);
    assert_int_equal(is.weights, RV_WEIGHTS_INT8);
    assert_int_equal(rv_profile_decide(&p, 1, 10 * GB, &sizes_11b, &is, &err), RV_OK);
    assert_int_equal(is.weights, RV_WEIGHTS_NF4);
    assert_int_equal(rv_profile_decide(&p, 1, 5 * GB, &sizes_11b, &is, &err), RV_OK);
    assert_false(is.fits);
    assert_non_null(strstr(is.reason, "not even NF4 fits"));
}

/* What is said of a GPU names it and no other, and fits its line. */
static void no_message_of_one_gpu_speaks_of_another(void **state) {
    (void)state;
    static const char *const models[] = { "V100", "A10G", "A10", "A30", "L40S", "L40", "A6000", "A100", "H100", "H200", "3090", "4090", "5090", "T4" };
    enum { MODELS = sizeof models / sizeof *models };
    assert_int_equal(rv_profile_count(), MODELS);
    for (uint32_t i = 0; i < MODELS; i++)
        for (uint32_t devices = 1; devices <= 2; devices++)
            for (uint64_t available = 0; available <= 12 * GB; available += 6 * GB) {
                rv_profile p = { .size = sizeof p };
                rv_precision is = { .size = sizeof is };
                const char *why, *package;
                rv_error err;
                assert_int_equal(rv_profile_at(i, &p, &err), RV_OK);
                assert_int_equal(rv_profile_decide(&p, devices, available, &sizes_11b, &is, &err), RV_OK);
                package = rv_package_for(p.capability, &why);
                assert_true(strlen(is.reason) < sizeof is.reason - 1 && !strchr(is.reason, '\n'));
                for (int k = 0; k < MODELS; k++) {
                    const char *texts[] = { is.reason, p.title, p.attention, package };
                    for (size_t t = 0; t < 4; t++) {
                        const char *at = strstr(texts[t], models[k]);
                        const size_t n = strlen(models[k]);
                        bool whole = at && (at[n] < '0' || at[n] > 'Z') && (at == texts[t] || at[-1] == ' ' || at[-1] == 'x');
                        if (whole && strcmp(models[k], models[i])) fail_msg("of %s it is said: %s", p.name, texts[t]);
                    }
                }
            }
}

static void more_sequences_are_planned_where_arithmetic_allows(void **state) {
    (void)state;
    assert_int_equal(named("v100").most_slots, 32);
    assert_int_equal(named("a10g").most_slots, 24);
    assert_int_equal(named("l40s").most_slots, 64);
    assert_int_equal(named("h100").most_slots, 64);
    for (uint32_t i = 0; i < rv_profile_count(); i++) {
        rv_profile p = { .size = sizeof p };
        assert_int_equal(rv_profile_at(i, &p, NULL), RV_OK);
        assert_in_range(p.most_slots, 16, 64);
        assert_true(p.shared_block_bytes <= p.shared_bytes && p.read_bytes_s > 0 && p.watts > 0);
    }
}

static void a_backend_that_there_is_not_has_no_devices(void **state) {
    (void)state;
    rv_error err;
    rv_device d = { .size = sizeof d };
    const rv_backend_id none[] = { -1, 3, 77 };
    for (size_t i = 0; i < sizeof none / sizeof *none; i++) {
        assert_int_equal(rv_device_count(none[i]), 0);
        assert_int_equal(rv_device_get(none[i], 0, &d, &err), RV_ERR_ARGUMENT);
        assert_non_null(strstr(err.message, "backend"));
    }
    assert_int_equal(rv_device_count(RV_BACKEND_CPU), 1);
    assert_int_equal(rv_device_get(RV_BACKEND_CPU, 0, &d, &err), RV_OK);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(a_backend_that_there_is_not_has_no_devices),
        cmocka_unit_test(buffers_follow_the_class),
        cmocka_unit_test(large_memories_are_capped),
        cmocka_unit_test(two_gpus_have_a_rule_of_their_own_and_the_rest_keeps_its_buffer),
        cmocka_unit_test(a_gpu_is_known_by_its_whole_name),
        cmocka_unit_test(an_unknown_gpu_gets_kernels_by_its_capability),
        cmocka_unit_test(an_unknown_name_is_an_error_that_lists_those_there_are),
        cmocka_unit_test(a_package_is_named_for_every_gpu_but_those_too_old),
        cmocka_unit_test(precision_is_what_memory_allows),
        cmocka_unit_test(less_than_is_usable_makes_it_smaller),
        cmocka_unit_test(no_message_of_one_gpu_speaks_of_another),
        cmocka_unit_test(more_sequences_are_planned_where_arithmetic_allows),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
