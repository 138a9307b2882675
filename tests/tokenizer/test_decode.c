/* Decoding: whole characters only, and U+FFFD exactly where Python puts it. */
#include "tests/tokenizer/words.h"

static int32_t byte_token(const rv_tokenizer *t, uint8_t byte) { return (int32_t)t->byte_id[byte]; }

/* bytes.decode(errors="replace") of CPython 3.11 */
static const struct { const char *bytes, *text; } REPLACED[] = {
    { "\xe2\x82", "\xef\xbf\xbd" },
    { "\xe2\x28\xa1", "\xef\xbf\xbd\x28\xef\xbf\xbd" },
    { "\xf0\x9f\x98", "\xef\xbf\xbd" },
    { "\xf0\x9f\x41", "\xef\xbf\xbd\x41" },
    { "\xc0\xaf", "\xef\xbf\xbd\xef\xbf\xbd" },
    { "\xed\xa0\x80", "\xef\xbf\xbd\xef\xbf\xbd\xef\xbf\xbd" },
    { "\xf4\x90\x80\x80", "\xef\xbf\xbd\xef\xbf\xbd\xef\xbf\xbd\xef\xbf\xbd" },
    { "\xff\xfe", "\xef\xbf\xbd\xef\xbf\xbd" },
    { "\x80\x80", "\xef\xbf\xbd\xef\xbf\xbd" },
    { "\x61\xe2\x82\x62\xc3", "\x61\xef\xbf\xbd\x62\xef\xbf\xbd" },
    { "\xe0\x80\x80", "\xef\xbf\xbd\xef\xbf\xbd\xef\xbf\xbd" },
    { "\xf0\x80\x80\x80", "\xef\xbf\xbd\xef\xbf\xbd\xef\xbf\xbd\xef\xbf\xbd" },
    { "\xf1\x80\x80\xe2\x82\xac", "\xef\xbf\xbd\xe2\x82\xac" },
    { "\xe2\x82\xac", "\xe2\x82\xac" },
    { "\xc3\xc3\xa9", "\xef\xbf\xbd\xc3\xa9" },
    { "\xf8\x88\x80\x80\x80", "\xef\xbf\xbd\xef\xbf\xbd\xef\xbf\xbd\xef\xbf\xbd\xef\xbf\xbd" },
    { "\xed\x9f\xbf\xee\x80\x80", "\xed\x9f\xbf\xee\x80\x80" },
    { "\xf0\x9f\x98\x80\xf0\x9f\x98", "\xf0\x9f\x98\x80\xef\xbf\xbd" },
    { "\xe1\xa0\xc0\x80", "\xef\xbf\xbd\xef\xbf\xbd\xef\xbf\xbd" },
};

static void bytes_that_are_no_utf8_are_replaced_as_in_python(void **state) {
    (void)state;
    rv_tokenizer *t = open_tokenizer(DEMO_TOKENIZER);
    for (size_t i = 0; i < sizeof REPLACED / sizeof *REPLACED; i++) {
        int32_t ids[16];
        size_t n = strlen(REPLACED[i].bytes), bytes;
        char text[64];
        rv_error err = { 0 };
        for (size_t k = 0; k < n; k++) ids[k] = byte_token(t, (uint8_t)REPLACED[i].bytes[k]);
        expect_ok(rv_tokenizer_decode(t, ids, n, 0, text, sizeof text, &bytes, &err), &err);
        if (bytes != strlen(REPLACED[i].text) || memcmp(text, REPLACED[i].text, bytes)) fail_msg("case %zu", i);
    }
    rv_tokenizer_free(t);
}

static void the_stream_hands_out_whole_characters_only(void **state) {
    (void)state;
    rv_tokenizer *t = open_tokenizer(DEMO_TOKENIZER);
    uint64_t seed = 3;
    for (int round = 0; round < 5000; round++) {
        char text[4 * 40];
        size_t bytes = random_text(&seed, 40, text);
        rv_ids ids = { 0 };
        rv_error err = { 0 };
        rv_text_stream stream = { 0 };
        rv_string out = { 0 };
        expect_ok(rv_tokenizer_append(t, text, bytes, 0, &ids, &err), &err);
        for (size_t i = 0; i < ids.count; i++) {
            rv_text_stream_push(&stream, t, ids.data[i], true, &out);
            assert_int_equal(rv_utf8_check(rv_string_text(&out), out.bytes), out.bytes);
            assert_true(out.bytes <= bytes);
            assert_memory_equal(rv_string_text(&out), text, out.bytes);
        }
        rv_text_stream_end(&stream, &out);
        assert_int_equal(out.bytes, bytes);
        rv_string_free(&out);
        rv_ids_free(&ids);
    }
    rv_tokenizer_free(t);
}

