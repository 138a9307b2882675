"""Tiny Mllama checkpoints as transformers + bitsandbytes write them, and what Hugging Face answers with them.

The one idea: the 16-bit model comes from a hash (hash_weights.py), so a test can make it, quantise it and compare codes; what
save_pretrained wrote is stored as it is, so a test can also load it; and the answers are there both as bitsandbytes computes
them (f16) and in f32 from the dequantised weights, which tells a wrong weight from a rounding.

    usage: bnb_checkpoints.py OUT_FOLDER [--device cuda] [NAME...]        names: int8 nf4 nf4_plain fp4 dynamic

tests/data/golden/bnb/README.md has the file layout.
"""
import argparse
import json
import os
import tempfile

import bitsandbytes as bnb
import numpy as np
import torch
import transformers
from safetensors.numpy import save_file
from transformers import BitsAndBytesConfig, MllamaForConditionalGeneration

import hash_weights as hw
import make_goldens as mg

VOCAB, GREEDY, MIN_GAP = 64, 8, 1e-2
CASE = mg.case([(0, 5)], [5, 17], leaving=True)              # an image of 2 x 1 tiles after five tokens
INTENDED = ["model.vision_model", "model.multi_modal_projector", "lm_head"]


def config(dtype, vision_hidden):
    c = mg.config(14, 4, 2, dtype, new_form=True)
    c["image_token_index"] = VOCAB
    c["text_config"].update(vocab_size=VOCAB, hidden_size=128, intermediate_size=192, num_hidden_layers=2, cross_attention_layers=[1])
    c["vision_config"].update(patch_size=7, hidden_size=vision_hidden, intermediate_size=64, num_hidden_layers=1, num_global_layers=1,
                              intermediate_layers_indices=[0], vision_output_dim=2 * vision_hidden)
    return c


def base(dtype, vision_hidden, seed, layout="new"):
    short = dict(float16="F16", bfloat16="BF16")[dtype]
    return dict(config=config(dtype, vision_hidden), weights=dict(seed=seed, dtype=short, layout=layout, shards=1, unused_slots="zero"))


BASES = {"base": base("float16", 32, 8400), "base_dynamic": base("bfloat16", 64, 8401, "old")}


def four_bits(kind, nested, skip=None, compute=torch.float16):
    return dict(load_in_4bit=True, bnb_4bit_quant_type=kind, bnb_4bit_use_double_quant=nested, bnb_4bit_compute_dtype=compute,
                llm_int8_skip_modules=skip or INTENDED)


# The last one is what others publish: made from bfloat16, the vision tower quantised too, some modules left out.
MODELS = {
    "int8": ("base", torch.float16, dict(load_in_8bit=True, llm_int8_skip_modules=INTENDED)),
    "nf4": ("base", torch.float16, four_bits("nf4", True)),
    "nf4_plain": ("base", torch.float16, four_bits("nf4", False)),
    "fp4": ("base", torch.float16, four_bits("fp4", False)),
    "dynamic": ("base_dynamic", torch.bfloat16,
                four_bits("nf4", True, ["lm_head", "model.multi_modal_projector", "model.language_model.layers.1.cross_attn.k_proj",
                                        "model.language_model.layers.0.mlp.down_proj", "model.vision_model.transformer.layers.0.mlp.fc1"],
                          torch.bfloat16)),
}


def linears(model):
    return {n: m for n, m in model.named_modules() if isinstance(m, (bnb.nn.Linear8bitLt, bnb.nn.Linear4bit))}


def load(folder, device, dtype, **more):
    model, info = MllamaForConditionalGeneration.from_pretrained(
        folder, dtype=dtype, device_map={"": device}, attn_implementation="eager", output_loading_info=True, **more)
    for key in ("missing_keys", "unexpected_keys", "mismatched_keys"):
        assert not info[key], (key, info[key])
    return model.eval()


def in_f16(model):
    """Computes in f16 whatever is stored: transformers leaves bf16 weights of a quantised folder as they are."""
    for p in (*model.parameters(), *model.buffers()):
        if p.dtype == torch.bfloat16:
            p.data = p.data.to(torch.float16)
    for m in linears(model).values():
        if isinstance(m, bnb.nn.Linear4bit):
            m.compute_dtype, m.compute_type_is_set = torch.float16, True
    assert model.dtype == torch.float16
    return model


