/* int8.cu - codes of LLM.int8: weights as they land on the device, activations before a product of several rows.
 *
 * The one idea: one block a row, as everything here is decided by a row's largest value.
 */
#include "kernels/cuda/few.cuh"
#include "kernels/cuda/int8.cuh"
#include "kernels/cuda/int8_many.cuh"

/* ---- weights ---- */

static __device__ __forceinline__ int64_t place_of(rv_int8_place p, int32_t r) {
    return p.block ? p.first + (int64_t)(r / p.block) * p.stride + r % p.block : (int64_t)p.first + r;
}

/* As a cast to f16 rounds, beyond +-65504 to infinity. */
template <typename S> static __device__ __forceinline__ float weight16(S w) { return __half2float(__float2half_rn(to_f32(w))); }

/* rv_int8_weights, a row a block. */
template <typename S>
static __global__ void make_kernel(int8_t *codes, float *scale, int32_t pitch, rv_int8_place place, const S *staging, int32_t from, int32_t cols) {
    __shared__ float shared[QUANTISERS / 32];
    const S *row = staging + (int64_t)blockIdx.x * cols;
    const int64_t to = place_of(place, from + (int32_t)blockIdx.x);
    float most = 0;
    for (int32_t k = (int32_t)threadIdx.x; k < cols; k += QUANTISERS) most = fmaxf(most, fabsf(weight16(row[k])));
    most = block_most(most, shared);
    const float by = __fdiv_rn(127.f, most);
    for (int32_t k = (int32_t)threadIdx.x; k < pitch; k += QUANTISERS)
        codes[to * pitch + k] = k < cols ? (int8_t)__float2int_rn(__fmul_rn(weight16(row[k]), by)) : (int8_t)0;       /* NaN: 0 */
    if (threadIdx.x == 0) scale[to] = most;
}

static __global__ void copy_kernel(int8_t *codes, int32_t pitch, rv_int8_place place, const int8_t *staging, int32_t from, int32_t cols) {
    const int8_t *row = staging + (int64_t)blockIdx.x * cols;
    int8_t *to = codes + place_of(place, from + (int32_t)blockIdx.x) * pitch;
    for (int32_t k = (int32_t)threadIdx.x; k < pitch; k += QUANTISERS) to[k] = k < cols ? row[k] : (int8_t)0;
}

static __global__ void scales_kernel(float *scale, rv_int8_place place, const float *staging, int32_t from, int32_t rows) {
    const int32_t r = (int32_t)(blockIdx.x * blockDim.x + threadIdx.x);
    if (r < rows) scale[place_of(place, from + r)] = staging[r];
}

enum { SCALES = 896 };                   /* that fit a launch's arguments                       */
struct some_scales { float of[SCALES]; };

template <typename T>
static __global__ void plain_kernel(T *to, rv_int8_place place, const int8_t *staging, const __grid_constant__ some_scales scales, int32_t from, int32_t cols) {
    const int8_t *row = staging + (int64_t)blockIdx.x * cols;
    T *out = to + place_of(place, from + (int32_t)blockIdx.x) * cols;
    const float scale = scales.of[blockIdx.x];
    for (int32_t k = (int32_t)threadIdx.x; k < cols; k += QUANTISERS) out[k] = int8_weight<T>((float)row[k], scale);
}

cudaError_t rv_cuda_int8_make(int8_t *codes, float *scale, int32_t pitch, rv_int8_place place, const void *staging, rv_dtype type, int32_t from,
                              int32_t rows, int32_t cols, cudaStream_t stream) {
    const unsigned blocks = (unsigned)rows;
    if (type == RV_F32) make_kernel<<<blocks, QUANTISERS, 0, stream>>>(codes, scale, pitch, place, (const float *)staging, from, cols);
    else if (type == RV_F16) make_kernel<<<blocks, QUANTISERS, 0, stream>>>(codes, scale, pitch, place, (const __half *)staging, from, cols);
    else if (type == RV_BF16) make_kernel<<<blocks, QUANTISERS, 0, stream>>>(codes, scale, pitch, place, (const __nv_bfloat16 *)staging, from, cols);
    else return cudaErrorInvalidValue;
    return cudaGetLastError();
}

cudaError_t rv_cuda_int8_copy(int8_t *codes, int32_t pitch, rv_int8_place place, const void *staging, int32_t from, int32_t rows, int32_t cols, cudaStream_t stream) {
    copy_kernel<<<(unsigned)rows, QUANTISERS, 0, stream>>>(codes, pitch, place, (const int8_t *)staging, from, cols);
    return cudaGetLastError();
}

