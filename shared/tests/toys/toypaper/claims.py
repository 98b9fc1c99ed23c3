"""What the toy promises."""

from papercore.claims import Bar, Claim

CLAIMS = (
    Claim(
        id="high",
        statement="Accuracy is <high>",
        source="Table 1",
        paper=0.912,
        origin="read",
        kind="effect",
        planted=True,
        bars=(Bar("accuracy", ">=", 0.75), Bar("gain", ">=", 0.1, excludes_zero=True)),
    ),
    Claim(
        id="known",
        statement="A number that nobody looked up",
        source="Figure 2",
        paper=0.4321,
        origin="unread",
        kind="control",
        planted=False,
        bars=(Bar("accuracy", ">=", 0.1),),
    ),
)
