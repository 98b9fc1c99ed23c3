"""A report that is made of parts."""

from types import SimpleNamespace

from papercore.report_parts import Parts


def part(name, kind):
    def own(records):
        return [record for record in records if record == kind]

    return SimpleNamespace(
        summarise=lambda records: {name: len(own(records))} if own(records) else {},
        figures=lambda records, into: [into / name for _ in own(records)],
        tables=lambda records: [f"{name} table" for _ in own(records)],
    )


def test_each_part_reports_on_its_own_records_in_the_order_of_parts(tmp_path):
    parts = Parts(part("second", "b"), part("first", "a"))
    records = ["a", "b", "a", "c"]
    assert list(parts.summarise(records).items()) == [("second", 1), ("first", 2)]
    assert parts.figures(records, tmp_path) == [tmp_path / n for n in ("second", "first", "first")]
    assert parts.tables(records) == ["second table", "first table", "first table"]


def test_records_of_nobody_come_to_nothing(tmp_path):
    parts = Parts(part("first", "a"))
    assert (parts.summarise(["z"]), parts.figures(["z"], tmp_path), parts.tables([])) == (
        {},
        [],
        [],
    )
