/* synth_tokenizer.c - a tokenizer for a synthetic model.
 *
 * The one idea: bytes first, then tokens each made of two earlier ones, until every id below the control tokens is
 * somebody; the merges are all ways in which a token falls into two others, as in the published file.  Words are
 * random letters: there is no language here, but the sizes, the lookups and the file are the real thing's.
 */
#include <stdio.h>
#include <stdlib.h>

#include "engine/base/file.h"
#include "engine/synth.h"

enum { BYTES = 256, MIN_CONTROL = 11, LONGEST = 12, LETTERS = 26, CONTROL_TEXT = 48 };

/* ---- control tokens ---- */

/* By distance from <|begin_of_text|>. Source: spec mllama.md section 1.4. */
static const char *const control_names[MIN_CONTROL] = {
    "<|begin_of_text|>", "<|end_of_text|>", "<|reserved_special_token_0|>", "<|reserved_special_token_1|>",
    "<|finetune_right_pad_id|>", "<|step_id|>", "<|start_header_id|>", "<|end_header_id|>", "<|eom_id|>", "<|eot_id|>",
    "<|python_tag|>" };

rv_status rv_synth_check_ids(const rv_config *config, rv_error *err) {
    if (config->bos >= BYTES && config->bos + MIN_CONTROL <= config->text.vocab && config->image_token >= config->bos + MIN_CONTROL)
        return RV_OK;
    return rv_fail(err, RV_ERR_UNSUPPORTED, "config.json: bos_token_id %d: a Llama 3 tokenizer has %d bytes, then words, then from "
                   "bos_token_id to vocab_size (%d) at least %d control tokens, with image_token_index (%d) behind them; "
                   "change these three", config->bos, BYTES, config->text.vocab, MIN_CONTROL, config->image_token);
}

const char *rv_synth_control(const rv_config *config, int32_t id, char out[CONTROL_TEXT]) {
    int32_t nth = id - config->bos;
    if (id == config->image_token) snprintf(out, CONTROL_TEXT, "<|image|>");
    else if (nth < 0 || id >= config->text.vocab) out[0] = '\0';
    else if (nth < MIN_CONTROL) snprintf(out, CONTROL_TEXT, "%s", control_names[nth]);
    else snprintf(out, CONTROL_TEXT, "<|reserved_special_token_%d|>", nth - MIN_CONTROL + 2);
    return out;
}

/* ---- the vocabulary ---- */

typedef struct words {
    uint32_t n, most;
    char   (*text)[LONGEST + 4];           /* bytes; length in the last one                     */
    uint32_t *slot, mask;                  /* hash table of ids, + 1; 0: free                   */
    uint32_t *inner, n_inner;              /* ids without a space in front: may stand right     */
    uint32_t *outer, n_outer;              /* ids that may stand left                           */
} words;

static uint32_t length_of(const words *w, uint32_t id) { return (uint8_t)w->text[id][LONGEST + 3]; }

/* The slot of this text, or the free one where it belongs. */
static uint32_t *slot_of(const words *w, const char *text, uint32_t bytes) {
    uint64_t h = bytes;
    for (uint32_t i = 0; i < bytes; i++) h = (h ^ (uint8_t)text[i]) * UINT64_C(0x100000001b3);
    for (uint32_t at = (uint32_t)(h ^ h >> 32) & w->mask;; at = (at + 1) & w->mask) {
        uint32_t id = w->slot[at];
        if (!id || (length_of(w, id - 1) == bytes && !memcmp(w->text[id - 1], text, bytes))) return &w->slot[at];
    }
}

/* False when there is such a token already. */
static bool word_add(words *w, const char *text, uint32_t bytes) {
    uint32_t *slot = slot_of(w, text, bytes);
    if (*slot) return false;
    memcpy(w->text[w->n], text, bytes);
    w->text[w->n][LONGEST + 3] = (char)bytes;
    *slot = ++w->n;
    return true;
}

static void word_offer(words *w, uint32_t id) {
    if (w->text[id][0] != ' ') w->inner[w->n_inner++] = id;
    w->outer[w->n_outer++] = id;
}

