/* The config reader: the published model's files, older and newer forms of them, and every key with every
 * wrong kind of value.  A variant is the published file with a value changed. */
#include "tests/config/variant.h"

/* ---- what must load ---------------------------------------------------------------------- */

static void check_published(const rv_config *c, int32_t tile) {
    static const int32_t cross[] = { 3, 8, 13, 18, 23, 28, 33, 38 }, taps[] = { 3, 7, 15, 23, 30 };
    const rv_text_config *t = &c->text;
    const rv_vision_config *v = &c->vision;
    assert_true(t->hidden == 4096 && t->layers == 40 && t->heads == 32 && t->kv_heads == 8 && t->head_dim == 128);
    assert_true(t->ffn == 14336 && t->vocab == 128256 && t->max_positions == 131072 && t->n_cross == 8);
    assert_true(t->norm_eps == 1e-5f && t->rope_theta == 500000);
    for (int32_t i = 0, k = 0; i < RV_MAX_LAYERS; i++) {
        bool want = k < 8 && cross[k] == i;
        assert_int_equal(t->cross[i], want);
        k += want;
    }
    assert_true(v->hidden == 1280 && v->layers == 32 && v->global_layers == 8 && v->heads == 16 && v->head_dim == 80);
    assert_true(v->ffn == 5120 && v->output_dim == 7680 && v->patch == 14 && v->max_tiles == 4 && v->norm_eps == 1e-5f);
    assert_int_equal(v->tile, tile);
    assert_int_equal(v->grid, tile / 14);
    assert_int_equal(v->tokens, tile == 560 ? 1601 : 1025);
    assert_int_equal(v->padded_tokens, tile == 560 ? 1608 : 1032);
    assert_int_equal(v->n_taps, 5);
    assert_memory_equal(v->taps, taps, sizeof taps);
    assert_int_equal(v->n_ratios, 8);
    assert_true(v->ratios[1][0] == 1 && v->ratios[1][1] == 2 && v->ratios[7][0] == 4 && v->ratios[7][1] == 1);
    assert_true(c->image_token == 128256 && c->bos == 128000 && c->pad == 128004);
}

static void check_llama3_rope(const rv_config *c) {
    assert_true(c->text.rope_scaled && c->text.rope_factor == 8 && c->text.rope_low == 1 && c->text.rope_high == 4);
    assert_true(c->text.rope_original == 8192);
}

static void check_instruct(const rv_config *c) {
    check_published(c, 560);
    check_llama3_rope(c);
    const rv_generation *g = &c->generation;
    assert_true(g->n_eos == 3 && g->eos[0] == 128001 && g->eos[1] == 128008 && g->eos[2] == 128009);
    assert_true(g->do_sample && g->temperature == 0.6f && g->top_p == 0.9f && g->top_k == 50);
    assert_int_equal(c->dtype, RV_BF16);
    assert_true(c->preprocess.rescale == 1.0 / 255);
    assert_true(c->preprocess.mean[0] == 0.48145466f && c->preprocess.std[2] == 0.27577711f);
}

static void the_published_instruct_files_load(void **state) {
    (void)state;
    rv_config c, built;
    LOADS(&c, { CONFIG, "text_config.dropout", "0" });
    check_instruct(&c);
    rv_config_published(&built);
    check_instruct(&built);
}

static void the_base_model_has_448_pixel_tiles(void **state) {
    (void)state;
    rv_config c;
    LOADS(&c, { CONFIG, "vision_config.image_size", "448" }, { PREPROCESSOR, "size", "{\"height\":448,\"width\":448}" },
          { CONFIG, "text_config.eos_token_id", "128001" }, { GENERATION, NULL, NULL });
    check_published(&c, 448);
    assert_true(c.generation.n_eos == 1 && c.generation.eos[0] == 128001);
    assert_false(c.generation.do_sample);
}

