/* report.c - reading runs, and comparing them: see report.h. */
#include "bench/report.h"

#include <math.h>
#include <string.h>

#include "tools/files.h"
#include "tools/json_read.h"

enum { MOST_STAIRS = 100000 };           /* looked at for break-even                              */

/* ---- reading ---- */

static const char *text(const json_t *o, const char *key) {
    const char *t = json_string_value(json_object_get(o, key));
    return t ? t : "";
}

/* What is read, from which object, and what can be: beyond it plots and costs mean nothing. */
typedef struct quantity { const char *key; const json_t *of; double least, most, *to; } quantity;
static const double ANY = 1e-9, MS = 1e-6, MOST_MS = 1e10, MOST_BYTES = 1e15, MOST_RATE = 1e9, MOST_ELSE = 1e7;

static rv_status take(const quantity *q, size_t n, const char *file, rv_error *err) {
    rv_status st = RV_OK;
    for (size_t i = 0; st == RV_OK && i < n; i++) st = json_amount(q[i].of, q[i].key, q[i].least, q[i].most, file, q[i].to, err);
    return st;
}

static rv_status add(comparison *c, int source, const char *file, const json_t *profile, const json_t *phase, const char *kind, rv_error *err) {
    const json_t *o = json_object_get(phase, kind);
    if (!json_is_object(o) || c->n == MOST_ENTRIES) return RV_OK;
    entry *e = &c->entries[c->n];
    double kernels, slots, peak, limit, planned, watts_most, joules_most;
    *e = (entry){ .file = file, .source = source, .profile = text(profile, "name"), .gpu = text(o, "gpu"), .phase = text(phase, "name"), .weights = text(phase, "weights"),
                  .projection = strcmp(kind, "projection") == 0 };
    const quantity all[] = {
        { "kernels", phase, 1, 1000, &kernels }, { "slots", phase, 1, 1e6, &slots }, { "page_ms", o, MS, MOST_MS, &e->page_ms }, { "pages_minute", o, ANY, MOST_RATE, &e->pages_minute },
        { "alone_ms", o, MS, MOST_MS, &e->alone_ms }, { "first_token_ms", o, MS, MOST_MS, &e->first_token_ms }, { "vision_ms", o, MS, MOST_MS, &e->vision_ms },
        { "prefill_ms", o, MS, MOST_MS, &e->prefill_ms }, { "decode_tokens_s", o, ANY, MOST_RATE, &e->decode_tokens_s }, { "batch_ms", o, MS, MOST_MS, &e->batch_ms },
        { "peak_bytes", o, 1, MOST_BYTES, &peak }, { "memory_bytes", profile, 1, MOST_BYTES, &limit }, { "planned_bytes", phase, 1, MOST_BYTES, &planned },
        { "bandwidth_percent", o, ANY, MOST_ELSE, &e->bandwidth_percent }, { "watts", o, ANY, MOST_ELSE, &e->watts }, { "watts_at_most", o, ANY, MOST_ELSE, &watts_most },
        { "joules_page", o, ANY, MOST_RATE, &e->joules_page }, { "joules_page_at_most", o, ANY, MOST_RATE, &joules_most }, { "dollars_hour", o, ANY, MOST_ELSE, &e->dollars_hour },
        { "dollars_1000_pages", o, ANY, MOST_RATE, &e->dollars_1000 },
    };
    rv_status st = take(all, sizeof all / sizeof *all, file, err);
    if (st) return st;
    c->n++;
    e->kernels = (int)kernels;
    e->slots = (int)slots;
    e->peak_gb = peak / 1e9;
    e->limit_gb = limit / 1e9;
    e->planned_gb = planned / 1e9;
    if (e->watts <= 0) e->watts = watts_most;
    if (e->joules_page <= 0) e->joules_page = joules_most;
    return RV_OK;
}

static rv_status read_one(comparison *c, const char *path, rv_error *err) {
    json_error_t why;
    input in;
    rv_status st = input_read(path, &in, err);
    if (st) return st;
    json_t *root = json_read(in.data, in.bytes, 0, &why);
    input_free(&in);
    if (!root) return fail(err, RV_ERR_FORMAT, "%s: not JSON: %s (line %d)", path, why.text, why.line);
    const int source = (int)c->n_files;
    c->roots[c->n_files++] = root;
    if (strcmp(text(root, "command"), "profile") || !json_is_array(json_object_get(root, "phases")))
        return fail(err, RV_ERR_FORMAT, "%s: not what rvbench --gpu-profile NAME --json writes", path);
    size_t i;
    json_t *phase;
    json_array_foreach(json_object_get(root, "phases"), i, phase) {
        if ((st = add(c, source, path, json_object_get(root, "profile"), phase, "measured", err))) return st;
        if ((st = add(c, source, path, json_object_get(root, "profile"), phase, "projection", err))) return st;
    }
    return RV_OK;
}

