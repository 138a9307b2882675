/* The JSON pull reader: RFC 8259 accepted and refused to the letter, with the offset of the fault. */
#include "tests/support/folder.h"
#include "engine/base/json.h"

/* Reads all of `text` from a block of exactly its size (a sanitizer sees a read past it); the tokens as letters. */
static void tokens_of(const char *text, size_t bytes, char *out, size_t room, rv_json *end) {
    char *copy = malloc(bytes ? bytes : 1);
    size_t n = 0;
    assert_non_null(copy);
    memcpy(copy, text, bytes);
    rv_json j = rv_json_open(copy, bytes);
    rv_json_token t;
    while ((t = rv_json_next(&j)) > RV_JSON_END && n + 1 < room) {
        out[n++] = " {}[]ksntf0"[t];
        if (t == RV_JSON_KEY || t == RV_JSON_STRING) {
            char *decoded = malloc(j.slice_bytes ? j.slice_bytes : 1);
            assert_non_null(decoded);
            assert_true(rv_json_string(&j, decoded) <= j.slice_bytes);
            free(decoded);
        }
    }
    out[n] = '\0';
    assert_int_equal(rv_json_next(&j), t);                      /* an end and an error stay */
    assert_true((t == RV_JSON_ERROR) == (j.error != NULL));
    *end = j;
    free(copy);
}

static void accepts(const char *text, const char *tokens) {
    char out[256];
    rv_json j;
    tokens_of(text, strlen(text), out, sizeof out, &j);
    if (j.error) fail_msg("%s: %s at %zu", text, j.error, j.at);
    assert_string_equal(out, tokens);
}

static void refuses(const char *text, size_t at, const char *part) {
    char out[256];
    rv_json j;
    tokens_of(text, strlen(text), out, sizeof out, &j);
    if (!j.error) fail_msg("accepted: %s", text);
    if (!strstr(j.error, part) || j.at != at)
        fail_msg("%s: \"%s\" at %zu, expected \"%s\" at %zu", text, j.error, j.at, part, at);
}

static void every_kind_of_value_is_a_token(void **state) {
    (void)state;
    accepts("{\"a\":[1,-2.5e+3,true,false,null,\"x\",{}],\"b\":{}}", "{k[nntf0s{}]k{}}");
    accepts(" \t\r\n[ ] \t\r\n", "[]");
    accepts("0", "n");
    accepts("-0", "n");
    accepts("\"\"", "s");
    accepts("null", "0");
    accepts("[1E5,0.0,0e0,10,1e-7]", "[nnnnn]");
    accepts("[[[]],{\"\":[{}]}]", "[[[]]{k[{}]}]");
}

static void bad_structure_is_refused_where_it_is(void **state) {
    (void)state;
    refuses("", 0, "ends too early");
    refuses("  ", 2, "ends too early");
    refuses("[1,]", 3, "not a JSON value");
    refuses("[,1]", 1, "not a JSON value");
    refuses("[1 2]", 3, "a comma or ] was expected");
    refuses("[1}", 2, "a comma or ] was expected");
    refuses("{\"a\":1]", 6, "a comma or } was expected");
    refuses("{\"a\" 1}", 5, "a colon was expected");
    refuses("{\"a\"", 4, "a colon was expected");
    refuses("{\"a\":}", 5, "not a JSON value");
    refuses("{\"a\":1,}", 7, "a key in quotes");
    refuses("{a:1}", 1, "a key in quotes");
    refuses("{1:1}", 1, "a key in quotes");
    refuses("{,}", 1, "a key in quotes");
    refuses("[1", 2, "ends too early");
    refuses("[1,", 3, "ends too early");
    refuses("{", 1, "ends too early");
    refuses("{\"a\":", 5, "ends too early");
    refuses("{}{}", 2, "something follows");
    refuses("1 1", 2, "something follows");
    refuses("]", 0, "not a JSON value");
    refuses("[1] // comment", 4, "something follows");
    refuses("\xef\xbb\xbf{}", 0, "not a JSON value");
    refuses("{'a':1}", 1, "a key in quotes");
}

