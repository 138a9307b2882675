"""What tools/reference/fields.py counts as exact, and its statistics on examples worked out by hand."""
import contextlib
import io
import json
import os
import sys
import tempfile
import unittest

ROOT = os.path.join(os.path.dirname(os.path.abspath(__file__)), "..", "..")
sys.path.insert(0, os.path.join(ROOT, "tools", "reference"))
import fields  # noqa: E402

TRUE = dict(DOCUMENT_TYPE="RECEIPT", SUPPLIER="Blue Cafe", ABN="NOT_FOUND", DATE="01/02/2020", NUMBER="1234", ITEMS="Milk 2L | Pasta",
            PRICES="$1.00 | $2.00", GST="$0.27", TOTAL="$3.00", PAYMENT="CASH")


def text_with(**changes):
    return "\n".join(f"{key}: {value}" for key, value in {**TRUE, **changes}.items())


class Files(unittest.TestCase):
    """Tests that need files: a truth of n equal receipts, and answers to them."""

    def setUp(self):
        folder = tempfile.TemporaryDirectory()
        self.addCleanup(folder.cleanup)
        self.folder = folder.name

    def write(self, name, rows):
        path = os.path.join(self.folder, name)
        with open(path, "w", encoding="utf-8") as out:
            out.writelines((row if isinstance(row, str) else json.dumps(row)) + "\n" for row in rows)
        return path

    def truth(self, n):
        return self.write("truth.jsonl", [dict(file=f"r{i}.png", fields=TRUE) for i in range(n)])

    def answers(self, name, texts):
        return self.write(name, [dict(file=f"some/folder/r{i}.png", text=text, tokens=[ord(c) for c in text], finish="stop")
                                 for i, text in enumerate(texts)])

    def setting(self, name, texts):
        return fields.Setting(name, self.answers(name, texts), fields.read_truth(self.truth(len(texts))))

    def run_main(self, *args):
        out, err = io.StringIO(), io.StringIO()
        with contextlib.redirect_stdout(out), contextlib.redirect_stderr(err):
            code = fields.main(args)
        return code, out.getvalue(), err.getvalue()


class Parsing(unittest.TestCase):
    def test_a_line_is_a_key_and_a_trimmed_value(self):
        self.assertEqual(fields.parse_fields("A: x\nB:  y z \n C :w"), {"A": "x", "B": "y z", "C": "w"})

    def test_a_value_may_hold_a_colon(self):
        self.assertEqual(fields.parse_fields("A: 10:30: x"), {"A": "10:30: x"})

    def test_a_line_without_a_colon_is_no_field(self):
        self.assertEqual(fields.parse_fields("Hello\n\nA: x"), {"A": "x"})

    def test_a_key_that_comes_twice_has_no_value(self):
        self.assertEqual(fields.parse_fields("A: x\nB: y\nA: x"), {"A": None, "B": "y"})


class Judging(Files):
    def test_the_true_text_is_exact_in_all_fields(self):
        self.assertEqual(self.setting("s", [text_with()]).exact, [[True] * 10])

    def test_case_and_spaces_inside_a_value_count_and_around_it_do_not(self):
        s = self.setting("s", [text_with(SUPPLIER="blue Cafe"), text_with(ITEMS="Milk 2L |  Pasta"), text_with(TOTAL="  $3.00 ")])
        self.assertEqual([row.count(False) for row in s.exact], [1, 1, 0])
        self.assertFalse(s.exact[0][fields.FIELDS.index("SUPPLIER")])

    def test_a_missing_field_and_one_said_twice_are_wrong(self):
        s = self.setting("s", ["\n".join(text_with().split("\n")[:9]), text_with() + "\nPAYMENT: CASH"])
        self.assertEqual([row.count(False) for row in s.exact], [1, 1])
        self.assertEqual(s.rate(), 90.0)
        self.assertEqual(s.rate(fields.FIELDS.index("PAYMENT")), 0.0)

    def test_an_error_counts_as_ten_wrong_fields(self):
        truth = fields.read_truth(self.truth(1))
        path = self.write("e.jsonl", [dict(file="r0.png", error=dict(code="RV_ERR_IO", message="gone"))])
        s = fields.Setting("e", path, truth)
        self.assertEqual((s.rate(), s.errors), (0.0, 1))

    def test_the_demo_receipts_expected_answers_have_their_known_mistakes(self):
        truth_path = os.path.join(ROOT, "tools", "demo", "receipts", "expected.jsonl")
        with open(truth_path, encoding="utf-8") as lines:
            rows = [json.loads(line) for line in lines]
        path = self.write("a.jsonl", [dict(file=row["image"], text=row["answer"], tokens=row["answer_ids"]) for row in rows])
        s = fields.Setting("a", path, fields.read_truth(truth_path))
        first = s.exact[s.files.index("r7000.png")]                  # reads "Tabude" as "Jabude"
        self.assertEqual([name for name, hit in zip(fields.FIELDS, first) if not hit], ["ITEMS"])
        self.assertAlmostEqual(s.rate(), 100 * 73 / 80)


