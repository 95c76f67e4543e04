"""What a checkup has found."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any


@dataclass(frozen=True)
class Finding:
    """One thing that was looked at: which `check`, whether it is `ok`, what was seen, the line of the user's that it is
    about ("file:line", "" where there is none), and how to mend it. What is `open` could not be told: it is no fault,
    and not known to be right.
    """

    check: str
    ok: bool
    message: str
    line: str = ""
    mend: str = ""
    open: bool = False

    def __str__(self) -> str:
        place = f" ({self.line})" if self.line and not self.ok else ""
        mend = f"\n    mend: {self.mend}" if self.mend and not self.ok else ""
        return f"{'open ' if self.open else 'ok   ' if self.ok else 'WRONG'} {self.check}: {self.message}{place}{mend}"


@dataclass(frozen=True)
class Report:
    """All findings of a checkup, in the order of the checklist."""

    findings: tuple[Finding, ...]

    @property
    def faults(self) -> tuple[Finding, ...]:
        """What is wrong."""
        return tuple(finding for finding in self.findings if not finding.ok)

    @property
    def ok(self) -> bool:
        """Whether nothing is."""
        return not self.faults

    def __str__(self) -> str:
        count, left = len(self.faults), sum(finding.open for finding in self.findings)
        end = "nothing wrong was found" if not count else f"{count} thing{'' if count == 1 else 's'} to mend"
        end += f", {left} left open" if left else ""
        return "\n".join([*map(str, self.findings), end])

    def to_list(self) -> list[dict[str, Any]]:
        """The findings as JSON has them."""
        return [asdict(finding) for finding in self.findings]

    @classmethod
    def of(cls, rows: Sequence[dict[str, Any]]) -> Report:
        """From what `to_list` gives."""
        return cls(tuple(Finding(**row) for row in rows))


__all__ = ["Finding", "Report"]
