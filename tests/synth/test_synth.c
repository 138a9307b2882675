/* test_synth.c - what synthetic checkpoints hold. */
#include <math.h>

#include "engine/weights.h"
#include "tests/support/folder.h"
#include "tokenizer/tokenizer.h"

static rv_synth_info plan(const char *shape) {
    rv_error err;
    rv_synth_info info = { .size = sizeof info };
    if (rv_synthesise(NULL, &(rv_synth_options){ .size = sizeof(rv_synth_options), .shape = shape }, &info, &err))
        fail_msg("%s", err.message);
    return info;
}

static const char *write_model(char path[1024], const char *name, rv_synth_options o) {
    rv_error err;
    o.size = sizeof o;
    if (!o.shape) o.shape = "tiny";
    if (rv_synthesise(folder_new(path, name), &o, NULL, &err)) fail_msg("%s", err.message);
    return path;
}

static rv_checkpoint *open_model(const char *dir) {
    rv_error err;
    rv_checkpoint *c;
    if (rv_checkpoint_open(dir, &c, &err)) fail_msg("%s", err.message);
    return c;
}

static void assert_fact(const char *dir, const char *key, const char *value) {
    rv_error err;
    rv_model_info *info;
    if (rv_inspect(dir, &info, &err)) fail_msg("%s", err.message);
    assert_string_equal(rv_model_info_get(info, key), value);
    rv_model_info_free(info);
}

/* ---- sizes ---- */

static void published_shapes_have_the_published_sizes(void **state) {
    static const struct { const char *shape; uint32_t tensors; uint64_t parameters, bytes; } all[] = {
        { "11b", 906, UINT64_C(10670220835), UINT64_C(21340441670) },                 /* spec mllama.md 2.1 */
        { "11b-base", 906, UINT64_C(10642941475), UINT64_C(21285882950) },
        { RV_TEST_DATA "/config/instruct/config.json", 906, UINT64_C(10670220835), UINT64_C(21340441670) } };
    (void)state;
    for (size_t i = 0; i < sizeof all / sizeof *all; i++) {
        rv_synth_info is = plan(all[i].shape);
        assert_int_equal(is.tensors, all[i].tensors);
        assert_int_equal(is.parameters, all[i].parameters);
        assert_int_equal(is.bytes, all[i].bytes);
        assert_int_equal(is.files, 5);
        assert_true(is.file_bytes > is.bytes && is.file_bytes < is.bytes + 1000000);
    }
}

/* 80 self and 20 cross layers, hidden size 8192: counted by hand from the tensor list. */
static void shape_90b_has_its_layers(void **state) {
    (void)state;
    const uint64_t mlp = UINT64_C(3) * 28672 * 8192, attention = UINT64_C(2) * 8192 * 8192 + UINT64_C(2) * 1024 * 8192;
    const uint64_t text = 100 * (mlp + attention + 2 * 8192) + 20 * (2 * 128 + 2) + 8192 + UINT64_C(128264) * 8192;
    const uint64_t head = UINT64_C(128256) * 8192, projector = UINT64_C(7681) * 8192, vision = 863567379;
    rv_synth_info is = plan("90b");
    assert_int_equal(is.parameters, text + head + projector + vision);
    assert_int_equal(is.bytes, 2 * is.parameters);
}

static void f32_doubles_the_bytes(void **state) {
    (void)state;
    rv_synth_info info = { .size = sizeof info };
    rv_synth_options o = { .size = sizeof o, .type = RV_STORED_F32 };
    assert_int_equal(rv_synthesise(NULL, &o, &info, NULL), RV_OK);
    assert_int_equal(info.bytes, UINT64_C(42680883340));
}

/* ---- numbers ---- */

static void written_model_passes_every_check(void **state) {
    static const struct { rv_stored type; rv_layout_names names; const char *dtype, *layout; } all[] = {
        { RV_STORED_AUTO, RV_NAMES_OLD, "BF16", "old" }, { RV_STORED_F16, RV_NAMES_NEW, "F16", "new" },
        { RV_STORED_F32, RV_NAMES_OLD, "F32", "old" } };
    char dir[1024];
    (void)state;
    for (size_t i = 0; i < sizeof all / sizeof *all; i++) {
        rv_error err;
        write_model(dir, "types", (rv_synth_options){ .type = all[i].type, .names = all[i].names });
        assert_fact(dir, "dtype", all[i].dtype);
        assert_fact(dir, "layout", all[i].layout);
        assert_fact(dir, "template", "B");
        if (rv_check_weights(dir, NULL, NULL, &err)) fail_msg("%s", err.message);
    }
}

