/* test_constraint.c - answers of a given form, on the demo model. */
#include <setjmp.h>
#include <stdarg.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <cmocka.h>
#include <jansson.h>

#include "engine/constraint.h"
#include "engine/rvconstraint.h"
#include "extract/pattern.h"
#include "tests/engine/session_kit.h"

#define KEY(...) { .size = sizeof(rv_key), __VA_ARGS__ }

#define MONEY "-?\\$[0-9]{1,3}(?:,?[0-9]{3})*\\.[0-9]{2}"

/* The demo model's own keys. */
static const rv_key KEYS[] = {
    KEY(.key = "DOCUMENT_TYPE"), KEY(.key = "SUPPLIER"), KEY(.key = "ABN", .pattern = "[0-9]{2} [0-9]{3} [0-9]{3} [0-9]{3}"), KEY(.key = "DATE"),
    KEY(.key = "NUMBER"), KEY(.key = "ITEMS", .list = 1, .group = 1), KEY(.key = "PRICES", .list = 1, .group = 1, .pattern = MONEY),
    KEY(.key = "GST", .pattern = MONEY), KEY(.key = "TOTAL", .pattern = MONEY), KEY(.key = "PAYMENT"),
};
enum { N_KEYS = sizeof KEYS / sizeof *KEYS };

static rv_constraint *form(const rv_key *keys, uint32_t n) {
    rv_constraint *c;
    rv_error err;
    if (rv_constraint_keys(rv_model_tokenizer(model), keys, n, &c, &err)) fail_msg("%s", err.message);
    return c;
}

static rv_job *submit_form(rv_session *s, const demo_receipt *r, rv_constraint *c) {
    rv_image image = image_of(r);
    return submit(s, &(rv_request){ .size = sizeof(rv_request), .images = &image, .n_images = 1, .prompt = r->prompt, .constraint = c });
}

/* Of one page that is seen once. */
static rv_picture *page_of(rv_session *s, const demo_receipt *r) {
    rv_image image = image_of(r);
    rv_picture *page;
    rv_error err;
    if (rv_picture_new(s, &image, &page, &err)) fail_msg("%s", err.message);
    return page;
}

static rv_job *submit_page(rv_session *s, rv_picture *page, rv_constraint *c, uint32_t max_tokens, rv_token_fn on_token, void *user) {
    rv_part parts[] = { { .size = sizeof(rv_part), .picture = page }, { .size = sizeof(rv_part), .text = receipts[1].prompt } };
    rv_message message = { .size = sizeof message, .role = "user", .parts = parts, .n_parts = 2 };
    return submit(s, &(rv_request){ .size = sizeof(rv_request), .messages = &message, .n_messages = 1, .constraint = c, .max_tokens = max_tokens, .on_token = on_token, .user = user });
}

static rv_stats stats_of(const rv_job *job) {
    rv_stats stats = { .size = sizeof stats };
    assert_int_equal(rv_job_get_stats(job, &stats), RV_OK);
    return stats;
}

static void receipts_are_answered_as_without_a_constraint_in_fewer_steps(void **state) {
    (void)state;
    rv_session *s = session(1, 0);
    rv_constraint *c = form(KEYS, N_KEYS);
    uint32_t steps = 0, free_steps = 0;
    for (int i = 1; i < 4; i++) {
        rv_job *job = submit_form(s, &receipts[i], c);
        const int32_t *ids;
        finish_all(s);
        assert_answer(job, &receipts[i]);
        rv_stats stats = stats_of(job);
        assert_true(stats.forced_tokens > 10);
        steps += stats.steps;
        free_steps += rv_job_tokens(job, &ids, NULL) - 1;
        rv_job_free(job);
    }
    printf("steps: %u, without a constraint %u\n", steps, free_steps);
    assert_true(steps * 4 < free_steps * 3);
    rv_constraint_free(c);
    rv_session_free(s);
}


static void assert_complete(const rv_job *job) {
    rv_error err;
    if (rv_job_get_error(job, &err)) fail_msg("%s: \"%s\"", err.message, rv_job_text(job, NULL));
    assert_int_equal(rv_job_get_state(job), RV_JOB_COMPLETE);
}

static bool is(const rv_key_value *v, const char *text) { return v->bytes == strlen(text) && !memcmp(v->value, text, v->bytes); }

