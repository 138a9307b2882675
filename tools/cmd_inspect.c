/* cmd_inspect.c - rvengine inspect: what a model folder or an image is, without running it. */
#include <stdio.h>
#include <string.h>

#include "tools/commands.h"
#include "tools/files.h"
#include "tools/inspect.h"
#include "tools/load.h"
#include "tools/options.h"
#include "tools/report.h"

static const char NAME[] = "inspect";

static const command_help help = {
    .command = "inspect",
    .usage = "rvengine inspect MODEL_DIR [--check] [--json]\n"
             "       rvengine inspect IMAGE.. [--json]\n"
             "       rvengine inspect MODEL_DIR --image IMAGE.. [--json]\n"
             "       rvengine inspect MODEL_DIR --outliers [--image IMAGE..] [--prompt TEXT] [--json]",
    .about = "A model: its parts, parameters, and bytes in each precision; how prompts are put and why. All\n"
             "its JSON files and tensor headers are checked as loading does.\n"
             "An image: its size, canvas and tiles, for the given model or else the published one (560-pixel\n"
             "tiles).\n"
             "--outliers answers one request and counts, for every linear layer of the decoder, the inputs that\n"
             "int8 weights would be multiplied with in 16 bit.",
    .after = "examples:\n"
             "  rvengine inspect /models/mllama --check\n"
             "  rvengine inspect /models/mllama --outliers -i receipt.jpg --int8-threshold 4\n"
             "  rvengine inspect photo.jpg --max-tiles 1",
};

static parse_result parse(inspect_options *o, int argc, char **argv) {
    const option table[] = {
        { OPTION_GROUP, .name = "Options" },
        { OPTION_TEXT, .name = "model", .letter = 'm', .to = &o->load.model, .value = "DIR", .help = "model folder" },
        { OPTION_LIST, .name = "image", .letter = 'i', .to = &o->images, .value = "FILE",
          .help = "an image; may be repeated; - reads stdin" },
        { OPTION_FLAG, .name = "check", .to = &o->check,
          .help = "read every weight and look for NaN and Inf, and for scales\nthat loading refuses; exit code 4 if there are any" },
        { OPTION_CHOICE, .name = "max-tiles", .to = &o->max_tiles, .choices = "1|2|4",
          .help = "tiles an image is cut into at most (default 4)" },
        { OPTION_FLAG, .name = "no-exif", .to = &o->no_exif, .help = "do not turn photos as their EXIF tag asks" },
        { OPTION_FLAG, .name = "outliers", .to = &o->outliers,
          .help = "run the model on the images and the prompt, and count inputs\nof at least --int8-threshold, layer by layer" },
        { OPTION_TEXT, .name = "prompt", .letter = 'p', .to = &o->prompt, .value = "TEXT", .help = "with --outliers: what is asked" },
        { OPTION_WHOLE, .name = "max-tokens", .letter = 'n', .to = &o->max_tokens, .min = 1, .max = 1048576, .value = "N",
          .help = "with --outliers: tokens of the answer (default 64)" },
        { OPTION_FLAG, .name = "json", .to = &o->json, .help = "one JSON object" },
        LOAD_OPTIONS(o->load),
        { OPTION_END },
    };
    return options_parse(&help, table, argc, argv, &o->plain);
}

/* ---- a model -------------------------------------------------------------------------------- */

static void print_model(const char *dir, const rv_model_info *info) {
    const rv_part_info *parts;
    uint32_t n = rv_model_info_parts(info, &parts);
    const char *key;
    printf("%s\n", dir);
    for (uint32_t i = 0; (key = rv_model_info_key(info, i)); i++) {
        const char *value = rv_model_info_get(info, key);
        printf("  %-20s %s\n", key, value ? value : "?");
    }
    printf("\n  %-12s %8s %12s %12s %12s %12s %12s\n", "part", "tensors", "parameters", "in files", "16 bit", "int8", "nf4");
    rv_part_info sum = { .name = "total" };
    for (uint32_t i = 0; i <= n; i++) {
        const rv_part_info *p = i < n ? &parts[i] : &sum;
        printf("  %-12s %8u %12s %12s %12s %12s %12s\n", p->name, p->tensors, count_text(p->parameters).text,
               bytes_text(p->file_bytes).text, bytes_text(p->bytes_16bit).text, bytes_text(p->bytes_int8).text,
               bytes_text(p->bytes_nf4).text);
        if (i == n) break;
        sum.tensors += p->tensors;
        sum.parameters += p->parameters;
        sum.file_bytes += p->file_bytes;
        sum.bytes_16bit += p->bytes_16bit;
        sum.bytes_int8 += p->bytes_int8;
        sum.bytes_nf4 += p->bytes_nf4;
    }
}

