#!/usr/bin/env python3
"""fields.py - how many fields of the receipts are exact, and whether one way of computing is worse than another.

The one idea: settings are compared on the same receipts, so that what is hard about a receipt cancels.  A setting's rate moves by
a point from one draw of 300 receipts to the next; the difference of two settings on the same 300 moves by a tenth of that.

    python3 tools/reference/fields.py truth.jsonl f32=cpu.jsonl bf16=cuda_bf16.jsonl f16=cuda_f16.jsonl --within 0.5

truth.jsonl is receipts.py's (or tools/demo/receipts/expected.jsonl), the others tools/examples/batch's; the first setting is
what the others are held against.  Prints Markdown tables.  Exit code: 0; 1 with --within, when a 95 % interval of a difference
reaches further than that many points; 2 when the files do not belong together.
"""
import argparse
import json
import math
import os
import random
import sys

FIELDS = ("DOCUMENT_TYPE", "SUPPLIER", "ABN", "DATE", "NUMBER", "ITEMS", "PRICES", "GST", "TOTAL", "PAYMENT")
RESAMPLES = 10000


class Unusable(Exception):
    """Input that says nothing about accuracy: the message tells which file and why."""


# ---- reading -------------------------------------------------------------------------------------


def parse_fields(text):
    """{key: value} of the lines "KEY: VALUE", trimmed.  A key that comes twice has no value: which one would count?"""
    fields = {}
    for line in text.split("\n"):
        key, colon, value = line.partition(":")
        if colon:
            fields[key.strip()] = None if key.strip() in fields else value.strip()
    return fields


def read_lines(path):
    """{file name without folder: JSON object}"""
    rows = {}
    try:
        with open(path, encoding="utf-8") as lines:
            for number, line in enumerate(lines, 1):
                row = json.loads(line)
                name = os.path.basename(row.get("file") or row["image"])
                if name in rows:
                    raise Unusable(f"{path}:{number}: {name} is there twice")
                rows[name] = row
    except (OSError, ValueError, KeyError, AttributeError) as error:
        raise Unusable(f"{path}: {error if isinstance(error, OSError) else f'not lines of JSON with a file each: {error!r}'}")
    if not rows:
        raise Unusable(f"{path}: is empty")
    return rows


def read_truth(path):
    """{file: {field: true value}}"""
    truth = {name: row["fields"] if "fields" in row else parse_fields(row.get("truth", "")) for name, row in read_lines(path).items()}
    for name, fields in truth.items():
        if sorted(fields) != sorted(FIELDS) or None in fields.values():
            raise Unusable(f"{path}: {name} does not have the ten fields once each")
    return truth


class Setting:
    """One way of computing, judged: which fields of which receipt are exact."""

    def __init__(self, name, path, truth):
        self.name, rows = name, read_lines(path)
        if rows.keys() != truth.keys():
            other = sorted(rows.keys() ^ truth.keys())
            raise Unusable(f"{path}: not the receipts of the truth: {len(other)} are in one only, e.g. {other[0]}")
        self.files = sorted(truth)
        self.texts = [rows[file].get("text", "") for file in self.files]
        self.tokens = [rows[file].get("tokens", []) for file in self.files]
        self.errors = sum("error" in rows[file] for file in self.files)
        self.cut_short = sum(rows[file].get("finish") == "length" for file in self.files)
        answers = [parse_fields(text) for text in self.texts]
        self.exact = [[answer.get(field) == truth[file][field] for field in FIELDS] for file, answer in zip(self.files, answers)]

    def rate(self, field=None):
        """Exact fields in percent: of one kind (an index into FIELDS), or of all."""
        hits = [row[field] for row in self.exact] if field is not None else [hit for row in self.exact for hit in row]
        return 100 * sum(hits) / len(hits)


# ---- comparing -----------------------------------------------------------------------------------


def sign_test(worse, better):
    """Two-sided exact p of `worse` against `better` among those that differ (McNemar's test, exact)."""
    n = worse + better
    return min(1.0, 2 * sum(math.comb(n, i) for i in range(min(worse, better) + 1)) / 2 ** n)


