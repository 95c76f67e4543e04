"""Autocast: the dtype that every operation gives in a region is PyTorch's; values, gradients and state follow."""

from __future__ import annotations

import gc
import threading
import warnings
import weakref
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch

import pullback as pb
from operation_table import IN_SCOPE
from operator_database import database, ours, samples_of, tensors_in, translated
from oracle import numbers
from pullback.graph.node import ancestors
from pullback.ops.primitive import MODE
from pullback.tensor import autocast_mode

#: `expression(library, x)`, in which x(*shape) makes a tensor of the dtype that is tried
Case = Callable[[Any, Callable[..., Any]], Any]

LABELS = [2, 0, 1, 3]


def _labels(library: Any) -> Any:
    return library.tensor(LABELS)


FUNCTIONS: dict[str, Case] = {
    "bilinear": lambda p, x: p.nn.functional.bilinear(x(2, 3), x(2, 4), x(5, 3, 4), x(5)),
    "channel_shuffle": lambda p, x: p.nn.functional.channel_shuffle(x(1, 4, 2), 2),
    "cosine_similarity": lambda p, x: p.nn.functional.cosine_similarity(x(2, 3), x(2, 3)),
    "fold": lambda p, x: p.nn.functional.fold(x(1, 4, 4), 3, 2),
    "affine_grid": lambda p, x: p.nn.functional.affine_grid(x(1, 2, 3), (1, 1, 2, 2), align_corners=False),
    "interpolate": lambda p, x: p.nn.functional.interpolate(x(1, 2, 4), size=3, mode="linear"),
    "upsample": lambda p, x: p.nn.functional.upsample(x(1, 2, 4), size=3),
    "upsample_bilinear": lambda p, x: p.nn.functional.upsample_bilinear(x(1, 2, 4, 4), size=3),
    "upsample_nearest": lambda p, x: p.nn.functional.upsample_nearest(x(1, 2, 4, 4), size=3),
    "pad": lambda p, x: p.nn.functional.pad(x(4), (1, 1)),
    "pairwise_distance": lambda p, x: p.nn.functional.pairwise_distance(x(2, 3), x(2, 3)),
    "pdist": lambda p, x: p.nn.functional.pdist(x(3, 2)),
    "pixel_shuffle": lambda p, x: p.nn.functional.pixel_shuffle(x(4, 2, 2), 2),
    "pixel_unshuffle": lambda p, x: p.nn.functional.pixel_unshuffle(x(1, 2, 2), 2),
    "unfold": lambda p, x: p.nn.functional.unfold(x(1, 1, 3, 3), 2),
    "adaptive_avg_pool1d": lambda p, x: p.nn.functional.adaptive_avg_pool1d(x(1, 2, 4), 2),
    "adaptive_avg_pool2d": lambda p, x: p.nn.functional.adaptive_avg_pool2d(x(1, 2, 4, 4), 2),
    "adaptive_avg_pool3d": lambda p, x: p.nn.functional.adaptive_avg_pool3d(x(1, 2, 4, 4, 4), 2),
    "adaptive_max_pool1d": lambda p, x: p.nn.functional.adaptive_max_pool1d(x(1, 2, 4), 2),
    "adaptive_max_pool2d": lambda p, x: p.nn.functional.adaptive_max_pool2d(x(1, 2, 4, 4), 2),
    "adaptive_max_pool3d": lambda p, x: p.nn.functional.adaptive_max_pool3d(x(1, 2, 4, 4, 4), 2),
    "avg_pool1d": lambda p, x: p.nn.functional.avg_pool1d(x(1, 2, 4), 2),
    "avg_pool2d": lambda p, x: p.nn.functional.avg_pool2d(x(1, 2, 4, 4), 2),
    "avg_pool3d": lambda p, x: p.nn.functional.avg_pool3d(x(1, 2, 4, 4, 4), 2),
    "batch_norm": lambda p, x: p.nn.functional.batch_norm(x(4, 2), None, None, x(2), x(2), training=True),
    "binary_cross_entropy": lambda p, x: p.nn.functional.binary_cross_entropy(x(4, 4), x(4, 4), x(4)),
    "binary_cross_entropy_with_logits": lambda p, x: p.nn.functional.binary_cross_entropy_with_logits(
        x(4, 4), x(4, 4), x(4), pos_weight=x(4)
    ),
    "conv1d": lambda p, x: p.nn.functional.conv1d(x(1, 2, 4), x(3, 2, 2), x(3)),
    "conv2d": lambda p, x: p.nn.functional.conv2d(x(1, 2, 4, 4), x(3, 2, 2, 2), x(3)),
    "conv3d": lambda p, x: p.nn.functional.conv3d(x(1, 2, 4, 4, 4), x(3, 2, 2, 2, 2), x(3)),
    "conv_transpose1d": lambda p, x: p.nn.functional.conv_transpose1d(x(1, 2, 4), x(2, 3, 2), x(3)),
    "conv_transpose2d": lambda p, x: p.nn.functional.conv_transpose2d(x(1, 2, 4, 4), x(2, 3, 2, 2), x(3)),
    "conv_transpose3d": lambda p, x: p.nn.functional.conv_transpose3d(x(1, 2, 4, 4, 4), x(2, 3, 2, 2, 2), x(3)),
    "cosine_embedding_loss": lambda p, x: p.nn.functional.cosine_embedding_loss(x(4, 4), x(4, 4), _labels(p)),
    "cross_entropy": lambda p, x: p.nn.functional.cross_entropy(x(4, 4), _labels(p), x(4)),
    "ctc_loss": lambda p, x: p.nn.functional.ctc_loss(x(4, 2, 4), p.tensor([[1, 2], [3, 1]]), [4, 4], [2, 2]),
    "dropout": lambda p, x: p.nn.functional.dropout(x(4, 4)),
    "embedding": lambda p, x: p.nn.functional.embedding(_labels(p), x(4, 4)),
    "fractional_max_pool2d": lambda p, x: p.nn.functional.fractional_max_pool2d(x(1, 2, 4, 4), 2, output_size=2),
    "fractional_max_pool3d": lambda p, x: p.nn.functional.fractional_max_pool3d(x(1, 2, 4, 4, 4), 2, output_size=2),
    "gaussian_nll_loss": lambda p, x: p.nn.functional.gaussian_nll_loss(x(4, 4), x(4, 4), x(4, 4)),
    "gelu": lambda p, x: p.nn.functional.gelu(x(4)),
    "group_norm": lambda p, x: p.nn.functional.group_norm(x(2, 4), 2, x(4), x(4)),
    "hinge_embedding_loss": lambda p, x: p.nn.functional.hinge_embedding_loss(x(4), x(4)),
    "huber_loss": lambda p, x: p.nn.functional.huber_loss(x(4), x(4)),
    "instance_norm": lambda p, x: p.nn.functional.instance_norm(x(2, 4, 3), None, None, x(4), x(4)),
    "kl_div": lambda p, x: p.nn.functional.kl_div(x(4), x(4)),
    "l1_loss": lambda p, x: p.nn.functional.l1_loss(x(4), x(4)),
    "layer_norm": lambda p, x: p.nn.functional.layer_norm(x(4, 4), (4,), x(4), x(4)),
    "leaky_relu": lambda p, x: p.nn.functional.leaky_relu(x(4)),
    "linear": lambda p, x: p.nn.functional.linear(x(2, 4), x(3, 4), x(3)),
    "linear_cross_entropy": lambda p, x: p.nn.functional.linear_cross_entropy(
        x(4, 4), x(4, 4), _labels(p), linear_bias=x(4), weight=x(4)
    ),
    "local_response_norm": lambda p, x: p.nn.functional.local_response_norm(x(2, 4, 3), 2),
    "log_softmax": lambda p, x: p.nn.functional.log_softmax(x(4, 4), -1),
    "logsigmoid": lambda p, x: p.nn.functional.logsigmoid(x(4)),
    "lp_pool1d": lambda p, x: p.nn.functional.lp_pool1d(x(1, 2, 4), 2, 2),
    "lp_pool2d": lambda p, x: p.nn.functional.lp_pool2d(x(1, 2, 4, 4), 2, 2),
    "lp_pool3d": lambda p, x: p.nn.functional.lp_pool3d(x(1, 2, 4, 4, 4), 2, 2),
    "margin_ranking_loss": lambda p, x: p.nn.functional.margin_ranking_loss(x(4), x(4), x(4)),
    "max_pool1d": lambda p, x: p.nn.functional.max_pool1d(x(1, 2, 4), 2),
    "max_pool2d": lambda p, x: p.nn.functional.max_pool2d(x(1, 2, 4, 4), 2),
    "max_pool3d": lambda p, x: p.nn.functional.max_pool3d(x(1, 2, 4, 4, 4), 2),
    "max_unpool1d": lambda p, x: p.nn.functional.max_unpool1d(x(1, 1, 4), p.tensor([[LABELS]]), 2),
    "max_unpool2d": lambda p, x: p.nn.functional.max_unpool2d(x(1, 1, 2, 2), p.tensor([[[[0, 3], [5, 9]]]]), 2),
    "max_unpool3d": lambda p, x: p.nn.functional.max_unpool3d(x(1, 1, 1, 2, 2), p.tensor([[[[[0, 3], [5, 9]]]]]), 2),
    "mse_loss": lambda p, x: p.nn.functional.mse_loss(x(4), x(4)),
    "multi_margin_loss": lambda p, x: p.nn.functional.multi_margin_loss(x(4, 4), _labels(p), weight=x(4)),
    "multilabel_margin_loss": lambda p, x: p.nn.functional.multilabel_margin_loss(x(1, 4), p.tensor([LABELS])),
    "multilabel_soft_margin_loss": lambda p, x: p.nn.functional.multilabel_soft_margin_loss(x(4, 4), x(4, 4), x(4)),
    "nll_loss": lambda p, x: p.nn.functional.nll_loss(x(4, 4), _labels(p), x(4)),
    "normalize": lambda p, x: p.nn.functional.normalize(x(2, 4)),
    "one_hot": lambda p, x: p.nn.functional.one_hot(_labels(p), 4),
    "poisson_nll_loss": lambda p, x: p.nn.functional.poisson_nll_loss(x(4), x(4)),
    "relu": lambda p, x: p.nn.functional.relu(x(4)),
    "rms_norm": lambda p, x: p.nn.functional.rms_norm(x(4, 4), (4,), x(4)),
    "scaled_dot_product_attention": lambda p, x: p.nn.functional.scaled_dot_product_attention(
        x(1, 2, 4, 4), x(1, 2, 4, 4), x(1, 2, 4, 4), is_causal=True
    ),
    "sigmoid": lambda p, x: p.nn.functional.sigmoid(x(4)),
    "silu": lambda p, x: p.nn.functional.silu(x(4)),
    "smooth_l1_loss": lambda p, x: p.nn.functional.smooth_l1_loss(x(4), x(4)),
    "soft_margin_loss": lambda p, x: p.nn.functional.soft_margin_loss(x(4), x(4)),
    "softmax": lambda p, x: p.nn.functional.softmax(x(4, 4), -1),
    "softplus": lambda p, x: p.nn.functional.softplus(x(4)),
    "tanh": lambda p, x: p.nn.functional.tanh(x(4)),
    "triplet_margin_loss": lambda p, x: p.nn.functional.triplet_margin_loss(x(4, 4), x(4, 4), x(4, 4)),
    "triplet_margin_with_distance_loss": lambda p, x: p.nn.functional.triplet_margin_with_distance_loss(
        x(4, 4), x(4, 4), x(4, 4)
    ),
}

