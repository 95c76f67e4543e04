"""`compile`: a whole training step, recorded once for each signature and run as one program afterwards.

While a step is recorded (`trace`), every tensor from outside that it touches is captured: its handle stands for an
input of the program, and what the handle is bound to at the end is an output. So parameters, optimizer state and random
generators become state of the program without being named. `replay` feeds a recorded step and takes in its results;
`step` chooses the recording that fits a call.
"""

from .compiling import compile
from .plan import plan
from .step import CompiledStep

__all__ = ["CompiledStep", "compile", "plan"]
