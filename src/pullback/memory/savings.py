"""What a step's state would take if it were kept in another way, from the shapes that its plan holds."""

from __future__ import annotations

from collections import Counter
from collections.abc import Container, Iterator
from math import prod
from typing import NamedTuple

from ..graph.node import Node, Shape
from ..graph.types import float32
from ..ops.primitive import ALIAS, MOVEMENT
from ..runtime.bundles import bytes_of
from .lives import GRADIENTS, OPTIMIZER, PARAMETERS
from .plan import Plan
from .sizes import format_bytes

#: the moments that optimizers with "8bit" in their name keep as codes, and the one of Adam's two that 4 bits go by
_MOMENTS = {"exp_avg", "exp_avg_sq", "max_exp_avg_sq", "momentum_buffer"}
_SECOND_MOMENTS = {"exp_avg_sq"}
#: the modules of an adapter that are trained, and what it holds its layer under
_PARTS_OF_ADAPTERS, _UNDER_ADAPTER = {"lora_A", "lora_B"}, ".base_layer"
#: layers that `nn.utils.quantize_model` leaves as they are unless told otherwise
_SKIPPED = ("lm_head",)
#: the rank of adapters that are proposed
RANK = 16
#: techniques, in words
IN_BFLOAT16 = "model.to(bfloat16)"
ADAPTED = f'quantize_model(…, "nf4") and lora.apply of rank {RANK}'
FACTORED = "factored second moments (Adafactor)"


class Form(NamedTuple):
    """Another way to keep what is held for a role, and the bytes of all of that then."""

    role: str
    technique: str
    nbytes: int


def forms(plan: Plan, *, wide_adapters: bool = False) -> list[Form]:
    """The other ways to keep parameters, gradients and optimizer state that would take less, each by itself. They
    change nothing that a plan is asked for but the sizes of what is there throughout, so that these can be told. With
    `wide_adapters` adapters stay in the dtype that they have.
    """
    held = {role: sum(b.nbytes for b in plan.buffers if b.role == role) for role in (PARAMETERS, GRADIENTS, OPTIMIZER)}
    found = [*_in_bfloat16(plan, held, wide_adapters), *_as_codes(plan, held)]
    found += [Form(OPTIMIZER, what, held[OPTIMIZER] - less) for what, less in _optimizers(plan)]
    return [form for form in found if form.nbytes < held[form.role]]


