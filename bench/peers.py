#!/usr/bin/env python3
"""Times what a user would otherwise pick, on the workloads of `malmoi bench`. `cargo xtask bench-compare` runs both in turn.

    python3 -m venv .venv && .venv/bin/pip install -r bench/peers-requirements.txt
    .venv/bin/python bench/peers.py --list
    .venv/bin/python bench/peers.py encode-fixed --peer torch --precision bf16
    .venv/bin/python bench/peers.py encode-ragged --peer ort --precision int8

Prints one JSON line a measurement: workload, peer, precision, value, unit, best/median
seconds, peak resident MiB. Weights are random (speed does not depend on them); shapes,
batches and lengths are exactly those of the workload, so any other program can be timed on
the same work. Compare ratios measured on one machine in one sitting, never absolute times.

Workloads
  gemm            one matrix product 1024x768 by 768x3072                     GFLOP/s
  encode-fixed    BERT-base, batch 8 x 128 tokens, no padding                 tokens/s
  encode-latency  BERT-base, batch 1 x 32 tokens                              ms
  encode-ragged   BERT-base, real sentence lengths, batches of 32 in order    real tokens/s
  mlm-train       BERT-base masked-LM step (15% masked), 8 x 128, AdamW       tokens/s
  clm-train       GPT-2 124M step, 4 x 256, AdamW                             tokens/s
  prefill         GPT-2 124M, 1 x 1024, logits of the last position           tokens/s
  decode          GPT-2 124M, prompt 32, 64 greedy new tokens, batch 1        tokens/s
  decode-batch    the same for 8 sequences at once                            tokens/s
  seq2seq         T5-base, 256 source tokens, 64 greedy new tokens, batch 1   tokens/s
"""
import argparse, json, os, resource, sys, tempfile, time

LENGTHS = os.path.join(os.path.dirname(os.path.abspath(__file__)), "../crates/malmoi-roofline/src/bench/lengths.json")
WORKLOADS = ["gemm", "encode-fixed", "encode-latency", "encode-ragged", "mlm-train",
             "clm-train", "prefill", "decode", "decode-batch", "seq2seq"]
PEERS = {"torch": ["f32", "bf16"], "torch-compile": ["f32", "bf16"],
         "ort": ["f32", "int8"], "ct2": ["f32", "bf16", "int8"],
         "llama.cpp": ["f32", "bf16", "int8", "int4"]}


