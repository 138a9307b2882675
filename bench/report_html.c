/* report_html.c - one page that needs nothing else: no script, no font, no network.
 *
 * The one idea: a plot is bars on one scale, labelled with their numbers; what was measured is filled, what is projected is
 * hatched, and the colours follow the reader's light or dark setting.
 */
#include <math.h>
#include <string.h>

#include "bench/report.h"

enum { WIDTH = 600, LABELS = 225, VALUES = 135, BAR = 20, GAP = 8, CURVE_HEIGHT = 260, CURVE_POINTS = 120, COLOURS = 6 };

static const char STYLE[] =
    ":root{--page:#fcfcfb;--ink:#22221f;--soft:#6b6a63;--line:#dddcd5;--c0:#2a6fbb;--c1:#c2571a;--c2:#2f8f5b;--c3:#8a4fb0;--c4:#a8841a;--c5:#b03a5b}\n"
    "@media(prefers-color-scheme:dark){:root{--page:#191917;--ink:#ecebe4;--soft:#a3a299;--line:#3a3935;--c0:#6fb0f5;--c1:#f0935a;--c2:#6cc795;--c3:#c394e6;--c4:#d9b85a;--c5:#ea86a2}}\n"
    "body{background:var(--page);color:var(--ink);font:15px/1.5 system-ui,sans-serif;max-width:1040px;margin:2rem auto;padding:0 1rem}\n"
    "h1{font-size:1.6rem}h2{font-size:1.15rem;margin-top:2rem}p,figcaption{color:var(--soft)}figure{margin:1rem 0}\n"
    "table{border-collapse:collapse;width:100%;font-size:13px;font-variant-numeric:tabular-nums}div.wide{overflow-x:auto}\n"
    "th,td{border-bottom:1px solid var(--line);padding:.3rem .5rem;text-align:right;white-space:nowrap}th:first-child,td:first-child{text-align:left}\n"
    "div.plots{display:grid;grid-template-columns:repeat(auto-fit,minmax(440px,1fr));gap:0 2rem}svg{width:100%;height:auto;max-width:760px}svg text{fill:var(--ink);font:12px system-ui,sans-serif}svg .soft{fill:var(--soft)}svg .axis{stroke:var(--line)}\n";

/* Of a file, so of anybody: never markup. */
static void escaped(FILE *to, const char *text) {
    for (; *text; text++) {
        if (*text == '<') fputs("&lt;", to);
        else if (*text == '>') fputs("&gt;", to);
        else if (*text == '&') fputs("&amp;", to);
        else if (*text == '"') fputs("&quot;", to);
        else if (*text == '\'') fputs("&#39;", to);
        else fputc(is_control(*text) ? ' ' : *text, to);
    }
}

static void escaped_cell(FILE *to, const char *text) {
    fputs("<td>", to);
    escaped(to, text);
    fputs("</td>", to);
}

/* ---- bars ---- */

typedef double (*value_fn)(const entry *e);
static double v_page(const entry *e) { return e->page_ms; }
static double v_minute(const entry *e) { return e->pages_minute; }
static double v_first(const entry *e) { return e->first_token_ms; }
static double v_decode(const entry *e) { return e->decode_tokens_s; }
static double v_peak(const entry *e) { return e->peak_gb > 0 ? e->peak_gb : e->planned_gb; }
static double v_joules(const entry *e) { return e->joules_page; }
static double v_dollars(const entry *e) { return e->dollars_1000; }
static double v_bandwidth(const entry *e) { return e->bandwidth_percent; }

typedef struct plot { const char *title, *unit, *note; value_fn value; int digits; } plot;
static const plot plots[] = {
    { "Time per page", "ms", "all pages of a batch, divided by their number; less is better", v_page, 0 },
    { "Pages a minute", "", "more is better", v_minute, 0 },
    { "First token", "ms", "of one page alone: image to first token", v_first, 0 },
    { "Decode", "tokens/s", "one sequence", v_decode, 0 },
    { "Memory", "GB", "measured: peak device use, contexts included; projected: the plan", v_peak, 1 },
    { "Share of the memory's speed while decoding", "%", "of what this GPU was measured to read", v_bandwidth, 0 },
    { "Energy a page", "J", "projected: at the board's power limit, so no more than that", v_joules, 1 },
    { "Dollars for 1,000 pages", "$", "at the price of an hour", v_dollars, 3 },
};

