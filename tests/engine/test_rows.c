/* test_rows.c - several answering jobs at a time, on the demo model: joining, leaving, ending in every way. */
#include "tests/engine/session_kit.h"

enum { KINDS = 5 };

/* Greedy, sampled in several ways, and penalised; each about 20 tokens. */
static rv_request kind_of(int kind) {
    static const rv_request kinds[KINDS] = {
        { .prompt = "What is the total?", .max_tokens = 19 },
        { .prompt = "Read all the text.", .max_tokens = 23, .temperature = 1.3f, .top_k = 20, .top_p = 1, .seed = 3 },
        { .prompt = "Read all the text.", .max_tokens = 17, .temperature = 0.9f, .top_k = UINT32_MAX, .top_p = 0.9f, .repetition_penalty = 1.3f, .seed = 4 },
        { .prompt = "What is the date?", .max_tokens = 21, .repetition_penalty = 1.5f },
        { .prompt = "Read all the text.", .max_tokens = 25, .temperature = 2, .top_k = UINT32_MAX, .top_p = 1, .seed = UINT64_MAX },
    };
    rv_request r = kinds[kind];
    r.size = sizeof r;
    r.flags = RV_REQUEST_IGNORE_STOP;
    return r;
}

/* Same ids, and log-probabilities to the bit. */
static void assert_same_answer(const rv_job *a, const rv_job *b) {
    const int32_t *x, *y;
    const float *p, *q;
    uint32_t n = rv_job_tokens(a, &x, &p);
    assert_true(n > 0);
    assert_int_equal(rv_job_tokens(b, &y, &q), n);
    assert_memory_equal(x, y, n * sizeof *x);
    assert_memory_equal(p, q, n * sizeof *p);
}

static void step(rv_session *s, int times) {
    rv_error err;
    while (times--)
        if (rv_step(s, NULL, &err)) fail_msg("%s", err.message);
}

static void mixed_rows_that_join_and_leave_answer_as_they_do_alone(void **state) {
    (void)state;
    rv_session *alone = session(1, 0), *batch = session(4, 0);
    rv_job *jobs[2 * KINDS], *receipt;
    for (int i = 0; i < 2 * KINDS; i++) {                           /* more than slots: each leaves its slot to another */
        rv_request r = kind_of(i % KINDS);
        jobs[i] = submit(batch, &r);
        step(batch, i % 3 * 2);
    }
    receipt = submit_receipt(batch, &receipts[4]);
    finish_all(batch);
    for (int i = 0; i < 2 * KINDS; i++) {
        rv_request r = kind_of(i % KINDS);
        rv_job *job = submit(alone, &r);
        finish_all(alone);
        assert_int_equal(rv_job_tokens(job, NULL, NULL), r.max_tokens);
        assert_same_answer(job, jobs[i]);
        rv_job_free(job);
        rv_job_free(jobs[i]);
    }
    assert_answer(receipt, &receipts[4]);
    rv_job_free(receipt);
    rv_session_free(alone);
    rv_session_free(batch);
}

/* The long prompt is read in several chunks, a turn each, between the other's tokens. */
static void an_answer_goes_on_while_a_long_prompt_is_read(void **state) {
    (void)state;
    enum { WORDS = 600 };
    rv_session *s, *alone;
    rv_error err;
    rv_session_options o = { .size = sizeof o, .context = 2048, .slots = 2 };
    static char words[2 * WORDS + 1];
    for (int i = 0; i < WORDS; i++) memcpy(words + 2 * i, "7 ", 2);
    if (rv_session_new(model, &o, &s, &err) || rv_session_new(model, &o, &alone, &err)) fail_msg("%s", err.message);
    rv_request answer = kind_of(4), prompt = { .size = sizeof prompt, .prompt = words, .max_tokens = 3, .flags = RV_REQUEST_IGNORE_STOP };
    rv_job *a = submit(s, &answer), *b, *jobs[2] = { submit(alone, &answer), NULL };
    const int32_t *ids;
    step(s, 4);
    b = submit(s, &prompt);
    finish_all(s);
    assert_in_range(rv_job_prompt(b, &ids), 1025, 2048);     /* more than a chunk of any backend */
    finish_all(alone);
    jobs[1] = submit(alone, &prompt);
    finish_all(alone);
    assert_same_answer(a, jobs[0]);
    assert_same_answer(b, jobs[1]);
    rv_job_free(a);
    rv_job_free(b);
    for (int i = 0; i < 2; i++) rv_job_free(jobs[i]);
    rv_session_free(s);
    rv_session_free(alone);
}