static void the_90b_model_loads(void **state) {
    (void)state;
    rv_config c;
    LOADS(&c, { CONFIG, "text_config.hidden_size", "8192" }, { CONFIG, "text_config.num_hidden_layers", "100" },
          { CONFIG, "text_config.num_attention_heads", "64" }, { CONFIG, "text_config.intermediate_size", "28672" },
          { CONFIG, "text_config.cross_attention_layers",
              "[3,8,13,18,23,28,33,38,43,48,53,58,63,68,73,78,83,88,93,98]" });
    assert_true(c.text.hidden == 8192 && c.text.layers == 100 && c.text.head_dim == 128 && c.text.n_cross == 20 &&
        c.text.cross[98]);
}

static void absent_keys_take_the_defaults_of_hugging_face(void **state) {
    (void)state;
    rv_config c;
    LOADS(&c, { CONFIG, "", "{\"model_type\":\"mllama\"}" }, { GENERATION, NULL, NULL }, { PREPROCESSOR, NULL, NULL });
    check_published(&c, 448);
    assert_false(c.text.rope_scaled);
    assert_int_equal(c.dtype, RV_F32);
    assert_true(c.generation.n_eos == 1 && c.generation.eos[0] == 128001 && c.generation.top_k == 50);
    assert_true(c.preprocess.mean[1] == 0.4578275f && c.preprocess.rescale == 1.0 / 255);
}

static void transformers_5_files_load(void **state) {
    (void)state;
    rv_config c;
    LOADS(&c, { CONFIG, "text_config.rope_scaling", NULL }, { CONFIG, "text_config.rope_theta", NULL },
          { CONFIG, "text_config.rope_parameters",
            "{\"rope_theta\":123456.0,\"rope_type\":\"llama3\",\"factor\":8.0,\"low_freq_factor\":1.0,"
            "\"high_freq_factor\":4.0,"
            "\"original_max_position_embeddings\":8192}" },
          { CONFIG, "torch_dtype", NULL }, { CONFIG, "dtype", "\"float16\"" });
    check_llama3_rope(&c);
    assert_true(c.text.rope_theta == 123456);
    assert_int_equal(c.dtype, RV_F16);
}

static void rope_forms_mean_the_same(void **state) {
    (void)state;
    rv_config c;
    LOADS(&c, { CONFIG, "text_config.rope_scaling.rope_type", NULL }, { CONFIG, "text_config.rope_scaling.type",
        "\"llama3\"" });
    check_llama3_rope(&c);
    LOADS(&c, { CONFIG, "text_config.rope_scaling", "null" });
    assert_false(c.text.rope_scaled);
    LOADS(&c, { CONFIG, "text_config.rope_scaling", "{\"rope_type\":\"default\"}" });
    assert_false(c.text.rope_scaled);
    LOADS(&c, { CONFIG, "text_config.rope_scaling", NULL }, { CONFIG, "text_config.rope_parameters",
        "{\"rope_theta\":10000}" });
    assert_false(c.text.rope_scaled);
    assert_true(c.text.rope_theta == 10000);
}

static void aliases_are_read(void **state) {
    (void)state;
    rv_config c;
    LOADS(&c, { CONFIG, "vision_config.attention_heads", NULL }, { CONFIG, "vision_config.num_attention_heads", "20" });
    assert_int_equal(c.vision.head_dim, 64);
    LOADS(&c, { CONFIG, "vision_config.num_attention_heads", "20" });
    assert_int_equal(c.vision.head_dim, 80);
    LOADS(&c, { CONFIG, "image_token_index", NULL }, { CONFIG, "image_token_id", "128011" });
    assert_int_equal(c.image_token, 128011);
    LOADS(&c, { CONFIG, "text_config.head_dim", "64" });
    assert_int_equal(c.text.head_dim, 64);
    LOADS(&c, { CONFIG, "torch_dtype", NULL }, { CONFIG, "text_config.torch_dtype", "\"float32\"" });
    assert_int_equal(c.dtype, RV_F32);
}

