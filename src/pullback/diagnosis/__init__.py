"""What went wrong in a graph, told by the reference.

Where a NaN or an infinity came from: the graph is computed once more, every value looked at. The operation that is
named is the one that introduced the fault: on the way back from the bad value the first that made a NaN or, where there
is none, an infinity, from operands that were sound (`origin`); how it did so is told from them (`causes`).

Where native code differs from what was to be computed (`agreement`), in float64 (`reference`), and gradients from
slopes (`slopes`). Alerts (`alert`), what stands out of few values (`spread`), and why a parameter has no gradient
(`structure`).
"""

from .agreement import TRIES, Disagreement, disagreement, shake, shaken_by
from .alert import Alert
from .origin import VALUE, Root, diagnose, unexplained
from .reference import Reference, is_given
from .report import OperandStatistics, called, phase_of
from .slopes import Audit, Slope, Slopes, Wrong
from .spread import spreads_above
from .structure import Member, cut_of, how_cut, structural

__all__ = [
    "TRIES",
    "VALUE",
    "Alert",
    "Audit",
    "Disagreement",
    "Member",
    "OperandStatistics",
    "Reference",
    "Root",
    "Slope",
    "Slopes",
    "Wrong",
    "called",
    "cut_of",
    "diagnose",
    "disagreement",
    "how_cut",
    "is_given",
    "phase_of",
    "shake",
    "shaken_by",
    "spreads_above",
    "structural",
    "unexplained",
]
