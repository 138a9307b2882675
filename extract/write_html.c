/* write_html.c - the page for review: the image beside the fields, boxes where values stand, and what the checks found.
 *
 * The one idea: there is no script in it and nothing to fetch.  A policy in its head forbids both, so that even a mistake in escaping
 * could run nothing; fields and boxes light up together by style rules alone.
 */
#include <inttypes.h>
#include <stdio.h>
#include <string.h>

#include "engine/base/hash.h"
#include "extract/check.h"
#include "extract/write.h"

/* Marks that reorder text (U+202A to U+202E, U+2066 to U+2069): an amount could be made to look like another. */
static bool is_reordering(const char *text) {
    unsigned char third = text[0] && text[1] ? (unsigned char)text[2] : 0;
    return (strncmp(text, "\xe2\x80", 2) == 0 && third >= 0xaa && third <= 0xae) ||
           (strncmp(text, "\xe2\x81", 2) == 0 && third >= 0xa6 && third <= 0xa9);
}

/* Five characters cover element content and quoted attributes; controls are blanks. */
static void esc(rv_string *out, const char *text) {
    for (; *text; text++) {
        if (is_reordering(text)) {
            text += 2;
            continue;
        }
        switch (*text) {
        case '&': rv_string_addz(out, "&amp;"); break;
        case '<': rv_string_addz(out, "&lt;"); break;
        case '>': rv_string_addz(out, "&gt;"); break;
        case '"': rv_string_addz(out, "&quot;"); break;
        case '\'': rv_string_addz(out, "&#39;"); break;
        default:
            if ((unsigned char)*text < 0x20 || *text == 0x7f) rv_string_addz(out, " ");
            else rv_string_add(out, text, 1);
        }
    }
}

void rv_write_html_head(rv_string *out) {
    const rv_data_file *css = rv_data_find("review.css");
    rv_string_addz(
        out,
        "<!DOCTYPE html>\n<html lang=\"en\">\n<head>\n<meta charset=\"utf-8\">\n"
        "<meta http-equiv=\"Content-Security-Policy\" content=\"default-src 'none'; img-src 'self' data: file:; "
        "style-src 'unsafe-inline'; base-uri 'none'; form-action 'none'\">\n"
        "<meta name=\"viewport\" content=\"width=device-width, initial-scale=1\">\n<meta name=\"referrer\" content=\"no-referrer\">\n"
        "<title>Review of extracted fields</title>\n<style>\n");
    if (css) rv_string_add(out, css->data, css->bytes);
    rv_string_addz(out, "</style>\n</head>\n<body>\n");
}

void rv_write_html_tail(rv_string *out) { rv_string_addz(out, "</body>\n</html>\n"); }

/* ---- the image -------------------------------------------------------------------------------------- */

static const char *mime_of(const unsigned char *d, size_t n) {
    if (n > 3 && memcmp(d, "\xff\xd8\xff", 3) == 0) return "image/jpeg";
    if (n > 8 && memcmp(d, "\x89PNG\r\n\x1a\n", 8) == 0) return "image/png";
    if (n > 6 && memcmp(d, "GIF8", 4) == 0) return "image/gif";
    if (n > 12 && memcmp(d, "RIFF", 4) == 0 && memcmp(d + 8, "WEBP", 4) == 0) return "image/webp";
    if (n > 2 && memcmp(d, "BM", 2) == 0) return "image/bmp";
    return NULL;
}

static void add_base64(rv_string *out, const unsigned char *d, size_t n) {
    static const char digits[] = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
    for (size_t i = 0; i < n; i += 3) {
        uint32_t v = (uint32_t)d[i] << 16 | (i + 1 < n ? (uint32_t)d[i + 1] << 8 : 0) | (i + 2 < n ? d[i + 2] : 0);
        char four[4] = { digits[v >> 18], digits[v >> 12 & 63], i + 1 < n ? digits[v >> 6 & 63] : '=', i + 2 < n ? digits[v & 63] : '=' };
        rv_string_add(out, four, 4);
    }
}

/* A path, not an address: nothing with a scheme, and nothing another host could serve. */
static bool is_path(const char *link) { return *link && !strchr(link, ':') && strncmp(link, "//", 2) != 0 && !strchr(link, '\\'); }

