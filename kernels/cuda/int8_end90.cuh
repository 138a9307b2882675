/* int8_end90.cuh - the end of a tile of an LLM.int8 product on Hopper: what becomes of integer sums.
 *
 * The one idea: those who multiply leave a tile's sums in shared memory, as rows of x, and make results of them row by row, a lane four neighbours.  So a row's numbers are the
 * same for a whole warp, memory is met in whole lines, and the instructions are few enough to be there at once: nothing is unrolled but what has sums in registers.
 */
#ifndef RV_KERNELS_CUDA_INT8_END90_CUH
#define RV_KERNELS_CUDA_INT8_END90_CUH
#include "kernels/cuda/int8_tile90.cuh"

#ifdef __CUDA_ARCH_FEAT_SM90_ALL
/* ---- sums, from registers ----
 * A thread has rows of weights g and g + 8 of its warp's 16, and of every 8 rows of x number 2 t and 2 t + 1: g = lane / 4, t = lane % 4. */

/* Parts of the columns: each block gets the other parts' sums of its units, to the two stages that it holds, a thread's own as they are in registers, and adds them to its own. */
template <class S> static __device__ __forceinline__ void exchange_sums(const walk &w, const addresses<S> &a, uint64_t *summed, const sums_place<S> &place, int32_t (&sums)[S::MOST / 2]) {
    enum { SLOT = MULTIPLIERS * 16, OF_STAGE = S::STAGE_BYTES / SLOT, UNITS = S::MOST / walk::UNIT, MOST_PARTS = 4 };
    const uint32_t mine = ((uint32_t)threadIdx.x - GROUP) * 16, bar = shared_address(summed);
    auto slot = [&](uint32_t first, uint32_t second, int32_t i) { return (i < OF_STAGE ? first + (uint32_t)i * SLOT : second + (uint32_t)(i - OF_STAGE) * SLOT) + mine; };
    cluster_meet();                      /* all have read their rings                           */
#pragma unroll 1
    for (int32_t to = 0; to < w.g.split; to++) {
        if (to == w.part) continue;
        cursor<S> c;
        c.skip(w.lines_of(to));
        const uint32_t rank = w.rank_of(to, w.place), first = peer_address(a.stage(c.at), rank), second = peer_address(a.stage(c.at + 1 == S::STAGES ? 0 : c.at + 1), rank);
        const int32_t from_unit = w.first_unit(to), end = w.first_unit(to + 1), at = (w.part - (w.part > to)) * 2 * (end - from_unit);
#pragma unroll
        for (int u = 0; u < UNITS; u++)
            if (u >= from_unit && u < end)
#pragma unroll
                for (int j = 0; j < 2; j++) {
                    const int i = (2 * u + j) * 4;
                    store_at_peer(slot(first, second, at + 2 * (u - from_unit) + j), make_int4(sums[i], sums[i + 1], sums[i + 2], sums[i + 3]));
                }
        __syncwarp();
        if (threadIdx.x % 32 == 0) arrive_at_cluster(peer_address(bar, rank));
    }
    barrier_wait_cluster(summed, 0);
    const int32_t from_unit = w.first_unit(w.part), end = w.first_unit(w.part + 1);
#pragma unroll 1
    for (int32_t other = 0; other < w.g.split - 1; other++)
#pragma unroll
        for (int u = 0; u < UNITS; u++)
            if (u >= from_unit && u < end)
#pragma unroll
                for (int j = 0; j < 2; j++) {
                    const int i = (2 * u + j) * 4;
                    const int4 v = get_four(slot(place.at[0], place.at[1], (other * (end - from_unit) + u - from_unit) * 2 + j));
                    sums[i] += v.x, sums[i + 1] += v.y, sums[i + 2] += v.z, sums[i + 3] += v.w;
                }
}

