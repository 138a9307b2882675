"""Times Hugging Face transformers on a model folder, stage by stage, for `rvbench run --hf`.

The one idea: the same folder, the same shapes and the same names of results as rvbench, so that its table can put
the two side by side.  Weights may be random (rvengine synth): only times and memory are looked at.

    usage: hf_bench.py MODEL_DIR [--json FILE] [--bits 8|4] [--tokens 32] [--repeat 3] [--batch 1,8] [--device cuda]

Vision is the tower and the projector; the cross-attention keys, which rvengine's line includes, are made inside
HF's prefill.  First token: from pixel values that lie on the device, as rvbench counts from a decoded picture.

--bits 8 and 4: bitsandbytes quantises while the 16-bit folder loads (LLM.int8 with threshold 6; NF4 with double quantisation),
computes in f16, and leaves the vision tower, the projector and lm_head in 16 bit: the modules of the preset "intended".
"""
import argparse
import json
import statistics
import sys
import time

import torch
import transformers
from transformers import BitsAndBytesConfig, MllamaForConditionalGeneration

ONE_TILE, FOUR_TILES = 1, 6          # aspect ratio ids: (1, 1) and (2, 2)
INTENDED = ["model.vision_model", "model.multi_modal_projector", "lm_head"]


def quantisation(bits):
    """The keywords of from_pretrained, and the type of what is not quantised (None: as asked for)."""
    if bits == 16:
        return {}, None
    how = dict(load_in_8bit=True) if bits == 8 else dict(
        load_in_4bit=True, bnb_4bit_quant_type="nf4", bnb_4bit_use_double_quant=True, bnb_4bit_compute_dtype=torch.float16)
    return dict(quantization_config=BitsAndBytesConfig(**how, llm_int8_skip_modules=INTENDED)), "float16"