MORE: dict[str, Case] = {
    "probabilities": lambda p, x: p.nn.functional.cross_entropy(x(4, 4), x(4, 4)),
    "masked attention": lambda p, x: p.nn.functional.scaled_dot_product_attention(
        x(1, 2, 4, 4), x(1, 2, 4, 4), x(1, 2, 4, 4), p.ones(4, 4)
    ),
    "linear, one operand float32": lambda p, x: p.nn.functional.linear(x(2, 4), p.ones(3, 4), p.ones(3)),
    "matmul, one operand float32": lambda p, x: x(2, 4) @ p.ones(4, 3),
    "bilinear without bias": lambda p, x: p.nn.functional.bilinear(x(2, 3), x(2, 4), x(5, 3, 4)),
    "local_response_norm of images": lambda p, x: p.nn.functional.local_response_norm(x(2, 4, 3, 3), 2),
    "inner of matrices": lambda p, x: p.inner(x(2, 4), x(3, 4)),
    "inner of a vector and a matrix": lambda p, x: p.inner(x(4), x(3, 4)),
    "inner of a number": lambda p, x: p.inner(x(1)[0], x(3, 4)),
    "vectors": lambda p, x: x(4) @ x(4),
    "matrix and vector": lambda p, x: x(3, 4) @ x(4),
    "integers": lambda p, x: p.ones(2, 2, dtype=p.int32) @ p.ones(2, 2, dtype=p.int32),
    "l1_loss, target float32": lambda p, x: p.nn.functional.l1_loss(x(4), p.ones(4)),
    "mse_loss, target float32": lambda p, x: p.nn.functional.mse_loss(x(4), p.ones(4)),
    "cat": lambda p, x: p.cat([x(4), x(4)]),
    "cat with float32": lambda p, x: p.cat([x(4), p.ones(4)]),
    "stack with float32": lambda p, x: p.stack([x(4), p.ones(4)]),
    "where with float32": lambda p, x: p.where(p.ones(4) > 0, x(4), p.ones(4)),
    "add to float32": lambda p, x: x(4) + p.ones(4),
    "MultiheadAttention's products": lambda p, x: p.nn.functional.softmax(x(2, 3, 4) @ x(2, 4, 3), -1) @ x(2, 3, 4),
}


