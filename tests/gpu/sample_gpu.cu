/* sample_gpu.cu - choosing tokens on a GPU: against engine/sample.c, alone and in batches; and counting f16 clamps.
 *
 * The one idea: a case is a batch of rows, each with a distribution and settings of its own.  The device must choose the
 * host's token; where it does not, the draw must have fallen within 1e-9 of a boundary, and the distance is printed.
 *
 *     sample_gpu            checks, then times
 *     sample_gpu times [CASE]  times alone, of all cases or the one of that name
 *     sample_gpu check      only checks        (exit code 1: something failed; 77: no GPU)
 *     sample_gpu quick      a few checks, for compute-sanitizer
 */
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <algorithm>
#include <map>
#include <thread>
#include <vector>
#include "kernels/cuda/cuda.h"
#include "tests/gpu/gpu.h"
extern "C" {
#include "engine/sample.h"
}

static int failures = 0;

static bool expect(bool ok, const char *what, long long a = 0, long long b = 0) {
    if (!ok) printf("FAILED %s (%lld, %lld)\n", what, a, b), failures++;
    return ok;
}

static float random_unit() { return (float)(random32() >> 8) / 16777216.f; }
static float random_normal() {
    float s = 0;
    for (int i = 0; i < 4; i++) s += random_unit() - 0.5f;
    return s * 1.7320508f;
}
template <typename V> static V one_of(std::initializer_list<V> all) { return all.begin()[random32() % all.size()]; }

/* ---- rows ---- */

enum shape { NORMAL, WIDE, NARROW, PEAK, EQUAL, STEPS, HOLES, ONE, LARGE, ZEROS, SHAPES };

static void fill(float *x, int n, shape s) {
    for (int i = 0; i < n; i++) {
        float v = random_normal();
        switch (s) {
        case WIDE: v *= 5; break;
        case NARROW: v = 7 + v * 0.01f; break;
        case EQUAL: v = -1.25f; break;
        case STEPS: v = floorf(v * 4) / 4; break;                        /* many ties */
        case HOLES: v = random32() % 3 ? -INFINITY : v * 2; break;
        case ONE: v = -INFINITY; break;
        case LARGE: v *= 1000; break;
        case ZEROS: v = random32() % 2 ? 0.f : -0.f; break;
        default: break;
        }
        x[i] = v;
    }
    if (s == PEAK || s == ONE) x[random32() % (uint32_t)n] = 14;
}

/* A random guide over n tokens: some know fewer, some states allow little. */
struct tables {
    std::vector<uint16_t> classes, next;
    rv_guide host;
};

static tables random_tables(int n) {
    tables t;
    int states = 2 + (int)(random32() % 30), n_classes = 2 + (int)(random32() % one_of({ 300u, 300u, 3000u, 65535u })), vocab = random32() % 4 ? n : n - n / 3;
    t.classes.resize(vocab), t.next.resize((size_t)states * n_classes);
    for (auto &c : t.classes) c = (uint16_t)(random32() % n_classes);
    for (size_t i = 0; i < t.next.size(); i++) {
        int state = (int)(i / n_classes), kind = (int)(random32() % 8);
        bool dead = i % n_classes == 0 || (state % 3 ? random32() % 2 : random32() % 20);
        t.next[i] = dead ? 0 : (uint16_t)((1 + random32() % (states - 1)) | (kind < 3 ? 0x2000u << kind : 0u));
    }
    t.host = { t.classes.data(), t.next.data(), vocab, states, n_classes };
    return t;
}

static rv_guide_row random_guide(const tables &t, int n) {
    rv_guide_row g = {};
    if (random32() % 3 == 0) return g;
    g.guide = t.host;
    g.state = (int)(random32() % t.host.states);
    g.cells = (int)(random32() % 4), g.least = (int)(random32() % 4), g.most = (int)(random32() % 4), g.last = (int)(random32() % 2);
    g.watched = (int)(random32() % (n + 1)) - 1;
    return g;
}

struct batch {
    tables guide;
    int rows, n, ld;
    std::vector<float> logits;
    std::vector<uint8_t> seen;
    std::vector<rv_choice> how;
    std::vector<int32_t> ids, pos, slot;
    std::vector<rv_best> best;
    std::vector<shape> shapes;
};

