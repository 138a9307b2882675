"""The goldens of bitsandbytes say what our specification of its arithmetic says, step by step, and have the layout that their README gives."""
# needs: numpy
import json
import os
import sys
import unittest
import zlib

import numpy as np

ROOT = os.path.join(os.path.dirname(os.path.abspath(__file__)), "..", "..")
FOLDER = os.environ.get("RV_BNB_GOLDENS") or os.path.join(ROOT, "tests", "data", "golden", "bnb")
sys.path.insert(0, os.path.join(ROOT, "tools", "reference"))
import hash_weights  # noqa: E402

DTYPES = {"F16": np.float16, "F32": np.float32, "I8": np.int8, "U8": np.uint8, "I32": np.int32, "I64": np.int64, "BF16": np.uint16}
INV_127_SQUARED = np.float32(6.200012e-05)
f32 = np.float32


def widen(bits):
    return (bits.astype(np.uint32) << 16).view(f32)


def open_file(*path):
    """Name -> array; bfloat16 becomes f32, whose values are the same."""
    with open(os.path.join(FOLDER, *path), "rb") as f:
        data = f.read()
    n = int.from_bytes(data[:8], "little")
    header = json.loads(data[8:8 + n])
    out = {}
    for name, t in header.items():
        if name == "__metadata__":
            continue
        start, end = t["data_offsets"]
        a = np.frombuffer(data[8 + n + start:8 + n + end], DTYPES[t["dtype"]]).reshape(t["shape"])
        out[name] = widen(a) if t["dtype"] == "BF16" else a
    return out


def to_f16(x):
    return x.astype(np.float16).astype(f32)


def near_half(x):
    """Products within a few units of a tie between two codes: the GPU's reciprocal may decide."""
    return np.abs(np.abs(x) % 1 - 0.5) <= np.abs(x) * 2.0 ** -21 + 1e-6


def same(a, b):
    return np.array_equal(a, b, equal_nan=True)


@np.errstate(all="ignore")
def quantise8(a, threshold):
    """(codes, scales, which are near ties) of f16 values: elements that reach the threshold stay outside."""
    inside = np.abs(a) < threshold if threshold else ~np.isnan(a)
    scale = np.where(inside, np.abs(a), 0).max(1).astype(f32)
    product = np.where(inside, a, 0) * (f32(127) / scale)[:, None]
    return np.nan_to_num(np.rint(product), nan=0).astype(np.int64), scale, near_half(product)


