/* few8.cuh - the inside of int8 products with 1 to 64 rows: codes on their way, a step of a warp, what becomes of a tile.
 *
 * Source: few.cuh and few.cu explain what is as there; int8.cuh what activations become.  A step is the same 128 bytes of a
 * row, 128 codes instead of 64 values.  Sums are integers, so their order is free.
 */
#ifndef RV_KERNELS_CUDA_FEW8_CUH
#define RV_KERNELS_CUDA_FEW8_CUH
#include "kernels/cuda/few.cuh"
#include "kernels/cuda/int8.cuh"

enum { DEPTH8 = 128 };                   /* codes a step                                        */

struct args8 {
    args a;                              /* w: codes; no bias                                   */
    const float *w_scale, *bias;
    int8_t *codes;                       /* of the activations [n x pitch], where they come quantised */
    int8_row *rows;
    uint32_t *list;                      /* [n x (pitch + RV_CUDA_INT8_CLOSE)]: every block that quantises writes the same */
    const uint16_t *starts;              /* rv_int8_room's                                      */
    float threshold;
    int32_t pitch, shared_pitch, ahead;  /* ahead: tiles after the one worked on that are known */
    bool fused;                          /* each block quantises x itself                       */
    int32_t kept;                        /* of more than 8 rows: stages that are left where outlier_merge has its sums in the others; 0: they have no room */
};

/* What q describes; codes and lists are where rv_cuda_quantise leaves them. */
[[maybe_unused]] static args8 args8_of(const rv_int8 *q) {
    const rv_few *p = &q->p;
    const rv_int8_room room = rv_cuda_int8_room(q->room, p->x.rows, q->pitch);
    args8 g = {};
    g.a = { p->x.data, p->w, p->out.data, p->x.ld, p->out.ld, NULL, p->row_scale, p->norm, p->scale, p->eps, p->x.rows, p->rows, p->cols, 0, 0, p->turn };
    g.w_scale = q->w_scale, g.bias = p->bias;
    g.codes = room.codes, g.rows = (int8_row *)room.rows, g.list = room.list, g.starts = room.starts;
    g.threshold = q->rules.threshold, g.pitch = q->pitch;
    return g;
}

/* As few.cuh's, further ahead: a tile is few steps long.  The first `ahead` are fixed, so that copies begin at once. */
struct tile_queue8 {
    enum { OF = 8 };
    int32_t of[OF];
    static __device__ __forceinline__ int32_t take(const args8 &g, int32_t i) {
        return g.a.turn && i >= g.ahead ? (int32_t)gridDim.x * g.ahead + atomicAdd(g.a.turn, 1) : (int32_t)gridDim.x * i + (int32_t)blockIdx.x;
    }
};

/* The first step of a warp's slice. */
static __host__ __device__ __forceinline__ constexpr int32_t slice8(int32_t pitch, int32_t warp) { return slice_start((pitch + DEPTH8 - 1) / DEPTH8, warp); }

/* Where 16-byte column c of a row lies in its line, so that no two lanes meet in a bank: not those that read two rows' columns c .. c + 3, and not those that read
 * one column of eight rows. */
static __device__ __forceinline__ int32_t code_column(int32_t row, int32_t c) { return c ^ ((row & 1) * 4 | (row >> 1 & 3)); }

