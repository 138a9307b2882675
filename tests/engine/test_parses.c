/* test_parses.c - random answers in the real vocabulary: whatever is said has the form that was asked for.
 *
 * Two ways to be random: a model of random weights, whose steps are the engine's own, and tokens drawn from those that the mask
 * allows, through the same code that takes a model's.  `test_parses full [SCHEMA]` draws 1,000 answers a schema in either grammar and
 * asks the model 24 times a schema; `test_parses model [SCHEMA]` asks it 1,000 times, `test_parses gpu [SCHEMA]` does so on a GPU.
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
#include "engine/guided.h"
#include "engine/session.h"

static bool full;
static int asked = 2;                    /* answers of the model a schema                       */
static int drawn = 10;                   /* and of the mask                                     */
static uint32_t slots = 8;
static int warm_every = 10;              /* one answer in so many is drawn from the model's distribution */
static rv_backend_id backend = RV_BACKEND_CPU;
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
    json_object_set_new(text, "max_position_embeddings", json_integer(32768));
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
    rv_load_options load = { .size = sizeof load, .backend = backend };
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

/* Whoever reads the text gets every key, whatever the values are. */
static void check_record(const rv_schema *schema, const rv_job *job) {
    const rv_key_value *v;
    rv_record *record;
    rv_error err;
    size_t bytes;
    const char *text = rv_job_text(job, &bytes);
    rv_job_values(job, &v);
    if (rv_record_new(schema, NULL, &record, &err) || rv_record_parse(record, text, bytes, "free", NULL, &err) || rv_record_check(record, &err)) fail_msg("%s: %s", err.message, text);
    rv_record_free(record);
}

static rv_session *session_of(uint32_t n, uint32_t context) {
    rv_session *session;
    rv_session_options room = { .size = sizeof room, .slots = n, .queue = 64, .context = context };
    rv_error err;
    if (rv_session_new(model, &room, &session, &err)) fail_msg("%s", err.message);
    return session;
}

/* ---- tokens drawn from the mask ---- */

static uint64_t random_state = 41;
static uint32_t random_below(uint32_t n) {
    random_state = random_state * 6364136223846793005u + 1442695040888963407u;
    return (uint32_t)((random_state >> 33) % n);
}

/* The vocabulary by class: those of class c are ids[begin[c]] up to ids[begin[c + 1]]. */
typedef struct shelf { int32_t *ids, *begin; } shelf;

static shelf shelf_of(const rv_guide *g) {
    shelf s = { calloc((size_t)g->vocab, sizeof *s.ids), calloc((size_t)g->n_classes + 1, sizeof *s.begin) };
    int32_t *at = calloc((size_t)g->n_classes, sizeof *at);
    for (int32_t id = 0; id < g->vocab; id++) s.begin[g->classes[id] + 1]++;
    for (int32_t c = 0; c < g->n_classes; c++) s.begin[c + 1] += s.begin[c], at[c] = s.begin[c];
    for (int32_t id = 0; id < g->vocab; id++) s.ids[at[g->classes[id]]++] = id;
    free(at);
    return s;
}

/* One of the allowed tokens: each as likely as any other, or now and then a class first, so that ends of lines come too. */
static int32_t draw_allowed(const rv_guide_row *row, const shelf *s) {
    const rv_guide *g = &row->guide;
    uint32_t denied = rv_guide_denied(row), all = 0;
    bool by_class = random_below(8) == 0;
    for (int pass = 0; pass < 2; pass++) {
        uint32_t left = pass ? random_below(all) : 0;
        for (int32_t c = 1; c < g->n_classes; c++) {
            uint32_t entry = g->next[row->state * g->n_classes + c], n = (uint32_t)(s->begin[c + 1] - s->begin[c]);
            if (!entry || (entry & denied) || n == 0) continue;
            if (!pass) all += by_class ? 1 : n;
            else if (left < (by_class ? 1 : n)) return s->ids[s->begin[c] + (int32_t)(by_class ? random_below(n) : left)];
            else left -= by_class ? 1 : n;
        }
        if (all == 0) fail_msg("state %d: no token may come, cells %d, from %d to %d", row->state, row->cells, row->least, row->most);
    }
    return -1;
}

/* A job that no model answers. */
static void check_drawn(rv_session *session, const rv_schema *schema, rv_constraint *form, const shelf *s) {
    rv_job *job;
    rv_job_state state = RV_JOB_FAILED;
    rv_error err;
    uint32_t active = 1;
    if (rv_submit(session, &(rv_request){ .size = sizeof(rv_request), .prompt = "Read.", .constraint = form }, &job, &err)) fail_msg("%s", err.message);
    bool go_on = rv_guided_start(job, &state);
    while (go_on) go_on = rv_guided_take(job, (rv_best){ .id = draw_allowed(&job->guided->row, s), .logprob = -1 }, &state);
    rv_guided_end(job);
    atomic_store(&job->state, state);
    check_answer(schema, job);
    check_record(schema, job);
    rv_cancel(job);
    while (active) assert_int_equal(rv_step(session, &active, &err), RV_OK);
    rv_job_free(job);
}

