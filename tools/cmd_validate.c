/* cmd_validate.c - rvengine validate: checks on fields that are there already; no model is needed. */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include "engine/rvextract.h"
#include "tools/commands.h"
#include "tools/files.h"
#include "tools/options.h"
#include "tools/picture.h"
#include "tools/report.h"

static const char NAME[] = "validate";

static const command_help help = {
    .command = "validate",
    .usage = "rvengine validate --schema NAME|FILE.json [options] [FILE|-]",
    .about = "Reads the fields of documents (CSV, JSON, JSON Lines, or the KEY: VALUE answer of a model) and checks\n"
             "them: numbers with check digits, sums, GST, dates, balances, and what Australian law asks of a tax\n"
             "invoice (this is not tax advice). Values are never changed. Card, tax file and account numbers are masked in\n"
             "everything that is written.",
    .after = "examples:\n"
             "  rvengine validate --schema receipt answer.txt\n"
             "  rvengine validate --schema tax_invoice --format csv --fail-on error results.jsonl > checked.csv\n"
             "  rvengine validate --schema receipt answer.txt --image receipt.jpg --format html -o review.html",
};

enum { FAIL_NEVER, FAIL_ERROR, FAIL_WARNING, FAIL_REVIEW };

typedef struct validate_options {
    const char *schema, *output, *image, *page_text, *today;
    text_list   plain;
    int32_t     format, fail_on;
    bool        allow_tfn, allow_account;
} validate_options;

static parse_result parse(validate_options *o, int argc, char **argv) {
    const option table[] = {
        { OPTION_GROUP, .name = "Options" },
        { OPTION_TEXT, .name = "schema", .letter = 's', .to = &o->schema, .value = "NAME",
          .help = "built-in schema, or a file (rvengine schema list)" },
        { OPTION_CHOICE, .name = "format", .letter = 'f', .to = &o->format, .choices = "md|kv|json|jsonl|csv|html",
          .help = "what is written (default md)" },
        { OPTION_TEXT, .name = "output", .letter = 'o', .to = &o->output, .value = "FILE", .help = "to a file, whole or not at all; -: stdout" },
        { OPTION_TEXT, .name = "image", .letter = 'i', .to = &o->image, .value = "FILE",
          .help = "with html and one document: the page, which becomes part of the report" },
        { OPTION_TEXT, .name = "page-text", .to = &o->page_text, .value = "FILE",
          .help = "all text of the page: checks look for words in it" },
        { OPTION_TEXT, .name = "today", .to = &o->today, .value = "DATE",
          .help = "the day to check dates against, 2026-07-26 (default: today)" },
        { OPTION_CHOICE, .name = "fail-on", .to = &o->fail_on, .choices = "never|error|warning|review",
          .help = "exit code 1 if a document has such a finding (default never)" },
        { OPTION_FLAG, .name = "allow-tfn", .to = &o->allow_tfn,
          .help = "keep tax file numbers where the schema has them: for purposes of\ntax law only (Privacy (Tax File Number) Rule 2015)" },
        { OPTION_FLAG, .name = "allow-account", .to = &o->allow_account, .help = "keep account numbers where the schema has them" },
        { OPTION_END },
    };
    return options_parse(&help, table, argc, argv, &o->plain);
}

/* What is collected while documents are read. */
typedef struct collector {
    const validate_options *o;
    const input            *image;
    char                   *text;
    size_t                  bytes, capacity;
    uint32_t                documents, failed;
    char                    told[16][64];        /* unknown columns that were named already             */
    uint32_t                n_told;
    rv_status               st;
    rv_error                err;
} collector;

static const rv_form forms[] = { RV_FORM_MARKDOWN, RV_FORM_KV, RV_FORM_JSON, RV_FORM_JSONL, RV_FORM_CSV, RV_FORM_HTML };

static bool add(collector *c, const char *text, size_t bytes) {
    if (c->bytes + bytes + 1 > c->capacity) {
        size_t capacity = 2 * (c->bytes + bytes + 1);
        char *larger = realloc(c->text, capacity);
        if (!larger) {
            c->st = fail(&c->err, RV_ERR_MEMORY, "report: out of memory");
            return false;
        }
        c->text = larger;
        c->capacity = capacity;
    }
    memcpy(c->text + c->bytes, text, bytes);
    c->bytes += bytes;
    c->text[c->bytes] = '\0';
    return true;
}

static bool fails(const validate_options *o, const rv_summary *s) {
    switch (o->fail_on) {
    case FAIL_ERROR: return s->errors > 0;
    case FAIL_WARNING: return s->errors + s->warnings > 0;
    case FAIL_REVIEW: return s->needs_review;
    default: return false;
    }
}

static rv_status write_part(collector *c, const rv_record *record, rv_write_parts parts) {
    rv_write_options write = { .size = sizeof write, .parts = parts };
    char *text;
    size_t bytes;
    if (c->image && (parts & RV_WRITE_RECORD)) write.image = c->image->data, write.image_bytes = c->image->bytes;
    c->st = rv_record_write(record, forms[c->o->format], &write, &text, &bytes, &c->err);
    if (c->st) return c->st;
    add(c, text, bytes);
    rv_text_free(text);
    return c->st;
}

/* A misspelt column would be lost in silence; in JSON Lines every document has it again. */
static void tell_unknown(void *user, const char *key, uint32_t line) {
    collector *c = user;
    char name[64];
    snprintf(name, sizeof name, "%s", key);
    for (uint32_t i = 0; i < c->n_told; i++)
        if (strcmp(c->told[i], name) == 0) return;
    if (c->n_told == sizeof c->told / sizeof *c->told) return;
    memcpy(c->told[c->n_told++], name, sizeof name);
    say_error("validate: line %u: %s: no field of the schema, left out", line, name);
}

