/* read.c - one page, from its image to a checked record: strategies, and what is tried when one does not serve. */
#include <stdlib.h>
#include <string.h>

#include "engine/abi.h"
#include "engine/reader.h"
#include "engine/session.h"

enum { MOST_REPEATED = 12, REPEATED_TOKENS = 48 };

static const char *strategy_name(rv_strategy s) {
    static const char *const names[] = { "auto", "single", "parts", "two-pass", "bank-turns" };
    return names[s];
}

/* The schema's first strategy that is known. */
static rv_strategy resolve(const rv_schema *schema, rv_strategy asked) {
    for (uint32_t i = 0; asked == RV_STRATEGY_AUTO && i < schema->strategies.count; i++)
        for (rv_strategy s = RV_STRATEGY_SINGLE; s <= RV_STRATEGY_BANK_TURNS; s++)
            if (!strcmp(schema->strategies.items[i], strategy_name(s))) asked = s;
    return asked == RV_STRATEGY_AUTO || (asked == RV_STRATEGY_PARTS && schema->n_parts == 0) ? RV_STRATEGY_SINGLE : asked;
}

/* Fields that were served; what the presence threshold took away was. */
static uint32_t found(const rv_record *record) {
    uint32_t n = 0;
    for (uint32_t i = 0; i < record->schema->n_fields; i++) n += record->slots[i].n_items > 0 || record->slots[i].n_alternatives > 0;
    return n;
}

/* ---- questions ---- */

static rv_status ask_parts(rv_read_work *w, rv_record *record, bool whole, rv_error *err) {
    const rv_schema *schema = record->schema;
    uint32_t n = whole ? 1 : schema->n_parts;
    rv_ask *asks = calloc(n, sizeof *asks);
    char **questions = calloc(n, sizeof *questions);
    rv_status st = RV_OK;
    if (!asks || !questions) TRY(rv_fail_memory(err, "questions"));
    for (uint32_t i = 0; i < n; i++) {
        int32_t part = whole ? -1 : (int32_t)i;
        if (!(questions[i] = whole && w->options.question ? strdup(w->options.question) : rv_schema_prompt(schema, part))) TRY(rv_fail_memory(err, "questions"));
        asks[i].question = questions[i];
        TRY(rv_reader_form(w->reader, schema, part, w->options.form == RV_ANSWER_STRICT, &asks[i].form, err));
    }
    TRY(rv_ask_all(w, asks, n, err));
    for (uint32_t i = 0; i < n; i++)
        if (asks[i].job) TRY(rv_merge_answer(w, record, asks[i].job, "constrained", err));
    w->reading.tier = "constrained";
done:
    if (asks) rv_asks_free(asks, n);
    for (uint32_t i = 0; questions && i < n; i++) free(questions[i]);
    free(questions);
    free(asks);
    return st;
}

/* An answer in whatever form. */
static rv_status ask_freely(rv_read_work *w, rv_record *record, rv_error *err) {
    char *question = w->options.question ? strdup(w->options.question) : rv_schema_prompt(record->schema, -1);
    if (!question) return rv_fail_memory(err, "question");
    rv_ask one = { .question = question };
    rv_status st = rv_ask_all(w, &one, 1, err);
    size_t bytes;
    if (st == RV_OK && one.job) {
        const char *text = rv_job_text(one.job, &bytes);
        st = rv_record_parse(record, text, bytes, "free", NULL, err);
        w->reading.tier = "free";
    } else if (st == RV_OK) st = rv_fail(err, one.error.code, "%s", one.error.message);
    rv_asks_free(&one, 1);
    free(question);
    return st;
}

/* ---- a second question about single fields ---- */

static bool is_doubtful(const rv_record *record, uint32_t field) {
    const rv_field *f = &record->schema->fields[field];
    const rv_slot *slot = &record->slots[field];
    if (f->list || (!f->critical && !f->required)) return false;
    if (slot->n_items == 0) return slot->confidence < 0.95f;
    return slot->items[0].state == RV_VALUE_INVALID || slot->confidence < (float)f->min_confidence;
}

