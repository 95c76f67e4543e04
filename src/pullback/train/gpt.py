"""A language model of characters: the decoder of GPT-2, small enough to train on two cores in minutes.

Radford et al., Language Models are Unsupervised Multitask Learners (2019): normalization before each part of a block,
learned positions, projections into the residual stream initialized smaller by the square root of their number.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass

import numpy as np

import pullback as pb
from pullback import nn

#: cross_entropy leaves targets of this value out
IGNORED = -100


@dataclass(frozen=True)
class GPTConfiguration:
    """The sizes of a model: characters known, characters seen at once, blocks, width of the residual stream, heads."""

    vocabulary: int
    context: int = 64
    layers: int = 4
    width: int = 128
    heads: int = 4
    dropout: float = 0.0

    def __post_init__(self) -> None:
        for name in ("vocabulary", "context", "layers", "width", "heads"):
            value = getattr(self, name)
            if not isinstance(value, int) or isinstance(value, bool) or value < 1:
                raise ValueError(f"{name} must be a whole number of at least 1, got {value!r}")
        if self.width % self.heads:
            raise ValueError(f"width ({self.width}) must be a multiple of heads ({self.heads})")
        if not isinstance(self.dropout, (int, float)) or not 0 <= self.dropout < 1:
            raise ValueError(f"dropout must be at least 0 and below 1, got {self.dropout!r}")

    def shapes(self) -> Iterator[tuple[str, tuple[int, ...]]]:
        """Name and shape of each parameter, one at a time: what a file must hold, known before a model is built."""
        width = self.width
        yield "token_embedding.weight", (self.vocabulary, width)
        yield "position_embedding.weight", (self.context, width)
        for layer in range(self.layers):
            for norm in ("attention_norm", "expansion_norm"):
                yield f"blocks.{layer}.{norm}.weight", (width,)
                yield f"blocks.{layer}.{norm}.bias", (width,)
            for name, outputs, inputs in (
                ("attention.query_key_value", 3 * width, width),
                ("attention.projection", width, width),
                ("expansion", 4 * width, width),
                ("contraction", width, 4 * width),
            ):
                yield f"blocks.{layer}.{name}.weight", (outputs, inputs)
                yield f"blocks.{layer}.{name}.bias", (outputs,)
        yield "final_norm.weight", (width,)
        yield "final_norm.bias", (width,)
        yield "head.weight", (self.vocabulary, width)


class Attention(nn.Module):
    """Each position looks at itself and those before it, in several heads."""

    def __init__(self, configuration: GPTConfiguration):
        super().__init__()
        self.heads = configuration.heads
        self.query_key_value = nn.Linear(configuration.width, 3 * configuration.width)
        self.projection = nn.Linear(configuration.width, configuration.width)

    def forward(self, x: pb.Tensor) -> pb.Tensor:
        batch, length, width = x.shape
        query, key, value = (
            part.reshape(batch, length, self.heads, width // self.heads).transpose(1, 2)
            for part in self.query_key_value(x).split(width, dim=-1)
        )
        seen = nn.functional.scaled_dot_product_attention(query, key, value, is_causal=True)
        return self.projection(seen.transpose(1, 2).reshape(batch, length, width))


class Block(nn.Module):
    """Attention, then a two-layer network at each position, each added to the residual stream."""

    def __init__(self, configuration: GPTConfiguration):
        super().__init__()
        width = configuration.width
        self.attention_norm = nn.LayerNorm(width)
        self.attention = Attention(configuration)
        self.expansion_norm = nn.LayerNorm(width)
        self.expansion = nn.Linear(width, 4 * width)
        self.contraction = nn.Linear(4 * width, width)
        self.dropout = nn.Dropout(configuration.dropout)

    def forward(self, x: pb.Tensor) -> pb.Tensor:
        x = x + self.dropout(self.attention(self.attention_norm(x)))
        hidden = nn.functional.gelu(self.expansion(self.expansion_norm(x)), approximate="tanh")
        return x + self.dropout(self.contraction(hidden))


class GPT(nn.Module):
    """Tokens int64 [batch, length] to scores of the next token [batch, length, vocabulary]; length ≤ context."""

    def __init__(self, configuration: GPTConfiguration):
        super().__init__()
        self.configuration = configuration
        self.token_embedding = nn.Embedding(configuration.vocabulary, configuration.width)
        self.position_embedding = nn.Embedding(configuration.context, configuration.width)
        self.dropout = nn.Dropout(configuration.dropout)
        self.blocks = nn.ModuleList([Block(configuration) for _ in range(configuration.layers)])
        self.final_norm = nn.LayerNorm(configuration.width)
        self.head = nn.Linear(configuration.width, configuration.vocabulary, bias=False)
        self._initialize()

    def _initialize(self) -> None:
        residual = 0.02 / math.sqrt(2 * self.configuration.layers)
        for name, parameter in self.named_parameters():
            if name.endswith("bias"):
                nn.init.zeros_(parameter)
            elif parameter.ndim > 1:
                into_stream = name.endswith(("projection.weight", "contraction.weight"))
                nn.init.normal_(parameter, 0.0, residual if into_stream else 0.02)

    def forward(self, tokens: pb.Tensor) -> pb.Tensor:
        length = tokens.shape[1]
        x = self.dropout(self.token_embedding(tokens) + self.position_embedding.weight[:length])
        for block in self.blocks:
            x = block(x)
        return self.head(self.final_norm(x))


def parameter_groups(model: nn.Module, weight_decay: float) -> list[dict[str, object]]:
    """The optimizer's groups: matrices decay towards zero, gains and biases do not."""
    matrices = [parameter for parameter in model.parameters() if parameter.ndim > 1]
    vectors = [parameter for parameter in model.parameters() if parameter.ndim <= 1]
    return [{"params": matrices, "weight_decay": weight_decay}, {"params": vectors, "weight_decay": 0.0}]