class Int8(unittest.TestCase):
    @classmethod
    def setUpClass(cls):
        cls.g = open_file("int8.safetensors")
        cls.cases = sorted(n[:-2] for n in cls.g if n.endswith(".x"))

    def weight_of(self, case):
        w = "big_w" if case.startswith("big") else "w"
        return self.g[w + ".cb"].astype(np.int64), self.g[w + ".scb"]

    def test_there_are_cases_without_and_with_few_and_many_outlier_columns(self):
        counts = {c: int(self.g[c + ".cols"].sum()) for c in self.cases}
        for columns in (0, 3, 30, 300):
            self.assertEqual(counts[f"x{columns}_f16"], columns)
        self.assertEqual((counts["x3_bf16"], counts["x300_bf16"]), (3, 300))

    def test_weight_scales_are_the_rows_largest_magnitudes_and_codes_the_nearest(self):
        for name in ("w", "big_w", "edge_w", "bf16_w", "f32_w"):
            w, rows = to_f16(self.g[name].astype(f32)), slice(None)
            if name == "edge_w":                                  # NaN and infinity have their own test
                rows = [0, 1, 2, 5, 6, 7]
            codes, scale, tie = quantise8(w[rows], 0)
            self.assertTrue(same(scale, self.g[name + ".scb"][rows]), name)
            off = np.abs(codes - self.g[name + ".cb"][rows])
            self.assertEqual(int((off * ~tie).max()), 0, name)
            self.assertLessEqual(int(off.max()), 1, name)

    def test_a_zero_row_and_what_is_no_number_have_code_zero(self):
        cb, scb, w = self.g["edge_w.cb"], self.g["edge_w.scb"], self.g["edge_w"]
        self.assertTrue(np.isnan(w[3, 5]) and np.isinf(w[4, 7]))
        self.assertEqual((scb[0], int(np.abs(cb[0]).max()), cb[3, 5]), (0, 0, 0))
        self.assertEqual(scb[3], np.nanmax(np.abs(w[3].astype(f32))))
        self.assertTrue(np.isinf(scb[4]))
        self.assertEqual(int(np.abs(cb[4]).max()), 0)

    def test_activation_codes_leave_out_what_reaches_six_and_then_whole_columns(self):
        for case in self.cases:
            a = to_f16(self.g[case + ".x"].astype(f32))
            columns = (np.abs(a) >= 6).any(0)
            self.assertTrue(np.array_equal(columns, self.g[case + ".cols"] == 1), case)
            codes, scale, tie = quantise8(a, 6)
            self.assertTrue(np.array_equal(scale, np.abs(self.g[case + ".sca"])), case)      # a row of outliers has scale -0
            self.assertTrue(same(self.g[case + ".sca"], self.g[case + ".row_sca"]), case)
            for part, zero in (("ca", columns), ("row_ca", np.zeros_like(columns))):
                off = np.abs(np.where(zero, 0, codes) - self.g[f"{case}.{part}"])
                self.assertEqual(int((off * ~tie).max()), 0, (case, part))
                self.assertLessEqual(int(off.max()), 1, (case, part))

    def test_sums_are_the_exact_products_of_the_codes(self):
        for case in self.cases:
            cb, _ = self.weight_of(case)
            for ca, sums in (("ca", "sum"), ("row_ca", "row_sum")):
                self.assertTrue(np.array_equal(self.g[f"{case}.{ca}"].astype(np.int64) @ cb.T, self.g[f"{case}.{sums}"]), case)
        self.assertGreater(int(np.abs(self.g["big_f16.sum"]).min()), 1 << 24)

    def scaled(self, case, sums):
        _, scb = self.weight_of(case)
        sca = self.g[case + ".sca"]
        return self.g[f"{case}.{sums}"].astype(f32) * sca[:, None] * scb

    def test_y8_is_sum_times_row_times_column_scale_then_one_multiply_add(self):
        for case in self.cases:
            for sums, y8 in (("sum", "y8"), ("row_sum", "row_y8")):
                self.assertTrue(same((self.scaled(case, sums) * INV_127_SQUARED).astype(np.float16), self.g[f"{case}.{y8}"]), (case, y8))
            if case.endswith("_f16"):
                bias = self.g["bias"] if case != "big_f16" else np.zeros(4)
                fused = (self.scaled(case, "sum").astype(np.float64) * np.float64(INV_127_SQUARED) + bias).astype(f32)
                self.assertTrue(same(fused.astype(np.float16), self.g[case + ".bias_y8"]), case)

    def test_y_adds_the_outliers_times_the_dequantised_codes(self):
        for case in self.cases:
            if case.startswith("edge"):
                continue
            bf16 = case.endswith("bf16")
            cb, scb = self.weight_of(case)
            b = (cb * scb[:, None].astype(f32) * f32(1 / 127)).astype(f32)
            b = widen((np.frombuffer(hash_weights.to_bytes(np.ascontiguousarray(b), "BF16"), np.uint16)).reshape(b.shape)) if bf16 else to_f16(b)
            x = self.g[case + ".x"].astype(np.float64)
            ulp = 2.0 ** (-7 if bf16 else -10)
            a = to_f16(self.g[case + ".x"].astype(f32))
            for y8, y, out in (("y8", "y", np.broadcast_to(self.g[case + ".cols"] == 1, a.shape)), ("row_y8", "row_y", np.abs(a) >= 6)):
                part = np.where(out, x, 0) @ b.astype(np.float64).T
                y8 = self.g[f"{case}.{y8}"].astype(np.float64)
                bound = 2 * ulp * np.maximum(np.abs(y8), np.abs(part)) + 1e-7
                off = np.abs(self.g[f"{case}.{y}"] - (y8 + part))
                self.assertTrue((off <= bound).all(), (case, y, float((off / bound).max())))

    def test_without_a_threshold_every_element_has_a_code(self):
        g, a = self.g, to_f16(self.g["x3_f16.x"].astype(f32))
        codes, scale, tie = quantise8(a, 0)
        self.assertTrue(np.array_equal(scale, g["x3_f16.t0_sca"]))
        self.assertEqual(int((np.abs(codes - g["x3_f16.t0_ca"]) * ~tie).max()), 0)
        self.assertTrue(same(g["x3_f16.t0_y"], g["x3_f16.t0_y8"]))


