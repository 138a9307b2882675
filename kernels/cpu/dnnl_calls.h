/* dnnl_calls.h - oneDNN's functions that allocate, as C needs them: with a status where they would throw.
 *
 * The one idea: oneDNN 2.6 lets std::bad_alloc pass through its C interface, which ends a process that has no C++ frame to
 * catch it. Each call here catches at once, so no exception passes through C.
 */
#ifndef RV_KERNELS_DNNL_CALLS_H
#define RV_KERNELS_DNNL_CALLS_H
#include <dnnl.h>

#ifdef __cplusplus
extern "C" {
#endif

/* Each as its namesake without rv_; dnnl_out_of_memory, or dnnl_runtime_error for any other exception. */
dnnl_status_t rv_dnnl_engine_create(dnnl_engine_t *out, dnnl_engine_kind_t kind, size_t index);
dnnl_status_t rv_dnnl_stream_create(dnnl_stream_t *out, dnnl_engine_t engine, unsigned flags);
dnnl_status_t rv_dnnl_stream_wait(dnnl_stream_t stream);
dnnl_status_t rv_dnnl_memory_create(dnnl_memory_t *out, const dnnl_memory_desc_t *md, dnnl_engine_t engine, void *handle);
dnnl_status_t rv_dnnl_primitive_attr_create(dnnl_primitive_attr_t *out);
dnnl_status_t rv_dnnl_primitive_desc_create(dnnl_primitive_desc_t *out, const_dnnl_op_desc_t op, const_dnnl_primitive_attr_t attr, dnnl_engine_t engine,
                                            const_dnnl_primitive_desc_t hint);
dnnl_status_t rv_dnnl_reorder_primitive_desc_create(dnnl_primitive_desc_t *out, const dnnl_memory_desc_t *from, dnnl_engine_t from_engine,
                                                    const dnnl_memory_desc_t *to, dnnl_engine_t to_engine, const_dnnl_primitive_attr_t attr);
dnnl_status_t rv_dnnl_primitive_create(dnnl_primitive_t *out, const_dnnl_primitive_desc_t pd);
dnnl_status_t rv_dnnl_primitive_execute(const_dnnl_primitive_t primitive, dnnl_stream_t stream, int n, const dnnl_exec_arg_t *args);

#ifdef __cplusplus
}
#endif
#endif
