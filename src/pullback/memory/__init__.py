"""What a step needs of memory, known before it runs; and what may be had."""

from .available import available_bytes
from .budget import Candidate, budget_of, over_budget, too_large
from .plan import Plan, Roles
from .sizes import format_bytes, parse_bytes

__all__ = [
    "Candidate",
    "Plan",
    "Roles",
    "available_bytes",
    "budget_of",
    "format_bytes",
    "over_budget",
    "parse_bytes",
    "too_large",
]