static void padding_tiles_are_alike_unless_asked_otherwise(void **state) {
    char dir[1024];
    (void)state;
    assert_fact(write_model(dir, "zero", (rv_synth_options){ 0 }), "padding_tiles", "once");
    assert_fact(write_model(dir, "nonzero", (rv_synth_options){ .padding_nonzero = 1 }), "padding_tiles", "full");
}

/* Whether every tensor of both folders has the same bytes; 1 yes, 0: none has (gates are one number: not asked). */
static int compare(const char *a, const char *b) {
    rv_checkpoint *x = open_model(a), *y = open_model(b);
    uint32_t same = 0, other = 0;
    assert_int_equal(rv_checkpoint_count(x), rv_checkpoint_count(y));
    for (uint32_t i = 0; i < rv_checkpoint_count(x); i++) {
        const rv_tensor *t = rv_checkpoint_at(x, i), *u = rv_checkpoint_find(y, t->name);
        assert_non_null(u);
        assert_int_equal(t->bytes, u->bytes);
        if (t->bytes < 64) continue;
        if (memcmp(t->data, u->data, t->bytes)) other++;
        else same++;
    }
    rv_checkpoint_close(x);
    rv_checkpoint_close(y);
    if (same && other) fail_msg("%u tensors are the same, %u are not", same, other);
    return same > 0;
}

static void same_seed_gives_the_same_bits_and_another_seed_others(void **state) {
    char a[1024], b[1024], c[1024];
    (void)state;
    write_model(a, "a", (rv_synth_options){ .seed = 7, .threads = 1 });
    write_model(b, "b", (rv_synth_options){ .seed = 7, .threads = 5, .shard_bytes = 1 << 20, .names = RV_NAMES_NEW });
    write_model(c, "c", (rv_synth_options){ .seed = 8 });
    assert_int_equal(compare(a, b), 1);
    assert_int_equal(compare(a, c), 0);
}

static void assert_sigma(const rv_checkpoint *c, const char *name, double wanted) {
    const rv_tensor *t = rv_checkpoint_find(c, name);
    assert_non_null(t);
    const float *x = t->data;
    double sum = 0, squares = 0, n = (double)(t->bytes / 4);
    for (size_t i = 0; i < t->bytes / 4; i++) sum += (double)x[i], squares += (double)x[i] * (double)x[i];
    double sigma = sqrt(squares / n - sum / n * (sum / n));
    if (fabs(sigma / wanted - 1) > 0.03 || fabs(sum / n) > 4 * wanted / sqrt(n))
        fail_msg("%s: mean %g, sigma %g, wanted %g", name, sum / n, sigma, wanted);
}

static void weights_have_realistic_scales(void **state) {
    char dir[1024];
    (void)state;
    rv_checkpoint *c = open_model(write_model(dir, "scales", (rv_synth_options){ .type = RV_STORED_F32 }));
    assert_sigma(c, "text.embed_tokens.weight", 0.02);
    assert_sigma(c, "text.layers.0.mlp.gate_proj.weight", 1 / sqrt(256));
    assert_sigma(c, "text.layers.1.cross_attn.q_proj.weight", 1.5 / sqrt(256));
    assert_sigma(c, "text.layers.4.mlp.down_proj.weight", 4 / sqrt(5) / sqrt(768));
    assert_sigma(c, "lm_head.weight", 2 / sqrt(256));
    assert_sigma(c, "vision.transformer.layers.3.mlp.fc1.weight", 1 / sqrt(160));
    rv_checkpoint_close(c);
}

