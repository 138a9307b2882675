/* test_session.c - the public interface, end to end, on the demo model. */
#include <setjmp.h>
#include <stdarg.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <cmocka.h>

#include "tests/engine/session_kit.h"

/* Each receipt asked alone, one after the other: once, for both sentences that want it. */
static rv_session *alone_session;
static rv_job *alone_jobs[DEMO_RECEIPTS];

static const rv_job *alone(int i) {
    if (!alone_session) alone_session = session(1, 0);
    if (!alone_jobs[i]) {
        alone_jobs[i] = submit_receipt(alone_session, &receipts[i]);
        finish_all(alone_session);
    }
    return alone_jobs[i];
}

static void drop_alone(void) {
    for (int i = 0; i < DEMO_RECEIPTS; i++) {
        rv_job_free(alone_jobs[i]);
        alone_jobs[i] = NULL;
    }
    rv_session_free(alone_session);
    alone_session = NULL;
}

static void eight_receipts_are_answered_id_for_id(void **state) {
    (void)state;
    for (int i = 0; i < DEMO_RECEIPTS; i++) assert_answer(alone(i), &receipts[i]);
}

static void a_batch_gives_every_job_the_answer_and_probabilities_it_gets_alone(void **state) {
    (void)state;
    rv_session *batch = session(DEMO_ASKED - 1, 0);                 /* one waits for a place */
    rv_job *jobs[DEMO_ASKED];
    for (int i = 0; i < DEMO_ASKED; i++) jobs[i] = submit_receipt(batch, &receipts[i]);
    finish_all(batch);
    for (int i = 0; i < DEMO_ASKED; i++) {
        const float *a, *b;
        assert_answer(jobs[i], &receipts[i]);
        uint32_t n = rv_job_tokens(alone(i), NULL, &a);
        assert_int_equal(rv_job_tokens(jobs[i], NULL, &b), n);
        assert_memory_equal(a, b, n * sizeof *a);                   /* bit for bit */
        rv_job_free(jobs[i]);
    }
    rv_session_free(batch);
    drop_alone();
}

static void text_only_and_image_requests_share_a_batch(void **state) {
    (void)state;
    rv_session *s = session(3, 0), *alone = session(1, 0);
    rv_request text = { .size = sizeof text, .prompt = "What is the total?", .max_tokens = 8 };
    rv_job *a = submit(s, &text), *b = submit_receipt(s, &receipts[1]), *c = submit(alone, &text);
    const int32_t *x, *y;
    finish_all(s);
    finish_all(alone);
    assert_answer(b, &receipts[1]);
    uint32_t n = rv_job_tokens(a, &x, NULL);
    assert_true(n > 0);
    assert_int_equal(rv_job_tokens(c, &y, NULL), n);
    assert_memory_equal(x, y, n * sizeof *x);
    rv_job_free(a);
    rv_job_free(b);
    rv_job_free(c);
    rv_session_free(s);
    rv_session_free(alone);
}

static void a_shared_picture_is_computed_once_for_several_prompts(void **state) {
    (void)state;
    static const char *const prompts[] = { "Extract the receipt as KEY: VALUE lines.", "What is the total?", "What is the date?" };
    rv_session *s = session(2, 1);
    rv_picture *picture;
    rv_image image = image_of(&receipts[2]);
    rv_error err;
    rv_job *jobs[3];
    uint32_t computed = 0;
    if (rv_picture_new(s, &image, &picture, &err)) fail_msg("%s", err.message);
    for (int i = 0; i < 3; i++) {
        rv_part parts[] = { { .size = sizeof(rv_part), .picture = picture }, { .size = sizeof(rv_part), .text = prompts[i] } };
        rv_message message = { .size = sizeof message, .role = "user", .parts = parts, .n_parts = 2 };
        jobs[i] = submit(s, &(rv_request){ .size = sizeof(rv_request), .messages = &message, .n_messages = 1 });
    }
    finish_all(s);
    assert_answer(jobs[0], &receipts[2]);
    for (int i = 0; i < 3; i++) {
        rv_stats stats = { .size = sizeof stats };
        assert_int_equal(rv_job_get_stats(jobs[i], &stats), RV_OK);
        computed += stats.vision_ms > 0;
        assert_true(stats.tower_ms <= stats.vision_ms && (stats.tower_ms > 0) == (stats.vision_ms > 0));
        assert_int_equal(stats.images, 1);
        rv_job_free(jobs[i]);
    }
    assert_int_equal(computed, 1);
    rv_picture_free(picture);
    rv_session_free(s);
}

