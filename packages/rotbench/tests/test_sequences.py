"""Exactly the assistant's tokens bear loss, and training shows the prompts that eval will."""

import copy
import json

import pytest
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, processors, trainers
from transformers import PreTrainedTokenizerFast

from papercore.errors import DataError, ModelError
from papercore.generate.prompts import encode
from papercore.tiny import byte_tokenizer, word_tokenizer
from rotbench.layouts import parse, row
from rotbench.prompts import write_prompt
from rotbench.released import entry
from rotbench.sequences import IGNORE, Encoder, messages_of

CHATML = (
    "{%- if tools %}{{ '<|im_start|>tools\\n' + (tools | tojson) + '<|im_end|>\\n' }}{% endif %}"
    "{%- for message in messages %}"
    "{{- '<|im_start|>' + message.role + '\\n' }}"
    "{%- if message.role == 'assistant' %}{% generation %}"
    "{{- message.content }}"
    "{%- for call in message.tool_calls or [] %}{{- call.function | tojson }}{% endfor %}"
    "{{- '<|im_end|>' }}{% endgeneration %}"
    "{%- else %}{{- message.content + '<|im_end|>' }}{% endif %}"
    "{{- '\\n' }}{% endfor %}"
    "{%- if add_generation_prompt %}{{ '<|im_start|>assistant\\n' }}{% endif %}"
)
"""With the marks by which transformers itself finds the assistant's tokens."""


@pytest.fixture(scope="module")
def chat_tokenizer():
    tokenizer = byte_tokenizer(
        special={"pad": "<|pad|>", "bos": "<|im_start|>", "eos": "<|im_end|>"}
    )
    tokenizer.chat_template = CHATML
    return tokenizer


def learned(texts, *, metaspace):
    """A BPE tokenizer over a few texts, byte-level as GPT's or with a leading space as Llama's."""
    tokenizer = Tokenizer(models.BPE(unk_token="<unk>" if metaspace else None))
    if metaspace:
        tokenizer.pre_tokenizer = pre_tokenizers.Metaspace(prepend_scheme="first")
        tokenizer.decoder = decoders.Metaspace(prepend_scheme="first")
        alphabet = [chr(i) for i in range(32, 127)] + ["\n"]
    else:
        tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
        tokenizer.decoder = decoders.ByteLevel()
        alphabet = pre_tokenizers.ByteLevel.alphabet()
    trainer = trainers.BpeTrainer(
        vocab_size=600,
        special_tokens=["<unk>", "<s>", "</s>"],
        initial_alphabet=alphabet,
        show_progress=False,
    )
    tokenizer.train_from_iterator(texts, trainer)
    begin = tokenizer.token_to_id("<s>")
    tokenizer.post_processor = processors.TemplateProcessing(
        single="<s> $A", special_tokens=[("<s>", begin)]
    )
    return PreTrainedTokenizerFast(
        tokenizer_object=tokenizer, bos_token="<s>", eos_token="</s>", unk_token="<unk>"
    )


@pytest.fixture(scope="module", params=["bytes", "gpt", "llama"])
def plain_tokenizer(request, sample_cases):
    if request.param == "bytes":
        return byte_tokenizer()
    texts = [write_prompt(case, style="plain").request.prompt for case in sample_cases[:20]]
    return learned(texts, metaspace=request.param == "llama")


def clean_cases(cases, turn):
    return [case for case in cases if case.key.turn == turn and case.key.level == "clean"]


def spans(sequence):
    """The token ids of each stretch that bears loss."""
    found, before = [], IGNORE
    for token, label in zip(sequence.input_ids, sequence.labels, strict=True):
        assert label in (token, IGNORE)
        if label != IGNORE:
            if before == IGNORE:
                found.append([])
            found[-1].append(token)
        before = label
    return found


def first_prompt(sequence):
    start = next(i for i, label in enumerate(sequence.labels) if label != IGNORE)
    return sequence.input_ids[:start]


def test_the_answers_and_nothing_else_bear_loss(plain_tokenizer, sample_cases):
    encoder = Encoder(plain_tokenizer, "plain")
    for case in clean_cases(sample_cases, "third"):
        item = row(parse(entry(case)))
        answers = [t["value"] for t in item["conversations"] if t["from"] == "assistant"]
        assert len(answers) >= 2
        (sequence,) = encoder.sequences(parse(item))
        told = [plain_tokenizer.decode(span) for span in spans(sequence)]
        end = plain_tokenizer.eos_token
        assert [text.removesuffix(end).strip() for text in told] == answers
        assert all(text.endswith(end) for text in told)


def test_a_first_prompt_is_the_one_of_eval(plain_tokenizer, sample_cases):
    encoder = Encoder(plain_tokenizer, "plain")
    for case in clean_cases(sample_cases, "first"):
        (sequence,) = encoder.sequences(parse(entry(case)))
        request = write_prompt(case, style="plain").request
        assert first_prompt(sequence) == list(encode(request, plain_tokenizer).token_ids)


def test_the_lines_by_hand():
    tools = [{"name": "f", "description": "", "parameters": {}}]
    said = [("system", f"S{json.dumps(tools)}"), ("user", "U"), ("assistant", CALL)]
    said += [("function", "R"), ("assistant", "Done."), ("user", "never answered")]
    item = {"conversations": [{"from": who, "value": text} for who, text in said]}
    tokenizer = byte_tokenizer()
    (sequence,) = Encoder(tokenizer, "plain").sequences(parse(item))
    schema = {
        "name": "f",
        "description": "",
        "parameters": {"type": "object", "properties": {}, "required": []},
    }
    end = tokenizer.eos_token
    assert tokenizer.decode(sequence.input_ids) == (
        f"System: S{json.dumps([schema])}\nUser: U\nAssistant: {CALL}{end}"
        f"\nFunction: R\nAssistant: Done.{end}"
    )
    assert [tokenizer.decode(span) for span in spans(sequence)] == [f" {CALL}{end}", f" Done.{end}"]
    assert sequence.num_loss == len(CALL) + len("Done.") + 4


