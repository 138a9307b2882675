/* cmd_report.c - rvbench report: files of runs in; one page, a table for spreadsheets and one for notes out. */
#include <stdlib.h>
#include <string.h>

#include "bench/commands.h"
#include "bench/report.h"
#include "tools/files.h"
#include "tools/options.h"
#include "tools/report.h"

static const char NAME[] = "report";

static const command_help help = {
    .command = "report",
    .usage = "rvbench report A.json [B.json ..] [--output FILE] [--csv FILE] [--markdown FILE]",
    .about = "Puts what `rvbench --gpu-profile NAME --json FILE` wrote side by side: one HTML page with plots,\n"
             "which needs no network, and if asked for a CSV file and a Markdown table.",
    .after = "examples:\n"
             "  rvbench report v100.json h100.json\n"
             "  rvbench report v100.json h100.json -o report.html --csv report.csv --markdown -",
};

typedef struct report_options { const char *output, *csv, *markdown; } report_options;
typedef void (*write_fn)(const comparison *c, FILE *to);

static parse_result parse(report_options *o, int argc, char **argv, text_list *plain) {
    const option table[] = {
        { OPTION_GROUP, .name = "What is written, whole or not at all" },
        { OPTION_TEXT, .name = "output", .letter = 'o', .to = &o->output, .value = "FILE", .help = "the page (default report.html; -: stdout)" },
        { OPTION_TEXT, .name = "csv", .to = &o->csv, .value = "FILE", .help = "all numbers as CSV" },
        { OPTION_TEXT, .name = "markdown", .to = &o->markdown, .value = "FILE", .help = "all numbers as a Markdown table" },
        { OPTION_END },
    };
    return options_parse(&help, table, argc, argv, plain);
}

static int write_out(const char *path, const comparison *c, write_fn how) {
    char *text = NULL;
    size_t bytes = 0;
    rv_error err;
    FILE *to = open_memstream(&text, &bytes);
    if (!to) return say_error("report: out of memory"), EXIT_MEMORY;
    how(c, to);
    int code = EXIT_OK;
    if (fclose(to)) say_error("report: out of memory"), code = EXIT_MEMORY;
    else if (strcmp(path, "-") == 0) fwrite(text, 1, bytes, stdout), code = stdout_finish(NAME);
    else if (output_write(path, text, bytes, &err)) code = report(NAME, &err);
    else say("rvbench: %s written", path);
    free(text);
    return code;
}

static int work(const report_options *o, const text_list *plain) {
    const struct { const char *path; write_fn how; } outputs[] = { { o->output, report_html }, { o->csv, report_csv }, { o->markdown, report_markdown } };
    rv_error err;
    comparison c = { .n = 0 };
    if (plain->count == 0) return say_error("report: give the files that rvbench --gpu-profile NAME --json FILE wrote"), EXIT_USAGE;
    int code = comparison_read(plain->items, plain->count, &c, &err) ? report(NAME, &err) : EXIT_OK;
    for (size_t i = 0; code == EXIT_OK && i < sizeof outputs / sizeof *outputs; i++)
        if (outputs[i].path && output_check(outputs[i].path, &err)) code = report(NAME, &err);
    for (size_t i = 0; code == EXIT_OK && i < sizeof outputs / sizeof *outputs; i++)
        if (outputs[i].path) code = write_out(outputs[i].path, &c, outputs[i].how);
    comparison_free(&c);
    return code;
}

int cmd_report(int argc, char **argv) {
    report_options o = { .output = "report.html" };
    text_list plain = { 0 };
    parse_result parsed = parse(&o, argc, argv, &plain);
    int code = parsed == PARSE_OK ? work(&o, &plain) : parse_exit(parsed, NAME);
    text_list_free(&plain);
    return code;
}