static void end_tokens_come_from_the_first_file_that_has_them(void **state) {
    (void)state;
    rv_config c;
    LOADS(&c, { GENERATION, "eos_token_id", "7" });
    assert_true(c.generation.n_eos == 1 && c.generation.eos[0] == 7);
    LOADS(&c, { GENERATION, "eos_token_id", NULL }, { CONFIG, "text_config.eos_token_id", "[5,6]" });
    assert_true(c.generation.n_eos == 2 && c.generation.eos[1] == 6);
    LOADS(&c, { GENERATION, "eos_token_id", "null" }, { CONFIG, "eos_token_id", "9" });
    assert_true(c.generation.n_eos == 1 && c.generation.eos[0] == 9);
    LOADS(&c, { GENERATION, NULL, NULL }, { CONFIG, "text_config.eos_token_id", "null" });
    assert_int_equal(c.generation.n_eos, 0);
    LOADS(&c, { CONFIG, "text_config.bos_token_id", "null" }, { CONFIG, "text_config.pad_token_id", "null" });
    assert_true(c.bos == -1 && c.pad == -1);
    LOADS(&c, { CONFIG, "bos_token_id", "11" }, { CONFIG, "pad_token_id", "128263" });
    assert_true(c.bos == 11 && c.pad == 128263);
}

static void default_ids_beyond_a_small_vocabulary_mean_none(void **state) {
    (void)state;
    rv_config c;
    LOADS(&c, { CONFIG, "text_config.vocab_size", "120" }, { CONFIG, "image_token_index", "120" },
          { CONFIG, "text_config.bos_token_id", NULL }, { CONFIG, "text_config.pad_token_id", NULL },
          { CONFIG, "text_config.eos_token_id", NULL }, { GENERATION, NULL, NULL });
    assert_true(c.image_token == 120 && c.bos == -1 && c.pad == -1 && c.generation.n_eos == 0);
}

static void sampling_defaults_are_those_of_hugging_face(void **state) {
    (void)state;
    rv_config c;
    LOADS(&c, { GENERATION, "", "{\"do_sample\":true}" });
    assert_true(c.generation.do_sample && c.generation.temperature == 1 && c.generation.top_p == 1 &&
        c.generation.top_k == 50);
    LOADS(&c, { GENERATION, "top_k", "0" });
    assert_int_equal(c.generation.top_k, 0);
    LOADS(&c, { GENERATION, "top_k", "null" }, { GENERATION, "temperature", "null" }, { GENERATION, "top_p", "null" });
    assert_true(c.generation.top_k == 0 && c.generation.temperature == 1 && c.generation.top_p == 1);
    LOADS(&c, { GENERATION, "top_k", "3" }, { GENERATION, "temperature", "0" }, { GENERATION, "top_p", "1" });
    assert_true(c.generation.top_k == 3 && c.generation.temperature == 0 && c.generation.top_p == 1);
}

static void what_a_folder_says_about_scores_is_used_or_named(void **state) {
    (void)state;
    rv_config c;
    LOADS(&c, { GENERATION, "", "{\"do_sample\":true}" });
    assert_true(c.generation.repetition_penalty == 1);
    assert_string_equal(c.generation.ignored, "");
    LOADS(&c, { GENERATION, "", "{\"top_p\":0,\"repetition_penalty\":1.3}" });
    assert_true(c.generation.top_p > 0 && c.generation.top_p < 1e-5f && c.generation.repetition_penalty == 1.3f);
    LOADS(&c, { GENERATION, "", "{\"min_p\":0,\"typical_p\":1.0,\"num_beams\":1,\"suppress_tokens\":[],\"bad_words_ids\":null,\"no_repeat_ngram_size\":0,\"guidance_scale\":null}" });
    assert_string_equal(c.generation.ignored, "");
    LOADS(&c, { GENERATION, "", "{\"min_p\":0.1,\"num_beams\":4,\"suppress_tokens\":[7]}" });
    assert_string_equal(c.generation.ignored, "min_p, suppress_tokens, num_beams");
}

static void preprocessor_defaults_are_those_of_hugging_face(void **state) {
    (void)state;
    rv_config c;
    LOADS(&c, { PREPROCESSOR, "", "{}" });
    for (int i = 0; i < RV_CHANNELS; i++) assert_true(c.preprocess.mean[i] == 0.5f && c.preprocess.std[i] == 0.5f);
    LOADS(&c, { PREPROCESSOR, "do_pad", "null" }, { PREPROCESSOR, "image_mean", "[0,1,-1]" }, { PREPROCESSOR,
        "rescale_factor", "1" });
    assert_true(c.preprocess.mean[2] == -1 && c.preprocess.rescale == 1);
    LOADS(&c, { PREPROCESSOR, "image_processor_type", "\"MllamaImageProcessorFast\"" });
}

