"""Views are PyTorch's: written through, read anew when their base changes, differentiated; one program compiled."""

import gc
import weakref

import numpy as np
import pytest
import torch

import pullback as pb
from pullback.errors import DTypeError, GradientError, TraceError, ViewError


def _in_place(f, x):
    x[0] += 3
    x[1:, 1] *= 2
    x.T[1] = 5
    x.view(-1)[11] = 7
    x.diagonal().fill_(9)
    x[..., ::2].sub_(1)
    row = x[2]
    row.mul_(2)
    x.unfold(1, 2, 2)[0, 1] = -4
    x.unsqueeze(0).transpose(0, 2)[1].add_(10)
    for piece in x.split(2):
        piece[0] = piece[0] + 1
    x.select(0, 1)[f.tensor([0, 3])] = 0.5
    x.expand(1, 3, 4)[0, 0, 0] = 100
    return x, row, x.reshape(2, 6).narrow(1, 1, 3)


def _views_follow(f, x):
    views = [x[0], x.T, x[1:, ::2], x.reshape(4, 3), x.diagonal(), x.detach(), x.detach()[1], x.chunk(2, 1)[1]]
    x.add_(1)
    x[0, 0] = -5
    return tuple(views)


def _base_is_written_by_others(f, x):
    first, second = x[0], x.view(-1)[2:6]
    first.fill_(1)
    second.mul_(10)
    return first, second, x, second.clone()


def _copies_are_apart(f, x):
    copies = [x.T.contiguous(), x.T.reshape(-1), x[0].clone(), x[f.tensor([0, 1])], x + 0, x.flip(0)]
    for copy in copies:
        copy.fill_(0)
    return (x, *copies)


def _masks_and_mixed_indices(f, x):
    mask = f.tensor([True, False, True])
    x[mask] = 1
    x[x > 4] = 0
    x[mask, 1:] += 2
    x[[True, False, False]] = f.tensor([[1.0, 2.0, 3.0, 4.0]], dtype=x.dtype)
    x[:, f.tensor([True, False, False, True])] = f.tensor([[1.0], [2.0], [3.0]], dtype=x.dtype)
    x[f.tensor(1), f.tensor([1, 2])] = -1
    x[None, 0, ..., f.tensor([0, 0])] = 8
    return x, x[mask, 1:], x[[True, False, True], [0, 1]], x[True], x[f.tensor(False)], x[f.tensor([0, 1]), None, 1]


SCRIPTS = [_in_place, _views_follow, _base_is_written_by_others, _copies_are_apart, _masks_and_mixed_indices]


def _run(library, script, x):
    results = script(library, x)
    return [r.detach().tolist() for r in results]


@pytest.mark.parametrize("script", SCRIPTS, ids=lambda s: s.__name__.strip("_"))
@pytest.mark.parametrize("backend", ["reference", "native"])
def test_scripts_of_writes_give_what_pytorch_gives(script, backend):
    wanted = _run(torch, script, torch.arange(12, dtype=torch.float64).reshape(3, 4).clone())
    with pb.debug.override(backend=backend):
        assert _run(pb, script, pb.arange(12, dtype=pb.float64).reshape(3, 4).clone()) == wanted


@pytest.mark.parametrize("script", SCRIPTS[:4], ids=lambda s: s.__name__.strip("_"))
def test_the_same_inside_a_compiled_step_that_changes_a_tensor_from_outside(script):
    theirs = torch.arange(12, dtype=torch.float64).reshape(3, 4).clone()
    ours = pb.arange(12, dtype=pb.float64).reshape(3, 4).clone()
    step = pb.compile(lambda: script(pb, ours))
    for _ in range(3):
        wanted = _run(torch, script, theirs)
        assert [r.tolist() for r in step()] == wanted
        assert ours.tolist() == theirs.tolist()


def test_views_from_outside_are_read_and_written_in_compiled_steps():
    results = []
    for library in (torch, pb):
        base = library.zeros(2, 3)
        row, column, cut = base[0], base.T[1], base.detach()
        w = library.ones(3, requires_grad=True)
        flat = w.view(-1)

        def step(library=library, base=base, row=row, column=column, cut=cut, w=w, flat=flat):
            base.add_(1)
            row.mul_(2)
            column[0] += 5
            cut[1, 2] = -1
            (flat * w * row).sum().backward()
            return column * 1

        run = pb.compile(step) if library is pb else step
        outcome = [run().tolist() for _ in range(3)]
        results.append((outcome, base.tolist(), row.tolist(), column.tolist(), cut.tolist(), w.grad.tolist()))
    assert results[0] == results[1]


