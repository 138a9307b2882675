/* outliers90.cu - what outliers add to an LLM.int8 product with many rows, where they are in many columns: `down` has some dozens a row, in other
 * columns each.
 *
 * The one idea: only columns in which some row has an outlier are looked at.  Codes of 32 rows of weights come through shared memory, whole lines of them; those of
 * the columns that count become weights, rounded, side by side in a panel, as many as have room: a lane has a row of weights, a warp 32 columns.  Then a row's list is added entry by entry,
 * eight lanes a row and each of them four weights.  Sums are in ascending order of columns, as int8_end90.cuh adds those that are beside a tile.
 */
#include "kernels/cuda/attend.cuh"
#include "kernels/cuda/int8_many.cuh"
#include "kernels/cuda/launch.cuh"

enum { WARPS = 32, THREADS = WARPS * 32,
       WEIGHTS = 32,                     /* rows of weights at a time                           */
       CHUNK = WARPS * 32,               /* columns at a time: a word of them a warp            */
       CHUNK_BYTES = WEIGHTS * CHUNK,
       OF_LANE = 4, LANES = WEIGHTS / OF_LANE, ROWS = 32 / LANES,      /* weights; of a row; rows of a warp at a time */
       TASKS = 8,                        /* of ROWS rows, that a warp has at most               */
       AT_ONCE = WARPS * TASKS * ROWS,
       BATCH = 2 * LANES,                /* entries of a row                                    */
       NEAR_LD = BATCH * 8 + 32,         /* bytes from one row's to the next                    */
       COLUMN = WEIGHTS * 2,             /* bytes of a panel's column                           */
       MOST_WORDS = RV_CUDA_INT8_MOST / 32,
       MOST_BYTES = 227 << 10 };         /* of shared memory                                    */
static_assert(MOST_WORDS == THREADS && AT_ONCE <= THREADS, "a thread a word, and a row's number of entries");

struct outlier_args {
    const int8_row *rows;
    uint32_t *columns, *marks;           /* int8_many.h                                         */
    const uint32_t *list;
    const void *x;
    const int8_t *w;
    const float *w_scale;
    void *out;                           /* f32, or (after the product) act                     */
    int64_t x_ld, out_ld;
    int32_t n, w_rows, pitch;
    int32_t listed;                      /* entries of a list, at most: rows of more are dense  */
    int32_t chunks;                      /* that have room: two or three                        */
    int32_t room;                        /* columns of a panel                                  */
    float threshold;
    bool wipes;                          /* nobody reads marks after this launch                */
};

/* What lies in shared memory; behind it codes of chunks, and the panel. */
struct alignas(16) shared_room {
    uint8_t near[WARPS][ROWS * NEAR_LD]; /* entries: where the column is in the panel, the value */
    uint16_t entries[AT_ONCE];           /* of a row's list                                     */
    uint32_t bits[MOST_WORDS];           /* columns that count                                  */
    uint16_t before[MOST_WORDS + 1];     /* how many before each 32                             */
    int32_t sums[WARPS], last;
};

#ifdef __CUDA_ARCH_FEAT_SM90_ALL
/* Where the 16 codes from `column` on of a row lie in a chunk: neighbours of 4 rows apart do not meet in a bank. */
static __device__ __forceinline__ int32_t code_at(int32_t row, int32_t column) { return row * CHUNK + ((column / 16) ^ (row / OF_LANE % LANES)) * 16; }

/* A chunk's codes: a warp has a row of them. */
static __device__ __forceinline__ void bring(const outlier_args &g, int32_t first, int32_t column, int8_t *codes) {
    const int32_t row = (int32_t)threadIdx.x / 32, lane = (int32_t)threadIdx.x % 32;
    const int8_t *const from = g.w + (int64_t)(first + row) * g.pitch + column;
#pragma unroll
    for (int i = 0; i < CHUNK / 512; i++) {
        const int32_t at = (i * 32 + lane) * 16;
        const bool there = first + row < g.w_rows && column + at < g.pitch;
        copy16(shared_address(codes + code_at(row, at)), there ? from + at : g.w, there);
    }
    copies_commit();
}
static_assert(WEIGHTS == WARPS && CHUNK % 512 == 0, "a warp brings a row");

