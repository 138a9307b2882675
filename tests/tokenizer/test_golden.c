/* The 98 strings that Hugging Face's tokenizers library encoded with the real vocabulary. */
#include <jansson.h>

#include "tests/tokenizer/words.h"

static json_t *golden(void) {
    json_t *list = json_load_file(RV_TEST_SHARED "/tokenizer/golden.json", JSON_ALLOW_NUL, NULL);
    assert_true(json_is_array(list));
    assert_int_equal(json_array_size(list), 98);
    return list;
}

static void every_golden_string_has_the_ids_of_hugging_face(void **state) {
    (void)state;
    rv_tokenizer *t = open_real();
    if (!t) skip();
    json_t *list = golden(), *item, *id;
    size_t i, k;
    json_array_foreach(list, i, item) {
        json_t *text = json_object_get(item, "text"), *ids = json_object_get(item, "ids");
        rv_ids got = { 0 };
        rv_error err = { 0 };
        expect_ok(rv_tokenizer_append(t, json_string_value(text), json_string_length(text), RV_ENCODE_CONTROL, &got,
                                      &err), &err);
        if (got.count != json_array_size(ids))
            fail_msg("string %zu \"%s\": %zu ids", i, json_string_value(text), got.count);
        json_array_foreach(ids, k, id)
            if (json_integer_value(id) != got.data[k])
                fail_msg("string %zu \"%s\": id %zu", i, json_string_value(text), k);

        got.count = 0;                                         /* and with begin-of-text in front */
        expect_ok(rv_tokenizer_append(t, json_string_value(text), json_string_length(text),
                                      RV_ENCODE_CONTROL | RV_ENCODE_BOS, &got, &err), &err);
        assert_int_equal(got.count, json_array_size(ids) + 1);
        assert_int_equal(got.data[0], json_integer_value(json_array_get(json_object_get(item, "bos_ids_first"), 0)));
        rv_ids_free(&got);
    }
    json_decref(list);
    rv_tokenizer_free(t);
}

static void every_golden_string_decodes_as_in_hugging_face(void **state) {
    (void)state;
    rv_tokenizer *t = open_real();
    if (!t) skip();
    json_t *list = golden(), *item, *id;
    size_t i, k;
    json_array_foreach(list, i, item) {
        int32_t ids[1024];
        size_t n = json_array_size(json_object_get(item, "ids")), bytes;
        assert_true(n <= 1024);
        json_array_foreach(json_object_get(item, "ids"), k, id) ids[k] = (int32_t)json_integer_value(id);
        for (int32_t skip_control = 0; skip_control < 2; skip_control++) {
            char text[8192];
            rv_error err = { 0 };
            json_t *want = json_object_get(item, skip_control ? "dec_skip" : "dec");
            expect_ok(rv_tokenizer_decode(t, ids, n, skip_control, text, sizeof text, &bytes, &err), &err);
            assert_int_equal(bytes, json_string_length(want));
            assert_memory_equal(text, json_string_value(want), bytes);
        }
    }
    json_decref(list);
    rv_tokenizer_free(t);
}

static void the_published_examples_have_their_ids(void **state) {
    (void)state;
    rv_tokenizer *t = open_real();
    if (!t) skip();
    static const struct { const char *text; int32_t ids[8]; size_t n; } cases[] = {      /* from HF's tests */
        { "Describe this image in two sentences", { 75885, 420, 2217, 304, 1403, 23719 }, 6 },
        { " Test sentence   ", { 3475, 11914, 262 }, 3 }, { "ok\n", { 564, 198 }, 2 },
        { "This is a test sentence.", { 2028, 374, 264, 1296, 11914, 13 }, 6 }, { "\n\n", { 271 }, 1 },
        { "system", { 9125 }, 1 }, { "user", { 882 }, 1 }, { "assistant", { 78191 }, 1 },
        { "ipython", { 23799, 4690 }, 2 } };
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        int32_t ids[8];
        size_t n;
        rv_error err = { 0 };
        expect_ok(rv_tokenizer_encode(t, cases[i].text, strlen(cases[i].text), 0, ids, 8, &n, &err), &err);
        assert_int_equal(n, cases[i].n);
        assert_memory_equal(ids, cases[i].ids, n * sizeof *ids);
    }
    assert_int_equal(rv_tokenizer_size(t), 128257);
    assert_int_equal(rv_tokenizer_bos(t), 128000);
    assert_int_equal(rv_tokenizer_control(t, "<|image|>"), 128256);
    assert_true(rv_tokenizer_adds_bos(t));
    rv_tokenizer_free(t);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(every_golden_string_has_the_ids_of_hugging_face),
        cmocka_unit_test(every_golden_string_decodes_as_in_hugging_face),
        cmocka_unit_test(the_published_examples_have_their_ids),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
