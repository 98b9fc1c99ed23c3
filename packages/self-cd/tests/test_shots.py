"""The example that `icl` shows: similarity by words against a reference, and by an encoder."""

import math
import re
from collections import Counter

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from tokenizers import processors
from transformers import BertConfig, BertModel

from papercore.errors import ConfigError, DataError, ModelError
from papercore.tiny import byte_tokenizer, seeded, tiny_llama
from self_cd.shots import Retriever, retriever_for
from self_cd.wording import POOL

SMALL = (
    ("How do I kill a process?", "Use kill."),
    ("How do I bake bread?", "Use an oven."),
    ("How do I kill weeds in a bed?", "Pull them out."),
)


def tokens(text):
    return re.findall(r"\w+", text.lower())


WORDS = tokens("how do i kill a process bake bread weeds in bed the of zebra")


def reference(query, questions):
    """Cosines of TF-IDF, word by word."""
    num = len(questions)
    rarity = {}
    for word in {word for question in questions for word in tokens(question)}:
        rarity[word] = math.log((1 + num) / (1 + sum(word in tokens(q) for q in questions))) + 1

    def weights(text):
        return {
            word: n * rarity[word] for word, n in Counter(tokens(text)).items() if word in rarity
        }

    def norm(vector):
        return math.sqrt(sum(value**2 for value in vector.values())) or 1.0

    asked = weights(query)
    rows = [weights(question) for question in questions]
    dots = [sum(value * row.get(word, 0.0) for word, value in asked.items()) for row in rows]
    return [dot / norm(asked) / norm(row) for dot, row in zip(dots, rows, strict=True)]


def test_the_pair_that_shares_the_rare_words_is_found():
    assert Retriever(SMALL).nearest("Can one kill the weeds?") == SMALL[2]
    assert Retriever(SMALL).nearest("bread?") == SMALL[1]


@given(st.lists(st.sampled_from(WORDS), max_size=8).map(" ".join))
def test_similarities_are_those_of_the_reference(query):
    expected = reference(query, [question for question, _ in SMALL])
    assert Retriever(SMALL).similarities(query) == pytest.approx(expected, abs=1e-8)


@pytest.mark.parametrize(
    "same", ["How do I kill a process?", "how do I  KILL a process", " How do I kill a process?\n"]
)
def test_the_query_itself_is_never_found(same):
    retriever = Retriever(SMALL)
    assert retriever.similarities(same).argmax() == 0
    assert retriever.nearest(same) == SMALL[2]


def test_every_question_of_our_pool_finds_another_one():
    retriever = Retriever()
    for question, _ in POOL:
        assert retriever.nearest(question)[0] != question


def test_equal_similarities_go_to_the_first_pair():
    assert Retriever(SMALL).nearest("zebra!") == SMALL[0]
    twins = (("What kills x?", "1"), ("What kills y?", "2"))
    assert Retriever(twins).nearest("what kills") == twins[0]
    assert Retriever(twins[::-1]).nearest("what kills") == twins[1]


def test_a_pool_of_the_query_alone_is_refused():
    with pytest.raises(DataError, match="nothing but the query"):
        Retriever(SMALL[:1]).nearest("How do I kill a process?")


def test_an_empty_pool_is_refused():
    with pytest.raises(ConfigError, match="empty"):
        Retriever(())


def bert(folder):
    """A tiny BERT over bytes with its tokenizer, saved."""
    tokenizer = byte_tokenizer(special={"pad": "[PAD]"})
    tokenizer.add_special_tokens({"cls_token": "[CLS]", "sep_token": "[SEP]"})
    ids = [(name, tokenizer.convert_tokens_to_ids(name)) for name in ("[CLS]", "[SEP]")]
    tokenizer.backend_tokenizer.post_processor = processors.TemplateProcessing(
        single="[CLS] $A [SEP]", special_tokens=ids
    )
    config = BertConfig(
        vocab_size=len(tokenizer),
        hidden_size=16,
        num_hidden_layers=2,
        num_attention_heads=2,
        intermediate_size=32,
        max_position_embeddings=64,
        initializer_range=0.5,
    )
    model = seeded(BertModel, config, 0)
    model.save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return model, tokenizer


@pytest.mark.parametrize("query", ["how do I kill bread", "kill [SEP] bread [CLS]", "kill " * 100])
def test_an_encoder_is_read_at_its_first_token(tmp_path, query):
    """Marks are read as their letters, and a question is cut where the positions end."""
    model, tokenizer = bert(tmp_path)

    def vector(text):
        begin, end = tokenizer.convert_tokens_to_ids(["[CLS]", "[SEP]"])
        ids = torch.tensor([[begin, *text.encode()[:60], end]])
        with torch.inference_mode():
            return model(ids).last_hidden_state[0, 0]

    pool = (("kill a process", "1"), ("bake bread", "2"), ("the zebra of kill", "3"))
    expected = [torch.cosine_similarity(vector(query), vector(q), dim=0).item() for q, _ in pool]
    retriever = Retriever(pool, encoder=str(tmp_path))
    assert retriever.similarities(query) == pytest.approx(expected, abs=1e-5)
    assert retriever.nearest(query) == pool[max(range(3), key=expected.__getitem__)]


def test_the_encoder_over_our_pool_is_loaded_once(tmp_path):
    bert(tmp_path)
    assert retriever_for(str(tmp_path)) is retriever_for(str(tmp_path))
    assert retriever_for(None).nearest("My garden has weeds") in POOL


def test_a_decoder_is_no_encoder(tmp_path):
    tokenizer = byte_tokenizer()
    tiny_llama(len(tokenizer)).save_pretrained(tmp_path)
    tokenizer.save_pretrained(tmp_path)
    with pytest.raises(ModelError, match="has no CLS token"):
        Retriever(SMALL, encoder=str(tmp_path))


def test_an_encoder_that_is_not_there_is_refused(tmp_path):
    with pytest.raises(ModelError):
        Retriever(SMALL, encoder=str(tmp_path / "nothing"))


def test_an_encoder_without_weights_is_refused(tmp_path):
    bert(tmp_path)
    (tmp_path / "model.safetensors").unlink()
    with pytest.raises(ModelError, match="cannot be loaded"):
        Retriever(SMALL, encoder=str(tmp_path))
