/* modules.c - see modules.h. */
#include "engine/modules.h"

#include <stdarg.h>
#include <stdio.h>
#include <string.h>

#define LITERAL_SKIP "vision_tower,multi_modal_projector"

static bool begins_with(const char *text, const char *head) { return strncmp(text, head, strlen(head)) == 0; }

static bool is_empty(const char *list) { return !list || !*list; }

/* ---- lists ---- */

typedef struct entry { const char *at; size_t bytes; } entry;

/* The entry at *list, without blanks around it, and *list moved to the next; false at the end. */
static bool next_entry(const char **list, entry *e) {
    if (is_empty(*list)) return false;
    const char *from = *list, *end = from + strcspn(from, ",");
    *list = *end ? end + 1 : end;
    while (from < end && *from == ' ') from++;
    while (end > from && end[-1] == ' ') end--;
    *e = (entry){ from, (size_t)(end - from) };
    return true;
}

/* ---- names ---- */

bool rv_modules_linear(const char *name) {
    static const char *const leaves[] = { "q_proj.weight", "k_proj.weight", "v_proj.weight", "o_proj.weight", "gate_proj.weight",
                                          "up_proj.weight", "down_proj.weight", "fc1.weight", "fc2.weight" };
    if (!strcmp(name, "lm_head.weight") || !strcmp(name, "projector.weight")) return true;
    if (!begins_with(name, "text.layers.") && !begins_with(name, "vision.transformer.layers.") && !begins_with(name, "vision.global_transformer.layers."))
        return false;
    size_t n = strlen(name);
    for (size_t i = 0; i < sizeof leaves / sizeof *leaves; i++) {
        size_t m = strlen(leaves[i]);
        if (n > m && name[n - m - 1] == '.' && !strcmp(name + n - m, leaves[i])) return true;
    }
    return false;
}

void rv_modules_name(const char *canonical, bool since_452, char out[RV_MODULE_BYTES]) {
    static const struct { const char *canonical, *old, *now; } heads[] = {
        { "text.", "language_model.model.", "model.language_model." }, { "lm_head.", "language_model.lm_head.", "lm_head." },
        { "vision.", "vision_model.", "model.vision_model." }, { "projector.", "multi_modal_projector.", "model.multi_modal_projector." } };
    const char *head = "", *rest = canonical, *tail = strrchr(canonical, '.');
    for (size_t i = 0; i < sizeof heads / sizeof *heads; i++)
        if (begins_with(canonical, heads[i].canonical)) {
            head = since_452 ? heads[i].now : heads[i].old;
            rest = canonical + strlen(heads[i].canonical);
        }
    if (tail && !strcmp(tail, ".weight")) snprintf(out, RV_MODULE_BYTES, "%s%.*s", head, tail > rest ? (int)(tail - rest) : 0, rest);
    else snprintf(out, RV_MODULE_BYTES, "%s%s", head, rest);
    size_t n = strlen(out);
    if (n && out[n - 1] == '.') out[n - 1] = '\0';       /* lm_head.weight has nothing between       */
}

/* Hugging Face's rule up to 4.x: equal to the last part or to all of it, or somewhere inside with a dot behind. */
static bool skip_matches_name(entry e, const char *name) {
    const char *leaf = strrchr(name, '.');
    leaf = leaf ? leaf + 1 : name;
    if (!strncmp(leaf, e.at, e.bytes) && leaf[e.bytes] == '\0') return true;
    if (!strncmp(name, e.at, e.bytes) && name[e.bytes] == '\0') return true;
    for (const char *at = name; strlen(at) > e.bytes; at++)
        if (!strncmp(at, e.at, e.bytes) && at[e.bytes] == '.') return true;
    return false;
}

/* Ours: a run of whole parts. */
static bool keep_matches_name(entry e, const char *name) {
    for (const char *at = name; at && *at; at = strchr(at, '.'), at = at ? at + 1 : NULL)
        if (!strncmp(at, e.at, e.bytes) && (at[e.bytes] == '.' || at[e.bytes] == '\0')) return true;
    return false;
}

typedef bool (*matcher)(entry, const char *);

static bool matches(matcher by, entry e, const char *canonical) {
    char old[RV_MODULE_BYTES], now[RV_MODULE_BYTES];
    rv_modules_name(canonical, false, old);
    rv_modules_name(canonical, true, now);
    return e.bytes && (by(e, old) || by(e, now));
}