/* The place up to which a warp has asked for codes: tile after tile, in each the steps of its slice.  X: rows of activations that come with them. */
template <int MT, int X> struct code_stream {
    enum { ROWS = MT * TILE, X_AT = ROWS * DEPTH8 / 16, STAGE = X_AT + X * DEPTH8 / 16 /* uint4 */ };
    const args8 &g;
    const int32_t from, to, lane;
    const tile_queue8 &tiles;
    int32_t tile, step, count;           /* count: its tiles so far */
    const char *next;                    /* of this lane, in the tile's first 4 rows */
    uint4 *ring;
    uint64_t policy;

    __device__ __forceinline__ code_stream(const args8 &args, const tile_queue8 &queue, uint4 *memory, int32_t warp)
        : g(args), from(slice8(args.pitch, warp)), to(slice8(args.pitch, warp + 1)), lane((int32_t)threadIdx.x % 32), tiles(queue), tile((int32_t)blockIdx.x), step(from),
          count(0), ring(memory + warp * args.a.stages * STAGE), policy(read_once()) {
        next = start();
    }
    __device__ __forceinline__ const char *start() const {
        return (const char *)g.a.w + (int64_t)(tile * ROWS + lane / 8) * g.pitch + from * DEPTH8 + lane % 8 * 16;
    }

    /* Starts the copies of a step's activations. */
    __device__ __forceinline__ void fetch_x(int32_t stage, int32_t of_step) {
        const int32_t c = lane % 8, r = lane / 8, k = of_step * DEPTH8 + c * 16;
        const uint4 *const lines = ring + stage * STAGE + X_AT + r * 8;
        const uint32_t at[2] = { shared_address(lines + code_column(r, c)), shared_address(lines + code_column(r + 4, c)) };
        const int8_t *x = g.codes + (int64_t)r * g.pitch + k;
#pragma unroll
        for (int32_t i = 0; i < X / 4; i++, x += 4 * (int64_t)g.pitch) {
            const bool there = r + i * 4 < g.a.n && k < g.pitch;
            copy16(at[i % 2] + (uint32_t)i * 512, there ? x : g.codes, there);
        }
    }
    /* Starts the copies of the next step into a stage; a group even when there is none.  The first ones are asked for before there are activations. */
    template <bool FIRST> __device__ __forceinline__ void fetch(int32_t stage) {
        if (X && !FIRST && tile < g.a.tiles && from < to) fetch_x(stage, step);
        if (tile < g.a.tiles && from < to) {
            const int32_t c = lane % 8, r = lane / 8, rows = step * DEPTH8 + c * 16 < g.pitch ? g.a.rows - tile * ROWS - r : 0;
            const int64_t four_rows = 4 * (int64_t)g.pitch;
            const uint4 *const lines = ring + stage * STAGE + r * 8;
            const uint32_t at[2] = { shared_address(lines + code_column(r, c)), shared_address(lines + code_column(r + 4, c)) };
            const char *w = next;
#pragma unroll
            for (int32_t i = 0; i < ROWS / 4; i++, w += four_rows)
                copy16_once(at[i % 2] + (uint32_t)i * 512, i * 4 < rows ? (const void *)w : g.a.w, i * 4 < rows, policy);
            next += DEPTH8;
            if (++step == to) {
                step = from;
                tile = ++count < g.ahead || !g.a.turn ? tile + (int32_t)gridDim.x : tiles.of[count % tiles.OF];
                next = start();
            }
        }
        copies_commit();
    }
};

/* A warp's step: the stage's codes times the activations' b[half of the step][group of 8 rows].  emptied(): every lane has
 * read the stage. */
template <int N8, int MT, typename E>
static __device__ __forceinline__ void multiply_step(int32_t (&acc)[N8][MT][4], const uint4 *stage, const uint4 (&b)[2][N8], E emptied) {
    const int32_t lane = (int32_t)threadIdx.x % 32, g = lane / 4, t = lane % 4;
#pragma unroll
    for (int32_t c = 0; c < 2; c++) {
        uint4 p[MT][2];
#pragma unroll
        for (int32_t m = 0; m < MT; m++)
#pragma unroll
            for (int32_t h = 0; h < 2; h++) p[m][h] = stage[(m * TILE + h * 8 + g) * 8 + code_column(g, c * 4 + t)];
        if (c == 1) {
            __syncwarp();
            emptied();
        }
#pragma unroll
        for (int32_t j = 0; j < N8; j++)
#pragma unroll
            for (int32_t m = 0; m < MT; m++) {
                mma(acc[j][m], p[m][0].x, p[m][1].x, p[m][0].y, p[m][1].y, b[c][j].x, b[c][j].y, int8_t());
                mma(acc[j][m], p[m][0].z, p[m][1].z, p[m][0].w, p[m][1].w, b[c][j].z, b[c][j].w, int8_t());
            }
    }
}

