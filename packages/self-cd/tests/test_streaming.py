from functools import partial

from hypothesis import given
from hypothesis import strategies as st

from papercore.generate.jobs import decode
from papercore.generate.texts import cut_at_stop
from papercore.tiny import byte_tokenizer
from self_cd.streaming import Pieces

TOKENIZER = byte_tokenizer()


def pieces(text: bytes, *, stops: tuple[str, ...] = ()) -> list[str]:
    """What is told after each byte, and at the end."""
    cut = Pieces(partial(decode, TOKENIZER), stops=stops)
    told = [cut.more(list(text[: place + 1])) for place in range(len(text))]
    return [*told, cut.more(list(text), ended=True)]


def test_text_comes_token_by_token() -> None:
    assert pieces(b"cat") == ["c", "a", "t", ""]


def test_characters_of_several_bytes_come_whole() -> None:
    assert pieces("aé€😀".encode()) == ["a", "", "é", "", "", "€", "", "", "", "😀", ""]


def test_what_may_begin_a_stop_string_is_held_back() -> None:
    assert pieces(b"a E END b", stops=("END",)) == [*"a ", "", "E ", "", "", "", "", "", ""]
    assert pieces(b"an EN", stops=("END",)) == [*"an ", "", "", "EN"]


def test_bytes_that_are_no_text_come_at_the_end() -> None:
    assert pieces(b"a\xe2\x82") == ["a", "", "", "\ufffd"]
    assert "".join(pieces(b"a\xff b")) == "a\ufffd b"


@given(st.binary(max_size=12), st.lists(st.text("ab€", min_size=1, max_size=4), max_size=3))
def test_the_pieces_are_the_text(text: bytes, stops: list[str]) -> None:
    whole = cut_at_stop(decode(TOKENIZER, list(text)), stops)
    assert "".join(pieces(text, stops=tuple(stops))) == whole


@given(st.text("abE€", max_size=12), st.lists(st.text("ab€", min_size=1, max_size=4), max_size=3))
def test_nothing_is_taken_back(text: str, stops: list[str]) -> None:
    whole = cut_at_stop(text, stops)
    assert "".join(pieces(text.encode(), stops=tuple(stops))) == whole


def test_a_decoder_that_changes_its_text_is_told_of(caplog) -> None:
    cut = Pieces(lambda ids: "x y" if len(ids) == 1 else "xy", stops=())
    assert cut.more([1]) == "x y"
    assert cut.more([1, 2], ended=True) == ""
    assert "changed text" in caplog.text
