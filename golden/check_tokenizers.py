"""Do tokenizers that malmoi wrote mean the same in Python?

    pip install transformers
    cargo run --release -p malmoi-text --example train_all -- OUT data/ko_corpus_reviews/train.txt.gz
    python golden/check_tokenizers.py OUT/*

Each folder holds a saved tokenizer and `encodings.jsonl`, one object a line with `text`, `ids`, `offsets` (code points) and
`decoded` (special tokens left out). The folder is opened with `AutoTokenizer.from_pretrained` and every line compared, also
inside a copy with the `config.json` of a model, which is how a model directory looks. Exit code 1 when anything differs.
"""

import json
import shutil
import sys
import tempfile
from pathlib import Path

from transformers import AutoTokenizer

MODEL_CONFIGS = {
    "alone": None,
    "bert": {"model_type": "bert", "vocab_size": 8000},
    "gpt2": {"model_type": "gpt2", "vocab_size": 8000},
}


def check(folder: Path, rows: list[dict], label: str) -> int:
    tokenizer = AutoTokenizer.from_pretrained(folder)
    wrong = 0
    for row in rows:
        got = tokenizer(row["text"], return_offsets_mapping=True)
        decoded = tokenizer.decode(got["input_ids"], skip_special_tokens=True, clean_up_tokenization_spaces=False)
        same = (
            got["input_ids"] == row["ids"]
            and [list(pair) for pair in got["offset_mapping"]] == row["offsets"]
            and decoded == row["decoded"]
        )
        if not same:
            wrong += 1
            if wrong <= 3:
                print(f"  {label}: {row['text']!r}\n    rust   {row}\n    python {got['input_ids']} {decoded!r}")
    print(f"{'FAIL' if wrong else 'ok'} {label} ({type(tokenizer).__name__}): {len(rows)} texts, {wrong} differ")
    return wrong


def main() -> int:
    folders = [Path(argument) for argument in sys.argv[1:]]
    if not folders:
        print(__doc__)
        return 2
    wrong = 0
    for folder in folders:
        lines = (folder / "encodings.jsonl").read_text(encoding="utf-8").split("\n")
        rows = [json.loads(line) for line in lines if line]
        for name, config in MODEL_CONFIGS.items():
            with tempfile.TemporaryDirectory() as copy:
                target = Path(copy) / folder.name
                shutil.copytree(folder, target)
                if config is not None:
                    (target / "config.json").write_text(json.dumps(config), encoding="utf-8")
                wrong += check(target, rows, f"{folder.name}/{name}")
    return 1 if wrong else 0


if __name__ == "__main__":
    sys.exit(main())