/* ---- outliers: in each slice of columns one after the other from 0 on, then slice after slice ---- */

/* What most launches do without is kept out of their way: code comes from memory again for each, as weights pass in between. */
static __device__ __forceinline__ bool seldom(bool x) { return __builtin_expect(x, false); }

/* A lane's way through the outliers of one of two activation rows (lane / 16) in its warp's slice, while the codes that they are multiplied with
 * are in shared memory for the product: those of row lane % 16 of a tile. */
template <typename T> struct outlier_walk {
    const uint32_t *list;
    int32_t first, at;                   /* entry of the slice; the one behind `next`           */
    uint32_t first_entry, first_next, entry, next;
    float scb, sum;
    bool here;                           /* for any lane: there is one in the slice             */

    static __device__ __forceinline__ int32_t row() { return (int32_t)threadIdx.x % TILE; }
    static __device__ __forceinline__ int32_t n() { return (int32_t)threadIdx.x % 32 / TILE; }
    /* The slice is columns [from, to) of steps; outliers: how many entries the lane's list has. */
    __device__ __forceinline__ void begin(const uint32_t *of, int32_t outliers, int32_t from, int32_t to) {
        list = of;
        first = 0;
        for (int32_t i = row(); i < outliers; i += TILE) first += column_of(list[i]) < from * DEPTH8;
#pragma unroll
        for (int m = 1; m < TILE; m *= 2) first += __shfl_xor_sync(~0u, first, m);
        first_entry = outliers ? list[first] : ~0u;
        first_next = first_entry == ~0u ? ~0u : list[first + 1];
        here = __any_sync(~0u, column_of(first_entry) < to * DEPTH8);
    }
    /* The same of one activation row, of whose outliers, fewer than 32 and in any order, lane i has the i-th (else ~0).  room: the warp's, 32 entries of shared memory. */
    __device__ __forceinline__ void begin_unlisted(uint32_t found, int32_t from, int32_t to, uint32_t *room) {
        const int32_t column = column_of(found);
        const bool in = column >= from * DEPTH8 && column < to * DEPTH8;
        const uint32_t all = __ballot_sync(~0u, in);
        here = all != 0;
        if (!here) return;
        int32_t before = 0;
#pragma unroll 1
        for (uint32_t rest = all; rest; rest &= rest - 1) before += column_of(__shfl_sync(~0u, found, __ffs((int32_t)rest) - 1)) < column;
        if (in) room[before] = found;
        if (threadIdx.x % 32 == 0) room[__popc(all)] = ~0u;
        __syncwarp();
        list = room;
        first = 0;
        first_entry = n() ? ~0u : room[0];
        first_next = first_entry == ~0u ? ~0u : room[1];
    }
    /* of: the tile's first scale. */
    __device__ __forceinline__ void start_tile(const float *of, bool valid) {
        at = first + 2;
        entry = first_entry;
        next = first_next;
        sum = 0;
        scb = here && valid ? __ldg(of + row()) : 0.f;
    }
    /* The step that ends before column `end`.  place(row, c): where 16-byte column c of a row lies in its line. */
    template <typename P> __device__ __forceinline__ void step(const uint4 *stage, int32_t end, P place) {
        while (column_of(entry) < end) {
            const int32_t k = column_of(entry) % DEPTH8, code = ((const int8_t *)(stage + row() * 8 + place(row(), k / 16)))[k % 16];
            const float value = value_of<T>(entry);
            entry = next;
            if (next != ~0u) next = list[at++];
            sum = __fmaf_rn(value, to_f32(int8_weight<T>((float)code, scb)), sum);
        }
        __syncwarp();
    }
};

/* The same of 3 to 8 activation rows, by the column: where rows have outliers in the same ones, as they mostly do, a weight is made once for all of them.  A lane has a row of the
 * tile, and of row lane % ROWS of activations the entry that comes next; the first HELD_ENTRIES of a slice are in registers. */
