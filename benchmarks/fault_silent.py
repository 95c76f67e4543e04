"""Kinds of faults that make no NaN: a wrong gradient rule, a layer that was cut off, a parameter that nothing reads."""

from __future__ import annotations

from typing import Any

import pullback as pb
from pullback.errors import CheckError

from .fault_kinds import Fault


class Silent(Fault):
    """A fault that `seek` has to find in a training step of the network."""

    def seek(self, network: Any, step: Any, arguments: tuple[Any, ...], optimizer: Any, compiled: bool) -> list[str]:
        """What is not found, or is said wrongly."""
        raise NotImplementedError

    def told(self, network: Any, step: Any, arguments: tuple[Any, ...], optimizer: Any, compiled: bool) -> list[Any]:
        """The alerts of a monitor after one step."""
        monitor = pb.Monitor(network, optimizer)
        (pb.compile(step) if compiled else step)(*arguments)
        monitor.close()
        return list(monitor.alerts)


class _Halved(pb.autograd.Function):
    @staticmethod
    def forward(context: Any, x: Any) -> Any:
        context.save_for_backward(x)
        return x * x * x

    @staticmethod
    def backward(context: Any, cotangent: Any) -> Any:
        (x,) = context.saved_tensors
        return cotangent * 1.5 * x * x  # 3 it should be


class HalvedRule(Silent):
    """A backward of the user's own that forgets a factor: `step.check` compares it with slopes."""

    def forward(self, h: Any, gap: Any) -> Any:
        return h + _Halved.apply(h)  # fault

    def seek(self, network: Any, step: Any, arguments: tuple[Any, ...], optimizer: Any, compiled: bool) -> list[str]:
        try:
            pb.compile(step).check(*arguments)
        except CheckError as error:
            (module,) = [name for name, part in network.named_modules() if part is self]
            said = error.what, error.phase, error.module, (error.filename, error.lineno)
            wanted = "gradient", "backward", module, self.line()
            return [f"{one!r} is said, not {other!r}" for one, other in zip(said, wanted, strict=True) if one != other]
        return ["no gradient was found wrong"]


class DetachedLayer(Silent):
    """What comes before gets no gradient: a monitor says which parameters, and where the way was cut."""

    def forward(self, h: Any, gap: Any) -> Any:
        return h.detach() * 1.5  # fault

    def seek(self, network: Any, step: Any, arguments: tuple[Any, ...], optimizer: Any, compiled: bool) -> list[str]:
        alerts = self.told(network, step, arguments, optimizer, compiled)
        file, line = self.line()
        place = f"{file}:{line}"
        found = {
            alert.where for alert in alerts if alert.kind == "detached" and place in f"{alert.reason}{alert.remedy}"
        }
        before = set()
        for number, stage in enumerate(network.stages):
            before |= {f"stages.{number}.{name}" for name, _ in stage.named_parameters()}
            if stage.fault is self:
                break
        return (
            []
            if found == before
            else [f"cut off by {place} are {sorted(before)}; told were {sorted(map(str, alerts))}"]
        )


class UnreachedParameter(Silent):
    """A layer that forward does not call: a monitor says which."""

    def __init__(self) -> None:
        super().__init__()
        self.spare = pb.nn.Linear(2, 3)

    def forward(self, h: Any, gap: Any) -> Any:
        return h

    def seek(self, network: Any, step: Any, arguments: tuple[Any, ...], optimizer: Any, compiled: bool) -> list[str]:
        alerts = self.told(network, step, arguments, optimizer, compiled)
        found = {alert.where for alert in alerts if alert.kind == "unreached"}
        spare = {name for name, _ in network.named_parameters() if ".spare." in name}
        return [] if found == spare else [f"unreached are {sorted(spare)}; told were {sorted(map(str, alerts))}"]


SILENT: list[type[Silent]] = [HalvedRule, DetachedLayer, UnreachedParameter]
