/* few4.cuh - how weights of 4 bits become operands of tensor cores.
 *
 * The one idea: a byte of codes is the number of a table's entry, the two map values it stands for; the table lies in
 * shared memory once for every two lanes, so that no two lanes of a half warp ever meet in a bank.  One byte permutation makes the
 * address (that is why entries are 256 bytes apart), one 8-byte load brings two weights, two multiplications by the
 * absmax and one conversion round them once: 2.5 instructions a weight, exactly rn(map * absmax).
 * What lies between two entries, 128 bytes, is free for others: rows of activations, a block's 64 columns each.
 */
#ifndef RV_KERNELS_CUDA_FEW4_CUH
#define RV_KERNELS_CUDA_FEW4_CUH
#include "kernels/cuda/act.cuh"
#include "kernels/cuda/four.h"

enum { PAIR_STRIDE = 256, PAIR_COPIES = 16, PAIR_TABLE = 256 * PAIR_STRIDE, GAP = PAIR_STRIDE / 2, GAPS = 256 };

/* Maps in shared memory, floats: nested ones part by part, their offsets, that of the codes. */
enum { MAP_OFFSETS = RV_WEIGHT_PARTS * 256, MAP_CODES = MAP_OFFSETS + 4, MAPS_BYTES = (MAP_CODES + 16) * (int)sizeof(float) };

/* ---- places ---- */

struct part_row { int32_t part, row; };

/* Whose row a row of the weight is, and back. */
static __device__ __forceinline__ part_row part_row_of(const rv_four &q, int32_t row) {
    const int32_t block = row / RV_CUDA_GATE_BLOCK;
    if (q.mixed) return { block % 2, block / 2 * RV_CUDA_GATE_BLOCK + row % RV_CUDA_GATE_BLOCK };
    part_row at = { 0, row };
    int32_t end = 0;
#pragma unroll
    for (int32_t i = 1; i < RV_WEIGHT_PARTS; i++) {
        end += q.part_rows[i - 1];
        if (i < q.n_parts && row >= end) at = { i, row - end };
    }
    return at;
}
static __device__ __forceinline__ int32_t row_of_part(const rv_four &q, int32_t part, int32_t row) {
    if (q.mixed) return (row / RV_CUDA_GATE_BLOCK * 2 + part) * RV_CUDA_GATE_BLOCK + row % RV_CUDA_GATE_BLOCK;
#pragma unroll
    for (int32_t i = 0; i + 1 < RV_WEIGHT_PARTS; i++) row += i < part ? q.part_rows[i] : 0;
    return row;
}

static __device__ __forceinline__ char *record_of(const rv_four &q, int32_t tile, int32_t step) {
    return q.memory + q.records + ((int64_t)tile * q.steps + step) * q.record;
}
/* Numbers of a part are picked, not indexed: an index would put the whole description on the stack. */
static __device__ __forceinline__ float *scales_of(const rv_four &q, int32_t part) {
    int32_t at = q.scales[0];
#pragma unroll
    for (int32_t i = 1; i < RV_WEIGHT_PARTS; i++) at = part == i ? q.scales[i] : at;
    return (float *)(q.memory + at);
}
static __device__ __forceinline__ const rv_four_head &head_of(const rv_four &q) { return *(const rv_four_head *)q.memory; }

/* An absmax as quant.c's rv_codes_absmax makes it. */
static __device__ __forceinline__ float nested_absmax(float code, float scale, float offset) { return __fadd_rn(__fmul_rn(code, scale), offset); }

/* ---- the table ---- */

/* By a block's first 256 threads; a barrier must follow. */
static __device__ __forceinline__ void fill_pairs(char *table, const float *map) {
    const int32_t copy = (int32_t)threadIdx.x % PAIR_COPIES, low = (int32_t)threadIdx.x / PAIR_COPIES;
    const float odd = map[low];
#pragma unroll 4
    for (int32_t high = 0; high < 16; high++) *(float2 *)(table + (high * 16 + low) * PAIR_STRIDE + copy * 8) = make_float2(map[high], odd);
}

static __device__ __forceinline__ void fill_maps(float *maps, const rv_four &q) {
    const int32_t i = (int32_t)threadIdx.x;
    if (i < 16) maps[MAP_CODES + i] = head_of(q).map[i];
    if (!q.nested) return;
    if (i < q.n_parts) maps[MAP_OFFSETS + i] = head_of(q).offset[i];
    for (int32_t part = 0; part < q.n_parts; part++) maps[part * 256 + i] = head_of(q).nested_map[part][i];
}

static __device__ __forceinline__ uint32_t permute(uint32_t a, uint32_t b, uint32_t select) {
    uint32_t v;
    asm("prmt.b32 %0, %1, %2, %3;" : "=r"(v) : "r"(a), "r"(b), "r"(select));
    return v;
}

