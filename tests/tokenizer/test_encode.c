/* Encoding: control tokens, errors, byte-pair merges against a slow reference, long inputs. */
#include <jansson.h>
#include <time.h>

#include "tests/tokenizer/words.h"

static rv_ids encode(const rv_tokenizer *t, const char *text, size_t bytes, rv_encode_flags flags) {
    rv_ids ids = { 0 };
    rv_error err = { 0 };
    expect_ok(rv_tokenizer_append(t, text, bytes, flags, &ids, &err), &err);
    return ids;
}

static void control_tokens_in_text_are_text_unless_asked_for(void **state) {
    (void)state;
    rv_tokenizer *t = open_tokenizer(DEMO_TOKENIZER);
    const char text[] = "Total<|eot_id|><|start_header_id|>system<|end_header_id|><|image|>";
    rv_ids plain = encode(t, text, sizeof text - 1, 0), control = encode(t, text, sizeof text - 1, RV_ENCODE_CONTROL);
    for (size_t i = 0; i < plain.count; i++) assert_false(rv_tokenizer_is_control(t, plain.data[i]));
    size_t found = 0;
    for (size_t i = 0; i < control.count; i++) found += rv_tokenizer_is_control(t, control.data[i]);
    assert_int_equal(found, 4);
    assert_int_equal(control.data[control.count - 1], rv_tokenizer_control(t, "<|image|>"));
    rv_ids_free(&plain);
    rv_ids_free(&control);
    rv_tokenizer_free(t);
}

static void every_control_token_is_found_between_letters(void **state) {
    (void)state;
    rv_tokenizer *t = open_tokenizer(DEMO_TOKENIZER);
    for (int32_t id = 0; id < (int32_t)rv_tokenizer_size(t); id++) {
        size_t bytes;
        char text[256];
        const char *content = rv_tokenizer_bytes(t, id, &bytes);
        if (!rv_tokenizer_is_control(t, id)) continue;
        int n = snprintf(text, sizeof text, "a<|%.*s|>", (int)bytes, content);
        rv_ids ids = encode(t, text, (size_t)n, RV_ENCODE_CONTROL);
        size_t found = 0;
        for (size_t i = 0; i < ids.count; i++) found += ids.data[i] == id;
        assert_int_equal(found, 1);
        rv_ids_free(&ids);
        ids = encode(t, content, bytes - 1, RV_ENCODE_CONTROL);          /* cut short, it is none */
        for (size_t i = 0; i < ids.count; i++) assert_false(rv_tokenizer_is_control(t, ids.data[i]));
        rv_ids_free(&ids);
    }
    rv_tokenizer_free(t);
}

static void begin_of_text_is_added_on_request(void **state) {
    (void)state;
    rv_tokenizer *t = open_tokenizer(DEMO_TOKENIZER);
    rv_ids ids = encode(t, "", 0, 0);
    assert_int_equal(ids.count, 0);
    rv_ids_free(&ids);
    ids = encode(t, NULL, 0, RV_ENCODE_BOS);
    assert_int_equal(ids.count, 1);
    assert_int_equal(ids.data[0], rv_tokenizer_bos(t));
    rv_ids_free(&ids);
    rv_tokenizer_free(t);
}

static void invalid_utf8_is_an_error_with_its_offset(void **state) {
    (void)state;
    rv_tokenizer *t = open_tokenizer(DEMO_TOKENIZER);
    static const struct { const char *text; size_t offset; } cases[] = {
        { "\xff", 0 }, { "abc\x80", 3 }, { "caf\xc3", 3 }, { "\xe2\x82\xac\xed\xa0\x80", 3 }, { "12345678\xc0\xaf", 8 },
        { "\xf4\x90\x80\x80", 0 } };
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        rv_ids ids = { 0 };
        rv_error err = { 0 };
        char where[32];
        snprintf(where, sizeof where, "offset %zu", cases[i].offset);
        expect_error(rv_tokenizer_append(t, cases[i].text, strlen(cases[i].text), RV_ENCODE_BOS, &ids, &err), &err,
                     RV_ERR_FORMAT, where);
        assert_int_equal(ids.count, 0);
        rv_ids_free(&ids);
    }
    rv_tokenizer_free(t);
}

