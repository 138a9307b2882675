/* read_class.c - of which type a page is: questions about what can be seen, then rules; or a choice.
 *
 * The one idea: "which columns does its table have" is easier to answer, and to check, than "is this a bank statement".
 */
#include <ctype.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>

#include "engine/reader.h"

#define QUESTION "Look at this page and answer with three lines and nothing else.\n" \
                 "COLUMNS: the headings of its table exactly as printed, from left to right, with \" | \" between them, or NOT_FOUND\n" \
                 "PAID: true if the page itself shows that it was paid (a payment, a card, change), else false\n" \
                 "TRAVEL: true if it is a ticket, boarding pass or itinerary, else false"

/* Words of headings and what such a column holds (extract/README.md: column roles). */
static const struct { const char *word, *role; } ROLES[] = {
    { "value date", "" }, { "date", "date" }, { "debit", "debit" }, { "withdrawal", "debit" }, { "paid out", "debit" }, { "money out", "debit" }, { "payments", "debit" },
    { "credit", "credit" }, { "deposit", "credit" }, { "paid in", "credit" }, { "money in", "credit" }, { "balance", "balance" }, { "gst", "gst" }, { "tax", "gst" },
    { "odometer", "odometer" }, { "kilomet", "distance" }, { "distance", "distance" }, { "km", "distance" }, { "purpose", "purpose" },
    { "qty", "quantity" }, { "quantity", "quantity" }, { "units", "quantity" }, { "unit price", "unit_price" }, { "price", "unit_price" }, { "rate", "unit_price" },
    { "amount", "amount" }, { "total", "amount" }, { "description", "description" }, { "details", "description" }, { "particulars", "description" }, { "transaction", "description" },
    { "narrative", "description" }, { "item", "description" },
};

/* Exact first, then as a part; what is long or ends with a colon is no heading. */
const char *rv_column_role(const char *heading, size_t bytes) {
    char low[48];
    if (bytes == 0 || bytes >= 41 || heading[bytes - 1] == ':') return "";
    for (size_t i = 0; i < bytes; i++) low[i] = (char)tolower((unsigned char)heading[i]);
    low[bytes] = '\0';
    for (size_t i = 0; i < sizeof ROLES / sizeof *ROLES; i++)
        if (!strcmp(low, ROLES[i].word)) return ROLES[i].role;
    for (size_t i = 0; i < sizeof ROLES / sizeof *ROLES; i++)
        if (strlen(ROLES[i].word) > 2 && strstr(low, ROLES[i].word)) return ROLES[i].role;
    return "";
}

typedef struct evidence { const rv_key_value *columns; rv_tristate paid, travel; } evidence;

static rv_tristate yes_or_no(const rv_key_value *v) {
    if (v->bytes == 4 && !memcmp(v->value, "true", 4)) return RV_YES;
    return v->bytes == 5 && !memcmp(v->value, "false", 5) ? RV_NO : RV_UNKNOWN;
}

static bool has_role(const rv_key_value *columns, const char *role) {
    const char *at = columns->value, *end = at + columns->bytes;
    while (at < end) {
        const char *bar = memchr(at, '|', (size_t)(end - at)), *to = bar ? bar : end;
        const char *from = at, *last = to;
        while (from < last && *from == ' ') from++;
        while (last > from && last[-1] == ' ') last--;
        if (!strcmp(rv_column_role(from, (size_t)(last - from)), role)) return true;
        at = to + 1;
    }
    return false;
}

static bool holds(const rv_evidence *rule, const evidence *e, const char **why) {
    uint32_t columns = 0, needed = rule->min_columns ? rule->min_columns : 1;
    for (uint32_t i = 0; i < rule->columns.count; i++) columns += has_role(e->columns, rule->columns.items[i]);
    if (rule->columns.count && columns >= needed) return *why = "evidence: columns", true;
    if (rule->travel != RV_UNKNOWN && rule->travel == e->travel) return *why = "evidence: travel", true;
    if (rule->paid != RV_UNKNOWN && rule->paid == e->paid) return *why = "evidence: paid", true;
    return false;
}

/* The first rule, by rank, that holds; else the default. */
static const rv_schema *decide(const rv_reader *r, const evidence *e, const char **why) {
    const rv_schema *best = NULL, *otherwise = NULL;
    for (uint32_t i = 0; i < r->n_schemas; i++) {
        const rv_schema *s = r->schemas[i];
        const char *reason;
        if (s->evidence.otherwise) otherwise = s;
        if (!s->evidence.rank || (best && s->evidence.rank > best->evidence.rank) || !holds(&s->evidence, e, &reason)) continue;
        best = s;
        *why = reason;
    }
    if (!best) *why = "evidence: nothing else";
    return best ? best : otherwise;
}

static rv_status ask(rv_read_work *w, const char *question, const rv_key *keys, uint32_t n, rv_ask *out, rv_error *err) {
    rv_constraint *form;
    rv_status st = rv_constraint_keys(w->reader->tokenizer, keys, n, &form, err);
    if (st) return st;
    *out = (rv_ask){ .question = question, .form = form };
    st = rv_ask_all(w, out, 1, err);
    rv_constraint_free(form);
    if (st == RV_OK && !out->job) st = rv_fail(err, out->error.code, "%s", out->error.message);
    return st;
}