static rv_choice random_choice(int n) {
    rv_choice c = {};
    c.seed = (uint64_t)random32() << 32 | random32();
    c.index = random32() % 5000;
    c.temperature = one_of({ 0.f, 0.1f, 0.7f, 1.f, 1.f, 2.f, 100.f });
    c.top_k = one_of({ 0u, 1u, 2u, 5u, 50u, 50u, 900u, (uint32_t)n - 1, (uint32_t)n, (uint32_t)n + 5, UINT32_MAX, UINT32_MAX });
    c.top_p = one_of({ 1.f, 1.f, 0.999f, 0.9f, 0.55f, 1e-6f });
    c.repetition_penalty = one_of({ 1.f, 1.f, 1.3f, 0.7f });
    c.last = 1000;
    return c;
}

static batch random_batch(int rows, int n) {
    batch b;
    b.guide = random_tables(n);
    b.rows = rows, b.n = n, b.ld = n + (int)(random32() % 3);
    b.logits.resize((size_t)rows * b.ld, NAN);                           /* between rows: never read */
    b.seen.resize((size_t)rows * n);
    b.best.assign(rows, rv_best{ -7, 7.f, 7.f, 7.f });
    for (auto &s : b.seen) s = random32() % 4 == 0;
    for (int r = 0; r < rows; r++) {
        b.shapes.push_back((shape)(random32() % SHAPES));
        fill(&b.logits[(size_t)r * b.ld], n, b.shapes[r]);
        b.how.push_back(random_choice(n));
        b.how.back().guide = random_guide(b.guide, n);
        b.ids.push_back(3);
        b.pos.push_back((int)(random32() % 900));
        b.slot.push_back(rows - 1 - r);
    }
    return b;
}

template <typename V> static V *up(const std::vector<V> &x) {
    V *p;
    MUST(cudaMalloc(&p, x.size() * sizeof(V)));
    MUST(put(p, x.data(), x.size() * sizeof(V)));
    return p;
}
template <typename V> static void down(std::vector<V> &x, V *p) {
    MUST(cudaMemcpy(x.data(), p, x.size() * sizeof(V), cudaMemcpyDeviceToHost));
    MUST(cudaFree(p));
}

static rv_backend *backend(rv_dtype act) {
    rv_cuda_options o = {};
    rv_backend *be = nullptr;
    rv_error err;
    o.act = act;
    if (rv_cuda_open(&o, &be, &err)) {
        printf("FAILED opening: %s\n", err.message);
        exit(1);
    }
    return be;
}

static void finish(rv_backend *be) {
    rv_error err;
    if (rv_finish(be, &err)) {
        printf("FAILED: %s\n", err.message);
        exit(1);
    }
}

/* What choose makes of the batch. */
static batch on_device(rv_backend *be, batch b) {
    float *logits = up(b.logits);
    uint16_t *classes = up(b.guide.classes), *next = up(b.guide.next);
    for (rv_choice &c : b.how)
        if (c.guide.guide.classes) c.guide.guide.classes = classes, c.guide.guide.next = next;
    rv_answering a = { up(b.ids), up(b.pos), nullptr, up(b.how), up(b.seen), up(b.best) };
    int32_t *slot = up(b.slot);
    a.slot = slot;
    rv_mat m = { logits, b.rows, b.n, b.ld, RV_F32 };
    rv_choose(be, &a, m);
    finish(be);
    down(b.ids, a.ids), down(b.pos, a.pos), down(b.how, a.how), down(b.seen, a.seen), down(b.best, a.best), down(b.slot, slot);
    for (rv_choice &c : b.how)
        if (c.guide.guide.classes) c.guide.guide = b.guide.host;
    MUST(cudaFree(logits));
    MUST(cudaFree(classes));
    MUST(cudaFree(next));
    return b;
}

/* ---- the host's choice, and how close it was ---- */

struct outcome { rv_best best; bool failed; };

