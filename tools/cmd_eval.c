/* cmd_eval.c - rvengine eval: answers against the truth, one run or two, and whether a truth file is right itself. */
#include <stdio.h>
#include <string.h>

#include "engine/rvextract.h"
#include "tools/commands.h"
#include "tools/files.h"
#include "tools/options.h"
#include "tools/report.h"

static const char NAME[] = "eval";

static const command_help help = {
    .command = "eval",
    .usage = "rvengine eval --schema NAME|FILE.json --truth FILE RUN [OTHER] [options]\n"
             "       rvengine eval lint --schema NAME|FILE.json FILE [options]",
    .about = "Compares answers with the truth, field by field: exact (case and blanks forgiven), by meaning (dates as\n"
             "dates, amounts as cents), order-aware F1, ANLS, inventions and misses; per field and document type,\n"
             "with 95 % intervals from a bootstrap over documents. With OTHER: the paired difference, for A/B tests of\n"
             "prompts or weight formats. Files are CSV or JSON Lines; documents are matched by file name, and by\n"
             "folders where a name repeats. `lint` says what is wrong with a truth file.",
    .after = "examples:\n"
             "  rvengine eval --schema demo_receipt --truth tools/demo/receipts/expected.jsonl answers.jsonl\n"
             "  rvengine eval --schema receipt --truth truth.csv bf16.jsonl int8.jsonl --format json\n"
             "  rvengine eval lint --schema receipt truth.csv",
};

typedef struct eval_options {
    const char *schema, *truth, *output;
    text_list   plain;
    int32_t     format;
    uint64_t    resamples, seed, wrong;
    bool        substitutions, ignore_missing;
} eval_options;

static parse_result parse(eval_options *o, int argc, char **argv) {
    const option table[] = {
        { OPTION_GROUP, .name = "Options" },
        { OPTION_TEXT, .name = "schema", .letter = 's', .to = &o->schema, .value = "NAME",
          .help = "built-in schema, or a file (rvengine schema list)" },
        { OPTION_TEXT, .name = "truth", .letter = 't', .to = &o->truth, .value = "FILE",
          .help = "what is right; fields that it does not name are not scored" },
        { OPTION_CHOICE, .name = "format", .letter = 'f', .to = &o->format, .choices = "text|json|csv|md", .help = "default text" },
        { OPTION_TEXT, .name = "output", .letter = 'o', .to = &o->output, .value = "FILE", .help = "to a file, whole or not at all; -: stdout" },
        { OPTION_WHOLE, .name = "resamples", .to = &o->resamples, .min = 1, .max = 1000000, .value = "N",
          .help = "of the bootstrap (default 2000)" },
        { OPTION_WHOLE, .name = "seed", .to = &o->seed, .value = "N", .help = "of the bootstrap (default 0)" },
        { OPTION_WHOLE, .name = "wrong", .to = &o->wrong, .max = 1000000, .value = "N", .help = "list the first N wrong fields with truth and answer" },
        { OPTION_FLAG, .name = "substitutions", .to = &o->substitutions,
          .help = "F1: a wrong item is a miss and an invention (default: a miss)" },
        { OPTION_FLAG, .name = "ignore-missing", .to = &o->ignore_missing,
          .help = "leave out documents without an answer (default: they are empty)" },
        { OPTION_END },
    };
    return options_parse(&help, table, argc, argv, &o->plain);
}

/* Read text and what it is called. */
static rv_status read_run(const char *path, input *in, rv_run *out, rv_error *err) {
    rv_status st = input_read(path, in, err);
    if (st == RV_OK) *out = (rv_run){ in->name, in->data, in->bytes };
    return st;
}

static rv_status evaluate(const eval_options *o, const rv_schema *schema, char **text, rv_error *err) {
    input in[3] = { { 0 } };
    rv_run runs[3];
    rv_eval_options options = { .size = sizeof options,
                                .form = o->format,
                                .resamples = (uint32_t)o->resamples,
                                .seed = o->seed,
                                .substitutions = o->substitutions,
                                .ignore_missing = o->ignore_missing, .list_wrong = (uint32_t)o->wrong };
    rv_status st = read_run(o->truth, &in[0], &runs[0], err);
    for (size_t i = 0; i < o->plain.count && st == RV_OK; i++) st = read_run(o->plain.items[i], &in[i + 1], &runs[i + 1], err);
    if (st == RV_OK) st = rv_evaluate(schema, &runs[0], &runs[1], o->plain.count == 2 ? &runs[2] : NULL, &options, text, err);
    for (int i = 0; i < 3; i++) input_free(&in[i]);
    return st;
}

static rv_status lint(const eval_options *o, const rv_schema *schema, char **text, uint32_t *problems, rv_error *err) {
    input in = { 0 };
    rv_run truth;
    rv_status st = read_run(o->plain.items[1], &in, &truth, err);
    if (st == RV_OK) st = rv_lint(schema, &truth, o->format, text, problems, err);
    input_free(&in);
    return st;
}

static int stdin_users(const eval_options *o) {
    int n = strcmp(o->truth, "-") == 0;
    for (size_t i = 0; i < o->plain.count; i++) n += strcmp(o->plain.items[i], "-") == 0;
    return n;
}

static const char *misuse(const eval_options *o, bool linting) {
    if (!o->schema) return "--schema is missing: which fields are compared? (rvengine schema list)";
    if (linting && o->plain.count != 2) return "lint takes one truth file";
    if (linting && o->truth) return "lint takes its file without --truth";
    if (!linting && !o->truth) return "--truth is missing";
    if (!linting && (o->plain.count < 1 || o->plain.count > 2)) return "one or two files with answers were expected";
    if (linting && (o->resamples || o->seed || o->wrong || o->substitutions || o->ignore_missing)) return "lint compares nothing: it takes --schema, --format and --output";
    if (!linting && stdin_users(o) > 1) return "stdin (-) can be read only once";
    if (!linting && o->ignore_missing && o->plain.count == 2)
        return "--ignore-missing makes no sense for two runs: they are compared on all documents";
    return NULL;
}

static int work(const eval_options *o) {
    bool linting = o->plain.count && strcmp(o->plain.items[0], "lint") == 0;
    const char *why = misuse(o, linting);
    rv_schema *schema;
    rv_error err;
    char *text = NULL;
    uint32_t problems = 0;
    if (why) {
        say_error("eval: %s", why);
        return EXIT_USAGE;
    }
    if (o->output && output_check(o->output, &err)) return report(NAME, &err);
    if (!o->output && stdout_check(NAME)) return EXIT_IO;
    if (rv_schema_open(o->schema, &schema, &err)) return report(NAME, &err);
    rv_status st = linting ? lint(o, schema, &text, &problems, &err) : evaluate(o, schema, &text, &err);
    rv_schema_free(schema);
    if (st == RV_OK && o->output) st = output_write(o->output, text, strlen(text), &err);
    else if (st == RV_OK) print_text(text, strlen(text));
    rv_text_free(text);
    if (st) return report(NAME, &err);
    int printed = stdout_finish(NAME);
    return printed ? printed : problems ? EXIT_FOUND : EXIT_OK;
}

int cmd_eval(int argc, char **argv) {
    eval_options o = { 0 };
    parse_result parsed = parse(&o, argc, argv);
    if (o.output && is_stdout(o.output)) o.output = NULL;
    int code = parsed == PARSE_OK ? work(&o) : parse_exit(parsed, NAME);
    text_list_free(&o.plain);
    return code;
}
