/* cmd_extract.c - rvengine extract: a document's fields, typed and checked. */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "tools/commands.h"
#include "tools/picture.h"
#include "tools/read.h"

static const char NAME[] = "extract";

static const command_help help = {
    .command = "extract",
    .usage = "rvengine extract --model DIR [--schema NAME] [options] FILE..",
    .about = "Reads images and PDFs, and writes the fields of each page: typed, checked, with how sure each is\nand where it came from. "
             "Keys and lists are held to the schema's form while the\nmodel answers; values are never changed. "
             "A FILE that is - is read from stdin. After an error,\nwhat was read before it is written all the same.",
    .after = "examples:\n"
             "  rvengine extract -m /models/mllama receipt.jpg\n"
             "  rvengine extract -m /models/mllama -s tax_invoice -f html -o review.html invoice.pdf\n"
             "  rvengine extract --ocr only -s receipt -f kv receipt.jpg        # no model: Tesseract and rules\n\n"
             "Exit codes: rvengine help exit-codes",
};

typedef struct extract_options { read_choice read; const char *output; text_list files; int32_t format; } extract_options;

static const rv_form forms[] = { RV_FORM_JSON, RV_FORM_KV, RV_FORM_JSONL, RV_FORM_CSV, RV_FORM_MARKDOWN, RV_FORM_HTML };

static parse_result parse(extract_options *o, int argc, char **argv) {
    const option table[] = {
        { OPTION_GROUP, .name = "What is read" },
        READ_OPTIONS(o->read),
        { OPTION_GROUP, .name = "What is written" },
        { OPTION_CHOICE, .name = "format", .letter = 'f', .to = &o->format, .choices = "json|kv|jsonl|csv|md|html", .help = "default json: an object, of several pages an array of them" },
        { OPTION_TEXT, .name = "output", .letter = 'o', .to = &o->output, .value = "FILE", .help = "to a file, replaced in one go; -: stdout" },
        { OPTION_FLAG, .name = "verbose", .letter = 'v', .to = &o->read.load.verbose, .help = "memory, tokens, steps and times on stderr" },
        LOAD_OPTIONS(o->read.load),
        { OPTION_END },
    };
    return options_parse(&help, table, argc, argv, &o->files);
}

typedef struct work { extract_options o; read_model model; buffer out; read_totals totals; uint32_t written; } work;

static bool add(work *w, const char *text) { return buffer_add(&w->out, text, strlen(text)); }

/* Between two pages; several in JSON become an array. */
static bool add_between(work *w, rv_form form) {
    if (!w->written || form == RV_FORM_JSONL || form == RV_FORM_CSV || form == RV_FORM_HTML) return true;
    return add(w, form == RV_FORM_JSON ? ",\n" : "\n");
}

static rv_status write_record(work *w, const rv_record *record, const input *page, rv_error *err) {
    rv_form form = forms[w->o.format];
    bool whole = form == RV_FORM_HTML || form == RV_FORM_CSV;
    rv_write_options write = { .size = sizeof write, .parts = whole && !w->written ? RV_WRITE_HEAD | RV_WRITE_RECORD : RV_WRITE_RECORD };
    input png = { 0 };
    char *text;
    size_t bytes;
    rv_status st = form == RV_FORM_HTML ? picture_png(page, &png, err) : RV_OK;
    if (form == RV_FORM_HTML) write.image = png.data ? png.data : page->data, write.image_bytes = png.data ? png.bytes : page->bytes;
    if (st == RV_OK) st = rv_record_write(record, form, &write, &text, &bytes, err);
    input_free(&png);
    if (st) return st;
    bool ok = add_between(w, form) && buffer_add(&w->out, text, bytes);
    rv_text_free(text);
    w->written++;
    return ok ? RV_OK : fail(err, RV_ERR_MEMORY, "report: out of memory");
}

/* The end of a page of HTML, the brackets of an array. */
static rv_status finish(work *w, rv_error *err) {
    rv_form form = forms[w->o.format];
    bool ok = form == RV_FORM_HTML ? add(w, "</body>\n</html>\n") : form != RV_FORM_JSON || w->written < 2 || add(w, "]\n[\n");
    if (!ok) return fail(err, RV_ERR_MEMORY, "report: out of memory");
    if (form == RV_FORM_JSON && w->written > 1) {
        memmove(w->out.data + 2, w->out.data, w->out.bytes - 2);
        memcpy(w->out.data, "[\n", 2);
    }
    return RV_OK;
}

static rv_status read_file(work *w, const char *path, rv_error *err) {
    page_list pages;
    rv_status st = pages_read(&w->o.read, path, &pages, err);
    if (st) return st;
    pages_say(NAME, path, &pages);
    for (uint32_t i = 0; i < pages.count && st == RV_OK; i++) {
        rv_record *record = NULL;
        rv_reading reading = { .size = sizeof reading };
        st = read_page(&w->o.read, &w->model, page_name_of(path, &pages, i).text, &pages.pages[i], &record, &reading, err);
        if (st == RV_OK) st = write_record(w, record, &pages.pages[i], err);
        if (st == RV_OK) totals_add(&w->totals, &reading, record);
        rv_record_free(record);
    }
    pages_free(&pages);
    return st;
}

static rv_status run(work *w, rv_error *err) {
    rv_status st = read_open(&w->o.read, &w->model, err);
    for (size_t i = 0; i < w->o.files.count && st == RV_OK; i++) st = read_file(w, w->o.files.items[i], err);
    if (st == RV_OK && w->o.read.load.verbose) totals_say(&w->totals);
    return st;
}

/* Pages that were read before an error took their time: they are not thrown away. */
static rv_status deliver(work *w, rv_error *err) {
    rv_status st = finish(w, err);
    if (st == RV_OK && w->o.output) return output_write(w->o.output, w->out.data, w->out.bytes, err);
    if (st == RV_OK) print_text(w->out.data, w->out.bytes);
    return st;
}

static int extract(work *w) {
    rv_error err, undelivered;
    rv_memory plan;
    if (w->o.files.count == 0) {
        say_error("extract: which file? give one or more images or PDFs");
        return EXIT_USAGE;
    }
    if (read_check(&w->o.read, &plan, &err)) return report(NAME, &err);
    if (w->o.output && output_check(w->o.output, &err)) return report(NAME, &err);
    if (!w->o.output && stdout_check(NAME)) return EXIT_IO;
    if (files_check(&w->o.read, &w->o.files, &err)) return report(NAME, &err);
    rv_status st = run(w, &err);
    if (w->written && deliver(w, &undelivered)) {
        const int code = report(NAME, &undelivered);
        if (st == RV_OK) return code;                    /* else the first error is the exit code's  */
    }
    const int printed = stdout_finish(NAME);
    return st ? report(NAME, &err) : printed;
}

int cmd_extract(int argc, char **argv) {
    work w = { .o.read = { READ_DEFAULTS } };
    parse_result parsed = parse(&w.o, argc, argv);
    if (w.o.output && is_stdout(w.o.output)) w.o.output = NULL;
    int code = parsed == PARSE_OK ? extract(&w) : parse_exit(parsed, NAME);
    read_close(&w.model);
    free(w.out.data);
    text_list_free(&w.o.files);
    return code;
}