static outcome on_host(const batch &b, int r) {
    std::vector<float> logits(b.logits.begin() + (size_t)r * b.ld, b.logits.begin() + (size_t)r * b.ld + b.n);
    std::vector<rv_candidate> room(2 * (size_t)b.n);
    const rv_choice &c = b.how[r];
    rv_sampling s = { c.temperature, c.top_k, c.top_p, c.repetition_penalty, c.seed };
    rv_error err;
    outcome o = {};
    o.failed = rv_sample(&s, &c.guide, logits.data(), b.n, &b.seen[(size_t)b.slot[r] * b.n], c.index, room.data(), &o.best, &err) != RV_OK;
    return o;
}

/* The least relative distance of a sum from the point at which another token would have been kept or drawn. */
static double distance(const batch &b, int r) {
    const rv_choice &c = b.how[r];
    std::vector<float> s(b.n);
    for (int i = 0; i < b.n; i++) {
        float x = b.logits[(size_t)r * b.ld + i];
        if (c.repetition_penalty != 1.f && b.seen[(size_t)b.slot[r] * b.n + i]) x = x < 0 ? x * c.repetition_penalty : x / c.repetition_penalty;
        s[i] = rv_guide_on(&c.guide) && !rv_guide_allows(&c.guide, rv_guide_denied(&c.guide), i) ? -INFINITY : x / c.temperature;
    }
    std::sort(s.begin(), s.end(), [](float x, float y) { return x > y; });
    size_t n = s.size();
    if (c.top_k && c.top_k < n)
        for (n = c.top_k; n < s.size() && s[n] == s[c.top_k - 1];) n++;
    double total = 0, least = INFINITY, dropped = 0;
    for (size_t i = 0; i < n; i++) total += exp((double)s[i] - (double)s[0]);
    for (; c.top_p < 1 && n > 1; n--) {
        dropped += exp((double)s[n - 1] - (double)s[0]) / total;
        least = std::min(least, fabs(dropped - (1 - (double)c.top_p)));
        if (dropped > 1 - (double)c.top_p) break;
    }
    double sum = 0, at = 0, u = (double)rv_random(c.seed, c.index);
    for (size_t i = 0; i < n; i++) sum += exp((double)s[i] - (double)s[0]);
    for (size_t i = 0; i < n; i++) least = std::min(least, fabs((at += exp((double)s[i] - (double)s[0])) - u * sum) / sum);
    return least;
}

/* ---- checks ---- */

static int draws, close_calls;
static uint64_t digest = 14695981039346656037ull;                        /* of all that came back: for comparing builds */

static void digest_add(const batch &b) {
    for (const rv_best &best : b.best)
        for (size_t i = 0; i < sizeof best; i++) digest = (digest ^ ((const uint8_t *)&best)[i]) * 1099511628211ull;
}

static void check_row(const batch &before, const batch &after, int r, const outcome &host) {
    const rv_choice &c = before.how[r];
    rv_best best = after.best[r];
    draws++;
    if (host.failed) {                       /* all logits are -inf */
        expect(best.id == -1 && after.pos[r] == -1, "what the host refuses has no token", best.id);
        return;
    }
    if (host.best.id != best.id) {
        double d = c.temperature > 0 ? distance(before, r) : INFINITY;
        printf("%s: n %d shape %d T %g k %u p %g penalty %g: device %d, host %d, distance %.1e\n", d < 1e-9 ? "close call" : "FAILED", before.n,
               before.shapes[r], c.temperature, c.top_k, c.top_p, c.repetition_penalty, best.id, host.best.id, d);
        if (d < 1e-9) close_calls++;
        else failures++;
        return;
    }
    const float device[] = { best.logprob, best.allowed, best.watched }, wanted[] = { host.best.logprob, host.best.allowed, host.best.watched };
    for (int i = 0; i < 3; i++) {
        if (device[i] == wanted[i] || fabsf(device[i] - wanted[i]) <= 1e-5f * fmaxf(1.f, fabsf(wanted[i]))) continue;
        printf("FAILED: n %d shape %d: log-probability %d: %.8g, host %.8g\n", before.n, before.shapes[r], i, device[i], wanted[i]);
        failures++;
    }
    rv_guide_row moved = c.guide;
    if (rv_guide_on(&moved)) rv_guide_move(&moved, best.id);
    expect(after.how[r].guide.state == moved.state && after.how[r].guide.cells == moved.cells, "and to the guide's next state", after.how[r].guide.state, moved.state);
    expect(after.ids[r] == best.id, "the row moves to its token", after.ids[r], best.id);
    expect(after.pos[r] == (before.pos[r] < c.last ? before.pos[r] + 1 : -1), "and to the next position", after.pos[r], before.pos[r]);
    expect(after.how[r].index == c.index + 1, "and to the next random number");
    if (c.repetition_penalty != 1.f) expect(after.seen[(size_t)before.slot[r] * before.n + best.id] == 1, "and remembers it");
}