/* The pool holds one image; an idle picture makes room and is computed again when asked for. */
static void an_idle_picture_makes_room_and_comes_back(void **state) {
    (void)state;
    rv_session *s = session(1, 1);
    rv_picture *picture;
    rv_image image = image_of(&receipts[0]);
    rv_error err;
    if (rv_picture_new(s, &image, &picture, &err)) fail_msg("%s", err.message);
    rv_part parts[] = { { .size = sizeof(rv_part), .picture = picture }, { .size = sizeof(rv_part), .text = receipts[0].prompt } };
    rv_message message = { .size = sizeof message, .role = "user", .parts = parts, .n_parts = 2 };
    rv_request request = { .size = sizeof request, .messages = &message, .n_messages = 1 };
    for (int round = 0; round < 2; round++) {
        rv_job *a = submit(s, &request), *b = submit_receipt(s, &receipts[1]);
        finish_all(s);
        assert_answer(a, &receipts[0]);
        assert_answer(b, &receipts[1]);
        rv_job_free(a);
        rv_job_free(b);
    }
    rv_picture_free(picture);
    rv_session_free(s);
}

/* Its job is cancelled half way through the tower, which then serves others: it must not go on from their states. */
static void a_picture_left_half_seen_is_seen_again(void **state) {
    (void)state;
    rv_session *s = session(3, 3);
    rv_picture *picture;
    rv_image image = image_of(&receipts[1]);
    rv_error err;
    if (rv_picture_new(s, &image, &picture, &err)) fail_msg("%s", err.message);
    rv_part parts[] = { { .size = sizeof(rv_part), .picture = picture }, { .size = sizeof(rv_part), .text = receipts[1].prompt } };
    rv_message message = { .size = sizeof message, .role = "user", .parts = parts, .n_parts = 2 };
    rv_request request = { .size = sizeof request, .messages = &message, .n_messages = 1 };
    rv_job *answering = submit_receipt(s, &receipts[0]);
    while (rv_job_tokens(answering, NULL, NULL) == 0) assert_int_equal(rv_step(s, NULL, &err), RV_OK);
    rv_job *left = submit(s, &request);
    assert_int_equal(rv_step(s, NULL, &err), RV_OK);             /* a slice, as somebody is answering */
    assert_int_equal(rv_job_get_state(left), RV_JOB_RUNNING);
    rv_cancel(left);
    rv_job *other = submit_receipt(s, &receipts[2]);
    finish_all(s);
    rv_job *again = submit(s, &request);
    finish_all(s);
    assert_int_equal(rv_job_get_state(left), RV_JOB_CANCELLED);
    assert_answer(answering, &receipts[0]);
    assert_answer(other, &receipts[2]);
    assert_answer(again, &receipts[1]);
    rv_job *all[] = { answering, left, other, again };
    for (int i = 0; i < 4; i++) rv_job_free(all[i]);
    rv_picture_free(picture);
    rv_session_free(s);
}

static void more_tiles_than_the_session_holds_is_an_error(void **state) {
    (void)state;
    rv_session *s = session(1, 1);
    rv_image images[] = { image_of(&receipts[0]), image_of(&receipts[1]) };
    rv_request request = { .size = sizeof request, .images = images, .n_images = 2, .prompt = "Read." };
    rv_error err;
    rv_job *job = NULL;
    assert_int_equal(rv_submit(s, &request, &job, &err), RV_ERR_TOO_LONG);
    assert_null(job);
    assert_non_null(strstr(err.message, "more images"));
    rv_session_free(s);
}

/* ---- callbacks and stops ---- */

static void hear_end(void *user, rv_job *job) {
    ((heard *)user)->done++;
    rv_job_free(job);
}

