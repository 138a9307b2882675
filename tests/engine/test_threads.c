/* test_threads.c - many threads and one session, several sessions, two models: what the thread sanitizer is to see.
 *
 * The one idea: whatever others do meanwhile, a request's tokens are those that it gets alone.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stdatomic.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <cmocka.h>
#include <pthread.h>
#include <unistd.h>

#include "engine/rvextract.h"
#include "engine/session.h"
#include "extract/record.h"

#define TINY RV_TEST_TMP "/threads_tiny"
enum { WORKERS = 6, ROUNDS = 12, TOKENS = 4 };

static const char *const prompts[] = { "a", "bcd", "the third", "one that is a little longer" };
enum { PROMPTS = sizeof prompts / sizeof *prompts };

static rv_model *model_of(const char *folder) {
    rv_error err;
    rv_model *model;
    rv_load_options load = { .size = sizeof load, .backend = RV_BACKEND_CPU, .threads = 2 };
    if (rv_model_load(folder, &load, &model, &err)) fail_msg("%s", err.message);
    return model;
}

static rv_session *session_of(rv_model *model, uint32_t slots) {
    rv_error err;
    rv_session *s = NULL;
    rv_session_options room = { .size = sizeof room, .slots = slots, .queue = 4, .context = 128, .images = 1 };
    if (rv_session_new(model, &room, &s, &err)) fail_msg("%s", err.message);
    return s;
}

static int set_up(void **state) {
    rv_error err;
    rv_synth_options shape = { .size = sizeof shape, .shape = "tiny", .outliers = -1 };
    (void)state;
    if (access(TINY "/config.json", R_OK) && rv_synthesise(TINY, &shape, NULL, &err)) fail_msg("%s", err.message);
    return 0;
}

static rv_request request_of(int prompt) { return (rv_request){ .size = sizeof(rv_request), .raw = prompts[prompt], .max_tokens = TOKENS }; }

typedef struct answers { int32_t ids[PROMPTS][TOKENS]; uint32_t n[PROMPTS]; } answers;

/* Of a session of its own; counts prompts that fail. */
static int ask_all(rv_model *model, answers *out) {
    rv_error err;
    rv_session *s;
    int failed = 0;
    rv_session_options room = { .size = sizeof room, .slots = 1, .context = 128, .images = 1 };
    if (rv_session_new(model, &room, &s, &err)) return PROMPTS;
    for (int i = 0; i < PROMPTS; i++) {
        const int32_t *ids;
        rv_job *job;
        rv_request r = request_of(i);
        if (rv_generate(s, &r, &job, &err)) {
            failed++;
            continue;
        }
        out->n[i] = rv_job_tokens(job, &ids, NULL);
        memcpy(out->ids[i], ids, out->n[i] * sizeof *ids);
        rv_job_free(job);
    }
    rv_session_free(s);
    return failed;
}

/* ---- submit, cancel, free ---- */

typedef struct crowd { rv_session *session; const answers *alone; atomic_int stop, wrong, complete, cancelled, done; } crowd;

static void *step_all(void *user) {
    crowd *c = user;
    rv_error err;
    while (!c->stop)
        if (rv_wait(c->session, 50) && rv_step(c->session, NULL, &err)) c->wrong++;
    return NULL;
}

static void count(void *user, rv_job *job) {
    (void)job;
    ((crowd *)user)->done++;
}

static void check(crowd *c, const rv_job *job, int prompt) {
    const int32_t *ids;
    uint32_t n = rv_job_tokens(job, &ids, NULL);
    rv_job_state state = rv_job_get_state(job);
    if (state == RV_JOB_CANCELLED) {
        c->cancelled++;
        c->wrong += n > c->alone->n[prompt] || memcmp(ids, c->alone->ids[prompt], n * sizeof *ids);       /* as far as it came */
        return;
    }
    c->complete++;
    c->wrong += n != c->alone->n[prompt] || memcmp(ids, c->alone->ids[prompt], n * sizeof *ids);
}

