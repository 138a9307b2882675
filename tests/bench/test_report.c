/* test_report.c - rvbench report on files that rvbench may have written, and on such as it never would. */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

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

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(a_report_of_something_else_is_refused),
        cmocka_unit_test(texts_of_a_file_are_never_markup),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
