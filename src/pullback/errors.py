"""The exceptions. Each message says what was wrong, which values, where in the user's code, and the mend."""

from __future__ import annotations


class PullbackError(Exception):
    """The base of every error that Pullback raises on purpose."""


class ShapeError(PullbackError, RuntimeError):
    """Shapes that do not fit an operation."""


class DTypeError(PullbackError, TypeError, RuntimeError):
    """Element types that an operation does not take."""


class IndexOutOfRange(PullbackError, IndexError):
    """An index, a class or a token outside what it selects from."""


class DomainError(PullbackError, ValueError, RuntimeError):
    """A number outside of what an operation is defined on: a negative variance, a probability above 1."""


class DivisionByZero(PullbackError, ZeroDivisionError, RuntimeError):
    """Integers divided by a zero."""


class LinAlgError(PullbackError, RuntimeError):
    """A matrix that has no such factorization, inverse or solution."""


class GradientError(PullbackError, RuntimeError):
    """A gradient was asked for that does not exist: no graph, no scalar, or a graph used up."""

    #: of a tensor without a graph: the node that it is, for who looks for the reason
    root: object = None


class TraceError(PullbackError, RuntimeError):
    """Something inside a compiled step that only a value could answer, or a traced tensor used outside of it."""


class ViewError(PullbackError, RuntimeError):
    """A write through a view of which several elements are one element of its base."""


class StateDictError(PullbackError, RuntimeError):
    """A state dictionary that does not fit the module or optimizer."""


class MemoryBudgetError(PullbackError, MemoryError):
    """A step that cannot be run in the memory that it may use, found before it runs.

    `least` are the fewest bytes that it was found to run in, to which it keeps where they are asked for (asked for
    fewer, it is sometimes found that these can be kept to as well), 0 where that was not looked for (there was no
    budget, and the machine has too little free); `peak` are those that it takes with everything kept: without a budget
    and without checkpointed calls.
    """

    def __init__(self, message: str, least: int = 0, peak: int = 0):
        super().__init__(message)
        self.least, self.peak = least, peak


class SnapshotError(PullbackError, RuntimeError):
    """A file that cannot be read as a snapshot or cannot be written: `path` is the file, `fault` what is wrong."""

    def __init__(self, path: object, fault: str):
        super().__init__(str(path), fault)
        self.path, self.fault = str(path), fault

    def __str__(self) -> str:
        return f"{self.path}: {self.fault}"


class SnapshotLockError(PullbackError, RuntimeError):
    """A directory of snapshots that somebody else is writing to; `pid` is the process, where it is known."""

    def __init__(self, message: str, pid: int | None = None):
        super().__init__(message)
        self.pid = pid


class WorkerError(PullbackError, RuntimeError):
    """A worker process of a DataLoader that died, or did not answer in time."""


class NonFiniteError(PullbackError, FloatingPointError, RuntimeError):
    """A loss, a gradient or a checked value is not finite. State is as it was before the step.

    `op` is what the user called that introduced the fault, `primitive` the operation within; `filename` and `lineno`
    are the user's line, `module` the path of the module whose forward was running, such as "blocks.3.norm1" ("" outside
    of modules); `phase` is "forward", "backward" or "update"; `step` counts the calls of the compiled step from 1 (0
    outside of one). `times` are the steps of the loops (`func.scan`, recurrent layers) in whose bodies the operation
    stands, counted from 0 as their slices are, the outermost loop first, and `time` is that of the innermost, or None.
    `index` is the place of the first bad element in the result, or in the data where that is bad. `operands` are the
    statistics of what the operation was given (`diagnosis.OperandStatistics`), `how` says how they came to this.
    """

    def __init__(
        self, message: str, *, op: str = "", primitive: str = "", filename: str = "", lineno: int = 0, module: str = "",
        phase: str = "forward", step: int = 0, operands: tuple[object, ...] = (), how: str = "",
        times: tuple[int, ...] = (), index: tuple[int, ...] = (),
    ):  # fmt: skip
        super().__init__(message)
        self.times, self.index = times, index
        self.op, self.primitive, self.filename, self.lineno = op, primitive, filename, lineno
        self.module, self.phase, self.step, self.operands, self.how = module, phase, step, operands, how

    @property
    def time(self) -> int | None:
        """The step of the innermost loop."""
        return self.times[-1] if self.times else None


class GuardError(PullbackError, RuntimeError):
    """A Guard that has gone back too often, or has nothing to go back to; `events` are all that it did."""

    def __init__(self, message: str, events: tuple[object, ...] = ()):
        super().__init__(message)
        self.events = list(events)


class CheckError(PullbackError, ArithmeticError):
    """`step.check()` found that a compiled step does not compute what it should.

    `what` is "kernel" where a kernel gives another value than the reference, "result" where the whole program does
    though each kernel is right, "gradient" where a gradient is not the slope of the loss; `op` is what the user called,
    `primitive` the operation within, `filename` and `lineno` the user's line, `module` and `phase` as in
    NonFiniteError; `kernel` is the name of the kernel; `index`, `actual` and `expected` are of the worst element.
    `operand` is the place, from 0, of the operand whose gradient is wrong; -1 where it is no gradient.
    """

    def __init__(
        self, message: str, *, what: str, op: str = "", primitive: str = "", filename: str = "", lineno: int = 0,
        module: str = "", phase: str = "forward", kernel: str = "", index: tuple[int, ...] = (),
        actual: float = 0.0, expected: float = 0.0, operand: int = -1,
    ):  # fmt: skip
        super().__init__(message)
        self.what, self.op, self.primitive, self.filename, self.lineno = what, op, primitive, filename, lineno
        self.module, self.phase, self.kernel, self.index = module, phase, kernel, index
        self.actual, self.expected, self.operand = actual, expected, operand


class VerifyError(PullbackError, AssertionError):
    """A graph or plan broke its rules between two passes: a fault of Pullback's own."""


class CompileError(PullbackError, RuntimeError):
    """LLVM did not accept generated code: a fault of Pullback's own."""
