/* int8_end90.cuh - the end of a tile of an LLM.int8 product on Hopper: what becomes of integer sums.
 *
 * The one idea: nothing is waited for.  What is needed from memory is asked for before the products, every thread finishes the results whose sums it has, in pairs
 * of neighbours as they lie, and what is seldom is looked for once among many.
 */
#ifndef RV_KERNELS_CUDA_INT8_END90_CUH
#define RV_KERNELS_CUDA_INT8_END90_CUH
#include "kernels/cuda/int8_tile90.cuh"

#ifdef __CUDA_ARCH_FEAT_SM90_ALL
/* What the end of a tile needs from memory.  It is asked for before the products: at their end the ring is filled anew at once, and what is asked for then
 * comes behind all that.  A thread has rows g and g + 8 of its warp's 16, columns 2 t and 2 t + 1 of all blocks of 8. */
template <typename O, class S, int HOW> struct ahead {
    static constexpr int BLOCKS = S::BN / 8;
    static constexpr bool ADDS = HOW == rv_few::RV_FEW_ADD;
    int2 x[2];                           /* int8_rows                                           */
    float4 w;                            /* scales of four neighbouring weights                 */
    float2 old[2][ADDS ? BLOCKS : 1];
    float on[2];                         /* row_scale: 0: nothing is added to the row           */

    __device__ __forceinline__ void ask(const args8 &g, const walk &part, int32_t row0, int32_t n) {
        const int32_t lane = (int32_t)threadIdx.x % 32;
#pragma unroll
        for (int h = 0; h < 2; h++) {
            const int32_t row = row0 + h * 8 + lane / 4;
            const bool inside = row < g.a.rows;
            x[h] = inside ? __ldcg((const int2 *)(g.x_rows + row)) : make_int2(0, 0);
            if (!ADDS) continue;
            on[h] = inside && g.a.row_scale ? g.a.row_scale[row] : 1.f;
#pragma unroll
            for (int j = 0; j < BLOCKS; j++) {
                const int32_t col = n + j * 8 + lane % 4 * 2;
                const bool wanted = part.ends(j / 4) && inside && col < g.a.cols;
                old[h][ADDS ? j : 0] = wanted ? *(const float2 *)((const float *)g.a.out + row * g.a.out_ld + col) : make_float2(0, 0);
            }
        }
        w = n + lane * 4 < g.a.cols ? __ldg((const float4 *)(g.w_scale + n + lane * 4)) : make_float4(0, 0, 0, 0);
    }
};

/* Two results without bias nor outliers, of which neither is beyond f16. */
static __device__ __forceinline__ uint32_t pack_through16(float a, float b, __half) {
    const __half2 h = __floats2half2_rn(a, b);
    return *(const uint32_t *)&h;
}
static __device__ __forceinline__ uint32_t pack_through16(float a, float b, __nv_bfloat16 t) {
    const float2 f = __half22float2(__floats2half2_rn(a, b));
    return pack2(f.x, f.y, t);
}

/* Adds to a row's eight of a step. */
template <typename T> static __device__ __forceinline__ void add_to(uint32_t (&y)[4], const float (&add)[8]) {
    float v[8];
#pragma unroll
    for (int i = 0; i < 4; i++) {
        const float2 f = pair_of(y[i], T());
        v[2 * i] = f.x + add[2 * i], v[2 * i + 1] = f.y + add[2 * i + 1];
    }
    pack_counted(y, v, T());
}

/* A step of what becomes of a warp's sums: 16 of a thread's, rows g and g + 8 of 16, columns 2 t and 2 t + 1 of four blocks of 8.  Instructions are what the end of a
 * tile takes: results are pairs as soon as they can be, and what is seldom is looked for once among all of them. */