template <typename T, int MT> struct outlier_rows {
    enum { ROWS = 8, WIDE = MT * TILE, SETS = 2, HELD_EACH = 32 / ROWS, HELD_ENTRIES = SETS * HELD_EACH };
    const uint32_t *list;                /* from the slice on                                   */
    int32_t at;
    uint32_t held[SETS], entry;          /* held: of row lane % ROWS, entries lane / ROWS and HELD_EACH further */
    float scb, sum[ROWS];
    bool here;

    static __device__ __forceinline__ int32_t lane() { return (int32_t)threadIdx.x % 32; }
    static __device__ __forceinline__ int32_t row() { return lane() % WIDE; }
    /* of: the list of row lane % ROWS, whose entry `start` is the first of the slice; the slice ends before step `to`.  Behind the closing entry there is
     * memory, and what is there is never looked at. */
    __device__ __forceinline__ void begin(const uint32_t *of, int32_t outliers, int32_t start, int32_t to) {
        static_assert((int)HELD_ENTRIES <= (int)RV_CUDA_INT8_CLOSE, "room behind a list");
        list = of + start;
#pragma unroll
        for (int32_t s = 0; s < SETS; s++) held[s] = outliers ? __ldcg(list + s * HELD_EACH + lane() / ROWS) : ~0u;
        here = __any_sync(~0u, column_of(first()) < to * DEPTH8);
    }
    __device__ __forceinline__ uint32_t first() const { return __shfl_sync(~0u, held[0], lane() % ROWS); }
    __device__ __forceinline__ void start_tile(const float *of, bool valid) {
        at = 0;
        if (here) entry = first();
#pragma unroll
        for (int32_t j = 0; j < ROWS; j++) sum[j] = 0;
        scb = here && valid ? __ldg(of + row()) : 0.f;
    }
    template <typename P> __device__ __forceinline__ void step(const uint4 *stage, int32_t end, P place) {
        const int8_t *codes = (const int8_t *)(stage + row() * 8);
#pragma unroll 1
        for (uint32_t column; (column = __reduce_min_sync(~0u, (uint32_t)column_of(entry))) < (uint32_t)end;) {
            const int32_t k = (int32_t)column % DEPTH8;
            const bool mine = column_of(entry) == (int32_t)column;
            const uint32_t due = __ballot_sync(~0u, mine);
            const float w = to_f32(int8_weight<T>((float)codes[place(row(), k / 16) * 16 + k % 16], scb)), value = value_of<T>(entry);
#pragma unroll
            for (int32_t j = 0; j < ROWS; j++) {
                const float v = __shfl_sync(~0u, value, j);
                if (due >> j & 1) sum[j] = __fmaf_rn(v, w, sum[j]);
            }
            at += mine;
            uint32_t next = 0;
#pragma unroll
            for (int32_t s = 0; s < SETS; s++) {
                const uint32_t other = __shfl_sync(~0u, held[s], at % HELD_EACH * ROWS + lane() % ROWS);
                if (at / HELD_EACH == s) next = other;
            }
            if (at >= HELD_ENTRIES) next = __ldcg(list + at);
            entry = next;
        }
        __syncwarp();
    }
    /* to: of the warp, in shared memory: [activation row][row of the tile], of n rows. */
    __device__ __forceinline__ void leave(float *to, int32_t n) const {
        if (lane() >= WIDE) return;
#pragma unroll
        for (int32_t j = 0; j < ROWS; j++)
            if (j < n) to[j * WIDE + lane()] = sum[j];
    }
};

/* The same of more activation rows, by the column, too: a lane has a row of the tile, and of one activation row in 32 the entries that come next.  Sums are in shared memory,
 * since which row's it is that a column is added to is not known before: in the last stages of the warp's ring, which then has so many less. */
