#!/usr/bin/env python3
"""Make golden fixtures of any shape and seed for `malmoi verify`.

    python3 golden/generate.py --list
    python3 golden/generate.py gpt2-lm --out /tmp/fresh --seed 7 --set n_embd=48 --set n_head=6 --batch 4 --length 17
    python3 golden/generate.py --all --out /tmp/fresh --seed 100

Needs torch, transformers, safetensors and numpy. The layout of what it writes is described in golden/README.md. Expected values come from a
float64 run of the float32 weights; a second run in float32 gives `f32_dev`, from which the tolerances are derived (see `tolerance`).
"""

import argparse
import copy
import json
import math
import sys
from pathlib import Path

import numpy as np
import torch
import transformers
from encoder_families import ENCODERS
from families import FAMILIES as CLASSIC
from families import Draw
from safetensors.torch import load_file, save_file

FAMILIES = CLASSIC | ENCODERS
LR, DECAY, BETAS, EPS, STEPS = 1e-3, 0.01, (0.9, 0.999), 1e-8, 3
RTOL = 1e-5
# A twentieth of one learning rate: a parameter that rounding alone moves by more says nothing about an implementation.
NOISE = LR / 20


# --- what is measured -------------------------------------------------------------------------------------------------------------------


def one_two_five(value):
    """The smallest of 1, 2, 5 times a power of ten that is at least `value`."""
    power = 10.0 ** math.floor(math.log10(value))
    return next(float(f"{step * power:.0e}") for step in (1, 2, 5, 10) if step * power >= value * 0.999999)


def tolerance(f32_dev, max_abs):
    """Absolute tolerance of a tensor.

    A float32 implementation that sums in another order errs like the reference's own float32 run, so 16 times that deviation is generous
    to an honest one. A lucky run may deviate by almost nothing, so half of what rounding every value once at its full scale costs over a
    hundred-term sum (4e-6 of the largest magnitude) is the floor, and 1e-6 below that.
    """
    return one_two_five(max(16.0 * f32_dev, 4e-6 * max_abs, 1e-6))


class Recorder:
    """Collects tensors for `cases.safetensors` and their entries in `cases.json`."""

    def __init__(self):
        self.tensors, self.entries = {}, {}

    def integers(self, name, value, exact=False):
        value = value.detach().cpu().contiguous()
        self.tensors[name] = value.to(torch.int64).clone()
        self.entries[name] = {"shape": list(value.shape), "dtype": "i64"} | ({"exact": True} if exact else {})

    def given(self, name, value):
        """An input: integers stay integers, other values are float32."""
        if value.dtype.is_floating_point:
            self.tensors[name] = value.to(torch.float32).clone().contiguous()
            self.entries[name] = {"shape": list(value.shape), "dtype": "f32"}
        else:
            self.integers(name, value)

    def measured(self, name, f64, f32, what=None, extra=None):
        f64, f32 = f64.detach().double(), f32.detach().double()
        if not torch.isfinite(f64).all():
            raise SystemExit(f"{name} is not finite in float64: use smaller weights or another seed")
        dev = (f64 - f32).abs().max().item() if f64.numel() else 0.0
        top = f64.abs().max().item() if f64.numel() else 0.0
        self.tensors[name] = f64.to(torch.float32).contiguous()
        entry = {"shape": list(f64.shape), "dtype": "f32", "max_abs": float(f"{top:.6g}"), "f32_dev": float(f"{dev:.3g}")}
        entry |= {"atol": tolerance(dev, top), "rtol": RTOL} | (extra or {})
        self.entries[name] = entry | ({"what": what} if what else {})


# --- weights and models -----------------------------------------------------------------------------------------------------------------


def randomise(model, rng):
    """Large random weights: matrices with a spread of about 1.4 / sqrt(fan-in), norms around one, biases and embeddings away from zero."""
    for name, parameter in model.named_parameters():
        noise = torch.from_numpy(rng.standard_normal(tuple(parameter.shape)).astype(np.float32))
        if parameter.ndim == 1:
            is_norm = name.endswith("weight")
            value = 1.0 + 0.2 * noise if is_norm else 0.1 * noise
        elif "embed" in name or name.endswith(("wte.weight", "wpe.weight")):
            value = 0.3 * noise
        else:
            value = (1.4 / math.sqrt(parameter.shape[0 if "c_" in name else 1])) * noise
        parameter.data.copy_(value)


def tied_names(model, stored):
    """Groups of names that are one tensor, the stored name first."""
    groups = {}
    for name, parameter in model.named_parameters(remove_duplicate=False):
        groups.setdefault(parameter.data_ptr(), []).append(name)
    return [sorted(g, key=lambda n: n not in stored) for g in groups.values() if len(g) > 1]


def at(model, dtype):
    """A copy of the model in `dtype`, dropout off."""
    return copy.deepcopy(model).to(dtype).eval()


