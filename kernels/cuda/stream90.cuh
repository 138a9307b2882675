/* stream90.cuh - decoder layers of one or two rows, many in one launch: weights never stop coming, however they are kept.
 *
 * The one idea: a block per multiprocessor stays for the whole run, and one thread of it asks for weights, which depend on nothing: tile
 * after tile, product after product, as far ahead as shared memory has room.  Between products blocks wait for one another, and
 * meanwhile the room fills: whoever multiplies is faster than memory, so that it is empty when they come to wait, and full when they
 * go on.  Not all of the room is asked for at once: what a multiprocessor waits for, keys and rows among it, stands in line behind what it asked for before,
 * and what others wait for behind that: of products to come less is on its way than of the one that is multiplied.
 *
 * What blocks wait for is x, q, k, v, parts of heads, heads themselves and rows of ffn: a value tells whether it has come (absent.cuh).  Made absent again it is where all have
 * read it: that is behind gates, of which a layer has two.  x and rows of ffn have two places, so that one can be made absent while the other is used.
 *
 * Eight warps multiply, and one finishes what they leave of a tile, to the order of sums of few.cu and its kin; it keeps the gates, too, so that nobody who multiplies
 * waits for a fence.  Four attend (decode.cuh): they ask for a layer's keys while its queries are still being computed.  The copies are the tensor memory accelerator's: cp.async, which a warp issues like any load, waits in line where memory is
 * slow and with it whatever that warp wants next.
 *
 * A format F, of which stream90.cu, stream8_90.cu and stream4_90.cu have one each, says how weights are kept:
 *     T, sums                  the act type; what the warps leave of a tile
 *     STEP, BESIDE             bytes of a step, and of what comes with it
 *     ASKED, EARLY             steps on their way at once, where there is room: of the product that is being multiplied, of later ones
 *     DRAWN                    whether blocks draw tiles; else they take turns: where multiplying takes longer than memory
 *     ROWS_FIRST               whether rows of hidden lie where shared memory begins; then attention lends no room
 *     IN_PARTS                 whether those who attend may bring the rows of `down`, first early_steps of them (STEP_COLUMNS each) while gate and up are multiplied
 *     weights                  what of them the kernel is told
 *     steps(cols)              of a tile
 *     narrow_bytes, wide_bytes shared memory for the rows of in, o, gate and up; of down
 *     describe(..)             tells the kernel of the weights
 *     copy(..)                 asks for a step
 *     bring(..)                the rows that a product multiplies, to shared memory, as they come
 *     product                  one warp's part of a tile: begin, load (rows), multiply (weights), leave
 *     finisher                 one warp, a tile: read (what they left), write (results)
 * For its arguments a format may overload `prepare`, `bring_wide`, `help` and `multiply`.
 */
#ifndef RV_KERNELS_CUDA_STREAM90_CUH
#define RV_KERNELS_CUDA_STREAM90_CUH
#include "kernels/cuda/hopper.cuh"
#include "kernels/cuda/stream90_bring.cuh"
#include "kernels/cuda/stream90_tile.cuh"

enum { ATTENDING = DECODE_THREADS, HELPING = 128 /* a warp that finishes, one that asks, two for what else a format needs */, ALL_THREADS = THREADS + ATTENDING + HELPING,
       STREAM_ROWS = RV_CUDA_NORM_ROWS, LEAST_AHEAD = 4, MOST_AHEAD = 12, SUMS = 3 /* rooms for what the warps leave of a tile */,
       IN = 0, O, GATE_UP, DOWN, PRODUCTS };

