/* profile_output.c - what a profile's run tells: measured here, projected there. */
#include <stdio.h>
#include <string.h>

#include "bench/profile.h"

/* ---- numbers of a phase ---- */

static double page_ms(const phase *f) { return f->pages ? f->batch_ms / f->pages : 0; }

static double dollars(double price, double ms) { return price * ms / 3.6e6 * 1e3; }

static double share_of(uint64_t part, uint64_t all) { return all ? 100.0 * (double)part / (double)all : 0; }

/* Bytes that decoding one sequence read, of what the GPU was measured to read in the same run. */
static double bandwidth_share(const profile_run *p, const phase *f) {
    const double read = p->r->before.read_bytes_s;
    return read > 0 ? 100 * f->decode_bytes * series_median(&f->decode) / read : 0;
}

/* ---- the GPU that is not there ---- */

typedef struct projected_phase { double ms[STAGES], page_alone_ms, page_ms; limiter by[STAGES]; } projected_phase;

static rv_weight_format format_of(const phase *f) { return f->plan.weights_format; }

static double measured_ms(const phase *f, stage s) {
    if (s == STAGE_VISION) return series_median(&f->vision);
    if (s == STAGE_PREFILL) return series_median(&f->prefill);
    return series_median(&f->decode) > 0 ? 1e3 / series_median(&f->decode) : 0;
}

/* The bound over there, times how far from its bound the same work was here.  What waited for another machine's bus says nothing of kernels. */
static projected_phase project_phase(const profile_run *p, const phase *f) {
    const rv_weight_format w = format_of(f);
    page_work one_page = p->page;
    one_page.streamed = f->plan.streamed;
    projected_phase r = { { 0 }, 0, 0, { 0 } };
    projected one = project(&p->profile, &p->work, w, &one_page);
    memcpy(r.ms, one.ms, sizeof r.ms);
    memcpy(r.by, one.by, sizeof r.by);
    /* Volta's tensor instructions are emulated by newer GPUs: what was measured there says nothing of a V100. */
    const bool alike = f->measured && (p->profile.kernels != 70 || p->here.kernels == 70);
    for (stage s = STAGE_VISION; s < STAGES && alike; s++) {
        limiter here, there;
        stage_work work = stage_work_of(&p->work, w, &one_page, s);
        double bound_here = bound_ms(&p->here, w, s, &work, 1, &here), bound_there = bound_ms(&p->profile, w, s, &work, 1, &there);
        if (bound_here > 0 && measured_ms(f, s) > 0 && work.bus <= 0) r.ms[s] = bound_there * measured_ms(f, s) / bound_here;
    }
    r.page_alone_ms = r.ms[STAGE_VISION] + r.ms[STAGE_PREFILL] + r.ms[STAGE_DECODE] * one_page.answer;
    one_page.rows = f->plan.slots;
    projected many = project(&p->profile, &p->work, w, &one_page);
    double step = one.ms[STAGE_DECODE] > 0 ? r.ms[STAGE_DECODE] * many.ms[STAGE_DECODE] / one.ms[STAGE_DECODE] : 0;
    r.page_ms = r.ms[STAGE_VISION] + r.ms[STAGE_PREFILL] + step * one_page.answer / one_page.rows;
    return r;
}

/* ---- the table ---- */

static void row(const char *name, double value, int digits, const char *unit, const char *note) {
    if (value > 0) printf("  %-26s %12.*f %-10s %s\n", name, digits, value, unit, note);
    else printf("  %-26s %12s %-10s %s\n", name, "-", unit, note);
}

static void print_measured(const profile_run *p, const phase *f) {
    char note[160];
    snprintf(note, sizeof note, "%u pages, %u at a time", f->pages, f->session.slots);
    row("time per page", page_ms(f), 1, "ms", note);
    row("pages a minute", page_ms(f) > 0 ? 6e4 / page_ms(f) : 0, 1, "", "");
    row("total batch time", f->batch_ms / 1e3, 2, "s", "");
    row("one page alone", series_median(&f->page), 1, "ms", "image to last token");
    row("first token", series_median(&f->first_token), 1, "ms", "of one page alone");
    row("vision / prefill", series_median(&f->vision), 1, "ms", "");
    row("", series_median(&f->prefill), 1, "ms", "");
    row("decode", series_median(&f->decode), 1, "tok/s", "one sequence");
    snprintf(note, sizeof note, "of the %.0f GB/s this GPU was measured to read", p->r->before.read_bytes_s / 1e9);
    row("bandwidth share", bandwidth_share(p, f), 1, "%", note);
    snprintf(note, sizeof note, "%s; %.1f %% of the profile's %.1f GB (planned %.2f GB)",
             p->peak_of_all ? "of the whole GPU, other processes' too (NVML does not tell)" : "context included", share_of(f->peak, p->profile.memory),
             (double)p->profile.memory / 1e9, (double)f->plan.total / 1e9);
    row("peak device memory", (double)f->peak / 1e9, 2, "GB", note);
    row("power", f->watts, 0, "W", f->watts > 0 ? "mean while the pages were read" : p->no_power ? p->no_power : "");
    row("energy a page", f->joules / f->pages, 1, "J", "");
    snprintf(note, sizeof note, "at %.2f dollars an hour for this GPU", p->price_here);
    row("dollars for 1,000 pages", dollars(p->price_here, page_ms(f)), 3, "", p->price_here > 0 ? note : "no price is known for this GPU");
    row("load / session", f->load_ms / 1e3, 2, "s", "");
}

