#!/usr/bin/env python3
"""Fine-tuning throughput and peak memory on NSMC: `malmoi finetune` beside the Trainer of transformers, from the same weights.

    python bench/trainer.py prepare --out DIR                 # random BERT-base, KoELECTRA's vocabulary, 2,000 reviews
    python bench/trainer.py trainer --out DIR [--steps 30]    # transformers, dynamic padding, bf16 on the CPU
    python bench/trainer.py malmoi --out DIR --program target/release/malmoi [--steps 60]

At most 128 tokens, batches of 32 in a drawn order, AdamW, dropout 0.1, clipping at 1, no evaluation. Each prints one JSON object:
rows a second over the steps after the first --warmup, and the process's peak memory. Needs torch, transformers, accelerate.
"""
import argparse, gzip, json, os, resource, subprocess, sys, time

HERE = os.path.dirname(os.path.abspath(__file__))
DATA = os.path.join(HERE, "..", "data")
ROWS, BATCH, LENGTH = 2000, 32, 128


def prepare(args):
    import torch
    from transformers import BertConfig, BertForSequenceClassification, BertTokenizerFast

    model = os.path.join(args.out, "bert-base")
    vocabulary = os.path.join(DATA, "vocab", "koelectra", "vocab.txt")
    tokenizer = BertTokenizerFast(vocab=vocabulary, do_lower_case=False, strip_accents=False, model_max_length=512)
    tokenizer.save_pretrained(model)
    torch.manual_seed(1)
    config = BertConfig(vocab_size=len(tokenizer), num_labels=2, pad_token_id=tokenizer.pad_token_id)
    BertForSequenceClassification(config).save_pretrained(model)
    with gzip.open(os.path.join(DATA, "ko_sentiment_nsmc", "train.tsv.gz"), "rt", encoding="utf-8") as file:
        lines = [next(file) for _ in range(ROWS + 1)]
    with open(os.path.join(args.out, "train.tsv"), "w", encoding="utf-8") as file:
        file.writelines(lines)


def rows_of(path):
    with open(path, encoding="utf-8") as file:
        next(file)
        cells = [line.rstrip("\n").split("\t") for line in file]
    return [text for _, text, _ in cells], [int(label) for *_, label in cells]


def report(peer, args, steps, seconds, peak_kib, more):
    found = {
        "peer": peer, "threads": args.threads, "steps": steps, "seconds": round(seconds, 2),
        "rows_per_second": round(steps * BATCH / seconds, 2), "peak_mib": round(peak_kib / 1024), **more,
    }
    print(json.dumps(found))


def trainer(args):
    import torch
    import transformers

    torch.set_num_threads(args.threads)
    model_dir = os.path.join(args.out, "bert-base")
    tokenizer = transformers.AutoTokenizer.from_pretrained(model_dir)
    texts, labels = rows_of(os.path.join(args.out, "train.tsv"))
    encoded = tokenizer(texts, truncation=True, max_length=LENGTH)["input_ids"]
    rows = [{"input_ids": ids, "attention_mask": [1] * len(ids), "label": label} for ids, label in zip(encoded, labels)]
    padding = transformers.DataCollatorWithPadding(tokenizer)
    tokens = {"real": 0, "padded": 0}

    def collate(some):
        batch = padding(some)
        tokens["real"] += int(batch["attention_mask"].sum())
        tokens["padded"] += batch["input_ids"].numel()
        return batch

    class Clock(transformers.TrainerCallback):
        times = []

        def on_step_end(self, arguments, state, control, **_):
            self.times.append(time.perf_counter())

    settings = transformers.TrainingArguments(
        output_dir=os.path.join(args.out, "trainer"), max_steps=args.steps, per_device_train_batch_size=BATCH, learning_rate=5e-5,
        bf16=True, use_cpu=True, save_strategy="no", report_to="none", disable_tqdm=True, logging_steps=10, seed=1,
        dataloader_num_workers=0,
    )
    model = transformers.AutoModelForSequenceClassification.from_pretrained(model_dir)
    clock = Clock()
    transformers.Trainer(model=model, args=settings, train_dataset=rows, data_collator=collate, callbacks=[clock]).train()
    steps = args.steps - args.warmup
    seconds = clock.times[-1] - clock.times[args.warmup - 1]
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    report("transformers Trainer", args, steps, seconds, peak, {
        "padded_share": round(1 - tokens["real"] / tokens["padded"], 3), "torch": torch.__version__, "transformers": transformers.__version__,
    })


def malmoi(args):
    run = os.path.join(args.out, f"malmoi-{os.getpid()}")
    command = [
        args.program, "finetune", "classify", "--model", os.path.join(args.out, "bert-base"), "--train", os.path.join(args.out, "train.tsv"),
        "--text-column", "document", "--max-len", str(LENGTH), "--batch-size", str(BATCH), "--set", "train.precision=bf16",
        "--set", f"train.steps={args.steps}", "--set", "log.every=1", "--eval-every", "0", "--threads", str(args.threads), "--out", run,
    ]
    subprocess.run(command + (["--profile"] if args.profile else []), check=True, stdout=sys.stderr)
    with open(os.path.join(run, "metrics.jsonl"), encoding="utf-8") as file:
        lines = [row for row in map(json.loads, file) if row["kind"] == "train"]
    seconds = lines[-1]["seconds"] - lines[args.warmup - 1]["seconds"]
    peak = resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss
    report("malmoi", args, len(lines) - args.warmup, seconds, peak, {})


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("what", choices=["prepare", "trainer", "malmoi"])
    parser.add_argument("--out", required=True, help="folder for the model, the rows and the runs")
    parser.add_argument("--program", default="target/release/malmoi")
    parser.add_argument("--steps", type=int, default=30)
    parser.add_argument("--warmup", type=int, default=5)
    parser.add_argument("--threads", type=int, default=os.cpu_count())
    parser.add_argument("--profile", action="store_true", help="malmoi: also show where the time goes")
    args = parser.parse_args()
    os.makedirs(args.out, exist_ok=True)
    {"prepare": prepare, "trainer": trainer, "malmoi": malmoi}[args.what](args)


if __name__ == "__main__":
    main()
