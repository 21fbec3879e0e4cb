"""The encoder families of the golden fixtures beside BERT. Used by generate.py."""

import torch
from families import PADS, Case, Family, bert_base, bert_multiple_choice, question_labels, token_class_labels

BOTH = {"output_hidden_states": True, "output_attentions": True}


def plain(draw):
    """Without segments, for families that have none."""
    return draw.padded()


def masked_lm(inputs_of):
    def cases(draw):
        inputs = inputs_of(draw)
        inputs["labels"] = draw.token_labels(inputs["attention_mask"], 0.3)
        return {"padded": Case("forward", "masked language modelling", inputs, BOTH),
                "plain": Case("forward", "no mask, one short row", {"input_ids": draw.ids(1, max(2, draw.length // 2))})}

    return cases


def labelled(inputs_of, desc, labels, options=None):
    def cases(draw):
        inputs = inputs_of(draw)
        return {"padded": Case("forward", desc, inputs | labels(draw, inputs["attention_mask"]), options or {})}

    return cases


def choices(inputs_of):
    def cases(draw):
        found = bert_multiple_choice(draw)
        if inputs_of is plain:
            found["padded"].inputs.pop("token_type_ids")
        return found

    return cases


def sequence_classes(draw, mask):
    return {"labels": draw.choose(draw.labels, draw.batch)}


def albert_pretraining(draw):
    inputs = bert_base(draw)
    inputs["labels"] = draw.token_labels(inputs["attention_mask"], 0.3)
    inputs["sentence_order_label"] = draw.choose(2, draw.batch)
    return {"padded": Case("forward", "masked tokens and sentence order", inputs, BOTH)}


def replaced_tokens(draw):
    inputs = bert_base(draw)
    inputs["labels"] = draw.choose(2, draw.batch, draw.length)
    nomask = {key: value for key, value in inputs.items() if key != "attention_mask"}
    return {"padded": Case("forward", "replaced-token detection", inputs, BOTH),
            "nomask": Case("forward", "without attention_mask every position counts", nomask)}


def languages(draw):
    inputs = draw.padded()
    # Every row changes its language at its own place.
    cut = draw.choose(draw.length, draw.batch, 1)
    first, second = draw.choose(3, draw.batch, 1), draw.choose(3, draw.batch, 1)
    inputs["langs"] = torch.where(torch.arange(draw.length) < cut, first, second)
    return inputs


def xlm_lm(draw):
    inputs = languages(draw)
    inputs["labels"] = draw.token_labels(inputs["attention_mask"], 0.3)
    bare = {"input_ids": draw.ids(2, draw.length), "token_type_ids": draw.ids(2, draw.length)}
    return {"padded": Case("forward", "language embeddings; labels are not shifted", inputs, BOTH),
            "lengths": Case("forward", "lengths instead of attention_mask",
                            {"input_ids": inputs["input_ids"], "lengths": inputs["attention_mask"].sum(1), "langs": inputs["langs"]}),
            "types": Case("forward", "no languages; token_type_ids are looked up in the token embedding", bare)}


BERT = dict(hidden_size=32, num_attention_heads=4, num_hidden_layers=2, intermediate_size=64, vocab_size=120, max_position_embeddings=40)
POSITIONS = ("position of a non-pad token = pad_token_id + its 1-based rank among the non-pad tokens of its row; pad tokens sit at position pad_token_id, "
             "in the batch or not")


def heads(name, prefix, config, settings, inputs_of, notes=()):
    """The heads that every family has."""

    def family(head, cases, **more):
        return Family(f"{prefix}For{head}", config, settings | more, cases, "padded", [PADS, *notes])

    return {
        f"{name}-masked-lm": family("MaskedLM", masked_lm(inputs_of)),
        f"{name}-sequence-classification": family(
            "SequenceClassification", labelled(inputs_of, "classes of sequences", sequence_classes, {"output_hidden_states": True}),
            num_labels=3, problem_type="single_label_classification"),
        f"{name}-token-classification": family(
            "TokenClassification", labelled(inputs_of, "one class a token", token_class_labels), num_labels=5),
        f"{name}-question-answering": family("QuestionAnswering", labelled(inputs_of, "spans", question_labels)),
        f"{name}-multiple-choice": family("MultipleChoice", choices(inputs_of)),
    }


ROBERTA = BERT | {"type_vocab_size": 1, "pad_token_id": 1, "layer_norm_eps": 1e-5}
ALBERT = BERT | {"embedding_size": 20, "num_hidden_layers": 4, "num_hidden_groups": 2, "inner_group_num": 1}
ELECTRA = BERT | {"embedding_size": 24}
DISTILBERT = dict(dim=32, n_heads=4, n_layers=2, hidden_dim=64, vocab_size=120, max_position_embeddings=40)
XLM = dict(emb_dim=32, n_heads=4, n_layers=2, n_langs=3, vocab_size=120, max_position_embeddings=40)

ENCODERS = {
    **heads("roberta", "Roberta", "RobertaConfig", ROBERTA, plain, [POSITIONS]),
    **heads("xlm-roberta", "XLMRoberta", "XLMRobertaConfig", ROBERTA, plain, [POSITIONS]),
    **heads("distilbert", "DistilBert", "DistilBertConfig", DISTILBERT, plain),
    **heads("albert", "Albert", "AlbertConfig", ALBERT, bert_base),
    **heads("electra", "Electra", "ElectraConfig", ELECTRA, bert_base),
    "albert-pretraining": Family("AlbertForPreTraining", "AlbertConfig", ALBERT, albert_pretraining, "padded", [PADS]),
    "electra-discriminator": Family("ElectraForPreTraining", "ElectraConfig", ELECTRA, replaced_tokens, "padded",
                                    [PADS, "loss = mean binary cross-entropy over positions with attention_mask 1"]),
    "xlm-mlm": Family("XLMWithLMHeadModel", "XLMConfig", XLM, xlm_lm, "padded", [PADS]),
    "xlm-clm": Family("XLMWithLMHeadModel", "XLMConfig", XLM | {"causal": True}, xlm_lm, "padded", [PADS, "the caller shifts the labels"]),
    "xlm-sequence-classification": Family(
        "XLMForSequenceClassification", "XLMConfig", XLM | {"num_labels": 3, "problem_type": "single_label_classification"},
        labelled(languages, "classes of sequences", sequence_classes), "padded", [PADS]),
    "xlm-token-classification": Family("XLMForTokenClassification", "XLMConfig", XLM | {"num_labels": 5},
                                       labelled(languages, "one class a token", token_class_labels), "padded", [PADS]),
}