static void streamed_pieces_are_the_whole_text(void **state) {
    (void)state;
    rv_session *s = session(1, 0);
    heard h = { .tokens = 0 };
    rv_image image = image_of(&receipts[3]);
    rv_request request = { .size = sizeof request, .images = &image, .n_images = 1, .prompt = receipts[3].prompt,
                           .on_token = hear, .on_done = hear_end, .user = &h };
    submit(s, &request);
    finish_all(s);
    assert_int_equal(h.done, 1);
    assert_int_equal(h.tokens, receipts[3].n_answer);
    h.text[h.bytes] = '\0';
    assert_string_equal(h.text, receipts[3].answer);
    rv_session_free(s);
}

static void a_stop_string_ends_the_answer_and_never_reaches_the_stream(void **state) {
    (void)state;
    static const char *const stops[] = { "\nDATE", "never there" };
    rv_session *s = session(1, 0);
    heard h = { .tokens = 0 };
    rv_image image = image_of(&receipts[0]);
    rv_job *job;
    rv_error err;
    rv_request request = { .size = sizeof request, .images = &image, .n_images = 1, .prompt = receipts[0].prompt,
                           .stop = stops, .n_stop = 2, .on_token = hear, .user = &h };
    if (rv_generate(s, &request, &job, &err)) fail_msg("%s", err.message);
    h.text[h.bytes] = '\0';
    const char *cut = strstr(receipts[0].answer, "\nDATE");
    assert_non_null(cut);
    assert_int_equal(strlen(rv_job_text(job, NULL)), cut - receipts[0].answer);
    assert_string_equal(rv_job_text(job, NULL), h.text);
    assert_int_equal(rv_job_get_state(job), RV_JOB_COMPLETE);
    rv_job_free(job);
    rv_session_free(s);
}

static void a_callback_that_says_stop_cancels_the_job(void **state) {
    (void)state;
    rv_session *s = session(1, 0);
    heard h = { .stop_after = 5 };
    rv_image image = image_of(&receipts[0]);
    rv_job *job = NULL;
    rv_error err;
    rv_request request = { .size = sizeof request, .images = &image, .n_images = 1, .prompt = receipts[0].prompt, .on_token = hear, .user = &h };
    assert_int_equal(rv_generate(s, &request, &job, &err), RV_ERR_CANCELLED);
    assert_null(job);
    assert_int_equal(h.tokens, 5);
    rv_session_free(s);
}

static void cancelled_jobs_end_and_the_others_go_on(void **state) {
    (void)state;
    rv_session *s = session(2, 0);
    rv_job *a = submit_receipt(s, &receipts[0]), *b = submit_receipt(s, &receipts[1]), *c = submit_receipt(s, &receipts[2]);
    rv_error err;
    uint32_t active;
    for (int i = 0; i < 6; i++) assert_int_equal(rv_step(s, &active, &err), RV_OK);
    rv_cancel(a);
    rv_cancel(c);
    finish_all(s);
    assert_int_equal(rv_job_get_state(a), RV_JOB_CANCELLED);
    assert_int_equal(rv_job_get_state(c), RV_JOB_CANCELLED);
    assert_int_equal(rv_job_get_error(a, &err), RV_ERR_CANCELLED);
    assert_answer(b, &receipts[1]);
    rv_job_free(a);
    rv_job_free(b);
    rv_job_free(c);
    rv_session_free(s);
}

static void max_tokens_cuts_the_answer_short(void **state) {
    (void)state;
    rv_session *s = session(1, 0);
    rv_image image = image_of(&receipts[0]);
    rv_request request = { .size = sizeof request, .images = &image, .n_images = 1, .prompt = receipts[0].prompt, .max_tokens = 7 };
    rv_job *job;
    rv_error err;
    const int32_t *ids;
    if (rv_generate(s, &request, &job, &err)) fail_msg("%s", err.message);
    assert_int_equal(rv_job_get_state(job), RV_JOB_CUT_SHORT);
    assert_int_equal(rv_job_tokens(job, &ids, NULL), 7);
    assert_memory_equal(ids, receipts[0].answer_ids, 7 * sizeof *ids);
    rv_job_free(job);
    rv_session_free(s);
}