static json_t *model_json(const char *dir, const rv_model_info *info) {
    const rv_part_info *parts;
    uint32_t n = rv_model_info_parts(info, &parts);
    const char *key;
    json_t *facts = json_object(), *list = json_array();
    for (uint32_t i = 0; (key = rv_model_info_key(info, i)); i++)
        json_object_set_new(facts, key, json_textz(rv_model_info_get(info, key)));
    for (uint32_t i = 0; i < n; i++) {
        const rv_part_info *p = &parts[i];
        json_array_append_new(list, json_pack("{s:s, s:I, s:I, s:I, s:I, s:I, s:I}", "name", p->name, "tensors",
                                              (json_int_t)p->tensors, "parameters", (json_int_t)p->parameters,
                                              "file_bytes", (json_int_t)p->file_bytes, "bytes_16bit",
                                              (json_int_t)p->bytes_16bit, "bytes_int8", (json_int_t)p->bytes_int8,
                                              "bytes_nf4", (json_int_t)p->bytes_nf4));
    }
    return json_pack("{s:o, s:o, s:o}", "path", json_textz(dir), "facts", facts, "parts", list);
}

typedef struct bad_list { json_t *json; uint32_t count; bool print; } bad_list;

static int32_t on_bad_tensor(void *user, const char *tensor, const char *file, uint64_t nans, uint64_t infs) {
    bad_list *bad = user;
    if (bad->count++ == 0 && bad->print) printf("\n");
    if (bad->print)
        printf("  %s: %llu NaN, %llu Inf (%s)\n", tensor, (unsigned long long)nans, (unsigned long long)infs, file);
    else json_array_append_new(bad->json, json_pack("{s:o, s:o, s:I, s:I}", "tensor", json_textz(tensor), "file",
                                                    json_textz(file), "nan", (json_int_t)nans, "inf", (json_int_t)infs));
    return interrupted();
}

static int inspect_model(const inspect_options *o, json_t **root) {
    rv_error err;
    rv_model_info *info;
    if (rv_inspect(o->load.model, &info, &err)) return report(NAME, &err);
    if (o->json) *root = model_json(o->load.model, info);
    else print_model(o->load.model, info);
    rv_model_info_free(info);
    if (!o->check) return EXIT_OK;
    bad_list bad = { .json = json_array(), .print = !o->json };
    rv_status st = rv_check_weights(o->load.model, on_bad_tensor, &bad, &err);
    if (o->json && (st == RV_OK || bad.count)) json_object_set_new(*root, "bad_tensors", bad.json);
    else json_decref(bad.json);                          /* an empty list says that all is well  */
    if (interrupted()) st = fail(&err, RV_ERR_CANCELLED, "interrupted");
    if (st) return report(NAME, &err);
    if (!o->json) printf("\n  every weight is a finite number\n");
    return EXIT_OK;
}

/* ---- images --------------------------------------------------------------------------------- */

static void print_image(const char *name, const rv_image_info *m) {
    printf("%s\n  %-12s %s, %u x %u pixels", name, "image", m->format, m->width, m->height);
    if (m->orientation > 1) printf(", EXIF orientation %u", m->orientation);
    printf("\n  %-12s %u x %u pixels inside a canvas of %u x %u\n", "resized", m->resized_width, m->resized_height,
           m->cols * m->tile, m->rows * m->tile);
    printf("  %-12s %u (%u row%s of %u), %u pixels each; aspect ratio id %u\n", "tiles", m->rows * m->cols, m->rows,
           m->rows == 1 ? "" : "s", m->cols, m->tile, m->aspect_ratio_id);
}

