/* runtime.c - CUDA's runtime without a GPU; see fake.h. */
#include <pthread.h>
#include <stdarg.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>

#include "tests/fake_gpu/made.h"

/* What nvcc's host code calls besides the documented functions. */
void **__cudaRegisterFatBinary(void *binary);
void __cudaRegisterFatBinaryEnd(void **module);
void __cudaUnregisterFatBinary(void **module);
void __cudaRegisterFunction(void **module, const char *host, char *device, const char *name, int threads, void *tid, void *bid, dim3 *block, dim3 *grid, int *warp);
void __cudaRegisterVar(void **module, char *host, char *device, const char *name, int external, size_t bytes, int constant, int global);
char __cudaInitModule(void **module);
unsigned __cudaPushCallConfiguration(dim3 grid, dim3 block, size_t shared, cudaStream_t stream);
cudaError_t __cudaPopCallConfiguration(dim3 *grid, dim3 *block, size_t *shared, void *stream);
cudaError_t __cudaGetKernel(void **kernel, const void *host);
cudaError_t __cudaLaunchKernel(void *kernel, dim3 grid, dim3 block, void **args, size_t shared, cudaStream_t stream);

enum { KINDS = FAKE_KINDS, MODULES = 128, TABLE = 1 << 14, MOST_CODES = 16 };

struct fake_made { fake_kind kind; int gpu; bool captures; uint64_t bytes; struct fake_made *next, *before; };
typedef struct fake_made made;

static pthread_mutex_t lock = PTHREAD_MUTEX_INITIALIZER;
static fake_gpu machine[FAKE_GPUS + 1];                  /* the last has nothing: a context of the caller's own */
static int n_gpus;
static made *first_made;
static uint64_t taken[FAKE_GPUS + 1], launches;
static int64_t refuse_at;
static bool has_refused;
static char misuse[256];

/* A thread's GPU: what it has pushed last, else what it has set. */
static _Thread_local int set_gpu, pushed[8], n_pushed;
static _Thread_local unsigned machine_seen;
static unsigned machine_now;                         /* counts fake_gpus's calls                 */
static _Thread_local cudaError_t last;
static _Thread_local struct { dim3 grid, block; size_t shared; cudaStream_t stream; } configured;

/* ---- what the test says and asks ---- */

void fake_misused(const char *format, ...) {
    char text[sizeof misuse];
    va_list args;
    va_start(args, format);
    vsnprintf(text, sizeof text, format, args);
    va_end(args);
    pthread_mutex_lock(&lock);
    if (!*misuse) memcpy(misuse, text, sizeof misuse);
    pthread_mutex_unlock(&lock);
}

const char *fake_misuse(void) { return *misuse ? misuse : NULL; }

void fake_gpus(const fake_gpu *gpus, int32_t n) {
    char what[128];
    if (fake_alive(what, sizeof what)) fprintf(stderr, "fake_gpus: alive: %s\n", what), abort();
    memcpy(machine, gpus, (size_t)n * sizeof *gpus);
    n_gpus = n;
    machine_now++;
    refuse_at = 0;
    has_refused = false;
    *misuse = '\0';
}

void fake_refuse(int64_t nth) {
    pthread_mutex_lock(&lock);
    refuse_at = nth;
    has_refused = false;
    pthread_mutex_unlock(&lock);
}

int fake_refused(void) { return has_refused; }

uint64_t fake_launches(void) {
    pthread_mutex_lock(&lock);
    const uint64_t n = launches;
    pthread_mutex_unlock(&lock);
    return n;
}

uint64_t fake_alive(char *what, size_t n) {
    static const char *const names[KINDS] = { "device memory", "pinned memory", "streams", "events", "graphs", "runnable graphs", "cuBLASLt's" };
    uint64_t count[KINDS] = { 0 }, all = 0;
    size_t at = 0;
    pthread_mutex_lock(&lock);
    for (const made *m = first_made; m; m = m->next) count[m->kind]++, all++;
    pthread_mutex_unlock(&lock);
    if (n) *what = '\0';
    for (int k = 0; k < KINDS; k++)
        if (count[k] && at < n) at += (size_t)snprintf(what + at, n - at, "%s%llu of %s", at ? ", " : "", (unsigned long long)count[k], names[k]);
    return all;
}

