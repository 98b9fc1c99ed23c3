"""Prompts are made in one place: the same token ids in tuning, RL and evaluation."""

import pytest
from hypothesis import given
from hypothesis import strategies as st
from tokenizers import Tokenizer, decoders, models, normalizers, processors
from transformers import PreTrainedTokenizerFast

from papercore.errors import ConfigError, ModelError
from papercore.generate.prompts import encode as encode_request
from papercore.generate.types import Message, SamplingParams
from papercore.tiny import byte_tokenizer, word_tokenizer
from r3.asking import Asker
from r3.config import CutConfig, PromptConfig
from r3.cutting import encode
from r3.demos import Demo
from r3.prompting import pad_id, prompt_ids, render, target_ids
from r3.sft import IGNORE, _dataset, encode_whole

CHATML = (
    "{% for m in messages %}<|im_start|>{{ m['role'] }}\n{{ m['content'] }}<|im_end|>\n{% endfor %}"
    "{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
)
NO_SYSTEM = (
    "{{ bos_token }}{% for m in messages %}"
    "{% if m['role'] == 'system' %}{{ raise_exception('System role not supported') }}{% endif %}"
    "[{{ m['role'] }}] {{ m['content'] }}\n{% endfor %}"
    "{% if add_generation_prompt %}[assistant] {% endif %}"
)
DROPS_SYSTEM = (
    "{% for m in messages %}{% if m['role'] != 'system' %}[{{ m['role'] }}] {{ m['content'] }}\n"
    "{% endif %}{% endfor %}{% if add_generation_prompt %}[assistant] {% endif %}"
)
DEMO = Demo("one", "How many are 2 and 2 ?", "2 and 2 are 4 .\n#### 4", "4", answer_at=16)


def framed(single):
    """A byte tokenizer that puts tokens around every text by itself."""
    tokenizer = byte_tokenizer()
    specials = [(t, tokenizer.convert_tokens_to_ids(t)) for t in ("<|bos|>", "<|eos|>")]
    used = [pair for pair in specials if pair[0] in single]
    tokenizer._tokenizer.post_processor = processors.TemplateProcessing(
        single=single, special_tokens=used
    )
    return tokenizer


def metaspace():
    """As Llama-2's: a blank before the first word, other characters as bytes, BOS in front."""
    vocabulary = {"<unk>": 0, "<s>": 1, "</s>": 2}
    vocabulary |= {f"<0x{byte:02X}>": 3 + byte for byte in range(256)}
    for piece in ("▁", *"abcdefghijklmnopqrstuvwxyz0123456789.?#:", "▁t", "▁a"):
        vocabulary.setdefault(piece, len(vocabulary))
    merges = [("▁", "t"), ("▁", "a")]
    inner = Tokenizer(models.BPE(vocabulary, merges, unk_token="<unk>", byte_fallback=True))
    inner.normalizer = normalizers.Sequence(
        [normalizers.Prepend("▁"), normalizers.Replace(" ", "▁")]
    )
    inner.decoder = decoders.Sequence(
        [
            decoders.Replace("▁", " "),
            decoders.ByteFallback(),
            decoders.Fuse(),
            decoders.Strip(" ", 1, 0),
        ]
    )
    inner.post_processor = processors.TemplateProcessing(
        single="<s> $A", special_tokens=[("<s>", 1)]
    )
    return PreTrainedTokenizerFast(
        tokenizer_object=inner, bos_token="<s>", eos_token="</s>", unk_token="<unk>"
    )


def padded_with_eos():
    tokenizer = byte_tokenizer(special={"bos": "<|bos|>", "eos": "<|eos|>"})
    tokenizer.pad_token = tokenizer.eos_token
    return tokenizer


def words():
    return word_tokenizer(
        [*dict.fromkeys((DEMO.question + " " + DEMO.target).split()), "Question:"]
    )


TOKENIZERS = {
    "bytes": byte_tokenizer,
    "adds-bos": lambda: framed("<|bos|> $A"),
    "adds-eos": lambda: framed("$A <|eos|>"),
    "adds-both": lambda: framed("<|bos|> $A <|eos|>"),
    "pad-is-eos": padded_with_eos,
    "no-pad": lambda: byte_tokenizer(special={"bos": "<|bos|>", "eos": "<|eos|>"}),
    "metaspace": metaspace,
    "words": words,
}
PROMPTS = {
    "usual": PromptConfig(),
    "trailing-blank": PromptConfig(template="Question: {question} Answer: "),
    "bare": PromptConfig(template="{question}"),
}


