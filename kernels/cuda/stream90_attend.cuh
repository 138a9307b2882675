/* stream90_attend.cuh - attention between the products of one launch.
 *
 * The one idea: decode.cuh's places, shared out over all blocks; keys are asked for before queries are looked for, and these as they come.  What places of a row leave
 * tells whether it has come, and each of its blocks joins a share of the row's heads: nobody counts who has come.  Heads and parts may be written behind the gate alone:
 * before, a late block may still make heads absent.  Parts have two places, of a layer and of the next one: those of the layer before are made absent when a layer's
 * attention begins, as all have joined theirs, and no block looks there again before it has met all others at a gate.
 */
#ifndef RV_KERNELS_CUDA_STREAM90_ATTEND_CUH
#define RV_KERNELS_CUDA_STREAM90_ATTEND_CUH
#include "kernels/cuda/stream90.cuh"

#ifdef __CUDA_ARCH_FEAT_SM90_ALL
/* ---- places ---- */

/* Of a row, in all blocks. */
template <typename T> static __device__ __forceinline__ int32_t places_of(const attend_args<T> &a, int32_t row, int32_t *splits) {
    const key_cut cut(a.first ? a.first[row] : 0, a.last[row]);
    *splits = cut.splits;
    return head_blocks(a) * (cut.splits ? cut.splits : 1);
}

/* The u-th place of all rows'; false: there are not so many. */
template <typename T> static __device__ __forceinline__ bool place_of(const attend_args<T> &a, int32_t u, int32_t *row, int32_t *y, int32_t *split) {
    const int32_t blocks = head_blocks(a);
    for (*row = 0; *row < a.rows; ++*row) {
        int32_t splits;
        const int32_t places = places_of(a, *row, &splits);
        if (u < places) {
            *y = u % blocks;
            *split = u / blocks;
            return true;
        }
        u -= places;
    }
    return false;
}

/* What a launch's rows see is the same in all layers of a kind: memory is far away where a block waits for little else. */
template <typename T> static __device__ __forceinline__ void tell_rows(const attend_args<T> &a, const int32_t *pos, told_rows &to) {
    bool cut = false;
    to.parts = 0;
    for (int32_t r = 0; r < a.rows; r++) {
        int32_t splits;
        to.slot[r] = a.slot ? a.slot[r] : 0;
        to.first[r] = a.first ? a.first[r] : 0;
        to.last[r] = a.last[r];
        to.pos[r] = pos ? pos[r] : (int32_t)NO_KEY;
        to.parts += places_of(a, r, &splits);
        cut = cut || splits > 1;
    }
    if (!cut) to.parts = 0;
}

/* One thread. */
template <typename F> static __device__ __forceinline__ void tell(const stream_args<F> &a, const rv_stream_layer &l, const told_rows (&rows)[2], attention_told<typename F::T> &to) {
    typedef typename F::T T;
    const int32_t cross = l.q_norm != NULL;
    to.args = a.attend[cross];
    to.args.k = (const T *)l.k;
    to.args.v = (const T *)l.v;
    to.args.slot = rows[cross].slot;
    to.args.first = rows[cross].first;
    to.args.last = rows[cross].last;
    rope_args<T> o;
    o.norm = l.q_norm;
    o.eps = a.q_eps;
    if (!cross) {
        o.k = a.qkv + a.q_width;
        o.v = o.k + a.kv_width;
        o.to_k = (T *)l.k;
        o.to_v = (T *)l.v;
        o.ld_k = o.ld_v = a.qkv_ld;
        o.cos_sin = a.cos_sin;
        o.pos = rows[0].pos;
    }
    to.rope = o;
}

/* A block's u-th place; false: it has not so many.  has_keys: whether its row sees any there. */
static __device__ __forceinline__ bool has_keys(const decode_place &p) { return p.first <= p.last; }
template <typename T> static __device__ __forceinline__ bool block_place(const attention_told<T> &t, int32_t u, decode_place *p) {
    int32_t row, y, split;
    if (!place_of(t.args, (int32_t)blockIdx.x + u * (int32_t)gridDim.x, &row, &y, &split)) return false;
    find_place(t.args, t.rope, row, y, split, *p);
    return true;
}