/* The answers as they came, in one line; a card's number is no evidence. */
static void describe(rv_class *out, const rv_job *job) {
    size_t n = 0, bytes;
    const char *answers = rv_job_text(job, &bytes);
    char *masked = rv_mask(answers, bytes, RV_SENSITIVE_NOT, NULL);
    for (const char *text = masked ? masked : ""; *text && n + 1 < sizeof out->evidence; text++) out->evidence[n++] = *text == '\n' ? ';' : *text;
    while (n && out->evidence[n - 1] == ';') n--;
    out->evidence[n] = '\0';
    free(masked);
}

static void settle(rv_class *out, const rv_schema *schema, float confidence, const char *rule) {
    out->doctype = schema->doctype;
    out->schema = schema->name;
    out->confidence = confidence;
    out->rule = rule;
}

static rv_status by_evidence(rv_read_work *w, rv_class *out, rv_error *err) {
    static const char *const answers[] = { "true", "false" };
    const rv_key keys[] = { { .size = sizeof *keys, .key = "COLUMNS", .list = 1, .max_items = 12, .max_tokens = 80 },
                            { .size = sizeof *keys, .key = "PAID", .choices = answers, .n_choices = 2, .required = 1 },
                            { .size = sizeof *keys, .key = "TRAVEL", .choices = answers, .n_choices = 2, .required = 1 } };
    const rv_key_value *v;
    const char *why;
    rv_ask one;
    rv_status st = ask(w, QUESTION, keys, 3, &one, err);
    if (st) return st;
    if (rv_job_values(one.job, &v) == 3) {
        evidence e = { &v[0], yes_or_no(&v[1]), yes_or_no(&v[2]) };
        const rv_schema *schema = decide(w->reader, &e, &why);
        float sure = expf(v[0].lowest < v[1].lowest ? v[0].lowest : v[1].lowest);
        if (schema) settle(out, schema, sure, why);
        describe(out, one.job);
    }
    rv_asks_free(&one, 1);
    return out->schema ? RV_OK : rv_fail(err, RV_ERR_FORMAT, "the model's answer about the page's type was cut off");
}

/* A choice among the types; its probability is that of the chosen label among all of them. */
static rv_status directly(rv_read_work *w, rv_class *out, rv_error *err) {
    const char *types[64];
    uint32_t n = 0;
    rv_string question = { 0 };
    rv_ask one;
    rv_string_addz(&question, "Which type of document is on this page? Answer with one line, DOCUMENT_TYPE: and one of these words.");
    for (uint32_t i = 0; i < w->reader->n_schemas && n < 64; i++) {
        types[n++] = w->reader->schemas[i]->doctype;
        rv_string_addf(&question, "\n%s: %s", w->reader->schemas[i]->doctype, w->reader->schemas[i]->type_prompt);
    }
    const rv_key key = { .size = sizeof key, .key = "DOCUMENT_TYPE", .choices = types, .n_choices = n, .required = 1 };
    rv_status st = question.failed ? rv_fail_memory(err, "question") : ask(w, rv_string_text(&question), &key, 1, &one, err);
    rv_string_free(&question);
    if (st) return st;
    const rv_key_value *v;
    if (rv_job_values(one.job, &v) == 1)
        for (uint32_t i = 0; i < w->reader->n_schemas; i++)
            if (strlen(w->reader->schemas[i]->doctype) == v->bytes && !memcmp(v->value, w->reader->schemas[i]->doctype, v->bytes))
                settle(out, w->reader->schemas[i], v->tokens ? expf(fminf(v->lowest + v->lost, 0)) : 1, "direct");
    describe(out, one.job);
    rv_asks_free(&one, 1);
    return out->schema ? RV_OK : rv_fail(err, RV_ERR_FORMAT, "the model's answer about the page's type was cut off");
}

/* The type whose words stand on the page; without any the default. */
static rv_status by_words(rv_read_work *w, rv_class *out) {
    const rv_schema *best = NULL;
    size_t most = 0;
    for (uint32_t i = 0; i < w->reader->n_schemas; i++) {
        const rv_schema *s = w->reader->schemas[i];
        if (!best || s->evidence.otherwise) best = most ? best : s;
        for (uint32_t a = 0; a < s->doctype_aliases.count; a++) {
            const char *alias = s->doctype_aliases.items[a];
            size_t n = strlen(alias), blank = strcspn(alias, " ");
            for (uint32_t k = 0; k < w->page.n_words && n > most; k++) {
                const char *word = w->page.words[k].text, *next = k + 1 < w->page.n_words ? w->page.words[k + 1].text : "";
                bool found = blank == n ? !strcasecmp(word, alias) : !strncasecmp(word, alias, blank) && strlen(word) == blank && !strcasecmp(next, alias + blank + 1);
                if (found) best = s, most = n;
            }
        }
    }
    if (best) settle(out, best, most ? 0.7f : 0.3f, "ocr");
    return RV_OK;
}

rv_status rv_read_class(rv_read_work *w, rv_class *out, rv_error *err) {
    const rv_schema *unused;
    *out = (rv_class){ .size = sizeof *out };
    rv_status st = rv_reader_schema(w->reader, NULL, &unused, err);
    if (st) return st;
    if (!w->picture) return by_words(w, out);
    return w->options.classify == RV_CLASSIFY_DIRECT ? directly(w, out, err) : by_evidence(w, out, err);
}
