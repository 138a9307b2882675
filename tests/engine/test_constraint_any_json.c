/* test_constraint_any_json.c - the form of any JSON object: how deep, how large, and that nothing else fits it. */
#include <setjmp.h>
#include <stdarg.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>
#include <cmocka.h>
#include <jansson.h>

#include "engine/constraint.h"

enum { MOST_BYTES = 4000, RANDOM_TOKENS = 120, DEFAULT_ROOM = 15 << 18 /* rv_session_options.constraint_bytes */ };

static rv_tokenizer *tokenizer;
static rv_constraint *any;

static int set_up(void **state) {
    (void)state;
    rv_error err;
    if (rv_tokenizer_open(RV_TEST_DEMO "/model", &tokenizer, &err) || rv_constraint_any_json(tokenizer, &any, &err)) fail_msg("%s", err.message);
    return 0;
}

static int tear_down(void **state) {
    (void)state;
    rv_constraint_free(any);
    rv_tokenizer_free(tokenizer);
    return 0;
}

static rv_guide_row start(void) { return (rv_guide_row){ .guide = any->guide, .state = any->lines[0].state, .last = 1 }; }

/* Whether the text, as the tokenizer cuts it, is a whole answer. */
static bool fits(const char *text) {
    rv_ids ids = { 0 };
    rv_error err;
    rv_guide_row row = start();
    if (rv_tokenizer_append(tokenizer, text, strlen(text), 0, &ids, &err)) fail_msg("%s", err.message);
    size_t i = 0;
    while (i < ids.count && row.state > RV_GUIDE_DONE) rv_guide_move(&row, ids.data[i++]);
    bool whole = i == ids.count && row.state == RV_GUIDE_DONE;
    rv_ids_free(&ids);
    return whole;
}

static void objects_nest_four_deep_and_no_deeper(void **state) {
    (void)state;
    static const char *const good[] = {
        "{}", "{ }", "{\"a\": 1}", "{\"a\":1, \"b\": [true, false, null]}", "{\n  \"a\": {\n    \"b\": [\n      1,\n      2\n    ]\n  }\n}",
        "{\"a\": {\"b\": {\"c\": {\"d\": 4}}}}", "{\"a\": [[[4, 4], []], {}]}", "{\"a\": [{\"b\": [\"4\", -0.5e3], \"c\": {}}, [[]]], \"d\": \"\\u00e9\\n\xe2\x82\xac\"}",
    };
    static const char *const bad[] = {
        "", "[]", "1", "{\"a\": {\"b\": {\"c\": {\"d\": {}}}}}", "{\"a\": [[[[]]]]}", "{\"a\": 1,}", "{\"a\" 1}", "{a: 1}", "{\"a\": 01}", "{\"a\": [1 2]}", "{\"a\": 1",
        "{\"a\": 1]", "{\"a\": \"\\ud83d\"}",
    };
    for (size_t i = 0; i < sizeof good / sizeof *good; i++)
        if (!fits(good[i])) fail_msg("does not fit: %s", good[i]);
    for (size_t i = 0; i < sizeof bad / sizeof *bad; i++)
        if (fits(bad[i])) fail_msg("fits: %s", bad[i]);
}

static bool take(rv_guide_row *row, int32_t id, char *text, size_t *bytes) {
    size_t n;
    const char *token = rv_tokenizer_bytes(tokenizer, id, &n);
    if (!token || *bytes + n > MOST_BYTES || !rv_guide_allows(row, rv_guide_denied(row), id)) return false;
    memcpy(text + *bytes, token, n);
    *bytes += n;
    rv_guide_move(row, id);
    return true;
}

static int32_t id_of(char c) {
    for (int32_t id = 0; id < (int32_t)rv_tokenizer_size(tokenizer); id++) {
        size_t n;
        const char *token = rv_tokenizer_bytes(tokenizer, id, &n);
        if (token && n == 1 && *token == c) return id;
    }
    return -1;
}

/* Tokens at random from those that may come, brackets and quotes more often; then the shortest way to the end. */
static void every_text_that_the_form_lets_through_is_json(void **state) {
    (void)state;
    static const char likely[] = "\"\"\"{}[],: \n", way_out[] = "\"}]:0uealsr\x80\xa0\x90";
    uint32_t random = 1;
    size_t longest = 0;
    for (int k = 0; k < 400; k++) {
        rv_guide_row row = start();
        char text[MOST_BYTES + 64];
        size_t n = 0;
        for (int i = 0; i < 20 * RANDOM_TOKENS && row.state != RV_GUIDE_DONE && n < MOST_BYTES / 2; i++) {
            random = random * 1664525u + 1013904223u;
            bool pick = (random >> 30) == 0;
            take(&row, pick ? id_of(likely[(random >> 8) % (sizeof likely - 1)]) : (int32_t)((random >> 8) % rv_tokenizer_size(tokenizer)), text, &n);
        }
        while (row.state != RV_GUIDE_DONE) {
            size_t i = 0;
            while (i < sizeof way_out - 1 && !take(&row, id_of(way_out[i]), text, &n)) i++;
            if (i == sizeof way_out - 1) fail_msg("no way to the end: %.*s", (int)n, text);
        }
        json_error_t why;
        json_t *is = json_loadb(text, n, JSON_ALLOW_NUL, &why);
        if (!json_is_object(is)) fail_msg("%s: %.*s", is ? "no object" : why.text, (int)n, text);
        json_decref(is);
        if (n > longest) longest = n;
    }
    assert_true(longest > 200);
}

static void its_tables_fit_the_room_that_a_session_has_for_them(void **state) {
    (void)state;
    const char *const files[] = { RV_TEST_DEMO "/model", RV_TEST_SHARED "/tokenizer/tokenizer.json" };
    for (int i = 0; i < 2; i++) {
        rv_tokenizer *t;
        rv_constraint *c;
        rv_error err;
        rv_constraint_info is = { .size = sizeof is };
        if (i == 1 && access(files[i], R_OK)) {
            printf("the real vocabulary is not part of the project, and %s is not there: the demo model's alone\n", files[i]);
            continue;
        }
        if (rv_tokenizer_open(files[i], &t, &err)) fail_msg("%s", err.message);
        if (rv_constraint_any_json(t, &c, &err)) fail_msg("%s", err.message);
        assert_int_equal(rv_constraint_get_info(c, &is, &err), RV_OK);
        printf("%u states, %u classes, %.2f MB\n", is.states, is.classes, (double)is.bytes / 1e6);
        assert_true(is.keys == 0 && is.states > 0 && is.bytes <= DEFAULT_ROOM);
        rv_constraint_free(c);
        rv_tokenizer_free(t);
    }
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(objects_nest_four_deep_and_no_deeper),
        cmocka_unit_test(every_text_that_the_form_lets_through_is_json),
        cmocka_unit_test(its_tables_fit_the_room_that_a_session_has_for_them),
    };
    return cmocka_run_group_tests(tests, set_up, tear_down);
}
