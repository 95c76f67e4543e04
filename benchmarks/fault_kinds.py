"""Kinds of faults: parts of networks that make a NaN or an infinity at a line that is marked."""

from __future__ import annotations

import inspect
from typing import Any

import pullback as pb

nn, F = pb.nn, pb.nn.functional
INF = float("inf")


class Fault(nn.Module):
    """Part of a network. It is sound where `gap` is 1 and at fault where it is 0; the line at fault is marked. `op`,
    `how` (a part of it) and `phase` are what is to be said of it.
    """

    op, how, phase = "", "", "forward"

    def forward(self, h: Any, gap: Any) -> Any:
        """`h`, with something added that is finite where `gap` is 1."""
        raise NotImplementedError

    def line(self) -> tuple[str, int]:
        """The file and the line that is to be named."""
        return marked(type(self))


def marked(of: Any, mark: str = "# fault") -> tuple[str, int]:
    """The file, and the line in the source of a class or function that is marked."""
    lines, first = inspect.getsourcelines(of)
    (place,) = [number for number, text in enumerate(lines) if text.rstrip().endswith(mark)]
    return inspect.getsourcefile(of) or "", first + place


class LogOfZero(Fault):
    """A probability of 0."""

    op, how = "log", "logarithm of zero"

    def forward(self, h: Any, gap: Any) -> Any:
        p = (h * 0).abs() + gap
        return h + p.log()  # fault


class LogOfNegative(Fault):
    """A score below 0."""

    op, how = "log", "logarithm of a negative"

    def forward(self, h: Any, gap: Any) -> Any:
        shifted = h * 0 + (gap - 0.5)
        score = shifted.log()  # fault
        return h + score


class LogThreeLayersOn(Fault):
    """The infinity is multiplied by 0 later: the logarithm is to blame."""

    op, how = "log2", "logarithm of zero"

    def forward(self, h: Any, gap: Any) -> Any:
        score = (h * 0 + gap).log2()  # fault
        hidden = score.tanh() * 0 + score
        return h + hidden * 0


class DivisionByZero(Fault):
    """A total of 0."""

    op, how = "div", "division by zero"

    def forward(self, h: Any, gap: Any) -> Any:
        total = (h * 0).sum(-1, keepdim=True) + gap
        return h + 1.0 / total  # fault


class ZeroByZero(Fault):
    """Shares of nothing."""

    op, how = "div", "0/0"

    def forward(self, h: Any, gap: Any) -> Any:
        weights = h * 0 + gap
        share = weights / weights.sum(-1, keepdim=True)  # fault
        return h + share


class Reciprocal(Fault):
    """1 over 0."""

    op, how = "reciprocal", "division by zero"

    def forward(self, h: Any, gap: Any) -> Any:
        return h + (h * 0 + gap).reciprocal()  # fault


class InverseRoot(Fault):
    """A variance of 0."""

    op, how = "rsqrt", "division by zero"

    def forward(self, h: Any, gap: Any) -> Any:
        variance = (h * 0).square().mean(-1, keepdim=True) + gap
        return h * variance.rsqrt()  # fault


class ExpOverflow(Fault):
    """A logit that is not brought down first."""

    op, how = "exp", "overflows"

    def forward(self, h: Any, gap: Any) -> Any:
        logits = h * 0 + (1 - gap) * 1000
        return h + logits.exp()  # fault


class HalfProduct(Fault):
    """A product in float16."""

    op, how = "mul", "overflow of float16"

    def forward(self, h: Any, gap: Any) -> Any:
        narrow = (h * 0 + (1 - gap) * 300).half()
        square = narrow * narrow  # fault
        return h + square.to(h.dtype)


class HalfMatmul(Fault):
    """A matrix product in float16."""

    op, how = "matmul", "overflow of float16"

    def forward(self, h: Any, gap: Any) -> Any:
        rows = (h * 0 + (1 - gap) * 250).half().flatten(0, -2)
        with pb.autocast("cpu", enabled=False):  # which would make it a product in bfloat16
            scores = rows @ rows.mT  # fault
        return h + scores.mean().to(h.dtype)


class BfloatConversion(Fault):
    """What is near the end of float32's range, rounded up in bfloat16."""

    op, how = "bfloat16", "overflow of bfloat16"

    def forward(self, h: Any, gap: Any) -> Any:
        large = (h.float() * 0 + (1 - gap)) * 3.4e38
        return h + large.bfloat16().to(h.dtype)  # fault


class PowerOfNegative(Fault):
    """A root of what is negative, as a power."""

    op, how = "pow", "power of a negative"

    def forward(self, h: Any, gap: Any) -> Any:
        return h + (h * 0 + gap - 0.5) ** 1.5  # fault


