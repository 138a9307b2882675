/* kernels.inl - the inner loops, compiled once for each instruction set (kernels_*.c).
 *
 * The one idea: whatever is blocked for speed (several rows a weight load, several outputs in
 * flight), each single result is summed in one order that depends on the summed length alone.
 * So a row's result is the same bits whatever stands beside it.
 *
 * Compiled with -ffp-contract=fast: a * b + c is one fused operation where the CPU has it.
 */
#include <math.h>
#include "kernels/cpu/cpu.h"
#include "kernels/cpu/simd.h"
#include "kernels/cpu/rows.inl"
#include "kernels/cpu/few.inl"
#include "kernels/cpu/quantise.inl"
#include "kernels/cpu/few8.inl"
#include "kernels/cpu/few4.inl"
#include "kernels/cpu/many.inl"
#ifdef RV_DOT_BF16
#include "kernels/cpu/attend_runs.inl"
#endif
#include "kernels/cpu/attend.inl"
#if defined(RV_TILES)
#include "kernels/cpu/tiles.inl"
#include "kernels/cpu/many_tiles.inl"
#include "kernels/cpu/few4_tiles.inl"
#include "kernels/cpu/attend_tiles.inl"
#elif defined(RV_DOT_BF16)
#include "kernels/cpu/attend_dot.inl"
#endif

const rv_cpu_kernels RV_KERNELS = {
    .name = RV_KERNELS_NAME,
    .convert = convert, .norm = norm, .swiglu = swiglu, .rope = rope, .add_scaled = add_scaled,
    .product_few = product_few, .product_many = product_many, .finish_row = finish_row,
    .attend_few = attend_few, .attend_many = attend_many, .panel = PANEL,
#if defined(RV_TILES)
    .tiles_pack = tiles_pack, .product_tiles = product_tiles, .attend_pairs = attend_tiles,
    .pack4 = pack4, .product4_tiles = product4_tiles,
#elif defined(RV_DOT_BF16)
    .attend_pairs = attend_runs,
#endif
#ifdef RV_DOT_BF16
    .few_keys = FEW_RUN,
#endif
    .int8_weights = int8_weights, .nf4_quantise = nf4_quantise, .int8_row = int8_row,
    .weight4 = weight4, .order4 = order4, .product8 = product8, .product4 = product4,
};