def _in_bfloat16(plan: Plan, held: dict[str, int], wide_adapters: bool) -> Iterator[Form]:
    """`model.to(bfloat16)`, of which an optimizer's moments are none, and scales of codes neither."""
    found = [(named.name, node) for _, node, named in plan.inputs() if named.role == PARAMETERS]
    codes = {name for name, node in found if not node.dtype.is_floating_point}
    left = {name for name, _ in found if _is_of_codes(name, codes) or (wide_adapters and _is_of_adapter(name))}
    given = [node for name, node in found if name not in left]
    # beside adapters nothing else has gradients
    gradients = [] if wide_adapters and _has_adapters(plan) else plan.gradients()
    for role, nodes in ((PARAMETERS, given), (GRADIENTS, gradients)):
        wide = sum(bytes_of(node) for node in nodes if node.dtype is float32)
        yield Form(role, IN_BFLOAT16, held[role] - wide // 2)


def _as_codes(plan: Plan, held: dict[str, int]) -> Iterator[Form]:
    """Linear layers as codes of 4 bits, and where they are most of what is trained, adapters in the stead of that."""
    weights = dict(_linear_weights(plan))
    trained = {place for place, node in weights.items() if node.requires_grad}
    adapted = bool(trained) and not _has_adapters(plan)
    updated = [node for _, node, named in plan.inputs() if named.role == PARAMETERS and node.requires_grad]
    if adapted and 2 * sum(bytes_of(weights[place]) for place in trained) < sum(map(bytes_of, updated)):
        return
    coded = [node for place, node in weights.items() if adapted or place not in trained]
    parameters = held[PARAMETERS] - sum(bytes_of(node) - _in_4_bits(prod(node.shape)) for node in coded)
    if not adapted:
        yield Form(PARAMETERS, 'quantize_model(…, "nf4") of fixed layers', parameters)
        return
    sizes = _of_adapters(coded)
    yield Form(PARAMETERS, ADAPTED, parameters + 4 * sum(sizes))
    yield Form(GRADIENTS, ADAPTED, 4 * sum(sizes))
    state = _state_of(plan, sizes)
    if state is not None:
        yield Form(OPTIMIZER, ADAPTED, state)


def _state_of(plan: Plan, sizes: list[int]) -> int | None:
    """The optimizer's state for float32 parameters of so many elements in place of those that it has; None where it
    does not keep for each the same number of float32 an element, and besides at most one number for all.
    """
    given = {place: node for place, node, _ in plan.inputs()}
    shared, kept = list[Node](), dict[int, int]()
    for _, node, named in plan.inputs():
        if named.role != OPTIMIZER:
            continue
        if not node.shape:
            shared.append(node)
            continue
        if named.kept_for is None or node.shape != given[named.kept_for].shape or node.dtype is not float32:
            return None
        kept[named.kept_for] = kept.get(named.kept_for, 0) + 1
    if len(set(kept.values())) > 1 or len(shared) > 1:
        return None
    return sum(map(bytes_of, shared)) + max(kept.values(), default=0) * 4 * sum(sizes)


def savings(plan: Plan) -> list[str]:
    """A line for each other way to keep a state that would take less, with its bytes."""
    return [*_of_optimizers(plan), *_of_codes(plan)]


def _of_optimizers(plan: Plan) -> list[str]:
    held = sum(b.nbytes for b in plan.buffers if b.role == OPTIMIZER)
    return [
        f"an optimizer with {what}: a state of {format_bytes(held - less)}, where it is {format_bytes(held)}"
        for what, less in _optimizers(plan)
        if less > 0
    ]


def _optimizers(plan: Plan) -> list[tuple[str, int]]:
    """Optimizers with another state, and how much less that is."""
    return [
        ("moments in 8 bits (AdamW8bit, Adam8bit, Lion8bit, SGD8bit)", _less_in_8_bits(plan)),
        ("both of Adam's moments in one byte (AdamW4bit, Adam4bit)", _less_in_4_bits(plan)),
        (FACTORED, _less_with_adafactor(plan)),
    ]


def _moments(plan: Plan, names: set[str]) -> Iterator[Shape]:
    """The shapes of the moments of these names that are kept in float32."""
    for _, node, named in plan.inputs():
        if named.role == OPTIMIZER and named.name.split(" of ")[0] in names and node.dtype is float32:
            yield node.shape


def _less_in_8_bits(plan: Plan) -> int:
    """As codes of a byte and a float32 for each block of 256, as `optim.blockwise` keeps those of 4,096 elements and
    more.
    """
    sizes = [prod(shape) for shape in _moments(plan, _MOMENTS)]
    return sum(4 * size - size - 4 * -(-size // 256) for size in sizes if size >= 4096)


def _less_in_4_bits(plan: Plan) -> int:
    """As `optim.four_bits` keeps Adam's two moments of more than 4,096 elements: a byte for both, and a float32 for
    each block of 128 and for each place of an axis, or of vectors for each block again.
    """
    saved = 0
    for shape in _moments(plan, _SECOND_MOMENTS):
        size = prod(shape)
        blocks = -(-size // 128)
        if size > 4096:
            saved += 8 * size - size - 4 * (blocks + (blocks if max(shape) == size else sum(shape)))
    return saved


def _less_with_adafactor(plan: Plan) -> int:
    """As Adafactor's: of matrices (the last two axes) one value a row and one a column, and a count of steps."""
    less, parameters, counts = 0, dict[int, Node](), 0
    given = {place: node for place, node, _ in plan.inputs()}
    for _, node, named in plan.inputs():
        if named.role == OPTIMIZER and named.kept_for is not None and node.shape:
            less += bytes_of(node)
            parameters[named.kept_for] = given[named.kept_for]
        counts += named.role == OPTIMIZER and not node.shape
    less -= 0 if counts or not parameters else 4
    return less - sum(_factored(node.shape) * node.dtype.itemsize for node in parameters.values())


def _of_codes(plan: Plan) -> list[str]:
    """Linear layers as codes of 4 bits: those that are fixed take less; those that are trained, with adapters beside
    them then, have neither gradients nor moments besides.
    """
    weights = dict(_linear_weights(plan))
    trained = {place: node for place, node in weights.items() if node.requires_grad}
    if not trained or _has_adapters(plan):
        fixed = [node for place, node in weights.items() if place not in trained]
        skipped = ", skip=[…] of those that are trained" if trained else ""
        return _in_codes(
            f'linear layers that are fixed in 4 bits (nn.utils.quantize_model(model, "nf4"{skipped})): their weights',
            sum(map(bytes_of, fixed)), sum(_in_4_bits(prod(node.shape)) for node in fixed),
        )  # fmt: skip
    held = sum(map(bytes_of, weights.values())) + sum(map(bytes_of, trained.values()))
    moments = [(named.kept_for, node) for _, node, named in plan.inputs() if named.kept_for in trained and node.shape]
    held += sum(bytes_of(node) for _, node in moments)
    sizes = _of_adapters(list(weights.values()))
    # float32 for the adapters, their gradients, and as many moments as there are for a weight
    copies = 2 + max(Counter(place for place, _ in moments).values(), default=0)
    return _in_codes(
        f'linear layers fixed in 4 bits, adapters of rank {RANK} trained beside them (nn.utils.quantize_model(model, '
        '"nf4"), lora.apply): weights, gradients and moments',
        held, sum(_in_4_bits(prod(node.shape)) for node in weights.values()) + copies * 4 * sum(sizes),
    )  # fmt: skip


def _of_adapters(weights: list[Node]) -> list[int]:
    """The elements of the adapters of layers with these weights."""
    return [RANK * size for node in weights for size in node.shape]


def _in_codes(what: str, held: int, then: int) -> list[str]:
    return [f"{what} are {format_bytes(held)}, and would be {format_bytes(then)}"] if then < held else []


def _linear_weights(plan: Plan) -> Iterator[tuple[int, Node]]:
    """The weights of linear layers that `quantize_model` would find, with their places among the inputs: matrices that
    products read. One that is read by index as well, as an embedding's that the output layer shares, is none.
    """
    multiplied, others = set[Node](), set[Node]()
    for node in plan.nodes():
        if node.op.name in ("matmul", "take"):
            read = multiplied if node.op.name == "matmul" else others
            read |= {_base(operand) for operand in node.inputs}
    names = {named.name for _, _, named in plan.inputs()}
    for place, node, named in plan.inputs():
        is_weight = named.role == PARAMETERS and node.dtype.is_floating_point and len(node.shape) == 2
        if is_weight and node in multiplied - others and _is_found(named.name, names):
            yield place, node


def _is_found(name: str, names: set[str]) -> bool:
    """Whether a parameter is called as the weight of a layer that `quantize_model` replaces unless told otherwise."""
    layer, _, own = name.rpartition(".")
    of_attention = layer.removesuffix("out_proj") + "in_proj_weight"  # whose parts it leaves as they are
    is_skipped = layer.removesuffix(_UNDER_ADAPTER).split(".")[-1] in _SKIPPED
    return own == "weight" and not is_skipped and not _is_of_adapter(name) and of_attention not in names


def _is_of_codes(name: str, codes: Container[str]) -> bool:
    """Whether a parameter of this name stands beside a weight that is codes, and is no bias."""
    layer, _, own = name.rpartition(".")
    return own not in ("weight", "bias") and f"{layer}.weight" in codes


def _has_adapters(plan: Plan) -> bool:
    return any(_is_of_adapter(named.name) for _, _, named in plan.inputs())


def _is_of_adapter(name: str) -> bool:
    return not _PARTS_OF_ADAPTERS.isdisjoint(name.split("."))


def _base(node: Node) -> Node:
    """What is moved or converted."""
    while node.inputs and (node.op.kind in (MOVEMENT, ALIAS) or node.op.name == "convert"):
        node = node.inputs[0]
    return node


def _in_4_bits(size: int) -> int:
    """Bytes of `nn.Linear4bit`'s weight: two codes a byte, a code for the scale of each block of 64, and a float32 for
    each block of 256 of these.
    """
    blocks = -(-size // 64)
    return -(-size // 2) + blocks + 4 * -(-blocks // 256) + 4


def _factored(shape: Shape) -> int:
    size = prod(shape)
    return size if len(shape) < 2 else size // max(shape[-1], 1) + size // max(shape[-2], 1)


__all__ = ["ADAPTED", "FACTORED", "IN_BFLOAT16", "RANK", "Form", "forms", "savings"]
