"""From sources to splits: who goes where, who is left out, and why."""

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from papercore.errors import ConfigError, DataError
from r3 import sources
from r3.assembly import assemble
from r3.config import PrepareConfig
from r3.hub import HubPart
from r3.rows import Row
from r3.testing import gsm8k_rows, write_gsm8k
from r3.verifiers import verifier_for


def lines(path, *rows):
    path.write_text("".join(f"{json.dumps(row)}\n" for row in rows))
    return str(path)


def prepare(source=(), task="gsm8k", **settings):
    return assemble(PrepareConfig(task=task, source=tuple(source), **{"dev": 0.0, **settings}))


def reasons(found, split="train"):
    return {reason: count for (where, reason), count in found.left.counts.items() if where == split}


def asked(demos):
    return [demo.question for demo in demos]


def maths(question, rationale, answer):
    return {"question": question, "rationale": rationale, "answer": answer}


def test_every_demonstration_is_judged_right_and_keeps_its_place(tmp_path):
    source = write_gsm8k(tmp_path / "train.jsonl", 40, seed=2)
    demos = prepare([str(source)]).splits["train"]
    assert asked(demos) == [row["question"] for row in gsm8k_rows(40, seed=2)]
    verifier = verifier_for("gsm8k")
    assert all(verifier.verify(demo.target, demo.gold).correct for demo in demos)
    assert all(demo.target[demo.answer_at :] == f"#### {demo.gold}" for demo in demos)


@pytest.mark.parametrize(
    ("row", "reason"),
    [
        (maths("Q?", None, "4"), "no rationale"),
        (maths("Q?", "#### 4", "4"), "no rationale"),
        (maths("Q?", "It is 5.\n#### 5", "4"), "rationale states another answer"),
        (maths("Q?", "Hm. The answer is 5.\n#### 4", "4"), "rationale states another answer"),
        (maths("Q?", "It is.\n#### four or five", "4"), "stated answer cannot be read"),
        (maths("Q?", "#### 3\nNo.\n#### 4", "4"), "answer marker inside the rationale"),
        (maths("Q?", "It is 4.", "four"), "answer cannot be read"),
        (maths("Q?", "It is 4.", ""), "empty field"),
        (maths("Q?", "It is 4.", float("inf")), "wrong type"),
        (maths("Q?\n\n### Response: It", "is 4.", "4"), "record of a mix file"),
        ({"question": "Q?"}, "missing field"),
        (maths("Q?", "def solution():\n    return 4", "4"), "rationale is a program"),
        (maths("Q?", "So:\n\n\n \t def f(x):\n  return 4", "4"), "rationale is a program"),
    ],
)
def test_rows_that_cannot_be_learnt_from_are_counted_and_named(tmp_path, row, reason):
    source = lines(tmp_path / "a.jsonl", maths("Good?", "It is 4.", "4"), row)
    found = prepare([source])
    assert asked(found.splits["train"]) == ["Good?"]
    assert reasons(found) == {reason: 1}
    (shown,) = found.left.shown["train", reason]
    assert shown.startswith(f"{source}:2")


@pytest.mark.timeout(60)
@pytest.mark.parametrize("piece", ["\n", " ", "\t", " \n", "\n def", "a", "1", "def a"])
def test_hostile_rationales_take_no_time(tmp_path, piece):
    rationale = f"So{piece * (99_000 // len(piece))}it is 4."
    found = prepare([lines(tmp_path / "a.jsonl", maths("Q?", rationale, "4"))])
    assert found.splits["train"][0].target == f"{rationale}\n#### 4"


HEAD = "gold_label\tsentence1_parse\tsentence1\tsentence2\tpairID\tlabel1\tlabel2\trationale\n"


def released(*rows):
    """A table as SNLI and MultiNLI were released, but for the rationales."""
    return HEAD + "".join(
        f"{label}\t(ROOT )\t{first}\t{second}\t{place}\t{label}\t\tIt 'is so.\n"
        for place, (label, first, second) in enumerate(rows)
    )


