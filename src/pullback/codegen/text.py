"""A writer of LLVM assembly: names, basic blocks, counted loops and variables.

Text is emitted directly because llvmlite's `ir` objects take longer to build and print than LLVM takes to read them.
Variables (`Writer.variable`) are stack slots that LLVM's mem2reg turns into registers: loops need no phi nodes by hand.
"""

from __future__ import annotations

import hashlib
import zlib
from collections.abc import Iterator
from contextlib import contextmanager

#: Loop metadata that keeps LLVM from unrolling or vectorizing a loop whose body is already the wanted size.
AS_WRITTEN = "!llvm.loop !0"
_AS_WRITTEN_NODES = """!0 = distinct !{!0, !1, !2}
!1 = !{!"llvm.loop.unroll.disable"}
!2 = !{!"llvm.loop.vectorize.enable", i1 false}
"""


class Code:
    """One LLVM module that defines the function `name`.

    `text` is the whole module; `needs` are the Codes whose functions it declares and calls, linked by symbol name.
    """

    __slots__ = ("_packed", "_text", "name", "needs")

    def __init__(self, name: str, text: str, needs: tuple[Code, ...] = ()):
        self.name, self.needs = name, needs
        self._text: str | None = text
        self._packed = b""

    @property
    def text(self) -> str:
        """The module."""
        text = self._text  # another thread may be packing it
        return zlib.decompress(self._packed).decode() if text is None else text

    def pack(self) -> int:
        """Have the text, and those of what it needs, take a quarter of its memory or less: what is loaded is hardly
        ever read again, and programs keep it. Gives how many characters were packed.
        """
        text = self._text
        if text is None:
            return 0
        self._packed, self._text = zlib.compress(text.encode(), level=1), None
        return len(text) + sum(need.pack() for need in self.needs)

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Code) and (self.name, self.text, self.needs) == (other.name, other.text, other.needs)

    def __hash__(self) -> int:
        return hash(self.name)

    def __repr__(self) -> str:
        return f"<code of {self.name}>"