static void add_boxes(rv_string *out, const rv_record *r, uint32_t id) {
    double w = r->page_width, h = r->page_height;
    for (uint32_t i = 0; w > 0 && h > 0 && i < r->schema->n_fields; i++)
        for (uint32_t b = 0; b < r->slots[i].n_boxes; b++) {
            const rv_box *box = &r->slots[i].boxes[b];
            rv_string_addf(
                out,
                "<a class=\"box b%u\" id=\"b%08x-%u-%u\" href=\"#f%08x-%u\" "
                "style=\"left:%.2f%%;top:%.2f%%;width:%.2f%%;height:%.2f%%\" title=\"",
                i, id, i, b, id, i, 100 * (double)box->x / w, 100 * (double)box->y / h, 100 * (double)box->width / w,
                100 * (double)box->height / h);
            esc(out, r->schema->fields[i].title);
            rv_string_addz(out, "\"></a>\n");
        }
}

static rv_status add_image(rv_string *out, const rv_record *r, const rv_page_image *image, uint32_t id, rv_error *err) {
    const char *mime = image->data ? mime_of(image->data, image->bytes) : NULL;
    if (image->data && !mime) return rv_fail(err, RV_ERR_UNSUPPORTED, "image: no form that browsers show (JPEG, PNG, GIF, WebP, BMP)");
    if (!image->data && !is_path(image->link)) return rv_fail(err, RV_ERR_ARGUMENT, "image link \"%.80s\": must be a path", image->link);
    rv_string_addz(out, "<figure><div>\n<img alt=\"The document\" src=\"");
    if (image->data) {
        rv_string_addf(out, "data:%s;base64,", mime);
        add_base64(out, image->data, image->bytes);
    } else esc(out, image->link);
    rv_string_addz(out, "\">\n");
    add_boxes(out, r, id);
    rv_string_addz(out, "</div></figure>\n");
    return RV_OK;
}

/* Field and boxes light up together. */
static void add_style(rv_string *out, const rv_record *r, uint32_t id) {
    rv_string_addz(out, "<style>\n");
    for (uint32_t i = 0; i < r->schema->n_fields; i++) {
        if (!r->slots[i].n_boxes) continue;
        rv_string_addf(out, "#d%08x:has(#f%08x-%u:hover) .b%u { opacity: 1; background: rgba(11, 98, 196, .18); }\n", id, id, i, i);
        rv_string_addf(out, "#d%08x:has(.b%u:hover) #f%08x-%u { background: var(--tint); }\n", id, i, id, i);
    }
    rv_string_addz(out, "</style>\n");
}

/* ---- fields ------------------------------------------------------------------------------------------ */

static bool is_number(const rv_field *field) {
    return field->kind == RV_KIND_MONEY || field->kind == RV_KIND_QUANTITY || field->kind == RV_KIND_PERCENT;
}

static const char *worst(const rv_record *r, uint32_t field) {
    int severity = -1;
    for (uint32_t i = 0; i < r->n_findings; i++)
        for (uint32_t f = 0; f < r->findings[i].n_fields; f++)
            if (r->findings[i].fields[f] == field && (int)r->findings[i].severity > severity) severity = (int)r->findings[i].severity;
    return severity <= (int)RV_SEVERITY_INFO ? "" : rv_severity_name((rv_severity)severity);      /* greyed it would look absent */
}

static void add_value(rv_string *out, const rv_record *r, uint32_t i) {
    const rv_slot *slot = &r->slots[i];
    rv_string text = { 0 };
    if (slot->n_items == 0) {
        rv_string_addz(out, "<span class=\"absent\">not found</span>");
        return;
    }
    rv_slot_text(r, i, &text);
    rv_string_addf(out, "<span class=\"%s\">", worst(r, i));
    esc(out, rv_string_text(&text));
    rv_string_addz(out, "</span>");
    if (slot->items->ambiguous) rv_string_addz(out, " <span class=\"badge warning\">day or month first?</span>");
    if (strcmp(rv_string_text(&text), slot->raw)) {
        rv_string_addz(out, "<span class=\"raw\">printed: ");
        esc(out, slot->raw);
        rv_string_addz(out, "</span>");
    }
    for (uint32_t a = 0; a < slot->n_alternatives; a++) {
        rv_string_addz(out, "<span class=\"other\">or: ");
        esc(out, slot->alternatives[a]);
        rv_string_addz(out, "</span>");
    }
    out->failed = out->failed || text.failed;
    rv_string_free(&text);
}

