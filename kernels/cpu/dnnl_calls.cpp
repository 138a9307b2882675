/* dnnl_calls.cpp - see dnnl_calls.h; the only C++ of the library. */
#include "kernels/cpu/dnnl_calls.h"

#include <cstdlib>
#include <new>

enum { RESERVE = 4 << 20 };

/* Where oneDNN's own aligned allocation fails it goes on with a null pointer (2.6: operator new of its classes), which nothing
 * here can catch. So it is asked only where there is memory for all that such a call takes. */
static bool have_memory() {
    void *block = nullptr;
    if (posix_memalign(&block, 64, RESERVE)) return false;
    free(block);
    return true;
}

/* A primitive whose making threw stays in oneDNN's own cache as a promise that nobody keeps: whoever asks for it again fails or
 * waits for ever. An empty cache asks no one. */
static void forget() {
    int capacity = 0;
    try {
        if (dnnl_get_primitive_cache_capacity(&capacity) || dnnl_set_primitive_cache_capacity(0)) return;
        dnnl_set_primitive_cache_capacity(capacity);
    } catch (...) {
    }
}

/* For calls that every product makes: they allocate nothing aligned. */
template <typename F, typename... A> static dnnl_status_t caught(F *f, A... args) {
    dnnl_status_t st;
    try {
        return f(args...);
    } catch (const std::bad_alloc &) {
        st = dnnl_out_of_memory;
    } catch (...) {
        st = dnnl_runtime_error;
    }
    forget();
    return st;
}

template <typename F, typename... A> static dnnl_status_t guarded(F *f, A... args) { return have_memory() ? caught(f, args...) : dnnl_out_of_memory; }

extern "C" {

dnnl_status_t rv_dnnl_engine_create(dnnl_engine_t *out, dnnl_engine_kind_t kind, size_t index) { return guarded(dnnl_engine_create, out, kind, index); }

dnnl_status_t rv_dnnl_stream_create(dnnl_stream_t *out, dnnl_engine_t engine, unsigned flags) { return guarded(dnnl_stream_create, out, engine, flags); }

dnnl_status_t rv_dnnl_stream_wait(dnnl_stream_t stream) { return caught(dnnl_stream_wait, stream); }

dnnl_status_t rv_dnnl_memory_create(dnnl_memory_t *out, const dnnl_memory_desc_t *md, dnnl_engine_t engine, void *handle) {
    return guarded(dnnl_memory_create, out, md, engine, handle);
}

dnnl_status_t rv_dnnl_primitive_attr_create(dnnl_primitive_attr_t *out) { return guarded(dnnl_primitive_attr_create, out); }

dnnl_status_t rv_dnnl_primitive_desc_create(dnnl_primitive_desc_t *out, const_dnnl_op_desc_t op, const_dnnl_primitive_attr_t attr, dnnl_engine_t engine,
                                            const_dnnl_primitive_desc_t hint) {
    return guarded(dnnl_primitive_desc_create, out, op, attr, engine, hint);
}

dnnl_status_t rv_dnnl_reorder_primitive_desc_create(dnnl_primitive_desc_t *out, const dnnl_memory_desc_t *from, dnnl_engine_t from_engine,
                                                    const dnnl_memory_desc_t *to, dnnl_engine_t to_engine, const_dnnl_primitive_attr_t attr) {
    return guarded(dnnl_reorder_primitive_desc_create, out, from, from_engine, to, to_engine, attr);
}

dnnl_status_t rv_dnnl_primitive_create(dnnl_primitive_t *out, const_dnnl_primitive_desc_t pd) { return guarded(dnnl_primitive_create, out, pd); }

dnnl_status_t rv_dnnl_primitive_execute(const_dnnl_primitive_t primitive, dnnl_stream_t stream, int n, const dnnl_exec_arg_t *args) {
    return caught(dnnl_primitive_execute, primitive, stream, n, args);
}
}
