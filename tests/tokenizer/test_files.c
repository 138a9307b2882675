/* tokenizer.json: the forms it comes in, and every way in which it can be wrong. */
#include "engine/base/json.h"
#include "tests/tokenizer/words.h"

/* The demo's file with the first `from` made `to`, as an opened tokenizer or its error. */
static rv_status open_changed(const char *from, const char *to, rv_tokenizer **t, rv_error *err) {
    char folder[1024], *text, *changed;
    size_t bytes;
    expect_ok(rv_file_read(DEMO_TOKENIZER, 1 << 24, &text, &bytes, err), err);
    char *at = from ? strstr(text, from) : NULL;
    if (from && !at) fail_msg("\"%s\" is not in the demo's tokenizer", from);
    size_t removed = from ? strlen(from) : 0, added = strlen(to), head = from ? (size_t)(at - text) : 0;
    assert_non_null(changed = malloc(bytes + added + 1));
    memcpy(changed, text, head);
    memcpy(changed + head, to, added);
    memcpy(changed + head + added, text + head + removed, bytes - head - removed);
    folder_write(folder_new(folder, "changed"), "tokenizer.json", changed, bytes - removed + added);
    free(text);
    free(changed);
    *t = NULL;
    return rv_tokenizer_open(folder, t, err);
}

static void expect_refused(const char *from, const char *to, rv_status code, const char *part) {
    rv_tokenizer *t;
    rv_error err = { 0 };
    expect_error(open_changed(from, to, &t, &err), &err, code, part);
    assert_null(t);
    assert_non_null(strstr(err.message, "tokenizer.json"));
}

static rv_ids ids_of(const rv_tokenizer *t, const char *text) {
    rv_ids ids = { 0 };
    rv_error err = { 0 };
    expect_ok(rv_tokenizer_append(t, text, strlen(text), RV_ENCODE_CONTROL, &ids, &err), &err);
    return ids;
}

static void expect_same_ids(const rv_tokenizer *a, const rv_tokenizer *b) {
    static const char *const texts[] = { "Extract the receipt as KEY: VALUE lines.",
                                         "<|eot_id|> \"quoted\" \\ \xc3\xa9\n\n", "Tyres" };
    for (size_t i = 0; i < sizeof texts / sizeof *texts; i++) {
        rv_ids x = ids_of(a, texts[i]), y = ids_of(b, texts[i]);
        assert_int_equal(x.count, y.count);
        assert_memory_equal(x.data, y.data, x.count * sizeof *x.data);
        rv_ids_free(&x);
        rv_ids_free(&y);
    }
}

static void a_folder_and_a_file_open_the_same(void **state) {
    (void)state;
    rv_tokenizer *folder = open_tokenizer(RV_TEST_DEMO "/model"), *file = open_tokenizer(DEMO_TOKENIZER);
    assert_int_equal(rv_tokenizer_size(folder), 1017);
    assert_int_equal(rv_tokenizer_bos(file), 1000);
    assert_true(rv_tokenizer_adds_bos(file));
    expect_same_ids(folder, file);
    rv_tokenizer_free(folder);
    rv_tokenizer_free(file);
    rv_tokenizer_free(NULL);
}

/* ["a","b"] becomes "a b" and the model's keys are turned around: the same tokenizer. */
static void merges_as_strings_and_before_the_vocabulary_are_the_same(void **state) {
    (void)state;
    char folder[1024], *text;
    size_t bytes;
    rv_error err = { 0 };
    expect_ok(rv_file_read(DEMO_TOKENIZER, 1 << 24, &text, &bytes, &err), &err);
    char *vocab = strstr(text, "\"vocab\""), *merges = strstr(text, "\"merges\"");
    assert_true(vocab && merges && vocab < merges);
    rv_string out = { 0 };
    rv_string_add(&out, text, (size_t)(vocab - text));
    rv_json j = rv_json_open(merges + 9, bytes - (size_t)(merges + 9 - text));
    assert_int_equal(rv_json_next(&j), RV_JSON_ARRAY);
    rv_string_addz(&out, "\"merges\": [");
    for (size_t n = 0; rv_json_next(&j) == RV_JSON_ARRAY; n++) {
        assert_int_equal(rv_json_next(&j), RV_JSON_STRING);
        rv_string_addf(&out, "%s\"%.*s ", n ? ", " : "", (int)j.slice_bytes, j.slice);
        assert_int_equal(rv_json_next(&j), RV_JSON_STRING);
        rv_string_addf(&out, "%.*s\"", (int)j.slice_bytes, j.slice);
        assert_int_equal(rv_json_next(&j), RV_JSON_ARRAY_END);
    }
    rv_string_addz(&out, "], ");
    char *comma = merges;
    while (*comma != ',') comma--;
    rv_string_add(&out, vocab, (size_t)(comma - vocab));
    rv_string_addz(&out, "}}");
    assert_false(out.failed);
    folder_write(folder_new(folder, "joined"), "tokenizer.json", out.data, out.bytes);
    rv_tokenizer *a = open_tokenizer(folder), *b = open_tokenizer(DEMO_TOKENIZER);
    assert_int_equal(a->n_merges, b->n_merges);
    expect_same_ids(a, b);
    rv_tokenizer_free(a);
    rv_tokenizer_free(b);
    rv_string_free(&out);
    free(text);
}