/* Every third request is cancelled by another thread than it was submitted by or stepped in, every third given up unread. */
static void *submit_all(void *user) {
    crowd *c = user;
    for (int round = 0; round < ROUNDS; round++) {
        rv_error err;
        rv_job *job;
        rv_request r = request_of(round % PROMPTS);
        r.on_done = count;
        r.user = c;
        rv_status st;
        while ((st = rv_submit(c->session, &r, &job, &err)) == RV_ERR_FULL) usleep(200);
        if (st) {
            c->wrong++;
            continue;
        }
        if (round % 3 == 1) rv_cancel(job);
        if (round % 3 != 2) {
            c->wrong += !rv_job_wait(job, 60000);
            check(c, job, round % PROMPTS);
        }
        rv_job_free(job);
    }
    return NULL;
}

static void many_threads_submit_cancel_and_free(void **state) {
    pthread_t stepper, workers[WORKERS];
    answers alone = { 0 };
    rv_model *model = model_of(TINY);
    (void)state;
    assert_int_equal(ask_all(model, &alone), 0);
    crowd c = { .session = session_of(model, 3), .alone = &alone };
    rv_model_free(model);
    assert_int_equal(pthread_create(&stepper, NULL, step_all, &c), 0);
    for (int i = 0; i < WORKERS; i++) assert_int_equal(pthread_create(&workers[i], NULL, submit_all, &c), 0);
    for (int i = 0; i < WORKERS; i++) pthread_join(workers[i], NULL);
    c.stop = 1;
    rv_wake(c.session);
    pthread_join(stepper, NULL);
    rv_session_free(c.session);
    assert_int_equal(c.wrong, 0);
    assert_int_equal(c.done, WORKERS * ROUNDS);                  /* those that were given up, too */
    assert_true(c.complete >= WORKERS * ROUNDS / 3);
}

/* ---- the end, seen from another thread ---- */

static void *wait_long(void *user) {
    return rv_wait(user, 60000) ? user : NULL;
}

static void whoever_waits_is_let_go_when_the_session_is_freed(void **state) {
    pthread_t waiters[3];
    void *work;
    rv_model *model = model_of(TINY);
    (void)state;
    for (int round = 0; round < 10; round++) {
        rv_session *s = session_of(model, 1);
        for (int i = 0; i < 3; i++) assert_int_equal(pthread_create(&waiters[i], NULL, wait_long, s), 0);
        while (atomic_load(&s->refs) < 1 + 3) usleep(1000);      /* each is inside, and holds it: before, nobody may free it */
        usleep(5000);                                            /* they sleep */
        rv_session_free(s);
        for (int i = 0; i < 3; i++) {
            pthread_join(waiters[i], &work);
            assert_null(work);
        }
    }
    rv_model_free(model);
}

typedef struct freed_by { rv_session *session; atomic_int begun; } freed_by;

static int32_t say_begun(void *user, rv_job *job, const rv_token *token) {
    (void)job, (void)token;
    ((freed_by *)user)->begun = 1;
    usleep(2000);
    return 0;
}

static void *free_when_begun(void *user) {
    freed_by *f = user;
    while (!f->begun) usleep(100);
    rv_session_free(f->session);
    return NULL;
}

static void a_session_that_another_thread_frees_ends_with_the_step(void **state) {
    rv_model *model = model_of(TINY);
    (void)state;
    for (int round = 0; round < 10; round++) {
        pthread_t thread;
        rv_error err;
        rv_job *job = NULL;
        freed_by f = { .session = session_of(model, 1) };
        rv_request r = { .size = sizeof r, .raw = "a", .max_tokens = 100, .on_token = say_begun, .user = &f };
        assert_int_equal(pthread_create(&thread, NULL, free_when_begun, &f), 0);
        assert_int_equal(rv_generate(f.session, &r, &job, &err), RV_ERR_CANCELLED);
        pthread_join(thread, NULL);
    }
    rv_model_free(model);
}

/* ---- models ---- */

typedef struct asker { const char *folder; rv_model *model; answers alone, now; int failed; } asker;

static void *ask_often(void *user) {
    asker *a = user;
    for (int round = 0; round < 4; round++) {
        a->failed += ask_all(a->model, &a->now);
        a->failed += memcmp(&a->alone, &a->now, sizeof a->now) != 0;
    }
    return NULL;
}

static void *load_often(void *user) {
    asker *a = user;
    rv_error err;
    rv_load_options load = { .size = sizeof load, .backend = RV_BACKEND_CPU, .threads = 2 };
    for (int round = 0; round < 4; round++) {
        rv_model *model;
        if (rv_model_load(a->folder, &load, &model, &err)) {
            a->failed++;
            continue;
        }
        a->failed += ask_all(model, &a->now) + (memcmp(&a->alone, &a->now, sizeof a->now) != 0);
        rv_model_free(model);
    }
    return NULL;
}

