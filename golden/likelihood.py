#!/usr/bin/env python3
"""Record log-likelihoods of texts under small random models, as Python's `transformers` computes them.

    python3 golden/likelihood.py --out golden/likelihood --seed 11

Needs torch, transformers and tokenizers. Each NAME/ gets `config.json` and `model.safetensors`; `requests.json` holds the texts and, for every
model, sum, tokens, whether greedy decoding would have written them, and whether the context was cut. The tokenizers are those of
golden/tokenizer-*. Everything is computed in float64, one text at a time, without batches, padding or caches.
"""

import argparse
import json
from pathlib import Path

import torch
import transformers
from transformers import PreTrainedTokenizerFast

HERE = Path(__file__).resolve().parent
POSITIONS = 48

SHARED = "Question: What colour is the sky on a clear day?\nAnswer:"
KOREAN = "이 영화는 배우의 연기가 정말 좋았다. 그래서 나는"
LONG = "우리는 오랫동안 바닷가를 걸으며 옛날 이야기를 나누었고, the evening went on and on, " * 3
REQUESTS = [
    (SHARED, " blue"),
    (SHARED, " green, like the grass"),
    (SHARED, " It depends on who is looking."),
    (KOREAN, " 다시 보고 싶다."),
    (KOREAN, " 실망했다"),
    ("Trailing space: ", "the space belongs to the next word"),
    ("", "The cats sleep."),
    ("", "The cats sleeps."),
    ("", "고양이가 잠을 잔다."),
    (LONG, " and then we went home"),
    (LONG, " 집으로 갔다"),
    ("no space between", "these two"),
    ("감동", "적인 이야기"),
    ("One", " x"),
]


def config(name, vocab_size):
    common = {"vocab_size": vocab_size}
    table = {
        "gpt2": lambda: transformers.GPT2Config(**common, n_embd=16, n_layer=2, n_head=2, n_positions=POSITIONS),
        "openai-gpt": lambda: transformers.OpenAIGPTConfig(**common, n_embd=16, n_layer=1, n_head=2, n_positions=POSITIONS),
        "gpt-neo": lambda: transformers.GPTNeoConfig(
            **common, hidden_size=16, num_layers=2, num_heads=2, attention_types=[[["global", "local"], 1]], window_size=8,
            max_position_embeddings=POSITIONS, intermediate_size=32,
        ),
        "llama": lambda: transformers.LlamaConfig(
            **common, hidden_size=16, intermediate_size=24, num_hidden_layers=2, num_attention_heads=4, num_key_value_heads=2,
            max_position_embeddings=POSITIONS, tie_word_embeddings=True,
        ),
        "xlm-clm": lambda: transformers.XLMConfig(
            **common, emb_dim=16, n_layers=1, n_heads=2, causal=True, n_langs=1, max_position_embeddings=POSITIONS, use_lang_emb=False,
            pad_index=0, pad_token_id=0,
        ),
        "t5": lambda: transformers.T5Config(
            **common, d_model=16, d_kv=6, d_ff=24, num_layers=1, num_heads=2, relative_attention_num_buckets=8,
            relative_attention_max_distance=20, n_positions=POSITIONS, decoder_start_token_id=0, pad_token_id=0, eos_token_id=1,
        ),
        "bert": lambda: transformers.BertConfig(
            **common, hidden_size=16, num_hidden_layers=2, num_attention_heads=2, intermediate_size=32,
            max_position_embeddings=POSITIONS,
        ),
    }
    return table[name]()


MODELS = {
    "gpt2": ("bytelevel-bpe", transformers.GPT2LMHeadModel),
    "openai-gpt": ("bytelevel-bpe", transformers.OpenAIGPTLMHeadModel),
    "gpt-neo": ("bytelevel-bpe", transformers.GPTNeoForCausalLM),
    "llama": ("bytelevel-bpe", transformers.LlamaForCausalLM),
    "xlm-clm": ("wordpiece", transformers.XLMWithLMHeadModel),
    "t5": ("unigram", transformers.T5ForConditionalGeneration),
    "bert": ("wordpiece", transformers.BertForMaskedLM),
}


def random_weights(model, seed):
    """Weights large enough that every term of the computation shows."""
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            noise = torch.randn(parameter.shape, generator=generator)
            if parameter.dim() == 1:
                parameter.copy_(0.2 * noise + (1.0 if "norm" in name.lower() or "ln_" in name else 0.0) * (name.endswith("weight")))
            else:
                parameter.copy_(0.35 * noise)
    return model


