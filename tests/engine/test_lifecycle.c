/* test_lifecycle.c - handles made, freed and freed in the wrong moment: a small random model, many times. */
#include <setjmp.h>
#include <stdarg.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <cmocka.h>
#include <dirent.h>
#include <malloc.h>
#include <unistd.h>

#include "engine/rvconstraint.h"
#include "engine/rvdocument.h"
#include "extract/schema.h"

#define TINY RV_TEST_TMP "/lifecycle_tiny"

static uint8_t grey[64 * 64 * 3];
static const rv_image page = { .size = sizeof page, .data = grey, .bytes = sizeof grey, .width = 64, .height = 64 };

static int set_up(void **state) {
    rv_error err;
    rv_synth_options shape = { .size = sizeof shape, .shape = "tiny", .outliers = -1 };
    (void)state;
    memset(grey, 128, sizeof grey);
    if (access(TINY "/config.json", R_OK) && rv_synthesise(TINY, &shape, NULL, &err)) fail_msg("%s", err.message);
    return 0;
}

static rv_model *tiny(void) {
    rv_error err;
    rv_model *model;
    rv_load_options load = { .size = sizeof load, .backend = RV_BACKEND_CPU, .threads = 2 };
    if (rv_model_load(TINY, &load, &model, &err)) fail_msg("%s", err.message);
    return model;
}

static rv_session *session_of(rv_model *model, uint32_t slots) {
    rv_error err;
    rv_session *s;
    rv_session_options room = { .size = sizeof room, .slots = slots, .queue = 16, .context = 512, .images = 2 };
    if (rv_session_new(model, &room, &s, &err)) fail_msg("%s", err.message);
    return s;
}

/* A session of a model that nobody else holds. */
static rv_session *lone_session(uint32_t slots) {
    rv_model *model = tiny();
    rv_session *s = session_of(model, slots);
    rv_model_free(model);
    return s;
}

static rv_job *submit(rv_session *s, const rv_request *r) {
    rv_error err;
    rv_job *job;
    if (rv_submit(s, r, &job, &err)) fail_msg("%s", err.message);
    return job;
}

static void finish(rv_session *s) {
    rv_error err;
    for (uint32_t active = 1; active;)
        if (rv_step(s, &active, &err)) fail_msg("%s", err.message);
}

static rv_schema *schema_of(const char *name) {
    rv_error err;
    rv_schema *schema;
    if (rv_schema_open(name, &schema, &err)) fail_msg("%s", err.message);
    return schema;
}

/* ---- fields ---- */

static void a_record_holds_its_schema(void **state) {
    rv_error err;
    rv_record *record;
    char *text;
    rv_schema *schema = schema_of("receipt");
    (void)state;
    if (rv_record_new(schema, NULL, &record, &err)) fail_msg("%s", err.message);
    rv_schema_free(schema);
    assert_int_equal(rv_record_put(record, "TOTAL", "$1.20", 5, "given", &err), RV_OK);
    assert_int_equal(rv_record_check(record, &err), RV_OK);
    assert_int_equal(rv_record_write(record, RV_FORM_KV, NULL, &text, NULL, &err), RV_OK);
    assert_non_null(strstr(text, "1.20"));
    rv_text_free(text);
    rv_record_free(record);
}

static void write_schema(const char *path, const char *key) {
    FILE *f = fopen(path, "w");
    assert_non_null(f);
    fprintf(f, "{\"title\": \"T\", \"version\": \"1.0.0\", \"x-doctype\": \"RECEIPT\", \"x-prompt\": \"Read.\", \"type\": \"object\", "
            "\"required\": [\"%s\"], \"properties\": {\"%s\": {\"type\": \"string\", \"x-kind\": \"bool\", \"description\": \"paid or not\"}}}", key, key);
    fclose(f);
}

static rv_record *read_page(rv_reader *reader, const rv_schema *schema) {
    rv_error err;
    rv_record *record;
    rv_read_options how = { .size = sizeof how, .schema = schema, .strategy = RV_STRATEGY_SINGLE, .ocr = RV_OCR_OFF };
    if (rv_read(reader, &page, &how, &record, NULL, &err)) fail_msg("%s", err.message);
    return record;
}

