/* plan_profile.c - see plan_profile.h. */
#include "tools/plan_profile.h"

#include <stdio.h>
#include <string.h>

/* A context and the kernels it has loaded, as seen on an H100 with CUDA 13. */
#define CONTEXT_BYTES UINT64_C(550000000)
#define GB 1e9

const page_work story_page = { .tiles = 4, .prompt = 200, .answer = 100, .rows = 1 };

/* What the owners of V100s ask for, an image at a time. */
static const struct { double memory_gb, load_s, image_s, headroom_gb; } targets = { 16, 30, 2, 4 };

static const char *const class_rules[] = { "min(8 GB, 20 %)", "min(20 GB, 15 %)", "min(6 GB, 20 %)", "min(12 GB, 20 %)", "min(12 GB, 20 %)", "min(4 GB, 25 %)" };
static const char *const class_names[] = { "other", "high-memory datacenter", "mid-range datacenter", "workstation", "large consumer", "legacy" };

/* ---- finding out ---- */

/* A plan in one format, with one sequence. */
static rv_status plan_one(const load_choice *load, const rv_session_options *room, rv_weight_format weights, rv_embedding embedding, rv_on_oom on_oom, rv_memory *out,
                          rv_error *err) {
    rv_session_options one = *room;
    one.slots = 1;
    rv_load_options o = load_options_for(load, &one);
    o.weights = weights;
    o.embedding = embedding;
    o.on_oom = on_oom;
    o.log = NULL;
    *out = (rv_memory){ .size = sizeof *out };
    return rv_memory_plan(load->model, &o, &one, out, err);
}

static rv_status measure_sizes(const load_choice *load, const rv_session_options *room, rv_sizes *out, rv_error *err) {
    rv_memory device, host;
    rv_status st = RV_OK;
    *out = (rv_sizes){ .size = sizeof *out };
    for (rv_weight_format w = RV_WEIGHTS_16BIT; w <= RV_WEIGHTS_NF4; w++) {
        if ((st = plan_one(load, room, w, RV_EMBEDDING_DEVICE, RV_OOM_FAIL, &device, err))) return st;
        out->weights[w] = device.weights;
    }
    if ((st = plan_one(load, room, RV_WEIGHTS_NF4, RV_EMBEDDING_HOST, RV_OOM_FAIL, &host, err))) return st;
    out->tables = device.weights - host.weights;
    out->rest = device.total - device.weights;
    return RV_OK;
}

static rv_status measure_targets(const load_choice *load, const rv_session_options *room, const model_work *work, profile_story *s, rv_error *err) {
    static const rv_weight_format formats[] = { RV_WEIGHTS_INT8, RV_WEIGHTS_NF4 };
    for (int i = 0; i < 2; i++) {
        s->rows[i].weights = formats[i];
        rv_status st = plan_one(load, room, formats[i], load->embedding, load->on_oom, &s->rows[i].memory, err);
        if (st) return st;
        page_work page = story_page;
        page.streamed = s->rows[i].memory.streamed;
        s->rows[i].speed = project(&s->profile, work, formats[i], &page);
        s->rows[i].peak = s->rows[i].memory.total + CONTEXT_BYTES;
    }
    return RV_OK;
}

/* ---- the format, and why ---- */

static const char *format_word(rv_weight_format w) {
    static const char *const words[] = { [RV_WEIGHTS_16BIT] = "16 bit", [RV_WEIGHTS_INT8] = "int8", [RV_WEIGHTS_NF4] = "NF4", [RV_WEIGHTS_FP4] = "FP4" };
    return w > 0 && w < (int)(sizeof words / sizeof *words) && words[w] ? words[w] : "?";
}

/* "; 16 bit would take 22.6 GB": of the larger formats that were not chosen; of a checkpoint that is quantised already there are none. */
static void add_larger(const load_choice *load, const rv_session_options *room, rv_weight_format chosen, char *out, size_t bytes) {
    size_t at = 0;
    *out = '\0';
    for (rv_weight_format w = RV_WEIGHTS_16BIT; w < chosen && at < bytes && load->weights == RV_WEIGHTS_AUTO; w++) {
        rv_memory larger;
        rv_error err;
        if (plan_one(load, room, w, RV_EMBEDDING_DEVICE, RV_OOM_FAIL, &larger, &err) == RV_OK && larger.weights_format == w)
            at += (size_t)snprintf(out + at, bytes - at, "%s%s would take %.1f GB", at ? ", " : "; ", format_word(w), (double)larger.total / GB);
    }
}