cudaError_t rv_cuda_int8_scales(float *scale, rv_int8_place place, const void *staging, int32_t from, int32_t rows, cudaStream_t stream) {
    scales_kernel<<<(unsigned)(rows + QUANTISERS - 1) / QUANTISERS, QUANTISERS, 0, stream>>>(scale, place, (const float *)staging, from, rows);
    return cudaGetLastError();
}

cudaError_t rv_cuda_int8_plain(void *to, rv_dtype act, rv_int8_place place, const void *staging, const void *scales, int32_t from, int32_t rows, int32_t cols,
                               cudaStream_t stream) {
    for (int32_t r = 0; r < rows; r += SCALES) {
        some_scales some;
        const int32_t n = rows - r < SCALES ? rows - r : SCALES;
        memcpy(some.of, (const char *)scales + ((int64_t)from + r) * 4, (size_t)n * 4);
        const int8_t *codes = (const int8_t *)staging + (int64_t)r * cols;
        if (act == RV_F16) plain_kernel<<<(unsigned)n, QUANTISERS, 0, stream>>>((__half *)to, place, codes, some, from + r, cols);
        else plain_kernel<<<(unsigned)n, QUANTISERS, 0, stream>>>((__nv_bfloat16 *)to, place, codes, some, from + r, cols);
    }
    return cudaGetLastError();
}

/* ---- activations ---- */

struct quantise_args {
    args a;                              /* x, norm, eps, n, cols                               */
    int8_row *rows;
    int8_t *codes;
    uint32_t *list;
    int32_t listed, list_ld;             /* how many entries of a row, at most; from one row to the next */
    int32_t most;                        /* outliers of a row that is not dense                 */
    bool tells;                          /* marks get a row's outliers, too, and which rows are dense */
    bool wipes;                          /* the last block wipes marks                          */
    void *outliers;                      /* dense rows' values                                  */
    uint16_t *starts;                    /* or NULL                                             */
    uint32_t *marks;                     /* or NULL: int8_many.h                                */
    int32_t words, pitch;                /* words: of marks                                     */
    void *h;                             /* or NULL: where normed rows go, too                  */
    float threshold;
    bool by_call, aligned;
    const void *call;                    /* by_call: rows that decide                           */
    int64_t call_ld;
    int32_t call_rows;
};

/* Eight neighbours of a row that may lie anywhere. */
template <typename T> static __device__ __forceinline__ uint4 piece_at(const T *row, int32_t k, int32_t cols, bool aligned) {
    if (aligned) return k < cols ? __ldcg((const uint4 *)(row + k)) : make_uint4(0, 0, 0, 0);
    uint32_t v[4];
#pragma unroll
    for (int32_t i = 0; i < 4; i++) {
        const uint16_t *at = (const uint16_t *)row + k + 2 * i;
        v[i] = (k + 2 * i < cols ? __ldcg(at) : 0u) | (k + 2 * i + 1 < cols ? (uint32_t)__ldcg(at + 1) << 16 : 0u);
    }
    return make_uint4(v[0], v[1], v[2], v[3]);
}

/* Which columns hold an outlier in any row: a thread looks at eight of them. */
enum { MARKED = 32 };                    /* rows a block                                        */
template <typename T> static __global__ void mark_kernel(quantise_args q) {
    const int32_t p = (int32_t)(blockIdx.x * blockDim.x + threadIdx.x), last = ((int32_t)blockIdx.y + 1) * MARKED;
    const int8_limit limit = { q.threshold, NULL };
    uint32_t all = 0;
    if (p >= q.pitch / PIECE) return;
    for (int32_t r = (int32_t)blockIdx.y * MARKED; r < last && r < q.call_rows; r++) {
        uint32_t marks = 0;
        piece_codes<T>(limit, piece_at((const T *)q.call + r * q.call_ld, p * PIECE, q.a.cols, q.aligned), 0.f, &marks);
        all |= marks;
    }
    if (all) atomicOr(q.marks + p / 4, all << p % 4 * 8);
}

/* Most bits are there already, and those that are set one after the other at one place take their time.  there: what was seen of the word before. */
static __device__ __forceinline__ void set_bits(uint32_t *word, uint32_t bits, uint32_t there) {
    if (bits & ~there) atomicOr(word, bits);
}

static __device__ __forceinline__ uint32_t *dense_marks(const quantise_args &q) { return q.marks + (q.words + RV_CUDA_MARKS_DENSE); }