/* Units [from, end) of [0, MOST), HALF rows at most, to shared memory.  in_tile: the warp's first row of weights. */
template <class S, int MOST> static __device__ __forceinline__ void leave_sums(const sums_place<S> &place, const int32_t (&sums)[S::MOST / 2], int32_t from, int32_t end, int32_t in_tile) {
    const int32_t lane = anew((int32_t)threadIdx.x % 32), g = lane / 4, t = lane % 4;
    uint32_t to[2][2];
#pragma unroll
    for (int j = 0; j < 2; j++)
#pragma unroll
        for (int h = 0; h < 2; h++)
            to[j][h] = place.sums(j * 4 + t) + place.sums_of(j * 4 + t, (in_tile + g) / 4 + 2 * h) + (uint32_t)(g % 4 * 4 - from * 2 * place.OF_ROW);
#pragma unroll
    for (int u = 0; u < MOST; u++)
        if (u >= from && u < end)
#pragma unroll
            for (int j = 0; j < 2; j++)
#pragma unroll
                for (int h = 0; h < 2; h++)
#pragma unroll
                    for (int i = 0; i < 2; i++) put_word(to[j][h] + (uint32_t)((2 * u + i) * place.OF_ROW), sums[(2 * u + j) * 4 + h * 2 + i]);
}