static void device_chooses_what_the_host_chooses(rv_backend *be, int rows, int n, int batches) {
    if (n > 500000) expect(rv_cuda_choose_bytes(rows, n) > RV_CUDA_PARTIAL_BYTES, "too many rows for the room at once");
    for (int k = 0; k < batches; k++) {
        batch b = random_batch(rows, n);
        b.how[0].last = b.pos[0];                                        /* this one is at its end */
        batch after = on_device(be, b);
        digest_add(after);
        std::vector<outcome> host(rows);
        std::vector<std::thread> threads;
        for (int t = 0; t < 16; t++)
            threads.emplace_back([&, t] { for (int r = t; r < rows; r += 16) host[r] = on_host(b, r); });
        for (auto &t : threads) t.join();
        for (int r = 0; r < rows; r++) check_row(b, after, r, host[r]);
    }
    printf("%6d of a vocabulary of %d: %d draws so far, %d close calls\n", rows, n, draws, close_calls);
}

static void a_row_gets_the_same_alone_and_in_a_batch(rv_backend *be, int n) {
    batch b = random_batch(64, n), together = on_device(be, b), again = on_device(be, b);
    expect(!memcmp(again.best.data(), together.best.data(), 64 * sizeof(rv_best)), "the same seeds give the same tokens", n);
    for (int r = 0; r < 64; r += 7) {
        batch one = b;
        one.rows = 1;
        one.logits.assign(b.logits.begin() + (size_t)r * b.ld, b.logits.begin() + (size_t)r * b.ld + b.n);
        one.how = { b.how[r] }, one.ids = { b.ids[r] }, one.pos = { b.pos[r] }, one.slot = { b.slot[r] }, one.best = { {} };
        one = on_device(be, one);
        expect(!memcmp(&one.best[0], &together.best[r], sizeof(rv_best)), "alone and in a batch", one.best[0].id, together.best[r].id);
    }
}

static void rows_that_are_off_or_bad_are_left_or_end(rv_backend *be) {
    batch b = random_batch(6, 1000);
    for (auto &c : b.how) c.repetition_penalty = 1.2f;
    b.pos[0] = -1;
    b.logits[1 * b.ld + 7] = NAN;
    b.logits[2 * b.ld + 999] = INFINITY;
    for (int i = 0; i < b.n; i++) b.logits[3 * b.ld + i] = -INFINITY;
    for (int r = 1; r < 4; r++) expect(on_host(b, r).failed, "the host refuses it too", r);
    batch after = on_device(be, b);
    expect(after.ids[0] == 3 && after.pos[0] == -1 && after.how[0].index == b.how[0].index, "a row that is off stays as it is");
    for (int r = 1; r < 4; r++) expect(after.best[r].id == -1 && after.pos[r] == -1, "a bad row has no token and is off", r, after.best[r].id);
    for (int r = 0; r < 4; r++)
        expect(!memcmp(&after.seen[(size_t)b.slot[r] * b.n], &b.seen[(size_t)b.slot[r] * b.n], (size_t)b.n), "and its flags stay", r);
    for (int r = 4; r < 6; r++) check_row(b, after, r, on_host(b, r));
}

