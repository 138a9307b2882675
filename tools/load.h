/* load.h - the options that say where and how a model runs, shared by run, plan and inspect. */
#ifndef RV_TOOLS_LOAD_H
#define RV_TOOLS_LOAD_H
#include "tools/options.h"
#include "tools/report.h"

typedef struct load_choice {
    const char *model;
    int32_t  backend, weights, compute, attention, embedding, taps, reference, resize, modules, parity;     /* the library's numbers */
    const char *skip, *keep;
    const char *profile;         /* --gpu-profile; NULL: the GPU's own                          */
    int32_t  on_oom, kernels;    /* places in auto|fail|degrade and auto|sm70|sm80|sm90         */
    uint64_t gpu_layers, host_memory;
    bool     gpu_layers_given;
    double   threshold;
    bool     threshold_given;
    bool     nf4_single;
    uint64_t device, threads, memory_limit, context;
    const char *env_file;
    const char *cache;           /* a folder, or "off"; NULL: the user's                        */
    bool     verbose;
} load_choice;

/* Rows of an option table. `c` is a load_choice variable. */
#define LOAD_OPTIONS(c)                                                                                          \
    { OPTION_GROUP, .name = "Where it runs" },                                                                   \
    { OPTION_CHOICE, .name = "backend", .setting = true, .to = &(c).backend, .choices = "auto|cpu|cuda",                          \
      .help = "default auto: a GPU that this build has kernels for, else the\nCPU" },                                          \
    { OPTION_WHOLE, .name = "device", .setting = true, .to = &(c).device, .max = 1023, .value = "N", .help = "which GPU (default 0)" }, \
    { OPTION_WHOLE, .name = "threads", .setting = true, .to = &(c).threads, .min = 1, .max = 1024, .value = "N",                  \
      .help = "CPU threads (default: one a core)" },                                                             \
    { OPTION_BYTES, .name = "memory-limit", .setting = true, .to = &(c).memory_limit, .value = "SIZE",                            \
      .help = "take no more than this, e.g. 12G; K, M, G and T are powers of\n1024, so that 12GB is 12 GiB (default: what is free)" },                                      \
    { OPTION_TEXT, .name = "gpu-profile", .to = &(c).profile, .value = "NAME", .setting = true,                   \
      .help = "as on that GPU: its kernels, formats and usable memory\n(rvengine help profiles lists them)" },   \
    { OPTION_CHOICE, .name = "kernels", .to = &(c).kernels, .choices = "auto|sm70|sm80|sm90", .setting = true,    \
      .help = "which kernels a GPU runs (default auto: its newest), e.g. those\nof a V100 on a newer one" },                                         \
    { OPTION_CHOICE, .name = "on-oom", .to = &(c).on_oom, .choices = "auto|fail|degrade", .setting = true,        \
      .help = "when memory is short: settle what was left open (auto, the\ndefault), refuse, or reduce also what was asked for" }, \
    { OPTION_WHOLE, .name = "gpu-layers", .to = &(c).gpu_layers, .given = &(c).gpu_layers_given, .max = 1000, .value = "N", .setting = true, \
      .help = "so many text layers stay on the GPU, the others stream from\nhost memory (default: all, unless they must)" }, \
    { OPTION_BYTES, .name = "host-memory", .to = &(c).host_memory, .value = "SIZE", .setting = true,              \
      .help = "pinned host memory that they may take (default: half of\nwhat is free; planned for a GPU that is not here: any)" },                        \
    { OPTION_WHOLE, .name = "context", .setting = true, .to = &(c).context, .min = 1, .max = 1048576, .value = "N",               \
      .help = "tokens of prompt and answer together\n(default 4096, or the model's limit if smaller)" },         \
    { OPTION_TEXT, .name = "cache", .setting = true, .to = &(c).cache, .value = "DIR|off",                                         \
      .help = "where quantised weights are kept for the next start (default\n$XDG_CACHE_HOME/rvengine, or ~/.cache/rvengine)" }, \
    { OPTION_TEXT, .name = "env-file", .to = &(c).env_file, .value = "FILE",                                      \
      .help = "settings as lines RV_MEMORY_LIMIT=12G; options win over RV_\nvariables, and these over the file (rvengine doctor checks them);\n--gpu-profile \"\" and --nf4-single=no undo one" }, \
    { OPTION_GROUP, .name = "Numbers" },                                                                         \
    { OPTION_CHOICE, .name = "weights", .setting = true, .to = &(c).weights, .choices = "auto|16bit|int8|nf4",                    \
      .help = "how weights are held (default auto: as the model has them,\n16 bit where that fits, else int8, else nf4)" }, \
    { OPTION_CHOICE, .name = "modules", .setting = true, .to = &(c).modules, .choices = "intended|hf-literal",                    \
      .help = "what is quantised: the decoder's Linears (default), or what\ntransformers does when told to skip \"vision_tower\" and the\nprojector: vision and lm_head too" }, \
    { OPTION_TEXT, .name = "skip", .setting = true, .to = &(c).skip, .value = "NAME,..",                                           \
      .help = "as llm_int8_skip_modules: these modules stay 16 bit, and only\nthese" },                           \
    { OPTION_TEXT, .name = "keep", .setting = true, .to = &(c).keep, .value = "MODULE=FORMAT,..",                                  \
      .help = "exceptions, e.g. cross_attn=int8,lm_head=int8,\nlayers.3.mlp=16bit" },                             \
    { OPTION_REAL, .name = "int8-threshold", .setting = true, .to = &(c).threshold, .given = &(c).threshold_given, .max = 65504, .value = "X", \
      .help = "int8: activations from here on are outliers and multiplied\nin 16 bit (default 6; 0: none is)" }, \
    { OPTION_CHOICE, .name = "int8-parity", .setting = true, .to = &(c).parity, .choices = "row|bnb",                              \
      .help = "outliers row by row, so that no answer depends on others\n(default), or as bitsandbytes: by call" }, \
    { OPTION_FLAG, .name = "nf4-single", .setting = true, .to = &(c).nf4_single,                                                   \
      .help = "nf4 without double quantisation: 4.5 bits a weight, not 4.13" },                                   \
    { OPTION_CHOICE, .name = "compute", .setting = true, .to = &(c).compute, .choices = "auto|f32|bf16|f16",                      \
      .help = "what matrix products are rounded to (default auto: the\nmodel's own type where this device has it)" }, \
    { OPTION_CHOICE, .name = "attention", .setting = true, .to = &(c).attention, .choices = "flash|plain",                        \
      .help = "attention kernels of a GPU: fast ones (default), or plain\nloops to compare with" },               \
    { OPTION_CHOICE, .name = "embedding", .setting = true, .to = &(c).embedding, .choices = "auto|device|host",                  \
      .help = "where a GPU's model keeps its large tables: host memory saves\ntheir bytes on the GPU (default auto: there if it must)" }, \
    { OPTION_CHOICE, .name = "taps", .setting = true, .to = &(c).taps, .choices = "entering|leaving",                             \
      .help = "vision states used: entering the tapped layers as in\ntransformers 4.45 (default), or leaving them as from 4.56" }, \
    { OPTION_CHOICE, .name = "reference", .setting = true, .to = &(c).reference, .choices = "hf|meta",                            \
      .help = "rows before the image: as transformers computes them\n(default), or as Meta's training code" },   \
    { OPTION_CHOICE, .name = "resize", .setting = true, .to = &(c).resize, .choices = "pil|tv",                                   \
      .help = "image resize arithmetic: Pillow's (default) or torchvision's" }

/* Fills the library's options; log lines and the progress bar (terminals only) go to stderr.  `c`
 * must outlive them. */
rv_load_options load_options(const load_choice *c);
/* The same for a model whose sessions will be like `room`. */
rv_load_options load_options_for(const load_choice *c, const rv_session_options *room);
/* rv_memory_plan for what the options make of `load`; errors name options, not the library's fields. */
rv_status       load_plan(const load_choice *c, const rv_load_options *load, const rv_session_options *session, rv_memory *out, rv_error *err);
/* Whether the folder's files are a model that these options and such a session can have, from headers alone: milliseconds.  *plan: what it would take, filled where the result is RV_OK. */
rv_status       load_check(const load_choice *c, const rv_session_options *session, rv_memory *plan, rv_error *err);
const char     *cache_folder(void);       /* the user's; NULL: there is none. Of one thread    */
int32_t         progress_writing(void *user, float done);   /* an rv_progress_fn with such a bar */
void            progress_end(void);       /* wipes the progress bar, if one is shown */
#endif