/* The plan in a line, with one sequence. */
static rv_status explain(const load_choice *load, const rv_session_options *room, const rv_memory *plan, profile_story *s, rv_error *err) {
    rv_load_options o = load_options_for(load, room);
    rv_session_options one = *room;
    rv_memory m = { .size = sizeof m };
    char larger[120], rooms[64];
    o.log = NULL;
    one.slots = plan->fits ? 1 : plan->slots;
    rv_status st = rv_memory_plan(load->model, &o, &one, &m, err);       /* the same weights: they depend on the options alone */
    if (st) return st;
    s->precision.weights = m.weights_format;
    s->precision.embedding = m.embedding;
    s->precision.fits = plan->fits;
    s->precision.needed = m.total;
    *larger = '\0';                                      /* whose sizes are of one sequence too     */
    if (one.slots == 1) add_larger(load, room, m.weights_format, larger, sizeof larger);
    snprintf(rooms, sizeof rooms, "%.1f GB of its %.0f GB are %s", (double)m.available / GB, (double)s->profile.memory / GB,
             load->memory_limit && m.available == load->memory_limit ? "allowed" : "usable");
    snprintf(s->precision.reason, sizeof s->precision.reason, "%s%s: %s%.1f GB with %s%s; %s%s", format_word(m.weights_format),
             m.steps & RV_STEP_HEAD ? " and lm_head in int8" : "", plan->fits ? "" : "does not fit: it takes ", (double)m.total / GB, one.slots == 1 ? "one sequence" : "its sequences",
             m.streamed ? ", its large tables and some layers in host memory" : m.host_weights ? ", its large tables in host memory" : "", rooms, larger);
    return RV_OK;
}

rv_status story_tell(const load_choice *load, const rv_session_options *room, uint32_t devices, const rv_memory *plan, profile_story *out, rv_error *err) {
    model_work work;
    *out = (profile_story){ .profile = { .size = sizeof out->profile }, .precision = { .size = sizeof out->precision }, .devices = devices };
    rv_status st = rv_profile_find(load->profile, &out->profile, err);
    if (st == RV_OK && devices < 2) st = explain(load, room, plan, out, err);
    else if (st == RV_OK && (st = measure_sizes(load, room, &out->sizes, err)) == RV_OK)
        st = rv_profile_decide(&out->profile, devices, plan->available, &out->sizes, &out->precision, err);
    out->with_targets = out->profile.memory_class == RV_GPU_LEGACY;
    if (st == RV_OK && out->with_targets) {
        st = model_work_read(load->model, &work, err);
        if (st == RV_OK) st = measure_targets(load, room, &work, out, err);
    }
    return st;
}

/* ---- telling ---- */

typedef struct verdict { const char *name, *target; double value; const char *unit; bool good; } verdict;
enum { VERDICTS = 4 };

static void judge(const profile_story *s, int row, verdict out[VERDICTS]) {
    const struct target_row *r = &s->rows[row];
    const double peak = (double)r->peak / GB, headroom = (double)s->profile.memory / GB - peak;
    out[0] = (verdict){ "memory", "< 16 GB", peak, "GB", peak < targets.memory_gb };
    out[1] = (verdict){ "load", "< 30 s", r->speed.load_s, "s", r->speed.load_s < targets.load_s };
    out[2] = (verdict){ "inference, an image", "< 2 s", r->speed.page_ms / 1e3, "s", r->speed.page_ms / 1e3 < targets.image_s };
    out[3] = (verdict){ "headroom", "> 4 GB", headroom, "GB", headroom > targets.headroom_gb };
}

static void print_targets(const profile_story *s) {
    verdict v[2][VERDICTS];
    for (int i = 0; i < 2; i++) judge(s, i, v[i]);
    printf("\nagainst this GPU's targets, one sequence%22s%22s\n", "int8", "nf4");
    for (int k = 0; k < VERDICTS; k++) {
        printf("  %-22s %-14s", v[0][k].name, v[0][k].target);
        for (int i = 0; i < 2; i++) printf("%14.2f %-2s %s", v[i][k].value, v[i][k].unit, v[i][k].good ? "  ok" : "FAIL");
        putchar('\n');
    }
    for (int i = 0; i < 2; i++)
        if (!s->rows[i].memory.fits)
            printf("  %s: %.2f GB do not fit in the available %.2f GB\n", weights_name(s->rows[i].weights), (double)s->rows[i].memory.total / GB,
                   (double)s->rows[i].memory.available / GB);
    printf("Memory is the plan and %.2f GB for a CUDA context. Load is the files from the page cache over PCIe. Times are a projection, nothing was\n"
           "measured on this GPU: %u tiles, %u tokens of prompt, %u of answer; vision %.0f ms (%s), prefill %.0f ms (%s), %.1f and %.1f ms a token (%s, %s).\n",
           (double)CONTEXT_BYTES / GB, story_page.tiles, story_page.prompt, story_page.answer, s->rows[0].speed.ms[STAGE_VISION], limit_name(s->rows[0].speed.by[STAGE_VISION]),
           s->rows[0].speed.ms[STAGE_PREFILL], limit_name(s->rows[0].speed.by[STAGE_PREFILL]), s->rows[0].speed.ms[STAGE_DECODE], s->rows[1].speed.ms[STAGE_DECODE],
           limit_name(s->rows[0].speed.by[STAGE_DECODE]), limit_name(s->rows[1].speed.by[STAGE_DECODE]));
}