class Writer:
    """One LLVM function under construction.

    `name` and `parameters` (such as ["ptr %args", "i64 %task"]) form its head; `text()` gives the whole definition.
    Declarations that the body needs are collected in `declarations` and belong once into the module.
    """

    def __init__(self, name: str, parameters: list[str], result: str = "void", attributes: str = "nounwind"):
        self.name = name
        self.head = f"define {result} @{name}({', '.join(parameters)}) {attributes} {{"
        self.entry: list[str] = []
        #: instructions before all `lines`, done once
        self.prologue: list[str] = []
        self.lines: list[str] = []
        self.declarations: set[str] = set()
        self._numbers = [p.removeprefix("i64 ") for p in parameters if p.startswith("i64 ")]
        self._true: str | None = None
        self._count = 0

    def fresh(self, hint: str = "v") -> str:
        """A new SSA name such as %v17."""
        self._count += 1
        return f"%{hint}{self._count}"

    def line(self, text: str) -> None:
        """Append one instruction as it stands."""
        self.lines.append("  " + text)

    def op(self, text: str, hint: str = "v") -> str:
        """Append `%new = text` and return %new."""
        name = self.fresh(hint)
        self.lines.append(f"  {name} = {text}")
        return name

    def unknown_truth(self) -> str:
        """An i1 that is true, which LLVM cannot know: that the first number among the parameters, a size or the number
        of a task, is not negative.
        """
        if self._true is None:
            self._true = self.fresh()
            self.prologue.append(f"  {self._true} = icmp sge i64 {self._numbers[0]}, 0")
        return self._true

    def declare(self, text: str) -> None:
        """Ask for a declaration such as `declare float @llvm.sqrt.f32(float)`."""
        self.declarations.add(text)

    def label(self, hint: str) -> str:
        """A new label name, without the per cent sign, not yet placed."""
        self._count += 1
        return f"{hint}{self._count}"

    def place(self, label: str) -> None:
        """Start the block `label` here; the block before must already have been ended by a branch."""
        self.lines.append(f"{label}:")

    def allocate(self, type_: str, count: int = 1, align: int = 64) -> str:
        """Stack memory for `count` values, allocated once in the entry block; returns its pointer."""
        name = self.fresh("slot")
        self.entry.append(f"  {name} = alloca {type_}, i64 {count}, align {align}")
        return name

    def variable(self, type_: str, initial: str) -> Variable:
        """A mutable value of LLVM type `type_`, which mem2reg keeps in a register."""
        name = self.fresh("var")
        self.entry.append(f"  {name} = alloca {type_}")
        variable = Variable(self, name, type_)
        variable.set(initial)
        return variable

    def add(self, left: str | int, right: str | int) -> str:
        """left + right, in i64."""
        return self.op(f"add i64 {left}, {right}")

    def subtract(self, left: str | int, right: str | int) -> str:
        """left - right, in i64."""
        return self.op(f"sub i64 {left}, {right}")

    def multiply(self, left: str | int, right: str | int) -> str:
        """left * right, in i64."""
        return self.op(f"mul i64 {left}, {right}")

    def divide(self, left: str | int, right: str | int) -> tuple[str, str]:
        """Quotient and remainder of two non-negative i64."""
        return self.op(f"udiv i64 {left}, {right}"), self.op(f"urem i64 {left}, {right}")

    def minimum(self, left: str | int, right: str | int) -> str:
        """The smaller of two signed i64."""
        self.declare("declare i64 @llvm.smin.i64(i64, i64)")
        return self.op(f"call i64 @llvm.smin.i64(i64 {left}, i64 {right})")

    def element(self, pointer: str, type_: str, index: str | int) -> str:
        """The address of element `index` of the array of `type_` at `pointer`."""
        return self.op(f"getelementptr {type_}, ptr {pointer}, i64 {index}", "p")

    def argument(self, slot: int, type_: str = "ptr") -> str:
        """The value in slot `slot` of a kernel's %args."""
        return self.op(f"load {type_}, ptr {self.element('%args', 'i64', slot)}")

    @contextmanager
    def loop(self, start: str | int, stop: str | int, step: str | int = 1, as_written: bool = False) -> Iterator[str]:
        """A counted loop `for i in range(start, stop, step)` on i64; yields the SSA name of i.

        `as_written` forbids LLVM to unroll or vectorize it.
        """
        head, body, end = self.label("head"), self.label("body"), self.label("end")
        index = self.variable("i64", str(start))
        self.line(f"br label %{head}")
        self.place(head)
        i = index.get()
        inside = self.op(f"icmp slt i64 {i}, {stop}")
        self.line(f"br i1 {inside}, label %{body}, label %{end}")
        self.place(body)
        yield i
        index.set(self.op(f"add nsw i64 {i}, {step}"))
        self.line(f"br label %{head}{', ' + AS_WRITTEN if as_written else ''}")
        self.place(end)

    @contextmanager
    def when(self, condition: str) -> Iterator[None]:
        """Run the body only where the i1 `condition` holds."""
        then, end = self.label("then"), self.label("end")
        self.line(f"br i1 {condition}, label %{then}, label %{end}")
        self.place(then)
        yield
        self.line(f"br label %{end}")
        self.place(end)

    def text(self) -> str:
        """The function's definition, without the declarations that it needs."""
        return "\n".join([self.head, "entry:", *self.entry, *self.prologue, *self.lines, "  ret void", "}"])


class Variable:
    """A mutable value: a stack slot that LLVM promotes to a register."""

    def __init__(self, writer: Writer, slot: str, type_: str):
        self.writer, self.slot, self.type = writer, slot, type_

    def get(self) -> str:
        return self.writer.op(f"load {self.type}, ptr {self.slot}")

    def set(self, value: str) -> None:
        self.writer.line(f"store {self.type} {value}, ptr {self.slot}")


def module(*functions: Writer) -> str:
    """LLVM assembly of one module that holds `functions` and every declaration they asked for."""
    declarations = sorted(set().union(*(f.declarations for f in functions)))
    text = "\n".join([*declarations, *(f.text() for f in functions), ""])
    return text + _AS_WRITTEN_NODES if AS_WRITTEN in text else text


def code(prefix: str, function: Writer, *helpers: Writer, needs: tuple[Code, ...] = ()) -> Code:
    """The Code of `function`, renamed to `prefix` and a digest of its text, so that equal functions get equal names.

    `helpers` are further functions of the same module, of internal linkage.
    """
    text = module(*helpers, function)
    name = f"{prefix}_{hashlib.sha256(text.encode()).hexdigest()[:20]}"
    return Code(name, text.replace(f"@{function.name}(", f"@{name}("), needs)