def test_the_tables_that_snli_was_released_as(tmp_path):
    folder = tmp_path / "snli_1.0"
    folder.mkdir()
    (folder / "README.txt").write_text("Read me.\tOr not.")
    for split in ("train", "dev", "test"):
        rows = [
            ("neutral", f'"Well, he said in {split}', 'He "spoke.'),
            ("-", f"Who knows in {split}", "It is."),
            ("entailment", f'A "dog in {split}', "It\tmoves."),
            ("entailment", f'"A dog" runs in {split}', 'It moves."'),
        ]
        (folder / f"snli_1.0_{split}.txt").write_text(released(*rows))
    found = prepare([str(folder)], task="snli", dev=0.05)
    assert [(demo.gold, demo.question.split("\n")[0]) for demo in found.splits["test"]] == [
        ("neutral", 'Premise: "Well, he said in test'),
        ("entailment", 'Premise: "A dog" runs in test'),
    ]
    assert [origin["as"] for origin in found.origins] == ["dev", "test", "train"]
    for split in ("train", "dev", "test"):
        assert len(found.splits[split]) == 2
        assert reasons(found, split) == {"no label": 1, "row cannot be read": 1}
    assert found.splits["train"][0].target == "It 'is so.\n### neutral"


def test_multinli_s_tables_are_tested_on_the_matched_part(tmp_path):
    for name in ("train", "dev_matched", "dev_mismatched"):
        path = tmp_path / f"multinli_1.0_{name}.txt"
        path.write_text(released(("neutral", f'A "cat in {name}', "It sits.")))
    found = prepare([str(tmp_path)], task="mnli")
    (demo,) = found.splits["test"]
    assert demo.question.startswith('Premise: A "cat in dev_matched\n')
    assert any("dev_mismatched" in note for note in found.notes)


def test_only_the_first_rows_of_a_reason_are_named(tmp_path):
    rows = [maths(f"Q{number}?", None, "4") for number in range(9)]
    found = prepare([lines(tmp_path / "a.jsonl", maths("Good?", "It is 4.", "4"), *rows)])
    assert reasons(found) == {"no rationale": 9}
    assert len(found.left.shown["train", "no rationale"]) == 3


def test_questions_to_test_on_need_no_rationale_and_keep_no_wrong_one(tmp_path):
    test = lines(
        *(tmp_path / "test.jsonl", maths("A?", None, "4"), maths("B?", "So 5.\n#### 5", "4")),
        maths("C?", "It is 4.\n#### 4", "4"),
    )
    demos = prepare(test=(test,)).splits["test"]
    assert [(demo.question, demo.target) for demo in demos] == [
        ("A?", ""),
        ("B?", ""),
        ("C?", "It is 4.\n#### 4"),
    ]


def test_a_training_question_that_is_tested_is_left_out_however_it_is_spaced(tmp_path):
    source = lines(tmp_path / "train.jsonl", maths("A  b?", "4.", "4"), maths("C?", "4.", "4"))
    test = lines(tmp_path / "test.jsonl", maths("A\nb?", None, "4"))
    found = prepare([source], test=(test,))
    assert asked(found.splits["train"]) == ["C?"]
    assert reasons(found) == {"question of the test set": 1}


def test_duplicates_go_and_other_demonstrations_of_a_question_stay(tmp_path):
    source = lines(
        *(tmp_path / "a.jsonl", maths("A?", "2 and 2 is 4.", "4")),
        *(maths("A?", "2 and 2 is 4.\n#### 4", "4"), maths("A?", "1 and 3 is 4.", "4")),
        maths("A?", "2 and 3 is 5.", "5"),
    )
    found = prepare([source])
    first, second = found.splits["train"]
    assert (first.question, second.question) == ("A?", "A?")
    assert first.target != second.target
    assert first.id != second.id
    assert reasons(found) == {"duplicate": 1, "question that is there with another answer": 1}


def test_a_question_is_tested_once(tmp_path):
    test = lines(tmp_path / "a.jsonl", maths("A?", None, "4"), maths("A?", "So 4.", "4"))
    found = prepare(test=(test,))
    assert asked(found.splits["test"]) == ["A?"]
    assert reasons(found, "test") == {"duplicate": 1}


def held_out(tmp_path, rows, seed=0, share=0.3):
    found = prepare([lines(tmp_path / "a.jsonl", *rows)], dev=share, seed=seed)
    return {demo.question for demo in found.splits["dev"]}, found


def test_more_data_move_no_question_between_train_and_dev(tmp_path):
    few, many = gsm8k_rows(100), gsm8k_rows(300)
    dev_few, _ = held_out(tmp_path, few)
    dev_many, _ = held_out(tmp_path, many[::-1])
    assert dev_few == dev_many & {row["question"] for row in few}
    assert 50 < len(dev_many) < 130


def test_questions_without_a_demonstration_are_not_held_out_either(tmp_path):
    rows = [maths(f"Q{number}?", "So 4." if number % 4 else None, "4") for number in range(80)]
    dev, found = held_out(tmp_path, rows)
    assert dev
    assert all(demo.target for demo in found.splits["dev"])
    assert reasons(found) == {"no rationale": 20}
    assert reasons(found, "dev") == {}