/* Columns of normed embeddings that exceed 6.0 in some of 512 rows. */
static int32_t outlier_columns(const rv_checkpoint *c, int32_t hidden) {
    const rv_tensor *e = rv_checkpoint_find(c, "text.embed_tokens.weight");
    const rv_tensor *n = rv_checkpoint_find(c, "text.layers.0.input_layernorm.weight");
    const float *x = e->data, *w = n->data;
    bool out[4096] = { false };
    int32_t count = 0;
    assert_true(hidden <= 4096);
    for (int32_t r = 0; r < 512; r++, x += hidden) {
        double squares = 0;
        for (int32_t i = 0; i < hidden; i++) squares += (double)x[i] * (double)x[i];
        double scale = 1 / sqrt(squares / hidden);
        for (int32_t i = 0; i < hidden; i++) out[i] |= fabs((double)x[i] * scale * (double)w[i]) >= 6;
    }
    for (int32_t i = 0; i < hidden; i++) count += out[i];
    return count;
}

static void planted_outliers_are_as_many_as_asked_for(void **state) {
    static const struct { int32_t asked, columns; } all[] = { { 0, 1 }, { 6, 6 }, { -1, 0 }, { 64, 64 } };
    char dir[1024];
    (void)state;
    for (size_t i = 0; i < sizeof all / sizeof *all; i++) {
        rv_checkpoint *c = open_model(
            write_model(dir, "outliers", (rv_synth_options){ .type = RV_STORED_F32, .outliers = all[i].asked }));
        assert_int_equal(outlier_columns(c, 256), all[i].columns);
        rv_checkpoint_close(c);
    }
}

/* ---- tokenizer ---- */

static void every_id_has_a_text_and_control_tokens_stand_where_llama_has_them(void **state) {
    static const struct { int32_t nth; const char *text; } all[] = {
        { 0, "<|begin_of_text|>" }, { 1, "<|end_of_text|>" }, { 4, "<|finetune_right_pad_id|>" }, { 6, "<|start_header_id|>" },
        { 7, "<|end_header_id|>" }, { 8, "<|eom_id|>" }, { 9, "<|eot_id|>" }, { 10, "<|python_tag|>" },
        { 11, "<|reserved_special_token_2|>" }, { 255, "<|reserved_special_token_246|>" }, { 256, "<|image|>" } };
    char dir[1024];
    rv_error err;
    rv_tokenizer *t;
    (void)state;
    write_model(dir, "tokenizer", (rv_synth_options){ 0 });
    if (rv_tokenizer_open(dir, &t, &err)) fail_msg("%s", err.message);
    assert_int_equal(rv_tokenizer_size(t), 2049);
    assert_true(rv_tokenizer_adds_bos(t));
    for (int32_t id = 0; id < 2049; id++) {
        size_t bytes = 0;
        assert_non_null(rv_tokenizer_bytes(t, id, &bytes));
        assert_true(bytes > 0);
        assert_int_equal(rv_tokenizer_is_control(t, id), id >= 1792);
    }
    for (size_t i = 0; i < sizeof all / sizeof *all; i++) assert_int_equal(rv_tokenizer_control(t, all[i].text), 1792 + all[i].nth);
    rv_tokenizer_free(t);
}

static void words_of_the_vocabulary_are_one_token_and_text_comes_back(void **state) {
    static const char text[] = "Total: $12.50\n\n\tcaf\xc3\xa9 \xf0\x9f\xa7\xbe a b c \"quoted\\\" <|eot_id|>";
    char dir[1024], back[256];
    int32_t ids[256], one[4];
    size_t n, bytes, words = 0;
    rv_error err;
    rv_tokenizer *t;
    (void)state;
    write_model(dir, "words", (rv_synth_options){ 0 });
    if (rv_tokenizer_open(dir, &t, &err)) fail_msg("%s", err.message);
    assert_int_equal(rv_tokenizer_encode(t, text, sizeof text - 1, 0, ids, 256, &n, &err), RV_OK);
    assert_true(n > 10 && n < 256);
    assert_int_equal(rv_tokenizer_decode(t, ids, n, 0, back, sizeof back, &bytes, &err), RV_OK);
    assert_int_equal(bytes, sizeof text - 1);
    assert_memory_equal(back, text, bytes);
    for (int32_t id = 256; id < 1792; id++) {
        const char *word = rv_tokenizer_bytes(t, id, &bytes);
        assert_int_equal(rv_tokenizer_encode(t, word, bytes, 0, one, 4, &n, &err), RV_OK);
        assert_int_equal(n, 1);
        assert_int_equal(one[0], id);
        words += word[0] == ' ';
    }
    assert_true(words > 100);
    rv_tokenizer_free(t);
}

