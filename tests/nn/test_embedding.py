"""Embeddings and bags of them as modules; the functions are tried with PyTorch's database."""

import numpy as np
import pytest
import torch

import pullback as pb

NUMBERS = np.array([[1, 3, 3], [0, 2, 1]])
FLAT, STARTS = np.array([1, 3, 3, 0, 2, 1]), np.array([0, 2, 2, 5])
EMBEDDINGS = [
    {},
    {"padding_idx": 1},
    {"max_norm": 0.7},
    {"max_norm": 1.0, "norm_type": 1.0, "scale_grad_by_freq": True},
]
BAGS = [
    *({"mode": mode, **options} for mode in ("sum", "mean", "max") for options in ({}, {"padding_idx": 3})),
    {"mode": "sum", "max_norm": 0.5},
    {"include_last_offset": True},
]


def tables(name, options):
    theirs = getattr(torch.nn, name)(4, 5, **options).to(torch.float64)
    ours = getattr(pb.nn, name)(4, 5, **options).to(pb.float64)
    assert repr(ours) == repr(theirs)
    ours.load_state_dict({k: v.numpy() for k, v in theirs.state_dict().items()})
    return (pb, ours), (torch, theirs)


def compared(results):
    for found, wanted in zip(*results, strict=True):
        np.testing.assert_allclose(found, wanted, rtol=1e-9, atol=1e-12)


@pytest.mark.parametrize("options", EMBEDDINGS, ids=str)
def test_embeddings_are_pytorchs(options):
    results = []
    for lib, table in tables("Embedding", options):
        found = table(lib.tensor(NUMBERS))
        (found * found).sum().backward()
        results.append([found.detach().numpy(), table.weight.grad.numpy(), table.weight.detach().numpy()])
    compared(results)


@pytest.mark.parametrize("flat", [True, False])
@pytest.mark.parametrize("options", BAGS, ids=str)
def test_bags_are_pytorchs(options, flat):
    results = []
    for lib, table in tables("EmbeddingBag", options):
        starts = [*STARTS, 6] if "include_last_offset" in options else STARTS
        bags = flat or "include_last_offset" in options
        found = table(lib.tensor(FLAT), lib.tensor(starts)) if bags else table(lib.tensor(NUMBERS))
        (found * found).sum().backward()
        results.append([found.detach().numpy(), table.weight.grad.numpy(), table.weight.detach().numpy()])
    compared(results)


def test_gradients_scaled_by_frequency_in_bags_are_those_of_embeddings():
    """PyTorch's CPU divides by the counts of other rows here (`counts[indices[i]]`, i the number of a distinct row)."""
    weight = pb.randn(4, 5, dtype=pb.float64, requires_grad=True)
    options = {"scale_grad_by_freq": True}
    bags = pb.nn.functional.embedding_bag(pb.tensor(NUMBERS), weight, mode="sum", **options)
    rows = pb.nn.functional.embedding(pb.tensor(NUMBERS), weight, **options).sum(1)
    found, wanted = (pb.autograd.grad((t * t).sum(), weight)[0].numpy() for t in (bags, rows))
    np.testing.assert_allclose(found, wanted, rtol=1e-12)


@pytest.mark.parametrize("name", ["Embedding", "EmbeddingBag"])
def test_given_tables(name):
    values = np.random.default_rng(0).normal(size=(4, 3))
    cls = getattr(pb.nn, name)
    table = cls.from_pretrained(pb.tensor(values))
    assert not table.weight.requires_grad and cls.from_pretrained(pb.tensor(values), freeze=False).weight.requires_grad
    np.testing.assert_array_equal(table.weight.numpy(), values)
    with pytest.raises(NotImplementedError, match="sparse"):
        cls(3, 2, sparse=True)
    with pytest.raises(RuntimeError, match="weight"):
        cls(3, 2, _weight=pb.ones(2, 2))


@pytest.mark.parametrize("starts", [[1, 2], [0, 3, 2], [0, 7]])
def test_offsets_that_are_none_are_refused(starts):
    with pytest.raises(ValueError, match="offsets"):
        pb.nn.functional.embedding_bag(pb.tensor(FLAT), pb.ones(4, 2), pb.tensor(starts)).numpy()


@pytest.mark.parametrize(
    "options",
    [
        {"mode": "min"},
        {"offsets": pb.tensor([0])},
        {"include_last_offset": True},
        {"mode": "max", "scale_grad_by_freq": True},
        {"mode": "mean", "per_sample_weights": pb.ones(2, 3)},
        {"mode": "sum", "per_sample_weights": pb.ones(3)},
        {"padding_idx": 9},
    ],
    ids=lambda options: ", ".join(options),
)
def test_options_that_do_not_go_together_are_refused(options):
    with pytest.raises((ValueError, NotImplementedError, IndexError)):
        pb.nn.functional.embedding_bag(pb.tensor(NUMBERS), pb.ones(4, 2), **options)


def test_a_compiled_step_renormalizes_and_trains():
    results = []
    for lib, table in tables("EmbeddingBag", {"max_norm": 0.6, "mode": "sum"}):
        optimizer = lib.optim.SGD(table.parameters(), lr=0.1)

        def step(numbers, starts, table=table, optimizer=optimizer):
            optimizer.zero_grad()
            loss = (table(numbers, starts) ** 2).sum()
            loss.backward()
            optimizer.step()
            return loss

        run = pb.compile(step) if lib is pb else step
        results.append([run(lib.tensor(FLAT), lib.tensor(STARTS)).item() for _ in range(3)])
    compared(results)