class PowerOverflow(Fault):
    """A power that is too high."""

    op, how = "pow", "overflow"

    def forward(self, h: Any, gap: Any) -> Any:
        base = h * 0 + 1 + (1 - gap) * 1e9
        return h + base**7.5  # fault


class ArcCosine(Fault):
    """A cosine beyond 1."""

    op, how = "acos", "outside of [-1, 1]"

    def forward(self, h: Any, gap: Any) -> Any:
        cosine = h * 0 + 1.5 - gap
        return h + cosine.acos()  # fault


class ArcSine(Fault):
    """A sine below -1."""

    op, how = "asin", "outside of [-1, 1]"

    def forward(self, h: Any, gap: Any) -> Any:
        return h + (h * 0 - 1.5 + gap).asin()  # fault


class ArcTangent(Fault):
    """The end of atanh's range."""

    op, how = "atanh", "outside of (-1, 1)"

    def forward(self, h: Any, gap: Any) -> Any:
        return h + (h * 0 + 1 - gap * 0.5).atanh()  # fault


class InfinityMinusInfinity(Fault):
    """Infinities that were put in on purpose, and cancel."""

    op, how = "sub", "inf - inf"

    def forward(self, h: Any, gap: Any) -> Any:
        bound = h.masked_fill((h * 0 + gap) < 0.5, INF)
        return h + (bound - bound)  # fault


class SoftmaxOfNothing(Fault):
    """A row of which everything is hidden."""

    op, how = "softmax", "softmax over nothing but -inf"

    def forward(self, h: Any, gap: Any) -> Any:
        scores = h.masked_fill((h * 0 + gap) < 0.5, -INF)
        return h + pb.softmax(scores, dim=-1)  # fault


class MatmulOverflow(Fault):
    """A matrix product in float32."""

    op, how = "matmul", "overflow of"

    def forward(self, h: Any, gap: Any) -> Any:
        rows = (h.float() * 0 + (1 - gap) * 1e25).flatten(0, -2)
        return h + (rows @ rows.mT).mean().to(h.dtype)  # fault


class NaNWrittenDown(Fault):
    """A NaN in the program."""

    op, how = "where", "a constant that is NaN"

    def forward(self, h: Any, gap: Any) -> Any:
        return h + pb.where(h * 0 + gap > 0.5, h, float("nan"))  # fault


class RootAtZero(Fault):
    """A square root with an infinite slope."""

    op, how, phase = "sqrt", "division by zero", "backward"

    def forward(self, h: Any, gap: Any) -> Any:
        rest = (h * 0).sum(-1, keepdim=True) + gap
        return h + rest.sqrt()  # fault


class NormAtZero(Fault):
    """The distance of a point from itself."""

    op, how, phase = "sqrt", "division by zero", "backward"

    def forward(self, h: Any, gap: Any) -> Any:
        square = ((h - h.detach()) ** 2).sum(-1, keepdim=True) + gap
        distance = square.sqrt()  # fault
        return h + distance


class BehindWhere(Fault):
    """What where() leaves out has a gradient nevertheless."""

    op, how, phase = "log", "division by zero", "backward"

    def forward(self, h: Any, gap: Any) -> Any:
        positive = h * 0 + gap
        score = positive.log()  # fault
        return h + pb.where(positive > 0, score, 0.0)


class PowerAtZero(Fault):
    """A power with an infinite slope."""

    op, how, phase = "pow", "division by zero", "backward"

    def forward(self, h: Any, gap: Any) -> Any:
        return h + (h * 0 + gap) ** 0.5  # fault


class ArcCosineAtOne(Fault):
    """acos with an infinite slope."""

    op, how, phase = "acos", "division by zero", "backward"

    def forward(self, h: Any, gap: Any) -> Any:
        return h + (h * 0 + 1 - gap * 0.5).acos()  # fault


class RootOfVariance(Fault):
    """The deviation of equal values."""

    op, how, phase = "sqrt", "division by zero", "backward"

    def forward(self, h: Any, gap: Any) -> Any:
        spread = h * 0 + gap * pb.arange(h.shape[-1]).to(h.dtype)
        variance = spread.var(-1, keepdim=True)
        return h / (1 + variance.sqrt())  # fault


class WrongRule(Fault):
    """A backward pass of the user's own that divides by 0."""

    op, how, phase = "div", "0/0", "backward"

    class Rule(pb.autograd.Function):
        """The identity, whose backward pass divides by the gap."""

        @staticmethod
        def forward(context: Any, x: Any, gap: Any) -> Any:
            context.save_for_backward(x, gap)
            return x * 1

        @staticmethod
        def backward(context: Any, cotangent: Any) -> Any:
            x, gap = context.saved_tensors
            scale = x * 0 + gap
            return cotangent * (scale / scale), None  # fault

    def forward(self, h: Any, gap: Any) -> Any:
        return self.Rule.apply(h, gap)


