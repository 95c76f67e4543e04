"""Tables of vectors as modules."""

from __future__ import annotations

from typing import Any

from ...errors import ShapeError
from ...graph.types import DType
from ...ops.primitive import user_source
from ...tensor import Tensor
from ...tensor.creation import empty
from ...tensor.grad_modes import no_grad
from .. import functional as F
from .. import init
from ..parameter import Parameter
from .module import Module


class _Table(Module):
    """A table of `num_embeddings` vectors, drawn from the standard normal distribution."""

    def __init__(
        self,
        num_embeddings: int,
        embedding_dim: int,
        padding_idx: int | None,
        max_norm: float | None,
        norm_type: float,
        scale_grad_by_freq: bool,
        sparse: bool,
        weight: Tensor | None,
        frozen: bool,
        device: str | None,
        dtype: DType | None,
    ):
        super().__init__()
        name = type(self).__name__
        if sparse:
            raise NotImplementedError(f"{name}: there are no sparse gradients (at {user_source()})")
        if padding_idx is not None and not -num_embeddings <= padding_idx < num_embeddings:
            raise ValueError(
                f"{name}: padding_idx {padding_idx} is outside the {num_embeddings} rows (at {user_source()})"
            )
        self.num_embeddings, self.embedding_dim = num_embeddings, embedding_dim
        self.padding_idx = None if padding_idx is None else padding_idx % num_embeddings
        self.max_norm, self.norm_type = max_norm, norm_type
        self.scale_grad_by_freq, self.sparse = scale_grad_by_freq, sparse
        if weight is not None and weight.shape != (num_embeddings, embedding_dim):
            raise ShapeError(
                f"{name}: the weight given is {list(weight.shape)}, not [{num_embeddings}, {embedding_dim}] "
                f"(at {user_source()})"
            )
        value = empty(num_embeddings, embedding_dim, device=device, dtype=dtype) if weight is None else weight
        self.weight = Parameter(value, requires_grad=not frozen)
        if weight is None:
            self.reset_parameters()

    def reset_parameters(self) -> None:
        """Draw the table anew; the padding's row is zero."""
        init.normal_(self.weight)
        if self.padding_idx is not None:
            with no_grad():
                self.weight[self.padding_idx] = 0.0

    def _options(self) -> list[str]:
        said = [f"max_norm={self.max_norm}"] if self.max_norm is not None else []
        said += [f"norm_type={self.norm_type}"] if self.norm_type != 2 else []
        return said + ([f"scale_grad_by_freq={self.scale_grad_by_freq}"] if self.scale_grad_by_freq else [])


class Embedding(_Table):
    """A table of `num_embeddings` vectors, looked up by number; drawn from the standard normal distribution.

    `padding_idx`, `max_norm`, `norm_type` and `scale_grad_by_freq` are those of nn.functional.embedding.
    """

    def __init__(
        self, num_embeddings: int, embedding_dim: int, padding_idx: int | None = None, max_norm: float | None = None,
        norm_type: float = 2.0, scale_grad_by_freq: bool = False, sparse: bool = False, _weight: Tensor | None = None,
        _freeze: bool = False, device: str | None = None, dtype: DType | None = None,
    ):  # fmt: skip
        super().__init__(
            *(num_embeddings, embedding_dim, padding_idx, max_norm, norm_type, scale_grad_by_freq, sparse),
            *(_weight, _freeze, device, dtype),
        )

    def forward(self, input: Tensor) -> Tensor:
        """[...] to [..., embedding_dim]."""
        return F.embedding(input, self.weight, self.padding_idx, self.max_norm, self.norm_type, self.scale_grad_by_freq)

    @classmethod
    def from_pretrained(
        cls, embeddings: Tensor, freeze: bool = True, padding_idx: int | None = None, max_norm: float | None = None,
        norm_type: float = 2.0, scale_grad_by_freq: bool = False, sparse: bool = False,
    ) -> Any:  # fmt: skip
        """The table that is given, [V, D]; trained only without `freeze`."""
        if embeddings.ndim != 2:
            raise ShapeError(f"from_pretrained takes a matrix, got {list(embeddings.shape)} (at {user_source()})")
        rows, columns = embeddings.shape
        return cls(rows, columns, padding_idx, max_norm, norm_type, scale_grad_by_freq, sparse, embeddings, freeze)

    def extra_repr(self) -> str:
        """The sizes, and the options that are not as usual."""
        padding = [] if self.padding_idx is None else [f"padding_idx={self.padding_idx}"]
        return ", ".join([f"{self.num_embeddings}, {self.embedding_dim}", *padding, *self._options()])


class EmbeddingBag(_Table):
    """Sums, means or maxima of vectors of a table: nn.functional.embedding_bag, whose options these are."""

    def __init__(
        self, num_embeddings: int, embedding_dim: int, max_norm: float | None = None, norm_type: float = 2.0,
        scale_grad_by_freq: bool = False, mode: str = "mean", sparse: bool = False, _weight: Tensor | None = None,
        include_last_offset: bool = False, padding_idx: int | None = None, device: str | None = None,
        dtype: DType | None = None,
    ):  # fmt: skip
        super().__init__(
            *(num_embeddings, embedding_dim, padding_idx, max_norm, norm_type, scale_grad_by_freq, sparse),
            *(_weight, False, device, dtype),
        )
        self.mode, self.include_last_offset = mode, include_last_offset

    def forward(self, input: Tensor, offsets: Tensor | None = None, per_sample_weights: Tensor | None = None) -> Tensor:
        """[B, L], or [N] with offsets [B], to [B, embedding_dim]."""
        return F.embedding_bag(
            *(input, self.weight, offsets, self.max_norm, self.norm_type, self.scale_grad_by_freq, self.mode),
            per_sample_weights=per_sample_weights,
            include_last_offset=self.include_last_offset,
            padding_idx=self.padding_idx,
        )

    @classmethod
    def from_pretrained(
        cls, embeddings: Tensor, freeze: bool = True, max_norm: float | None = None, norm_type: float = 2.0,
        scale_grad_by_freq: bool = False, mode: str = "mean", sparse: bool = False, include_last_offset: bool = False,
        padding_idx: int | None = None,
    ) -> Any:  # fmt: skip
        """The table that is given, [V, D]; trained only without `freeze`."""
        if embeddings.ndim != 2:
            raise ShapeError(f"from_pretrained takes a matrix, got {list(embeddings.shape)} (at {user_source()})")
        rows, columns = embeddings.shape
        options = (max_norm, norm_type, scale_grad_by_freq, mode, sparse, embeddings, include_last_offset, padding_idx)
        made = cls(rows, columns, *options)
        made.weight.requires_grad_(not freeze)
        return made

    def extra_repr(self) -> str:
        """The sizes, the mode, and the options that are not as usual."""
        padding = [] if self.padding_idx is None else [f"padding_idx={self.padding_idx}"]
        sizes = f"{self.num_embeddings}, {self.embedding_dim}"
        return ", ".join([sizes, *self._options(), f"mode={self.mode!r}", *padding])


__all__ = ["Embedding", "EmbeddingBag"]
