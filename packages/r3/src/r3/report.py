"""What a run of this package comes to, from its records alone. No torch here."""

from papercore.report_parts import Parts
from r3 import eval_report, mini_report, sft_report, train_report

__all__ = ["figures", "summarise", "tables"]

_PARTS = Parts(mini_report, train_report, eval_report, sft_report)

summarise = _PARTS.summarise
figures = _PARTS.figures
tables = _PARTS.tables