static void whatever_the_mask_allows_parses(void **state) {
    (void)state;
    rv_error err;
    if (!model || !drawn) skip();
    rv_session *session = session_of(1, 32768);
    for (uint32_t s = 0; s < rv_schema_count(); s++)
        for (int strict = 0; strict < 2; strict++) {
            const char *name = rv_schema_name(s);
            rv_schema *schema;
            rv_constraint *form;
            if (only ? strcmp(only, name) != 0 : !full && strict != (int)(s & 1)) continue;
            if (rv_schema_open(name, &schema, &err) || rv_form_new(rv_model_tokenizer(model), schema, -1, strict, &form, &err)) fail_msg("%s", err.message);
            shelf ids = shelf_of(&form->guide);
            for (int k = 0; k < drawn; k++) check_drawn(session, schema, form, &ids);
            printf("%-16s %s: %d drawn answers of %u keys parse\n", name, strict ? "strict" : "soft", drawn, schema->n_fields);
            free(ids.ids);
            free(ids.begin);
            rv_constraint_free(form);
            rv_schema_free(schema);
        }
    rv_session_free(session);
}

/* ---- a model of random weights ---- */

static rv_constraint *short_form(const rv_schema *schema, bool strict) {
    rv_key keys[64];
    rv_constraint *form;
    rv_error err;
    for (uint32_t i = 0; i < schema->n_fields; i++) {
        keys[i] = rv_form_key(schema, i, strict);
        keys[i].max_tokens = asked >= 1000 ? 12 : full ? 24 : 6;     /* random words go on for ever          */
        if (keys[i].list) keys[i].max_items = 6;
    }
    if (rv_constraint_keys(rv_model_tokenizer(model), keys, schema->n_fields, &form, &err)) fail_msg("%s", err.message);
    return form;
}

static uint64_t hash_of(const char *text) {
    uint64_t hash = UINT64_C(14695981039346656037);              /* FNV-1a */
    for (; *text; text++) hash = (hash ^ (unsigned char)*text) * UINT64_C(1099511628211);
    return hash;
}

static int by_hash(const void *a, const void *b) {
    const uint64_t *x = a, *y = b;
    return (*x > *y) - (*x < *y);
}

/* How many different texts there are. */
static int distinct(uint64_t *texts, int n) {
    int different = n > 0;
    qsort(texts, (size_t)n, sizeof *texts, by_hash);
    for (int i = 1; i < n; i++) different += texts[i] != texts[i - 1];
    return different;
}

/* Other words, another answer; of those that are drawn at random no two are the same. */
static void ask_together(rv_session *session, const rv_schema *schema, rv_constraint *form, int from, int n, uint64_t *texts) {
    rv_job *jobs[64];
    uint32_t active = 1;
    rv_error err;
    for (int i = 0; i < n; i++) {
        char prompt[32];
        snprintf(prompt, sizeof prompt, "Read page %d.", from + i);
        if (rv_submit(session, &(rv_request){ .size = sizeof(rv_request), .prompt = prompt, .constraint = form, .temperature = (from + i) % warm_every == 1, .top_k = UINT32_MAX, .top_p = 1,
                                              .seed = (uint64_t)(from + i) }, &jobs[i], &err)) fail_msg("%s", err.message);
    }
    while (active) assert_int_equal(rv_step(session, &active, &err), RV_OK);
    for (int i = 0; i < n; i++) {
        check_answer(schema, jobs[i]);
        check_record(schema, jobs[i]);
        texts[from + i] = hash_of(rv_job_text(jobs[i], NULL));
        rv_job_free(jobs[i]);
    }
}

static void every_answer_has_every_key_and_columns_of_one_length(void **state) {
    (void)state;
    rv_error err;
    static uint64_t texts[1000];
    if (!model) skip();
    rv_session *session = session_of(slots, 8192);
    for (uint32_t s = 0; s < rv_schema_count(); s++) {
        const char *name = rv_schema_name(s);
        rv_schema *schema;
        if (only ? strcmp(only, name) : !full && strcmp(name, "receipt")) continue;
        if (rv_schema_open(name, &schema, &err)) fail_msg("%s", err.message);
        rv_constraint *form = short_form(schema, s % 2);
        for (int k = 0; k < asked; k += (int)slots) ask_together(session, schema, form, k, asked - k < (int)slots ? asked - k : (int)slots, texts);
        printf("%s: %d answers of %u keys parse, %d of them different\n", name, asked, schema->n_fields, distinct(texts, asked));
        fflush(stdout);
        rv_constraint_free(form);
        rv_schema_free(schema);
    }
    rv_session_free(session);
}

int main(int argc, char **argv) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(whatever_the_mask_allows_parses),
        cmocka_unit_test(every_answer_has_every_key_and_columns_of_one_length),
    };
    bool gpu = argc > 1 && !strcmp(argv[1], "gpu"), long_model = gpu || (argc > 1 && !strcmp(argv[1], "model"));
    full = long_model || (argc > 1 && !strcmp(argv[1], "full"));
    if (full) asked = long_model ? 1000 : 24, drawn = long_model ? 0 : 1000;
    if (gpu) backend = RV_BACKEND_CUDA, slots = 64, warm_every = 2;
    if (argc > 2) only = argv[2];
    return cmocka_run_group_tests(tests, set_up, tear_down);
}