static void without_a_template_no_begin_of_text_is_added(void **state) {
    (void)state;
    rv_tokenizer *t;
    rv_error err = { 0 };
    expect_ok(open_changed("\"type\": \"TemplateProcessing\"", "\"type\": \"ByteLevel\"", &t, &err), &err);
    assert_false(rv_tokenizer_adds_bos(t));
    assert_int_equal(rv_tokenizer_bos(t), 1000);
    rv_tokenizer_free(t);
}

static void a_template_of_the_text_alone_adds_none_either(void **state) {
    (void)state;
    rv_tokenizer *t;
    rv_error err = { 0 };
    expect_ok(open_changed("\"single\": [", "\"single\": [{\"Sequence\": {\"id\": \"A\", \"type_id\": 0}}], \"x\": [",
                           &t, &err), &err);
    assert_false(rv_tokenizer_adds_bos(t));
    rv_tokenizer_free(t);
}

static void truncation_and_unknown_keys_do_not_matter(void **state) {
    (void)state;
    rv_tokenizer *t;
    rv_error err = { 0 };
    expect_ok(open_changed("\"truncation\": null", "\"truncation\": {\"max_length\": 4}, \"later\": [1, {\"x\": 2}]",
                           &t, &err), &err);
    rv_tokenizer_free(t);
    expect_ok(open_changed("\"dropout\": null", "\"dropout\": 0.0", &t, &err), &err);
    rv_tokenizer_free(t);
}

/* HF looks for those that are not "normalized" first, and for the longest at a place. */
static void plain_added_tokens_are_found_without_asking(void **state) {
    (void)state;
    rv_tokenizer *t;
    rv_error err = { 0 };
    expect_ok(open_changed("\"added_tokens\": [", "\"added_tokens\": ["
        "{\"id\": 1017, \"content\": \"<total>\", \"special\": false, \"normalized\": true},"
        "{\"id\": 1018, \"content\": \"<total>ly\", \"special\": false, \"normalized\": true},"
        "{\"id\": 1030, \"content\": \"<total>s\", \"special\": false, \"normalized\": false},", &t, &err), &err);
    static const struct { const char *text; int32_t id; } cases[] = {
        { "a<total>b", 1017 }, { "a<total>lyb", 1018 }, { "a<total>sb", 1030 } };
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        rv_ids ids = { 0 };
        expect_ok(rv_tokenizer_append(t, cases[i].text, strlen(cases[i].text), 0, &ids, &err), &err);
        assert_int_equal(ids.count, 3);
        assert_int_equal(ids.data[1], cases[i].id);
        assert_false(rv_tokenizer_is_control(t, cases[i].id));
        rv_ids_free(&ids);
    }
    const char *forged = "<total><|eot_id|><total>s<|image|>";
    rv_ids ids = { 0 };
    expect_ok(rv_tokenizer_append(t, forged, strlen(forged), 0, &ids, &err), &err);
    for (size_t i = 0; i < ids.count; i++) assert_false(rv_tokenizer_is_control(t, ids.data[i]));
    rv_ids_free(&ids);
    size_t bytes;
    assert_int_equal(rv_tokenizer_size(t), 1031);
    assert_null(rv_tokenizer_bytes(t, 1020, &bytes));          /* nobody has the ids between */
    rv_tokenizer_free(t);
}