static rv_status describe_page(char out[96], const json_t *root, const char *file, rv_error *err) {
    const json_t *page = json_object_get(root, "page");
    double tiles, asked, answered;
    const quantity all[] = { { "tiles", page, 1, MOST_ELSE, &tiles }, { "prompt_tokens", page, 1, MOST_ELSE, &asked }, { "answer_tokens", page, 1, MOST_ELSE, &answered } };
    rv_status st = take(all, sizeof all / sizeof *all, file, err);
    if (st == RV_OK) snprintf(out, 96, "pages of %.0f tiles with %.0f tokens asked and %.0f answered", tiles, asked, answered);
    return st;
}

/* Times and dollars of different pages say nothing beside one another. */
static rv_status check_page(comparison *c, const char *const *paths, rv_error *err) {
    char other[96];
    const size_t last = c->n_files - 1;
    rv_status st = describe_page(last ? other : c->page, c->roots[last], paths[last], err);
    if (st || last == 0 || strcmp(c->page, other) == 0) return st;
    return fail(err, RV_ERR_FORMAT, "%s has %s, %s has %s: measure both with the same --tiles, --prompt-tokens and --tokens", paths[0], c->page, paths[last], other);
}

rv_status comparison_read(const char *const *paths, size_t n, comparison *out, rv_error *err) {
    *out = (comparison){ .n = 0 };
    if (n > MOST_FILES) return fail(err, RV_ERR_ARGUMENT, "%zu files: at most %d go on one page", n, MOST_FILES);
    for (size_t i = 0; i < n; i++) {
        rv_status st = read_one(out, paths[i], err);
        if (st == RV_OK) st = check_page(out, paths, err);
        if (st) return st;
    }
    if (out->n == 0) return fail(err, RV_ERR_FORMAT, "the files hold no numbers");
    return RV_OK;
}

void comparison_free(comparison *c) {
    for (size_t i = 0; i < c->n_files; i++) json_decref(c->roots[i]);
    *c = (comparison){ .n = 0 };
}

/* ---- comparing ---- */

const entry *best_of(const comparison *c, int source) {
    const entry *found = NULL;
    for (size_t i = 0; i < c->n; i++) {
        const entry *e = &c->entries[i];
        if (e->source == source && strcmp(e->phase, "best") == 0 && e->page_ms > 0) found = e;      /* the projection stands behind what was measured, and is there only for another GPU */
    }
    return found;
}

static double pages_a_month(const entry *e) { return HOURS_A_MONTH * 3.6e6 / e->page_ms; }

double month_cost(const entry *e, double pages) { return ceil(pages / pages_a_month(e)) * e->dollars_hour * HOURS_A_MONTH; }

/* The first number of pages that `gpus` of them do not read in a month. */
static double next_stair(const entry *e, double gpus) { return floor(gpus * pages_a_month(e)) + 1; }

/* Beyond it the slopes decide whatever the stairs; INFINITY: they are the same. */
static double settled_from(const entry *cheap, const entry *dear) {
    const double month = HOURS_A_MONTH, slope = cheap->dollars_hour * month / pages_a_month(cheap) - dear->dollars_hour * month / pages_a_month(dear);
    return slope > 0 ? dear->dollars_hour * month / slope : slope < 0 ? cheap->dollars_hour * month / -slope : INFINITY;
}

/* Between two stairs of either nothing changes. */
crossing crossing_of(const entry *cheap, const entry *dear) {
    const double settled = settled_from(cheap, dear);
    crossing c = { 0, 1, false, 0 };
    double pages = 1, gpus_cheap = 1, gpus_dear = 1;
    for (int i = 0; i < MOST_STAIRS; i++) {
        const bool wins = month_cost(dear, pages) <= month_cost(cheap, pages);
        if (wins && c.first <= 0) c.first = pages;
        if (wins != c.dearer_wins) c.dearer_wins = wins, c.last = pages;
        if (pages > settled) return c;
        const double next_cheap = next_stair(cheap, gpus_cheap), next_dear = next_stair(dear, gpus_dear);
        pages = fmin(next_cheap, next_dear);
        if (next_cheap <= pages) gpus_cheap++;
        if (next_dear <= pages) gpus_dear++;
    }
    c.looked = pages - 1;
    return c;
}

static void tell_crossing(FILE *to, const entry *cheap, const entry *dear, text_fn name) {
    const crossing c = crossing_of(cheap, dear);
    name(to, dear->gpu);
    if (c.first <= 0) fputs(" costs more than ", to);
    else fputs(" costs no more than ", to);
    name(to, cheap->gpu);
    if (c.first <= 0 && c.looked <= 0) fputs(" for any number of pages", to);
    else if (c.first <= 0) fprintf(to, " up to %.0f pages a month (more were not looked at)", c.looked);
    else if (c.looked > 0) fprintf(to, " first at %.0f pages a month; up to %.0f, now one and now the other is cheaper, as whole GPUs are rented", c.first, c.looked);
    else if (!c.dearer_wins) fprintf(to, " first at %.0f pages a month, but never for good: from %.0f on it always costs more", c.first, c.last);
    else if (c.last > c.first) fprintf(to, " first at %.0f pages a month, and for good from %.0f on", c.first, c.last);
    else fprintf(to, " from %.0f pages a month on", c.first);
    fputc('.', to);
}