/* What dense rows' outliers are, to results of units [from, end). */
template <typename T, class S>
static __device__ __forceinline__ void add_dense(const walk &w, const sums_place<S> &place, const float (&dense)[S::MOST / 2], int32_t m, int32_t from, int32_t end, int32_t in_tile) {
    const int32_t lane = anew((int32_t)threadIdx.x % 32);
#pragma unroll
    for (int u = 0; u < S::MOST / walk::UNIT; u++)
        if (u >= from && u < end) {
            const uint32_t at = place.results(lane / 16 * 4 + lane % 8 / 2, u - from, lane % 2, in_tile / 8 + lane / 8 % 2);
            uint32_t y[4];
            float v[8];
            get_transposed(y, at);
#pragma unroll
            for (int j = 0; j < 2; j++) {
                const int32_t of_x = m + (2 * u + j) * 8 + lane % 4 * 2, there = w.g.a.rows - of_x;
                const uint32_t bits = there > 0 ? __ldcg(w.g.dense + of_x / 32) >> of_x % 32 : 0u;
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

/* Two without bias, of which neither is beyond f16. */
static __device__ __forceinline__ uint32_t pack_through16(float a, float b, __half) {
    const __half2 h = __floats2half2_rn(a, b);
    return *(const uint32_t *)&h;
}
static __device__ __forceinline__ uint32_t pack_through16(float a, float b, __nv_bfloat16 t) {
    const float2 f = __half22float2(__floats2half2_rn(a, b));
    return pack2(f.x, f.y, t);
}

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

/* A warp's rows of a tile, two of each unit, STEP at a time; a lane has columns 4 lane .. 4 lane + 3. */
template <typename T, typename O, class S, int HOW> struct ending {
    static constexpr int PAIRS = 2, STEP = 2 * PAIRS;
    static constexpr bool ADDS = HOW == rv_few::RV_FEW_ADD;
    static constexpr int STEPS_AHEAD = 1;
    struct asked { float more[STEP][4], old[STEP][ADDS ? 4 : 1]; };            /* what is read from memory, steps ahead: nobody touches it before it is used */

    const args8 &g;
    const walk &w;
    beside<T, S> &room;
    sums_place<S> place;
    asked ahead[STEPS_AHEAD];
    int32_t lane, warp;
    int32_t found;
    bool beside_them, before;
    bool inside;                         /* whether this lane's columns are                     */
    int32_t col;
    int32_t units, first;                /* of the half; row of x and of out of the warp's first */
    int32_t in_tile;                     /* and in the tile                                     */
    uint32_t sums;                       /* address of this lane's of that                      */
    int2 x;                              /* lane 2 i + j: of row j of unit i                    */
    float on;
    float scale[4], bias[4];
    int32_t clamped;

    __device__ __forceinline__ ending(const args8 &g_, const walk &w_, beside<T, S> &room_) : g(g_), w(w_), room(room_), clamped(0) {
        lane = (int32_t)threadIdx.x % 32;
        warp = ((int32_t)threadIdx.x - GROUP) / 32;
        found = __ldcg(g.n_columns);
        beside_them = found && found <= BESIDE;
        before = found > BESIDE && g.more && __ldcg(g.n_columns + 1);
    }
    __device__ __forceinline__ void begin(int32_t n) {
        col = n + lane * 4;
        inside = col < g.a.cols;
#pragma unroll
        for (int i = 0; i < 4; i += 2) {
            const float2 s = inside ? __ldg((const float2 *)(g.w_scale + col + i)) : make_float2(0, 0), b = inside && g.bias ? __ldg((const float2 *)(g.bias + col + i)) : make_float2(0, 0);
            scale[i] = s.x, scale[i + 1] = s.y, bias[i] = b.x, bias[i + 1] = b.y;
        }
        sums = place.sums(warp) + place.sums_of(warp, lane);
    }
    /* Units [from, end) of the tile whose first row is m. */
    __device__ __forceinline__ void begin_rows(int32_t m, int32_t from, int32_t end) {
        units = end - from;
        in_tile = from * walk::UNIT + warp * 2;
        first = m + in_tile;
        const int32_t row = first + row_of(lane);
        const bool there = lane < 2 * units && row < g.a.rows;
        x = there ? __ldcg((const int2 *)(g.x_rows + row)) : make_int2(0, 0);
        if (ADDS) on = there && g.a.row_scale ? g.a.row_scale[row] : 1.f;
#pragma unroll
        for (int i = 0; i < STEPS_AHEAD; i++) ahead[i] = asked();              /* so that nothing of the tile before is kept */
    }
    /* The warp's rows one after the other. */
    static __device__ __forceinline__ int32_t row_of(int32_t i) { return i / 2 * walk::UNIT + i % 2; }
    __device__ __forceinline__ bool has(int32_t i) const { return i < 2 * units && first + row_of(i) < g.a.rows; }
    __device__ __forceinline__ void ask(asked &a, int32_t i) const {
        const int64_t row = first + row_of(i);
        const float *const more = g.more + row * g.a.cols + col, *const old = (const float *)g.a.out + row * g.a.out_ld + col;
#pragma unroll
        for (int u = 0; u < STEP; u++) {
            if (!has(i + u) || !inside) continue;
            if (before) read4(a.more[u], more + (int64_t)row_of(u) * g.a.cols);
            if constexpr (ADDS) read4(a.old[u], old + row_of(u) * g.a.out_ld);
        }
    }
    __device__ __forceinline__ void ask_first() {
#pragma unroll
        for (int i = 0; i < STEPS_AHEAD; i++) ask(ahead[i], i * STEP);
    }
    /* Of all rows of a step at once: what is seldom is looked for once among them. */
    __device__ __forceinline__ void of_sums(uint32_t (&y)[STEP][2], int32_t i) {
        float scaled[STEP][4], v[STEP][4], most = 0;
#pragma unroll
        for (int u = 0; u < STEP; u++) {
            const int4 four = get_four(sums + (uint32_t)((i + u) * place.OF_ROW));
            const int32_t s[4] = { four.x, four.y, four.z, four.w };
            const float sca = __int_as_float(__shfl_sync(~0u, x.x, i + u));
#pragma unroll
            for (int k = 0; k < 4; k++) {
                scaled[u][k] = __fmul_rn(__fmul_rn((float)s[k], sca), scale[k]);
                v[u][k] = std::is_same<T, __half>::value ? __fmaf_rn(scaled[u][k], RV_INT8_BOTH, 0.f) : __fmul_rn(scaled[u][k], RV_INT8_BOTH);
                most = fmaxf(most, fabsf(v[u][k]));
            }
        }
        if (g.bias || most > 65504.f)
#pragma unroll
            for (int u = 0; u < STEP; u++)
#pragma unroll
                for (int k = 0; k < 4; k++) v[u][k] = g.bias ? int8_biased<T>(scaled[u][k], bias[k], clamped) : clamp16(v[u][k], clamped);
        if (g.bias) {
#pragma unroll
            for (int u = 0; u < STEP; u++) y[u][0] = pack2(v[u][0], v[u][1], T()), y[u][1] = pack2(v[u][2], v[u][3], T());
        } else {
#pragma unroll
            for (int u = 0; u < STEP; u++) y[u][0] = pack_through16(v[u][0], v[u][1], T()), y[u][1] = pack_through16(v[u][2], v[u][3], T());
        }
    }
    /* In ascending order, as outliers90.cu adds them; what has no outliers stays as it is, -0 too. */
    __device__ __forceinline__ void add_beside(uint32_t (&y)[STEP][2], int32_t i) const {
        float all[STEP][4] = {};
        const T *const of_x = room.x[in_tile + row_of(i)];
#pragma unroll 1
        for (int32_t o = 0; o < found; o += AT_ONCE) {
            uint4 xs[STEP];
#pragma unroll
            for (int u = 0; u < STEP; u++) xs[u] = *(const uint4 *)(of_x + row_of(u) * BESIDE + o);
#pragma unroll
            for (int k = 0; k < AT_ONCE; k++) {
                const float4 ws = *(const float4 *)&room.w[o + k][lane * 4];
#pragma unroll
                for (int u = 0; u < STEP; u++) {
                    const float2 two = pair_of(k / 2 == 0 ? xs[u].x : k / 2 == 1 ? xs[u].y : k / 2 == 2 ? xs[u].z : xs[u].w, T());
                    const float of = k % 2 ? two.y : two.x;
                    all[u][0] = __fmaf_rn(of, ws.x, all[u][0]), all[u][1] = __fmaf_rn(of, ws.y, all[u][1]);
                    all[u][2] = __fmaf_rn(of, ws.z, all[u][2]), all[u][3] = __fmaf_rn(of, ws.w, all[u][3]);
                }
            }
        }
#pragma unroll
        for (int u = 0; u < STEP; u++) {
            const bool has_outliers = __shfl_sync(~0u, x.y, i + u);
#pragma unroll
            for (int k = 0; k < 4; k++) all[u][k] = has_outliers ? all[u][k] : -0.f;
            add_to<T>(y[u], all[u]);
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
    /* Rows i .. i + STEP - 1 of the warp's.  make: of sums, else of results as they were put.  last: to memory, else to where add_dense finds them.  second: of the second half. */
    __device__ __forceinline__ void step(asked &now, int32_t i, bool make, bool last, bool second) {
        uint32_t y[STEP][2];
        const int32_t unit = i / 2 + (second ? place.UNITS : 0);
        if (make) {
            of_sums(y, i);
            if (beside_them) add_beside(y, i);
        } else {
#pragma unroll
            for (int u = 0; u < STEP; u++) get_pair(y[u], place.results(warp, unit + u / 2, u % 2, lane / 2) + (uint32_t)lane % 2 * 8);
        }
        if (!last) {
            __syncwarp();                /* all have read sums where results go                 */
#pragma unroll
            for (int u = 0; u < STEP; u++) put_pair(place.results(warp, unit + u / 2, u % 2, lane / 2) + (uint32_t)lane % 2 * 8, y[u][0], y[u][1]);
            return;
        }
        const int32_t column = HOW == rv_few::RV_FEW_SWIGLU ? (col - lane * 4) / 2 + lane / 4 * 8 + lane % 2 * 4 + (lane & 2) : col;
        O *const to = (O *)g.a.out + (int64_t)(first + row_of(i)) * g.a.out_ld + column;
#pragma unroll
        for (int u = 0; u < STEP; u++) {
            if (before) add_to<T>(y[u], now.more[u]);
            finish(to + row_of(u) * g.a.out_ld, inside && has(i + u), ADDS ? __shfl_sync(~0u, on, i + u) : 1.f, y[u], now.old[u]);
        }
        ask(now, i + STEPS_AHEAD * STEP);
    }
    __device__ __forceinline__ void all(bool make, bool last, bool second) {
#pragma unroll 1
        for (int32_t i = 0; i < 2 * units; i += STEPS_AHEAD * STEP)
#pragma unroll
            for (int a = 0; a < STEPS_AHEAD; a++)
                if (i + a * STEP < 2 * units) step(ahead[a], i + a * STEP, make, last, second);
    }
};
#endif
#endif
