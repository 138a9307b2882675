/* synth_config.c - shapes of synthetic models, and the small JSON files of a model folder. */
#include <stdio.h>
#include <stdlib.h>

#include "engine/base/file.h"
#include "engine/base/json_tree.h"
#include "engine/config_json.h"
#include "engine/synth.h"

/* ---- shapes ---- */

typedef struct shape {
    const char *name, *taps, *eos;
    bool    chat;
    int32_t vocab, bos, context, rope_original;
    int32_t hidden, layers, first_cross, cross_step, heads, kv_heads, ffn;
    int32_t v_hidden, v_layers, v_global, v_heads, v_ffn, v_out, tile;
} shape;

#define PUBLISHED_TAPS "[3, 7, 15, 23, 30]"
#define VISION_PUBLISHED 1280, 32, 8, 16, 5120, 7680
/* The tiny one has the published models' head sizes (128, and 80 in the vision tower), so that it runs their kernels. */
static const shape shapes[] = {
    { "11b", PUBLISHED_TAPS, "[128001, 128008, 128009]", true, 128256, 128000, 131072, 8192,
      4096, 40, 3, 5, 32, 8, 14336, VISION_PUBLISHED, 560 },
    { "11b-base", PUBLISHED_TAPS, "128001", false, 128256, 128000, 131072, 8192,
      4096, 40, 3, 5, 32, 8, 14336, VISION_PUBLISHED, 448 },
    { "90b", PUBLISHED_TAPS, "[128001, 128008, 128009]", true, 128256, 128000, 131072, 8192,
      8192, 100, 3, 5, 64, 8, 28672, VISION_PUBLISHED, 560 },
    { "tiny", "[1, 2]", "[1793, 1800, 1801]", true, 2048, 1792, 8192, 1024,
      256, 5, 1, 2, 2, 1, 768, 160, 4, 2, 2, 640, 480, 224 },
};
enum { N_SHAPES = sizeof shapes / sizeof *shapes };

/* config.json as transformers 4.45 writes it. */
static void add_config(rv_string *s, const shape *h) {
    rv_string_addf(s, "{\"architectures\": [\"MllamaForConditionalGeneration\"], \"image_token_index\": %d, "
                   "\"model_type\": \"mllama\", ", h->vocab);
    rv_string_addf(s, "\"text_config\": {\"bos_token_id\": %d, \"cross_attention_layers\": [", h->bos);
    for (int32_t i = h->first_cross; i < h->layers; i += h->cross_step)
        rv_string_addf(s, "%s%d", i == h->first_cross ? "" : ", ", i);
    rv_string_addf(s, "], \"dropout\": 0, \"eos_token_id\": %s, \"hidden_act\": \"silu\", \"hidden_size\": %d, "
                   "\"initializer_range\": 0.02, \"intermediate_size\": %d, \"max_position_embeddings\": %d, "
                   "\"model_type\": \"mllama_text_model\", \"num_attention_heads\": %d, \"num_hidden_layers\": %d, "
                   "\"num_key_value_heads\": %d, \"pad_token_id\": %d, \"rms_norm_eps\": 1e-05, ",
                   h->eos, h->hidden, h->ffn, h->context, h->heads, h->layers, h->kv_heads, h->bos + 4);
    rv_string_addf(s, "\"rope_scaling\": {\"factor\": 8.0, \"high_freq_factor\": 4.0, \"low_freq_factor\": 1.0, "
                   "\"original_max_position_embeddings\": %d, \"rope_type\": \"llama3\"}, \"rope_theta\": 500000.0, "
                   "\"tie_word_embeddings\": false, \"use_cache\": true, \"vocab_size\": %d}, \"torch_dtype\": \"bfloat16\", ",
                   h->rope_original, h->vocab);
    rv_string_addf(s, "\"vision_config\": {\"attention_heads\": %d, \"hidden_act\": \"gelu\", \"hidden_size\": %d, "
                   "\"image_size\": %d, \"initializer_range\": 0.02, \"intermediate_layers_indices\": %s, "
                   "\"intermediate_size\": %d, \"max_num_tiles\": 4, \"model_type\": \"mllama_vision_model\", ",
                   h->v_heads, h->v_hidden, h->tile, h->taps, h->v_ffn);
    rv_string_addf(s, "\"norm_eps\": 1e-05, \"num_channels\": 3, \"num_global_layers\": %d, \"num_hidden_layers\": %d, "
                   "\"patch_size\": 14, \"supported_aspect_ratios\": "
                   "[[1, 1], [1, 2], [1, 3], [1, 4], [2, 1], [2, 2], [3, 1], [4, 1]], \"vision_output_dim\": %d}}",
                   h->v_global, h->v_layers, h->v_out);
}

static rv_status parse_shape(const shape *h, rv_json_file *f, rv_error *err) {
    rv_string text = { 0 };
    json_error_t why;
    bool no_memory;
    add_config(&text, h);
    if (!text.failed) f->root = rv_json_load(text.data, text.bytes, 0, &why, &no_memory);
    rv_string_free(&text);
    return f->root ? RV_OK : (f->st = rv_fail_memory(err, "config.json"));
}

