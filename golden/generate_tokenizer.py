#!/usr/bin/env python3
"""Make golden tokenizer fixtures of any size and seed for `malmoi verify`.

    python3 golden/generate_tokenizer.py wordpiece --out /tmp/fresh --seed 7 --vocab-size 1500

Kinds: wordpiece, bytelevel-bpe, unigram, sentencepiece. Needs tokenizers (and sentencepiece for the last). Trains on lines of data/ chosen by the
seed, half Korean and half English, and records the encodings of other lines and of odd texts. The layout is described in golden/README.md.
"""

import argparse
import gzip
import json
import random
from pathlib import Path

import tokenizers
from tokenizers import Tokenizer, decoders, models, normalizers, pre_tokenizers, processors, trainers

DATA = Path(__file__).resolve().parent.parent / "data"
OFFSETS = "pairs of Unicode scalar (code point) indices into the original text"
ODD = [
    "", " ", "\t\n", "a", "  two  spaces  ", "naïve café ÅNGSTRÖM İstanbul ﬁne", "100,000.50원 50%!?", "don't stop_here-now",
    "ㅋㅋㅋㅋ ㅠㅠㅠ", "가" * 40, "\u1112\u1161\u11ab\u1100\u1173\u11af NFD", "한글English섞임123", "漢字と假名", "👍🏽 👨‍👩‍👧 🇰🇷", "a\u0301e\u0308 \u200d\ufeff x",
    "\u00a0no\u00a0break\u3000full", "x" * 120, "뷁뛟 쀍 𝒜𝓑 ℃ ㈜", "[CLS] [MASK] </s> <|endoftext|>", "\x00\x07control",
]


def lines(rng, count):
    """`count` lines of the bundled text, half of each language, in random order."""
    with gzip.open(DATA / "ko_corpus_reviews/train.txt.gz", "rt", encoding="utf-8") as file:
        korean = [line.strip() for line in file if line.strip()]
    english = [line.strip() for line in open(DATA / "en_corpus_shakespeare/train.txt", encoding="utf-8") if line.strip()]
    chosen = rng.sample(korean, count // 2) + rng.sample(english, count // 2)
    rng.shuffle(chosen)
    return chosen


def wordpiece(text, size, rng):
    lowercase = rng.random() < 0.5
    tokenizer = Tokenizer(models.WordPiece(unk_token="[UNK]"))
    tokenizer.normalizer = normalizers.BertNormalizer(lowercase=lowercase, strip_accents=None if lowercase else False)
    tokenizer.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
    special = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]"]
    tokenizer.train_from_iterator(text, trainers.WordPieceTrainer(vocab_size=size, special_tokens=special, show_progress=False))
    tokenizer.post_processor = processors.TemplateProcessing(
        single="[CLS] $A [SEP]", pair="[CLS] $A [SEP] $B:1 [SEP]:1", special_tokens=[("[CLS]", 2), ("[SEP]", 3)])
    tokenizer.decoder = decoders.WordPiece()
    return tokenizer, {"kind": "WordPiece", "lowercase": lowercase}, "[PAD]"


def bytelevel_bpe(text, size, rng):
    prefix = rng.random() < 0.5
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=prefix)
    tokenizer.post_processor = processors.ByteLevel(trim_offsets=False)
    tokenizer.decoder = decoders.ByteLevel()
    special = ["<|endoftext|>", "<|pad|>"]
    alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
    trainer = trainers.BpeTrainer(vocab_size=size, special_tokens=special, initial_alphabet=alphabet, show_progress=False)
    tokenizer.train_from_iterator(text, trainer)
    return tokenizer, {"kind": "byte-level BPE", "add_prefix_space": prefix, "trim_offsets": False, "special": special}, "<|pad|>"


