/* The splitter by hand against cases by hand, and against the pattern itself run by PCRE2. */
#include "tests/tokenizer/words.h"

#define PCRE2_CODE_UNIT_WIDTH 8
#include <pcre2.h>

/* Pieces joined with "|". */
static const char *split(const char *text, char out[512]) {
    static rv_classes classes;
    rv_classes_fill(&classes);
    size_t bytes = strlen(text), used = 0;
    for (size_t at = 0; at < bytes;) {
        size_t end = rv_split_next(&classes, text, bytes, at);
        assert_true(end > at && end <= bytes);
        if (at) out[used++] = '|';
        memcpy(out + used, text + at, end - at);
        used += end - at;
        at = end;
    }
    out[used] = '\0';
    return out;
}

static void check(const char *text, const char *want) {
    char got[512];
    if (strcmp(split(text, got), want)) fail_msg("\"%s\": got \"%s\", wanted \"%s\"", text, got, want);
}

static void words_take_one_character_before_them(void **state) {
    (void)state;
    check("Hello world", "Hello| world");
    check("(Hello) -world", "(Hello|)| -|world");
    check("\tx \xc2\xa0y", "\tx| |\xc2\xa0y");
    check("\nx", "\n|x");
    check("1x", "1|x");
    check("  x", " | x");
    check("a\xcc\x81", "a|\xcc\x81");                         /* a mark is no letter */
    check("a\xcc\x81 b", "a|\xcc\x81| b");
    check("", "");
}

static void contractions_are_pieces_whatever_their_case(void **state) {
    (void)state;
    check("it's", "it|'s");
    check("IT'S", "IT|'S");
    check("we'll've", "we|'ll|'ve");
    check("we'Re I'M I'd don'T", "we|'Re| I|'M| I|'d| don|'T");
    check("'same", "'s|ame");
    check("'left", "'left");
    check("'v", "'v");
    check("''s", "''|s");                                     /* the first apostrophe starts no contraction */
    check(" 's", " '|s");
    check("'", "'");
    check("'l", "'l");
}

static void long_s_folds_to_s(void **state) {
    (void)state;
    check("it'\xc5\xbf", "it|'\xc5\xbf");
    check("it'\xc5\xbfx", "it|'\xc5\xbf|x");
    check("'\xc5\xbe", "'\xc5\xbe");
    check("'\xe2\x84\xaa", "'\xe2\x84\xaa");                  /* the Kelvin sign folds to k: no contraction */
}

static void digits_go_in_threes(void **state) {
    (void)state;
    check("1234567", "123|456|7");
    check("12 34", "12| |34");
    check("\xd9\xa1\xd9\xa2\xd9\xa3\xd9\xa4", "\xd9\xa1\xd9\xa2\xd9\xa3|\xd9\xa4");
    check("\xc2\xbd" "1", "\xc2\xbd" "1");
    check("$1,234.50", "$|1|,|234|.|50");
}

static void whitespace_leaves_one_for_the_word(void **state) {
    (void)state;
    check("a   b", "a|  | b");
    check("a   ", "a|   ");
    check("a  1", "a| | |1");
    check("a \n b", "a| \n| b");
    check("a \n \n  b", "a| \n \n| | b");
    check("a\r\n\r\nb", "a|\r\n\r\n|b");
    check(" \n", " \n");
    check("a\xe3\x80\x80\xe3\x80\x80" "b", "a|\xe3\x80\x80|\xe3\x80\x80" "b");
}

static void punctuation_takes_a_space_before_and_newlines_behind(void **state) {
    (void)state;
    check("a !!\n\nb", "a| !!\n\n|b");
    check("a  !!", "a| | !!");
    check("!! \n", "!!| \n");
    check("\xf0\x9f\x98\x80\n", "\xf0\x9f\x98\x80\n");
    check(" \xe2\x80\x8b", " \xe2\x80\x8b");                  /* the zero-width space is no space */
    check(" \t!", " |\t|!");
}

static pcre2_code *compile(const char *pattern) {
    int code;
    PCRE2_SIZE where;
    pcre2_code *re = pcre2_compile((PCRE2_SPTR)pattern, PCRE2_ZERO_TERMINATED, PCRE2_UTF | PCRE2_UCP, &code, &where,
                                   NULL);
    assert_non_null(re);
    return re;
}