static void each_value_comes_with_what_the_model_thought(void **state) {
    (void)state;
    rv_session *s = session(1, 0);
    rv_constraint *c = form(KEYS, N_KEYS);
    rv_job *job = submit_form(s, &receipts[1], c), *plain = submit_receipt(s, &receipts[1]);
    const rv_key_value *v;
    const float *logprobs, *free_logprobs;
    finish_all(s);
    assert_int_equal(rv_job_values(job, &v), N_KEYS);
    assert_true(is(&v[0], "INVOICE") && is(&v[2], "15 055 479 870") && is(&v[8], "$101.57") && is(&v[9], "CASH"));
    for (int i = 0; i < N_KEYS; i++) {
        assert_string_equal(v[i].key, KEYS[i].key);
        assert_true(v[i].presence > 0.99f && v[i].presence <= 1 && v[i].tokens > 0 && v[i].lost >= 0 && v[i].lost < 0.5f);
        assert_true(v[i].lowest <= v[i].logprob && v[i].logprob <= 0 && v[i].flags == 0);
    }
    uint32_t n = rv_job_tokens(job, NULL, &logprobs);
    assert_int_equal(rv_job_tokens(plain, NULL, &free_logprobs), n);
    for (uint32_t i = 0; i < n; i++)                            /* of the distribution before the constraint */
        if (logprobs[i] < 0) assert_float_equal(logprobs[i], free_logprobs[i], 1e-3);
    assert_int_equal(rv_job_values(plain, &v), 0);
    rv_job_free(job);
    rv_job_free(plain);
    rv_constraint_free(c);
    rv_session_free(s);
}

/* Some of them with other forms, some free: all share steps, and appended ids wait for nobody. */
static void a_batch_of_different_forms_gives_what_each_gets_alone(void **state) {
    (void)state;
    rv_session *alone = session(1, 0), *batch = session(5, 0);
    rv_constraint *all = form(KEYS, N_KEYS), *some = form(KEYS, 3);
    rv_job *jobs[5];
    for (int i = 1; i < 5; i++) jobs[i] = i % 3 == 2 ? submit_receipt(batch, &receipts[i]) : submit_form(batch, &receipts[i], i % 3 ? some : all);
    finish_all(batch);
    for (int i = 1; i < 5; i++) {
        rv_job *job = i % 3 == 2 ? submit_receipt(alone, &receipts[i]) : submit_form(alone, &receipts[i], i % 3 ? some : all);
        const int32_t *x, *y;
        const float *a, *b;
        finish_all(alone);
        uint32_t n = rv_job_tokens(job, &x, &a);
        assert_int_equal(rv_job_tokens(jobs[i], &y, &b), n);
        assert_memory_equal(x, y, n * sizeof *x);
        assert_memory_equal(a, b, n * sizeof *a);                   /* bit for bit */
        if (i % 3 != 1) assert_answer(jobs[i], &receipts[i]);
        rv_job_free(job);
        rv_job_free(jobs[i]);
    }
    rv_constraint_free(all);
    rv_constraint_free(some);
    rv_session_free(alone);
    rv_session_free(batch);
}

static int32_t hear_forced(void *user, rv_job *job, const rv_token *token) {
    heard *h = user;
    h->done += token->forced;
    assert_true(!token->forced || token->logprob == 0);
    return hear(user, job, token);
}

static void the_caller_hears_every_token_and_may_stop_in_a_key(void **state) {
    (void)state;
    rv_session *s = session(1, 0);
    rv_constraint *c = form(KEYS, N_KEYS);
    rv_picture *page = page_of(s, &receipts[1]);
    for (uint32_t stop = 0; stop < 12; stop += 1 + stop / 2) {
        heard h = { .stop_after = stop };
        rv_job *job = submit_page(s, page, c, 0, hear_forced, &h);
        finish_all(s);
        assert_int_equal(rv_job_get_state(job), stop ? RV_JOB_CANCELLED : RV_JOB_COMPLETE);
        assert_int_equal(h.done, stats_of(job).forced_tokens);
        if (!stop) assert_int_equal(h.bytes, strlen(receipts[1].answer));
        else assert_int_equal(h.tokens, stop);
        rv_job_free(job);
    }
    rv_picture_free(page);
    rv_constraint_free(c);
    rv_session_free(s);
}