template <typename F> struct stream_args {
    typedef typename F::T T;
    typename F::weights weights;
    float *x, *fresh;                    /* fresh: where o leaves x for gate, up and down       */
    T *qkv, *ff[2];                      /* ff: of layers by turns                              */
    int64_t x_ld, fresh_ld, qkv_ld, ff_ld[2];
    attend_args<T> attend[2];            /* self, cross                                         */
    const float *cos_sin, *row_on;
    const int32_t *pos;
    void *partial;
    int32_t *gate;                       /* who has come to the gates so far; who has left; tiles drawn; who has made the early rows of ffn */
    float eps, q_eps;
    int32_t n, layers, hidden, q_width, kv_width, ffn;
    int32_t asked, early;                /* steps on their way at once: of the product that is being multiplied, of later ones */
    int32_t stages, lent;                /* lent: the last of them, which are attention's room  */
    int32_t parts_bytes;                 /* of what places of a layer leave, from PARTS_AT of `partial`; as much again for the next layer's */
    int32_t narrow, attention;           /* bytes of shared memory: for rows of hidden or q_width; for attention, and behind it */
    rv_stream_layer layer[RV_STREAM_LAYERS];
};

enum { EARLY_GATE = 3,                   /* of stream_args::gate                               */
       PARTS_AT = 1 << 20,                 /* of `partial`, whose beginning is a format's own     */
       FRESH_BYTES = STREAM_ROWS * RV_CUDA_NORM_MOST * (int)sizeof(float) };       /* the end of `partial`: stream_args::fresh */

/* What rows see; parts: places, in all blocks, of rows that have several splits. */
struct told_rows { int32_t slot[STREAM_ROWS], first[STREAM_ROWS], last[STREAM_ROWS], pos[STREAM_ROWS], parts; };

/* What lies between the thread that asks, those who multiply and the one who finishes, in shared memory.
 * All tiles of the run stand in one line, product after product; blocks draw from it as they come to ask for weights, since memory does not
 * serve all multiprocessors alike. */
struct alignas(16) hand {
    enum { SLOTS = 32 };                 /* more than there are stages, rooms and one more: the last may lag that far behind the first */
    uint64_t full[MOST_AHEAD], empty[MOST_AHEAD], left[SUMS], taken[SUMS];
    int32_t now;                         /* the product that is being multiplied                */
    told_rows rows[2];                   /* of self, of cross layers                            */
    int32_t attends[2], attended;        /* whether the block has places of a self, a cross layer; layers whose attention is over */
    int32_t of[SLOTS];                   /* the k-th tile: its place in the line, marked with the round */
};

/* What attention is told, in shared memory: registers have no room for it. */
template <typename T> struct attention_told {
    attend_args<T> args;
    rope_args<T> rope;
};
template <typename T, int D> struct attention_room {
    decode_room<D> keys;
    attention_told<T> told;
};

/* Floats that a place leaves room for. */
template <typename T> static __host__ __device__ int32_t part_floats(const attend_args<T> &a, int32_t dim) { return (a.group < HEADS ? a.group : (int32_t)HEADS) * (dim + 4); }

/* A block's shared memory behind its stages. */
template <typename F> struct stream_rooms {
    typename F::sums *sums;
    hand *h;
    uint4 *narrow, *wide;
};

#ifdef __CUDA_ARCH_FEAT_SM90_ALL
/* ---- between warps ---- */

/* Who finishes tells: LOOK, DONE: that the block's results are written, of q, k and v to those who attend, of o, gate and up, and `down` to those who multiply (not of gate and up
 * where those who attend bring the next rows); GO, PASS: that a gate is open, to those who multiply and to those who attend.  Those who multiply tell HERE: who finishes that a product's rows have come; FREE: those who attend that they have their room
 * again.  These tell WIDE, REST: those who multiply that the rows of `down` that they bring are there, and the last of them. */
enum { GO = 3, PASS, FREE, HERE, WIDE, REST, DONE, LOOK, GO_THREADS = THREADS + 32, PASS_THREADS = ATTENDING + 32, FREE_THREADS = THREADS + ATTENDING, HERE_THREADS = THREADS + 32,
       WIDE_THREADS = FREE_THREADS, REST_THREADS = FREE_THREADS, DONE_THREADS = THREADS + 32, LOOK_THREADS = ATTENDING + 32 };
template <int ID, int N> static __device__ __forceinline__ void arrive() { asm volatile("bar.arrive %0, %1;" ::"n"(ID), "n"(N) : "memory"); }
template <int ID, int N> static __device__ __forceinline__ void await() { asm volatile(RV_BAR ".sync %0, %1;" ::"n"(ID), "n"(N) : "memory"); }