def names(text: str) -> list[str]:
    """The words of a text."""
    return text.split()


#: methods of every tensor that takes no further argument
_ALONE = names(
    """
    abs amax amin argmax argmin all any ceil clone contiguous cos detach erf exp flatten floor
    isfinite isinf isnan log logical_not logsumexp max mean min neg norm reciprocal relu round rsqrt
    sigmoid sign sin sqrt square squeeze std sum t tanh tril triu trunc unbind var float double half
    bfloat16 int long bool
    """
)
#: methods that take another tensor of the same shape
_PAIRED = names(
    """
    add div dot eq expand_as ge gt le logical_and logical_or lt maximum minimum mul ne pow sub
    type_as
    """
)
_OPERATORS = names(
    """
    __add__ __radd__ __sub__ __rsub__ __mul__ __rmul__ __truediv__ __rtruediv__ __floordiv__
    __rfloordiv__ __mod__ __rmod__ __pow__ __rpow__ __eq__ __ne__ __lt__ __le__ __gt__ __ge__
    """
)
_INPLACE = names(
    """
    add_ copy_ div_ mul_ pow_ sub_ __iadd__ __isub__ __imul__ __itruediv__ __ipow__
    """
)
_INPLACE_ALONE = ["exp_", "neg_", "relu_", "sqrt_", "zero_", "bernoulli_", "uniform_", "normal_"]


def _alone(name: str) -> Case:
    needs_axis = name in ("logsumexp", "unbind")
    matrix = name in ("tril", "triu", "t")
    return lambda p, x: getattr(x(4, 4) if matrix else x(4), name)(*((0,) if needs_axis else ()))


def _paired(name: str) -> Case:
    return lambda p, x: getattr(x(4), name)(x(4))


METHODS: dict[str, Case] = {
    **{name: _alone(name) for name in [*_ALONE, *_INPLACE_ALONE]},
    **{name: _paired(name) for name in [*_PAIRED, *_OPERATORS, *_INPLACE]},
    "T": lambda p, x: x(4, 4).T,
    "mT": lambda p, x: x(4, 4).mT,
    "__abs__": lambda p, x: abs(x(4)),
    "__getitem__": lambda p, x: x(4)[1:],
    "__neg__": lambda p, x: -x(4),
    "__pos__": lambda p, x: +x(4),
    "__matmul__": lambda p, x: x(4, 4) @ x(4, 4),
    "__rmatmul__": lambda p, x: x(4, 4).__rmatmul__(x(4, 4)),
    "addcdiv_": lambda p, x: x(4).addcdiv_(x(4), x(4)),
    "addcmul_": lambda p, x: x(4).addcmul_(x(4), x(4)),
    "bmm": lambda p, x: x(2, 4, 4).bmm(x(2, 4, 4)),
    "broadcast_to": lambda p, x: x(4).broadcast_to((2, 4)),
    "chunk": lambda p, x: x(4).chunk(2),
    "clamp": lambda p, x: x(4).clamp(0.0, 1.0),
    "clamp_": lambda p, x: x(4).clamp_(0.0, 1.0),
    "clip": lambda p, x: x(4).clip(0.0, 1.0),
    "data": lambda p, x: x(4).data,
    "expand": lambda p, x: x(4).expand(2, 4),
    "fill_": lambda p, x: x(4).fill_(1.0),
    "flip": lambda p, x: x(4).flip(0),
    "gather": lambda p, x: x(4).gather(0, _labels(p)),
    "index_select": lambda p, x: x(4).index_select(0, _labels(p)),
    "lerp_": lambda p, x: x(4).lerp_(x(4), 0.5),
    "log_softmax": lambda p, x: x(4).log_softmax(0),
    "masked_fill": lambda p, x: x(4).masked_fill(p.ones(4) > 0, 0.0),
    "masked_fill_": lambda p, x: x(4).masked_fill_(p.ones(4) > 0, 0.0),
    "matmul": lambda p, x: x(4, 4).matmul(x(4, 4)),
    "mm": lambda p, x: x(4, 4).mm(x(4, 4)),
    "movedim": lambda p, x: x(4, 4).movedim(0, 1),
    "narrow": lambda p, x: x(4).narrow(0, 0, 2),
    "permute": lambda p, x: x(4, 4).permute(1, 0),
    "repeat": lambda p, x: x(4).repeat(2),
    "reshape": lambda p, x: x(4).reshape(2, 2),
    "scatter_add": lambda p, x: x(4).scatter_add(0, _labels(p), x(4)),
    "softmax": lambda p, x: x(4).softmax(0),
    "split": lambda p, x: x(4).split(2),
    "to": lambda p, x: x(4).to(p.float32),
    "transpose": lambda p, x: x(4, 4).transpose(0, 1),
    "unflatten": lambda p, x: x(4).unflatten(0, (2, 2)),
    "unsqueeze": lambda p, x: x(4).unsqueeze(0),
    "view": lambda p, x: x(4).view(2, 2),
    "where": lambda p, x: x(4).where(p.ones(4) > 0, x(4)),
}

