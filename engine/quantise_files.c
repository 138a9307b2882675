/* quantise_files.c - config.json of a quantised model folder, and the files that stay as they are. */
#include "engine/quantise.h"

#include <dirent.h>
#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "engine/base/file.h"
#include "engine/base/json_tree.h"

enum { MOST_CONFIG = 1 << 24, COPY_BYTES = 1 << 20 };

static bool ends_with(const char *text, const char *tail) {
    size_t n = strlen(text), m = strlen(tail);
    return n >= m && !strcmp(text + n - m, tail);
}

/* Files that hold weights in whatever form, or belong to a download rather than to the model. */
static bool stays_behind(const char *name) {
    static const char *const tails[] = { ".safetensors", ".safetensors.index.json", ".bin", ".bin.index.json", ".pth", ".pt", ".ckpt", ".gguf", ".h5", ".h5.index.json",
                                         ".msgpack", ".msgpack.index.json", ".onnx", ".onnx_data", ".ot", ".partial" };
    for (size_t i = 0; i < sizeof tails / sizeof *tails; i++)
        if (ends_with(name, tails[i])) return true;
    return name[0] == '.' || !strcmp(name, "config.json");
}

static rv_status copy_one(const char *model_dir, const rv_folder *out, const char *name, rv_error *err) {
    char *from = rv_path_join(model_dir, name), *buffer = malloc(COPY_BYTES);
    int in = -1, to = -1;
    uint64_t bytes;
    rv_status st = RV_OK;
    if (!from || !buffer) TRY(rv_fail_memory(err, "quantise"));
    TRY(rv_file_open(from, &in, &bytes, err));
    if ((to = rv_folder_open(out, name, err)) < 0) TRY(RV_ERR_IO);
    for (ssize_t n; (n = read(in, buffer, COPY_BYTES)) != 0;) {
        if (n < 0 && errno == EINTR) continue;
        if (n < 0) TRY(rv_fail(err, RV_ERR_IO, "%s: cannot read: %s", from, strerror(errno)));
        TRY(rv_folder_put(out, to, name, buffer, (size_t)n, err));
    }
done:
    if (in >= 0) close(in);
    if (to >= 0 && close(to) && !st) st = rv_folder_fail(out, name, err);
    free(from);
    free(buffer);
    return st;
}

rv_status rv_quantise_copy_files(const char *model_dir, const rv_folder *out, const rv_string *names, rv_error *err) {
    rv_status st = RV_OK;
    for (size_t at = 0; at < names->bytes; at += strlen(names->data + at) + 1) TRY(copy_one(model_dir, out, names->data + at, err));
done:
    return st;
}

static rv_status list_one(const char *model_dir, const char *name, rv_string *names, uint64_t *bytes, rv_error *err) {
    char *path = rv_path_join(model_dir, name);
    if (!path) return rv_fail_memory(err, "quantise");
    int fd;
    struct stat info;
    uint64_t its = 0;
    rv_status st = RV_OK;
    if (stat(path, &info) == 0 && S_ISDIR(info.st_mode)) goto done;
    TRY(rv_file_open(path, &fd, &its, err));
    close(fd);
    *bytes += its;
    rv_string_add(names, name, strlen(name) + 1);
    if (names->failed) TRY(rv_fail_memory(err, "quantise"));
done:
    free(path);
    return st;
}

rv_status rv_quantise_list_files(const char *model_dir, rv_string *names, uint64_t *bytes, rv_error *err) {
    struct stat info;
    if (stat(model_dir, &info) || !S_ISDIR(info.st_mode)) return RV_OK;
    DIR *d = opendir(model_dir);
    if (!d) return rv_fail(err, RV_ERR_IO, "%s: cannot open the folder", model_dir);
    rv_status st = RV_OK;
    for (struct dirent *e; st == RV_OK && (e = readdir(d));)
        if (!stays_behind(e->d_name)) st = list_one(model_dir, e->d_name, names, bytes, err);
    closedir(d);
    return st;
}

/* ---- config.json ---- */

/* How many linear layers of the vision tower there are, and how many of them are quantised. */
typedef struct skipping { const rv_modules *m; rv_format format; json_t *list; uint32_t vision, vision_quantised; bool failed; } skipping;

