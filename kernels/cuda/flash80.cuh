/* flash80.cuh - what a block of flash.cu keeps in shared memory, and how keys and values come there.
 *
 * The one idea: tiles of keys pass through a ring of stages.  Where a tile's rows follow one another, as they do but at the ends of a run
 * and of pages, a thread needs one multiplication an address, and its copies are spread over the products of three steps; else
 * it looks up every row (copy_any).
 */
#ifndef RV_KERNELS_CUDA_FLASH80_CUH
#define RV_KERNELS_CUDA_FLASH80_CUH
#include "kernels/cuda/flash.cuh"

enum { WARPS = 4, THREADS = 32 * WARPS,
       STEP = 16 };                        /* keys that are scored, weighed and added at a time  */

/* threadIdx.x, as the compiler has not seen it before: it keeps no address that it has made of it. */
static __device__ __forceinline__ int32_t thread_again() {
    int32_t t;
    asm volatile("mov.u32 %0, %%tid.x;" : "=r"(t));
    return t;
}

/* What the compiler cannot make anew stays in its register. */
template <typename I> static __device__ __forceinline__ void settle(I &x) { asm volatile("" : "+r"(x)); }

/* Rows are padded by 16 bytes: an odd number of 16-byte columns, so 8 rows never meet in a bank.  Queries lie where the last stage
 * will: they are in registers by then.  Heads of 128 have tiles of half as many keys, for GPUs with 99 KB. */
template <typename T, int D, int MT> struct flash_room {
    enum { ROWS = 16 * MT * WARPS, LD = D + 8, KEYS = D > 80 ? 32 : 64, STAGES = D > 80 ? 4 : 3, STEPS = KEYS / STEP };
    struct { T k[KEYS][LD], v[KEYS][LD]; } stage[STAGES];
    float4 bias[STAGES][KEYS / 2];         /* over the scale; of two keys, twice: what sums of scores begin with */
    int32_t key_rows[2][KEYS];             /* of a tile, where there are pages                   */
    int32_t first[ROWS], last[ROWS], slot[ROWS];
    flash_run run;
    bool merge;
    static_assert((int)ROWS <= 2 * (int)KEYS, "queries fit a stage");
    __device__ __forceinline__ T *q(int32_t row) { return &stage[STAGES - 1].k[0][0] + row * LD; }
};

/* A thread's part in copying a tile of rows in order: 16 bytes of every APARTth of its keys, then of its values. */
template <typename T, int D, int MT> struct flash_copier {
    typedef flash_room<T, D, MT> room;
    enum { COLS = D / 8, APART = THREADS / COLS, COPIES = (room::KEYS - 1) / APART + 1,
           IN_LAST = room::KEYS - (COPIES - 1) * APART,        /* threads a column in the last copy */
           A_STEP = (2 * COPIES - 1) / (room::STEPS > 2 ? room::STEPS - 1 : 2) + 1 };      /* none in the step before all meet */
    const char *k, *v;                     /* of row 0                                           */
    int32_t key, k_row, v_row;             /* bytes from row to row                              */
    uint32_t place;                        /* in a stage                                         */
    uint32_t to = 0;                       /* of the tile at hand                                */
    int32_t row = 0;
    bool on = false;

    __device__ __forceinline__ flash_copier(const attend_args<T> &a, int32_t kv_column) {
        int32_t c = (int32_t)threadIdx.x % COLS * 8;
        key = (int32_t)threadIdx.x / COLS;
        k = reinterpret_cast<const char *>(a.k + kv_column + c);
        v = reinterpret_cast<const char *>(a.v + kv_column + c);
        k_row = (int32_t)a.k_ld * 2;
        v_row = (int32_t)a.v_ld * 2;
        place = (uint32_t)(key * room::LD + c) * 2;
        settle(key);
        settle(k_row);
        settle(v_row);
        settle(place);
    }
    /* The tile whose first key has row row0, if its rows are in order. */
    __device__ __forceinline__ void begin(bool in_order, uint32_t stage, int32_t row0) {
        on = in_order && key < APART;
        to = stage + place;
        row = row0 + key;
    }
    /* Copy i of 2 COPIES. */
    __device__ __forceinline__ void copy(int32_t i) const {
        bool values = i >= COPIES;
        int32_t j = i % COPIES, mine = j < COPIES - 1 ? on : on && key < IN_LAST;
        uint32_t there = to + (uint32_t)((values * room::KEYS + j * APART) * room::LD * 2);
        const char *from;
        asm("mad.wide.s32 %0, %1, %2, %3;" : "=l"(from) : "r"(row + j * APART), "r"(values ? v_row : k_row), "l"(values ? v : k));
        asm volatile("{.reg .pred p; setp.ne.b32 p, %2, 0; @p cp.async.cg.shared.global [%0], [%1], 16;}" ::"r"(there), "l"(from), "r"(mine) : "memory");
    }
};