template <typename T, int ROWS, int STAGE> struct outlier_merge {
    enum { WIDE = 2 * TILE, SETS = (ROWS + 31) / 32, STAGE_FLOATS = STAGE * 4, STAGES = (ROWS * WIDE + STAGE_FLOATS - 1) / STAGE_FLOATS, AT_ONCE = 4 };
    const uint32_t *list[SETS];          /* the slice's entries of this lane's activation rows  */
    uint32_t first[SETS][2], entry[SETS][2];                /* the slice's first two; the two that come next */
    int32_t at[SETS];                    /* the one behind those                                */
    float scb, *sums;                    /* of this lane: [activation row][WIDE]                */
    bool here;                           /* there is one in the slice                           */

    static __device__ __forceinline__ int32_t lane() { return (int32_t)threadIdx.x % 32; }
    /* The column that comes next. */
    __device__ __forceinline__ uint32_t column() const {
        int32_t c = column_of(entry[0][0]);
#pragma unroll
        for (int32_t s = 1; s < SETS; s++) c = min(c, column_of(entry[s][0]));
        return __reduce_min_sync(~0u, (uint32_t)c);
    }
    __device__ __forceinline__ void rewind() {
#pragma unroll
        for (int32_t s = 0; s < SETS; s++) entry[s][0] = first[s][0], entry[s][1] = first[s][1], at[s] = 2;
    }
    /* The slice ends before step `to`; room: STAGES of the warp's ring. */
    __device__ __forceinline__ void begin(const args8 &g, uint4 *room, int32_t warp, int32_t to) {
        sums = (float *)room + lane();
#pragma unroll
        for (int32_t s = 0; s < SETS; s++) {
            const int32_t r = s * 32 + lane();
            const bool mine = r < g.a.n && r < ROWS;
            const int32_t outliers = mine ? __ldcg(&g.rows[r].outliers) : 0, start = mine ? __ldcg(g.starts + r * SLICES + warp) : 0;
            list[s] = g.list + (int64_t)r * (g.pitch + RV_CUDA_INT8_CLOSE) + (outliers ? start : 0);
            first[s][0] = outliers ? __ldcg(list[s]) : ~0u;
            first[s][1] = outliers ? __ldcg(list[s] + 1) : ~0u;
        }
        rewind();
        here = column() < (uint32_t)(to * DEPTH8);
    }
    __device__ __forceinline__ void start_tile(const args8 &g, int32_t tile) {
        const int32_t row = tile * WIDE + lane();
        rewind();
#pragma unroll 4
        for (int32_t r = 0; r < g.a.n; r++) sums[r * WIDE] = 0;
        scb = row < g.a.rows ? __ldg(g.w_scale + row) : 0.f;
    }
    /* Adds a weight times the values of lanes that are due to their rows' sums, from the first on. */
    static __device__ __forceinline__ void add(float *to, uint32_t due, float w, float value) {
        if (!(due & (due - 1))) {        /* one, mostly, where rows have columns of their own   */
            if (!due) return;
            const int32_t of = __ffs((int32_t)due) - 1;
            to[of * WIDE] = __fmaf_rn(__shfl_sync(~0u, value, of), w, to[of * WIDE]);
            return;
        }
#pragma unroll 1
        for (int32_t left = __popc(due); left > 0; left -= AT_ONCE) {
            float old[AT_ONCE];
            int32_t of[AT_ONCE];
#pragma unroll
            for (int32_t i = 0; i < AT_ONCE; i++) {
                of[i] = i < left ? __ffs((int32_t)due) - 1 : 0;
                due &= due - 1;
                old[i] = to[of[i] * WIDE];
            }
#pragma unroll
            for (int32_t i = 0; i < AT_ONCE; i++) {
                const float v = __shfl_sync(~0u, value, of[i]);
                if (i < left) to[of[i] * WIDE] = __fmaf_rn(v, w, old[i]);
            }
        }
    }
    /* Which column comes next is asked before the weight of this one is there. */
    __device__ __forceinline__ void step(const uint4 *stage, int32_t end) {
        const int8_t *const codes = (const int8_t *)(stage + lane() * 8);
#pragma unroll 1
        for (uint32_t c = column(), after; c < (uint32_t)end; c = after) {
            const int32_t k = (int32_t)c % DEPTH8, code = codes[code_column(lane(), k / 16) * 16 + k % 16];
            uint32_t due[SETS];
            float value[SETS];
#pragma unroll
            for (int32_t s = 0; s < SETS; s++) {
                const bool mine = column_of(entry[s][0]) == (int32_t)c;
                due[s] = __ballot_sync(~0u, mine);
                value[s] = value_of<T>(entry[s][0]);
                if (mine) {
                    entry[s][0] = entry[s][1];
                    if (entry[s][1] != ~0u) entry[s][1] = __ldcg(list[s] + at[s]++);
                }
            }
            after = column();
            const float w = to_f32(int8_weight<T>((float)code, scb));
#pragma unroll
            for (int32_t s = 0; s < SETS; s++) add(sums + s * 32 * WIDE, due[s], w, value[s]);
        }
        __syncwarp();
    }
};