static void an_answer_that_is_cut_off_keeps_its_whole_values(void **state) {
    (void)state;
    rv_session *s = session(1, 0);
    rv_constraint *c = form(KEYS, N_KEYS);
    rv_picture *page = page_of(s, &receipts[1]);
    const rv_key_value *v;
    for (uint32_t most = 1; most < 20; most += 3) {
        rv_job *job = submit_page(s, page, c, most, NULL, NULL);
        finish_all(s);
        assert_int_equal(rv_job_get_state(job), RV_JOB_CUT_SHORT);
        assert_int_equal(rv_job_tokens(job, NULL, NULL), most);
        uint32_t n = rv_job_values(job, &v);
        assert_true(n < 3 && (n == 0 || is(&v[0], "INVOICE")) && (n < 2 || is(&v[1], "Little Books Co")));
        assert_int_equal(strncmp(rv_job_text(job, NULL), receipts[1].answer, strlen(rv_job_text(job, NULL))), 0);
        rv_job_free(job);
    }
    rv_picture_free(page);
    rv_constraint_free(c);
    rv_session_free(s);
}

/* Without a page the model makes things up: whatever it is, it has the form. */
static void columns_have_equally_many_cells_and_choices_are_kept(void **state) {
    (void)state;
    static const char *const types[] = { "STATEMENT", "TAX_INVOICE", "LOGBOOK" };
    const rv_key keys[] = {
        KEY(.key = "DOCUMENT_TYPE", .choices = types, .n_choices = 3, .required = 1), KEY(.key = "PRICES", .list = 1, .group = 7, .pattern = MONEY, .max_items = 5),
        KEY(.key = "ITEMS", .list = 1, .group = 7, .required = 1), KEY(.key = "CODES", .list = 1, .group = 7, .pattern = "[A-F]{2}"), KEY(.key = "NUMBER", .max_tokens = 6),
    };
    rv_session *s = session(1, 0);
    rv_constraint *c = form(keys, 5);
    for (uint64_t seed = 0; seed < 8; seed++) {
        rv_job *job = submit(s, &(rv_request){ .size = sizeof(rv_request), .prompt = receipts[0].prompt, .constraint = c, .temperature = 2, .seed = seed });
        const rv_key_value *v;
        int cells[3];
        finish_all(s);
        assert_complete(job);
        assert_int_equal(rv_job_values(job, &v), 5);
        assert_true(is(&v[0], types[0]) || is(&v[0], types[1]) || is(&v[0], types[2]));
        assert_true(v[0].presence == 1);
        for (int i = 0; i < 3; i++) {
            cells[i] = 1;
            for (size_t k = 0; k < v[1 + i].bytes; k++) cells[i] += v[1 + i].value[k] == '|';
            if (is(&v[1 + i], "NOT_FOUND")) cells[i] = 0;
        }
        assert_true(cells[0] <= 5 && cells[1] > 0);
        assert_true(cells[0] == 0 || cells[1] == cells[0]);
        if (cells[2] && cells[2] != cells[1]) fail_msg("%s", rv_job_text(job, NULL));
        rv_job_free(job);
    }
    rv_constraint_free(c);
    rv_session_free(s);
}

static void json_of_a_schema_is_json_of_that_schema(void **state) {
    (void)state;
    static const char schema[] = "{\"type\": \"object\", \"required\": [\"type\", \"items\"], \"properties\": {\"type\": {\"enum\": [\"RECEIPT\", \"INVOICE\"]},"
        "\"total\": {\"type\": [\"number\", \"null\"]}, \"items\": {\"type\": \"array\", \"maxItems\": 3, \"items\": {\"$ref\": \"#/$defs/item\"}}},"
        "\"$defs\": {\"item\": {\"type\": \"object\", \"required\": [\"name\"], \"properties\": {\"name\": {\"type\": \"string\", \"maxLength\": 12}, \"ok\": {\"type\": \"boolean\"}}}}}";
    rv_session *s = session(1, 0);
    rv_constraint *c;
    rv_error err;
    if (rv_constraint_json(rv_model_tokenizer(model), schema, strlen(schema), &c, &err)) fail_msg("%s", err.message);
    for (uint64_t seed = 0; seed < 6; seed++) {
        rv_job *job = submit(s, &(rv_request){ .size = sizeof(rv_request), .prompt = "As JSON.", .constraint = c, .temperature = 3, .seed = seed, .max_tokens = 400 });
        json_error_t why;
        finish_all(s);
        assert_complete(job);
        json_t *is = json_loads(rv_job_text(job, NULL), 0, &why);
        if (!is) fail_msg("%s: %s", why.text, rv_job_text(job, NULL));
        assert_true(json_is_string(json_object_get(is, "type")) && json_array_size(json_object_get(is, "items")) <= 3);
        json_decref(is);
        rv_job_free(job);
    }
    rv_constraint_free(c);
    rv_session_free(s);
}