/* ---- errors, and whose GPU it is ---- */

static int now(void) {
    if (machine_seen != machine_now) machine_seen = machine_now, set_gpu = n_pushed = 0;
    return n_pushed ? pushed[n_pushed - 1] : set_gpu;
}

cudaError_t fake_fail(cudaError_t e) {
    if (e) last = e;
    return e;
}

cudaError_t cudaGetLastError(void) {
    const cudaError_t e = last;
    last = cudaSuccess;
    return e;
}
cudaError_t cudaPeekAtLastError(void) { return last; }

const char *cudaGetErrorString(cudaError_t e) {
    switch ((int)e) {
    case cudaSuccess: return "no error";
    case cudaErrorMemoryAllocation: return "out of memory";
    case cudaErrorInvalidSymbol: return "invalid device symbol";
    case cudaErrorInvalidResourceHandle: return "invalid resource handle";
    case cudaErrorNoKernelImageForDevice: return "no kernel image is available for execution on the device";
    default: return "an error that the fake GPU has no words for";
    }
}

const char *cudaGetErrorName(cudaError_t e) {
    switch ((int)e) {
    case cudaSuccess: return "cudaSuccess";
    case cudaErrorMemoryAllocation: return "cudaErrorMemoryAllocation";
    case cudaErrorInvalidSymbol: return "cudaErrorInvalidSymbol";
    case cudaErrorInvalidResourceHandle: return "cudaErrorInvalidResourceHandle";
    case cudaErrorNoKernelImageForDevice: return "cudaErrorNoKernelImageForDevice";
    default: return "cudaErrorOfTheFakeGPU";
    }
}

cudaError_t cudaGetDeviceCount(int *n) {
    *n = n_gpus;
    return fake_fail(n_gpus ? cudaSuccess : cudaErrorNoDevice);
}

cudaError_t cudaDriverGetVersion(int *version) { return *version = CUDART_VERSION, cudaSuccess; }
cudaError_t cudaGetDevice(int *gpu) { return *gpu = now(), cudaSuccess; }

cudaError_t cudaSetDevice(int gpu) {
    now();
    if (gpu < 0 || gpu >= n_gpus) return fake_fail(cudaErrorInvalidDevice);
    *(n_pushed ? &pushed[n_pushed - 1] : &set_gpu) = gpu;
    return cudaSuccess;
}

cudaError_t cudaGetDeviceProperties(struct cudaDeviceProp *p, int gpu) {
    if (gpu < 0 || gpu >= n_gpus) return fake_fail(cudaErrorInvalidDevice);
    memset(p, 0, sizeof *p);
    snprintf(p->name, sizeof p->name, "fake GPU %d", gpu);
    p->major = machine[gpu].capability / 10;
    p->minor = machine[gpu].capability % 10;
    p->multiProcessorCount = 32;
    p->totalGlobalMem = machine[gpu].memory;
    return cudaSuccess;
}

/* Shared memory as CUDA's guide has it for compute capabilities. */
cudaError_t cudaDeviceGetAttribute(int *value, enum cudaDeviceAttr which, int gpu) {
    if (gpu < 0 || gpu >= n_gpus) return fake_fail(cudaErrorInvalidDevice);
    const int32_t is = machine[gpu].capability;
    const int kib = is == 70 ? 96 : is == 75 ? 64 : is == 80 ? 164 : is == 86 || is == 89 || is / 10 == 12 ? 100 : 228;
    switch ((int)which) {
    case cudaDevAttrMaxSharedMemoryPerMultiprocessor: *value = kib << 10; break;
    case cudaDevAttrMaxSharedMemoryPerBlockOptin: *value = (is < 80 ? kib : kib - 1) << 10; break;
    case cudaDevAttrReservedSharedMemoryPerBlock: *value = is < 80 ? 0 : 1 << 10; break;
    case cudaDevAttrMultiProcessorCount: *value = 32; break;
    case cudaDevAttrCooperativeLaunch: *value = 1; break;
    default: fake_misused("cudaDeviceGetAttribute(%d): the fake GPU does not know it", (int)which); return fake_fail(cudaErrorInvalidValue);
    }
    return cudaSuccess;
}

