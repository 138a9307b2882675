/* pool.c - the threads: every item once, none lost, asleep or awake. */
#include "tests/kernels/helpers.h"
#include <time.h>

typedef struct work { int32_t n; int32_t *times; _Atomic int64_t sum; _Atomic int32_t wrong; int32_t threads; } work;

static void count(void *context, int32_t item, int32_t thread) {
    work *w = context;
    w->times[item]++;                            /* an item given twice at once shows under tsan   */
    atomic_fetch_add(&w->sum, item);
    if (thread < 0 || thread >= w->threads) atomic_fetch_add(&w->wrong, 1);
}

static rv_pool *open_pool(int32_t threads) {
    rv_pool *p = NULL;
    rv_error err;
    if (rv_pool_open(threads, &p, &err)) fail_msg("%s", err.message);
    assert_int_equal(rv_pool_threads(p), threads);
    return p;
}

static void every_item_runs_once(void **state) {
    (void)state;
    for (int32_t threads = 1; threads <= 9; threads += 2) {
        rv_pool *p = open_pool(threads);
        for (int32_t n = 0; n < 300; n += 1 + n / 3) {
            int32_t times[300] = { 0 };
            work w = { .n = n, .times = times, .threads = threads };
            rv_pool_run(p, n, count, &w);
            for (int32_t i = 0; i < 300; i++) assert_int_equal(times[i], i < n);
            assert_int_equal(atomic_load(&w.sum), (int64_t)n * (n - 1) / 2);
            assert_int_equal(atomic_load(&w.wrong), 0);
        }
        rv_pool_close(p);
    }
}

static void many_small_regions_after_sleep_and_without_lose_nothing(void **state) {
    (void)state;
    rv_pool *p = open_pool(4);
    int32_t times[8] = { 0 };
    work w = { .n = 8, .times = times, .threads = 4 };
    for (int32_t i = 0; i < 5000; i++) {
        rv_pool_run(p, 8, count, &w);
        if (i % 500 == 0) nanosleep(&(struct timespec){ .tv_nsec = 2000000 }, NULL);
    }
    for (int i = 0; i < 8; i++) assert_int_equal(times[i], 5000);
    rv_pool_close(p);
}

static void a_pool_closes_at_once_even_when_never_used(void **state) {
    (void)state;
    for (int i = 0; i < 50; i++) rv_pool_close(open_pool(1 + i % 6));
    rv_pool_close(NULL);
    assert_true(rv_pool_cores() >= 1);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(every_item_runs_once),
        cmocka_unit_test(many_small_regions_after_sleep_and_without_lose_nothing),
        cmocka_unit_test(a_pool_closes_at_once_even_when_never_used),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