/* Guides that leave one token, none, only tokens without probability, two that tie, all; and NaN and infinity where the guide allows nothing. */
static void little_that_a_guide_leaves(rv_backend *be, int n) {
    enum { ONE_TOKEN = 2, NOTHING, TWO, ALL, STATES, CLASSES = 4, ROWS = 9, LONE = 17 };
    const int pair[2] = { n / 2, n - 1 };
    for (int k = 0; k < 24; k++) {
        batch b = random_batch(ROWS, n);
        tables &t = b.guide;
        t.classes.assign(n, 3);
        t.classes[LONE] = 1, t.classes[pair[0]] = t.classes[pair[1]] = 2;
        t.next.assign(STATES * CLASSES, 0);
        t.next[ONE_TOKEN * CLASSES + 1] = t.next[TWO * CLASSES + 2] = ALL;
        for (int c = 0; c < CLASSES; c++) t.next[ALL * CLASSES + c] = 0x8000 | ALL;
        t.host = { t.classes.data(), t.next.data(), n, STATES, CLASSES };
        const int states[ROWS] = { ONE_TOKEN, ONE_TOKEN, NOTHING, TWO, TWO, ALL, ONE_TOKEN, ONE_TOKEN, 0 };
        for (int r = 0; r < ROWS; r++) {
            float *x = &b.logits[(size_t)r * b.ld];
            fill(x, n, r % 2 ? NORMAL : STEPS);
            if (k % 3 == 0) b.how[r].temperature = 0.7f, b.how[r].top_k = 50;
            b.how[r].guide = {};
            if (states[r]) b.how[r].guide = { t.host, states[r], 0, 0, 4, 1, LONE };
            x[pair[0]] = x[pair[1]] = -2;
        }
        b.logits[1 * b.ld + LONE] = -INFINITY;
        b.logits[4 * b.ld + pair[0]] = -INFINITY;
        b.logits[6 * b.ld + LONE + 1] = NAN;
        b.logits[7 * b.ld + n - 2] = INFINITY;
        const batch after = on_device(be, b);
        for (int r = 0; r < ROWS; r++) {
            const outcome host = on_host(b, r);
            expect(host.failed == (r == 1 || r == 2 || r == 6 || r == 7), "the host refuses what leaves nothing", r);
            check_row(b, after, r, host);
        }
        expect(after.best[0].id == LONE && after.best[4].id == pair[1] && (after.best[3].id == pair[0] || after.best[3].id == pair[1]), "what the guide leaves");
    }
}

/* Steps of one row draw by the seed's distribution: chi-square over 20,000 draws of 8 tokens. */
static void draws_follow_the_distribution(rv_backend *be) {
    const float logits[8] = { 0, 1, 2, -1, 0.5f, 2, -3, 1.5f };
    int counts[8] = { 0 }, all = 0;
    for (int k = 0; k < 50; k++) {
        batch b = random_batch(64, 8);
        for (int r = 0; r < 64; r++) {
            memcpy(&b.logits[(size_t)r * b.ld], logits, sizeof logits);
            b.how[r].temperature = b.how[r].top_p = b.how[r].repetition_penalty = 1, b.how[r].top_k = UINT32_MAX, b.how[r].guide = {};
        }
        for (const rv_best &best : on_device(be, b).best) counts[best.id]++, all++;
    }
    double total = 0, chi = 0;
    for (float l : logits) total += exp(l);
    for (int i = 0; i < 8; i++) chi += pow(counts[i] - all * exp(logits[i]) / total, 2) / (all * exp(logits[i]) / total);
    expect(chi < 24.3, "chi-square of 7 degrees below its 99.9th percentile", (long long)chi);
}

/* ---- f16 ---- */

struct device_mat {
    rv_backend *be;
    rv_mat m;
    device_mat(rv_backend *b, int rows, int cols, rv_dtype type, float value) : be(b) {
        std::vector<float> host((size_t)rows * cols, value);
        rv_mat f = rv_mat_of(rv_device_alloc(b, host.size() * 4), rows, cols, RV_F32);
        rv_upload(b, f.data, host.data(), host.size() * 4);
        m = f;
        if (type == RV_F32) return;
        m = rv_mat_of(rv_device_alloc(b, host.size() * 2), rows, cols, type);
        rv_copy(b, m, f);
        rv_device_release(b, f.data);
    }
    ~device_mat() { rv_device_release(be, m.data); }
};