def interval(differences, fields):
    """95 % interval, in points, of the mean difference of exact fields: a bootstrap over receipts, because the fields of one receipt
    go wrong together.  One receipt a field better and one a field worse are added (after Agresti and Min, 2005): without them
    the interval would be a point whenever no receipt happens to differ."""
    draw = random.Random(1)
    sample = list(differences) + [1, -1]
    points = 100 / (len(sample) * fields)
    means = sorted(points * sum(draw.choices(sample, k=len(sample))) for _ in range(RESAMPLES))
    return means[round(.025 * RESAMPLES)], means[round(.975 * RESAMPLES) - 1]


class Pair:
    """A setting against the base, receipt by receipt and field by field."""

    def __init__(self, base, other):
        cells = [(a, b) for row_a, row_b in zip(base.exact, other.exact) for a, b in zip(row_a, row_b)]
        self.name, self.base = other.name, base.name
        self.only_base = sum(a and not b for a, b in cells)
        self.only_other = sum(b and not a for a, b in cells)
        self.points = 100 * (self.only_other - self.only_base) / len(cells)
        differences = [sum(row_b) - sum(row_a) for row_a, row_b in zip(base.exact, other.exact)]
        self.worse, self.better = sum(d < 0 for d in differences), sum(d > 0 for d in differences)
        self.low, self.high = interval(differences, len(FIELDS))
        self.p = sign_test(self.worse, self.better)
        self.same_text = sum(a == b for a, b in zip(base.texts, other.texts))
        agreed = sum(len(os.path.commonprefix([a, b])) for a, b in zip(base.tokens, other.tokens))
        self.same_tokens = 100 * agreed / max(1, sum(map(len, base.tokens)))

    def within(self, points):
        return -points <= self.low and self.high <= points


# ---- printing ------------------------------------------------------------------------------------


def table(head, rows):
    lines = [head, ["---"] * len(head)] + rows
    print("\n".join("| " + " | ".join(map(str, line)) + " |" for line in lines) + "\n")


def report(settings, pairs):
    table(["setting", "fields exact", "receipts exact", "of", "errors", "cut short"],
          [[s.name, f"{s.rate():.2f} %", sum(map(all, s.exact)), len(s.files), s.errors, s.cut_short] for s in settings])
    table(["field, % exact"] + [s.name for s in settings],
          [[name] + [f"{s.rate(i):.2f}" for s in settings] for i, name in enumerate(FIELDS)])
    if pairs:
        table([f"against {pairs[0].base}", "fields lost", "gained", "points", "95 % interval", "receipts worse", "better", "p", "same text",
               "tokens before a difference"],
              [[p.name, p.only_base, p.only_other, f"{p.points:+.2f}", f"{p.low:+.2f} to {p.high:+.2f}", p.worse, p.better, f"{p.p:.2f}",
                f"{p.same_text} of {len(settings[0].files)}", f"{p.same_tokens:.2f} %"] for p in pairs])


def main(argv=None):
    options = argparse.ArgumentParser(description="Exact-field rates of several settings on the same receipts.")
    options.add_argument("truth", help="truth.jsonl of receipts.py")
    options.add_argument("settings", nargs="+", metavar="NAME=ANSWERS.jsonl", help="the first is what the others are held against")
    options.add_argument("--within", type=float, metavar="POINTS", help="fail when an interval reaches further than this from 0")
    args = options.parse_args(argv)
    try:
        truth = read_truth(args.truth)
        for word in args.settings:
            if "=" not in word:
                raise Unusable(f"{word}: not NAME=FILE")
        settings = [Setting(*word.split("=", 1), truth) for word in args.settings]
    except Unusable as error:
        print(f"fields.py: {error}", file=sys.stderr)
        return 2
    pairs = [Pair(settings[0], other) for other in settings[1:]]
    report(settings, pairs)
    far = [pair.name for pair in pairs if args.within is not None and not pair.within(args.within)]
    if args.within is not None:
        print(f"Within {args.within:g} points of {settings[0].name}: " + ("all" if not far else "not " + ", ".join(far)))
    return 1 if far else 0


if __name__ == "__main__":
    sys.exit(main())