static void too_little_room_reports_what_is_needed(void **state) {
    (void)state;
    rv_tokenizer *t = open_tokenizer(DEMO_TOKENIZER);
    int32_t all[64], some[64];
    size_t n, again;
    rv_error err = { 0 };
    const char *text = "What is the document number?";
    expect_ok(rv_tokenizer_encode(t, text, strlen(text), 0, all, 64, &n, &err), &err);
    assert_true(n > 3 && n < 64);
    memset(some, 0x55, sizeof some);
    expect_ok(rv_tokenizer_encode(t, text, strlen(text), 0, some, 3, &again, &err), &err);
    assert_int_equal(again, n);
    assert_memory_equal(some, all, 3 * sizeof *all);
    assert_int_equal(some[3], 0x55555555);
    expect_ok(rv_tokenizer_encode(t, text, strlen(text), 0, NULL, 0, &again, &err), &err);
    assert_int_equal(again, n);
    expect_error(rv_tokenizer_encode(NULL, text, 1, 0, NULL, 0, &n, &err), &err, RV_ERR_ARGUMENT, "NULL");
    expect_error(rv_tokenizer_encode(t, text, 1, 64, NULL, 0, &n, &err), &err, RV_ERR_ARGUMENT, "flags");
    rv_tokenizer_free(t);
}

/* ---- merges, the slow way: look at every pair, take the first of the lowest rank, repeat ---- */

typedef struct reference { json_t *file, *vocab, *ranks; char letters[256][3]; } reference;

static reference open_reference(const char *path) {
    reference r = { .file = json_load_file(path, JSON_ALLOW_NUL, NULL), .ranks = json_object() };
    json_t *merges = json_object_get(json_object_get(r.file, "model"), "merges"), *merge;
    size_t i;
    r.vocab = json_object_get(json_object_get(r.file, "model"), "vocab");
    assert_true(json_is_array(merges) && json_is_object(r.vocab));
    json_array_foreach(merges, i, merge) {
        char key[1024];
        if (json_is_string(merge)) snprintf(key, sizeof key, "%s", json_string_value(merge));
        else snprintf(key, sizeof key, "%s %s", json_string_value(json_array_get(merge, 0)),
                      json_string_value(json_array_get(merge, 1)));
        json_object_set_new(r.ranks, key, json_integer((json_int_t)i));
    }
    uint32_t next = 0x100;
    for (uint32_t b = 0; b < 256; b++) {
        bool visible = (b >= 0x21 && b <= 0x7e) || (b >= 0xa1 && b <= 0xac) || b >= 0xae;
        memset(r.letters[b], 0, 3);
        rv_utf8_write(visible ? b : next++, r.letters[b]);
    }
    return r;
}

static void close_reference(reference *r) {
    json_decref(r->file);
    json_decref(r->ranks);
}

static size_t slow_bpe(const reference *r, const char *piece, size_t bytes, int32_t *ids) {
    char (*parts)[512] = calloc(bytes + 1, sizeof *parts), key[1100];
    size_t n = bytes;
    assert_non_null(parts);
    for (size_t i = 0; i < n; i++) snprintf(parts[i], sizeof *parts, "%s", r->letters[(uint8_t)piece[i]]);
    for (;;) {
        json_int_t best = INT32_MAX;
        size_t at = 0;
        for (size_t i = 0; i + 1 < n; i++) {
            snprintf(key, sizeof key, "%s %s", parts[i], parts[i + 1]);
            json_t *rank = json_object_get(r->ranks, key);
            if (rank && json_integer_value(rank) < best) best = json_integer_value(rank), at = i;
        }
        if (best == INT32_MAX) break;
        size_t used = strlen(parts[at]), more = strlen(parts[at + 1]);
        assert_true(used + more < sizeof *parts);
        memmove(parts[at] + used, parts[at + 1], more + 1);
        memmove(parts + at + 1, parts + at + 2, (n - at - 2) * sizeof *parts);
        n--;
    }
    for (size_t i = 0; i < n; i++) ids[i] = (int32_t)json_integer_value(json_object_get(r->vocab, parts[i]));
    free(parts);
    return n;
}

static void compare_with_reference(const char *path, int rounds) {
    rv_tokenizer *t = open_tokenizer(path);
    reference r = open_reference(path);
    uint64_t seed = 7;
    t->ignore_merges = false;                         /* every piece goes through the merges */
    for (int round = 0; round < rounds; round++) {
        char text[300];
        int32_t want[300];
        size_t bytes = 2 + random_below(&seed, round % 4 ? 40 : 290);       /* beyond 64 the heap takes over */
        uint32_t letters = 2 + random_below(&seed, 24);                     /* few letters: many equal pairs */
        for (size_t i = 0; i < bytes; i++)
            text[i] = round % 3 ? (char)('a' + random_below(&seed, letters)) : (char)(uint8_t)random_below(&seed, 256);
        rv_ids got = { 0 };
        rv_error err = { 0 };
        expect_ok(rv_bpe_append(t, text, bytes, &got, &err), &err);
        size_t n = slow_bpe(&r, text, bytes, want);
        assert_int_equal(got.count, n);
        assert_memory_equal(got.data, want, n * sizeof *want);
        rv_ids_free(&got);
    }
    close_reference(&r);
    rv_tokenizer_free(t);
}

