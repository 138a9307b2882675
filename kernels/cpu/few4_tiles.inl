/* few4_tiles.inl - products of 1 to RV_FEW_ROWS bf16 rows with 4-bit weights on AMX's tiles: part of kernels.inl, where
 * RV_TILES is defined.
 *
 * The one idea: 128 weights of a row are one line of codes, and nibble s of each of its words is a row of step s's tile: the
 * 32 values of both blocks fit a register that bits of the codes look up. x is put in that order once a call. While some
 * rows are decoded those of the unit before are multiplied, an instruction at a time between them, so that nothing waits.
 *
 * Left are weights, right is x, so a sum does not depend on what rows are beside its own; its steps come in order.
 */
enum { UNIT4 = 2 * RV_BLOCK4, UNIT4_LINE = UNIT4 / 2, UNIT4_STEPS = UNIT4 / CPU_TILE_STEP, OUTPUTS4 = 2 * TILE,
       AT_ONCE4 = OUTPUTS4 / UNIT4_STEPS,        /* rows decoded while a step is multiplied     */
       STEP4_BYTES = 4096,       /* from step to step of two units: stores and loads never meet in their low 12 bits */
       AHEAD4 = 5 };             /* units whose codes are on their way                          */
_Static_assert(UNIT4_STEPS * STEP4_BYTES == CPU_DECODED4_BYTES, "tiles of two units");

/* ---- x: [groups of TILE rows][units][steps][16 pairs of columns][rows of the group, TILE if there are several][2] ---- */

static void pack4(rv_mat out, rv_mat x, int32_t r) {
    const int32_t together = x.rows < TILE ? x.rows : TILE, units = (x.cols + UNIT4 - 1) / UNIT4;
    const char *in = rv_cpu_row(x, r);
    char *to = (char *)out.data + ((int64_t)(r / TILE) * units * UNIT4 / 2 * together + r % TILE) * 4;
    for (int32_t u = 0; u < units; u++) {
        uint16_t unit[UNIT4] = { 0 }, step[UNIT4_STEPS][CPU_TILE_STEP];
        memcpy(unit, in + (int64_t)u * UNIT4 * 2, x.cols - u * UNIT4 < UNIT4 ? sizeof unit / 2 : sizeof unit);
        for (int c = 0; c < CPU_TILE_STEP; c++) {                /* high nibbles are even columns */
            step[0][c] = unit[4 * c + 1];
            step[1][c] = unit[4 * c];
            step[2][c] = unit[4 * c + 3];
            step[3][c] = unit[4 * c + 2];
        }
        for (int i = 0; i < UNIT4 / 2; i++, to += 4 * together) memcpy(to, (const char *)step + 4 * i, 4);
    }
}

/* ---- absmaxes ---- */

/* On their way to `out`: those from block `block` on, a multiple of TILE; as many as that behind `end` may be written. */
typedef struct absmaxes4 {
    const rv_codes *codes;
    int64_t         block, end;
    float          *out;
} absmaxes4;

/* The next TILE of them, as rv_cpu_absmaxes: each step is rounded (operations that name a rounding are never fused). */
ALWAYS void some_absmaxes4(absmaxes4 *a) {
    enum { NEAREST = _MM_FROUND_TO_NEAREST_INT | _MM_FROUND_NO_EXC, NESTED_AHEAD = 512 };
    const rv_codes *q = a->codes;
    if (a->block >= a->end) return;
    const __mmask16 mask = (__mmask16)(a->end - a->block >= TILE ? 0xffff : (1 << (a->end - a->block)) - 1);
    __m512 v;
    if (q->nested) {
        float scale;
        memcpy(&scale, (const char *)q->nested_scale + (size_t)(a->block / RV_NESTED_BLOCK) * sizeof scale, sizeof scale);
        _mm_prefetch((const char *)q->nested + a->block + NESTED_AHEAD, _MM_HINT_T1);
        v = _mm512_i32gather_ps(_mm512_cvtepu8_epi32(_mm_maskz_loadu_epi8(mask, q->nested + a->block)), q->nested_map, 4);
        v = _mm512_add_round_ps(_mm512_mul_round_ps(v, _mm512_set1_ps(scale), NEAREST), _mm512_set1_ps(q->offset), NEAREST);
    } else v = _mm512_maskz_loadu_ps(mask, (const char *)q->scale + (size_t)a->block * sizeof(float));
    _mm512_storeu_ps(a->out, v);
    a->block += TILE;
    a->out += TILE;
}

