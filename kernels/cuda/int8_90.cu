/* int8_90.cu - products of int8_90.cuh: which there are, and their launches; those in bf16. */
#include "kernels/cuda/int8_90.cuh"

/* int8_f16_90.cu */
extern template cudaError_t launch_int8_90<__half>(const rv_int8 *, const rv_int8_many *, const args8 &, bool, cudaStream_t);

bool rv_cuda_int8_90_fits(const rv_int8 *q) {
    const rv_few *p = &q->p;
    const bool f32 = p->out.type == RV_F32;
    const bool by_call = q->rules.by_call && q->call.rows > 1 && q->rules.threshold != 0;
    if (p->norm && (by_call || p->cols > RV_CUDA_NORM_MOST || p->cols % 16)) return false;
    return p->x.rows > 0 && p->rows % (p->how == rv_few::RV_FEW_SWIGLU ? 2 * RV_CUDA_GATE_BLOCK : 8) == 0 && in_pieces(p->w, q->pitch, 1) && in_pieces(p->out.data, p->out.ld, f32 ? 4 : 2) &&
           (uintptr_t)p->bias % 8 == 0 && (uintptr_t)q->w_scale % 16 == 0 &&
           (p->how == rv_few::RV_FEW_STORE || (p->how == rv_few::RV_FEW_ADD && f32) || ((p->how == rv_few::RV_FEW_GELU || p->how == rv_few::RV_FEW_SWIGLU) && !f32));
}

/* Bits of dense rows lie behind those of columns. */
enum { MOST_ROWS = 1 << 16 };
static_assert((RV_CUDA_INT8_MOST + MOST_ROWS) / 8 + 64 <= RV_CUDA_MARKS_BYTES, "marks have no room for so many");
int32_t rv_cuda_int8_90_rows(const rv_int8 *q) {
    const uint64_t all = RV_CUDA_PARTIAL_BYTES - RV_CUDA_COUNTERS * 4;
    int32_t n = q->p.x.rows < MOST_ROWS ? q->p.x.rows : (int32_t)MOST_ROWS;
    while (n && rv_cuda_int8_many(q->room, n, q->p.rows, q->pitch, q->p.norm != NULL, rv_cuda_int8_before(q)).bytes > all) n = n > 256 ? (n - 1) / 256 * 256 : n - 1;
    return n;
}

cudaError_t rv_cuda_int8_90(const rv_int8 *q, bool overlap, cudaStream_t stream) {
    const rv_few *p = &q->p;
    const bool before = rv_cuda_int8_before(q);
    const rv_int8_many room = rv_cuda_int8_many(q->room, p->x.rows, p->rows, q->pitch, p->norm != NULL, before);
    args8 g;
    g.a = { p->out.data, NULL, p->row_scale, p->out.ld, p->x.rows, p->rows, parts(q->pitch, LINE), 0, 0, p->x.rows > p->rows, p->scale };
    g.x_rows = (const int8_row *)room.rows;
    g.w_scale = q->w_scale;
    g.bias = p->bias;
    g.more = before ? room.more : NULL;
    g.x = room.h ? room.h : p->x.data;
    g.w = (const int8_t *)p->w;
    g.x_ld = room.h ? q->pitch : p->x.ld;
    g.pitch = q->pitch;
    g.threshold = q->rules.by_call && q->call.rows > 1 ? 0.f : q->rules.threshold;
    const bool outliers = q->rules.threshold != 0;
    g.marks = outliers ? (uint32_t *)q->marks : NULL;
    g.wipes = outliers && before;
    if (!rv_cuda_int8_may_cut(q, q->cut)) return cudaErrorInvalidValue;
    cudaError_t e = rv_cuda_quantise_many(q, &room, overlap, stream);
    if (!e && outliers && before) e = rv_cuda_outliers90(q, &room, overlap, stream);
    if (!e) e = p->act == RV_BF16 ? launch_int8_90<__nv_bfloat16>(q, &room, g, overlap, stream) : launch_int8_90<__half>(q, &room, g, overlap, stream);
    if (!e && outliers && !before) e = rv_cuda_outliers90(q, &room, overlap, stream);
    /* Who would have wiped them may not have been launched. */
    if (e && outliers) (void)cudaMemsetAsync(q->marks, 0, RV_CUDA_MARKS_BYTES, stream);
    return e;
}

template cudaError_t launch_int8_90<__nv_bfloat16>(const rv_int8 *, const rv_int8_many *, const args8 &, bool, cudaStream_t);
RV_CUDA_CLAMPED(int8_90)
