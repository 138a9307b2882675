/* cmd_batch.c - rvengine batch: the fields of many documents, one result after the other.
 *
 * The one idea: a result is on the disk before the next document begins, and a journal says so; whatever ends the run - Ctrl-C, a
 * kill, a power cut - the same command goes on where it ended.
 */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "tools/batch.h"
#include "tools/commands.h"

static const char NAME[] = "batch";

static const command_help help = {
    .command = "batch",
    .usage = "rvengine batch --model DIR --output FILE [options] FOLDER|FILE|'GLOB'|LIST.jsonl ..",
    .about = "Extracts the fields of many documents. Results are written one by one; the same command goes on\nwhere an earlier one ended (not where memory now allows other weights than then: it says so).\n"
             "A document that cannot be read is a result that says why, and stops nothing.\nCtrl-C ends after the running document.",
    .after = "examples:\n"
             "  rvengine batch -m /models/mllama -s receipt -o results.jsonl scans/\n"
             "  rvengine batch -m /models/mllama -s receipt -f csv -o results.csv 'inbox/*.jpg'\n\n"
             "Beside FILE stand FILE.journal (what is done) and FILE.run.json (rates, times, tokens, memory,\nwhat was given up to fit).\n"
             "Exit codes: 0, 1 if a document failed, 130 after Ctrl-C; others: rvengine help exit-codes",
};

typedef struct batch_options { read_choice read; const char *output; text_list inputs; int32_t format; bool fresh, any_path, quiet; } batch_options;

static parse_result parse(batch_options *o, int argc, char **argv) {
    const option table[] = {
        { OPTION_GROUP, .name = "What is read" },
        READ_OPTIONS(o->read),
        { OPTION_FLAG, .name = "any-path", .to = &o->any_path, .help = "a list may name files outside its folder" },
        { OPTION_GROUP, .name = "What is written" },
        { OPTION_TEXT, .name = "output", .letter = 'o', .to = &o->output, .value = "FILE", .help = "results; -, a pipe or a device: no journal, and a run that\nwas ended begins anew" },
        { OPTION_CHOICE, .name = "format", .letter = 'f', .to = &o->format, .choices = "jsonl|csv", .help = "default jsonl; csv needs --schema" },
        { OPTION_FLAG, .name = "fresh", .to = &o->fresh, .help = "begin anew, whatever is there" },
        { OPTION_FLAG, .name = "quiet", .letter = 'q', .to = &o->quiet, .help = "no progress" },
        { OPTION_FLAG, .name = "verbose", .letter = 'v', .to = &o->read.load.verbose, .help = "memory on stderr" },
        LOAD_OPTIONS(o->read.load),
        { OPTION_END },
    };
    return options_parse(&help, table, argc, argv, &o->inputs);
}

typedef struct work { batch_options o; rv_memory plan; read_model model; document_list documents; journal journal; batch_state state; } work;

/* ---- a document ---- */

static rv_status add_record(const batch_options *o, const rv_record *record, rv_write_parts parts, buffer *out, rv_error *err) {
    rv_write_options write = { .size = sizeof write, .parts = parts };
    char *text;
    size_t bytes;
    rv_status st = rv_record_write(record, o->format ? RV_FORM_CSV : RV_FORM_JSONL, &write, &text, &bytes, err);
    if (st) return st;
    bool ok = buffer_add(out, text, bytes);
    rv_text_free(text);
    return ok ? RV_OK : fail(err, RV_ERR_MEMORY, "result: out of memory");
}

static rv_status read_pages(work *w, const document *d, const page_list *pages, done *of, buffer *out, rv_error *err) {
    rv_status st = RV_OK;
    for (uint32_t i = 0; i < pages->count && st == RV_OK; i++) {
        rv_reading reading = { .size = sizeof reading };
        rv_record *record = NULL;
        st = read_page(&w->o.read, &w->model, page_name_of(d->id, pages, i).text, &pages->pages[i], &record, &reading, err);
        if (st == RV_OK) st = add_record(&w->o, record, RV_WRITE_RECORD, out, err);
        rv_record_free(record);
        of->chosen += reading.chosen_tokens;
        of->forced += reading.forced_tokens;
        of->steps += reading.steps;
        of->pages++;
    }
    return st;
}

/* {"file": .., "error": {..}}; a row of CSV has no place for that: the journal and stderr say it. */
static rv_status add_failure(const batch_options *o, const document *d, const rv_error *why, buffer *out, rv_error *err) {
    if (o->format) {                                             /* most messages begin with the path, which may be the name */
        const size_t n = strlen(d->id);
        if (!strncmp(why->message, d->id, n) && (why->message[n] == ':' || why->message[n] == '#')) say_error("batch: %s", why->message);
        else say_error("batch: %s: %s", d->id, why->message);
        return RV_OK;
    }
    json_t *root = json_pack("{s:o, s:{s:s, s:o}}", "file", json_textz(d->id), "error", "code", rv_status_name(why->code), "message", json_textz(why->message));
    char *text = root ? json_dumps(root, JSON_COMPACT) : NULL;
    bool ok = text && buffer_add(out, text, strlen(text)) && buffer_add(out, "\n", 1);
    free(text);
    json_decref(root);
    return ok ? RV_OK : fail(err, RV_ERR_MEMORY, "result: out of memory");
}

/* These are no document's fault: a result that says so would stay there when the command was mended. */
static bool ends_the_run(rv_status st) {
    return st == RV_ERR_DEVICE || st == RV_ERR_MEMORY || st == RV_ERR_DEVICE_MEMORY || st == RV_ERR_CANCELLED || st == RV_ERR_INTERNAL || st == RV_ERR_ARGUMENT;
}