static void every_step_gives_each_answering_job_one_token(void **state) {
    (void)state;
    rv_session *s = session(3, 0);
    heard h[3] = { { .tokens = 0 } };
    static const int joins[] = { 0, 4, 9 };
    rv_job *jobs[3] = { NULL };
    for (int turn = 0; turn < 60; turn++) {
        uint32_t before[3];
        for (int i = 0; i < 3; i++) {
            rv_request r = kind_of(i);
            r.on_token = hear;
            r.user = &h[i];
            if (turn == joins[i]) jobs[i] = submit(s, &r);
            before[i] = h[i].tokens;
        }
        step(s, 1);
        for (int i = 0; i < 3; i++)
            if (before[i] > 0) assert_int_equal(h[i].tokens, before[i] + (before[i] < kind_of(i).max_tokens));
    }
    for (int i = 0; i < 3; i++) {
        assert_int_equal(h[i].tokens, kind_of(i).max_tokens);
        rv_job_free(jobs[i]);
    }
    rv_session_free(s);
}

/* Five ways to end, all while another answers; nobody sees a token beyond its own end. */
static void jobs_end_in_every_way_while_others_go_on(void **state) {
    (void)state;
    static const char *const stops[] = { "\nDATE" };
    rv_session *s = session(5, 0);
    heard by_text = { .tokens = 0 }, by_callback = { .stop_after = 6 }, by_length = { .tokens = 0 }, by_cancel = { .tokens = 0 };
    rv_image image = image_of(&receipts[0]);
    rv_request r = { .size = sizeof r, .images = &image, .n_images = 1, .prompt = receipts[0].prompt, .on_token = hear };
    rv_job *whole = submit_receipt(s, &receipts[1]), *jobs[4];
    r.stop = stops, r.n_stop = 1, r.user = &by_text;
    jobs[0] = submit(s, &r);
    r.stop = NULL, r.n_stop = 0, r.user = &by_callback;
    jobs[1] = submit(s, &r);
    r.max_tokens = 9, r.user = &by_length;
    jobs[2] = submit(s, &r);
    r.max_tokens = 0, r.user = &by_cancel;
    jobs[3] = submit(s, &r);
    while (by_cancel.tokens < 4) step(s, 1);
    rv_cancel(jobs[3]);
    finish_all(s);
    assert_answer(whole, &receipts[1]);
    assert_int_equal(rv_job_get_state(jobs[0]), RV_JOB_COMPLETE);
    assert_int_equal(strlen(rv_job_text(jobs[0], NULL)), strstr(receipts[0].answer, "\nDATE") - receipts[0].answer);
    assert_int_equal(rv_job_get_state(jobs[1]), RV_JOB_CANCELLED);
    assert_int_equal(by_callback.tokens, 6);
    assert_int_equal(rv_job_get_state(jobs[2]), RV_JOB_CUT_SHORT);
    assert_int_equal(by_length.tokens, 9);
    assert_int_equal(rv_job_get_state(jobs[3]), RV_JOB_CANCELLED);
    assert_int_equal(by_cancel.tokens, 4);
    const heard *heards[] = { &by_text, &by_callback, &by_length, &by_cancel };
    for (int i = 0; i < 4; i++) {
        const int32_t *ids;
        uint32_t n = rv_job_tokens(jobs[i], &ids, NULL);
        assert_int_equal(n, heards[i]->tokens);
        assert_memory_equal(ids, receipts[0].answer_ids, n * sizeof *ids);
        rv_job_free(jobs[i]);
    }
    rv_job_free(whole);
    rv_session_free(s);
}