def surround(tokenizer, text):
    """Ids of a text, how many special tokens stand before and behind it, and the character offsets."""
    encoding = tokenizer(text, return_offsets_mapping=True, return_special_tokens_mask=True)
    ids, mask = encoding["input_ids"], encoding["special_tokens_mask"]
    before = 0
    while before < len(ids) and mask[before]:
        before += 1
    behind = 0
    while behind < len(ids) - before and mask[len(ids) - 1 - behind]:
        behind += 1
    return ids, before, behind, encoding["offset_mapping"]


def gather(logits, target):
    """Sum of the log-probabilities of `target [T]` under `logits [T, V]`, and whether each is the most probable token."""
    logits = torch.log_softmax(logits, -1)
    chosen = logits[torch.arange(len(target)), torch.tensor(target)]
    return float(chosen.sum()), bool((logits.argmax(-1) == torch.tensor(target)).all())


def split(tokenizer, context, text, first=None):
    """Context, text and end tokens of both written together; a token that reaches into the text belongs to it."""
    ids, before, behind, offsets = surround(tokenizer, context + text)
    end = len(ids) - behind
    at = next(i for i in range(before, end) if offsets[i][1] > len(context))
    if first is not None and at == 0:
        ids, before, at, end = [first] + ids, 1, 1, end + 1
    return ids[:before], ids[before:at], ids[at:end], ids[end:]


def decoder(model, tokenizer, context, text):
    start, context, target, _ = split(tokenizer, context, text, tokenizer.eos_token_id)
    surplus = max(0, len(start) + len(context) + len(target) - 1 - POSITIONS)
    ids = start + context[surplus:] + target
    logits = model(torch.tensor([ids[:-1]])).logits[0]
    total, greedy = gather(logits[len(ids) - 1 - len(target):], target)
    return total, len(target), greedy, surplus > 0


def encoder_decoder(model, tokenizer, context, text):
    source, before, behind, _ = surround(tokenizer, context)
    surplus = max(0, len(source) - POSITIONS)
    source = source[:before] + source[before + surplus:]
    target = tokenizer(text, add_special_tokens=False)["input_ids"]
    logits = model(torch.tensor([source]), decoder_input_ids=torch.tensor([[0] + target[:-1]])).logits[0]
    total, greedy = gather(logits, target)
    return total, len(target), greedy, surplus > 0


def masked(model, tokenizer, context, text, word=False):
    start, context, target, after = split(tokenizer, context, text)
    surplus = max(0, len(start) + len(context) + len(target) + len(after) - POSITIONS)
    ids = start + context[surplus:] + target + after
    first, total, greedy = len(ids) - len(after) - len(target), 0.0, True
    for at in range(first, first + len(target)):
        end = at + 1
        while word and end < first + len(target) and tokenizer.convert_ids_to_tokens(ids[end]).startswith("##"):
            end += 1
        blanked = ids[:at] + [tokenizer.mask_token_id] * (end - at) + ids[end:]
        one, best = gather(model(torch.tensor([blanked])).logits[0, at : at + 1], ids[at : at + 1])
        total, greedy = total + one, greedy and best
    return total, len(target), greedy, surplus > 0


def main():
    arguments = argparse.ArgumentParser()
    arguments.add_argument("--out", type=Path, required=True)
    arguments.add_argument("--seed", type=int, default=11)
    arguments = arguments.parse_args()
    result = {"requests": REQUESTS, "models": {}}
    for number, (name, (kind, architecture)) in enumerate(MODELS.items()):
        special = {"bytelevel-bpe": {"eos_token": "<|endoftext|>"}, "wordpiece": {"mask_token": "[MASK]"}, "unigram": {}}[kind]
        tokenizer = PreTrainedTokenizerFast(tokenizer_file=str(HERE / f"tokenizer-{kind}" / "tokenizer.json"), **special)
        model = random_weights(architecture(config(name, len(tokenizer))), arguments.seed + number).eval()
        model.save_pretrained(arguments.out / name)
        (arguments.out / name / "generation_config.json").unlink(missing_ok=True)
        model = model.double()
        score = {"t5": encoder_decoder, "bert": masked}.get(name, decoder)
        columns = ("log_likelihood", "tokens", "greedy", "truncated")
        with torch.no_grad():
            rows = [dict(zip(columns, score(model, tokenizer, *request))) for request in REQUESTS]
            entry = {"tokenizer": f"tokenizer-{kind}", "rows": rows}
            if name == "bert":
                entry["whole_words"] = [masked(model, tokenizer, *request, word=True)[0] for request in REQUESTS]
        result["models"][name] = entry
    text = json.dumps(result, ensure_ascii=False, indent=1)
    (arguments.out / "requests.json").write_text(text + "\n")


if __name__ == "__main__":
    main()