def dequantised(m):
    """The weight that a quantised product stands for: f32 of CB x SCB / 127, or 4-bit rounded once to f16."""
    if isinstance(m, bnb.nn.Linear8bitLt):
        cb, scb = (m.weight.CB, m.weight.SCB) if m.weight.CB is not None else (m.state.CB, m.state.SCB)
        return torch.ops.bitsandbytes.int8_vectorwise_dequant.default(cb, scb)
    s = m.weight.quant_state
    before, s.dtype = s.dtype, torch.float16
    w = bnb.functional.dequantize_4bit(m.weight.data, s)
    s.dtype = before
    return w.float()


def exact_model(base_folder, quantised, device):
    """The 16-bit model in f32 arithmetic with the weights that `quantised` has."""
    model = load(base_folder, device, torch.float32)
    modules = dict(model.named_modules())
    with torch.no_grad():
        for name, m in linears(quantised).items():
            modules[name].weight.copy_(dequantised(m))
    return model


@torch.no_grad()
def forward(model, x):
    """Vision output [n,4,tokens,features], hidden states, logits; f32."""
    seen = {}
    hook = model.model.vision_model.register_forward_hook(lambda m, i, o: seen.update(vis=o.last_hidden_state))
    args = {k: torch.from_numpy(v).to(model.device) for k, v in x.items()}
    args["pixel_values"] = args["pixel_values"].to(model.dtype)
    out = model(**args, output_hidden_states=True, use_cache=False)
    hook.remove()
    return [t[0].float().cpu().numpy() for t in (seen["vis"], out.logits, *out.hidden_states)]


@torch.no_grad()
def greedy(model, x):
    args = {k: torch.from_numpy(v).to(model.device) for k, v in x.items()}
    args["pixel_values"] = args["pixel_values"].to(model.dtype)
    out = model.generate(**args, attention_mask=torch.ones_like(args["input_ids"]), max_new_tokens=GREEDY, do_sample=False,
                         eos_token_id=None, pad_token_id=3, output_logits=True, return_dict_in_generate=True)
    return out.sequences[0, -GREEDY:].cpu().numpy(), torch.stack([step[0] for step in out.logits]).float().cpu().numpy()


def count_outliers(model, x, threshold):
    """Name of each quantised module -> columns of its input with an element of at least the threshold."""
    counts, hooks = {}, []
    for name, m in linears(model).items():
        def look(module, args, name=name):
            a = args[0].reshape(-1, args[0].shape[-1]).to(torch.float16)
            counts[name] = counts.get(name, 0) + int((a.abs() >= threshold).any(0).sum())
        hooks.append(m.register_forward_pre_hook(look))
    forward(model, x)
    for h in hooks:
        h.remove()
    return counts


def by_rows(model, on):
    """Makes each 8-bit layer take its rows one call each (M = 1): outliers per row, not per call."""
    for m in linears(model).values():
        if on:
            whole = type(m).forward.__get__(m)

            def forward_rows(x, whole=whole):
                rows = x.reshape(-1, x.shape[-1])
                return torch.cat([whole(rows[i:i + 1]) for i in range(len(rows))]).reshape(*x.shape[:-1], -1)
            m.forward = forward_rows
        else:
            del m.forward


def int8_variants(model, x):
    """Logits with outliers per row ("row"), with threshold 3 (many outliers) and 0 (none)."""
    out = {}
    for threshold, tag in ((3.0, "t3_"), (0.0, "t0_"), (6.0, "")):
        for m in linears(model).values():
            m.state.threshold = threshold
        if threshold != 6:
            out[tag + "logits"] = forward(model, x)[1]
        if threshold:
            by_rows(model, True)
            out[f"row_{tag}logits"] = forward(model, x)[1]
            by_rows(model, False)
    return out


def write_json(path, value):
    with open(path, "w") as f:
        json.dump(value, f, indent=2)
        f.write("\n")


