/* outliers90.cu - what outliers add to an LLM.int8 product with many rows, where they are in many columns: `down` has some dozens a row, in other
 * columns each.
 *
 * The one idea: nobody waits for memory.  Some warps bring codes of 16 rows of weights, a few thousand columns at a time, and leave them column by column in one of two
 * panels of shared memory, while the others add what is in the other panel: half a warp takes a row's list, entry by entry, and each lane has a row of weights.  What
 * a code is as a weight, rounded, stands in a table.  Sums are in ascending order of columns, as int8_90.cuh adds those that are beside a tile.
 */
#include "kernels/cuda/hopper.cuh"
#include "kernels/cuda/int8_many.cuh"
#include "kernels/cuda/launch.cuh"

enum { BRINGERS = 14, ADDERS = 18,       /* warps                                               */
       THREADS = (BRINGERS + ADDERS) * 32,
       WIDE = 16,                        /* rows of weights at a time                           */
       STEP = 128,                       /* columns, of which slices have whole numbers         */
       UNITS = 2,                        /* that a warp has asked for                           */
       AHEAD = 4,                        /* pairs of rows whose entries are asked for before their turn */
       MOST_PAIRS = 32,                  /* of rows, that a warp has                            */
       TOGETHER = 4,                     /* entries                                             */
       PANEL_BYTES = 64 << 10,           /* of codes, at most                                   */
       TABLE = 256 * WIDE,               /* weights of all codes                                */
       WEIGHT_BYTES = WIDE * 4,          /* of those of one code                                */
       NEAR_BYTES = 2 * 32 * 8,          /* of a warp: entries of two rows, twice               */
       MOST_BYTES = 227 << 10 };         /* of shared memory                                    */

struct outlier_args {
    const int8_row *rows;
    const uint32_t *columns, *list;
    const uint16_t *starts, *column_starts;
    const int32_t *n_columns;
    const void *x;
    const int8_t *w;
    const float *w_scale;
    void *out;                           /* f32, or (after the product) act                     */
    int64_t x_ld, out_ld;
    int32_t n, w_rows, pitch;
    int32_t listed;                      /* entries of a list, at most: rows of more are dense  */
    int32_t together;                    /* slices of a panel                                   */
    int32_t widest, at_once;             /* columns of a panel, at most; rows of activations that have room together */
    float threshold;
};

#ifdef __CUDA_ARCH_FEAT_SM90_ALL
/* ---- what a block does, panel after panel ---- */

/* Tiles of WIDE rows of weights; for each as many rows of activations as have room; of those panel after panel of columns. */
struct panels {
    const outlier_args &g;
    int32_t steps, passes, each;         /* of STEP columns; of rows; panels a pass             */
    int32_t at, first, row0, slice;      /* which it is; row of weights, row of x, slice it begins with */
    __device__ __forceinline__ panels(const outlier_args &g_) : g(g_), at(0), first((int32_t)blockIdx.x * WIDE), row0(0), slice(0) {
        steps = (g.pitch + STEP - 1) / STEP;
        passes = (g.n + g.at_once - 1) / g.at_once;
        each = SLICES / g.together;
    }
    __device__ __forceinline__ bool more() const { return first < g.w_rows; }
    __device__ __forceinline__ void next() {
        at++;
        if ((slice += g.together) < SLICES) return;
        slice = 0;
        if ((row0 += g.at_once) < g.n) return;
        row0 = 0;
        first += (int32_t)gridDim.x * WIDE;
    }
    __device__ __forceinline__ int32_t first_step() const { return slice_start(steps, slice); }
    __device__ __forceinline__ int32_t end_step() const { return slice_start(steps, slice + g.together); }
    __device__ __forceinline__ int32_t rows() const { return min(g.at_once, g.n - row0); }
    __device__ __forceinline__ bool begins_tile() const { return row0 == 0 && slice == 0; }
    __device__ __forceinline__ int32_t tile() const { return at / (each * passes); }
    __device__ __forceinline__ uint32_t panel() const { return (uint32_t)at & 1; }
    __device__ __forceinline__ uint32_t parity() const { return (uint32_t)at >> 1 & 1; }
};

/* Where things lie in shared memory. */
struct shared {
    int32_t widest;
    uint64_t *full, *empty;
    static __device__ __forceinline__ uint8_t *memory() {
        extern __shared__ uint4 bytes[];
        return (uint8_t *)bytes;
    }
    __device__ __forceinline__ int8_t *panel(uint32_t i) const { return (int8_t *)(memory() + (int32_t)i * (widest * WIDE)); }
    __device__ __forceinline__ float *table(int32_t i) const { return (float *)(memory() + 2 * widest * WIDE) + i * TABLE; }
    __device__ __forceinline__ uint2 *near(int32_t warp) const { return (uint2 *)(memory() + 2 * widest * WIDE + 2 * TABLE * (int32_t)sizeof(float) + warp * NEAR_BYTES); }
    __device__ __forceinline__ float *sums() const { return (float *)near(ADDERS); }
};

