"""Golden values of bitsandbytes' own CUDA kernels: LLM.int8, NF4, FP4 and the layers made of them.

The one idea: everything that a quantised product passes through on its way (codes, scales, sums, roundings) is kept, beside
the inputs, so that a test can say which step differs.  bitsandbytes' CPU code rounds otherwise in places, so only what a CUDA
GPU gave is a golden; --device cpu is for trying this program.

    usage: bnb_goldens.py OUT_FOLDER [--device cuda] [--only NAME]       writes int8, 4bit and layers .safetensors, large.json

tests/data/golden/bnb/README.md has the file layout.
"""
import argparse
import json
import os
import zlib

import bitsandbytes as bnb
import numpy as np
import torch
from bitsandbytes import functional as F
from safetensors.torch import save_file

import hash_weights as hw

N, K, ROWS = 48, 512, 4
F16, BF16, F32 = torch.float16, torch.bfloat16, torch.float32
TYPE_NAMES = {F16: "f16", BF16: "bf16", F32: "f32"}
OPS = torch.ops.bitsandbytes


def made_on(device):
    where = torch.cuda.get_device_name() if device.startswith("cuda") else "CPU"
    return f"bitsandbytes {bnb.__version__}, torch {torch.__version__}, {where}"


class Goldens:
    """Tensors under their names, moved to the CPU as they come."""

    def __init__(self, device):
        self.device, self.tensors = device, {}

    def keep(self, name, value):
        assert name not in self.tensors, name
        self.tensors[name] = value.detach().to("cpu", copy=True).contiguous()

    def write(self, folder, name):
        file, made_by = name + ".safetensors", made_on(self.device)
        save_file(self.tensors, os.path.join(folder, file), metadata={"made_by": made_by})
        os.chmod(os.path.join(folder, file), 0o644)
        print(f"{file}: {len(self.tensors)} tensors, {os.path.getsize(os.path.join(folder, file))} bytes, {made_by}", flush=True)


def normal(seed, *shape):
    return torch.from_numpy(np.random.default_rng(seed).standard_normal(shape).astype(np.float32))


# ---- LLM.int8 ------------------------------------------------------------------------------

def quantised_weight(w, device):
    """Int8Params quantises when a CPU weight moves to the GPU: the codes and the rows' largest magnitudes."""
    p = bnb.nn.Int8Params(w.clone(), requires_grad=False, has_fp16_weights=False).to(device)
    return p.CB, p.SCB


def keep_weight(g, name, w):
    cb, scb = quantised_weight(w, g.device)
    g.keep(name, w)
    g.keep(name + ".cb", cb)
    g.keep(name + ".scb", scb)
    return cb, scb


def edge_weight():
    """Rows that test the quantiser: zero, ties, NaN, infinities, subnormals, the largest f16, one sign."""
    w = (normal(11, 8, K) * 0.05).to(F16)
    w[0] = 0
    w[1] = (torch.arange(K) % 255 - 127.0) / 128
    w[1, 0], w[1, 1], w[1, 2] = 2.0, 1.0, -1.0                       # 63.5 and -63.5 codes
    w[2] = (torch.arange(K) % 126 + 0.5) / 64                        # every product is a tie but for the reciprocal's error
    w[2, 0] = 127 / 64
    w[3, 5] = float("nan")
    w[4, 7], w[4, 8] = float("inf"), float("-inf")
    w[5] = (torch.arange(K) % 64 - 32).to(F32) * 2.0 ** -24
    w[6] = w[6] * 1e4
    w[6, 3] = 65504
    w[7] = -w[7].abs()
    return w


def activations(seed, columns, dtype):
    """ROWS x K below 6 in magnitude, and `columns` columns with an outlier in at least one row."""
    x = normal(seed, ROWS, K).clamp(-5.5, 5.5)
    r = np.random.default_rng(seed + 1000)
    for c in r.choice(K, columns, replace=False):
        rows = r.choice(ROWS, r.integers(1, ROWS), replace=False)
        x[rows, c] = torch.from_numpy((r.uniform(6.5, 40, len(rows)) * r.choice([-1, 1], len(rows))).astype(np.float32))
    return x.to(dtype)