/* A gate, where all blocks meet; they are there at once, since the launch is a cooperative one.  A warp of each arrives, one waits.  What that warp, or
 * any that met it before, wrote is seen behind the gate in all blocks. */
static __device__ __forceinline__ void arrive_at_gate(int32_t *gate) {
    __syncwarp();
    if (threadIdx.x % 32 == 0) asm volatile("red.release.gpu.global.add.s32 [%0], 1;" ::"l"(gate) : "memory");
}
struct gate_keeper {
    int32_t *gate, target;
    __device__ __forceinline__ void wait() {
        target += (int32_t)gridDim.x;
        if (threadIdx.x % 32 == 0) {
            int32_t come;
            do asm volatile("ld.acquire.gpu.global.s32 %0, [%1];" : "=r"(come) : "l"(gate) : "memory");
            while (come < target);
        }
        __syncwarp();
    }
};

/* Numbers 0 .. size - 1 in turn, and the parity of the round. */
struct round_robin {
    int32_t at = 0;
    uint32_t parity = 0;
    __device__ __forceinline__ void next(int32_t size) {
        if (++at == size) at = 0, parity ^= 1;
    }
};

/* Stages in turn, as many as may be used at the time, and the parity of each one's round. */
struct stage_walk {
    int32_t at = 0;
    uint32_t parities = 0;
    __device__ __forceinline__ void within(int32_t size) {
        if (at >= size) at = 0;
    }
    __device__ __forceinline__ uint32_t parity() const { return parities >> at & 1; }
    __device__ __forceinline__ void next(int32_t size) {
        parities ^= 1u << at;
        if (++at >= size) at = 0;
    }
};

/* The next tile's number of those that are drawn: not waited for until it is used. */
static __device__ __forceinline__ int32_t draw(int32_t *turn) {
    int32_t v;
    asm volatile("atom.relaxed.gpu.global.add.s32 %0, [%1], 1;" : "=r"(v) : "l"(turn) : "memory");
    return v;
}

/* ---- products ---- */

struct work { int32_t tiles, cols; };

/* Number i of the run. */
template <typename F> static __device__ __forceinline__ work work_of(const stream_args<F> &a, int32_t i) {
    const rv_stream_layer &l = a.layer[i / PRODUCTS];
    switch (i % PRODUCTS) {
    case IN: return { (a.q_width + (l.q_norm ? 0 : 2 * a.kv_width)) / TILE, a.hidden };
    case O: return { a.hidden / TILE, a.q_width };
    case GATE_UP: return { 2 * a.ffn / TILE, a.hidden };
    default: return { a.hidden / TILE, a.ffn };
    }
}

/* Stages that product number i may use: attention's room is lent to what is multiplied behind it, and where the block attends to nothing. */
template <typename F> static __device__ __forceinline__ int32_t stages_of(const stream_args<F> &a, const hand &h, int32_t i) {
    return i % PRODUCTS >= GATE_UP || !h.attends[a.layer[i / PRODUCTS].q_norm != NULL] ? a.stages : a.stages - a.lent;
}

static __device__ __forceinline__ int32_t mark(int32_t k) { return (k / hand::SLOTS + 1 & 127) << 24; }
static __device__ __forceinline__ void begin(hand &h, int32_t stages) {
    h.now = h.attended = 0;
    for (int32_t k = 0; k < hand::SLOTS; k++) h.of[k] = 0;
    for (int32_t s = 0; s < stages; s++) {
        barrier_open(&h.full[s], 1);
        barrier_open(&h.empty[s], WARPS * WARP_ARRIVALS);
    }
    for (int32_t s = 0; s < SUMS; s++) {
        barrier_open(&h.left[s], WARPS * WARP_ARRIVALS);
        barrier_open(&h.taken[s], WARP_ARRIVALS);
    }
    barriers_opened();
}
static __device__ __forceinline__ void say(hand &h, int32_t k, int32_t place) { post(h.of[k % hand::SLOTS], mark(k) | place); }
/* The place of a block's k-th tile, once it is known. */
static __device__ __forceinline__ int32_t known(const hand &h, int32_t k) {
    int32_t v;
    do v = posted(h.of[k % hand::SLOTS]);
    while ((v & 127 << 24) != mark(k));
    return v & ((1 << 24) - 1);
}
template <typename F> static __device__ __forceinline__ int32_t first_place(hand &h) { return F::DRAWN ? known(h, 0) : (int32_t)blockIdx.x; }
/* k: counts tiles. */
template <typename F> static __device__ __forceinline__ int32_t next_place(hand &h, int32_t &k, int32_t place) {
    return F::DRAWN ? known(h, ++k) : place + (int32_t)gridDim.x;
}

