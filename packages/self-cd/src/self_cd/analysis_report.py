"""What the records of `calibrate`, `attribute` and `trace` come to. No torch here.

The miniature writes records of flow and trace, too.
"""

from papercore.report_parts import Parts
from self_cd import calibrate_report, flow_report, trace_report

__all__ = ["figures", "summarise", "tables"]

_PARTS = Parts(calibrate_report, flow_report, trace_report)

summarise = _PARTS.summarise
figures = _PARTS.figures
tables = _PARTS.tables