static void words_free(words *w) {
    free(w->text);
    free(w->slot);
    free(w->inner);
    free(w->outer);
}

static rv_status words_new(words *w, uint32_t most, rv_error *err) {
    uint32_t slots = 1024;
    while (slots < 2 * most && slots < UINT32_C(1) << 31) slots *= 2;
    *w = (words){ .most = most, .mask = slots - 1, .text = calloc(most, sizeof *w->text), .slot = calloc(slots, sizeof *w->slot),
                  .inner = calloc(most, sizeof *w->inner), .outer = calloc(most, sizeof *w->outer) };
    return w->text && w->slot && w->inner && w->outer ? RV_OK : rv_fail_memory(err, "tokenizer.json");
}

/* Whether a byte stands for itself in the byte alphabet. */
static bool is_plain(uint32_t byte) { return (byte > 0x20 && byte < 0x7f) || (byte > 0xa0 && byte != 0xad); }

static void add_bytes(words *w) {
    for (int plain = 1; plain >= 0; plain--)
        for (uint32_t byte = 0; byte < BYTES; byte++)
            if (is_plain(byte) == plain) word_add(w, &(char){ (char)byte }, 1);
    for (uint32_t i = 0; i < LETTERS; i++) word_offer(w, *slot_of(w, &(char){ (char)('a' + i) }, 1) - 1);
    w->outer[w->n_outer++] = *slot_of(w, " ", 1) - 1;
}

static void fill(words *w, uint64_t seed) {
    const uint64_t key = rv_synth_key(seed, "tokenizer.words");
    uint64_t tries = 0;
    char text[2 * LONGEST];
    add_bytes(w);
    for (uint32_t i = 0; i < LETTERS && w->n < w->most; i++) {             /* " a", " b", ..: one token each */
        word_add(w, (char[]){ ' ', (char)('a' + i) }, 2);
        word_offer(w, w->n - 1);
    }
    while (w->n < w->most) {
        uint64_t h = rv_synth_hash(key, tries++);
        uint32_t left = w->outer[(uint32_t)h % w->n_outer], right = w->inner[(uint32_t)(h >> 32) % w->n_inner];
        uint32_t n = length_of(w, left), m = length_of(w, right);
        if (n + m > LONGEST) continue;
        memcpy(text, w->text[left], n);
        memcpy(text + n, w->text[right], m);
        if (word_add(w, text, n + m)) word_offer(w, w->n - 1);
    }
}

/* ---- the file ---- */

/* A token in the byte alphabet, as part of a JSON string. */
static void add_letters(rv_string *s, const char *text, uint32_t bytes) {
    for (uint32_t i = 0; i < bytes; i++) {
        uint32_t byte = (uint8_t)text[i], code = byte;
        char out[4];
        if (!is_plain(byte)) code = byte < 0x21 ? 0x100 + byte : byte < 0xa1 ? 0x121 + byte - 0x7f : 0x143;
        if (code == '"' || code == '\\') rv_string_add(s, "\\", 1);
        rv_string_add(s, out, rv_utf8_write(code, out));
    }
}

static void add_vocabulary(rv_string *s, const words *w) {
    for (uint32_t id = 0; id < w->n; id++) {
        rv_string_addz(s, id ? ",\n\"" : "\n\"");
        add_letters(s, w->text[id], length_of(w, id));
        rv_string_addf(s, "\":%u", id);
    }
}

static void add_merges(rv_string *s, const words *w) {
    bool any = false;
    for (uint32_t id = BYTES; id < w->n; id++)
        for (uint32_t cut = 1, n = length_of(w, id); cut < n; cut++) {
            if (!*slot_of(w, w->text[id], cut) || !*slot_of(w, w->text[id] + cut, n - cut)) continue;
            rv_string_addz(s, any ? ",\n\"" : "\n\"");
            add_letters(s, w->text[id], cut);
            rv_string_add(s, " ", 1);
            add_letters(s, w->text[id] + cut, n - cut);
            rv_string_add(s, "\"", 1);
            any = true;
        }
}

