/* write.c - KEY: VALUE text, CSV and Markdown: see write.h. */
#include "extract/write.h"

#include <stdio.h>
#include <string.h>

#include "extract/check.h"
#include "extract/csv.h"

const char *rv_tristate_name(rv_tristate t) { return t == RV_YES ? "true" : t == RV_NO ? "false" : "unknown"; }

void rv_slot_text(const rv_record *record, uint32_t field, rv_string *out) {
    const rv_slot *slot = &record->slots[field];
    for (uint32_t i = 0; i < slot->n_items; i++) {
        if (i) rv_string_addz(out, " | ");
        rv_string_addz(out, slot->items[i].text);
    }
    if (slot->n_items == 0) rv_string_addz(out, RV_NOT_FOUND);
}

void rv_write_kv(const rv_record *record, rv_string *out) {
    for (uint32_t i = 0; i < record->schema->n_fields; i++) {
        rv_string_addf(out, "%s: ", record->schema->fields[i].key);
        rv_slot_text(record, i, out);
        rv_string_addz(out, "\n");
    }
}

/* ---- CSV ----------------------------------------------------------------------------------------- */

void rv_csv_cell(rv_string *out, const char *text) {
    bool guard = rv_csv_needs_guard(text), quote = guard || strpbrk(text, ",;\"\r\n\t") || *text == ' ' || (*text && text[strlen(text) - 1] == ' ');
    if (quote) rv_string_addz(out, "\"");
    if (guard) rv_string_addz(out, "'");
    for (; *text; text++) {
        if (*text == '"') rv_string_addz(out, "\"");
        rv_string_add(out, text, 1);
    }
    if (quote) rv_string_addz(out, "\"");
}

static const char *const meta[] = { "file", "schema", "score", "tax_invoice_valid", "needs_review", "findings" };

void rv_write_csv_head(const rv_schema *schema, rv_string *out) {
    for (size_t i = 0; i < sizeof meta / sizeof *meta; i++) rv_string_addf(out, "%s%s", i ? "," : "", meta[i]);
    for (uint32_t i = 0; i < schema->n_fields; i++) rv_string_addf(out, ",%s", schema->fields[i].key);
    rv_string_addz(out, "\r\n");
}

void rv_write_csv_row(const rv_record *record, rv_string *out) {
    const rv_compliance *c = &record->compliance;
    rv_csv_cell(out, record->file);
    rv_string_addz(out, ",");
    rv_csv_cell(out, record->schema->name);
    rv_string_addz(out, ",");
    if (c->score >= 0) rv_string_addf(out, "%.1f", c->score);
    rv_string_addf(out, ",%s,%s,", c->tax_invoice_valid == RV_UNKNOWN ? "" : rv_tristate_name(c->tax_invoice_valid),
                   c->checked ? c->needs_review ? "true" : "false" : "");
    rv_string ids = { 0 };
    for (uint32_t i = 0; i < record->n_findings; i++) rv_string_addf(&ids, "%s%s", i ? " " : "", record->findings[i].id);
    rv_csv_cell(out, rv_string_text(&ids));
    out->failed = out->failed || ids.failed;
    rv_string_free(&ids);
    for (uint32_t i = 0; i < record->schema->n_fields; i++) {
        rv_string text = { 0 };
        rv_slot_text(record, i, &text);
        rv_string_addz(out, ",");
        rv_csv_cell(out, rv_string_text(&text));
        out->failed = out->failed || text.failed;
        rv_string_free(&text);
    }
    rv_string_addz(out, "\r\n");
}

/* ---- Markdown -------------------------------------------------------------------------------------- */

/* Text that stays text: no HTML, no links, no table cells of its own. */
static void add_plain(rv_string *out, const char *text) {
    for (; *text; text++) {
        if (*text == '&') rv_string_addz(out, "&amp;");
        else if (*text == '<') rv_string_addz(out, "&lt;");
        else if (*text == '>') rv_string_addz(out, "&gt;");
        else if ((unsigned char)*text < 0x20) rv_string_addz(out, " ");
        else {
            if (strchr("\\`*_[]()#|!~", *text)) rv_string_addz(out, "\\");
            rv_string_add(out, text, 1);
        }
    }
}

static void add_findings(rv_string *out, const rv_record *record) {
    const rv_compliance *c = &record->compliance;
    rv_string_addz(out, "\n");
    if (c->score >= 0) rv_string_addf(out, "Score %.0f of 100. ", c->score);
    if (c->gst_class != RV_GST_UNKNOWN) rv_string_addf(out, "GST: %s. ", rv_gst_class_name(c->gst_class));
    if (c->tax_invoice_valid != RV_UNKNOWN) rv_string_addf(out, "Valid tax invoice: %s. ", rv_tristate_name(c->tax_invoice_valid));
    rv_string_addf(out, "Needs review: %s.\n", c->needs_review ? "yes" : "no");
    if (record->n_findings) rv_string_addz(out, "\n");
    for (uint32_t i = 0; i < record->n_findings; i++) {
        const rv_finding *f = &record->findings[i];
        rv_string_addf(out, "- **%s** ", rv_severity_name(f->severity));
        add_plain(out, f->message);
        if (f->row >= 0) rv_string_addf(out, " Row %d.", f->row + 1);
        if (*f->actual) rv_string_addz(out, " Is "), add_plain(out, f->actual);
        if (*f->actual && *f->expected) rv_string_addz(out, ", expected "), add_plain(out, f->expected);
        if (*f->actual) rv_string_addz(out, ".");
        if (*f->suggestion) rv_string_addz(out, " "), add_plain(out, f->suggestion);
        rv_string_addz(out, "\n");
    }
}

void rv_write_markdown(const rv_record *record, rv_string *out) {
    rv_string_addz(out, "## ");
    add_plain(out, *record->file ? record->file : record->schema->title);
    rv_string_addz(out, "\n\n| Field | Value | Confidence |\n|---|---|---|\n");
    for (uint32_t i = 0; i < record->schema->n_fields; i++) {
        rv_string text = { 0 };
        rv_slot_text(record, i, &text);
        rv_string_addz(out, "| ");
        add_plain(out, record->schema->fields[i].title);
        rv_string_addz(out, " | ");
        add_plain(out, rv_string_text(&text));
        if (record->slots[i].n_items && record->slots[i].confidence >= 0)
            rv_string_addf(out, " | %.2f |\n", (double)record->slots[i].confidence);
        else rv_string_addz(out, " | |\n");
        out->failed = out->failed || text.failed;
        rv_string_free(&text);
    }
    if (record->compliance.checked) add_findings(out, record);
}
