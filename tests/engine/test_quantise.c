/* test_quantise.c - quantised model folders: what is in them, that they are whole or not at all, and that bitsandbytes writes the same. */
#include "tests/support/folder.h"

#include <fcntl.h>
#include <jansson.h>
#include <math.h>

#include "engine/model.h"
#include "engine/modules.h"
#include "engine/synth.h"
#include "loader/bnb.h"
#include "tests/support/hash_checkpoint.h"
#include "tests/support/spoil.h"

static char source_dir[1024];            /* a small synthetic model                             */

static int set_up(void **state) {
    (void)state;
    rv_error err;
    rv_synth_options o = { .size = sizeof o, .shape = "tiny", .shard_bytes = 3000000 };
    if (rv_synthesise(folder_new(source_dir, "source"), &o, NULL, &err)) fail_msg("%s", err.message);
    folder_write_text(source_dir, "chat_template.json", "{\"chat_template\": \"x\"}");
    folder_write_text(source_dir, "pytorch_model.bin", "weights in another form");
    folder_write_text(source_dir, ".hidden", "of a download");
    return 0;
}

static int tear_down(void **state) {
    (void)state;
    folder_new(source_dir, "source");
    return rmdir(source_dir);
}

static rv_quantise_options options(rv_weight_format weights) { return (rv_quantise_options){ .size = sizeof(rv_quantise_options), .weights = weights }; }

static const char *quantise(char dir[1024], const char *name, rv_quantise_options o) {
    rv_error err;
    if (rv_quantise(source_dir, folder_new(dir, name), &o, NULL, &err)) fail_msg("%s", err.message);
    return dir;
}

static void open_model(const char *dir, rv_files *files) {
    rv_error err;
    if (rv_files_open(dir, false, files, &err)) fail_msg("%s", err.message);
}

static json_t *config_of(const char *dir) {
    char path[2048];
    snprintf(path, sizeof path, "%s/config.json", dir);
    json_t *root = json_load_file(path, 0, NULL);
    assert_non_null(root);
    return root;
}

/* ---- what is written ---- */

typedef struct comparison { rv_files from, to; rv_modules modules; rv_format format; bool nested; uint32_t quantised; } comparison;

/* The codes must be those of the reference loops, over the whole weight. */
static void compare_codes(const comparison *c, const rv_tensor *t, const rv_tensor *q, int64_t rows, int64_t cols) {
    const int64_t n = rows * cols, blocks = n / RV_BLOCK4, runs = (blocks + RV_NESTED_BLOCK - 1) / RV_NESTED_BLOCK;
    rv_error err = { 0 };
    rv_codes codes;
    expect_ok(rv_checkpoint_codes(c->to.checkpoint, q, rows, cols, &codes, &err), &err);
    expect_ok(rv_checkpoint_check_scales(q, &codes, rows, cols, &err), &err);
    assert_int_equal(codes.format, c->format);
    uint8_t *wanted = malloc((size_t)n), *nested = malloc((size_t)blocks);
    float *scale = malloc((size_t)(blocks + rows) * sizeof *scale), *nested_scale = malloc((size_t)runs * sizeof *nested_scale);
    assert_true(wanted && nested && scale && nested_scale);
    if (c->format == RV_FORMAT_INT8) {
        for (int64_t r = 0; r < rows; r++)
            scale[r] = rv_int8_weights((int8_t *)wanted + r * cols, (const char *)t->data + (size_t)(r * cols) * rv_dtype_size(t->type), t->type, cols);
        assert_memory_equal(codes.codes, wanted, (size_t)n);
        assert_memory_equal(codes.scale, scale, (size_t)rows * 4);
    } else {
        rv_nf4_quantise(wanted, scale, t->data, t->type, n);
        assert_memory_equal(codes.codes, wanted, (size_t)n / 2);
        assert_memory_equal(codes.map, rv_nf4_map, sizeof codes.map);
        if (c->nested) {
            float offset = rv_nested_quantise(nested, nested_scale, scale, blocks);
            assert_memory_equal(&codes.offset, &offset, sizeof offset);
            assert_memory_equal(codes.nested, nested, (size_t)blocks);
            assert_memory_equal(codes.nested_scale, nested_scale, (size_t)runs * 4);
            assert_memory_equal(codes.nested_map, rv_nested_map, sizeof codes.nested_map);
        } else assert_memory_equal(codes.scale, scale, (size_t)blocks * 4);
    }
    free(wanted), free(nested), free(scale), free(nested_scale);
}