def timed(fn, runs, warm):
    for _ in range(warm):
        fn()
    out = []
    for _ in range(runs):
        start = time.perf_counter()
        fn()
        out.append(time.perf_counter() - start)
    out.sort()
    return out[0], out[len(out) // 2]


def report(workload, peer, precision, units, unit, best, median):
    value = median * 1e3 if unit == "ms" else units / median
    print(json.dumps({
        "workload": workload, "peer": peer, "precision": precision,
        "value": round(value, 2), "unit": unit,
        "best_s": round(best, 5), "median_s": round(median, 5),
        "peak_rss_mib": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss // 1024}), flush=True)


def read_lengths(path):
    with open(path) as f:
        return json.load(f)["lengths"]


def ragged_batches(torch, lengths, vocab, batch=32):
    """Batches in the given order, each padded to its longest, as a trainer does by default."""
    out = []
    for i in range(0, len(lengths), batch):
        part = lengths[i:i + batch]
        ids = torch.randint(5, vocab, (len(part), max(part)))
        mask = torch.zeros_like(ids)
        for row, n in enumerate(part):
            mask[row, :n] = 1
        out.append((ids, mask))
    return out


def torch_peer(args):
    import torch
    from transformers import (BertConfig, BertForMaskedLM, BertModel, GPT2Config,
                              GPT2LMHeadModel, T5Config, T5ForConditionalGeneration)
    torch.set_num_threads(args.threads)
    torch.manual_seed(0)
    dtype = {"f32": torch.float32, "bf16": torch.bfloat16}[args.precision]
    wrap = (lambda m: torch.compile(m)) if args.peer == "torch-compile" else (lambda m: m)
    w = args.workload

    if w == "gemm":
        a, b = torch.randn(1024, 768).to(dtype), torch.randn(768, 3072).to(dtype)
        best, med = timed(lambda: a @ b, 30, 5)
        return report(w, args.peer, args.precision, 2 * 1024 * 768 * 3072 / 1e9, "GFLOP/s", best, med)

    if w.startswith("encode"):
        model = wrap(BertModel(BertConfig()).eval().to(dtype))
        with torch.inference_mode():
            if w == "encode-ragged":
                lengths = read_lengths(args.lengths)
                if args.sort:
                    lengths = sorted(lengths)
                batches = ragged_batches(torch, lengths, 30522)
                run = lambda: [model(input_ids=i, attention_mask=m) for i, m in batches]
                best, med = timed(run, args.runs, 1)
                return report(w, args.peer, args.precision, sum(lengths), "tokens/s", best, med)
            b, t = (1, 32) if w == "encode-latency" else (8, 128)
            ids = torch.randint(0, 30522, (b, t))
            best, med = timed(lambda: model(input_ids=ids), 5 * args.runs if b == 1 else args.runs, 3)
            return report(w, args.peer, args.precision, b * t, "ms" if b == 1 else "tokens/s", best, med)

    if w in ("mlm-train", "clm-train"):
        if w == "mlm-train":
            model, (b, t), vocab = BertForMaskedLM(BertConfig()), (8, 128), 30522
        else:
            model, (b, t), vocab = GPT2LMHeadModel(GPT2Config()), (4, 256), 50257
        model.train()
        opt = torch.optim.AdamW(model.parameters(), lr=1e-4, fused=True)
        ids = torch.randint(0, vocab, (b, t))
        labels = ids.clone()
        if w == "mlm-train":
            labels[torch.rand(b, t) > 0.15] = -100
        fast = wrap(model)

        def step():
            opt.zero_grad(set_to_none=True)
            with torch.autocast("cpu", dtype=torch.bfloat16, enabled=args.precision == "bf16"):
                loss = fast(input_ids=ids, labels=labels).loss
            loss.backward()
            opt.step()
        best, med = timed(step, args.runs, 1)
        return report(w, args.peer, args.precision, b * t, "tokens/s", best, med)

    if w in ("prefill", "decode", "decode-batch"):
        model = GPT2LMHeadModel(GPT2Config()).eval().to(dtype)
        with torch.inference_mode():
            if w == "prefill":
                ids, fast = torch.randint(0, 50257, (1, 1024)), wrap(model)
                best, med = timed(lambda: fast(input_ids=ids, logits_to_keep=1), args.runs, 2)
                return report(w, args.peer, args.precision, 1024, "tokens/s", best, med)
            b = 8 if w == "decode-batch" else 1
            ids = torch.randint(0, 50257, (b, 32))
            run = lambda: model.generate(ids, attention_mask=torch.ones_like(ids), max_new_tokens=64,
                                         min_new_tokens=64, do_sample=False, pad_token_id=0)
            best, med = timed(run, args.runs, 1)
            return report(w, args.peer, args.precision, b * 64, "tokens/s", best, med)

    if w == "seq2seq":
        config = T5Config(d_model=768, d_kv=64, d_ff=3072, num_layers=12, num_heads=12,
                          decoder_start_token_id=0)
        model = T5ForConditionalGeneration(config).eval().to(dtype)
        ids = torch.randint(5, 32000, (1, 256))
        with torch.inference_mode():
            run = lambda: model.generate(ids, max_new_tokens=64, min_new_tokens=64, do_sample=False)
            best, med = timed(run, args.runs, 1)
        return report(w, args.peer, args.precision, 64, "tokens/s", best, med)


def ort_peer(args):
    import numpy as np, onnx, onnxruntime as ort, torch
    from transformers import BertConfig, BertModel, GPT2Config, GPT2LMHeadModel
    torch.manual_seed(0)
    w = args.workload
    opts = ort.SessionOptions()
    opts.intra_op_num_threads = args.threads
    opts.graph_optimization_level = ort.GraphOptimizationLevel.ORT_ENABLE_ALL
    with tempfile.TemporaryDirectory() as tmp:
        path = os.path.join(tmp, "m.onnx")
        if w.startswith("encode"):
            model = BertModel(BertConfig(), add_pooling_layer=False).eval()
            ids = torch.randint(0, 30522, (2, 16))

            class Wrap(torch.nn.Module):
                def __init__(self, m):
                    super().__init__(); self.m = m
                def forward(self, input_ids, attention_mask):
                    return self.m(input_ids=input_ids, attention_mask=attention_mask).last_hidden_state
            dyn = {0: "b", 1: "t"}
            torch.onnx.export(Wrap(model), (ids, torch.ones_like(ids)), path, opset_version=17,
                              input_names=["input_ids", "attention_mask"], output_names=["h"],
                              dynamic_axes={"input_ids": dyn, "attention_mask": dyn, "h": dyn}, dynamo=False)
        elif w == "prefill":
            model = GPT2LMHeadModel(GPT2Config(use_cache=False)).eval()

            class Wrap(torch.nn.Module):
                def __init__(self, m):
                    super().__init__(); self.m = m
                def forward(self, input_ids):
                    return self.m(input_ids=input_ids, use_cache=False, logits_to_keep=1).logits
            torch.onnx.export(Wrap(model), (torch.zeros(1, 16, dtype=torch.long),), path, opset_version=17,
                              input_names=["input_ids"], output_names=["h"],
                              dynamic_axes={"input_ids": {0: "b", 1: "t"}}, dynamo=False)
        else:
            sys.exit("ort: this workload is not covered")
        try:
            from onnxruntime.transformers import optimizer
            kind = "bert" if w.startswith("encode") else "gpt2"
            opt = optimizer.optimize_model(path, model_type=kind, num_heads=12, hidden_size=768)
            path2 = os.path.join(tmp, "o.onnx"); opt.save_model_to_file(path2); path = path2
        except Exception as e:
            print("ort: graph optimizer skipped:", e, file=sys.stderr)
        if args.precision == "int8":
            from onnxruntime.quantization import QuantType, quantize_dynamic
            q = os.path.join(tmp, "q.onnx")
            quantize_dynamic(path, q, weight_type=QuantType.QInt8,
                             extra_options={"DefaultTensorType": onnx.TensorProto.FLOAT}); path = q
        sess = ort.InferenceSession(path, opts, providers=["CPUExecutionProvider"])
        names = [i.name for i in sess.get_inputs()]
        def feed(ids, mask):
            return {n: (ids if n == "input_ids" else mask) for n in names}
        if w == "encode-ragged":
            lengths = read_lengths(args.lengths)
            if args.sort:
                lengths = sorted(lengths)
            batches = [feed(i.numpy(), m.numpy()) for i, m in ragged_batches(torch, lengths, 30522)]
            best, med = timed(lambda: [sess.run(None, f) for f in batches], args.runs, 1)
            return report(w, "ort", args.precision, sum(lengths), "tokens/s", best, med)
        b, t = {"encode-latency": (1, 32), "encode-fixed": (8, 128), "prefill": (1, 1024)}[w]
        ids = np.random.randint(0, 30522, (b, t)); f = feed(ids, np.ones_like(ids))
        best, med = timed(lambda: sess.run(None, f), 5 * args.runs if w == "encode-latency" else args.runs, 3)
        return report(w, "ort", args.precision, b * t, "ms" if w == "encode-latency" else "tokens/s", best, med)


def ct2_peer(args):
    import ctranslate2, torch
    from transformers import BertConfig, BertModel, GPT2Config, GPT2LMHeadModel
    from tokenizers import Tokenizer, models
    from transformers import PreTrainedTokenizerFast
    torch.manual_seed(0)
    w = args.workload
    compute = {"f32": "float32", "bf16": "bfloat16", "int8": "int8"}[args.precision]
    bert = w.startswith("encode")
    with tempfile.TemporaryDirectory() as tmp:
        src, dst = os.path.join(tmp, "hf"), os.path.join(tmp, "ct2")
        n = 30522 if bert else 50257
        vocab = {"[PAD]": 0, "[UNK]": 1, "<|endoftext|>": 2}
        vocab.update({f"t{i}": i for i in range(3, n)})
        tok = PreTrainedTokenizerFast(tokenizer_object=Tokenizer(models.WordLevel(vocab, unk_token="[UNK]")),
                                      unk_token="[UNK]", pad_token="[PAD]", bos_token="<|endoftext|>", eos_token="<|endoftext|>")
        model = BertModel(BertConfig(position_embedding_type="absolute")) if bert else \
            GPT2LMHeadModel(GPT2Config(bos_token_id=2, eos_token_id=2))
        model.save_pretrained(src)
        tok.save_pretrained(src)
        ctranslate2.converters.TransformersConverter(src).convert(dst, quantization=None if args.precision == "f32" else compute)
        if bert:
            enc = ctranslate2.Encoder(dst, compute_type=compute, intra_threads=args.threads)
            run_batch = lambda b: enc.forward_batch(b)
            rnd = lambda k: torch.randint(5, n, (k,)).tolist()
            if w == "encode-ragged":
                lengths = read_lengths(args.lengths)
                if args.sort:
                    lengths = sorted(lengths)
                batches = [[rnd(x) for x in lengths[i:i + 32]] for i in range(0, len(lengths), 32)]
                best, med = timed(lambda: [run_batch(b) for b in batches], args.runs, 1)
                return report(w, "ct2", args.precision, sum(lengths), "tokens/s", best, med)
            b, t = (1, 32) if w == "encode-latency" else (8, 128)
            ids = [rnd(t) for _ in range(b)]
            best, med = timed(lambda: run_batch(ids), 5 * args.runs if b == 1 else args.runs, 3)
            return report(w, "ct2", args.precision, b * t, "ms" if b == 1 else "tokens/s", best, med)
        if w in ("decode", "decode-batch"):
            gen = ctranslate2.Generator(dst, compute_type=compute, intra_threads=args.threads)
            b = 8 if w == "decode-batch" else 1
            prompts = [[f"t{i}" for i in torch.randint(3, n, (32,)).tolist()] for _ in range(b)]
            run = lambda: gen.generate_batch(prompts, max_length=64, min_length=64, sampling_topk=1, include_prompt_in_result=False)
            best, med = timed(run, args.runs, 1)
            return report(w, "ct2", args.precision, b * 64, "tokens/s", best, med)
        sys.exit("ct2: this workload is not covered")


def llama_peer(args):
    """GPT-2 124M as a GGUF file with random weights: int8 is Q8_0, int4 is Q4_0."""
    import gguf, llama_cpp, numpy as np
    llama_cpp.llama_backend_init()
    rng = np.random.default_rng(0)
    n_layer, d, ff, vocab, ctx = 12, 768, 3072, 50257, 1024
    with tempfile.TemporaryDirectory() as tmp:
        path = os.path.join(tmp, "gpt2-f32.gguf")
        out = gguf.GGUFWriter(path, "gpt2")
        out.add_block_count(n_layer); out.add_context_length(ctx); out.add_embedding_length(d)
        out.add_feed_forward_length(ff); out.add_head_count(12); out.add_layer_norm_eps(1e-5)
        out.add_file_type(gguf.LlamaFileType.ALL_F32)
        out.add_tokenizer_model("gpt2"); out.add_tokenizer_pre("gpt-2")
        out.add_token_list([f"t{i}" for i in range(vocab)])
        out.add_token_types([gguf.TokenType.NORMAL] * vocab); out.add_token_merges(["t 1"])
        out.add_bos_token_id(vocab - 1); out.add_eos_token_id(vocab - 1)
        w = lambda *shape: (rng.standard_normal(shape) * 0.02).astype(np.float32)
        ones, zeros = (lambda n: np.ones(n, np.float32)), (lambda n: np.zeros(n, np.float32))
        tensors = {"token_embd.weight": w(vocab, d), "position_embd.weight": w(ctx, d),
                   "output_norm.weight": ones(d), "output_norm.bias": zeros(d)}
        tensors["output.weight"] = tensors["token_embd.weight"]
        for i in range(n_layer):
            b = f"blk.{i}."
            tensors.update({b + "attn_norm.weight": ones(d), b + "attn_norm.bias": zeros(d),
                            b + "attn_qkv.weight": w(3 * d, d), b + "attn_qkv.bias": zeros(3 * d),
                            b + "attn_output.weight": w(d, d), b + "attn_output.bias": zeros(d),
                            b + "ffn_norm.weight": ones(d), b + "ffn_norm.bias": zeros(d),
                            b + "ffn_up.weight": w(ff, d), b + "ffn_up.bias": zeros(ff),
                            b + "ffn_down.weight": w(d, ff), b + "ffn_down.bias": zeros(d)})
        for name, value in tensors.items():
            out.add_tensor(name, value)
        out.write_header_to_file(); out.write_kv_data_to_file(); out.write_tensors_to_file(); out.close()
        if args.precision != "f32":
            kind = {"bf16": llama_cpp.LLAMA_FTYPE_MOSTLY_BF16, "int8": llama_cpp.LLAMA_FTYPE_MOSTLY_Q8_0,
                    "int4": llama_cpp.LLAMA_FTYPE_MOSTLY_Q4_0}[args.precision]
            params = llama_cpp.llama_model_quantize_default_params()
            params.ftype = kind
            quant = os.path.join(tmp, "gpt2-q.gguf")
            if llama_cpp.llama_model_quantize(path.encode(), quant.encode(), params) != 0:
                sys.exit("llama.cpp: quantization failed")
            path = quant
        w_ = args.workload
        llm = llama_cpp.Llama(path, n_ctx=ctx, n_batch=ctx, n_ubatch=ctx, n_threads=args.threads,
                              n_threads_batch=args.threads, verbose=False)
        if w_ == "prefill":
            ids = rng.integers(0, vocab, 1024).tolist()
            def run():
                llm.reset(); llm.eval(ids)
            best, med = timed(run, args.runs, 1)
            return report(w_, "llama.cpp", args.precision, 1024, "tokens/s", best, med)
        if w_ != "decode":
            sys.exit("llama.cpp: this workload is not covered")
        ids = rng.integers(0, vocab, 32).tolist()
        def run():
            llm.reset(); llm.eval(ids)
            for _ in range(64):
                llm.eval([llm.sample(temp=0.0, repeat_penalty=1.0)])
        best, med = timed(run, args.runs, 1)
        return report(w_, "llama.cpp", args.precision, 64, "tokens/s", best, med)


def main():
    p = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    p.add_argument("workload", nargs="?", choices=WORKLOADS)
    p.add_argument("--peer", choices=PEERS, default="torch")
    p.add_argument("--precision", default="f32", choices=["f32", "bf16", "int8", "int4"])
    p.add_argument("--threads", type=int, default=os.cpu_count())
    p.add_argument("--runs", type=int, default=5)
    p.add_argument("--lengths", default=LENGTHS)
    p.add_argument("--sort", action="store_true", help="encode-ragged: sort by length first (kinder to padding)")
    p.add_argument("--list", action="store_true")
    args = p.parse_args()
    if args.list or not args.workload:
        print("workloads:", *WORKLOADS)
        for k, v in PEERS.items():
            print(f"peer {k}: {' '.join(v)}")
        return
    if args.precision not in PEERS[args.peer]:
        sys.exit(f"{args.peer} is not timed at {args.precision}")
    {"torch": torch_peer, "torch-compile": torch_peer, "ort": ort_peer, "ct2": ct2_peer,
     "llama.cpp": llama_peer}[args.peer](args)


if __name__ == "__main__":
    main()
