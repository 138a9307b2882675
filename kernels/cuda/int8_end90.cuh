/* int8_end90.cuh - the end of a tile of an LLM.int8 product on Hopper: what becomes of integer sums.
 *
 * The one idea: those who multiply leave a tile's sums in shared memory and go on; eight other warps make results of them meanwhile, row by row, a lane four
 * neighbours.  So a row's numbers are the same for a whole warp, memory is met in whole lines, and the instructions are few enough to be there at once.
 */
#ifndef RV_KERNELS_CUDA_INT8_END90_CUH
#define RV_KERNELS_CUDA_INT8_END90_CUH
#include "kernels/cuda/int8_tile90.cuh"

#ifdef __CUDA_ARCH_FEAT_SM90_ALL
/* ---- sums, from those who multiply ---- */

/* A warp's 16 rows from in_tile on, to the block that makes results of them: there each part's lie below the other's.  A thread has rows g and g + 8, columns 2 t and
 * 2 t + 1 of all blocks of 8.  place: of this block; another's begins behind the lines of its part. */
template <typename T, class S>
static __device__ __forceinline__ void leave_sums(const walk &w, const ring<S> &r, beside<T, S> &room, const sums_place<S> &place, const int32_t (&sums)[S::BN / 2], int32_t in_tile) {
    const int32_t lane = (int32_t)threadIdx.x % 32, own = w.own_rows<S>(), owner = in_tile / own, row = w.part * own + in_tile % own + lane / 4;
    const uint32_t rank = w.rank_of(owner, w.level, w.place);
    auto at = [&](int32_t *of_row, int j) { return of_row + sums_place<S>::exchanged(row, 2 * j + lane % 4 / 2) + lane % 2 * 2; };
    if (w.g.split == 1) {
        int32_t *const to = place.row(r, row);
#pragma unroll
        for (int j = 0; j < S::BN / 8; j++)
#pragma unroll
            for (int h = 0; h < 2; h++) *(int2 *)at(to + h * 8 * S::BN, j) = make_int2(sums[j * 4 + h * 2], sums[j * 4 + h * 2 + 1]);
        __syncwarp();
        if (lane == 0) barrier_arrive(&room.summed);
        return;
    }
    cursor<S> there;
    sums_place<S> of_owner;
    there.skip(w.lines_of(owner));
    of_owner.take(there);
    int32_t *const to = of_owner.row(r, row);
    cluster_meet();                      /* all have read their rings                           */
#pragma unroll
    for (int j = 0; j < S::BN / 8; j++)
#pragma unroll
        for (int h = 0; h < 2; h++) store_at(at(to + h * 8 * S::BN, j), rank, sums[j * 4 + h * 2], sums[j * 4 + h * 2 + 1]);
    __syncwarp();
    if (lane == 0) barrier_arrive_cluster(&room.summed, rank);
}

