/* The config reader: the rules between keys, what is well formed but not ours, and broken files. */
#include "tests/config/variant.h"

typedef struct rule { change change; rv_status code; const char *part; } rule;

static void check_rules(const rule *rules, size_t count) {
    for (size_t i = 0; i < count; i++) fails(rules[i].code, rules[i].part, &rules[i].change, 1);
}
#define RULES(...) check_rules((const rule[]){ __VA_ARGS__ }, sizeof((const rule[]){ __VA_ARGS__ }) / sizeof(rule))
#define BAD RV_ERR_FORMAT
#define NOT_OURS RV_ERR_UNSUPPORTED

static void text_values_must_agree(void **state) {
    (void)state;
    RULES({ { CONFIG, "text_config.num_attention_heads", "24" }, BAD,
        "text_config.hidden_size: 4096 is not a multiple of num_attention_heads 24" },
          { { CONFIG, "text_config.num_key_value_heads", "5" }, BAD,
              "num_key_value_heads: 5 does not divide num_attention_heads 32" },
          { { CONFIG, "text_config.num_key_value_heads", "64" }, BAD, "64 does not divide num_attention_heads 32" },
          { { CONFIG, "text_config.head_dim", "127" }, BAD, "text_config.head_dim: heads are 127 wide" },
          { { CONFIG, "text_config.hidden_size", "32" }, BAD,
              "text_config.hidden_size: heads are 1 wide; rotary positions need an even" },
          { { CONFIG, "text_config.cross_attention_layers", "[3,40]" }, BAD,
              "cross_attention_layers: item 2 must be a whole number from 0 to 39, is 40" },
          { { CONFIG, "text_config.cross_attention_layers", "[3,-1]" }, BAD,
              "item 2 must be a whole number from 0 to 39, is -1" },
          { { CONFIG, "text_config.cross_attention_layers", "[3,8,3]" }, BAD,
              "cross_attention_layers: layer 3 is given twice" },
          { { CONFIG, "text_config.cross_attention_layers", "[]" }, BAD, "must be a list of 1 to 40 whole numbers" },
          { { CONFIG, "text_config.num_hidden_layers", "20" }, BAD,
              "cross_attention_layers: item 5 must be a whole number from 0 to 19" },
          { { CONFIG, "text_config.num_hidden_layers", "257" }, BAD, "must be a whole number from 1 to 256, is 257" });
    FAILS(NOT_OURS, "leaves no self-attention layer", { CONFIG, "text_config.num_hidden_layers", "2" },
          { CONFIG, "text_config.cross_attention_layers", "[0,1]" });
    FAILS(BAD, "cross_attention_layers: is missing, and its default", { CONFIG, "text_config.num_hidden_layers", "38" },
          { CONFIG, "text_config.cross_attention_layers", NULL });
}

static void rope_values_must_agree(void **state) {
    (void)state;
    RULES({ { CONFIG, "text_config.rope_scaling.rope_type", "\"yarn\"" }, NOT_OURS,
        "rope_scaling.rope_type: is \"yarn\"; only \"llama3\"" },
          { { CONFIG, "text_config.rope_scaling.rope_type", NULL }, BAD, "rope_scaling.rope_type: is missing" },
          { { CONFIG, "text_config.rope_scaling.factor", NULL }, BAD, "rope_scaling.factor: is missing" },
          { { CONFIG, "text_config.rope_scaling.low_freq_factor", NULL }, BAD, "low_freq_factor: is missing" },
          { { CONFIG, "text_config.rope_scaling.high_freq_factor", NULL }, BAD, "high_freq_factor: is missing" },
          { { CONFIG, "text_config.rope_scaling.original_max_position_embeddings", NULL }, BAD,
              "original_max_position_embeddings: is missing" },
          { { CONFIG, "text_config.rope_scaling.high_freq_factor", "1" }, BAD,
              "must be greater than low_freq_factor 1, is 1" },
          { { CONFIG, "text_config.rope_scaling.factor", "0.5" }, BAD,
              "rope_scaling.factor: must be a number from 1 to" });
    FAILS(NOT_OURS, "text_config.rope_parameters.rope_type: is \"dynamic\"", { CONFIG, "text_config.rope_scaling",
        NULL },
          { CONFIG, "text_config.rope_parameters", "{\"rope_type\":\"dynamic\"}" });
}