#: methods that only move elements: the shape of the tensor, and the arguments
MOVING: dict[str, tuple[tuple[int, ...], tuple[Any, ...]]] = {
    **dict.fromkeys(names("H adjoint fliplr flipud mH rot90 t_ trace tril_ triu_"), ((2, 2), ())),
    **dict.fromkeys(names("contiguous diag diagflat diag_embed ravel squeeze_"), ((4,), ())),
    **dict.fromkeys(names("moveaxis swapaxes swapaxes_ swapdims swapdims_ transpose_"), ((2, 2), (0, 1))),
    **dict.fromkeys(names("hsplit repeat_interleave tensor_split"), ((4,), (2,))),
    **dict.fromkeys(names("roll tile"), ((4,), (2,))),
    "as_strided": ((4,), ((2,), (1,))),
    "diagonal": ((2, 2), ()),
    "dsplit": ((2, 2, 2), (2,)),
    "fill_diagonal_": ((2, 2), (1.0,)),
    "select": ((4,), (0, 1)),
    "split_with_sizes": ((4,), ([2, 2],)),
    "unfold": ((4,), (0, 2, 1)),
    "unsqueeze_": ((4,), (0,)),
    "vsplit": ((4, 4), (2,)),
}


def _moving(name: str) -> Case:
    shape, arguments = MOVING[name]

    def case(p: Any, x: Callable[..., Any]) -> Any:
        found = getattr(x(*shape), name)
        return found(*arguments) if callable(found) and not isinstance(found, (pb.Tensor, torch.Tensor)) else found

    return case


#: methods that write: what they are given
_WRITING: dict[str, Case] = {
    "as_strided_scatter": lambda p, x: x(4).as_strided_scatter(x(2), (2,), (1,)),
    "diagonal_scatter": lambda p, x: x(2, 2).diagonal_scatter(x(2)),
    "index_add": lambda p, x: x(4).index_add(0, _labels(p), x(4)),
    "index_copy": lambda p, x: x(4).index_copy(0, _labels(p), x(4)),
    "index_fill": lambda p, x: x(4).index_fill(0, _labels(p), 2.0),
    "index_put": lambda p, x: x(4).index_put((_labels(p),), x(4)),
    "index_reduce": lambda p, x: x(4).index_reduce(0, _labels(p), x(4), "amax"),
    "masked_scatter": lambda p, x: x(4).masked_scatter(p.ones(4) > 0, x(4)),
    "put": lambda p, x: x(4).put(_labels(p), x(4)),
    "scatter": lambda p, x: x(4).scatter(0, _labels(p), x(4)),
    "scatter_reduce": lambda p, x: x(4).scatter_reduce(0, _labels(p), x(4), "sum"),
    "select_scatter": lambda p, x: x(2, 2).select_scatter(x(2), 0, 1),
    "slice_scatter": lambda p, x: x(4).slice_scatter(x(2), 0, 1, 3),
    "take": lambda p, x: x(4).take(_labels(p)),
    "take_along_dim": lambda p, x: x(4).take_along_dim(_labels(p), 0),
    "index_add_": lambda p, x: x(4).index_add_(0, _labels(p), x(4)),
    "index_copy_": lambda p, x: x(4).index_copy_(0, _labels(p), x(4)),
    "index_fill_": lambda p, x: x(4).index_fill_(0, _labels(p), 2.0),
    "index_put_": lambda p, x: x(4).index_put_((_labels(p),), x(4)),
    "index_reduce_": lambda p, x: x(4).index_reduce_(0, _labels(p), x(4), "amax"),
    "masked_scatter_": lambda p, x: x(4).masked_scatter_(p.ones(4) > 0, x(4)),
    "put_": lambda p, x: x(4).put_(_labels(p), x(4)),
    "scatter_": lambda p, x: x(4).scatter_(0, _labels(p), x(4)),
    "scatter_add_": lambda p, x: x(4).scatter_add_(0, _labels(p), x(4)),
    "scatter_reduce_": lambda p, x: x(4).scatter_reduce_(0, _labels(p), x(4), "sum"),
    "reshape_as": lambda p, x: x(4).reshape_as(x(2, 2)),
    "addbmm": lambda p, x: x(2, 2).addbmm(x(3, 2, 2), x(3, 2, 2)),
    "addmm": lambda p, x: x(2, 2).addmm(x(2, 2), x(2, 2)),
    "addbmm_": lambda p, x: x(2, 2).addbmm_(x(3, 2, 2), x(3, 2, 2)),
    "addmm_": lambda p, x: x(2, 2).addmm_(x(2, 2), x(2, 2)),
    "addmv_": lambda p, x: x(2).addmv_(x(2, 2), x(2)),
    "addr_": lambda p, x: x(2, 2).addr_(x(2), x(2)),
    "baddbmm_": lambda p, x: x(3, 2, 2).baddbmm_(x(3, 2, 2), x(3, 2, 2)),
    "addmv": lambda p, x: x(2).addmv(x(2, 2), x(2)),
    "addr": lambda p, x: x(2, 2).addr(x(2), x(2)),
    "baddbmm": lambda p, x: x(3, 2, 2).baddbmm(x(3, 2, 2), x(3, 2, 2)),
    "cross": lambda p, x: x(3).cross(x(3)),
    "ger": lambda p, x: x(3).ger(x(3)),
    "inner": lambda p, x: x(3).inner(x(3)),
    "kron": lambda p, x: x(3).kron(x(3)),
    "mv": lambda p, x: x(2, 2).mv(x(2)),
    "outer": lambda p, x: x(3).outer(x(3)),
    "vdot": lambda p, x: x(3).vdot(x(3)),
    "view_as": lambda p, x: x(4).view_as(x(2, 2)),
}
METHODS |= {name: _moving(name) for name in MOVING} | _WRITING

