"""The models of published sizes: their numbers of parameters, and Llama against the same network written in PyTorch."""

from __future__ import annotations

import numpy as np
import pytest
import torch

import pullback as pb
from pullback.runtime.buffers import live_bytes
from pullback.train import models
from pullback.train.llama import Llama, LlamaConfiguration

SMALL = LlamaConfiguration(vocabulary=31, width=32, layers=2, heads=4, key_heads=2, hidden=48)
#: as published, and as counted in the weights that are
PARAMETERS = {
    "gpt2": 124_439_808,
    "gpt2-medium": 354_823_168,
    "gpt2-large": 774_030_080,
    "gpt2-xl": 1_557_611_200,
    "llama-7b": 6_738_415_616,
    "llama-13b": 13_015_864_320,
    "llama-70b": 68_976_648_192,
}


@pytest.mark.parametrize("name", models.SIZES)
def test_models_have_the_published_sizes(name: str) -> None:
    before = live_bytes()
    model = models.language_model(name)
    assert sum(parameter.numel() for parameter in model.parameters()) == PARAMETERS[name]
    assert live_bytes() - before < 1 << 20


def reference(weights: dict[str, torch.Tensor], tokens: torch.Tensor, sizes: LlamaConfiguration) -> torch.Tensor:
    """Llama's scores, with rotations as multiplications of complex numbers and key heads repeated."""
    batch, length = tokens.shape
    features = sizes.width // sizes.heads
    frequencies = sizes.base ** -(torch.arange(0, features, 2, dtype=torch.float64) / features)
    turns = torch.polar(
        torch.ones(length, features // 2, dtype=torch.float64),
        torch.arange(length, dtype=torch.float64)[:, None] * frequencies,
    )

    def norm(x: torch.Tensor, name: str) -> torch.Tensor:
        return x / (x.square().mean(-1, keepdim=True) + sizes.epsilon).sqrt() * weights[f"{name}.weight"]

    def rotate(x: torch.Tensor) -> torch.Tensor:
        turned = torch.complex(x[..., : features // 2], x[..., features // 2 :]) * turns
        return torch.cat([turned.real, turned.imag], -1)

    def heads(x: torch.Tensor, name: str, count: int) -> torch.Tensor:
        return (x @ weights[f"{name}.weight"].T).view(batch, length, count, features).transpose(1, 2)

    x = weights["embed_tokens.weight"][tokens]
    ahead = torch.ones(length, length).triu(1).bool()
    for layer in range(sizes.layers):
        place = f"layers.{layer}"
        h = norm(x, f"{place}.input_layernorm")
        query = rotate(heads(h, f"{place}.self_attn.q_proj", sizes.heads))
        key = rotate(heads(h, f"{place}.self_attn.k_proj", sizes.key_heads))
        value = heads(h, f"{place}.self_attn.v_proj", sizes.key_heads)
        key, value = (t.repeat_interleave(sizes.heads // sizes.key_heads, 1) for t in (key, value))
        scores = (query @ key.transpose(-1, -2) / features**0.5).masked_fill(ahead, -torch.inf)
        seen = (scores.softmax(-1) @ value).transpose(1, 2).reshape(batch, length, sizes.width)
        x = x + seen @ weights[f"{place}.self_attn.o_proj.weight"].T
        h = norm(x, f"{place}.post_attention_layernorm")
        gate = torch.nn.functional.silu(h @ weights[f"{place}.mlp.gate_proj.weight"].T)
        x = x + (gate * (h @ weights[f"{place}.mlp.up_proj.weight"].T)) @ weights[f"{place}.mlp.down_proj.weight"].T
    return norm(x, "norm") @ weights["lm_head.weight"].T


def test_llama_is_that_of_the_paper() -> None:
    pb.manual_seed(0)
    model = Llama(SMALL)
    with pb.no_grad():
        for parameter in model.parameters():
            parameter.add_(0.1 * pb.randn(*parameter.shape))
    tokens = np.random.default_rng(0).integers(0, SMALL.vocabulary, (3, 17))
    weights = {name: torch.tensor(p.detach().numpy()).double() for name, p in model.named_parameters()}
    for weight in weights.values():
        weight.requires_grad_()
    expected = reference(weights, torch.tensor(tokens), SMALL)
    found = model(pb.tensor(tokens))
    np.testing.assert_allclose(found.detach().numpy(), expected.detach().numpy(), rtol=2e-4, atol=2e-5)
    expected.square().mean().backward()
    found.square().mean().backward()
    for name, parameter in model.named_parameters():
        gradient = weights[name].grad.numpy()
        np.testing.assert_allclose(
            parameter.grad.numpy(), gradient, rtol=1e-3, atol=1e-4 * np.abs(gradient).max(), err_msg=name
        )


def test_a_step_of_a_small_llama_learns() -> None:
    pb.manual_seed(0)
    model = Llama(SMALL)
    step, (x, y) = models.training_step(model, pb.optim.AdamW(model.parameters(), lr=1e-2), 2, 16)
    run = pb.compile(step)
    losses = [run(x, y).item() for _ in range(20)]
    assert losses[-1] < 0.2 * losses[0]
    assert run.memory.peak_bytes == run.plan(x, y).peak_bytes


def test_gpt2_shares_its_embedding() -> None:
    model = models.language_model("gpt2")
    assert model.head.weight is model.token_embedding.weight


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"heads": 3}, r"width \(32\) must be a multiple of twice the heads \(3\)"),
        ({"key_heads": 3}, r"heads \(4\) must be a multiple of key_heads \(3\)"),
        ({"layers": 0}, "layers must be a whole number of at least 1, got 0"),
    ],
)
def test_sizes_that_do_not_fit_are_refused(changes: dict[str, int], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        LlamaConfiguration(**{**vars(SMALL), **changes})


def test_positions_are_limited_where_they_are_learned() -> None:
    models.check_tokens("llama-7b", 100_000)
    with pytest.raises(ValueError, match="tokens must be at most 1024 for gpt2"):
        models.check_tokens("gpt2", 1025)