static rv_status compare_one(void *user, const rv_tensor_want *want, rv_error *err) {
    comparison *c = user;
    const rv_tensor *t = rv_checkpoint_find(c->from.checkpoint, want->name), *q = rv_checkpoint_find(c->to.checkpoint, want->name);
    (void)err;
    assert_true(t && q);
    assert_string_equal(t->file_name, q->file_name);
    if (rv_modules_format_of(&c->modules, want, c->format) != RV_FORMAT_PLAIN) {
        c->quantised++;
        compare_codes(c, t, q, want->shape[0], want->shape[1]);
        return RV_OK;
    }
    assert_int_equal(t->type, q->type);
    assert_int_equal(t->bytes, q->bytes);
    assert_memory_equal(t->data, q->data, t->bytes);
    return RV_OK;
}

static void compare(const char *dir, rv_modules modules, rv_format format, bool nested, uint32_t quantised) {
    comparison c = { .modules = modules, .format = format, .nested = nested };
    open_model(source_dir, &c.from);
    open_model(dir, &c.to);
    rv_weights_each(&c.from.config, compare_one, &c, NULL);
    assert_int_equal(c.quantised, quantised);
    rv_files_close(&c.from);
    rv_files_close(&c.to);
}

/* The tiny model has 3 self and 2 cross text layers. */
static uint32_t linear_layers(rv_part_id part) {
    rv_files f;
    uint32_t n = 0;
    open_model(source_dir, &f);
    for (uint32_t i = 0; i < rv_checkpoint_count(f.checkpoint); i++) {
        static const char *const heads[RV_PARTS] = { "text.", "lm_head.", "vision.", "projector." };
        const char *name = rv_checkpoint_at(f.checkpoint, i)->name;
        n += rv_modules_linear(name) && !strncmp(name, heads[part], strlen(heads[part]));
    }
    rv_files_close(&f);
    return n;
}

static void codes_are_those_of_the_reference_loops_and_the_rest_is_untouched(void **state) {
    (void)state;
    char dir[1024];
    const uint32_t text = linear_layers(RV_IN_TEXT);
    assert_true(text == 5 * 7);
    rv_quantise_options o = options(RV_WEIGHTS_INT8);
    compare(quantise(dir, "int8", o), (rv_modules){ 0 }, RV_FORMAT_INT8, false, text);
    o = options(RV_WEIGHTS_NF4);
    compare(quantise(dir, "nf4", o), (rv_modules){ 0 }, RV_FORMAT_NF4, true, text);
    o.nf4_single = 1;
    compare(quantise(dir, "nf4", o), (rv_modules){ 0 }, RV_FORMAT_NF4, false, text);
}

static void any_choice_of_modules_shards_and_threads_reads_back(void **state) {
    (void)state;
    char dir[1024];
    const uint32_t text = linear_layers(RV_IN_TEXT), vision = linear_layers(RV_IN_VISION);
    rv_quantise_options o = options(RV_WEIGHTS_NF4);
    o.modules = RV_MODULES_HF_LITERAL, o.shard_bytes = 500000, o.threads = 7;
    /* Of the tower's six only fc2 has rows of whole blocks. */
    compare(quantise(dir, "literal", o), (rv_modules){ .preset = RV_MODULES_HF_LITERAL }, RV_FORMAT_NF4, true, text + vision / 6 + 1);
    o.weights = RV_WEIGHTS_INT8;
    compare(quantise(dir, "literal", o), (rv_modules){ .preset = RV_MODULES_HF_LITERAL }, RV_FORMAT_INT8, true, text + vision + 1);
    o = options(RV_WEIGHTS_INT8);
    o.skip = "vision_model,mlp", o.threads = 1, o.shard_bytes = 1;
    compare(quantise(dir, "skip", o), (rv_modules){ .skip = o.skip }, RV_FORMAT_INT8, false, text - 5 * 3 + 2);
    o = options(RV_WEIGHTS_NF4);
    o.keep = "layers.1.cross_attn=16bit";
    compare(quantise(dir, "keep", o), (rv_modules){ .keep = o.keep }, RV_FORMAT_NF4, true, text - 4);
}