/* The class's rule, or the share of its memory that this GPU has instead. */
static void print_memory(const rv_profile *p) {
    const uint64_t left = p->memory - p->usable;
    printf("memory     %.1f GB, %.1f GB usable: ", (double)p->memory / GB, (double)p->usable / GB);
    if (left == p->buffer) printf("the %s class leaves %.1f GB free, %s\n", class_names[p->memory_class], (double)left / GB, class_rules[p->memory_class]);
    else printf("%.0f %% of it, which leaves %.1f GB free (other GPUs of the %s class: %s)\n", 100 * (double)p->usable / (double)p->memory, (double)left / GB,
                class_names[p->memory_class], class_rules[p->memory_class]);
}

void story_print(const profile_story *s) {
    const rv_profile *p = &s->profile;
    const char *why, *package = rv_package_for(p->capability, &why);
    printf("profile    %s: %s, compute capability %d.%d%s%s\n", p->name, p->title, p->capability / 10, p->capability % 10, s->devices > 1 ? ", " : "",
           s->devices > 1 ? "several" : "");
    printf("kernels    sm%d, attention %s; %s\n", p->kernels, p->attention, package ? package : why);
    print_memory(p);
    printf("rates      %.0f GB/s, %.0f TFLOP/s in 16 bit, %.0f TOP/s in int8%s; at most %u sequences gain\n", p->read_bytes_s / 1e9, p->flop16_s / 1e12, p->op8_s / 1e12,
           p->capability < 75 ? " (dp4a)" : "", p->most_slots);
    printf("precision  %s\n", s->precision.reason);
    if (s->with_targets) print_targets(s);
    putchar('\n');
}

json_t *story_json(const profile_story *s) {
    const rv_profile *p = &s->profile;
    json_t *rows = json_array();
    for (int i = 0; i < 2 && s->with_targets; i++) {
        verdict v[VERDICTS];
        json_t *checks = json_array();
        judge(s, i, v);
        for (int k = 0; k < VERDICTS; k++)
            json_array_append_new(checks, json_pack("{s:s, s:s, s:f, s:s, s:b}", "name", v[k].name, "target", v[k].target, "value", v[k].value, "unit", v[k].unit, "good", v[k].good));
        json_array_append_new(rows, json_pack("{s:s, s:b, s:o}", "weights_format", weights_name(s->rows[i].weights), "projection", 1, "checks", checks));
    }
    return json_pack("{s:s, s:s, s:i, s:i, s:I, s:I, s:I, s:s, s:s, s:b, s:b, s:I, s:i, s:o}", "name", p->name, "title", p->title, "capability", p->capability, "kernels",
                     p->kernels, "memory", (json_int_t)p->memory, "buffer", (json_int_t)p->buffer, "usable", (json_int_t)p->usable, "weights_format",
                     weights_name(s->precision.weights), "reason", s->precision.reason, "fits", s->precision.fits, "split", s->precision.split, "needed",
                     (json_int_t)s->precision.needed, "devices", (int)(s->devices ? s->devices : 1), "targets", rows);
}

void profiles_print(void) {
    printf("%-9s %-25s %5s %6s %8s %8s %9s %7s %6s %6s %s\n", "", "GPU", "cc", "GB", "usable", "GB/s", "TFLOP16", "TOP8", "W", "$/h", "kernels");
    for (uint32_t i = 0; i < rv_profile_count(); i++) {
        rv_profile p = { .size = sizeof p };
        char price[16] = "-";
        if (rv_profile_at(i, &p, NULL)) continue;
        if (p.dollars_hour > 0) snprintf(price, sizeof price, "%.2f", p.dollars_hour);
        printf("%-9s %-25s %3d.%d %6.0f %8.1f %8.0f %9.0f %7.0f %6.0f %6s sm%d\n", p.name, p.title, p.capability / 10, p.capability % 10, (double)p.memory / GB,
               (double)p.usable / GB, p.read_bytes_s / 1e9, p.flop16_s / 1e12, p.op8_s / 1e12, p.watts, price, p.kernels);
    }
}
