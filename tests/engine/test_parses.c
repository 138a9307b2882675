/* test_parses.c - a model of random weights with the real vocabulary: whatever it says has the form it was asked for.
 *
 * `test_parses full [SCHEMA]` asks 1,000 times a schema, or one.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <ftw.h>
#include <sys/stat.h>
#include <unistd.h>
#include <cmocka.h>
#include <jansson.h>

#include "engine/form.h"

static bool full;
static const char *only;                 /* NULL: all */
static char folder[4096];
static rv_model *model;

static const char *path(const char *name) {
    static char text[4][4200];
    static int at;
    at = (at + 1) % 4;
    snprintf(text[at], sizeof text[at], "%s%s", folder, name);
    return text[at];
}

/* "tiny", with 128,256 words: the smallest shape whose answers can be read with the real tokenizer. */
static void write_model(void) {
    rv_error err;
    snprintf(folder, sizeof folder, "%s/random_model_%d", RV_TEST_TMP, (int)getpid());
    rv_synth_options small = { .size = sizeof small, .shape = "tiny" }, o = { .size = sizeof o, .shape = path(".json") };
    if (rv_synthesise(path(".tiny"), &small, NULL, &err)) fail_msg("%s", err.message);
    json_t *config = json_load_file(path(".tiny/config.json"), 0, NULL), *text = json_object_get(config, "text_config");
    json_object_set_new(text, "vocab_size", json_integer(128256));
    json_object_set_new(text, "bos_token_id", json_integer(128000));
    json_object_set_new(text, "eos_token_id", json_pack("[i, i, i]", 128001, 128008, 128009));
    json_object_set_new(text, "pad_token_id", json_integer(128004));
    json_object_set_new(text, "hidden_size", json_integer(64));
    json_object_set_new(text, "intermediate_size", json_integer(64));
    json_object_set_new(text, "num_attention_heads", json_integer(1));
    json_object_set_new(text, "num_key_value_heads", json_integer(1));
    json_object_set_new(config, "image_token_index", json_integer(128256));
    assert_int_equal(json_dump_file(config, path(".json"), 0), 0);
    json_decref(config);
    o.shape = path(".json");
    if (rv_synthesise(folder, &o, NULL, &err)) fail_msg("%s", err.message);
    unlink(path("/tokenizer.json"));
    assert_int_equal(symlink(RV_TEST_SHARED "/tokenizer/tokenizer.json", path("/tokenizer.json")), 0);
}

static int set_up(void **state) {
    rv_error err;
    rv_load_options load = { .size = sizeof load, .backend = RV_BACKEND_CPU };
    (void)state;
    if (access(RV_TEST_SHARED "/tokenizer/tokenizer.json", R_OK)) return 0;
    write_model();
    if (rv_model_load(folder, &load, &model, &err)) fail_msg("%s", err.message);
    return 0;
}

static int remove_one(const char *name, const struct stat *st, int type, struct FTW *at) {
    (void)st, (void)type, (void)at;
    return remove(name);
}

static void remove_all(const char *name) { nftw(name, remove_one, 16, FTW_DEPTH | FTW_PHYS); }

static int tear_down(void **state) {
    (void)state;
    rv_model_free(model);
    if (folder[0]) remove_all(folder), remove_all(path(".tiny")), unlink(path(".json"));
    return 0;
}

static uint32_t cells_of(const rv_key_value *v) {
    uint32_t n = 1;
    if (v->bytes == 9 && !memcmp(v->value, "NOT_FOUND", 9)) return 0;
    for (size_t i = 0; i < v->bytes; i++) n += v->value[i] == '|';
    return n;
}