static rv_status read_document(work *w, const document *d, rv_error *err) {
    page_list pages = { 0 };
    buffer out = { 0 };
    done of = { .id = d->id, .ours = true };
    rv_error why;
    double start = batch_now();
    rv_status st = pages_read(&w->o.read, d->path, &pages, &why);
    if (st == RV_OK) pages_say(NAME, d->id, &pages), of.more_pages = pages.left_out > 0;
    if (st == RV_OK) st = read_pages(w, d, &pages, &of, &out, &why);
    pages_free(&pages);
    if (st && ends_the_run(st)) *err = why;
    else {
        of.failed = st != RV_OK;
        of.why = st ? why.message : NULL;
        of.ms = (batch_now() - start) * 1e3;
        if (st) out.bytes = 0;                                   /* all of its pages, or none */
        st = st ? add_failure(&w->o, d, &why, &out, err) : RV_OK;
        if (st == RV_OK) st = journal_add(&w->journal, &of, out.data ? out.data : "", out.bytes, err);
        if (st == RV_OK) w->state.done++, w->state.failed += of.failed;
    }
    free(out.data);
    return st;
}

/* ---- the run ---- */

static rv_status begin_csv(work *w, rv_error *err) {
    rv_record *empty = NULL;
    buffer head = { 0 };
    if (!w->o.format || w->journal.bytes) return RV_OK;
    rv_status st = rv_record_new(w->model.schema, NULL, &empty, err);
    if (st == RV_OK) st = add_record(&w->o, empty, RV_WRITE_HEAD, &head, err);
    if (st == RV_OK) st = journal_add(&w->journal, NULL, head.data ? head.data : "", head.bytes, err);
    rv_record_free(empty);
    free(head.data);
    return st;
}

/* The journal may hold others, too: those of another list. */
static void count_done(work *w) {
    for (size_t i = 0; i < w->documents.count; i++) {
        done *of = journal_find(&w->journal, w->documents.items[i].id);
        if (!of) continue;
        w->documents.items[i].done = of->ours = true;
        w->state.before++;
        w->state.failed += of->failed;
    }
    w->state.done = w->state.before;
}

/* A journal of other settings is refused before a model is loaded as planned, and again if it was loaded otherwise. */
static rv_status open_all(work *w, rv_error *err) {
    json_t *planned = NULL, *loaded = NULL;
    rv_memory is = w->plan;
    rv_status st = batch_settings(&w->o.read, &w->plan, w->o.format, &planned, err);
    if (st == RV_OK) st = documents_find(&w->o.inputs, w->o.any_path, &w->documents, err);
    if (st == RV_OK) st = journal_open(w->o.output, planned, w->o.fresh, &w->journal, err);
    if (st == RV_OK) st = read_open(&w->o.read, &w->model, err);
    if (st == RV_OK && w->model.model) st = rv_model_memory(w->model.model, &is, err);
    if (st == RV_OK) st = batch_settings_with(planned, &is, &loaded, err);
    if (st == RV_OK) st = journal_settle(&w->journal, planned, loaded, err);
    json_decref(planned);
    json_decref(loaded);
    return st ? st : begin_csv(w, err);
}

static rv_status run(work *w, rv_error *err) {
    rv_status st = open_all(w, err);
    if (st) return st;
    w->state = (batch_state){ .documents = w->documents.count, .start = batch_now(), .journal = &w->journal, .output = w->o.output, .quiet = w->o.quiet, .shown = batch_now() };
    count_done(w);
    for (size_t i = 0; i < w->documents.count && st == RV_OK && !interrupted(); i++) {
        if (w->documents.items[i].done) continue;
        st = read_document(w, &w->documents.items[i], err);
        batch_progress(&w->state);
    }
    batch_progress_end(&w->state);
    rv_status reported = batch_report(&w->state, &w->o.read, &w->model, w->state.done == w->state.documents, st ? NULL : err);
    return st ? st : reported;
}

static int finish(const work *w) {
    const batch_state *s = &w->state;
    if (s->done < s->documents) {
        say("batch: stopped after %zu of %zu documents%s", s->done, s->documents, w->journal.log < 0 ? "" : ": the same command goes on");
        return EXIT_INTERRUPTED;
    }
    if (s->failed) say("batch: %zu of %zu documents could not be read: %s says why", s->failed, s->documents, !w->o.format ? w->journal.name : w->journal.log < 0 ? "stderr" : "the journal");
    return s->failed ? EXIT_FOUND : EXIT_OK;
}

static int batch(work *w) {
    rv_error err;
    const char *why = !w->o.output ? "--output is missing: where do results go?" : w->o.inputs.count == 0 ? "which documents? give folders, files, or a list" :
                      w->o.format && !w->o.read.schema ? "--format csv needs --schema: its columns are that schema's fields" : NULL;
    if (why) {
        say_error("batch: %s", why);
        return EXIT_USAGE;
    }
    w->o.read.finishes = true;
    if (is_stdout(w->o.output) && stdout_check(NAME)) return EXIT_IO;
    if (read_check(&w->o.read, &w->plan, &err)) return report(NAME, &err);
    return run(w, &err) ? report(NAME, &err) : finish(w);
}

int cmd_batch(int argc, char **argv) {
    work w = { .o.read = { READ_DEFAULTS }, .journal = { .output = -1, .log = -1 } };
    parse_result parsed = parse(&w.o, argc, argv);
    int code = parsed == PARSE_OK ? batch(&w) : parse_exit(parsed, NAME);
    read_close(&w.model);
    journal_close(&w.journal);
    documents_free(&w.documents);
    text_list_free(&w.o.inputs);
    return code;
}