/* The end of the match that begins at `at`; 0: none. */
static size_t match_end(const pcre2_code *re, pcre2_match_data *match, const char *text, size_t bytes, size_t at) {
    int n = pcre2_match(re, (PCRE2_SPTR)text, bytes, at, PCRE2_ANCHORED, match, NULL);
    return n > 0 ? pcre2_get_ovector_pointer(match)[1] : 0;
}

static void every_assigned_character_has_the_class_that_the_pattern_sees(void **state) {
    (void)state;
    static const struct { const char *pattern; rv_class class; } kinds[] = {
        { "\\p{L}", RV_CLASS_LETTER }, { "\\p{N}", RV_CLASS_NUMBER }, { "[\\r\\n]", RV_CLASS_NEWLINE },
        { "(?![\\r\\n])\\s", RV_CLASS_SPACE }, { "[^\\s\\p{L}\\p{N}]", RV_CLASS_OTHER } };
    pcre2_code *re[5], *unassigned = compile("\\p{Cn}");
    for (size_t k = 0; k < 5; k++) re[k] = compile(kinds[k].pattern);
    pcre2_match_data *match = pcre2_match_data_create(1, NULL);
    size_t checked = 0;
    for (uint32_t code = 0; code < 0x110000; code++) {
        char text[4];
        /* U+180E: a space to PCRE2, not to Unicode */
        if ((code >= 0xd800 && code <= 0xdfff) || code == 0x180e) continue;
        size_t bytes = rv_utf8_write(code, text);
        if (match_end(unassigned, match, text, bytes, 0)) continue;
        checked++;
        for (size_t k = 0; k < 5; k++)
            if ((match_end(re[k], match, text, bytes, 0) > 0) != (rv_class_of(code) == kinds[k].class))
                fail_msg("U+%04X: class %d, but %s", code, (int)rv_class_of(code), kinds[k].pattern);
    }
    assert_true(checked > 140000);
    for (size_t k = 0; k < 5; k++) pcre2_code_free(re[k]);
    pcre2_code_free(unassigned);
    pcre2_match_data_free(match);
}

static void the_pattern_itself_splits_random_text_the_same_way(void **state) {
    (void)state;
    /* PCRE2's Unicode may be older than ours, and U+180E is a space to it. */
    pcre2_code *re = compile(RV_SPLIT_PATTERN), *foreign = compile("(?s).*[\\p{Cn}\\x{180e}]");
    pcre2_match_data *match = pcre2_match_data_create_from_pattern(re, NULL);
    rv_classes classes;
    rv_classes_fill(&classes);
    uint64_t seed = 20240926;
    size_t pieces = 0;
    for (int round = 0; round < 100000; round++) {
        char text[4 * 24];
        size_t bytes = random_text(&seed, 24, text);
        if (match_end(foreign, match, text, bytes, 0)) continue;
        for (size_t at = 0; at < bytes; pieces++) {
            size_t want = match_end(re, match, text, bytes, at), got = rv_split_next(&classes, text, bytes, at);
            if (want != got) {
                for (size_t i = 0; i < bytes; i++) print_message("%02x ", (unsigned)(uint8_t)text[i]);
                fail_msg("round %d: piece at %zu ends at %zu, by the pattern at %zu", round, at, got, want);
            }
            at = got;
        }
    }
    print_message("%zu pieces\n", pieces);
    assert_true(pieces > 200000);
    pcre2_match_data_free(match);
    pcre2_code_free(re);
    pcre2_code_free(foreign);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(words_take_one_character_before_them),
        cmocka_unit_test(contractions_are_pieces_whatever_their_case),
        cmocka_unit_test(long_s_folds_to_s),
        cmocka_unit_test(digits_go_in_threes),
        cmocka_unit_test(whitespace_leaves_one_for_the_word),
        cmocka_unit_test(punctuation_takes_a_space_before_and_newlines_behind),
        cmocka_unit_test(every_assigned_character_has_the_class_that_the_pattern_sees),
        cmocka_unit_test(the_pattern_itself_splits_random_text_the_same_way),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