# The kernels' own constants (as their machine code has them); four of NF4's are a unit beside the midpoint of the codes.
NF4_CUTS = np.array([int(h, 16) for h in """bf591cd9 bf1c5270 beeb8480 beadea76 be703cec be0d38bc bd3a7871 3d22faff
                     3df64863 3e5067e0 3e9582d4 3ec753f9 3f006d03 3f248daf 3f5c89d9""".split()], np.uint32).view(f32)
FP4_CUTS = np.array([0.00260417, 0.0859375, 0.20833333, 0.29166667, 0.4166667, 0.583333, 0.8333333], f32)
FP4_CODES = np.array([0, 1, 6, 7, 4, 5, 2, 3])


def code_of(x, kind, absmax):
    """Codes of blocks of 64 from x times the reciprocal in f32, and which are so near a threshold that the last bit decides."""
    scaled = x.reshape(-1, 64).astype(f32) * (f32(1) / absmax)[:, None]
    size, cuts = (scaled, NF4_CUTS) if kind == "nf4" else (np.abs(scaled), FP4_CUTS)
    ranks = (size[..., None] > cuts).sum(-1)
    near = (np.abs(size[..., None].astype(np.float64) - cuts) <= 2.0 ** -22 * np.abs(cuts)).any(-1)
    return (ranks if kind == "nf4" else FP4_CODES[ranks] + 8 * (scaled < 0)), near


def unpack(codes):
    return np.stack([codes >> 4, codes & 15], 1).reshape(-1, 64).astype(np.int64)


class FourBit(unittest.TestCase):
    @classmethod
    def setUpClass(cls):
        cls.g = open_file("4bit.safetensors")

    def test_the_nf4_table_has_its_published_bits(self):
        bits = """bf800000 bf3239b1 bf066b30 beca32a0 be91a24d be3d353f bdba7871 00000000
                  3da2faff 3e24cae3 3e7c04dd 3ead033a 3ee1a4b8 3f1007ab 3f3913b3 3f800000""".split()
        self.assertEqual([f"{v:08x}" for v in self.g["nf4.table"].view(np.uint32)], bits)

    def check_codes(self, name, kind, absmax):
        w = self.g[name + ".w"].reshape(-1, 64)
        got = unpack(self.g[f"{name}.{kind}.codes"])
        with np.errstate(all="ignore"):
            codes, near = code_of(w, kind, absmax)
        power_of_two = np.frexp(absmax)[0] == 0.5                  # whose reciprocal is exact
        real = (absmax > 1e-30)[:, None] & ~(near & ~power_of_two[:, None])
        self.assertGreater(real.mean(), 0.2, name)
        wrong = real & (codes != got)
        self.assertEqual(int(wrong.sum()), 0, (name, kind, np.argwhere(wrong)[:4].tolist()))

    def test_scales_are_the_blocks_largest_magnitudes(self):
        for name in ("f16", "bf16", "f32"):
            w = np.abs(self.g[name + ".w"].astype(f32)).reshape(-1, 64)
            self.assertTrue(np.array_equal(w.max(1), self.g[name + ".absmax"]), name)

    def test_codes_follow_the_thresholds(self):
        for name in ("f16", "bf16", "f32"):
            for kind in ("nf4", "fp4"):
                self.check_codes(name, kind, self.g[name + ".absmax"])
        for kind in ("nf4", "fp4"):
            self.check_codes(f"near_{kind}", kind, self.g[f"near_{kind}.{kind}.absmax"])

    def test_a_zero_block_has_code_zero(self):
        for name in ("f16", "bf16", "f32"):
            self.assertEqual(self.g[name + ".absmax"][0], 0)
            self.assertTrue((unpack(self.g[name + ".nf4.codes"])[0] == 0).all())

    def test_dequantised_values_are_rounded_once(self):
        for name in ("f16", "bf16", "f32"):
            for kind in ("nf4", "fp4"):
                for tag, scales in (("deq", "absmax"), ("nested_deq", "nested_back")):
                    table, codes = self.g[kind + ".table"], unpack(self.g[f"{name}.{kind}.codes"])
                    value = (table[codes] * self.g[f"{name}.{scales}"][:, None]).reshape(self.g[name + ".w"].shape)[self.g[name + ".rows"]]
                    self.assertTrue(np.array_equal(value.astype(np.float16), self.g[f"{name}.{kind}.{tag}_f16"]), (name, kind, tag))

    def test_double_quantised_scales_are_the_nearest_of_256_after_the_mean(self):
        table = self.g["dynamic.table"].astype(np.float64)
        for name in ("f16", "bf16", "f32"):
            q, top, offset = (self.g[f"{name}.nested_{p}"] for p in ("q", "absmax", "offset"))
            self.assertAlmostEqual(float(offset[0]), float(self.g[name + ".absmax"].mean(dtype=np.float64)), delta=1e-6 * float(offset[0]))
            d = self.g[name + ".absmax"] - offset[0]
            for b in range(len(top)):
                part = d[b * 256:(b + 1) * 256]
                self.assertEqual(np.abs(part).max(), top[b])
                off = np.abs(table[q[b * 256:(b + 1) * 256]] - part.astype(np.float64) / top[b])
                best = np.abs(table[:, None] - part.astype(np.float64) / top[b]).min(0)
                self.assertTrue((off <= best + 1e-7).all(), name)
            back = self.g["dynamic.table"][q] * np.repeat(top, 256)[:len(q)] + offset[0]
            self.assertTrue(np.array_equal(back, self.g[name + ".nested_back"]), name)

    def test_8_bit_statistics_are_the_nearest_codes(self):
        x, q, top, table = (self.g[k] for k in ("stats.x", "stats.q", "stats.absmax", "dynamic.table"))
        scaled = x.astype(np.float64) / np.repeat(top, 256)
        off = np.abs(table[q].astype(np.float64) - scaled)
        self.assertTrue((off <= np.abs(table[:, None].astype(np.float64) - scaled).min(0) + 1e-7).all())
        self.assertTrue(np.array_equal(table[q] * np.repeat(top, 256), self.g["stats.back"]))


