/* session_kit.h - what tests of sessions begin with: the demo model, its receipts, jobs about them. */
#ifndef RV_TESTS_ENGINE_SESSION_KIT_H
#define RV_TESTS_ENGINE_SESSION_KIT_H
#include <setjmp.h>
#include <stdarg.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <cmocka.h>

#include "tests/engine/demo.h"

static demo_receipt receipts[DEMO_RECEIPTS];
static rv_model *model;

static int set_up(void **state) {
    (void)state;
    demo_read(receipts);
    model = demo_model(0);
    return 0;
}

static int tear_down(void **state) {
    (void)state;
    rv_model_free(model);
    demo_free(receipts);
    return 0;
}

static rv_session *session(uint32_t slots, uint32_t images) {
    rv_error err;
    rv_session *s;
    rv_session_options o = { .size = sizeof o, .slots = slots, .images = images, .context = 512, .queue = 16 };
    if (rv_session_new(model, &o, &s, &err)) fail_msg("%s", err.message);
    return s;
}

static rv_image image_of(const demo_receipt *r) { return (rv_image){ .size = sizeof(rv_image), .data = r->file, .bytes = r->bytes }; }

static rv_job *submit(rv_session *s, const rv_request *request) {
    rv_error err;
    rv_job *job;
    if (rv_submit(s, request, &job, &err)) fail_msg("%s", err.message);
    return job;
}

static rv_job *submit_receipt(rv_session *s, const demo_receipt *r) {
    rv_image image = image_of(r);
    return submit(s, &(rv_request){ .size = sizeof(rv_request), .images = &image, .n_images = 1, .prompt = r->prompt });
}

static void finish_all(rv_session *s) {
    rv_error err;
    for (uint32_t active = 1; active;)
        if (rv_step(s, &active, &err)) fail_msg("%s", err.message);
}

static void assert_answer(const rv_job *job, const demo_receipt *r) {
    const int32_t *ids;
    rv_error err;
    if (rv_job_get_error(job, &err)) fail_msg("%s", err.message);
    assert_int_equal(rv_job_get_state(job), RV_JOB_COMPLETE);
    assert_int_equal(rv_job_prompt(job, &ids), r->n_prompt);
    assert_memory_equal(ids, r->prompt_ids, (size_t)r->n_prompt * sizeof *ids);
    assert_int_equal(rv_job_tokens(job, &ids, NULL), r->n_answer);
    assert_memory_equal(ids, r->answer_ids, (size_t)r->n_answer * sizeof *ids);
    assert_string_equal(rv_job_text(job, NULL), r->answer);
}

/* ---- listening ---- */

typedef struct heard { char text[2048]; size_t bytes; uint32_t tokens, stop_after; int done; } heard;

static int32_t hear(void *user, rv_job *job, const rv_token *token) {
    heard *h = user;
    (void)job;
    assert_int_equal(token->index, h->tokens);
    assert_true(token->logprob <= 0);
    memcpy(h->text + h->bytes, token->text, token->bytes);
    h->bytes += token->bytes;
    return ++h->tokens == h->stop_after;
}
#endif
