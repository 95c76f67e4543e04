"""What a step needs of memory, known before it runs; and what may be had."""

from ..runtime.fit import LEAST
from .available import address_space, available_bytes
from .budget import Candidate, WouldHelp, budget_of, over_budget, too_large
from .lives import ROLES, Held, Named, Roles
from .plan import Plan
from .sizes import format_bytes, parse_bytes

__all__ = [
    "LEAST",
    "ROLES",
    "Candidate",
    "Held",
    "Named",
    "Plan",
    "Roles",
    "WouldHelp",
    "address_space",
    "available_bytes",
    "budget_of",
    "format_bytes",
    "over_budget",
    "parse_bytes",
    "too_large",
]
