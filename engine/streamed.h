/* streamed.h - text layers whose weights lie in pinned host memory and pass through two device buffers.
 *
 * The one idea: a layer's weights are placed once, in the buffer that its number gives it, and copied to the host from there;
 * so every handle points into a buffer for good, and using a layer means that the buffer holds its bytes again.
 * While one layer is computed the next one is on its way.  Norms, gates and the weights of the image keys stay on the device.
 *
 * Threads: as the backend's; of all sessions of a model one at a time (rv_model.device).
 */
#ifndef RV_ENGINE_STREAMED_H
#define RV_ENGINE_STREAMED_H
#include "engine/base/arena.h"
#include "engine/config.h"
#include "kernels/backend.h"

typedef struct rv_streamed {
    int32_t  first, end;                 /* layers [first, end) are streamed; first == end: none  */
    uint64_t at[RV_MAX_LAYERS], bytes[RV_MAX_LAYERS];     /* in host memory                      */
    uint64_t host_bytes, buffer_bytes;   /* of all of them; of the largest                       */
    char    *host;                       /* rv_host_alloc's; NULL while measuring                */
    char    *buffer[2];                  /* device, buffer_bytes each                            */
    int32_t  holds[2];                   /* the layer whose bytes are in it, or on their way; -1: none */
    /* while placing */
    rv_arena layer;
    int32_t  placing;                    /* its number; -1: none                                 */
} rv_streamed;

static inline bool rv_streams(const rv_streamed *s, int32_t layer) { return s && layer >= s->first && layer < s->end; }

/* ---- placing (engine/weights.c) ---- */

void rv_streamed_begin(rv_streamed *s, int32_t first, int32_t end);
/* Where that layer's weights go.  The layer before it is finished first: it goes to the host. */
rv_arena *rv_streamed_arena(rv_streamed *s, rv_backend *be, int32_t layer);
void rv_streamed_finish(rv_streamed *s, rv_backend *be);

/* ---- a pass (engine/text.c) ---- */

/* The layer's buffer holds its weights for what is queued next. */
void rv_streamed_use(rv_streamed *s, rv_backend *be, int32_t layer);
/* What needed them is queued; `then` (-1: none), which has the same buffer, may come behind it. */
void rv_streamed_used(rv_streamed *s, rv_backend *be, int32_t layer, int32_t then);
/* Waits for what is on its way, before memory goes. */
void rv_streamed_drain(rv_streamed *s, rv_backend *be);
#endif