cudaError_t cudaMemGetInfo(size_t *unused, size_t *total) {
    const int gpu = now();
    if (!n_gpus) return fake_fail(cudaErrorNoDevice);
    pthread_mutex_lock(&lock);
    *total = machine[gpu].memory;
    *unused = machine[gpu].memory - taken[gpu];
    pthread_mutex_unlock(&lock);
    return cudaSuccess;
}

/* ---- what is made and ended ---- */

/* Device memory in huge pages: tests take some 100 MB a model, hundreds of times. */
enum { HUGE = 2 << 20 };

static made *zeroed(uint64_t bytes) {
    made *m = aligned_alloc(HUGE, (bytes + HUGE - 1) / HUGE * HUGE);
    if (!m) return NULL;
    madvise(m, bytes, MADV_HUGEPAGE);
    return memset(m, 0, bytes);
}

made *fake_make(fake_kind kind, uint64_t bytes, bool may_refuse) {
    made *m = NULL;
    const int gpu = now();
    pthread_mutex_lock(&lock);
    const bool refused = may_refuse && refuse_at > 0 && --refuse_at == 0;
    if (refused) has_refused = true;
    else if (kind != FAKE_MEMORY || machine[gpu].memory - taken[gpu] >= bytes) m = kind == FAKE_MEMORY && bytes > HUGE ? zeroed(sizeof *m + bytes + 256) : calloc(1, sizeof *m + (kind == FAKE_MEMORY ? bytes + 256 : 0));
    if (m) {
        *m = (made){ .kind = kind, .gpu = gpu, .bytes = bytes, .next = first_made };
        if (first_made) first_made->before = m;
        first_made = m;
        if (kind == FAKE_MEMORY) taken[gpu] += bytes;
    }
    pthread_mutex_unlock(&lock);
    if (!m) fake_fail(cudaErrorMemoryAllocation);
    return m;
}

static bool is_alive(const made *wanted, fake_kind kind) {
    const made *m = first_made;
    while (m && m != wanted) m = m->next;
    return m && m->kind == kind;
}

cudaError_t fake_end(void *what, fake_kind kind) {
    made *m = what;
    pthread_mutex_lock(&lock);
    const bool good = is_alive(m, kind);
    if (good) {
        *(m->before ? &m->before->next : &first_made) = m->next;
        if (m->next) m->next->before = m->before;
        if (kind == FAKE_MEMORY) taken[m->gpu] -= m->bytes;
    }
    pthread_mutex_unlock(&lock);
    if (!good) {
        fake_misused("something of kind %d was ended that is not alive", (int)kind);
        return fake_fail(cudaErrorInvalidResourceHandle);
    }
    free(m);
    return cudaSuccess;
}

static cudaError_t make(void *out, fake_kind kind) {
    made *m = fake_make(kind, 0, true);
    if (!m) return cudaErrorMemoryAllocation;
    memcpy(out, &m, sizeof m);
    return cudaSuccess;
}

/* Memory lies behind what is known of it, at a multiple of 256. */
static char *memory_of(made *m) { return (char *)(((uintptr_t)(m + 1) + 255) / 256 * 256); }

cudaError_t cudaMalloc(void **out, size_t bytes) {
    made *m = fake_make(FAKE_MEMORY, bytes, true);
    if (!m) return cudaErrorMemoryAllocation;
    *out = memory_of(m);
    return cudaSuccess;
}

cudaError_t cudaFree(void *p) {
    if (!p) return cudaSuccess;
    pthread_mutex_lock(&lock);
    made *m = first_made;
    while (m && (m->kind != FAKE_MEMORY || memory_of(m) != p)) m = m->next;
    pthread_mutex_unlock(&lock);
    if (m) return fake_end(m, FAKE_MEMORY);
    fake_misused("cudaFree of what cudaMalloc did not give");
    return fake_fail(cudaErrorInvalidValue);
}

/* Pinned memory is known by where it begins. */
static made *pinned_at(const void *p) {
    made *m = first_made;
    while (m && (m->kind != FAKE_PINNED || m->bytes != (uint64_t)(uintptr_t)p)) m = m->next;
    return m;
}

static cudaError_t pin(const void *p) { return fake_make(FAKE_PINNED, (uint64_t)(uintptr_t)p, true) ? cudaSuccess : cudaErrorMemoryAllocation; }

