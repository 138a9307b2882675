/* pool.c - see pool.h.
 *
 * The one idea: `ticket` holds (region number, items left) in one word.  A thread owns an item
 * once it has lowered the count by a compare-and-swap, so the region's description can be read
 * without a lock: it cannot change before that item is counted as done.  Decoding starts some
 * 200 tiny regions a token, so a thread out of work spins for a moment before it sleeps.
 */
#include "kernels/cpu/pool.h"
#include <pthread.h>
#include <sched.h>
#include <stdatomic.h>
#include <stdbool.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

enum { SPIN_NS = 40000, SPIN_BATCH = 64 };

typedef struct worker { rv_pool *pool; pthread_t thread; int32_t index; } worker;

struct rv_pool {
    _Atomic uint64_t ticket;     /* region << 32 | items left                                  */
    _Atomic int32_t  undone;     /* items of this region not finished                          */
    _Atomic int32_t  sleepers;   /* workers asleep or about to be                              */
    _Atomic bool     caller_sleeps, stop;
    rv_pool_work    *work;
    void            *context;
    int32_t          n;
    uint32_t         region;
    pthread_mutex_t  lock;
    pthread_cond_t   posted, finished;
    int64_t          spin_ns;
    int32_t          threads;    /* with the caller                                            */
    worker          *workers;    /* threads - 1                                                */
};

int32_t rv_pool_cores(void) {
    cpu_set_t set;
    if (sched_getaffinity(0, sizeof set, &set) == 0 && CPU_COUNT(&set) > 0) return (int32_t)CPU_COUNT(&set);
    long n = sysconf(_SC_NPROCESSORS_ONLN);
    return n < 1 ? 1 : n > 1024 ? 1024 : (int32_t)n;
}

static inline void relax(void) {
#if defined(__x86_64__) || defined(__i386__)
    __builtin_ia32_pause();
#elif defined(__aarch64__)
    __asm__ volatile("yield");
#endif
}

static int64_t now_ns(void) {
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return (int64_t)t.tv_sec * 1000000000 + t.tv_nsec;
}

/* Takes items until none is left. */
static void take_items(rv_pool *p, int32_t thread) {
    uint64_t ticket = atomic_load(&p->ticket);
    while ((uint32_t)ticket) {
        if (!atomic_compare_exchange_weak(&p->ticket, &ticket, ticket - 1)) continue;
        p->work(p->context, p->n - (int32_t)(uint32_t)ticket, thread);
        if (atomic_fetch_sub(&p->undone, 1) == 1 && atomic_load(&p->caller_sleeps)) {
            pthread_mutex_lock(&p->lock);
            pthread_cond_signal(&p->finished);
            pthread_mutex_unlock(&p->lock);
        }
        ticket = atomic_load(&p->ticket);
    }
}

static bool spin_for_items(rv_pool *p) {
    if (p->spin_ns == 0) return false;
    int64_t until = now_ns() + p->spin_ns;
    do {
        for (int i = 0; i < SPIN_BATCH; i++) {
            if ((uint32_t)atomic_load_explicit(&p->ticket, memory_order_relaxed) || atomic_load(&p->stop)) return true;
            relax();
        }
    } while (now_ns() < until);
    return false;
}

static void *worker_main(void *argument) {
    worker *w = argument;
    rv_pool *p = w->pool;
    while (!atomic_load(&p->stop)) {
        take_items(p, w->index);
        if (spin_for_items(p)) continue;
        pthread_mutex_lock(&p->lock);
        atomic_fetch_add(&p->sleepers, 1);                   /* before the last look at the ticket */
        while (!(uint32_t)atomic_load(&p->ticket) && !atomic_load(&p->stop)) pthread_cond_wait(&p->posted, &p->lock);
        atomic_fetch_sub(&p->sleepers, 1);
        pthread_mutex_unlock(&p->lock);
    }
    return NULL;
}

static void wait_undone(rv_pool *p) {
    int64_t until = 0;
    for (;;) {
        for (int i = 0; i < SPIN_BATCH; i++) {
            if (atomic_load(&p->undone) == 0) return;
            relax();
        }
        int64_t now = now_ns();
        if (!until) until = now + p->spin_ns;
        if (now >= until) break;
    }
    pthread_mutex_lock(&p->lock);
    atomic_store(&p->caller_sleeps, true);
    while (atomic_load(&p->undone)) pthread_cond_wait(&p->finished, &p->lock);
    atomic_store(&p->caller_sleeps, false);
    pthread_mutex_unlock(&p->lock);
}

void rv_pool_run(rv_pool *p, int32_t n, rv_pool_work *work, void *context) {
    if (n <= 0) return;
    if (n == 1 || p->threads == 1) {
        for (int32_t i = 0; i < n; i++) work(context, i, 0);
        return;
    }
    p->work = work;
    p->context = context;
    p->n = n;
    atomic_store(&p->undone, n);
    atomic_store(&p->ticket, (uint64_t)++p->region << 32 | (uint32_t)n);
    if (atomic_load(&p->sleepers)) {
        pthread_mutex_lock(&p->lock);
        pthread_cond_broadcast(&p->posted);
        pthread_mutex_unlock(&p->lock);
    }
    take_items(p, 0);
    wait_undone(p);
}

rv_status rv_pool_open(int32_t threads, rv_pool **out, rv_error *err) {
    rv_status st = RV_OK;
    *out = NULL;
    rv_pool *p = calloc(1, sizeof *p);
    if (!p) return rv_fail_memory(err, "CPU threads");
    p->threads = 1;
    p->spin_ns = threads > rv_pool_cores() ? 0 : SPIN_NS;     /* spinning would take the core from the one who works */
    pthread_mutex_init(&p->lock, NULL);
    pthread_cond_init(&p->posted, NULL);
    pthread_cond_init(&p->finished, NULL);
    if (!(p->workers = calloc((size_t)threads, sizeof *p->workers))) {
        st = rv_fail_memory(err, "CPU threads");
        goto done;
    }
    for (int32_t i = 1; i < threads; i++) {
        worker *w = &p->workers[i - 1];
        *w = (worker){ .pool = p, .index = i };
        int e = pthread_create(&w->thread, NULL, worker_main, w);
        if (e) {
            st = rv_fail(err, RV_ERR_UNSUPPORTED,
                         "CPU threads: the system gave %d of %d: %s (ask for fewer threads)",
                         (int)i, (int)threads, strerror(e));
            goto done;
        }
        p->threads = i + 1;
    }
done:
    if (st) rv_pool_close(p);
    else *out = p;
    return st;
}

void rv_pool_close(rv_pool *p) {
    if (!p) return;
    pthread_mutex_lock(&p->lock);
    atomic_store(&p->stop, true);
    pthread_cond_broadcast(&p->posted);
    pthread_mutex_unlock(&p->lock);
    for (int32_t i = 1; i < p->threads; i++) pthread_join(p->workers[i - 1].thread, NULL);
    pthread_cond_destroy(&p->posted);
    pthread_cond_destroy(&p->finished);
    pthread_mutex_destroy(&p->lock);
    free(p->workers);
    free(p);
}

int32_t rv_pool_threads(const rv_pool *p) { return p->threads; }