@contextmanager
def evaluating(model: nn.Module) -> Iterator[None]:
    """The model without dropout for the time of the block; outside of compiled functions, which are recorded anew where
    the mode has changed."""
    before = model.training
    model.eval()
    try:
        yield
    finally:
        model.train(before)


def validator(model: GPT, tokens: np.ndarray, batch_size: int) -> Callable[[], float]:
    """A function that gives the mean loss over `tokens`, in nats a token, each predicted once.

    The text is cut into windows of the context; the last ones are filled up with tokens that do not count, so that
    every call of the compiled function has the same shape.
    """
    context = model.configuration.context
    predicted = len(tokens) - 1
    rows = -(-predicted // context)
    shape = (-(-rows // batch_size), batch_size, context)
    inputs = np.zeros(shape, np.int64)
    targets = np.full(shape, IGNORED, np.int64)
    inputs.reshape(-1)[:predicted] = tokens[:-1]
    targets.reshape(-1)[:predicted] = tokens[1:]

    @pb.compile
    def total(x: pb.Tensor, y: pb.Tensor) -> pb.Tensor:
        with pb.no_grad():
            scores = model(x)
            return nn.functional.cross_entropy(
                scores.reshape(-1, scores.shape[-1]), y.reshape(-1), ignore_index=IGNORED, reduction="sum"
            )

    def validate() -> float:
        with evaluating(model):
            losses = [total(pb.tensor(x), pb.tensor(y)).item() for x, y in zip(inputs, targets, strict=True)]
        return math.fsum(losses) / predicted

    return validate


def sample(
    model: GPT, prompt: np.ndarray, count: int, generator: np.random.Generator, temperature: float = 1.0
) -> Iterator[int]:
    """`count` tokens, one by one, each drawn from what the model expects after the `prompt` and those drawn before.

    `prompt` is int64 of at least one token. At `temperature` 0 the likeliest token is taken.
    """
    context = model.configuration.context
    seen = list(prompt[-context:])

    # The window has one shape from the first character on, so one program serves them all. What stands behind the last
    # known character does not matter: attention never looks ahead.
    @pb.compile
    def expect(tokens: pb.Tensor, last: pb.Tensor) -> pb.Tensor:
        with pb.no_grad():
            here = (pb.arange(context) == last).reshape(1, context, 1)
            return pb.where(here, model(tokens), 0.0).sum(1)[0]

    for _ in range(count):
        window = np.zeros((1, context), np.int64)
        window[0, : len(seen)] = seen
        with evaluating(model):
            scores = expect(pb.tensor(window), pb.tensor(len(seen) - 1)).numpy().astype(np.float64)
        if temperature == 0:
            token = int(scores.argmax())
        else:
            # Gumbel (1954): the largest of log-probabilities with Gumbel noise is a draw from them
            token = int((scores / temperature + generator.gumbel(size=scores.shape)).argmax())
        seen = [*seen, token][-context:]
        yield token