#: what is no computation on elements, or none on floats
OTHER = set(
    names(
        """
        backward device dim dtype grad is_floating_point is_leaf item ndim node numel numpy
        is_contiguous ndimension storage_offset stride
        requires_grad requires_grad_ retain_grad retains_grad register_hook
        register_post_accumulate_grad_hook data_ptr detach_ dim_order element_size get_device grad_fn is_complex
        is_conj is_neg is_nonzero is_same_size is_signed itemsize nbytes nelement random_ type cpu __getattr__
        __reversed__ apply_ map_ map2_ is_distributed is_inference is_pinned is_shared
        shape size tolist __and__ __or__ __xor__ __rand__
        __ror__ __rxor__ __invert__ __array__ __bool__ __deepcopy__ __dlpack__ __dlpack_device__
        __float__ __format__ __index__ __int__ __iter__ __len__ __setitem__
        __array_namespace__ __complex__ __contains__ __copy__ __reduce_ex__ to_device short new
        """
    )
)

#: what draws random numbers, is made of others here, or has another name of what the table has: PyTorch has no sample
WITHOUT_ORACLE = set(
    names(
        """
        cauchy_ exponential_ geometric_ log_normal_ orgqr
        alpha_dropout dropout1d dropout2d dropout3d feature_alpha_dropout gumbel_softmax hardsigmoid
        multi_head_attention_forward rrelu rrelu_
        max_pool1d_with_indices max_pool2d_with_indices max_pool3d_with_indices
        adaptive_max_pool1d_with_indices adaptive_max_pool2d_with_indices adaptive_max_pool3d_with_indices
        fractional_max_pool2d_with_indices fractional_max_pool3d_with_indices
        __iand__ __ifloordiv__ __ilshift__ __imod__ __ior__ __irshift__ __ixor__ __lshift__ __rlshift__
        __rrshift__ __rshift__ absolute_ arccos_ arccosh_ arcsin_ arcsinh_ arctan2_ arctan_ arctanh_
        divide_ fix_ greater_ greater_equal_ inverse less_ less_equal_ multiply_ negative_ not_equal_
        subtract_ new_empty new_tensor __imatmul__
        """
    )
)
#: where PyTorch rounds the result to 16 bits and we do not: it has no kernel for such a matrix but in float32; see
#: `docs/autocast.md`
WIDER = {"linalg.det", "linalg.pinv", "lu_unpack"}

ALL = {**{f"functional.{name}": case for name, case in FUNCTIONS.items()}, **MORE, **METHODS}


def _tensor(library: Any, dtype: str) -> Callable[..., Any]:
    return lambda *shape: library.ones(*shape).to(getattr(library, dtype))


def _dtype(library: Any, case: Case, operands: str, region: str) -> str:
    with library.autocast("cpu", getattr(library, region)):
        result = case(library, _tensor(library, operands))
    first = result[0] if isinstance(result, (tuple, list)) else result
    return str(first.dtype).rpartition(".")[2]


REGIONS = [("bfloat16", "float32"), ("bfloat16", "bfloat16"), ("float16", "float32"), ("float16", "float16")]


@pytest.mark.parametrize("name", ALL)
def test_every_operation_gives_pytorchs_dtype(name: str) -> None:
    mixed = name.endswith("float32") or name == "masked attention"
    for region, operands in [*REGIONS, *([] if mixed else [("bfloat16", "float64")])]:
        try:
            expected = _dtype(torch, ALL[name], operands, region)
        except NotImplementedError:
            continue  # PyTorch has no kernel for these operands
        assert _dtype(pb, ALL[name], operands, region) == expected, f"{operands} operands, autocast to {region}"


#: operators of PyTorch's database that no row stands for: their first sample does
ROWS = {k.rpartition(".")[2] for k in ALL}
SAMPLED = [n for n in IN_SCOPE if n.rpartition(".")[2] not in ROWS and n not in WIDER]


@pytest.mark.parametrize("name", SAMPLED)
def test_samples_of_other_operators_give_pytorchs_dtype(name: str) -> None:
    record = database()[name][0]
    sample = next(iter(samples_of(record, torch.float32)), None) if torch.float32 in record.dtypes else None
    if sample is None:
        return  # no operation on floats
    for region, operands in REGIONS:
        given = _cast((sample.input, tuple(sample.args), dict(sample.kwargs)), getattr(torch, operands))
        try:
            with torch.autocast("cpu", getattr(torch, region)):
                expected = _first_dtype(record.op(given[0], *given[1], **given[2]))
        except (NotImplementedError, RuntimeError):
            continue  # PyTorch has no kernel for these operands
        first, args, options = translated(given)
        with pb.autocast("cpu", getattr(pb, region)):
            found = _first_dtype(ours(name, record.variant_test_name)(first, *args, **options))
        assert found == expected, f"{operands} operands, autocast to {region}"


def _cast(value: Any, dtype: torch.dtype) -> Any:
    if isinstance(value, torch.Tensor):
        return value.detach().to(dtype) if value.is_floating_point() else value
    if isinstance(value, dict):
        return {k: _cast(v, dtype) for k, v in value.items()}
    if isinstance(value, (tuple, list)):
        return type(value)([_cast(v, dtype) for v in value])
    return value


def _first_dtype(result: Any) -> str:
    found = tensors_in(result)
    return str(found[0].dtype).rpartition(".")[2] if found else ""