static cudaError_t unpin(const void *p) {
    pthread_mutex_lock(&lock);
    made *m = pinned_at(p);
    pthread_mutex_unlock(&lock);
    return fake_end(m, FAKE_PINNED);
}

cudaError_t cudaHostRegister(void *p, size_t bytes, unsigned flags) { return (void)bytes, (void)flags, pin(p); }
cudaError_t cudaHostUnregister(void *p) { return unpin(p); }
cudaError_t cudaHostGetDevicePointer(void **out, void *p, unsigned flags) { return (void)flags, *out = p, cudaSuccess; }

cudaError_t cudaMallocHost(void **out, size_t bytes) {
    *out = malloc(bytes);
    if (*out && !pin(*out)) return cudaSuccess;
    free(*out);
    *out = NULL;
    return cudaErrorMemoryAllocation;
}

cudaError_t cudaFreeHost(void *p) {
    const cudaError_t e = p ? unpin(p) : cudaSuccess;
    free(p);
    return e;
}

cudaError_t cudaStreamCreateWithFlags(cudaStream_t *out, unsigned flags) { return (void)flags, make(out, FAKE_STREAM); }
cudaError_t cudaStreamDestroy(cudaStream_t s) { return fake_end(s, FAKE_STREAM); }
cudaError_t cudaEventCreate(cudaEvent_t *out) { return make(out, FAKE_EVENT); }
cudaError_t cudaEventCreateWithFlags(cudaEvent_t *out, unsigned flags) { return (void)flags, make(out, FAKE_EVENT); }
cudaError_t cudaEventDestroy(cudaEvent_t e) { return fake_end(e, FAKE_EVENT); }

/* ---- what is queued ---- */

/* NULL: the default stream, which belongs to whatever is current. */
static cudaError_t check_stream(const void *stream, const char *call, bool *captures) {
    const made *s = stream;
    const int gpu = now();
    *captures = false;
    if (!s) return cudaSuccess;
    pthread_mutex_lock(&lock);
    const bool good = is_alive(s, FAKE_STREAM);
    const int owner = good ? s->gpu : -1;
    *captures = good && s->captures;
    pthread_mutex_unlock(&lock);
    if (owner == gpu) return cudaSuccess;
    if (!good) fake_misused("%s: a stream that is not alive", call);
    else fake_misused("%s: a stream of GPU %d while GPU %d is current", call, owner, gpu);
    return fake_fail(cudaErrorInvalidResourceHandle);
}

static cudaError_t copy(void *to, const void *from, size_t bytes, const void *stream, const char *call) {
    bool captures;
    const cudaError_t e = check_stream(stream, call, &captures);
    if (!e && !captures) memmove(to, from, bytes);
    return e;
}

cudaError_t cudaMemcpy(void *to, const void *from, size_t bytes, enum cudaMemcpyKind kind) { return (void)kind, copy(to, from, bytes, NULL, "cudaMemcpy"); }
cudaError_t cudaMemcpyAsync(void *to, const void *from, size_t bytes, enum cudaMemcpyKind kind, cudaStream_t stream) {
    return (void)kind, copy(to, from, bytes, stream, "cudaMemcpyAsync");
}
cudaError_t cudaMemcpy2DAsync(void *to, size_t to_pitch, const void *from, size_t from_pitch, size_t width, size_t height, enum cudaMemcpyKind kind, cudaStream_t stream) {
    cudaError_t e = cudaSuccess;
    (void)kind;
    for (size_t r = 0; !e && r < height; r++) e = copy((char *)to + r * to_pitch, (const char *)from + r * from_pitch, width, stream, "cudaMemcpy2DAsync");
    return e;
}

cudaError_t cudaMemsetAsync(void *to, int value, size_t bytes, cudaStream_t stream) {
    bool captures;
    const cudaError_t e = check_stream(stream, "cudaMemsetAsync", &captures);
    if (!e && !captures) memset(to, value, bytes);
    return e;
}
cudaError_t cudaMemset2DAsync(void *to, size_t pitch, int value, size_t width, size_t height, cudaStream_t stream) {
    cudaError_t e = cudaSuccess;
    for (size_t r = 0; !e && r < height; r++) e = cudaMemsetAsync((char *)to + r * pitch, value, width, stream);
    return e;
}

