/* streamed.c - placing, fetching and using streamed layers: see streamed.h. */
#include "engine/streamed.h"

static int32_t lane_of(const rv_streamed *s, int32_t layer) { return (layer - s->first) % 2; }

/* ---- placing ---- */

void rv_streamed_begin(rv_streamed *s, int32_t first, int32_t end) {
    s->first = first;
    s->end = end;
    s->placing = -1;
    s->holds[0] = s->holds[1] = -1;
    if (!s->host) s->host_bytes = s->buffer_bytes = 0;
}

void rv_streamed_finish(rv_streamed *s, rv_backend *be) {
    const int32_t layer = s->placing;
    if (layer < 0) return;
    s->placing = -1;
    if (s->host) {
        rv_finish(be, NULL);
        rv_download(be, s->host + s->at[layer], s->buffer[lane_of(s, layer)], s->bytes[layer]);
        s->holds[lane_of(s, layer)] = layer;
        return;
    }
    s->at[layer] = s->host_bytes;
    s->bytes[layer] = s->layer.used;
    s->host_bytes += (s->layer.used + RV_ARENA_ALIGN - 1) / RV_ARENA_ALIGN * RV_ARENA_ALIGN;
    if (s->layer.used > s->buffer_bytes) s->buffer_bytes = (s->layer.used + RV_ARENA_ALIGN - 1) / RV_ARENA_ALIGN * RV_ARENA_ALIGN;
}

rv_arena *rv_streamed_arena(rv_streamed *s, rv_backend *be, int32_t layer) {
    if (layer == s->placing) return &s->layer;
    rv_streamed_finish(s, be);
    s->placing = layer;
    s->layer = (rv_arena){ s->host ? s->buffer[lane_of(s, layer)] : NULL, 0, s->buffer_bytes };
    /* Padding inside a weight is zero in new memory, and the layer before left its own bytes here. */
    if (s->host) {
        rv_zero(be, rv_mat_of(s->layer.base, 1, (int32_t)(s->buffer_bytes / sizeof(float)), RV_F32));
        rv_finish(be, NULL);
    }
    return &s->layer;
}

/* ---- a pass ---- */

static void fetch(rv_streamed *s, rv_backend *be, int32_t layer) {
    const int32_t lane = lane_of(s, layer);
    rv_bring(be, lane, s->buffer[lane], s->host + s->at[layer], s->bytes[layer]);
    s->holds[lane] = layer;
}

void rv_streamed_use(rv_streamed *s, rv_backend *be, int32_t layer) {
    const int32_t lane = lane_of(s, layer);
    if (s->holds[lane] != layer) fetch(s, be, layer);
    rv_brought(be, lane);
}

void rv_streamed_used(rv_streamed *s, rv_backend *be, int32_t layer, int32_t then) {
    rv_spent(be, lane_of(s, layer));
    if (then >= 0 && then != layer) fetch(s, be, then);
}

void rv_streamed_drain(rv_streamed *s, rv_backend *be) {
    if (!s->host) return;
    for (int32_t lane = 0; lane < RV_LANES; lane++) {
        rv_brought(be, lane);
        rv_spent(be, lane);
    }
    rv_finish(be, NULL);
}