/* ---- codes to shared memory ---- */

/* Where column k of a panel lies: its rows' codes together, and of eight that a warp writes at a time no two meet in a bank. */
static __device__ __forceinline__ int32_t place_in_panel(int32_t k) { return (k ^ (k >> 4 & 7)) * WIDE; }

/* A lane's part of STEP columns: 16 of them of four rows. */
struct unit { uint4 row[4]; };
static __device__ __forceinline__ void read_unit(const outlier_args &g, unit &u, int32_t first, int32_t step) {
    const int32_t lane = (int32_t)threadIdx.x % 32, k = step * STEP + lane % 8 * 16, row = first + lane / 8 * 4;
#pragma unroll
    for (int i = 0; i < 4; i++) u.row[i] = row + i < g.w_rows && k < g.pitch ? __ldcg((const uint4 *)(g.w + (int64_t)(row + i) * g.pitch + k)) : make_uint4(0, 0, 0, 0);
}
/* k: its first column in the panel. */
static __device__ __forceinline__ void write_unit(const unit &u, int8_t *panel, int32_t k) {
    const int32_t lane = (int32_t)threadIdx.x % 32, four = lane / 8 * 4;
#pragma unroll
    for (int q = 0; q < 4; q++) {
        auto word = [&](int i) { return q == 0 ? u.row[i].x : q == 1 ? u.row[i].y : q == 2 ? u.row[i].z : u.row[i].w; };
        const uint32_t a = __byte_perm(word(0), word(1), 0x5140), b = __byte_perm(word(2), word(3), 0x5140), c = __byte_perm(word(0), word(1), 0x7362), d = __byte_perm(word(2), word(3), 0x7362);
        const uint32_t columns[4] = { __byte_perm(a, b, 0x5410), __byte_perm(a, b, 0x7632), __byte_perm(c, d, 0x5410), __byte_perm(c, d, 0x7632) };
#pragma unroll
        for (int i = 0; i < 4; i++) *(uint32_t *)(panel + place_in_panel(k + lane % 8 * 16 + q * 4 + i) + four) = columns[i];
    }
}
/* A warp's units one after the other, whichever panels they are of. */
struct unit_walk {
    panels p;
    int32_t step;
    __device__ __forceinline__ unit_walk(const outlier_args &g) : p(g) { step = first(); }
    __device__ __forceinline__ int32_t first() const { return p.first_step() + (int32_t)threadIdx.x / 32; }
};
static __device__ __forceinline__ void read_next(const outlier_args &g, unit_walk &ahead, unit &u) {
    while (ahead.p.more() && ahead.step >= ahead.p.end_step()) {
        ahead.p.next();
        ahead.step = ahead.first();
    }
    if (ahead.p.more()) read_unit(g, u, ahead.p.first, ahead.step);
    ahead.step += BRINGERS;
}
template <typename T> static __device__ __forceinline__ void make_table(const outlier_args &g, float *table, int32_t first) {
    const int32_t row = first + (int32_t)threadIdx.x % WIDE;
    const float scale = row < g.w_rows ? __ldg(g.w_scale + row) : 0.f;
    for (int32_t i = (int32_t)threadIdx.x; i < TABLE; i += BRINGERS * 32) table[i] = to_f32(int8_weight<T>((float)(i / WIDE - 128), scale));
}
static_assert(BRINGERS * 32 % WIDE == 0, "a thread makes weights of one row");
/* BRINGERS warps.  What is read lands in registers that nobody touches before it is written. */
template <typename T> static __device__ __forceinline__ void bring_panels(const outlier_args &g, const shared &s) {
    wait_for_previous();
    if (__ldcg(g.n_columns) <= RV_CUDA_INT8_BESIDE || !__ldcg(g.n_columns + 1)) return;
    unit units[UNITS];
    unit_walk ahead(g), now(g);
    const panels &p = now.p;
#pragma unroll
    for (int i = 0; i < UNITS; i++) read_next(g, ahead, units[i]);
    auto begin = [&] {
        if (!p.more()) return;
        barrier_wait(&s.empty[p.panel()], p.parity() ^ 1);
        if (p.begins_tile()) make_table<T>(g, s.table(p.tile() & 1), p.first);
    };
    auto bring = [&](unit &u) {
        while (p.more() && now.step >= p.end_step()) {
            warp_arrive(&s.full[p.panel()]);
            now.p.next();
            now.step = now.first();
            begin();
        }
        if (!p.more()) return false;
        write_unit(u, s.panel(p.panel()), (now.step - p.first_step()) * STEP);
        now.step += BRINGERS;
        read_next(g, ahead, u);
        return true;
    };
    begin();
    while (bring(units[0]) && bring(units[1])) {}
}
static_assert(UNITS == 2, "each by its name");