def test_a_view_as_an_argument_is_written_through():
    base = pb.zeros(2, 3)

    @pb.compile
    def step(part):
        part.add_(2)

    step(base[1])
    step(base[1])
    assert base.tolist() == [[0.0] * 3, [4.0] * 3]


def test_gradients_of_writes_through_views_are_pytorchs():
    results = []
    for library in (pb, torch):
        x = library.tensor([[1.0, 2.0, 3.0], [4.0, 5.0, 6.0]], requires_grad=True)
        v = library.tensor([0.5, -1.0], requires_grad=True)
        y = x * x
        row = y[0]
        row.mul_(x[1].detach().clone())
        y.T[1] = v * y.T[2].clone()
        y[:, ::2] += x[:, ::2] ** 3
        y.diagonal().mul_(v)
        (row * y).sum().backward()
        results.append((x.grad.tolist(), v.grad.tolist()))
    assert results[0] == results[1]


def test_parameters_are_written_through_their_data_and_under_no_grad():
    results = []
    for library in (pb, torch):
        w = library.nn.Parameter(library.zeros(2, 2))
        alias = w.data.view(-1)
        with library.no_grad():
            w[0] = 1
            w.view(-1)[3] = 4
            w.T[0].add_(10)
            w.detach().mul_(2)
        alias[2] = -1
        w.data[1].sub_(0.5)
        (w[0] * 3).sum().backward()
        results.append((w.tolist(), w.grad.tolist(), w.is_leaf, w.requires_grad))
    assert results[0] == results[1]


def test_a_write_to_a_view_of_a_leaf_is_refused_while_gradients_are_recorded():
    w = pb.ones(2, 2, requires_grad=True)
    with pytest.raises(GradientError, match="no_grad"):
        w[0].fill_(0)
    with pytest.raises(GradientError, match="no_grad"):
        w[0] = 0


def test_a_write_past_differentiation_keeps_the_history():
    results = []
    for library in (pb, torch):
        x = library.tensor([1.0, 2.0], requires_grad=True)
        y = x + 1
        y.detach().fill_(5)
        (y * 3).sum().backward()
        results.append((y.tolist(), x.grad.tolist()))
    assert results[0] == results[1]


@pytest.mark.parametrize(
    "view", [lambda x: x.expand(2, 3), lambda x: x.unfold(0, 2, 1), lambda x: x.as_strided((2,), (0,))]
)
def test_overlapping_elements_are_not_written(view):
    with pytest.raises(ViewError, match="clone"):
        view(pb.zeros(3)).fill_(1)


def test_a_view_that_became_a_leaf_is_written_with_its_base():
    results = []
    for library in (pb, torch):
        p = library.zeros(2)
        w = p.detach().requires_grad_()
        (w * 2).sum().backward()
        with library.no_grad():
            w.sub_(w.grad)
        results.append((p.tolist(), w.tolist(), w.is_leaf, w.requires_grad))
    assert results[0] == results[1]


def test_shapes_changed_in_place_are_pytorchs():
    results = []
    for library in (pb, torch):
        x = library.arange(6).reshape(2, 3).clone()
        x.unsqueeze_(0).transpose_(0, 2)
        x.squeeze_(2)
        x.t_()
        x[0, 1] = 9
        results.append(x.tolist())
    assert results[0] == results[1]
    x = pb.zeros(2, 2)
    held, cut_off = x[0], x.detach()
    x.unsqueeze_(0)
    x.fill_(1)
    with pytest.raises(ViewError, match="another shape in place"):
        cut_off.tolist()
    with pytest.raises(ViewError, match="another shape in place"):
        held.fill_(0)
    outside = pb.zeros(2)
    with pytest.raises(TraceError, match="another shape"):
        pb.compile(lambda: outside.unsqueeze_(0))()


def test_detached_tensors_keep_no_history_alive():
    x = pb.ones(2, requires_grad=True)
    y = x * 2
    node, kept = weakref.ref(y), y.detach()
    del y
    gc.collect()
    assert node() is None and kept.tolist() == [2.0, 2.0]
    kept += 1
    assert kept.tolist() == [3.0, 3.0]