def test_the_seed_chooses_and_the_share_only_adds(tmp_path):
    rows = gsm8k_rows(100)
    dev, found = held_out(tmp_path, rows)
    assert held_out(tmp_path, rows, seed=1)[0] != dev
    assert dev < held_out(tmp_path, rows, share=0.6)[0]
    assert held_out(tmp_path, rows, share=0.0)[0] == set()
    assert len(found.splits["train"]) + len(found.splits["dev"]) == 100


@given(st.lists(st.sampled_from("abcdefgh"), max_size=12), st.sampled_from([0.0, 0.3, 0.5]))
def test_no_question_is_in_two_splits(tmp_path_factory, names, share):
    folder = tmp_path_factory.mktemp("any")
    rows = [maths(f"{name} ?", f"{place}: 4.", "4") for place, name in enumerate(names)]
    test = lines(folder / "test.jsonl", maths("a ?", None, "4"))
    source = lines(folder / "train.jsonl", maths("z ?", "So 4.", "4"), *rows)
    found = prepare([source], test=(test,), dev=share)
    seen = [set(asked(demos)) for demos in found.splits.values()]
    assert sum(map(len, seen)) == len(set().union(*seen))
    assert set().union(*seen) == {f"{name} ?" for name in ("a", "z", *names)}


def test_all_hypotheses_on_a_premise_go_to_the_same_split(tmp_path):
    rows = [
        {"premise": f"P{p}", "hypothesis": f"H{h}", "label": "yes", "rationale": "It says so."}
        for p in range(40)
        for h in range(3)
    ]
    found = prepare([lines(tmp_path / "a.jsonl", *rows)], task="snli", dev=0.4)
    premises = [
        {demo.question.splitlines()[0] for demo in found.splits[name]} for name in ("train", "dev")
    ]
    assert all(premises)
    assert not premises[0] & premises[1]


def test_a_released_validation_set_is_dev_unless_none_is_wanted(tmp_path):
    lines(tmp_path / "train.jsonl", *(maths(f"T{n}?", "So 4.", "4") for n in range(20)))
    lines(tmp_path / "valid.jsonl", maths("V?", None, "4"), maths("T0?", None, "4"))
    found = prepare([str(tmp_path)], dev=0.5)
    assert asked(found.splits["dev"]) == ["V?", "T0?"]
    assert len(found.splits["train"]) == 19
    assert reasons(found) == {"question of the dev set": 1}
    assert any("validation set is dev" in note for note in found.notes)
    without = prepare([str(tmp_path)], dev=0.0)
    assert without.splits["dev"] == ()
    assert any("valid.jsonl" in note for note in without.notes)


def test_a_test_set_of_its_own_takes_the_place_of_the_source_s(tmp_path):
    lines(tmp_path / "train.jsonl", maths("A?", "So 4.", "4"))
    lines(tmp_path / "test.jsonl", maths("B?", None, "4"))
    other = lines(tmp_path / "other.json", maths("C?", None, "4"))
    found = prepare([str(tmp_path / "train.jsonl"), str(tmp_path / "test.jsonl")], test=(other,))
    assert asked(found.splits["test"]) == ["C?"]
    assert any("not read" in note and "test.jsonl" in note for note in found.notes)


def test_a_missing_test_set_is_told(tmp_path):
    source = lines(tmp_path / "a.jsonl", maths("A?", "So 4.", "4"))
    assert any("no test set" in note for note in prepare([source]).notes)


def test_with_a_test_set_alone_there_is_nothing_to_train_on(tmp_path):
    row = {"ID": "chal-1", "Body": "B.", "Question": "Q?", "Answer": 5.0, "Equation": "( 3 + 2 )"}
    found = prepare(task="svamp", test=(lines(tmp_path / "SVAMP.json", row),))
    assert [(demo.id, demo.gold) for demo in found.splits["test"]] == [("chal-1", "5")]
    assert found.splits["train"] == ()
    assert any("NOTHING TO TRAIN ON" in note and "answer_cot" in note for note in found.notes)


def test_nothing_left_is_an_error_that_says_why(tmp_path):
    source = lines(tmp_path / "a.jsonl", maths("A?", None, "4"), maths("B?", None, "4"))
    with pytest.raises(DataError, match=r"nothing is left: 2 x no rationale; first: .*a\.jsonl:1"):
        prepare([source])


def test_the_limit_counts_the_questions_of_each_split(tmp_path):
    source, test = write_gsm8k(tmp_path / "a.jsonl", 20), write_gsm8k(tmp_path / "b.jsonl", 9, 1)
    found = prepare([str(source)], test=(str(test),), limit=5)
    assert {name: len(demos) for name, demos in found.splits.items()} == {
        "train": 5,
        "dev": 0,
        "test": 5,
    }
    assert asked(found.splits["train"]) == [row["question"] for row in gsm8k_rows(5)]