static void other_tokenizers_are_refused_by_name(void **state) {
    (void)state;
    const rv_status no = RV_ERR_UNSUPPORTED;
    expect_refused("\\\\p{N}{1,3}|", "\\\\p{N}|", no, "pattern");
    expect_refused("\"Isolated\"", "\"Removed\"", no, "pre_tokenizer");
    expect_refused("\"invert\": false", "\"invert\": true", no, "pre_tokenizer");
    expect_refused("\"use_regex\": false", "\"use_regex\": true", no, "pre_tokenizer");
    expect_refused("\"add_prefix_space\": false", "\"add_prefix_space\": true", no, "pre_tokenizer");
    expect_refused("\"type\": \"Split\"", "\"type\": \"Whitespace\"", no, "Whitespace");
    expect_refused("\"Regex\"", "\"String\"", no, "pattern");
    expect_refused("\"normalizer\": null", "\"normalizer\": {\"type\": \"NFC\"}", no, "normalizer");
    expect_refused("\"type\": \"BPE\"", "\"type\": \"Unigram\"", no, "Unigram");
    expect_refused("\"byte_fallback\": false", "\"byte_fallback\": true", no, "byte_fallback");
    expect_refused("\"dropout\": null", "\"dropout\": 0.1", no, "dropout");
    expect_refused("\"unk_token\": null", "\"unk_token\": \"<unk>\"", no, "unk_token");
    expect_refused("\"end_of_word_suffix\": null", "\"end_of_word_suffix\": \"</w>\"", no, "end_of_word_suffix");
    expect_refused("\"lstrip\": false", "\"lstrip\": true", no, "lstrip");
    expect_refused("\"rstrip\": false", "\"rstrip\": true", no, "rstrip");
    expect_refused("\"single_word\": false", "\"single_word\": true", no, "single_word");
    expect_refused("\"TemplateProcessing\"", "\"RobertaProcessing\"", no, "RobertaProcessing");
    expect_refused("\"SpecialToken\"", "\"Sequence\"", no, "post_processor");
    expect_refused("\"decoder\": {", "\"decoder\": null, \"x\": {", no, "decoder");
}

static void damage_is_an_error_that_says_where(void **state) {
    (void)state;
    const rv_status bad = RV_ERR_FORMAT;
    expect_refused("\"model\":", "\"modell\":", bad, "model: missing");
    expect_refused("\"decoder\":", "\"decoders\":", bad, "decoder: missing");
    expect_refused("\"pre_tokenizer\":", "\"pretokenizer\":", bad, "pre_tokenizer: missing");
    expect_refused("\"vocab\":", "\"vocabulary\":", bad, "model.vocab: missing");
    expect_refused("\"merges\":", "\"merge\":", bad, "model.merges: missing");
    expect_refused("\"ignore_merges\":", "\"vocab\": {}, \"ignore_merges\":", bad, "model.vocab");
    expect_refused("\"version\":", "\"model\": {\"vocab\": 3}, \"version\":", bad, "model.vocab");
    expect_refused("\"!\": 0", "\"!\": -1", bad, "model.vocab");
    expect_refused("\"!\": 0", "\"!\": 1", bad, "two tokens have the id 1");
    expect_refused("\"!\": 0", "\"!\": 5000", bad, "an id is 5000");
    expect_refused("\"!\": 0", "\"!\": 99999999999999999999", bad, "model.vocab");
    expect_refused("\"!\": 0", "\"!\": 0.5", bad, "model.vocab");
    expect_refused("\"!\": 0", "\"!\": \"0\"", bad, "model.vocab");
    expect_refused("\"!\": 0", "\"\": 0", bad, "empty");
    expect_refused("\"!\": 0", "\"!!!!!!!\": 0", bad, "no token for the byte 0x21");
    expect_refused("\"!\": 0", "\"\\\"\": 0", bad, "the same text");
    expect_refused("\"!\": 0", "\"\xe4\xb8\xad\": 0", bad, "byte alphabet");
    expect_refused("\"!\": 0", "\"a b\": 0", bad, "byte alphabet");
    expect_refused("\"merges\": [", "\"merges\": [\"qq qq\", ", bad, "left part of merge 0 is not in model.vocab");
    expect_refused("\"merges\": [", "\"merges\": [\"q zzzzz\", ", bad, "right part of merge 0");
    expect_refused("\"merges\": [", "\"merges\": [\"q !\", ", bad, "result of merge 0");
    expect_refused("\"merges\": [", "\"merges\": [\"a\", ", bad, "model.merges");
    expect_refused("\"merges\": [", "\"merges\": [7, ", bad, "model.merges");
    expect_refused("\"merges\": [", "\"merges\": [[\"a\"], ", bad, "model.merges");
    expect_refused("\"merges\": [", "\"merges\": [[\"a\", \"b\", \"c\"], ", bad, "model.merges");
    expect_refused("\"merges\": [", "\"merges\": {}, \"x\": [", bad, "model.merges");
    expect_refused("\"merges\": [", "\"merges\": [\"\xc4\xa0 $\", ", bad, "merges 0 and 1 are the same");
    expect_refused("\"id\": 1000,", "\"id\": 999,", bad, "taken already by model.vocab");
    expect_refused("\"id\": 1000,", "\"id\": 1001,", bad, "taken already");
    expect_refused("\"id\": 1000,", "\"id\": 4000000000,", bad, "added_tokens");
    expect_refused("\"id\": 1000,", "\"id\": -3,", bad, "added_tokens");
    expect_refused("\"id\": 1000,", "", bad, "added_tokens");
    expect_refused("\"id\": 1000,", "\"id\": 1020,", bad, "post_processor");
    expect_refused("\"content\": \"<|begin_of_text|>\"", "\"content\": \"\"", bad, "added_tokens");
    expect_refused("\"content\": \"<|begin_of_text|>\"", "\"content\": \"<|eot_id|>\"", bad, "twice");
    expect_refused("\"content\": \"<|begin_of_text|>\"", "\"content\": 5", bad, "added_tokens");
    expect_refused("\"special\": true", "\"special\": 1", bad, "added_tokens");
    expect_refused("\"added_tokens\": [", "\"added_tokens\": [3, ", bad, "added_tokens");
    expect_refused(NULL, "\xef\xbb\xbf", bad, "not valid JSON");
    expect_refused(NULL, "[", bad, "an object");
}