def edge_activations(dtype):
    """Rows: zero; NaN; infinities; nothing but outliers; the threshold itself and its neighbours; subnormals; a single spike."""
    x = normal(31, 7, K).clamp(-5.5, 5.5)
    x[0] = 0
    x[1, 3] = float("nan")
    x[2, 9], x[2, 10] = float("inf"), float("-inf")
    x[3] = 6 + normal(32, K).abs()
    x[4, 20], x[4, 21], x[4, 22], x[4, 23] = 6.0, -6.0, 5.99609375, -5.99609375
    x[5] = (torch.arange(K) % 64 - 32).to(F32) * 2.0 ** -24
    x[6] *= 0.01
    x[6, 40] = 30000
    return x.to(dtype)


def column_mask(columns, k):
    mask = torch.zeros(k, dtype=torch.uint8)
    if columns is not None:
        mask[columns.cpu()] = 1
    return mask


def int8_call(x, cb, scb, threshold, bias=None):
    """What MatMul8bitLt does, step by step: codes, scales, outlier columns, sums, y8 (f16), y (x's type)."""
    a = x.to(F16)
    ca, sca, cols = F.int8_vectorwise_quant(a, threshold=threshold)
    sums = OPS.int8_linear_matmul.default(ca, cb)
    y8 = OPS.int8_mm_dequant.default(sums, sca, scb, dtype=F16, bias=bias)
    y = bnb.matmul(x, cb, bias=bias, state=state(cb, scb), threshold=threshold)
    return ca, sca, column_mask(cols, x.shape[-1]), sums, y8, y


def state(cb, scb):
    s = bnb.MatmulLtState()
    s.CB, s.SCB, s.has_fp16_weights, s.is_training = cb, scb, False, False
    return s


def int8_case(g, name, x, cb, scb, bias):
    x = x.to(g.device)
    g.keep(f"{name}.x", x)
    for part, value in zip(("ca", "sca", "cols", "sum", "y8", "y"), int8_call(x, cb, scb, 6.0)):
        g.keep(f"{name}.{part}", value)
    _, _, _, _, y8, y = int8_call(x, cb, scb, 6.0, bias.to(x.dtype))
    g.keep(f"{name}.bias_y8", y8)
    g.keep(f"{name}.bias_y", y)
    rows = [int8_call(x[i:i + 1], cb, scb, 6.0) for i in range(len(x))]
    for part, at in (("ca", 0), ("sca", 1), ("sum", 3), ("y8", 4), ("y", 5)):
        g.keep(f"{name}.row_{part}", torch.cat([r[at] for r in rows]))


def int8_without_threshold(g, name, x, cb, scb):
    x = x.to(g.device)
    for part, value in zip(("ca", "sca", "cols", "sum", "y8", "y"), int8_call(x, cb, scb, 0.0)):
        if part != "cols":
            g.keep(f"{name}.t0_{part}", value)


def big_sums():
    """Sums beyond 2^24, where an int32 no longer fits a float."""
    w = (0.93 + 0.07 * torch.from_numpy(np.random.default_rng(41).random((4, 1152), np.float32))).to(F16)
    w[2:] *= -1
    x = (0.95 + 0.05 * torch.from_numpy(np.random.default_rng(42).random((2, 1152), np.float32))).to(F16)
    return w, x * 3