def cast(inputs, dtype):
    return {k: v.to(dtype) if v.dtype.is_floating_point else v for k, v in inputs.items()}


def flatten_outputs(out, with_cache):
    """Named tensors of a model output, in network order for hidden states and attention probabilities."""
    flat = {}
    for key, value in out.items():
        if key == "past_key_values":
            if with_cache:
                for i, layer in enumerate(value.layers):
                    flat[f"past.{i}.key"], flat[f"past.{i}.value"] = layer.keys, layer.values
        elif isinstance(value, (tuple, list)):
            flat |= {f"{key}.{i}": v for i, v in enumerate(value)}
        elif isinstance(value, torch.Tensor):
            flat[key] = value
    return flat


# --- cases ------------------------------------------------------------------------------------------------------------------------------


def forward_case(record, models, name, case):
    flat = {}
    for dtype, model in models.items():
        with torch.no_grad():
            flat[dtype] = flatten_outputs(model(**cast(case.inputs, dtype), **case.options), case.options.get("use_cache", False))
    for key, value in case.inputs.items():
        record.given(f"{name}.in.{key}", value)
    for key, value in flat[torch.float64].items():
        record.measured(f"{name}.out.{key}", value, flat[torch.float32][key])
    entry = {"kind": "forward", "desc": case.desc, "options": case.options, "inputs": list(case.inputs), "outputs": list(flat[torch.float64])}
    return entry | case.extra


def three_steps(model, inputs, loss_of):
    """Losses before each step and after the last, gradients of step 1, and the parameters after the steps."""
    params = dict(model.named_parameters())
    optimizer = torch.optim.AdamW(params.values(), lr=LR, betas=BETAS, eps=EPS, weight_decay=DECAY)
    losses, grads = [], None
    for _ in range(STEPS):
        optimizer.zero_grad(set_to_none=True)
        loss = loss_of(model(**inputs))
        loss.backward()
        losses.append(loss.item())
        if grads is None:
            grads = {n: None if p.grad is None else p.grad.clone() for n, p in params.items()}
        optimizer.step()
    with torch.no_grad():
        losses.append(loss_of(model(**inputs)).item())
    return torch.tensor(losses, dtype=torch.float64), grads, params


def step_noise(grad64, grad32, top):
    """How far rounding noise in a gradient can move each element in three Adam steps.

    Adam divides a gradient by its own magnitude, so an element that is all noise (a key bias, whose gradient is zero) still moves by the
    learning rate. The float32 run's root-mean-square deviation stands for the noise of another implementation. An element that vanishes
    beside `top`, the largest gradient of the model, is noise altogether, unless it is exactly zero in both runs (an unused embedding row);
    a tensor of nothing but zeros is a gradient that cancels (the bias of a score under a softmax), and was lucky.
    """
    noise = (grad64 - grad32.double()).square().mean().sqrt()
    moved = STEPS * LR * torch.clamp(noise / (grad64.abs() + EPS), max=1.0)
    vanishes = grad64.abs() < 1e-12 * top
    moved = torch.where(vanishes, torch.full_like(moved, STEPS * LR), moved)
    unused = (grad64 == 0) & (grad32 == 0)
    return moved if unused.all() else torch.where(unused, torch.zeros_like(moved), moved)


def train_case(record, models, inputs, inputs_from, loss_of):
    start = {n: p.detach().clone() for n, p in models[torch.float64].named_parameters()}
    runs = {d: three_steps(m, cast(inputs, d), loss_of) for d, m in models.items()}
    (loss64, grad64, after64), (loss32, grad32, after32) = runs[torch.float64], runs[torch.float32]
    names = [n for n, g in grad64.items() if g is not None]
    without = [n for n, g in grad64.items() if g is None]

    dominated, after_extra = [], {}
    top = max(grad64[n].abs().max().item() for n in names)
    for n in names:
        moved = step_noise(grad64[n], grad32[n], top)
        deviation = (after64[n] - after32[n].double()).abs()
        base = tolerance(deviation.flatten().quantile(0.9).item(), after64[n].abs().max().item())
        if deviation.max().item() > NOISE or (moved > NOISE).double().mean().item() > 0.10:
            dominated.append(n)
        elif moved.max().item() > base:
            after_extra[n] = {"atol": one_two_five(moved.max().item()), "atol_90_percent": base}
    kept = [n for n in names if n not in dominated]

    norm = lambda values: torch.stack([v.detach().double().norm() for v in values])
    record.measured("train.losses", loss64, loss32, "loss before step 1, 2, 3 and after step 3")
    record.measured("train.grad_norms", norm(grad64[n] for n in names), norm(grad32[n] for n in names),
                    "L2 norm of the step-1 gradient of each parameter in param_names order")
    record.measured("train.delta_norms", norm(after64[n] - start[n] for n in kept), norm(after32[n].double() - start[n] for n in kept),
                    "L2 norm of (parameter after 3 steps - initial), delta_param_names order")
    for n in names:
        record.measured(f"train.grad.{n}", grad64[n], grad32[n], "d loss / d parameter at the initial weights")
        if n in kept:
            record.measured(f"train.adamw.{n}", after64[n], after32[n], "parameter after 3 AdamW steps on this batch", after_extra.get(n))
    optimizer = {"name": "AdamW", "lr": LR, "weight_decay": DECAY, "beta1": BETAS[0], "beta2": BETAS[1], "eps": EPS, "steps": STEPS,
                 "decay_applies_to": "every parameter with a gradient (biases and norms too)", "clipping": None, "schedule": "constant"}
    return {"kind": "train", "desc": "gradients of the loss and three AdamW steps, dropout off", "inputs_from": inputs_from,
            "optimizer": optimizer, "param_names": names, "delta_param_names": "= param_names without rounding_dominated",
            "rounding_dominated": dominated, "params_without_gradient": without}