/* Of marks, what a row's outliers are held against: it is asked for before they are known. */
struct seen_marks {
    enum { HELD = (RV_CUDA_INT8_MOST / 32 + QUANTISERS - 1) / QUANTISERS };
    uint32_t columns[HELD], dense, listed;
    __device__ __forceinline__ void ask(const quantise_args &q, int32_t r) {
#pragma unroll
        for (int32_t i = 0; i < HELD; i++) {
            const int32_t word = (int32_t)threadIdx.x + i * QUANTISERS;
            columns[i] = word < q.words ? __ldcg(q.marks + word) : 0u;
        }
        dense = threadIdx.x == 0 ? __ldcg(dense_marks(q) + r / 32) : 0u;
        listed = threadIdx.x == 0 ? __ldcg(q.marks + q.words + RV_CUDA_MARKS_LISTED) : 0u;
    }
};

/* What the product needs to know of a row that has outliers, and has no other place.  marks: a bit a column. */
template <typename P> static __device__ __forceinline__ void tell_outliers(const quantise_args &q, const seen_marks &seen, int32_t r, int32_t outliers, const uint8_t *marks, P piece) {
    const bool dense = outliers > q.most;
    if (threadIdx.x == 0) dense ? set_bits(dense_marks(q) + r / 32, 1u << r % 32, seen.dense) : set_bits(q.marks + q.words + RV_CUDA_MARKS_LISTED, 1u, seen.listed);
    if (!q.by_call)
#pragma unroll
        for (int32_t i = 0; i < seen_marks::HELD; i++) {
            const int32_t word = (int32_t)threadIdx.x + i * QUANTISERS;
            if (word < q.words) set_bits(q.marks + word, ((const uint32_t *)marks)[word], seen.columns[i]);
        }
    if (!dense) return;
    for (int32_t p = (int32_t)threadIdx.x; p < q.pitch / PIECE; p += QUANTISERS) {
        const uint4 v = piece(p);
        uint32_t pairs[4] = { v.x, v.y, v.z, v.w };
#pragma unroll
        for (int32_t i = 0; i < 4; i++) pairs[i] &= (marks[p] >> 2 * i & 1 ? 0xffffu : 0u) | (marks[p] >> 2 * i & 2 ? 0xffff0000u : 0u);
        ((uint4 *)q.outliers)[(int64_t)r * (q.pitch / PIECE) + p] = make_uint4(pairs[0], pairs[1], pairs[2], pairs[3]);
    }
}

/* quantise_row of a row in whole pieces, of which a thread has N at most; each row decides for itself.  Whether there is anything odd in it its largest magnitude in f16 tells;
 * where there is, pieces with outliers go to `values`, in shared memory as `room` is, for the list to be made of. */