/* How many steps of product number i come before its first one in attention's room; -1: it goes on where the one before ended.  By then attention is over. */
template <typename F> static __device__ __forceinline__ int32_t leading(const stream_args<F> &a, int32_t i, int32_t stages) {
    return i % PRODUCTS == O && stages < a.stages ? stages : -1;
}

/* One warp, of which all lanes know the same and one asks: the weights of all tiles that this block draws.  Memory has a step ready every 800 clocks; each
 * branch of this loop takes 40 of them, and a tile is drawn without waiting for it. */
template <typename F> static __device__ __forceinline__ void ask(const stream_args<F> &a, hand &h, char *ring, char *beside) {
    enum { LATE = 2 };                   /* steps before a tile's end: when the next one is drawn */
    const uint64_t policy = read_once();
    const uint32_t full = shared_address(h.full), empty = shared_address(h.empty);
    const bool leads = (int32_t)threadIdx.x % 32 == 0;
    int32_t i = 0, first = 0, place = (int32_t)blockIdx.x, flying = 0, behind = 0, attended = 0;       /* steps on their way; so many layers' attention */
    uint64_t asked = 0;                  /* their stages and parity: a byte each                */
    stage_walk stage;
    work p = work_of(a, 0);
    int32_t stages = stages_of(a, h, 0), lead = -1;
    if (F::DRAWN && leads) say(h, 0, place);
#pragma unroll 1
    for (int32_t k = 0;; k++) {
        while (place - first >= p.tiles) {
            first += p.tiles;
            if (++i == a.layers * PRODUCTS) return;
            p = work_of(a, i);
            stages = stages_of(a, h, i);
            lead = leading(a, i, stages);
            if (lead >= 0) behind = i / PRODUCTS + 1;
        }
        const int32_t steps = F::steps(p.cols), late = steps > LATE ? steps - LATE : 0;
        int32_t drawn = 0;
        stage.within(stages);
#pragma unroll 1
        for (int32_t step = 0; step < steps; step++) {
            if (F::DRAWN && leads && step == late) drawn = draw(a.gate + 2);
#pragma unroll 1
            for (const int32_t most = i > posted(h.now) ? a.early : a.asked; flying >= most; flying--) {
                const uint32_t oldest = (uint32_t)(asked >> (flying - 1) * 8) & 255;
                wait_at(full + oldest / 2 * 8, oldest % 2);
            }
            if (attended < behind) {
                if (lead-- == 0) stage.at = stages, stages = a.stages;
                if (stage.at >= a.stages - a.lent)
                    do attended = posted(h.attended);
                    while (attended < behind);
            }
            asked = asked << 8 | (uint32_t)stage.at * 2 | stage.parity();
            flying++;
            wait_at(empty + (uint32_t)stage.at * 8, stage.parity() ^ 1);
            if (elected()) F::copy(a.weights, i / PRODUCTS, i % PRODUCTS, place - first, step, ring + stage.at * F::STEP, beside + stage.at * F::BESIDE, &h.full[stage.at], policy);
            stage.next(stages);
        }
        place = (F::DRAWN ? __shfl_sync(~0u, drawn, 0) : place) + (int32_t)gridDim.x;
        if (F::DRAWN && leads) say(h, k + 1, place);
    }
}