def prompt_length(model, inputs):
    """Tokens that stand before what is generated: the prompt, or behind an encoder the start token."""
    return 1 if model.config.is_encoder_decoder else inputs["input_ids"].shape[1]


def run_generate(model, inputs, options):
    keep = {k: v for k, v in options.items() if v is not None}
    if model.config.is_encoder_decoder:
        keep["decoder_start_token_id"] = model.config.decoder_start_token_id
    settings = transformers.GenerationConfig(**keep, use_cache=type(model).__name__ != "OpenAIGPTLMHeadModel")
    # A missing end token must stay missing: the library would fill it in from the model's own configuration.
    model.generation_config = transformers.GenerationConfig(pad_token_id=options["pad_token_id"])
    out = model.generate(**inputs, generation_config=settings, return_dict_in_generate=True, output_scores=True, output_logits=True)
    if options["eos_token_id"] is not None:
        # With a padding token of 0 the library's beam search fills with the end token instead: 0 counts as "not given" there.
        generated = out.sequences[:, prompt_length(model, inputs):]
        ended = (generated == options["eos_token_id"]).long()
        generated[ended.cumsum(1) - ended > 0] = options["pad_token_id"]
    return out


def padded_after_end(sequences, prompt, options):
    """Rows filled with the padding token after their end token. Beam search takes a padding id of 0 for none and fills with the end token."""
    if options["eos_token_id"] is None:
        return sequences
    sequences = sequences.clone()
    for row in sequences:
        ends = (row[prompt:] == options["eos_token_id"]).nonzero()
        if len(ends):
            row[prompt + int(ends[0]) + 1 :] = options["pad_token_id"]
    return sequences