CALL = 'Thought:\nAction: f\nAction Input: {"a": 1}'


@pytest.mark.parametrize("style", ["chat", "native"])
def test_the_chat_styles_agree_with_the_marks_of_the_template(chat_tokenizer, sample_cases, style):
    """Against transformers' own mask, which needs marks that few templates have."""
    encoder = Encoder(chat_tokenizer, style)
    for case in clean_cases(sample_cases, "third"):
        trajectory = parse(entry(case))
        (sequence,) = encoder.sequences(trajectory)
        messages, tools = messages_of(trajectory, style)
        expected = chat_tokenizer.apply_chat_template(
            [turn_of(message) for message in messages],
            tools=tools and [{"type": "function", "function": one.model_dump()} for one in tools],
            return_dict=True,
            return_assistant_tokens_mask=True,
        )
        assert sequence.input_ids == expected["input_ids"]
        assert [int(label != IGNORE) for label in sequence.labels] == expected["assistant_masks"]
        assert sum(expected["assistant_masks"]) == sequence.num_loss > 0


def turn_of(message):
    calls = [
        {
            "function": {"name": call.name, "arguments": json.loads(call.arguments)},
            "id": call.id,
            "type": "function",
        }
        for call in message.tool_calls
    ]
    turn = {"role": message.role, "content": message.content}
    return turn | ({"tool_calls": calls} if calls else {})


@pytest.mark.parametrize("style", ["chat", "native"])
@pytest.mark.parametrize("turn", ["first", "third"])
def test_every_prompt_of_a_chat_is_the_one_of_eval(chat_tokenizer, sample_cases, style, turn):
    encoder = Encoder(chat_tokenizer, style)
    for case in clean_cases(sample_cases, turn):
        (sequence,) = encoder.sequences(parse(entry(case)))
        request = write_prompt(case, mode="native" if style == "native" else "react").request
        prompt = list(encode(request, chat_tokenizer).token_ids)
        assert sequence.input_ids[: len(prompt)] == prompt
        assert all(label != IGNORE for label in sequence.labels[len(prompt) : -1])
        assert sequence.labels[len(prompt) - 1] == IGNORE


def test_marks_within_a_message_are_plain_text(chat_tokenizer):
    item = copy.deepcopy(TWO_CALLS)
    item["messages"][0]["content"] = "a<|im_end|>b"
    ids = [s.input_ids for s in Encoder(chat_tokenizer, "native").sequences(parse(item))]
    marks = [one.count(chat_tokenizer.eos_token_id) for one in ids]
    messages, _ = messages_of(parse(item), "native")
    assert marks == [len(messages) + 1]  # one per message, and one for the tools


TWO_CALLS = {
    "tools": [{"name": "f", "parameters": {"properties": {"a": {"type": "string"}}}}],
    "messages": [
        {"role": "user", "content": "twice"},
        {
            "role": "assistant",
            "content": "both",
            "tool_calls": [
                {"id": "x", "function": {"name": "f", "arguments": {"a": "1"}}},
                {"id": "y", "function": {"name": "f", "arguments": {"a": "2"}}},
            ],
        },
        {"role": "tool", "tool_call_id": "x", "content": "one"},
        {"role": "tool", "tool_call_id": "y", "content": "two"},
        {"role": "assistant", "content": "done"},
    ],
}


def test_replies_belong_to_their_calls():
    messages, tools = messages_of(parse(TWO_CALLS), "native")
    assert [call.id for call in messages[2].tool_calls] == [m.tool_call_id for m in messages[3:5]]
    assert [one.name for one in tools] == ["f"]


def test_a_template_that_forgets_makes_one_sequence_per_answer(chat_tokenizer):
    """Such as those that drop earlier reasoning: here an earlier answer becomes dots."""
    tokenizer = copy.deepcopy(chat_tokenizer)
    tokenizer.chat_template = CHATML.replace(
        "{{- message.content }}", "{{- message.content if loop.last else '...' }}"
    )
    sequences = Encoder(tokenizer, "chat").sequences(parse(TWO_CALLS))
    texts = [tokenizer.decode(span) for one in sequences for span in spans(one)]
    answers = [m.content for m in messages_of(parse(TWO_CALLS), "chat")[0] if m.role == "assistant"]
    assert texts == [f"{answer}<|im_end|>" for answer in answers]
    assert len(sequences) == 3


def test_a_template_that_puts_no_answer_behind_its_prompt_is_refused(chat_tokenizer):
    tokenizer = copy.deepcopy(chat_tokenizer)
    tokenizer.chat_template = CHATML.replace("<|im_start|>assistant\\n' }}", "Now: ' }}")
    with pytest.raises(DataError, match="behind its own generation prompt"):
        Encoder(tokenizer, "chat").sequences(parse(TWO_CALLS))


def test_a_template_that_refuses_a_row_is_quoted(chat_tokenizer):
    tokenizer = copy.deepcopy(chat_tokenizer)
    tokenizer.chat_template = "{{ raise_exception('no system role here') }}"
    with pytest.raises(DataError, match="no system role here"):
        Encoder(tokenizer, "chat").sequences(parse(TWO_CALLS))


def test_what_a_tokenizer_lacks_is_said():
    with pytest.raises(ModelError, match="no chat template"):
        Encoder(byte_tokenizer(), "chat")
    with pytest.raises(ModelError, match="no end token"):
        Encoder(word_tokenizer(["a"], special={"unk": "<unk>"}), "plain")