static void add_control(rv_string *s, const rv_config *config) {
    bool any = false;
    for (int32_t id = config->bos; id < config->text.vocab + 8; id++) {
        char text[CONTROL_TEXT];
        if (!*rv_synth_control(config, id, text)) continue;
        rv_string_addf(s, "%s\n{\"id\":%d,\"content\":\"%s\",\"single_word\":false,\"lstrip\":false,\"rstrip\":false,"
                       "\"normalized\":false,\"special\":true}", any ? "," : "", id, text);
        any = true;
    }
}

/* Everything between the control tokens and the vocabulary. Source: spec mllama.md section 7.1. */
static void add_middle(rv_string *s, const rv_config *config) {
    rv_string_addz(s, "],\n\"normalizer\":null,\n\"pre_tokenizer\":{\"type\":\"Sequence\",\"pretokenizers\":[{\"type\":\"Split\","
                   "\"pattern\":{\"Regex\":\"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\\\\r\\\\n\\\\p{L}\\\\p{N}]?\\\\p{L}+|\\\\p{N}{1,3}"
                   "| ?[^\\\\s\\\\p{L}\\\\p{N}]+[\\\\r\\\\n]*|\\\\s*[\\\\r\\\\n]+|\\\\s+(?!\\\\S)|\\\\s+\"},\"behavior\":"
                   "\"Isolated\",\"invert\":false},{\"type\":\"ByteLevel\",\"add_prefix_space\":false,\"trim_offsets\":true,"
                   "\"use_regex\":false}]},\n\"post_processor\":{\"type\":\"Sequence\",\"processors\":[{\"type\":\"ByteLevel\","
                   "\"add_prefix_space\":true,\"trim_offsets\":false,\"use_regex\":true},{\"type\":\"TemplateProcessing\","
                   "\"single\":[{\"SpecialToken\":{\"id\":\"<|begin_of_text|>\",\"type_id\":0}},{\"Sequence\":{\"id\":\"A\","
                   "\"type_id\":0}}],\"pair\":[{\"SpecialToken\":{\"id\":\"<|begin_of_text|>\",\"type_id\":0}},{\"Sequence\":"
                   "{\"id\":\"A\",\"type_id\":0}},{\"SpecialToken\":{\"id\":\"<|begin_of_text|>\",\"type_id\":1}},"
                   "{\"Sequence\":{\"id\":\"B\",\"type_id\":1}}],");
    rv_string_addf(s, "\"special_tokens\":{\"<|begin_of_text|>\":{\"id\":\"<|begin_of_text|>\",\"ids\":[%d],\"tokens\":"
                   "[\"<|begin_of_text|>\"]}}}]},\n", config->bos);
    rv_string_addz(s, "\"decoder\":{\"type\":\"ByteLevel\",\"add_prefix_space\":true,\"trim_offsets\":true,\"use_regex\":true},\n"
                   "\"model\":{\"type\":\"BPE\",\"dropout\":null,\"unk_token\":null,\"continuing_subword_prefix\":null,"
                   "\"end_of_word_suffix\":null,\"fuse_unk\":false,\"byte_fallback\":false,\"ignore_merges\":true,\"vocab\":{");
}

rv_status rv_synth_write_tokenizer(const rv_synth_model *m, uint64_t seed, const rv_folder *folder, rv_error *err) {
    rv_string s = { 0 };
    words w = { 0 };
    rv_status st = RV_OK;
    TRY(words_new(&w, (uint32_t)m->config.bos, err));
    fill(&w, seed);
    rv_string_addz(&s, "{\n\"version\":\"1.0\",\"truncation\":null,\"padding\":null,\n\"added_tokens\":[");
    add_control(&s, &m->config);
    add_middle(&s, &m->config);
    add_vocabulary(&s, &w);
    rv_string_addz(&s, "},\n\"merges\":[");
    add_merges(&s, &w);
    rv_string_addz(&s, "]}}\n");
    if (s.failed) TRY(rv_fail_memory(err, "tokenizer.json"));
    TRY(rv_folder_write(folder, "tokenizer.json", s.data, s.bytes, err));
done:
    words_free(&w);
    rv_string_free(&s);
    return st;
}