def _written_before_the_source_is_gone(T):
    x, p, y = T.zeros(3), T.ones(3).requires_grad_(), T.ones(3).requires_grad_() * 2
    model, norm = T.nn.Linear(2, 2), T.nn.BatchNorm1d(2)
    saved, running = model.state_dict(), norm.state_dict()
    read = [x.detach(), x[1:].detach(), x.data.detach(), x.detach().detach(), x.detach()[1:], p.detach(), p.data[1:]]
    other, of_result, kept = x.detach(), y.detach(), y.detach()
    x.fill_(7.0)
    other[0] = 3
    x.add_(1)
    y.mul_(3)
    with T.no_grad():
        p.mul_(4)
        model.weight.fill_(5.0)
    model.bias.data.zero_()
    norm(T.tensor([[1.0, 2.0], [3.0, 5.0]]))
    of_result += 1
    replaced = T.ones(3)
    before = replaced.detach()
    replaced.data = T.zeros(3)
    return [*read, other, of_result, kept, *saved.values(), *running.values(), before]


def test_detached_tensors_have_what_was_written_before_their_source_was_gone():
    ours, theirs = (_written_before_the_source_is_gone(T) for T in (pb, torch))
    gc.collect()
    compiled = pb.compile(lambda: _written_in_a_step())()
    assert [t.detach().numpy().tolist() for t in ours] == [t.detach().numpy().tolist() for t in theirs]
    assert compiled.tolist() == [7.0, 7.0, 7.0]


def _written_in_a_step():
    x = pb.zeros(3)
    y = x.detach()
    x.fill_(7.0)
    return y


def test_detached_tensors_have_what_compiled_steps_have_written():
    norm = pb.nn.BatchNorm1d(2)

    def step(x):
        norm(x).square().sum().backward()
        with pb.no_grad():
            norm.weight.sub_(norm.weight.grad)
            norm.weight.grad = None

    compiled, x = pb.compile(step), pb.tensor([[1.0, 2.0], [3.0, 5.0]])
    mean, weight = norm.running_mean.detach(), norm.weight.detach()
    for _ in range(3):
        compiled(x)
    later = norm.running_mean.detach()
    assert later.tolist() == mean.tolist()
    compiled(x)
    expected = norm.running_mean.tolist(), norm.weight.tolist()
    norm = compiled = None
    gc.collect()
    assert mean.tolist() == later.tolist() == expected[0] != [0.0, 0.0]
    assert weight.tolist() == expected[1]


def test_strides_are_those_of_pytorch():
    for make in (
        lambda x: x, lambda x: x.T, lambda x: x[:, 1], lambda x: x[1:, ::2], lambda x: x.diagonal(1),
        lambda x: x.unsqueeze(1).expand(3, 2, 4), lambda x: x.unfold(1, 2, 1),
        lambda x: x.view(2, 6)[:, 2:].view(2, 2, 2),
        lambda x: x.permute(1, 0).unflatten(0, (2, 2)), lambda x: x.as_strided((2, 2), (4, 1), 1),
    ):  # fmt: skip
        ours, theirs = make(pb.zeros(3, 4)), make(torch.zeros(3, 4))
        assert (ours.stride(), ours.storage_offset()) == (theirs.stride(), theirs.storage_offset())
        assert ours.is_contiguous() == theirs.is_contiguous()


def test_a_mask_that_decides_the_size_is_refused_in_a_compiled_step():
    x = pb.arange(4)
    with pytest.raises(TraceError, match=r"masked_fill"):
        pb.compile(lambda: x[x > 1])()
    with pytest.raises(TraceError, match=r"bool \[\] .* depends on values"):
        pb.compile(lambda: x[x.sum() > 1])()

    @pb.compile
    def doubled(y):
        y[y > 1] *= 2

    with pytest.raises(TraceError, match=r"In place of t\[mask\] \*= 2 .* pb.where"):
        doubled(x)

    @pb.compile
    def clipped(y):
        y[y > 1] = 0
        return y * 1

    assert clipped(x).tolist() == [0, 1, 0, 0]


