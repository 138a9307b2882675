/* pipeline.c - pre_tokenizer, post_processor and decoder: checked, not executed.
 *
 * The one idea: each is a list of steps, and there is one list that split.c and decode.c implement.
 * A file that says anything else is refused by name.
 */
#include <string.h>

#include "tokenizer/load.h"

typedef enum { STEP_OTHER, STEP_SEQUENCE, STEP_SPLIT, STEP_BYTE_LEVEL, STEP_TEMPLATE } step_kind;
typedef enum { TEMPLATE_OTHER, TEMPLATE_PLAIN, TEMPLATE_BOS } template_kind;

typedef struct step {
    step_kind     kind;
    char          name[32];             /* the file's "type"                                   */
    char          pattern[160];         /* Split's regular expression, for messages            */
    bool          llama3, isolated, invert, add_prefix_space, use_regex;
    template_kind single;
} step;

enum { MAX_STEPS = 8 };
typedef struct steps { step list[MAX_STEPS]; size_t count; const char *where; } steps;

static rv_status load_step(rv_load *l, steps *all);

static rv_status load_step_type(rv_load *l, const char *where, step *s) {
    static const struct { const char *name; step_kind kind; } kinds[] = {
        { "Sequence", STEP_SEQUENCE }, { "Split", STEP_SPLIT }, { "ByteLevel", STEP_BYTE_LEVEL },
        { "TemplateProcessing", STEP_TEMPLATE } };
    if (rv_json_next(&l->j) != RV_JSON_STRING) return rv_load_wrong(l, where, "type, a string");
    rv_load_name(l, s->name, sizeof s->name);
    for (size_t i = 0; i < sizeof kinds / sizeof *kinds; i++)
        if (rv_json_is(&l->j, kinds[i].name)) s->kind = kinds[i].kind;
    return RV_OK;
}

/* {"Regex": ".."} */
static rv_status load_pattern(rv_load *l, const char *where, step *s) {
    rv_json_token token;
    if (rv_json_next(&l->j) != RV_JSON_OBJECT) return rv_load_wrong(l, where, "pattern, an object");
    while ((token = rv_json_next(&l->j)) == RV_JSON_KEY) {
        bool regex = rv_json_is(&l->j, "Regex");
        if (rv_json_next(&l->j) != RV_JSON_STRING) return rv_load_wrong(l, where, "a pattern, a string");
        rv_load_name(l, s->pattern, sizeof s->pattern);
        s->llama3 = regex && rv_json_is(&l->j, RV_SPLIT_PATTERN);
    }
    return token == RV_JSON_OBJECT_END ? RV_OK : rv_load_wrong(l, where, "the end of the pattern");
}

/* An element of TemplateProcessing's "single": {"SpecialToken": {"id": ..}} or {"Sequence": {..}}. */
static rv_status load_template_element(rv_load *l, const char *where, bool *bos, bool *text) {
    rv_json_token token;
    *bos = *text = false;
    if (rv_json_next(&l->j) != RV_JSON_KEY) return rv_load_wrong(l, where, "SpecialToken or Sequence");
    bool special = rv_json_is(&l->j, "SpecialToken"), sequence = rv_json_is(&l->j, "Sequence");
    if (rv_json_next(&l->j) != RV_JSON_OBJECT) return rv_load_wrong(l, where, "an object");
    while ((token = rv_json_next(&l->j)) == RV_JSON_KEY) {
        bool id = rv_json_is(&l->j, "id");
        if (!id) { rv_json_skip(&l->j); continue; }
        if (rv_json_next(&l->j) != RV_JSON_STRING) return rv_load_wrong(l, where, "id, a string");
        *bos = special && rv_json_is(&l->j, RV_BOS_TEXT);
        *text = sequence && rv_json_is(&l->j, "A");
    }
    if (token != RV_JSON_OBJECT_END || rv_json_next(&l->j) != RV_JSON_OBJECT_END)
        return rv_load_wrong(l, where, "the end of an object");
    return RV_OK;
}

