/* test_guide.c - masks and appended ids, against PCRE2 and the tokenizer itself, over the real vocabulary.
 *
 * `test_guide full [SCHEMA soft|strict]` runs all there is, or of one schema: 500 states in either grammar, 100,000 values.  The
 * short run looks at every built-in schema too, in one of its grammars and two states.
 */
#define PCRE2_CODE_UNIT_WIDTH 8
#include <setjmp.h>
#include <stdarg.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <cmocka.h>
#include <pcre2.h>

#include "engine/constraint.h"
#include "engine/form.h"

static rv_tokenizer *tokenizer;
static bool full;
static const char *only, *only_grammar;   /* NULL: all */

static uint64_t random_state = 7;
static uint32_t random_below(uint32_t n) {
    random_state = random_state * 6364136223846793005u + 1442695040888963407u;
    return (uint32_t)((random_state >> 33) % n);
}

static int open_tokenizer(void **state) {
    (void)state;
    rv_error err;
    if (rv_tokenizer_open(RV_TEST_SHARED "/tokenizer/tokenizer.json", &tokenizer, &err)) tokenizer = NULL;
    return 0;
}

static int close_tokenizer(void **state) {
    (void)state;
    rv_tokenizer_free(tokenizer);
    return 0;
}

/* ---- what a value may be, as PCRE2 sees it ---- */

#define BEYOND_ASCII "[\\xc2-\\xdf][\\x80-\\xbf]|\\xe0[\\xa0-\\xbf][\\x80-\\xbf]|[\\xe1-\\xec\\xee\\xef][\\x80-\\xbf]{2}|\\xed[\\x80-\\x9f][\\x80-\\xbf]|" \
                     "\\xf0[\\x90-\\xbf][\\x80-\\xbf]{2}|[\\xf1-\\xf3][\\x80-\\xbf]{3}|\\xf4[\\x80-\\x8f][\\x80-\\xbf]{2}"
#define TEXT "(?:[\\x21-\\x7e]|" BEYOND_ASCII ")(?:[\\x20-\\x7e]|" BEYOND_ASCII ")*"
#define CELL "(?:[\\x21-\\x7b\\x7d\\x7e]|" BEYOND_ASCII ")(?:[\\x20-\\x7b\\x7d\\x7e]|" BEYOND_ASCII ")*"

typedef struct oracle { pcre2_code *code; pcre2_match_data *match; bool text, list; const rv_guide_row *row; } oracle;

static oracle oracle_of(const rv_key *k, const rv_guide_row *row) {
    static char one[8192], pattern[32768];
    oracle o = { .text = !k->pattern && !k->n_choices, .list = k->list != 0, .row = row };
    int at = 0, error;
    PCRE2_SIZE where;
    if (k->n_choices) {
        for (uint32_t i = 0; i < k->n_choices; i++) at += snprintf(one + at, sizeof one - (size_t)at, "%s\\Q%s\\E", i ? "|" : "", k->choices[i]);
    } else snprintf(one, sizeof one, "%s", k->pattern ? k->pattern : k->list ? CELL : TEXT);
    if (k->list)         /* exactly as many cells as the row may have */
        snprintf(pattern, sizeof pattern, "(?: NOT_FOUND|(?: (?:NOT_FOUND|%s))(?: \\| (?:NOT_FOUND|%s)){%d,%d})\\n", one, one,
                 row->least > 1 ? row->least - 1 : 0, row->most - 1);
    else snprintf(pattern, sizeof pattern, " (?:NOT_FOUND|%s)\\n", one);
    o.code = pcre2_compile((PCRE2_SPTR)pattern, PCRE2_ZERO_TERMINATED, PCRE2_ANCHORED, &error, &where, NULL);
    if (!o.code) fail_msg("%s at %zu", pattern, where);
    pcre2_jit_compile(o.code, PCRE2_JIT_COMPLETE | PCRE2_JIT_PARTIAL_SOFT);
    o.match = pcre2_match_data_create(4, NULL);
    return o;
}

