/* Every conversation of golden/chat.json as Hugging Face renders it, and the demo's prompt ids. */
#include <jansson.h>

#include "tests/prompt/talk.h"

/* One conversation of the file as a request; the parts lie in `parts`. */
typedef struct conversation { rv_message messages[8]; rv_part parts[8][8]; rv_request request; } conversation;

static void read_conversation(const json_t *list, conversation *out) {
    size_t i, k;
    json_t *m, *p;
    memset(out, 0, sizeof *out);
    assert_true(json_array_size(list) <= 8);
    json_array_foreach(list, i, m) {
        json_t *content = json_object_get(m, "content");
        rv_message *message = &out->messages[i];
        *message = (rv_message){ .size = sizeof *message, .role = json_string_value(json_object_get(m, "role")),
                                 .parts = out->parts[i] };
        if (json_is_string(content)) {
            message->n_parts = 1;
            out->parts[i][0] = (rv_part)TEXT(json_string_value(content));
            continue;
        }
        assert_true(json_array_size(content) <= 8);
        json_array_foreach(content, k, p) {
            const char *text = json_string_value(json_object_get(p, "text"));
            out->parts[i][k] = text ? (rv_part)TEXT(text) : (rv_part)IMAGE;
            message->n_parts++;
        }
    }
    out->request = (rv_request){ .size = sizeof out->request, .messages = out->messages,
                                 .n_messages = (uint32_t)json_array_size(list), .date = DATE };
}

/* HF prints a list-valued system message as Python would; we give its text, as the string form does. */
static char *expected(const char *rendered) {
    static const char as_list[] = "[{'type': 'text', 'text': 'You are X.'}]", as_text[] = "You are X.";
    char *want = strdup(rendered), *at = strstr(want, as_list);
    if (at) {
        memmove(at + strlen(as_text), at + strlen(as_list), strlen(at + strlen(as_list)) + 1);
        memcpy(at, as_text, strlen(as_text));
    }
    return want;
}

typedef void (*visit)(const char *name, const rv_prompt_style *style, const rv_request *request, const char *want,
                      void *user);

static size_t for_each_golden(visit fn, void *user) {
    json_t *file = json_load_file(RV_TEST_DATA "/golden/chat.json", 0, NULL), *rendered;
    assert_non_null(file);
    const char *key;
    size_t n = 0;
    json_object_foreach(json_object_get(file, "rendered"), key, rendered) {
        const bool a = !strncmp(key, "t1/", 3), b = !strncmp(key, "t2/", 3);
        if (!a && !b) continue;                                 /* t1_notrim/..: not how HF renders */
        static conversation c;
        json_t *list = json_object_get(json_object_get(file, "messages"), key + 3);
        assert_true(json_is_array(list));
        read_conversation(list, &c);
        const rv_prompt_style style = chat_style(a ? RV_TEMPLATE_A : RV_TEMPLATE_B);
        char *want = expected(json_string_value(rendered));
        fn(key, &style, &c.request, want, user);
        free(want);
        n++;
    }
    json_decref(file);
    return n;
}

static void check_text(const char *name, const rv_prompt_style *style, const rv_request *request, const char *want,
                       void *user) {
    (void)user;
    rv_string got = { 0 };
    rv_error err = { 0 };
    rv_status st = rv_prompt_render(style, request, &got, &err);
    if (!strncmp(want, "ERROR ", 6)) {
        expect_error(st, &err, RV_ERR_ARGUMENT, "rompting with images is incompatible with system messages");
    } else {
        if (st) fail_msg("%s: %s", name, err.message);
        if (strcmp(rv_string_text(&got), want))
            fail_msg("%s: \"%s\"\n wanted \"%s\"", name, rv_string_text(&got), want);
    }
    rv_string_free(&got);
}

static void every_golden_conversation_is_rendered_as_by_hugging_face(void **state) {
    (void)state;
    assert_int_equal(for_each_golden(check_text, NULL), 20);
}

typedef struct models { const rv_tokenizer *t; rv_config config; } models;