def int8(device):
    g = Goldens(device)
    cb, scb = keep_weight(g, "w", (normal(1, N, K) * torch.exp(normal(2, N, 1)) * 0.03).to(F16))
    bias = normal(3, N).to(F16).to(device)
    g.keep("bias", bias)
    keep_weight(g, "edge_w", edge_weight())
    small = normal(4, 4, K) * torch.tensor([[1.0], [1e-5], [3e-7], [1e-9]])
    keep_weight(g, "bf16_w", small.to(BF16))
    keep_weight(g, "f32_w", small)
    for dtype in (F16, BF16):
        for columns in (0, 3, 30, 300) if dtype == F16 else (3, 300):
            int8_case(g, f"x{columns}_{TYPE_NAMES[dtype]}", activations(20 + columns, columns, dtype), cb, scb, bias)
        int8_case(g, f"edge_{TYPE_NAMES[dtype]}", edge_activations(dtype), cb, scb, bias)
    int8_without_threshold(g, "x3_f16", activations(23, 3, F16), cb, scb)
    w, x = big_sums()
    cb, scb = keep_weight(g, "big_w", w)
    int8_case(g, "big_f16", x, cb, scb, torch.zeros(4, dtype=F16, device=device))
    sums = g.tensors["big_f16.sum"].abs()
    assert int(sums.min()) > 1 << 24 and (sums % 2 == 1).any()
    return g


# ---- NF4 and FP4 ---------------------------------------------------------------------------

def thresholds(table):
    """The midpoints between neighbouring codes, in f32."""
    t = torch.sort(torch.unique(table.cpu())).values
    return (t[1:] + t[:-1]) / 2


def nudge(x, ulps):
    for _ in range(abs(ulps)):
        x = torch.nextafter(x, torch.tensor(float("inf") if ulps > 0 else float("-inf")))
    return x


def block4(values, absmax):
    """One block of 64: `values` after the block's largest magnitude, padded with halves of it."""
    x = torch.full((64,), 0.5 * absmax)
    x[0] = absmax
    x[1:1 + len(values)] = values[:63]
    return x


def weight4(seed, n, k, dtype):
    """Random rows; first blocks: zero, thresholds of FP4 that 16 bits hold, one sign, one spike, subnormals."""
    w = normal(seed, n, k) * torch.exp(0.5 * normal(seed + 1, n, 1)) * 0.02
    flat = w.view(-1)
    flat[:64] = 0
    flat[64:128] = block4(torch.tensor([0.0859375, -0.0859375, 0.0, -0.0, 1.0, -1.0]), 1.0)
    flat[128:192] = flat[128:192].abs()
    flat[192:256] = 0
    flat[200] = -3.0
    flat[256:320] = (torch.arange(64) - 32) * 2.0 ** -24
    return w.to(dtype)


def near_thresholds(table, seed):
    """Blocks whose elements are absmax x threshold, one rounding and up to two units aside; absmax 1, 3 and random."""
    t, blocks = thresholds(table), []
    for i, absmax in enumerate([1.0, 3.0, *np.random.default_rng(seed).uniform(0.001, 4, 10).astype(np.float32)]):
        absmax = torch.tensor(float(absmax))
        around = torch.cat([nudge(t * absmax, u) for u in (-2, -1, 0, 1, 2)])
        blocks += [block4(around[:63], float(absmax)), block4(around[63:], float(absmax))]
    return torch.stack(blocks)


def keep_codes(g, name, w, kind, rows=None):
    """Codes, and dequantised rows in both 16-bit types, without and with double quantisation; the two states."""
    q, plain = F.quantize_4bit(w, blocksize=64, quant_type=kind)
    q2, nested = F.quantize_4bit(w, blocksize=64, quant_type=kind, compress_statistics=True)
    assert torch.equal(q, q2)
    g.keep(f"{name}.{kind}.codes", q.view(-1))
    for s, tag in ((plain, "deq"), (nested, "nested_deq")) if rows is not None else ():
        for out in (F16, BF16):
            s.dtype = out
            g.keep(f"{name}.{kind}.{tag}_{TYPE_NAMES[out]}", F.dequantize_4bit(q, s)[rows])
    return plain, nested


def weight4_case(g, name, w, rows):
    w, rows = w.to(g.device), torch.tensor(rows)
    g.keep(f"{name}.w", w)
    g.keep(f"{name}.rows", rows)
    plain, nested = keep_codes(g, name, w, "nf4", rows)
    plain2, nested2 = keep_codes(g, name, w, "fp4", rows)
    assert torch.equal(plain.absmax, plain2.absmax) and torch.equal(nested.absmax, nested2.absmax)
    g.keep(f"{name}.absmax", plain.absmax)
    g.keep(f"{name}.nested_q", nested.absmax)
    g.keep(f"{name}.nested_absmax", nested.state2.absmax)
    g.keep(f"{name}.nested_offset", nested.offset.reshape(1))
    g.keep(f"{name}.nested_back", F.dequantize_blockwise(nested.absmax, nested.state2) + nested.offset)