template <typename T> struct values {
    const args8 &g;
    int32_t col0, lane;                  /* of the 32 columns                                   */

    /* Two neighbours' of the lane's in block j. */
    __device__ __forceinline__ float2 pair_at(const float *from, int j) const {
        const int32_t col = col0 + j * 8 + lane % 4 * 2;
        return col < g.a.cols ? __ldg((const float2 *)(from + col)) : make_float2(0, 0);
    }
    /* w: scales of the lane's columns; y: pairs of a row's. */
    __device__ __forceinline__ void of_sums(uint32_t (&y)[2][4], const int32_t (&sums)[16], const int2 (&x)[2], const float *w, int32_t &clamped) const {
        float v[16], most = 0;
        const float sca[2] = { __int_as_float(x[0].x), __int_as_float(x[1].x) };
#pragma unroll
        for (int j = 0; j < 4; j++) {
            const float2 scb = *(const float2 *)(w + j * 8);
#pragma unroll
            for (int e = 0; e < 4; e++) v[j * 4 + e] = __fmul_rn(__fmul_rn((float)sums[j * 4 + e], sca[e / 2]), e % 2 ? scb.y : scb.x);
        }
        if (g.bias) return of_biased(y, v, clamped);
#pragma unroll
        for (int i = 0; i < 16; i++) {
            v[i] = std::is_same<T, __half>::value ? __fmaf_rn(v[i], RV_INT8_BOTH, 0.f) : __fmul_rn(v[i], RV_INT8_BOTH);
            most = fmaxf(most, fabsf(v[i]));
        }
        if (most > 65504.f)
#pragma unroll
            for (int i = 0; i < 16; i++) v[i] = clamp16(v[i], clamped);
#pragma unroll
        for (int i = 0; i < 8; i++) y[i % 2][i / 2] = pack_through16(v[2 * i], v[2 * i + 1], T());
    }
    __device__ __forceinline__ void of_biased(uint32_t (&y)[2][4], const float (&scaled)[16], int32_t &clamped) const {
#pragma unroll
        for (int i = 0; i < 8; i++) {
            const float2 bias = pair_at(g.bias, i / 2);
            y[i % 2][i / 2] = pack2(int8_biased<T>(scaled[2 * i], bias.x, clamped), int8_biased<T>(scaled[2 * i + 1], bias.y, clamped), T());
        }
    }
    /* x, w: of the lane's first row and column.  In ascending order, as outliers90.cu adds them; what has no outliers stays as it is, -0 too. */
    template <class S>
    __device__ __forceinline__ void add_beside(uint32_t (&y)[2][4], const T *x, const float *w, const int2 (&rows)[2], int32_t found) const {
        float all[2][8] = {};
#pragma unroll 1
        for (int32_t o = 0; o < found; o += AT_ONCE) {
            uint4 xs[2];
#pragma unroll
            for (int h = 0; h < 2; h++) xs[h] = *(const uint4 *)(x + h * 8 * BESIDE + o);
#pragma unroll
            for (int i = 0; i < AT_ONCE; i++) {
                float of[2];
#pragma unroll
                for (int h = 0; h < 2; h++) {
                    const float2 two = pair_of(i / 2 == 0 ? xs[h].x : i / 2 == 1 ? xs[h].y : i / 2 == 2 ? xs[h].z : xs[h].w, T());
                    of[h] = i % 2 ? two.y : two.x;
                }
#pragma unroll
                for (int j = 0; j < 4; j++) {
                    const float2 ws = *(const float2 *)(w + (o + i) * S::BN + j * 8);
#pragma unroll
                    for (int h = 0; h < 2; h++) all[h][2 * j] = __fmaf_rn(of[h], ws.x, all[h][2 * j]), all[h][2 * j + 1] = __fmaf_rn(of[h], ws.y, all[h][2 * j + 1]);
                }
            }
        }
#pragma unroll
        for (int h = 0; h < 2; h++) {
#pragma unroll
            for (int i = 0; i < 8; i++) all[h][i] = rows[h].y ? all[h][i] : -0.f;
            add_to<T>(y[h], all[h]);
        }
    }
};

static_assert(RV_CUDA_GATE_BLOCK == 8, "a thread has outputs of gate in even blocks, and those of up to the same columns in odd ones");
/* A step's, four blocks, of what a thread has.  Steps are numbers that the compiler knows: registers have no index. */
template <typename N, int OF_EACH, int COUNT> static __device__ __forceinline__ void take(N (&to)[OF_EACH], const N (&from)[COUNT], int step) {
#pragma unroll
    for (int i = 0; i < OF_EACH; i++) to[i] = from[step * 16 + i];
}

/* Where block `from` of those that multiply parts of a tile's columns leaves its sums of a step for the block that finishes it: in that block's ring, which nobody
 * fills any more. */