/* "name=format" to both; false: malformed. */
static bool split_keep(entry e, entry *name, rv_format *format) {
    static const rv_format formats[] = { RV_FORMAT_PLAIN, RV_FORMAT_INT8, RV_FORMAT_NF4 };
    const char *equals = memchr(e.at, '=', e.bytes);
    if (!equals || equals == e.at) return false;
    *name = (entry){ e.at, (size_t)(equals - e.at) };
    entry is = { equals + 1, e.bytes - name->bytes - 1 };
    for (size_t i = 0; i < sizeof formats / sizeof *formats; i++)
        if (strlen(rv_format_name(formats[i])) == is.bytes && !strncmp(rv_format_name(formats[i]), is.at, is.bytes)) return *format = formats[i], true;
    return false;
}

/* ---- formats ---- */

static bool may_keep(const char *canonical) { return begins_with(canonical, "text.") || begins_with(canonical, "lm_head."); }

/* One module's, as if it were a weight of its own. */
static rv_format format_alone(const rv_modules *m, const char *canonical, rv_format asked) {
    const char *list = !is_empty(m->skip) ? m->skip : m->preset == RV_MODULES_HF_LITERAL ? LITERAL_SKIP : NULL;
    rv_format is = list || begins_with(canonical, "text.") ? asked : RV_FORMAT_PLAIN;
    entry e, name;
    rv_format format;
    while (next_entry(&list, &e))
        if (matches(skip_matches_name, e, canonical)) is = RV_FORMAT_PLAIN;
    for (const char *keep = m->keep; may_keep(canonical) && next_entry(&keep, &e);)
        if (split_keep(e, &name, &format) && matches(keep_matches_name, name, canonical)) is = format;
    return is;
}

/* The modules that are one weight here; a test compares them with the table of tensors. */
static const char *const stacks[][RV_WEIGHT_PARTS] = {
    { "self_attn.q_proj.weight", "self_attn.k_proj.weight", "self_attn.v_proj.weight" },
    { "cross_attn.k_proj.weight", "cross_attn.v_proj.weight" },
    { "mlp.gate_proj.weight", "mlp.up_proj.weight" },
};
enum { STACKS = sizeof stacks / sizeof *stacks };

/* The stack that a tensor belongs to (-1: none), and how long what stands before its name there is. */
static int stack_of(const char *canonical, size_t *head) {
    size_t n = strlen(canonical);
    for (int s = 0; s < STACKS; s++)
        for (int i = 0; i < RV_WEIGHT_PARTS && stacks[s][i]; i++) {
            size_t m = strlen(stacks[s][i]);
            if (n > m && canonical[n - m - 1] == '.' && !strcmp(canonical + n - m, stacks[s][i])) return *head = n - m, s;
        }
    return -1;
}

/* Of the whole weight: false when its modules differ. */
static bool format_together(const rv_modules *m, const char *canonical, rv_format asked, rv_format *format) {
    size_t head = 0;
    const int s = stack_of(canonical, &head);
    *format = format_alone(m, canonical, asked);
    for (int i = 0; s >= 0 && i < RV_WEIGHT_PARTS && stacks[s][i]; i++) {
        char other[RV_NAME_BYTES + 32];
        snprintf(other, sizeof other, "%.*s%s", (int)head, canonical, stacks[s][i]);
        if (format_alone(m, other, asked) != *format) return *format = RV_FORMAT_PLAIN, false;
    }
    return true;
}

rv_format rv_modules_format(const rv_modules *m, const char *canonical, rv_format asked) {
    rv_format format = RV_FORMAT_PLAIN;
    if (rv_modules_linear(canonical)) format_together(m, canonical, asked, &format);
    return format;
}

rv_format rv_modules_format_of(const rv_modules *m, const rv_tensor_want *want, rv_format asked) {
    const rv_format format = rv_modules_format(m, want->name, asked);
    return format >= RV_FORMAT_NF4 && want->shape[1] % RV_BLOCK4 ? RV_FORMAT_PLAIN : format;
}

/* ---- checking ---- */