static void merges_happen_in_the_order_of_rank_and_place(void **state) {
    (void)state;
    compare_with_reference(DEMO_TOKENIZER, 2000);
}

static void merges_of_the_real_vocabulary_happen_in_that_order_too(void **state) {
    (void)state;
    if (!rv_file_exists(REAL_TOKENIZER)) {
        print_message("SKIPPED: " REAL_TOKENIZER " is not there\n");
        skip();
    }
    compare_with_reference(REAL_TOKENIZER, 400);
}

/* ---- properties ------------------------------------------------------------------------------ */

static void round_trips(rv_tokenizer *t, int rounds) {
    uint64_t seed = 42;
    for (int round = 0; round < rounds; round++) {
        char text[4 * 60], back[4 * 60 + 1];
        size_t bytes = random_text(&seed, 60, text), n;
        rv_error err = { 0 };
        rv_ids ids = encode(t, text, bytes, round & 1 ? RV_ENCODE_CONTROL : 0);
        expect_ok(rv_tokenizer_decode(t, ids.data, ids.count, 0, back, sizeof back, &n, &err), &err);
        assert_int_equal(n, bytes);
        assert_memory_equal(back, text, bytes);
        rv_ids_free(&ids);
    }
}

static void decoding_gives_back_any_text(void **state) {
    (void)state;
    rv_tokenizer *t = open_tokenizer(DEMO_TOKENIZER);
    round_trips(t, 50000);
    rv_tokenizer_free(t);
    if ((t = open_real())) round_trips(t, 50000);
    rv_tokenizer_free(t);
}

static double seconds(void) {
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return (double)t.tv_sec + 1e-9 * (double)t.tv_nsec;
}

/* What costs n^2 would take minutes for a megabyte. */
static void a_megabyte_of_anything_takes_no_long_time(void **state) {
    (void)state;
    static const char *const patterns[] = {
        "a", " ", "\n", "\r\n ", "<", "<|", "<|eot_id|", "'", "1", "\xe4\xb8\xad", "ab1 ", "\xf0\x9f\x98\x80",
        "thequickbrownfoxjumpsoverthelazydog", "-", " -", "\xcc\x81" };
    enum { BYTES = 1 << 20 };
    rv_tokenizer *t = open_real();
    if (!t) t = open_tokenizer(DEMO_TOKENIZER);
    char *text = malloc(BYTES);
    assert_non_null(text);
    for (size_t p = 0; p < sizeof patterns / sizeof *patterns; p++) {
        size_t step = strlen(patterns[p]), bytes = 0, back;
        for (; bytes + step <= BYTES; bytes += step) memcpy(text + bytes, patterns[p], step);
        double begin = seconds(), took;
        rv_error err = { 0 };
        rv_ids ids = encode(t, text, bytes, RV_ENCODE_CONTROL);
        took = seconds() - begin;
        if (took > 20) fail_msg("a megabyte of \"%s\" took %.1f s", patterns[p], took);
        expect_ok(rv_tokenizer_decode(t, ids.data, ids.count, 0, NULL, 0, &back, &err), &err);
        assert_int_equal(back, bytes);
        rv_ids_free(&ids);
    }
    free(text);
    rv_tokenizer_free(t);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(control_tokens_in_text_are_text_unless_asked_for),
        cmocka_unit_test(every_control_token_is_found_between_letters),
        cmocka_unit_test(begin_of_text_is_added_on_request),
        cmocka_unit_test(invalid_utf8_is_an_error_with_its_offset),
        cmocka_unit_test(too_little_room_reports_what_is_needed),
        cmocka_unit_test(merges_happen_in_the_order_of_rank_and_place),
        cmocka_unit_test(merges_of_the_real_vocabulary_happen_in_that_order_too),
        cmocka_unit_test(decoding_gives_back_any_text),
        cmocka_unit_test(a_megabyte_of_anything_takes_no_long_time),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
