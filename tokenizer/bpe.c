/* bpe.c - byte-pair encoding of one piece.
 *
 * The one idea: merges happen in the order of (rank, position).  A short piece finds the next one
 * by looking at all of its pairs; a long one keeps them in a heap, so that a megabyte without a
 * space costs n log n.
 */
#include <stdlib.h>
#include <string.h>

#include "tokenizer/parts.h"

enum { SHORT_PIECE = 64 };

static uint64_t mix(uint64_t h) {
    h *= UINT64_C(0x9e3779b97f4a7c15);
    h ^= h >> 32;
    h *= UINT64_C(0xd6e8feb86659fd93);
    return h ^ h >> 32;
}

static uint64_t load64(const char *s) { uint64_t w; memcpy(&w, s, sizeof w); return w; }
static uint64_t load32(const char *s) { uint32_t w; memcpy(&w, s, sizeof w); return w; }

uint64_t rv_piece_key(const char *s, size_t bytes) {
    if (bytes < 4)
        return (uint64_t)(uint8_t)s[0] | (uint64_t)(uint8_t)s[bytes / 2] << 8 | (uint64_t)(uint8_t)s[bytes - 1] << 16;
    if (bytes <= 8) return load32(s) | load32(s + bytes - 4) << 32;
    uint64_t h = 0;
    for (size_t at = 0; at + 8 < bytes; at += 8) h = mix(h ^ load64(s + at));
    return mix(h ^ load64(s + bytes - 8));
}

static uint32_t table_mask(uint32_t count) {
    uint32_t mask = 15;
    while (mask / 3 * 2 < count) mask = mask * 2 + 1;
    return mask;
}

rv_piece *rv_pieces_new(uint32_t count, uint32_t *mask) {
    *mask = table_mask(count);
    return calloc((size_t)*mask + 1, sizeof(rv_piece));
}

rv_pair *rv_pairs_new(uint32_t count, uint32_t *mask) {
    *mask = table_mask(count);
    return calloc((size_t)*mask + 1, sizeof(rv_pair));
}

static uint32_t piece_home(const rv_tokenizer *t, uint64_t key, size_t bytes) {
    return (uint32_t)mix(key + bytes) & t->piece_mask;
}

static uint32_t pair_home(const rv_tokenizer *t, uint32_t left, uint32_t right) {
    return (uint32_t)mix((uint64_t)left << 32 | right) & t->pair_mask;
}

void rv_piece_hint(const rv_tokenizer *t, const char *text, size_t bytes) {
    __builtin_prefetch(&t->pieces[piece_home(t, rv_piece_key(text, bytes), bytes)]);
}

void rv_pair_hint(const rv_tokenizer *t, uint32_t left, uint32_t right) {
    __builtin_prefetch(&t->pairs[pair_home(t, left, right)]);
}

rv_piece *rv_piece_slot(const rv_tokenizer *t, const char *text, size_t bytes) {
    uint64_t key = rv_piece_key(text, bytes);
    uint32_t at = piece_home(t, key, bytes);
    for (;; at = (at + 1) & t->piece_mask) {
        rv_piece *slot = &t->pieces[at];
        if (slot->bytes == 0) return slot;
        if (slot->key != key || slot->bytes != bytes) continue;
        if (bytes <= 8 || !memcmp(t->pool + t->tokens[slot->id].at, text, bytes)) return slot;
    }
}

rv_pair *rv_pair_slot(const rv_tokenizer *t, uint32_t left, uint32_t right) {
    uint32_t at = pair_home(t, left, right);
    for (;; at = (at + 1) & t->pair_mask) {
        rv_pair *slot = &t->pairs[at];
        if (slot->rank == 0 || (slot->left == left && slot->right == right)) return slot;
    }
}

/* The merge of two neighbours; rank UINT32_MAX when there is none. */
typedef struct merge { uint32_t rank, merged; } merge;

static merge find_merge(const rv_tokenizer *t, uint32_t left, uint32_t right) {
    const rv_pair *slot = rv_pair_slot(t, left, right);
    return slot->rank ? (merge){ slot->rank, slot->merged } : (merge){ UINT32_MAX, 0 };
}

static rv_status append_short(const rv_tokenizer *t, const uint8_t *piece, size_t n, rv_ids *out, rv_error *err) {
    uint32_t ids[SHORT_PIECE];
    merge merges[SHORT_PIECE];                    /* merges[i]: of ids[i] and ids[i + 1] */
    for (size_t i = 0; i < n; i++) ids[i] = t->byte_id[piece[i]];
    for (size_t i = 0; i + 1 < n; i++) merges[i] = find_merge(t, ids[i], ids[i + 1]);
    for (;;) {
        size_t best = 0;
        uint32_t rank = UINT32_MAX;
        for (size_t i = 0; i + 1 < n; i++)
            if (merges[i].rank < rank) rank = merges[i].rank, best = i;
        if (rank == UINT32_MAX) break;
        ids[best] = merges[best].merged;
        n--;
        memmove(ids + best + 1, ids + best + 2, (n - best - 1) * sizeof *ids);
        if (best + 1 < n) memmove(merges + best + 1, merges + best + 2, (n - best - 2) * sizeof *merges);
        if (best + 1 < n) merges[best] = find_merge(t, ids[best], ids[best + 1]);
        if (best > 0) merges[best - 1] = find_merge(t, ids[best - 1], ids[best]);
    }
    for (size_t i = 0; i < n; i++) {
        rv_status st = rv_ids_push(out, (int32_t)ids[i], err);
        if (st) return st;
    }
    return RV_OK;
}