/* The row of key `key`, whose tile's are in room.key_rows[at] where there are pages. */
template <typename T, int D, int MT>
static __device__ __forceinline__ int32_t row_at(const attend_args<T> &a, const flash_room<T, D, MT> &room, int32_t at, int32_t key) {
    return a.pages ? room.key_rows[at][(uint32_t)key % flash_room<T, D, MT>::KEYS] : key_row_of(a, room.run, key);
}

/* Before all meet, who then read them. */
template <typename T, int D, int MT>
static __device__ __forceinline__ void look_up_rows(const attend_args<T> &a, flash_room<T, D, MT> &room, int32_t at, int32_t key) {
    int32_t t = (int32_t)threadIdx.x;
    if (a.pages && t < room.KEYS) room.key_rows[at][t] = key_row_of(a, room.run, key + t);
}

/* Pages: whether a tile's rows are in order, and the first.  Of two pages at most they are when their ends are. */
template <typename T, int D, int MT>
static __device__ __forceinline__ bool are_in_order(const attend_args<T> &a, const flash_room<T, D, MT> &room, int32_t at, int32_t &row0) {
    row0 = room.key_rows[at][0];
    return row0 >= 0 && a.page_rows >= room.KEYS && room.key_rows[at][room.KEYS - 1] - row0 == room.KEYS - 1;
}

/* The tile from `key` on, to a stage, whatever its rows are. */
template <typename T, int D, int MT>
static __device__ __forceinline__ void copy_any(const attend_args<T> &a, flash_room<T, D, MT> &room, int32_t kv_column, int32_t at, int32_t key,
                                                int32_t stage) {
#pragma unroll 1
    for (int32_t i = thread_again(); i < room.KEYS * (D / 8); i += THREADS) {
        int32_t n = i / (D / 8), c = i % (D / 8) * 8, row = row_at(a, room, at, key + n);
        int64_t from = row < 0 ? 0 : row;
        copy16(shared_address(&room.stage[stage].k[n][c]), a.k + kv_column + from * a.k_ld + c, row >= 0);
        copy16(shared_address(&room.stage[stage].v[n][c]), a.v + kv_column + from * a.v_ld + c, row >= 0);
    }
}

/* A thread's bias in the tile from `key` on. */
template <typename T, int D, int MT>
static __device__ __forceinline__ float bias_of(const attend_args<T> &a, const flash_room<T, D, MT> &room, int32_t at, int32_t key) {
    if (!a.bias || threadIdx.x >= room.KEYS) return 0;
    int32_t row = row_at(a, room, at, key + (int32_t)threadIdx.x);
    return row < 0 ? 0.f : a.bias[row];
}

/* Until all but the last N copies of all threads are there, and all have done what they did before.  bias: the thread's, of the tile in `stage`. */
template <int N, typename T, int D, int MT>
static __device__ __forceinline__ void meet(const attend_args<T> &a, flash_room<T, D, MT> &room, int32_t stage, float bias) {
    copies_wait<N>();
    if (a.bias && threadIdx.x < room.KEYS) {
        float *to = &room.bias[stage][threadIdx.x / 2].x + threadIdx.x % 2;
        to[0] = to[2] = bias * (1.f / a.scale);
    }
    __syncthreads();
}

template <typename T, int D, int MT> static __device__ __forceinline__ void clear_bias(flash_room<T, D, MT> &room) {
    for (int32_t i = (int32_t)threadIdx.x; i < room.STAGES * room.KEYS / 2; i += THREADS) (&room.bias[0][0])[i] = make_float4(0, 0, 0, 0);
}
#endif