def test_every_function_and_method_is_in_the_table_or_in_the_database() -> None:
    sampled = {n.rpartition(".")[2] for n in [*SAMPLED, *WIDER]}
    missing = set(pb.nn.functional.__all__) - set(FUNCTIONS) - sampled
    assert {n for n in missing if n.removesuffix("_") not in FUNCTIONS.keys() | sampled} <= WITHOUT_ORACLE
    public = {n for cls in pb.Tensor.__mro__[:-1] for n, value in vars(cls).items() if _is_operation(n, value)}
    known = {*METHODS, *sampled, *FUNCTIONS}
    bodies = {getattr(pb.Tensor, n) for n in known if callable(getattr(pb.Tensor, n, None))}
    uncovered = {n for n in public - OTHER - known if n.removesuffix("_") not in known}
    assert {n for n in uncovered if getattr(pb.Tensor, n) not in bodies} <= WITHOUT_ORACLE


def _is_operation(name: str, value: Any) -> bool:
    """Whether an attribute of a class of tensors is public, and a method or property that could compute."""
    machinery = name in ("__init__", "__repr__", "__class__", "__hash__", "__new__")
    private = name.startswith("_") and not name.startswith("__")
    return (callable(value) or isinstance(value, property)) and not machinery and not private


# ---- values and gradients


def _network(library: Any, operands: list[np.ndarray], region: str, inside: bool) -> list[Any]:
    """Loss and gradients of a small network in a region; backward() is called inside it or after it."""
    x, first, bias, second = (library.tensor(array).requires_grad_() for array in operands)
    with library.autocast("cpu", getattr(library, region)):
        hidden = library.nn.functional.gelu(library.nn.functional.linear(x, first, bias))
        # the second weight is read twice: its one cast collects both gradients
        scores = hidden @ second + (hidden * 0.5) @ second
        loss = library.nn.functional.cross_entropy(scores, library.tensor(LABELS))
        if inside:
            loss.backward()
    if not inside:
        loss.backward()
    return [loss, *(t.grad for t in (x, first, bias, second))]


@pytest.mark.parametrize("inside", [False, True])
@pytest.mark.parametrize("region", ["bfloat16", "float16"])
def test_values_and_gradients_are_pytorchs(region: str, inside: bool) -> None:
    random = np.random.default_rng(0)
    operands = [random.standard_normal(s).astype(np.float32) for s in [(4, 7), (9, 7), (9,), (9, 5)]]
    ours, theirs = (_network(library, operands, region, inside) for library in (pb, torch))
    tolerance = {"bfloat16": 2e-2, "float16": 3e-3}[region]
    for position, (a, b) in enumerate(zip(ours, theirs, strict=True)):
        assert a.dtype is pb.float32
        scale = np.abs(numbers(b)).max()
        np.testing.assert_allclose(numbers(a), numbers(b), atol=tolerance * scale, err_msg=f"value {position}")


def test_sums_of_products_take_operands_of_several_dtypes_in_a_region() -> None:
    shapes = {
        "bi,ij->bj": ((5, 16), (16, 4)), "i,j->ij": ((5,), (4,)), "bi,bi->bi": ((5, 6), (5, 6)), "i,i->": ((5,), (5,)),
        "bij,bjk,kl->bil": ((2, 3, 4), (2, 4, 5), (5, 6)),
    }  # fmt: skip
    for equation, sizes in shapes.items():
        for low in range(len(sizes)):
            found = []
            for library in (torch, pb):
                operands = [library.ones(*size) * 1.3 for size in sizes]
                operands[low] = operands[low].to(library.bfloat16)
                with library.autocast("cpu", dtype=library.bfloat16):
                    found.append(library.einsum(equation, *operands))
            assert str(found[1].dtype).split(".")[-1] == str(found[0].dtype).split(".")[-1], (equation, low)
            np.testing.assert_allclose(numbers(found[1].float()), numbers(found[0].float()), rtol=1e-2)
    a, b = pb.ones(2, 3), pb.ones(3, 4, dtype=pb.bfloat16)
    with pb.autocast("cpu", dtype=pb.bfloat16):
        assert pb.tensordot(a, b, 1).dtype is pb.bfloat16
    for product in (lambda: pb.tensordot(a, b, 1), lambda: pb.einsum("ij,jk->ik", a, b)):
        with pytest.raises(pb.errors.DTypeError, match=r"float32.* bfloat16"):
            product()
    wide = pb.ones(3, 4, dtype=pb.float64)
    for enabled in (True, False):
        with pb.autocast("cpu", dtype=pb.bfloat16, enabled=enabled):
            for product in (lambda: pb.tensordot(a, wide, 1), lambda: pb.einsum("ij,jk->ik", a, wide)):
                with pytest.raises(pb.errors.DTypeError, match="float64"):  # no region rounds float64
                    product()
            assert pb.einsum("i,j->ij", a[0], wide[0]).dtype is pb.float64  # no sum, no product of matrices


@pytest.mark.parametrize("shape", [(0, 3, 2), (1, 1, 1), (3, 0, 2), (17, 5, 3)])
def test_products_of_awkward_sizes_are_of_rounded_operands(shape: tuple[int, int, int]) -> None:
    m, k, n = shape
    random = np.random.default_rng(1)
    left, right = random.standard_normal((k, m)).astype(np.float32), random.standard_normal((k, n)).astype(np.float32)
    with pb.autocast("cpu"):
        found = pb.tensor(left).T @ pb.tensor(right)
    rounded = [numbers(pb.tensor(array).bfloat16()) for array in (left, right)]
    expected = pb.tensor((rounded[0].T.astype(np.float64) @ rounded[1]).astype(np.float32)).bfloat16()
    np.testing.assert_allclose(numbers(found), numbers(expected), rtol=2**-7, atol=1e-6)


def test_nan_and_infinity_pass_through_the_cast() -> None:
    x = pb.tensor([[float("inf"), 1.0], [float("nan"), 1.0], [1e39, 1.0]])
    with pb.autocast("cpu"):
        found = numbers(x @ pb.eye(2))
    assert np.isnan(found[0, 1])  # inf * 0
    assert np.isnan(found[1]).all()
    with pb.autocast("cpu", pb.float16):
        assert numbers(pb.tensor([[70000.0]]) @ pb.ones(1, 1)) == np.inf