/* Since it was asked last. */
static uint64_t clamped(rv_backend *be) {
    static std::map<rv_backend *, uint64_t> before;
    finish(be);
    const uint64_t all = rv_saturated(be), now = all - before[be];
    before[be] = all;
    return now;
}

static void every_clamped_value_is_counted(rv_backend *be, rv_format format) {
    enum { K = 64, N = 48 };
    rv_error err;
    std::vector<float> ones(N * K, 1.f), long_norm(K, 1e6f);
    rv_weight_spec spec = {};
    spec.name = "ones", spec.rows = N, spec.cols = K, spec.n_parts = 1, spec.use = RV_USE_TEXT, spec.format = format;
    spec.part[0].data = ones.data(), spec.part[0].type = RV_F32, spec.part[0].rows = N;
    void *memory = rv_device_alloc(be, rv_weight_bytes(be, &spec)), *norm = rv_device_alloc(be, K * 4);
    rv_weight *w = rv_weight_new(be, &spec, memory);
    rv_upload(be, norm, long_norm.data(), K * 4);
    expect(rv_finish(be, &err) == RV_OK, "loading");
    for (int rows : { 1, 5, 13, 64, 65, 300 })
        for (float x : { 1000.f, 2000.f, -2000.f }) {
            device_mat in(be, rows, K, be->act, x), out(be, rows, N, be->act, 0), wide(be, rows, N, RV_F32, 0), normed(be, rows, K, be->act, 0);
            clamped(be);
            bool clamps = be->act == RV_F16 && fabsf(x) * K > 65504;
            rv_linear(be, out.m, in.m, w, nullptr, RV_ACT_NONE);
            expect(clamped(be) == (clamps ? (uint64_t)rows * N : 0), "a product's clamped values", rows, (long long)x);
            rv_copy(be, wide.m, out.m);
            std::vector<float> host((size_t)rows * N);
            rv_download(be, host.data(), wide.m.data, host.size() * 4);
            float want = clamps ? copysignf(65504, x) : x * K;
            for (float v : host)
                if (!expect(fabsf(v - want) <= fabsf(want) / 128, "a product's value", (long long)v, (long long)want)) break;
            rv_linear(be, out.m, in.m, w, nullptr, RV_ACT_GELU);
            clamped(be);
            rv_linear(be, wide.m, in.m, w, nullptr, RV_ACT_NONE);
            expect(clamped(be) == 0, "nothing is clamped in f32", rows);
            rv_norm_rows(be, normed.m, in.m, rv_norm{ (const float *)norm, nullptr, 1e-5f, K });
            expect(clamped(be) == (be->act == RV_F16 ? (uint64_t)rows * K : 0), "a norm's clamped values", rows);
        }
    rv_weight_free(be, w);
    rv_device_release(be, memory);
    rv_device_release(be, norm);
    if (be->error.code && rv_finish(be, &err)) printf("FAILED: %s\n", err.message), failures++;
}

/* Neighbours that are looked at together: two beyond the range, one that rounds to its end, one inside; NaN beside them is no number. */
static void neighbours_are_clamped_one_by_one(rv_backend *be) {
    enum { K = 64 };
    const float added[4] = { 1e6f, 65510, -1e6f, 3 }, kept[4] = { 65504, 65504, -65504, 3 };
    std::vector<float> eye(K * K, 0.f), bias(K), scale(K, 1.f);
    for (int i = 0; i < K; i++) eye[i * K + i] = 1, bias[i] = i == 4 ? NAN : added[i % 4];
    rv_weight_spec spec = {};
    spec.name = "eye", spec.rows = spec.cols = K, spec.n_parts = 1, spec.use = RV_USE_TEXT;
    spec.part[0].data = eye.data(), spec.part[0].type = RV_F32, spec.part[0].rows = K;
    void *memory = rv_device_alloc(be, rv_weight_bytes(be, &spec));
    float *device_bias = (float *)rv_device_alloc(be, K * 4), *device_scale = (float *)rv_device_alloc(be, K * 4);
    rv_weight *w = rv_weight_new(be, &spec, memory);
    rv_upload(be, device_bias, bias.data(), K * 4);
    rv_upload(be, device_scale, scale.data(), K * 4);
    for (int rows : { 1, 65, 300 })
        for (bool normed : { false, true }) {
            device_mat in(be, rows, K, normed ? RV_F32 : be->act, 0), out(be, rows, K, be->act, 0), wide(be, rows, K, RV_F32, 0);
            clamped(be);
            if (normed) rv_norm_rows(be, out.m, in.m, rv_norm{ device_scale, device_bias, 1e-5f, K });
            else rv_linear(be, out.m, in.m, w, device_bias, RV_ACT_NONE);
            expect(clamped(be) == (be->act == RV_F16 ? (uint64_t)rows * (K / 2 - 1) : 0), "neighbours that are clamped", rows, normed);
            if (be->act != RV_F16) continue;
            rv_copy(be, wide.m, out.m);
            std::vector<float> host((size_t)rows * K);
            rv_download(be, host.data(), wide.m.data, host.size() * 4);
            for (int i = 0; i < rows * K; i++)
                if (!expect(i % K == 4 ? isnan(host[i]) : host[i] == kept[i % 4], "a neighbour's value", i, (long long)host[i])) break;
        }
    rv_weight_free(be, w);
    for (void *p : { memory, (void *)device_bias, (void *)device_scale }) rv_device_release(be, p);
}

