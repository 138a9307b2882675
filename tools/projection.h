/* projection.h - how long a GPU that is not there would take: counted work over its rates.
 *
 * The one idea: a stage is bound by whichever of five things takes longest: bytes of device memory, issued warp
 * instructions, passes through shared memory, tensor arithmetic, and weights that stream from host memory.  What the kernels of a set do of each is counted on a GPU
 * (projection.c says how); rates are the profile's; and how near a bound the same kernels come is taken from a measured GPU.
 * A projection is never printed without that word.
 */
#ifndef RV_TOOLS_PROJECTION_H
#define RV_TOOLS_PROJECTION_H
#include "engine/rvprofile.h"

typedef enum { STAGE_VISION, STAGE_PREFILL, STAGE_DECODE, STAGES } stage;
typedef enum { LIMIT_MEMORY, LIMIT_ISSUE, LIMIT_SHARED, LIMIT_TENSOR, LIMIT_BUS, LIMITS } limiter;

/* What a stage has to do: bytes of device memory, multiplications and additions, and bytes from host memory. */
typedef struct stage_work { double bytes, flop, bus; } stage_work;

/* A model, as far as projections need it. */
typedef struct model_work {
    double text_bytes[4];            /* decoder layers' linears, by rv_weight_format            */
    double head_bytes;               /* lm_head                                                 */
    double vision_bytes;             /* tower and projector                                     */
    double text_weights, head_weights;   /* numbers in the decoder's linears, and in lm_head    */
    double vision_flop[5];           /* tower and image keys, by tiles                          */
    double token_bytes, tile_bytes;  /* keys and values                                         */
} model_work;

/* From a model's folder; RV_ERR_* as rv_inspect. */
rv_status model_work_read(const char *model_dir, model_work *out, rv_error *err);

/* A page: an image of `tiles` tiles, a prompt, an answer; `rows` sequences answer together.  streamed: rv_memory's, weights that every pass
 * over the layers brings from host memory. */
typedef struct page_work { uint32_t tiles, prompt, answer, rows; uint64_t streamed; } page_work;
stage_work stage_work_of(const model_work *m, rv_weight_format weights, const page_work *page, stage s);

typedef struct projected {
    double ms[STAGES];               /* vision and prefill of one page; one decode step         */
    limiter by[STAGES];
    double page_ms;                  /* vision, prefill and the page's share of its steps       */
    double load_s;                   /* weights over PCIe from the page cache                    */
} projected;
projected project(const rv_profile *p, const model_work *m, rv_weight_format weights, const page_work *page);
/* What the GPU itself takes at least, to set beside what was measured. */
double bound_ms(const rv_profile *p, rv_weight_format weights, stage s, const stage_work *w, double rows, limiter *by);

/* What streaming takes at least, while the GPU computes. */
double bus_ms(const rv_profile *p, const stage_work *w);

const char *limit_name(limiter by);
const char *stage_name(stage s);
/* One line: where the counts come from. */
const char *projection_source(void);
#endif