static rv_status check_text(const rv_modules *m, rv_error *err) {
    entry e, name;
    rv_format format;
    if (m->preset < RV_MODULES_INTENDED || m->preset > RV_MODULES_HF_LITERAL)
        return rv_fail(err, RV_ERR_ARGUMENT, "modules: must be from %d to %d, is %d", RV_MODULES_INTENDED, RV_MODULES_HF_LITERAL, m->preset);
    if (!is_empty(m->skip) && m->preset == RV_MODULES_HF_LITERAL)
        return rv_fail(err, RV_ERR_ARGUMENT, "modules hf-literal: is a skip list already (" LITERAL_SKIP "): give that, or your own");
    for (const char *list = m->skip; next_entry(&list, &e);)
        if (!e.bytes) return rv_fail(err, RV_ERR_ARGUMENT, "skip list \"%.200s\": has an empty name", m->skip);
    for (const char *list = m->keep; next_entry(&list, &e);)
        if (!split_keep(e, &name, &format))
            return rv_fail(err, RV_ERR_ARGUMENT, "keep list: \"%.*s\" is not NAME=16bit, NAME=int8 or NAME=nf4", (int)(e.bytes < 120 ? e.bytes : 120), e.at);
    return RV_OK;
}

typedef struct count { const rv_modules *m; entry name; matcher by; bool text_only; uint32_t found; } count;

static rv_status count_one(void *user, const rv_tensor_want *want, rv_error *err) {
    count *c = user;
    (void)err;
    if (rv_modules_linear(want->name) && (!c->text_only || may_keep(want->name))) c->found += matches(c->by, c->name, want->name);
    return RV_OK;
}

typedef struct split { const rv_modules *m; rv_format asked; uint32_t found[STACKS]; char first[STACKS][RV_NAME_BYTES]; } split;

static rv_status split_one(void *user, const rv_tensor_want *want, rv_error *err) {
    split *x = user;
    size_t head = 0;
    rv_format format;
    (void)err;
    const int s = rv_modules_linear(want->name) ? stack_of(want->name, &head) : -1;
    if (s < 0 || strcmp(want->name + head, stacks[s][0])) return RV_OK;
    if (!format_together(x->m, want->name, x->asked, &format) && !x->found[s]++) memcpy(x->first[s], want->name, sizeof x->first[s]);
    return RV_OK;
}

static void say(rv_modules_warn warn, void *user, const char *format, ...) __attribute__((format(printf, 3, 4)));
static void say(rv_modules_warn warn, void *user, const char *format, ...) {
    char line[400];
    va_list args;
    va_start(args, format);
    vsnprintf(line, sizeof line, format, args);
    va_end(args);
    warn(user, line);
}

/* Without err: the callbacks above cannot fail. */
static void warn_of_names(const rv_modules *m, const rv_config *config, rv_modules_warn warn, void *user) {
    entry e;
    rv_format format;
    for (const char *list = m->skip; next_entry(&list, &e);) {
        count c = { m, e, skip_matches_name, false, 0 };
        rv_weights_each(config, count_one, &c, NULL);
        if (!c.found) say(warn, user, "skip list: \"%.*s\" matches no linear layer of this model%s", (int)(e.bytes < 120 ? e.bytes : 120), e.at,
                          e.bytes >= 12 && !strncmp(e.at + e.bytes - 12, "vision_tower", 12) ? ": the vision tower is called vision_model" : "");
    }
    for (const char *list = m->keep; next_entry(&list, &e);) {
        count c = { m, { NULL, 0 }, keep_matches_name, true, 0 };
        if (!split_keep(e, &c.name, &format)) continue;
        rv_weights_each(config, count_one, &c, NULL);
        if (!c.found) say(warn, user, "keep list: \"%.*s\" matches no text layer of this model", (int)(c.name.bytes < 120 ? c.name.bytes : 120), c.name.at);
    }
}

static void warn_of_splits(const rv_modules *m, const rv_config *config, rv_format asked, rv_modules_warn warn, void *user) {
    split x = { .m = m, .asked = asked };
    rv_weights_each(config, split_one, &x, NULL);
    for (int s = 0; s < STACKS; s++) {
        char name[RV_MODULE_BYTES];
        if (!x.found[s]) continue;
        rv_modules_name(x.first[s], false, name);
        say(warn, user, "the lists give %s and its neighbours, which are one weight here, different formats: they stay 16 bit together "
            "(in %u layer%s)", name, x.found[s], x.found[s] == 1 ? "" : "s");
    }
}

rv_status rv_modules_check(const rv_modules *m, const rv_config *config, rv_format asked, rv_modules_warn warn, void *user, rv_error *err) {
    rv_status st = check_text(m, err);
    if (st || !warn) return st;
    warn_of_names(m, config, warn, user);
    warn_of_splits(m, config, asked, warn, user);
    return RV_OK;
}