def test_second_derivatives_are_pytorchs() -> None:
    def second(library: Any) -> Any:
        x, w = (library.tensor(a).requires_grad_() for a in (np.float32([[1.0, 0.5]]), np.float32([[0.25], [2.0]])))
        with library.autocast("cpu"):
            y = ((x @ w) ** 3).sum()
            (first,) = library.autograd.grad(y, w, create_graph=True)
            (found,) = library.autograd.grad((first * first).sum(), w)
        return found

    assert second(pb).dtype is pb.float32
    np.testing.assert_allclose(numbers(second(pb)), numbers(second(torch)), rtol=2e-2)


# ---- the state of a region


def test_regions_nest_and_can_be_switched_off() -> None:
    x = pb.ones(2, 2)
    assert not pb.is_autocast_enabled()
    with pb.autocast("cpu") as entered:
        assert isinstance(entered, pb.autocast)
        assert pb.is_autocast_enabled("cpu")
        assert (x @ x).dtype is pb.bfloat16
        with pb.autocast("cpu", pb.float16):
            assert pb.get_autocast_dtype("cpu") is pb.float16
            assert (x @ x).dtype is pb.float16
            with pb.amp.autocast("cpu", enabled=False):
                assert not pb.is_autocast_enabled()
                assert (x @ x).dtype is pb.float32
        assert (x @ x).dtype is pb.bfloat16
    assert not pb.is_autocast_enabled()
    assert (x @ x).dtype is pb.float32
    assert pb.get_autocast_dtype("cpu") is pb.bfloat16
    assert pb.get_autocast_dtype("cuda") is pb.float16


def test_regions_are_switched_as_pytorchs() -> None:
    def seen(library: Any) -> list[str]:
        x, found = library.ones(2, 2), []
        for enabled in (True, False):
            library.set_autocast_enabled("cpu", enabled)
            found.append(str((x @ x).dtype))
        with library.autocast("cpu", library.float16, cache_enabled=False):
            found.append(str(library.is_autocast_cache_enabled()))
            for enabled in (False, True):
                library.set_autocast_enabled("cpu", enabled)
                found.append(str((x @ x).dtype))
            with library.autocast("cpu", library.bfloat16, enabled=False):
                found.append(str(library.get_autocast_dtype("cpu")))
        found += [str((x @ x).dtype), str(library.is_autocast_enabled("cpu")), str(library.is_autocast_cache_enabled())]
        return [text.replace("pullback", "torch") for text in found]

    assert seen(pb) == seen(torch)
    x, w = pb.ones(2, 2), pb.ones(2, 2, requires_grad=True)
    with pb.autocast("cpu"):
        first = x @ w
        pb.clear_autocast_cache()
        second = x @ w
    assert _casts(first, second) == 2


def test_an_error_inside_leaves_the_region() -> None:
    with pytest.raises(pb.errors.ShapeError), pb.autocast("cpu"):
        pb.ones(2, 3) @ pb.ones(2, 3)
    assert not pb.is_autocast_enabled()


def test_one_region_can_be_entered_again_and_decorate() -> None:
    region = pb.autocast("cpu")

    @region
    def product(depth: int) -> pb.Tensor:
        return product(depth - 1) if depth else pb.ones(2, 2) @ pb.ones(2, 2)

    with region:
        assert product(2).dtype is pb.bfloat16
    assert product(0).dtype is pb.bfloat16
    assert not pb.is_autocast_enabled()


def test_a_region_belongs_to_its_thread() -> None:
    seen: list[bool] = []
    with pb.autocast("cpu"):
        thread = threading.Thread(target=lambda: seen.append(pb.is_autocast_enabled()))
        thread.start()
        thread.join()
    assert seen == [False]


def _casts(*tensors: pb.Tensor) -> int:
    """How many conversions of a parameter the values need."""
    nodes = ancestors([t.node for t in tensors], stop_at_buffers=False)
    return sum(n.op.name == "convert" and n.inputs[0].requires_grad for n in nodes)


@pytest.mark.parametrize(("cache", "casts"), [(None, 1), (True, 1), (False, 2)])
def test_a_parameter_is_cast_once_in_a_region(cache: bool | None, casts: int) -> None:
    x, w = pb.ones(2, 2), pb.ones(2, 2, requires_grad=True)
    with pb.autocast("cpu", cache_enabled=cache):
        first = x @ w
        with pb.autocast("cpu"):
            second = x @ w
    assert _casts(first, second) == casts


def test_a_parameter_changed_inside_a_region_is_cast_anew() -> None:
    w = pb.ones(1, 1, requires_grad=True)
    with pb.autocast("cpu"):
        before = pb.ones(1, 1) @ w
        with pb.no_grad():
            w.add_(1.0)
        after = pb.ones(1, 1) @ w
    assert (before.item(), after.item()) == (1.0, 2.0)


def test_a_cast_made_under_no_grad_does_not_hide_the_parameter() -> None:
    w = pb.ones(1, 1, requires_grad=True)
    with pb.autocast("cpu"):
        with pb.no_grad():
            unseen = pb.ones(1, 1) @ w
        seen = pb.ones(1, 1) @ w
    assert not unseen.requires_grad
    seen.backward()
    assert w.grad is not None
    assert (w.grad.dtype, w.grad.item()) == (pb.float32, 1.0)


def test_a_region_keeps_no_memory() -> None:
    with pb.autocast("cpu"):
        w = pb.ones(2, 2, requires_grad=True)
        node = weakref.ref((pb.ones(2, 2) @ w).node)
        del w
        gc.collect()
        assert node() is None
        assert not MODE.autocast.casts


def test_a_users_function_runs_in_its_region_both_ways() -> None:
    dtypes: list[Any] = []

    class Product(pb.autograd.Function):
        @staticmethod
        def forward(context: Any, x: pb.Tensor, w: pb.Tensor) -> pb.Tensor:
            context.save_for_backward(x, w)
            return x @ w

        @staticmethod
        def backward(context: Any, cotangent: pb.Tensor) -> tuple[pb.Tensor, pb.Tensor]:
            x, w = context.saved_tensors
            dtypes.append((cotangent @ w.T).dtype)
            return cotangent @ w.T, x.T @ cotangent

    x, w = pb.ones(2, 2, requires_grad=True), pb.ones(2, 2, requires_grad=True)
    with pb.autocast("cpu"):
        y = Product.apply(x, w)
    y.sum().backward()
    assert dtypes == [pb.bfloat16]
    assert w.grad is not None
    assert w.grad.dtype is pb.float32
    np.testing.assert_array_equal(numbers(w.grad), 2.0)