static cudaError_t check_event(const void *event, const char *call) {
    pthread_mutex_lock(&lock);
    const bool good = is_alive(event, FAKE_EVENT);
    pthread_mutex_unlock(&lock);
    if (good) return cudaSuccess;
    fake_misused("%s: an event that is not alive", call);
    return fake_fail(cudaErrorInvalidResourceHandle);
}

cudaError_t cudaEventRecord(cudaEvent_t event, cudaStream_t stream) {
    bool captures;
    const cudaError_t e = check_event(event, "cudaEventRecord");
    if (e) return e;
    if (((const made *)(const void *)event)->gpu != (stream ? ((const made *)(const void *)stream)->gpu : now())) {
        fake_misused("cudaEventRecord: event and stream are of two GPUs");
        return fake_fail(cudaErrorInvalidResourceHandle);
    }
    return check_stream(stream, "cudaEventRecord", &captures);
}
cudaError_t cudaStreamWaitEvent(cudaStream_t stream, cudaEvent_t event, unsigned flags) {
    bool captures;
    const cudaError_t e = check_event(event, "cudaStreamWaitEvent");
    (void)flags;
    return e ? e : check_stream(stream, "cudaStreamWaitEvent", &captures);
}
cudaError_t cudaEventSynchronize(cudaEvent_t event) { return check_event(event, "cudaEventSynchronize"); }
cudaError_t cudaEventElapsedTime(float *ms, cudaEvent_t from, cudaEvent_t to) {
    const cudaError_t e = check_event(from, "cudaEventElapsedTime");
    *ms = 0;
    return e ? e : check_event(to, "cudaEventElapsedTime");
}
cudaError_t cudaStreamSynchronize(cudaStream_t stream) {
    bool captures;
    return check_stream(stream, "cudaStreamSynchronize", &captures);
}

/* ---- graphs ---- */

cudaError_t cudaStreamBeginCapture(cudaStream_t stream, enum cudaStreamCaptureMode mode) {
    bool captures;
    const cudaError_t e = check_stream(stream, "cudaStreamBeginCapture", &captures);
    (void)mode;
    if (!e) ((made *)(void *)stream)->captures = true;
    return e;
}
cudaError_t cudaStreamEndCapture(cudaStream_t stream, cudaGraph_t *out) {
    bool captures;
    cudaError_t e = check_stream(stream, "cudaStreamEndCapture", &captures);
    *out = NULL;
    if (!e && !captures) e = fake_fail(cudaErrorIllegalState);
    if (!e) ((made *)(void *)stream)->captures = false;
    return e ? e : make(out, FAKE_GRAPH);
}
cudaError_t cudaGraphInstantiateWithFlags(cudaGraphExec_t *out, cudaGraph_t graph, unsigned long long flags) { return (void)graph, (void)flags, make(out, FAKE_RUNNABLE); }
cudaError_t cudaGraphUpload(cudaGraphExec_t g, cudaStream_t stream) {
    bool captures;
    return (void)g, check_stream(stream, "cudaGraphUpload", &captures);
}
cudaError_t cudaGraphLaunch(cudaGraphExec_t g, cudaStream_t stream) {
    bool captures;
    return (void)g, check_stream(stream, "cudaGraphLaunch", &captures);
}
cudaError_t cudaGraphDestroy(cudaGraph_t g) { return fake_end(g, FAKE_GRAPH); }
cudaError_t cudaGraphExecDestroy(cudaGraphExec_t g) { return fake_end(g, FAKE_RUNNABLE); }

/* ---- code: which GPUs a file's kernels and variables are there for ---- */

typedef struct module { int n; struct { int arch; bool ptx, alone; } code[MOST_CODES]; } module;
static module modules[MODULES];
static int n_modules;

/* Kernels and variables by their address in the host's program. */
static struct symbol { const void *host; const module *of; void *memory; } symbols[TABLE];

static struct symbol *symbol_at(const void *host) {
    size_t at = (uintptr_t)host / 8 * 2654435761u % TABLE;
    while (symbols[at].host && symbols[at].host != host) at = (at + 1) % TABLE;
    return &symbols[at];
}