static void a_nested_image_processor_wins(void **state) {
    (void)state;
    char folder[1024];
    rv_config c;
    rv_error err = { 0 };
    LOADS(&c, { CONFIG, "image_token_index", "128256" });
    folder_path(folder, "config");
    folder_write_text(folder, "processor_config.json", "{\"processor_class\":\"MllamaProcessor\"}");
    expect_ok(rv_config_load(folder, &c, &err), &err);
    assert_true(c.preprocess.mean[0] == 0.48145466f);
    folder_write_text(folder, "processor_config.json", "{\"image_processor\":{\"image_mean\":[0.25,0.25,0.25]}}");
    expect_ok(rv_config_load(folder, &c, &err), &err);
    assert_true(c.preprocess.mean[0] == 0.25f);
    folder_write_text(folder, "processor_config.json",
        "{\"image_processor\":{\"size\":{\"height\":448,\"width\":448}}}");
    expect_error(rv_config_load(folder, &c, &err), &err, RV_ERR_FORMAT,
                 "processor_config.json: image_processor.size.height: is 448, but the "
                 "model's vision_config.image_size is 560");
}

static void the_golden_and_demo_models_load(void **state) {
    (void)state;
    static const char *const folders[] = { RV_TEST_DATA "/golden/hf4.48", RV_TEST_DATA "/golden/hf5.17" };
    rv_config c;
    rv_error err = { 0 };
    for (int i = 0; i < 2; i++) {
        expect_ok(rv_config_load(folders[i], &c, &err), &err);
        assert_true(c.text.hidden == 64 && c.text.layers == 5 && c.text.heads == 4 && c.text.kv_heads == 2 &&
            c.text.head_dim == 16);
        assert_true(c.text.vocab == 120 && c.text.n_cross == 2 && c.text.cross[1] && c.text.cross[3] &&
            c.text.ffn == 96);
        assert_true(c.text.rope_scaled && c.text.rope_original == 256 && c.text.max_positions == 2048);
        assert_true(c.vision.heads == 16 && c.vision.head_dim == 4 && c.vision.tokens == 5 &&
            c.vision.padded_tokens == 8);
        assert_true(c.vision.n_taps == 3 && c.vision.taps[2] == 4 && c.vision.output_dim == 256 && c.vision.tile == 28);
        assert_true(c.image_token == 120 && c.bos == 1 && c.pad == 3 && c.generation.n_eos == 1 &&
            c.generation.eos[0] == 2);
        assert_int_equal(c.dtype, RV_F32);
        assert_true(c.preprocess.std[0] == 0.26862954f);
    }
    expect_ok(rv_config_load(RV_TEST_DEMO "/model", &c, &err), &err);
    assert_true(c.text.vocab == 1016 && c.image_token == 1016 && c.vision.tile == 224 && c.dtype == RV_BF16);
    assert_true(c.generation.n_eos == 3 && !c.generation.do_sample);
}

/* ---- every key, every wrong kind ----------------------------------------------------------- */

enum { ZERO_OK = 1, NULL_OK = 2, NEGATIVE_OK = 4, FRACTION_OK = 8, WIDE_OK = 16, TEXT_OK = 32, BOOL_OK = 64,
    LIST_OK = 128,
       OBJECT_OK = 256, NEVER_OK = 0 };