static void bad_words_and_numbers_are_refused(void **state) {
    (void)state;
    refuses("tru", 0, "not a JSON value");
    refuses("[nul]", 1, "not a JSON value");
    refuses("True", 0, "not a JSON value");
    refuses("NaN", 0, "not a JSON value");
    refuses("[Infinity]", 1, "not a JSON value");
    refuses("truefalse", 4, "something follows");
    refuses("-", 1, "a number without digits");
    refuses("[-]", 2, "a number without digits");
    refuses("-Infinity", 1, "a number without digits");
    refuses("01", 0, "leading zeros");
    refuses("-012", 1, "leading zeros");
    refuses("1.", 2, "ends in a point");
    refuses("[1.,2]", 3, "ends in a point");
    refuses("1e", 2, "an empty exponent");
    refuses("1e+", 3, "an empty exponent");
    refuses(".5", 0, "not a JSON value");
    refuses("+1", 0, "not a JSON value");
    refuses("0x10", 1, "something follows");
}

static void bad_strings_are_refused(void **state) {
    (void)state;
    refuses("\"abc", 4, "never ends");
    refuses("\"abc\\\"", 6, "never ends");
    refuses("\"abcdefghijkl\\", 13, "a bad escape");
    refuses("\"a\nb\"", 2, "a control character");
    refuses("\"0123456\x1f\"", 8, "a control character");
    refuses("\"\\x41\"", 1, "a bad escape");
    refuses("\"\\u12g4\"", 1, "a bad escape");
    refuses("\"\\u12\"", 1, "a bad escape");
    refuses("\"\\ud800\"", 1, "a bad escape");
    refuses("\"\\ud800\\n\"", 1, "a bad escape");
    refuses("\"\\ud800\\ud800\"", 1, "a bad escape");
    refuses("\"\\udc00\"", 1, "a bad escape");
    refuses("\"ab\x80\"", 3, "not UTF-8");
    refuses("\"\xc0\xaf\"", 1, "not UTF-8");
    refuses("\"\xed\xa0\x80\"", 1, "not UTF-8");
    refuses("\"\xf4\x90\x80\x80\"", 1, "not UTF-8");
    refuses("\"\xe2\x82\"", 1, "not UTF-8");
    refuses("{\"\xff\":1}", 2, "not UTF-8");
}

static void depth_is_limited_without_recursion(void **state) {
    (void)state;
    char text[2 * RV_JSON_MAX_DEPTH + 2], out[2 * RV_JSON_MAX_DEPTH + 8];
    rv_json j;
    memset(text, '[', RV_JSON_MAX_DEPTH);
    memset(text + RV_JSON_MAX_DEPTH, ']', RV_JSON_MAX_DEPTH);
    tokens_of(text, 2 * RV_JSON_MAX_DEPTH, out, sizeof out, &j);
    assert_null(j.error);
    memset(text, '[', sizeof text);
    tokens_of(text, sizeof text, out, sizeof out, &j);
    assert_string_equal(j.error, "nested too deeply");
    assert_int_equal(j.at, RV_JSON_MAX_DEPTH);
}

/* Containers of both kinds at every depth: the reader must not mistake one for the other. */
static void mixed_nesting_keeps_its_kinds(void **state) {
    (void)state;
    char text[RV_JSON_MAX_DEPTH * 8] = "", tail[RV_JSON_MAX_DEPTH + 1] = "", out[RV_JSON_MAX_DEPTH * 8];
    for (int i = 0; i < RV_JSON_MAX_DEPTH; i++) {
        bool object = (i * i + i / 3) % 3 == 0;
        strcat(text, object ? "{\"k\":" : "[");
        memmove(tail + 1, tail, strlen(tail) + 1);
        tail[0] = object ? '}' : ']';
    }
    strcat(strcat(text, "1"), tail);
    rv_json j;
    tokens_of(text, strlen(text), out, sizeof out, &j);
    assert_null(j.error);
    assert_string_equal(strchr(out, 'n') + 1, tail);
    for (size_t i = 0; i < strlen(tail); i++) {                 /* each closing bracket swapped: an error there */
        char *bad = strchr(text, '1') + 1 + i;
        *bad ^= '}' ^ ']';
        tokens_of(text, strlen(text), out, sizeof out, &j);
        assert_non_null(j.error);
        assert_int_equal(j.at, bad - text);
        *bad ^= '}' ^ ']';
    }
}

