#!/usr/bin/env python3
"""Open every model directory under a folder with Python's transformers, as malmoi saved it, and compare what the two compute.

    cargo run --release -p malmoi-models --example tiny_families -- /tmp/families
    python3 golden/check_families.py /tmp/families

Needs torch, transformers and safetensors. Nothing is downloaded and nothing is repaired: a tensor that is missing, unexpected or of another shape
fails, and so does an output that differs by more than 1e-4. Models that transformers does not have (the original Transformer) are rebuilt from
PyTorch's own stacks. Prints a line a model; exit code 1 when any failed.
"""

import json
import os
import pathlib
import sys

os.environ["HF_HUB_OFFLINE"] = "1"

import safetensors.torch
import torch
import transformers

TOLERANCE = 1e-4


class Original(torch.nn.Module):
    """Vaswani et al. (2017) from PyTorch's stacks, with the names of the saved tensors."""

    def __init__(self, config):
        super().__init__()
        d = config["d_model"]
        layer = dict(d_model=d, nhead=config["nhead"], dim_feedforward=config["dim_feedforward"], dropout=0.0, activation=config["activation"],
                     layer_norm_eps=config["layer_norm_eps"], norm_first=config["norm_first"], batch_first=True)
        norm = (lambda: torch.nn.LayerNorm(d, eps=config["layer_norm_eps"])) if config["final_norm"] else (lambda: None)
        self.embedding = torch.nn.Embedding(config["vocab_size"], d)
        self.encoder = torch.nn.TransformerEncoder(torch.nn.TransformerEncoderLayer(**layer), config["num_encoder_layers"], norm())
        self.decoder = torch.nn.TransformerDecoder(torch.nn.TransformerDecoderLayer(**layer), config["num_decoder_layers"], norm())
        self.generator = torch.nn.Linear(d, config["vocab_size"], bias=False)

    def embed(self, ids):
        d = self.embedding.embedding_dim
        angle = torch.arange(ids.shape[1]).double()[:, None] / 10000 ** (torch.arange(0, d, 2).double() / d)
        positions = torch.stack([angle.sin(), angle.cos()], dim=-1).flatten(1)
        return self.embedding(ids) * d**0.5 + positions.float()

    def forward(self, source, target):
        mask = torch.nn.Transformer.generate_square_subsequent_mask(target.shape[1])
        hidden = self.decoder(self.embed(target), self.encoder(self.embed(source)), tgt_mask=mask, tgt_is_causal=True)
        return hidden, self.generator(hidden)


def original(folder, expected):
    config = json.loads((folder / "config.json").read_text())
    weights = safetensors.torch.load_file(folder / "model.safetensors")
    weights.setdefault("generator.weight", weights["embedding.weight"])
    model = Original(config).eval()
    model.load_state_dict(weights, strict=True)
    hidden, logits = model(torch.tensor([expected["source_ids"]]), torch.tensor([expected["ids"]]))
    return hidden if expected["head"] == "none" else logits


def published(folder, expected):
    names = json.loads((folder / "config.json").read_text())["architectures"]
    model, report = getattr(transformers, names[0]).from_pretrained(folder, output_loading_info=True)
    faults = {key: sorted(map(str, value)) for key, value in report.items() if value}
    if faults:
        raise ValueError(f"weights do not fit {names[0]}: {json.dumps(faults)}")
    model = model.float().eval()
    ids = torch.tensor([expected["ids"]])
    head = expected["head"]
    if "source_ids" in expected:
        out = model(input_ids=torch.tensor([expected["source_ids"]]), decoder_input_ids=ids)
    elif head == "multiple-choice":
        out = model(input_ids=ids[None], attention_mask=torch.ones_like(ids)[None])
    elif head == "double-heads":
        out = model(input_ids=ids[None], mc_token_ids=torch.tensor([[ids.shape[1] - 1]]))
    elif "langs" in expected:
        out = model(input_ids=ids, langs=torch.tensor([expected["langs"]]))
    else:
        out = model(input_ids=ids)
    if head in ("none", "encoder-only"):
        return out.last_hidden_state
    if head == "question-answering":
        return torch.stack([out.start_logits, out.end_logits], dim=-1)
    return out.prediction_logits if "prediction_logits" in out else out.logits


def main():
    transformers.logging.set_verbosity_error()
    transformers.logging.disable_progress_bar()
    folders = sorted(path.parent for path in pathlib.Path(sys.argv[1]).glob("*/expected.json"))
    if not folders:
        sys.exit(f"{sys.argv[1]}: expected folders with expected.json, found none")
    failed = 0
    for folder in folders:
        expected = json.loads((folder / "expected.json").read_text())
        wanted = torch.tensor(expected["values"])
        try:
            with torch.no_grad():
                check = original if "VanillaTransformer" in folder.name else published
                got = check(folder, expected).flatten()
            if got.shape != wanted.shape:
                raise ValueError(f"{got.numel()} values, malmoi computed {wanted.numel()}")
            worst = (got - wanted).abs().max().item()
            if not worst <= TOLERANCE:
                raise ValueError(f"outputs differ by {worst:.2g} where the largest is {wanted.abs().max():.2g}")
            print(f"ok {folder.name} values={got.numel()} largest={wanted.abs().max():.3g} worst={worst:.1e}")
        except Exception as error:
            failed += 1
            print(f"FAIL {folder.name} {error}")
    print(f"{len(folders) - failed} of {len(folders)} agree (transformers {transformers.__version__}, torch {torch.__version__})")
    sys.exit(1 if failed else 0)


if __name__ == "__main__":
    main()