/* ---- answers ---- */

static rv_job *ask(const char *dir, rv_compute compute, rv_model **model, rv_session **session) {
    rv_error err;
    rv_job *job;
    rv_map page;
    rv_load_options load = { .size = sizeof load, .backend = RV_BACKEND_CPU, .compute = compute };
    rv_session_options room = { .size = sizeof room, .context = 256 };
    if (rv_map_open(RV_TEST_DEMO "/receipts/r7000.png", &page, &err)) fail_msg("%s", err.message);
    rv_image image = { .size = sizeof image, .data = page.data, .bytes = page.bytes };
    rv_request request = { .size = sizeof request, .images = &image, .n_images = 1, .prompt = "Read this", .max_tokens = 20,
                           .flags = RV_REQUEST_IGNORE_STOP };
    if (rv_model_load(dir, &load, model, &err) || rv_session_new(*model, &room, session, &err) ||
        rv_generate(*session, &request, &job, &err)) fail_msg("%s", err.message);
    rv_map_close(&page);
    return job;
}

static void assert_answers(const char *dir, rv_compute compute, const int32_t *wanted, uint32_t n_wanted) {
    rv_model *model;
    rv_session *session;
    const int32_t *ids;
    const float *logprobs;
    rv_job *job = ask(dir, compute, &model, &session);
    uint32_t n = rv_job_tokens(job, &ids, &logprobs);
    assert_int_equal(n, n_wanted);
    for (uint32_t i = 0; i < n; i++) {
        assert_true(isfinite(logprobs[i]) && logprobs[i] < 0);
        if (wanted) assert_int_equal(ids[i], wanted[i]);
    }
    rv_job_free(job);
    rv_session_free(session);
    rv_model_free(model);
}

/* transformers 5.17, f32, eager, greedy, on the folder that `rvengine synth --shape tiny --dtype f32` writes, with
 * vision states entering the tapped layers (intermediate_layers_indices [0, 1]). */
static void tiny_model_answers_as_transformers_does(void **state) {
    static const int32_t hf[] = { 1598, 1263, 31, 1652, 1020, 1666, 1525, 167, 1263, 929,
                                  1186, 1737, 1263, 815, 1409, 981, 269, 934, 1525, 1908 };
    char dir[1024];
    (void)state;
    write_model(dir, "answer", (rv_synth_options){ .type = RV_STORED_F32 });
    assert_answers(dir, RV_COMPUTE_F32, hf, sizeof hf / sizeof *hf);
}

static void models_of_every_type_answer_with_finite_numbers(void **state) {
    static const rv_stored types[] = { RV_STORED_BF16, RV_STORED_F16 };
    char dir[1024];
    (void)state;
    for (size_t i = 0; i < 2; i++) {
        write_model(dir, "finite", (rv_synth_options){ .type = types[i], .seed = i, .outliers = 64, .padding_nonzero = i == 1 });
        assert_answers(dir, RV_COMPUTE_AUTO, NULL, 20);
    }
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(published_shapes_have_the_published_sizes),
        cmocka_unit_test(shape_90b_has_its_layers),
        cmocka_unit_test(f32_doubles_the_bytes),
        cmocka_unit_test(written_model_passes_every_check),
        cmocka_unit_test(padding_tiles_are_alike_unless_asked_otherwise),
        cmocka_unit_test(same_seed_gives_the_same_bits_and_another_seed_others),
        cmocka_unit_test(weights_have_realistic_scales),
        cmocka_unit_test(planted_outliers_are_as_many_as_asked_for),
        cmocka_unit_test(every_id_has_a_text_and_control_tokens_stand_where_llama_has_them),
        cmocka_unit_test(words_of_the_vocabulary_are_one_token_and_text_comes_back),
        cmocka_unit_test(tiny_model_answers_as_transformers_does),
        cmocka_unit_test(models_of_every_type_answer_with_finite_numbers),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