static void decodes_to(const char *json, const char *want, size_t bytes) {
    char out[64];
    rv_json j = rv_json_open(json, strlen(json));
    assert_int_equal(rv_json_next(&j), RV_JSON_STRING);
    assert_int_equal(rv_json_string(&j, out), bytes);
    assert_memory_equal(out, want, bytes);
    if (!memchr(want, '\0', bytes)) assert_true(rv_json_is(&j, want));
    assert_false(rv_json_is(&j, "something else"));
    if (bytes) assert_false(rv_json_is(&j, ""));
    assert_int_equal(rv_json_next(&j), RV_JSON_END);
}

static void escapes_decode(void **state) {
    (void)state;
    decodes_to("\"\"", "", 0);
    decodes_to("\"plain text, longer than eight\"", "plain text, longer than eight", 29);
    decodes_to("\"\\\"\\\\\\/\\b\\f\\n\\r\\t\"", "\"\\/\b\f\n\r\t", 8);
    decodes_to("\"\\u0041\\u00e9\\u20AC\\ud83d\\uDE00\"", "A\xc3\xa9\xe2\x82\xac\xf0\x9f\x98\x80", 10);
    decodes_to("\"\xc4\xa0 \xf0\x9f\x98\x80\"", "\xc4\xa0 \xf0\x9f\x98\x80", 7);
    decodes_to("\"a\\u0000b\"", "a\0b", 3);
    decodes_to("\"\\uffff\\ud800\\udc00\\udbff\\udfff\"", "\xef\xbf\xbf\xf0\x90\x80\x80\xf4\x8f\xbf\xbf", 11);
    decodes_to("\"\x7f\"", "\x7f", 1);
}

static void a_prefix_is_not_the_same_string(void **state) {
    (void)state;
    static const char *const texts[] = { "\"abc\"", "\"\\u0061bc\"", "\"ab\\u0063\"" };
    for (int i = 0; i < 3; i++) {
        rv_json j = rv_json_open(texts[i], strlen(texts[i]));
        rv_json_next(&j);
        assert_true(rv_json_is(&j, "abc"));
        assert_false(rv_json_is(&j, "ab"));
        assert_false(rv_json_is(&j, "abcd"));
        assert_false(rv_json_is(&j, "abd"));
    }
}

static void integers_are_exact_or_refused(void **state) {
    (void)state;
    static const struct { const char *text; bool u_ok, s_ok; uint64_t u; int64_t s; } cases[] = {
        { "0", true, true, 0, 0 }, { "-0", true, true, 0, 0 }, { "12", true, true, 12, 12 }, { "-1", false, true, 0,
            -1 },
        { "9223372036854775807", true, true, INT64_MAX, INT64_MAX }, { "9223372036854775808", true, false,
            (uint64_t)INT64_MAX + 1, 0 },
        { "-9223372036854775808", false, true, 0, INT64_MIN }, { "-9223372036854775809", false, false, 0, 0 },
        { "18446744073709551615", true, false, UINT64_MAX, 0 }, { "18446744073709551616", false, false, 0, 0 },
        { "184467440737095516150", false, false, 0, 0 }, { "-18446744073709551616", false, false, 0, 0 },
        { "1.0", false, false, 0, 0 }, { "0.5", false, false, 0, 0 }, { "0e1", false, false, 0, 0 }, { "1e3", false,
            false, 0, 0 }, { "-1.5", false, false, 0, 0 } };
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        rv_json j = rv_json_open(cases[i].text, strlen(cases[i].text));
        uint64_t u = 77;
        int64_t s = 77;
        assert_int_equal(rv_json_next(&j), RV_JSON_NUMBER);
        assert_int_equal(rv_json_uint64(&j, &u), cases[i].u_ok);
        assert_int_equal(rv_json_int64(&j, &s), cases[i].s_ok);
        assert_true(u == (cases[i].u_ok ? cases[i].u : 77));
        assert_true(s == (cases[i].s_ok ? cases[i].s : 77));
    }
}