/* ---- rows of activations ---- */

static __device__ __forceinline__ bool is_listed(const outlier_args &g, int32_t row) { return (uint32_t)__ldcg(&g.rows[row].outliers) - 1 < (uint32_t)g.listed; }

/* By its address in shared memory: one instruction finds it. */
static __device__ __forceinline__ float weight_at(int32_t address) {
    float w;
    asm volatile("ld.shared.f32 %0, [%1];" : "=f"(w) : "r"(address));
    return w;
}

/* A warp's rows of a pass: pairs [0, pairs) from row0 on, half a warp a row of each; a lane knows of every 16th pair's.  BY_CALL: entries are of all rows' list. */
template <typename T, bool BY_CALL> struct adder {
    static constexpr int OF_LANE = MOST_PAIRS / 16;
    const outlier_args &g;
    const shared &s;
    int32_t found, lane16, half, warp;
    int32_t row0, pairs, end_row;        /* end_row: of the pass                                */
    int32_t first_column;                /* of the panel                                        */
    float *sums;                         /* this lane's, of pair 0                              */
    bool listed[OF_LANE];
    uint32_t spans[OF_LANE];             /* of the panel: the first entry, the end << 16        */
    uint32_t ahead[AHEAD], span_of[AHEAD];

    __device__ __forceinline__ adder(const outlier_args &g_, const shared &s_, int32_t found_) : g(g_), s(s_), found(found_) {
        warp = (int32_t)threadIdx.x / 32 - BRINGERS;
        lane16 = (int32_t)threadIdx.x % 16;
        half = (int32_t)threadIdx.x / 16 % 2;
    }
    __device__ __forceinline__ int32_t row_of(int32_t pair) const { return row0 + 2 * pair + half; }
    __device__ __forceinline__ void begin_pass(const panels &p) {
        const int32_t most = g.at_once / 2, from = most * warp / ADDERS, there = (p.rows() + 1) / 2 - from;
        pairs = min(most * (warp + 1) / ADDERS - from, max(there, 0));       /* of sums the same warp's in every pass */
        row0 = p.row0 + 2 * from;
        end_row = p.row0 + p.rows();
        sums = s.sums() + 2 * from * WIDE + half * WIDE + lane16;
#pragma unroll
        for (int m = 0; m < OF_LANE; m++) {
            const int32_t pair = m * 16 + lane16;
            listed[m] = pair < pairs && row_of(pair) < end_row && is_listed(g, row_of(pair));
        }
        for (int32_t i = 0; i < pairs; i++) sums[i * 2 * WIDE] = 0;
    }
    __device__ __forceinline__ void ask_spans(const panels &p) {
        const int32_t to = p.slice + g.together;
        first_column = p.first_step() * STEP;
#pragma unroll
        for (int m = 0; m < OF_LANE; m++) {
            const int32_t row = row_of(m * 16 + lane16);
            const uint16_t *starts = BY_CALL ? g.column_starts : g.starts + (int64_t)row * SLICES;
            spans[m] = 0;
            if (listed[m]) spans[m] = __ldcg(starts + p.slice) | (to < SLICES ? (uint32_t)__ldcg(starts + to) : BY_CALL ? (uint32_t)found : (uint32_t)__ldcg(&g.rows[row].outliers)) << 16;
        }
    }
    __device__ __forceinline__ uint32_t span(int32_t pair) const { return __shfl_sync(~0u, pair < 16 ? spans[0] : spans[1], half * 16 + pair % 16); }
    /* Behind the last are zeros, which add nothing. */
    __device__ __forceinline__ uint32_t entry(int32_t pair, int32_t i, int32_t end) const {
        if (i >= end) return (uint32_t)first_column;
        if (!BY_CALL) return __ldcg(g.list + row0 * g.listed + (2 * pair + half) * g.listed + i);
        const uint32_t column = __ldcg(g.columns + i);
        const T x = outlier_value<T>(g.x, g.x_ld, row_of(pair), (int32_t)column, g.threshold);
        return column | (uint32_t)*(const uint16_t *)&x << 16;
    }
    __device__ __forceinline__ void ask_entry(int u, int32_t pair) {
        span_of[u] = pair < pairs ? span(pair) : 0u;
        ahead[u] = entry(pair, (int32_t)(span_of[u] & 0xffff) + lane16, (int32_t)(span_of[u] >> 16));
    }
    __device__ __forceinline__ void ask_entries() {
#pragma unroll
        for (int u = 0; u < AHEAD; u++) ask_entry(u, u);
    }
    /* What a lane has of the next 16 entries of its half's row. */
    __device__ __forceinline__ void lay(uint2 *near, uint32_t entry) const {
        near[half * 16 + lane16] = make_uint2((uint32_t)place_in_panel(column_of(entry) - first_column), __float_as_uint(value_of<T>(entry)));
        __syncwarp();
    }
    /* n: of both halves, at most. */
    __device__ __forceinline__ float add(float sum, const uint2 *near, int32_t n, const int8_t *codes, int32_t table) const {
#pragma unroll 1
        for (int32_t j = 0; j < n; j += TOGETHER) {
            float x[TOGETHER], w[TOGETHER];
            uint4 two[TOGETHER / 2];
#pragma unroll
            for (int u = 0; u < TOGETHER / 2; u++) two[u] = *(const uint4 *)(near + half * 16 + j + 2 * u);
#pragma unroll
            for (int u = 0; u < TOGETHER / 2; u++) {
                x[2 * u] = __uint_as_float(two[u].y), x[2 * u + 1] = __uint_as_float(two[u].w);
                w[2 * u] = weight_at(table + codes[two[u].x] * WEIGHT_BYTES), w[2 * u + 1] = weight_at(table + codes[two[u].z] * WEIGHT_BYTES);
            }
#pragma unroll
            for (int u = 0; u < TOGETHER; u++) sum = __fmaf_rn(x[u], w[u], sum);
        }
        return sum;
    }
    __device__ __forceinline__ void add_panel(const panels &p) {
        uint2 *const near = s.near(warp);
        const int8_t *const codes = s.panel(p.panel()) + lane16;
        const int32_t table = (int32_t)shared_address(s.table(p.tile() & 1) + 128 * WIDE + lane16);
#pragma unroll 1
        for (int32_t base = 0; base < pairs; base += AHEAD)
#pragma unroll
            for (int u = 0; u < AHEAD; u++) {
                const int32_t pair = base + u;
                if (pair >= pairs) break;
                const int32_t begin = (int32_t)(span_of[u] & 0xffff), end = (int32_t)(span_of[u] >> 16), other = __shfl_xor_sync(~0u, end - begin, 16), most = max(end - begin, other);
                uint2 *const room = near + u % 2 * 32;         /* what was there two pairs ago has been read */
                lay(room, ahead[u]);
                ask_entry(u, pair + AHEAD);                    /* its register waits for memory, and nobody for it */
                if (most == 0) continue;
                float sum = add(sums[pair * 2 * WIDE], room, min(most, 16), codes, table);
#pragma unroll 1
                for (int32_t i = 16; i < most; i += 16) {
                    const uint32_t now = entry(pair, begin + i + lane16, end);
                    __syncwarp();        /* all have read those of before                       */
                    lay(room, now);
                    sum = add(sum, room, min(most - i, 16), codes, table);
                }
                sums[pair * 2 * WIDE] = sum;
            }
    }
    /* Where they go: to what the product adds, where a row without outliers has the one number that changes none; or to the product's results. */
    template <bool AFTER> __device__ __forceinline__ void leave(int32_t first) const {
#pragma unroll 4
        for (int32_t pair = 0; pair < pairs; pair++) {
            const bool has = __shfl_sync(~0u, pair < 16 ? listed[0] : listed[1], half * 16 + pair % 16);
            const int32_t row = row_of(pair);
            if (row >= end_row || first + lane16 >= g.w_rows) continue;
            const float sum = sums[pair * 2 * WIDE];
            const int64_t at = (int64_t)row * g.out_ld + first + lane16;
            if (!AFTER) ((float *)g.out)[at] = has ? sum : -0.f;
            else if (has) {
                const uint16_t y = __ldcg((const uint16_t *)g.out + at);
                ((T *)g.out)[at] = to_act<T>(to_f32(*(const T *)&y) + sum);
            }
        }
    }
};
static_assert(MOST_PAIRS == 32, "span() and leave() choose between two");