/* The table begins a block's dynamic shared memory, and that begins here where the toolkit says so: then its place is part of the instruction.
 * A block that uses it has no static shared memory; few4_kernel and whoever else uses it stop where this is not so. */
#if defined __CUDA_ARCH__ && __CUDA_ARCH__ >= 900
enum { TABLE_AT = 1024, IN_CLUSTER = 1 << 24 /* beyond: the number of a block in its cluster */ };
static __device__ __forceinline__ float2 pair_at(const char *, uint32_t offset) {
    float2 v;
    asm("ld.shared.v2.f32 {%0, %1}, [%2 + 1024];" : "=f"(v.x), "=f"(v.y) : "r"(offset));
    return v;
}
/* The same in the order of the program. */
static __device__ __forceinline__ float2 pair_in_turn(uint32_t offset) {
    float2 v;
    asm volatile("ld.shared.v2.f32 {%0, %1}, [%2 + 1024];" : "=f"(v.x), "=f"(v.y) : "r"(offset));
    static_assert((int)TABLE_AT == 1024, "where the table is");
    return v;
}
static __device__ __forceinline__ void check_table(const char *table) {
    if (shared_address(table) % IN_CLUSTER != TABLE_AT) __trap();
}
#else
static __device__ __forceinline__ float2 pair_at(const char *table, uint32_t offset) { return *(const float2 *)(table + offset); }
static __device__ __forceinline__ void check_table(const char *) {}
#endif

/* 8 weights of one block and row, columns in order.  at: this lane's copy, 8 bytes times its number; of a block in a cluster that one's number, too, as in shared_address. */
template <typename T> static __device__ __forceinline__ void decode8(uint32_t (&to)[4], const char *table, uint32_t at, uint32_t codes, float absmax) {
#pragma unroll
    for (uint32_t i = 0; i < 4; i++) {
        const float2 pair = pair_at(table, permute(codes, at, 0x7504u | i << 4));
        to[i] = pack2(__fmul_rn(pair.x, absmax), __fmul_rn(pair.y, absmax), T());
    }
}

#if defined __CUDA_ARCH__ && __CUDA_ARCH__ >= 900
/* Map values of pieces number u of a record's two rows: asked for while those before them are rounded and multiplied.  R: what a lane has of the record. */
struct piece_values {
    float2 above[4], below[4];
    template <typename R> __device__ __forceinline__ void ask(const R &record, uint32_t copy, int32_t u) {
#pragma unroll
        for (uint32_t i = 0; i < 4; i++) {
            above[i] = pair_in_turn(permute(record.word(0, u), copy, 0x7504u | i << 4));
            below[i] = pair_in_turn(permute(record.word(1, u), copy, 0x7504u | i << 4));
        }
    }
};
#endif

/* ---- the same from registers: a block's 16 products, byte by byte ---- */

/* The products of the map with one absmax: their low bytes and their high bytes. */
struct products16 {
    uint32_t low[4], high[4];
    /* map: 16 values, in shared memory. */
    template <typename T> __device__ __forceinline__ void make(const float4 *map, float absmax, T) {
#pragma unroll
        for (int32_t i = 0; i < 4; i++) {
            const float4 m = map[i];
            const uint32_t a = pack2(__fmul_rn(m.x, absmax), __fmul_rn(m.y, absmax), T());
            const uint32_t b = pack2(__fmul_rn(m.z, absmax), __fmul_rn(m.w, absmax), T());
            low[i] = permute(a, b, 0x6420);
            high[i] = permute(a, b, 0x7531);
        }
    }
    __device__ __forceinline__ void decode8(uint32_t (&to)[4], uint32_t codes) const {
        const uint32_t three = codes & 0x77777777u, top = ((codes >> 1) & 0x44444444u) | 0x32103210u;
#pragma unroll
        for (int32_t h = 0; h < 2; h++) {
            const uint32_t s = three >> 16 * h, m = top >> 16 * h;
            const uint32_t l = permute(permute(low[0], low[1], s), permute(low[2], low[3], s), m);
            const uint32_t u = permute(permute(high[0], high[1], s), permute(high[2], high[3], s), m);
            to[2 * h] = permute(l, u, 0x4051);
            to[2 * h + 1] = permute(l, u, 0x6273);
        }
    }
};

/* Where 16-byte columns of a block lie, so that lanes that read at once do not meet in a bank. */
static __device__ __forceinline__ int32_t gap_column(int32_t block) { return ((block & 3) | (block >> 4 & 4)) * 16; }

/* A block of 64 columns, from `table` on: as many as there are gaps lie in those, what is left at `more`. */
static __device__ __forceinline__ int32_t gap_of(int32_t block, int32_t more) { return block < GAPS ? GAP + block * PAIR_STRIDE : more + (block - GAPS) * GAP; }

