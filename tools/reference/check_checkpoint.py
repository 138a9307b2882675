"""Loads a bitsandbytes-format folder in transformers and compares it with bitsandbytes' own quantisation of the 16-bit folder.

The one idea: both go through transformers, so what is compared is what a user gets: the modules, every code, every scale, the
weights left in 16 bit, and the answer to a prompt with an image.

    usage: check_checkpoint.py FOLDER SIXTEEN_BIT_FOLDER [--device cuda:0] [--dtype auto] [--codes 1e-5]

--codes: the share of codes that may be one step aside (values on a threshold).  Exit code 0: they agree; 1: not.
"""
import argparse
import json
import os
import sys

import bitsandbytes as bnb
import torch
import transformers
from transformers import BitsAndBytesConfig, MllamaForConditionalGeneration

SHOWN = 8                                    # modules named per kind of difference


def quantization_config(folder):
    with open(os.path.join(folder, "config.json"), encoding="utf-8") as f:
        q = json.load(f).get("quantization_config")
    if not q:
        sys.exit(f"check_checkpoint: {folder} has no quantization_config")
    return BitsAndBytesConfig.from_dict({k: v for k, v in q.items() if not k.startswith("_")})


def load(folder, args, **more):
    model, info = MllamaForConditionalGeneration.from_pretrained(
        folder, dtype=args.dtype, device_map={"": args.device}, attn_implementation="eager", output_loading_info=True, **more)
    for key in ("missing_keys", "unexpected_keys", "mismatched_keys"):
        if info[key]:
            sys.exit(f"check_checkpoint: {folder}: {key}: {sorted(info[key])[:SHOWN]}")
    return model.eval()


def linears(model):
    return {n: m for n, m in model.named_modules() if isinstance(m, (bnb.nn.Linear8bitLt, bnb.nn.Linear4bit))}


class Tally:
    """Numbers compared and numbers that differ, by kind, with the modules where they do."""

    def __init__(self):
        self.kinds = {}

    def add(self, kind, name, ours, theirs):
        k = self.kinds.setdefault(kind, dict(n=0, differ=0, most=0.0, names=[]))
        if ours.shape != theirs.shape or ours.dtype != theirs.dtype:
            k["names"].append(f"{name} ({tuple(ours.shape)} {ours.dtype} for {tuple(theirs.shape)} {theirs.dtype})")
            k["differ"] += theirs.numel()
            k["n"] += theirs.numel()
            k["most"] = float("inf")
            return
        off = (ours.double() - theirs.double()).abs()
        if ours.is_floating_point():
            off = off / theirs.double().abs().clamp_min(1e-30)
        count = int((ours != theirs).sum())
        k["n"] += ours.numel()
        k["differ"] += count
        if count:
            k["most"] = max(k["most"], float(off.max()))
            k["names"].append(name)

    def show(self):
        for kind, k in self.kinds.items():
            where = f"  e.g. {', '.join(k['names'][:SHOWN])}" if k["names"] else ""
            print(f"{kind:22s} {k['n']:12d} compared {k['differ']:9d} differ, at most {k['most']:.3g}{where}")


def steps(packed, table):
    """The packed codes as positions in the sorted table: neighbours in value are one apart, in FP4 too."""
    b = packed.view(-1).view(torch.uint8)
    return torch.argsort(torch.argsort(table, stable=True))[torch.stack([b >> 4, b & 15], 1).view(-1).long()]


def compare8(t, name, a, b):
    t.add("8-bit codes", name, a.weight.data, b.weight.data)
    t.add("8-bit scales", name, a.weight.SCB, b.weight.SCB)