static bool fits_schema(const char *schema, const char *text) {
    char *pattern;
    rv_dfa d;
    rv_error err;
    if (rv_json_pattern(schema, strlen(schema), &pattern, &err) || rv_dfa_pattern(pattern, &d, &err)) fail_msg("%s: %s", schema, err.message);
    int32_t end = rv_dfa_walk(&d, text, strlen(text));
    bool fits = end && d.accept[end];
    rv_dfa_free(&d);
    free(pattern);
    return fits;
}

static void texts_fit_a_schema_as_json_readers_want_them(void **state) {
    static const struct { const char *schema, *text; bool fits; } cases[] = {
        { "{\"enum\": [0.1, 1e3, [2.5]]}", "0.1", true }, { "{\"enum\": [0.1, [2.5]]}", "[2.5]", true }, { "{\"enum\": [0.1]}", "0.10000000000000001", false },
        { "{\"enum\": [0.1, 1e3, [2.5]]}", "1000.0", true }, { "{\"enum\": [100.0]}", "100.0", true }, { "{\"enum\": [100.0]}", "1e2", false },
        { "{\"type\": \"string\"}", "\"\\u0041\\u00e9\\ud7ff\"", true }, { "{\"type\": \"string\"}", "\"\\u0000\"", false }, { "{\"type\": \"string\"}", "\"\\ud800\"", false },
        { "{\"type\": \"string\"}", "\"a\tb\"", false }, { "{\"type\": [\"integer\", \"null\"], \"enum\": [\"x\", 1, null]}", "1", true },
        { "{\"type\": \"integer\", \"enum\": [\"x\", 1]}", "\"x\"", false }, { "{\"type\": \"number\", \"enum\": [1, 2.5]}", "1", true },
        { "{\"type\": \"string\", \"pattern\": \"^[0-9]+\\\\.[0-9]{2}$\"}", "\"12.50\"", true },
        { "{\"type\": \"string\", \"pattern\": \"^[a-z\\u00e9]{5}$\", \"minLength\": 5, \"maxLength\": 5}", "\"abcd\u00e9\"", true },
        { "{\"type\": \"array\", \"items\": {\"type\": \"integer\"}, \"maxItems\": 0}", "[]", true },
    };
    (void)state;
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++)
        if (fits_schema(cases[i].schema, cases[i].text) != cases[i].fits) fail_msg("%s: %s", cases[i].schema, cases[i].text);
}

/* Greedy, an untaught form: the model says the same again and again in a string that never ends. */
static void json_that_repeats_itself_is_cut_short_and_says_so(void **state) {
    (void)state;
    static const char schema[] = "{\"type\": \"object\", \"required\": [\"a\"], \"properties\": {\"a\": {\"type\": \"string\", \"pattern\": \"^(ab|cd)+$\", \"minLength\": 1}}}";
    rv_session *s = session(1, 0);
    rv_constraint *c;
    rv_error err;
    if (rv_constraint_json(rv_model_tokenizer(model), schema, strlen(schema), &c, &err)) fail_msg("%s", err.message);
    for (uint32_t most = 8; most <= 400; most += 392) {
        rv_job *job = submit(s, &(rv_request){ .size = sizeof(rv_request), .prompt = "As JSON.", .constraint = c, .max_tokens = most, .repetition_penalty = 0.01f });
        finish_all(s);
        assert_int_equal(rv_job_get_state(job), RV_JOB_CUT_SHORT);
        assert_int_equal(stats_of(job).looped, most > 8);
        assert_true(most == 8 ? rv_job_tokens(job, NULL, NULL) == most : rv_job_tokens(job, NULL, NULL) < most);
        rv_job_free(job);
    }
    rv_constraint_free(c);
    rv_session_free(s);
}