def of_tuning(tokenizer, prompt):
    row = _dataset(encode_whole([DEMO], tokenizer, prompt))[0]
    return [i for i, label in zip(row["input_ids"], row["labels"], strict=True) if label == IGNORE]


def of_rl(tokenizer, prompt):
    return list(encode(DEMO, tokenizer, prompt, CutConfig(), "gsm8k").prompt)


def of_evaluation(tokenizer, prompt):
    asker = Asker(backend=None, tokenizer=tokenizer, prompt=prompt, about={})
    request = asker.request("one", DEMO, (), SamplingParams())
    return list(encode_request(request, tokenizer).token_ids)  # what the backends feed a model


@pytest.mark.parametrize("style", PROMPTS)
@pytest.mark.parametrize("kind", TOKENIZERS)
def test_the_three_stages_read_the_same_prompt(kind, style):
    tokenizer, prompt = TOKENIZERS[kind](), PROMPTS[style]
    ids = of_tuning(tokenizer, prompt)
    assert ids
    assert of_rl(tokenizer, prompt) == ids
    assert of_evaluation(tokenizer, prompt) == ids


@pytest.mark.parametrize("template", [CHATML, NO_SYSTEM])
def test_the_three_stages_read_the_same_chat(template):
    tokenizer = framed("<|bos|> $A")
    tokenizer.chat_template = template
    prompt = PromptConfig(style="chat", template="{question}")
    ids = of_tuning(tokenizer, prompt)
    assert of_rl(tokenizer, prompt) == ids
    assert of_evaluation(tokenizer, prompt) == ids


@pytest.mark.parametrize(
    ("kind", "bos"), [("bytes", 0), ("adds-bos", 1), ("adds-eos", 0), ("adds-both", 1)]
)
def test_bos_comes_once_where_the_tokenizer_puts_it_and_eos_never(kind, bos):
    tokenizer = TOKENIZERS[kind]()
    ids = prompt_ids(tokenizer, "Why?", PromptConfig())
    assert ids.count(tokenizer.bos_token_id) == bos
    assert ids[:1] == (tokenizer.bos_token_id,) * bos or not bos
    assert tokenizer.eos_token_id not in ids
    assert tokenizer.decode(ids[bos:]) == "Question: Why?\nAnswer:\n"


def test_a_chat_that_begins_with_bos_has_one():
    tokenizer = framed("<|bos|> $A <|eos|>")
    tokenizer.chat_template = NO_SYSTEM
    ids = prompt_ids(tokenizer, "Why?", PromptConfig(style="chat", template="{question}"))
    assert ids.count(tokenizer.bos_token_id) == 1
    assert tokenizer.decode(ids) == "<|bos|>[user] Why?\n[assistant] "


@pytest.mark.parametrize("kind", TOKENIZERS)
def test_a_target_ends_in_eos_and_has_no_bos(kind):
    tokenizer = TOKENIZERS[kind]()
    ids, spans = target_ids(tokenizer, DEMO.target)
    assert ids[-1] == tokenizer.eos_token_id
    assert ids.count(tokenizer.eos_token_id) == 1
    assert tokenizer.bos_token_id not in ids or tokenizer.bos_token_id is None
    assert len(ids) == len(spans)
    assert spans[-1] == (len(DEMO.target), len(DEMO.target))
    if kind != "words":
        assert tokenizer.decode(ids[:-1]) == DEMO.target


def test_spans_by_hand():
    byte, meta = byte_tokenizer(), metaspace()
    assert target_ids(byte, "aé").spans == ((0, 1), (1, 2), (1, 2), (2, 2))
    # ▁ 5 of a text that begins with a digit; ▁a of one that begins with a word
    assert target_ids(meta, "5 a").spans == ((0, 1), (0, 1), (1, 3), (3, 3))
    assert target_ids(meta, "ab").spans == ((0, 1), (1, 2), (2, 2))
    word = words()
    assert target_ids(word, "2 are\n4").spans == ((0, 1), (2, 5), (6, 7), (7, 7))


@given(text=st.text(alphabet=st.sampled_from("at5 .\n#é漢🙂▁<|eos>"), max_size=30))
def test_spans_never_fall_and_cover_every_character_but_blanks(text):
    for tokenizer in (byte_tokenizer(), metaspace()):
        _, spans = target_ids(tokenizer, text)
        ends = [end for _, end in spans]
        assert ends == sorted(ends)
        assert all(begin <= end for begin, end in spans)
        covered = {at for begin, end in spans for at in range(begin, end)}
        assert all(letter.isspace() for at, letter in enumerate(text) if at not in covered)


