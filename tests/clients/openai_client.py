"""The official openai package against a server: models, completions, conversations, vectors, streams, errors, cancellation."""

import sys
import time

import openai

url, key = sys.argv[1:3]
client = openai.OpenAI(base_url=f"{url}/v1", api_key=key, max_retries=0, timeout=60)
PROMPT = "이 영화는"


def models():
    names = [model.id for model in client.models.list()]
    assert names == ["gpt", "bert"], names
    assert client.models.retrieve("gpt").owned_by == "malmoi"


def completions():
    one = client.completions.create(model="gpt", prompt=PROMPT, max_tokens=12, seed=1, logprobs=2)
    again = client.completions.create(model="gpt", prompt=PROMPT, max_tokens=12, seed=1)
    assert one.choices[0].text == again.choices[0].text
    assert one.usage.completion_tokens == len(one.choices[0].logprobs.token_logprobs) <= 12
    assert one.usage.total_tokens == one.usage.prompt_tokens + one.usage.completion_tokens
    several = client.completions.create(model="gpt", prompt=[PROMPT, "서울"], max_tokens=4, n=2, seed=1)
    assert [choice.index for choice in several.choices] == [0, 1, 2, 3]


def streams():
    whole = client.completions.create(model="gpt", prompt=PROMPT, max_tokens=16, seed=5)
    pieces = client.completions.create(model="gpt", prompt=PROMPT, max_tokens=16, seed=5, stream=True)
    assert "".join(piece.choices[0].text for piece in pieces) == whole.choices[0].text
    asked = [{"role": "user", "content": "안녕"}]
    stream = client.chat.completions.create(
        model="gpt", messages=asked, max_tokens=16, seed=5, stream=True, stream_options={"include_usage": True}
    )
    chunks = list(stream)
    text = "".join(chunk.choices[0].delta.content or "" for chunk in chunks if chunk.choices)
    plain = client.chat.completions.create(model="gpt", messages=asked, max_tokens=16, seed=5)
    assert text == plain.choices[0].message.content
    assert chunks[-1].usage == plain.usage


def conversations():
    asked = [{"role": "system", "content": "짧게"}, {"role": "user", "content": [{"type": "text", "text": "안녕"}]}]
    answer = client.chat.completions.create(model="gpt", messages=asked, max_completion_tokens=8, logprobs=True, top_logprobs=2)
    choice = answer.choices[0]
    assert choice.message.role == "assistant" and choice.finish_reason in ("stop", "length")
    assert len(choice.logprobs.content[0].top_logprobs) == 2


def vectors():
    numbers = client.embeddings.create(model="bert", input=["카페", "사람"], encoding_format="float", dimensions=8)
    # Without a format the package asks for bytes and turns them into numbers itself.
    decoded = client.embeddings.create(model="bert", input=["카페", "사람"], dimensions=8)
    for a, b in zip(numbers.data, decoded.data):
        assert len(a.embedding) == 8
        assert all(abs(x - y) < 1e-6 for x, y in zip(a.embedding, b.embedding))


def errors():
    def fails(kind, word, **arguments):
        try:
            client.completions.create(**{"model": "gpt", "prompt": PROMPT, "max_tokens": 4, **arguments})
        except kind as error:
            assert word in str(error), error
        else:
            raise AssertionError(f"expected {kind.__name__}")

    fails(openai.NotFoundError, "nobody", model="nobody")
    fails(openai.UnprocessableEntityError, "temperature", temperature=-1)
    fails(openai.UnprocessableEntityError, "these can: gpt", model="bert")
    fails(openai.BadRequestError, "unheard_of", extra_body={"unheard_of": 1})
    stranger = openai.OpenAI(base_url=f"{url}/v1", api_key="wrong", max_retries=0)
    try:
        stranger.models.list()
    except openai.AuthenticationError as error:
        assert error.code == "invalid_api_key"
    else:
        raise AssertionError("a wrong key was taken")


def cancellation():
    import json
    import urllib.request

    stream = client.completions.create(
        model="gpt", prompt=PROMPT, max_tokens=100, n=20, stream=True, seed=1, extra_body={"min_tokens": 100}
    )
    next(iter(stream))
    stream.close()
    for _ in range(200):
        request = urllib.request.Request(f"{url}/lab/live", headers={"Authorization": f"Bearer {key}"})
        live = json.load(urllib.request.urlopen(request))
        gpt = live["models"][0]
        if gpt["active"] == 0 and gpt["queued"] == 0:
            return
        time.sleep(0.05)
    raise AssertionError(f"texts that nobody waits for are still written: {gpt}")


CHECKS = [models, completions, streams, conversations, vectors, errors, cancellation]
for check in CHECKS:
    check()
    print(f"openai {check.__name__} ok")
