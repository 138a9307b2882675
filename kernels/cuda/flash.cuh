/* flash.cuh - runs of rows of one sequence, as attention of many rows walks over their keys: for every kernel set but Hopper's.
 *
 * The one idea: a tile's rows are served run by run; a room has `first`, `last` and `slot` of its ROWS rows, and the `run` at hand.
 */
#ifndef RV_KERNELS_CUDA_FLASH_CUH
#define RV_KERNELS_CUDA_FLASH_CUH
#include "kernels/cuda/parts.cuh"

/* The run of rows [from, to) of the tile that one walk over the keys serves: the keys that any and that all of them see. */
struct flash_run { int32_t from, to, slot, lowest, highest, full_from, full_to; };

/* The run that begins at row `from`, to room.run; returns where it ends. */
template <typename Room> static __device__ __forceinline__ int32_t next_run(Room &room, bool slots, int32_t from, int32_t rows) {
    int32_t r = (int32_t)threadIdx.x, big = 0x7fffffff, to = rows, slot = slots ? room.slot[from] : 0;
    flash_run &run = room.run;
    if (slots)
        for (to = from + 1; to < rows && room.slot[to] == slot; to++) {}
    __syncthreads();                       /* all are done with the run before                   */
    if (r == 0) run = { from, to, slot, big, -1, -1, big };
    __syncthreads();
    bool sees = r >= from && r < to && room.last[r < room.ROWS ? r : 0] >= room.first[r < room.ROWS ? r : 0];
    if (sees) {
        atomicMin(&run.lowest, room.first[r]);
        atomicMax(&run.full_from, room.first[r]);
        atomicMax(&run.highest, room.last[r]);
        atomicMin(&run.full_to, room.last[r]);
    }
    __syncthreads();
    return to;
}

template <typename T>
static __device__ __forceinline__ int32_t key_row_of(const attend_args<T> &a, const flash_run &run, int32_t key) {
    return key >= run.lowest && key <= run.highest ? key_row(a, run.slot, key) : (int32_t)NO_KEY;
}
#endif
