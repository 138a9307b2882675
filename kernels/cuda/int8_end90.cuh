/* int8_end90.cuh - the end of a tile of an LLM.int8 product on Hopper: what becomes of integer sums.
 *
 * The one idea: a thread makes results of its sums where they are, in registers: of two rows of weights, of which one is a gate and the other what the gate is for.  Results, half as large,
 * go through shared memory to whole lines.  A launch finds no instruction in a cache, so they are few: sums move through the registers of CHUNK units, which alone are named in the code,
 * and what is seldom needed is a function apart.
 */
#ifndef RV_KERNELS_CUDA_INT8_END90_CUH
#define RV_KERNELS_CUDA_INT8_END90_CUH
#include "kernels/cuda/int8_tile90.cuh"

#ifdef __CUDA_ARCH_FEAT_SM90_ALL
/* ---- sums, from registers ----
 * A thread has rows of weights g and g + 8 of its warp's 16, and of every 8 rows of x number 2 t and 2 t + 1: g = lane / 4, t = lane % 4. */

/* What a block gets of each other part: a thread's sums of its units, as they are in registers. */
enum { SLOT = MULTIPLIERS * 16, SLOTS_OF_UNIT = 2 };
static __device__ __forceinline__ uint32_t bytes_of_others(const walk &w) { return (uint32_t)((w.g.split - 1) * (w.first_unit(w.part + 1) - w.first_unit(w.part)) * SLOTS_OF_UNIT * SLOT); }

/* Parts of the columns: each block gets the other parts' sums of its units, to the two stages that it holds, a thread's own as they are in registers, and adds them to its own.
 * freed, summed: barriers; the latter expects bytes_of_others. */
template <class S> static __device__ __forceinline__ void exchange_sums(const walk &w, const addresses<S> &a, uint64_t *freed, uint64_t *summed, const results_place<S> &place, int32_t (&sums)[S::MOST / 2]) {
    enum { OF_STAGE = S::STAGE_BYTES / SLOT, UNITS = S::MOST / walk::UNIT };
    const uint32_t mine = ((uint32_t)threadIdx.x - GROUP) * 16, bar = shared_address(summed);
    auto slot = [&](int32_t i) { return (i < OF_STAGE ? place.at[0] + (uint32_t)i * SLOT : place.at[1] + (uint32_t)(i - OF_STAGE) * SLOT) + mine; };
    if (w.g.share == 1) cluster_wait();                     /* meets_later: others' barriers are open */
    if (threadIdx.x == GROUP)            /* the two stages have been read by all of this block: by products that are over, so that no fence is needed */
#pragma unroll 1
        for (int32_t to = 0; to < w.g.split; to++)
            if (to != w.part) arrive_at_peer(peer_address(shared_address(freed), w.rank_of(to, w.place)));
    barrier_wait(freed, 0);
#pragma unroll 1
    for (int32_t to = 0; to < w.g.split; to++) {
        if (to == w.part) continue;
        cursor<S> c;
        c.skip(w.lines_of(to));
        const uint32_t rank = w.rank_of(to, w.place), there = peer_address(bar, rank);
        const int32_t from_unit = w.first_unit(to), end = w.first_unit(to + 1);
        int32_t i = (w.part - (w.part > to)) * SLOTS_OF_UNIT * (end - from_unit);        /* slots; `at` is the next one's address */
        const uint32_t second = peer_address(a.stage(c.at + 1 == S::STAGES ? 0 : c.at + 1), rank) + mine;
        uint32_t at = i < OF_STAGE ? peer_address(a.stage(c.at), rank) + mine + (uint32_t)i * SLOT : second + (uint32_t)(i - OF_STAGE) * SLOT;
#pragma unroll
        for (int u = 0; u < UNITS; u++)
            if (u >= from_unit && u < end)
#pragma unroll
                for (int j = 0; j < SLOTS_OF_UNIT; j++) {
                    const int k = (SLOTS_OF_UNIT * u + j) * 4;
                    send_to_peer(at, make_int4(sums[k], sums[k + 1], sums[k + 2], sums[k + 3]), there);
                    at = ++i == OF_STAGE ? second : at + SLOT;
                }
    }
    barrier_wait_cluster(summed, 0);
    const int32_t from_unit = w.first_unit(w.part), end = w.first_unit(w.part + 1);
#pragma unroll 1
    for (int32_t other = 0; other < w.g.split - 1; other++)
#pragma unroll
        for (int u = 0; u < UNITS; u++)
            if (u >= from_unit && u < end)
#pragma unroll
                for (int j = 0; j < SLOTS_OF_UNIT; j++) {
                    const int i = (SLOTS_OF_UNIT * u + j) * 4;
                    const int4 v = get_four(slot((other * (end - from_unit) + u - from_unit) * SLOTS_OF_UNIT + j));
                    sums[i] += v.x, sums[i + 1] += v.y, sums[i + 2] += v.z, sums[i + 3] += v.w;
                }
}

