/* read.c - see read.h. */
#include "tools/read.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

enum { DEFAULT_PAGES = 20, DEFAULT_SECONDS = 60, DEFAULT_DPI = 150, DEFAULT_SLOTS = 4 };
static const uint32_t TILES[] = { 1, 2, 4 };

static rv_session_options session_room(const read_choice *c) {
    uint32_t slots = c->slots ? (uint32_t)c->slots : DEFAULT_SLOTS;
    return (rv_session_options){ .size = sizeof(rv_session_options), .slots = slots, .queue = 16, .context = (uint32_t)c->load.context, .images = 2, .constraints = slots };
}

/* The schema, and --today, which the library reads when it makes a record. */
static rv_status check_schema(const read_choice *c, rv_error *err) {
    rv_record_options options = { .size = sizeof options, .today = c->today };
    rv_schema *schema = NULL;
    rv_record *record = NULL;
    rv_error why;
    rv_status st = rv_schema_open(c->schema ? c->schema : rv_schema_name(0), &schema, err);
    if (st == RV_OK && (st = rv_record_new(schema, &options, &record, &why))) st = fail(err, st, st == RV_ERR_ARGUMENT ? "--%s" : "%s", why.message);
    rv_record_free(record);
    rv_schema_free(schema);
    return st;
}

rv_status read_check(const read_choice *c, rv_memory *plan, rv_error *err) {
    const rv_session_options room = session_room(c);
    *plan = (rv_memory){ .size = sizeof *plan };
    if (!c->load.model && c->ocr != RV_OCR_ONLY) return fail(err, RV_ERR_ARGUMENT, "--model is missing: give the model's folder, or --ocr only");
    if (c->load.model && c->ocr == RV_OCR_ONLY) return fail(err, RV_ERR_ARGUMENT, "--ocr only reads without a model: leave --model out");
    if (c->question && (!c->schema || c->strategy > RV_STRATEGY_SINGLE))
        return fail(err, RV_ERR_ARGUMENT, "--question goes with --schema and --strategy single: other strategies ask their own");
    rv_status st = check_schema(c, err);
    return st || !c->load.model ? st : load_check(&c->load, &room, plan, err);
}

static rv_status open_model(const read_choice *c, read_model *out, rv_error *err) {
    const rv_session_options room = session_room(c);
    rv_load_options options = load_options_for(&c->load, &room);
    rv_status st = rv_model_load(c->load.model, &options, &out->model, err);
    if (st == RV_OK) st = rv_session_new(out->model, &room, &out->session, err);
    progress_end();
    return st;
}

rv_status read_open(const read_choice *c, read_model *out, rv_error *err) {
    time_t now = time(NULL);
    rv_status st = RV_OK;
    strftime(out->today, sizeof out->today, "%Y-%m-%d", localtime(&now));
    if (c->schema) st = rv_schema_open(c->schema, &out->schema, err);
    if (st == RV_OK && c->ocr != RV_OCR_ONLY) st = open_model(c, out, err);
    if (st == RV_OK) st = rv_reader_new(out->session, &out->reader, err);
    return st;
}

void read_close(read_model *m) {
    rv_reader_free(m->reader);
    rv_session_free(m->session);
    rv_model_free(m->model);
    rv_schema_free(m->schema);
}

static int32_t stop(void *user) {
    (void)user;
    return interrupted();
}

rv_read_options read_options(const read_choice *c, const read_model *m, const rv_record_options *record) {
    return (rv_read_options){ .size = sizeof(rv_read_options), .schema = m->schema, .strategy = c->strategy, .form = c->form, .classify = c->classify, .ocr = c->ocr,
                              .presence = (float)c->presence, .max_tokens = (uint32_t)c->max_tokens, .question = c->question, .record = record, .stop = c->finishes ? NULL : stop };
}

rv_record_options record_options(const read_choice *c, const read_model *m, const char *file) {
    return (rv_record_options){ .size = sizeof(rv_record_options), .file = file, .today = c->today ? c->today : m->today, .allow_tfn = c->allow_tfn, .allow_account = c->allow_account };
}

rv_status read_page(const read_choice *c, const read_model *m, const char *file, const input *page, rv_record **out, rv_reading *reading, rv_error *err) {
    rv_record_options record = record_options(c, m, file);
    rv_read_options how = read_options(c, m, &record);
    rv_image image = page_image(c, page);
    rv_error why;
    rv_status st = rv_read(m->reader, &image, &how, out, reading, &why);
    return st ? fail(err, st, "%.200s: %.300s", file, why.message) : RV_OK;
}

void totals_add(read_totals *t, const rv_reading *r, const rv_record *record) {
    rv_summary s = { .size = sizeof s };
    if (rv_record_get_summary(record, &s, NULL) == RV_OK) t->found += s.found, t->fields += s.fields;
    t->pages++;
    t->prompts += r->prompts;
    t->chosen += r->chosen_tokens;
    t->forced += r->forced_tokens;
    t->steps += r->steps;
    t->looped += r->looped;
    t->cut += r->cut;
    t->ms += (double)r->total_ms;
    t->vision_ms += (double)r->vision_ms;
    t->ocr_ms += (double)r->ocr_ms;
}