template <class S> static __device__ __forceinline__ uint4 *slot(const args8 &g, uint8_t *data, int32_t from, int group, int step) {
    const int32_t each = S::BN / 32 / g.split;
    return (uint4 *)data + ((from * 2 + group) * each + step % each) * 4 * GROUP + threadIdx.x % GROUP;
}
template <class S> static __device__ __forceinline__ void hand_over(const args8 &g, const walk &w, const int32_t (&sums)[S::BN / 2], uint8_t *data, int group) {
    cluster_meet();                      /* all have read their rings                           */
#pragma unroll
    for (int step = 0; step < S::BN / 32; step++) {
        const int32_t to = w.ender(step);
        if (to == w.part) continue;
        int32_t s[16];
        take(s, sums, step);
#pragma unroll
        for (int q = 0; q < 4; q++)
            store_at(slot<S>(g, data, w.part, group, step) + q * GROUP, (uint32_t)(to * g.share + w.place),
                     make_uint4((uint32_t)s[q * 4], (uint32_t)s[q * 4 + 1], (uint32_t)s[q * 4 + 2], (uint32_t)s[q * 4 + 3]));
    }
    cluster_meet();
}
template <class S> static __device__ __forceinline__ void add_parts(const args8 &g, const walk &w, int32_t (&s)[16], uint8_t *data, int group, int step) {
#pragma unroll 1
    for (int32_t from = 0; from < g.split; from++) {
        if (from == w.part) continue;
#pragma unroll
        for (int q = 0; q < 4; q++) {
            const uint4 v = slot<S>(g, data, from, group, step)[q * GROUP];
            s[q * 4] += (int32_t)v.x, s[q * 4 + 1] += (int32_t)v.y, s[q * 4 + 2] += (int32_t)v.z, s[q * 4 + 3] += (int32_t)v.w;
        }
    }
}

