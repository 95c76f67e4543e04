"""Where a NaN or an infinity came from: a graph computed once more on the reference, every value looked at.

The operation that is named is the one that introduced the fault: on the way back from the bad value the first that made
a NaN or, where there is none, an infinity, from operands that were sound (`origin`); how it did so is told from them
(`causes`).
"""

from .origin import VALUE, Root, diagnose, unexplained
from .report import OperandStatistics

__all__ = ["VALUE", "OperandStatistics", "Root", "diagnose", "unexplained"]