/* ADDERS warps. */
template <typename T, bool AFTER, bool BY_CALL> static __device__ __forceinline__ void add_panels(const outlier_args &g, const shared &s) {
    wait_for_previous();
    const int32_t found = __ldcg(g.n_columns);
    if (found <= RV_CUDA_INT8_BESIDE || !__ldcg(g.n_columns + 1)) return;
    adder<T, BY_CALL> a(g, s, found);
#pragma unroll 1
    for (panels p(g); p.more(); p.next()) {
        if (p.slice == 0) a.begin_pass(p);
        a.ask_spans(p);
        a.ask_entries();
        barrier_wait(&s.full[p.panel()], p.parity());
        a.add_panel(p);
        warp_arrive(&s.empty[p.panel()]);
        if (p.slice + g.together == SLICES) a.template leave<AFTER>(p.first);
    }
}
#endif

/* AFTER: to results in out, which are stored without; else out is for the product to add. */
template <typename T, bool AFTER, bool BY_CALL> static __global__ void __launch_bounds__(THREADS, 1) outliers_kernel(const outlier_args g) {
#ifdef __CUDA_ARCH_FEAT_SM90_ALL
    __shared__ alignas(8) uint64_t barriers[4];
    const shared s = { g.widest, barriers, barriers + 2 };
    let_next_start();
    if (threadIdx.x == 0) {
        for (int i = 0; i < 2; i++) barrier_open(&s.full[i], BRINGERS * WARP_ARRIVALS), barrier_open(&s.empty[i], ADDERS * WARP_ARRIVALS);
        barriers_opened();
    }
    __syncthreads();
    if (threadIdx.x < BRINGERS * 32) bring_panels<T>(g, s);
    else add_panels<T, AFTER, BY_CALL>(g, s);
#endif
}