class NormOfEquals(Fault):
    """Equal values, normalized without an eps."""

    op, how = "layer_norm", "division by zero"

    def forward(self, h: Any, gap: Any) -> Any:
        spread = h * 0 + gap * pb.arange(h.shape[-1]).to(h.dtype)
        return h + F.layer_norm(spread, spread.shape[-1:], eps=0.0)  # fault


class CumulativeProduct(Fault):
    """A product that grows along an axis."""

    op, how = "cumprod", "overflow"

    def forward(self, h: Any, gap: Any) -> Any:
        return h + (h.float() * 0 + 1 + (1 - gap) * 1e30).cumprod(-1).to(h.dtype)  # fault


class LogSoftmaxOfNothing(Fault):
    """A row of logits of which everything is hidden."""

    op, how = "log_softmax", "softmax over nothing but -inf"

    def forward(self, h: Any, gap: Any) -> Any:
        hidden = h.masked_fill((h * 0 + gap) < 0.5, -INF)
        return h + F.log_softmax(hidden, dim=-1)  # fault


class InverseHyperbolic(Fault):
    """The range of acosh begins at 1."""

    op, how = "acosh", "outside of [1, inf)"

    def forward(self, h: Any, gap: Any) -> Any:
        return h + (h * 0 + gap * 2).acosh()  # fault


class SlopeOfLog1p(Fault):
    """log1p where its operand comes to -1."""

    op, how = "log1p", "logarithm of zero"

    def forward(self, h: Any, gap: Any) -> Any:
        return h + (h * 0 + gap - 1).log1p()  # fault


class RuleThatOverflows(Fault):
    """A backward pass of the user's own that multiplies beyond the range."""

    op, how, phase = "mul", "overflow", "backward"

    class Rule(pb.autograd.Function):
        """The identity, whose backward pass scales by a large number."""

        @staticmethod
        def forward(context: Any, x: Any, gap: Any) -> Any:
            context.save_for_backward(gap)
            return x * 1

        @staticmethod
        def backward(context: Any, cotangent: Any) -> Any:
            (gap,) = context.saved_tensors
            scale = (1 - gap) * 1e30 + 1
            large = cotangent.float().sign() * scale
            return (large * scale).to(cotangent.dtype), None  # fault

    def forward(self, h: Any, gap: Any) -> Any:
        return self.Rule.apply(h, gap)


class NaNInTheData:
    """A NaN in what the network is given: the first operation that reads it is told."""

    op, how, phase = "", "NaN in the data", "forward"

    def spoil_data(self, values: Any) -> None:
        """Put a NaN among the values."""
        values.flat[0] = float("nan")


class BadUpdate:
    """An update that makes a NaN or an infinity of gradients that are finite."""

    op, phase, how = "optimizer.step", "update", ""

    def spoil(self, optimizer: Any) -> None:
        """Have the next step of the optimizer go wrong."""
        raise NotImplementedError


class RateBeyondTheRange(BadUpdate):
    """A learning rate that float32 cannot hold."""

    how = "overflow of float32"

    def spoil(self, optimizer: Any) -> None:
        for group in optimizer.param_groups:
            group["lr"] = 1e39


class NegativeState(BadUpdate):
    """A running average of squares that is negative."""

    how = "square root of a negative"

    def spoil(self, optimizer: Any) -> None:
        with pb.no_grad():
            for state in optimizer.state.values():
                state["exp_avg_sq"].fill_(-1.0)


#: what is done to data or to the optimizer, and not part of the network
OUTSIDE: list[Any] = [NaNInTheData, RateBeyondTheRange, NegativeState]

FAULTS: list[type[Fault]] = [
    LogOfZero, LogOfNegative, LogThreeLayersOn, DivisionByZero, ZeroByZero, Reciprocal, InverseRoot, ExpOverflow,
    HalfProduct, HalfMatmul, BfloatConversion, PowerOfNegative, PowerOverflow, ArcCosine, ArcSine, ArcTangent,
    InfinityMinusInfinity, SoftmaxOfNothing, MatmulOverflow, NaNWrittenDown, RootAtZero, NormAtZero,
    BehindWhere, PowerAtZero, ArcCosineAtOne, RootOfVariance, WrongRule,
    NormOfEquals, CumulativeProduct, LogSoftmaxOfNothing, InverseHyperbolic, SlopeOfLog1p, RuleThatOverflows,
]  # fmt: skip