def answers(name, folder, base_folder, x, device):
    """The golden tensors of one checkpoint, loaded again from what was written."""
    model = in_f16(load(folder, device, torch.float16))
    exact = forward(exact_model(base_folder, model, device), x)      # first: on a CPU the 4-bit layers repack their codes
    vis, logits, *hidden = forward(model, x)
    gen, glog = greedy(model, x)
    plain = forward(load(base_folder, device, torch.float32), x)
    n, tiles, tokens, features = vis.shape
    at = np.array([(i, t, k) for i in range(n) for t in range(tiles) for k in range(tokens)], np.int64)
    out = {"ids": x["input_ids"][0], "image": np.array([k for k, _ in CASE["images"]]), "ar": x["aspect_ratio_ids"][0],
           "cm": x["cross_attention_mask"][0], "leaving": np.array([1]), "vis_at": at, "vis": vis.reshape(-1, features),
           "logits": logits, "exact_logits": exact[1], "base_logits": plain[1], "gen": gen, "glog": glog}
    if name == "int8":
        out["rows"] = np.arange(len(x["input_ids"][0]), dtype=np.int64)
        out.update((f"h{i}", h) for i, h in enumerate(hidden))
        out.update(int8_variants(model, x))
        print(name, "the same logits again:", np.array_equal(forward(model, x)[1], logits))
        for threshold in (6, 3):
            counts = count_outliers(model, x, threshold)
            print(name, f"columns that reach {threshold}:", {k.replace("model.language_model.layers.", ""): v for k, v in counts.items() if v})
    best = np.sort(glog, -1)
    gap = float((best[:, -1] - best[:, -2]).min())
    off = {k: float(np.abs(v - logits).max()) for k, v in out.items() if k.endswith("_logits")}
    print(name, f"|logits| {np.abs(logits).max():.3g} gap {gap:.3g} continues {gen.tolist()}; logits to",
          {k: f"{v:.3g}" for k, v in off.items()}, "vision to f32", f"{np.abs(exact[0] - vis).max():.3g}", flush=True)
    return {f"a_{k}": np.ascontiguousarray(v) for k, v in out.items()}, gap


def make(name, out, bases, device):
    source, dtype, how = MODELS[name]
    folder = os.path.join(out, name)
    model = load(bases[source], device, dtype, quantization_config=BitsAndBytesConfig(**how))
    print(name, len(linears(model)), "quantised modules,", type(next(iter(linears(model).values()))).__name__, flush=True)
    model.save_pretrained(folder)
    del model
    weights = BASES[source]["weights"]
    x = mg.inputs(CASE, weights["seed"], 14, "a", VOCAB)
    tensors, gap = answers(name, folder, bases[source], x, device)
    where = torch.cuda.get_device_name() if device != "cpu" else "CPU"
    made_by = f"transformers {transformers.__version__}, bitsandbytes {bnb.__version__}, torch {torch.__version__}, f16, eager, {where}"
    save_file(tensors, os.path.join(folder, "golden.safetensors"), metadata={"made_by": made_by})
    for file in os.listdir(folder):
        os.chmod(os.path.join(folder, file), 0o644)
    if gap < MIN_GAP:
        print(f"{name}: two candidates {gap} apart: take another seed than {weights['seed']}")


def main():
    p = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    p.add_argument("out")
    p.add_argument("--device", default="cuda:0")
    p.add_argument("names", nargs="*")
    args = p.parse_intermixed_args()
    transformers.logging.set_verbosity_error()
    torch.backends.cuda.matmul.allow_tf32 = torch.backends.cudnn.allow_tf32 = False
    with tempfile.TemporaryDirectory() as tmp:
        bases = {}
        for key, b in BASES.items():
            folder = os.path.join(args.out, key)
            os.makedirs(folder, exist_ok=True)
            write_json(os.path.join(folder, "config.json"), b["config"])
            write_json(os.path.join(folder, "weights.json"), b["weights"])
            bases[key] = os.path.join(tmp, key)
            hw.write_folder(folder, bases[key])
        for name in args.names or MODELS:
            make(name, args.out, bases, args.device)


if __name__ == "__main__":
    main()
