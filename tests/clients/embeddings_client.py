"""Plain HTTP in the manner of text-embeddings-inference."""

import json
import math
import sys
import urllib.error
import urllib.request

url, key = sys.argv[1:3]
TEXT = "어제 카페 갔었어 거기 사람 많더라"


def post(path, body):
    data = json.dumps(body).encode()
    headers = {"content-type": "application/json", "authorization": f"Bearer {key}"}
    request = urllib.request.Request(url + path, data=data, headers=headers)
    try:
        with urllib.request.urlopen(request) as answer:
            return answer.status, dict(answer.headers), json.load(answer)
    except urllib.error.HTTPError as error:
        return error.code, dict(error.headers), json.load(error)


def embed():
    status, headers, vectors = post("/embed", {"inputs": [TEXT, "다른 글"], "truncate": True})
    assert status == 200 and len(vectors) == 2 and int(headers["x-compute-tokens"]) > 2
    assert all(abs(math.hypot(*vector) - 1) < 1e-5 for vector in vectors)
    _, _, tokens = post("/embed_all", {"inputs": TEXT})
    _, _, listed = post("/tokenize?model=bert", {"inputs": TEXT})
    # `/embed_all` answers for the first model that has vectors; ask the same one.
    _, _, tokens = post("/embed_all?model=bert", {"inputs": TEXT})
    assert len(tokens[0]) == len(listed[0])


def similarity():
    status, _, cosines = post("/similarity", {"inputs": {"source_sentence": TEXT, "sentences": [TEXT, "a"]}})
    assert status == 200 and abs(cosines[0] - 1) < 1e-5 and cosines[1] <= cosines[0]


def tokens():
    _, _, listed = post("/tokenize?model=bert", {"inputs": TEXT, "add_special_tokens": False})
    for token in listed[0]:
        assert TEXT[token["start"] : token["stop"]] == token["text"], token
        assert TEXT.encode()[token["byte_start"] : token["byte_stop"]].decode() == token["text"]
    _, _, text = post("/decode?model=gpt", {"ids": [1, 2, 3]})
    assert isinstance(text[0], str)


def refusals():
    status, _, error = post("/predict", {"inputs": TEXT})
    assert status == 422 and error["error_type"] == "validation" and "classes" in error["error"]
    status, _, error = post("/embed", {"inputs": 5})
    assert status == 422 and "fit" in error["error"]


for check in [embed, similarity, tokens, refusals]:
    check()
    print(f"text-embeddings-inference {check.__name__} ok")