class Bench:
    def __init__(self, args):
        self.args, self.results, self.memory, self.model = args, [], {}, None

    def sync(self):
        if self.args.device.startswith("cuda"):
            torch.cuda.synchronize()

    def seconds(self, work):
        self.sync()
        start = time.perf_counter()
        work()
        self.sync()
        return time.perf_counter() - start

    def keep(self, name, unit, values):
        self.results.append(dict(name=name, unit=unit, median=statistics.median(values), min=min(values), max=max(values), values=values))
        print(f"{name:20s} {statistics.median(values):10.2f} {min(values):10.2f} {max(values):10.2f} {unit}", flush=True)

    def stage(self, name, work):
        work()                       # warms up
        self.keep(name, "ms", [1e3 * self.seconds(work) for _ in range(self.args.repeat)])

    def load(self):
        values = []
        more, dtype = quantisation(self.args.bits)
        self.args.dtype = dtype or self.args.dtype
        if self.args.device != "cpu" or more:
            more["device_map"] = {"": self.args.device}                # which needs accelerate
        for _ in range(self.args.loads):
            self.model = None
            if self.args.device.startswith("cuda"):
                torch.cuda.empty_cache()

            def work():
                self.model = MllamaForConditionalGeneration.from_pretrained(
                    self.args.model, dtype=getattr(torch, self.args.dtype), attn_implementation="sdpa", **more)
            values.append(1e3 * self.seconds(work))
        self.keep("load", "ms", values)
        if self.args.device.startswith("cuda"):
            torch.cuda.synchronize()
            self.memory.update(weights_bytes=torch.cuda.memory_allocated(), load_peak_bytes=torch.cuda.max_memory_allocated())
            torch.cuda.reset_peak_memory_stats()
            print(", ".join(f"{k} {v}" for k, v in self.memory.items()), flush=True)
        self.model.eval()
        self.model.generation_config.eos_token_id = None          # answers of a fixed length
        self.model.generation_config.pad_token_id = 0

    def inputs(self, tiles, tokens, batch=1):
        """A prompt of `tokens` tokens, begin-of-text and one image first; tiles 0: no image."""
        c = self.model.config
        generator = torch.Generator().manual_seed(1)
        ids = torch.randint(10, min(c.text_config.vocab_size, 100000) - 10, (batch, tokens), generator=generator)
        out = dict(input_ids=ids, attention_mask=torch.ones_like(ids))
        if tiles:
            size, most = c.vision_config.image_size, c.vision_config.max_num_tiles
            ids[:, 1] = c.image_token_index
            pixels = torch.zeros(batch, 1, most, 3, size, size)
            pixels[:, :, :tiles] = torch.randn(batch, 1, tiles, 3, size, size, generator=generator)
            mask = torch.zeros(batch, tokens, 1, most, dtype=torch.long)
            mask[:, 1:, :, :tiles] = 1
            real = torch.zeros(batch, 1, most, dtype=torch.long)
            real[:, :, :tiles] = 1
            ratio = torch.full((batch, 1), FOUR_TILES if tiles == 4 else ONE_TILE)
            out.update(pixel_values=pixels.to(self.model.dtype), aspect_ratio_ids=ratio, aspect_ratio_mask=real, cross_attention_mask=mask)
        return {k: v.to(self.args.device) for k, v in out.items()}

    def vision(self, tiles):
        i = self.inputs(tiles, 8)
        inner = self.model.model

        def tower():
            return inner.vision_model(i["pixel_values"], i["aspect_ratio_ids"], i["aspect_ratio_mask"]).last_hidden_state
        self.stage(f"vision_{tiles}", lambda: inner.multi_modal_projector(tower()))
        self.stage(f"tower_{tiles}", tower)

    def generate(self, inputs, tokens):
        out = self.model.generate(**inputs, max_new_tokens=tokens, do_sample=False, use_cache=True)
        made = out.shape[1] - inputs["input_ids"].shape[1]
        if made != tokens:
            sys.exit(f"hf_bench: {made} tokens came, {tokens} were asked for")

    def first_token(self, tiles):
        i = self.inputs(tiles, self.args.prompt_tokens)
        self.stage(f"first_token_{tiles}", lambda: self.generate(i, 1))

    def prefill(self, tokens):
        i = self.inputs(0, tokens)
        self.stage(f"prefill_{tokens}", lambda: self.model(**i, logits_to_keep=1, use_cache=True))

    def decode(self, batch):
        i = self.inputs(4, self.args.prompt_tokens, batch)
        self.generate(i, 2)
        rates = []
        for _ in range(self.args.repeat):
            first, all_of_them = (self.seconds(lambda: self.generate(i, n)) for n in (1, self.args.tokens))
            rates.append(batch * (self.args.tokens - 1) / (all_of_them - first))
        self.keep(f"decode_{batch}", "tok/s", rates)

    def run(self):
        self.load()
        with torch.inference_mode():
            for tiles in (4, 1):
                self.vision(tiles)
                self.first_token(tiles)
            self.prefill(self.args.prompt_tokens)
            if self.args.long_prompt:
                self.prefill(self.args.long_prompt)
            for batch in self.args.batch.split(","):
                self.decode(int(batch))

    def report(self):
        cuda = self.args.device.startswith("cuda")
        if cuda:
            self.memory.update(peak_bytes=torch.cuda.max_memory_allocated(), reserved_bytes=torch.cuda.max_memory_reserved())
        return dict(tool="hf_bench", transformers=transformers.__version__, torch=torch.__version__,
                    device=torch.cuda.get_device_name() if cuda else "cpu", settings=vars(self.args), results=self.results, memory=self.memory)


def main():
    p = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    p.add_argument("model")
    p.add_argument("--json")
    p.add_argument("--device", default="cuda")
    p.add_argument("--dtype", default="bfloat16")
    p.add_argument("--bits", type=int, choices=(16, 8, 4), default=16)
    p.add_argument("--tokens", type=int, default=32)
    p.add_argument("--prompt-tokens", type=int, default=200)
    p.add_argument("--long-prompt", type=int, default=2048)
    p.add_argument("--repeat", type=int, default=3)
    p.add_argument("--loads", type=int, default=2)
    p.add_argument("--batch", default="1")
    bench = Bench(p.parse_args())
    bench.run()
    if bench.args.json:
        with open(bench.args.json, "w") as f:
            json.dump(bench.report(), f, indent=2)


main()