/* What dense rows' outliers are, to results of units [from, end). */
template <typename T, class S>
static __device__ __forceinline__ void add_dense(const walk &w, const results_place<S> &place, const float (&dense)[S::MOST / 2], int32_t m, int32_t from, int32_t end, int32_t in_tile) {
    const int32_t lane = anew((int32_t)threadIdx.x % 32);
#pragma unroll
    for (int u = 0; u < S::MOST / walk::UNIT; u++)
        if (u >= from && u < end) {
            const uint32_t at = place.unit(u) + place.eight_of(lane / 16 * 8 + lane % 8, in_tile / 8 + lane / 8 % 2);
            uint32_t y[4];
            float v[8];
            get_transposed(y, at);
#pragma unroll
            for (int j = 0; j < 2; j++) {
                const int32_t of_x = m + (2 * u + j) * 8 + lane % 4 * 2, there = w.g.a.rows - of_x;
                const uint32_t bits = there > 0 ? __ldcg(w.g.marks + column_words(w.g.pitch) + RV_CUDA_MARKS_DENSE + of_x / 32) >> of_x % 32 : 0u;
#pragma unroll
                for (int h = 0; h < 2; h++) {
                    const float2 old = pair_of(y[j * 2 + h], T());
                    const int i = (2 * u + j) * 4 + h * 2;
                    v[j * 4 + h * 2] = there > 0 ? old.x + (bits & 1 ? dense[i] : -0.f) : 0.f;      /* beyond the last there is anything */
                    v[j * 4 + h * 2 + 1] = there > 1 ? old.y + (bits & 2 ? dense[i + 1] : -0.f) : 0.f;
                }
            }
            pack_counted(y, v, T());
            put_transposed(at, y);
        }
}

/* ---- results ---- */

/* Four neighbours of a row. */
template <typename T> static __device__ __forceinline__ void add_to(uint32_t (&y)[2], const float (&add)[4]) {
    const float2 a = pair_of(y[0], T()), b = pair_of(y[1], T());
    const float v[4] = { a.x + add[0], a.y + add[1], b.x + add[2], b.y + add[3] };
    pack_counted(y, v, T());
}
static __device__ __forceinline__ void read4(float (&to)[4], const float *from) {
    const float4 v = __ldcg((const float4 *)from);
    to[0] = v.x, to[1] = v.y, to[2] = v.z, to[3] = v.w;
}

/* Sum number k of a thread's in a unit (ending), times both scales. */
static __device__ __forceinline__ float scaled_sum(int32_t sum, const int4 (&x_rows)[2], float2 scale, int k) {
    return __fmul_rn(__fmul_rn((float)sum, __int_as_float(k % 2 ? x_rows[k / 4].z : x_rows[k / 4].x)), k / 2 % 2 ? scale.y : scale.x);
}

