"""Softmax over very many classes, most of them rare."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

from ...errors import ShapeError
from ...graph.types import DType
from ...ops.indexing import bounded
from ...ops.primitive import user_source
from ...tensor import Tensor
from ...tensor.arithmetic import where
from ...tensor.joining import cat
from .. import functional as F
from ..functional.linear import indices
from .container import ModuleList, Sequential
from .linear import Linear
from .module import Module


class AdaptiveLogSoftmaxOutput(NamedTuple):
    """The log probability of each target, and the mean of their negatives."""

    output: Tensor
    loss: Tensor


class AdaptiveLogSoftmaxWithLoss(Module):
    """The log softmax of classes in clusters by frequency: Grave et al., "Efficient softmax approximation for GPUs".

    The classes before `cutoffs[0]` and one entry a cluster stand in the head; cluster i goes through a projection to
    in_features // div_value^(i + 1) features. Every cluster is computed for every row, as a compiled step has fixed
    shapes.
    """

    def __init__(
        self, in_features: int, n_classes: int, cutoffs: Sequence[int], div_value: float = 4.0,
        head_bias: bool = False, device: str | None = None, dtype: DType | None = None,
    ):  # fmt: skip
        super().__init__()
        listed = list(cutoffs)
        if (
            not listed
            or listed != sorted(set(listed))
            or listed[0] <= 0
            or listed[-1] > n_classes - 1
            or any(int(c) != c for c in listed)
        ):
            raise ValueError(
                f"AdaptiveLogSoftmaxWithLoss: cutoffs must be whole numbers from 1 to {n_classes - 1}, each greater "
                f"than the one before, got {cutoffs!r} (at {user_source()})"
            )  # fmt: skip
        self.in_features, self.n_classes, self.cutoffs = in_features, n_classes, [*listed, n_classes]
        self.div_value, self.head_bias = div_value, head_bias
        self.shortlist_size, self.n_clusters = listed[0], len(listed)
        self.head_size = self.shortlist_size + self.n_clusters
        self.head = Linear(in_features, self.head_size, bias=head_bias, device=device, dtype=dtype)
        self.tail = ModuleList()
        for number in range(self.n_clusters):
            hidden = int(in_features // div_value ** (number + 1))
            size = self.cutoffs[number + 1] - self.cutoffs[number]
            first = Linear(in_features, hidden, bias=False, device=device, dtype=dtype)
            self.tail.append(Sequential(first, Linear(hidden, size, bias=False, device=device, dtype=dtype)))

    def reset_parameters(self) -> None:
        """Draw the parameters anew."""
        for layer in (self.head, *(part for cluster in self.tail for part in cluster)):
            layer.reset_parameters()

    def forward(self, input_: Tensor, target_: Tensor) -> AdaptiveLogSoftmaxOutput:
        """[N, in_features] and [N], or [in_features] and [], to the log probabilities of the targets and the loss."""
        if target_.ndim > 1 or input_.ndim != target_.ndim + 1 or input_.shape[:-1] != target_.shape:
            raise ShapeError(
                f"AdaptiveLogSoftmaxWithLoss: input must be [N, {self.in_features}] and target [N], or "
                f"[{self.in_features}] and [], got {list(input_.shape)} and {list(target_.shape)} (at {user_source()})"
            )
        alone = target_.ndim == 0
        x, named = (input_.unsqueeze(0), target_.unsqueeze(0)) if alone else (input_, target_)
        name = "AdaptiveLogSoftmaxWithLoss"
        target = Tensor(bounded(indices(name, named), 0, self.n_classes, f"{name}: target"))
        head = F.log_softmax(self.head(x), 1)
        own = where(target < self.shortlist_size, target, 0)
        output: Tensor | None = None
        for number, cluster in enumerate(self.tail):
            low, high = self.cutoffs[number], self.cutoffs[number + 1]
            inside = (target >= low) & (target < high)
            rows = F.log_softmax(cluster(x), 1)
            place = where(inside, target - low, 0)
            part = where(inside, rows.gather(1, place.unsqueeze(1)).squeeze(1), 0.0)
            own = where(inside, self.shortlist_size + number, own)
            output = part if output is None else output + part
        assert output is not None
        output = output + head.gather(1, own.unsqueeze(1)).squeeze(1)
        return AdaptiveLogSoftmaxOutput(output.squeeze(0) if alone else output, -output.mean())

    def log_prob(self, input: Tensor) -> Tensor:
        """[N, in_features] to the log probabilities of all classes, [N, n_classes]."""
        head = F.log_softmax(self.head(input), 1)
        pieces = [head[:, : self.shortlist_size]]
        for number, cluster in enumerate(self.tail):
            place = self.shortlist_size + number
            pieces.append(F.log_softmax(cluster(input), 1) + head[:, place : place + 1])
        return cat(pieces, 1)

    def predict(self, input: Tensor) -> Tensor:
        """[N, in_features] to the likeliest class of each row, [N]."""
        return self.log_prob(input).argmax(1)


__all__ = ["AdaptiveLogSoftmaxOutput", "AdaptiveLogSoftmaxWithLoss"]