void totals_say(const read_totals *t) {
    double pages = t->pages ? t->pages : 1, tokens = t->chosen + t->forced ? t->chosen + t->forced : 1;
    say("pages    %9u     %u of %u fields found", t->pages, t->found, t->fields);
    say("answers  %9u     %u tokens chosen, %u appended (%.1f %%), %u steps behind the prompts", t->prompts, t->chosen, t->forced, 100 * t->forced / tokens, t->steps);
    say("a page   %9.1f ms  vision %.1f ms, OCR %.1f ms, %.1f steps", t->ms / pages, t->vision_ms / pages, t->ocr_ms / pages, t->steps / pages);
    if (t->cut || t->looped) say("ended    %9u     answers at their limit, %u values that repeated themselves", t->cut, t->looped);
}

bool buffer_add(buffer *b, const char *data, size_t bytes) {
    if (b->room - b->bytes <= bytes) {
        size_t room = 2 * b->room + bytes + 1;
        char *more = realloc(b->data, room);
        if (!more) return false;
        b->data = more;
        b->room = room;
    }
    memcpy(b->data + b->bytes, data, bytes);
    b->bytes += bytes;
    b->data[b->bytes] = '\0';
    return true;
}

/* ---- pages ---- */

static rv_status check_image(const read_choice *c, const char *path, const input *file, rv_error *err) {
    rv_image image = page_image(c, file);
    rv_image_info info = { .size = sizeof info };
    rv_error why;
    rv_status st = rv_inspect_image(&image, c->load.model, &info, &why);
    return st ? fail(err, st, "%.200s: %.300s", path, why.message) : RV_OK;
}

/* An error, unless it is an image or (*draws) a PDF.  What stands at the very beginning decides; a mark further in counts where there is no image. */
static rv_status look(const read_choice *c, const char *path, const input *file, bool *draws, rv_error *err) {
    const bool marked = is_pdf(file);
    *draws = marked && file->data[0] == '%';
    rv_status st = *draws ? RV_OK : check_image(c, path, file, err);
    *draws = *draws || (marked && st);
    return *draws ? RV_OK : st;
}

rv_status files_check(const read_choice *c, const text_list *files, rv_error *err) {
    size_t from_stdin = 0;
    bool unused;
    rv_status st = RV_OK;
    for (size_t i = 0; i < files->count; i++) from_stdin += !strcmp(files->items[i], "-");
    from_stdin += c->load.env_file && !strcmp(c->load.env_file, "-");
    if (from_stdin > 1) return fail(err, RV_ERR_ARGUMENT, "stdin (-) can be read only once");
    for (size_t i = 0; i < files->count && st == RV_OK; i++) {
        input file = { 0 };
        if (!strcmp(files->items[i], "-") || is_special(files->items[i])) continue;
        st = input_read(files->items[i], &file, err);
        if (st == RV_OK) st = look(c, files->items[i], &file, &unused, err);
        input_free(&file);
    }
    return st;
}

rv_status pages_read(const read_choice *c, const char *path, page_list *out, rv_error *err) {
    input file;
    *out = (page_list){ 0 };
    rv_status st = input_read(path, &file, err);
    if (st) return st;
    bool draws = false;
    st = look(c, path, &file, &draws, err);
    if (draws) {
        st = pdf_draw(path, &file, c->pages ? (uint32_t)c->pages : DEFAULT_PAGES, c->page_seconds ? (uint32_t)c->page_seconds : DEFAULT_SECONDS,
                      c->dpi ? (uint32_t)c->dpi : DEFAULT_DPI, out, err);
        input_free(&file);
        return st;
    }
    if (st == RV_OK && !(out->pages = malloc(sizeof *out->pages))) st = fail(err, RV_ERR_MEMORY, "%s: out of memory", path);
    if (st) return input_free(&file), st;
    out->pages[0] = file;
    out->count = 1;
    return RV_OK;
}

void pages_free(page_list *list) {
    for (uint32_t i = 0; i < list->count; i++) input_free(&list->pages[i]);
    free(list->pages);
    *list = (page_list){ 0 };
}

void pages_say(const char *command, const char *path, const page_list *list) {
    if (list->left_out) say_error("%s: %s has more pages than the %u that are read: raise --pages", command, path, list->count);
}

page_name page_name_of(const char *file, const page_list *list, uint32_t i) {
    page_name name;
    snprintf(name.text, sizeof name.text, list->count > 1 ? "%.1000s#%u" : "%.1000s", file, i + 1);
    return name;
}

rv_image page_image(const read_choice *c, const input *page) {
    return (rv_image){ .size = sizeof(rv_image), .data = page->data, .bytes = page->bytes, .max_tiles = TILES[c->max_tiles], .ignore_exif = c->no_exif };
}