/* ---- parts of a row's heads ---- */

/* Where layer i's place number u, among all blocks', leaves its part: D values of each of its heads, then their maxima, then their sums. */
template <typename F, int D> static __device__ __forceinline__ row_parts<typename F::T> part_of(const stream_args<F> &a, int32_t i, const decode_place &p, int32_t u) {
    const attend_args<typename F::T> &any = a.attend[0];
    float *o = (float *)((char *)a.partial + PARTS_AT + i % 2 * a.parts_bytes) + (int64_t)u * part_floats(any, D);
    float *m = o + p.heads * D;
    return { o, m, m + p.heads, any.out + p.row * any.out_ld + p.head * D, 1 };
}

/* By any threads, number `me` of `all`: makes absent what the block's places leave in layer i, `n` of them. */
template <typename F> static __device__ __forceinline__ void forget_parts(const stream_args<F> &a, int32_t i, int32_t n, int32_t floats, int32_t me, int32_t all) {
    char *to = (char *)a.partial + PARTS_AT + i % 2 * a.parts_bytes;
#pragma unroll 1
    for (int32_t k = 0; k < n; k++)
#pragma unroll 1
        for (int32_t at = me; at < floats / 4; at += all)
            __stcg((uint4 *)to + ((int64_t)blockIdx.x + k * (int32_t)gridDim.x) * (floats / 4) + at, make_uint4(ABSENT, ABSENT, ABSENT, ABSENT));
}

/* One warp: its share of a row's heads, whose parts tell whether they have come: 32 columns at a time, a lane each.  Sums are merge_splits' own.
 * u: the place's number. */
template <typename F, int D> static __device__ __forceinline__ void join_share(const stream_args<F> &a, int32_t i, const decode_place &p, int32_t u) {
    typedef typename F::T T;
    enum { AT_ONCE = 16, M = AT_ONCE, L };
    const int32_t lane = decode_thread() % 32, n = p.splits, blocks = head_blocks(a.attend[0]), next = blocks * part_floats(a.attend[0], D);      /* floats from split to split */
    const row_parts<T> r = part_of<F, D>(a, i, p, u - p.split * blocks);
#pragma unroll 1
    for (int32_t piece = p.split + decode_warp() * n; piece < p.heads * (D / 32); piece += DECODE_WARPS * n) {
        const int32_t h = piece / (D / 32);
        const float *o = r.o + piece * 32 + lane, *m = r.m + h, *l = r.l + h;
        float top = minus_infinity(), sum = 0, x = 0, v[AT_ONCE + 2] = {};
        /* Values of 16 splits; of the lane's own one, of 32, maximum and sum. */
        auto take = [&](int32_t from, int32_t weights) {
            auto at = [&](int32_t j) { return j < AT_ONCE ? o + (from + j) * next : (j == M ? m : l) + (weights + lane) * next; };
#pragma unroll
            for (int32_t j = 0; j < AT_ONCE + 2; j++)
                if (j < AT_ONCE ? from + j < n : weights + lane < n) v[j] = look(at(j));
            take_missing(v, at);
        };
        take(0, 0);
        if (lane < n) top = v[M];
#pragma unroll 1
        for (int32_t s = lane + 32; s < n; s += 32) {
            float more[1];
            take_when_come(more, [&](int32_t) { return m + s * next; }, [](int32_t) { return true; });
            top = fmaxf(top, more[0]);
        }
#pragma unroll
        for (int32_t d = 16; d > 0; d /= 2) top = fmaxf(top, __shfl_xor_sync(~0u, top, d));
        if (top == minus_infinity()) top = 0;
#pragma unroll 1
        for (int32_t s = 0; s < n; s += 32) {
            if (s) take(s, s);
            const float by = s + lane < n ? exp2_fast(v[M] - top) : 0.f;
            if (s + lane < n) sum = fmaf(by, v[L], sum);
#pragma unroll 1
            for (int32_t k = 0; k < 32 && s + k < n; k += AT_ONCE) {
                if (k) take(s + k, n);
#pragma unroll
                for (int32_t j = 0; j < AT_ONCE; j++) {
                    const float weight = __shfl_sync(~0u, by, k + j);
                    if (s + k + j < n) x = fmaf(weight, v[j], x);
                }
            }
        }
#pragma unroll
        for (int32_t d = 16; d > 0; d /= 2) sum += __shfl_xor_sync(~0u, sum, d);
        x *= sum == 0 ? 0.f : 1.f / sum;
        const float beside = __shfl_down_sync(~0u, x, 1);
        if (lane % 2 == 0) *(uint32_t *)(r.out + piece * 32 + lane) = sum == 0 ? 0u : pack2(x, beside, T());
    }
}