/* ---- time ---- */

/* As large as the tables of a document with fifty fields; every third token may come. */
static tables large_tables(int n) {
    tables t;
    const int states = 1000, n_classes = 1500;
    t.classes.resize(n), t.next.resize((size_t)states * n_classes);
    for (auto &c : t.classes) c = (uint16_t)(random32() % n_classes);
    for (auto &e : t.next) e = random32() % 3 ? 0 : (uint16_t)(2 + random32() % (states - 2));
    t.host = { t.classes.data(), t.next.data(), n, states, n_classes };
    return t;
}

static float time_of(int rows, int n, rv_choice how, bool with_choice, bool guided) {
    batch b = random_batch(rows, n);
    tables large = large_tables(n);
    uint16_t *classes = up(large.classes), *next = up(large.next);
    if (guided) how.guide = { { classes, next, n, large.host.states, large.host.n_classes }, 5, 0, 0, 0, 0, 7 };
    for (int r = 0; r < rows; r++) fill(&b.logits[(size_t)r * b.ld], n, WIDE), b.how[r] = how, b.pos[r] = 0, b.how[r].last = 1 << 30;
    float *logits = up(b.logits), ms;
    int32_t *slot = up(b.slot);
    rv_answering a = { up(b.ids), up(b.pos), slot, up(b.how), up(b.seen), up(b.best) };
    rv_mat m = { logits, rows, n, b.ld, RV_F32 };
    cudaEvent_t from, to;
    cudaStream_t s;
    MUST(cudaStreamCreateWithFlags(&s, cudaStreamNonBlocking));
    MUST(cudaEventCreate(&from));
    MUST(cudaEventCreate(&to));
    void *partial = NULL;
    MUST(cudaMalloc(&partial, RV_CUDA_PARTIAL_BYTES));
    MUST(set(partial, 0, RV_CUDA_PARTIAL_BYTES));
    enum { TIMES = 20 };
    for (int k = -3; k < TIMES; k++) {
        if (k == 0) MUST(cudaEventRecord(from, s));
        if (with_choice) MUST(rv_cuda_choose(&a, m, partial, true, s));
        else MUST(rv_cuda_best(a.best, m, partial, true, s));
    }
    MUST(cudaEventRecord(to, s));
    MUST(cudaStreamSynchronize(s));
    MUST(cudaEventElapsedTime(&ms, from, to));
    down(b.ids, a.ids), down(b.pos, a.pos), down(b.how, a.how), down(b.seen, a.seen), down(b.best, a.best), down(b.slot, slot);
    MUST(cudaFree(partial));
    MUST(cudaFree(logits));
    MUST(cudaFree(classes));
    MUST(cudaFree(next));
    return ms * 1000 / TIMES;
}

