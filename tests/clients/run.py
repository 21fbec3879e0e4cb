#!/usr/bin/env python3
"""Other people's clients against a real server: the openai package, plain HTTP in the manner of text-embeddings-inference, and
schemathesis on the OpenAPI document.

    python3 tests/clients/run.py target/release/malmoi

Everything it needs lies in target/clients: a virtual environment with the packages of requirements.txt (made on first use), and a
small GPT and BERT trained for two steps. Prints a line a check and ends with a status that says whether all held.
"""

import json
import os
import re
import shutil
import signal
import subprocess
import sys
import tempfile
import threading
import time
import urllib.request
import venv
from pathlib import Path

HERE = Path(__file__).resolve().parent
ROOT = HERE.parent.parent
WORK = ROOT / "target" / "clients"
TEMPLATE = "{% for m in messages %}{{ m.role }}: {{ m.content }}\n{% endfor %}{% if add_generation_prompt %}assistant:{% endif %}"


def python():
    """The interpreter of the virtual environment, which holds what requirements.txt says."""
    folder = WORK / "venv"
    wanted = (HERE / "requirements.txt").read_text()
    mark = folder / "requirements.txt"
    if not mark.exists() or mark.read_text() != wanted:
        shutil.rmtree(folder, ignore_errors=True)
        venv.create(folder, with_pip=True)
        subprocess.run([folder / "bin" / "pip", "install", "--quiet", "-r", HERE / "requirements.txt"], check=True)
        mark.write_text(wanted)
    return folder / "bin" / "python"


def train(malmoi, name):
    """A model of a shipped configuration after two steps."""
    out = WORK / name
    if (out / "last" / "config.json").exists():
        return out / "last"
    shutil.rmtree(out, ignore_errors=True)
    text = (ROOT / "configs" / f"{name}.toml").read_text()
    text = re.sub(r"(?m)^(steps|epochs|tokens)\s*=.*$", "steps = 2", text)
    short = WORK / f"{name}.toml"
    short.write_text(text)
    settings = ["--set", "schedule.warmup_steps=1", "--set", "evaluate.batches=1"]
    subprocess.run([malmoi, "--quiet", "pretrain", short, "--out", out, *settings], check=True, cwd=ROOT)
    return out / "last"


def models(malmoi):
    """A decoder that knows conversations, and an encoder."""
    gpt = WORK / "gpt"
    shutil.rmtree(gpt, ignore_errors=True)
    shutil.copytree(train(malmoi, "gpt-korean-small").resolve(), gpt)
    path = gpt / "tokenizer_config.json"
    config = json.loads(path.read_text())
    config["chat_template"] = TEMPLATE
    path.write_text(json.dumps(config, ensure_ascii=False))
    return gpt, train(malmoi, "bert-korean-small").resolve()


class Server:
    """A server on a free port, stopped at the end."""

    def __init__(self, malmoi, gpt, bert, *flags):
        command = [malmoi, "serve", "--model", f"gpt={gpt}", "--model", f"bert={bert}", "--port", "0", *flags]
        self.process = subprocess.Popen(command, stderr=subprocess.PIPE, text=True, cwd=ROOT)
        for line in self.process.stderr:
            found = re.search(r"listening on (http://\S+)", line)
            if found:
                self.url = found.group(1)
                break
        else:
            raise SystemExit("the server did not start")
        os.set_blocking(self.process.stderr.fileno(), False)
        for _ in range(600):
            try:
                urllib.request.urlopen(f"{self.url}/ready")
                return
            except OSError:
                time.sleep(0.1)
        raise SystemExit("the server did not become ready")

    def drain(self):
        """Keeps the pipe of log lines from filling up."""
        try:
            while self.process.stderr.readline():
                pass
        except (BlockingIOError, TypeError):
            pass

    def stop(self):
        self.process.send_signal(signal.SIGTERM)
        try:
            return self.process.wait(60)
        except subprocess.TimeoutExpired:
            self.process.kill()
            raise SystemExit("the server did not stop")


class Load:
    """Streams at work while the server is told to stop: each has to come to its end."""

    def __init__(self, url, key):
        body = json.dumps({"model": "gpt", "prompt": "이 영화는", "max_tokens": 200, "min_tokens": 200, "stream": True, "seed": 1})
        headers = {"content-type": "application/json", "authorization": f"Bearer {key}"}
        self.texts, self.begun = [], threading.Barrier(9)
        self.threads = [threading.Thread(target=self.stream, args=(url, body.encode(), headers)) for _ in range(8)]
        for thread in self.threads:
            thread.start()
        self.begun.wait(60)

    def stream(self, url, body, headers):
        with urllib.request.urlopen(urllib.request.Request(f"{url}/v1/completions", body, headers)) as answer:
            first = answer.readline()
            self.begun.wait(60)
            self.texts.append(first + answer.read())

    def ended_well(self):
        for thread in self.threads:
            thread.join(60)
        whole = [text for text in self.texts if text.endswith(b"data: [DONE]\n\n") and b'"finish_reason":"length"' in text]
        print(f"{len(whole)} of {len(self.threads)} streams came to their end")
        return len(whole) == len(self.threads)


def main():
    if len(sys.argv) != 2:
        raise SystemExit(__doc__)
    malmoi = Path(sys.argv[1]).resolve()
    WORK.mkdir(parents=True, exist_ok=True)
    interpreter = python()
    gpt, bert = models(malmoi)
    key = "a-key-of-the-test"
    keys = WORK / "keys.txt"
    keys.write_text(key + "\n")
    os.environ["MALMOI_LOG"] = "error"
    failed = 0
    server = Server(malmoi, gpt, bert, "--api-key-file", keys)
    try:
        for script in ["openai_client.py", "embeddings_client.py"]:
            command = [interpreter, HERE / script, server.url, key]
            failed += subprocess.run(command).returncode != 0
            server.drain()
        schema = [
            interpreter.parent / "schemathesis", "run", f"{server.url}/openapi.json", "--header", f"Authorization: Bearer {key}",
            "--checks", "not_a_server_error", "--max-examples", "25", "--request-timeout", "60", "--no-color",
            # A step of these trains a model or measures the machine; their faults have tests of their own.
            "--exclude-path", "/lab/learn", "--exclude-path", "/lab/machine", "--exclude-path", "/lab/roofline",
        ]
        # It keeps a folder of its own where it runs.
        with tempfile.TemporaryDirectory() as folder:
            outcome = subprocess.run(schema, cwd=folder)
        print("schemathesis", "ok" if outcome.returncode == 0 else "FAILED")
        failed += outcome.returncode != 0
        server.drain()
        with urllib.request.urlopen(f"{server.url}/health") as answer:
            assert answer.status == 200
        load = Load(server.url, key)
    finally:
        code = server.stop()
    print(f"stopped on SIGTERM under load with status {code}")
    failed += code != 0
    failed += not load.ended_well()
    raise SystemExit(1 if failed else 0)


main()