/* Of a warp's word of columns, those that count: to the panel, from `to` on.  A lane makes four rows' weights, as many as it adds later, of every fourth column.  places: the
 * warp's, 32 bytes of shared memory. */
template <typename T> static __device__ __forceinline__ void put_columns(const int8_t *codes, int32_t first, uint32_t bits, const float (&scale)[OF_LANE], T *to, uint8_t *places) {
    const int32_t lane = (int32_t)threadIdx.x % 32, row = lane % LANES * OF_LANE, n = __popc(bits);
    if (bits >> lane & 1) places[__popc(bits & ((1u << lane) - 1))] = (uint8_t)lane;
    __syncwarp();
#pragma unroll 1
    for (int32_t i = lane / LANES; i < n; i += ROWS) {
        const int32_t column = first + places[i];
        float w[OF_LANE];
#pragma unroll
        for (int32_t j = 0; j < OF_LANE; j++) {
            int32_t code = codes[code_at(row + j, column) + column % 16];
            asm("" : "+r"(code));        /* that it is 8 bits wide makes its conversion slower  */
            w[j] = __fmul_rn(__fmul_rn((float)code, scale[j]), RV_INT8_ONE);
        }
        *(uint2 *)(to + i * WEIGHTS + row) = make_uint2(pack_weights(w[0], w[1], T()), pack_weights(w[2], w[3], T()));
    }
    __syncwarp();
}

/* A column's number among those that count. */
static __device__ __forceinline__ int32_t rank_of(const shared_room &s, int32_t column) { return s.before[column / 32] + __popc(s.bits[column / 32] & ((1u << column % 32) - 1)); }

/* Columns that count, and how many before each 32.  by_call: their list, too, the same one by every block. */
static __device__ __forceinline__ void count_columns(const outlier_args &g, shared_room &s, bool by_call) {
    const int32_t me = (int32_t)threadIdx.x, lane = me % 32, warp = me / 32;
    const uint32_t bits = me < column_words(g.pitch) ? __ldcg(g.marks + me) : 0u;
    int32_t before = __popc(bits);
#pragma unroll
    for (int d = 1; d < 32; d *= 2) {
        const int32_t other = __shfl_up_sync(~0u, before, d);
        if (lane >= d) before += other;
    }
    if (lane == 31) s.sums[warp] = before;
    __syncthreads();
    for (int w = 0; w < warp; w++) before += s.sums[w];
    s.bits[me] = bits;
    s.before[me] = (uint16_t)(before - __popc(bits));
    if (me == THREADS - 1) s.before[THREADS] = (uint16_t)before;
    if (by_call) {
        int32_t at = before - __popc(bits);
        for (uint32_t left = bits; left; left &= left - 1) g.columns[at++] = (uint32_t)(me * 32 + __ffs((int32_t)left) - 1);
    }
    __syncthreads();
}

/* Four weights, rounded. */
template <typename T> static __device__ __forceinline__ void weights_of(float (&w)[OF_LANE], uint2 v) {
    const float2 a = pair_of(v.x, T()), b = pair_of(v.y, T());
    w[0] = a.x, w[1] = a.y, w[2] = b.x, w[3] = b.y;
}