static void bars(FILE *to, const comparison *c, const char *phase, const plot *p) {
    double most = 0;
    int n = 0, y = 0;
    for (size_t i = 0; i < c->n; i++)
        if (strcmp(c->entries[i].phase, phase) == 0 && p->value(&c->entries[i]) > 0) n++, most = fmax(most, p->value(&c->entries[i]));
    if (n == 0) return;
    fprintf(to, "<figure><figcaption><b>%s</b>%s%s: %s</figcaption>\n<svg viewBox=\"0 0 %d %d\" role=\"img\" aria-label=\"%s\">\n", p->title, *p->unit ? ", " : "", p->unit, p->note,
            WIDTH, n * (BAR + GAP), p->title);
    for (size_t i = 0; i < c->n; i++) {
        const entry *e = &c->entries[i];
        const double v = p->value(e), width = (WIDTH - LABELS - VALUES) * v / most;
        if (strcmp(e->phase, phase) || v <= 0) continue;
        fprintf(to, "<text x=\"%d\" y=\"%d\" text-anchor=\"end\">", LABELS - 8, y + 15);
        escaped(to, e->gpu);
        if (!e->projection) fputs(", as ", to), escaped(to, e->profile);
        fputs("</text>", to);
        fprintf(to, "<rect x=\"%d\" y=\"%d\" width=\"%.1f\" height=\"%d\" rx=\"3\" fill=\"%s%d%s\"%s%d%s/>", LABELS, y, fmax(width, 1), BAR, e->projection ? "url(#h" : "var(--c",
                e->source % COLOURS, ")", e->projection ? " stroke=\"var(--c" : " stroke=\"var(--c", e->source % COLOURS, ")\"");
        fprintf(to, "<text x=\"%.1f\" y=\"%d\">%.*f</text><text class=\"soft\" x=\"%.1f\" y=\"%d\">%s</text>\n", LABELS + width + 6, y + 15, p->digits, v,
                LABELS + width + 12 + 7.0 * snprintf(NULL, 0, "%.*f", p->digits, v), y + 15, e->projection ? "projection" : "");
        y += BAR + GAP;
    }
    fputs("</svg></figure>\n", to);
}

/* ---- cost by pages ---- */

static void curve(FILE *to, const comparison *c) {
    double most_pages = 0, most_cost = 0;
    int lines = 0;
    for (size_t i = 0; i < c->n_files; i++) {
        const entry *e = best_of(c, (int)i);
        if (!e || e->dollars_hour <= 0) continue;
        lines++;
        most_pages = fmax(most_pages, 2 * HOURS_A_MONTH * 3.6e6 / e->page_ms);
    }
    if (lines == 0) return;
    for (size_t i = 0; i < c->n_files; i++) {
        const entry *e = best_of(c, (int)i);
        if (e && e->dollars_hour > 0) most_cost = fmax(most_cost, month_cost(e, most_pages));
    }
    fprintf(to, "<figure><figcaption><b>Dollars a month, by pages a month</b>: whole GPUs rented for %d hours; steps are further GPUs</figcaption>\n"
                "<svg viewBox=\"0 0 %d %d\" role=\"img\" aria-label=\"cost by pages\">\n", HOURS_A_MONTH, WIDTH, CURVE_HEIGHT + 40 + 18 * lines);
    fprintf(to, "<path class=\"axis\" fill=\"none\" d=\"M70 10V%dH%d\"/><text class=\"soft\" x=\"64\" y=\"18\" text-anchor=\"end\">$%.0f</text><text class=\"soft\" x=\"%d\" y=\"%d\" "
                "text-anchor=\"end\">%.2f million pages</text>\n", CURVE_HEIGHT, WIDTH, most_cost, WIDTH, CURVE_HEIGHT + 16, most_pages / 1e6);
    int y = CURVE_HEIGHT + 40;
    for (size_t i = 0; i < c->n_files; i++) {
        const entry *e = best_of(c, (int)i);
        if (!e || e->dollars_hour <= 0) continue;
        fprintf(to, "<path fill=\"none\" stroke-width=\"2\" stroke=\"var(--c%d)\"%s d=\"", (int)i % COLOURS, e->projection ? " stroke-dasharray=\"6 4\"" : "");
        for (int k = 1; k <= CURVE_POINTS; k++) {
            double pages = most_pages * k / CURVE_POINTS;
            fprintf(to, "%s%.1f %.1f", k == 1 ? "M" : "L", 70 + (WIDTH - 70.0) * k / CURVE_POINTS, CURVE_HEIGHT - (CURVE_HEIGHT - 10) * month_cost(e, pages) / most_cost);
        }
        fprintf(to, "\"/><rect x=\"70\" y=\"%d\" width=\"12\" height=\"12\" fill=\"var(--c%d)\"/><text x=\"88\" y=\"%d\">", y - 11, (int)i % COLOURS, y);
        escaped(to, e->gpu);
        fputs(", ", to);
        escaped(to, e->weights);
        fprintf(to, ", %s, $%.2f an hour</text>\n", e->projection ? "projection" : "measured", e->dollars_hour);
        y += 18;
    }
    fputs("</svg></figure>\n", to);
}

