#!/usr/bin/env python3
"""Load on `malmoi serve` over loopback, beside the same work in one offline batch. Python's standard library alone.

    python3 bench/serve_load.py embeddings  target/release/malmoi --precision f32
    python3 bench/serve_load.py completions target/release/malmoi --precision bf16
    python3 bench/serve_load.py memory      target/release/malmoi

embeddings: a BERT-base shape, 64 clients, one text of 128 tokens a request. completions: a GPT-2 124M shape, 16 clients, streams of
64 tokens after prompts of about 32. Each client sends its next request as soon as the last is answered; after a warm-up, what is
answered within --seconds counts. Offline is `malmoi embed` or `malmoi generate` on such texts, less the time of one text, which
is mostly that of loading; each the best of three. memory: 10,000 requests of every kind to small models; resident memory is read every 1,000.
Weights are random: of the speed they say as much as trained ones. Models and texts are made in target/load.
"""

import argparse
import array
import asyncio
import json
import math
import os
import random
import re
import shutil
import signal
import struct
import subprocess
import sys
import time
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
WORK = ROOT / "target" / "load"
VOCAB = ROOT / "data" / "vocab"
NEW_TOKENS = 64


def bert(d, layers, heads):
    """`config.json` and shapes of weights of a BERT with a masked-LM head."""
    vocab = 30522
    config = {
        "architectures": ["BertForMaskedLM"], "model_type": "bert", "hidden_size": d, "num_hidden_layers": layers,
        "num_attention_heads": heads, "intermediate_size": 4 * d, "max_position_embeddings": 512, "vocab_size": vocab,
        "type_vocab_size": 2, "hidden_act": "gelu", "layer_norm_eps": 1e-12, "pad_token_id": 0, "tie_word_embeddings": True,
    }
    shapes = {
        "bert.embeddings.word_embeddings.weight": [vocab, d], "bert.embeddings.position_embeddings.weight": [512, d],
        "bert.embeddings.token_type_embeddings.weight": [2, d], "cls.predictions.bias": [vocab],
    }

    def linear(name, n_out, n_in):
        shapes[f"{name}.weight"], shapes[f"{name}.bias"] = [n_out, n_in], [n_out]

    def norm(name):
        shapes[f"{name}.weight"], shapes[f"{name}.bias"] = [d], [d]

    norm("bert.embeddings.LayerNorm")
    for i in range(layers):
        layer = f"bert.encoder.layer.{i}"
        for name in ["self.query", "self.key", "self.value", "output.dense"]:
            linear(f"{layer}.attention.{name}", d, d)
        norm(f"{layer}.attention.output.LayerNorm")
        linear(f"{layer}.intermediate.dense", 4 * d, d)
        linear(f"{layer}.output.dense", d, 4 * d)
        norm(f"{layer}.output.LayerNorm")
    linear("cls.predictions.transform.dense", d, d)
    norm("cls.predictions.transform.LayerNorm")
    return config, shapes


def gpt2(d, layers, heads):
    """`config.json` and shapes of weights of a GPT-2."""
    vocab = 50257
    config = {
        "architectures": ["GPT2LMHeadModel"], "model_type": "gpt2", "n_embd": d, "n_layer": layers, "n_head": heads,
        "n_positions": 1024, "vocab_size": vocab, "activation_function": "gelu_new", "layer_norm_epsilon": 1e-5,
        "bos_token_id": 50256, "eos_token_id": 50256, "tie_word_embeddings": True,
    }
    shapes = {"transformer.wte.weight": [vocab, d], "transformer.wpe.weight": [1024, d]}
    for i in range(layers):
        layer = f"transformer.h.{i}"
        for name in ["ln_1", "ln_2"]:
            shapes[f"{layer}.{name}.weight"], shapes[f"{layer}.{name}.bias"] = [d], [d]
        for name, n_in, n_out in [("attn.c_attn", d, 3 * d), ("attn.c_proj", d, d), ("mlp.c_fc", d, 4 * d), ("mlp.c_proj", 4 * d, d)]:
            shapes[f"{layer}.{name}.weight"], shapes[f"{layer}.{name}.bias"] = [n_in, n_out], [n_out]
    shapes["transformer.ln_f.weight"], shapes["transformer.ln_f.bias"] = [d], [d]
    return config, shapes