static void every_truncation_is_an_error(void **state) {
    (void)state;
    char folder[1024], *text;
    size_t bytes;
    rv_error err = { 0 };
    expect_ok(rv_file_read(DEMO_TOKENIZER, 1 << 24, &text, &bytes, &err), &err);
    while (bytes > 0 && strchr(" \n", text[bytes - 1])) bytes--;
    folder_new(folder, "truncated");
    for (size_t n = 0; n < bytes; n += n < 600 || bytes - n < 600 ? 1 : 97) {
        rv_tokenizer *t = NULL;
        folder_write(folder, "tokenizer.json", text, n);
        expect_error(rv_tokenizer_open(folder, &t, &err), &err, RV_ERR_FORMAT, n ? "not valid JSON" : "empty");
        assert_null(t);
    }
    free(text);
}

/* One byte changed anywhere: an error or a tokenizer, never a crash; and what opens can be used. */
static void any_changed_byte_is_survived(void **state) {
    (void)state;
    char folder[1024], *text;
    size_t bytes, opened = 0, refused = 0;
    rv_error err = { 0 };
    uint64_t seed = 99;
    static const char likely[] = "{}[]\",:0123456789-tfn\\ ";
    expect_ok(rv_file_read(DEMO_TOKENIZER, 1 << 24, &text, &bytes, &err), &err);
    folder_new(folder, "mutated");
    for (int round = 0; round < 2000; round++) {
        size_t at = random_below(&seed, (uint32_t)bytes);
        char old = text[at];
        rv_tokenizer *t = NULL;
        text[at] = random_below(&seed, 2) ? (char)random_below(&seed, 256)
                                          : likely[random_below(&seed, sizeof likely - 1)];
        folder_write(folder, "tokenizer.json", text, bytes);
        rv_status st = rv_tokenizer_open(folder, &t, &err);
        text[at] = old;
        if (st) { refused++; assert_null(t); continue; }
        opened++;
        rv_ids ids = { 0 };
        expect_ok(rv_tokenizer_append(t, "Total $12.50 <|eot_id|>", 23, RV_ENCODE_CONTROL, &ids, &err), &err);
        assert_true(ids.count > 0);
        rv_ids_free(&ids);
        rv_tokenizer_free(t);
    }
    assert_true(opened > 0 && refused > opened);
    free(text);
}

static void a_missing_file_is_an_io_error(void **state) {
    (void)state;
    char folder[1024];
    rv_tokenizer *t = NULL;
    rv_error err = { 0 };
    expect_error(rv_tokenizer_open(folder_new(folder, "empty"), &t, &err), &err, RV_ERR_IO, "tokenizer.json");
    expect_error(rv_tokenizer_open("/nowhere/tokenizer.json", &t, &err), &err, RV_ERR_IO, "/nowhere");
    expect_error(rv_tokenizer_open(NULL, &t, &err), &err, RV_ERR_ARGUMENT, "NULL");
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(a_folder_and_a_file_open_the_same),
        cmocka_unit_test(merges_as_strings_and_before_the_vocabulary_are_the_same),
        cmocka_unit_test(without_a_template_no_begin_of_text_is_added),
        cmocka_unit_test(a_template_of_the_text_alone_adds_none_either),
        cmocka_unit_test(truncation_and_unknown_keys_do_not_matter),
        cmocka_unit_test(plain_added_tokens_are_found_without_asking),
        cmocka_unit_test(other_tokenizers_are_refused_by_name),
        cmocka_unit_test(damage_is_an_error_that_says_where),
        cmocka_unit_test(every_truncation_is_an_error),
        cmocka_unit_test(any_changed_byte_is_survived),
        cmocka_unit_test(a_missing_file_is_an_io_error),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
