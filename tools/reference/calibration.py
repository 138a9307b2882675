#!/usr/bin/env python3
"""calibration.py - does the confidence of a field say how often it is right?

    python3 tools/reference/calibration.py truth.jsonl results.jsonl [--fit]

truth.jsonl is receipts.py's, results.jsonl `rvengine batch`'s of those receipts.  A field is right when its text is the true one,
case and blanks forgiven (`rvengine eval`: exact), absent ones included.  Prints Markdown: per bin of confidence the fields, the mean confidence
and the share that is right; the area under the ROC curve (0.5: confidence says nothing; 1: every wrong field is below every right
one); the expected calibration error; the log loss, beside that of the base rate.  --fit: odds' = odds * a + b, fitted by log loss on the receipts with even
numbers, judged on the others.
"""
import argparse
import json
import math
import os
import re
import sys

BINS = (0, .5, .7, .8, .9, .95, .98, .99, .995, .999, .9999, 1.0001)
LEAST = 1e-6


def plain(text):
    """What `eval` compares as exact: lower case, runs of blanks as one."""
    return re.sub(r"\s+", " ", text.strip().lower())


def text_of(field):
    """A field of a result as one line, as the truth has it."""
    if field.get("value") is None:
        return "NOT_FOUND"
    return field.get("raw", "")


def money_plain(text):
    """$1,234.56 and $1234.56 are the same text to nobody but the printer."""
    return re.sub(r"(?<=\d),(?=\d{3})", "", text)


def read(truth_path, results_path):
    """[(receipt's number, field, confidence, right)]"""
    rows = []
    with open(truth_path, encoding="utf-8") as lines:
        truth = {row["file"]: row for row in map(json.loads, lines)}
    with open(results_path, encoding="utf-8") as lines:
        for result in map(json.loads, lines):
            if "error" in result:
                continue
            row = truth[os.path.basename(result["document"]["file"])]
            for name, field in result["fields"].items():
                if field.get("confidence") is None or name not in row["fields"]:
                    continue
                right = money_plain(plain(text_of(field))) == money_plain(plain(row["fields"][name]))
                rows.append((row["id"], name, field["confidence"], right, field.get("value") is None))
    if not rows:
        sys.exit(f"calibration.py: {results_path}: no field has a confidence")
    return rows


def auc(pairs):
    """Of (confidence, right): the chance that a right one is above a wrong one, ties half."""
    ranked, i, ranks = sorted(pairs), 0, 0.0
    right = sum(r for _, r in pairs)
    wrong = len(pairs) - right
    while i < len(ranked):
        k = i
        while k < len(ranked) and ranked[k][0] == ranked[i][0]:
            k += 1
        ranks += (i + 1 + k) / 2 * sum(r for _, r in ranked[i:k])
        i = k
    return (ranks - right * (right + 1) / 2) / (right * wrong) if right and wrong else float("nan")


def inside(p):
    return min(max(p, LEAST), 1 - LEAST)


def log_loss(pairs):
    return -sum(math.log(inside(p) if r else 1 - inside(p)) for p, r in pairs) / len(pairs)


def table(pairs):
    error, lines = 0.0, ["| confidence | fields | mean confidence | right |", "|---|---|---|---|"]
    for low, high in zip(BINS, BINS[1:]):
        bin_ = [(p, r) for p, r in pairs if low <= p < high]
        if not bin_:
            continue
        mean, share = sum(p for p, _ in bin_) / len(bin_), sum(r for _, r in bin_) / len(bin_)
        error += len(bin_) / len(pairs) * abs(mean - share)
        lines.append(f"| {low:g} to {min(high, 1):g} | {len(bin_)} | {100 * mean:.2f} % | {100 * share:.2f} % |")
    return lines, error


def report(title, pairs):
    lines, error = table(pairs)
    right = sum(r for _, r in pairs) / len(pairs)
    base = log_loss([(right, r) for _, r in pairs])
    print(f"{title}: {len(pairs)} fields, {100 * right:.2f} % right, mean confidence {100 * sum(p for p, _ in pairs) / len(pairs):.2f} %, "
          f"AUC {auc(pairs):.3f}, expected calibration error {100 * error:.2f} points, log loss {log_loss(pairs):.4f} (base rate {base:.4f})\n")
    print("\n".join(lines) + "\n")


def odds(p):
    p = inside(p)
    return math.log(p / (1 - p))


def mapped(p, a, b):
    return 1 / (1 + math.exp(-max(-30, min(30, a * odds(p) + b))))


def fit(pairs):
    """(a, b) with the least log loss, by Newton's method; a bit of pull towards (1, 0) keeps it finite."""
    a, b = 1.0, 0.0
    for _ in range(100):
        ga, gb, haa, hab, hbb = 1e-3 * (a - 1), 1e-3 * b, 1e-3, 0.0, 1e-3
        for p, r in pairs:
            x, q = odds(p), mapped(p, a, b)
            ga, gb = ga + (q - r) * x, gb + (q - r)
            w = q * (1 - q)
            haa, hab, hbb = haa + w * x * x, hab + w * x, hbb + w
        det = haa * hbb - hab * hab
        a, b = a - (hbb * ga - hab * gb) / det, b - (haa * gb - hab * ga) / det
    return a, b


def main():
    options = argparse.ArgumentParser(description="Reliability of confidences.")
    options.add_argument("truth")
    options.add_argument("results")
    options.add_argument("--fit", action="store_true", help="a map of two parameters, fitted on one half and judged on the other")
    args = options.parse_args()
    rows = read(args.truth, args.results)
    report("all fields", [(p, r) for _, _, p, r, _ in rows])
    report("values", [(p, r) for _, _, p, r, absent in rows if not absent])
    for name in sorted({row[1] for row in rows}):
        pairs = [(p, r) for _, n, p, r, _ in rows if n == name]
        print(f"- {name}: {len(pairs)} fields, {100 * sum(r for _, r in pairs) / len(pairs):.2f} % right, mean confidence {100 * sum(p for p, _ in pairs) / len(pairs):.2f} %, AUC {auc(pairs):.3f}")
    print()
    if args.fit:
        train, test = [(p, r) for i, _, p, r, _ in rows if i % 2 == 0], [(p, r) for i, _, p, r, _ in rows if i % 2]
        a, b = fit(train)
        print(f"fitted on {len(train)} fields: a {a:.3f}, b {b:.3f}\n")
        report("the other half, as it is", test)
        report("the other half, mapped", [(mapped(p, a, b), r) for p, r in test])


if __name__ == "__main__":
    main()
