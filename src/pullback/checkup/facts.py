"""Facts: what was seen of a training, before anything is made of it."""

from __future__ import annotations

from dataclasses import dataclass, field

#: how many steps are watched
STEPS = 20


@dataclass
class Facts:
    """What was seen. All of it can be written as JSON."""

    #: by the line of backward(), what it was called on
    losses: dict[str, list[float]] = field(default_factory=dict)
    #: of the optimizer that stepped most
    steps: int = 0
    backwards: int = 0
    #: how often the transforms of `func` differentiated something
    pulled: int = 0
    #: calls of a model of which gradients can be asked
    calls: int = 0
    #: lines: of the first call of the model, backward() and step()
    called_at: str = ""
    backward_at: str = ""
    stepped_at: str = ""
    #: steps with gradients that were added to those of the step before, and the line of the backward() that did it
    uncleared: int = 0
    uncleared_at: str = ""
    #: steps that found no gradient though backward() had never made one; and the line of one that found those cleared
    without_gradients: int = 0
    cleared_too_late_at: str = ""
    #: what had made zeros of all gradients of a step that backward() had not made so, and the line
    zeroed_by: tuple[str, str] | None = None
    #: the line of a step that found no gradient, before backward() was called on a loss that was there already
    stepped_early_at: str = ""
    #: steps whose gradients backward() itself had made zeros
    zero_gradients: int = 0
    #: how many parameters the optimizers have, and how many others have gradients, where none is both
    strangers: tuple[int, int] | None = None
    #: whether an optimizer stepped with gradients that no backward() had made
    are_assigned: bool = False
    #: how many optimizers stepped, and whether all of them maximize
    optimizers: int = 0
    maximizes: bool = False
    #: how many optimizers of as many parameters made one step each, where that is all, and whether these parameters
    #: were others each time
    made_anew: tuple[int, bool] | None = None
    #: whether weights were changed by other means than an optimizer
    changed_by_hand: bool = False
    #: modules in evaluation mode whose results depend on it, and of which a loss was made
    evaluating: list[str] = field(default_factory=list)
    #: parameters that are not trained: rows (kind, where, reason, remedy)
    structure: list[tuple[str, str, str, str]] = field(default_factory=list)
    #: the line of a backward() that came to no parameter of a model or an optimizer, and to another leaf
    made_of_number_at: str = ""
    #: frozen parameters: those that an optimizer has all the same, and how many stand in none
    frozen: list[str] = field(default_factory=list)
    resting: int = 0
    #: trained tensors of optimizers that are no module's
    loose: int = 0
    parameters: int = 0
    rates: list[float] = field(default_factory=list)
    #: whether a schedule has raised them while they were watched
    rates_rise: bool = False
    #: the last of them by the first, where one optimizer's have only been lowered
    rates_left: float = 1.0
    #: the greatest part of a weight that weight decay takes away in a step
    decay: float = 0.0
    #: dropout modules that were called in training and leave nothing
    dropped: list[str] = field(default_factory=list)
    #: of the first losses over classes of one optimizer: the labels, the steps, and those of one label alone
    labels: int = 0
    labelled: int = 0
    alike: int = 0
    #: how many labels had steps to themselves
    alone: int = 0
    #: the norm of the first update of weights by that of the weights
    first_update: float = 0.0
    #: losses that are known to be better the larger they are, where there is no other: what they are, and the line
    turned: tuple[str, str] | None = None
    #: a loss that is given what it makes itself: the loss, what made that, the line of the latter, and the mend
    doubled: tuple[str, str, str, str] | None = None
    #: a loss whose input and target differ in shape: the loss, their shapes, and the line
    unlike: tuple[str, str, str, str] | None = None
    #: the line of a clip of gradients that a GradScaler had not divided by its scale yet
    clipped_scaled: str = ""
    #: what was normalized over another axis than that of the classes: loss, function, its axis, the classes', the line
    other_axis: tuple[str, str, int, int, str] | None = None
    #: mean, deviation and largest magnitude of the model's first input of floats
    inputs: tuple[float, float, float] | None = None
    #: the name and message of an exception that ended it, and its line
    error: tuple[str, str, str] | None = None
    #: why the first loss that was not finite was so, the line, and after how many steps
    not_finite: tuple[str, str, int] | None = None
    #: of a loss without a graph: the line where the way from the parameters is cut, and how; empty where there is none
    severed: tuple[str, str] | None = None


__all__ = ["STEPS", "Facts"]