/* Read again from the text alone, as anybody would: each key once, in order, one line each, columns of one length. */
static void check_answer(const rv_schema *schema, const rv_job *job) {
    const rv_key_value *v;
    const char *at = rv_job_text(job, NULL);
    uint32_t rows[32] = { 0 };
    rv_error err;
    if (rv_job_get_error(job, &err)) fail_msg("%s: %s", err.message, at);
    assert_int_equal(rv_job_get_state(job), RV_JOB_COMPLETE);
    assert_int_equal(rv_job_values(job, &v), schema->n_fields);
    for (uint32_t i = 0; i < schema->n_fields; i++) {
        const rv_field *f = &schema->fields[i];
        size_t key = strlen(f->key), line = strcspn(at, "\n");
        if (strncmp(at, f->key, key) || strncmp(at + key, ": ", 2)) fail_msg("%s is missing at \"%.60s\"", f->key, at);
        assert_true(line >= key + 2 + v[i].bytes);
        assert_memory_equal(at + key + 2, v[i].value, v[i].bytes);
        if (f->list && f->group >= 0 && cells_of(&v[i])) {
            uint32_t *n = &rows[f->group];
            if (*n && *n != cells_of(&v[i])) fail_msg("%s has %u cells, the table %u: %s", f->key, cells_of(&v[i]), *n, rv_job_text(job, NULL));
            *n = cells_of(&v[i]);
        }
        if (f->kind == RV_KIND_ENUM && v[i].bytes != 9) {
            bool known = false;
            for (uint32_t k = 0; k < f->choices.count; k++) known |= strlen(f->choices.items[k]) == v[i].bytes && !memcmp(f->choices.items[k], v[i].value, v[i].bytes);
            assert_true(known || (v[i].flags & RV_VALUE_CUT));
        }
        at += line + (at[line] == '\n');
    }
    assert_int_equal(*at, '\0');
}

static void every_answer_has_every_key_and_columns_of_one_length(void **state) {
    (void)state;
    static const char *const names[] = { "receipt", "tax_invoice", "bank_statement", "travel", "logbook", "universal" };
    rv_session *session;
    rv_session_options room = { .size = sizeof room, .slots = 8, .queue = 64, .context = 8192 };
    rv_error err;
    if (!model) skip();
    if (rv_session_new(model, &room, &session, &err)) fail_msg("%s", err.message);
    for (size_t s = 0; s < (full ? sizeof names / sizeof *names : 1); s++) {
        rv_schema *schema;
        rv_constraint *form;
        if (only && strcmp(only, names[s])) continue;
        int times = full ? 1000 : 2;
        if (rv_schema_open(names[s], &schema, &err)) fail_msg("%s", err.message);
        rv_key keys[64];
        for (uint32_t i = 0; i < schema->n_fields; i++) {
            keys[i] = rv_form_key(schema, i, s % 2);
            keys[i].max_tokens = full ? 24 : 6;                  /* random words go on for ever     */
            if (keys[i].list) keys[i].max_items = 6;
        }
        if (rv_constraint_keys(rv_model_tokenizer(model), keys, schema->n_fields, &form, &err)) fail_msg("%s", err.message);
        for (int k = 0; k < times; k += 8) {
            rv_job *jobs[8];
            uint32_t active = 1;
            int n = times - k < 8 ? times - k : 8;
            for (int i = 0; i < n; i++) {
                char prompt[32];
                snprintf(prompt, sizeof prompt, "Read page %d.", k + i);     /* other words, another answer; now and then drawn at random, which takes long */
                if (rv_submit(session, &(rv_request){ .size = sizeof(rv_request), .prompt = prompt, .constraint = form, .temperature = (k + i) % 50 == 1, .top_k = UINT32_MAX, .top_p = 1,
                                                      .seed = (uint64_t)(k + i) }, &jobs[i], &err)) fail_msg("%s", err.message);
            }
            while (active) assert_int_equal(rv_step(session, &active, &err), RV_OK);
            for (int i = 0; i < n; i++) {
                check_answer(schema, jobs[i]);
                rv_job_free(jobs[i]);
            }
        }
        printf("%s: %d answers of %u keys parse\n", names[s], times, schema->n_fields);
        rv_constraint_free(form);
        rv_schema_free(schema);
    }
    rv_session_free(session);
}

int main(int argc, char **argv) {
    const struct CMUnitTest tests[] = { cmocka_unit_test(every_answer_has_every_key_and_columns_of_one_length) };
    full = argc > 1 && !strcmp(argv[1], "full");
    if (argc > 2) only = argv[2];
    return cmocka_run_group_tests(tests, set_up, tear_down);
}