enum { LOOKED_AT = 8 };                  /* outliers whose weights are asked for at once        */

/* The same of a whole row of weights, from memory.  AHEAD: entries are asked for while weights of those before them are on their way, which wants registers. */
template <typename T, bool AHEAD>
static __device__ __noinline__ float outlier_sum(const uint32_t *list, int32_t outliers, const int8_t *w, float scb, int32_t pitch) {
    float all = 0, part = 0;
    int32_t slice = 1, end = slice8(pitch, 1) * DEPTH8;
    uint32_t next[LOOKED_AT] = {};
    auto ask = [&](uint32_t (&entry)[LOOKED_AT], int32_t i) {
#pragma unroll
        for (int32_t j = 0; j < LOOKED_AT; j++) entry[j] = i + j < outliers ? __ldcg(list + i + j) : 0;
    };
    if (AHEAD) ask(next, 0);
#pragma unroll 1
    for (int32_t i = 0; i < outliers; i += LOOKED_AT) {
        uint32_t entry[LOOKED_AT];
        int32_t code[LOOKED_AT];
        if (!AHEAD) ask(entry, i);
#pragma unroll
        for (int32_t j = 0; j < LOOKED_AT; j++) {
            if (AHEAD) entry[j] = next[j];
            code[j] = w[column_of(entry[j])];
        }
        if (AHEAD) ask(next, i + LOOKED_AT);
#pragma unroll
        for (int32_t j = 0; j < LOOKED_AT; j++) {
            while (column_of(entry[j]) >= end) {
                all += part;
                part = 0;
                end = slice8(pitch, ++slice) * DEPTH8;
            }
            part = __fmaf_rn(value_of<T>(entry[j]), to_f32(int8_weight<T>((float)code[j], scb)), part);
        }
    }
    return all + part;
}

/* ---- results ---- */

/* Which output a thread finishes, of the 8 activation rows from n0 on. */
template <int HOW, int MT> struct mine8 {
    static constexpr bool PAIRS = HOW == rv_few::RV_FEW_SWIGLU;
    static constexpr int32_t OUTPUTS = PAIRS ? MT * TILE / 2 : MT * TILE;
    int32_t n, in_tile;
    __device__ __forceinline__ mine8() {
        const int32_t i = (int32_t)threadIdx.x, r = i % OUTPUTS;
        n = i / OUTPUTS;
        in_tile = PAIRS ? r / RV_CUDA_GATE_BLOCK * 2 * RV_CUDA_GATE_BLOCK + r % RV_CUDA_GATE_BLOCK : r;
    }
    /* The scales of its weights (SWIGLU: gate and up), asked for long before they are used. */
    __device__ __forceinline__ void scales(const args8 &g, int32_t tile, float (&scb)[2]) const {
        const int32_t row = tile * MT * TILE + in_tile;
        scb[0] = n < 8 && row < g.a.rows ? __ldg(g.w_scale + row) : 0.f;
        if (PAIRS) scb[1] = n < 8 && row < g.a.rows ? __ldg(g.w_scale + row + RV_CUDA_GATE_BLOCK) : 0.f;
    }
};

/* A result before it is stored; more: what outliers add. */
template <typename T> static __device__ __forceinline__ float finish_sum(const args8 &g, int32_t row, int8_row x, int32_t sum, float scb, float more) {
    int32_t clamped = 0;
    float y = int8_value<T>(sum, x.scale, scb, g.bias ? g.bias[row] : 0.f, clamped);
    count_clamped(clamped);
    return x.outliers ? to_f32(to_act<T>(y + more)) : y;
}

