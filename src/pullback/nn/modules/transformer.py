"""The Transformer: layers of attention and feed-forward networks, and their stacks."""

from __future__ import annotations

import copy
import math
from collections.abc import Callable
from typing import Any
from weakref import WeakSet

from ...errors import ShapeError
from ...graph.node import Node
from ...graph.types import DType
from ...ops.primitive import user_source
from ...tensor import Tensor
from ...tensor.creation import full
from ...tensor.promotion import get_default_dtype
from ...tensor.state import STATE
from .. import functional as F
from .. import init
from .attention import MultiheadAttention
from .container import ModuleList
from .dropout import Dropout
from .linear import Linear
from .module import Module
from .normalization import LayerNorm

Activation = str | Callable[[Tensor], Tensor]

#: nodes that are causal masks: where attention gets one, it needs no mask (nodes never change)
_CAUSAL: WeakSet[Node] = WeakSet()


def _generate_square_subsequent_mask(sz: int, device: str | None = None, dtype: DType | None = None) -> Tensor:
    mask = full((sz, sz), -math.inf, dtype=dtype or get_default_dtype(), device=device).triu(1)
    _CAUSAL.add(mask._node)
    return mask


def _is_causal(mask: Tensor | None, said: bool | None) -> bool:
    """Whether `mask` is the causal one: as the caller says, or because generate_square_subsequent_mask made it.

    Values are not compared, as PyTorch does: a compiled step has none yet, and a mask that is applied as it stands
    gives the same result, more slowly.
    """
    if said is not None or mask is None:
        return bool(said)

    def made_here() -> bool:
        return _outside(mask) in _CAUSAL

    trace = STATE.trace
    return made_here() if trace is None else bool(trace.guard(made_here))


def _outside(tensor: Tensor) -> Node:
    """The node of a tensor before the step that is being recorded took it for an input."""
    captured = None if STATE.trace is None else STATE.trace.captured.get(id(tensor))
    return captured.original if captured is not None and captured.node is tensor._node else tensor._node


def _get_activation_fn(activation: str) -> Callable[[Tensor], Tensor]:
    """The function of that name."""
    if activation not in ("relu", "gelu"):
        raise RuntimeError(f"activation should be relu/gelu, not {activation!r} (at {user_source()}), or a function")
    return F.relu if activation == "relu" else F.gelu


def _get_clones(module: Module, N: int) -> ModuleList:
    """`N` copies of a module, each with parameters of its own."""
    return ModuleList([copy.deepcopy(module) for _ in range(N)])


class _Layer(Module):
    """What the layers of encoder and decoder share: a feed-forward network, and as many norms as there are blocks."""

    def __init__(
        self,
        attentions: tuple[str, ...],
        sizes: tuple[int, int, int],
        dropout: float,
        activation: Activation,
        layer_norm_eps: float,
        batch_first: bool,
        norm_first: bool,
        bias: bool,
        device: str | None,
        dtype: DType | None,
    ):
        super().__init__()
        d_model, heads, inner = sizes
        for name in attentions:
            attention = MultiheadAttention(
                d_model, heads, dropout, bias, batch_first=batch_first, device=device, dtype=dtype
            )
            self.add_module(name, attention)
        self.linear1 = Linear(d_model, inner, bias=bias, dtype=dtype)
        self.dropout = Dropout(dropout)
        self.linear2 = Linear(inner, d_model, bias=bias, dtype=dtype)
        self.norm_first = norm_first
        blocks = range(1, len(attentions) + 2)
        for number in blocks:
            self.add_module(f"norm{number}", LayerNorm(d_model, eps=layer_norm_eps, bias=bias, dtype=dtype))
        for number in blocks:
            self.add_module(f"dropout{number}", Dropout(dropout))
        self.activation = _get_activation_fn(activation) if isinstance(activation, str) else activation

    def _block(self, x: Tensor, number: int, block: Callable[[Tensor], Tensor]) -> Tensor:
        """x with what the block makes of it added, normalized before the block or after."""
        norm, dropout = getattr(self, f"norm{number}"), getattr(self, f"dropout{number}")
        if self.norm_first:
            return x + dropout(block(norm(x)))
        return norm(x + dropout(block(x)))

    def _feed_forward(self, x: Tensor) -> Tensor:
        return self.linear2(self.dropout(self.activation(self.linear1(x))))