/* A row's entries from `at` on, two a lane: beyond the list's end there is anything. */
template <typename T, bool BY_CALL> struct batch {
    uint32_t entry[2];
    __device__ __forceinline__ void ask(const outlier_args &g, int32_t row, int32_t at, int32_t n) {
#pragma unroll
        for (int u = 0; u < 2; u++) {
            const int32_t i = at + u * LANES + (int32_t)threadIdx.x % LANES;
            entry[u] = i < n ? __ldcg(BY_CALL ? g.columns + i : g.list + (int64_t)row * g.listed + i) : 0u;
        }
    }
    /* Those whose columns are in the panel, number [base, end), go to shared memory, zeros behind them: how many there are. */
    __device__ __forceinline__ int32_t lay(const outlier_args &g, const shared_room &s, uint8_t *near, int32_t row, int32_t at, int32_t n, int32_t base, int32_t end) const {
        int32_t all = 0;
#pragma unroll
        for (int u = 0; u < 2; u++) {
            const int32_t place = u * LANES + (int32_t)threadIdx.x % LANES, i = at + place, column = BY_CALL ? (int32_t)entry[u] : column_of(entry[u]);
            const int32_t number = i < n ? (BY_CALL ? i : rank_of(s, column)) : end;
            const bool in = number < end;
            float x = 0;
            if (in) x = BY_CALL ? to_f32(outlier_value<T>(g.x, g.x_ld, row, column, g.threshold)) : value_of<T>(entry[u]);
            *(uint2 *)(near + place * 8) = make_uint2(in ? (uint32_t)(number - base) * COLUMN : 0u, __float_as_uint(x));
            all += __popc(__ballot_sync(~0u, in) >> (threadIdx.x % 32 / LANES * LANES) & ((1u << LANES) - 1));
        }
        return all;
    }
};

/* Where sums go: to what the product adds, where a row without outliers has the one number that changes none; or to the product's results. */
template <typename T, bool AFTER> static __device__ __forceinline__ void leave(const outlier_args &g, int32_t row, int32_t first, bool has, const float (&sum)[OF_LANE]) {
    const int32_t col = first + (int32_t)threadIdx.x % LANES * OF_LANE;
    const int64_t at = (int64_t)row * g.out_ld + col;
    if (row >= g.n || col >= g.w_rows) return;
    if (!AFTER) *(float4 *)((float *)g.out + at) = has ? make_float4(sum[0], sum[1], sum[2], sum[3]) : make_float4(-0.f, -0.f, -0.f, -0.f);
    else if (has) {
        uint2 *const to = (uint2 *)((T *)g.out + at);
        const uint2 y = __ldcg(to);
        const float2 a = pair_of(y.x, T()), b = pair_of(y.y, T());
        const float v[4] = { a.x + sum[0], a.y + sum[1], b.x + sum[2], b.y + sum[3] };
        uint32_t packed[2];
        pack_counted(packed, v, T());
        *to = make_uint2(packed[0], packed[1]);
    }
}

/* What a warp's rows have of a panel.  Kept from one panel to the next: sums, and how many entries have been added. */
struct kept_sums { float sum[TASKS][OF_LANE]; int32_t added[TASKS]; };
template <typename T, bool AFTER, bool BY_CALL>
static __device__ __forceinline__ void add_panel(const outlier_args &g, shared_room &s, const uint8_t *panel, kept_sums &kept, int32_t row0, int32_t first, int32_t base, int32_t end, bool begins, bool ends) {
    const int32_t lane = (int32_t)threadIdx.x % 32, warp = (int32_t)threadIdx.x / 32, mine = lane / LANES, rows = min((int32_t)AT_ONCE, g.n - row0);
    uint8_t *const near = s.near[warp] + mine * NEAR_LD, *const to = near;
    const uint8_t *const weights = panel + lane % LANES * (OF_LANE * 2);
#pragma unroll 1
    for (int32_t i = 0; (i * WARPS + warp) * ROWS < rows; i++) {
        const int32_t in_pass = (i * WARPS + warp) * ROWS + mine, row = row0 + in_pass, n = in_pass < rows ? s.entries[in_pass] : 0;
        int32_t at = begins ? 0 : kept.added[i];
        float sum[OF_LANE];
#pragma unroll
        for (int j = 0; j < OF_LANE; j++) sum[j] = begins ? 0.f : kept.sum[i][j];
        batch<T, BY_CALL> now;
        now.ask(g, row, at, n);
        bool going = true;
        while (__any_sync(~0u, going && at < n)) {
            const int32_t there = now.lay(g, s, to, row, at, going ? n : 0, base, end), most = (int32_t)__reduce_max_sync(~0u, (uint32_t)there);
            at += there;
            going = there == BATCH;
            now.ask(g, row, at, going ? n : 0);
            __syncwarp();
#pragma unroll 1
            for (int32_t j = 0; j < most; j += 4) {
                uint4 two[2];
                uint2 w[4];
#pragma unroll
                for (int u = 0; u < 2; u++) two[u] = *(const uint4 *)(near + (j + 2 * u) * 8);
#pragma unroll
                for (int u = 0; u < 2; u++) w[2 * u] = *(const uint2 *)(weights + two[u].x), w[2 * u + 1] = *(const uint2 *)(weights + two[u].z);
#pragma unroll
                for (int u = 0; u < 4; u++) {
                    const float x = __uint_as_float(u % 2 ? two[u / 2].w : two[u / 2].y);
                    float of[OF_LANE];
                    weights_of<T>(of, w[u]);
#pragma unroll
                    for (int k = 0; k < OF_LANE; k++) sum[k] = __fmaf_rn(x, of[k], sum[k]);
                }
            }
            __syncwarp();                /* all have read what is written next                  */
        }
        if (ends) {
            leave<T, AFTER>(g, row, first, n > 0, sum);
            continue;
        }
        kept.added[i] = at;
#pragma unroll
        for (int j = 0; j < OF_LANE; j++) kept.sum[i][j] = sum[j];
    }
}