static bool is_quantised(const skipping *s, const rv_tensor_want *want) {
    return rv_modules_format_of(s->m, want, s->format) != RV_FORMAT_PLAIN;
}

static rv_status count_vision(void *user, const rv_tensor_want *want, rv_error *err) {
    skipping *s = user;
    (void)err;
    if (want->row->part != RV_IN_VISION || !rv_modules_linear(want->name)) return RV_OK;
    s->vision++;
    s->vision_quantised += is_quantised(s, want);
    return RV_OK;
}

static void list_add(skipping *s, const char *name) { s->failed |= json_array_append_new(s->list, json_string(name)) != 0; }

/* Names under which transformers 4 (a leaf, a whole name, or followed by a dot) and 5 (at the start or at the end) leave the module out,
 * in both generations of names, and no other module. */
static rv_status skip_one(void *user, const rv_tensor_want *want, rv_error *err) {
    skipping *s = user;
    char name[RV_MODULE_BYTES];
    (void)err;
    if (!rv_modules_linear(want->name) || is_quantised(s, want)) return RV_OK;
    if (want->row->part == RV_IN_PROJECTOR) list_add(s, "multi_modal_projector");
    else if (want->row->part == RV_IN_HEAD) list_add(s, "lm_head");
    else if (want->row->part != RV_IN_VISION || s->vision_quantised)
        for (int now = 0; now < 2; now++) {
            rv_modules_name(want->name, now, name);
            list_add(s, name);
        }
    return RV_OK;
}

static json_t *skip_list(const rv_config *config, const rv_modules *modules, rv_format format) {
    skipping s = { .m = modules, .format = format, .list = json_array() };
    rv_weights_each(config, count_vision, &s, NULL);
    if (s.vision && !s.vision_quantised) {
        list_add(&s, "vision_model");
        list_add(&s, "model.vision_model");
    }
    rv_weights_each(config, skip_one, &s, NULL);
    if (!s.failed) return s.list;
    json_decref(s.list);
    return NULL;
}

static json_t *quantization_config(const rv_config *config, const rv_modules *modules, rv_format format, bool nested) {
    static const char *const types[] = { [RV_F32] = "float32", [RV_F16] = "float16", [RV_BF16] = "bfloat16" };
    const bool four = format == RV_FORMAT_NF4;
    return json_pack("{s:b, s:b, s:s, s:s, s:s, s:b, s:b, s:b, s:o, s:f, s:b, s:b, s:s}", "_load_in_4bit", four, "_load_in_8bit", !four,
                     "bnb_4bit_compute_dtype", four ? types[config->dtype] : "float32", "bnb_4bit_quant_storage", "uint8", "bnb_4bit_quant_type",
                     four ? "nf4" : "fp4", "bnb_4bit_use_double_quant", four && nested, "llm_int8_enable_fp32_cpu_offload", 0,
                     "llm_int8_has_fp16_weight", 0, "llm_int8_skip_modules", skip_list(config, modules, format), "llm_int8_threshold", 6.0,
                     "load_in_4bit", four, "load_in_8bit", !four, "quant_method", "bitsandbytes");
}

rv_status rv_quantise_write_config(const char *model_dir, const rv_folder *out, const rv_config *config, const rv_modules *modules, rv_format format,
                                   bool nested, rv_error *err) {
    char *path = rv_path_join(model_dir, "config.json"), *data = NULL, *text = NULL;
    size_t bytes = 0;
    json_t *root = NULL;
    json_error_t why;
    bool no_memory;
    rv_status st = RV_OK;
    if (!path) TRY(rv_fail_memory(err, "config.json"));
    TRY(rv_file_read(path, MOST_CONFIG, &data, &bytes, err));
    root = rv_json_load(data, bytes, 0, &why, &no_memory);
    if (!root && no_memory) TRY(rv_fail_memory(err, "config.json"));
    if (!root) TRY(rv_fail(err, RV_ERR_FORMAT, "%s: changed while the model was quantised", path));
    if (json_object_set_new(root, "quantization_config", quantization_config(config, modules, format, nested)) ||
        !(text = rv_json_dump(root, JSON_INDENT(2))))
        TRY(rv_fail_memory(err, "config.json"));
    TRY(rv_folder_write(out, "config.json", text, strlen(text), err));
done:
    json_decref(root);
    free(path);
    free(data);
    free(text);
    return st;
}