/* A unit's results where there is a bias, or something to be clamped, which is seldom: apart, so that nobody fetches these instructions who does not need them. */
template <typename T> static __device__ __noinline__ uint4 careful_results(int4 lo, int4 hi, int4 x_lo, int4 x_hi, float2 scale, float2 bias, bool biased) {
    const int32_t s[8] = { lo.x, lo.y, lo.z, lo.w, hi.x, hi.y, hi.z, hi.w };
    const int4 x_rows[2] = { x_lo, x_hi };
    int32_t clamped = 0;
    float v[8];
#pragma unroll
    for (int k = 0; k < 8; k++) {
        const float scaled = scaled_sum(s[k], x_rows, scale, k);
        if (biased) v[k] = int8_biased<T>(scaled, k / 2 % 2 ? bias.y : bias.x, clamped);
        else v[k] = clamp16(std::is_same<T, __half>::value ? __fmaf_rn(scaled, RV_INT8_BOTH, 0.f) : __fmul_rn(scaled, RV_INT8_BOTH), clamped);
    }
    count_clamped(clamped);
    return make_uint4(pack2(v[0], v[1], T()), pack2(v[2], v[3], T()), pack2(v[4], v[5], T()), pack2(v[6], v[7], T()));
}

/* Results of a tile: a thread's of its own sums; then a warp's rows, two of each unit, STEP at a time, of which a lane has columns 4 lane .. 4 lane + 3. */
template <typename T, typename O, class S, int HOW> struct ending {
    static constexpr int PAIRS = 2, STEP = 2 * PAIRS;
    static constexpr int CHUNK = 2;      /* units of which sums are named                       */
    static constexpr bool ADDS = HOW == rv_few::RV_FEW_ADD;
    struct asked { float more[STEP][4], old[STEP][ADDS ? 4 : 1]; };            /* what is read from memory, steps ahead: nobody touches it before it is used */

    const args8 &g;
    beside<S> &room;
    results_place<S> place;
    int32_t lane, warp;
    int32_t found;
    bool beside_them, before;
    float2 scale, bias;                  /* of this thread's rows of weights                    */

    __device__ __forceinline__ ending(const args8 &g_, beside<S> &room_) : g(g_), room(room_) {
        lane = (int32_t)threadIdx.x % 32;
        warp = ((int32_t)threadIdx.x - GROUP) / 32;
    }
    /* What the helpers have told of a tile. */
    __device__ __forceinline__ void look() {
        found = room.found;
        before = room.before;
        beside_them = found && found <= BESIDE;
    }
    /* Of a tile whose first row of weights is n: asks for what its end needs. */
    __device__ __forceinline__ void begin(int32_t n, int32_t in_tile) {
        const int32_t row = n + in_tile + lane / 4;
        const bool first = row < g.a.cols, second = row + 8 < g.a.cols;
        scale = make_float2(first ? __ldg(g.w_scale + row) : 0.f, second ? __ldg(g.w_scale + row + 8) : 0.f);
        bias = make_float2(first && g.bias ? __ldg(g.bias + row) : 0.f, second && g.bias ? __ldg(g.bias + row + 8) : 0.f);
    }

    /* ---- a thread's sums ----
     * Of CHUNK units at once: columns' weights are read once for them, and what is seldom is asked once.  Of a unit's 8 rows number j rows 2 t and 2 t + 1 times weights g and g + 8: v[j * 4 + h * 2 + i],
     * y[j * 2 + h]. */

    /* x_rows: scale and number of outliers of both rows.  most: of magnitudes so far. */
    __device__ __forceinline__ void of_sums(uint32_t *y, __half2 &most, const int32_t *s, const int4 (&x_rows)[2]) const {
        float v[8];
#pragma unroll
        for (int k = 0; k < 8; k++) {
            const float scaled = scaled_sum(s[k], x_rows, scale, k);
            v[k] = std::is_same<T, __half>::value ? __fmaf_rn(scaled, RV_INT8_BOTH, 0.f) : __fmul_rn(scaled, RV_INT8_BOTH);
        }
#pragma unroll
        for (int k = 0; k < 4; k++) {
            const __half2 pair = __floats2half2_rn(v[2 * k], v[2 * k + 1]);
            most = __hmax2(most, __habs2(pair));
            if (std::is_same<T, __half>::value) y[k] = *(const uint32_t *)&pair;
            else {
                const float2 f = __half22float2(pair);
                y[k] = pack2(f.x, f.y, T());
            }
        }
    }
    /* Either half the largest there is, or infinite. */
    static __device__ __forceinline__ bool has_largest(__half2 most) { return (*(const uint32_t *)&most + 0x04010401u) & 0x80008000u; }
    /* What outliers of columns beside the tile add to CHUNK units' sums, in ascending order as outliers90.cu adds them.  x, w: of the first of the thread's rows. */
    __device__ __forceinline__ void sum_beside(float (&all)[8 * CHUNK], const float *x, const float *w) const {
#pragma unroll
        for (int k = 0; k < 8 * CHUNK; k++) all[k] = 0;
#pragma unroll 1
        for (int32_t o = 0; o < found; o += 4) {
            float4 ws[2];
#pragma unroll
            for (int h = 0; h < 2; h++) ws[h] = *(const float4 *)(w + 8 * h * APART + o);
#pragma unroll
            for (int u = 0; u < CHUNK; u++)
#pragma unroll
                for (int j = 0; j < 2; j++)
#pragma unroll
                    for (int i = 0; i < 2; i++) {
                        const float4 xs = *(const float4 *)(x + (u * walk::UNIT + 8 * j + i) * APART + o);
#pragma unroll
                        for (int h = 0; h < 2; h++) {
                            float &of = all[u * 8 + j * 4 + h * 2 + i];
                            of = __fmaf_rn(xs.x, ws[h].x, of), of = __fmaf_rn(xs.y, ws[h].y, of), of = __fmaf_rn(xs.z, ws[h].z, of), of = __fmaf_rn(xs.w, ws[h].w, of);
                        }
                    }
        }
    }
    /* A unit's results and that; what has no outliers stays as it is, -0 too. */
    static __device__ __forceinline__ void add_beside(float *v, const uint32_t *y, const int4 (&x_rows)[2]) {
#pragma unroll
        for (int k = 0; k < 4; k++) {
            const float2 f = pair_of(y[k], T());
            v[2 * k] = f.x + (x_rows[k / 2].y ? v[2 * k] : -0.f);
            v[2 * k + 1] = f.y + (x_rows[k / 2].w ? v[2 * k + 1] : -0.f);
        }
    }
    /* CHUNK units from `first` on, of which those in [from, end) are this block's and are there. */
    struct units {
        int32_t first, from, end;
        __device__ __forceinline__ bool has(int i) const { return first + i >= from && first + i < end; }
        /* Scales and numbers of outliers of the thread's rows of x, of which the tile's first are `rows`; of units that it has not, nothing. */
        __device__ __forceinline__ void rows_of(int4 (&of)[2], const int4 *rows, int i) const {
#pragma unroll
            for (int j = 0; j < 2; j++) of[j] = has(i) ? rows[(first + i) * walk::UNIT / 2 + 4 * j] : make_int4(0, 0, 0, 0);
        }
    };
    /* The product's results of CHUNK units, the first of which has the first of sums.  rows, x, w: of the thread's first rows of the tile. */
    __device__ __forceinline__ void results(uint32_t (&y)[4 * CHUNK], const int32_t (&sums)[S::MOST / 2], const units &u, const int4 *rows, const float *x, const float *w) const {
        __half2 most = __float2half2_rn(0.f);
        int4 of_x[2];
#pragma unroll
        for (int i = 0; i < CHUNK; i++) {
            u.rows_of(of_x, rows, i);
            of_sums(y + 4 * i, most, sums + 8 * i, of_x);
        }
        if (g.bias || has_largest(most))
#pragma unroll
            for (int i = 0; i < CHUNK; i++) {
                if (!u.has(i)) continue;
                const int32_t *const s = sums + 8 * i;
                u.rows_of(of_x, rows, i);
                const uint4 careful = careful_results<T>(make_int4(s[0], s[1], s[2], s[3]), make_int4(s[4], s[5], s[6], s[7]), of_x[0], of_x[1], scale, bias, g.bias);
                y[4 * i] = careful.x, y[4 * i + 1] = careful.y, y[4 * i + 2] = careful.z, y[4 * i + 3] = careful.w;
            }
        if (!beside_them) return;
        float v[8 * CHUNK];
        sum_beside(v, x + u.first * walk::UNIT * APART, w);
#pragma unroll
        for (int i = 0; i < CHUNK; i++) {
            u.rows_of(of_x, rows, i);
            add_beside(v + 8 * i, y + 4 * i, of_x);
        }
        pack_counted(y, v, T());
    }
    /* SwiGLU of them. */
    static __device__ __forceinline__ void gate(uint32_t (&to)[2 * CHUNK], const uint32_t (&y)[4 * CHUNK]) {
        float v[4 * CHUNK];
#pragma unroll
        for (int i = 0; i < 2 * CHUNK; i++) {
            const float2 gates = pair_of(y[2 * i], T()), ups = pair_of(y[2 * i + 1], T());
            v[2 * i] = silu(gates.x) * ups.x, v[2 * i + 1] = silu(gates.y) * ups.y;
        }
        pack_counted(to, v, T());
    }
    /* Results of units [from, end) to shared memory; GATED: SwiGLU's, else those of the product alone.  Sums are used up. */
    template <bool GATED> __device__ __forceinline__ void make(int32_t (&sums)[S::MOST / 2], int32_t from, int32_t end, int32_t in_tile) {
        const int32_t me = anew(lane), t = me % 4;
        const float *const x = room.x[2 * t];
        const float *const w = room.w[in_tile + me / 4];
        const int4 *const rows = (const int4 *)&room.rows[2 * t];
        const uint32_t in_unit = GATED ? place.half_row(me % 16, in_tile / walk::UNIT) : place.eight_of(me / 16 * 8 + me % 8, in_tile / 8 + me / 8 % 2);
#pragma unroll 1
        for (units u = { 0, from, end }; u.first < end; u.first += CHUNK) {
            if (u.first + CHUNK > from) {
                uint32_t y[4 * CHUNK], gated[2 * CHUNK];
                results(y, sums, u, rows, x, w);
                if (GATED) gate(gated, y);
#pragma unroll
                for (int i = 0; i < CHUNK; i++) {
                    if (!u.has(i)) continue;
                    if constexpr (GATED) put_two_transposed(in_unit + (uint32_t)(u.first + i) * (place.OF_UNIT / 2), { gated[2 * i], gated[2 * i + 1] });
                    else put_transposed(place.unit(u.first + i) + in_unit, { y[4 * i], y[4 * i + 1], y[4 * i + 2], y[4 * i + 3] });
                }
            }
#pragma unroll
            for (int j = 0; j < S::MOST / 2 - 8 * CHUNK; j++) sums[j] = sums[j + 8 * CHUNK];
        }
    }

    /* ---- rows ---- */

    /* Of SwiGLU: eight lanes a row. */
    __device__ __forceinline__ void gated_out(int32_t m, int32_t n, int32_t from, int32_t end) const {
        const int32_t col = n / 2 + lane % 8 * 8, last = min(end * walk::UNIT, g.a.rows - m);
        if (2 * col >= g.a.cols) return;
        T *const to = (T *)g.a.out + (int64_t)m * g.a.out_ld + col;
#pragma unroll 1
        for (int32_t row = from * walk::UNIT + warp * 4 + lane / 8; row < last; row += MULTIPLIER_WARPS * 4) *(int4 *)(to + row * g.a.out_ld) = get_four(place.half_row(row, lane % 8));
    }

    /* Which rows of a tile's units are a warp's, one after the other. */
    static __device__ __forceinline__ int32_t row_of(int32_t i) { return i / 2 * walk::UNIT + i % 2; }
    struct rows { int32_t first, n, col; bool inside; };          /* first: of x and of out; n: how many there are */
    __device__ __forceinline__ void ask(asked &a, const rows &r, int32_t i) const {
        const int64_t row = r.first + row_of(i);
        const float *const more = g.more + row * g.a.cols + r.col, *const old = (const float *)g.a.out + row * g.a.out_ld + r.col;
#pragma unroll
        for (int u = 0; u < STEP; u++) {
            if (i + u >= r.n || row + row_of(u) >= g.a.rows || !r.inside) continue;
            if (before) read4(a.more[u], more + (int64_t)row_of(u) * g.a.cols);
            if constexpr (ADDS) read4(a.old[u], old + row_of(u) * g.a.out_ld);
        }
    }
    /* To memory; all lanes come. */
    __device__ __forceinline__ void finish(O *to, bool there, float row_on, const uint32_t (&y)[2], const float (&old)[ADDS ? 4 : 1]) const {
        const float2 a = pair_of(y[0], T()), b = pair_of(y[1], T());
        if constexpr (HOW == rv_few::RV_FEW_SWIGLU) {
            /* Lanes 4 i, 4 i + 1 have gates, the next two what they are for: of four results each of both makes two. */
            const bool up = lane & 2;
            const float2 give = up ? a : b, keep = up ? b : a;
            const float2 got = make_float2(__shfl_xor_sync(~0u, give.x, 2), __shfl_xor_sync(~0u, give.y, 2)), gates = up ? got : keep, ups = up ? keep : got;
            const float v[2] = { silu(gates.x) * ups.x, silu(gates.y) * ups.y };
            uint32_t packed[1];
            pack_counted(packed, v, T());
            if (there) *(uint32_t *)to = packed[0];
        } else if constexpr (HOW == rv_few::RV_FEW_GELU) {
            const float v[4] = { gelu(a.x), gelu(a.y), gelu(b.x), gelu(b.y) };
            uint32_t packed[2];
            pack_counted(packed, v, T());
            if (there) *(uint2 *)to = make_uint2(packed[0], packed[1]);
        } else if constexpr (sizeof(O) == 2) {
            if (there) *(uint2 *)to = make_uint2(y[0], y[1]);
        } else if constexpr (ADDS) {
            const float by = g.a.row_scale ? g.a.scale * row_on : g.a.scale;
            if (there && row_on != 0.f) *(float4 *)to = make_float4(old[0] + by * a.x, old[1] + by * a.y, old[2] + by * b.x, old[3] + by * b.y);
        } else if (there) *(float4 *)to = make_float4(a.x, a.y, b.x, b.y);
    }
    /* Of a tile whose first rows are m of x and n of weights: units [from, end), from where make put them, with what is added to them. */
    __device__ __forceinline__ void rows_out(int32_t m, int32_t n, int32_t from, int32_t end) {
        const rows r = { m + from * walk::UNIT + warp * 2, 2 * (end - from), n + lane * 4, n + lane * 4 < g.a.cols };
        const int32_t mine = r.first + row_of(lane);
        const float on = ADDS && g.a.row_scale && lane < r.n && mine < g.a.rows ? g.a.row_scale[mine] : 1.f;
        const int32_t column = HOW == rv_few::RV_FEW_SWIGLU ? n / 2 + lane / 4 * 8 + lane % 2 * 4 + (lane & 2) : r.col;
        asked now = {};
        ask(now, r, 0);
#pragma unroll 1
        for (int32_t i = 0; i < r.n; i += STEP) {
            uint32_t y[STEP][2] = {};    /* of rows that are not there nothing is clamped, either */
#pragma unroll
            for (int u = 0; u < STEP; u++)
                if (i + u < r.n) get_pair(y[u], place.unit(from + (i + u) / 2) + place.eight_of(warp * 2 + u % 2, lane / 2) + (uint32_t)lane % 2 * 8);
            O *const to = (O *)g.a.out + (int64_t)(r.first + row_of(i)) * g.a.out_ld + column;
#pragma unroll
            for (int u = 0; u < STEP; u++) {
                const bool there = i + u < r.n && r.first + row_of(i + u) < g.a.rows;
                if (before && there) add_to<T>(y[u], now.more[u]);
                finish(to + row_of(u) * g.a.out_ld, r.inside && there, ADDS ? __shfl_sync(~0u, on, i + u) : 1.f, y[u], now.old[u]);
            }
            ask(now, r, i + STEP);
        }
    }
};
#endif
#endif