static void print_projected(const profile_run *p, const phase *f) {
    projected_phase r = project_phase(p, f);
    char note[160];
    printf("  projection for %s (nothing was measured on one):\n", p->profile.title);
    snprintf(note, sizeof note, "%u at a time", f->plan.slots);
    row("  time per page", r.page_ms, 1, "ms", note);
    row("  pages a minute", r.page_ms > 0 ? 6e4 / r.page_ms : 0, 1, "", "");
    row("  one page alone", r.page_alone_ms, 1, "ms", "");
    for (stage s = STAGE_VISION; s < STAGES; s++) {
        char name[40];
        snprintf(name, sizeof name, "  %s", stage_name(s));
        snprintf(note, sizeof note, "bound by %s", limit_name(r.by[s]));
        row(name, r.ms[s], 1, "ms", note);
    }
    snprintf(note, sizeof note, "at its limit of %.0f W: no more than that", p->profile.watts);
    row("  energy a page", p->profile.watts * r.page_ms / 1e3, 1, "J", note);
    snprintf(note, sizeof note, "at %.2f dollars an hour", p->price);
    row("  dollars for 1,000 pages", dollars(p->price, r.page_ms), 3, "", p->price > 0 ? note : "no price is known: give --price");
}

static bool is_here(const profile_run *p) { return !p->no_gpu && strcmp(p->profile.name, p->here.name) == 0; }

static void print_phase(const profile_run *p, const phase *f) {
    const rv_memory *m = &f->plan;
    printf("\n%s\n  %s weights, %s products, sm%d kernels, %u sequence%s of %u tokens; plan %.2f GB of %.2f GB%s%s\n", f->title, weights_name(m->weights_format),
           compute_name(m->compute), f->measured ? f->model.kernels : m->kernels, m->slots, m->slots == 1 ? "" : "s", m->context, (double)m->total / 1e9, (double)m->available / 1e9,
           m->steps ? "; to make it fit: " : "", steps_text(m->steps).text);
    if (f->measured) {
        printf("  measured on %s:\n", p->r->device.name);
        print_measured(p, f);
    }
    if (!m->fits) printf("  it does not fit: %.2f GB too much, so nothing is projected\n", (double)(m->total - m->available) / 1e9);
    else if (!is_here(p)) print_projected(p, f);
}

void profile_print(const profile_run *p) {
    printf("rvbench: rvengine %s, profile %s (%s)\n", rv_version(), p->profile.name, p->profile.title);
    if (p->no_gpu)
        printf("no GPU is usable here: %s\nso nothing is measured: what follows are the plan for a %s and projections.\n", p->why.message, p->profile.title);
    else if (is_here(p)) printf("measured on %s\n", p->r->device.name);
    else printf("measured on %s, which is another GPU: with the profile's kernels, formats and memory limit.\n", p->r->device.name);
    printf("a page: %u tile%s, a prompt of %u tokens, an answer of %u\n", p->page.tiles, p->page.tiles == 1 ? "" : "s", p->page.prompt, p->page.answer);
    for (int i = 0; i < PHASES; i++) print_phase(p, &p->phases[i]);
    printf("\nphase 3, cost, power and break-even between two GPUs: rvbench report A.json B.json\n");
    if (!is_here(p)) printf("projections: %s\n", projection_source());
}

/* ---- JSON ---- */

