/* cmd_synth.c - rvengine synth: a model folder with random weights, for benchmarks and tests. */
#include <stdio.h>
#include <time.h>

#include "tools/commands.h"
#include "tools/files.h"
#include "tools/load.h"

static const char NAME[] = "synth";

static const command_help help = {
    .command = "synth",
    .usage = "rvengine synth OUT_DIR [options]",
    .about = "Writes a Hugging Face model folder of the given shape with random weights: real names, shapes\n"
             "and sizes, sane activations, a tokenizer of random words. It is how this engine is measured\n"
             "without the published weights; what such a model answers means nothing.\n"
             "The folder is made, or must be empty; what an interrupted run left there is replaced.\n"
             "The same seed gives the same bits everywhere.",
    .after = "examples:\n"
             "  rvengine synth /tmp/11b                      21.3 GB, the shape of Llama-3.2-11B-Vision-Instruct\n"
             "  rvengine synth /tmp/tiny --shape tiny\n"
             "  rvengine synth --dry-run --shape 90b",
};

typedef struct synth_options {
    const char *shape;
    uint64_t    seed, shard_size, outliers, threads;
    int32_t     type, names;
    bool        outliers_given, padding, dry_run, sparse, json;
} synth_options;

static parse_result parse(synth_options *o, int argc, char **argv, text_list *plain) {
    const option table[] = {
        { OPTION_GROUP, .name = "What is written" },
        { OPTION_TEXT, .name = "shape", .to = &o->shape, .value = "SHAPE",
          .help = "11b (default), 11b-base (448-pixel tiles), 90b, tiny, or the\npath of a config.json" },
        { OPTION_WHOLE, .name = "seed", .to = &o->seed, .max = 9007199254740992.0, .value = "N", .help = "default 0" },
        { OPTION_CHOICE, .name = "dtype", .to = &o->type, .choices = "auto|bf16|f16|f32",
          .help = "default auto: as the config says (bf16)" },
        { OPTION_CHOICE, .name = "layout", .to = &o->names, .choices = "old|new",
          .help = "tensor names as on the hub (default), or as transformers\nkeeps them since 4.52" },
        { OPTION_BYTES, .name = "shard-size", .to = &o->shard_size, .value = "SIZE",
          .help = "bytes a file at most (default 5 GB, as Hugging Face cuts)" },
        { OPTION_WHOLE, .name = "outliers", .to = &o->outliers, .given = &o->outliers_given, .max = 64, .value = "N",
          .help = "channels in which activations exceed 6.0 (default: one in\n512)" },
        { OPTION_FLAG, .name = "nonzero-padding", .to = &o->padding,
          .help = "fill the unused slots of the tile tables too, so that\npadding tiles must be computed in full" },
        { OPTION_GROUP, .name = "How" },
        { OPTION_WHOLE, .name = "threads", .to = &o->threads, .min = 1, .max = 1024, .value = "N", .help = "default: one a core" },
        { OPTION_FLAG, .name = "sparse", .to = &o->sparse,
          .help = "headers and lengths alone, no bytes on the disk: for plans\n(every weight reads as zero)" },
        { OPTION_FLAG, .name = "dry-run", .to = &o->dry_run, .help = "only say what would be written" },
        { OPTION_FLAG, .name = "json", .to = &o->json, .help = "as a JSON object" },
        { OPTION_END },
    };
    return options_parse(&help, table, argc, argv, plain);
}

static double now(void) {
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return (double)t.tv_sec + (double)t.tv_nsec * 1e-9;
}

static int print_result(const synth_options *o, const char *dir, const rv_synth_info *is, double seconds) {
    if (o->json)
        return json_print(NAME, json_pack("{s:o*, s:I, s:I, s:I, s:I, s:I, s:o*}", "path", dir ? json_textz(dir) : NULL,
                                          "tensors", (json_int_t)is->tensors, "files", (json_int_t)is->files, "parameters",
                                          (json_int_t)is->parameters, "bytes", (json_int_t)is->bytes, "file_bytes",
                                          (json_int_t)is->file_bytes, "seconds", dir ? json_real(seconds) : NULL), 0);
    printf("%s%s%u tensors, %s parameters, %llu bytes (%s) in %u file%s", dir ? dir : "", dir ? ": " : "", is->tensors,
           count_text(is->parameters).text, (unsigned long long)is->bytes, bytes_text(is->bytes).text, is->files,
           is->files == 1 ? "" : "s");
    if (dir) printf(", written in %.1f s (%.2f GB/s)", seconds, (double)is->file_bytes / seconds / 1e9);
    printf("\n");
    return stdout_finish(NAME);
}

static int work(const synth_options *o, const text_list *plain) {
    rv_error err;
    rv_synth_info info = { .size = sizeof info };
    const char *dir = plain->count ? plain->items[0] : NULL;
    if (plain->count > 1 || (!dir && !o->dry_run)) {
        say_error("synth: %s", dir ? "one folder at a time" : "the folder to write is missing");
        return EXIT_USAGE;
    }
    if (o->dry_run) dir = NULL;
    rv_synth_options options = { .size = sizeof options, .shape = o->shape, .seed = o->seed, .type = o->type, .names = o->names,
                                 .shard_bytes = o->shard_size, .padding_nonzero = o->padding, .threads = (int32_t)o->threads,
                                 .outliers = !o->outliers_given ? 0 : o->outliers ? (int32_t)o->outliers : -1,
                                 .sparse = o->sparse, .progress = progress_writing };
    double start = now();
    rv_status st = rv_synthesise(dir, &options, &info, &err);
    progress_end();
    if (st) return report(NAME, &err);
    return print_result(o, dir, &info, now() - start);
}

int cmd_synth(int argc, char **argv) {
    synth_options o = { 0 };
    text_list plain = { 0 };
    parse_result parsed = parse(&o, argc, argv, &plain);
    int code = parsed == PARSE_OK ? work(&o, &plain) : parse_exit(parsed, NAME);
    text_list_free(&plain);
    return code;
}