static bool has_run(const char *text, size_t n) {
    for (size_t i = 3; i < n; i++)
        if (strchr(".-_*=~#:,;|+/\\ ", text[i]) && text[i] == text[i - 1] && text[i] == text[i - 2] && text[i] == text[i - 3]) return true;
    return false;
}

/* Whether `text` begins a value, or is all of one with its newline. */
static bool is_begun(const oracle *o, const char *text, size_t n) {
    if (o->text && has_run(text, n)) return false;
    int rc = pcre2_match(o->code, (PCRE2_SPTR)text, n, 0, PCRE2_PARTIAL_SOFT, o->match, NULL);
    return rc == PCRE2_ERROR_PARTIAL || (rc > 0 && pcre2_get_ovector_pointer(o->match)[1] == n);
}

/* Cells that are sure to be there: of text, by '|'; else a blank behind a cell without one says it, too. */
static int cells(const oracle *o, const char *text, size_t n) {
    int k = 1;
    for (size_t i = 0; i < n; i++) k += text[i] == '|';
    return k + (!o->text && n > 1 && text[n - 1] == ' ' && text[n - 2] != '|' && memchr(text + 1, '|', n) != text + n - 1);
}

/* ---- masks ---- */

static size_t random_walk(const rv_constraint *c, rv_guide_row *row, char *text, size_t room) {
    size_t n = 0;
    for (uint32_t steps = random_below(12); steps > 0; steps--) {
        for (int tries = 0; tries < 20000; tries++) {
            int32_t id = (int32_t)random_below(random_below(2) ? 3000 : 128000);
            uint32_t entry = rv_guide_entry(row, id);
            size_t bytes;
            const char *token = rv_tokenizer_bytes(tokenizer, id, &bytes);
            if (!rv_guide_allows(row, rv_guide_denied(row), id) || (entry & RV_GUIDE_STATE) == RV_GUIDE_DONE || n + bytes > room) continue;
            memcpy(text + n, token, bytes);
            n += bytes;
            rv_guide_move(row, id);
            break;
        }
    }
    (void)c;
    return n;
}

/* What cannot begin with a byte cannot begin with a token of that first byte: PCRE2 is asked once for those. */
static void find_begun(const oracle *o, char *text, size_t n, bool begun[256]) {
    for (int b = 0; b < 256; b++) {
        text[n] = (char)b;
        begun[b] = is_begun(o, text, n + 1);
    }
}

static void check_state(const rv_constraint *c, const rv_key *keys, uint32_t n_keys) {
    uint32_t i = random_below(n_keys);
    const rv_line *line = &c->lines[i];
    char text[4096];
    rv_guide_row row = { .guide = c->guide, .state = line->state, .cells = line->list, .last = i + 1 == n_keys };
    if (line->list) row.most = (int32_t)(1 + random_below(5)), row.least = random_below(2) ? row.most : 0;
    oracle o = oracle_of(&keys[i], &row);
    size_t n = random_walk(c, &row, text, 2000);
    uint32_t denied = rv_guide_denied(&row);
    bool begun[256];
    find_begun(&o, text, n, begun);
    for (int32_t id = 0; id < (int32_t)rv_tokenizer_size(tokenizer); id++) {
        size_t bytes;
        const char *token = rv_tokenizer_bytes(tokenizer, id, &bytes);
        bool allowed = rv_guide_allows(&row, denied, id), wanted;
        if (!token) wanted = false;
        else if (rv_tokenizer_is_control(tokenizer, id)) {
            bool stop = (bytes == 10 && (!memcmp(token, "<|eot_id|>", 10) || !memcmp(token, "<|eom_id|>", 10))) || (bytes == 15 && !memcmp(token, "<|end_of_text|>", 15));
            text[n] = '\n';
            wanted = stop && row.last && pcre2_match(o.code, (PCRE2_SPTR)text, n + 1, 0, 0, o.match, NULL) > 0;
        } else {
            memcpy(text + n, token, bytes);
            wanted = begun[(uint8_t)token[0]] && is_begun(&o, text, n + bytes) && (!o.list || cells(&o, text, n + bytes) - cells(&o, text, n) < 2);
        }
        if (allowed != wanted) {
            fail_msg("key %s, \"%.*s\" then id %d \"%.*s\": %s, cells %d, from %d to %d", line->key, (int)n, text, id, (int)(token ? bytes : 0), token ? token : "",
                     allowed ? "allowed" : "refused", row.cells, row.least, row.most);
        }
    }
    pcre2_match_data_free(o.match);
    pcre2_code_free(o.code);
}