static rv_status ask_again(rv_read_work *w, rv_record *record, rv_error *err) {
    rv_ask asks[MOST_REPEATED] = { 0 };
    rv_string questions[MOST_REPEATED] = { 0 };
    rv_constraint *forms[MOST_REPEATED] = { 0 };
    uint32_t n = 0;
    rv_status st = RV_OK;
    for (uint32_t i = 0; i < record->schema->n_fields && n < MOST_REPEATED; i++) {
        const rv_field *f = &record->schema->fields[i];
        if (!is_doubtful(record, i)) continue;
        rv_key key = { .size = sizeof key, .key = f->key, .choices = f->choices.items, .n_choices = f->choices.count, .max_tokens = REPEATED_TOKENS };
        rv_string_addf(&questions[n], "Look at this page again, for one thing only. Answer with one line and nothing else.\n%s: %s, or NOT_FOUND if it is not on the page", f->key, f->prompt);
        if (questions[n].failed) TRY(rv_fail_memory(err, "question"));
        TRY(rv_constraint_keys(w->reader->tokenizer, &key, 1, &forms[n], err));
        asks[n] = (rv_ask){ .question = questions[n].data, .form = forms[n] };
        n++;
    }
    if (n) TRY(rv_ask_all(w, asks, n, err));
    for (uint32_t i = 0; i < n; i++)
        if (asks[i].job) TRY(rv_merge_answer(w, record, asks[i].job, "repeated", err));
    if (n) w->reading.tier = "repeated";
done:
    rv_asks_free(asks, n);
    for (uint32_t i = 0; i < MOST_REPEATED; i++) {
        rv_string_free(&questions[i]);
        rv_constraint_free(forms[i]);
    }
    return st;
}

/* ---- tiers ---- */

static rv_status ask_model(rv_read_work *w, rv_record *record, rv_strategy strategy, rv_error *err) {
    rv_status st = RV_OK;
    if (w->options.form != RV_ANSWER_FREE) {
        if (strategy == RV_STRATEGY_BANK_TURNS) TRY(rv_read_bank(w, record->schema, record, err));
        if (!found(record)) TRY(ask_parts(w, record, strategy != RV_STRATEGY_PARTS, err));
        w->reading.tier = "constrained";
        if (strategy == RV_STRATEGY_TWO_PASS) TRY(ask_again(w, record, err));
    }
    if (!found(record)) TRY(ask_freely(w, record, err));
done:
    return st;
}

/* Words on the page are the last tier where the model has found nothing, and the measure of what it has found. */
static rv_status use_words(rv_read_work *w, rv_record *record, rv_error *err) {
    rv_status st = RV_OK;
    if (!w->has_words) return RV_OK;
    if (!found(record)) {
        const double start = rv_now_ms();
        TRY(rv_ocr_again(w->reader, w->image, record->schema, &w->page, err));
        w->reading.ocr_ms += (float)(rv_now_ms() - start);
        TRY(rv_page_rules(&w->page, record, NULL, err));
        w->reading.tier = "ocr";
    }
    TRY(rv_page_ground(&w->page, record, err));
done:
    return st;
}

static rv_status fill_record(rv_read_work *w, rv_record *record, rv_error *err) {
    rv_strategy strategy = resolve(record->schema, w->options.strategy);
    rv_status st = RV_OK;
    w->reading.strategy = w->picture ? strategy_name(strategy) : "ocr";
    w->reading.tier = "none";
    if (w->picture) TRY(ask_model(w, record, strategy, err));
    TRY(use_words(w, record, err));
    TRY(rv_record_check(record, err));
    rv_weigh(record);
    TRY(rv_record_check(record, err));          /* again: who has to look at it depends on confidence */
done:
    return st;
}

/* ---- a page ---- */

static rv_status in_range(int32_t value, int32_t most, const char *what, rv_error *err) {
    if (value >= 0 && value <= most) return RV_OK;
    return rv_fail(err, RV_ERR_ARGUMENT, "rv_read_options.%s: must be from 0 to %d, is %d", what, most, value);
}

static rv_status check_options(const rv_read_options *o, rv_error *err) {
    rv_status st = RV_OK;
    TRY(in_range(o->strategy, RV_STRATEGY_BANK_TURNS, "strategy", err));
    TRY(in_range(o->form, RV_ANSWER_FREE, "form", err));
    TRY(in_range(o->classify, RV_CLASSIFY_DIRECT, "classify", err));
    TRY(in_range(o->ocr, RV_OCR_ONLY, "ocr", err));
    if (!(o->presence >= 0 && o->presence <= 1)) TRY(rv_fail(err, RV_ERR_ARGUMENT, "rv_read_options.presence: must be from 0 to 1, is %g", (double)o->presence));
done:
    return st;
}

/* One thread at a time reads with a reader; w->reader is set once it is this one. */
static rv_status enter(rv_read_work *w, rv_reader *reader, const char *what, rv_error *err) {
    if (atomic_exchange(&reader->reading, true))
        return rv_fail(err, RV_ERR_BUSY, "another thread is reading with this reader (or its stop function called %s)", what);
    w->reader = reader;
    return RV_OK;
}