/* ---- weights ---- */

typedef struct rows4 {           /* n <= OUTPUTS4 of one part                                    */
    const uint8_t *codes;
    const float   *absmax;
    int64_t        row;          /* bytes of codes from one to the next                         */
    int32_t        n, blocks, units;
    vf             map;
    absmaxes4      behind;       /* of the rows behind these, made while these are multiplied   */
} rows4;

/* What decoding takes from registers, all the time. */
typedef struct lookup4 {
    vf      map;
    __m512i nibble, block;       /* an index of words: bits of a code, and which block; higher bits are not looked at */
    __m512i doubled, byte;       /* of bytes: a code twice as large, and which byte of a value, which block */
    __m512i first, third;        /* where steps 1 and 3 find them: bits 4 s - 1 of each word, twice */
} lookup4;

/* The compiler does not see what they are, else it makes them anew for every row. */
#define KEEP4(v) __asm__("" : "+v"(v))

ALWAYS lookup4 lookup4_of(vf map) {
    lookup4 l = { map, _mm512_set1_epi8(15), _mm512_inserti64x4(_mm512_setzero_si512(), _mm256_set1_epi8(16), 1),
                  _mm512_set1_epi8(30), _mm512_inserti64x4(_mm512_set1_epi16(0x0100), _mm256_set1_epi16(0x2120), 1),
                  _mm512_set1_epi64(0x3333232313130303), _mm512_set1_epi64(0x3b3b2b2b1b1b0b0b) };
    KEEP4(l.nibble);
    KEEP4(l.block);
    KEEP4(l.doubled);
    KEEP4(l.byte);
    KEEP4(l.first);
    KEEP4(l.third);
    return l;
}

/* A unit of one row becomes a row of each step's tile: two by words, two by bytes, which leaves less to the one port that permutes. */
ALWAYS void decode4_unit(char *out, const uint8_t *codes, const float *absmax, const lookup4 *l, bool whole) {
    __m512i line = whole ? _mm512_loadu_si512(codes) : _mm512_maskz_loadu_epi64(0xf, codes);
    __m512i values = (__m512i)_mm512_cvtne2ps_pbh((__m512)(l->map * (whole ? absmax[1] : 0.0f)), (__m512)(l->map * absmax[0]));
    __m512i even = _mm512_ternarylogic_epi64(line, l->nibble, l->block, 0xea);   /* a & b | c */
    _mm512_store_si512(out, _mm512_permutexvar_epi16(even, values));
    _mm512_store_si512(out + 2 * STEP4_BYTES, _mm512_permutexvar_epi16(_mm512_srli_epi16(even, 8), values));
    __m512i at1 = _mm512_ternarylogic_epi64(_mm512_multishift_epi64_epi8(l->first, line), l->doubled, l->byte, 0xea);
    _mm512_store_si512(out + STEP4_BYTES, _mm512_permutexvar_epi8(at1, values));
    __m512i at3 = _mm512_ternarylogic_epi64(_mm512_multishift_epi64_epi8(l->third, line), l->doubled, l->byte, 0xea);
    _mm512_store_si512(out + 3 * STEP4_BYTES, _mm512_permutexvar_epi8(at3, values));
}

/* Between rows: the step that was loaded is multiplied, and the next one loaded. Sums are in tiles 0 and 1. Other tiles stay
 * unused: at times, as if the core's other thread used tiles too, these instructions take the longer the more are in use. */