static void masks_are_those_of_the_patterns(void **state) {
    (void)state;
    if (!tokenizer) skip();
    assert_true(rv_schema_count() >= 13);
    for (uint32_t s = 0; s < rv_schema_count(); s++)
        for (int strict = 0; strict < 2; strict++) {
            const char *name = rv_schema_name(s);
            if (only ? strcmp(only, name) || strcmp(only_grammar, strict ? "strict" : "soft") : !full && strict != (int)(s & 1)) continue;
            rv_error err;
            rv_schema *schema;
            rv_constraint *c;
            rv_constraint_info info = { .size = sizeof info };
            if (rv_schema_open(name, &schema, &err) || rv_form_new(tokenizer, schema, -1, strict, &c, &err)) fail_msg("%s", err.message);
            rv_key *keys = calloc(schema->n_fields, sizeof *keys);
            for (uint32_t i = 0; i < schema->n_fields; i++) keys[i] = rv_form_key(schema, i, strict);
            assert_int_equal(rv_constraint_get_info(c, &info, &err), RV_OK);
            int times = full ? 500 : 2;
            for (int k = 0; k < times; k++) check_state(c, keys, schema->n_fields);
            printf("%-16s %s: %3u keys, %4u states, %4u classes, %.2f MB; %d states hold\n", name, strict ? "strict" : "soft  ", info.keys, info.states,
                   info.classes, (double)info.bytes / 1e6, times);
            free(keys);
            rv_constraint_free(c);
            rv_schema_free(schema);
        }
}

/* ---- appended ids ---- */

/* A line of words, numbers and signs, some of which the tokenizer joins with a newline. */
static size_t random_value(char *out) {
    static const char *const pieces[] = { "Acme", " Pty", " Ltd.", ")", " $1,234.56", "51 824 753 556", " |", " | ", "NOT", "_FOUND", " NOT_FOUND", "12/03/2024", ":", ": ", "caf\xc3\xa9",
                                          " \xe2\x82\xac", "<|eot_id|>", "\"", "'s", "a", "B", "9", "  ", "-", "...", "!\"", "\xf0\x9f\x98\x80", ",", "x2", "#", " no. 7", "'" };
    size_t n = 0;
    for (uint32_t k = 1 + random_below(7); k > 0; k--) {
        const char *piece = pieces[random_below(sizeof pieces / sizeof *pieces)];
        if (n == 0 && *piece == ' ') piece++;
        memcpy(out + n, piece, strlen(piece));
        n += strlen(piece);
    }
    return n;
}

static void encode(const char *text, size_t n, rv_ids *out) {
    rv_error err;
    if (rv_tokenizer_append(tokenizer, text, n, 0, out, &err)) fail_msg("%s", err.message);
}

