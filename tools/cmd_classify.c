/* cmd_classify.c - rvengine classify: which type of document a page is. */
#include <stdio.h>
#include <string.h>

#include "tools/commands.h"
#include "tools/read.h"

static const char NAME[] = "classify";

static const command_help help = {
    .command = "classify",
    .usage = "rvengine classify --model DIR [options] FILE..",
    .about = "Says which type of document each page is, as one line of JSON: type, schema, how sure, why.\n"
             "Pages of a PDF are named scan.pdf#1, ..; \"more_pages\" stands at the last one if --pages left some out.\n"
             "A FILE that is - is read from stdin.",
    .after = "examples:\n"
             "  rvengine classify -m /models/mllama page.jpg\n"
             "  rvengine classify --ocr only *.png",
};

typedef struct classify_options { read_choice read; text_list files; } classify_options;

static parse_result parse(classify_options *o, int argc, char **argv) {
    const option table[] = {
        { OPTION_GROUP, .name = "What is read" },
        READ_OPTIONS(o->read),
        { OPTION_FLAG, .name = "verbose", .letter = 'v', .to = &o->read.load.verbose, .help = "memory on stderr" },
        LOAD_OPTIONS(o->read.load),
        { OPTION_END },
    };
    return options_parse(&help, table, argc, argv, &o->files);
}

static rv_status print_class(const char *name, const rv_class *class, bool more_pages, rv_error *err) {
    json_t *root = json_pack("{s:o, s:s, s:s, s:f, s:s, s:o, s:o*}", "file", json_textz(name), "type", class->doctype, "schema", class->schema, "confidence",
                             (double)class->confidence, "rule", class->rule, "evidence", json_textz(class->evidence), "more_pages", more_pages ? json_true() : NULL);
    return json_print(NAME, root, 1) ? fail(err, RV_ERR_IO, "the answer could not be written") : RV_OK;
}

static rv_status classify_file(const classify_options *o, const read_model *m, const char *path, rv_error *err) {
    page_list pages;
    rv_status st = pages_read(&o->read, path, &pages, err);
    if (st == RV_OK) pages_say(NAME, path, &pages);
    for (uint32_t i = 0; i < pages.count && st == RV_OK; i++) {
        const page_name name = page_name_of(path, &pages, i);
        rv_record_options record = record_options(&o->read, m, name.text);
        rv_read_options how = read_options(&o->read, m, &record);
        rv_image image = page_image(&o->read, &pages.pages[i]);
        rv_class class = { .size = sizeof class };
        rv_error why;
        st = rv_classify(m->reader, &image, &how, &class, &why);
        st = st ? fail(err, st, "%.200s: %.300s", name.text, why.message) : print_class(name.text, &class, pages.left_out && i + 1 == pages.count, err);
    }
    pages_free(&pages);
    return st;
}

static int classify(const classify_options *o) {
    rv_error err;
    rv_memory plan;
    read_model model = { 0 };
    const char *why = o->files.count == 0 ? "which file? give one or more images or PDFs" : o->read.schema ? "--schema says the type already" : NULL;
    if (why) {
        say_error("classify: %s", why);
        return EXIT_USAGE;
    }
    if (read_check(&o->read, &plan, &err)) return report(NAME, &err);
    if (stdout_check(NAME)) return EXIT_IO;
    if (files_check(&o->read, &o->files, &err)) return report(NAME, &err);
    rv_status st = read_open(&o->read, &model, &err);
    for (size_t i = 0; i < o->files.count && st == RV_OK; i++) st = classify_file(o, &model, o->files.items[i], &err);
    read_close(&model);
    return st ? report(NAME, &err) : stdout_finish(NAME);
}

int cmd_classify(int argc, char **argv) {
    classify_options o = { .read = { READ_DEFAULTS } };
    parse_result parsed = parse(&o, argc, argv);
    int code = parsed == PARSE_OK ? classify(&o) : parse_exit(parsed, NAME);
    text_list_free(&o.files);
    return code;
}