static void a_reader_holds_the_schemas_whose_forms_it_keeps(void **state) {
    rv_error err;
    rv_reader *reader;
    rv_session *s = lone_session(1);
    rv_result result = { .size = sizeof result };
    (void)state;
    if (rv_reader_new(s, &reader, &err)) fail_msg("%s", err.message);
    write_schema(RV_TEST_TMP "/lifecycle.json", "PAID");
    rv_schema *schema = schema_of(RV_TEST_TMP "/lifecycle.json");
    rv_record_free(read_page(reader, schema));
    assert_int_equal(schema->refs, 2);                           /* else a new schema at its address would be taken for it */
    rv_record *record = read_page(reader, schema);
    rv_schema_free(schema);
    assert_int_equal(rv_record_get(record, 0, &result, &err), RV_OK);
    assert_string_equal(result.key, "PAID");
    assert_string_equal(result.source, "constrained");
    rv_record_free(record);
    rv_reader_free(reader);
    rv_session_free(s);
}

/* ---- callbacks ---- */

typedef struct caller { rv_session *session; rv_job *other; const rv_request *again; uint32_t tokens, done, submitted, most; rv_status refused; } caller;

static void submit_again(void *user, rv_job *job) {
    caller *c = user;
    rv_error err;
    rv_job *next;
    c->done++;
    rv_job_free(job);
    if (c->submitted == c->most) return;
    rv_status st = rv_submit(c->session, c->again, &next, &err);
    if (st) c->refused = st;
    else c->submitted++;
}

static void on_done_may_submit_the_next_request(void **state) {
    rv_session *s = lone_session(1);
    (void)state;
    caller c = { .session = s, .most = 5 };
    rv_request r = { .size = sizeof r, .raw = "a", .max_tokens = 2, .on_done = submit_again, .user = &c };
    c.again = &r;
    submit(s, &r);
    finish(s);
    assert_int_equal(c.done, 6);
    assert_int_equal(c.refused, RV_OK);
    rv_session_free(s);
}

static void what_on_done_submits_to_a_session_that_is_freed_is_refused(void **state) {
    rv_session *s = lone_session(1);
    (void)state;
    caller c = { .session = s, .most = 100 };
    rv_request r = { .size = sizeof r, .raw = "a", .max_tokens = 2, .on_done = submit_again, .user = &c };
    c.again = &r;
    submit(s, &r);
    submit(s, &r);
    rv_session_free(s);
    assert_int_equal(c.done, 2);
    assert_int_equal(c.submitted, 0);
    assert_int_equal(c.refused, RV_ERR_CANCELLED);
}

static int32_t free_session(void *user, rv_job *job, const rv_token *token) {
    caller *c = user;
    (void)job, (void)token;
    c->tokens++;
    rv_session_free(c->session);
    return 0;
}

static void count_done(void *user, rv_job *job) {
    (void)job;
    ((caller *)user)->done++;
}

static void a_callback_may_free_its_session(void **state) {
    rv_session *s = lone_session(2);
    rv_error err;
    uint32_t active = 7;
    (void)state;
    caller c = { .session = s };
    rv_request r = { .size = sizeof r, .raw = "a", .max_tokens = 9, .on_token = free_session, .on_done = count_done, .user = &c };
    rv_job *job = submit(s, &r), *waiting = NULL;
    r.on_token = NULL;
    waiting = submit(s, &r);
    for (int i = 0; i < 50 && rv_job_get_state(job) <= RV_JOB_RUNNING; i++) assert_int_equal(rv_step(s, &active, &err), RV_OK);
    assert_int_equal(active, 0);
    assert_int_equal(c.tokens, 1);
    assert_int_equal(c.done, 2);
    assert_int_equal(rv_job_get_state(job), RV_JOB_CANCELLED);
    assert_int_equal(rv_job_get_state(waiting), RV_JOB_CANCELLED);
    rv_job_free(waiting);
    rv_job_free(job);

    c = (caller){ .session = s = lone_session(1) };
    r.on_token = free_session;
    rv_job *none = NULL;
    assert_int_equal(rv_generate(s, &r, &none, &err), RV_ERR_CANCELLED);
    assert_null(none);
    assert_int_equal(c.done, 1);
}

