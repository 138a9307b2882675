/* tiles.inl - what products and attention on AMX's tiles share: part of kernels.inl, where RV_TILES is defined.
 *
 * The one idea: both operands are copied into runs of whole tiles of 1 KB, 64 bytes a row, so that every load is 16 lines one
 * after the other.  A block is 32 x 32 sums in four tiles; a step multiplies 32 columns of 32 rows with 32 outputs:
 *     left    [steps][2][16 rows x 32 columns]
 *     right   [steps][2][16 pairs of columns x 16 outputs x 2]
 * Each sum takes its steps in order, so it does not depend on what is beside it.  Zeros fill up what is short of a tile.
 *
 * The compiler does not know that tile instructions read memory: FENCE stands between them and stores before.
 */
enum { TILE = 16, TILE_BYTES = 1024, TILE_LINE = 64, STEP_BYTES = 2 * TILE_BYTES };
#define FENCE() __asm__ volatile("" ::: "memory")

/* What ldtilecfg reads: palette, first row, then bytes of a row and rows of tiles 0 to 7. */
typedef struct tile_shapes { uint8_t palette, start, zero[14]; uint16_t bytes[16]; uint8_t rows[16]; } tile_shapes;
static const tile_shapes whole_tiles __attribute__((aligned(64))) = {
    .palette = 1, .bytes = { 64, 64, 64, 64, 64, 64, 64, 64 }, .rows = { 16, 16, 16, 16, 16, 16, 16, 16 },
};

static void tiles_begin(void) { _tile_loadconfig(&whole_tiles); }
static void tiles_end(void) { _tile_release(); }

ALWAYS void tiles_take(const char *c, int64_t ld) {
    _tile_loadd(0, c, ld);
    _tile_loadd(1, c + TILE_LINE, ld);
    _tile_loadd(2, c + TILE * ld, ld);
    _tile_loadd(3, c + TILE * ld + TILE_LINE, ld);
}

ALWAYS void tiles_clear(void) {
    _tile_zero(0);
    _tile_zero(1);
    _tile_zero(2);
    _tile_zero(3);
}

ALWAYS void tiles_give(char *c, int64_t ld) {
    _tile_stored(0, c, ld);
    _tile_stored(1, c + TILE_LINE, ld);
    _tile_stored(2, c + TILE * ld, ld);
    _tile_stored(3, c + TILE * ld + TILE_LINE, ld);
}

/* A block of 32 rows as tile loads find them: bytes from row to row, from the first 16 rows to the others, from step to step. */
typedef struct tile_rows { const char *at; int64_t row, half, step; } tile_rows;
ALWAYS tile_rows packed_rows(const char *at) { return (tile_rows){ at, TILE_LINE, TILE_BYTES, STEP_BYTES }; }

/* One step: sums, in tiles 0 to 3, += left right; 4 takes what is left, 6 and 7 what is right.  Tile 5 stays unused: at times, as if
 * the core's other thread had tiles in use too, instructions with eight of them take 1.4 times as long as with seven. */
ALWAYS void tiles_step(const tile_rows *left, const char *right) {
    _tile_loadd(4, left->at, left->row);
    _tile_loadd(6, right, TILE_LINE);
    _tile_dpbf16ps(0, 4, 6);
    _tile_loadd(7, right + TILE_BYTES, TILE_LINE);
    _tile_dpbf16ps(1, 4, 7);
    _tile_loadd(4, left->at + left->half, left->row);
    _tile_dpbf16ps(2, 4, 6);
    _tile_dpbf16ps(3, 4, 7);
}

/* sums [32 x 32] of `ld` floats a row = left right. */
static __attribute__((noinline)) void tiles_multiply(tile_rows left, const char *right, int32_t steps, float *sums, int64_t ld) {
    FENCE();
    tiles_clear();
    for (int32_t s = 0; s < steps; s++, left.at += left.step, right += STEP_BYTES) tiles_step(&left, right);
    tiles_give((char *)sums, 4 * ld);
    FENCE();
}

/* Words (pairs of bf16) of 16 rows become 16 rows of words: tiles of `right`. */
ALWAYS void transpose_words(const __m512i *in, char *out) {
    __m512i a[TILE], b[TILE];
#pragma GCC unroll 8
    for (int i = 0; i < TILE; i += 2) {
        a[i] = _mm512_unpacklo_epi32(in[i], in[i + 1]);
        a[i + 1] = _mm512_unpackhi_epi32(in[i], in[i + 1]);
    }
#pragma GCC unroll 4
    for (int i = 0; i < TILE; i += 4) {
        b[i] = _mm512_unpacklo_epi64(a[i], a[i + 2]);
        b[i + 1] = _mm512_unpackhi_epi64(a[i], a[i + 2]);
        b[i + 2] = _mm512_unpacklo_epi64(a[i + 1], a[i + 3]);
        b[i + 3] = _mm512_unpackhi_epi64(a[i + 1], a[i + 3]);
    }
#pragma GCC unroll 4
    for (int i = 0; i < 4; i++) {                /* b[i + 4 q], lane l: words of row 4 l + i, columns 4 q .. 4 q + 3 */
        __m512i even = _mm512_shuffle_i32x4(b[i], b[i + 4], 0x88), odd = _mm512_shuffle_i32x4(b[i], b[i + 4], 0xdd);
        __m512i even2 = _mm512_shuffle_i32x4(b[i + 8], b[i + 12], 0x88), odd2 = _mm512_shuffle_i32x4(b[i + 8], b[i + 12], 0xdd);
        _mm512_storeu_si512(out + i * TILE_LINE, _mm512_shuffle_i32x4(even, even2, 0x88));
        _mm512_storeu_si512(out + (4 + i) * TILE_LINE, _mm512_shuffle_i32x4(odd, odd2, 0x88));
        _mm512_storeu_si512(out + (8 + i) * TILE_LINE, _mm512_shuffle_i32x4(even, even2, 0xdd));
        _mm512_storeu_si512(out + (12 + i) * TILE_LINE, _mm512_shuffle_i32x4(odd, odd2, 0xdd));
    }
}

/* The elements of a step that are there. */
ALWAYS __mmask32 step_mask(int32_t left) { return left >= CPU_TILE_STEP ? 0xffffffffu : (1u << left) - 1; }

/* `depth` columns of up to 16 bf16 rows into every second tile of a panel of `right`; NULL is a row of zeros. */
static void pack_outputs(const void *const *rows, int32_t depth, char *out) {
    for (int32_t k = 0; k < depth; k += CPU_TILE_STEP, out += STEP_BYTES) {
        __mmask32 mask = step_mask(depth - k);
        __m512i in[TILE];
#pragma GCC unroll 16
        for (int i = 0; i < TILE; i++)
            in[i] = rows[i] ? _mm512_maskz_loadu_epi16(mask, (const char *)rows[i] + 2 * k) : _mm512_setzero_si512();
        transpose_words(in, out);
    }
}

/* One row of a block of `left`: columns [0, depth) of a bf16 row; NULL is zeros. */
static void pack_row(const void *row, int32_t depth, char *out) {
    for (int32_t k = 0; k < depth; k += CPU_TILE_STEP, out += STEP_BYTES)
        _mm512_store_si512(out, row ? _mm512_maskz_loadu_epi16(step_mask(depth - k), (const char *)row + 2 * k) : _mm512_setzero_si512());
}

/* Where row i of a block of `left` begins. */
ALWAYS char *row_in_block(char *block, int32_t i) { return block + i / TILE * TILE_BYTES + i % TILE * TILE_LINE; }