static json_t *image_json(const char *name, const rv_image_info *m) {
    return json_pack("{s:o, s:s, s:i, s:i, s:i, s:i, s:i, s:i, s:i, s:i, s:i}", "file", json_textz(name), "format",
                     m->format, "width", (int)m->width, "height", (int)m->height, "orientation", (int)m->orientation,
                     "tile_rows", (int)m->rows, "tile_cols", (int)m->cols, "tile", (int)m->tile, "aspect_ratio_id",
                     (int)m->aspect_ratio_id, "resized_width", (int)m->resized_width, "resized_height",
                     (int)m->resized_height);
}

static int inspect_image(const inspect_options *o, const char *path, json_t *list) {
    rv_error err;
    input file;
    if (input_read(path, &file, &err)) return report(NAME, &err);
    rv_image image = { .size = sizeof image, .data = file.data, .bytes = file.bytes, .max_tiles = inspect_tiles(o),
                       .ignore_exif = o->no_exif };
    rv_image_info info = { .size = sizeof info };
    rv_status st = rv_inspect_image(&image, o->load.model, &info, &err);
    if (st) say_error("%s: %s: %s", NAME, file.name, err.message);
    else if (o->json) json_array_append_new(list, image_json(file.name, &info));
    else print_image(file.name, &info);
    input_free(&file);
    return exit_code(st);
}

/* ---- both ----------------------------------------------------------------------------------- */

static bool names_model(const char *path) {
    const char *dot = strrchr(path, '.');
    return is_folder(path) || (dot && strcmp(dot, ".safetensors") == 0);
}

/* Model and images: from the options, then by what the plain arguments are. */
static const char *sort_arguments(inspect_options *o, const char **images, size_t *n) {
    *n = 0;
    for (size_t i = 0; i < o->images.count; i++) images[(*n)++] = o->images.items[i];
    for (size_t i = 0; i < o->plain.count; i++) {
        const char *path = o->plain.items[i];
        if (!names_model(path)) images[(*n)++] = path;
        else if (o->load.model) return "one model at a time";
        else o->load.model = path;
    }
    if (!o->load.model && *n == 0) return "give a model folder or an image";
    if (o->check && !o->load.model) return "--check needs a model folder";
    if (o->outliers && !o->load.model) return "--outliers needs a model folder";
    if (!o->outliers && o->prompt) return "--prompt goes with --outliers";
    if (o->outliers && !o->prompt && *n == 0) return "--outliers needs something to answer: give --image or --prompt";
    return NULL;
}

static int work(inspect_options *o) {
    const char *images[1024];
    size_t n;
    if (o->images.count + o->plain.count > sizeof images / sizeof *images) {
        say_error("inspect: at most 1024 files at a time");
        return EXIT_USAGE;
    }
    const char *why = sort_arguments(o, images, &n);
    if (why) {
        say_error("inspect: %s", why);
        return EXIT_USAGE;
    }
    int code = EXIT_OK;
    json_t *root = NULL;
    if (n == 0 || o->check || o->outliers) code = inspect_model(o, &root);
    if (o->json && !root && (code == EXIT_OK || n > 0)) root = json_object();
    json_t *list = n ? json_array() : NULL;
    if (o->outliers && code == EXIT_OK) code = inspect_outliers(o, images, n, root);
    for (size_t i = 0; i < n && !interrupted(); i++) {
        int one = inspect_image(o, images[i], list);
        if (one) code = one;
    }
    if (list && root) json_object_set(root, "images", list);
    json_decref(list);
    int printed = o->json && root ? json_print(NAME, root, 0) : stdout_finish(NAME);
    return printed ? printed : code;
}

int cmd_inspect(int argc, char **argv) {
    inspect_options o = { .max_tiles = 2, .max_tokens = 64 };
    parse_result parsed = parse(&o, argc, argv);
    int code = parsed == PARSE_OK ? work(&o) : parse_exit(parsed, NAME);
    text_list_free(&o.images);
    text_list_free(&o.plain);
    return code;
}