def compare4(t, name, a, b):
    qa, qb = a.weight.quant_state, b.weight.quant_state
    facts = [(q.quant_type, q.blocksize, tuple(q.shape), q.nested, q.dtype) for q in (qa, qb)]
    if facts[0] != facts[1]:
        sys.exit(f"check_checkpoint: {name}: quant_state {facts[0]}, bitsandbytes makes {facts[1]}")
    t.add("4-bit codes", name, steps(a.weight.data, qa.code), steps(b.weight.data, qb.code))
    t.add("scales' codes" if qa.nested else "4-bit scales", name, qa.absmax, qb.absmax)
    t.add("table of 16", name, qa.code, qb.code)
    if qa.nested:
        t.add("scales' scales", name, qa.state2.absmax, qb.state2.absmax)
        t.add("scales' offset", name, qa.offset.float().reshape(1), qb.offset.float().reshape(1))
        t.add("table of 256", name, qa.state2.code, qb.state2.code)


def compare(ours, theirs):
    """A Tally of all weights; a module that only one of them quantises ends the program."""
    a, b = linears(ours), linears(theirs)
    if set(a) != set(b):
        sys.exit(f"check_checkpoint: quantised in one only: {sorted(set(a) ^ set(b))[:SHOWN]}")
    t = Tally()
    for name in a:
        if type(a[name]) is not type(b[name]):
            sys.exit(f"check_checkpoint: {name} is {type(a[name]).__name__}, bitsandbytes makes {type(b[name]).__name__}")
        (compare8 if isinstance(a[name], bnb.nn.Linear8bitLt) else compare4)(t, name, a[name], b[name])
    quantised = {f"{n}.weight" for n in a}
    other = dict(theirs.named_parameters())
    for name, p in ours.named_parameters():
        if name not in quantised:
            t.add("16-bit weights", name, p.data, other[name].data.to(p.dtype))
    return t


@torch.no_grad()
def answer(model):
    """Logits of a fixed random prompt with an image of one tile."""
    c = model.config
    g = torch.Generator().manual_seed(1)
    ids = torch.randint(4, min(c.text_config.vocab_size, 100000) - 1, (1, 40), generator=g)
    ids[0, 1] = c.image_token_index
    size, most = c.vision_config.image_size, c.vision_config.max_num_tiles
    pixels = torch.zeros(1, 1, most, 3, size, size)
    pixels[:, :, 0] = torch.randn(3, size, size, generator=g)
    mask, real = torch.zeros(1, 40, 1, most, dtype=torch.long), torch.zeros(1, 1, most, dtype=torch.long)
    mask[:, 1:, :, 0] = real[:, :, 0] = 1
    x = dict(input_ids=ids, attention_mask=torch.ones_like(ids), pixel_values=pixels.to(model.dtype), aspect_ratio_mask=real,
             aspect_ratio_ids=torch.ones(1, 1, dtype=torch.long), cross_attention_mask=mask)
    return model(**{k: v.to(model.device) for k, v in x.items()}, use_cache=False).logits[0].float()


def agrees(tally, share):
    """Codes: a share of one step aside; the mean of the scales in its last bits; all else equal."""
    fine = True
    for kind, k in tally.kinds.items():
        if kind in ("8-bit codes", "4-bit codes", "scales' codes"):
            fine &= k["differ"] <= share * k["n"] and k["most"] <= 1
        elif kind in ("scales' offset", "scales' scales"):
            fine &= k["most"] <= 1e-6
        else:
            fine &= k["differ"] == 0
    return fine


def main():
    p = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    p.add_argument("folder")
    p.add_argument("sixteen")
    p.add_argument("--device", default="cuda:0")
    p.add_argument("--dtype", default="auto")
    p.add_argument("--codes", type=float, default=1e-5)
    args = p.parse_args()
    transformers.logging.set_verbosity_error()
    ours = load(args.folder, args)
    theirs = load(args.sixteen, args, quantization_config=quantization_config(args.folder))
    tally = compare(ours, theirs)              # before they run: the layers move their codes then
    tally.show()
    a, b = answer(ours), answer(theirs)
    print(f"logits: at most {float((a - b).abs().max()):.3g} apart of {float(b.abs().max()):.3g}, "
          f"{int((a.argmax(-1) == b.argmax(-1)).sum())} of {len(a)} best tokens equal")
    fine = agrees(tally, args.codes)
    print("agrees with bitsandbytes" if fine else "does NOT agree with bitsandbytes")
    return 0 if fine else 1


if __name__ == "__main__":
    sys.exit(main())