class TransformerEncoderLayer(_Layer):
    """Self-attention and a feed-forward network, each with a residual and a normalization (Vaswani et al., 2017).

    `norm_first` normalizes before each block instead of after it (Xiong et al., 2020). `activation` is "relu", "gelu"
    or a function. Parameters are named and start as PyTorch's.

    >>> layer = pb.nn.TransformerEncoderLayer(8, 2, dim_feedforward=16, batch_first=True)
    >>> layer(pb.ones(3, 5, 8)).shape
    pullback.Size([3, 5, 8])
    """

    def __init__(
        self,
        d_model: int,
        nhead: int,
        dim_feedforward: int = 2048,
        dropout: float = 0.1,
        activation: Activation = F.relu,
        layer_norm_eps: float = 1e-5,
        batch_first: bool = False,
        norm_first: bool = False,
        bias: bool = True,
        device: str | None = None,
        dtype: DType | None = None,
    ):
        sizes = (d_model, nhead, dim_feedforward)
        super().__init__(
            ("self_attn",), sizes, dropout, activation, layer_norm_eps, batch_first, norm_first, bias, device, dtype
        )

    def forward(
        self,
        src: Tensor,
        src_mask: Tensor | None = None,
        src_key_padding_mask: Tensor | None = None,
        is_causal: bool = False,
    ) -> Tensor:
        """[S, N, E] ([N, S, E] if batch_first, or [S, E]) to the same shape; masks as in MultiheadAttention."""

        def attention(x: Tensor) -> Tensor:
            return self.self_attn(
                x,
                x,
                x,
                attn_mask=src_mask,
                key_padding_mask=src_key_padding_mask,
                need_weights=False,
                is_causal=is_causal,
            )[0]

        return self._block(self._block(src, 1, attention), 2, self._feed_forward)


class TransformerDecoderLayer(_Layer):
    """Self-attention, attention to the encoder's result and a feed-forward network (see TransformerEncoderLayer).

    >>> layer = pb.nn.TransformerDecoderLayer(8, 2, dim_feedforward=16)
    >>> layer(pb.ones(5, 3, 8), pb.ones(7, 3, 8)).shape
    pullback.Size([5, 3, 8])
    """

    def __init__(
        self,
        d_model: int,
        nhead: int,
        dim_feedforward: int = 2048,
        dropout: float = 0.1,
        activation: Activation = F.relu,
        layer_norm_eps: float = 1e-5,
        batch_first: bool = False,
        norm_first: bool = False,
        bias: bool = True,
        device: str | None = None,
        dtype: DType | None = None,
    ):
        names, sizes = ("self_attn", "multihead_attn"), (d_model, nhead, dim_feedforward)
        super().__init__(
            names, sizes, dropout, activation, layer_norm_eps, batch_first, norm_first, bias, device, dtype
        )

    def forward(
        self,
        tgt: Tensor,
        memory: Tensor,
        tgt_mask: Tensor | None = None,
        memory_mask: Tensor | None = None,
        tgt_key_padding_mask: Tensor | None = None,
        memory_key_padding_mask: Tensor | None = None,
        tgt_is_causal: bool = False,
        memory_is_causal: bool = False,
    ) -> Tensor:
        """tgt [T, N, E] and the encoder's result [S, N, E] to [T, N, E]; masks as in MultiheadAttention."""

        def own(x: Tensor) -> Tensor:
            return self.self_attn(
                x,
                x,
                x,
                attn_mask=tgt_mask,
                key_padding_mask=tgt_key_padding_mask,
                need_weights=False,
                is_causal=tgt_is_causal,
            )[0]

        def to_memory(x: Tensor) -> Tensor:
            return self.multihead_attn(
                x,
                memory,
                memory,
                attn_mask=memory_mask,
                key_padding_mask=memory_key_padding_mask,
                need_weights=False,
                is_causal=memory_is_causal,
            )[0]

        return self._block(self._block(self._block(tgt, 1, own), 2, to_memory), 3, self._feed_forward)


