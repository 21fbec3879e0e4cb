"""Model families of the golden fixtures: their configuration, inputs and notes. Used by generate.py."""

import argparse
from collections.abc import Callable
from dataclasses import dataclass, field

import numpy as np
import torch


@dataclass
class Case:
    """One entry of `cases`: `inputs` by name, `outputs` by name, and what `cases.json` says about it."""

    kind: str
    desc: str
    inputs: dict
    options: dict = field(default_factory=dict)
    extra: dict = field(default_factory=dict)


@dataclass
class Family:
    """How a fixture is made: model class, default configuration, notes, and a function from a random generator to its cases."""

    cls: str
    config: str
    settings: dict
    cases: Callable
    train_on: str | None
    notes: list
    loss: Callable = lambda out: out.loss
    generate: Callable | None = None


class Draw:
    """Random inputs of one fixture: `batch` rows of at most `length` tokens of a vocabulary, everything from one generator."""

    def __init__(self, rng, config, batch, length):
        self.rng, self.batch, self.length = rng, batch, length
        self.vocab = config.vocab_size
        self.labels = getattr(config, "num_labels", 2)
        self.eos = getattr(config, "eos_token_id", None)

    def ids(self, *shape):
        # Token 0 is the padding token of every family here, so it never occurs as a real one.
        return torch.from_numpy(self.rng.integers(1, self.vocab, shape))

    def choose(self, high, *shape):
        return torch.from_numpy(self.rng.integers(0, high, shape))

    def mask(self, side="right"):
        """Lengths fall from the full row to about half of it."""
        lengths = np.linspace(self.length, max(2, self.length // 2), self.batch).astype(int)
        mask = torch.zeros(self.batch, self.length, dtype=torch.int64)
        for row, n in enumerate(lengths):
            mask[row, :n] = 1
        return mask if side == "right" else mask.flip(1)

    def padded(self, side="right"):
        mask = self.mask(side)
        return {"input_ids": self.ids(self.batch, self.length) * mask, "attention_mask": mask}

    def segments(self, mask):
        """Second segment after a cut in the middle of each row's real tokens; zero where padded."""
        middle = torch.div(mask.sum(1, keepdim=True), 2, rounding_mode="floor")
        return ((torch.arange(mask.shape[1]) >= middle) & (mask == 1)).to(torch.int64)

    def token_labels(self, mask, keep):
        """Random labels on a share `keep` of the real positions, at least one in each row, -100 elsewhere."""
        chosen = torch.from_numpy(self.rng.random(mask.shape) < keep) & (mask == 1)
        chosen[:, 1] = True
        return torch.where(chosen, self.ids(*mask.shape), torch.full(mask.shape, -100))


def bert_base(draw):
    inputs = draw.padded()
    return inputs | {"token_type_ids": draw.segments(inputs["attention_mask"])}


def bert_masked_lm(draw):
    inputs = bert_base(draw)
    inputs["labels"] = draw.token_labels(inputs["attention_mask"], 0.3)
    backwards = torch.arange(draw.length - 1, -1, -1).expand(draw.batch, -1).contiguous()
    return {
        "padded": Case("forward", "MLM", inputs, {"output_hidden_states": True}),
        "positions": Case("forward", "explicit position_ids (reversed), no mask",
                          {"input_ids": draw.ids(draw.batch, draw.length), "position_ids": backwards}),
    }


def bert_pretraining(draw):
    inputs = bert_base(draw)
    inputs["labels"] = draw.token_labels(inputs["attention_mask"], 0.3)
    inputs["next_sentence_label"] = draw.choose(2, draw.batch)
    both = {"output_hidden_states": True, "output_attentions": True}
    return {
        "padded": Case("forward", "batch with padding, segment ids, MLM and NSP labels", inputs, both),
        "plain": Case("forward", "no mask, no token types, one short row", {"input_ids": draw.ids(1, max(2, draw.length // 2))}),
    }


def bert_with_labels(desc, labels, options=None):
    def cases(draw):
        inputs = bert_base(draw)
        return {"padded": Case("forward", desc, inputs | labels(draw, inputs["attention_mask"]), options or {})}

    return cases


def question_labels(draw, mask):
    start = draw.choose(draw.length // 2, draw.batch)
    start[-1] = draw.length + 3  # out of range: ignored by the loss
    return {"start_positions": start, "end_positions": torch.clamp(start + 1, max=draw.length + 3)}


def token_class_labels(draw, mask):
    return {"labels": torch.where(mask == 1, draw.choose(draw.labels, *mask.shape), torch.full(mask.shape, -100))}


def bert_multiple_choice(draw, choices=3):
    inner = Draw(draw.rng, argparse.Namespace(vocab_size=draw.vocab), draw.batch * choices, draw.length)
    inputs = {k: v.view(draw.batch, choices, draw.length) for k, v in bert_base(inner).items()}
    inputs["labels"] = draw.choose(choices, draw.batch)
    return {"padded": Case("forward", "inputs are [batch, choices, time]; logits [batch, choices]", inputs)}


def causal_labels(ids, mask):
    return torch.where(mask == 1, ids, torch.full_like(ids, -100))


def gpt_lm(draw):
    inputs = draw.padded()
    inputs["labels"] = causal_labels(inputs["input_ids"], inputs["attention_mask"])
    both = {"output_hidden_states": True, "output_attentions": True}
    return {"padded": Case("forward", "right-padded batch with labels", inputs, both)}


def gpt2_lm(draw):
    left = draw.padded("left")
    mask = left["attention_mask"]
    left["position_ids"] = torch.where(mask == 1, mask.cumsum(1) - 1, torch.ones_like(mask))
    return gpt_lm(draw) | {
        "left": Case("forward", "left-padded with explicit positions; key/value cache returned", left, {"use_cache": True},
                     {"compare_only_where": "attention_mask == 1"}),
        "types": Case("forward", "token_type_ids are looked up in the token embedding and added",
                      {"input_ids": draw.ids(1, draw.length), "token_type_ids": draw.ids(1, draw.length)}),
    }


def gpt2_classes(draw):
    labels = {"labels": draw.choose(draw.labels, draw.batch)}
    return {
        "padded": Case("forward", "right padding", draw.padded() | labels, {"output_hidden_states": True}),
        "left": Case("forward", "left padding (positions are NOT shifted: 0..T-1)", draw.padded("left")),
    }


def double_heads(draw, choices=2):
    ids = draw.ids(draw.batch, choices, draw.length)
    ends = draw.choose(draw.length - 2, draw.batch, choices) + 1
    labels = torch.where(torch.arange(draw.length) <= ends[..., None], ids, torch.full_like(ids, -100))
    inputs = {"input_ids": ids, "mc_token_ids": ends, "labels": labels, "mc_labels": draw.choose(choices, draw.batch)}
    return {"choices": Case("forward", "language modelling + multiple choice", inputs)}


def prompts(left_padded):
    def draw_prompts(draw):
        inputs = {"input_ids": draw.ids(draw.batch, 6)}
        if left_padded:
            mask = torch.ones(draw.batch, 6, dtype=torch.int64)
            mask[1:, :2] = 0
            mask[2:, :3] = 0
            inputs = {"input_ids": inputs["input_ids"] * mask, "attention_mask": mask}
        return inputs

    return draw_prompts


def seq2seq(draw):
    inputs = draw.padded()
    targets = Draw(draw.rng, argparse.Namespace(vocab_size=draw.vocab), draw.batch, max(4, draw.length // 2))
    inputs["labels"] = causal_labels(targets.ids(draw.batch, targets.length), targets.mask())
    both = {"use_cache": False, "output_hidden_states": True, "output_attentions": True}
    plain = draw.padded() | {"decoder_input_ids": targets.ids(draw.batch, targets.length), "decoder_attention_mask": targets.mask()}
    return {
        "padded": Case("forward", "encoder input padded on the right; labels padded with -100", inputs, both),
        "decoder_inputs": Case("forward", "explicit decoder inputs with a decoder mask", plain, {"use_cache": False}),
    }


def labelled_tokens(draw):
    inputs = draw.padded()
    return inputs | token_class_labels(draw, inputs["attention_mask"])


def sources(draw):
    return {key: value[:, :6] for key, value in Draw(draw.rng, argparse.Namespace(vocab_size=draw.vocab), draw.batch, 6).padded().items()}


def ended_texts(draw):
    """Rows with two end tokens each, the last at the end: the published classifier wants as many in every row, and reads the last."""
    inputs = draw.padded()
    mask = inputs["attention_mask"]
    ids = torch.where(inputs["input_ids"] == draw.eos, draw.eos + 1, inputs["input_ids"])
    lengths = mask.sum(1)
    ids[torch.arange(draw.batch), lengths - 1] = draw.eos
    ids[torch.arange(draw.batch), (lengths - 1) // 2] = draw.eos
    labels = {"labels": draw.choose(draw.labels, draw.batch)}
    return {"padded": Case("forward", "classes of sequences, read at the last end token of the decoder, which sees the same text one token later",
                           inputs | {"input_ids": ids * mask} | labels, {"use_cache": False})}


def modernbert(head, labels, **settings):
    def cases(draw):
        # No more padding than half a window: the library masks in float32, where a row that sees nothing is not a number in float64.
        mask = torch.ones(draw.batch, draw.length, dtype=torch.int64)
        mask[1:, -settings.get("local_attention", 6) // 2 :] = 0
        inputs = {"input_ids": draw.ids(draw.batch, draw.length) * mask, "attention_mask": mask}
        both = {"output_hidden_states": True, "output_attentions": True}
        return {"padded": Case("forward", head, inputs | labels(draw, inputs["attention_mask"]), both)}

    sizes = dict(hidden_size=32, num_attention_heads=4, num_hidden_layers=4, intermediate_size=40, vocab_size=110, max_position_embeddings=64,
                 local_attention=6, pad_token_id=0, bos_token_id=1, cls_token_id=1, eos_token_id=2, sep_token_id=2)
    return Family(f"ModernBertFor{head}", "ModernBertConfig", sizes | settings, cases, "padded", [
        "rotary positions with separate bases for full and sliding layers; GeGLU; pre-norm with no norm before the first attention"])


BERT = dict(hidden_size=32, num_attention_heads=4, num_hidden_layers=2, intermediate_size=64, vocab_size=120, max_position_embeddings=40)
GPT = dict(n_embd=32, n_head=4, n_layer=2, n_positions=40, vocab_size=100)
LLAMA = dict(hidden_size=32, num_attention_heads=4, num_key_value_heads=2, num_hidden_layers=2, intermediate_size=48, vocab_size=100,
             max_position_embeddings=64)
GPT_NEO = dict(hidden_size=32, num_heads=4, num_layers=2, attention_types=[[["global", "local"], 1]], window_size=4, vocab_size=100,
               max_position_embeddings=40, bos_token_id=98, eos_token_id=98)
T5 = dict(d_model=32, d_kv=8, d_ff=48, num_heads=4, num_layers=3, num_decoder_layers=2, vocab_size=110, relative_attention_num_buckets=8,
          relative_attention_max_distance=10, decoder_start_token_id=0)
# Head counts and widths of the two sides differ, as the format allows.
BART = dict(d_model=32, encoder_layers=3, decoder_layers=2, encoder_attention_heads=4, decoder_attention_heads=8, encoder_ffn_dim=48,
            decoder_ffn_dim=40, vocab_size=110, max_position_embeddings=40, forced_eos_token_id=None)
RELATIVE = ["attention scores are not scaled; a relative position bias is shared by the layers of a stack; cross-attention has none",
            "decoder_input_ids = labels shifted right with decoder_start_token_id in front and -100 replaced by pad"]
SHIFT = "labels are shifted inside the model: logits[t] predicts labels[t+1]; -100 ignored; loss is the mean over the counted positions"
POST = "post-norm blocks: n = LN1(x + attn(x)); h = LN2(n + mlp(n)); no final norm"
PADS = "Padded query positions are defined too, but an implementation need only match where attention_mask is 1."
TRANSPOSED = "linear layers are stored transposed: y = x @ weight + bias with weight [in, out]; c_attn packs query, key, value"


def bert(head, cases, notes=(), train_on="padded", **settings):
    return Family(f"BertFor{head}", "BertConfig", BERT | settings, cases, train_on, [PADS, *notes])


FAMILIES = {
    "bert-masked-lm": bert("MaskedLM", bert_masked_lm),
    "bert-pretraining": bert("PreTraining", bert_pretraining, ["loss = mean MLM cross-entropy over labels != -100 + mean NSP cross-entropy"]),
    "bert-sequence-classification": bert("SequenceClassification", bert_with_labels(
        "cross-entropy over num_labels classes from the pooled first token", lambda d, m: {"labels": d.choose(d.labels, d.batch)},
        {"output_hidden_states": True}), num_labels=3, problem_type="single_label_classification"),
    "bert-multilabel-classification": bert("SequenceClassification", bert_with_labels(
        "binary cross-entropy with logits, mean over rows and labels", lambda d, m: {"labels": d.choose(2, d.batch, d.labels).float()}),
        num_labels=4, problem_type="multi_label_classification"),
    "bert-sequence-regression": bert("SequenceClassification", bert_with_labels(
        "mean squared error", lambda d, m: {"labels": torch.from_numpy(d.rng.standard_normal(d.batch).astype(np.float32))}),
        num_labels=1, problem_type="regression"),
    "bert-token-classification": bert("TokenClassification", bert_with_labels("one class a token", token_class_labels), num_labels=5),
    "bert-question-answering": bert("QuestionAnswering", bert_with_labels(
        "span start/end logits; the last row has an out-of-range answer (ignored in the loss)", question_labels),
        ["positions outside the sequence are clamped to seq_len and ignored; loss = (start CE + end CE) / 2"]),
    "bert-multiple-choice": bert("MultipleChoice", bert_multiple_choice),
    "openai-gpt-lm": Family("OpenAIGPTLMHeadModel", "OpenAIGPTConfig", GPT | {"afn": "gelu"}, gpt_lm, "padded",
                            [SHIFT, POST, "afn 'gelu' means the tanh approximation in this family"], generate=prompts(False)),
    "openai-gpt-double-heads": Family(
        "OpenAIGPTDoubleHeadsModel", "OpenAIGPTConfig", GPT | {"afn": "gelu", "num_labels": 1}, double_heads, "choices",
        [SHIFT, POST, "inputs are [batch, choices, time]; mc_logits are read at mc_token_ids", "training objective here: loss + 2 * mc_loss"],
        loss=lambda out: out.loss + 2 * out.mc_loss),
    "gpt2-lm": Family("GPT2LMHeadModel", "GPT2Config", GPT | {"bos_token_id": 98, "eos_token_id": 98}, gpt2_lm, "padded",
                      [SHIFT, TRANSPOSED, "generate: prompts are left-padded; position_ids of a prompt = cumulative sum of attention_mask - 1"],
                      generate=prompts(True)),
    "gpt2-sequence-classification": Family(
        "GPT2ForSequenceClassification", "GPT2Config",
        GPT | {"bos_token_id": 98, "eos_token_id": 98, "pad_token_id": 0, "num_labels": 3, "problem_type": "single_label_classification"},
        gpt2_classes, "padded", ["the score is read at the last token of each row that differs from pad_token_id", "score has no bias"]),
    "gpt-neo-lm": Family("GPTNeoForCausalLM", "GPTNeoConfig", GPT_NEO, gpt_lm, "padded",
                         [SHIFT, "local layers see the last window_size tokens; scores are not divided by anything"], generate=prompts(True)),
    "llama-lm": Family("LlamaForCausalLM", "LlamaConfig", LLAMA, gpt_lm, "padded",
                       [SHIFT, "rotary positions pair the halves of a head; grouped key/value heads"],
                       # The library masks in float32 here, where a row that sees nothing is not a number in float64.
                       generate=prompts(False)),
    "t5-v1_0": Family("T5ForConditionalGeneration", "T5Config", T5, seq2seq, "padded",
                      [*RELATIVE, "the decoder's output is multiplied by d_model ** -0.5 before the embedding matrix"], generate=sources),
    "t5-v1_1": Family("T5ForConditionalGeneration", "T5Config", T5 | {"feed_forward_proj": "gated-gelu", "tie_word_embeddings": False}, seq2seq,
                      "padded", [*RELATIVE, "no output scaling; 'gated-gelu' is the tanh approximation"], generate=sources),
    "mt5": Family("MT5ForConditionalGeneration", "MT5Config", T5 | {"num_heads": 3, "d_kv": 6}, seq2seq, "padded",
                  [*RELATIVE, "num_heads * d_kv differs from d_model"], generate=sources),
    "t5-sequence-classification": Family(
        "T5ForSequenceClassification", "T5Config", T5 | {"num_labels": 3, "problem_type": "single_label_classification"}, ended_texts, "padded",
        RELATIVE),
    "t5-token-classification": Family("T5ForTokenClassification", "T5Config", T5 | {"num_labels": 5},
                                      lambda draw: {"padded": Case("forward", "the encoder classifies every token", labelled_tokens(draw))},
                                      "padded", RELATIVE),
    "bart": Family("BartForConditionalGeneration", "BartConfig", BART, seq2seq, "padded",
                   ["learned positions are offset by 2; post-norm; decoder_input_ids = labels shifted right with decoder_start_token_id in front",
                    "final_logits_bias is a buffer of zeros"], generate=sources),
    "bart-sequence-classification": Family(
        "BartForSequenceClassification", "BartConfig", BART | {"num_labels": 3, "problem_type": "single_label_classification"}, ended_texts,
        "padded", ["classification_head: tanh between two dense layers"]),
    "modernbert-masked-lm": modernbert("MaskedLM", lambda d, m: {"labels": d.token_labels(m, 0.3)}),
    "modernbert-sequence-classification": modernbert(
        "SequenceClassification", lambda d, m: {"labels": d.choose(d.labels, d.batch)}, num_labels=3, classifier_pooling="mean",
        problem_type="single_label_classification"),
    "modernbert-token-classification": modernbert("TokenClassification", token_class_labels, num_labels=5, norm_bias=True, attention_bias=True),
}