/* Nothing is a hundred per cent sure. */
static void add_percent(rv_string *out, double p) {
    if (p > 0.99) rv_string_addz(out, "over&nbsp;99&nbsp;%");
    else rv_string_addf(out, "%.0f&nbsp;%%", 100 * p);
}

static void add_field(rv_string *out, const rv_record *r, uint32_t i, uint32_t id) {
    const rv_slot *slot = &r->slots[i];
    rv_string_addf(out, "<tr id=\"f%08x-%u\"><th scope=\"row\" title=\"%s\">", id, i, r->schema->fields[i].key);
    if (slot->n_boxes) rv_string_addf(out, "<a href=\"#b%08x-%u-0\">", id, i);
    esc(out, r->schema->fields[i].title);
    rv_string_addz(out, slot->n_boxes ? "</a></th><td>" : "</th><td>");
    add_value(out, r, i);
    rv_string_addz(out, "</td><td>");
    if (slot->n_items && slot->confidence >= 0) {
        double p = (double)slot->confidence;
        rv_string_addf(out, "<meter min=\"0\" max=\"1\" low=\"%.2f\" high=\"0.9\" optimum=\"1\" value=\"%.3f\"></meter> ", r->schema->fields[i].min_confidence, p);
        add_percent(out, p);
    }
    if (slot->n_items && *slot->source) {
        rv_string_addz(out, "<span class=\"source\">");
        esc(out, slot->source);
        rv_string_addz(out, "</span>");
    }
    rv_string_addz(out, "</td></tr>\n");
}

static void add_table(rv_string *out, const rv_record *r, int32_t group) {
    uint32_t rows = rv_record_rows(r, group);
    if (!rows) return;
    rv_string_addz(out, "<table><caption>");
    esc(out, r->schema->groups[group]);
    rv_string_addz(out, "</caption><thead><tr>");
    for (uint32_t i = 0; i < r->schema->n_fields; i++) {
        if (r->schema->fields[i].group != group) continue;
        rv_string_addf(out, "<th scope=\"col\" class=\"%s\">", is_number(&r->schema->fields[i]) ? "number" : "");
        esc(out, r->schema->fields[i].title);
        if (r->slots[i].n_items && r->slots[i].confidence >= 0) {
            rv_string_addz(out, " <span class=\"sure\">");
            add_percent(out, (double)r->slots[i].confidence);
            rv_string_addz(out, "</span>");
        }
        rv_string_addz(out, "</th>");
    }
    rv_string_addz(out, "</tr></thead><tbody>\n");
    for (uint32_t row = 0; row < rows; row++) {
        rv_string_addz(out, "<tr>");
        for (uint32_t i = 0; i < r->schema->n_fields; i++) {
            if (r->schema->fields[i].group != group) continue;
            const rv_value *v = row < r->slots[i].n_items ? &r->slots[i].items[row] : NULL;
            bool absent = !v || v->state == RV_VALUE_ABSENT;
            rv_string_addf(out, "<td class=\"%s%s\">", is_number(&r->schema->fields[i]) ? "number " : "",
                           absent                         ? "absent"
                           : v->state == RV_VALUE_INVALID ? "error"
                                                          : "");
            esc(out, absent ? "\xe2\x80\x93" : v->text);
            rv_string_addz(out, "</td>");
        }
        rv_string_addz(out, "</tr>\n");
    }
    rv_string_addz(out, "</tbody></table>\n");
}

/* ---- findings -------------------------------------------------------------------------------------------- */