class TransformerEncoder(Module):
    """`num_layers` copies of a layer, one after the other, and `norm` after the last.

    `enable_nested_tensor` and `mask_check` steer how PyTorch leaves out padding at inference; here padded places are
    computed like all others, and have values of their own where PyTorch puts zeros.

    >>> encoder = pb.nn.TransformerEncoder(pb.nn.TransformerEncoderLayer(8, 2, 16), 2)
    >>> encoder(pb.ones(5, 3, 8), mask=pb.nn.Transformer.generate_square_subsequent_mask(5)).shape
    pullback.Size([5, 3, 8])
    """

    def __init__(
        self,
        encoder_layer: Module,
        num_layers: int,
        norm: Module | None = None,
        enable_nested_tensor: bool = True,
        mask_check: bool = True,
    ):
        super().__init__()
        self.layers, self.num_layers, self.norm = _get_clones(encoder_layer, num_layers), num_layers, norm
        self.enable_nested_tensor, self.mask_check = enable_nested_tensor, mask_check

    def forward(
        self,
        src: Tensor,
        mask: Tensor | None = None,
        src_key_padding_mask: Tensor | None = None,
        is_causal: bool | None = None,
    ) -> Tensor:
        """src to its own shape. With `is_causal=None` a mask of generate_square_subsequent_mask is known as causal."""
        causal = _is_causal(mask, is_causal)
        for layer in self.layers:
            src = layer(src, src_mask=mask, is_causal=causal, src_key_padding_mask=src_key_padding_mask)
        return src if self.norm is None else self.norm(src)


class TransformerDecoder(Module):
    """`num_layers` copies of a layer, one after the other, and `norm` after the last.

    >>> decoder = pb.nn.TransformerDecoder(pb.nn.TransformerDecoderLayer(8, 2, 16), 2)
    >>> decoder(pb.ones(5, 3, 8), pb.ones(7, 3, 8)).shape
    pullback.Size([5, 3, 8])
    """

    def __init__(self, decoder_layer: Module, num_layers: int, norm: Module | None = None):
        super().__init__()
        self.layers, self.num_layers, self.norm = _get_clones(decoder_layer, num_layers), num_layers, norm

    def forward(
        self,
        tgt: Tensor,
        memory: Tensor,
        tgt_mask: Tensor | None = None,
        memory_mask: Tensor | None = None,
        tgt_key_padding_mask: Tensor | None = None,
        memory_key_padding_mask: Tensor | None = None,
        tgt_is_causal: bool | None = None,
        memory_is_causal: bool = False,
    ) -> Tensor:
        """tgt to its own shape, looking at `memory`, the encoder's result."""
        causal = _is_causal(tgt_mask, tgt_is_causal)
        for layer in self.layers:
            tgt = layer(
                tgt,
                memory,
                tgt_mask=tgt_mask,
                memory_mask=memory_mask,
                tgt_key_padding_mask=tgt_key_padding_mask,
                memory_key_padding_mask=memory_key_padding_mask,
                tgt_is_causal=causal,
                memory_is_causal=memory_is_causal,
            )
        return tgt if self.norm is None else self.norm(tgt)