static json_t *measured_json(const profile_run *p, const phase *f) {
    if (!f->measured) return json_null();
    json_t *root = json_pack("{s:s, s:i, s:i, s:f, s:f, s:f, s:f, s:f, s:f, s:f, s:f, s:I, s:f, s:f, s:f}", "gpu", p->r->device.name, "pages", (int)f->pages, "slots",
                             (int)f->session.slots, "page_ms", page_ms(f), "pages_minute", page_ms(f) > 0 ? 6e4 / page_ms(f) : 0, "batch_ms", f->batch_ms, "alone_ms",
                             series_median(&f->page), "first_token_ms", series_median(&f->first_token), "vision_ms", series_median(&f->vision), "prefill_ms",
                             series_median(&f->prefill), "decode_tokens_s", series_median(&f->decode), "peak_bytes", (json_int_t)f->peak, "bandwidth_percent",
                             bandwidth_share(p, f), "load_ms", f->load_ms, "session_ms", f->session_ms);
    if (root) json_object_set_new(root, "peak_of", json_string(p->peak_of_all ? "the whole GPU" : "this process"));
    if (root && f->joules > 0) {
        json_object_set_new(root, "watts", json_real(f->watts));
        json_object_set_new(root, "joules_page", json_real(f->joules / f->pages));
    }
    if (root && p->price_here > 0) {
        json_object_set_new(root, "dollars_hour", json_real(p->price_here));
        json_object_set_new(root, "dollars_1000_pages", json_real(dollars(p->price_here, page_ms(f))));
    }
    return root;
}

static json_t *projected_json(const profile_run *p, const phase *f) {
    if (is_here(p) || !f->plan.fits) return json_null();
    projected_phase r = project_phase(p, f);
    json_t *root = json_pack("{s:s, s:f, s:f, s:f, s:f, s:f, s:f, s:s, s:s, s:s, s:f, s:f}", "gpu", p->profile.title, "page_ms", r.page_ms, "pages_minute",
                             r.page_ms > 0 ? 6e4 / r.page_ms : 0, "alone_ms", r.page_alone_ms, "vision_ms", r.ms[STAGE_VISION], "prefill_ms", r.ms[STAGE_PREFILL], "decode_tokens_s",
                             r.ms[STAGE_DECODE] > 0 ? 1e3 / r.ms[STAGE_DECODE] : 0, "vision_bound", limit_name(r.by[STAGE_VISION]), "prefill_bound", limit_name(r.by[STAGE_PREFILL]),
                             "decode_bound", limit_name(r.by[STAGE_DECODE]), "watts_at_most", p->profile.watts, "joules_page_at_most", p->profile.watts * r.page_ms / 1e3);
    if (root && p->price > 0) {
        json_object_set_new(root, "dollars_hour", json_real(p->price));
        json_object_set_new(root, "dollars_1000_pages", json_real(dollars(p->price, r.page_ms)));
    }
    return root;
}

static json_t *phase_json(const profile_run *p, const phase *f) {
    const rv_memory *m = &f->plan;
    return json_pack("{s:s, s:s, s:s, s:s, s:i, s:i, s:i, s:I, s:I, s:b, s:I, s:s, s:o, s:o}", "name", f->name, "title", f->title, "weights", weights_name(m->weights_format), "compute",
                     compute_name(m->compute), "kernels", (int)(f->measured ? f->model.kernels : m->kernels), "slots", (int)m->slots, "context", (int)m->context,
                     "planned_bytes", (json_int_t)m->total, "limit_bytes", (json_int_t)m->available, "fits", m->fits != 0, "streamed_bytes", (json_int_t)m->streamed,
                     "steps", steps_text(m->steps).text, "measured", measured_json(p, f), "projection", projected_json(p, f));
}

json_t *profile_json(const profile_run *p) {
    json_t *phases = json_array();
    for (int i = 0; i < PHASES; i++) json_array_append_new(phases, phase_json(p, &p->phases[i]));
    json_t *profile = json_pack("{s:s, s:s, s:i, s:I, s:I, s:f}", "name", p->profile.name, "title", p->profile.title, "capability", (int)p->profile.capability, "memory_bytes",
                                (json_int_t)p->profile.memory, "usable_bytes", (json_int_t)p->profile.usable, "watts", p->profile.watts);
    json_t *root = json_pack("{s:s, s:s, s:s, s:o, s:o, s:o, s:o, s:o, s:s}", "tool", "rvbench", "command", "profile", "version", rv_version(), "build", json_build(), "profile", profile,
                             "device", p->no_gpu ? json_null() : json_device(&p->r->device), "page",
                             json_pack("{s:i, s:i, s:i}", "tiles", (int)p->page.tiles, "prompt_tokens", (int)p->page.prompt, "answer_tokens", (int)p->page.answer), "phases", phases,
                             "projection_source", projection_source());
    if (root && p->no_gpu) json_object_set_new(root, "why_nothing_is_measured", json_textz(p->why.message));
    if (root && !p->no_gpu) json_object_set_new(root, "ceilings", ceilings_json(&p->r->before));
    return root;
}