template <typename T, bool AFTER, bool BY_CALL> static __device__ __forceinline__ void add_lists(const outlier_args &g, shared_room &s, int8_t *codes) {
    const int32_t me = (int32_t)threadIdx.x, warp = me / 32, lane = me % 32, chunks = (g.pitch + CHUNK - 1) / CHUNK, apart = (int32_t)gridDim.x * WEIGHTS;
    uint8_t *const panel = (uint8_t *)codes + g.chunks * CHUNK_BYTES;
    kept_sums kept;
    wait_for_previous();
    const bool listed = __ldcg(g.marks + column_words(g.pitch) + RV_CUDA_MARKS_LISTED);
    count_columns(g, s, BY_CALL);
    if (g.wipes) {
        __syncthreads();
        wipe_marks(g.marks, g.pitch, g.n, me, THREADS, &s.last, [] { __syncthreads(); });
    }
    if (s.before[THREADS] <= RV_CUDA_INT8_BESIDE || !listed) return;
    /* Chunks in turn: of tiles of WEIGHTS rows of weights; for each as many rows of x as a block can have; of those all columns. */
    struct { int32_t first, row0, chunk; } ahead = { (int32_t)blockIdx.x * WEIGHTS, 0, 0 }, now = ahead;
    auto next = [&](auto &w) {
        if (++w.chunk < chunks) return;
        w.chunk = 0;
        if ((w.row0 += AT_ONCE) < g.n) return;
        w.row0 = 0;
        w.first += apart;
    };
    auto bring_next = [&](int32_t slot) {
        if (ahead.first < g.w_rows) bring(g, ahead.first, ahead.chunk * CHUNK, codes + slot * CHUNK_BYTES), next(ahead);
        else copies_commit();
    };
    for (int32_t i = 0; i < g.chunks - 1; i++) bring_next(i);
    auto before = [&](int32_t chunk) { return (int32_t)s.before[chunk * (CHUNK / 32)]; };
    int32_t base = 0, end = 0;           /* numbers of the panel's columns                      */
    float scale[OF_LANE] = {};
    bool begins = true;
    for (int32_t slot = 0; now.first < g.w_rows; next(now), slot = slot + 1 == g.chunks ? 0 : slot + 1) {
        const int32_t upto = before(now.chunk + 1);
        if (now.chunk == 0) {
            base = 0;
            begins = true;
#pragma unroll
            for (int32_t j = 0; j < OF_LANE; j++) {
                const int32_t row = now.first + lane % LANES * OF_LANE + j;
                scale[j] = row < g.w_rows ? __ldg(g.w_scale + row) : 0.f;
            }
        } else if (upto - base > g.room) {
            __syncthreads();
            add_panel<T, AFTER, BY_CALL>(g, s, panel, kept, now.row0, now.first, base, end, begins, false);
            base = end;
            begins = false;
        }
        end = upto;
        if (g.chunks == 3) copies_wait<1>();
        else copies_wait<0>();
        __syncthreads();                 /* codes are there, and all have read what is written from here on */
        bring_next(slot == 0 ? g.chunks - 1 : slot - 1);
        if (now.chunk == 0 && me < AT_ONCE) {
            const int32_t outliers = now.row0 + me < g.n ? __ldcg(&g.rows[now.row0 + me].outliers) : 0;
            s.entries[me] = (uint16_t)(outliers > g.listed ? 0 : outliers);
        }
        const int32_t word = now.chunk * (CHUNK / 32) + warp;
        put_columns<T>(codes + slot * CHUNK_BYTES, warp * 32, s.bits[word], scale, (T *)panel + (s.before[word] - base) * WEIGHTS, s.near[warp]);
        if (now.chunk + 1 < chunks) continue;
        __syncthreads();
        add_panel<T, AFTER, BY_CALL>(g, s, panel, kept, now.row0, now.first, base, end, begins, true);
    }
}
#endif