static void vision_values_must_agree(void **state) {
    (void)state;
    RULES({ { CONFIG, "vision_config.attention_heads", "24" }, BAD,
        "hidden_size: 1280 is not a multiple of attention_heads 24" },
          { { CONFIG, "vision_config.patch_size", "15" }, BAD, "image_size: 560 is not a multiple of patch_size 15" },
          { { CONFIG, "vision_config.patch_size", "561" }, BAD, "image_size: 560 is not a multiple of patch_size 561" },
          { { CONFIG, "vision_config.vision_output_dim", "7681" }, BAD, "must be hidden_size 1280 times (1 + 5" },
          { { CONFIG, "vision_config.intermediate_layers_indices", "[3,7]" }, BAD,
              "vision_output_dim: must be hidden_size 1280" },
          { { CONFIG, "vision_config.intermediate_layers_indices", "[3,7,15,30,23]" }, BAD,
              "must ascend, but 23 follows 30" },
          { { CONFIG, "vision_config.intermediate_layers_indices", "[3,7,15,23,23]" }, BAD,
              "must ascend, but 23 follows 23" },
          { { CONFIG, "vision_config.intermediate_layers_indices", "[3,7,15,23,32]" }, BAD,
            "intermediate_layers_indices: item 5 must be a whole number from 0 to 31, is 32" },
          { { CONFIG, "vision_config.intermediate_layers_indices", "[]" }, BAD,
              "must be a list of 1 to 16 whole numbers" },
          { { CONFIG, "vision_config.num_channels", "4" }, NOT_OURS, "num_channels: is 4; only 3 (RGB)" });
    FAILS(BAD, "intermediate_layers_indices: is missing, and its default", { CONFIG, "vision_config.num_hidden_layers",
        "30" },
          { CONFIG, "vision_config.intermediate_layers_indices", NULL });
}

static void aspect_ratios_must_be_sound(void **state) {
    (void)state;
    static const char key[] = "vision_config.supported_aspect_ratios";
    RULES({ { CONFIG, key, "[[1,1],[2,3]]" }, BAD, "[2, 3] needs more tiles than max_num_tiles 4" },
          { { CONFIG, key, "[[1,1],[1,2],[1,1]]" }, BAD, "[1, 1] is given twice" },
          { { CONFIG, key, "[[1,2],[2,1]]" }, BAD, "must have [1, 1]" },
          { { CONFIG, key, "[[1,1],[1,2,1]]" }, BAD, "item 2 must be a pair of whole numbers" },
          { { CONFIG, key, "[[1,1],[1]]" }, BAD, "item 2 must be a pair of whole numbers" },
          { { CONFIG, key, "[[1,1],[0,2]]" }, BAD, "item 2 must be a pair of whole numbers" },
          { { CONFIG, key, "[[1,1],[-1,-1]]" }, BAD, "item 2 must be a pair of whole numbers" },
          { { CONFIG, key, "[[1,1],\"ab\"]" }, BAD, "item 2 must be a pair of whole numbers" },
          { { CONFIG, key, "[[65536,65536]]" }, BAD, "item 1 must be a pair of whole numbers from 1 to 16" },
          { { CONFIG, "vision_config.max_num_tiles", "2" }, BAD, "needs more tiles than max_num_tiles 2" },
          { { CONFIG, "vision_config.max_num_tiles", "17" }, BAD, "must be a whole number from 1 to 16, is 17" });
    char many[RV_MAX_RATIOS * 6 + 16] = "[[1,1]";
    for (int i = 0; i < RV_MAX_RATIOS; i++) strcat(many, ",[1,1]");
    strcat(many, "]");
    FAILS(BAD, "must be a list of 1 to 64 pairs [height, width], is a list of 65", { CONFIG, key, many });
    FAILS(BAD, "is missing, and its default needs max_num_tiles 4, not 6", { CONFIG, key, NULL },
          { CONFIG, "vision_config.max_num_tiles", "6" });
}

static void token_ids_must_be_rows_of_the_embedding(void **state) {
    (void)state;
    RULES({ { CONFIG, "image_token_index", "128264" }, BAD,
        "image_token_index: must be a whole number from 0 to 128263, is 128264" },
          { { CONFIG, "text_config.bos_token_id", "128264" }, BAD,
              "text_config.bos_token_id: must be a whole number from 0 to 128263" },
          { { CONFIG, "text_config.eos_token_id", "128264" }, BAD,
              "text_config.eos_token_id: must be a whole number from 0" },
          { { CONFIG, "text_config.eos_token_id", "[1,128264]" }, BAD, "text_config.eos_token_id: item 2 must be" },
          { { GENERATION, "eos_token_id", "[1,-5]" }, BAD, "generation_config.json: eos_token_id: item 2 must be" },
          { { GENERATION, "eos_token_id", "[1,2,3,4,5,6,7,8,9,10,11,12,13,14,15,16,17]" }, BAD,
              "must be a list of 0 to 16" });
    FAILS(BAD, "its default 128256 is no row of an embedding for vocab_size 120", { CONFIG, "text_config.vocab_size",
        "120" },
          { CONFIG, "image_token_index", NULL }, { CONFIG, "text_config.bos_token_id", "1" },
          { CONFIG, "text_config.eos_token_id", "2" }, { CONFIG, "text_config.pad_token_id", "3" });
}