def test_marks_in_questions_and_targets_are_text():
    tokenizer = framed("<|bos|> $A")
    ids = prompt_ids(tokenizer, "Say <|eos|> and <|bos|>", PromptConfig())
    assert tokenizer.eos_token_id not in ids
    assert ids.count(tokenizer.bos_token_id) == 1
    assert "Say <|eos|> and <|bos|>" in tokenizer.decode(ids)
    target = target_ids(tokenizer, "it is <|eos|>").ids
    assert target.count(tokenizer.eos_token_id) == 1
    assert tokenizer.encode("a<|eos|>", add_special_tokens=False)[-1] == tokenizer.eos_token_id


def test_a_template_with_control_tokens_is_refused():
    tokenizer = framed("<|bos|> $A")
    with pytest.raises(ConfigError, match=r"holds '<\|bos\|>', a control token.*--prompt.style"):
        prompt_ids(tokenizer, "Why?", PromptConfig(template="<|bos|>{question}"))


def test_braces_in_question_and_template_stay():
    prompt = PromptConfig(template="{x} {question} {y}\n")
    assert render("{question} {0}", prompt) == "{x} {question} {0} {y}\n"


def test_shots_come_first_each_with_its_answer():
    other = Demo("two", "1 and 1 ?", "It is 2.\n#### 2", "2")
    prompt = PromptConfig(template="Q: {question}\nA: ")
    assert render("Why?", prompt, shots=[other, DEMO]) == (
        f"Q: 1 and 1 ?\nA: It is 2.\n#### 2\n\nQ: {DEMO.question}\nA: {DEMO.target}\n\nQ: Why?\nA: "
    )
    chat = PromptConfig(style="chat", template="{question}", system="Be brief.")
    assert render("Why?", chat, shots=[other]) == (
        Message(role="system", content="Be brief."),
        Message(role="user", content="1 and 1 ?"),
        Message(role="assistant", content="It is 2.\n#### 2"),
        Message(role="user", content="Why?"),
    )


def test_a_system_prompt_needs_a_place_in_the_chat_template():
    tokenizer = byte_tokenizer()
    prompt = PromptConfig(style="chat", system="Be brief.", template="{question}")
    tokenizer.chat_template = CHATML
    assert tokenizer.decode(prompt_ids(tokenizer, "Why?", prompt)) == (
        "<|im_start|>system\nBe brief.<|im_end|>\n<|im_start|>user\nWhy?<|im_end|>\n"
        "<|im_start|>assistant\n"
    )
    tokenizer.chat_template = NO_SYSTEM
    with pytest.raises(ConfigError, match=r"takes no system prompt .*: put that text into"):
        prompt_ids(tokenizer, "Why?", prompt)
    tokenizer.chat_template = DROPS_SYSTEM
    with pytest.raises(ConfigError, match="leaves the system prompt out: put that text into"):
        prompt_ids(tokenizer, "Why?", prompt)


def test_a_chat_needs_a_chat_template():
    with pytest.raises(ConfigError, match=r"no chat template.*--prompt.style plain"):
        prompt_ids(byte_tokenizer(), "Why?", PromptConfig(style="chat"))
    with pytest.raises(ConfigError, match="no chat template"):
        prompt_ids(byte_tokenizer(), "Why?", PromptConfig(style="chat", system="Be brief."))


def test_a_tokenizer_without_eos_is_refused():
    with pytest.raises(ModelError, match=r"no end-of-sequence token.*set eos_token"):
        target_ids(byte_tokenizer(special={"pad": "<|pad|>"}), "4")


def test_a_tokenizer_that_knows_no_characters_is_refused():
    class Slow:
        eos_token_id = 0
        is_fast = False

    with pytest.raises(ModelError, match=r"Slow cannot say which characters.*tokenizer\.json"):
        target_ids(Slow(), "4")


def test_any_token_pads():
    assert pad_id(byte_tokenizer()) == byte_tokenizer().pad_token_id
    without = TOKENIZERS["no-pad"]()
    assert pad_id(without) == without.eos_token_id
    assert pad_id(byte_tokenizer(special={"bos": "<|bos|>"})) == 0