class Comparing(Files):
    def test_the_sign_test_is_the_binomial(self):
        self.assertEqual(fields.sign_test(0, 0), 1.0)
        self.assertEqual(fields.sign_test(3, 3), 1.0)
        self.assertAlmostEqual(fields.sign_test(5, 1), 2 * (1 + 6) / 64)
        self.assertAlmostEqual(fields.sign_test(0, 8), 2 / 256)

    def test_a_pair_counts_what_only_one_has_right(self):
        base = self.setting("base", [text_with(), text_with(GST="x"), text_with(), text_with(GST="x")])
        other = self.setting("other", [text_with(DATE="x", NUMBER="x"), text_with(), text_with(), text_with(GST="y")])
        pair = fields.Pair(base, other)
        self.assertEqual((pair.only_base, pair.only_other), (2, 1))
        self.assertAlmostEqual(pair.points, -2.5)                      # one field of forty
        self.assertEqual((pair.worse, pair.better), (1, 1))
        self.assertEqual(pair.same_text, 1)

    def test_tokens_count_up_to_the_first_difference(self):
        base, other = self.setting("base", ["abcd", "wxyz"]), self.setting("other", ["abXd", "wxyz"])
        self.assertAlmostEqual(fields.Pair(base, other).same_tokens, 100 * (2 + 4) / 8)

    def test_the_interval_holds_the_difference_and_is_the_same_each_time(self):
        differences = [0] * 90 + [1] * 6 + [-1] * 4
        low, high = fields.interval(differences, 10)
        self.assertEqual((low, high), fields.interval(differences, 10))
        self.assertTrue(low < 100 * 2 / 1000 < high)
        # twelve of 102 receipts differ by one field: 1.96 standard errors of their mean are 0.66 points
        self.assertAlmostEqual((high - low) / 2, 0.66, delta=0.05)

    def test_equal_answers_have_an_interval_that_shrinks_with_receipts_and_is_no_point(self):
        few, many = fields.interval([0] * 30, 10), fields.interval([0] * 300, 10)
        self.assertTrue(few[0] < 0 < few[1])
        self.assertTrue(0 < many[1] < few[1] / 8)

    def test_a_receipt_that_goes_wrong_as_a_whole_widens_the_interval_more_than_ten_that_lose_a_field(self):
        whole, spread = fields.interval([-10] + [0] * 99, 10), fields.interval([-1] * 10 + [0] * 90, 10)
        self.assertGreater(whole[1] - whole[0], 2 * (spread[1] - spread[0]))


class Program(Files):
    def test_equal_answers_are_within_half_a_point(self):
        a, b = self.answers("a", [text_with()] * 100), self.answers("b", [text_with()] * 100)
        code, out, _ = self.run_main(self.truth(100), f"f32={a}", f"bf16={b}", "--within", "0.5")
        self.assertEqual(code, 0)
        self.assertIn("| f32 | 100.00 % | 100 | 100 | 0 | 0 |", out)
        self.assertIn("Within 0.5 points of f32: all", out)

    def test_worse_answers_are_not_within_half_a_point(self):
        a, b = self.answers("a", [text_with()] * 50), self.answers("b", [text_with(TOTAL="?")] * 20 + [text_with()] * 30)
        code, out, _ = self.run_main(self.truth(50), f"f32={a}", f"bf16={b}", "--within", "0.5")
        self.assertEqual(code, 1)
        self.assertIn("-4.00", out)
        self.assertIn("Within 0.5 points of f32: not bf16", out)

    def test_an_interval_that_reaches_too_far_fails_though_the_difference_does_not(self):
        a, b = self.answers("a", [text_with()] * 12), self.answers("b", [text_with()] * 12)
        self.assertEqual(self.run_main(self.truth(12), f"f32={a}", f"bf16={b}", "--within", "0.5")[0], 1)

    def test_files_that_do_not_belong_together_are_refused(self):
        truth, a = self.truth(3), self.answers("a", [text_with()] * 2)
        for words, why in [((f"x={a}",), "not the receipts of the truth: 1 are in one only, e.g. r2.png"), ((a,), "not NAME=FILE"),
                           (("x=/no/such/file",), "No such file"), ((f"x={self.write('twice', [dict(file='r0.png')] * 2)}",), "there twice"),
                           ((f"x={self.write('text', ['Hello'])}",), "not lines of JSON"), ((f"x={self.write('empty', [])}",), "is empty")]:
            code, out, err = self.run_main(truth, *words)
            self.assertEqual((code, out), (2, ""))
            self.assertIn(why, err)

    def test_a_truth_without_all_ten_fields_is_refused(self):
        truth = self.write("t", [dict(file="r0.png", fields=dict(TOTAL="$1.00"))])
        code, _, err = self.run_main(truth, f"x={self.answers('a', [text_with()])}")
        self.assertEqual(code, 2)
        self.assertIn("does not have the ten fields", err)


if __name__ == "__main__":
    unittest.main()
