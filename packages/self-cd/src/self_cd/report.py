"""What a run of this package comes to, from its records alone. No torch here."""

from papercore.report_parts import Parts
from self_cd import analysis_report, answer_report, judge_report, mini_report

__all__ = ["figures", "summarise", "tables"]

_PARTS = Parts(mini_report, answer_report, analysis_report, judge_report)

summarise = _PARTS.summarise
figures = _PARTS.figures
tables = _PARTS.tables
