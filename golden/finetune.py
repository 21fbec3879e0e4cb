"""Reference for fine-tuning: a small BERT classifier trained for 50 steps by PyTorch.

    python golden/finetune.py

Writes golden/finetune-bert: the model before training (config.json, model.safetensors), the rows of every step and the loss of every step
(run.json). No dropout; AdamW with decay on matrices alone, linear warm-up and decay, clipping by the global norm: the recipe of
`malmoi finetune`. Needs torch and transformers.
"""

import json
import os

import torch
from transformers import BertConfig, BertForSequenceClassification, get_linear_schedule_with_warmup

OUT = os.path.join(os.path.dirname(os.path.abspath(__file__)), "finetune-bert")
STEPS, BATCH, ROWS = 50, 8, 96
LR, DECAY, CLIP, WARMUP = 1e-3, 0.01, 1.0, 5


def main():
    torch.manual_seed(7)
    config = BertConfig(
        vocab_size=120, hidden_size=32, num_hidden_layers=2, num_attention_heads=4, intermediate_size=64,
        max_position_embeddings=24, hidden_dropout_prob=0.0, attention_probs_dropout_prob=0.0, num_labels=3,
        problem_type="single_label_classification",
    )
    config.id2label = {0: "a", 1: "b", 2: "c"}
    config.label2id = {"a": 0, "b": 1, "c": 2}
    model = BertForSequenceClassification(config).train()
    # Norms and biases that are not at their initial values test more.
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            if parameter.ndim == 1:
                parameter.add_(0.05 * torch.randn_like(parameter))
            else:
                parameter.mul_(3.0)
    os.makedirs(OUT, exist_ok=True)
    model.save_pretrained(OUT)

    generator = torch.Generator().manual_seed(11)
    rows = []
    for _ in range(ROWS):
        length = int(torch.randint(4, 20, (1,), generator=generator))
        ids = torch.randint(5, 120, (length,), generator=generator).tolist()
        # The class is in the text: how many of its tokens are even.
        label = sum(i % 2 == 0 for i in ids) * 3 // (length + 1)
        cut = length // 2
        rows.append({"ids": [2, *ids, 3], "segments": [0] * (cut + 1) + [1] * (length - cut + 1), "label": label})
    order = [int(i) for _ in range(5) for i in torch.randperm(ROWS, generator=generator)]

    decayed = [p for p in model.parameters() if p.ndim >= 2]
    others = [p for p in model.parameters() if p.ndim < 2]
    groups = [{"params": decayed, "weight_decay": DECAY}, {"params": others, "weight_decay": 0.0}]
    optimizer = torch.optim.AdamW(groups, lr=LR, betas=(0.9, 0.999), eps=1e-8)
    # The first step already moves: the rate of step k is that of k + 1 of the usual count.
    schedule = get_linear_schedule_with_warmup(optimizer, WARMUP, STEPS)
    schedule.step()
    losses, steps = [], []
    for step in range(STEPS):
        batch = order[step * BATCH:(step + 1) * BATCH]
        longest = max(len(rows[i]["ids"]) for i in batch)
        pad = lambda key: torch.tensor([rows[i][key] + [0] * (longest - len(rows[i][key])) for i in batch])
        mask = torch.tensor([[1] * len(rows[i]["ids"]) + [0] * (longest - len(rows[i]["ids"])) for i in batch])
        labels = torch.tensor([rows[i]["label"] for i in batch])
        found = model(input_ids=pad("ids"), token_type_ids=pad("segments"), attention_mask=mask, labels=labels)
        optimizer.zero_grad()
        found.loss.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), CLIP)
        optimizer.step()
        schedule.step()
        losses.append(found.loss.item())
        steps.append(batch)
    run = {
        "lr": LR, "weight_decay": DECAY, "clip_norm": CLIP, "warmup_steps": WARMUP, "steps": STEPS,
        "rows": rows, "batches": steps, "losses": losses, "torch": torch.__version__,
    }
    with open(os.path.join(OUT, "run.json"), "w", encoding="utf-8") as file:
        json.dump(run, file)
        file.write("\n")
    print("losses:", [round(loss, 4) for loss in losses[:5]], "...", [round(loss, 4) for loss in losses[-5:]])


if __name__ == "__main__":
    main()
