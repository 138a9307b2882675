/* guide.h - which tokens may come next: tables of a finite automaton over token classes.
 *
 * The one idea: tokens that do the same in every state are one class, so that a state's mask over 128,256 tokens is a
 * row of a few hundred entries, and "may this token come, and what is the state then" is one lookup in two small
 * tables that can lie on a device.  What an automaton without counters cannot say - a table's columns have equally many
 * cells - are three kinds of entries that a row may be denied.
 *
 * Made by extract/guide.c; used by engine/sample.c and kernels/cuda/sample.cu, to the same outcome.
 */
#ifndef RV_BASE_GUIDE_H
#define RV_BASE_GUIDE_H
#include <stdbool.h>
#include <stdint.h>

#ifdef __CUDACC__
#define RV_HOST_DEVICE __host__ __device__ static inline
#else
#define RV_HOST_DEVICE static inline
#endif

/* An entry: the state after the token (0: it may not come), and what the token does. */
enum { RV_GUIDE_DEAD = 0,
       RV_GUIDE_DONE = 1,                /* the value has ended                                 */
       RV_GUIDE_STATE = 0x1fff,          /* the entry's state; so many states at most           */
       RV_GUIDE_LIST_END = 0x2000,       /* it ends a list                                      */
       RV_GUIDE_BY_STOP = 0x4000,        /* it ends the value as a stop token                   */
       RV_GUIDE_CELL = 0x8000 };         /* behind it a list will have one cell more            */

typedef struct rv_guide {
    const uint16_t *classes;             /* [vocab]: a token's class; NULL: no guide             */
    const uint16_t *next;                /* [states x n_classes]: entries                        */
    int32_t         vocab, states, n_classes;
} rv_guide;

/* A sequence's place in a guide. */
typedef struct rv_guide_row {
    rv_guide guide;
    int32_t  state;                      /* DEAD and DONE: any token may come                    */
    int32_t  cells, least, most;         /* of the list so far; how many it must and may have    */
    int32_t  last;                       /* non-zero: stop tokens may end the value              */
    int32_t  watched;                    /* an id whose probability is wanted; -1: none          */
} rv_guide_row;

RV_HOST_DEVICE bool rv_guide_on(const rv_guide_row *g) { return g->guide.classes && g->state > RV_GUIDE_DONE; }

/* The kinds of entries that the row may not take now. */
RV_HOST_DEVICE uint32_t rv_guide_denied(const rv_guide_row *g) {
    return (g->cells >= g->most ? (uint32_t)RV_GUIDE_CELL : 0u) | (g->cells < g->least ? (uint32_t)RV_GUIDE_LIST_END : 0u) |
           (g->last ? 0u : (uint32_t)RV_GUIDE_BY_STOP);
}

RV_HOST_DEVICE uint32_t rv_guide_entry(const rv_guide_row *g, int32_t id) {
    return id >= 0 && id < g->guide.vocab ? g->guide.next[g->state * g->guide.n_classes + g->guide.classes[id]] : 0u;
}

/* denied: rv_guide_denied(g), the same for all ids. */
RV_HOST_DEVICE bool rv_guide_allows(const rv_guide_row *g, uint32_t denied, int32_t id) {
    uint32_t entry = rv_guide_entry(g, id);
    return entry && !(entry & denied);
}

/* Moves the row over a token. */
RV_HOST_DEVICE void rv_guide_move(rv_guide_row *g, int32_t id) {
    uint32_t entry = rv_guide_entry(g, id);
    g->cells += (entry & RV_GUIDE_CELL) != 0;
    g->state = (int32_t)(entry & RV_GUIDE_STATE);
}
#endif
