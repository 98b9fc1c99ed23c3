"""Metrics, figure and table of the toy."""

from papercore.plots import Frame, bars
from papercore.stats import paired_difference, wilson
from papercore.tables import Table


def summarise(records):
    good = [record.data for record in records if record.status == "ok"]
    ours = [data["ours"] for data in good]
    return {
        "accuracy": wilson(sum(ours), len(ours)),
        "gain": paired_difference(ours, [data["theirs"] for data in good]),
    }


def figures(records, into):
    frame = Frame("accuracy", "Accuracy", "Bars & <b>whiskers</b>", y="accuracy")
    return [bars(into, frame, {"toy": {"ours": summarise(records)["accuracy"]}})]


def tables(records):
    rows = [("ours", len(records), 1 / 3), ("<i>theirs</i>", 0, float("nan"))]
    return [Table("counts", "Counts", "Of <all>.", ("who", "records", "share"), rows)]