/* A long piece: symbols in a list, candidate merges in a binary heap.  An entry of the heap is
 * stale when its symbol is gone or has another pair by now. */
typedef struct symbol { uint32_t id, previous, next, rank; } symbol;    /* rank: of the pair (this, next) */
enum { NOBODY = UINT32_MAX };

static void sift_down(uint64_t *heap, size_t n, size_t at) {
    uint64_t value = heap[at];
    for (;;) {
        size_t child = 2 * at + 1;
        if (child >= n) break;
        if (child + 1 < n && heap[child + 1] < heap[child]) child++;
        if (value <= heap[child]) break;
        heap[at] = heap[child];
        at = child;
    }
    heap[at] = value;
}

static void sift_up(uint64_t *heap, size_t at) {
    uint64_t value = heap[at];
    while (at > 0 && value < heap[(at - 1) / 2]) {
        heap[at] = heap[(at - 1) / 2];
        at = (at - 1) / 2;
    }
    heap[at] = value;
}

/* Looks the pair at `at` up anew and, when it merges, returns true and its heap entry. */
static bool rank_pair(const rv_tokenizer *t, symbol *symbols, uint32_t at, uint64_t *entry) {
    symbol *s = &symbols[at];
    s->rank = s->next == NOBODY ? UINT32_MAX : find_merge(t, s->id, symbols[s->next].id).rank;
    *entry = (uint64_t)s->rank << 32 | at;
    return s->rank != UINT32_MAX;
}

static void merge_all(const rv_tokenizer *t, symbol *symbols, uint32_t n, uint64_t *heap) {
    size_t held = 0;
    for (uint32_t i = 0; i < n; i++)
        if (rank_pair(t, symbols, i, &heap[held])) held++;
    for (size_t i = held / 2; i-- > 0;) sift_down(heap, held, i);
    while (held > 0) {
        uint64_t top = heap[0];
        heap[0] = heap[--held];
        sift_down(heap, held, 0);
        uint32_t at = (uint32_t)top, rank = (uint32_t)(top >> 32);
        symbol *s = &symbols[at];
        if (s->id == RV_NO_TOKEN || s->rank != rank) continue;
        symbol *gone = &symbols[s->next];
        s->id = find_merge(t, s->id, gone->id).merged;
        s->next = gone->next;
        gone->id = RV_NO_TOKEN;
        if (s->next != NOBODY) symbols[s->next].previous = at;
        if (rank_pair(t, symbols, at, &heap[held])) sift_up(heap, held++);
        if (s->previous != NOBODY && rank_pair(t, symbols, s->previous, &heap[held])) sift_up(heap, held++);
    }
}

static rv_status append_long(const rv_tokenizer *t, const uint8_t *piece, size_t n, rv_ids *out, rv_error *err) {
    rv_status st = RV_OK;
    symbol *symbols = malloc(n * sizeof *symbols);
    uint64_t *heap = malloc(3 * n * sizeof *heap);    /* n to begin with, a merge adds two at most */
    if (!symbols || !heap) { st = rv_fail_memory(err, "tokenizing a very long word"); goto done; }
    for (uint32_t i = 0; i < n; i++)
        symbols[i] = (symbol){ t->byte_id[piece[i]], i ? i - 1 : NOBODY, i + 1 < n ? i + 1 : NOBODY, 0 };
    merge_all(t, symbols, (uint32_t)n, heap);
    for (uint32_t i = 0; i != NOBODY; i = symbols[i].next) TRY(rv_ids_push(out, (int32_t)symbols[i].id, err));
done:
    free(heap);
    free(symbols);
    return st;
}

rv_status rv_bpe_append(const rv_tokenizer *t, const char *piece, size_t bytes, rv_ids *out, rv_error *err) {
    if (bytes == 1) return rv_ids_push(out, (int32_t)t->byte_id[(uint8_t)piece[0]], err);
    if (t->ignore_merges && bytes <= t->longest) {
        const rv_piece *slot = rv_piece_slot(t, piece, bytes);
        if (slot->bytes) return rv_ids_push(out, (int32_t)slot->id, err);
    }
    return bytes <= SHORT_PIECE ? append_short(t, (const uint8_t *)piece, bytes, out, err)
                                : append_long(t, (const uint8_t *)piece, bytes, out, err);
}