def unigram(text, size, rng):
    tokenizer = Tokenizer(models.Unigram())
    tokenizer.normalizer = normalizers.NFKC()
    tokenizer.pre_tokenizer = pre_tokenizers.Metaspace()
    tokenizer.decoder = decoders.Metaspace()
    special = ["<pad>", "</s>", "<unk>"]
    trainer = trainers.UnigramTrainer(vocab_size=size, special_tokens=special, unk_token="<unk>", show_progress=False)
    tokenizer.train_from_iterator(text, trainer)
    tokenizer.post_processor = processors.TemplateProcessing(single="$A </s>", pair="$A </s> $B </s>", special_tokens=[("</s>", 1)])
    tie = "entries marked tie have several best segmentations of equal score: compare the score or the decoded text"
    return tokenizer, {"kind": "Unigram (T5 layout)", "tie": tie}, "<pad>"


KINDS = {"wordpiece": wordpiece, "bytelevel-bpe": bytelevel_bpe, "unigram": unigram}


def tie_finder(tokenizer):
    """A function that says whether a text has two segmentations of equal score; never for models without scores."""
    model = json.loads(tokenizer.to_str())["model"]
    if model["type"] != "Unigram":
        return lambda text: False
    scores = {piece: score for piece, score in model["vocab"]}
    unknown = min(scores.values()) - 10.0
    longest = max(map(len, scores))

    def ties(text):
        words = tokenizer.pre_tokenizer.pre_tokenize_str(tokenizer.normalizer.normalize_str(text))
        for word, _ in words:
            best = [(0.0, 1)] + [(-1e30, 0)] * len(word)
            for end in range(1, len(word) + 1):
                for start in range(max(0, end - longest), end):
                    piece = word[start:end]
                    if piece in scores or end - start == 1:
                        score = best[start][0] + scores.get(piece, unknown)
                        if abs(score - best[end][0]) < 1e-6:
                            best[end] = (best[end][0], best[end][1] + best[start][1])
                        elif score > best[end][0]:
                            best[end] = (score, best[start][1])
            if best[-1][1] > 1:
                return True
        return False

    return ties


def describe(encoding):
    keys = ["ids", "tokens", "type_ids", "attention_mask", "special_tokens_mask", "offsets", "word_ids", "sequence_ids"]
    return {key: getattr(encoding, key) for key in keys}


def cut(encoding):
    about = {key: getattr(encoding, key) for key in ["ids", "type_ids", "special_tokens_mask", "offsets"]}
    pieces = [{key: getattr(piece, key) for key in ["ids", "special_tokens_mask", "offsets"]} for piece in encoding.overflowing]
    return about | ({"overflowing": pieces} if pieces else {})


def entries(tokenizer, texts, pad, rng):
    ties = tie_finder(tokenizer)
    mark = lambda *words: {"tie": True} if any(map(ties, words)) else {}
    found = []
    for text in texts:
        encoding = tokenizer.encode(text)
        decoded = {"decoded_skip_special": tokenizer.decode(encoding.ids), "decoded_all": tokenizer.decode(encoding.ids, skip_special_tokens=False)}
        found.append({"case": "single", "text": text, "encoding": describe(encoding)} | decoded | mark(text))
        if rng.random() < 0.2:
            plain = tokenizer.encode(text, add_special_tokens=False)
            found.append({"case": "no_special", "text": text, "add_special_tokens": False, "encoding": describe(plain)} | mark(text))
    for _ in range(12):
        text, pair = rng.sample(texts, 2)
        found.append({"case": "pair", "text": text, "pair": pair, "encoding": describe(tokenizer.encode(text, pair))} | mark(text, pair))
    long = [text for text in texts if len(tokenizer.encode(text).ids) > 12]
    for _ in range(16):
        # A stride must stay below the room that special tokens leave: the library ends the program otherwise.
        options = {"max_length": rng.randint(6, 14), "stride": rng.randint(0, 2), "strategy": "longest_first", "direction": rng.choice(["right", "left"])}
        tokenizer.enable_truncation(**options)
        text, pair = rng.sample(long, 2)
        found.append({"case": "truncated", "text": text} | options | {"encoding": cut(tokenizer.encode(text))} | mark(text))
        options |= {"strategy": rng.choice(["longest_first", "only_first", "only_second"]), "stride": 0}
        tokenizer.enable_truncation(**options)
        entry = {"case": "pair_truncated", "text": text, "pair": pair} | options
        try:
            found.append(entry | {"encoding": cut(tokenizer.encode(text, pair))} | mark(text, pair))
        except Exception as error:  # The library raises its plain base class when a truncation cannot be done.
            found.append(entry | {"error": str(error)})
        tokenizer.no_truncation()
    for direction, multiple in [("right", None), ("left", 8)]:
        batch = rng.sample(texts, 4)
        pad_id = tokenizer.token_to_id(pad)
        tokenizer.enable_padding(direction=direction, pad_id=pad_id, pad_token=pad, pad_to_multiple_of=multiple)
        options = {"direction": direction, "length": None, "pad_to_multiple_of": multiple, "pad_id": pad_id}
        found.append({"case": "batch_padded", "texts": batch} | options | {"encodings": [describe(e) for e in tokenizer.encode_batch(batch)]} | mark(*batch))
        tokenizer.no_padding()
    return found