ALWAYS void between_rows4(int i, const char *tiles, const char *x, int64_t x_row) {
    FENCE();
    if (i == 0) _tile_dpbf16ps(0, 4, 6);
    if (i == 1) _tile_dpbf16ps(1, 5, 6);
    if (i == 2) _tile_loadd(6, x, x_row);
    if (i == 4) _tile_loadd(4, tiles, TILE_LINE);
    if (i == 6) _tile_loadd(5, tiles + TILE_BYTES, TILE_LINE);
    FENCE();
}

/* n <= AT_ONCE4 rows of a unit are decoded to `out`, and a step multiplied; codes that are wanted `later` bytes on are asked for. */
ALWAYS void some_rows4(char *out, const uint8_t *codes, int64_t row, const float *absmax, int64_t blocks, int32_t n, int64_t later, const lookup4 *l,
                       bool whole, bool multiply, const char *tiles, const char *x, int64_t x_row) {
#pragma GCC unroll 8
    for (int i = 0; i < AT_ONCE4; i++) {
        if (i < n) {
            _mm_prefetch((const char *)codes + later, _MM_HINT_T1);
            decode4_unit(out + i * TILE_LINE, codes, absmax, l, whole);
        }
        codes += row;
        absmax += blocks;
        __asm__("" : "+r"(codes), "+r"(absmax));                 /* else there is a pointer for each row, and too few registers */
        if (multiply) between_rows4(i, tiles, x, x_row);
    }
}

ALWAYS void multiply4_as(rows4 *q, const char *x, int64_t x_row, char *room, float *sums, bool all) {
    const int64_t row = q->row, blocks = q->blocks;
    const int32_t units = q->units, n = q->n;
    const lookup4 l = lookup4_of(q->map);
    absmaxes4 behind = q->behind;
    _tile_zero(0);
    _tile_zero(1);
    _tile_zero(4);
    _tile_zero(5);
    _tile_zero(6);
    for (int32_t u = 0; u <= units; u++) {       /* one more, in which nothing is left to decode */
        char *out = room + u % 2 * STEP_BYTES;
        const char *tiles = room + (u + 1) % 2 * STEP_BYTES;
        const int64_t at = (u + AHEAD4) * (int64_t)UNIT4_LINE, line = units * (int64_t)UNIT4_LINE;
        const int64_t later = (at < line ? at : OUTPUTS4 * row + at - line) - u * (int64_t)UNIT4_LINE;
        const uint8_t *codes = q->codes + u * UNIT4_LINE;
        const float *absmax = q->absmax + 2 * u;
#pragma GCC unroll 1
        for (int s = 0; s < UNIT4_STEPS; s++) {
            char *to = out + s * AT_ONCE4 / TILE * TILE_BYTES + s * AT_ONCE4 % TILE * TILE_LINE;
            const int32_t some = all ? AT_ONCE4 : n - s * AT_ONCE4;
            some_absmaxes4(&behind);
            if (u > 0 && 2 * u + 1 < blocks) some_rows4(to, codes, row, absmax, blocks, some, later, &l, true, true, tiles, x, x_row);
            else if (u > 0) some_rows4(to, codes, row, absmax, blocks, u < units ? some : 0, later, &l, false, true, tiles, x, x_row);
            else if (blocks > 1) some_rows4(to, codes, row, absmax, blocks, some, later, &l, true, false, tiles, x, x_row);
            else some_rows4(to, codes, row, absmax, blocks, some, later, &l, false, false, tiles, x, x_row);
            codes += AT_ONCE4 * row;
            absmax += AT_ONCE4 * blocks;
            tiles += STEP4_BYTES;
            if (u > 0) x += TILE * x_row;
        }
    }
    _tile_dpbf16ps(0, 4, 6);
    _tile_dpbf16ps(1, 5, 6);
    _tile_stored(0, sums, TILE_LINE);
    _tile_stored(1, sums + TILE * TILE, TILE_LINE);
    FENCE();
    q->behind = behind;
}