static void times(const char *alone) {
    static const struct { const char *name; rv_choice how; bool choice, guided; } cases[] = {
        { "best alone", { 1, 0, UINT32_MAX, 0, 1, 1, 0, {} }, false, false },
        { "greedy rows", { 1, 0, UINT32_MAX, 0, 1, 1, 0, {} }, true, false },
        { "greedy rows, guided", { 1, 0, UINT32_MAX, 0, 1, 1, 0, {} }, true, true },
        { "greedy, penalty 1.2", { 1, 0, UINT32_MAX, 0, 1, 1.2f, 0, {} }, true, false },
        { "T 0.7, k 50", { 1, 0, 50, 0.7f, 1, 1, 0, {} }, true, false },
        { "T 0.7, k 50, p 0.9", { 1, 0, 50, 0.7f, 0.9f, 1, 0, {} }, true, false },
        { "T 0.7, k 50, p 0.9, penalty", { 1, 0, 50, 0.7f, 0.9f, 1.2f, 0, {} }, true, false },
        { "T 1, p 0.9", { 1, 0, UINT32_MAX, 1, 0.9f, 1, 0, {} }, true, false },
        { "T 1", { 1, 0, UINT32_MAX, 1, 1, 1, 0, {} }, true, false },
        { "T 0.7, k 50, guided", { 1, 0, 50, 0.7f, 1, 1, 0, {} }, true, true },
    };
    printf("us a step of 128,256 tokens   1 row  8 rows 64 rows\n");
    for (const auto &c : cases) {
        if (*alone && strcmp(alone, c.name)) continue;
        printf("%-28s", c.name);
        for (int rows : { 1, 8, 64 }) printf("%8.1f", time_of(rows, 128256, c.how, c.choice, c.guided));
        printf("\n");
    }
}

int main(int argc, char **argv) {
    const char *what = argc > 1 ? argv[1] : "";
    bool quick = !strcmp(what, "quick");
    int count = 0;
    if (cudaGetDeviceCount(&count) != cudaSuccess || count == 0) return puts("skipped: no GPU"), 77;
    if (!strcmp(what, "times")) return times(argc > 2 ? argv[2] : ""), 0;
    rv_backend *be = backend(RV_BF16), *half = backend(RV_F16);
    a_row_gets_the_same_alone_and_in_a_batch(be, 3001);
    if (!quick) a_row_gets_the_same_alone_and_in_a_batch(be, 40000);
    rows_that_are_off_or_bad_are_left_or_end(be);
    device_chooses_what_the_host_chooses(be, quick ? 8 : 64, 1000, quick ? 2 : 40);
    device_chooses_what_the_host_chooses(be, quick ? 2 : 64, 128256, quick ? 1 : 12);
    little_that_a_guide_leaves(be, quick ? 600 : 20000);
    for (int n : { 4095, 4096, 4097, 8191, 8192, 8193, 16385 }) device_chooses_what_the_host_chooses(be, quick ? 1 : 16, n, quick ? 1 : 2);     /* blocks' shares */
    if (!quick) device_chooses_what_the_host_chooses(be, 48, 600000, 1);                             /* more rows than there is room for at once */
    device_chooses_what_the_host_chooses(be, 3, 2, quick ? 1 : 30);
    device_chooses_what_the_host_chooses(be, 1, 16, quick ? 1 : 60);
    if (!quick) draws_follow_the_distribution(be);
    for (rv_format f : { RV_FORMAT_PLAIN, RV_FORMAT_NF4 }) {
        every_clamped_value_is_counted(half, f);
        every_clamped_value_is_counted(be, f);
    }
    neighbours_are_clamped_one_by_one(half);
    neighbours_are_clamped_one_by_one(be);
    expect(rv_saturated(be) == 0, "bf16 clamps nothing", (long long)rv_saturated(be));
    rv_backend *later = backend(RV_F16);
    expect(clamped(half) == 0 && rv_finish(later, nullptr) == RV_OK && rv_saturated(later) == 0, "a backend counts from its opening");
    for (rv_backend *b : { be, half, later }) rv_backend_close(b);
    printf("%d draws, %d close calls, digest %016llx, %s\n", draws, close_calls, (unsigned long long)digest, failures ? "FAILED" : "all passed");
    if (!*what) times("");
    return failures != 0;
}
