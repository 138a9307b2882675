/* page_rules.c - fields from words alone: labels say which amount is the total, forms say what is a date.
 *
 * The one idea: for a field, runs of words are tried as values of its kind; a run counts more where one of the field's labels stands
 * before it in its line or above it.  The last tier, when there is no model or it found nothing; nothing is made up here: every
 * value is text of the page.
 */
#include <ctype.h>
#include <string.h>
#include <strings.h>

#include "engine/base/text.h"
#include "extract/vote.h"

enum { RUN = 5, TOP_LINES = 6, YEAR_KNOWN = 20 };

typedef struct hit { rv_string text; int score; bool found; float sure; } hit;

typedef struct search { const rv_page *page; rv_record *record; rv_error *err; rv_string line; } search;

static bool is_word_end(char c) { return !isalnum((unsigned char)c); }

size_t rv_behind_label(const char *text, const char *label) {
    size_t n = strlen(label);
    for (const char *at = text; (at = strcasestr(at, label)); at++)
        if ((at == text || is_word_end(at[-1])) && is_word_end(at[n])) return (size_t)(at - text) + n;
    return 0;
}

const char *rv_unglued(const char *word) {
    const char *colon = word + strcspn(word, ":="), *digit = word + strcspn(word, "0123456789");
    if (*colon && colon < digit) word = colon + 1;               /* but "14:22" is one                   */
    while (*word && !isalnum((unsigned char)*word) && !strchr("$-+.(#", *word)) word++;
    return word;
}

size_t rv_unglued_end(rv_value_kind kind, const char *text, size_t bytes) {
    const char *const glue = kind == RV_KIND_DATE ? ":;,|*~'\"_.)]" : ":;,|*~'\"_";
    while (bytes && (strchr(glue, text[bytes - 1]) || (unsigned char)text[bytes - 1] >= 128)) bytes--;
    return bytes;
}

/* The words of a line, blanks between them; they are [from, *to). */
static const char *line_at(search *s, uint32_t from, uint32_t *to) {
    const rv_page *p = s->page;
    s->line.bytes = 0;
    for (*to = from; *to < p->n_words && p->words[*to].line == p->words[from].line; ++*to)
        rv_string_addf(&s->line, "%s%s", *to > from ? " " : "", p->words[*to].text);
    return rv_string_text(&s->line);
}

size_t rv_label_length(const rv_field *f, const char *text) {
    size_t best = 0;
    for (uint32_t i = 0; i < f->labels.count; i++)
        if (strlen(f->labels.items[i]) > best && rv_behind_label(text, f->labels.items[i])) best = strlen(f->labels.items[i]);
    return best ? best : rv_behind_label(text, f->title) ? strlen(f->title) : 0;
}

/* The line belongs to the field whose label in it is longest: "Sub total" is not the total. */
static bool is_labelled(const search *s, const rv_field *f, const char *text) {
    size_t own = rv_label_length(f, text);
    for (uint32_t i = 0; own && i < s->record->schema->n_fields; i++)
        if (&s->record->schema->fields[i] != f && rv_label_length(&s->record->schema->fields[i], text) > own) return false;
    return own > 0;
}

/* The line is another field's: part of an ABN is no telephone number. */
static bool is_of_another(const search *s, const rv_field *f, const char *text) {
    for (uint32_t i = 0; i < s->record->schema->n_fields; i++)
        if (&s->record->schema->fields[i] != f && rv_label_length(&s->record->schema->fields[i], text)) return true;
    return false;
}

static bool reads_as(search *s, const rv_field *f, const char *text, size_t bytes, rv_value *out) {
    rv_value_context context = { f->choices, f->choice_aliases, s->record->today };
    rv_value_read(&s->record->pool, f->kind, text, bytes, &context, out);
    return out->state == RV_VALUE_VALID;
}

/* "1 20.00" is a count and a price. */
static bool looks_like_a_date(const char *text) {
    bool apart = strchr(text, ' ') != NULL;
    const char *dot = strchr(text, '.');
    for (const char *c = text; *c; c++)
        if (*c == '/' || (*c == '-' && !dot) || isalpha((unsigned char)*c)) return true;
    return !apart && (!dot || strchr(dot + 1, '.'));
}

