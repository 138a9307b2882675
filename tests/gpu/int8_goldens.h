/* int8_goldens.h - the part of int8_gpu.cu that holds weights and products against what bitsandbytes computed.
 *
 * The one idea: their file has every step, so what may differ is said exactly: codes next to a tie, which their approximate
 * reciprocal decides, and the order in which outliers are added up.  Source: tests/data/golden/bnb/README.md.
 */
#ifndef TESTS_GPU_INT8_GOLDENS_H
#define TESTS_GPU_INT8_GOLDENS_H

struct goldens {
    std::string header;
    std::vector<uint8_t> data;
    /* The bytes of a tensor. */
    template <typename V> std::vector<V> of(const std::string &name) const {
        unsigned long long from = 0, to = 0;
        const size_t at = header.find("\"" + name + "\":{"), offsets = at == std::string::npos ? at : header.find("\"data_offsets\"", at);
        if (offsets == std::string::npos || sscanf(header.c_str() + offsets, "\"data_offsets\":[%llu,%llu]", &from, &to) != 2 || to > data.size()) {
            EXPECT(false, "no tensor %s", name.c_str());
            return std::vector<V>();
        }
        std::vector<V> v((size_t)(to - from) / sizeof(V));
        memcpy(v.data(), &data[(size_t)from], (size_t)(to - from));
        return v;
    }
};

static goldens read_goldens(const char *path) {
    goldens g;
    uint64_t length = 0;
    FILE *f = fopen(path, "rb");
    if (!f || fread(&length, 8, 1, f) != 1 || length > 1 << 24) {
        printf("FAILED: %s cannot be read\n", path);
        exit(1);
    }
    g.header.resize((size_t)length);
    if (fread(&g.header[0], 1, (size_t)length, f) != length) exit(1);
    for (int c = fgetc(f); c != EOF; c = fgetc(f)) g.data.push_back((uint8_t)c);
    fclose(f);
    return g;
}

/* How many of a row's activation codes are not theirs, and what such a code is worth in an output: next to a tie their
 * approximate reciprocal may take the other one.  by_call: outliers are those of `columns`. */
struct other_codes { std::vector<int32_t> at; float sca; };
static other_codes codes_beside_theirs(const uint16_t *x, const int8_t *theirs, const std::vector<uint8_t> *columns, int32_t cols) {
    std::vector<float> cast((size_t)cols);
    std::vector<int8_t> codes((size_t)cols);
    for (int32_t k = 0; k < cols; k++) cast[(size_t)k] = cast16(unpack(x[k], be->act));
    other_codes o = { {}, rv_int8_activations(codes.data(), cast.data(), cols, 6) };
    for (int32_t k = 0; k < cols; k++) {
        const int32_t ours = columns && (*columns)[(size_t)k] ? 0 : codes[(size_t)k];
        EXPECT(abs(ours - theirs[k]) <= 1, "column %d: code %d, theirs is %d", k, ours, theirs[k]);
        if (ours != theirs[k]) o.at.push_back(k);
    }
    return o;
}

