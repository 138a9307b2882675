/* cmd_quantise.c - rvengine quantise: a model folder with bitsandbytes' int8 or NF4 weights. */
#include <stdio.h>
#include <time.h>

#include "tools/commands.h"
#include "tools/files.h"
#include "tools/load.h"

static const char NAME[] = "quantise";

static const command_help help = {
    .command = "quantise",
    .usage = "rvengine quantise -m DIR -o OUT_DIR --weights int8|nf4 [options]",
    .about = "Writes the model again with quantised weights: a Hugging Face folder that transformers with\n"
             "bitsandbytes loads, and rvengine. The source must be a 16-bit or 32-bit model.\n"
             "OUT_DIR is made, or must be empty; it is whole or, after an error, empty.\n"
             "What an interrupted run left there is replaced.\n"
             "rvengine itself needs no such folder: run --weights int8 gives the same weights.",
    .after = "examples:\n"
             "  rvengine quantise -m /models/mllama -o /models/mllama-nf4 --weights nf4\n"
             "  rvengine quantise -m /models/mllama -o /models/mllama-int8 --weights int8 --skip vision_model,lm_head",
};

typedef struct quantise_options {
    const char *model, *out, *skip, *keep;
    uint64_t    shard_size, threads;
    int32_t     weights, nested, modules;
    bool        weights_given, nested_given, nf4_single, dry_run, json;
} quantise_options;

static parse_result parse(quantise_options *o, int argc, char **argv) {
    const option table[] = {
        { OPTION_GROUP, .name = "What is written" },
        { OPTION_TEXT, .letter = 'm', .name = "model", .to = &o->model, .value = "DIR", .help = "the model's folder" },
        { OPTION_TEXT, .letter = 'o', .name = "output", .to = &o->out, .value = "DIR", .help = "the folder to write" },
        { OPTION_TEXT, .name = "out", .to = &o->out, .value = "DIR", .help = "the same" },
        { OPTION_CHOICE, .name = "weights", .to = &o->weights, .given = &o->weights_given, .choices = "int8|nf4",
          .help = "row-wise int8 (LLM.int8), or NF4 in blocks of 64" },
        { OPTION_FLAG, .name = "nf4-single", .to = &o->nf4_single,
          .help = "nf4 without double quantisation: scales stay f32" },
        { OPTION_CHOICE, .name = "nested", .to = &o->nested, .given = &o->nested_given, .choices = "on|off",
          .help = "off is --nf4-single, on the default" },
        { OPTION_GROUP, .name = "Which linear layers" },
        { OPTION_CHOICE, .name = "modules", .to = &o->modules, .choices = "intended|hf-literal",
          .help = "the text layers (default), or what Hugging Face quantises\nwhen told to skip vision_tower and multi_modal_projector:\n"
                  "the vision layers and lm_head too" },
        { OPTION_TEXT, .name = "skip", .to = &o->skip, .value = "NAMES",
          .help = "instead: all but these, as llm_int8_skip_modules,\nseparated by commas" },
        { OPTION_TEXT, .name = "keep", .to = &o->keep, .value = "NAME=16bit,..",
          .help = "exceptions among text layers, such as cross_attn=16bit" },
        { OPTION_GROUP, .name = "How" },
        { OPTION_BYTES, .name = "shard-size", .to = &o->shard_size, .value = "SIZE", .help = "bytes a file at most (default 5 GB)" },
        { OPTION_WHOLE, .name = "threads", .to = &o->threads, .min = 1, .max = 1024, .value = "N", .help = "default: one a core" },
        { OPTION_FLAG, .name = "dry-run", .to = &o->dry_run, .help = "only say what would be written" },
        { OPTION_FLAG, .name = "json", .to = &o->json, .help = "as a JSON object" },
        { OPTION_END },
    };
    return options_parse(&help, table, argc, argv, NULL);
}

static double now(void) {
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return (double)t.tv_sec + (double)t.tv_nsec * 1e-9;
}

static void on_log(void *user, rv_log_level level, const char *line) {
    (void)user, (void)level;
    progress_end();
    say("warning: %s", line);
}

static int print_result(const quantise_options *o, const rv_quantise_info *is, double seconds) {
    const char *dir = o->dry_run ? NULL : o->out;
    if (o->json)
        return json_print(NAME, json_pack("{s:o*, s:I, s:I, s:I, s:I, s:I, s:o*}", "path", dir ? json_textz(dir) : NULL, "tensors",
                                          (json_int_t)is->tensors, "files", (json_int_t)is->files, "quantised", (json_int_t)is->quantised, "bytes",
                                          (json_int_t)is->bytes, "file_bytes", (json_int_t)is->file_bytes, "seconds",
                                          dir ? json_real(seconds) : NULL), 0);
    printf("%s%s%u linear layers quantised, %u tensors, %llu bytes (%s) in %u file%s", dir ? dir : "", dir ? ": " : "", is->quantised, is->tensors,
           (unsigned long long)is->bytes, bytes_text(is->bytes).text, is->files, is->files == 1 ? "" : "s");
    if (dir) printf(", written in %.1f s (%.2f GB/s)", seconds, (double)is->file_bytes / seconds / 1e9);
    printf("\n");
    return stdout_finish(NAME);
}

static int work(const quantise_options *o) {
    rv_error err;
    rv_quantise_info info = { .size = sizeof info };
    const char *missing = !o->model ? "--model DIR" : !o->out && !o->dry_run ? "--output DIR" : !o->weights_given ? "--weights int8|nf4" : NULL;
    if (missing) {
        say_error("quantise: %s is missing", missing);
        return EXIT_USAGE;
    }
    if (o->nf4_single && o->nested_given && !o->nested) {
        say_error("quantise: --nf4-single and --nested on exclude each other");
        return EXIT_USAGE;
    }
    rv_quantise_options options = { .size = sizeof options, .weights = o->weights == 0 ? RV_WEIGHTS_INT8 : RV_WEIGHTS_NF4, .nf4_single = o->nf4_single || o->nested,
                                    .modules = o->modules, .skip = o->skip, .keep = o->keep, .shard_bytes = o->shard_size,
                                    .threads = (int32_t)o->threads, .log = on_log, .progress = progress_writing };
    double start = now();
    rv_status st = rv_quantise(o->model, o->dry_run ? NULL : o->out, &options, &info, &err);
    progress_end();
    return st ? report(NAME, &err) : print_result(o, &info, now() - start);
}

int cmd_quantise(int argc, char **argv) {
    quantise_options o = { 0 };
    parse_result parsed = parse(&o, argc, argv);
    return parsed == PARSE_OK ? work(&o) : parse_exit(parsed, NAME);
}