static bool may_be(rv_value_kind kind, const char *text) {
    size_t digits = 0;
    for (const char *c = text; *c; c++) digits += isdigit((unsigned char)*c) != 0;
    switch (kind) {
    case RV_KIND_MONEY: return digits >= 3 && strchr(text, '.');                 /* a count or a year is no amount */
    case RV_KIND_ABN: case RV_KIND_ACN: return isdigit((unsigned char)text[0]) != 0;
    case RV_KIND_DATE: return isdigit((unsigned char)text[0]) && digits >= 3 && looks_like_a_date(text);
    case RV_KIND_TIME: return strchr(text, ':') != NULL;
    case RV_KIND_EMAIL: return strchr(text, '@') != NULL;
    default: return digits > 0;
    }
}

static void keep(hit *best, const char *text, int score, float sure) {
    if (best->found && score <= best->score) return;
    best->text.bytes = 0;
    rv_string_addz(&best->text, text);
    best->score = score;
    best->sure = sure;
    best->found = true;
}

/* Runs of words in [from, to) that read as the field's kind: the last amount of a line, of all else the shortest run. */
static void try_runs(search *s, const rv_field *f, uint32_t from, uint32_t to, int score, hit *best) {
    for (uint32_t i = from; i < to; i++) {
        rv_string run = { 0 };
        float sure = 1;
        for (uint32_t k = i; k < to && k < i + RUN; k++) {
            rv_value value;
            sure = s->page->words[k].confidence < sure ? s->page->words[k].confidence : sure;
            rv_string_addf(&run, "%s%s", k > i ? " " : "", k > i ? s->page->words[k].text : rv_unglued(s->page->words[k].text));
            char *text = rv_pool_text(&s->record->pool, rv_string_text(&run), rv_unglued_end(f->kind, rv_string_text(&run), run.bytes));
            if (!text || !may_be(f->kind, text) || !reads_as(s, f, text, strlen(text), &value)) continue;
            keep(best, text, score + (f->kind == RV_KIND_MONEY ? (int)(i - from) : -(int)(k - i)) + (value.first.year ? YEAR_KNOWN : 0), sure);
        }
        rv_string_free(&run);
    }
}

static bool stands_alone(rv_value_kind kind) {
    return kind == RV_KIND_DATE || kind == RV_KIND_ABN || kind == RV_KIND_ACN || kind == RV_KIND_EMAIL || kind == RV_KIND_TIME || kind == RV_KIND_PHONE;
}

/* What is to be paid, not what else is added up or handed over. */
static bool is_total(const rv_field *f) {
    static const char *const others[] = { "SUB", "DISCOUNT", "GST", "TAX", "PAID", "CREDIT", "DEBIT" };
    bool total = f->kind == RV_KIND_MONEY && strstr(f->key, "TOTAL");
    for (size_t i = 0; total && i < sizeof others / sizeof *others; i++) total = !strstr(f->key, others[i]);
    return total;
}

/* By form, near a label or anywhere. */
static void by_form(search *s, const rv_field *f, hit *best) {
    bool above = false;
    for (uint32_t from = 0, to, line = 0; from < s->page->n_words; from = to, line++) {
        bool here = is_labelled(s, f, line_at(s, from, &to));
        if (here) try_runs(s, f, from, to, 1000 + (f->kind == RV_KIND_MONEY ? (int)line : -(int)line), best);
        else if (above) try_runs(s, f, from, to, 500 - (int)line, best);
        else if (stands_alone(f->kind) && !(f->kind == RV_KIND_PHONE && is_of_another(s, f, line_at(s, from, &to)))) try_runs(s, f, from, to, 200 - (int)line, best);
        above = here && !best->found;
    }
}

/* What stands behind a label in its line, if it is anything: a bracket or "none" is no name. */
static void by_label(search *s, const rv_field *f, hit *best) {
    for (uint32_t from = 0, to; from < s->page->n_words && !best->found; from = to) {
        const char *text = line_at(s, from, &to);
        if (!is_labelled(s, f, text)) continue;
        for (uint32_t i = 0; i < f->labels.count && !best->found; i++) {
            size_t at = rv_behind_label(text, f->labels.items[i]);
            while (at && text[at] && strchr(" :.#-", text[at])) at++;
            rv_value value;
            if (!at || !text[at]) continue;
            if (reads_as(s, f, text + at, strlen(text + at), &value) || value.state != RV_VALUE_ABSENT) keep(best, text + at, 0, 1);
        }
    }
}

