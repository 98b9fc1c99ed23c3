"""Metrics and figure of the toy."""

from papercore.plots import Frame, bars
from papercore.stats import paired_difference, wilson


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