static void every_number_is_aligned(void **state) {
    (void)state;
    char dir[1024];
    rv_files f;
    rv_quantise_options o = options(RV_WEIGHTS_NF4);
    for (int format = 0; format < 2; format++, o.weights = RV_WEIGHTS_INT8) {
        open_model(quantise(dir, "aligned", o), &f);
        for (uint32_t i = 0; i < rv_checkpoint_count(f.checkpoint); i++) {
            const rv_tensor *t = rv_checkpoint_at(f.checkpoint, i);
            if ((uintptr_t)t->data % rv_dtype_size(t->type)) fail_msg("%s", t->file_name);
        }
        rv_files_close(&f);
    }
}

static void a_plan_says_what_is_written(void **state) {
    (void)state;
    char dir[1024];
    rv_error err;
    rv_quantise_info plan = { .size = sizeof plan }, done = { .size = sizeof done };
    rv_quantise_options o = options(RV_WEIGHTS_NF4);
    o.shard_bytes = 500000;
    expect_ok(rv_quantise(source_dir, NULL, &o, &plan, &err), &err);
    expect_ok(rv_quantise(source_dir, folder_new(dir, "plan"), &o, &done, &err), &err);
    assert_memory_equal(&plan, &done, sizeof plan);
    rv_files f;
    open_model(dir, &f);
    assert_int_equal(done.files, rv_checkpoint_files(f.checkpoint));
    assert_int_equal(done.tensors, rv_checkpoint_count(f.checkpoint));
    assert_int_equal(done.file_bytes, rv_checkpoint_file_bytes(f.checkpoint));
    rv_files_close(&f);
}

static void what_cannot_be_told_is_refused_before_anything_is_written(void **state) {
    (void)state;
    char dir[1024];
    rv_error err;
    rv_quantise_info info = { .size = 3 };
    rv_quantise_options o = options(RV_WEIGHTS_NF4);
    assert_int_equal(rv_quantise(source_dir, folder_new(dir, "untold"), &o, &info, &err), RV_ERR_ARGUMENT);
    assert_non_null(strstr(err.message, "rv_quantise_info.size"));
    assert_int_equal(folder_count(dir, NULL), 0);
}

/* ---- config.json and the other files ---- */

static void expect_skipped(const char *dir, const char *const *names, size_t n) {
    json_t *root = config_of(dir), *list = json_object_get(json_object_get(root, "quantization_config"), "llm_int8_skip_modules");
    assert_int_equal(json_array_size(list), n);
    for (size_t i = 0; i < n; i++) assert_string_equal(json_string_value(json_array_get(list, i)), names[i]);
    json_decref(root);
}

static void config_json_names_what_stays_16_bit(void **state) {
    (void)state;
    static const char *const intended[] = { "vision_model", "model.vision_model", "lm_head", "multi_modal_projector" }, *const literal[] = { "multi_modal_projector" },
        *const kept[] = { "vision_model", "model.vision_model", "language_model.model.layers.0.mlp.down_proj", "model.language_model.layers.0.mlp.down_proj",
                          "lm_head", "multi_modal_projector" };
    char dir[1024];
    rv_quantise_options o = options(RV_WEIGHTS_INT8);
    expect_skipped(quantise(dir, "config", o), intended, 4);
    o.keep = "layers.0.mlp.down_proj=16bit";
    expect_skipped(quantise(dir, "config", o), kept, 6);
    o = options(RV_WEIGHTS_INT8);
    o.modules = RV_MODULES_HF_LITERAL;
    expect_skipped(quantise(dir, "config", o), literal, 1);
}

static void config_json_says_how(void **state) {
    (void)state;
    char dir[1024];
    for (int four = 0; four < 2; four++) {
        rv_quantise_options o = options(four ? RV_WEIGHTS_NF4 : RV_WEIGHTS_INT8);
        json_t *root = config_of(quantise(dir, "config", o)), *source = config_of(source_dir), *q = json_object_get(root, "quantization_config");
        assert_string_equal(json_string_value(json_object_get(q, "quant_method")), "bitsandbytes");
        assert_int_equal(json_is_true(json_object_get(q, "load_in_4bit")), four);
        assert_int_equal(json_is_true(json_object_get(q, "load_in_8bit")), !four);
        assert_int_equal(json_is_true(json_object_get(q, "bnb_4bit_use_double_quant")), four);
        assert_string_equal(json_string_value(json_object_get(q, "bnb_4bit_quant_type")), four ? "nf4" : "fp4");
        assert_string_equal(json_string_value(json_object_get(q, "bnb_4bit_compute_dtype")), four ? "bfloat16" : "float32");
        assert_true(json_real_value(json_object_get(q, "llm_int8_threshold")) == 6.0);
        json_object_del(root, "quantization_config");
        assert_true(json_equal(root, source));
        json_decref(root);
        json_decref(source);
    }
}

