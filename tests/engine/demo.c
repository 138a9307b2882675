/* demo.c - the demo model and its receipts. */
#include "tests/engine/demo.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <cmocka.h>
#include <jansson.h>

#ifdef RV_TEST_LATE
#include "engine/model.h"
#include "tests/engine/late.h"
#endif

static void *read_file(const char *path, size_t *bytes) {
    FILE *f = fopen(path, "rb");
    if (!f) fail_msg("%s: cannot open", path);
    fseek(f, 0, SEEK_END);
    *bytes = (size_t)ftell(f);
    rewind(f);
    void *data = malloc(*bytes);
    assert_int_equal(fread(data, 1, *bytes, f), *bytes);
    fclose(f);
    return data;
}

static int32_t read_ids(const json_t *list, int32_t *out) {
    assert_true(json_array_size(list) <= DEMO_TOKENS);
    size_t i;
    json_t *id;
    json_array_foreach(list, i, id) out[i] = (int32_t)json_integer_value(id);
    return (int32_t)json_array_size(list);
}

static void copy_text(char *out, size_t n, const json_t *object, const char *key) {
    const char *text = json_string_value(json_object_get(object, key));
    assert_non_null(text);
    assert_true(strlen(text) < n);
    strcpy(out, text);
}

void demo_read(demo_receipt out[DEMO_RECEIPTS]) {
    FILE *f = fopen(RV_TEST_DEMO "/receipts/expected.jsonl", "r");
    assert_non_null(f);
    memset(out, 0, DEMO_RECEIPTS * sizeof *out);
    for (int i = 0; i < DEMO_RECEIPTS; i++) {
        demo_receipt *r = &out[i];
        json_error_t error;
        json_t *line = json_loadf(f, JSON_DISABLE_EOF_CHECK, &error), *value;
        char path[256];
        size_t k;
        if (!line) fail_msg("expected.jsonl: %s", error.text);
        copy_text(r->image, sizeof r->image, line, "image");
        copy_text(r->prompt, sizeof r->prompt, line, "prompt");
        copy_text(r->answer, sizeof r->answer, line, "answer");
        r->n_prompt = read_ids(json_object_get(line, "prompt_ids"), r->prompt_ids);
        r->n_answer = read_ids(json_object_get(line, "answer_ids"), r->answer_ids);
        json_array_foreach(json_object_get(line, "first_logits"), k, value)
            if (k < 32) r->first_logits[k] = (float)json_number_value(value);
        snprintf(path, sizeof path, RV_TEST_DEMO "/receipts/%s", r->image);
        r->file = read_file(path, &r->bytes);
        json_decref(line);
    }
    fclose(f);
}

void demo_free(demo_receipt receipts[DEMO_RECEIPTS]) {
    for (int i = 0; i < DEMO_RECEIPTS; i++) free(receipts[i].file);
}

rv_model *demo_model(rv_compute compute) {
    rv_error err;
    rv_model *model;
    rv_load_options load = { .size = sizeof load, .backend = DEMO_BACKEND, .compute = compute ? compute : DEMO_COMPUTE, .kernels = DEMO_KERNELS };
    if (rv_model_load(RV_TEST_DEMO "/model", &load, &model, &err)) fail_msg("%s", err.message);
#ifdef RV_TEST_LATE
    late_wrap(model->be);
#endif
    return model;
}