def _places_told_by_tensors(f):
    x = f.zeros(3, 4)
    for k in f.arange(3):
        x[k][k] = 1.0
    last, w = f.tensor(-1), f.ones(3, 3, requires_grad=True)
    with f.no_grad():
        w[f.tensor(1)].mul_(5)
        w[f.tensor(0), f.tensor(2)].mul_(7)
    (w * w).sum().backward()
    w.grad[f.argmax(w.sum(1))].zero_()
    x[last, 1:3].fill_(4)
    x[..., last].add_(2)
    x[1, last].add_(3)
    x.select(1, f.tensor(0)).sub_(1)
    row = x[last]
    x[last] += 1
    last.fill_(0)  # what was taken by its value before stays where it was taken
    row.mul_(2)
    x[None, last, None].add_(5)
    x[np.array(1)].mul_(3)
    column = x[:, f.tensor(2)]
    assert (column.stride(), column.storage_offset(), x[f.tensor([1, 2])].storage_offset()) == ((4,), 2, 0)
    a = f.ones(3, requires_grad=True)
    b = a * 2
    b[f.tensor(1)].mul_(a[0])
    (b * b).sum().backward()
    return x, w, w.grad, row, column, column.reshape(-1), a.grad


def test_tensors_of_shape_0_as_indices_take_views_that_are_pytorchs():
    assert [r.tolist() for r in _places_told_by_tensors(pb)] == [r.tolist() for r in _places_told_by_tensors(torch)]


def _steps_with_places_told_by_tensors(f):
    outside, first = f.zeros(3, 4), f.tensor(1)
    row, w = outside[first], f.ones(3, 3, requires_grad=True)

    def step(k):
        x = f.zeros(3, 3)
        for i in f.arange(3):
            x[i][i] = 1.0
        outside[k, 1:3].add_(1)
        outside[..., k].add_(2)
        outside.select(1, k).mul_(2)
        outside[k] += 1
        row.add_(1)
        outside[first][k].add_(10)
        with f.no_grad():
            w[k].mul_(5)
        w.grad = None
        (w * w * outside[:, :3]).sum().backward()
        w.grad[f.argmax(w.sum(1))].zero_()
        return x, outside[k], w.grad * 1, outside[k].reshape(2, 2)

    step = pb.compile(step) if f is pb else step
    return [[t.tolist() for t in (*step(f.tensor(k)), outside, row, w)] for k in (1, 0, 2)]


def test_they_are_written_through_inside_a_compiled_step_too():
    assert _steps_with_places_told_by_tensors(pb) == _steps_with_places_told_by_tensors(torch)
    with pytest.raises(TraceError, match="storage_offset"):
        pb.compile(lambda k: pb.zeros(3)[k].storage_offset())(pb.tensor(1))


def test_masks_known_when_a_step_is_recorded_are_taken_as_they_are():
    flags = np.array([True, False, False, True])

    def step(f, x):
        y = x * 1
        y[True] *= 2
        y[[True, False, True, False]] += 1
        return x[True], x[None, False, 1:], x[f.tensor(True)], x[f.tensor([True, False, False, True])], y

    wanted = step(torch, torch.arange(4.0))
    assert [r.tolist() for r in pb.compile(lambda x: step(pb, x))(pb.arange(4.0))] == [r.tolist() for r in wanted]
    with pytest.raises(TraceError, match="depends on values"):  # whose array may be written to between two calls
        pb.compile(lambda x: x[flags])(pb.arange(4.0))


def _writes_of_bytes(f, x):
    whole, wide, narrow, row = x.view(f.int32), x.view(f.float64), x.view(f.int16), x[1].view(f.uint8)
    whole[0, 1] = 0x3F800000
    wide[1, 0] = 2.5
    narrow[0, 0] = 7
    row[:4].fill_(1)
    x[0, 3] = 9
    return x, whole, wide, narrow, row


def test_bytes_under_another_dtype_are_views_too():
    wanted = _writes_of_bytes(torch, torch.arange(8.0).reshape(2, 4))
    found = _writes_of_bytes(pb, pb.arange(8.0).reshape(2, 4).clone())
    assert [t.tolist() for t in found] == [t.tolist() for t in wanted]
    for ours, theirs in zip(found, wanted, strict=True):
        assert (ours.stride(), ours.storage_offset()) == (theirs.stride(), theirs.storage_offset())
    outside = pb.arange(8.0).reshape(2, 4).clone()
    inside = pb.compile(lambda: _writes_of_bytes(pb, outside))()
    assert [t.tolist() for t in (outside, *inside)] == [t.tolist() for t in (wanted[0], *wanted)]


def test_plus_gives_the_tensor_itself():
    x, mask = pb.zeros(3), pb.tensor([True, False])
    assert +x is x and pb.positive(x) is x
    with pytest.raises(DTypeError, match="a mask has no sign"):
        pb.positive(mask)
    for power in (True, False, np.True_):
        assert (mask**power).tolist() == (torch.tensor([True, False]) ** bool(power)).tolist()
