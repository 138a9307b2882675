/* test_report.c - rvbench report on files that rvbench may have written, and on such as it never would. */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "tests/cli/program.h"

/* ---- a file of a profile's run ---- */

/* What a run tells; every text goes into JSON as it stands here, so quotes are the caller's to escape. */
typedef struct told {
    const char *gpu, *profile, *weights, *phase, *numbers;      /* numbers: of what was measured       */
} told;

static const char *run_file(const char *name, told t) {
    char text[4096];
    int n = snprintf(text, sizeof text,
                     "{\"command\": \"profile\", \"profile\": {\"name\": \"%s\", \"memory_bytes\": 16000000000}, \"page\": {\"tiles\": 4, \"prompt_tokens\": 200, \"answer_tokens\": 100},"
                     " \"phases\": [{\"name\": \"%s\", \"weights\": \"%s\", \"kernels\": 70, \"slots\": 1, \"planned_bytes\": 12000000000, \"measured\": {\"gpu\": \"%s\", %s}}]}",
                     t.profile ? t.profile : "v100", t.phase ? t.phase : "best", t.weights ? t.weights : "int8", t.gpu ? t.gpu : "Tesla V100", t.numbers ? t.numbers : "\"page_ms\": 1000");
    assert_true(n > 0 && n < (int)sizeof text);
    return file_write(name, text, (size_t)n);
}

static void a_report_of_something_else_is_refused(void **state) {
    (void)state;
    refuses(2, "give the files", "report");
    refuses(3, "/no/such.json: cannot open", "report", "/no/such.json");
    refuses(4, "not JSON", "report", file_write("report_bad.json", "{\"command\"", 10));
    refuses(4, "not what rvbench --gpu-profile", "report", file_write("report_run.json", "{\"command\": \"run\"}", 18));
}

static void a_page_may_go_to_stdout(void **state) {
    (void)state;
    const char *in = run_file("stdout.json", (told){ 0 });
    prints("^<!doctype html>.*</html>\n$", "report", in, "-o", "-");
    prints("^<!doctype html>.*</html>\n$", "report", in, "-o", "/dev/stdout");
    assert_int_not_equal(access("-", F_OK), 0);
}

/* ---- texts ---- */

static void texts_of_a_file_are_never_markup(void **state) {
    static const char nasty[] = "<script>alert(1)</script><img src=x onerror='y'>|a|`b`[c](d)\\u0007\\u001b[2J\\n# e";
    const told files[] = { { .gpu = nasty }, { .profile = nasty }, { .weights = nasty }, { .phase = nasty } };
    (void)state;
    for (size_t i = 0; i < sizeof files / sizeof *files; i++) {
        told with_price = files[i];
        with_price.numbers = "\"page_ms\": 1000, \"dollars_hour\": 3, \"pages_minute\": 60";
        const char *page = scratch("nasty.html");
        outcome o = run_with(NULL, ARGS("report", run_file("nasty.json", with_price), "-o", page, "--markdown", "-"));
        size_t bytes;
        char *html = file_read(page, &bytes);
        assert_int_equal(o.code, 0);
        const char *const forms[] = { html, o.out };
        for (size_t k = 0; k < 2; k++) {
            assert_null(strstr(forms[k], "<script>"));
            assert_null(strstr(forms[k], "<img"));
            assert_null(strchr(forms[k], 7));
            assert_null(strchr(forms[k], 27));
            assert_non_null(strstr(forms[k], "&lt;script&gt;"));
        }
        assert_null(strstr(o.out, "|a|"));
        assert_null(strstr(o.out, "[c](d)"));
        assert_null(strstr(o.out, "\n# e"));
        free(html);
        outcome_free(&o);
    }
}

/* ---- break-even ---- */

/* Both files' sentence, in both forms. */
static void breaks_even(const char *cheap, const char *dear, const char *sentence) {
    char in_markdown[256];
    size_t bytes;
    const char *page = scratch("even.html"), *a = run_file("even_a.json", (told){ .gpu = "A", .numbers = cheap }), *b = run_file("even_b.json", (told){ .gpu = "B", .numbers = dear });
    outcome o = run_with(NULL, ARGS("report", a, b, "-o", page, "--markdown", "-"));
    assert_int_equal(o.code, 0);
    char *html = file_read(page, &bytes);
    snprintf(in_markdown, sizeof in_markdown, "\nBreak-even: %s\n", sentence);
    if (!strstr(html, sentence) || !strstr(o.out, in_markdown)) fail_msg("not \"%s\" in\n%s\n%s", sentence, o.out, strstr(html, "<ul>"));
    free(html);
    outcome_free(&o);
}

/* A month has 730 hours: a GPU of 2,628 ms a page reads a million. */
static void break_even_knows_that_costs_are_stairs(void **state) {
    (void)state;
    breaks_even("\"page_ms\": 2628, \"dollars_hour\": 1", "\"page_ms\": 262.8, \"dollars_hour\": 2", "B costs no more than A from 1000001 pages a month on.");
    /* Three of A are as dear as two of B; one B reads 1.8 times as much.  One A does for a million, then 1 B (1.5) is cheaper than 2 A (2) up to 1.8 million; 2 B (3) are dearer
     * than 2 A up to 2 million, and so on. */
    breaks_even("\"page_ms\": 2628, \"dollars_hour\": 1", "\"page_ms\": 1460, \"dollars_hour\": 1.5", "B costs no more than A first at 1000001 pages a month, and for good from 4000001 on.");
    /* B reads 1.2 times as much for 1.5 times the price: cheaper between 1 and 1.2 million, never after 3 million. */
    breaks_even("\"page_ms\": 2628, \"dollars_hour\": 1", "\"page_ms\": 2190, \"dollars_hour\": 1.5",
                "B costs no more than A first at 1000001 pages a month, but never for good: from 2400001 on it always costs more.");
    breaks_even("\"page_ms\": 2628, \"dollars_hour\": 1", "\"page_ms\": 2628, \"dollars_hour\": 4", "B costs more than A for any number of pages.");
    /* Two of A are one B in everything: they take turns for ever. */
    breaks_even("\"page_ms\": 2628, \"dollars_hour\": 1", "\"page_ms\": 1314, \"dollars_hour\": 2",
                "B costs no more than A first at 1000001 pages a month; up to 100000000000, now one and now the other is cheaper, as whole GPUs are rented.");
}

