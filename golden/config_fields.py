"""Every field of the configurations that Python's transformers writes, for the test that none of them is read over.

    python golden/config_fields.py

Writes golden/config_fields.json: the default configuration of each model type, as the library would save it. Needs transformers.
"""

import json
from pathlib import Path

import transformers

CLASSES = ["Bert", "Roberta", "XLMRoberta", "DistilBert", "Albert", "Electra", "XLM", "Bart", "OpenAIGPT", "GPT2", "GPTNeo", "Llama", "ModernBert",
           "T5", "MT5"]


def main():
    configs = [json.loads(getattr(transformers, f"{name}Config")().to_json_string(use_diff=False)) for name in CLASSES]
    found = {"transformers": transformers.__version__, "configs": {config["model_type"]: config for config in configs}}
    out = Path(__file__).parent / "config_fields.json"
    out.write_text(json.dumps(found, indent=1, sort_keys=True) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
