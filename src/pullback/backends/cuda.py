"""Switches of products on GPUs, which have nothing to act on here: float32 is multiplied in float32."""


class matmul:
    """Whether a GPU's products may round their operands to fewer digits."""

    allow_tf32 = False
    allow_fp16_reduced_precision_reduction = True
    allow_bf16_reduced_precision_reduction = True


def is_built() -> bool:
    """False: Pullback runs on the CPU."""
    return False


__all__ = ["is_built", "matmul"]