/* What dense rows' outliers are, to results that lie where those rows' sums were. */
template <typename T, class S>
static __device__ __forceinline__ void add_dense(const walk &w, const ring<S> &r, beside<T, S> &room, const sums_place<S> &place, const float (&dense)[S::BN / 2], int32_t m, int32_t in_tile) {
    const int32_t lane = (int32_t)threadIdx.x % 32, own = w.own_rows<S>();
    if (in_tile / own == w.part) {
#pragma unroll
        for (int h = 0; h < 2; h++) {
            const int32_t of_tile = in_tile + h * 8 + lane / 4, of_place = in_tile % own + h * 8 + lane / 4, row = m + of_tile;
            if (row >= w.g.a.rows || !(__ldcg(w.g.dense + row / 32) >> row % 32 & 1)) continue;
            int32_t *const of_row = place.row(r, of_place);
            auto at = [&](int j) { return (float2 *)(of_row + sums_place<S>::exchanged(of_place, 2 * j + lane % 4 / 2) + lane % 2 * 2); };
#pragma unroll
            for (int j = 0; j < S::BN / 8; j += 4) {
                float v[8];
                uint32_t y[4];
#pragma unroll
                for (int i = 0; i < 4; i++) {
                    const float2 old = *at(j + i);
                    v[2 * i] = old.x + dense[(j + i) * 4 + h * 2], v[2 * i + 1] = old.y + dense[(j + i) * 4 + h * 2 + 1];
                }
                pack_counted(y, v, T());
#pragma unroll
                for (int i = 0; i < 4; i++) *at(j + i) = pair_of(y[i], T());
            }
        }
    }
    __syncwarp();
    if (lane == 0) barrier_arrive(&room.summed);
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

/* A warp's rows of a tile, two at a time; a lane has columns 4 lane .. 4 lane + 3. */
template <typename T, typename O, class S, int HOW> struct ending {
    static constexpr int TWO = 2;
    static constexpr bool ADDS = HOW == rv_few::RV_FEW_ADD;
    static constexpr int STEPS_AHEAD = ADDS ? 2 : 1;
    struct asked { float more[TWO][4], old[TWO][ADDS ? 4 : 1]; };              /* what is read from memory, steps ahead: nobody touches it before it is used */

    const args8 &g;
    const walk &w;
    const ring<S> &r;
    beside<T, S> &room;
    sums_place<S> place;
    int32_t *my_sums;
    asked ahead[STEPS_AHEAD];
    int32_t lane, rows, own_first;       /* rows: of this warp, from own_first of the block's on */
    int32_t found;
    bool beside_them, before;
    int32_t first, col;                  /* row of x and of out; column                         */
    int2 x;                              /* lane i: of row i                                    */
    float on;
    float scale[4], bias[4];
    int32_t clamped;

    __device__ __forceinline__ ending(const args8 &g_, const walk &w_, const ring<S> &r_, beside<T, S> &room_) : g(g_), w(w_), r(r_), room(room_), clamped(0) {
        lane = (int32_t)threadIdx.x % 32;
        rows = w.own_rows<S>() / ENDER_WARPS;
        own_first = ((int32_t)threadIdx.x - FIRST_ENDER) / 32 * rows;
        found = __ldcg(g.n_columns);
        beside_them = found && found <= BESIDE;
        before = found > BESIDE && g.more && __ldcg(g.n_columns + 1);
    }
    __device__ __forceinline__ void begin(int32_t m, int32_t n) {
        first = m + w.part * w.own_rows<S>() + own_first;
        col = n + lane * 4;
        const bool there = lane < rows && first + lane < g.a.rows, inside = col < g.a.cols;
        x = there ? __ldcg((const int2 *)(g.x_rows + first + lane)) : make_int2(0, 0);
        if (ADDS) on = there && g.a.row_scale ? g.a.row_scale[first + lane] : 1.f;
#pragma unroll
        for (int i = 0; i < 4; i += 2) {
            const float2 s = inside ? __ldg((const float2 *)(g.w_scale + col + i)) : make_float2(0, 0), b = inside && g.bias ? __ldg((const float2 *)(g.bias + col + i)) : make_float2(0, 0);
            scale[i] = s.x, scale[i + 1] = s.y, bias[i] = b.x, bias[i + 1] = b.y;
        }
    }
    __device__ __forceinline__ void ask(asked &a, int32_t i) const {
#pragma unroll
        for (int u = 0; u < TWO; u++) {
            const int32_t row = first + i + u;
            if (i + u >= rows || row >= g.a.rows || col >= g.a.cols) continue;
            if (before) read4(a.more[u], g.more + (int64_t)row * g.a.cols + col);
            if constexpr (ADDS) read4(a.old[u], (const float *)g.a.out + row * g.a.out_ld + col);
        }
    }
    __device__ __forceinline__ void ask_first() {
#pragma unroll
        for (int i = 0; i < STEPS_AHEAD; i++) ask(ahead[i], i * TWO);
    }
    /* Four neighbours of a row of this warp's, whose rows all are in one stage. */
    __device__ __forceinline__ int4 *sums_of(int32_t i) const { return (int4 *)(my_sums + i * S::BN + sums_place<S>::exchanged(i, lane)); }
    __device__ __forceinline__ void read_sums(int4 (&s)[TWO], int32_t i) const {
#pragma unroll
        for (int u = 0; u < TWO; u++) s[u] = *sums_of(i + u);
    }
    /* What the other parts of the columns gave. */
    __device__ __forceinline__ void add_parts(int4 (&s)[TWO], int32_t i) const {
#pragma unroll 1
        for (int32_t part = 1; part < g.split; part++)
#pragma unroll
            for (int u = 0; u < TWO; u++) {
                const int32_t row = part * w.own_rows<S>() + own_first + i + u;
                const int4 v = *(const int4 *)(place.row(r, row) + sums_place<S>::exchanged(row, lane));
                s[u].x += v.x, s[u].y += v.y, s[u].z += v.z, s[u].w += v.w;
            }
    }
    /* Of both rows at once: what is seldom is looked for once among all. */
    __device__ __forceinline__ void of_sums(uint32_t (&y)[TWO][2], const int4 (&sums)[TWO], const float (&sca)[TWO]) {
        float scaled[TWO][4], v[TWO][4], most = 0;
#pragma unroll
        for (int u = 0; u < TWO; u++) {
            const int32_t s[4] = { sums[u].x, sums[u].y, sums[u].z, sums[u].w };
#pragma unroll
            for (int i = 0; i < 4; i++) {
                scaled[u][i] = __fmul_rn(__fmul_rn((float)s[i], sca[u]), scale[i]);
                v[u][i] = std::is_same<T, __half>::value ? __fmaf_rn(scaled[u][i], RV_INT8_BOTH, 0.f) : __fmul_rn(scaled[u][i], RV_INT8_BOTH);
                most = fmaxf(most, fabsf(v[u][i]));
            }
        }
        if (g.bias || most > 65504.f)
#pragma unroll
            for (int u = 0; u < TWO; u++)
#pragma unroll
                for (int i = 0; i < 4; i++) v[u][i] = g.bias ? int8_biased<T>(scaled[u][i], bias[i], clamped) : clamp16(v[u][i], clamped);
        if (g.bias) {
#pragma unroll
            for (int u = 0; u < TWO; u++) y[u][0] = pack2(v[u][0], v[u][1], T()), y[u][1] = pack2(v[u][2], v[u][3], T());
        } else {
#pragma unroll
            for (int u = 0; u < TWO; u++) y[u][0] = pack_through16(v[u][0], v[u][1], T()), y[u][1] = pack_through16(v[u][2], v[u][3], T());
        }
    }
    /* In ascending order, as outliers90.cu adds them; what has no outliers stays as it is, -0 too.  own: of the first of the two rows. */
    __device__ __forceinline__ void add_beside(uint32_t (&y)[TWO][2], int32_t own, const int32_t (&outliers)[TWO]) const {
        const int32_t in_tile = w.part * w.own_rows<S>() + own;
        float all[TWO][4] = {};
#pragma unroll 1
        for (int32_t o = 0; o < found; o += AT_ONCE) {
            uint4 xs[TWO];
#pragma unroll
            for (int u = 0; u < TWO; u++) xs[u] = *(const uint4 *)&room.x[in_tile + u][o];
#pragma unroll
            for (int i = 0; i < AT_ONCE; i++) {
                const float4 ws = *(const float4 *)&room.w[o + i][lane * 4];
#pragma unroll
                for (int u = 0; u < TWO; u++) {
                    const float2 two = pair_of(i / 2 == 0 ? xs[u].x : i / 2 == 1 ? xs[u].y : i / 2 == 2 ? xs[u].z : xs[u].w, T());
                    const float of = i % 2 ? two.y : two.x;
                    all[u][0] = __fmaf_rn(of, ws.x, all[u][0]), all[u][1] = __fmaf_rn(of, ws.y, all[u][1]);
                    all[u][2] = __fmaf_rn(of, ws.z, all[u][2]), all[u][3] = __fmaf_rn(of, ws.w, all[u][3]);
                }
            }
        }
#pragma unroll
        for (int u = 0; u < TWO; u++) {
#pragma unroll
            for (int i = 0; i < 4; i++) all[u][i] = outliers[u] ? all[u][i] : -0.f;
            add_to<T>(y[u], all[u]);
        }
    }
    __device__ __forceinline__ void finish(int32_t row, float row_on, const uint32_t (&y)[2], const float (&old)[ADDS ? 4 : 1]) const {
        const float2 a = pair_of(y[0], T()), b = pair_of(y[1], T());
        if constexpr (HOW == rv_few::RV_FEW_SWIGLU) return finish_pairs(row, a, b);
        if (col >= g.a.cols) return;
        O *const to = (O *)g.a.out + row * g.a.out_ld + col;
        if constexpr (HOW == rv_few::RV_FEW_GELU) {
            const float v[4] = { gelu(a.x), gelu(a.y), gelu(b.x), gelu(b.y) };
            uint32_t packed[2];
            pack_counted(packed, v, T());
            *(uint2 *)to = make_uint2(packed[0], packed[1]);
        } else if constexpr (sizeof(O) == 2) *(uint2 *)to = make_uint2(y[0], y[1]);
        else if constexpr (ADDS) {
            if (row_on == 0.f) return;
            const float by = g.a.row_scale ? g.a.scale * row_on : g.a.scale;
            *(float4 *)to = make_float4(old[0] + by * a.x, old[1] + by * a.y, old[2] + by * b.x, old[3] + by * b.y);
        } else *(float4 *)to = make_float4(a.x, a.y, b.x, b.y);
    }
    /* Lanes 4 i, 4 i + 1 have gates, the next two what they are for: of four results each of both makes two. */
    __device__ __forceinline__ void finish_pairs(int32_t row, float2 a, float2 b) const {
        const bool up = lane & 2;
        const float2 give = up ? a : b, keep = up ? b : a;
        const float2 got = make_float2(__shfl_xor_sync(~0u, give.x, 2), __shfl_xor_sync(~0u, give.y, 2)), gates = up ? got : keep, ups = up ? keep : got;
        const float v[2] = { silu(gates.x) * ups.x, silu(gates.y) * ups.y };
        uint32_t packed[1];
        pack_counted(packed, v, T());
        if (col < g.a.cols) *(uint32_t *)((T *)g.a.out + row * g.a.out_ld + (col - lane * 4) / 2 + lane / 4 * 8 + lane % 2 * 4 + (up ? 2 : 0)) = packed[0];
    }
    /* make: of sums, else of results as add_dense leaves them.  last: to memory, else to where the sums were, for add_dense. */
    __device__ __forceinline__ void step(asked &now, int32_t i, bool make, bool last) {
        uint32_t y[TWO][2];
        int32_t outliers[TWO];
        float sca[TWO];
        int4 s[TWO];
        read_sums(s, i);
#pragma unroll
        for (int u = 0; u < TWO; u++) outliers[u] = __shfl_sync(~0u, x.y, i + u), sca[u] = __int_as_float(__shfl_sync(~0u, x.x, i + u));
        if (make) {
            if (g.split > 1) add_parts(s, i);
            of_sums(y, s, sca);
        } else {
#pragma unroll
            for (int u = 0; u < TWO; u++) y[u][0] = pack2(__int_as_float(s[u].x), __int_as_float(s[u].y), T()), y[u][1] = pack2(__int_as_float(s[u].z), __int_as_float(s[u].w), T());
        }
        if (make && beside_them) add_beside(y, own_first + i, outliers);
#pragma unroll
        for (int u = 0; u < TWO; u++) {
            if (!last) {
                const float2 a = pair_of(y[u][0], T()), b = pair_of(y[u][1], T());
                *(float4 *)sums_of(i + u) = make_float4(a.x, a.y, b.x, b.y);
                continue;
            }
            if (before) add_to<T>(y[u], now.more[u]);
            if (first + i + u < g.a.rows) finish(first + i + u, ADDS ? __shfl_sync(~0u, on, i + u) : 1.f, y[u], now.old[u]);
        }
        if (last) ask(now, i + STEPS_AHEAD * TWO);
    }
    __device__ __forceinline__ void all(bool make, bool last) {
        my_sums = place.row(r, own_first);
#pragma unroll 1
        for (int32_t i = 0; i < rows; i += STEPS_AHEAD * TWO)
#pragma unroll
            for (int a = 0; a < STEPS_AHEAD; a++)
                if (first + i + a * TWO < g.a.rows) step(ahead[a], i + a * TWO, make, last);
    }
};
static_assert(128 / 4 / ENDER_WARPS % 4 == 0, "a warp's rows are whole steps");
#endif
#endif
