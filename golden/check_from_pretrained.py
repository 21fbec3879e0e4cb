#!/usr/bin/env python3
"""Open a model directory that malmoi saved with Python's transformers, and print what the model computes.

    python3 golden/check_from_pretrained.py malmoi-quickstart/gpt --text "말모이는" --text "To be, or not"

Needs torch and transformers. Nothing is downloaded and nothing is repaired: a tensor that is missing, unexpected or of another shape ends the run
with exit code 1, as does a tokenizer that does not load. Prints one JSON object a text: its token ids, tokens and offsets, every output of the model
(as shape, checksum-like sums and, with --full, all numbers), for causal models the greedy continuation, and for masked models the best five tokens
at each mask.
"""

import argparse
import json
import os
import sys

os.environ["HF_HUB_OFFLINE"] = "1"

import torch
import transformers


def load(folder):
    """The tokenizer and the model of the class that config.json names."""
    config = transformers.AutoConfig.from_pretrained(folder)
    names = config.architectures or []
    if len(names) != 1 or not hasattr(transformers, names[0]):
        sys.exit(f"{folder}/config.json: expected one known class in `architectures`, found {names}")
    model, report = getattr(transformers, names[0]).from_pretrained(folder, output_loading_info=True)
    faults = {key: sorted(map(str, value)) for key, value in report.items() if value}
    if faults:
        sys.exit(f"{folder}: weights do not fit {names[0]}: {json.dumps(faults)}")
    tokenizer = transformers.AutoTokenizer.from_pretrained(folder)
    # Without tokenizer files the library makes an empty one, which is no tokenizer at all.
    if not 1 < len(tokenizer) <= config.vocab_size:
        sys.exit(f"{folder}: expected a tokenizer of 2 to {config.vocab_size} entries, found {len(tokenizer)}")
    return tokenizer, model.float().eval()


def describe(tensor, full):
    values = tensor.detach().double()
    about = {"shape": list(values.shape), "sum": values.sum().item(), "sum_of_squares": values.square().sum().item()}
    if full:
        about["values"] = values.flatten().tolist()
    else:
        about["last"] = values.flatten()[-8:].tolist()
    return about


def best_at_masks(tokenizer, ids, logits):
    rows = []
    for position in (ids[0] == tokenizer.mask_token_id).nonzero().flatten().tolist():
        best = logits[0, position].softmax(-1).topk(5)
        words = tokenizer.convert_ids_to_tokens(best.indices.tolist())
        rows.append({"position": position, "tokens": words, "probabilities": best.values.tolist()})
    return rows


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("model", help="model directory")
    parser.add_argument("--text", action="append", default=[], help="a text; may be repeated")
    parser.add_argument("--ids", action="append", default=[], help="token ids with commas, instead of a text; may be repeated")
    parser.add_argument("--new-tokens", type=int, default=0, help="continue greedily by this many tokens (causal models)")
    parser.add_argument("--full", action="store_true", help="print every number of every output")
    args = parser.parse_args()
    if not args.text and not args.ids:
        parser.error("give at least one --text or --ids")
    transformers.logging.set_verbosity_error()
    transformers.logging.disable_progress_bar()
    tokenizer, model = load(args.model)

    encoded = [(text, tokenizer(text, return_tensors="pt", return_offsets_mapping=tokenizer.is_fast)) for text in args.text]
    encoded += [(None, {"input_ids": torch.tensor([[int(i) for i in ids.split(",")]])}) for ids in args.ids]
    for text, inputs in encoded:
        offsets = inputs.pop("offset_mapping", None)
        ids = inputs["input_ids"]
        with torch.no_grad():
            outputs = model(**{key: value for key, value in inputs.items() if key in ("input_ids", "attention_mask", "token_type_ids")})
        row = {"model": type(model).__name__, "text": text, "ids": ids[0].tolist(), "tokens": tokenizer.convert_ids_to_tokens(ids[0].tolist())}
        if offsets is not None:
            row["offsets"] = offsets[0].tolist()
        row["outputs"] = {key: describe(value, args.full) for key, value in outputs.items() if isinstance(value, torch.Tensor)}
        logits = outputs.get("logits", outputs.get("prediction_logits"))
        if tokenizer.mask_token_id is not None and logits is not None and logits.shape[-1] == model.config.vocab_size:
            row["masks"] = best_at_masks(tokenizer, ids, logits)
        if args.new_tokens:
            with torch.no_grad():
                out = model.generate(ids, attention_mask=torch.ones_like(ids), max_new_tokens=args.new_tokens, do_sample=False)
            row["continuation_ids"] = out[0, ids.shape[1]:].tolist()
            row["continuation"] = tokenizer.decode(out[0, ids.shape[1]:])
        print(json.dumps(row, ensure_ascii=False))


if __name__ == "__main__":
    main()