/* What outliers added in a tile, warp after warp: of `n` rows of activations and `wide` of weights; or nothing, and it is found in memory. */
struct outlier_sums {
    static constexpr bool AHEAD = false;
    const float *of;
    int32_t n, wide;
    __device__ __forceinline__ bool there() const { return of != NULL; }
    /* row: of the tile; r: of eight activation rows; then of all, and the weight's scale. */
    __device__ __forceinline__ float sum(int32_t row, int32_t r, int32_t, float) const {
        float all = 0;
#pragma unroll
        for (int32_t k = 0; k < WARPS; k++) all += of[(k * n + r) * wide + row];
        return all;
    }
};
/* The same of outlier_merge: of warps that have some. */
struct merged_sums {
    static constexpr bool AHEAD = true;
    const float *of;
    int32_t apart;                       /* floats from one warp's to the next one's            */
    uint32_t warps;
    __device__ __forceinline__ bool there() const { return of != NULL; }
    __device__ __forceinline__ float sum(int32_t row, int32_t, int32_t n, float) const {
        float all = 0;
#pragma unroll
        for (int32_t k = 0; k < WARPS; k++)
            if (warps >> k & 1) all += of[k * apart + n * 2 * TILE + row];
        return all;
    }
};

/* Adds up the warps' sums of rows n0 .. n0 + 7 and writes what becomes of them.  rows: of the activations.  more: what their outliers
 * add. */
template <typename T, typename O, int HOW, int MT, typename M>
static __device__ __forceinline__ void finish_tile8(const args8 &g, sums_room<MT> &room, const int32_t (&acc)[MT][4], int32_t tile, int32_t n0, const int8_row *rows,
                                                    const float (&scb)[2], const M &more) {
    const mine8<HOW, MT> my;
    const int32_t i = (int32_t)threadIdx.x, lane = i % 32, group = lane / 4, t = lane % 4, row = tile * MT * TILE + my.in_tile, n = n0 + my.n;
    const bool mine = my.n < 8 && n < g.a.n && row < g.a.rows;
#pragma unroll
    for (int32_t m = 0; m < MT; m++)
#pragma unroll
        for (int32_t h = 0; h < 2; h++) {
            int32_t at = m * TILE + h * 8 + group;
            *(int2 *)&room.of[i / 32][at][room.pair(at, t)] = make_int2(acc[m][h * 2], acc[m][h * 2 + 1]);
        }
    float old = 0;
    if (HOW == rv_few::RV_FEW_ADD && mine) old = __ldcg((const float *)g.a.out + n * g.a.out_ld + row);
    int2 x = mine ? *(const int2 *)(rows + n) : make_int2(0, 0);
    __syncthreads();                     /* whoever still reads the other room has not come to its next barrier */
    if (!mine) return;
    auto sum = [&](int32_t at) {
        const int32_t c = room.pair(at, my.n / 2) + my.n % 2;
        int32_t v = 0;
#pragma unroll
        for (int32_t k = 0; k < WARPS; k++) v += __float_as_int(room.of[k][at][c]);
        return v;
    };
    auto added = [&](int32_t p) {
        if (!seldom(x.y != 0)) return 0.f;
        if (more.there()) return more.sum(my.in_tile + p * RV_CUDA_GATE_BLOCK, my.n, n, scb[p]);
        return outlier_sum<T, M::AHEAD>(g.list + (int64_t)n * (g.pitch + RV_CUDA_INT8_CLOSE), x.y, (const int8_t *)g.a.w + (int64_t)(row + p * RV_CUDA_GATE_BLOCK) * g.pitch, scb[p], g.pitch);
    };
    float y[2] = { 0, 0 };
#pragma unroll 1
    for (int32_t p = 0; p < (my.PAIRS ? 2 : 1); p++)
        y[p] = finish_sum<T>(g, row + p * RV_CUDA_GATE_BLOCK, { __int_as_float(x.x), x.y }, sum(my.in_tile + p * RV_CUDA_GATE_BLOCK), scb[p], added(p));
    finish_one<T, O, HOW>(g.a, row, n, y[0], y[1], old);
}
#endif