/* ---- launching ---- */

template <typename T> static cudaError_t launch(outlier_args g, bool after, bool by_call, int32_t multiprocessors, bool overlap, cudaStream_t stream) {
    auto kernel = by_call ? (after ? outliers_kernel<T, true, true> : outliers_kernel<T, false, true>) : after ? outliers_kernel<T, true, false> : outliers_kernel<T, false, false>;
    const int32_t steps = (g.pitch + STEP - 1) / STEP, blocks = (g.w_rows + WIDE - 1) / WIDE, row_bytes = WIDE * (int32_t)sizeof(float);
    for (g.together = SLICES; g.together > 1 && (steps * g.together + SLICES - 1) / SLICES * STEP * WIDE > PANEL_BYTES; g.together /= 2) {}
    g.widest = (steps * g.together + SLICES - 1) / SLICES * STEP;
    const int32_t fixed = 2 * (g.widest * WIDE + TABLE * (int32_t)sizeof(float)) + ADDERS * NEAR_BYTES, most_pairs = (MOST_BYTES - 64 - fixed) / (2 * row_bytes);
    if (most_pairs <= 0) return cudaErrorInvalidValue;
    const int32_t room = 2 * (most_pairs < ADDERS * MOST_PAIRS ? most_pairs : ADDERS * MOST_PAIRS), passes = (g.n + room - 1) / room;
    g.at_once = (g.n + passes * 2 - 1) / (passes * 2) * 2;
    const int32_t bytes = fixed + g.at_once * row_bytes;
    cudaError_t e = cudaFuncSetAttribute(kernel, cudaFuncAttributeMaxDynamicSharedMemorySize, bytes);
    return e ? e : launch_kernel(kernel, dim3((unsigned)(blocks < multiprocessors ? blocks : multiprocessors)), THREADS, (size_t)bytes, overlap, stream, g);
}

bool rv_cuda_int8_before(const rv_int8 *q) { return q->p.how != rv_few::RV_FEW_STORE || q->p.out.type == RV_F32; }

cudaError_t rv_cuda_outliers90(const rv_int8 *q, const rv_int8_many *room, bool overlap, cudaStream_t stream) {
    const rv_few *p = &q->p;
    const bool before = rv_cuda_int8_before(q), by_call = q->rules.by_call && q->call.rows > 1;
    const outlier_args g = { (const int8_row *)room->rows, room->columns, room->list, room->starts, room->column_starts, room->n_columns, room->h ? room->h : p->x.data,
                             (const int8_t *)p->w, q->w_scale, before ? (void *)room->more : p->out.data, room->h ? q->pitch : p->x.ld,
                             before ? (int64_t)p->rows : p->out.ld, p->x.rows, p->rows, q->pitch, rv_cuda_int8_listed(q->pitch), 0, 0, 0, by_call ? 0.f : q->rules.threshold };
    return p->act == RV_BF16 ? launch<__nv_bfloat16>(g, !before, by_call, p->multiprocessors, overlap, stream) : launch<__half>(g, !before, by_call, p->multiprocessors, overlap, stream);
}

RV_CUDA_CLAMPED(outliers90)