static rv_status load_template_single(rv_load *l, const char *where, step *s) {
    rv_status st = RV_OK;
    rv_json_token token;
    bool first_bos = false, last_text = false, bos, text;
    size_t n = 0;
    if (rv_json_next(&l->j) != RV_JSON_ARRAY) return rv_load_wrong(l, where, "single, a list");
    for (; (token = rv_json_next(&l->j)) == RV_JSON_OBJECT; n++) {
        TRY(load_template_element(l, where, &bos, &text));
        if (n == 0) first_bos = bos;
        last_text = text;
    }
    if (token != RV_JSON_ARRAY_END) return rv_load_wrong(l, where, "an object in single");
    s->single = n == 1 && last_text ? TEMPLATE_PLAIN : n == 2 && first_bos && last_text ? TEMPLATE_BOS : TEMPLATE_OTHER;
done:
    return st;
}

/* "special_tokens": {NAME: {"id": NAME, "ids": [..], ..}}: the id that begin-of-text gets. */
static rv_status load_template_tokens(rv_load *l, const char *where) {
    rv_json_token outer, inner;
    if (rv_json_next(&l->j) != RV_JSON_OBJECT) return rv_load_wrong(l, where, "special_tokens, an object");
    while ((outer = rv_json_next(&l->j)) == RV_JSON_KEY) {
        bool bos = rv_json_is(&l->j, RV_BOS_TEXT);
        if (rv_json_next(&l->j) != RV_JSON_OBJECT) return rv_load_wrong(l, where, "a special token, an object");
        while ((inner = rv_json_next(&l->j)) == RV_JSON_KEY) {
            uint64_t id;
            if (!bos || !rv_json_is(&l->j, "ids")) { rv_json_skip(&l->j); continue; }
            if (rv_json_next(&l->j) != RV_JSON_ARRAY || rv_json_next(&l->j) != RV_JSON_NUMBER ||
                !rv_json_uint64(&l->j, &id) || id >= RV_MAX_IDS || rv_json_next(&l->j) != RV_JSON_ARRAY_END)
                return rv_load_wrong(l, where, "ids with one id for " RV_BOS_TEXT);
            l->template_bos = (int64_t)id;
        }
        if (inner != RV_JSON_OBJECT_END) return rv_load_wrong(l, where, "the end of a special token");
    }
    return outer == RV_JSON_OBJECT_END ? RV_OK : rv_load_wrong(l, where, "the end of special_tokens");
}

static rv_status load_children(rv_load *l, steps *all) {
    rv_status st = RV_OK;
    rv_json_token token;
    if (rv_json_next(&l->j) != RV_JSON_ARRAY) return rv_load_wrong(l, all->where, "a list of steps");
    while ((token = rv_json_next(&l->j)) == RV_JSON_OBJECT) TRY(load_step(l, all));
    if (token != RV_JSON_ARRAY_END) return rv_load_wrong(l, all->where, "a step, an object");
done:
    return st;
}

static rv_status load_step_key(rv_load *l, steps *all, step *s) {
    const char *where = all->where;
    if (rv_json_is(&l->j, "type")) return load_step_type(l, where, s);
    if (rv_json_is(&l->j, "pattern")) return load_pattern(l, where, s);
    if (rv_json_is(&l->j, "invert")) return rv_load_bool(l, where, &s->invert);
    if (rv_json_is(&l->j, "add_prefix_space")) return rv_load_bool(l, where, &s->add_prefix_space);
    if (rv_json_is(&l->j, "use_regex")) return rv_load_bool(l, where, &s->use_regex);
    if (rv_json_is(&l->j, "single")) return load_template_single(l, where, s);
    if (rv_json_is(&l->j, "special_tokens")) return load_template_tokens(l, where);
    if (rv_json_is(&l->j, "pretokenizers") || rv_json_is(&l->j, "processors") || rv_json_is(&l->j, "decoders"))
        return load_children(l, all);
    if (rv_json_is(&l->j, "behavior")) {
        if (rv_json_next(&l->j) != RV_JSON_STRING) return rv_load_wrong(l, where, "behavior, a string");
        s->isolated = rv_json_is(&l->j, "Isolated");
        return RV_OK;
    }
    rv_json_skip(&l->j);
    return RV_OK;
}