static void other_files_come_along_but_not_weights_in_other_forms(void **state) {
    (void)state;
    char dir[1024], path[2048];
    static const char *const others[] = { "flax_model.msgpack", "tf_model.h5", "model.onnx", "model.onnx_data", "rust_model.ot", "last.ckpt", "tf_model.h5.index.json",
                                          "flax_model.msgpack.index.json" };
    for (size_t i = 0; i < sizeof others / sizeof *others; i++) folder_write_text(source_dir, others[i], "weights in another form");
    quantise(dir, "files", options(RV_WEIGHTS_INT8));
    for (size_t i = 0; i < sizeof others / sizeof *others; i++) {
        snprintf(path, sizeof path, "%s/%s", dir, others[i]);
        if (rv_file_exists(path)) fail_msg("%s", others[i]);
        folder_remove(source_dir, others[i]);
    }
    static const struct { const char *name; int there; } files[] = { { "tokenizer.json", 1 }, { "chat_template.json", 1 }, { "preprocessor_config.json", 1 },
                                                                     { "pytorch_model.bin", 0 }, { ".hidden", 0 }, { "model.safetensors.index.json", 0 } };
    for (size_t i = 0; i < sizeof files / sizeof *files; i++) {
        snprintf(path, sizeof path, "%s/%s", dir, files[i].name);
        if (rv_file_exists(path) != files[i].there) fail_msg("%s", files[i].name);
    }
}

static void files_that_cannot_be_read_are_errors_before_anything_is_written(void **state) {
    (void)state;
    char dir[1024], path[2048];
    rv_error err = { 0 };
    const rv_quantise_options o = options(RV_WEIGHTS_INT8);
    rmdir(folder_new(dir, "unread"));
    snprintf(path, sizeof path, "%s/special_tokens_map.json", source_dir);
    for (int i = 0; i < 3; i++) {
        static const char *const why[] = { "special_tokens_map.json: cannot open: No such file", "special_tokens_map.json: cannot open: Too many levels",
                                           "special_tokens_map.json: is a device or pipe, not a file" };
        assert_int_equal(i == 2 ? mkfifo(path, 0644) : symlink(i ? "special_tokens_map.json" : "nowhere", path), 0);
        expect_error(rv_quantise(source_dir, dir, &o, NULL, &err), &err, RV_ERR_IO, why[i]);
        assert_int_equal(folder_count(dir, NULL), -1);
        assert_int_equal(unlink(path), 0);
    }
    assert_int_equal(mkdir(path, 0755), 0);              /* folders are left out                 */
    expect_ok(rv_quantise(source_dir, dir, &o, NULL, &err), &err);
    assert_int_equal(rmdir(path), 0);
}

static void files_of_any_size_come_along(void **state) {
    (void)state;
    enum { BYTES = (1 << 28) + 7 };                      /* of holes, but for the end            */
    char dir[1024], path[2048], end[5] = "";
    snprintf(path, sizeof path, "%s/large.dat", source_dir);
    for (int i = 0; i < 2; i++) {
        struct stat is;
        const int fd = open(path, i ? O_RDONLY : O_RDWR | O_CREAT | O_EXCL, 0666);
        assert_true(fd >= 0);
        if (i == 0) assert_int_equal(pwrite(fd, "dear", 4, BYTES - 4), 4);
        assert_int_equal(fstat(fd, &is), 0);
        assert_int_equal(is.st_size, BYTES);
        assert_int_equal(pread(fd, end, 4, BYTES - 4), 4);
        assert_string_equal(end, "dear");
        close(fd);
        if (i == 0) quantise(dir, "large", options(RV_WEIGHTS_INT8));
        unlink(path);
        snprintf(path, sizeof path, "%s/large.dat", dir);
    }
}