/* The one that ended may have computed a step more; its slot's keys and flags are the next one's. */
static void a_slot_that_changes_hands_gives_what_a_new_session_gives(void **state) {
    (void)state;
    static const char *const stops[] = { "\nDATE" };
    rv_session *used = session(1, 0), *fresh = session(1, 0);
    rv_image image = image_of(&receipts[0]);
    rv_request first = { .size = sizeof first, .images = &image, .n_images = 1, .prompt = receipts[0].prompt, .stop = stops, .n_stop = 1,
                         .repetition_penalty = 1.05f };
    for (int kind = 0; kind < KINDS; kind++) {
        rv_request r = kind_of(kind);
        rv_job *a = submit(used, &first), *b = submit(used, &r), *c = submit(fresh, &r);
        finish_all(used);
        finish_all(fresh);
        assert_same_answer(b, c);
        rv_job_free(a);
        rv_job_free(b);
        rv_job_free(c);
        rv_session_free(fresh);
        fresh = session(1, 0);
    }
    rv_session_free(used);
    rv_session_free(fresh);
}

static void a_context_is_used_to_its_last_position_while_others_go_on(void **state) {
    (void)state;
    rv_session *s;
    rv_error err;
    rv_session_options o = { .size = sizeof o, .context = 40, .slots = 2 };
    if (rv_session_new(model, &o, &s, &err)) fail_msg("%s", err.message);
    rv_job *jobs[3];
    const int32_t *ids;
    for (int i = 0; i < 3; i++) {
        jobs[i] = submit_receipt(s, &receipts[i]);
        step(s, 5);
    }
    finish_all(s);
    for (int i = 0; i < 3; i++) {
        assert_int_equal(rv_job_get_state(jobs[i]), RV_JOB_CUT_SHORT);
        int32_t n = 40 - receipts[i].n_prompt;
        assert_int_equal(rv_job_tokens(jobs[i], &ids, NULL), n);
        assert_memory_equal(ids, receipts[i].answer_ids, (size_t)n * sizeof *ids);
        rv_job_free(jobs[i]);
    }
    rv_session_free(s);
}

static void a_session_may_be_freed_in_the_middle_of_answers(void **state) {
    (void)state;
    rv_session *s = session(2, 0), *other = session(1, 0);
    rv_request r = kind_of(2);
    rv_job *a = submit(s, &r), *b = submit_receipt(s, &receipts[2]), *c = submit_receipt(other, &receipts[3]);
    step(s, 6);
    step(other, 5);
    rv_session_free(s);
    assert_int_equal(rv_job_get_state(a), RV_JOB_CANCELLED);
    assert_int_equal(rv_job_get_state(b), RV_JOB_CANCELLED);
    finish_all(other);
    assert_answer(c, &receipts[3]);
    rv_job_free(a);
    rv_job_free(b);
    rv_job_free(c);
    rv_session_free(other);
}

static void two_sessions_take_turns_on_one_model(void **state) {
    (void)state;
    rv_session *s[2] = { session(2, 0), session(2, 0) };
    rv_job *jobs[4];
    for (int i = 0; i < 4; i++) jobs[i] = submit_receipt(s[i % 2], &receipts[4 + i]);
    for (int i = 0; i < 30; i++) step(s[i % 2], 1);
    for (int i = 0; i < 2; i++) finish_all(s[i]);
    for (int i = 0; i < 4; i++) {
        assert_answer(jobs[i], &receipts[4 + i]);
        rv_job_free(jobs[i]);
    }
    for (int i = 0; i < 2; i++) rv_session_free(s[i]);
}

int main(void) {
#ifdef RV_TEST_GPU
    if (rv_device_count(RV_BACKEND_CUDA) == 0) return puts("skipped: no GPU"), 77;
#endif
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(mixed_rows_that_join_and_leave_answer_as_they_do_alone),
        cmocka_unit_test(an_answer_goes_on_while_a_long_prompt_is_read),
        cmocka_unit_test(every_step_gives_each_answering_job_one_token),
        cmocka_unit_test(jobs_end_in_every_way_while_others_go_on),
        cmocka_unit_test(a_slot_that_changes_hands_gives_what_a_new_session_gives),
        cmocka_unit_test(a_context_is_used_to_its_last_position_while_others_go_on),
        cmocka_unit_test(a_session_may_be_freed_in_the_middle_of_answers),
        cmocka_unit_test(two_sessions_take_turns_on_one_model),
    };
    return cmocka_run_group_tests(tests, set_up, tear_down);
}
