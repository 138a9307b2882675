"""Model folders whose weights come from a hash, so that nobody has to store them.

The one idea: element i of a tensor is a function of (seed, canonical tensor name, i) made of integer
operations and one or two correctly rounded floating-point ones.  Python (here) and C
(tests/support/hash_checkpoint.c) therefore write identical bits, and a golden file of Hugging Face's
outputs needs only a config.json and the few words of weights.json beside it.

    key(name)  = seed xor FNV-1a-64(name)
    h(i)       = splitmix64's finaliser of key + (i + 1) * 0x9E3779B97F4A7C15
    s(i)       = sum of h's four 16-bit parts - 131070      (near-normal integer, std 37837)

    usage: hash_weights.py FOLDER OUT       FOLDER holds config.json and weights.json
"""
import json
import os
import shutil
import sys
import zlib

import numpy as np

GOLDEN_RATIO = 0x9E3779B97F4A7C15
MASK = (1 << 64) - 1
CHUNK = 1 << 22


def fnv1a64(text):
    h = 0xCBF29CE484222325
    for b in text.encode():
        h = ((h ^ b) * 0x100000001B3) & MASK
    return h


def hashes(seed, name, start, n):
    """h(start) .. h(start + n - 1) as uint64."""
    z = np.arange(start + 1, start + 1 + n, dtype=np.uint64) * np.uint64(GOLDEN_RATIO)
    z += np.uint64((seed ^ fnv1a64(name)) & MASK)
    z = (z ^ (z >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    z = (z ^ (z >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return z ^ (z >> np.uint64(31))


def normal_ints(h):
    """s: near-normal integers in -131070..131070, as float32 (exact)."""
    m = np.uint64(0xFFFF)
    s = (h & m) + (h >> np.uint64(16) & m) + (h >> np.uint64(32) & m) + (h >> np.uint64(48))
    return s.astype(np.int64).astype(np.float32) - np.float32(131070)


def kind(name):
    """What a tensor is, from its canonical name: decides mean and spread."""
    last = name.rsplit(".", 1)[-1]
    if last.endswith("gate") or last in ("gate_attn", "gate_ffn"):
        return "gate"
    if ".q_norm." in name or ".k_norm." in name:
        return "head_norm"
    if last == "bias":
        return "bias"
    if "norm" in name:
        return "norm"
    if "embedding" in name and "patch_embedding" not in name or "embed_tokens" in name:
        return "table"
    if name.endswith("q_proj.weight") or name.endswith("k_proj.weight"):
        return "linear_qk"       # wider, so that attention looks at some keys more than at others
    if name == "lm_head.weight":
        return "linear_head"     # wider, so that the best token is clear of the second
    return "linear"


GAIN2 = {"linear": 1.0, "linear_qk": 2.25, "linear_head": 4.0}   # gain squared; variance = gain2 / columns


def values(name, shape, seed):
    """The tensor in float32 (before any zeroing of unused table slots)."""
    n = int(np.prod(shape))
    out = np.empty(n, np.float32)
    k = kind(name)
    if k in GAIN2:
        cols = n // shape[0]
        scale = np.float32(np.sqrt(np.float64(3.0) * GAIN2[k] / cols)) * np.float32(2.0 ** -16)
    for at in range(0, n, CHUNK):
        m = min(CHUNK, n - at)
        h = hashes(seed, name, at, m)
        if k == "gate":          # raw value in +-[0.35, 0.85): |tanh| in [0.336, 0.691)
            v = (22938 + (h & np.uint64(0x7FFF)).astype(np.int64)).astype(np.float32) * np.float32(2.0 ** -16)
            v[(h >> np.uint64(63)) == 1] *= np.float32(-1)
        else:
            s = normal_ints(h)
            if k == "norm":
                v = s * np.float32(2.0 ** -18) + np.float32(1.0)
            elif k == "head_norm":
                v = s * np.float32(2.0 ** -18) + np.float32(1.5)
            elif k == "bias":
                v = s * np.float32(2.0 ** -19)
            elif k == "table":
                v = s * np.float32(2.0 ** -16)
            else:
                v = s * scale
        out[at:at + m] = v
    return out.reshape(shape)


def tile_table(name):
    return name in ("vision.gated_positional_embedding.tile_embedding.weight",
                    "vision.pre_tile_positional_embedding.embedding.weight",
                    "vision.post_tile_positional_embedding.embedding.weight")


def zero_unused(x, ratios, max_tiles):
    """Row 0 and the slots that an aspect ratio does not use become zero, as in the published checkpoints."""
    x = x.reshape(x.shape[0], max_tiles, -1)
    x[0] = 0
    for i, (h, w) in enumerate(ratios):
        x[i + 1, h * w:] = 0
    return x.reshape(x.shape[0], -1)


def tensors(config):
    """(canonical name, shape) of every tensor of an Mllama checkpoint."""
    t, v = config["text_config"], config["vision_config"]
    hid, ffn = t["hidden_size"], t["intermediate_size"]
    dim = hid // t["num_attention_heads"]
    kv = t["num_key_value_heads"] * dim
    yield "text.embed_tokens.weight", [t["vocab_size"] + 8, hid]
    for i in range(t["num_hidden_layers"]):
        p = f"text.layers.{i}."
        cross = i in t["cross_attention_layers"]
        a = p + ("cross_attn." if cross else "self_attn.")
        yield p + "input_layernorm.weight", [hid]
        yield p + "post_attention_layernorm.weight", [hid]
        yield a + "q_proj.weight", [hid, hid]
        yield a + "k_proj.weight", [kv, hid]
        yield a + "v_proj.weight", [kv, hid]
        yield a + "o_proj.weight", [hid, hid]
        if cross:
            yield a + "q_norm.weight", [dim]
            yield a + "k_norm.weight", [dim]
            yield p + "cross_attn_attn_gate", [1]
            yield p + "cross_attn_mlp_gate", [1]
        yield p + "mlp.gate_proj.weight", [ffn, hid]
        yield p + "mlp.up_proj.weight", [ffn, hid]
        yield p + "mlp.down_proj.weight", [hid, ffn]
    yield "text.norm.weight", [hid]
    yield "lm_head.weight", [t["vocab_size"], hid]
    yield "projector.weight", [hid, v["vision_output_dim"]]
    yield "projector.bias", [hid]
    d, f, patch, tiles = v["hidden_size"], v["intermediate_size"], v["patch_size"], v["max_num_tiles"]
    n = (v["image_size"] // patch) ** 2 + 1
    rows = len(v["supported_aspect_ratios"]) + 1
    yield "vision.class_embedding", [d]
    yield "vision.patch_embedding.weight", [d, 3, patch, patch]
    yield "vision.gated_positional_embedding.embedding", [n, d]
    yield "vision.gated_positional_embedding.gate", [1]
    yield "vision.gated_positional_embedding.tile_embedding.weight", [rows, tiles * n * d]
    for p in ("pre", "post"):
        yield f"vision.{p}_tile_positional_embedding.embedding.weight", [rows, tiles * d]
        yield f"vision.{p}_tile_positional_embedding.gate", [1]
        yield f"vision.layernorm_{p}.weight", [d]
        yield f"vision.layernorm_{p}.bias", [d]
    for stack, count in (("transformer", v["num_hidden_layers"]), ("global_transformer", v["num_global_layers"])):
        for i in range(count):
            p = f"vision.{stack}.layers.{i}."
            for w in "qkvo":
                yield p + f"self_attn.{w}_proj.weight", [d, d]
            yield p + "mlp.fc1.weight", [f, d]
            yield p + "mlp.fc1.bias", [f]
            yield p + "mlp.fc2.weight", [d, f]
            yield p + "mlp.fc2.bias", [d]
            for norm in ("input_layernorm", "post_attention_layernorm"):
                yield p + norm + ".weight", [d]
                yield p + norm + ".bias", [d]
            if stack == "global_transformer":
                yield p + "gate_attn", [1]
                yield p + "gate_ffn", [1]


OLD = {"text": "language_model.model", "lm_head": "language_model.lm_head", "vision": "vision_model",
       "projector": "multi_modal_projector"}
NEW = {"text": "model.language_model", "lm_head": "lm_head", "vision": "model.vision_model",
       "projector": "model.multi_modal_projector"}


def file_name(name, layout):
    room, rest = name.split(".", 1)
    return {"old": OLD, "new": NEW}[layout][room] + "." + rest


def to_bytes(x, dtype):
    if dtype == "F32":
        return x.tobytes()
    if dtype == "F16":
        return x.astype(np.float16).tobytes()
    bits = x.view(np.uint32)
    even = bits >> np.uint32(16) & np.uint32(1)
    return ((bits + np.uint32(0x7FFF) + even) >> np.uint32(16)).astype(np.uint16).tobytes()


def stored(config, weights):
    """(name, shape, bytes) of every tensor as weights.json wants it, in name order."""
    v = config["vision_config"]
    for name, shape in sorted(tensors(config)):
        x = values(name, shape, weights["seed"])
        if weights["unused_slots"] == "zero" and tile_table(name):
            x = zero_unused(x, v["supported_aspect_ratios"], v["max_num_tiles"])
        yield name, shape, to_bytes(np.ascontiguousarray(x), weights["dtype"])


def write_safetensors(path, items, dtype):
    header, at = {}, 0
    for name, shape, data in items:
        header[name] = {"dtype": dtype, "shape": shape, "data_offsets": [at, at + len(data)]}
        at += len(data)
    text = json.dumps(header, separators=(",", ":")).encode()
    text += b" " * (-len(text) % 8)
    with open(path, "wb") as f:
        f.write(len(text).to_bytes(8, "little") + text)
        for _, _, data in items:
            f.write(data)


def write_folder(folder, out):
    """Writes OUT/config.json and the checkpoint; returns {canonical name: crc32 of its bytes}."""
    with open(os.path.join(folder, "config.json")) as f:
        config = json.load(f)
    with open(os.path.join(folder, "weights.json")) as f:
        weights = json.load(f)
    os.makedirs(out, exist_ok=True)
    shutil.copyfile(os.path.join(folder, "config.json"), os.path.join(out, "config.json"))
    items, sums = [], {}
    for name, shape, data in stored(config, weights):
        sums[name] = zlib.crc32(data)
        items.append((file_name(name, weights["layout"]), shape, data))
    shards = weights["shards"]
    if shards == 1:
        write_safetensors(os.path.join(out, "model.safetensors"), items, weights["dtype"])
        return sums
    index = {"metadata": {"total_size": sum(len(d) for _, _, d in items)}, "weight_map": {}}
    for k in range(shards):
        part = items[len(items) * k // shards:len(items) * (k + 1) // shards]
        file = f"model-{k + 1:05d}-of-{shards:05d}.safetensors"
        write_safetensors(os.path.join(out, file), part, weights["dtype"])
        index["weight_map"].update((name, file) for name, _, _ in part)
    with open(os.path.join(out, "model.safetensors.index.json"), "w") as f:
        json.dump(index, f, indent=1, sort_keys=True)
    return sums


def image_tiles(seed, image, n_tiles, tile):
    """u8 [n_tiles, 3, tile, tile]: the top byte of h(i) of the name "pixels.<image>"."""
    n = n_tiles * 3 * tile * tile
    return (hashes(seed, f"pixels.{image}", 0, n) >> np.uint64(56)).astype(np.uint8).reshape(n_tiles, 3, tile, tile)


if __name__ == "__main__":
    if len(sys.argv) != 3:
        sys.exit(__doc__)
    write_folder(sys.argv[1], sys.argv[2])