static const struct { int file; const char *path; int ok; } keys[] = {
    { CONFIG, "text_config.hidden_size", 0 }, { CONFIG, "text_config.num_hidden_layers", 0 },
    { CONFIG, "text_config.num_attention_heads", 0 }, { CONFIG, "text_config.num_key_value_heads", 0 },
    { CONFIG, "text_config.intermediate_size", 0 }, { CONFIG, "text_config.vocab_size", 0 },
    { CONFIG, "text_config.max_position_embeddings", 0 }, { CONFIG, "text_config.head_dim", NULL_OK },
    { CONFIG, "text_config.rms_norm_eps", FRACTION_OK }, { CONFIG, "text_config.rope_theta", FRACTION_OK | WIDE_OK },
    { CONFIG, "text_config.rope_scaling.factor", FRACTION_OK }, { CONFIG, "text_config.rope_scaling.low_freq_factor",
        FRACTION_OK },
    { CONFIG, "text_config.rope_scaling.high_freq_factor", FRACTION_OK },
    { CONFIG, "text_config.rope_scaling.original_max_position_embeddings", 0 },
    { CONFIG, "text_config.cross_attention_layers", NULL_OK | LIST_OK }, { CONFIG, "text_config.rope_scaling",
        NULL_OK | OBJECT_OK },
    { CONFIG, "text_config.rope_parameters", NULL_OK | OBJECT_OK },
    { CONFIG, "text_config.hidden_act", NULL_OK | TEXT_OK }, { CONFIG, "text_config.model_type", NULL_OK | TEXT_OK },
    { CONFIG, "text_config.tie_word_embeddings", NULL_OK | BOOL_OK },
    { CONFIG, "text_config.bos_token_id", NULL_OK | ZERO_OK }, { CONFIG, "text_config.pad_token_id",
        NULL_OK | ZERO_OK },
    { CONFIG, "text_config.eos_token_id", NULL_OK | ZERO_OK | LIST_OK }, { CONFIG, "image_token_index", ZERO_OK },
    { CONFIG, "vision_config.hidden_size", 0 }, { CONFIG, "vision_config.num_hidden_layers", 0 },
    { CONFIG, "vision_config.num_global_layers", ZERO_OK }, { CONFIG, "vision_config.attention_heads", 0 },
    { CONFIG, "vision_config.intermediate_size", 0 }, { CONFIG, "vision_config.vision_output_dim", 0 },
    { CONFIG, "vision_config.image_size", 0 }, { CONFIG, "vision_config.patch_size", 0 },
    { CONFIG, "vision_config.max_num_tiles", 0 }, { CONFIG, "vision_config.num_channels", 0 },
    { CONFIG, "vision_config.norm_eps", FRACTION_OK }, { CONFIG, "vision_config.hidden_act", NULL_OK | TEXT_OK },
    { CONFIG, "vision_config.model_type", NULL_OK | TEXT_OK },
    { CONFIG, "vision_config.intermediate_layers_indices", NULL_OK | LIST_OK },
    { CONFIG, "vision_config.supported_aspect_ratios", NULL_OK | LIST_OK }, { CONFIG, "model_type", TEXT_OK },
    { CONFIG, "torch_dtype", NULL_OK | TEXT_OK }, { CONFIG, "dtype", NULL_OK | TEXT_OK },
    { CONFIG, "text_config", NULL_OK | OBJECT_OK }, { CONFIG, "vision_config", NULL_OK | OBJECT_OK },
    { CONFIG, "quantization_config", NULL_OK | OBJECT_OK },
    { GENERATION, "eos_token_id", NULL_OK | ZERO_OK | LIST_OK }, { GENERATION, "do_sample", NULL_OK | BOOL_OK },
    { GENERATION, "temperature", NULL_OK | ZERO_OK | FRACTION_OK }, { GENERATION, "top_p",
        NULL_OK | ZERO_OK | FRACTION_OK },
    { GENERATION, "top_k", NULL_OK | ZERO_OK },
    { PREPROCESSOR, "do_resize", NULL_OK | BOOL_OK }, { PREPROCESSOR, "do_rescale", NULL_OK | BOOL_OK },
    { PREPROCESSOR, "do_normalize", NULL_OK | BOOL_OK }, { PREPROCESSOR, "do_pad", NULL_OK | BOOL_OK },
    { PREPROCESSOR, "do_convert_rgb", NULL_OK | BOOL_OK }, { PREPROCESSOR, "image_processor_type", NULL_OK | TEXT_OK },
    { PREPROCESSOR, "max_image_tiles", 0 }, { PREPROCESSOR, "resample", NULL_OK | ZERO_OK },
    { PREPROCESSOR, "rescale_factor", FRACTION_OK }, { PREPROCESSOR, "image_mean", NULL_OK | LIST_OK },
    { PREPROCESSOR, "image_std", NULL_OK | LIST_OK }, { PREPROCESSOR, "size", NULL_OK | OBJECT_OK },
    { PREPROCESSOR, "size.height", 0 }, { PREPROCESSOR, "size.width", 0 },
};