/* All warps' pieces of a step: 128 bytes of each of 8 slices, 16 rows of them, slice after slice, swizzled by 128 bytes. */
static __device__ __forceinline__ void copy_slices(void *to, const CUtensorMap *map, int32_t column, int32_t row, uint64_t *bar, uint64_t policy) {
    asm volatile("cp.async.bulk.tensor.3d.shared::cluster.global.mbarrier::complete_tx::bytes.L2::cache_hint [%0], [%1, {%2, %3, %4}], [%5], %6;"
                 ::"r"(shared_address(to)), "l"(map), "r"(column), "r"(row), "r"(0), "r"(shared_address(bar)), "l"(policy) : "memory");
}

/* Of product number i: its rows, as norm_rows (where there is a norm) and share_rows take them. */
template <typename F> static __device__ __forceinline__ args rows_of(const stream_args<F> &a, int32_t i) {
    const rv_stream_layer &l = a.layer[i / PRODUCTS];
    const int32_t kind = i % PRODUCTS;
    args e = {};
    e.n = a.n;
    if (kind == IN || kind == GATE_UP) {
        e.x = anew(kind == IN ? a.x : a.fresh);
        e.x_ld = kind == IN ? a.x_ld : a.fresh_ld;
        e.cols = a.hidden;
        e.norm = kind == IN ? l.norm1 : l.norm2;
        e.eps = a.eps;
        return e;
    }
    const int32_t turn = i / PRODUCTS % 2;
    e.x = anew(kind == O ? a.attend[0].out : turn ? a.ff[1] : a.ff[0]);
    e.x_ld = kind == O ? a.attend[0].out_ld : turn ? a.ff_ld[1] : a.ff_ld[0];
    e.cols = kind == O ? a.q_width : a.ffn;
    return e;
}

/* What a lane of the warp that finishes makes of a tile: a value each, of gate and of up in lanes of their own, of which the former write. */
struct output {
    int32_t i, row;                      /* the product; row of the weight                      */
    __device__ __forceinline__ output(int32_t number, int32_t tile) : i(number), row(tile * TILE + in_tile()) {}
    __device__ __forceinline__ bool is(int32_t kind) const { return i % PRODUCTS == kind; }
    static __device__ __forceinline__ int32_t in_tile() { return (int32_t)threadIdx.x % TILE; }
    /* The row of activations, and whether there is one. */
    static __device__ __forceinline__ int32_t n() { return (int32_t)threadIdx.x % 32 / TILE; }
    template <typename F> static __device__ __forceinline__ bool there(const stream_args<F> &a) { return n() < a.n; }
    template <typename F> __device__ __forceinline__ bool mine(const stream_args<F> &a) const { return there(a) && (!is(GATE_UP) || in_tile() < RV_CUDA_GATE_BLOCK); }
    /* Of those who write: the value of up. */
    __device__ __forceinline__ float up_of(float v) const { return is(GATE_UP) ? __shfl_down_sync(~0u, v, RV_CUDA_GATE_BLOCK) : 0.f; }
    /* What v is added to, asked for early. */
    template <typename F> __device__ __forceinline__ float old(const stream_args<F> &a) const {
        if (!there(a) || (!is(O) && !is(DOWN))) return 0.f;
        return __ldcg(is(O) ? a.x + n() * a.x_ld + row : a.fresh + n() * a.fresh_ld + row);
    }
    template <typename F> __device__ __forceinline__ void write(const stream_args<F> &a, float v, float before) const {
        typedef typename F::T T;
        const rv_stream_layer &l = a.layer[i / PRODUCTS];
        const float up = up_of(v);
        args e = {};
        if (!mine(a)) return;
        if (is(GATE_UP)) {
            T *const to = i / PRODUCTS % 2 ? a.ff[1] + n() * a.ff_ld[1] : a.ff[0] + n() * a.ff_ld[0];
            to[gated_column(row)] = gated<T, T>(v, up);
        } else if (is(IN)) {
            e.out = a.qkv;
            e.out_ld = a.qkv_ld;
            finish_one<T, T, rv_few::RV_FEW_STORE>(e, row, n(), v, 0, 0);
        } else {
            e.out = is(O) ? a.fresh : a.x;
            e.out_ld = is(O) ? a.fresh_ld : a.x_ld;
            e.scale = is(O) ? l.attn_gate : l.mlp_gate;
            e.row_scale = is(DOWN) && l.q_norm ? a.row_on : NULL;
            if (e.row_scale && e.row_scale[n()] == 0.f) a.x[n() * a.x_ld + row] = before;      /* who waits for it waits for all */
            finish_one<T, float, rv_few::RV_FEW_ADD>(e, row, n(), v, 0, before);
        }
    }
};