/* ---- numbers ---- */

static void numbers_that_nothing_can_have_are_refused_by_file_and_key(void **state) {
    static const struct { const char *numbers, *message; } wrong[] = {
        { "\"page_ms\": 1e-308, \"dollars_hour\": 1", "odd.json: \"page_ms\": must be 0 or from 1e-06 to 1e.10, is 1e-308" },
        { "\"page_ms\": 100, \"dollars_hour\": 1e308", "odd.json: \"dollars_hour\": must be" },
        { "\"page_ms\": -1", "odd.json: \"page_ms\": must be 0 or from .*, is -1" },
        { "\"page_ms\": \"fast\"", "odd.json: \"page_ms\": must be a number" },
        { "\"page_ms\": 1, \"peak_bytes\": 1e300", "odd.json: \"peak_bytes\": must be" },
        { "\"page_ms\": 1, \"watts_at_most\": true", "odd.json: \"watts_at_most\": must be a number" },
        { "\"page_ms\": 1e999", "odd.json: not JSON: real number overflow" },
    };
    static const char slots[] = "{\"command\": \"profile\", \"phases\": [{\"name\": \"best\", \"slots\": 1e300, \"measured\": {\"page_ms\": 1}}]}";
    static const char page[] = "{\"command\": \"profile\", \"page\": {\"tiles\": 1e300}, \"phases\": [{\"name\": \"best\", \"measured\": {\"page_ms\": 1}}]}";
    (void)state;
    for (size_t i = 0; i < sizeof wrong / sizeof *wrong; i++)
        refuses(4, wrong[i].message, "report", run_file("odd.json", (told){ .numbers = wrong[i].numbers }), "-o", "/dev/null");
    refuses(4, "\"slots\": must be", "report", file_write("slots.json", slots, sizeof slots - 1), "-o", "/dev/null");
    refuses(4, "\"tiles\": must be", "report", file_write("tiles.json", page, sizeof page - 1), "-o", "/dev/null");
    /* What is allowed makes a page without nan, whatever stands beside what. */
    const char *out = scratch("odd.html"), *slow = run_file("slow.json", (told){ .numbers = "\"page_ms\": 1e10, \"dollars_hour\": 1e7, \"vision_ms\": null" }),
               *fast = run_file("fast.json", (told){ .numbers = "\"page_ms\": 1e-6, \"dollars_hour\": 1e-9, \"watts\": 0" });
    outcome o = run_with(NULL, ARGS("report", slow, fast, "-o", out, "--markdown", "-"));
    size_t bytes;
    assert_int_equal(o.code, 0);
    char *html = file_read(out, &bytes);
    if (matches(html, "[^a-z](nan|inf)[^a-z]") || matches(o.out, "[^a-z](nan|inf)[^a-z]")) fail_msg("%s\n%s", o.out, html);
    free(html);
    outcome_free(&o);
}

/* ---- what is written ---- */

static void no_output_replaces_another_file_of_the_run(void **state) {
    const char *link = scratch("in_link"), *both = scratch("both");
    char other_name[1200], kept[64], in[1200];
    size_t bytes;
    (void)state;
    snprintf(in, sizeof in, "%s", run_file("in.json", (told){ 0 }));     /* scratch() has room for four paths */
    snprintf(other_name, sizeof other_name, "%.*s./both", (int)(strlen(both) - 4), both);
    unlink(link);
    unlink(both);
    assert_int_equal(symlink(in, link), 0);
    refuses(2, "--output: .*in.json is one of the files to read, and would be replaced", "report", in, "-o", in);
    refuses(2, "--markdown: .*in_link is one of the files to read", "report", in, "-o", "/dev/null", "--markdown", link);
    refuses(2, "--output and --csv: both would be written to", "report", in, "-o", both, "--csv", other_name);
    refuses(2, "--output and --markdown: both would be written to -", "report", in, "-o", "/dev/stdout", "--markdown", "-");
    refuses(2, "--csv and --markdown: both", "report", in, "-o", scratch("alone.html"), "--csv", both, "--markdown", both);
    assert_int_equal(access(both, F_OK), -1);
    char *text = file_read(in, &bytes);
    snprintf(kept, sizeof kept, "%.20s", text);
    assert_string_equal(kept, "{\"command\": \"profile");
    free(text);
    both = file_write("both", "old", 3);                 /* the same of files that are there        */
    refuses(2, "--output and --csv: both", "report", in, "-o", both, "--csv", other_name);
    prints("GPU", "report", in, "-o", "/dev/null", "--csv", "/dev/null", "--markdown", "-");
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(a_report_of_something_else_is_refused),
        cmocka_unit_test(a_page_may_go_to_stdout),
        cmocka_unit_test(texts_of_a_file_are_never_markup),
        cmocka_unit_test(break_even_knows_that_costs_are_stairs),
        cmocka_unit_test(numbers_that_nothing_can_have_are_refused_by_file_and_key),
        cmocka_unit_test(no_output_replaces_another_file_of_the_run),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
