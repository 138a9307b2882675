/* cmd_report.c - rvbench report: files of runs in; one page, a table for spreadsheets and one for notes out. */
#include <libgen.h>
#include <limits.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>

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
    else if (is_stdout(path)) fwrite(text, 1, bytes, stdout), code = stdout_finish(NAME);
    else if (output_write(path, text, bytes, &err)) code = report(NAME, &err);
    else say("rvbench: %s written", path);
    free(text);
    return code;
}

/* Where a file that is not there yet would be made: its folder by its true name, and its own. */
static bool would_be(const char *path, char folder[PATH_MAX], char name[NAME_MAX + 1]) {
    char copy[PATH_MAX];
    if (snprintf(copy, sizeof copy, "%s", path) >= (int)sizeof copy) return false;
    if (snprintf(name, NAME_MAX + 1, "%s", basename(copy)) > NAME_MAX) return false;
    snprintf(copy, sizeof copy, "%s", path);
    return realpath(dirname(copy), folder) != NULL;
}

/* Whether what is written to one of them is lost by what is written to the other.  Devices and pipes take both. */
static bool same_file(const char *a, const char *b) {
    struct stat at_a, at_b;
    char folder_a[PATH_MAX], folder_b[PATH_MAX], name_a[NAME_MAX + 1], name_b[NAME_MAX + 1];
    if (is_stdout(a) || is_stdout(b)) return is_stdout(a) && is_stdout(b);
    const bool there_a = stat(a, &at_a) == 0, there_b = stat(b, &at_b) == 0;
    if (there_a && there_b) return S_ISREG(at_a.st_mode) && at_a.st_dev == at_b.st_dev && at_a.st_ino == at_b.st_ino;
    return !there_a && !there_b && would_be(a, folder_a, name_a) && would_be(b, folder_b, name_b) && !strcmp(folder_a, folder_b) && !strcmp(name_a, name_b);
}

typedef struct output { const char *option, *path; write_fn how; } output;
enum { OUTPUTS = 3 };

/* Each of its own, and none an input: stdin and stdout may both be "-". */
static int check_outputs(const output *outputs, const text_list *plain) {
    rv_error err;
    for (size_t i = 0; i < OUTPUTS; i++) {
        const char *path = outputs[i].path;
        for (size_t k = 0; path && k < i; k++)
            if (outputs[k].path && same_file(path, outputs[k].path))
                return say_error("report: --%s and --%s: both would be written to %s", outputs[k].option, outputs[i].option, path), EXIT_USAGE;
        for (size_t k = 0; path && k < plain->count; k++)
            if (!is_stdout(path) && same_file(path, plain->items[k]))
                return say_error("report: --%s: %s is one of the files to read, and would be replaced", outputs[i].option, path), EXIT_USAGE;
        if (path && !is_stdout(path) && output_check(path, &err)) return report(NAME, &err);
    }
    return EXIT_OK;
}

static int work(const report_options *o, const text_list *plain) {
    const output outputs[OUTPUTS] = { { "output", o->output, report_html }, { "csv", o->csv, report_csv }, { "markdown", o->markdown, report_markdown } };
    rv_error err;
    comparison c = { .n = 0 };
    if (plain->count == 0) return say_error("report: give the files that rvbench --gpu-profile NAME --json FILE wrote"), EXIT_USAGE;
    int code = check_outputs(outputs, plain);
    if (code == EXIT_OK && comparison_read(plain->items, plain->count, &c, &err)) code = report(NAME, &err);
    for (size_t i = 0; code == EXIT_OK && i < OUTPUTS; i++)
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