/* ---- what is refused ---- */

static void refused(const char *model, const char *dir, rv_quantise_options o, rv_status code, const char *part) {
    rv_error err = { 0 };
    expect_error(rv_quantise(model, dir, &o, NULL, &err), &err, code, part);
}

static void requests_that_make_no_sense_are_refused(void **state) {
    (void)state;
    char dir[1024], int8[1024];
    rv_quantise_options o = options(RV_WEIGHTS_AUTO);
    folder_new(dir, "refused");
    refused(source_dir, dir, o, RV_ERR_ARGUMENT, "weights: must be RV_WEIGHTS_INT8 or RV_WEIGHTS_NF4");
    o = options(RV_WEIGHTS_INT8), o.nf4_single = 1;
    refused(source_dir, dir, o, RV_ERR_ARGUMENT, "only 4-bit weights have scales");
    o = options(RV_WEIGHTS_INT8), o.threads = -1;
    refused(source_dir, dir, o, RV_ERR_ARGUMENT, "threads");
    o = options(RV_WEIGHTS_NF4), o.keep = "cross_attn=int8";
    refused(source_dir, dir, o, RV_ERR_UNSUPPORTED, "bitsandbytes' folders hold one format; only 16bit can be kept");
    o.keep = "cross_attn";
    refused(source_dir, dir, o, RV_ERR_ARGUMENT, "is not NAME=16bit");
    quantise(int8, "int8", options(RV_WEIGHTS_INT8));
    refused(int8, dir, options(RV_WEIGHTS_NF4), RV_ERR_UNSUPPORTED, "is quantised already: start from the 16-bit");
    refused(source_dir, int8, options(RV_WEIGHTS_NF4), RV_ERR_IO, "is not empty");
    assert_int_equal(folder_count(dir, NULL), 0);
}

static void numbers_without_a_code_are_errors_and_leave_an_empty_folder(void **state) {
    (void)state;
    static const struct { rv_weight_format weights; uint16_t value; const char *part; } rows[] = {
        { RV_WEIGHTS_INT8, 0x7fc0, "layers.0.mlp.up_proj.weight: holds NaN" }, { RV_WEIGHTS_NF4, 0x7fc0, "layers.0.mlp.up_proj.weight: holds NaN" },
        { RV_WEIGHTS_INT8, 0x7f80, "holds NaN, Inf" }, { RV_WEIGHTS_NF4, 0xff80, "holds NaN, Inf" },
        { RV_WEIGHTS_INT8, 0x4780 /* 65536 */, "numbers beyond 65504" } };
    char dir[1024], out[1024];
    for (size_t i = 0; i < sizeof rows / sizeof *rows; i++) {
        model_spoil(dir, "text.layers.0.mlp.up_proj.weight", 70000, rows[i].value);
        refused(dir, folder_new(out, "out"), options(rows[i].weights), RV_ERR_FORMAT, rows[i].part);
        assert_int_equal(folder_count(out, NULL), 0);
    }
    model_spoil(dir, "text.layers.0.mlp.up_proj.weight", 70000, 0x4780);
    rv_error err;
    rv_quantise_options o = options(RV_WEIGHTS_NF4);
    expect_ok(rv_quantise(dir, folder_new(out, "out"), &o, NULL, &err), &err);
}

static int32_t stop_soon(void *user, float done) {
    (void)done;
    return ++*(int *)user > 3;
}

static void a_stopped_run_leaves_nothing(void **state) {
    (void)state;
    char dir[1024];
    int calls = 0;
    rv_quantise_options o = options(RV_WEIGHTS_NF4);
    o.progress = stop_soon, o.progress_user = &calls, o.threads = 2;
    refused(source_dir, folder_new(dir, "stopped"), o, RV_ERR_CANCELLED, "stopped by the progress callback");
    assert_int_equal(folder_count(dir, NULL), 0);
    rmdir(dir);
    calls = 0;
    refused(source_dir, dir, o, RV_ERR_CANCELLED, "stopped");
    assert_int_equal(folder_count(dir, NULL), -1);
}

/* ---- what the checker of models says ---- */

static void check_fails(const char *dir, rv_status code, const char *part) {
    rv_files f;
    rv_error err = { 0 };
    expect_error(rv_files_open(dir, false, &f, &err), &err, code, part);
}