/* What becomes of a warp's sums, a step after the other. */
template <typename T, typename O, class S, int HOW> struct ending {
    static constexpr int STEPS = S::BN / 32;
    const args8 &g;
    const walk &w;
    beside<T, S> &room;
    uint8_t *data;
    const ahead<O, S, HOW> &of;
    int32_t m, n, group, in_tile, found;
    bool beside_them, before;
    int32_t clamped = 0;

    __device__ __forceinline__ int32_t lane() const { return (int32_t)threadIdx.x % 32; }
    __device__ __forceinline__ float4 *scale() const { return room.scale[threadIdx.x / 32 - GROUP / 32]; }
    __device__ __forceinline__ void begin() const {
        __syncwarp();                    /* all have read those of the tile before              */
        scale()[lane()] = of.w;
        __syncwarp();
    }
    __device__ __forceinline__ int32_t row(int h) const { return m + in_tile + h * 8 + lane() / 4; }
    __device__ __forceinline__ int32_t col(int step, int j) const { return n + step * 32 + j * 8 + lane() % 4 * 2; }

    __device__ __forceinline__ void make(int step, const int32_t (&sums)[S::BN / 2], uint32_t (&y)[2][4]) {
        const values<T> p = { g, n + step * 32, lane() };
        int32_t s[16];
        take(s, sums, step);
        if (g.split > 1) add_parts<S>(g, w, s, data, group, step);
        p.of_sums(y, s, of.x, (const float *)scale() + step * 32 + lane() % 4 * 2, clamped);
        if (beside_them) p.template add_beside<S>(y, &room.x[in_tile + lane() / 4][0], &room.w[0][step * 32 + lane() % 4 * 2], of.x, found);
    }
    __device__ __forceinline__ void ask_more(int step, float (&more)[2][8]) const {
        if (!before || !w.ends(step)) return;
#pragma unroll
        for (int i = 0; i < 8; i++) {
            const int32_t r = row(i / 4), c = col(step, i % 4);
            const float2 v = r < g.a.rows && c < g.a.cols ? __ldcg((const float2 *)(g.more + (int64_t)r * g.a.cols + c)) : make_float2(0, 0);
            more[i / 4][i % 4 * 2] = v.x, more[i / 4][i % 4 * 2 + 1] = v.y;
        }
    }
    __device__ __forceinline__ void complete(int step, uint32_t (&y)[2][4], const float (&more)[2][8]) {
#pragma unroll
        for (int h = 0; h < 2; h++) {
            if (before) add_to<T>(y[h], more[h]);
            if (row(h) >= g.a.rows) continue;
            if constexpr (HOW == rv_few::RV_FEW_SWIGLU) finish_pairs(step, h, y[h]);
            else if constexpr (HOW == rv_few::RV_FEW_GELU) finish_gelu(step, h, y[h]);
            else
#pragma unroll
                for (int j = 0; j < 4; j++)
                    if (col(step, j) < g.a.cols) finish(step, h, j, y[h][j]);
        }
    }
    __device__ __forceinline__ void finish(int step, int h, int j, uint32_t y) const {
        O *const to = (O *)g.a.out + row(h) * g.a.out_ld + col(step, j);
        if constexpr (sizeof(O) == 2) *(uint32_t *)to = y;
        else {
            float2 v = pair_of(y, T());
            if (HOW == rv_few::RV_FEW_ADD) {
                if (of.on[h] == 0.f) return;
                const float2 old = of.old[h][HOW == rv_few::RV_FEW_ADD ? step * 4 + j : 0];
                const float by = g.a.row_scale ? g.a.scale * of.on[h] : g.a.scale;
                v.x = old.x + by * v.x, v.y = old.y + by * v.y;
            }
            *(float2 *)to = v;
        }
    }
    __device__ __forceinline__ void finish_gelu(int step, int h, const uint32_t (&y)[4]) const {
        float v[8];
        uint32_t packed[4];
#pragma unroll
        for (int j = 0; j < 4; j++) {
            const float2 f = pair_of(y[j], T());
            v[2 * j] = gelu(f.x), v[2 * j + 1] = gelu(f.y);
        }
        pack_counted(packed, v, T());
#pragma unroll
        for (int j = 0; j < 4; j++)
            if (col(step, j) < g.a.cols) *(uint32_t *)((T *)g.a.out + row(h) * g.a.out_ld + col(step, j)) = packed[j];
    }
    __device__ __forceinline__ void finish_pairs(int step, int h, const uint32_t (&y)[4]) const {
        float v[4];
        uint32_t packed[2];
#pragma unroll
        for (int j = 0; j < 2; j++) {
            const float2 gates = pair_of(y[2 * j], T()), ups = pair_of(y[2 * j + 1], T());
            v[2 * j] = silu(gates.x) * ups.x, v[2 * j + 1] = silu(gates.y) * ups.y;
        }
        pack_counted(packed, v, T());
#pragma unroll
        for (int j = 0; j < 2; j++) {
            const int32_t c = n + step * 32 + j * 16;
            if (c < g.a.cols) *(uint32_t *)((T *)g.a.out + row(h) * g.a.out_ld + c / 2 + lane() % 4 * 2) = packed[j];
        }
    }
    __device__ __forceinline__ void all(const int32_t (&sums)[S::BN / 2]) {
        float more[2][2][8];
        begin();
        ask_more(0, more[0]);
#pragma unroll
        for (int step = 0; step < STEPS; step++) {
            uint32_t y[2][4];
            if (step + 1 < STEPS) ask_more(step + 1, more[(step + 1) % 2]);
            if (!w.ends(step)) continue;
            make(step, sums, y);
            complete(step, y, more[step % 2]);
        }
        count_clamped(clamped);
    }
    /* Some rows are dense: once all results without outliers are made, and lie where sums were, registers are free for the outliers' product. */
    __device__ __forceinline__ void all_dense(int32_t (&sums)[S::BN / 2], const ring<S> &r, uint32_t &at) {
        float dense[S::BN / 2];
        begin();
#pragma unroll
        for (int step = 0; step < STEPS; step++) {
            uint32_t y[2][4];
            if (!w.ends(step)) continue;
            make(step, sums, y);
#pragma unroll
            for (int i = 0; i < 8; i++) sums[step * 16 + i] = (int32_t)y[i / 4][i % 4];
        }
        if (g.split > 1) cluster_meet();
        multiply_dense<T, S>(dense, made_weights<T>(g.w, g.w_scale, g.pitch, n, g.a.cols), r, at, dense_lines(g), group, [&](uint32_t step) { release<S>(g, w, r, step); });
#pragma unroll
        for (int step = 0; step < STEPS; step++)
            if (w.ends(step)) complete_dense(step, sums, dense);
        count_clamped(clamped);
    }
    __device__ __forceinline__ void complete_dense(int step, const int32_t (&sums)[S::BN / 2], const float (&dense)[S::BN / 2]) {
        float v[16], more[2][8];
        uint32_t y[2][4];
        int32_t s[8];
        ask_more(step, more);
        take(s, sums, step);
        take(v, dense, step);
#pragma unroll
        for (int h = 0; h < 2; h++) {
            float add[8];
#pragma unroll
            for (int i = 0; i < 4; i++) y[h][i] = (uint32_t)s[h * 4 + i], add[2 * i] = v[i * 4 + h * 2], add[2 * i + 1] = v[i * 4 + h * 2 + 1];
            if (row(h) < g.a.rows && __ldcg(g.dense + row(h) / 32) >> row(h) % 32 & 1) add_to<T>(y[h], add);
        }
        complete(step, y, more);
    }
};
#endif
#endif
