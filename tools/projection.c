/* projection.c - counts of the kernels, and what follows from them: see projection.h.
 *
 * Counts: of the sm70 set from its machine code, instructions of the busiest unit for a weight (bench/LOG.md, 2026-11-28); of NF4 in the sm80
 * set by Nsight Compute (bench/LOG.md, 2026-11-28: 560 instructions and 187 passes through shared memory for 4,096 weights).  0: not
 * counted; then bytes and tensor arithmetic alone bound the stage.
 */
#include "tools/projection.h"

#include <stdlib.h>
#include <string.h>

enum { ISSUE_SLOTS = 4,                  /* warp instructions a cycle and multiprocessor         */
       PROMPT_ROWS = 1024 };             /* of a GPU's pass over a prompt                        */

/* Decode: issue slots (a unit of half the rate counts twice) and shared-memory passes for each 1,000 weights and step, of one row, and what a row
 * more adds.  `reached`: the bound's time over the stage's, of sm80 and sm90 as an H100 had it (bench/LOG.md).  Of sm70 these are estimates, for no V100
 * was there: between what its products reach on an H100 and what sm80's stages lose. */
typedef struct count { double issue, issue_row, shared, shared_row, reached; } count;

/* [set][format: 16 bit, int8, NF4][stage: vision, prefill, decode] */
static const count counts[3][3][STAGES] = {
    { /* sm70 */
        { { 0, 0, 0, 0, 0.49 }, { 0, 0, 0, 0, 0.60 }, { 125, 62, 0, 0, 0.75 } },
        { { 0, 0, 0, 0, 0.49 }, { 0, 0, 0, 0, 0.60 }, { 16, 16, 0, 0, 0.70 } },
        { { 0, 0, 0, 0, 0.49 }, { 0, 0, 0, 0, 0.60 }, { 180, 0, 0, 0, 0.60 } },
    },
    { /* sm80 */
        { { 0, 0, 0, 0, 0.30 }, { 0, 0, 0, 0, 0.50 }, { 0, 0, 0, 0, 0.80 } },
        { { 0, 0, 0, 0, 0.30 }, { 0, 0, 0, 0, 0.16 }, { 0, 0, 0, 0, 0.42 } },
        { { 0, 0, 0, 0, 0.30 }, { 0, 0, 0, 0, 0.14 }, { 137, 0, 46, 0, 0.43 } },
    },
    { /* sm90 */
        { { 0, 0, 0, 0, 0.51 }, { 0, 0, 0, 0, 0.50 }, { 0, 0, 0, 0, 0.84 } },
        { { 0, 0, 0, 0, 0.41 }, { 0, 0, 0, 0, 0.16 }, { 0, 0, 0, 0, 0.65 } },
        { { 0, 0, 0, 0, 0.48 }, { 0, 0, 0, 0, 0.26 }, { 137, 0, 46, 0, 0.43 } },
    },
};

const char *projection_source(void) {
    return "rates by datasheet; instructions of sm70 counted in its machine code, of NF4 by Nsight Compute, the others by bytes and tensor work alone; share of "
           "the bound as an H100 reached it, for sm70 an estimate";
}

const char *limit_name(limiter by) {
    static const char *const names[] = { "memory", "issue slots", "shared memory", "tensor cores", "host bus" };
    return names[by];
}

const char *stage_name(stage s) {
    static const char *const names[] = { "vision", "prefill", "decode step" };
    return names[s];
}

/* ---- a model ---- */

static double fact(const rv_model_info *info, const char *key) {
    const char *text = rv_model_info_get(info, key);
    return text ? strtod(text, NULL) : 0;
}

/* Of the "3,8,13" that cross_layers is: 3. */
static double fact_items(const rv_model_info *info, const char *key) {
    const char *text = rv_model_info_get(info, key);
    double n = text && *text >= '0' && *text <= '9';
    for (; text && *text; text++) n += *text == ',';
    return n;
}

/* Of the "32+8" that vision_layers is: 40. */
static double fact_sum(const rv_model_info *info, const char *key) {
    const char *text = rv_model_info_get(info, key), *plus = text ? strchr(text, '+') : NULL;
    return fact(info, key) + (plus ? strtod(plus + 1, NULL) : 0);
}

/* Tower (padding lanes computed once), projector and image keys. */
static double vision_flop(const rv_model_info *info, uint32_t tiles, double output) {
    double grid = fact(info, "tile") / fact(info, "patch"), tokens = grid * grid + 1, d = fact(info, "vision_hidden"), layers = fact_sum(info, "vision_layers");
    double rows = (tiles + (tiles < 4)) * tokens + 1, kv = fact(info, "kv_heads") * fact(info, "head_dim"), h = fact(info, "hidden");
    double linears = 2 * rows * (4 * d * d + 8 * d * d), attention = 4 * rows * rows * d;
    return layers * (linears + attention) + 2 * tiles * tokens * (output * h + fact_items(info, "cross_layers") * 2 * kv * h);
}