static void break_evens(FILE *to, const comparison *c) {
    fputs("<ul>\n", to);
    crossings_tell(c, to, "<li>", escaped, "</li>\n");
    fputs("</ul>\n", to);
}

/* ---- the table and the page ---- */

static void cell(FILE *to, double value, int digits) {
    if (value > 0) fprintf(to, "<td>%.*f</td>", digits, value);
    else fputs("<td>-</td>", to);
}

static void table(FILE *to, const comparison *c) {
    static const char *const heads[] = { "GPU", "profile", "", "phase", "weights", "kernels", "sequences", "ms a page", "pages/min", "one page, ms", "first token, ms", "vision, ms",
                                         "prefill, ms", "tok/s", "batch, s", "peak GB", "of GB", "bandwidth %", "W", "J a page", "$ an hour", "$ for 1,000" };
    fputs("<div class=\"wide\"><table><tr>", to);
    for (size_t i = 0; i < sizeof heads / sizeof *heads; i++) fprintf(to, "<th>%s</th>", heads[i]);
    fputs("</tr>\n", to);
    for (size_t i = 0; i < c->n; i++) {
        const entry *e = &c->entries[i];
        const char *const texts[] = { e->gpu, e->profile, e->projection ? "projection" : "measured", e->phase, e->weights };
        fputs("<tr>", to);
        for (size_t k = 0; k < sizeof texts / sizeof *texts; k++) escaped_cell(to, texts[k]);
        fprintf(to, "<td>sm%d</td><td>%d</td>", e->kernels, e->slots);
        const struct { double value; int digits; } cells[] = { { e->page_ms, 1 }, { e->pages_minute, 1 }, { e->alone_ms, 1 }, { e->first_token_ms, 1 }, { e->vision_ms, 1 },
            { e->prefill_ms, 1 }, { e->decode_tokens_s, 1 }, { e->batch_ms / 1e3, 2 }, { e->peak_gb, 2 }, { e->limit_gb, 1 }, { e->bandwidth_percent, 1 }, { e->watts, 0 },
            { e->joules_page, 1 }, { e->dollars_hour, 2 }, { e->dollars_1000, 3 } };
        for (size_t k = 0; k < sizeof cells / sizeof *cells; k++) cell(to, cells[k].value, cells[k].digits);
        fputs("</tr>\n", to);
    }
    fputs("</table></div>\n", to);
}

static void hatches(FILE *to) {
    fputs("<svg width=\"0\" height=\"0\" style=\"position:absolute\"><defs>", to);
    for (int i = 0; i < COLOURS; i++)
        fprintf(to, "<pattern id=\"h%d\" width=\"6\" height=\"6\" patternUnits=\"userSpaceOnUse\" patternTransform=\"rotate(45)\"><rect width=\"2.2\" height=\"6\" fill=\"var(--c%d)\"/></pattern>", i, i);
    fputs("</defs></svg>\n", to);
}

void report_html(const comparison *c, FILE *to) {
    static const struct { const char *name, *title, *text; } phases[] = {
        { "same", "Phase 1: the same settings on every GPU", "int8 weights, one sequence: what the hardware makes of the same work." },
        { "best", "Phase 2: each profile at its best", "The format that its memory allows, and as many sequences together as its plan carries." },
    };
    fprintf(to, "<!doctype html>\n<html lang=\"en\"><head><meta charset=\"utf-8\"><meta name=\"viewport\" content=\"width=device-width\"><title>rvbench report</title>\n<style>%s</style></head>\n<body>\n", STYLE);
    hatches(to);
    fprintf(to, "<h1>Pages read, GPU by GPU</h1>\n<p>rvengine %s, Llama-3.2-11B-Vision shape unless a model was named. Filled bars were measured on the GPU they are labelled with, under the "
                "profile's kernels, formats and memory limit. Hatched bars are projections for a GPU that was not there: counted work over its rates. Everywhere %s.</p>\n", rv_version(), c->page);
    for (size_t i = 0; i < sizeof phases / sizeof *phases; i++) {
        fprintf(to, "<h2>%s</h2>\n<p>%s</p>\n<div class=\"plots\">\n", phases[i].title, phases[i].text);
        for (size_t k = 0; k < sizeof plots / sizeof *plots; k++) bars(to, c, phases[i].name, &plots[k]);
        fputs("</div>\n", to);
    }
    fputs("<h2>Phase 3: cost and power</h2>\n<p>Of each file the GPU of its profile, at its best.</p>\n", to);
    curve(to, c);
    break_evens(to, c);
    fputs("<h2>All numbers</h2>\n", to);
    table(to, c);
    fputs("<p>Watts and joules of a projection are those of the board's power limit. Prices are settable (--price).</p>\n</body></html>\n", to);
}
