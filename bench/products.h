/* products.h - what matrix libraries make of this CPU, measured beside the engine: the ceiling of its products. */
#ifndef RV_BENCH_PRODUCTS_H
#define RV_BENCH_PRODUCTS_H
#include "bench/device.h"

/* FLOP a second, the best of several square products with all threads; 0: not there. */
typedef struct library_products {
    double onednn_bf16;                          /* weights packed, results bf16; the build's oneDNN */
    double onednn_f32;
    double openblas_f32;                         /* libopenblas.so.0, loaded if the machine has it */
    int    side;                                 /* of onednn_bf16's matrices                    */
} library_products;

typedef struct product_size { int rows, cols, inner; } product_size;     /* [rows x inner] times [inner x cols] */

/* On a CPU; `threads` 0: one a core. Keeps what is better than what is in `best` already. */
void measure_libraries(uint64_t threads, library_products *best);
/* FLOP a second of oneDNN on matrices of this size: weights packed, results in the operands' type (BF16 or F32), nothing added. 0: not there. */
double measure_onednn_product(uint64_t threads, product_size p, rv_compute compute);
/* A CPU's product ceiling is what a library reaches in the operands' type, where one is there. */
void libraries_are_the_ceiling(const library_products *l, rv_ceilings *c);
void print_libraries(const library_products *l);
json_t *libraries_json(const library_products *l);
#endif