static void a_character_is_handed_out_with_its_last_byte(void **state) {
    (void)state;
    rv_tokenizer *t = open_tokenizer(DEMO_TOKENIZER);
    const char *face = "\xf0\x9f\x98\x80";
    rv_text_stream stream = { 0 };
    rv_string out = { 0 };
    for (int i = 0; i < 3; i++) {
        rv_text_stream_push(&stream, t, byte_token(t, (uint8_t)face[i]), false, &out);
        assert_int_equal(out.bytes, 0);
    }
    rv_text_stream_push(&stream, t, byte_token(t, (uint8_t)face[3]), false, &out);
    assert_string_equal(rv_string_text(&out), face);
    rv_text_stream_push(&stream, t, byte_token(t, 0xe2), false, &out);
    rv_text_stream_end(&stream, &out);
    assert_string_equal(rv_string_text(&out), "\xf0\x9f\x98\x80\xef\xbf\xbd");
    rv_text_stream_end(&stream, &out);                         /* nothing is left to replace */
    assert_int_equal(out.bytes, 7);
    rv_string_free(&out);
    rv_tokenizer_free(t);
}

static void control_tokens_are_shown_or_skipped(void **state) {
    (void)state;
    rv_tokenizer *t = open_tokenizer(DEMO_TOKENIZER);
    int32_t ids[] = { byte_token(t, 'a'), byte_token(t, 0xc3), rv_tokenizer_control(t, "<|eot_id|>"),
                      byte_token(t, 0xa9) };
    char text[64];
    size_t bytes;
    rv_error err = { 0 };
    expect_ok(rv_tokenizer_decode(t, ids, 4, 1, text, sizeof text, &bytes, &err), &err);
    assert_int_equal(bytes, 3);
    assert_memory_equal(text, "a\xc3\xa9", 3);                 /* HF drops them before joining the bytes */
    expect_ok(rv_tokenizer_decode(t, ids, 4, 0, text, sizeof text, &bytes, &err), &err);
    assert_int_equal(bytes, 1 + 3 + 10 + 3);
    assert_memory_equal(text, "a\xef\xbf\xbd<|eot_id|>\xef\xbf\xbd", bytes);
    rv_tokenizer_free(t);
}

static void an_id_that_nobody_has_is_an_error(void **state) {
    (void)state;
    rv_tokenizer *t = open_tokenizer(DEMO_TOKENIZER);
    static const int32_t bad[] = { -1, INT32_MIN, 1017, INT32_MAX };
    for (size_t i = 0; i < sizeof bad / sizeof *bad; i++) {
        size_t bytes;
        rv_error err = { 0 };
        expect_error(rv_tokenizer_decode(t, &bad[i], 1, 0, NULL, 0, &bytes, &err), &err, RV_ERR_ARGUMENT,
                     "no token's id");
        assert_null(rv_tokenizer_bytes(t, bad[i], &bytes));
        assert_false(rv_tokenizer_is_control(t, bad[i]));
    }
    rv_tokenizer_free(t);
}

static void too_little_room_reports_what_is_needed(void **state) {
    (void)state;
    rv_tokenizer *t = open_tokenizer(DEMO_TOKENIZER);
    int32_t ids[] = { byte_token(t, 'a'), byte_token(t, 'b'), byte_token(t, 'c') };
    char text[4] = "...";
    size_t bytes;
    rv_error err = { 0 };
    expect_ok(rv_tokenizer_decode(t, ids, 3, 0, text, 2, &bytes, &err), &err);
    assert_int_equal(bytes, 3);
    assert_string_equal(text, "ab.");
    rv_tokenizer_free(t);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(bytes_that_are_no_utf8_are_replaced_as_in_python),
        cmocka_unit_test(the_stream_hands_out_whole_characters_only),
        cmocka_unit_test(a_character_is_handed_out_with_its_last_byte),
        cmocka_unit_test(control_tokens_are_shown_or_skipped),
        cmocka_unit_test(an_id_that_nobody_has_is_an_error),
        cmocka_unit_test(too_little_room_reports_what_is_needed),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