/* Opens a config.json anywhere; *folder is the caller's to free, and f's messages need it till then. */
static rv_status parse_file(const char *path, rv_json_file *f, char **folder, rv_error *err) {
    const char *slash = strrchr(path, '/');
    *folder = slash == path ? strdup("/") : slash ? strndup(path, (size_t)(slash - path)) : strdup(".");
    if (!*folder) return f->st = rv_fail_memory(err, path);
    if (!rv_file_exists(path))
        return f->st = rv_fail(err, RV_ERR_IO, "shape \"%s\": is neither 11b, 11b-base, 90b, tiny nor a config.json that can be "
                               "read", path);
    rv_json_file_open(f, *folder, slash ? slash + 1 : path, true);
    return f->st;
}

/* Every place that says what the weights are says what they will be. */
static bool set_type(json_t *root, rv_dtype type) {
    static const char *const names[] = { [RV_F32] = "float32", [RV_F16] = "float16", [RV_BF16] = "bfloat16" };
    static const char *const places[] = { NULL, "text_config", "vision_config" };
    static const char *const keys[] = { "dtype", "torch_dtype" };
    bool good = true;
    if (!json_object_get(root, "dtype")) good = json_object_set_new(root, "torch_dtype", json_string(names[type])) == 0;
    for (size_t p = 0; p < 3; p++)
        for (size_t k = 0; k < 2; k++) {
            json_t *at = places[p] ? json_object_get(root, places[p]) : root;
            if (json_object_get(at, keys[k])) good &= json_object_set_new(at, keys[k], json_string(names[type])) == 0;
        }
    return good;
}

rv_status rv_synth_model_open(const char *name, rv_dtype *type, rv_synth_model *out, rv_error *err) {
    const shape *known = NULL;
    char *folder = NULL;
    rv_json_file f = { .folder = "", .name = "config.json", .err = err };
    rv_status st = RV_OK;
    *out = (rv_synth_model){ .chat = true };
    for (size_t i = 0; i < N_SHAPES; i++)
        if (!strcmp(name, shapes[i].name)) known = &shapes[i];
    TRY(known ? parse_shape(known, &f, err) : parse_file(name, &f, &folder, err));
    if (known) out->chat = known->chat;
    TRY(rv_config_of_json(&f, &out->config));
    TRY(rv_synth_check_ids(&out->config, err));
    if (*type == RV_DTYPE_COUNT) *type = out->config.dtype;
    out->config.dtype = *type;
    if (!set_type(f.root, *type)) TRY(rv_fail_memory(err, "config.json"));
    out->config_json = rv_json_dump(f.root, JSON_INDENT(2) | JSON_PRESERVE_ORDER);
    if (!out->config_json) TRY(rv_fail_memory(err, "config.json"));
done:
    rv_json_file_close(&f);
    free(folder);
    if (st) rv_synth_model_close(out);
    return st;
}

void rv_synth_model_close(rv_synth_model *m) {
    free(m->config_json);
    m->config_json = NULL;
}

/* ---- files ---- */

static json_t *generation(const rv_config *c) {
    json_t *eos = json_array();
    for (int32_t i = 0; i < c->generation.n_eos; i++) json_array_append_new(eos, json_integer(c->generation.eos[i]));
    return json_pack("{s:i, s:b, s:o, s:i, s:f, s:f}", "bos_token_id", c->bos, "do_sample", 1, "eos_token_id", eos,
                     "pad_token_id", c->pad, "temperature", 0.6, "top_p", 0.9);
}

static json_t *preprocessor(const rv_config *c) {
    return json_pack("{s:b, s:b, s:b, s:b, s:b, s:[f,f,f], s:s, s:[f,f,f], s:i, s:i, s:f, s:{s:i, s:i}}",
                     "do_convert_rgb", 1, "do_normalize", 1, "do_pad", 1, "do_rescale", 1, "do_resize", 1,
                     "image_mean", 0.48145466, 0.4578275, 0.40821073, "image_processor_type", "MllamaImageProcessor",
                     "image_std", 0.26862954, 0.26130258, 0.27577711, "max_image_tiles", c->vision.max_tiles, "resample", 2,
                     "rescale_factor", 0.00392156862745098, "size", "height", c->vision.tile, "width", c->vision.tile);
}

