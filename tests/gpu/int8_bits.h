/* int8_bits.h - of int8_gpu.cu: products of few rows whose bits must be those of others.
 *
 * The one idea: a row's bits depend neither on the rows beside it nor on the kernel that makes them.
 */
#ifndef TESTS_GPU_INT8_BITS_H
#define TESTS_GPU_INT8_BITS_H

static bool same(const std::vector<float> &a, const std::vector<float> &b, size_t from_b) { return !a.empty() && !memcmp(a.data(), &b[from_b], a.size() * 4); }

static void a_row_does_not_depend_on_its_neighbours(int32_t how, kind kind, loaded &l) {
    const int32_t rows = l.w->head.rows, cols = l.w->head.cols, out_cols = how == rv_few::RV_FEW_SWIGLU ? rows / 2 : rows;
    const case_ c = { 64, how, kind, false, how != rv_few::RV_FEW_SWIGLU, { 6, false } };
    std::vector<uint16_t> x;
    std::vector<float> bias, row_scale;
    operands o = operands_of(c, x, 64, cols, cols, rows, bias, row_scale);
    const std::vector<float> all = run(c, o, l, 0, 64);
    for (int32_t multiprocessors : { 0, 32 })         /* with fewer, gate and up have larger tiles of some rows */
        for (int32_t n : { 1, 2, 3, 7, 8, 9, 16, 17, 32, 33, 64 })
            for (int32_t from : { 0, 1, 5 })
                for (int32_t fused : { 0, (int32_t)RV_CUDA_INT8_FUSED, 8 }) {
                    if (from + n > 64 || (fused != RV_CUDA_INT8_FUSED && n > 8) || (multiprocessors && how != rv_few::RV_FEW_SWIGLU)) continue;
                    case_ some = c;
                    some.multiprocessors = multiprocessors;
                    EXPECT(same(run(some, o, l, from, n, fused), all, (size_t)from * (size_t)out_cols), "%d x %d, how %d, %s: %d rows from %d, fused %d, %d multiprocessors: other bits", rows,
                           cols, how, kind_name[kind], n, from, fused, multiprocessors);
                }
    drop(o);
}

/* Hopper's own kernel has the bits of the older one, with every width of tiles, and one of them a block or several. */
static void hopper_has_the_same_bits(int32_t how, kind kind, float threshold, loaded &l) {
    const int32_t rows = l.w->head.rows, cols = l.w->head.cols;
    case_ c = { 64, how, kind, false, how != rv_few::RV_FEW_SWIGLU, { threshold, false } };
    std::vector<uint16_t> x;
    std::vector<float> bias, row_scale;
    operands o = operands_of(c, x, 64, cols, cols, rows, bias, row_scale);
    c.wide = OLDER;
    const std::vector<float> all = run(c, o, l, 0, 64);
    for (c.wide = 32; c.wide <= 112; c.wide += c.wide == 32 ? 16 : 64)
        for (int32_t n : { 3, 16, 32, 33, 61, 64 })
            for (int32_t multiprocessors : { 0, 5, 1 }) {
                c.multiprocessors = multiprocessors;
                EXPECT(same(run(c, o, l, 0, n), all, 0), "%d x %d, how %d, %s, threshold %g: %d rows, %d of weights a tile, %d multiprocessors: other bits", rows, cols, how, kind_name[kind],
                       (double)threshold, n, c.wide, multiprocessors);
            }
    drop(o);
}
#endif