/* Rows of activations there: a pointer to E, as norm_rows and share_rows see it. */
template <typename E> struct gap_rows {
    char *table;
    int32_t first, more;
    __device__ __forceinline__ E &operator[](int32_t i) const {
        enum { EACH = GAP / (int)sizeof(E) };
        i += first;
        const int32_t block = i / EACH, at = i % EACH * (int32_t)sizeof(E);
        return *(E *)(table + gap_of(block, more) + (at ^ gap_column(block)));
    }
    __device__ __forceinline__ void operator+=(int32_t n) { first += n; }
};

/* ---- rows of activations, arranged by two (four.h) ---- */

static __device__ __forceinline__ int32_t arranged_column(int32_t c) {
    const int32_t in_record = c % RV_FOUR_COLS, block = in_record / RV_BLOCK4, at = in_record % RV_BLOCK4;
    return c - in_record + at / 4 * 16 + at / 2 % 2 * 8 + block * 2 + at % 2;
}
/* One of them as norm_rows sees it. */
template <typename E> struct arranged_row {
    E *row;
    int32_t first;
    __device__ __forceinline__ E &operator[](int32_t c) const { return row[arranged_column(first + c)]; }
    __device__ __forceinline__ void operator+=(int32_t n) { first += n; }
};

/* ---- a record, on its way and in registers ---- */

/* Weights are read once: they should drive nothing else out of the caches. */
static __device__ __forceinline__ uint4 load_once(const void *from, uint64_t policy) {
    uint4 v;
    asm volatile("ld.global.L1::no_allocate.L2::cache_hint.v4.u32 {%0, %1, %2, %3}, [%4], %5;"
                 : "=r"(v.x), "=r"(v.y), "=r"(v.z), "=r"(v.w) : "l"(from), "l"(policy));
    return v;
}

/* What a lane knows of its two rows in a tile, nested: where their scales and their maps (in shared memory, part by part) lie. */
struct lane_rows {
    const float *scales[2], *map[2];
    float offset[2];
    int32_t block[2];                    /* the number of a row's first block in its part        */

    __device__ __forceinline__ void look_up(const rv_four &q, const float *maps, int32_t tile) {
        if (!q.nested) return;
#pragma unroll
        for (int32_t h = 0; h < 2; h++) {
            const int32_t row = tile * RV_FOUR_ROWS + h * 8 + (int32_t)threadIdx.x % 32 / 4;
            const part_row at = part_row_of(q, row < q.rows ? row : q.rows - 1);
            scales[h] = scales_of(q, at.part);
            map[h] = maps + at.part * 256;
            offset[h] = maps[MAP_OFFSETS + at.part];
            block[h] = at.row * q.blocks;
        }
    }
};

/* The absmaxes of a lane's blocks, and what they are made of while it is on its way. */
struct lane_absmax {
    float scale[2];                      /* not nested: the absmaxes themselves                  */
    uchar2 code;
    bool inside;                         /* the rows have this block: else memory holds anything */

    /* record: in global or in shared memory. */
    __device__ __forceinline__ void load(const rv_four &q, const lane_rows &rows, const char *record, int32_t step) {
        const int32_t lane = (int32_t)threadIdx.x % 32, block = step * RV_FOUR_BLOCKS + lane % 4;
        inside = block < q.blocks;
        if (q.nested) {
            code = *(const uchar2 *)(record + RV_FOUR_CODES + lane * 2);
#pragma unroll
            for (int32_t h = 0; h < 2; h++) scale[h] = __ldg(rows.scales[h] + (uint32_t)(rows.block[h] + (inside ? block : 0)) / RV_NESTED_BLOCK);
        } else {
            const float2 a = *(const float2 *)(record + RV_FOUR_CODES + lane * 8);
            scale[0] = a.x, scale[1] = a.y;
        }
    }
    __device__ __forceinline__ void take(float (&absmax)[2], const rv_four &q, const lane_rows &rows) const {
        absmax[0] = !inside ? 0.f : q.nested ? nested_absmax(rows.map[0][code.x], scale[0], rows.offset[0]) : scale[0];
        absmax[1] = !inside ? 0.f : q.nested ? nested_absmax(rows.map[1][code.y], scale[1], rows.offset[1]) : scale[1];
    }
};

/* What a lane has of a record: its block, 64 columns, of both rows; word u has columns 8 u .. 8 u + 7. */
struct lane_codes {
    uint4 piece[4];
    __device__ __forceinline__ uint32_t word(int32_t h, int32_t u) const { return (&piece[h * 2 + u / 4].x)[u % 4]; }
    /* Words 4 half .. 4 half + 3 of both rows. */
    __device__ __forceinline__ void load(const char *record, int32_t half, uint64_t policy) {
#pragma unroll
        for (int32_t h = 0; h < 2; h++) piece[h * 2 + half] = load_once(record + (h * 2 + half) * 512 + (int32_t)threadIdx.x % 32 * 16, policy);
    }
};
#endif
