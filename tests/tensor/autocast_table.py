"""Calls of every function and method in an autocast region, for both libraries."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch

import pullback as pb

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
    "max_pool3d indices": lambda p, x: p.nn.functional.max_pool3d(x(1, 1, 4, 4, 4), 2, return_indices=True),
    **{
        f"pad {mode} {axes}": lambda p, x, mode=mode, axes=axes: p.nn.functional.pad(
            x(1, 1, *(3,) * axes), (1, 1) * axes, mode
        )
        for mode in ("reflect", "replicate", "circular")
        for axes in (1, 2, 3)
    },
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
    "tensordot of all axes": lambda p, x: p.tensordot(x(2, 3), x(2, 3), 2),
    "tensordot of some axes": lambda p, x: p.tensordot(x(2, 3), x(2, 3), ([1], [1])),
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