static const struct { const char *text; int kind; } wrong[] = {
    { "\"abc\"", TEXT_OK }, { "\"12\"", TEXT_OK }, { "\"\"", TEXT_OK }, { "null", NULL_OK }, { "-1", NEGATIVE_OK },
    { "0", ZERO_OK }, { "4294967304", WIDE_OK }, { "9223372036854775807", NEVER_OK }, { "1e300", NEVER_OK },
    { "2.5", FRACTION_OK }, { "4.0", FRACTION_OK }, { "true", BOOL_OK }, { "false", BOOL_OK }, { "[\"abc\"]",
        NEVER_OK },
    { "[[1]]", NEVER_OK }, { "[4294967304]", NEVER_OK }, { "[{}]", NEVER_OK }, { "[0.5]", NEVER_OK }, { "[1,2,3]",
        LIST_OK }, { "[]", LIST_OK },
    { "{}", OBJECT_OK }, { "{\"abc\":1}", OBJECT_OK },
};

static void a_value_of_the_wrong_kind_names_file_and_key(void **state) {
    (void)state;
    for (size_t k = 0; k < sizeof keys / sizeof *keys; k++)
        for (size_t w = 0; w < sizeof wrong / sizeof *wrong; w++) {
            if (keys[k].ok & wrong[w].kind) continue;
            char place[128];
            const char *key = keys[k].path;
            snprintf(place, sizeof place, "%s: %s: ", file_names[keys[k].file], key);
            rv_error err = { 0 };
            rv_config c;
            change one = { keys[k].file, key, wrong[w].text };
            rv_status st = load(&one, 1, &c, &err);
            if (st != RV_ERR_FORMAT || !strstr(err.message, place))
                fail_msg("%s = %s: %s: %s", place, wrong[w].text, rv_status_name(st), st ? err.message : "accepted");
        }
}

/* No value at all may do worse than an error: whatever the table above lets through must load or say why. */
static void no_value_at_all_crashes(void **state) {
    (void)state;
    size_t loaded = 0;
    for (size_t k = 0; k < sizeof keys / sizeof *keys; k++)
        for (size_t w = 0; w <= sizeof wrong / sizeof *wrong; w++) {
            rv_error err = { 0 };
            rv_config c;
            change one = { keys[k].file, keys[k].path, w < sizeof wrong / sizeof *wrong ? wrong[w].text : NULL };
            rv_status st = load(&one, 1, &c, &err);
            if (st == RV_OK) loaded++;
            else assert_true((st == RV_ERR_FORMAT || st == RV_ERR_UNSUPPORTED) && err.code == st && err.message[0]);
        }
    assert_true(loaded > 50);
}

int main(void) {
#define S(sentence) cmocka_unit_test(sentence)
    const struct CMUnitTest tests[] = {
        S(the_published_instruct_files_load), S(the_base_model_has_448_pixel_tiles), S(the_90b_model_loads),
        S(absent_keys_take_the_defaults_of_hugging_face), S(transformers_5_files_load), S(rope_forms_mean_the_same),
        S(aliases_are_read), S(end_tokens_come_from_the_first_file_that_has_them),
        S(default_ids_beyond_a_small_vocabulary_mean_none),
        S(sampling_defaults_are_those_of_hugging_face), S(what_a_folder_says_about_scores_is_used_or_named), S(preprocessor_defaults_are_those_of_hugging_face),
        S(a_nested_image_processor_wins), S(the_golden_and_demo_models_load),
        S(a_value_of_the_wrong_kind_names_file_and_key), S(no_value_at_all_crashes),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