/* The first line near the top that has a word of letters. */
static void seller(search *s, hit *best) {
    for (uint32_t from = 0, to, line = 0; from < s->page->n_words && line < TOP_LINES && !best->found; from = to, line++) {
        const char *text = line_at(s, from, &to);
        size_t letters = 0;
        for (const char *c = text; *c; c++) letters += isalpha((unsigned char)*c) != 0;
        if (letters >= 4 && 2 * letters > strlen(text) && !strcasestr(text, "invoice") && !strcasestr(text, "receipt")) keep(best, text, 0, 1);
    }
}

static void document_type(search *s, hit *best) {
    const rv_schema *schema = s->record->schema;
    for (uint32_t from = 0, to; from < s->page->n_words && !best->found; from = to) {
        const char *text = line_at(s, from, &to);
        for (uint32_t i = 0; i < schema->doctype_aliases.count && !best->found; i++)
            if (rv_behind_label(text, schema->doctype_aliases.items[i])) keep(best, schema->doctype, 0, 1);
    }
}

static bool is_seller(const rv_field *f) { return f->kind == RV_KIND_NAME && (strstr(f->key, "SUPPLIER") || strstr(f->key, "COMPANY") || strstr(f->key, "STORE")); }

static void search_field(search *s, const rv_field *f, hit *best) {
    if (is_seller(f)) seller(s, best);
    else if (f->kind == RV_KIND_ENUM && !strcmp(f->key, "DOCUMENT_TYPE")) document_type(s, best);
    else if (f->kind == RV_KIND_ID || f->kind == RV_KIND_NAME) by_label(s, f, best);
    else if (f->kind != RV_KIND_TEXT && f->kind != RV_KIND_ADDRESS && f->kind != RV_KIND_BOOL && f->kind != RV_KIND_ENUM) by_form(s, f, best);
}

float rv_rules_confidence(float sure) { return sure < RV_SURE ? 0.25f : 0.5f; }

rv_status rv_page_rules(const rv_page *page, rv_record *record, uint32_t *filled, rv_error *err) {
    search s = { .page = page, .record = record, .err = err };
    rv_status st = RV_OK;
    uint32_t n = 0;
    for (uint32_t i = 0; i < record->schema->n_fields && st == RV_OK; i++) {
        const rv_field *f = &record->schema->fields[i];
        hit best = { 0 };
        if (record->slots[i].n_items || f->list) continue;
        if (is_total(f)) {
            bool found = false;
            if ((st = rv_page_total(page, record, i, &found, NULL, err)) == RV_OK) n += found;
            continue;
        }
        search_field(&s, f, &best);
        if (best.text.failed) st = rv_fail_memory(err, "rules");
        else if (best.found) st = rv_record_set(record, i, rv_string_text(&best.text), best.text.bytes, "ocr", err);
        if (st == RV_OK && best.found && record->slots[i].n_items) record->slots[i].confidence = rv_rules_confidence(best.sure), n++;
        rv_string_free(&best.text);
    }
    if (s.line.failed && st == RV_OK) st = rv_fail_memory(err, "rules");
    rv_string_free(&s.line);
    if (filled) *filled = n;
    return st;
}

/* ---- two readings of one page ---- */

rv_status rv_page_worth(const rv_page *page, const rv_schema *schema, int *worth, bool *full, rv_error *err) {
    rv_record *record = rv_record_blank(schema);
    rv_status st = record ? rv_page_rules(page, record, NULL, err) : rv_fail_memory(err, "rules");
    *worth = 0;
    *full = true;
    for (uint32_t i = 0; i < schema->n_fields && st == RV_OK; i++) {
        const rv_field *f = &schema->fields[i];
        const rv_slot *slot = &record->slots[i];
        if (f->list || (!f->critical && !is_total(f))) continue;
        bool good = slot->n_items && slot->items->state == RV_VALUE_VALID;
        if (good && f->kind == RV_KIND_DATE) good = rv_likely_year(slot->items->first.year);
        *worth += good ? 2 : slot->n_items > 0;
        if (good && is_total(f)) {
            int proofs = 0;
            st = rv_page_total(page, record, i, &good, &proofs, err);
            *worth += proofs;
            good = proofs > 0;
        }
        *full = *full && good;
    }
    rv_record_free(record);
    return st;
}
