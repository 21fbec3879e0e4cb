#!/usr/bin/env python3
"""The recipe of configs/shakespeare-char.toml in PyTorch, to time an iteration of both in one sitting.

    python bench/shakespeare_torch.py [--steps 2000] [--threads 2]

4 layers, 4 heads, d_model 128, context 64, batch 12, AdamW 1e-3 to 1e-4 (cosine, 100 warm-up), beta2 0.99, weight decay 0.1 on
matrices, clip 1.0, no dropout. Prints milliseconds an iteration (without evaluation) and the mean loss over all windows of
valid.txt that do not overlap.
"""
import argparse, math, os, time

import torch
from torch import nn
from torch.nn import functional as F

HERE = os.path.dirname(os.path.abspath(__file__))
DATA = os.path.join(HERE, "..", "data", "en_corpus_shakespeare")
D, HEADS, LAYERS, CONTEXT, BATCH = 128, 4, 4, 64, 12


class Block(nn.Module):
    def __init__(self):
        super().__init__()
        self.norm1, self.norm2 = nn.LayerNorm(D), nn.LayerNorm(D)
        self.qkv, self.out = nn.Linear(D, 3 * D), nn.Linear(D, D)
        self.up, self.down = nn.Linear(D, 4 * D), nn.Linear(4 * D, D)

    def forward(self, x):
        b, t, _ = x.shape
        q, k, v = (y.view(b, t, HEADS, D // HEADS).transpose(1, 2) for y in self.qkv(self.norm1(x)).split(D, dim=2))
        y = F.scaled_dot_product_attention(q, k, v, is_causal=True)
        x = x + self.out(y.transpose(1, 2).reshape(b, t, D))
        return x + self.down(F.gelu(self.up(self.norm2(x)), approximate="tanh"))


class Gpt(nn.Module):
    def __init__(self, vocab):
        super().__init__()
        self.token, self.position = nn.Embedding(vocab, D), nn.Embedding(CONTEXT, D)
        self.blocks, self.norm = nn.ModuleList(Block() for _ in range(LAYERS)), nn.LayerNorm(D)
        for name, p in self.named_parameters():
            if p.dim() >= 2:
                std = 0.02 / math.sqrt(2 * LAYERS) if name.endswith(("out.weight", "down.weight")) else 0.02
                nn.init.normal_(p, 0.0, std)
            elif name.endswith("bias"):
                nn.init.zeros_(p)

    def forward(self, ids, targets):
        x = self.token(ids) + self.position.weight[: ids.shape[1]]
        for block in self.blocks:
            x = block(x)
        return F.cross_entropy((self.norm(x) @ self.token.weight.T).flatten(0, 1), targets.flatten())


def main():
    p = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    p.add_argument("--steps", type=int, default=2000)
    p.add_argument("--threads", type=int, default=os.cpu_count())
    args = p.parse_args()
    torch.set_num_threads(args.threads)
    torch.manual_seed(1337)
    text = open(os.path.join(DATA, "train.txt")).read()
    chars = sorted(set(text))
    table = {c: i for i, c in enumerate(chars)}
    train = torch.tensor([table[c] for c in text])
    valid = torch.tensor([table[c] for c in open(os.path.join(DATA, "valid.txt")).read() if c in table])
    model = Gpt(len(chars))
    decayed = [q for q in model.parameters() if q.dim() >= 2]
    rest = [q for q in model.parameters() if q.dim() < 2]
    opt = torch.optim.AdamW([{"params": decayed, "weight_decay": 0.1}, {"params": rest, "weight_decay": 0.0}],
                            lr=1e-3, betas=(0.9, 0.99), fused=True)
    times = []
    for step in range(args.steps):
        if step < 100:
            lr = 1e-3 * (step + 1) / 100
        else:
            lr = 1e-4 + 0.5 * (1e-3 - 1e-4) * (1 + math.cos(math.pi * (step - 100) / (args.steps - 100)))
        for group in opt.param_groups:
            group["lr"] = lr
        start = time.perf_counter()
        at = torch.randint(len(train) - CONTEXT, (BATCH,)).tolist()
        ids = torch.stack([train[i : i + CONTEXT] for i in at])
        targets = torch.stack([train[i + 1 : i + 1 + CONTEXT] for i in at])
        loss = model(ids, targets)
        opt.zero_grad(set_to_none=True)
        loss.backward()
        nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        opt.step()
        times.append(time.perf_counter() - start)
    n = (len(valid) - 1) // CONTEXT
    ids, targets = valid[: n * CONTEXT].view(n, CONTEXT), valid[1 : n * CONTEXT + 1].view(n, CONTEXT)
    with torch.inference_mode():
        losses = [model(ids[i : i + 64], targets[i : i + 64]).item() * len(ids[i : i + 64]) for i in range(0, n, 64)]
    times.sort()
    print(f"torch {torch.__version__}, {args.threads} threads: median {1e3 * times[len(times) // 2]:.2f} ms, mean "
          f"{1e3 * sum(times) / len(times):.2f} ms an iteration; validation loss {sum(losses) / n:.4f} after {args.steps} steps")


if __name__ == "__main__":
    main()