static void a_context_that_is_full_cuts_the_answer_short(void **state) {
    (void)state;
    rv_session *s;
    rv_error err;
    rv_session_options o = { .size = sizeof o, .context = 40 };
    if (rv_session_new(model, &o, &s, &err)) fail_msg("%s", err.message);
    rv_job *job = submit_receipt(s, &receipts[0]);
    finish_all(s);
    assert_int_equal(rv_job_get_state(job), RV_JOB_CUT_SHORT);
    assert_int_equal(rv_job_tokens(job, NULL, NULL), 40 - receipts[0].n_prompt);
    rv_job_free(job);
    char words[400];
    memset(words, 'a', sizeof words - 1);
    for (size_t i = 3; i < sizeof words; i += 4) words[i] = ' ';
    words[sizeof words - 1] = '\0';
    assert_int_equal(rv_submit(s, &(rv_request){ .size = sizeof(rv_request), .prompt = words }, &job, &err), RV_ERR_TOO_LONG);
    rv_session_free(s);
}

/* ---- sampling ---- */

static void a_seed_gives_the_same_answer_alone_and_in_a_batch(void **state) {
    (void)state;
    rv_session *alone = session(1, 0), *batch = session(4, 0);
    rv_request request = { .size = sizeof request, .prompt = "Read all the text.", .max_tokens = 24, .temperature = 1.5f, .top_k = UINT32_MAX, .top_p = 1, .seed = 7 };
    rv_job *a = submit(alone, &request), *jobs[4];
    const int32_t *ids, *other;
    int different = 0;
    finish_all(alone);
    for (uint64_t i = 0; i < 4; i++) {
        request.seed = 7 + i;
        jobs[i] = submit(batch, &request);
    }
    finish_all(batch);
    uint32_t n = rv_job_tokens(a, &ids, NULL);
    for (int i = 0; i < 4; i++) {
        uint32_t m = rv_job_tokens(jobs[i], &other, NULL);
        bool same = m == n && !memcmp(ids, other, n * sizeof *ids);
        if (i == 0) assert_true(same);
        different += !same;
        rv_job_free(jobs[i]);
    }
    assert_true(different >= 2);
    rv_job_free(a);
    rv_session_free(alone);
    rv_session_free(batch);
}

/* ---- memory, errors, lives ---- */

static void the_plan_is_what_is_taken(void **state) {
    (void)state;
    static const rv_compute computes[] = { DEMO_COMPUTE, DEMO_OTHER_COMPUTE };
    for (int i = 0; i < 2; i++) {
        rv_compute compute = computes[i];
        rv_error err;
        rv_model *m;
        rv_session *s;
        rv_load_options load = { .size = sizeof load, .backend = DEMO_BACKEND, .compute = compute, .kernels = DEMO_KERNELS };
        rv_session_options o = { .size = sizeof o, .slots = 3, .context = 700, .images = 5 };
        rv_memory plan = { .size = sizeof plan }, has = { .size = sizeof has }, holds = { .size = sizeof holds };
        rv_status st = rv_memory_plan(RV_TEST_DEMO "/model", &load, &o, &plan, &err);
        if (i > 0 && st == RV_ERR_UNSUPPORTED) continue;                 /* this CPU has no bf16 */
        if (st || rv_model_load(RV_TEST_DEMO "/model", &load, &m, &err) || rv_session_new(m, &o, &s, &err)) fail_msg("%s", err.message);
        assert_int_equal(rv_model_memory(m, &has, &err), RV_OK);
        assert_int_equal(rv_session_memory(s, &holds, &err), RV_OK);
        assert_int_equal(plan.weights, has.weights);
        assert_int_equal(plan.mapped, has.mapped);
        assert_int_equal(plan.cache, holds.cache);
        assert_int_equal(plan.scratch, has.scratch + holds.scratch);
        assert_int_equal(plan.total, plan.weights + plan.cache + plan.scratch);
        assert_true(plan.fits);
        assert_true(plan.cache_per_token > 0 && plan.cache_per_tile > 0);
        rv_session_free(s);
        rv_model_free(m);
    }
}

