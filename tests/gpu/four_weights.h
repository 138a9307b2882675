/* four_weights.h - the part of nf4_gpu.cu that makes weights of 4 bits: on the host by quant.c's rules, and loaded.
 *
 * The one idea: a weight keeps what it was made of, data and codes, so that either can be loaded and both be compared with.
 */
#ifndef TESTS_GPU_FOUR_WEIGHTS_H
#define TESTS_GPU_FOUR_WEIGHTS_H
#include <math.h>
#include <string>
#include <vector>
#include "kernels/cuda/four.h"
#include "tests/gpu/check.h"

/* ---- numbers ---- */

static uint16_t rounded(float x, rv_dtype type) { return type == RV_BF16 ? rv_f32_to_bf16(x) : rv_f32_to_f16(x); }

/* ---- a weight on host and device ---- */

struct shape {
    std::vector<int32_t> parts;
    int32_t cols;
    bool gate_up, nested;
    rv_dtype type;                       /* of the data                                          */
    bool strange;                        /* zero blocks, subnormals, large ones                   */
};

/* A part as quant.c quantises it. */
struct part {
    std::vector<char> data;
    std::vector<uint8_t> packed, nested;
    std::vector<float> absmax, nested_scale;
    rv_codes codes;
};
struct weight {
    shape s;
    std::vector<part> parts;
    rv_weight_spec spec;
    int32_t rows = 0;
    void *memory = nullptr;
    rv_weight *w = nullptr;
};

static void put(std::vector<char> &data, rv_dtype type, size_t i, float v) {
    if (type == RV_F32) memcpy(&data[i * 4], &v, 4);
    else {
        uint16_t h;
        h = rounded(v, type);
        memcpy(&data[i * 2], &h, 2);
    }
}

static part make_part(const shape &s, int32_t rows) {
    part p;
    const size_t n = (size_t)rows * (size_t)s.cols, blocks = n / RV_BLOCK4;
    p.data.resize(n * rv_dtype_size(s.type));
    for (size_t i = 0; i < n; i++) {
        float v = random_normal() / sqrtf((float)s.cols) * (1 + (float)(i / RV_BLOCK4 % 7) * 0.3f);
        if (s.strange) {
            switch (i / RV_BLOCK4 % 11) {
            case 2: v = 0; break;
            case 3: v *= 1e-38f; break;
            case 8: v *= s.type == RV_F16 ? 1e4f : 1e6f; break;
            default: break;
            }
        }
        put(p.data, s.type, i, v);
    }
    p.packed.resize(n / 2);
    p.absmax.resize(blocks);
    rv_nf4_quantise(p.packed.data(), p.absmax.data(), p.data.data(), s.type, (int64_t)n);
    p.codes = {};
    p.codes.format = RV_FORMAT_NF4;
    memcpy(p.codes.map, rv_nf4_map, sizeof p.codes.map);
    memcpy(p.codes.nested_map, rv_nested_map, sizeof p.codes.nested_map);
    if (s.nested) {
        p.nested.resize(blocks);
        p.nested_scale.resize((blocks + RV_NESTED_BLOCK - 1) / RV_NESTED_BLOCK);
        p.codes.offset = rv_nested_quantise(p.nested.data(), p.nested_scale.data(), p.absmax.data(), (int64_t)blocks);
    }
    return p;
}
static void point(part &p, bool nested) {
    p.codes.codes = p.packed.data();
    p.codes.scale = nested ? NULL : p.absmax.data();
    p.codes.nested = nested ? p.nested.data() : NULL;
    p.codes.nested_scale = nested ? p.nested_scale.data() : NULL;
}

static weight make(const shape &s) {
    weight w;
    w.s = s;
    for (int32_t rows : s.parts) {
        w.parts.push_back(make_part(s, rows));
        w.rows += rows;
    }
    return w;
}

/* Loads it, from data or from codes, as `format`. */
static void load(weight &w, bool codes, rv_format format = RV_FORMAT_NF4) {
    w.spec = {};
    w.spec.name = "test";
    w.spec.rows = w.rows;
    w.spec.cols = w.s.cols;
    w.spec.n_parts = (int32_t)w.s.parts.size();
    w.spec.use = RV_USE_TEXT;
    w.spec.order = w.s.gate_up ? RV_ORDER_GATE_UP : RV_ORDER_STACKED;
    w.spec.format = format;
    w.spec.nested = w.s.nested;
    for (size_t i = 0; i < w.parts.size(); i++) {
        point(w.parts[i], w.s.nested);
        w.spec.part[i].rows = w.s.parts[i];
        w.spec.part[i].type = w.s.type;
        if (codes) w.spec.part[i].codes = &w.parts[i].codes;
        else w.spec.part[i].data = w.parts[i].data.data();
    }
    w.memory = rv_device_alloc(be, rv_weight_bytes(be, &w.spec));
    w.w = rv_weight_new(be, &w.spec, w.memory);
    rv_error err = {};
    if (rv_finish(be, &err)) {
        printf("FAILED: loading: %s\n", err.message);
        exit(1);
    }
}
static void unload(weight &w) {
    rv_weight_free(be, w.w);
    rv_device_release(be, w.memory);
    w.w = NULL;
    w.memory = NULL;
}

/* Which row of the weight a part's row is. */
static int32_t row_of(const weight &w, size_t part, int32_t r) {
    if (w.s.gate_up) return (r / 8 * 2 + (int32_t)part) * 8 + r % 8;
    for (size_t i = 0; i < part; i++) r += w.s.parts[i];
    return r;
}
static std::string name(const weight &w) {
    char text[160];
    snprintf(text, sizeof text, "%d x %d of %zu parts%s%s, %s%s", w.rows, w.s.cols, w.parts.size(), w.s.gate_up ? ", gate and up" : "", w.s.nested ? ", nested" : "",
             w.s.type == RV_F32 ? "f32" : w.s.type == RV_F16 ? "f16" : "bf16", w.s.strange ? ", strange" : "");
    return text;
}
#endif
