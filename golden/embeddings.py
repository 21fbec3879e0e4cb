#!/usr/bin/env python3
"""Record losses and gradients of sentence-embedding training, and embeddings, as sentence-transformers computes them.

    python3 golden/embeddings.py --out golden/embeddings.json

Needs torch, transformers and sentence-transformers. The model is golden/likelihood/bert with the tokenizer golden/tokenizer-wordpiece, without
dropout, in float64.
"""

import argparse
import json
import tempfile
from pathlib import Path

import shutil
import torch
from sentence_transformers import SentenceTransformer
from sentence_transformers.sentence_transformer import losses, modules
from transformers import PreTrainedTokenizerFast

HERE = Path(__file__).resolve().parent
PAIRS = [
    ("The river is high this morning.", "Rain made the river rise.", "She sells old books.", 0.8),
    ("배우의 연기가 좋았다.", "연기를 잘하는 배우들이다.", "오늘은 비가 온다.", 0.9),
    ("Where is the station?", "The cat sleeps on the chair.", "A train leaves at noon.", 0.1),
    ("영화가 지루했다.", "재미없는 영화였다.", "값이 싸고 좋다.", 0.7),
    ("He reads the whole book.", "He runs.", "The book is read by him.", 0.3),
]


def main():
    arguments = argparse.ArgumentParser()
    arguments.add_argument("--out", type=Path, required=True)
    arguments = arguments.parse_args()
    result = {"pairs": PAIRS, "losses": {}, "embeddings": {}}
    with tempfile.TemporaryDirectory() as folder:
        tokenizer = PreTrainedTokenizerFast(
            tokenizer_file=str(HERE / "tokenizer-wordpiece" / "tokenizer.json"), cls_token="[CLS]", sep_token="[SEP]",
            pad_token="[PAD]", mask_token="[MASK]", unk_token="[UNK]",
        )
        tokenizer.save_pretrained(folder)
        for name in ["config.json", "model.safetensors"]:
            shutil.copy(HERE / "likelihood" / "bert" / name, folder)
        for pooling in ["mean", "cls", "lasttoken", "max", "weightedmean", "mean_sqrt_len_tokens"]:
            transformer = modules.Transformer(folder)
            model = SentenceTransformer(modules=[transformer, modules.Pooling(16, pooling_mode=pooling)], device="cpu").double().eval()
            vectors = model.encode([pair[1] for pair in PAIRS], convert_to_tensor=True)
            result["embeddings"][pooling] = [[float(f"{x:.9g}") for x in row] for row in vectors.tolist()]
            if pooling not in ("mean", "cls", "lasttoken"):
                continue
            features = [model.tokenize([pair[side] for pair in PAIRS]) for side in range(3)]
            scores = torch.tensor([pair[3] for pair in PAIRS], dtype=torch.float64)
            table = {
                "contrastive": (losses.MultipleNegativesRankingLoss(model, scale=20.0), features[:2]),
                "contrastive-with-negatives": (losses.MultipleNegativesRankingLoss(model, scale=20.0), features),
                "similarity": (losses.CosineSimilarityLoss(model), features[:2]),
                "cosent": (losses.CoSENTLoss(model, scale=20.0), features[:2]),
            }
            for name, (loss, inputs) in table.items():
                model.zero_grad()
                value = loss([dict(f) for f in inputs], scores)
                value.backward()
                norms = {
                    name.removeprefix("0.model."): float(p.grad.norm())
                    for name, p in model.named_parameters() if p.grad is not None and "pooler" not in name
                }
                result["losses"][f"{name}/{pooling}"] = {"loss": float(value.detach()), "gradient_norms": norms}
    arguments.out.write_text(json.dumps(result, ensure_ascii=False, indent=1) + "\n")


if __name__ == "__main__":
    main()