def edge4():
    """Blocks with NaN, infinity, only negative zeros, a f32 subnormal, numbers near the end of f32."""
    x = normal(51, 5, 64)
    x[0, 7] = float("nan")
    x[1, 9], x[1, 10] = float("inf"), float("-inf")
    x[2] = -0.0
    x[3] = 0
    x[3, 1] = 2.0 ** -140
    x[4] *= 1e37
    return x


def dynamic_ties(table):
    """Four blocks of 256: midpoints of the 8-bit codes, a unit above, a unit below, and random statistics."""
    t = table.cpu()
    middle = torch.cat([(t[1:] + t[:-1]) / 2, torch.ones(1)])
    above, below = nudge(middle, 1), nudge(middle, -1)
    above[-1] = below[-1] = 1
    return torch.cat([middle, above, below, normal(61, 256) * 0.01])


def four_bit(device):
    g = Goldens(device)
    dynamic = F.create_dynamic_map().to(device)
    g.keep("dynamic.table", dynamic)
    for kind in ("nf4", "fp4"):
        g.keep(f"{kind}.table", F.get_4bit_type(kind, device=device))
    weight4_case(g, "f16", weight4(71, 24, 768, F16), [0, 1, 23])
    weight4_case(g, "bf16", weight4(73, 8, 384, BF16), [0, 1, 2, 7])
    weight4_case(g, "f32", weight4(75, 8, 384, F32), [0, 1, 2, 7])
    edge = edge4().to(device)
    near = {kind: near_thresholds(g.tensors[f"{kind}.table"], 81).to(device) for kind in ("nf4", "fp4")}
    g.keep("edge.w", edge)
    for kind in ("nf4", "fp4"):
        g.keep(f"near_{kind}.w", near[kind])
        for name, w in (("edge", edge), (f"near_{kind}", near[kind])):
            plain, _ = keep_codes(g, name, w, kind)
            g.keep(f"{name}.{kind}.absmax", plain.absmax)
    stats = dynamic_ties(dynamic).to(device)
    q, s = F.quantize_blockwise(stats, code=dynamic, blocksize=256)
    g.keep("stats.x", stats)
    g.keep("stats.q", q)
    g.keep("stats.absmax", s.absmax)
    g.keep("stats.back", F.dequantize_blockwise(q, s))
    return g


# ---- layers --------------------------------------------------------------------------------

def layer8(w, bias, device):
    layer = bnb.nn.Linear8bitLt(w.shape[1], w.shape[0], bias is not None, has_fp16_weights=False, threshold=6.0)
    layer.weight = bnb.nn.Int8Params(w.clone(), requires_grad=False, has_fp16_weights=False)
    if bias is not None:
        layer.bias = torch.nn.Parameter(bias.clone(), requires_grad=False)
    return layer.to(device).eval()


def layer4(w, bias, device, kind, nested, compute):
    layer = bnb.nn.Linear4bit(w.shape[1], w.shape[0], bias is not None, compute_dtype=compute, compress_statistics=nested, quant_type=kind)
    layer.weight = bnb.nn.Params4bit(w.clone(), requires_grad=False, compress_statistics=nested, quant_type=kind)
    if bias is not None:
        layer.bias = torch.nn.Parameter(bias.clone(), requires_grad=False)
    return layer.to(device).eval()


