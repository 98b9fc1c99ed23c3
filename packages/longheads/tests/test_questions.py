import numpy as np
import pytest
import torch

import longheads
from longheads.mini_model import Recipe, train
from longheads.presets import WINDOWS
from longheads.questions import ask, count_same_words
from longheads.trace import record
from longheads.world import Layout, write_documents

TINY = WINDOWS["tiny"]


@pytest.fixture(scope="module")
def model():
    torch.set_num_threads(1)
    return train(Recipe.quick(0))[0]


@pytest.fixture(scope="module")
def documents():
    return write_documents(np.random.default_rng(0), 5, Layout(512, repeats=2))


@torch.no_grad()
def test_full_attention_answers_with_the_model_s_own_logits(model, documents):
    answers = ask(model, "full", documents, [1, 3], config=TINY)
    logits = model(torch.from_numpy(documents.ids[[1, 3]])).logits
    wanted = logits[:, documents.layout.answers - 1].argmax(-1)
    assert np.array_equal(answers.predicted, wanted)
    assert answers.finders is None


@pytest.mark.parametrize("reader", ["full", "longheads", "random", "streaming", "oracle", "yarn"])
def test_a_batch_answers_like_its_documents_alone(model, documents, reader):
    together = ask(model, reader, documents, range(5), config=TINY, factor=2.0)
    alone = [ask(model, reader, documents, [row], config=TINY, factor=2.0) for row in range(5)]
    assert np.array_equal(together.predicted, np.concatenate([a.predicted for a in alone]))
    if together.finders is not None:
        assert np.array_equal(together.finders, np.concatenate([a.finders for a in alone]))


@torch.no_grad()
@pytest.mark.parametrize("reader", ["longheads", "random"])
def test_finders_are_the_heads_that_read_a_chunk_with_the_value(model, documents, reader):
    answers = ask(model, reader, documents, range(5), config=TINY)
    select = "scores" if reader == "longheads" else reader
    config = TINY.model_copy(update={"select": select})
    asked = (documents.layout.answers - 1).tolist()
    with longheads.enable(model, config) as handle, record(handle, [asked] * 5) as recorder:
        model(torch.from_numpy(documents.ids))
    for choice in recorder.choices:
        if choice.layer == 1:
            question = asked.index(choice.position)
            places = documents.needles[choice.row, question] + np.array([1, 3])
            read = [any(place // 16 in head for place in places) for head in choice.heads]
            assert answers.finders[choice.row, question] == sum(read)
    assert 0 < answers.finders.mean() < 4


def test_the_oracle_finds_every_value_with_every_head(model, documents):
    assert (ask(model, "oracle", documents, range(5), config=TINY).finders == 4).all()


def test_streaming_finds_only_what_stands_first_or_late(model, documents):
    answers = ask(model, "streaming", documents, range(5), config=TINY)
    for row, question in np.ndindex(answers.finders.shape):
        chunks = set((documents.values[row, question] // 16).tolist())
        own = documents.layout.answers[question] // 16
        seen = chunks & {0, *range(own - 14, own + 1)}
        assert (answers.finders[row, question] > 0) == bool(seen)


def test_inside_the_window_all_words_are_the_same(model):
    inside = write_documents(np.random.default_rng(0), 3, Layout(256))
    assert count_same_words(model, inside, range(3), config=TINY).tolist() == [256] * 3


def test_beyond_the_window_words_differ(model, documents):
    same = count_same_words(model, documents, range(2), config=TINY)
    assert (same >= 256).all()
    assert same.sum() < 1024