/* Layer i's places of a block.  ready: waits until it is time to look for queries; pass: until heads may be written; done: the room is free.  How many left parts. */
template <typename F, typename T, int D, typename R, typename P, typename O>
static __device__ __forceinline__ int32_t attend_layer(const stream_args<F> &a, int32_t i, const told_rows (&rows)[2], attention_room<T, D> &room, R ready, P pass, O done) {
    enum { BEFORE, LOOKING, OPEN };
    int32_t state = BEFORE;
    auto look_once = [&] {
        if (state == BEFORE) state = ready() ? OPEN : LOOKING;
    };
    auto pass_once = [&] {
        if (state == LOOKING) pass();
        state = OPEN;
    };
    const rv_stream_layer &l = a.layer[i];
    attention_told<T> &t = room.told;
    decode_place p, more;
    int32_t places = 0;
    if (decode_thread() == 0) tell(a, l, rows, t);
    decode_meet();
    bool here = block_place(t, 0, &p);
    if (here && has_keys(p)) look_up(t.args, room.keys, p, 0);
    auto number = [&](int32_t u) { return (int32_t)blockIdx.x + u * (int32_t)gridDim.x; };
#pragma unroll 1
    while (here) {
        here = block_place(t, ++places, &more);
        if (here && has_keys(more)) look_up(t.args, room.keys, more, places % 2);
        if (has_keys(p))
            attend_place<true>(t.args, t.rope, room.keys, p, look_once, [&] {
                if (here && has_keys(more)) ask_keys(t.args, room.keys, more);
                pass_once();
            }, [&] { return part_of<F, D>(a, i, p, number(places - 1)); });
        else {
            look_once();
            pass_once();
            attend_nothing<T, D>(t.args, p);
        }
        if (!here) break;
        decode_meet();                   /* but for keys, the room is free again */
        p = more;
    }
    look_once();
    pass_once();
    done();
    if (!places) return 0;
#pragma unroll 1
    for (int32_t u = places - 1;; block_place(t, --u, &p)) {
        if (p.splits > 1) join_share<F, D>(a, i, p, number(u));
        if (!u) break;
    }
    return rows[l.q_norm != NULL].parts ? places : 0;
}

/* Four warps. */
template <typename F, typename T, int D> static __device__ __forceinline__ void attend(const stream_args<F> &a, const stream_rooms<F> &rooms, attention_room<T, D> &room) {
    gate_keeper early = { a.gate + EARLY_GATE, 0 };
    int32_t left = 0;                    /* parts of the layer before: all have joined theirs   */
#pragma unroll 1
    for (int32_t i = 0; i < a.layers; i++) {
        if (i) await<FREE, FREE_THREADS>();
        if (left) forget_parts(a, i - 1, left, part_floats(a.attend[0], D), decode_thread(), ATTENDING);
        left = attend_layer(a, i, rooms.h->rows, room, [&] {
            await<LOOK, LOOK_THREADS>();
            if (!i) await<PASS, PASS_THREADS>();       /* nobody has made absent what it looks for */
            return !i;
        }, [] { await<PASS, PASS_THREADS>(); }, [&] {
            make_visible_to_products();  /* what was there, before weights come there           */
            decode_meet();
            if (decode_thread() == 0) post(rooms.h->attended, i + 1);
        });
        if (decode_warp() == 0 && i + 1 == a.layers) let_next_start();
        bring_wide(a, rooms, i * PRODUCTS + DOWN, early);
    }
}
#endif
#endif