/* Between two documents; several in JSON become an array. */
static void add_between(collector *c) {
    rv_form form = forms[c->o->format];
    if (form == RV_FORM_JSON) add(c, ",\n", 2);
    else if (form == RV_FORM_KV || form == RV_FORM_MARKDOWN) add(c, "\n", 1);
}

static int32_t each(void *user, rv_record *record) {
    collector *c = user;
    rv_summary summary = { .size = sizeof summary };
    bool whole = forms[c->o->format] == RV_FORM_HTML || forms[c->o->format] == RV_FORM_CSV;
    c->st = rv_record_check(record, &c->err);
    if (c->st == RV_OK) c->st = rv_record_get_summary(record, &summary, &c->err);
    if (c->st == RV_OK && c->image && c->documents)
        c->st = fail(&c->err, RV_ERR_ARGUMENT, "--image belongs to one document, and there are several");
    if (c->st == RV_OK && c->documents) add_between(c);
    if (c->st == RV_OK) write_part(c, record, whole && !c->documents ? RV_WRITE_HEAD | RV_WRITE_RECORD : RV_WRITE_RECORD);
    c->documents++;
    c->failed += c->st == RV_OK && fails(c->o, &summary);
    return c->st != RV_OK;
}

static rv_status finish(collector *c) {
    static const char tail[] = "</body>\n</html>\n";
    if (forms[c->o->format] == RV_FORM_HTML) add(c, tail, sizeof tail - 1);
    if (forms[c->o->format] == RV_FORM_JSON && c->documents > 1 && add(c, "]\n[\n", 4)) {      /* the opening bracket moves to the front */
        memmove(c->text + 2, c->text, c->bytes - 2);
        memcpy(c->text, "[\n", 2);
    }
    return c->st;
}

/* An image would be a text in which no field is found. */
static rv_status read_fields(const char *path, input *out, rv_error *err) {
    rv_status st = input_read(path, out, err);
    const char *nul = st ? NULL : memchr(out->data, '\0', out->bytes);
    if (!nul) return st;
    return fail(err, RV_ERR_FORMAT, "%s: no text (a NUL byte at offset %td): fields that are there already are checked here; rvengine extract reads images and PDFs", out->name, nul - out->data);
}

static rv_status run(const validate_options *o, collector *c, rv_error *err) {
    rv_schema *schema = NULL;
    input fields = { 0 }, page = { 0 }, image = { 0 }, png = { 0 };
    char today[16];
    time_t now = time(NULL);
    strftime(today, sizeof today, "%Y-%m-%d", localtime(&now));
    const char *path = o->plain.count ? o->plain.items[0] : "-";
    rv_record_options options = { .size = sizeof options, .today = o->today ? o->today : today, .allow_tfn = o->allow_tfn, .allow_account = o->allow_account,
                                  .unknown = tell_unknown, .unknown_user = c };
    rv_status st = rv_schema_open(o->schema, &schema, err);
    if (st == RV_OK) st = read_fields(path, &fields, err);
    if (st == RV_OK && o->page_text) st = input_read_text(o->page_text, &page, err);
    if (st == RV_OK && o->image) st = input_read(o->image, &image, err);
    if (st == RV_OK && o->image) st = picture_png(&image, &png, err);
    if (st == RV_OK) {
        options.page_text = page.data;
        options.file = o->image ? o->image : strcmp(path, "-") ? path : "";
        c->image = png.data ? &png : o->image ? &image : NULL;
        st = rv_records_read(schema, &options, strcmp(path, "-") ? path : "stdin", fields.data, fields.bytes, each, c, err);
        if (c->st) *err = c->err, st = c->st;
        if (st == RV_OK && (st = finish(c))) *err = c->err;
    }
    rv_schema_free(schema);
    input_free(&fields);
    input_free(&page);
    input_free(&image);
    input_free(&png);
    return st;
}

static int reads_stdin(const char *path) { return path && strcmp(path, "-") == 0; }

static int work(const validate_options *o) {
    rv_error err;
    collector c = { .o = o };
    const char *why = NULL;
    if (!o->schema) why = "--schema is missing: which kind of document is it? (rvengine schema list)";
    else if (o->plain.count > 1) why = "one file at a time";
    else if (reads_stdin(o->plain.count ? o->plain.items[0] : "-") + reads_stdin(o->page_text) + reads_stdin(o->image) > 1) why = "stdin (-) can be read only once";
    else if (o->image && forms[o->format] != RV_FORM_HTML) why = "--image is for --format html";
    if (why) {
        say_error("validate: %s", why);
        return EXIT_USAGE;
    }
    if (o->output && output_check(o->output, &err)) return report(NAME, &err);
    if (!o->output && stdout_check(NAME)) return EXIT_IO;
    rv_status st = run(o, &c, &err);
    if (st == RV_OK && o->output) st = output_write(o->output, c.text ? c.text : "", c.bytes, &err);
    else if (st == RV_OK && c.text) print_text(c.text, c.bytes);
    free(c.text);
    if (st) return report(NAME, &err);
    int printed = stdout_finish(NAME);
    if (c.failed) say_error("validate: %u of %u documents have what --fail-on looks for", c.failed, c.documents);
    return printed ? printed : c.failed ? EXIT_FOUND : EXIT_OK;
}

int cmd_validate(int argc, char **argv) {
    validate_options o = { 0 };
    parse_result parsed = parse(&o, argc, argv);
    if (o.output && is_stdout(o.output)) o.output = NULL;
    int code = parsed == PARSE_OK ? work(&o) : parse_exit(parsed, NAME);
    text_list_free(&o.plain);
    return code;
}