void crossings_tell(const comparison *c, FILE *to, const char *begin, text_fn name, const char *end) {
    for (size_t i = 0; i < c->n_files; i++)
        for (size_t k = 0; k < c->n_files; k++) {
            const entry *a = best_of(c, (int)i), *b = best_of(c, (int)k);
            if (i == k || !a || !b || a->dollars_hour <= 0 || b->dollars_hour <= a->dollars_hour) continue;
            fputs(begin, to);
            tell_crossing(to, a, b, name);
            fputs(end, to);
        }
}

/* ---- plain forms ---- */

bool is_control(char c) { return (unsigned char)c < 0x20 || c == 0x7f; }

static const char *kind(const entry *e) { return e->projection ? "projection" : "measured"; }

void report_csv(const comparison *c, FILE *to) {
    fprintf(to, "file,profile,gpu,kind,phase,weights,kernels,sequences,page_ms,pages_minute,alone_ms,first_token_ms,vision_ms,prefill_ms,decode_tokens_s,batch_ms,peak_gb,"
                "planned_gb,limit_gb,bandwidth_percent,watts,joules_page,dollars_hour,dollars_1000_pages\r\n");
    for (size_t i = 0; i < c->n; i++) {
        const entry *e = &c->entries[i];
        const double numbers[] = { e->page_ms, e->pages_minute, e->alone_ms, e->first_token_ms, e->vision_ms, e->prefill_ms, e->decode_tokens_s, e->batch_ms, e->peak_gb,
                                   e->planned_gb, e->limit_gb, e->bandwidth_percent, e->watts, e->joules_page, e->dollars_hour, e->dollars_1000 };
        const char *texts[] = { e->file, e->profile, e->gpu, kind(e), e->phase, e->weights };
        for (size_t k = 0; k < sizeof texts / sizeof *texts; k++) {
            fputc('"', to);
            for (const char *t = texts[k]; *t; t++) fprintf(to, *t == '"' ? "\"\"" : "%c", is_control(*t) ? ' ' : *t);
            fputs("\",", to);
        }
        fprintf(to, "sm%d,%d", e->kernels, e->slots);
        for (size_t k = 0; k < sizeof numbers / sizeof *numbers; k++) {
            if (numbers[k] > 0) fprintf(to, ",%.6g", numbers[k]);
            else fputc(',', to);
        }
        fputs("\r\n", to);
    }
}

/* Neither a table's border, nor HTML, a link, code or a heading. */
static void plain(FILE *to, const char *text) {
    for (; *text; text++) {
        if (*text == '|') fputs("&#124;", to);
        else if (*text == '<') fputs("&lt;", to);
        else if (*text == '>') fputs("&gt;", to);
        else if (*text == '&') fputs("&amp;", to);
        else if (strchr("\\`*[]", *text)) fprintf(to, "\\%c", *text);
        else fputc(is_control(*text) ? ' ' : *text, to);
    }
}

static void cell(FILE *to, double value, int digits) {
    if (value > 0) fprintf(to, " %.*f |", digits, value);
    else fputs(" - |", to);
}

void report_markdown(const comparison *c, FILE *to) {
    fprintf(to, "| GPU | profile | | phase | weights | sequences | ms a page | pages a minute | first token, ms | tok/s | peak GB | bandwidth %% | W | J a page | $ for 1,000 pages |\n"
                "|---|---|---|---|---|---|---|---|---|---|---|---|---|---|---|\n");
    for (size_t i = 0; i < c->n; i++) {
        const entry *e = &c->entries[i];
        const char *const texts[] = { e->gpu, e->profile, kind(e), e->phase, e->weights };
        for (size_t k = 0; k < sizeof texts / sizeof *texts; k++) {
            fputs("| ", to);
            plain(to, texts[k]);
            fputc(' ', to);
        }
        fprintf(to, "| %d |", e->slots);
        cell(to, e->page_ms, 1);
        cell(to, e->pages_minute, 1);
        cell(to, e->first_token_ms, 1);
        cell(to, e->decode_tokens_s, 1);
        cell(to, e->peak_gb, 2);
        cell(to, e->bandwidth_percent, 1);
        cell(to, e->watts, 0);
        cell(to, e->joules_page, 1);
        cell(to, e->dollars_1000, 3);
        fputc('\n', to);
    }
    fputs("\nWatts and joules of a projection are those of the board's limit: no more than that.\n", to);
    crossings_tell(c, to, "\nBreak-even: ", plain, "\n");
}
