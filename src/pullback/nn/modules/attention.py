"""MultiheadAttention."""

from __future__ import annotations

from ...graph.types import DType
from ...ops.primitive import user_source
from ...tensor import Tensor
from ...tensor.creation import empty
from .. import init
from ..functional.multi_head import Masks, Projections, Weights, attend
from ..parameter import Parameter
from .linear import NonDynamicallyQuantizableLinear
from .module import Module


class MultiheadAttention(Module):
    """Attention with several heads (Vaswani et al., "Attention Is All You Need", 2017, section 3.2.2).

    Parameters are PyTorch's: `in_proj_weight` [3 E, E] (or `q_proj_weight`, `k_proj_weight`, `v_proj_weight` where
    `kdim` or `vdim` is not E = `embed_dim`), `in_proj_bias` [3 E], `out_proj`, and with `add_bias_kv` one more key and
    value, `bias_k` and `bias_v` [1, 1, E]. With `add_zero_attn` there is one more key and value of zeros.

    >>> attention = pb.nn.MultiheadAttention(8, 2, batch_first=True)
    >>> x = pb.ones(3, 5, 8)
    >>> result, weights = attention(x, x, x)
    >>> result.shape, weights.shape
    (pullback.Size([3, 5, 8]), pullback.Size([3, 5, 5]))
    """

    def __init__(
        self,
        embed_dim: int,
        num_heads: int,
        dropout: float = 0.0,
        bias: bool = True,
        add_bias_kv: bool = False,
        add_zero_attn: bool = False,
        kdim: int | None = None,
        vdim: int | None = None,
        batch_first: bool = False,
        device: str | None = None,
        dtype: DType | None = None,
    ):
        super().__init__()
        if embed_dim <= 0 or num_heads <= 0 or embed_dim % num_heads:
            raise ValueError(
                "MultiheadAttention: embed_dim and num_heads must be positive, and embed_dim divisible by num_heads, "
                f"got {embed_dim} and {num_heads} (at {user_source()})"
            )
        self.embed_dim, self.num_heads, self.head_dim = embed_dim, num_heads, embed_dim // num_heads
        self.kdim, self.vdim = embed_dim if kdim is None else kdim, embed_dim if vdim is None else vdim
        self._qkv_same_embed_dim = self.kdim == embed_dim == self.vdim
        self.dropout, self.batch_first, self.add_zero_attn = dropout, batch_first, add_zero_attn
        same = self._qkv_same_embed_dim
        shapes: dict[str, tuple[int, ...] | None] = {
            "in_proj_weight": (3 * embed_dim, embed_dim) if same else None,
            "q_proj_weight": None if same else (embed_dim, embed_dim),
            "k_proj_weight": None if same else (embed_dim, self.kdim),
            "v_proj_weight": None if same else (embed_dim, self.vdim),
            "in_proj_bias": (3 * embed_dim,) if bias else None,
            "bias_k": (1, 1, embed_dim) if add_bias_kv else None,
            "bias_v": (1, 1, embed_dim) if add_bias_kv else None,
        }
        for name, shape in shapes.items():
            held = None if shape is None else Parameter(empty(shape, dtype=dtype, device=device))
            self.register_parameter(name, held)
        self.out_proj = NonDynamicallyQuantizableLinear(embed_dim, embed_dim, bias=bias, dtype=dtype)
        self._reset_parameters()

    def _reset_parameters(self) -> None:
        """Draw the parameters anew; all but `out_proj.weight`, as PyTorch's."""
        for name in ("in_proj_weight", "q_proj_weight", "k_proj_weight", "v_proj_weight"):
            if self._parameters[name] is not None:
                init.xavier_uniform_(getattr(self, name))
        if self.in_proj_bias is not None:
            init.zeros_(self.in_proj_bias)
            init.zeros_(self.out_proj.bias)
        for bias in (self.bias_k, self.bias_v):
            if bias is not None:
                init.xavier_normal_(bias)

    def _projections(self) -> Projections:
        separate = None
        if not self._qkv_same_embed_dim:
            separate = (self.q_proj_weight, self.k_proj_weight, self.v_proj_weight)
        further = None if self.bias_k is None else (self.bias_k, self.bias_v)
        last = self.out_proj
        return Projections(self.in_proj_weight, separate, self.in_proj_bias, further, last.weight, last.bias)

    def forward(
        self,
        query: Tensor,
        key: Tensor,
        value: Tensor,
        key_padding_mask: Tensor | None = None,
        need_weights: bool = True,
        attn_mask: Tensor | None = None,
        average_attn_weights: bool = True,
        is_causal: bool = False,
    ) -> tuple[Tensor, Tensor | None]:
        """The result, as query, and the weights [N, L, S] (None unless `need_weights`).

        query is [L, N, E], key [S, N, kdim] and value [S, N, vdim], or all without N; with `batch_first` N stands in
        front. Masks are bool (True: may NOT be looked at) or added to the scores: `attn_mask` [L, S] or [N H, L, S],
        `key_padding_mask` [N, S]. `is_causal` says that attn_mask is the causal mask, and then it is not read.
        The weights of each head are [N, H, L, S], given if not `average_attn_weights`. Without `need_weights` no matrix
        of weights is kept (see scaled_dot_product_attention), and a query that may look at nothing gets zeros; with
        them it gets NaN, as in PyTorch.
        """
        return attend(
            (query, key, value),
            self.num_heads,
            self._projections(),
            Masks(attn_mask, key_padding_mask, is_causal),
            Weights(self.dropout if self.training else 0.0, need_weights, average_attn_weights),
            self.add_zero_attn,
            batch_first=self.batch_first and query.ndim == 3,
        )


__all__ = ["MultiheadAttention"]