static int32_t generate_inside(void *user, rv_job *job, const rv_token *token) {
    caller *c = user;
    rv_error err;
    rv_job *none;
    (void)job, (void)token;
    c->refused = rv_generate(c->session, c->again, &none, &err);
    return 0;
}

/* Its on_done would be called when `user` may be gone. */
static void a_request_that_rv_generate_refuses_is_not_queued(void **state) {
    rv_session *s = lone_session(2);
    (void)state;
    caller c = { .session = s };
    rv_request inner = { .size = sizeof inner, .raw = "b", .max_tokens = 2, .on_done = count_done, .user = &c };
    rv_request outer = { .size = sizeof outer, .raw = "a", .max_tokens = 2, .on_token = generate_inside, .user = &c };
    c.again = &inner;
    rv_job *job = submit(s, &outer);
    finish(s);
    assert_int_equal(c.refused, RV_ERR_BUSY);
    assert_int_equal(c.done, 0);
    rv_job_free(job);
    rv_session_free(s);
}

static int32_t cancel_both(void *user, rv_job *job, const rv_token *token) {
    caller *c = user;
    (void)token;
    c->tokens++;
    rv_cancel(job);
    if (c->other) rv_job_free(c->other), c->other = NULL;
    return 0;
}

static int32_t free_itself(void *user, rv_job *job, const rv_token *token) {
    (void)token;
    ++((caller *)user)->tokens;
    rv_job_free(job);
    return 0;
}

static void a_callback_may_cancel_and_free_jobs(void **state) {
    rv_session *s = lone_session(3);
    (void)state;
    caller c = { .session = s };
    rv_request r = { .size = sizeof r, .raw = "a", .max_tokens = 20, .on_done = count_done, .user = &c };
    c.other = submit(s, &r);
    r.on_token = cancel_both;
    rv_job *job = submit(s, &r);
    finish(s);
    assert_int_equal(rv_job_get_state(job), RV_JOB_CANCELLED);
    assert_int_equal(rv_job_tokens(job, NULL, NULL), 1);
    assert_int_equal(c.done, 2);
    rv_job_free(job);
    r.on_token = free_itself;
    c.tokens = 0;
    submit(s, &r);
    finish(s);
    assert_int_equal(c.tokens, 1);
    assert_int_equal(c.done, 3);
    rv_session_free(s);
}

/* ---- order ---- */

enum { MODEL, SESSION, PICTURE, ENDED, QUEUED, CONSTRAINT, READER, SCHEMA, RECORD, HANDLES };

static void make_all(void *made[HANDLES]) {
    rv_error err;
    rv_model *model = made[MODEL] = tiny();
    rv_session *s = made[SESSION] = session_of(model, 2);
    rv_picture *picture;
    rv_reader *reader;
    rv_record *record;
    rv_constraint *form;
    rv_key key = { .size = sizeof key, .key = "PAID", .pattern = "yes|no" };
    if (rv_picture_new(s, &page, &picture, &err) || rv_reader_new(s, &reader, &err) || rv_constraint_keys(rv_model_tokenizer(model), &key, 1, &form, &err))
        fail_msg("%s", err.message);
    rv_part parts[] = { { .size = sizeof *parts, .picture = picture }, { .size = sizeof *parts, .text = "paid?" } };
    rv_message message = { .size = sizeof message, .role = "user", .parts = parts, .n_parts = 2 };
    rv_request r = { .size = sizeof r, .messages = &message, .n_messages = 1, .constraint = form, .max_tokens = 12 };
    made[ENDED] = submit(s, &r);
    finish(s);
    made[QUEUED] = submit(s, &r);
    made[SCHEMA] = schema_of("receipt");
    if (rv_record_new(made[SCHEMA], NULL, &record, &err)) fail_msg("%s", err.message);
    made[PICTURE] = picture;
    made[CONSTRAINT] = form;
    made[READER] = reader;
    made[RECORD] = record;
}

static void free_one(int which, void *handle) {
    switch (which) {
    case MODEL: rv_model_free(handle); break;
    case SESSION: rv_session_free(handle); break;
    case PICTURE: rv_picture_free(handle); break;
    case ENDED: case QUEUED: rv_job_free(handle); break;
    case CONSTRAINT: rv_constraint_free(handle); break;
    case READER: rv_reader_free(handle); break;
    case SCHEMA: rv_schema_free(handle); break;
    default: rv_record_free(handle);
    }
}