static void the_preprocessor_must_agree_with_the_model(void **state) {
    (void)state;
    RULES({ { PREPROCESSOR, "size", "{\"height\":448,\"width\":448}" }, BAD,
            "preprocessor_config.json: size.height: is 448, but the model's vision_config.image_size is 560" },
          { { PREPROCESSOR, "size.width", "559" }, BAD, "size.width: is 559, but" },
          { { PREPROCESSOR, "size.width", NULL }, BAD, "size.width: is missing" },
          { { PREPROCESSOR, "max_image_tiles", "2" }, BAD,
              "max_image_tiles: is 2, but the model's vision_config.max_num_tiles is 4" },
          { { PREPROCESSOR, "image_std", "[0.5,0,0.5]" }, BAD, "image_std: item 2 must be a number from 1e-06" },
          { { PREPROCESSOR, "image_std", "[0.5,-1,0.5]" }, BAD, "image_std: item 2 must be a number from 1e-06" },
          { { PREPROCESSOR, "image_std", "[0.5,0.5,1e300]" }, BAD, "image_std: item 3 must be a number" },
          { { PREPROCESSOR, "image_mean", "[0.5,0.5]" }, BAD,
              "image_mean: must be a list of 3 numbers, is a list of 2" },
          { { PREPROCESSOR, "image_mean", "[0.5,null,0.5]" }, BAD, "image_mean: item 2 must be a number" },
          { { PREPROCESSOR, "rescale_factor", "0" }, BAD, "rescale_factor: must be a number from 1e-09" });
}

static void what_is_not_ours_is_unsupported_and_named(void **state) {
    (void)state;
    RULES({ { CONFIG, "model_type", "\"qwen2_vl\"" }, NOT_OURS, "model_type: is \"qwen2_vl\"; only \"mllama\"" },
          { { CONFIG, "model_type", "\"mllama_text_model\"" }, NOT_OURS, "the text half alone: the whole model" },
          { { CONFIG, "model_type", NULL }, BAD, "config.json: model_type: is missing" },
          { { CONFIG, "text_config.model_type", "\"llama\"" }, NOT_OURS, "text_config.model_type: is \"llama\"; only" },
          { { CONFIG, "vision_config.model_type", "\"clip\"" }, NOT_OURS,
              "vision_config.model_type: is \"clip\"; only" },
          { { CONFIG, "text_config.hidden_act", "\"gelu\"" }, NOT_OURS,
              "text_config.hidden_act: is \"gelu\"; only \"silu\"" },
          { { CONFIG, "vision_config.hidden_act", "\"gelu_pytorch_tanh\"" }, NOT_OURS, "only \"gelu\" is supported" },
          { { CONFIG, "text_config.tie_word_embeddings", "true" }, NOT_OURS, "tie_word_embeddings: is true" },
          { { CONFIG, "torch_dtype", "\"float64\"" }, NOT_OURS, "torch_dtype: is \"float64\"" },
          { { CONFIG, "dtype", "\"float8_e4m3fn\"" }, NOT_OURS, "dtype: is \"float8_e4m3fn\"" },
          { { CONFIG, "quantization_config", "{\"quant_method\":\"gptq\",\"bits\":4}" }, NOT_OURS,
              "quantised by gptq;" },
          { { CONFIG, "quantization_config", "{}" }, NOT_OURS, "quantised by an unnamed method;" },
          { { PREPROCESSOR, "do_rescale", "false" }, NOT_OURS, "preprocessor_config.json: do_rescale: is false" },
          { { PREPROCESSOR, "do_pad", "false" }, NOT_OURS, "do_pad: is false" },
          { { PREPROCESSOR, "do_resize", "false" }, NOT_OURS, "do_resize: is false" },
          { { PREPROCESSOR, "do_normalize", "false" }, NOT_OURS, "do_normalize: is false" },
          { { PREPROCESSOR, "do_convert_rgb", "false" }, NOT_OURS, "do_convert_rgb: is false" },
          { { PREPROCESSOR, "resample", "3" }, NOT_OURS, "resample: only 2 (bilinear)" },
          { { PREPROCESSOR, "image_processor_type", "\"CLIPImageProcessor\"" }, NOT_OURS,
              "is \"CLIPImageProcessor\"; only" },
          { { GENERATION, "temperature", "101" }, BAD, "temperature: must be a number from 0 to 100, is 101" },
          { { GENERATION, "top_p", "1.01" }, BAD, "top_p: must be a number from 0 to 1, is 1.01" });
}