template <typename T, int N, typename P, typename L>
static __device__ __forceinline__ int8_row quantise_pieces(P piece, int32_t pitch, const int8_limit &l, int8_t *codes, L place, void *room, uint4 *values) {
    uint32_t *const shared = (uint32_t *)room;
    uint8_t *const marks = (uint8_t *)room + int8_marks_at();
    const int32_t pieces = pitch / PIECE, first = (int32_t)threadIdx.x, warp = first / 32, words = (pieces + 3) / 4;
    const float limit = l.threshold == 0.f ? __int_as_float(0x7f800000) : l.threshold;
    uint4 held[N];
    uint32_t half[N][4], pair = 0;
#pragma unroll
    for (int32_t i = 0; i < N; i++) held[i] = first + i * QUANTISERS < pieces ? piece(first + i * QUANTISERS) : make_uint4(0, 0, 0, 0);
#pragma unroll
    for (int32_t i = 0; i < N; i++) {
        const uint32_t pairs[4] = { held[i].x, held[i].y, held[i].z, held[i].w };
#pragma unroll
        for (int32_t j = 0; j < 4; j++) half[i][j] = half_pair(pairs[j], T()), pair = most_pair(pair, half[i][j]);
    }
    auto block_top = [&](uint32_t v, uint32_t *of_warps) {
#pragma unroll
        for (int m = 16; m; m >>= 1) v = max(v, __shfl_xor_sync(~0u, v, m));
        if (first % 32 == 0) of_warps[warp] = v;
        quantisers_meet();
#pragma unroll
        for (int32_t w = 0; w < QUANTISERS / 32; w++) v = max(v, of_warps[w]);
        return v;
    };
    auto store = [&](int32_t i, float scale, auto value) {
        uint32_t two[4];
#pragma unroll
        for (int32_t j = 0; j < 4; j++) {
            const float2 f = __half22float2(*(const __half2 *)&half[i][j]);
            two[j] = __byte_perm(code_bits(value(f.x, 2 * j), scale), code_bits(value(f.y, 2 * j + 1), scale), 0x0040);
        }
        if (first + i * QUANTISERS < pieces)
            *(uint2 *)(codes + (first + i * QUANTISERS) * PIECE) = make_uint2(__byte_perm(two[0], two[1], 0x5410), __byte_perm(two[2], two[3], 0x5410));
    };
    float most = __half2float(__ushort_as_half((unsigned short)block_top(max(pair & 0xffff, pair >> 16), shared)));
    if (most < limit) {
        const float scale = most > 0 ? __fdiv_rn(127.f, most) : 0.f;
#pragma unroll
        for (int32_t i = 0; i < N; i++) store(i, scale, [](float f, int32_t) { return f; });
        return { most, 0 };
    }
    most = 0;
#pragma unroll
    for (int32_t i = 0; i < N; i++)
#pragma unroll
        for (int32_t j = 0; j < 4; j++) {
            const float2 f = __half22float2(__habs2(*(const __half2 *)&half[i][j]));
            if (l.counts(f.x)) most = fmaxf(most, f.x);
            if (l.counts(f.y)) most = fmaxf(most, f.y);
        }
    most = __uint_as_float(block_top(__float_as_uint(most), shared + QUANTISERS / 32));
    const float scale = most > 0 ? __fdiv_rn(127.f, most) : 0.f;
#pragma unroll
    for (int32_t i = 0; i < N; i++) {
        const int32_t p = first + i * QUANTISERS;
        uint32_t bits = 0;
        store(i, scale, [&](float f, int32_t k) {
            if (l.outlier(fabsf(f))) bits |= 1u << k;
            return fabsf(f) < limit ? f : 0.f;
        });
        if (p >= pieces) break;
        marks[p] = (uint8_t)bits;
        if (bits) values[p] = held[i];
    }
    if (first < words * 4 - pieces) marks[pieces + first] = 0;
    quantisers_meet();
    return { most, write_list((const uint32_t *)marks, words, place, (int32_t *)shared, [&](int32_t k) { return ((const uint16_t *)values)[k]; }) };
}

/* N: pieces of a thread, or 0: rows may lie anywhere, be of any length, and a call's may decide together. */
template <typename T, bool NORM, int N> static __global__ void __launch_bounds__(QUANTISERS, N > 2 ? 3 : 1) quantise_kernel(const quantise_args q) {
    extern __shared__ uint4 memory[];
    let_next_start();
    const int32_t r = (int32_t)blockIdx.x;
    const T *x = (const T *)q.a.x + r * q.a.x_ld;
    void *room = memory;
    if constexpr (NORM) {
        T *normed = (T *)((char *)memory + int8_shared_bytes(q.pitch));
        args one = q.a;
        one.x = (const float *)q.a.x + r * q.a.x_ld;
        one.n = 1;
        norm_rows<T>(one, normed, (float *)room);
        x = normed;
        if (q.h)
            for (int32_t p = (int32_t)threadIdx.x; p < q.a.cols / PIECE; p += QUANTISERS) ((uint4 *)q.h)[(int64_t)r * (q.pitch / PIECE) + p] = ((const uint4 *)normed)[p];
    } else wait_for_previous();
    seen_marks seen;
    if (q.tells) seen.ask(q, r);
    const int8_limit limit = { q.threshold, q.by_call ? (const uint8_t *)q.marks : NULL };
    auto piece = [&](int32_t p) {
        if (NORM) return p * PIECE < q.a.cols ? ((const uint4 *)x)[p] : make_uint4(0, 0, 0, 0);
        return piece_at(x, p * PIECE, q.a.cols, N || q.aligned);
    };
    auto value = [&](int32_t k) { return NORM ? ((const uint16_t *)x)[k] : __ldcg((const uint16_t *)x + k); };
    auto place = [&](int32_t, int32_t i) { return i < q.listed ? q.list + (int64_t)r * q.list_ld + i : NULL; };
    int8_row row;
    if constexpr (N) row = quantise_pieces<T, N>(piece, q.pitch, limit, q.codes + (int64_t)r * q.pitch, place, room, (uint4 *)((char *)memory + int8_shared_bytes(q.pitch)));
    else row = quantise_row<T>(piece, value, q.pitch, limit, q.codes + (int64_t)r * q.pitch, place, room);
    if (threadIdx.x == 0) q.rows[r] = row;
    if (q.tells && row.outliers) tell_outliers(q, seen, r, row.outliers, (const uint8_t *)room + int8_marks_at(), piece);
    if (q.starts && row.outliers) tell_starts((const uint32_t *)((char *)room + int8_marks_at()), (q.pitch + 127) / 128, q.starts + r * SLICES);
    if (!q.wipes) return;
    __shared__ int32_t last;
    __syncthreads();
    wipe_marks(q.marks, q.pitch, q.a.n, (int32_t)threadIdx.x, QUANTISERS, &last, [] { __syncthreads(); });
}