static rv_status begin(rv_read_work *w, const rv_image *image, const rv_read_options *options, rv_error *err) {
    rv_status st = rv_abi_read(&w->options, sizeof w->options, options, "rv_read_options", err);
    if (st == RV_OK) st = check_options(&w->options, err);
    if (st) return st;
    w->reading.doctype_confidence = -1;
    w->image = image;
    bool ask = w->reader->session && w->options.ocr != RV_OCR_ONLY, words = w->options.ocr != RV_OCR_OFF && (w->options.ocr == RV_OCR_ONLY || !ask || rv_ocr_version());
    if (ask && (st = rv_picture_new(w->reader->session, image, &w->picture, err))) return st;
    if (!words) return ask ? RV_OK : rv_fail(err, RV_ERR_ARGUMENT, "rv_read: neither a model nor OCR may be used");
    double start = rv_now_ms();
    st = rv_ocr_page(w->reader, image, &w->page, err);
    w->reading.ocr_ms = (float)(rv_now_ms() - start);
    w->has_words = st == RV_OK;
    return ask && st == RV_ERR_UNSUPPORTED ? RV_OK : st;         /* Tesseract without its data: nothing to compare with */
}

static void end(rv_read_work *w) {
    rv_picture_free(w->picture);
    rv_page_free(&w->page);
    if (w->reader) atomic_store(&w->reader->reading, false);
}

static rv_status find_schema(rv_read_work *w, const rv_schema **schema, rv_class *class, rv_error *err) {
    rv_status st = RV_OK;
    *schema = w->options.schema;
    if (*schema) return RV_OK;
    TRY(rv_read_class(w, class, err));
    TRY(rv_reader_schema(w->reader, class->doctype, schema, err));
    w->reading.doctype_confidence = class->confidence;
done:
    return st;
}

/* A finished record of the schema, or what went wrong. */
static rv_status read_as(rv_read_work *w, const rv_schema *schema, const rv_class *class, rv_record **out, rv_error *err) {
    rv_record *record = NULL;
    rv_status st = rv_record_new(schema, w->options.record, &record, err);
    if (st) return st;
    if (class->doctype) {
        record->doctype = schema->doctype;
        record->doctype_confidence = class->confidence;
    }
    st = fill_record(w, record, err);
    if (st) rv_record_free(record);
    else *out = record;
    return st;
}

rv_status rv_read(rv_reader *reader, const rv_image *image, const rv_read_options *options, rv_record **out, rv_reading *reading, rv_error *err) {
    if (!reader || !image || !out) return rv_fail(err, RV_ERR_ARGUMENT, "rv_read: %s is NULL", !reader ? "reader" : !image ? "page" : "out");
    rv_read_work w = { 0 };
    rv_class class = { 0 };
    const rv_schema *schema;
    rv_record *record = NULL;
    rv_error local;
    rv_status st = RV_OK;
    double start = rv_now_ms();
    if (!err) err = &local;
    if (reading) TRY(rv_abi_fillable(reading, "rv_reading", err));
    TRY(enter(&w, reader, "rv_read", err));
    TRY(begin(&w, image, options, err));
    TRY(find_schema(&w, &schema, &class, err));
    TRY(read_as(&w, schema, &class, &record, err));
    w.reading.schema = schema->name;
    w.reading.doctype = schema->doctype;
    w.reading.total_ms = (float)(rv_now_ms() - start);
    if (reading) TRY(rv_abi_write(reading, &w.reading, sizeof w.reading, "rv_reading", err));
    *out = record;
done:
    if (st) rv_record_free(record);
    end(&w);
    return st;
}

rv_status rv_classify(rv_reader *reader, const rv_image *image, const rv_read_options *options, rv_class *out, rv_error *err) {
    if (!reader || !image || !out) return rv_fail(err, RV_ERR_ARGUMENT, "rv_classify: %s is NULL", !reader ? "reader" : !image ? "page" : "out");
    rv_read_work w = { 0 };
    rv_class class;
    rv_error local;
    rv_status st = RV_OK;
    if (!err) err = &local;
    TRY(rv_abi_fillable(out, "rv_class", err));
    TRY(enter(&w, reader, "rv_classify", err));
    TRY(begin(&w, image, options, err));
    TRY(rv_read_class(&w, &class, err));
    st = rv_abi_write(out, &class, sizeof class, "rv_class", err);
done:
    end(&w);
    return st;
}