def test_ids_are_the_data_s_own_or_of_the_content_and_each_is_there_once(tmp_path):
    rows = [
        {"id": "x", **maths("A?", "So 4.", "4")},
        {"id": "x", **maths("B?", "So 4.", "4")},
        {"id": "y" * 500, **maths("C?", "So 4.", "4")},
        maths("D?", "So 4.", "4"),
        maths("D?", "Thus 4.", "4"),
    ]
    ids = [demo.id for demo in prepare([lines(tmp_path / "a.jsonl", *rows)]).splits["train"]]
    assert ids[:2] == ["x", "x#2"]
    assert len(ids[2]) == len(ids[3]) == 16
    assert ids[4] == f"{ids[3]}#2"
    again = [demo.id for demo in prepare([lines(tmp_path / "b.jsonl", *rows[2:4])]).splits["train"]]
    assert again == ids[2:4]


def race(answer, options=("a cat", "a dog", "a bird")):
    return {
        "article": "A text.",
        "question": "Which?",
        "options": list(options),
        "answer": answer,
        "rationale": "It barks. So, the answer is B.",
    }


@pytest.mark.parametrize("answer", ["B", "b", "(B)", "a dog", "A Dog"])
def test_a_choice_may_be_named_by_its_letter_or_its_text(tmp_path, answer):
    found = prepare([lines(tmp_path / "a.jsonl", race(answer))], task="race-high")
    (demo,) = found.splits["train"]
    assert (demo.gold, demo.target) == ("B", "It barks.\n### B")


def test_a_letter_is_a_letter_even_among_options_that_are_letters(tmp_path):
    found = prepare([lines(tmp_path / "a.jsonl", race("B", ["B", "A", "C"]))], task="race-high")
    assert found.splits["train"][0].gold == "B"


def test_an_option_that_is_not_there_is_no_answer(tmp_path):
    source = lines(tmp_path / "a.jsonl", race("B"), race("D"))
    assert reasons(prepare([source], task="race-high")) == {"answer cannot be read": 1}


def test_names_of_fields(tmp_path):
    row = {"body": "A?", "cot": "So 4.", "gold": "4"}
    names = {"question": "body", "rationale": "cot", "answer": "gold"}
    found = prepare([lines(tmp_path / "a.jsonl", row)], fields=names)
    assert found.splits["train"][0].target == "So 4.\n#### 4"
    with pytest.raises(ConfigError, match=r"fields\.rational"):
        prepare([lines(tmp_path / "a.jsonl", row)], fields={"rational": "cot"})
    spelt = {**names, "id": "nmae"}
    with pytest.raises(DataError, match=r"fields\.id: no row has a field 'nmae' \(there are: body"):
        prepare([lines(tmp_path / "a.jsonl", row)], fields=spelt)


def test_a_strange_file_in_a_folder_is_told_and_one_that_was_named_is_an_error(tmp_path):
    lines(tmp_path / "train.jsonl", maths("A?", "So 4.", "4"))
    strange = lines(tmp_path / "example_model_solutions.jsonl", {"question": "A?", "175b": "x"})
    found = prepare([str(tmp_path)])
    assert asked(found.splits["train"]) == ["A?"]
    assert any("example_model_solutions" in note for note in found.notes)
    with pytest.raises(DataError, match="its fields are 175b, question"):
        prepare([strange])
    (tmp_path / "train.jsonl").unlink()
    with pytest.raises(DataError, match="its fields are 175b, question"):
        prepare([str(tmp_path)])


def test_origins_say_layout_split_and_rows(tmp_path):
    source = lines(tmp_path / "a.jsonl", maths("A?", "So 4.", "4"), {"question": "B?"})
    (origin,) = prepare([source]).origins
    assert {name: origin[name] for name in ("file", "as", "layout", "rows")} == {
        "file": source,
        "as": "train",
        "layout": "plain",
        "rows": 2,
    }


NLI = [
    {"premise": "A dog runs in the park.", "hypothesis": "An animal moves.", "label": 0},
    {"premise": "A dog runs in the park.", "hypothesis": "A cat sleeps.", "label": 2},
    {"premise": "A man eats.", "hypothesis": "He is hungry.", "label": 1},
]


def instructed(place, target, rationale, **changes):
    row = NLI[place]
    source = f'If "{row["premise"]}", does this mean that "{row["hypothesis"]}"?'
    return {
        "source": source,
        "target": target,
        "rationale": rationale,
        "task": "snli",
        "type": "CoT",
        **changes,
    }