static uint64_t number(const unsigned char *at, int bytes) {
    uint64_t n = 0;
    for (int i = bytes - 1; i >= 0; i--) n = n << 8 | at[i];
    return n;
}

/* A fat binary, little-endian: at 0 its magic, at 6 how long its header is, at 8 how much follows; then entries: at 0 kind (1 PTX, 2 machine code), at 4 the
 * header's length, at 8 the code's, at 28 the architecture, at 40 flags (1 << 20: runs on that architecture alone). */
void **__cudaRegisterFatBinary(void *binary) {
    const unsigned char *const at = ((const unsigned char *const *)binary)[1];
    if (number(at, 4) != 0xba55ed50 || n_modules == MODULES) fprintf(stderr, "fake GPU: a fat binary of another form, or too many\n"), abort();
    module *m = &modules[n_modules++];
    const unsigned char *entry = at + number(at + 6, 2), *const end = entry + number(at + 8, 8);
    for (; entry < end && m->n < MOST_CODES; entry += number(entry + 4, 4) + number(entry + 8, 8)) {
        m->code[m->n].ptx = number(entry, 2) == 1;
        m->code[m->n].alone = number(entry + 40, 4) >> 20 & 1;
        m->code[m->n++].arch = (int)number(entry + 28, 4);
    }
    return (void **)m;
}
void __cudaRegisterFatBinaryEnd(void **m) { (void)m; }
void __cudaUnregisterFatBinary(void **m) { (void)m; }
char __cudaInitModule(void **m) { return (void)m, 0; }

void __cudaRegisterFunction(void **m, const char *host, char *device, const char *name, int threads, void *tid, void *bid, dim3 *block, dim3 *grid, int *warp) {
    (void)device, (void)name, (void)threads, (void)tid, (void)bid, (void)block, (void)grid, (void)warp;
    *symbol_at(host) = (struct symbol){ host, (const module *)m, NULL };
}

void __cudaRegisterVar(void **m, char *host, char *device, const char *name, int external, size_t bytes, int constant, int global) {
    (void)device, (void)name, (void)external, (void)constant, (void)global;
    *symbol_at(host) = (struct symbol){ host, (const module *)m, calloc(1, bytes) };
}

static bool runs_here(const struct symbol *s) {
    const int capability = machine[now()].capability;
    for (int i = 0; s->host && i < s->of->n; i++) {
        const int arch = s->of->code[i].arch;
        if (s->of->code[i].alone ? arch == capability : s->of->code[i].ptx ? arch <= capability : arch / 10 == capability / 10 && arch <= capability) return true;
    }
    return false;
}

cudaError_t cudaGetSymbolAddress(void **out, const void *host) {
    const struct symbol *s = symbol_at(host);
    if (!s->memory || !runs_here(s)) return fake_fail(cudaErrorInvalidSymbol);
    *out = s->memory;
    return cudaSuccess;
}

cudaError_t cudaFuncSetAttribute(const void *host, enum cudaFuncAttribute which, int value) {
    int most = 0;
    if (!runs_here(symbol_at(host))) return fake_fail(cudaErrorInvalidDeviceFunction);
    cudaDeviceGetAttribute(&most, cudaDevAttrMaxSharedMemoryPerBlockOptin, now());
    return fake_fail(which == cudaFuncAttributeMaxDynamicSharedMemorySize && value > most ? cudaErrorInvalidValue : cudaSuccess);
}

static cudaError_t launch(const void *host, cudaStream_t stream) {
    bool captures;
    if (last) fake_misused("a kernel is launched while an older error stands: %s", cudaGetErrorString(last));
    if (!runs_here(symbol_at(host))) {
        fake_misused("a kernel is launched that has no code for a GPU of %d.%d", machine[now()].capability / 10, machine[now()].capability % 10);
        return fake_fail(cudaErrorNoKernelImageForDevice);
    }
    pthread_mutex_lock(&lock);
    launches++;
    pthread_mutex_unlock(&lock);
    return check_stream(stream, "a launch", &captures);
}

