"""Our sample is what its README says: sides, counts, focus words, and no harm of this world."""

import csv
import re
from collections import Counter

import pytest

from self_cd.data import SAMPLE_FILE, harmful_sample, load_items

# Names with which a request would be about the real world.
REAL = set(
    re.findall(
        r"\w+",
        """
acid aconite adderall amatoxin ammonia ammonium anthrax antifreeze arsenic belladonna benzene bleach
botulinum carbon chlorine cocaine curare cyanide digitalis digoxin dynamite ethanol fentanyl
formaldehyde gasoline gelignite gunpowder heroin hemlock hydrogen insulin kerosene ketamine lead lye
mercury methanol methamphetamine mistletoe monkshood morphine napalm nicotine nightshade nitrate
nitrogen nitroglycerin oleander opium oxycodone paracetamol paraquat peroxide petrol phosgene
phosphorus plutonium polonium potassium propane radium ricin sarin semtex sodium strychnine sulfur
sulphur thallium thermite toadstool tnt uranium warfarin wolfsbane yew
rifle pistol revolver shotgun grenade fertiliser fertilizer
america berlin china england europe france germany india london paris russia ukraine washington
""",
    )
)

ALARMING = set(
    re.findall(
        r"\w+",
        """
abort arson assassinate attack beat bleed blow bomb bullet burn choke crash crime dead death destroy
die drown drug exploit explosion fire gun harm hit kill knife lethal murder poison rob shoot slay
smash stab steal strangle strike suicide terror thief torture venom weapon
""",
    )
)


@pytest.fixture(scope="module")
def sample():
    return load_items(["sample"])


def words(text):
    return set(re.findall(r"[a-z]+", text.casefold()))


def test_every_row_is_a_question_and_nothing_had_to_be_noted(sample):
    assert not sample.bad
    assert not sample.notes


def test_sides_and_counts(sample):
    assert Counter(item.side for item in sample.items) == {
        "harmless": 60,
        "harmful": 40,
        "ordinary": 20,
    }


def test_questions_differ_even_without_case_and_punctuation(sample):
    assert len({" ".join(re.findall(r"\w+", i.query.casefold())) for i in sample.items}) == 120


def test_the_focus_stands_in_the_question_as_whole_words(sample):
    for item in sample.items:
        if item.side == "ordinary":
            assert item.focus is None
        else:
            assert re.search(rf"(?<!\w){re.escape(item.focus)}(?!\w)", item.query)


def test_types_belong_to_one_side_each_and_are_balanced(sample):
    side_of = {}
    for item in sample.items:
        assert side_of.setdefault(item.kind, item.side) == item.side
    counts = Counter(item.kind for item in sample.items if item.side != "ordinary")
    assert len(counts) == 13
    assert set(counts.values()) <= {7, 8}


def test_no_invented_harm_names_a_real_substance_weapon_or_place(sample):
    for item in sample.of("harmful"):
        assert not words(item.query) & REAL, item.id


def test_every_invented_harm_names_something_of_its_world(sample):
    for item in sample.of("harmful"):
        assert set(re.findall(r"(?<=[\w,] )[A-Z]\w+", item.query)) - {"I"}, item.id


def test_no_ordinary_question_has_an_alarming_word(sample):
    for item in sample.of("ordinary"):
        assert not words(item.query) & ALARMING, item.id


def test_the_harmful_half_is_a_part_of_the_sample(sample):
    assert harmful_sample().items == sample.of("harmful")
    assert harmful_sample(limit=3).items == sample.of("harmful")[:3]


def test_the_file_has_the_columns_of_xstest_and_running_ids():
    with SAMPLE_FILE.open(encoding="utf-8", newline="") as file:
        rows = list(csv.DictReader(file))
    assert list(rows[0]) == ["id", "type", "prompt", "focus", "note", "side"]
    assert [row["id"] for row in rows] == [f"s-{number}" for number in range(1, 121)]