class Large(unittest.TestCase):
    """A weight of the model's own shape: four million codes by their checksums."""

    def checksums(self, a, parts):
        return [f"{zlib.crc32(part.tobytes()):08x}" for part in np.split(np.ascontiguousarray(a).reshape(-1).view(np.uint8), parts)]

    def test_nf4_codes_and_scales_of_a_whole_weight_are_the_same(self):
        with open(os.path.join(FOLDER, "large.json"), encoding="utf-8") as f:
            large = json.load(f)
        row, parts = large["weights"][0], large["parts"]
        self.assertEqual(row["dtype"], "f16")
        w = hash_weights.values(row["name"], row["shape"], row["seed"]).astype(np.float16)
        self.assertEqual(self.checksums(w, parts), row["weight"])
        blocks = w.astype(f32).reshape(-1, 64)
        absmax = np.abs(blocks).max(1)
        self.assertEqual(self.checksums(absmax, parts), row["absmax"])
        self.assertEqual(self.checksums(np.abs(w.astype(f32)).max(1), parts), row["scb"])
        codes = np.concatenate([code_of(blocks[i:i + 4096], "nf4", absmax[i:i + 4096])[0] for i in range(0, len(blocks), 4096)])
        codes = codes.reshape(-1).astype(np.uint8)
        self.assertEqual(self.checksums(codes[::2] << 4 | codes[1::2], parts), row["nf4"])


