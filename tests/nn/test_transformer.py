"""Attention with several heads and the Transformer: what PyTorch's database of modules does not try."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch

import pullback as pb
from pullback import debug
from pullback.errors import DTypeError, ShapeError

F = pb.nn.functional
MASK = "generate_square_subsequent_mask"


def language_model(library: Any) -> Any:
    """A causal model of sequences of symbols, and what it is trained on."""
    n = library.nn

    class Model(n.Module):
        def __init__(self) -> None:
            super().__init__()
            self.symbols = n.Embedding(11, 8)
            layer = n.TransformerEncoderLayer(8, 2, 16, dropout=0.0, batch_first=True, activation="gelu")
            self.encoder = n.TransformerEncoder(layer, 2, norm=n.LayerNorm(8), enable_nested_tensor=False)
            self.head = n.Linear(8, 11)

        def forward(self, x: Any) -> Any:
            mask = n.Transformer.generate_square_subsequent_mask(x.shape[1], dtype=library.float64)
            return self.head(self.encoder(self.symbols(x), mask=mask))

    symbols = np.random.default_rng(0).integers(0, 11, (3, 7))
    x, y = library.tensor(symbols[:, :-1]), library.tensor(symbols[:, 1:])
    model = Model().double()
    return model, lambda: n.functional.cross_entropy(model(x).flatten(0, 1), y.flatten())


def translator(library: Any) -> Any:
    """Sequence to sequence, with padding."""
    n = library.nn
    model = n.Transformer(8, 2, 1, 1, 16, dropout=0.0, norm_first=True).double()
    draw = np.random.default_rng(1).standard_normal
    source, target, wanted = (library.tensor(draw(shape)) for shape in ((5, 3, 8), (4, 3, 8), (4, 3, 8)))
    padding = library.tensor(np.arange(5) >= np.array([[5], [3], [4]]))
    mask = model.generate_square_subsequent_mask(4, dtype=library.float64)
    named = {"src_key_padding_mask": padding, "memory_key_padding_mask": padding, "tgt_mask": mask}
    return model, lambda: ((model(source, target, **named) - wanted) ** 2).mean()


def vision_transformer(library: Any) -> Any:
    """Images in patches, with a token for the class (Dosovitskiy et al., 2021)."""
    n = library.nn

    class Model(n.Module):
        def __init__(self) -> None:
            super().__init__()
            self.patches = n.Conv2d(1, 8, 4, stride=4)
            self.token = n.Parameter(library.zeros(1, 1, 8))
            self.places = n.Parameter(library.ones(1, 5, 8))
            layer = n.TransformerEncoderLayer(8, 2, 16, 0.0, n.functional.gelu, batch_first=True, norm_first=True)
            self.encoder = n.TransformerEncoder(layer, 2, enable_nested_tensor=False)
            self.head = n.Sequential(n.LayerNorm(8), n.Linear(8, 3))

        def forward(self, images: Any) -> Any:
            x = self.patches(images).flatten(2).transpose(1, 2)
            x = library.cat([self.token.expand(len(x), -1, -1), x], 1) + self.places
            return self.head(self.encoder(x)[:, 0])

    images = library.tensor(np.random.default_rng(2).standard_normal((4, 1, 8, 8)))
    classes = library.tensor([0, 1, 2, 1])
    model = Model().double()
    return model, lambda: n.functional.cross_entropy(model(images), classes)


def train(library: Any, model: Any, loss_of: Any, compiled: bool = False) -> list[float]:
    """The losses of 20 steps."""
    optimizer = library.optim.AdamW(model.parameters(), lr=1e-2)

    def step() -> Any:
        optimizer.zero_grad()
        loss = loss_of()
        loss.backward()
        optimizer.step()
        return loss

    run = library.compile(step) if compiled else step
    return [run().item() for _ in range(20)]


@pytest.mark.parametrize("compiled", [True, False], ids=["compiled", "call by call"])
@pytest.mark.parametrize("build", [language_model, translator, vision_transformer])
def test_losses_of_twenty_steps_are_pytorchs(build: Any, compiled: bool) -> None:
    torch.manual_seed(0)
    model, loss_of = build(torch)
    ours, our_loss = build(pb)
    ours.load_state_dict({k: v.numpy() for k, v in model.state_dict().items()})
    expected = train(torch, model, loss_of)
    with debug.override(backend="native" if compiled else "reference"):
        found = train(pb, ours, our_loss, compiled)
    np.testing.assert_allclose(found, expected, rtol=1e-8)
    assert expected[-1] < expected[0]


def given_keys(library: Any, static: bool, weights: bool) -> list[Any]:
    """multi_head_attention_forward with keys and values of its own, and gradients."""
    draw = np.random.default_rng(3).standard_normal

    def leaf(*shape: int) -> Any:
        return library.tensor(draw(shape)).requires_grad_()

    query, key = leaf(3, 2, 4), leaf(5, 2, 4)
    parameters = leaf(12, 4), leaf(12), leaf(4, 4), leaf(4)
    kept = (leaf(4, 5, 2), leaf(4, 5, 2)) if static else (None, None)
    w_in, b_in, w_out, b_out = parameters
    result, found = library.nn.functional.multi_head_attention_forward(
        query, key, key, 4, 2, w_in, b_in, None, None, False, 0.5, w_out, b_out, training=False,
        need_weights=weights, static_k=kept[0], static_v=kept[1], average_attn_weights=False,
    )  # fmt: skip
    (result**2).sum().backward()
    leaves = [query, w_in, b_in, w_out, b_out, *(kept if static else (key,))]
    return [result, *([found] if weights else []), *(t.grad for t in leaves)]


@pytest.mark.parametrize("weights", [True, False])
@pytest.mark.parametrize("static", [True, False])
def test_multi_head_attention_forward_is_pytorchs(static: bool, weights: bool) -> None:
    with debug.override(backend="reference"):
        for a, b in zip(given_keys(pb, static, weights), given_keys(torch, static, weights), strict=True):
            np.testing.assert_allclose(a.tolist(), b.tolist(), rtol=1e-10, atol=1e-12)


def test_a_mask_made_for_causal_attention_is_known_in_a_step_and_outside_and_a_changed_one_is_not() -> None:
    pb.manual_seed(0)
    layer = pb.nn.TransformerEncoderLayer(4, 1, 4, dropout=0.0, batch_first=True)
    encoder = pb.nn.TransformerEncoder(layer, 1)
    said: list[bool] = []
    inner = encoder.layers[0].forward
    encoder.layers[0].forward = lambda *a, **k: said.append(k["is_causal"]) or inner(*a, **k)
    mask, x = getattr(pb.nn.Transformer, MASK)(3), pb.arange(12.0).sin().reshape(1, 3, 4)
    step = pb.compile(lambda: encoder(x, mask=mask)[0, 0, 0])
    with debug.override(backend="reference"):
        encoder(x, mask=mask)
        before = step().item()
        step(), encoder(x, mask=mask * 1)
        assert said == [True, True, False]
        x[0, 2, 1] = 5.0
        mask.copy_(pb.zeros(3, 3))
        after = step().item()
        assert said == [True, True, False, False]
        assert after == pytest.approx(encoder(x)[0, 0, 0].item(), abs=1e-5) and after != before


def test_dropout_of_weights_is_in_training_alone_and_differs_by_call() -> None:
    attention, x = pb.nn.MultiheadAttention(8, 2, dropout=0.5), pb.randn(4, 3, 8)
    with debug.override(backend="reference"):
        first, second = (attention(x, x, x)[1] for _ in range(2))
        assert (first == 0).any() and (first != second).any()
        attention.eval()
        np.testing.assert_allclose(
            attention(x, x, x)[0].tolist(), attention(x, x, x, need_weights=False)[0].tolist(), rtol=1e-4, atol=1e-6
        )


def test_layers_take_sixteen_bit_floats() -> None:
    theirs = torch.nn.TransformerEncoderLayer(8, 2, 16, dropout=0.0).bfloat16()
    ours = pb.nn.TransformerEncoderLayer(8, 2, 16, dropout=0.0)
    ours.load_state_dict({k: v.float().numpy() for k, v in theirs.state_dict().items()})
    x = np.random.default_rng(4).standard_normal((5, 2, 8)).astype("float32")
    with debug.override(backend="reference"):
        found = ours.bfloat16()(pb.tensor(x).bfloat16())
        assert found.dtype is pb.bfloat16
        expected = theirs(torch.tensor(x).bfloat16())
        np.testing.assert_allclose(found.float().tolist(), expected.float().tolist(), rtol=3e-2, atol=3e-2)


def test_what_does_not_fit_is_refused_with_the_shapes() -> None:
    attention = pb.nn.MultiheadAttention(4, 2)
    x, y = pb.ones(3, 2, 4), pb.ones(5, 2, 4)
    with pytest.raises(ShapeError, match=r"attn_mask must be \[3, 5\] or \[4, 3, 5\], got \[5, 3\]"):
        attention(x, y, y, attn_mask=pb.zeros(5, 3))
    with pytest.raises(ShapeError, match=r"key_padding_mask must be \[2, 5\], got \[5, 2\]"):
        attention(x, y, y, key_padding_mask=pb.zeros(5, 2))
    with pytest.raises(DTypeError, match="attn_mask must be bool or floating point, got int64"):
        attention(x, y, y, attn_mask=pb.zeros(3, 5, dtype=pb.int64))
    with pytest.raises(ShapeError, match="keys and values must go in pairs"):
        attention(x, y, x)
    with pytest.raises(ShapeError, match="operands of 3 axes"):
        attention(x, y[0], y[0])
    with pytest.raises(ValueError, match="needs attn_mask"):
        attention(x, x, x, is_causal=True)
    with pytest.raises(ValueError, match="embed_dim divisible by num_heads, got 5 and 2"):
        pb.nn.MultiheadAttention(5, 2)
    with pytest.raises(RuntimeError, match=r"activation should be relu/gelu, not 'tanh'.*or a function"):
        pb.nn.TransformerEncoderLayer(4, 2, activation="tanh")
    with pytest.raises(ShapeError, match="must have as many examples"):
        pb.nn.Transformer(4, 2, 1, 1, 4)(pb.ones(3, 2, 4), pb.ones(3, 1, 4))
    with pytest.raises(ValueError, match="device 'cuda' is not there"):
        pb.nn.Transformer(4, 2, 1, 1, 4, device="cuda")