def generate_cases(record, models, inputs, new_tokens):
    """Greedy and beam search. Returns None when float32 and float64 disagree, so that the caller draws other prompts."""
    prompt, rows = prompt_length(models[torch.float64], inputs), inputs["input_ids"].shape[0]
    plain = {"eos_token_id": None, "do_sample": False, "num_beams": 1, "max_new_tokens": new_tokens, "pad_token_id": 0}
    first = run_generate(models[torch.float64], inputs, plain)
    # An end token that some row meets half-way and that isn't in every row at once.
    eos = int(first.sequences[0, prompt + new_tokens // 2])
    ends = plain | {"eos_token_id": eos}
    beams = ends | {"num_beams": 3, "length_penalty": 1.0, "early_stopping": False}
    table = {
        "greedy": ("greedy, no end token", plain),
        "greedy_eos": ("greedy, rows end at eos_token_id and are padded", ends),
        "beam": ("beam search, 3 beams", beams),
        "beam_all": ("beam search, all three hypotheses of each row, best first; early stopping",
                     beams | {"num_return_sequences": 3, "length_penalty": 0.6, "early_stopping": True}),
        "greedy_penalised": ("greedy with repetition_penalty, no_repeat_ngram_size and min_new_tokens (step_logits are the raw logits before the "
                             "processors)", ends | {"repetition_penalty": 1.3, "no_repeat_ngram_size": 2, "min_new_tokens": 4}),
    }
    found = {}
    for name, (desc, options) in table.items():
        out = {d: run_generate(m, inputs, options) for d, m in models.items()}
        if not torch.equal(out[torch.float64].sequences, out[torch.float32].sequences):
            return None
        found[name] = (desc, options, out)
    entries = {}
    for name, (desc, options, out) in found.items():
        for key, value in inputs.items():
            record.given(f"{name}.in.{key}", value)
        f64, f32 = out[torch.float64], out[torch.float32]
        record.integers(f"{name}.out.sequences", padded_after_end(f64.sequences, prompt, options), exact=True)
        entry = {"kind": "generate", "desc": desc, "options": options, "inputs": list(inputs), "outputs": ["sequences"]}
        if name == "greedy":
            logits = torch.stack(f64.logits, 1)
            record.measured("greedy.out.step_logits", logits, torch.stack(f32.logits, 1))
            best = logits.topk(2, dim=-1).values
            margin = (best[..., 0] - best[..., 1]).min().item()
            if margin < 1e-3:
                return None
            entry["outputs"].append("step_logits")
            entry["min_top1_margin"] = float(f"{margin:.4g}")
        if name.startswith("beam"):
            record.measured(f"{name}.out.sequences_scores", f64.sequences_scores, f32.sequences_scores)
            entry["outputs"].append("sequences_scores")
        entries[name] = entry
    assert entries["greedy"] and rows == found["greedy"][2][torch.float64].sequences.shape[0]
    return entries


# --- one fixture ------------------------------------------------------------------------------------------------------------------------


def write_fixture(kind, folder, seed, overrides, batch, length, new_tokens):
    family = FAMILIES[kind]
    config = getattr(transformers, family.config)(**(family.settings | overrides))
    config._attn_implementation = "eager"
    model = getattr(transformers, family.cls)(config)
    rng = np.random.default_rng(seed)
    randomise(model, rng)
    folder.mkdir(parents=True, exist_ok=True)
    model.save_pretrained(folder)
    stored = load_file(folder / "model.safetensors")
    tied = tied_names(model, stored)

    record = Recorder()
    models = {d: at(model, d) for d in (torch.float64, torch.float32)}
    cases = family.cases(Draw(rng, config, batch, length))
    entries = {name: forward_case(record, models, name, case) for name, case in cases.items()}
    if family.generate:
        for attempt in range(50):
            found = generate_cases(record, models, family.generate(Draw(rng, config, batch, length)), new_tokens)
            if found:
                break
        else:
            raise SystemExit(f"{kind}: 50 prompts in a row decode differently in float32 and float64; use another seed")
    if family.train_on:
        fresh = {d: at(model, d) for d in models}
        entries["train"] = train_case(record, fresh, cases[family.train_on].inputs, family.train_on, family.loss)
    if family.generate:
        entries |= found

    about = {
        "name": folder.name, "architecture": family.cls, "computed_in": "float64 (stored as float32), weights read from model.safetensors",
        "library": {"torch": torch.__version__, "transformers": transformers.__version__, "numpy": np.__version__}, "seed": seed,
        "tied_parameters": tied, "notes": family.notes, "cases": entries, "tensors": record.entries,
    }
    save_file(record.tensors, folder / "cases.safetensors")
    (folder / "cases.json").write_text(json.dumps(about, ensure_ascii=False, indent=1) + "\n", encoding="utf-8")
    print(f"{folder}: {len(entries)} cases, {len(record.tensors)} tensors")


def parse_value(text):
    try:
        return json.loads(text)
    except json.JSONDecodeError:
        return text


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("kinds", nargs="*", metavar="KIND", help="what to make; see --list")
    parser.add_argument("--all", action="store_true", help="make every kind")
    parser.add_argument("--list", action="store_true", help="list the kinds and stop")
    parser.add_argument("--out", type=Path, help="folder that receives one sub-folder a fixture")
    parser.add_argument("--seed", type=int, default=0, help="seed of the weights and inputs (default 0)")
    parser.add_argument("--name", help="folder name, when one kind is made (default KIND)")
    parser.add_argument("--set", action="append", default=[], metavar="KEY=VALUE", help="override a key of config.json")
    parser.add_argument("--batch", type=int, default=3, help="rows (default 3)")
    parser.add_argument("--length", type=int, default=12, help="tokens of the longest row (default 12)")
    parser.add_argument("--new-tokens", type=int, default=10, help="tokens to generate (default 10)")
    args = parser.parse_args()
    if args.list:
        print("\n".join(FAMILIES))
        return
    kinds = list(FAMILIES) if args.all else args.kinds
    unknown = [k for k in kinds if k not in FAMILIES]
    if unknown or not kinds or args.out is None:
        parser.error(f"unknown kind {unknown[0]}; --list shows them" if unknown else "give --out DIR and at least one KIND (or --all)")
    if args.name and len(kinds) > 1:
        parser.error("--name needs exactly one KIND")
    if min(args.batch, 1) < 1 or args.length < 4:
        parser.error("--batch must be at least 1 and --length at least 4")
    overrides = {key: parse_value(value) for key, _, value in (item.partition("=") for item in args.set)}
    transformers.logging.set_verbosity_error()
    transformers.logging.disable_progress_bar()
    for kind in kinds:
        write_fixture(kind, args.out / (args.name or kind), args.seed, overrides, args.batch, args.length, args.new_tokens)


if __name__ == "__main__":
    sys.exit(main())