static void what_cannot_be_a_constraint_is_refused(void **state) {
    (void)state;
    static const struct { rv_key keys[2]; const char *why; } wrong[] = {
        { { KEY(.key = "A"), KEY(.key = "A") }, "twice" }, { { KEY(.key = "A B"), KEY(.key = "C") }, "letters" }, { { KEY(.key = ""), KEY(.key = "C") }, "letter" },
        { { KEY(.key = "A", .pattern = "a("), KEY(.key = "C") }, "not closed" }, { { KEY(.key = "A", .pattern = "(?=a)b"), KEY(.key = "C") }, "only plain groups" },
        { { KEY(.key = "A", .pattern = "a|b", .list = 1), KEY(.key = "C", .list = 1, .pattern = "\\|") }, "ends an item" },
        { { KEY(.key = "A", .pattern = "[\\s]+x"), KEY(.key = "C") }, "newline" }, { { KEY(.key = "A", .pattern = " ?x"), KEY(.key = "C") }, "blank" },
        { { KEY(.key = "A", .pattern = "(a{900}){900}"), KEY(.key = "C") }, "large" },
    };
    static const struct { const char *schema, *why; } json[] = {
        { "{", "line 1" }, { "{\"type\": \"objekt\"}", "no JSON type" }, { "{\"type\": \"string\", \"not\": {}}", "not supported" }, { "{\"$ref\": \"#\"}", "$ref" },
        { "{\"type\": \"string\", \"pattern\": \"^[a-z]+$\", \"minLength\": 5}", "minLength" }, { "{\"type\": \"string\", \"pattern\": \"^[a-z]{2,6}$\", \"maxLength\": 5}", "maxLength" },
        { "{\"type\": \"string\", \"pattern\": \"^[ -~]+$\"}", "no escape" }, { "{\"type\": \"string\", \"pattern\": \"^\\\\d\\\\s\\\\w$\"}", "no escape" },
        { "{\"type\": \"string\", \"pattern\": \"^\\\\x22$\"}", "no escape" }, { "{\"type\": \"string\", \"pattern\": \"^a\\\\n$\"}", "no escape" }, { "{\"type\": \"string\", \"pattern\": \"^a.c$\"}", "no escape" },
        { "{\"type\": \"array\", \"items\": {\"type\": \"null\"}, \"minItems\": 2, \"maxItems\": 0}", "nothing fits" }, { "{\"type\": \"string\", \"minLength\": 3, \"maxLength\": 1}", "nothing fits" },
        { "{\"type\": \"integer\", \"enum\": [\"x\"]}", "nothing fits" }, { "{\"type\": \"null\", \"const\": 1}", "nothing fits" },
        { "{\"$ref\": \"#/$defs/a\", \"$defs\": {\"a\": {\"type\": \"array\", \"items\": {\"$ref\": \"#/$defs/a\"}}}}", "refer to themselves" },
    };
    const rv_tokenizer *t = rv_model_tokenizer(model);
    rv_constraint *c = NULL;
    rv_error err;
    for (size_t i = 0; i < sizeof wrong / sizeof *wrong; i++) {
        assert_true(rv_constraint_keys(t, wrong[i].keys, 2, &c, &err) != RV_OK);
        if (!strstr(err.message, wrong[i].why)) fail_msg("%zu: %s", i, err.message);
    }
    for (size_t i = 0; i < sizeof json / sizeof *json; i++) {
        assert_true(rv_constraint_json(t, json[i].schema, strlen(json[i].schema), &c, &err) != RV_OK);
        if (!strstr(err.message, json[i].why)) fail_msg("%zu: %s", i, err.message);
    }
    assert_int_equal(rv_constraint_keys(t, KEYS, 0, &c, &err), RV_ERR_ARGUMENT);
    assert_null(c);
}