/* In the only file's header, text of the same length is replaced. */
static void rename_in_header(const char *dir, const char *from, const char *to) {
    char path[2048], *data;
    size_t bytes;
    rv_error err;
    snprintf(path, sizeof path, "%s/model.safetensors", dir);
    expect_ok(rv_file_read(path, 1 << 28, &data, &bytes, &err), &err);
    char *at = memmem(data, bytes, from, strlen(from));
    assert_non_null(at);
    assert_int_equal(strlen(from), strlen(to));
    memcpy(at, to, strlen(to));
    folder_write(dir, "model.safetensors", data, bytes);
    free(data);
}

static void a_model_whose_companions_do_not_fit_is_refused(void **state) {
    (void)state;
    char dir[1024];
    quantise(dir, "companions", options(RV_WEIGHTS_NF4));
    rename_in_header(dir, "layers.0.mlp.up_proj.weight.absmax", "layers.0.mlp.up_proj.weight.absmin");
    check_fails(dir, RV_ERR_FORMAT, "up_proj.weight.absmax: missing: the weight is quantised");
    quantise(dir, "companions", options(RV_WEIGHTS_NF4));
    rename_in_header(dir, "layers.0.mlp.up_proj.weight.quant_state.bitsandbytes__nf4", "layers.0.mlp.up_proj.weight.quant_state.bitsandbytes__xx4");
    check_fails(dir, RV_ERR_FORMAT, "up_proj.weight.quant_state.bitsandbytes__nf4: missing");
    quantise(dir, "companions", options(RV_WEIGHTS_INT8));
    rename_in_header(dir, "layers.0.mlp.up_proj.SCB", "layers.0.mlp.up_proj.SCX");
    check_fails(dir, RV_ERR_FORMAT, "is I8 but has no SCB");
    quantise(dir, "companions", options(RV_WEIGHTS_INT8));
    rename_in_header(dir, "layers.0.mlp.up_proj.weight_format", "layers.0.mlp.no_proj.weight_format");
    check_fails(dir, RV_ERR_FORMAT, "no_proj.weight_format: unexpected: there is no weight that is quantised so that it needs this");
}

/* ---- bitsandbytes' own ---- */

static void put_original(char dir[1024]) {
    rv_error err;
    folder_new(dir, "base");
    if (hash_checkpoint_write(RV_TEST_DATA "/golden/bnb/base", dir, &err)) fail_msg("%s", err.message);
}

typedef struct agreement { const rv_checkpoint *ours, *theirs; uint64_t codes, apart; } agreement;

/* Codes may be one step aside where a value lies on a threshold; plain numbers, tables and f32 scales agree bit for bit, but for the second
 * level's, which depend on the order of a sum. */
static void agree_one(agreement *a, const rv_tensor *theirs) {
    const rv_tensor *ours = rv_checkpoint_find(a->ours, theirs->name);
    if (!ours) fail_msg("%s", theirs->name);
    if (strstr(theirs->name, ".quant_state.")) return;
    assert_string_equal(ours->type_name, theirs->type_name);
    assert_int_equal(ours->bytes, theirs->bytes);
    assert_int_equal(ours->n_dims, theirs->n_dims);
    const uint8_t *x = ours->data, *y = theirs->data;
    if (strstr(theirs->name, ".nested_absmax")) {
        for (uint64_t i = 0; i < ours->bytes; i += 4) {
            float f, g;
            memcpy(&f, x + i, 4), memcpy(&g, y + i, 4);
            assert_true(fabsf(f - g) <= 1e-6f * fabsf(g));
        }
        return;
    }
    const bool codes = ours->type == RV_I8 || ours->type == RV_U8;
    for (uint64_t i = 0; i < ours->bytes; i++) {
        a->codes += codes;
        if (x[i] == y[i]) continue;
        if (!codes) fail_msg("%s differs", theirs->name);
        a->apart++;
        int high = ours->type == RV_I8 || strstr(theirs->name, ".absmax") ? x[i] - y[i] : (x[i] >> 4) - (y[i] >> 4), low = (x[i] & 15) - (y[i] & 15);
        if (ours->type == RV_I8) high = (int8_t)x[i] - (int8_t)y[i], low = 0;
        if (strstr(theirs->name, ".absmax")) low = 0;
        if (high > 1 || high < -1 || low > 1 || low < -1) fail_msg("%s: byte %llu is %d, bitsandbytes has %d", theirs->name, (unsigned long long)i, x[i], y[i]);
    }
}