/* sums [OUTPUTS4][TILE] = those rows times up to TILE rows of x, x_row bytes from one pair of columns to the next. */
static __attribute__((noinline)) void multiply4(rows4 *q, const char *x, int64_t x_row, char *room, float *sums) {
    if (q->n == OUTPUTS4) multiply4_as(q, x, x_row, room, sums, true);
    else multiply4_as(q, x, x_row, room, sums, false);
}

/* ---- products ---- */

/* Tiles of sums and of x are as wide as there are rows of x. */
static void tiles4_begin(int32_t x_rows) {
    tile_shapes t = whole_tiles;
    t.bytes[0] = t.bytes[1] = t.bytes[6] = (uint16_t)(4 * x_rows);
    __asm__ volatile("" : : "r"(&t) : "memory");                 /* all of it is read */
    _tile_loadconfig(&t);
}

static void finish4(const rv_cpu_product *p, int32_t row, int32_t n_rows, int32_t from, int32_t n, const float *sums) {
    for (int32_t o = 0; o < n; o += TILE) {
        float by_row[TILE][TILE];
        __m512i in[TILE];
        memcpy(in, sums + o * TILE, sizeof in);
        transpose_words(in, (char *)by_row);
        for (int32_t r = 0; r < n_rows; r++) finish_row(p, row + r, from + o, n - o < TILE ? n - o : TILE, by_row[r]);
    }
}

/* The first rows of [from, to), at most OUTPUTS4 of one part; none: n is 0. Their absmaxes are on their way to `room`. */
static rows4 rows4_from(const rv_cpu_product *p, int32_t from, int32_t to, float *room) {
    int32_t o = from;
    rows4 q = { .blocks = p->x.cols / RV_BLOCK4 };
    if (from >= to) return q;
    const int32_t part = rv_cpu_part_of(p->w, &o), left = p->w->part[part].rows - o;
    const rv_codes *c = &p->w->codes[part];
    const int64_t block = (int64_t)o * q.blocks, before = block % TILE;
    q.codes = (const uint8_t *)c->codes + block * (RV_BLOCK4 / 2);
    q.absmax = room + before;
    q.row = (int64_t)q.blocks * (RV_BLOCK4 / 2);
    q.n = left < to - from ? left : to - from;
    if (q.n > OUTPUTS4) q.n = OUTPUTS4;
    q.units = (q.blocks + 1) / 2;
    q.map = vf_load(c->map);
    q.behind = (absmaxes4){ c, block - before, block + (int64_t)q.n * q.blocks, room };
    return q;
}

static void product4_tiles(const rv_cpu_product *p, int32_t from, int32_t to, void *room) {
    const int32_t together = p->x.rows < TILE ? p->x.rows : TILE, blocks = p->x.cols / RV_BLOCK4;
    const int64_t group = (int64_t)(blocks + 1) / 2 * UNIT4 * 2 * together;
    float sums[OUTPUTS4 * TILE] __attribute__((aligned(64)));
    float *absmax = (float *)(void *)((char *)room + CPU_DECODED4_BYTES), *other = absmax + OUTPUTS4 * (int64_t)blocks + 2 * TILE;
    rows4 q = rows4_from(p, from, to, absmax);
    while (q.behind.block < q.behind.end) some_absmaxes4(&q.behind);
    tiles4_begin(together);
    for (int turn = 0; from < to; turn ^= 1) {
        rows4 next = rows4_from(p, from + q.n, to, turn ? absmax : other);
        q.behind = next.behind;
        for (int32_t row = 0; row < p->x.rows; row += TILE) {
            multiply4(&q, (const char *)p->x.data + row / TILE * group, 4 * together, room, sums);
            finish4(p, row, p->x.rows - row < TILE ? p->x.rows - row : TILE, from, q.n, sums);
        }
        while (q.behind.block < q.behind.end) some_absmaxes4(&q.behind);
        from += q.n;
        q = next;
    }
    tiles_end();
}