unsigned __cudaPushCallConfiguration(dim3 grid, dim3 block, size_t shared, cudaStream_t stream) {
    configured.grid = grid;
    configured.block = block;
    configured.shared = shared;
    configured.stream = stream;
    return 0;
}
cudaError_t __cudaPopCallConfiguration(dim3 *grid, dim3 *block, size_t *shared, void *stream) {
    *grid = configured.grid;
    *block = configured.block;
    *shared = configured.shared;
    memcpy(stream, &configured.stream, sizeof configured.stream);
    return cudaSuccess;
}
cudaError_t __cudaGetKernel(void **kernel, const void *host) { return memcpy(kernel, &host, sizeof host), cudaSuccess; }
cudaError_t __cudaLaunchKernel(void *kernel, dim3 grid, dim3 block, void **args, size_t shared, cudaStream_t stream) {
    return (void)grid, (void)block, (void)args, (void)shared, launch(kernel, stream);
}
cudaError_t cudaLaunchKernel(const void *host, dim3 grid, dim3 block, void **args, size_t shared, cudaStream_t stream) {
    return (void)grid, (void)block, (void)args, (void)shared, launch(host, stream);
}
cudaError_t cudaLaunchKernelExC(const cudaLaunchConfig_t *config, const void *host, void **args) { return (void)args, launch(host, config->stream); }

/* ---- functions of the driver's that the library asks for by name ---- */

static CUresult describe_nothing(void *map) { return memset(map, 0, 128), CUDA_SUCCESS; }      /* a tensor map is 128 bytes */
static CUresult device_get(CUdevice *out, int ordinal) { return *out = ordinal, ordinal < n_gpus ? CUDA_SUCCESS : CUDA_ERROR_INVALID_DEVICE; }

/* A context is its GPU's place in the machine. */
static CUresult context_retain(CUcontext *out, CUdevice gpu) { return *out = (CUcontext)(void *)&machine[gpu], CUDA_SUCCESS; }

static CUresult context_push(CUcontext c) {
    now();
    if (n_pushed == (int)(sizeof pushed / sizeof *pushed)) return fake_misused("contexts are pushed and never popped"), CUDA_ERROR_INVALID_CONTEXT;
    pushed[n_pushed++] = (int)((fake_gpu *)(void *)c - machine);
    return CUDA_SUCCESS;
}
static CUresult context_pop(CUcontext *out) {
    now();
    if (!n_pushed) return fake_misused("a context is popped that nobody pushed"), CUDA_ERROR_INVALID_CONTEXT;
    *out = (CUcontext)(void *)&machine[pushed[--n_pushed]];
    return CUDA_SUCCESS;
}

void fake_own_context(int is) {
    CUcontext own = (CUcontext)(void *)&machine[FAKE_GPUS];
    if (is) context_push(own);
    else if (context_pop(&own) || (fake_gpu *)(void *)own != &machine[FAKE_GPUS]) fake_misused("the caller's context is not current any more");
}

static cudaError_t find_entry(const char *name, void **out) {
    static const struct { const char *name; void (*entry)(void); } entries[] = {
        { "cuTensorMapEncodeTiled", (void (*)(void))describe_nothing }, { "cuDeviceGet", (void (*)(void))device_get },
        { "cuDevicePrimaryCtxRetain", (void (*)(void))context_retain }, { "cuCtxPushCurrent", (void (*)(void))context_push },
        { "cuCtxPopCurrent", (void (*)(void))context_pop },
    };
    for (size_t i = 0; i < sizeof entries / sizeof *entries; i++)
        if (!strcmp(entries[i].name, name)) return memcpy(out, &entries[i].entry, sizeof *out), cudaSuccess;
    fake_misused("the driver is asked for %s", name);
    return fake_fail(cudaErrorSymbolNotFound);
}
#if CUDART_VERSION >= 12050
cudaError_t cudaGetDriverEntryPointByVersion(const char *name, void **out, unsigned version, unsigned long long flags, enum cudaDriverEntryPointQueryResult *how) {
    return (void)version, (void)flags, (void)how, find_entry(name, out);
}
#elif CUDART_VERSION >= 12000
cudaError_t cudaGetDriverEntryPoint(const char *name, void **out, unsigned long long flags, enum cudaDriverEntryPointQueryResult *how) {
    return (void)flags, (void)how, find_entry(name, out);
}
#else
cudaError_t cudaGetDriverEntryPoint(const char *name, void **out, unsigned long long flags) { return (void)flags, find_entry(name, out); }
#endif