static void what_is_written_is_what_bitsandbytes_writes(void **state) {
    (void)state;
    static const struct { const char *folder; rv_weight_format weights; int32_t single; } rows[] = {
        { "int8", RV_WEIGHTS_INT8, 0 }, { "nf4", RV_WEIGHTS_NF4, 0 }, { "nf4_plain", RV_WEIGHTS_NF4, 1 } };
    char base[1024], dir[1024], golden[1024];
    put_original(base);
    for (size_t i = 0; i < sizeof rows / sizeof *rows; i++) {
        rv_error err;
        rv_files ours;
        agreement a = { 0 };
        rv_checkpoint *theirs;
        rv_quantise_options o = options(rows[i].weights);
        o.nf4_single = rows[i].single;
        snprintf(golden, sizeof golden, RV_TEST_DATA "/golden/bnb/%s", rows[i].folder);
        if (rv_quantise(base, folder_new(dir, "ours"), &o, NULL, &err)) fail_msg("%s", err.message);
        open_model(dir, &ours);
        if (rv_checkpoint_open(golden, &theirs, &err)) fail_msg("%s", err.message);
        assert_int_equal(rv_checkpoint_count(theirs), rv_checkpoint_count(ours.checkpoint));
        a.ours = ours.checkpoint, a.theirs = theirs;
        for (uint32_t t = 0; t < rv_checkpoint_count(theirs); t++) agree_one(&a, rv_checkpoint_at(theirs, t));
        print_message("%s: %llu of %llu bytes of codes are one step aside\n", rows[i].folder, (unsigned long long)a.apart, (unsigned long long)a.codes);
        assert_true(a.codes > 100000 && a.apart * 5000 < a.codes);
        rv_checkpoint_close(theirs);
        rv_files_close(&ours);
    }
}

static void folders_that_bitsandbytes_wrote_pass_every_check(void **state) {
    (void)state;
    static const struct { const char *name; uint32_t quantised; } folders[] = { { "int8", 14 }, { "nf4", 14 }, { "nf4_plain", 14 }, { "fp4", 14 }, { "dynamic", 23 } };
    for (size_t i = 0; i < sizeof folders / sizeof *folders; i++) {
        char path[1024];
        rv_files f;
        rv_error err;
        uint32_t quantised = 0;
        snprintf(path, sizeof path, RV_TEST_DATA "/golden/bnb/%s", folders[i].name);
        open_model(path, &f);
        for (uint32_t t = 0; t < rv_checkpoint_count(f.checkpoint); t++) quantised += rv_checkpoint_format(f.checkpoint, rv_checkpoint_at(f.checkpoint, t)) != RV_FORMAT_PLAIN;
        assert_int_equal(quantised, folders[i].quantised);
        rv_files_close(&f);
        if (rv_check_weights(path, NULL, NULL, &err)) fail_msg("%s", err.message);
    }
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(codes_are_those_of_the_reference_loops_and_the_rest_is_untouched),
        cmocka_unit_test(any_choice_of_modules_shards_and_threads_reads_back),
        cmocka_unit_test(every_number_is_aligned),
        cmocka_unit_test(a_plan_says_what_is_written),
        cmocka_unit_test(what_cannot_be_told_is_refused_before_anything_is_written),
        cmocka_unit_test(config_json_names_what_stays_16_bit),
        cmocka_unit_test(config_json_says_how),
        cmocka_unit_test(other_files_come_along_but_not_weights_in_other_forms),
        cmocka_unit_test(files_of_any_size_come_along),
        cmocka_unit_test(files_that_cannot_be_read_are_errors_before_anything_is_written),
        cmocka_unit_test(requests_that_make_no_sense_are_refused),
        cmocka_unit_test(numbers_without_a_code_are_errors_and_leave_an_empty_folder),
        cmocka_unit_test(a_stopped_run_leaves_nothing),
        cmocka_unit_test(a_model_whose_companions_do_not_fit_is_refused),
        cmocka_unit_test(what_is_written_is_what_bitsandbytes_writes),
        cmocka_unit_test(folders_that_bitsandbytes_wrote_pass_every_check),
    };
    return cmocka_run_group_tests(tests, set_up, tear_down);
}