/* AFTER: to results in out, which are stored without; else out is for the product to add.  BY_CALL: a row's entries are of all rows' columns. */
template <typename T, bool AFTER, bool BY_CALL> static __global__ void __launch_bounds__(THREADS, 1) outliers_kernel(const outlier_args g) {
#ifdef __CUDA_ARCH_FEAT_SM90_ALL
    extern __shared__ uint4 memory[];
    let_next_start();
    add_lists<T, AFTER, BY_CALL>(g, *(shared_room *)memory, (int8_t *)memory + sizeof(shared_room));
#endif
}

/* ---- launching ---- */

template <typename T> static cudaError_t launch(outlier_args g, bool after, bool by_call, int32_t multiprocessors, bool overlap, cudaStream_t stream) {
    auto kernel = by_call ? (after ? outliers_kernel<T, true, true> : outliers_kernel<T, false, true>) : after ? outliers_kernel<T, true, false> : outliers_kernel<T, false, false>;
    const int32_t blocks = (g.w_rows + WEIGHTS - 1) / WEIGHTS;
    /* With few rows reading the weights takes longest; with many a row's part of each panel does. */
    g.chunks = g.n <= AT_ONCE / 2 ? 3 : 2;
    g.room = (MOST_BYTES - (int32_t)sizeof(shared_room) - g.chunks * CHUNK_BYTES) / COLUMN;
    cudaError_t e = cudaFuncSetAttribute(kernel, cudaFuncAttributeMaxDynamicSharedMemorySize, MOST_BYTES);
    return e ? e : launch_kernel(kernel, dim3((unsigned)(blocks < multiprocessors ? blocks : multiprocessors)), THREADS, (size_t)MOST_BYTES, overlap, stream, g);
}

bool rv_cuda_int8_before(const rv_int8 *q) { return q->p.how != rv_few::RV_FEW_STORE || q->p.out.type == RV_F32; }

cudaError_t rv_cuda_outliers90(const rv_int8 *q, const rv_int8_many *room, bool overlap, cudaStream_t stream) {
    const rv_few *p = &q->p;
    const bool before = rv_cuda_int8_before(q), by_call = q->rules.by_call && q->call.rows > 1;
    const outlier_args g = { (const int8_row *)room->rows, room->columns, (uint32_t *)q->marks, room->list, room->h ? room->h : p->x.data,
                             (const int8_t *)p->w, q->w_scale, before ? (void *)room->more : p->out.data, room->h ? q->pitch : p->x.ld,
                             before ? (int64_t)p->rows : p->out.ld, p->x.rows, p->rows, q->pitch, rv_cuda_int8_listed(q->pitch), 0, 0, by_call ? 0.f : q->rules.threshold, !before };
    return p->act == RV_BF16 ? launch<__nv_bfloat16>(g, !before, by_call, p->multiprocessors, overlap, stream) : launch<__half>(g, !before, by_call, p->multiprocessors, overlap, stream);
}

RV_CUDA_CLAMPED(outliers90)