class Transformer(Module):
    """Encoder and decoder (Vaswani et al., "Attention Is All You Need", 2017), with PyTorch's parameters.

    >>> model = pb.nn.Transformer(d_model=8, nhead=2, num_encoder_layers=1, num_decoder_layers=1, dim_feedforward=16)
    >>> model(pb.ones(7, 3, 8), pb.ones(5, 3, 8), tgt_mask=model.generate_square_subsequent_mask(5)).shape
    pullback.Size([5, 3, 8])
    """

    def __init__(
        self,
        d_model: int = 512,
        nhead: int = 8,
        num_encoder_layers: int = 6,
        num_decoder_layers: int = 6,
        dim_feedforward: int = 2048,
        dropout: float = 0.1,
        activation: Activation = F.relu,
        custom_encoder: Any | None = None,
        custom_decoder: Any | None = None,
        layer_norm_eps: float = 1e-5,
        batch_first: bool = False,
        norm_first: bool = False,
        bias: bool = True,
        device: str | None = None,
        dtype: DType | None = None,
    ):
        super().__init__()
        how = (d_model, nhead, dim_feedforward, dropout, activation, layer_norm_eps, batch_first, norm_first, bias)

        def norm() -> LayerNorm:
            return LayerNorm(d_model, eps=layer_norm_eps, bias=bias, dtype=dtype)

        if custom_encoder is None:
            encoder_layer = TransformerEncoderLayer(*how, device=device, dtype=dtype)
            custom_encoder = TransformerEncoder(encoder_layer, num_encoder_layers, norm())
        if custom_decoder is None:
            decoder_layer = TransformerDecoderLayer(*how, device=device, dtype=dtype)
            custom_decoder = TransformerDecoder(decoder_layer, num_decoder_layers, norm())
        self.encoder, self.decoder = custom_encoder, custom_decoder
        self.d_model, self.nhead, self.batch_first = d_model, nhead, batch_first
        self._reset_parameters()

    def _reset_parameters(self) -> None:
        """Draw all matrices anew."""
        for parameter in self.parameters():
            if parameter.ndim > 1:
                init.xavier_uniform_(parameter)

    def forward(
        self,
        src: Tensor,
        tgt: Tensor,
        src_mask: Tensor | None = None,
        tgt_mask: Tensor | None = None,
        memory_mask: Tensor | None = None,
        src_key_padding_mask: Tensor | None = None,
        tgt_key_padding_mask: Tensor | None = None,
        memory_key_padding_mask: Tensor | None = None,
        src_is_causal: bool | None = None,
        tgt_is_causal: bool | None = None,
        memory_is_causal: bool = False,
    ) -> Tensor:
        """src [S, N, E] and tgt [T, N, E] to [T, N, E]; [N, …, E] if batch_first, or without N.

        Masks as in MultiheadAttention: src_mask [S, S], tgt_mask [T, T], memory_mask [T, S], padding masks [N, S] and
        [N, T].
        """
        batch = 0 if self.batch_first else 1
        if src.ndim == 3 == tgt.ndim and src.shape[batch] != tgt.shape[batch]:
            raise ShapeError(
                f"Transformer: src {list(src.shape)} and tgt {list(tgt.shape)} must have as many examples, axis "
                f"{batch} (at {user_source()})"
            )
        if src.shape[-1] != self.d_model or tgt.shape[-1] != self.d_model:
            raise ShapeError(
                f"Transformer: src {list(src.shape)} and tgt {list(tgt.shape)} must be d_model = {self.d_model} wide "
                f"(at {user_source()})"
            )
        memory = self.encoder(src, mask=src_mask, src_key_padding_mask=src_key_padding_mask, is_causal=src_is_causal)
        return self.decoder(
            tgt,
            memory,
            tgt_mask=tgt_mask,
            memory_mask=memory_mask,
            tgt_key_padding_mask=tgt_key_padding_mask,
            memory_key_padding_mask=memory_key_padding_mask,
            tgt_is_causal=tgt_is_causal,
            memory_is_causal=memory_is_causal,
        )

    @staticmethod
    def generate_square_subsequent_mask(sz: int, device: str | None = None, dtype: DType | None = None) -> Tensor:
        """[sz, sz]: 0 where position i may look (0 to i), -inf elsewhere.

        >>> pb.nn.Transformer.generate_square_subsequent_mask(2)
        tensor([[0., -inf],
                [0., 0.]])
        """
        return _generate_square_subsequent_mask(sz, device, dtype)


__all__ = [
    "Transformer",
    "TransformerDecoder",
    "TransformerDecoderLayer",
    "TransformerEncoder",
    "TransformerEncoderLayer",
]