class Layers(unittest.TestCase):
    @classmethod
    def setUpClass(cls):
        cls.g = open_file("layers.safetensors")
        cls.tables = open_file("4bit.safetensors")

    def weight(self, name):
        kind = name[:3]
        scales = self.g["absmax"]
        if "nested" in name:
            scales = self.tables["dynamic.table"][self.g["nested_q"]] * self.g["nested_absmax"] + self.g["nested_offset"]
        return to_f16(self.tables[kind + ".table"][unpack(self.g[kind + ".codes"])] * scales[:, None]).reshape(self.g["w"].shape)

    def test_four_bit_outputs_are_the_products_of_the_rounded_weights(self):
        for name in ("nf4", "fp4", "nf4_nested", "nf4_nested_bias", "nf4_nested_bf16"):
            w = self.weight(name).astype(np.float64)
            for rows in (1, 4, 64):
                x = self.g["x"][:rows].astype(np.float64)
                y = x @ w.T + (self.g["bias"] if name.endswith("bias") else 0)
                rel = 2.0 ** (-7 if name.endswith("bf16") else -10)
                bound = rel * (np.abs(y) + 2 * np.sqrt((x ** 2) @ (w ** 2).T))
                off = np.abs(self.g[f"{name}.y{rows}"] - y)
                self.assertTrue((off <= bound).all(), (name, rows, float((off / bound).max())))

    def test_eight_bit_outputs_are_near_the_unquantised_product(self):
        w, x = self.g["w"].astype(np.float64), self.g["x"].astype(np.float64)
        for name in ("int8", "int8_bias"):
            for rows in (1, 4, 64):
                y = x[:rows] @ w.T + (self.g["bias"] if name.endswith("bias") else 0)
                off = self.g[f"{name}.y{rows}"] - y
                self.assertLess(float(np.sqrt((off ** 2).mean() / (y ** 2).mean())), 0.02, (name, rows))


class Checkpoints(unittest.TestCase):
    """What transformers wrote against the 16-bit weights it was made from."""

    def open(self, name):
        source = "base_dynamic" if name == "dynamic" else "base"
        with open(os.path.join(FOLDER, source, "config.json"), encoding="utf-8") as f:
            config = json.load(f)
        with open(os.path.join(FOLDER, source, "weights.json"), encoding="utf-8") as f:
            weights = json.load(f)
        base = {}
        for tensor, shape, data in hash_weights.stored(config, weights):
            a = np.frombuffer(data, np.float16 if weights["dtype"] == "F16" else np.uint16)
            a = a.astype(f32) if weights["dtype"] == "F16" else widen(a)
            base[hash_weights.file_name(tensor, weights["layout"])] = a.reshape(shape)
        return open_file(name, "model.safetensors"), base

    def test_8_bit_codes_are_those_of_the_16_bit_weights(self):
        got, base = self.open("int8")
        quantised = [n for n, t in got.items() if t.dtype == np.int8]
        self.assertEqual(len(quantised), 14)
        for name in quantised:
            codes, scale, tie = quantise8(base[name], 0)
            self.assertTrue(same(scale, got[name[:-len("weight")] + "SCB"]), name)
            self.assertEqual(int((np.abs(codes - got[name]) * ~tie).max()), 0, name)
            self.assertEqual((got[name[:-6] + "weight_format"].shape, int(got[name[:-6] + "weight_format"])), ((), 0))
        for name, want in base.items():
            if name not in quantised:
                self.assertTrue(np.array_equal(got[name].reshape(want.shape), want), name)

    def test_4_bit_codes_and_states_are_those_of_the_16_bit_weights(self):
        for name, kind, count, nested in (("nf4", "nf4", 14, True), ("nf4_plain", "nf4", 14, False), ("fp4", "fp4", 14, False),
                                          ("dynamic", "nf4", 23, True)):
            got, base = self.open(name)
            suffix = f".quant_state.bitsandbytes__{kind}"
            quantised = [n[:-len(suffix)] for n in got if n.endswith(suffix)]
            self.assertEqual(len(quantised), count, name)
            for w in quantised:
                state = json.loads(got[w + suffix].tobytes())
                self.assertEqual((state["quant_type"], state["blocksize"], state["shape"], "nested_offset" in state),
                                 (kind, 64, list(base[w].shape), nested), w)
                absmax = np.abs(base[w]).reshape(-1, 64).max(1)
                codes, near = code_of(base[w], kind, absmax)
                wrong = (codes != unpack(got[w].reshape(-1))) & ~near
                self.assertEqual(int(wrong.sum()), 0, (name, w))
                if not nested:
                    self.assertTrue(np.array_equal(got[w + ".absmax"], absmax), w)

    def test_answers_in_f16_are_near_those_in_f32_from_the_same_weights(self):
        for name in ("int8", "nf4", "nf4_plain", "fp4", "dynamic"):
            g = open_file(name, "golden.safetensors")
            off = np.abs(g["a_logits"] - g["a_exact_logits"]).max()
            self.assertLess(off, 0.2 if name == "int8" else 0.02, name)          # 8-bit: activations are quantised too
            self.assertTrue(np.array_equal(g["a_glog"].argmax(1), g["a_gen"]), name)


if __name__ == "__main__":
    unittest.main()