/* Two models, one of them in two sessions, and a third that comes and goes. */
static void models_and_sessions_side_by_side_answer_as_alone(void **state) {
    asker askers[] = { { .folder = RV_TEST_DEMO "/model" }, { .folder = TINY }, { .folder = TINY }, { .folder = TINY } };
    enum { N = sizeof askers / sizeof *askers };
    pthread_t threads[N];
    (void)state;
    askers[0].model = model_of(askers[0].folder);
    askers[1].model = askers[2].model = model_of(TINY);
    for (int i = 0; i < N; i++) assert_int_equal(ask_all(askers[i].model ? askers[i].model : askers[1].model, &askers[i].alone), 0);
    for (int i = 0; i < N; i++) assert_int_equal(pthread_create(&threads[i], NULL, askers[i].model ? ask_often : load_often, &askers[i]), 0);
    for (int i = 0; i < N; i++) pthread_join(threads[i], NULL);
    for (int i = 0; i < N; i++) assert_int_equal(askers[i].failed, 0);
    rv_model_free(askers[0].model);
    rv_model_free(askers[1].model);
}

/* ---- a record ---- */

typedef struct shared { rv_schema *schema; rv_record *record; atomic_int ok, busy, wrong; } shared;

static void tally(shared *s, rv_status st) { (*(st == RV_OK ? &s->ok : st == RV_ERR_BUSY ? &s->busy : &s->wrong))++; }

static void *fill_and_read(void *user) {
    shared *s = user;
    for (int round = 0; round < 400; round++) {
        rv_result result = { .size = sizeof result };
        rv_summary summary = { .size = sizeof summary };
        char *text = NULL;
        rv_error err;
        tally(s, rv_record_put(s->record, "TOTAL", "$12.50", 6, "given", &err));
        tally(s, rv_record_parse(s->record, "ITEMS: Tea | Milk\n", 18, "free", NULL, &err));
        tally(s, rv_record_check(s->record, &err));
        tally(s, rv_record_get(s->record, 0, &result, &err));
        tally(s, rv_record_get_summary(s->record, &summary, &err));
        tally(s, rv_record_write(s->record, RV_FORM_JSON, NULL, &text, NULL, &err));
        rv_text_free(text);
    }
    return NULL;
}

static void two_threads_in_one_record_hear_that_it_is_busy(void **state) {
    (void)state;
    rv_error err;
    shared s = { 0 };
    pthread_t threads[2];
    if (rv_schema_open("demo_receipt", &s.schema, &err) || rv_record_new(s.schema, NULL, &s.record, &err)) fail_msg("%s", err.message);
    assert_int_equal(rv_record_check(s.record, &err), RV_OK);    /* so that there is a summary in any order */
    for (int i = 0; i < 2; i++) assert_int_equal(pthread_create(&threads[i], NULL, fill_and_read, &s), 0);
    for (int i = 0; i < 2; i++) pthread_join(threads[i], NULL);
    printf("%d calls, %d busy\n", s.ok, s.busy);
    assert_int_equal(s.wrong, 0);
    assert_int_equal(s.ok + s.busy, 2 * 400 * 6);
    assert_true(s.ok > 0);
    assert_int_equal(rv_record_enter(s.record, "a test", &err), RV_OK);
    assert_int_equal(rv_record_check(s.record, &err), RV_ERR_BUSY);
    assert_non_null(strstr(err.message, "another thread"));
    rv_record_leave(s.record);
    assert_int_equal(rv_record_check(s.record, &err), RV_OK);
    rv_record_free(s.record);
    rv_schema_free(s.schema);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(many_threads_submit_cancel_and_free),
        cmocka_unit_test(whoever_waits_is_let_go_when_the_session_is_freed),
        cmocka_unit_test(a_session_that_another_thread_frees_ends_with_the_step),
        cmocka_unit_test(models_and_sessions_side_by_side_answer_as_alone),
        cmocka_unit_test(two_threads_in_one_record_hear_that_it_is_busy),
    };
    return cmocka_run_group_tests(tests, set_up, NULL);
}