static void skipping_leaves_the_reader_after_the_value(void **state) {
    (void)state;
    static const char text[] =
        "{\"skip\":{\"a\":[1,{\"b\":[]}],\"c\":{}},\"also\":[[],[1]],\"plain\":\"x\",\"want\":7}";
    rv_json j = rv_json_open(text, strlen(text));
    rv_json_token t;
    uint64_t got = 0;
    assert_int_equal(rv_json_next(&j), RV_JSON_OBJECT);
    while ((t = rv_json_next(&j)) == RV_JSON_KEY) {
        if (rv_json_is(&j, "want")) {
            assert_int_equal(rv_json_next(&j), RV_JSON_NUMBER);
            assert_true(rv_json_uint64(&j, &got));
        } else assert_true(rv_json_skip(&j));
    }
    assert_int_equal(t, RV_JSON_OBJECT_END);
    assert_int_equal(rv_json_next(&j), RV_JSON_END);
    assert_int_equal(got, 7);
    rv_json cut = rv_json_open("{\"a\":[1,", 8);
    rv_json_next(&cut);
    rv_json_next(&cut);
    assert_false(rv_json_skip(&cut));
    assert_int_equal(rv_json_next(&cut), RV_JSON_ERROR);
}

static void a_failure_names_file_offset_and_reason(void **state) {
    (void)state;
    rv_error err = { 0 };
    rv_json j = rv_json_open("{\"a\":01}", 8);
    rv_json_next(&j);
    rv_json_next(&j);
    rv_json_next(&j);
    expect_error(rv_json_fail(&j, "t.json", "a number", &err), &err, RV_ERR_FORMAT,
                 "t.json: not valid JSON: a number with leading zeros (byte 5)");
    j = rv_json_open(" []", 3);
    rv_json_next(&j);
    expect_error(rv_json_fail(&j, "t.json", "an object", &err), &err, RV_ERR_FORMAT,
        "t.json: an object was expected (byte 1)");
}

/* Every prefix of a good text is an error; every changed byte gets an answer. */
static void damaged_text_never_confuses_the_reader(void **state) {
    (void)state;
    static const char good[] =
        "{\"k\\u00e9\":[1.5e3,\"\\ud83d\\ude00\xc3\xa9\",true,null,{\"x\":-0}],\"long key here\":false}";
    char out[256], text[sizeof good];
    rv_json j;
    for (size_t n = 0; n < sizeof good - 1; n++) {
        tokens_of(good, n, out, sizeof out, &j);
        assert_non_null(j.error);
        assert_true(j.at <= n);
    }
    for (size_t i = 0; i < sizeof good - 1; i++)
        for (int flip = 1; flip < 256; flip++) {
            memcpy(text, good, sizeof good);
            text[i] = (char)(text[i] ^ flip);
            tokens_of(text, sizeof good - 1, out, sizeof out, &j);
            assert_true(j.at <= sizeof good - 1);
        }
}

int main(void) {
#define S(sentence) cmocka_unit_test(sentence)
    const struct CMUnitTest tests[] = {
        S(every_kind_of_value_is_a_token), S(bad_structure_is_refused_where_it_is),
            S(bad_words_and_numbers_are_refused),
        S(bad_strings_are_refused), S(depth_is_limited_without_recursion), S(mixed_nesting_keeps_its_kinds),
        S(escapes_decode), S(a_prefix_is_not_the_same_string), S(integers_are_exact_or_refused),
        S(skipping_leaves_the_reader_after_the_value), S(a_failure_names_file_offset_and_reason),
        S(damaged_text_never_confuses_the_reader),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