/* Renders what revision B of the published template renders, for conversations without tools. */
static const char chat_template[] =
    "{{- bos_token }}\n"
    "{%- if date_string is not defined %}\n"
    "    {%- if strftime_now is defined %}\n"
    "        {%- set date_string = strftime_now('%d %b %Y') %}\n"
    "    {%- else %}\n"
    "        {%- set date_string = '26 Jul 2024' %}\n"
    "    {%- endif %}\n"
    "{%- endif %}\n"
    "{%- set seen = namespace(image=false) %}\n"
    "{%- for message in messages %}\n"
    "    {%- if message['content'] is not string %}\n"
    "        {%- for part in message['content'] %}\n"
    "            {%- if part['type'] == 'image' %}\n"
    "                {%- set seen.image = true %}\n"
    "            {%- endif %}\n"
    "        {%- endfor %}\n"
    "    {%- endif %}\n"
    "{%- endfor %}\n"
    "{%- set user_supplied_system_message = messages[0]['role'] == 'system' %}\n"
    "{%- if user_supplied_system_message or not seen.image %}\n"
    "    {{- '<|start_header_id|>system<|end_header_id|>\\n\\nCutting Knowledge Date: December 2023\\n' }}\n"
    "    {{- 'Today Date: ' + date_string + '\\n\\n' }}\n"
    "    {%- if user_supplied_system_message %}\n"
    "        {{- messages[0]['content'] | trim }}\n"
    "    {%- endif %}\n"
    "    {{- '<|eot_id|>' }}\n"
    "{%- endif %}\n"
    "{%- for message in messages %}\n"
    "    {%- if not (loop.first and user_supplied_system_message) %}\n"
    "        {{- '<|start_header_id|>' + message['role'] + '<|end_header_id|>\\n\\n' }}\n"
    "        {%- if message['content'] is string %}\n"
    "            {{- message['content'] }}\n"
    "        {%- else %}\n"
    "            {%- for part in message['content'] %}\n"
    "                {%- if part['type'] == 'image' %}\n"
    "                    {{- '<|image|>' }}\n"
    "                {%- elif part['type'] == 'text' %}\n"
    "                    {{- part['text'] }}\n"
    "                {%- endif %}\n"
    "            {%- endfor %}\n"
    "        {%- endif %}\n"
    "        {{- '<|eot_id|>' }}\n"
    "    {%- endif %}\n"
    "{%- endfor %}\n"
    "{%- if add_generation_prompt %}\n"
    "    {{- '<|start_header_id|>assistant<|end_header_id|>\\n\\n' }}\n"
    "{%- endif %}\n";

static json_t *tokenizer_config(const rv_synth_model *m) {
    const rv_config *c = &m->config;
    json_t *added = json_object();
    for (int32_t id = 0; id < c->text.vocab + 8; id++) {
        char text[48], key[16];
        snprintf(key, sizeof key, "%d", id);
        if (*rv_synth_control(c, id, text))
            json_object_set_new(added, key, json_pack("{s:s, s:b, s:b, s:b, s:b, s:b}", "content", text, "lstrip", 0,
                                                      "normalized", 0, "rstrip", 0, "single_word", 0, "special", 1));
    }
    json_t *root = json_pack("{s:o, s:s, s:b, s:s, s:[s,s], s:i, s:s, s:s}", "added_tokens_decoder", added, "bos_token",
                             "<|begin_of_text|>", "clean_up_tokenization_spaces", 0, "eos_token",
                             m->chat ? "<|eot_id|>" : "<|end_of_text|>", "model_input_names", "input_ids", "attention_mask",
                             "model_max_length", c->text.max_positions, "pad_token", "<|finetune_right_pad_id|>",
                             "tokenizer_class", "PreTrainedTokenizerFast");
    if (root) json_object_set_new(root, "processor_class", json_string("MllamaProcessor"));
    if (root && m->chat) json_object_set_new(root, "chat_template", json_string(chat_template));
    return root;
}

static rv_status write_json(const rv_folder *folder, const char *name, json_t *root, rv_error *err) {
    char *text = root ? rv_json_dump(root, JSON_INDENT(2) | JSON_PRESERVE_ORDER | JSON_REAL_PRECISION(16)) : NULL;
    rv_status st = text ? rv_folder_write(folder, name, text, strlen(text), err) : rv_fail_memory(err, name);
    free(text);
    json_decref(root);
    return st;
}

void rv_synth_name_configs(const rv_synth_model *m, rv_folder *folder) {
    static const char *const names[] = { "config.json", "generation_config.json", "preprocessor_config.json", "tokenizer_config.json", "tokenizer.json" };
    for (size_t i = 0; i < sizeof names / sizeof *names; i++) rv_folder_add(folder, names[i]);
    if (m->chat) rv_folder_add(folder, "chat_template.json");
}

rv_status rv_synth_write_configs(const rv_synth_model *m, const rv_folder *folder, rv_error *err) {
    rv_status st = RV_OK;
    TRY(rv_folder_write(folder, "config.json", m->config_json, strlen(m->config_json), err));
    TRY(write_json(folder, "generation_config.json", generation(&m->config), err));
    TRY(write_json(folder, "preprocessor_config.json", preprocessor(&m->config), err));
    TRY(write_json(folder, "tokenizer_config.json", tokenizer_config(m), err));
    if (m->chat) TRY(write_json(folder, "chat_template.json", json_pack("{s:s}", "chat_template", chat_template), err));
done:
    return st;
}