static void add_findings(rv_string *out, const rv_record *r) {
    rv_string_addz(out, r->n_findings ? "<ul>\n" : "");
    for (int s = RV_SEVERITY_ERROR; s >= RV_SEVERITY_INFO; s--) {
        for (uint32_t i = 0; i < r->n_findings; i++) {
            const rv_finding *f = &r->findings[i];
            if ((int)f->severity != s) continue;
            rv_string_addf(out, "<li class=\"%s\"><b>", rv_severity_name(f->severity));
            esc(out, f->message);
            rv_string_addz(out, "</b>");
            if (f->row >= 0) rv_string_addf(out, " Row %d.", f->row + 1);
            if (*f->actual) rv_string_addz(out, " Is "), esc(out, f->actual);
            if (*f->actual && *f->expected) rv_string_addz(out, ", expected "), esc(out, f->expected);
            if (*f->suggestion) rv_string_addz(out, "<span>"), esc(out, f->suggestion), rv_string_addz(out, "</span>");
            rv_string_addz(out, "<span>");
            esc(out, f->id);
            if (*f->source) rv_string_addz(out, " \xc2\xb7 "), esc(out, f->source);
            rv_string_addz(out, "</span></li>\n");
        }
    }
    rv_string_addz(out, r->n_findings ? "</ul>\n" : "");
}

static void add_badge(rv_string *out, rv_tristate t, const char *yes, const char *no) {
    if (t != RV_UNKNOWN) rv_string_addf(out, "<span class=\"badge %s\">%s</span>", t == RV_YES ? "good" : "error", t == RV_YES ? yes : no);
}

static const char *gst_words(rv_gst_class c) {
    static const char *const words[] = { "unknown", "all taxable", "mixed supplies", "GST-free", "not shown", "impossible" };
    return words[c];
}

static void add_header(rv_string *out, const rv_record *r) {
    const rv_compliance *c = &r->compliance;
    rv_string_addz(out, "<header><h1>");
    esc(out, *r->file ? r->file : r->schema->title);
    rv_string_addz(out, "</h1><span class=\"kind\">");
    esc(out, r->schema->title);
    rv_string_addz(out, "</span>");
    if (c->checked) {
        if (c->score >= 0) rv_string_addf(out, "<span class=\"badge %s\">score %.0f</span>", c->score >= 80 ? "good" : "warning", c->score);
        rv_string_addf(out, "<span class=\"badge %s\">%s</span>", c->needs_review ? "warning" : "good",
                       c->needs_review ? "needs review" : "no review needed");
        add_badge(out, c->tax_invoice_valid, "valid tax invoice", "no valid tax invoice");
        add_badge(out, c->deduction_evidence, "evidence for a deduction", "evidence incomplete");
        if (c->gst_class != RV_GST_UNKNOWN)
            rv_string_addf(out, "<span class=\"badge %s\">GST: %s</span>", c->gst_class == RV_GST_IMPOSSIBLE ? "error" : "info",
                           gst_words(c->gst_class));
    }
    rv_string_addz(out, "</header>\n");
}

rv_status rv_write_html(const rv_record *r, const rv_page_image *image, rv_string *out, rv_error *err) {
    uint32_t id = (uint32_t)rv_hash64(r->file, strlen(r->file));
    bool has_image = image && (image->data || image->link);
    rv_string_addf(out, "<article id=\"d%08x\">\n", id);
    add_header(out, r);
    if (has_image) add_style(out, r, id);
    rv_string_addf(out, "<div class=\"columns%s\">\n", has_image ? "" : " alone");
    rv_status st = has_image ? add_image(out, r, image, id, err) : RV_OK;
    if (st) return st;
    rv_string_addz(out, "<section>\n<table><tbody>\n");
    for (uint32_t i = 0; i < r->schema->n_fields; i++)
        if (r->schema->fields[i].group < 0) add_field(out, r, i, id);
    rv_string_addz(out, "</tbody></table>\n");
    for (uint32_t g = 0; g < r->schema->n_groups; g++) add_table(out, r, (int32_t)g);
    add_findings(out, r);
    rv_string_addz(out, "<footer>");
    esc(out, r->schema->name);
    rv_string_addz(out, " ");
    esc(out, r->schema->version);
    rv_string_addz(out, ". Checks warn and suggest; they change nothing and are not tax advice.</footer>\n</section>\n</div>\n</article>\n");
    return RV_OK;
}