/* What is left is used once more, as far as it may be. */
static void use_rest(void *made[HANDLES]) {
    rv_error err;
    const rv_key_value *values;
    rv_summary summary = { .size = sizeof summary };
    if (made[ENDED] && rv_job_values(made[ENDED], &values)) assert_string_equal(values->key, "PAID");
    if (made[QUEUED] && !made[SESSION]) assert_true(rv_job_get_state(made[QUEUED]) > RV_JOB_RUNNING);
    if (made[RECORD]) assert_int_equal(rv_record_check(made[RECORD], &err) || rv_record_get_summary(made[RECORD], &summary, &err), 0);
    if (made[SESSION]) rv_step(made[SESSION], NULL, &err);
}

static void handles_may_be_freed_in_every_order(void **state) {
    uint64_t random = 88172645463325252u;
    (void)state;
    for (int round = 0; round < 40; round++) {
        void *made[HANDLES];
        int order[HANDLES];
        make_all(made);
        for (int i = 0; i < HANDLES; i++) {
            random ^= random << 13, random ^= random >> 7, random ^= random << 17;
            int j = (int)(random % (uint64_t)(i + 1));
            order[i] = order[j];
            order[j] = i;
        }
        for (int i = 0; i < HANDLES; i++) {
            free_one(order[i], made[order[i]]);
            made[order[i]] = NULL;
            use_rest(made);
        }
    }
}

/* ---- growth ---- */

static size_t resident(void) {
    unsigned long pages = 0;
    FILE *f = fopen("/proc/self/statm", "r");
    if (f && fscanf(f, "%*u %lu", &pages) != 1) pages = 0;
    if (f) fclose(f);
    return pages * (size_t)sysconf(_SC_PAGESIZE);
}

static int entries(const char *folder) {
    int n = 0;
    DIR *dir = opendir(folder);
    while (dir && readdir(dir)) n++;
    if (dir) closedir(dir);
    return n;
}

static void load_run_free(void) {
    rv_error err;
    rv_job *job;
    rv_session *s = lone_session(1);
    rv_request r = { .size = sizeof r, .images = &page, .n_images = 1, .prompt = "a", .max_tokens = 2 };
    if (rv_generate(s, &r, &job, &err)) fail_msg("%s", err.message);
    rv_job_free(job);
    rv_session_free(s);
}

/* RV_TEST_CYCLES=1000: longer. */
static void loading_and_freeing_again_and_again_takes_nothing(void **state) {
    enum { FIRST = 10 };
    const char *asked = getenv("RV_TEST_CYCLES");
    int cycles = asked ? atoi(asked) : 40;
    (void)state;
    for (int i = 0; i < FIRST; i++) load_run_free();
    malloc_trim(0);
    size_t before = resident();
    int files = entries("/proc/self/fd"), threads = entries("/proc/self/task");
    for (int i = 0; i < cycles; i++) load_run_free();
    malloc_trim(0);
    size_t after = resident();
    print_message("%d times: %.1f MB before, %.1f MB after; %d files, %d threads\n", cycles, (double)before / 1e6, (double)after / 1e6, files - 3, threads - 2);
    assert_int_equal(entries("/proc/self/fd"), files);
    assert_int_equal(entries("/proc/self/task"), threads);
#if !defined __SANITIZE_ADDRESS__ && !defined __SANITIZE_THREAD__      /* they keep what was freed, and find leaks themselves */
    assert_true(after < before + 2000000);
#endif
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(a_record_holds_its_schema),
        cmocka_unit_test(a_reader_holds_the_schemas_whose_forms_it_keeps),
        cmocka_unit_test(on_done_may_submit_the_next_request),
        cmocka_unit_test(what_on_done_submits_to_a_session_that_is_freed_is_refused),
        cmocka_unit_test(a_callback_may_free_its_session),
        cmocka_unit_test(a_request_that_rv_generate_refuses_is_not_queued),
        cmocka_unit_test(a_callback_may_cancel_and_free_jobs),
        cmocka_unit_test(handles_may_be_freed_in_every_order),
        cmocka_unit_test(loading_and_freeing_again_and_again_takes_nothing),
    };
    return cmocka_run_group_tests(tests, set_up, NULL);
}