@torch.no_grad()
def layers(device):
    g = Goldens(device)
    w = (normal(91, 32, 256) * 0.06).to(F16)
    bias = normal(92, 32).to(F16)
    x = normal(93, 64, 256).clamp(-5.5, 5.5)
    x[0, 17], x[2, 100], x[40, 17], x[50, 200] = 9.0, -7.5, 6.0, 12.0
    x = x.to(F16).to(device)
    g.keep("w", w)
    g.keep("bias", bias)
    g.keep("x", x)
    made = {"int8": layer8(w, None, device), "int8_bias": layer8(w, bias, device)}
    for kind in ("nf4", "fp4"):
        made[kind] = layer4(w, None, device, kind, False, F16)
    made["nf4_nested"] = layer4(w, None, device, "nf4", True, F16)
    made["nf4_nested_bias"] = layer4(w, bias, device, "nf4", True, F16)
    made["nf4_nested_bf16"] = layer4(w, None, device, "nf4", True, BF16)
    g.keep("int8.cb", made["int8"].weight.CB)
    g.keep("int8.scb", made["int8"].weight.SCB)
    for kind in ("nf4", "fp4"):
        g.keep(f"{kind}.codes", made[kind].weight.view(-1))
    g.keep("absmax", made["nf4"].weight.quant_state.absmax)
    nested = made["nf4_nested"].weight.quant_state
    g.keep("nested_q", nested.absmax)
    g.keep("nested_absmax", nested.state2.absmax)
    g.keep("nested_offset", nested.offset.reshape(1))
    for name, layer in made.items():
        for rows in (1, 4, 64):
            g.keep(f"{name}.y{rows}", layer(x[:rows]))
    return g


# ---- the model's own shapes, as checksums --------------------------------------------------

LARGE = (("text.layers.0.self_attn.k_proj.weight", [1024, 4096]), ("text.layers.0.mlp.down_proj.weight", [4096, 14336]))
LARGE_SEED, PARTS = 8402, 64


def checksums(t):
    """CRC-32 of each of PARTS equal parts."""
    data = t.detach().cpu().contiguous().view(-1).view(torch.uint8).numpy()
    return [f"{zlib.crc32(part.tobytes()):08x}" for part in np.split(data, PARTS)]


class Large:
    """Weights from a hash and the checksums of what they become."""

    def __init__(self, device):
        self.device, self.rows = device, []

    def add(self, name, shape, w):
        dtype = w.dtype
        cb, scb = quantised_weight(w, self.device)
        w = w.to(self.device)
        row = dict(name=name, shape=shape, seed=LARGE_SEED, dtype=TYPE_NAMES[dtype], weight=checksums(w), cb=checksums(cb), scb=checksums(scb))
        for kind in ("nf4", "fp4"):
            q, state = F.quantize_4bit(w, blocksize=64, quant_type=kind)
            row[kind] = checksums(q)
        _, nested = F.quantize_4bit(w, blocksize=64, quant_type="nf4", compress_statistics=True)
        row.update(absmax=checksums(state.absmax), nested_q=checksums(nested.absmax), nested_absmax=checksums(nested.state2.absmax),
                   nested_offset=f"{nested.offset.cpu().view(torch.int32).item():08x}",
                   exact_mean=float(state.absmax.double().mean()))
        self.rows.append(row)

    def write(self, folder, name):
        with open(os.path.join(folder, name + ".json"), "w") as f:
            json.dump(dict(made_by=made_on(self.device), parts=PARTS, weights=self.rows), f, indent=1)
            f.write("\n")
        for r in self.rows:
            rounded = np.float32(r["exact_mean"]).view(np.uint32)
            print(r["name"], r["dtype"], "offset", r["nested_offset"], f"{rounded:08x} is the mean rounded", flush=True)


def large(device):
    out = Large(device)
    for name, shape in LARGE:
        values = torch.from_numpy(hw.values(name, shape, LARGE_SEED))
        for dtype in (F16, BF16):
            out.add(name, shape, values.to(dtype))
    return out


FILES = {"int8": int8, "4bit": four_bit, "layers": layers, "large": large}


def main():
    p = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    p.add_argument("out")
    p.add_argument("--device", default="cuda")
    p.add_argument("--only", choices=FILES)
    args = p.parse_args()
    os.makedirs(args.out, exist_ok=True)
    for name in [args.only] if args.only else FILES:
        FILES[name](args.device).write(args.out, name)


if __name__ == "__main__":
    main()