@pytest.mark.parametrize("cast", [False, True])
@pytest.mark.parametrize("region", [False, True])
def test_decorated_functions_run_in_the_modes_of_pytorchs(cast: bool, region: bool) -> None:
    def told(lib: Any) -> list[Any]:
        seen: list[Any] = []

        class Product(lib.autograd.Function):  # type: ignore[name-defined, misc]
            @staticmethod
            @lib.amp.custom_fwd(device_type="cpu", cast_inputs=lib.float16 if cast else None)
            def forward(context: Any, x: Any, w: Any) -> Any:
                seen.append((str(x.dtype), str(w.dtype), lib.is_autocast_enabled("cpu")))
                context.save_for_backward(x, w)
                return x @ w

            @staticmethod
            @lib.amp.custom_bwd(device_type="cpu")
            def backward(context: Any, cotangent: Any) -> Any:
                x, w = context.saved_tensors
                seen.append((str(x.dtype), lib.is_autocast_enabled("cpu"), str(lib.get_autocast_dtype("cpu"))))
                return cotangent.to(x.dtype) @ w.T, x.T @ cotangent.to(x.dtype)

        x, w = lib.ones(2, 2, requires_grad=True), lib.ones(2, 2, dtype=lib.float64)
        with lib.autocast("cpu", dtype=lib.bfloat16, enabled=region):
            y = Product.apply(x, w.to(lib.float32))
        seen.append(str(y.dtype))
        y.sum().backward()
        return [str(part).replace("pullback", "torch") for part in seen]

    assert told(pb) == told(torch)
    for lib in (pb, torch):
        with pytest.raises(ValueError):
            lib.amp.custom_fwd(device_type=1)(lambda ctx: None)


# ---- compiled steps


def test_a_compiled_step_is_recorded_once_a_state() -> None:
    recorded = []

    @pb.compile
    def product(x: pb.Tensor) -> pb.Tensor:
        recorded.append(pb.is_autocast_enabled())
        return x @ x

    x = pb.ones(2, 2)
    for _ in range(2):
        assert product(x).dtype is pb.float32
        with pb.autocast("cpu"):
            assert product(x).dtype is pb.bfloat16
            with pb.autocast("cpu", pb.float16):
                assert product(x).dtype is pb.float16
            with pb.autocast("cpu", enabled=False):
                assert product(x).dtype is pb.float32
    assert recorded == [False, True, True]


def test_a_region_inside_a_compiled_step_trains_as_outside_of_it() -> None:
    def train(compiled: bool, around: bool) -> list[float]:
        pb.manual_seed(0)
        model = pb.nn.Sequential(pb.nn.Linear(5, 9), pb.nn.ReLU(), pb.nn.Linear(9, 3))
        optimizer = pb.optim.AdamW(model.parameters(), lr=0.05)
        x, y = pb.randn(8, 5), pb.tensor([0, 1, 2, 0, 1, 2, 0, 1])

        def step() -> pb.Tensor:
            optimizer.zero_grad()
            with pb.autocast("cpu"):
                loss = pb.nn.functional.cross_entropy(model(x), y)
            loss.backward()
            pb.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
            optimizer.step()
            return loss

        run = pb.compile(step) if compiled else step
        losses = []
        for _ in range(4):
            with pb.autocast("cpu", enabled=around):
                losses.append(run().item())
        assert all(
            p.dtype is pb.float32 and p.grad is not None and p.grad.dtype is pb.float32 for p in model.parameters()
        )
        return losses

    plain = train(compiled=False, around=False)
    assert plain[-1] < plain[0]
    assert train(compiled=True, around=False) == train(compiled=True, around=True)
    np.testing.assert_allclose(train(compiled=True, around=False), plain, rtol=1e-2)


# ---- errors and warnings


def test_cuda_warns_once_and_runs_on_the_processor(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(autocast_mode._State, "warned", set())
    with pytest.warns(UserWarning, match="no such device") as caught:
        for _ in range(3):
            with pb.autocast("cuda"):
                assert (pb.ones(2, 2) @ pb.ones(2, 2)).dtype is pb.float16
    assert len(caught) == 1
    with pb.autocast(device_type="cuda", dtype=pb.bfloat16):
        assert (pb.ones(2, 2) @ pb.ones(2, 2)).dtype is pb.bfloat16


def test_cuda_switched_off_does_not_warn(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(autocast_mode._State, "warned", set())
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        with pb.autocast("cuda", enabled=False):
            assert (pb.ones(2, 2) @ pb.ones(2, 2)).dtype is pb.float32


@pytest.mark.parametrize("device", ["tpu", "mps", "CPU", ""])
def test_an_unknown_device_is_named(device: str) -> None:
    for call in (pb.autocast, pb.get_autocast_dtype, pb.is_autocast_enabled):
        with pytest.raises(RuntimeError, match="expected one of cpu, cuda"):
            call(device)
    assert not pb.amp.is_autocast_available(device)
    assert pb.amp.is_autocast_available("cpu")


def test_wrong_arguments_raise() -> None:
    with pytest.raises(ValueError, match="device_type must be a string"):
        pb.autocast(pb.bfloat16)  # type: ignore[arg-type]
    with pytest.raises(TypeError, match="dtype must be"):
        pb.autocast("cpu", "bfloat16")  # type: ignore[arg-type]


def test_a_dtype_that_is_not_low_switches_the_region_off_as_in_pytorch() -> None:
    with pytest.warns(UserWarning, match="float64 is not supported"), pb.autocast("cpu", pb.float64):
        assert not pb.is_autocast_enabled()
        assert (pb.ones(2, 2) @ pb.ones(2, 2)).dtype is pb.float32