rv_status model_work_read(const char *model_dir, model_work *out, rv_error *err) {
    rv_model_info *info;
    const rv_part_info *part;
    rv_status st = rv_inspect(model_dir, &info, err);
    if (st) return st;
    *out = (model_work){ 0 };
    double embedding = (fact(info, "vocab") + 8) * fact(info, "hidden"), kv = 2 * 2 * fact(info, "kv_heads") * fact(info, "head_dim");
    double cross = fact_items(info, "cross_layers"), grid = fact(info, "tile") / fact(info, "patch"), image_keys = cross * kv / 2 * fact(info, "hidden");
    const double output = fact(info, "vision_hidden") * 6;   /* the last states and five taps */
    for (uint32_t i = 0, n = rv_model_info_parts(info, &part); i < n; i++, part = (const rv_part_info *)(const void *)((const char *)part + part->size)) {
        if (strcmp(part->name, "text") == 0) {
            const uint64_t bytes[] = { 0, part->bytes_16bit, part->bytes_int8, part->bytes_nf4 };
            const double a_weight[] = { 0, 2, 1, 0.516 };
            for (int f = RV_WEIGHTS_16BIT; f <= RV_WEIGHTS_NF4; f++) out->text_bytes[f] = (double)bytes[f] - 2 * embedding - image_keys * a_weight[f];
            out->text_weights += (double)part->parameters - embedding - image_keys;
        } else if (strcmp(part->name, "lm_head") == 0) {
            out->head_bytes = (double)part->bytes_16bit;
            out->head_weights = (double)part->parameters;
        } else out->vision_bytes += (double)part->bytes_16bit;
    }
    for (uint32_t tiles = 1; tiles <= 4; tiles++) out->vision_flop[tiles] = vision_flop(info, tiles, output);
    out->token_bytes = (fact(info, "layers") - cross) * kv;
    out->tile_bytes = cross * kv * (grid * grid + 1);
    rv_model_info_free(info);
    return RV_OK;
}

/* Of a prompt's rows the last alone goes through lm_head. */
stage_work stage_work_of(const model_work *m, rv_weight_format weights, const page_work *p, stage s) {
    const double read = m->text_bytes[weights] + m->head_bytes, keys = p->tiles * m->tile_bytes + (p->prompt + p->answer / 2.0) * m->token_bytes;
    const uint64_t passes = (p->prompt + UINT64_C(1) * PROMPT_ROWS - 1) / PROMPT_ROWS;
    if (s == STAGE_VISION) return (stage_work){ p->tiles ? m->vision_bytes : 0, p->tiles ? m->vision_flop[p->tiles] : 0, 0 };
    if (s == STAGE_PREFILL) return (stage_work){ read + keys, 2 * (m->text_weights * p->prompt + m->head_weights), (double)(passes * p->streamed) };
    return (stage_work){ read + p->rows * keys, 2 * (m->text_weights + m->head_weights) * p->rows, (double)p->streamed };
}

/* ---- a GPU ---- */

static const count *count_of(const rv_profile *p, rv_weight_format weights, stage s) { return &counts[p->kernels == 90 ? 2 : p->kernels == 70 ? 0 : 1][weights - RV_WEIGHTS_16BIT][s]; }

double bound_ms(const rv_profile *p, rv_weight_format weights, stage s, const stage_work *w, double rows, limiter *by) {
    const count *c = count_of(p, weights, s);
    const double sms = p->multiprocessors * p->clock_hz, pieces = s == STAGE_DECODE ? w->flop / 2 / rows / 1e3 : w->flop / 1e6, more = s == STAGE_DECODE ? rows - 1 : 0;
    double seconds[LIMIT_BUS] = {
        [LIMIT_MEMORY] = p->read_bytes_s > 0 ? w->bytes / p->read_bytes_s : 0,
        [LIMIT_ISSUE] = sms > 0 ? pieces * (c->issue + more * c->issue_row) / (sms * ISSUE_SLOTS) : 0,
        [LIMIT_SHARED] = sms > 0 ? pieces * (c->shared + more * c->shared_row) / sms : 0,
        [LIMIT_TENSOR] = p->flop16_s > 0 ? w->flop / p->flop16_s : 0,
    };
    *by = LIMIT_MEMORY;
    for (limiter l = LIMIT_MEMORY; l < LIMIT_BUS; l++)
        if (seconds[l] > seconds[*by]) *by = l;
    return seconds[*by] * 1e3;
}

/* Pinned copies come that near to the profile's rate (bench/LOG.md, 2026-11-28), so nothing is added. */
double bus_ms(const rv_profile *p, const stage_work *w) { return p->host_bytes_s > 0 ? w->bus / p->host_bytes_s * 1e3 : 0; }

projected project(const rv_profile *p, const model_work *m, rv_weight_format weights, const page_work *page) {
    projected r = { 0 };
    for (stage s = STAGE_VISION; s < STAGES; s++) {
        stage_work w = stage_work_of(m, weights, page, s);
        if (w.flop > 0) r.ms[s] = bound_ms(p, weights, s, &w, page->rows, &r.by[s]) / count_of(p, weights, s)->reached;
        if (bus_ms(p, &w) > r.ms[s]) r.ms[s] = bus_ms(p, &w), r.by[s] = LIMIT_BUS;
    }
    r.page_ms = r.ms[STAGE_VISION] + r.ms[STAGE_PREFILL] + r.ms[STAGE_DECODE] * page->answer / page->rows;
    if (p->host_bytes_s > 0) r.load_s = (m->text_bytes[RV_WEIGHTS_16BIT] + 2 * m->head_bytes + m->vision_bytes) / p->host_bytes_s;
    return r;
}
