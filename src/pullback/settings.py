"""PyTorch's settings of determinism and precision, which Pullback has fixed to what they ask for at most."""


def use_deterministic_algorithms(mode: bool, *, warn_only: bool = False) -> None:
    """Nothing to change: results have the same bits each time, for any number of threads, whatever is asked."""


def are_deterministic_algorithms_enabled() -> bool:
    """True: every algorithm is deterministic."""
    return True


def set_float32_matmul_precision(precision: str) -> None:
    """Take "highest", which is so always; ValueError for what would compute float32 in fewer digits."""
    if precision != "highest":
        raise ValueError(
            f'float32 is multiplied in float32, so that the precision is "highest", got {precision!r}; for fewer '
            "digits use autocast, which says where"
        )


def get_float32_matmul_precision() -> str:
    """ "highest": float32 is multiplied in float32."""
    return "highest"


__all__ = [
    "are_deterministic_algorithms_enabled",
    "get_float32_matmul_precision",
    "set_float32_matmul_precision",
    "use_deterministic_algorithms",
]