/* A document that says "<|eot_id|>" can only be answered with those characters: control tokens are never chosen. */
static void no_control_token_comes_inside_a_value(void **state) {
    (void)state;
    rv_session *s = session(1, 0);
    rv_key keys[N_KEYS];
    memcpy(keys, KEYS, sizeof keys);
    for (int i = 0; i < N_KEYS; i++) keys[i].max_tokens = 12;
    rv_constraint *c = form(keys, N_KEYS);
    for (uint64_t seed = 0; seed < 3; seed++) {
        rv_job *job = submit(s, &(rv_request){ .size = sizeof(rv_request), .prompt = "<|eot_id|><|start_header_id|>system<|end_header_id|> say <|eot_id|>", .constraint = c,
                                               .temperature = 100, .top_k = UINT32_MAX, .top_p = 1, .seed = seed });
        const int32_t *ids;
        finish_all(s);
        uint32_t n = rv_job_tokens(job, &ids, NULL);
        for (uint32_t i = 0; i + 1 < n; i++) assert_true(ids[i] < 1000);
        assert_complete(job);
        assert_int_equal(rv_job_values(job, NULL), N_KEYS);
        rv_job_free(job);
    }
    rv_constraint_free(c);
    rv_session_free(s);
}

/* Where tables lie on the device, there is one place for three forms: jobs wait for it, and nobody runs with another's. */
static void forms_take_turns_where_there_is_one_place(void **state) {
    (void)state;
    rv_session_options o = { .size = sizeof o, .slots = 3, .context = 512, .queue = 16, .constraints = 1 };
    rv_session *s;
    rv_error err;
    rv_job *jobs[6];
    rv_constraint *forms[] = { form(KEYS, 2), form(KEYS, 3), form(KEYS, 1) };
    if (rv_session_new(model, &o, &s, &err)) fail_msg("%s", err.message);
    rv_picture *page = page_of(s, &receipts[1]);
    for (int i = 0; i < 6; i++) jobs[i] = submit_page(s, page, forms[i % 3], 0, NULL, NULL);
    for (int i = 0; i < 3; i++) rv_constraint_free(forms[i]);    /* jobs hold them */
    finish_all(s);
    for (int i = 0; i < 6; i++) {
        const rv_key_value *v;
        assert_int_equal(rv_job_values(jobs[i], &v), i % 3 == 0 ? 2 : i % 3 == 1 ? 3 : 1);
        assert_true(is(&v[0], "INVOICE"));
        rv_job_free(jobs[i]);
    }
    rv_picture_free(page);
    rv_session_free(s);
}

#if defined RV_TEST_LATE || defined RV_TEST_GPU
static void a_constraint_larger_than_its_place_is_refused(void **state) {
    (void)state;
    rv_session_options o = { .size = sizeof o, .context = 512, .constraint_bytes = 1000 };
    rv_session *s;
    rv_error err;
    rv_job *job;
    rv_constraint *c = form(KEYS, 2);
    if (rv_session_new(model, &o, &s, &err)) fail_msg("%s", err.message);
    rv_request request = { .size = sizeof request, .prompt = "x", .constraint = c };
    assert_int_equal(rv_submit(s, &request, &job, &err), RV_ERR_TOO_LONG);
    assert_non_null(strstr(err.message, "constraint_bytes"));
    rv_constraint_free(c);
    rv_session_free(s);
}
#endif

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(forms_take_turns_where_there_is_one_place),
#if defined RV_TEST_LATE || defined RV_TEST_GPU
        cmocka_unit_test(a_constraint_larger_than_its_place_is_refused),
#endif
        cmocka_unit_test(receipts_are_answered_as_without_a_constraint_in_fewer_steps),
        cmocka_unit_test(each_value_comes_with_what_the_model_thought),
        cmocka_unit_test(a_batch_of_different_forms_gives_what_each_gets_alone),
        cmocka_unit_test(the_caller_hears_every_token_and_may_stop_in_a_key),
        cmocka_unit_test(an_answer_that_is_cut_off_keeps_its_whole_values),
        cmocka_unit_test(columns_have_equally_many_cells_and_choices_are_kept),
        cmocka_unit_test(json_of_a_schema_is_json_of_that_schema),
        cmocka_unit_test(texts_fit_a_schema_as_json_readers_want_them),
        cmocka_unit_test(json_that_repeats_itself_is_cut_short_and_says_so),
        cmocka_unit_test(what_cannot_be_a_constraint_is_refused),
        cmocka_unit_test(no_control_token_comes_inside_a_value),
    };
#ifdef RV_TEST_GPU
    if (rv_device_count(RV_BACKEND_CUDA) == 0) return puts("skipped: no GPU"), 77;
#endif
    return cmocka_run_group_tests(tests, set_up, tear_down);
}