def model(name, config, shapes):
    """Writes a model with random weights, N(0, 0.02²); scales of norms are 1 and biases 0."""
    folder = WORK / name
    if (folder / "model.safetensors").exists():
        return folder
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "config.json").write_text(json.dumps(config, indent=2))
    if config["model_type"] == "bert":
        shutil.copyfile(VOCAB / "bert-base-uncased" / "vocab.txt", folder / "vocab.txt")
        (folder / "tokenizer_config.json").write_text('{"do_lower_case": true, "tokenizer_class": "BertTokenizer"}')
    else:
        shutil.copyfile(VOCAB / "gpt2" / "encoder.json", folder / "vocab.json")
        shutil.copyfile(VOCAB / "gpt2" / "vocab.bpe", folder / "merges.txt")
        (folder / "tokenizer_config.json").write_text('{"tokenizer_class": "GPT2Tokenizer"}')
    draw = random.Random(0)
    # A prime number of values, repeated: rows of a matrix differ.
    values = array.array("f", (draw.gauss(0, 0.02) for _ in range(1_000_003))).tobytes()
    header, end = {}, 0
    for tensor, shape in shapes.items():
        size = 4 * math.prod(shape)
        header[tensor] = {"dtype": "F32", "shape": shape, "data_offsets": [end, end + size]}
        end += size
    head = json.dumps(header).encode()
    head += b" " * (-len(head) % 8)
    partial = folder / "model.partial"
    with partial.open("wb") as file:
        file.write(struct.pack("<Q", len(head)) + head)
        for tensor, shape in shapes.items():
            size = 4 * math.prod(shape)
            if len(shape) > 1:
                file.write((values * (size // len(values) + 1))[:size])
            elif tensor.endswith(".weight"):
                file.write(struct.pack("<f", 1.0) * shape[0])
            else:
                file.write(bytes(size))
    partial.rename(folder / "model.safetensors")
    return folder


def words(count, each):
    """`count` texts of `each` words that are one token in both vocabularies."""
    uncased = set((VOCAB / "bert-base-uncased" / "vocab.txt").read_text().split())
    bytes_ = json.loads((VOCAB / "gpt2" / "encoder.json").read_text())
    common = sorted(word for word in uncased if re.fullmatch("[a-z]{3,9}", word) and f"Ġ{word}" in bytes_)
    draw = random.Random(1)
    return [" ".join(draw.choices(common, k=each)) for _ in range(count)]


class Server:
    """`malmoi serve` on a free port."""

    def __init__(self, malmoi, folders, *flags):
        command = [malmoi, "serve", "--port", "0", *flags]
        for folder in folders:
            command += ["--model", str(folder)]
        self.process = subprocess.Popen(command, stderr=subprocess.PIPE, text=True, env={**os.environ, "MALMOI_LOG": "info"})
        for line in self.process.stderr:
            if found := re.search(r"listening on http://\S+:(\d+)", line):
                self.port = int(found.group(1))
            if " ready " in line or line.rstrip().endswith("ready"):
                break
        else:
            raise SystemExit("the server did not start")
        # Lines of every request go where they cost nothing.
        self.reader = subprocess.Popen(["cat"], stdin=self.process.stderr, stdout=subprocess.DEVNULL)

    def resident(self):
        status = Path(f"/proc/{self.process.pid}/status").read_text()
        return int(re.search(r"VmRSS:\s+(\d+)", status).group(1)) / 1024

    def seconds(self):
        fields = Path(f"/proc/{self.process.pid}/stat").read_text().rsplit(")", 1)[1].split()
        return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")

    def stop(self):
        self.process.send_signal(signal.SIGTERM)
        self.process.wait(60)


class Client:
    """A kept connection."""

    def __init__(self, port):
        self.port, self.reader = port, None

    async def post(self, request):
        """Status, seconds to the first piece of the body and to its end."""
        start = time.perf_counter()
        if self.reader is None:
            self.reader, self.writer = await asyncio.open_connection("127.0.0.1", self.port, limit=1 << 24)
        self.writer.write(request)
        head = await self.reader.readuntil(b"\r\n\r\n")
        status = int(head[9:12])
        length = re.search(rb"content-length: (\d+)", head)
        if length:
            self.body = await self.reader.readexactly(int(length.group(1)))
            end = time.perf_counter()
            return status, end - start, end - start
        first, self.body = None, b""
        while True:
            size = int(await self.reader.readuntil(b"\r\n"), 16)
            piece = await self.reader.readexactly(size + 2)
            first = first or time.perf_counter()
            if size == 0:
                return status, first - start, time.perf_counter() - start
            self.body += piece[:-2]


def request(path, body):
    body = json.dumps(body).encode()
    head = f"POST {path} HTTP/1.1\r\nhost: localhost\r\ncontent-type: application/json\r\ncontent-length: {len(body)}\r\n\r\n"
    return head.encode() + body


async def load(port, clients, requests, seconds, warm):
    """Sends for that long; a list of (status, time of the first piece, of the whole) of what was answered in it."""
    begin = time.perf_counter() + warm
    answers = []

    async def one(number):
        client = Client(port)
        turn = number
        while time.perf_counter() < begin + seconds:
            status, first, whole = await client.post(requests[turn % len(requests)])
            turn += clients
            if status == 429:
                await asyncio.sleep(1)
            if begin <= time.perf_counter() < begin + seconds:
                answers.append((status, first, whole))

    await asyncio.gather(*(one(number) for number in range(clients)))
    return answers


def percentile(values, share):
    return sorted(values)[min(len(values) - 1, int(share * len(values)))]


def timed(command):
    start = time.perf_counter()
    subprocess.run(command, check=True, stdout=subprocess.DEVNULL)
    return time.perf_counter() - start


def offline(malmoi, kind, folder, texts, precision):
    """Seconds for all texts, less those of a run that does next to nothing."""
    path = WORK / f"{kind}.txt"

    def run(some, *flags):
        path.write_text("\n".join(some) + "\n")
        return timed([malmoi, "-q", kind, "--model", folder, "--precision", precision, "--json", "--input", path, *flags])

    one, all_ = (["--normalize"], ["--normalize"]) if kind == "embed" else (
        ["--ignore-end", "--max-new-tokens", "1"], ["--ignore-end", "--max-new-tokens", str(NEW_TOKENS)])
    # The best of three: a first run also finds its pages.
    return min(run(texts, *all_) for _ in range(3)) - min(run(texts[:1], *one) for _ in range(3))


def measure(options):
    writes = options.work == "completions"
    if writes:
        folder = model("gpt2", *gpt2(768, 12, 12))
        clients = options.clients or 16
        texts = words(clients * 8, 32)
        body = {"max_tokens": NEW_TOKENS, "min_tokens": NEW_TOKENS, "temperature": 0, "stream": True}
        requests = [request("/v1/completions", {"prompt": text, **body}) for text in texts]
        each, some, unit = NEW_TOKENS, texts[:clients], "new tokens/s"
    else:
        folder = model("bert-base", *bert(768, 12, 12))
        clients = options.clients or 64
        texts = words(512, 126)
        requests = [request("/v1/embeddings", {"input": text}) for text in texts]
        each, some, unit = 128, texts[:256], "tokens/s"
    flags = ["--precision", options.precision, *options.flags]
    server = Server(options.malmoi, [folder], *flags)
    try:
        before = server.seconds()
        answers = asyncio.run(load(server.port, clients, requests, options.seconds, options.warm))
        used = server.seconds() - before
    finally:
        server.stop()
    good = [answer for answer in answers if answer[0] == 200]
    others = sorted({answer[0] for answer in answers} - {200})
    rate = len(good) * each / options.seconds
    whole = [answer[2] for answer in good]
    print(f"{options.work} {options.precision}, {clients} clients, {options.seconds} s: {len(good)} answers, {rate:.0f} {unit}, "
          f"p50 {percentile(whole, 0.5):.2f} s, p99 {percentile(whole, 0.99):.2f} s, other answers {len(answers) - len(good)} {others}, "
          f"server used {used:.0f} CPU seconds, load generator {time.process_time():.1f}")
    if writes:
        first = [answer[1] for answer in good]
        print(f"  first token: p50 {percentile(first, 0.5):.2f} s, p99 {percentile(first, 0.99):.2f} s")
    if not options.no_offline:
        seconds = offline(options.malmoi, "generate" if writes else "embed", folder, some, options.precision)
        batch = len(some) * each / seconds
        print(f"  offline, {len(some)} texts in one batch: {batch:.0f} {unit}; served / offline = {rate / batch:.3f}")


async def endure(server, count):
    """`count` requests of all kinds over 16 connections, some of them wrong, some broken off."""
    texts = words(400, 12)
    kinds = [
        lambda i: request("/v1/embeddings", {"model": "bert-small", "input": texts[i % 400]}),
        lambda i: request("/embed", {"model": "bert-small", "inputs": texts[i % 400: i % 400 + 3]}),
        lambda i: request("/v1/completions", {"model": "gpt-small", "prompt": texts[i % 400], "max_tokens": 8, "seed": i}),
        lambda i: request("/v1/completions", {"model": "gpt-small", "prompt": texts[i % 400], "max_tokens": 8, "stream": True}),
        lambda i: request("/fill-mask", {"model": "bert-small", "text": f"{texts[i % 400]} [MASK]."}),
        lambda i: request("/tokenize", {"model": "gpt-small", "inputs": texts[i % 400]}),
        lambda i: request("/attention", {"model": "bert-small", "text": texts[i % 400]}),
        lambda i: request("/embed", {"wrong": i}),
    ]
    sizes, statuses = [(0, server.resident())], {}
    for thousand in range(count // 1000):

        async def one(number):
            client = Client(server.port)
            for i in range(number, 1000, 16):
                turn = thousand * 1000 + i
                if turn % 50 == 49:
                    # A client that leaves in the middle of a stream.
                    _, writer = await asyncio.open_connection("127.0.0.1", server.port)
                    writer.write(kinds[3](turn))
                    await asyncio.sleep(0.005)
                    writer.close()
                    continue
                status, *_ = await client.post(kinds[turn % len(kinds)](turn))
                statuses[status] = statuses.get(status, 0) + 1
            client.writer.close()

        await asyncio.gather(*(one(number) for number in range(16)))
        sizes.append(((thousand + 1) * 1000, server.resident()))
    return sizes, statuses


def memory(options):
    folders = [model("bert-small", *bert(64, 2, 2)), model("gpt-small", *gpt2(64, 2, 2))]
    server = Server(options.malmoi, folders, *options.flags)
    try:
        sizes, statuses = asyncio.run(endure(server, 10_000))
    finally:
        server.stop()
    print("resident MiB: " + ", ".join(f"{at}: {size:.1f}" for at, size in sizes))
    print(f"answers by status: {statuses}")


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("work", choices=["embeddings", "completions", "memory"])
    parser.add_argument("malmoi", type=lambda path: str(Path(path).resolve()))
    parser.add_argument("--precision", default="f32")
    parser.add_argument("--seconds", type=float, default=60)
    parser.add_argument("--warm", type=float, default=8)
    parser.add_argument("--clients", type=int)
    parser.add_argument("--no-offline", action="store_true")
    parser.add_argument("--flags", type=str.split, default=[], help='further flags of malmoi serve, as "--flags=--max-queue 16"')
    options = parser.parse_args()
    memory(options) if options.work == "memory" else measure(options)


main()