static void keys_are_the_ids_that_the_whole_text_has(void **state) {
    (void)state;
    rv_error err;
    rv_schema *schema;
    rv_constraint *c;
    if (!tokenizer) skip();
    if (rv_schema_open("universal", &schema, &err) || rv_form_new(tokenizer, schema, -1, false, &c, &err)) fail_msg("%s", err.message);
    for (int k = 0; k < (full ? 100000 : 2000); k++) {
        char text[1024];
        rv_ids whole = { 0 }, parts = { 0 };
        size_t n = 0;
        for (int l = 0; l < 2; l++) {
            const rv_line *line = &c->lines[random_below((uint32_t)c->n_lines)];
            size_t from = n += (size_t)sprintf(text + n, "%s:", line->key);
            for (size_t i = 0; i < line->forced.count; i++) assert_int_equal(rv_ids_push(&parts, line->forced.data[i], &err), RV_OK);
            text[n++] = ' ';
            n += random_value(text + n);
            text[n++] = '\n';
            encode(text + from, n - from, &parts);
        }
        encode(text, n, &whole);
        if (whole.count != parts.count || memcmp(whole.data, parts.data, parts.count * sizeof *parts.data)) fail_msg("%.*s", (int)n, text);
        for (size_t i = 0; i < whole.count; i++) assert_false(rv_tokenizer_is_control(tokenizer, whole.data[i]));
        rv_ids_free(&whole);
        rv_ids_free(&parts);
    }
    rv_constraint_free(c);
    rv_schema_free(schema);
}

static bool is_value(rv_guide_row row, const rv_ids *ids) {
    for (size_t i = 0; i < ids->count && row.state > RV_GUIDE_DONE; i++) rv_guide_move(&row, ids->data[i]);
    return row.state == RV_GUIDE_DONE;
}

/* Along the ids of a whole value, wherever something would be appended, it is those ids. */
static void what_is_appended_is_what_the_tokenizer_writes(void **state) {
    (void)state;
    static const char *const values[] = { " NOT_FOUND\n", " true\n", " false\n", " 51 824 753 556\n", " 51824753556\n", " 062-000\n", " $12.30\n", " 5 March 2024\n", " RECEIPT\n", " BANK_STATEMENT\n" };
    rv_error err;
    rv_schema *schema;
    rv_constraint *c;
    int appended = 0;
    if (!tokenizer) skip();
    if (rv_schema_open("universal", &schema, &err) || rv_form_new(tokenizer, schema, -1, true, &c, &err)) fail_msg("%s", err.message);
    for (int32_t l = 0; l < c->n_lines; l++)
        for (size_t v = 0; v < sizeof values / sizeof *values; v++) {
            rv_guide_row row = { .guide = c->guide, .state = c->lines[l].state, .cells = 1, .most = 1 };
            rv_ids ids = { 0 };
            encode(values[v], strlen(values[v]), &ids);
            if (!is_value(row, &ids)) ids.count = 0;
            for (size_t i = 0, at = 0; i < ids.count && row.state > RV_GUIDE_DONE; i++) {
                size_t bytes;
                rv_tokenizer_bytes(tokenizer, ids.data[i], &bytes);
                rv_guide_move(&row, ids.data[i]);
                at += bytes;
                const char *sure = row.state > RV_GUIDE_DONE ? c->sure[row.state] : NULL;
                if (!sure) continue;
                char text[256];
                rv_ids again = { 0 };
                encode(text, (size_t)sprintf(text, "%.*s%s", (int)at, values[v], sure), &again);
                assert_true(again.count > i && again.count <= ids.count);
                assert_memory_equal(again.data, ids.data, again.count * sizeof *ids.data);
                appended++;
                rv_ids_free(&again);
            }
            rv_ids_free(&ids);
        }
    printf("%d places where something is appended\n", appended);
    assert_true(appended > 20);
    rv_constraint_free(c);
    rv_schema_free(schema);
}

int main(int argc, char **argv) {
    const struct CMUnitTest masks[] = { cmocka_unit_test(masks_are_those_of_the_patterns) };
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(keys_are_the_ids_that_the_whole_text_has),
        cmocka_unit_test(what_is_appended_is_what_the_tokenizer_writes),
        cmocka_unit_test(masks_are_those_of_the_patterns),
    };
    full = argc > 1 && !strcmp(argv[1], "full");
    if (argc > 3) only = argv[2], only_grammar = argv[3];
    if (only) return cmocka_run_group_tests_name("masks", masks, open_tokenizer, close_tokenizer);
    return cmocka_run_group_tests(tests, open_tokenizer, close_tokenizer);
}