/* Tiles of gate and up that make the columns of the first early_steps of `down`, whose rows are brought while the last tiles are still multiplied. */
template <typename F> static __device__ __forceinline__ int32_t early_tiles(const stream_args<F> &a) {
    if constexpr (F::IN_PARTS) return F::early_steps(a) * F::STEP_COLUMNS / RV_CUDA_GATE_BLOCK;
    return 0;
}

/* A block's share of what is written anew behind the next gate and has been read by all: beside q, k and v x behind o and heads, beside gate and up x behind `down`, q, k and v and the
 * next layer's rows of ffn; the launch's first rows of ffn, of which nobody knows what they were, beside its first q, k and v.
 * By one warp of those who multiply, before who finishes comes to that gate. */
template <typename F> static __device__ __forceinline__ void make_absent(const stream_args<F> &a, int32_t i) {
    if (multiplier() != WARPS - 1) return;
    const int32_t first = (int32_t)(threadIdx.x % 32 * gridDim.x + blockIdx.x), step = (int32_t)gridDim.x * 32;
    const uint4 ones = make_uint4(ABSENT, ABSENT, ABSENT, ABSENT);
    auto clear = [&](void *rows, int64_t bytes_apart, int32_t bytes) {
#pragma unroll 1
        for (int32_t n = 0; n < a.n; n++)
#pragma unroll 1
            for (int32_t at = first; at < bytes / 16; at += step) __stcg((uint4 *)((char *)rows + n * bytes_apart) + at, ones);
    };
    if (i % PRODUCTS == IN) {
        clear(a.fresh, a.fresh_ld * 4, a.hidden * 4);
        clear(a.attend[0].out, a.attend[0].out_ld * 2, a.q_width * 2);
        if (!i) clear(a.ff[0], a.ff_ld[0] * 2, a.ffn * 2);
    } else if (i % PRODUCTS == GATE_UP) {
        clear(a.x, a.x_ld * 4, a.hidden * 4);
        clear(a.qkv, a.qkv_ld * 2, (a.q_width + 2 * a.kv_width) * 2);
        if (i / PRODUCTS % 2) clear(a.ff[0], a.ff_ld[0] * 2, a.ffn * 2);
        else clear(a.ff[1], a.ff_ld[1] * 2, a.ffn * 2);
    }
}

/* Where sums are floats. */
template <typename F> struct float_finisher {
    const stream_args<F> &a;
    const output at;
    const float old;
    float sum;
    __device__ __forceinline__ float_finisher(const stream_args<F> &args, const stream_rooms<F> &, int32_t i, int32_t tile)
        : a(args), at(i, tile), old(at.old(args)) {}
    __device__ __forceinline__ void read(const typename F::sums &sums) {
        sum = at.there(a) ? sums.sum(at.in_tile(), at.n()) : 0.f;
    }
    __device__ __forceinline__ void write() { at.write(a, sum, old); }
};

/* What else a format wants before anybody begins, of those who attend behind attention, and of the two warps that are left. */
template <typename F> static __device__ __forceinline__ void prepare(const stream_args<F> &, const stream_rooms<F> &) {}
template <typename F> static __device__ __forceinline__ void bring_wide(const stream_args<F> &, const stream_rooms<F> &, int32_t, gate_keeper &) {}
template <typename F> static __device__ __forceinline__ void help(const stream_args<F> &, char *, const stream_rooms<F> &) {}

