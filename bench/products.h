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
/* A product of oneDNN's of this size: weights packed, results in the operands' type (BF16 or F32), nothing added.  NULL: not there.
 * Run once before it is returned.  One at a time: it sets the number of threads. */
typedef struct library_product library_product;
library_product *library_product_new(uint64_t threads, product_size p, rv_compute compute);
double library_product_run(library_product *p);  /* FLOP a second of one more; 0: it failed      */
void   library_product_free(library_product *p); /* NULL: nothing                                */
/* A CPU's product ceiling is what a library reaches in the operands' type, where one is there. */
void libraries_are_the_ceiling(const library_products *l, rv_ceilings *c);
void print_libraries(const library_products *l);
json_t *libraries_json(const library_products *l);
#endif