static void which_weights_bitsandbytes_quantised_is_left_to_the_files(void **state) {
    (void)state;
    rv_config c;
    LOADS(&c, { CONFIG, "quantization_config", "{\"quant_method\":\"bitsandbytes\",\"load_in_4bit\":true,\"load_in_8bit\":false}" });
    LOADS(&c, { CONFIG, "quantization_config", "{\"quant_method\":\"bitsandbytes\",\"load_in_4bit\":false,\"load_in_8bit\":true}" });
}

static void files_that_are_not_json_are_errors(void **state) {
    (void)state;
    for (int f = 0; f < N_FILES; f++) {
        const struct { const char *text, *part; } bad[] = {
            { "", "not valid JSON" }, { "{", "not valid JSON" }, { "[]", "must hold an object" }, { "{} x",
                "not valid JSON" },
            { "{\"a\":1,\"a\":2}", "not valid JSON: duplicate object key" }, { "{\"a\":\"\xff\"}", "not valid JSON" },
            { "{\"a\":99999999999999999999}", "not valid JSON: too big integer" }, { "{\"a\":1e999}",
                "not valid JSON: real number" },
            { "{\"a\":NaN}", "not valid JSON" }, { "version https://git-lfs.github.com/spec/v1", "not valid JSON" } };
        for (size_t i = 0; i < sizeof bad / sizeof *bad; i++) {
            char part[128];
            snprintf(part, sizeof part, "%s: %s", file_names[f], bad[i].part);
            FAILS(BAD, part, { f, "", bad[i].text });
        }
    }
}

static void deep_nesting_is_an_error(void **state) {
    (void)state;
    enum { DEPTH = 1000000 };
    char *text = malloc(DEPTH + 6);
    assert_non_null(text);
    strcpy(text, "{\"a\":");
    memset(text + 5, '[', DEPTH);
    text[5 + DEPTH] = '\0';
    FAILS(BAD, "config.json: not valid JSON: maximum parsing depth", { CONFIG, "", text });
    free(text);
}

static void a_folder_without_config_json_is_an_error(void **state) {
    (void)state;
    FAILS(RV_ERR_IO, "config.json: is missing: is this a Hugging Face model folder?", { CONFIG, NULL, NULL });
    rv_config c;
    rv_error err = { 0 };
    expect_error(rv_config_load(RV_TEST_TMP "/no such folder", &c, &err), &err, RV_ERR_IO, "config.json: is missing");
    expect_error(rv_config_load(RV_TEST_DATA "/config/instruct/config.json", &c, &err), &err, RV_ERR_IO,
        "Not a directory");
    assert_int_equal(rv_config_load(RV_TEST_TMP "/no such folder", &c, NULL), RV_ERR_IO);
}

static void an_optional_file_that_cannot_be_read_is_an_error(void **state) {
    (void)state;
    char folder[1024], path[1100];
    rv_config c;
    rv_error err = { 0 };
    LOADS(&c, { PREPROCESSOR, NULL, NULL });
    folder_path(folder, "config");
    snprintf(path, sizeof path, "%s/preprocessor_config.json", folder);
    assert_int_equal(symlink("nowhere", path), 0);              /* as a broken download cache leaves it */
    expect_error(rv_config_load(folder, &c, &err), &err, RV_ERR_IO, "preprocessor_config.json: cannot open");
}

int main(void) {
#define S(sentence) cmocka_unit_test(sentence)
    const struct CMUnitTest tests[] = {
        S(text_values_must_agree), S(rope_values_must_agree), S(vision_values_must_agree),
        S(aspect_ratios_must_be_sound), S(token_ids_must_be_rows_of_the_embedding),
        S(the_preprocessor_must_agree_with_the_model), S(what_is_not_ours_is_unsupported_and_named),
        S(which_weights_bitsandbytes_quantised_is_left_to_the_files),
        S(files_that_are_not_json_are_errors), S(deep_nesting_is_an_error),
        S(a_folder_without_config_json_is_an_error), S(an_optional_file_that_cannot_be_read_is_an_error),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