static void a_memory_limit_is_kept(void **state) {
    (void)state;
    rv_error err;
    rv_model *m;
    rv_session *s = NULL;
    rv_memory plan = { .size = sizeof plan };
    rv_load_options load = { .size = sizeof load, .backend = DEMO_BACKEND, .compute = DEMO_COMPUTE, .memory_limit = 1000000 };
    assert_int_equal(rv_model_load(RV_TEST_DEMO "/model", &load, &m, &err), RV_ERR_DEVICE_MEMORY);
    assert_int_equal(rv_memory_plan(RV_TEST_DEMO "/model", &load, NULL, &plan, &err), RV_OK);
    assert_false(plan.fits);
    load.memory_limit = plan.total + 1000;
    if (rv_model_load(RV_TEST_DEMO "/model", &load, &m, &err)) fail_msg("%s", err.message);
    assert_int_equal(rv_session_new(m, NULL, &s, &err), RV_ERR_DEVICE_MEMORY);
    assert_null(s);
    assert_non_null(strstr(err.message, "fewer slots"));
    rv_model_free(m);
}

static void a_full_queue_is_an_error_and_takes_nothing(void **state) {
    (void)state;
    rv_session *s;
    rv_error err;
    rv_session_options o = { .size = sizeof o, .queue = 2 };
    if (rv_session_new(model, &o, &s, &err)) fail_msg("%s", err.message);
    rv_request request = { .size = sizeof request, .prompt = "What is the total?", .max_tokens = 2 };
    rv_job *a = submit(s, &request), *b = submit(s, &request), *c = NULL;
    assert_int_equal(rv_submit(s, &request, &c, &err), RV_ERR_FULL);
    assert_null(c);
    finish_all(s);
    rv_job_free(a);
    rv_job_free(b);
    rv_session_free(s);
}

static void handles_may_be_freed_in_any_order(void **state) {
    (void)state;
    rv_model *m = demo_model(0);
    rv_session *s;
    rv_picture *picture;
    rv_error err;
    rv_image image = image_of(&receipts[1]);
    if (rv_session_new(m, NULL, &s, &err) || rv_picture_new(s, &image, &picture, &err)) fail_msg("%s", err.message);
    rv_job *ended = submit_receipt(s, &receipts[1]);
    rv_model_free(m);
    finish_all(s);
    rv_job *waiting = submit_receipt(s, &receipts[0]);
    rv_job_free(submit_receipt(s, &receipts[0]));           /* nobody waits for this one */
    rv_session_free(s);
    assert_answer(ended, &receipts[1]);
    assert_int_equal(rv_job_get_state(waiting), RV_JOB_CANCELLED);
    rv_job_free(waiting);
    rv_picture_free(picture);
    rv_job_free(ended);
}

static void structs_of_older_and_newer_callers_are_understood(void **state) {
    (void)state;
    rv_session *s = session(1, 0);
    rv_error err;
    rv_job *job = NULL;
    struct { rv_request request; uint64_t future; } newer = { { .size = sizeof newer, .prompt = "Hi", .max_tokens = 1 }, 0 };
    if (rv_generate(s, &newer.request, &job, &err)) fail_msg("%s", err.message);
    rv_job_free(job);
    newer.future = 1;
    assert_int_equal(rv_submit(s, &newer.request, &job, &err), RV_ERR_ABI);
    rv_request older = { .size = offsetof(rv_request, stop), .prompt = "Hi", .max_tokens = 1, .n_stop = 9 };    /* beyond its size: not read */
    if (rv_generate(s, &older, &job, &err)) fail_msg("%s", err.message);
    rv_job_free(job);
    rv_request none = { .prompt = "Hi" };
    assert_int_equal(rv_submit(s, &none, &job, &err), RV_ERR_ARGUMENT);
    rv_session_free(s);
}