/* Codes of theirs as weights: then products have no difference but the order of the outliers' sums, and codes of activations next to a tie. */
static void a_case_comes_out(const goldens &g, const std::string &name, loaded &l, const part &weight, const std::vector<float> &bias) {
    const int32_t rows = l.w->head.rows, cols = l.w->head.cols;
    const std::vector<uint16_t> x = g.of<uint16_t>(name + ".x");
    const std::vector<uint8_t> columns = g.of<uint8_t>(name + ".cols");
    const int32_t n = (int32_t)x.size() / cols;
    operands o = {};
    o.x = to_device(x), o.ld = cols, o.start.resize((size_t)(n * rows)), o.bias = to_device(bias), o.row_scale = to_device(std::vector<float>((size_t)n, 1.f));
    struct { const char *codes, *y8, *y; rv_int8_rules rules; bool bias; } const forms[] = { { ".ca", ".y8", ".y", { 6, true }, false },
        { ".ca", ".bias_y8", ".bias_y", { 6, true }, true }, { ".row_ca", ".row_y8", ".row_y", { 6, false }, false } };
    for (auto &form : forms) {
        const std::vector<uint16_t> y8 = g.of<uint16_t>(name + form.y8), y = g.of<uint16_t>(name + form.y);
        const std::vector<int8_t> codes = g.of<int8_t>(name + form.codes);
        const case_ c = { n, rv_few::RV_FEW_STORE, QUIET, false, form.bias, form.rules, 0 };
        const std::vector<float> got = run(c, o, l, 0, n);
        int32_t wrong = 0, ties = 0;
        double first[2] = {};
        for (int32_t r = 0; r < n && y.size() == got.size(); r++) {
            const other_codes other = codes_beside_theirs(&x[(size_t)(r * cols)], &codes[(size_t)(r * cols)], form.rules.by_call ? &columns : NULL, cols);
            ties += (int32_t)other.at.size();
            for (int32_t out = 0; out < rows; out++) {
                const size_t i = (size_t)(r * rows + out);
                const double want = saturated(unpack(y[i], be->act)), base = unpack(y8[i], RV_F16);
                double most = want == base ? 0 : 2 * step_at(std::max(fabs(base), fabs(want - base)), be->act);
                for (int32_t k : other.at) most += fabs((double)rv_int8_scaled(weight.codes[(size_t)(out * cols + k)], other.sca, weight.scale[(size_t)out]));
                if (!other.at.empty()) most += 2 * step_at(std::max(fabs(base), fabs(want - base)), be->act);
                if (!is_near(got[i], want, most) && !wrong++) first[0] = got[i], first[1] = want;
            }
        }
        EXPECT(!wrong && y.size() == got.size(), "%s%s: %d of %zu differ, the first is %g, not %g", name.c_str(), form.y, wrong, y.size(), first[0], first[1]);
        EXPECT(ties <= 2, "%s%s: %d codes of activations differ", name.c_str(), form.y, ties);
    }
    drop(o);
}

static part golden_part(const goldens &g, const std::string &name, rv_dtype type) {
    part p = {};
    p.type = type;
    p.data = g.of<uint8_t>(name);
    p.codes = g.of<int8_t>(name + ".cb");
    p.scale = g.of<float>(name + ".scb");
    p.rows = (int32_t)p.scale.size();
    p.cols = (int32_t)p.codes.size() / std::max(p.rows, 1);
    p.quantised.format = RV_FORMAT_INT8;
    return p;
}

/* Next to a tie their reciprocal may take the other code. */
static void their_weights_become_their_codes(const goldens &g) {
    struct { const char *name; rv_dtype type; int32_t off; } const all[] = { { "w", RV_F16, 8 }, { "bf16_w", RV_BF16, 4 }, { "f32_w", RV_F32, 4 }, { "big_w", RV_F16, 8 } };
    for (auto &a : all) {
        std::vector<part> parts = { golden_part(g, a.name, a.type) };
        loaded l = load(parts, RV_ORDER_STACKED, RV_FORMAT_INT8, false);
        const std::vector<int8_t> codes = from_device<int8_t>(l.w->codes, parts[0].codes.size());
        const std::vector<float> scale = from_device<float>(l.w->scale, parts[0].scale.size());
        int32_t off = 0, far = 0;
        for (size_t i = 0; i < codes.size(); i++) off += codes[i] != parts[0].codes[i], far += abs(codes[i] - parts[0].codes[i]) > 1;
        EXPECT(off <= a.off && !far, "%s: %d codes differ, %d of them by more than one", a.name, off, far);
        EXPECT(scale == parts[0].scale, "%s: other scales", a.name);
        drop(l);
    }
}

static void check_goldens(const char *path) {
    const goldens g = read_goldens(path);
    std::vector<float> bias;
    for (uint16_t b : g.of<uint16_t>("bias")) bias.push_back(unpack(b, RV_F16));
    if (be->act == RV_BF16)
        for (float &b : bias) b = rounded(b, RV_BF16);
    their_weights_become_their_codes(g);
    std::vector<part> w = { golden_part(g, "w", RV_F16) }, big = { golden_part(g, "big_w", RV_F16) };
    loaded l = load(w, RV_ORDER_STACKED, RV_FORMAT_INT8, true);
    if (be->act == RV_F16)
        for (const char *name : { "x0_f16", "x3_f16", "x30_f16", "x300_f16", "edge_f16" }) a_case_comes_out(g, name, l, w[0], bias);
    else
        for (const char *name : { "x3_bf16", "x300_bf16", "edge_bf16" }) a_case_comes_out(g, name, l, w[0], bias);
    drop(l);
    if (be->act != RV_F16) return;
    l = load(big, RV_ORDER_STACKED, RV_FORMAT_INT8, true);
    a_case_comes_out(g, "big_f16", l, big[0], std::vector<float>((size_t)big[0].rows, 0.f));
    drop(l);
}
#endif
