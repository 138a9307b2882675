/* stream8_90.cu - decoder layers of one or two rows in one launch, their weights in int8.
 *
 * The one idea: stream90.cuh's, with few8.cu's numbers; every block makes the codes of a product's rows itself, as they come, while weights
 * come.  A step is 128 codes of each of 8 slices, 16 rows of them; whoever multiplies a slice also adds up the outliers in it, from the
 * weights that are there anyway.
 */
#include "kernels/cuda/few8.cuh"
#include "kernels/cuda/int8_held.cuh"
#include "kernels/cuda/stream90_launch.cuh"

/* What the warps leave of a tile: sums of codes (as bits), of outliers, and the tile's scales. */
struct tile_sums8 {
    tile_sums codes, outliers;
    float scale[TILE];
    __device__ __forceinline__ int32_t sum(int32_t row, int32_t n) const {
        int32_t v = 0;
#pragma unroll
        for (int32_t k = 0; k < WARPS; k++) v += __float_as_int(n ? codes.of[k][row].y : codes.of[k][row].x);
        return v;
    }
};

template <typename A> struct int8_format {
    typedef A T;
    typedef tile_sums8 sums;
    enum { STEP = WARPS * TILE * DEPTH8, BESIDE = TILE * (int)sizeof(float), ASKED = 4, EARLY = 1, DRAWN = true, ROWS_FIRST = false, IN_PARTS = false };
    struct weights {
        CUtensorMap map[RV_STREAM_LAYERS][PRODUCTS];
        const float *scale[RV_STREAM_LAYERS][PRODUCTS];
        float threshold;
    };
    struct row8 { int8_row row; const uint32_t *list; const found_outliers *found; };        /* the one or the other */

    /* Rows of codes that are read together lie half the banks apart. */
    static __host__ __device__ int32_t pitch_of(int32_t cols) { return cols + 64; }
    /* Narrow: codes, normed rows that are too long to be held, what is known of rows, lists, room for quantising any of them.  Wide: codes. */
    struct places {
        int32_t normed, rows, lists, room, bytes;
        __host__ __device__ places(int32_t n, int32_t hidden, int32_t q_width, int32_t ffn) {
            const int32_t narrow = hidden > q_width ? hidden : q_width, quantising = int8_shared_bytes(ffn > narrow ? ffn : narrow);
            normed = n * pitch_of(narrow);
            rows = normed + (hidden > SHORT ? n * hidden * 2 : 0);
            lists = rows + STREAM_ROWS * (int32_t)sizeof(row8);
            room = lists + n * NEAR * (int32_t)sizeof(uint32_t);
            bytes = room + (quantising > (int32_t)sizeof(held_meeting) ? quantising : (int32_t)sizeof(held_meeting));
        }
    };
    static int32_t narrow_bytes(int32_t n, int32_t hidden, int32_t q_width, int32_t ffn) { return places(n, hidden, q_width, ffn).bytes; }
    static int32_t wide_bytes(int32_t n, int32_t ffn) { return n * pitch_of(ffn); }
    static cudaError_t describe(const rv_stream *p, stream_args<int8_format> &a) {
        for (int32_t i = 0; i < p->n; i++) memcpy(a.weights.scale[i], p->layer[i].scale, sizeof a.weights.scale[i]);
        a.weights.threshold = p->rules.threshold;
        return describe_slices(p, a, CU_TENSOR_MAP_DATA_TYPE_UINT8, 1, a.weights.map);
    }

#ifdef __CUDA_ARCH_FEAT_SM90_ALL
    static __device__ __forceinline__ int32_t steps(int32_t cols) { return cols / DEPTH8 / WARPS; }
    /* With a tile's first step come its scales. */
    static __device__ __forceinline__ void copy(const weights &w, int32_t layer, int32_t kind, int32_t tile, int32_t step, char *to, char *beside, uint64_t *bar, uint64_t policy) {
        barrier_expect(bar, STEP + (step ? 0 : (int)BESIDE));
        if (!step) copy_bytes(beside, w.scale[layer][kind] + tile * TILE, BESIDE, bar, policy);
        copy_slices(to, &w.map[layer][kind], step * DEPTH8, tile * TILE, bar, policy);
    }

    /* Of a product's rows: where their codes and what else is known of them belong. */
    struct bringing {
        const stream_args<int8_format> &a;
        const args e;
        char *narrow;
        int8_t *codes;
        __device__ __forceinline__ places at() const { return places(a.n, a.hidden, a.q_width, a.ffn); }
        __device__ __forceinline__ list_place place(int32_t r) const {
            return { (uint32_t *)(narrow + at().lists) + r * NEAR, (uint32_t *)((int32_t *)a.partial + COUNTERS) + r * (e.cols + 8) };
        }
        __device__ __forceinline__ void *room() const { return narrow + at().room; }
        __device__ __forceinline__ int8_t *codes_of(int32_t r) const { return codes + r * pitch_of(e.cols); }
        /* found: where outliers are that are no list.  Each warp tells, all of them the same: what it reads it has written itself. */
        __device__ __forceinline__ void know(int32_t r, const int8_row &row, const found_outliers *found = NULL) const {
            const bool unlisted = found && is_unlisted(row.outliers);
            if (threadIdx.x % 32 == 0) ((row8 *)(narrow + at().rows))[r] = { row, unlisted ? NULL : place(r)(row.outliers, 0), unlisted ? found : NULL };
        }
    };

    /* Of up to SHORT columns, and up to LONG where there is no norm: false where such a row has too many outliers. */
    template <int N, bool NORMED, typename R> static __device__ __forceinline__ bool bring_held(const bringing &b, R ready) {
        held_meeting &m = *(held_meeting *)b.room();
        const bool alone = b.a.n == 1;
        float weight[HELD];
        if (NORMED) hold_weights<true>(b.e, weight);
        ready();
#pragma unroll 1
        for (int32_t r = 0; r < b.a.n; r++) {
            uint32_t x[N / 2];
            if constexpr (NORMED) norm_held<T, true, true>(b.e, r, weight, x, m);
            else hold_pieces(b.e, r, x);
            const int8_row row = quantise_held<T, true, !NORMED>(x, b.a.weights.threshold, b.e.cols, b.codes_of(r), b.place(r), m, r, alone);
            if (N > HELD && row.outliers >= NEAR) return false;
            b.know(r, row, alone ? &m.found : NULL);
        }
        if (b.a.n == 1) __syncwarp();    /* quantise_held has met, and every warp knows by itself */
        else meet();
        return true;
    }

    /* Of more: by way of shared memory where they are normed.  All of them have come before they are read again and again. */
    template <typename V> static __device__ __forceinline__ void await_rows(const V *x, int64_t ld, int32_t n, int32_t cols) {
#pragma unroll 1
        for (int32_t i = (int32_t)threadIdx.x; i < n * cols; i += THREADS) {
            V v[1];
            take_when_come(v, [&](int32_t) { return x + i / cols * ld + i % cols; }, [](int32_t) { return true; });
        }
        meet();
    }
    template <typename R> static __device__ __forceinline__ void bring_normed(const bringing &b, const stream_rooms<int8_format> &rooms, R ready) {
        T *normed = (T *)(b.narrow + b.at().normed);
        norm_rows<T>(b.e, normed, (float *)rooms.sums, [&] {
            ready();
            await_rows((const float *)b.e.x, b.e.x_ld, b.a.n, b.e.cols);
        });
#pragma unroll 1
        for (int32_t r = 0; r < b.a.n; r++) {
            const T *x = normed + r * b.e.cols;
            auto piece = [&](int32_t p) { return ((const uint4 *)x)[p]; };
            auto value = [&](int32_t k) { return ((const uint16_t *)x)[k]; };
            b.know(r, quantise_row<T>(piece, value, b.e.cols, { b.a.weights.threshold, NULL }, b.codes_of(r), b.place(r), b.room()));
            meet();                      /* the room is free again */
        }
    }
    static __device__ __forceinline__ void bring_far(const bringing &b) {
        await_rows((const uint16_t *)b.e.x, b.e.x_ld, b.a.n, b.e.cols);
#pragma unroll 1
        for (int32_t r = 0; r < b.a.n; r++) {
            const T *x = (const T *)b.e.x + r * b.e.x_ld;
            auto piece = [&](int32_t p) { return __ldcg((const uint4 *)x + p); };
            auto value = [&](int32_t k) { return __ldcg((const uint16_t *)x + k); };
            b.know(r, quantise_row<T>(piece, value, b.e.cols, { b.a.weights.threshold, NULL }, b.codes_of(r), b.place(r), b.room()));
            meet();                      /* the room is free again */
        }
    }

    /* Once the block has done its part of what makes them. */
    template <typename R> static __device__ __forceinline__ void bring(const stream_args<int8_format> &a, int32_t i, const stream_rooms<int8_format> &rooms, R ready) {
        const bringing b = { a, rows_of(a, i), (char *)rooms.narrow, i % PRODUCTS == DOWN ? (int8_t *)rooms.wide : (int8_t *)rooms.narrow };
        if (b.e.norm && b.e.cols <= SHORT) bring_held<HELD, true>(b, ready);
        else if (b.e.norm) bring_normed(b, rooms, ready);
        else {
            bool held = false;
            if (b.e.cols <= SHORT) held = bring_held<HELD, false>(b, ready);
            else if (b.e.cols <= LONG) held = bring_held<LONG / THREADS, false>(b, ready);
            else ready();
            if (!held) bring_far(b);
        }
    }

    static __device__ __forceinline__ uint32_t *list_room(const stream_args<int8_format> &a, const stream_rooms<int8_format> &rooms) {
        static_assert(NEAR >= WARPS * 32, "as many lists as warps");
        return (uint32_t *)((char *)rooms.narrow + places(a.n, a.hidden, a.q_width, a.ffn).lists);
    }
    struct product : tile_product<int8_t> {
        const int32_t first, my_scale;   /* step of the slice; where this lane's scale is beside a tile's first step */
        outlier_walk<T> outliers;
        float scale;
        __device__ __forceinline__ product(const stream_args<int8_format> &a, int32_t i, int32_t cols, const stream_rooms<int8_format> &rooms)
            : tile_product<int8_t>(i % PRODUCTS == DOWN ? rooms.wide : rooms.narrow, a.n == 2 ? pitch_of(cols) : 0, cols / WARPS), first(multiplier() * steps(cols)),
              my_scale((int32_t)threadIdx.x % TILE * 4), outliers() {
            const row8 *rows = (const row8 *)((const char *)rooms.narrow + places(a.n, a.hidden, a.q_width, a.ffn).rows);
            const int32_t n = outliers.n(), all = n < a.n ? rows[n].row.outliers : 0;
            outliers.here = __any_sync(~0u, all);
            if (!seldom(outliers.here)) return;
            if (const found_outliers *found = rows[0].found) {
                const int32_t lane = (int32_t)threadIdx.x % 32;
                outliers.begin_unlisted(lane < rows[0].row.outliers ? found->entry[lane] : ~0u, first, first + steps(cols), list_room(a, rooms) + multiplier() * 32);
            } else outliers.begin(n < a.n ? rows[n].list : NULL, all, first, first + steps(cols));
        }
        __device__ __forceinline__ void begin() {
            tile_product<int8_t>::begin();
            outliers.start_tile(NULL, false);
        }
        template <typename E> __device__ __forceinline__ void multiply(const char *stage, const char *beside, int32_t step, E emptied) {
            if (!step) scale = outliers.scb = *(const float *)(beside + my_scale);
            tile_product<int8_t>::multiply(shared_address(stage), [&] {
                if (outliers.here)
                    outliers.step((const uint4 *)stage + multiplier() * (TILE * DEPTH8 / 16), (first + step + 1) * DEPTH8, [](int32_t r, int32_t column) { return column ^ r % 8; });
                emptied();
            });
        }
        __device__ __forceinline__ void leave(tile_sums8 &to) const {
            const int32_t warp = multiplier(), lane = (int32_t)threadIdx.x % 32;
            tile_product<int8_t>::leave(to.codes);
            (&to.outliers.of[warp][lane % TILE].x)[lane / TILE] = outliers.sum;
            if (warp == 0 && lane < TILE) to.scale[lane] = scale;
        }
    };

    struct finisher {
        const stream_args<int8_format> &a;
        const output at;
        const float old;
        const row8 *rows;
        float y;
        __device__ __forceinline__ finisher(const stream_args<int8_format> &args, const stream_rooms<int8_format> &rooms, int32_t i, int32_t tile)
            : a(args), at(i, tile), old(at.old(args)), rows((const row8 *)((const char *)rooms.narrow + places(args.n, args.hidden, args.q_width, args.ffn).rows)) {}
        __device__ __forceinline__ void read(const tile_sums8 &sums) {
            int32_t clamped = 0;
            y = 0;
            if (at.there(a)) {
                const int8_row x = rows[at.n()].row;
                y = int8_value<T>(sums.sum(at.in_tile(), at.n()), x.scale, sums.scale[at.in_tile()], 0.f, clamped);
                if (x.outliers) y = to_f32(to_act<T>(y + sums.outliers.sum(at.in_tile(), at.n())));
            }
            count_clamped(clamped);
        }
        __device__ __forceinline__ void write() { at.write(a, y, old); }
    };
#endif
};

bool rv_cuda_stream8_takes(const rv_stream *p) { return has_room<int8_format<__half>>(p); }

cudaError_t rv_cuda_stream8(const rv_stream *p, cudaStream_t stream) {
    return p->qkv.type == RV_F16 ? launch_of<int8_format<__half>>(p, stream) : launch_of<int8_format<__nv_bfloat16>>(p, stream);
}

RV_CUDA_CLAMPED(stream8_90)