template <typename T> static cudaError_t quantise(const quantise_args &q, bool overlap, cudaStream_t stream) {
    const int32_t a_thread = q.by_call || (!q.aligned && !q.a.norm) ? 0 : (q.pitch / PIECE + QUANTISERS - 1) / QUANTISERS;
    const bool in_pieces = a_thread > 0 && a_thread <= PIECES_HELD;
    const int32_t bytes = int8_shared_bytes(q.pitch) + (q.a.norm || in_pieces ? q.pitch * (int32_t)sizeof(T) : 0);
    const dim3 grid((unsigned)q.a.n);
    if (q.by_call) {
        const dim3 blocks((unsigned)(q.pitch / PIECE + QUANTISERS - 1) / QUANTISERS, (unsigned)(q.call_rows + MARKED - 1) / MARKED);
        mark_kernel<T><<<blocks, QUANTISERS, 0, stream>>>(q);
        cudaError_t e = cudaGetLastError();
        if (e) return e;
    }
    auto kernel = q.a.norm ? (in_pieces && a_thread <= 2 ? quantise_kernel<T, true, 2> : quantise_kernel<T, true, 0>)
                           : !in_pieces ? quantise_kernel<T, false, 0> : a_thread <= 2 ? quantise_kernel<T, false, 2> : quantise_kernel<T, false, PIECES_HELD>;
    return launch_kernel(kernel, grid, QUANTISERS, (size_t)bytes, overlap, stream, q);
}

/* few, many: whichever it is for. */
static cudaError_t quantise_to(const rv_int8 *q, const rv_int8_room *few, const rv_int8_many *many, bool overlap, cudaStream_t stream) {
    const rv_few *p = &q->p;
    const bool by_call = q->rules.by_call && q->call.rows > 1 && q->rules.threshold != 0;
    quantise_args a = {};
    if (q->pitch > RV_CUDA_INT8_MOST || (p->norm && (by_call || p->cols > RV_CUDA_NORM_MOST || p->cols % PIECE))) return cudaErrorInvalidValue;
    a.a.x = p->x.data, a.a.x_ld = p->x.ld, a.a.norm = p->norm, a.a.eps = p->eps, a.a.n = p->x.rows, a.a.cols = p->cols;
    a.rows = (int8_row *)(many ? many->rows : few->rows);
    a.codes = many ? many->codes : few->codes;
    a.list = many ? many->list : few->list;
    a.listed = a.list_ld = a.most = many ? rv_cuda_int8_listed(q->pitch) : q->pitch + RV_CUDA_INT8_CLOSE;
    if (many && by_call) a.listed = 0;
    if (few) a.starts = few->starts;
    a.marks = by_call || many ? (uint32_t *)q->marks : NULL;
    a.words = (q->pitch + 31) / 32;
    a.pitch = q->pitch;
    a.tells = many;
    a.wipes = !many && by_call;
    if (many) a.outliers = many->outliers, a.h = many->h;
    a.threshold = q->rules.threshold;
    a.by_call = by_call;
    a.aligned = (uintptr_t)p->x.data % 16 == 0 && p->x.ld % PIECE == 0 && p->cols % PIECE == 0;
    a.call = q->call.data, a.call_ld = q->call.ld, a.call_rows = q->call.rows;
    return p->act == RV_BF16 ? quantise<__nv_bfloat16>(a, overlap, stream) : quantise<__half>(a, overlap, stream);
}

cudaError_t rv_cuda_quantise(const rv_int8 *q, bool overlap, cudaStream_t stream) {
    const rv_int8_room room = rv_cuda_int8_room(q->room, q->p.x.rows, q->pitch);
    return quantise_to(q, &room, NULL, overlap, stream);
}

cudaError_t rv_cuda_quantise_many(const rv_int8 *q, const rv_int8_many *room, bool overlap, cudaStream_t stream) {
    return quantise_to(q, NULL, room, overlap, stream);
}

RV_CUDA_CLAMPED(int8)