/* No golden text holds a control token: tokenising what HF rendered gives the prompt's ids. */
static void check_ids(const char *name, const rv_prompt_style *style, const rv_request *request, const char *want,
                      void *user) {
    const models *m = user;
    rv_ids got = { 0 }, whole = { 0 };
    rv_error err = { 0 };
    if (!strncmp(want, "ERROR ", 6)) return;
    rv_status st = rv_prompt_ids(style, m->t, &m->config, request, &got, &err);
    if (st) fail_msg("%s: %s", name, err.message);
    expect_ok(rv_tokenizer_append(m->t, want, strlen(want), RV_ENCODE_CONTROL, &whole, &err), &err);
    if (got.count != whole.count || memcmp(got.data, whole.data, got.count * sizeof *got.data))
        fail_msg("%s: ids differ", name);
    assert_int_equal(count_id(&got, m->config.bos), 1);
    rv_ids_free(&got);
    rv_ids_free(&whole);
}

static void every_golden_conversation_has_the_ids_of_its_text(void **state) {
    (void)state;
    rv_tokenizer *demo = open_demo_tokenizer();
    assert_int_equal(for_each_golden(check_ids, &(models){ demo, demo_config() }), 20);
    rv_tokenizer_free(demo);
}

static void every_golden_conversation_has_the_real_ids_of_its_text(void **state) {
    (void)state;
    rv_tokenizer *real = NULL;
    rv_error err = { 0 };
    if (!rv_file_exists(RV_TEST_SHARED "/tokenizer/tokenizer.json")) {
        print_message("SKIPPED: " RV_TEST_SHARED "/tokenizer/tokenizer.json is not there\n");
        skip();
    }
    expect_ok(rv_tokenizer_open(RV_TEST_SHARED "/tokenizer", &real, &err), &err);
    models m = { real, { .text.vocab = 128256, .image_token = 128256, .bos = 128000 } };
    assert_int_equal(for_each_golden(check_ids, &m), 20);

    rv_image page = AN_IMAGE;
    const rv_request r = { .size = sizeof r, .images = &page, .n_images = 1,
                           .prompt = "Describe this image in two sentences" };
    static const int32_t want[] = {                                     /* of tokenizer/golden.json */
        128000, 128006, 882, 128007, 271, 128256, 75885, 420, 2217, 304, 1403, 23719, 128009, 128006, 78191, 128007,
        271 };
    const rv_prompt_style style = chat_style(RV_TEMPLATE_B);
    rv_ids ids = { 0 };
    expect_ok(rv_prompt_ids(&style, real, &m.config, &r, &ids, &err), &err);
    assert_int_equal(ids.count, sizeof want / sizeof *want);
    assert_memory_equal(ids.data, want, sizeof want);
    rv_ids_free(&ids);
    rv_tokenizer_free(real);
}

static void the_demo_receipts_have_their_prompt_ids(void **state) {
    (void)state;
    rv_tokenizer *t = open_demo_tokenizer();
    const rv_config config = demo_config();
    rv_prompt_style style;
    rv_error err = { 0 };
    expect_ok(rv_prompt_style_load(DEMO_MODEL, t, &style, &err), &err);
    FILE *f = fopen(RV_TEST_DEMO "/receipts/expected.jsonl", "r");
    char *line = NULL;
    size_t room = 0, n = 0, i;
    assert_non_null(f);
    for (; getline(&line, &room, f) > 0; n++) {
        json_t *item = json_loads(line, 0, NULL), *ids = json_object_get(item, "prompt_ids"), *id;
        rv_image page = AN_IMAGE;
        const rv_request r = { .size = sizeof r, .images = &page, .n_images = 1,
                               .prompt = json_string_value(json_object_get(item, "prompt")) };
        rv_ids got = { 0 };
        expect_ok(rv_prompt_ids(&style, t, &config, &r, &got, &err), &err);
        assert_int_equal(got.count, json_array_size(ids));
        json_array_foreach(ids, i, id) assert_int_equal(got.data[i], json_integer_value(id));
        rv_ids_free(&got);
        json_decref(item);
    }
    assert_int_equal(n, 8);
    free(line);
    fclose(f);
    rv_tokenizer_free(t);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(every_golden_conversation_is_rendered_as_by_hugging_face),
        cmocka_unit_test(every_golden_conversation_has_the_ids_of_its_text),
        cmocka_unit_test(every_golden_conversation_has_the_real_ids_of_its_text),
        cmocka_unit_test(the_demo_receipts_have_their_prompt_ids),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
