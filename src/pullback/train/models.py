"""Language models of published sizes, and a training step of one: what `pullback plan` plans."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pullback as pb
from pullback import nn

from .gpt import GPT, GPTConfiguration
from .llama import Llama, LlamaConfiguration


class GPT2(GPT):
    """GPT-2: a GPT whose output layer is its embedding of tokens."""

    def __init__(self, configuration: GPTConfiguration):
        super().__init__(configuration)
        self.head.weight = self.token_embedding.weight


#: Radford et al., "Language Models are Unsupervised Multitask Learners" (2019); Touvron et al., "LLaMA" and "Llama 2"
#: (2023)
SIZES: dict[str, GPTConfiguration | LlamaConfiguration] = {
    "gpt2": GPTConfiguration(50257, 1024, 12, 768, 12),
    "gpt2-medium": GPTConfiguration(50257, 1024, 24, 1024, 16),
    "gpt2-large": GPTConfiguration(50257, 1024, 36, 1280, 20),
    "gpt2-xl": GPTConfiguration(50257, 1024, 48, 1600, 25),
    "llama-7b": LlamaConfiguration(32000, 4096, 32, 32, 32, 11008),
    "llama-13b": LlamaConfiguration(32000, 5120, 40, 40, 40, 13824),
    "llama-70b": LlamaConfiguration(32000, 8192, 80, 64, 8, 28672),
}

OPTIMIZERS: dict[str, Callable[..., pb.optim.Optimizer]] = {
    "sgd": pb.optim.SGD,
    "momentum": lambda parameters: pb.optim.SGD(parameters, lr=1e-3, momentum=0.9),
    "adam": pb.optim.Adam,
    "adamw": pb.optim.AdamW,
    "adamw4bit": pb.optim.AdamW4bit,
    "adamw8bit": pb.optim.AdamW8bit,
    "lion": pb.optim.Lion,
    "lion8bit": pb.optim.Lion8bit,
    "adafactor": pb.optim.Adafactor,
}


def language_model(name: str, dtype: pb.dtype = pb.float32) -> nn.Module:
    """The model of that name (see SIZES), its parameters not drawn before they are needed."""
    sizes = SIZES[name]
    model = Llama(sizes) if isinstance(sizes, LlamaConfiguration) else GPT2(sizes)
    return model if dtype is pb.float32 else model.to(dtype)


def training_step(
    model: nn.Module, optimizer: pb.optim.Optimizer, batch: int, tokens: int
) -> tuple[Callable[..., pb.Tensor], tuple[Any, ...]]:
    """One step on `batch` rows of `tokens` tokens, and arguments for it: the mean loss of the next tokens, its
    gradients, and the update.
    """

    def step(x: pb.Tensor, y: pb.Tensor) -> pb.Tensor:
        optimizer.zero_grad()
        scores = model(x)
        loss = nn.functional.cross_entropy(scores.reshape(-1, scores.shape[-1]), y.reshape(-1))
        loss.backward()
        optimizer.step()
        return loss

    return step, tuple(pb.zeros(batch, tokens, dtype=pb.int64) for _ in range(2))


def check_tokens(name: str, tokens: int) -> None:
    """Raise ValueError where the model has no positions for so many tokens."""
    sizes = SIZES[name]
    if isinstance(sizes, GPTConfiguration) and tokens > sizes.context:
        raise ValueError(f"tokens must be at most {sizes.context} for {name}, which knows so many positions")
