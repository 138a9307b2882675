/* stream90_attend.cuh - attention between the products of one launch.
 *
 * The one idea: decode.cuh's places, shared out over all blocks; keys are asked for before queries are looked for, and these as they come.  Heads may be written
 * behind the gate alone: before, a late block may still make them absent.
 */
#ifndef RV_KERNELS_CUDA_STREAM90_ATTEND_CUH
#define RV_KERNELS_CUDA_STREAM90_ATTEND_CUH
#include "kernels/cuda/stream90.cuh"

#ifdef __CUDA_ARCH_FEAT_SM90_ALL
/* One thread of each warp. */
template <typename F> static __device__ __forceinline__ void tell(const stream_args<F> &a, const rv_stream_layer &l, attention_told<typename F::T> &to) {
    typedef typename F::T T;
    const int32_t cross = l.q_norm != NULL;
    to.args = a.attend[cross];
    to.args.k = (const T *)l.k;
    to.args.v = (const T *)l.v;
    to.most_splits = a.most_splits[cross];
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
        o.pos = a.pos;
    }
    to.rope = o;
}

/* The u-th place of all rows'; false: there are not so many. */
template <typename T> static __device__ __forceinline__ bool place_of(const attend_args<T> &a, int32_t u, int32_t *row, int32_t *y, int32_t *split) {
    const int32_t blocks = head_blocks(a);
    for (*row = 0; *row < a.rows; ++*row) {
        const int32_t first = a.first ? a.first[*row] : 0, last = a.last[*row];
        const int32_t places = blocks * (last < first ? 1 : last / SPLIT - first / SPLIT + 1);
        if (u < places) {
            *y = u % blocks;
            *split = first / SPLIT + u / blocks;
            return true;
        }
        u -= places;
    }
    return false;
}

/* A block's u-th place; false: it has not so many.  has_keys: whether its row sees any there. */
static __device__ __forceinline__ bool has_keys(const decode_place &p) { return p.first <= p.last; }
template <typename T> static __device__ __forceinline__ bool block_place(const attention_told<T> &t, int32_t u, decode_place *p) {
    int32_t row, y, split;
    if (!place_of(t.args, (int32_t)blockIdx.x + u * (int32_t)gridDim.x, &row, &y, &split)) return false;
    find_place(t.args, t.rope, row, y, split, *p);
    return true;
}

/* Joins the rows whose last place was one of the block's: as many at once as a warp has lanes. */
template <typename F, typename T, int D>
static __device__ __forceinline__ void join_rows(const stream_args<F> &a, const attention_told<T> &t, attention_room<T, D> &room, int32_t places) {
    const int32_t lane = decode_thread() % 32;
    decode_place p;
#pragma unroll 1
    for (int32_t from = 0; from < places; from += 32) {
        decode_meet();
        if (decode_warp() == 0) {
            bool last = from + lane < places && block_place(t, from + lane, &p) && p.splits > 1 && is_last(p, a.partial);
            const uint32_t all = __ballot_sync(~0u, last);
            if (lane == 0) atomicExch(&room.last, all);
        }
        decode_meet();
#pragma unroll 1
        for (uint32_t left = atomicOr(&room.last, 0u); left; left &= left - 1) {
            block_place(t, from + __ffs((int32_t)left) - 1, &p);
            merge_splits(room.keys, p, parts_of<D>(t.args, p, a.partial, t.most_splits), t.most_splits);
            decode_meet();               /* the room is free again */
        }
    }
}

/* A block's places of a layer.  ready: waits until it is time to look for queries; pass: until heads may be written. */
template <typename F, typename T, int D, typename R, typename P>
static __device__ __forceinline__ void attend_layer(const stream_args<F> &a, const rv_stream_layer &l, attention_room<T, D> &room, R ready, P pass) {
    enum { BEFORE, LOOKING, OPEN };
    int32_t state = BEFORE;
    auto look_once = [&] {
        if (state == BEFORE) state = ready() ? OPEN : LOOKING;
    };
    auto pass_once = [&] {
        if (state == LOOKING) pass();
        state = OPEN;
    };
    attention_told<T> &t = room.told[decode_warp()];
    decode_place p, more;
    int32_t places = 0;
    if (decode_thread() % 32 == 0) tell(a, l, t);
    __syncwarp();
    bool here = block_place(t, 0, &p);
    if (here && has_keys(p)) look_up(t.args, room.keys, p, 0);
#pragma unroll 1
    while (here) {
        here = block_place(t, ++places, &more);
        if (here && has_keys(more)) look_up(t.args, room.keys, more, places % 2);
        if (has_keys(p))
            attend_place<true>(t.args, t.rope, room.keys, p, a.partial, t.most_splits, look_once, [&] {
                if (here && has_keys(more)) ask_keys(t.args, room.keys, more);
                pass_once();
            });
        else {
            look_once();
            pass_once();
            attend_nothing<T, D>(t.args, p);
        }
        decode_meet();                   /* but for keys, the room is free again */
        p = more;
    }
    look_once();
    pass_once();
    if (places) join_rows(a, t, room, places);
}

/* Four warps. */
template <typename F, typename T, int D> static __device__ __forceinline__ void attend(const stream_args<F> &a, const stream_rooms<F> &rooms, attention_room<T, D> &room) {
    gate_keeper early = { a.gate + EARLY_GATE, 0 };
#pragma unroll 1
    for (int32_t i = 0; i < a.layers; i++) {
        if (i) await<FREE, FREE_THREADS>();
        attend_layer(a, a.layer[i], room, [&] {
            await<LOOK, LOOK_THREADS>();
            if (!i) await<PASS, PASS_THREADS>();       /* nobody has made absent what it looks for */
            return !i;
        }, [] { await<PASS, PASS_THREADS>(); });
        make_visible_to_products();      /* what was there, before weights come there           */
        decode_meet();
        if (decode_thread() == 0) post(rooms.h->attended, i + 1);
        if (decode_warp() == 0 && i + 1 == a.layers) let_next_start();
        bring_wide(a, rooms, i * PRODUCTS + DOWN, early);
    }
}
#endif
#endif