def test_rationales_of_cot_collection_are_joined(tmp_path):
    collection = {
        "0": instructed(0, "yes", "Dogs are animals. So, the answer is yes."),
        "1": instructed(0, "yes", "To run is to move."),
        "2": instructed(1, "it is not possible to tell", "Who knows."),
        "3": {**instructed(2, "yes", "x"), "source": "Translate: Hallo."},
        "4": instructed(2, "no", "x", task="boolq"),
        "5": {"source": "x"},
        "6": 3,
    }
    path = tmp_path / "CoT_collection_en.json"
    path.write_text(json.dumps(collection))
    found = prepare([lines(tmp_path / "train.jsonl", *NLI)], task="snli", rationales=str(path))
    assert [(demo.gold, demo.target) for demo in found.splits["train"]] == [
        ("entailment", "Dogs are animals.\n### entailment"),
        ("entailment", "To run is to move.\n### entailment"),
    ]
    assert reasons(found) == {"no rationale": 2}
    assert reasons(found, "rationales") == {
        "answers otherwise than its question": 1,
        "of no question here": 1,
        "of another task": 1,
        "missing field": 1,
    }
    assert any("CoT-Collection" in note and "CC BY 4.0" in note for note in found.notes)
    assert found.origins[1]["as"] == "rationales"


def test_rationales_that_fit_nothing_are_an_error(tmp_path):
    other = lines(tmp_path / "cot.jsonl", instructed(0, "yes", "x", task="boolq"))
    with pytest.raises(DataError, match="no rationale fits a question: 1 x of another task"):
        prepare([lines(tmp_path / "a.jsonl", *NLI)], task="snli", rationales=other)


def test_rationales_are_for_sets_without(tmp_path):
    source = lines(tmp_path / "a.jsonl", maths("A?", "So 4.", "4"))
    with pytest.raises(ConfigError, match="nothing to join them to"):
        prepare([source], rationales=source)


def test_cot_collection_alone_is_a_source(tmp_path):
    rows = [
        instructed(0, "yes", "Dogs are animals."),
        instructed(1, "no", "x", task="boolq"),
        instructed(2, "perhaps", "x"),
    ]
    found = prepare([lines(tmp_path / "cot.jsonl", *rows)], task="snli")
    (demo,) = found.splits["train"]
    assert demo.question.endswith("?\nAnswer with entailment, neutral or contradiction.")
    assert demo.target == "Dogs are animals.\n### entailment"
    assert reasons(found) == {"of another task": 1, "answer cannot be read": 1}


def test_the_released_set_is_read_from_the_hub_if_nothing_is_named(monkeypatch):
    def hub_parts(ref):
        assert (ref.id, ref.config) == ("openai/gsm8k", "main")
        return [
            HubPart("train", 3, "f", lambda: (Row(f"t[{n}]", row) for n, row in rows("A", 3))),
            HubPart("test", 2, "f", lambda: (Row(f"t[{n}]", row) for n, row in rows("B", 2))),
        ]

    def rows(name, count):
        return [
            (n, {"question": f"{name}{n}?", "answer": f"{n}+1={n + 1}\n#### {n + 1}"})
            for n in range(count)
        ]

    monkeypatch.setattr(sources, "hub_parts", hub_parts)
    found = prepare()
    assert asked(found.splits["train"]) == ["A0?", "A1?", "A2?"]
    assert asked(found.splits["test"]) == ["B0?", "B1?"]
    assert [origin["hub"] for origin in found.origins] == ["openai/gsm8k", "openai/gsm8k"]


PROOF = (
    'We know the cow runs, and according to Rule1 "if it runs, then it wins", so we can conclude '
    '"it wins". So the statement "it wins" is {} and the answer is "{}".'
)


def test_boardgameqa_s_last_sentence_belongs_to_the_answer(tmp_path):
    rows = [
        {"example": "Does it win?", "proof": PROOF.format("proved", "yes"), "label": "proved"},
        {"example": "Does it lose?", "proof": PROOF.format("proved", "yes"), "label": "disproved"},
        {
            "example": "Is it blue?",
            "proof": "The provided information is not enough.",
            "label": "unknown",
        },
    ]
    found = prepare([lines(tmp_path / "train.json", *rows)], task="boardgame")
    first, last = found.splits["train"]
    assert first.target[first.answer_at :].startswith('So the statement "it wins" is proved')
    assert last.target[last.answer_at :] == "#### unknown"
    assert reasons(found) == {"rationale states another answer": 1}