static void bad_requests_are_errors(void **state) {
    (void)state;
    rv_session *s = session(1, 0);
    rv_error err;
    rv_job *job = NULL;
    rv_image image = image_of(&receipts[0]), cut = image, pixels = { .size = sizeof pixels, .data = "abc", .bytes = 3, .width = 2, .height = 1 };
    rv_image tiles = image;
    cut.bytes /= 2;
    tiles.max_tiles = 3;
    const struct { rv_request r; rv_status st; } bad[] = {
        { { .prompt = NULL }, RV_ERR_ARGUMENT },
        { { .prompt = "a", .raw = "b" }, RV_ERR_ARGUMENT },
        { { .prompt = "a\xff" }, RV_ERR_FORMAT },
        { { .raw = "no image here", .images = &image, .n_images = 1 }, RV_ERR_ARGUMENT },
        { { .raw = "<|image|>and none given" }, RV_ERR_ARGUMENT },
        { { .prompt = "a", .images = &cut, .n_images = 1 }, RV_ERR_FORMAT },
        { { .prompt = "a", .images = &pixels, .n_images = 1 }, RV_ERR_ARGUMENT },
        { { .prompt = "a", .images = &tiles, .n_images = 1 }, RV_ERR_ARGUMENT },
        { { .prompt = "a", .temperature = -1 }, RV_ERR_ARGUMENT },
        { { .prompt = "a", .temperature = 1, .top_p = 2 }, RV_ERR_ARGUMENT },
        { { .prompt = "a", .n_stop = 1 }, RV_ERR_ARGUMENT },
    };
    for (size_t i = 0; i < sizeof bad / sizeof *bad; i++) {
        rv_request r = bad[i].r;
        r.size = sizeof r;
        rv_status st = rv_submit(s, &r, &job, &err);
        if (st != bad[i].st) fail_msg("request %zu: %s instead of %s: %s", i, rv_status_name(st), rv_status_name(bad[i].st), err.message);
        assert_true(strlen(err.message) > 10);
        assert_null(job);
    }
    rv_session_free(s);
}

static int32_t step_inside(void *user, rv_job *job, const rv_token *token) {
    rv_error err;
    (void)job, (void)token;
    assert_int_equal(rv_step(user, NULL, &err), RV_ERR_BUSY);
    return 0;
}

static void stepping_inside_a_callback_is_busy(void **state) {
    (void)state;
    rv_session *s = session(1, 0);
    rv_error err;
    rv_job *job;
    rv_request r = { .size = sizeof r, .prompt = "Hi", .max_tokens = 2, .on_token = step_inside, .user = s };
    if (rv_generate(s, &r, &job, &err)) fail_msg("%s", err.message);
    rv_job_free(job);
    rv_session_free(s);
}

int main(void) {
#ifdef RV_TEST_GPU
    if (rv_device_count(RV_BACKEND_CUDA) == 0) return puts("skipped: no GPU"), 77;
#endif
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(eight_receipts_are_answered_id_for_id),
        cmocka_unit_test(a_batch_gives_every_job_the_answer_and_probabilities_it_gets_alone),
        cmocka_unit_test(text_only_and_image_requests_share_a_batch),
        cmocka_unit_test(a_shared_picture_is_computed_once_for_several_prompts),
        cmocka_unit_test(an_idle_picture_makes_room_and_comes_back),
        cmocka_unit_test(a_picture_left_half_seen_is_seen_again),
        cmocka_unit_test(more_tiles_than_the_session_holds_is_an_error),
        cmocka_unit_test(streamed_pieces_are_the_whole_text),
        cmocka_unit_test(a_stop_string_ends_the_answer_and_never_reaches_the_stream),
        cmocka_unit_test(a_callback_that_says_stop_cancels_the_job),
        cmocka_unit_test(cancelled_jobs_end_and_the_others_go_on),
        cmocka_unit_test(max_tokens_cuts_the_answer_short),
        cmocka_unit_test(a_context_that_is_full_cuts_the_answer_short),
        cmocka_unit_test(a_seed_gives_the_same_answer_alone_and_in_a_batch),
        cmocka_unit_test(the_plan_is_what_is_taken),
        cmocka_unit_test(a_memory_limit_is_kept),
        cmocka_unit_test(a_full_queue_is_an_error_and_takes_nothing),
        cmocka_unit_test(handles_may_be_freed_in_any_order),
        cmocka_unit_test(structs_of_older_and_newer_callers_are_understood),
        cmocka_unit_test(bad_requests_are_errors),
        cmocka_unit_test(stepping_inside_a_callback_is_busy),
    };
    return cmocka_run_group_tests(tests, set_up, tear_down);
}