/* One step, after its opening brace.  A Sequence adds its children and not itself. */
static rv_status load_step(rv_load *l, steps *all) {
    rv_status st = RV_OK;
    rv_json_token token;
    step s = { .use_regex = true, .add_prefix_space = true };     /* the library's defaults */
    while ((token = rv_json_next(&l->j)) == RV_JSON_KEY) TRY(load_step_key(l, all, &s));
    if (token != RV_JSON_OBJECT_END) return rv_load_wrong(l, all->where, "the end of a step");
    if (s.kind == STEP_SEQUENCE) return RV_OK;
    if (all->count == MAX_STEPS)
        return rv_fail(l->err, RV_ERR_UNSUPPORTED, "%s: %s: more than %d steps", l->path, all->where, MAX_STEPS);
    all->list[all->count++] = s;
done:
    return st;
}

static rv_status load_steps(rv_load *l, steps *all) {
    rv_json_token token = rv_json_next(&l->j);
    if (token == RV_JSON_NULL) return RV_OK;
    if (token != RV_JSON_OBJECT) return rv_load_wrong(l, all->where, "an object");
    return load_step(l, all);
}

rv_status rv_load_pre_tokenizer(rv_load *l) {
    steps all = { .where = "pre_tokenizer" };
    rv_status st = load_steps(l, &all);
    if (st) return st;
    const step *split = &all.list[0], *bytes = &all.list[1];
    if (all.count >= 1 && split->kind == STEP_SPLIT && !split->llama3)
        return rv_fail(l->err, RV_ERR_UNSUPPORTED,
                       "%s: pre_tokenizer: does not split text as Llama 3 does: its pattern "
                       "is \"%s\"", l->path, split->pattern);
    if (all.count != 2 || split->kind != STEP_SPLIT || bytes->kind != STEP_BYTE_LEVEL)
        return rv_fail(l->err, RV_ERR_UNSUPPORTED,
                       "%s: pre_tokenizer: is not Llama 3's (Split, then ByteLevel): %zu steps, "
                       "first \"%s\"", l->path, all.count, all.count ? split->name : "none");
    if (!split->isolated || split->invert || bytes->add_prefix_space || bytes->use_regex)
        return rv_fail(l->err, RV_ERR_UNSUPPORTED,
                       "%s: pre_tokenizer: is not Llama 3's: behavior must be \"Isolated\", "
                       "invert, add_prefix_space and use_regex false", l->path);
    return RV_OK;
}

/* A ByteLevel here only trims offsets, which nobody asks for. */
rv_status rv_load_post_processor(rv_load *l) {
    steps all = { .where = "post_processor" };
    rv_status st = load_steps(l, &all);
    if (st) return st;
    size_t templates = 0;
    for (size_t i = 0; i < all.count; i++) {
        const step *s = &all.list[i];
        if (s->kind == STEP_TEMPLATE) templates++;
        if ((s->kind != STEP_TEMPLATE && s->kind != STEP_BYTE_LEVEL) || templates > 1)
            return rv_fail(l->err, RV_ERR_UNSUPPORTED,
                           "%s: post_processor: \"%s\" is not supported here (known: ByteLevel "
                           "and one TemplateProcessing)", l->path, s->name);
        if (s->kind != STEP_TEMPLATE) continue;
        if (s->single == TEMPLATE_OTHER)
            return rv_fail(l->err, RV_ERR_UNSUPPORTED, "%s: post_processor: its template is neither \"A\" nor \""
                           RV_BOS_TEXT " A\"", l->path);
        l->t->adds_bos = s->single == TEMPLATE_BOS;
    }
    return RV_OK;
}

rv_status rv_load_decoder(rv_load *l) {
    steps all = { .where = "decoder" };
    rv_status st = load_steps(l, &all);
    if (st) return st;
    if (all.count != 1 || all.list[0].kind != STEP_BYTE_LEVEL)
        return rv_fail(l->err, RV_ERR_UNSUPPORTED, "%s: decoder: is not ByteLevel, as Llama 3's is", l->path);
    return RV_OK;
}
