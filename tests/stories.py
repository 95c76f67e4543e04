"""Stories: what may happen to a network between its steps, in any order; its steps are compiled, or are not."""

from __future__ import annotations

import gc
from typing import Any

import numpy as np

import pullback as pb

#: what happens, the likelier the more often it stands here; a step that trains has to come several times in a row, or
#: nothing is ever settled
HAPPENINGS = (
    *["train"] * 14, *["add"] * 3, *["look"] * 2, "update", "keep", "detach", "detach and read", "view",
    "detach a part and read", "clone", "expression", "show", "scale", "scale", "write an element", "none", "zero",
    "assign", "write weights", "undecorated", "undecorated step", "collect", "forget", "forget",
)  # fmt: skip


class Story:
    """A network, the steps that train it, and what somebody holds of its gradients and results."""

    def __init__(self, compiled: bool, clip: bool = False):
        pb.manual_seed(0)
        self.model = pb.nn.Sequential(pb.nn.Linear(6, 8), pb.nn.Tanh(), pb.nn.Linear(8, 3))
        self.optimizer = pb.optim.SGD(self.model.parameters(), lr=0.05, momentum=0.9)
        self.clip = clip
        self.kept: list[Any] = []
        made = pb.compile if compiled else lambda step: step
        self.train, self.add, self.look, self.update = map(made, (self._train, self._add, self._look, self._update))

    def _add(self, x: pb.Tensor) -> pb.Tensor:
        loss = self.model(x).square().mean()
        loss.backward()
        return loss

    def _train(self, x: pb.Tensor) -> pb.Tensor:
        self.optimizer.zero_grad()
        loss = self._add(x)
        if self.clip:
            pb.nn.utils.clip_grad_norm_(self.model.parameters(), 0.05)
        self.optimizer.step()
        return loss

    def _update(self) -> None:
        self.optimizer.step()
        self.optimizer.zero_grad()

    def _look(self, x: pb.Tensor) -> pb.Tensor:
        return self.model(x).exp().sum(-1)

    def do(self, what: str, rows: int = 4) -> None:
        """Have one thing happen, with a batch of so many rows where it needs one."""
        x = pb.tensor(np.linspace(-1, 1, 6 * rows, dtype="f").reshape(rows, 6) * (1 + len(self.kept) % 3))
        if what in ("train", "add", "look"):
            self.kept.append(getattr(self, what)(x).detach())
        elif what == "undecorated":
            self._add(x)
        else:
            self._do(what, [p.grad for p in self.model.parameters() if p.grad is not None])

    def _do(self, what: str, gradients: list[pb.Tensor]) -> None:
        parameters, kept = list(self.model.parameters()), self.kept
        if what == "update":
            self.update()
        elif what == "undecorated step":
            self.optimizer.step()
        elif what == "keep":
            kept += gradients
        elif what == "detach":
            kept += [gradient.detach() for gradient in gradients]
        elif what == "detach and read":
            kept += [detached for g in gradients if (detached := g.detach()).numpy().size]
        elif what == "view":
            kept += [gradient.view(-1)[1:] for gradient in gradients]
        elif what == "detach a part and read":
            kept += [part for g in gradients if (part := g.reshape(-1).detach()[1:]).numpy().size]
        elif what == "clone":
            kept += [gradient.clone() for gradient in gradients]
        elif what == "expression":
            kept += [gradient * 2 for gradient in gradients]
        elif what == "show":
            kept += [gradient.numpy() for gradient in gradients]
        elif what == "scale":
            for gradient in gradients:
                gradient.mul_(0.5)
        elif what == "write an element":
            for gradient in gradients:
                gradient.view(-1)[0] = 1.0
        elif what in ("none", "zero"):
            self.optimizer.zero_grad(set_to_none=what == "none")
        elif what == "assign":
            for parameter in parameters:
                parameter.grad = pb.full(parameter.shape, 0.01)
        elif what == "write weights":
            for parameter in parameters:
                parameter.data.mul_(0.9)
        elif what == "collect":
            gc.collect()
        else:
            assert what == "forget"
            kept.clear()

    def values(self) -> list[np.ndarray]:
        """The parameters, their gradients, and all that is held."""
        found = [*self.model.parameters(), *(p.grad for p in self.model.parameters() if p.grad is not None), *self.kept]
        return [np.array(value.detach() if isinstance(value, pb.Tensor) else value) for value in found]


def told(seed: int) -> list[tuple[str, int, bool]]:
    """What happens, with how many rows, and whether all values are read afterwards."""
    rng = np.random.default_rng(seed)
    story = [("train", 4, False)]
    for _ in range(22):
        what = HAPPENINGS[rng.integers(len(HAPPENINGS))]
        story.append((what, 4 if rng.random() < 0.85 else 3, bool(rng.random() < 0.15)))
    return [*story, ("collect", 4, True)]