def write_sentencepiece(folder, text, size, texts):
    import sentencepiece

    sentencepiece.SentencePieceTrainer.train(
        sentence_iterator=iter(text), model_prefix=str(folder / "spiece"), vocab_size=size, pad_id=0, eos_id=1, unk_id=2, bos_id=-1,
        character_coverage=0.9995, minloglevel=2)
    (folder / "spiece.vocab").unlink()
    model = sentencepiece.SentencePieceProcessor(model_file=str(folder / "spiece.model"))
    found = []
    for line in texts:
        if "\x00" in line:
            continue  # The reference library ends its strings there.
        ids = model.encode(line)
        entry = {"case": "single", "text": line, "ids": ids, "pieces": model.encode(line, out_type=str), "decoded": model.decode(ids)}
        best = [sum(map(model.get_score, other)) for other in model.nbest_encode(line, nbest_size=2)]
        if len(best) == 2 and abs(best[0] - best[1]) < 1e-5:
            entry["tie"] = True
        found.append(entry)
    return {"kind": "sentencepiece unigram", "library": {"sentencepiece": sentencepiece.__version__}}, found


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("kind", choices=[*KINDS, "sentencepiece"])
    parser.add_argument("--out", type=Path, required=True, help="folder that receives tokenizer-KIND")
    parser.add_argument("--name", help="folder name (default tokenizer-KIND)")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--vocab-size", type=int, default=1200)
    args = parser.parse_args()
    rng = random.Random(args.seed)
    chosen = lines(rng, 4000)
    train, texts = chosen[:3900], ODD + chosen[3900:]
    folder = args.out / (args.name or f"tokenizer-{args.kind}")
    folder.mkdir(parents=True, exist_ok=True)
    if args.kind == "sentencepiece":
        meta, found = write_sentencepiece(folder, train, args.vocab_size, texts)
    else:
        tokenizer, meta, pad = KINDS[args.kind](train, args.vocab_size, rng)
        tokenizer.save(str(folder / "tokenizer.json"))
        if args.kind != "unigram":
            tokenizer.model.save(str(folder))
        meta["library"] = {"tokenizers": tokenizers.__version__}
        found = entries(tokenizer, texts, pad, rng)
    about = {"meta": meta | {"seed": args.seed, "offsets": OFFSETS}, "entries": found}
    (folder / "encodings.json").write_text(json.dumps(about, ensure_ascii=True) + "\n", encoding="utf-8")
    print(f"{folder}: {len(found)} entries, {sum('tie' in entry for entry in found)} ties")


if __name__ == "__main__":
    main()