/* Eight warps. */
template <typename F> static __device__ __forceinline__ void multiply(const stream_args<F> &a, const char *ring, const char *beside, const stream_rooms<F> &rooms) {
    hand &h = *rooms.h;
    int32_t first = 0, k = 0, place = first_place<F>(h);
    stage_walk stage;
    round_robin room;
#pragma unroll 1
    for (int32_t i = 0; i < a.layers * PRODUCTS; i++) {
        const work p = work_of(a, i);
        const int32_t steps = F::steps(p.cols);
        int32_t stages = stages_of(a, h, i), lead = leading(a, i, stages);
        const int32_t kind = i % PRODUCTS;
        const bool free = kind == DOWN && i + 1 < a.layers * PRODUCTS;       /* attention may have its room again */
        int32_t none = 0;                /* addresses are not worth registers from product to product */
        asm volatile("" : "+r"(none));
        const stream_rooms<F> here = { rooms.sums, rooms.h, rooms.narrow + none, rooms.wide + none };
        F::bring(a, i, here, [&] {
            if (kind == O) await<GO, GO_THREADS>();
            else if (i) await<DONE, DONE_THREADS>();
        });
        make_absent(a, i);
        arrive<HERE, HERE_THREADS>();
        if (threadIdx.x == 0) post(h.now, i);
        typename F::product m(a, i, p.cols, rooms);
#pragma unroll 1
        for (; place - first < p.tiles; place = next_place<F>(h, k, place)) {
            m.begin();
            stage.within(stages);
#pragma unroll 1
            for (int32_t step = 0; step < steps; step++) {
                m.load(step);
                if (lead-- == 0) stage.at = stages, stages = a.stages;
                barrier_wait(&h.full[stage.at], stage.parity());
                m.multiply(ring + stage.at * F::STEP, beside + stage.at * F::BESIDE, step, [&] { warp_arrive(&h.empty[stage.at]); });
                stage.next(stages);
            }
            barrier_wait(&h.taken[room.at], room.parity ^ 1);
            m.leave(rooms.sums[room.at]);
            warp_arrive(&h.left[room.at]);
            room.next(SUMS);
        }
        first += p.tiles;
        if (free) arrive<FREE, FREE_THREADS>();
    }
}

/* One warp: makes results of what they leave, and keeps the gates behind q, k and v, behind gate and up.  The last block to leave, for which nobody waits any more,
 * leaves all counters zero. */
template <typename F> static __device__ __forceinline__ void finish(const stream_args<F> &a, const stream_rooms<F> &rooms) {
    hand &h = *rooms.h;
    int32_t first = 0, k = 0, place = first_place<F>(h);
    round_robin room;
    gate_keeper gate = { a.gate, 0 };
#pragma unroll 1
    for (int32_t i = 0; i < a.layers * PRODUCTS; i++) {
        const work p = work_of(a, i);
        const int32_t kind = i % PRODUCTS;
        await<HERE, HERE_THREADS>();
        int32_t early = kind == GATE_UP ? early_tiles(a) : 0;
#pragma unroll 1
        for (; place - first < p.tiles; place = next_place<F>(h, k, place)) {
            if (early && place - first >= early) {
                arrive_at_gate(a.gate + EARLY_GATE);
                early = 0;
            }
            typename F::finisher f(a, rooms, i, place - first);
            barrier_wait(&h.left[room.at], room.parity);
            f.read(rooms.sums[room.at]);
            warp_arrive(&h.taken[room.at]);
            f.write();
            room.next(SUMS);
        }
        if (early) arrive_at_gate(a.gate + EARLY_GATE);
        first += p.tiles;
        if (kind == IN) arrive<LOOK, LOOK_THREADS>();
        else if (i + 1 < a.layers * PRODUCTS && !(kind == GATE_UP && early_tiles(a))) arrive<DONE, DONE_THREADS>();
        if (kind == IN || kind == GATE_UP) {
            arrive_at_gate(a.gate);
            gate.wait();                 /* where o, or `down`, will leave x is absent in all blocks */
            if (kind == IN) arrive<GO, GO_THREADS>();
            if (kind == IN || early_tiles(a)) await<PASS, PASS_THREADS>();
        }
    }
    __syncwarp();
    if (threadIdx.x % 32 == 0 && atomicAdd(a.gate + 1, 1) == (int32_t)gridDim.x - 1) {
        a.gate[0] = a.gate[1] = a.gate[2] = a.gate[EARLY_GATE] = 0;
    }
}
#endif
#endif
