"""Optimizers and the schedules of their learning rates."""

from . import lr_scheduler, swa_utils
from .adafactor import Adafactor
from .adagrad import Adadelta, Adagrad, RMSprop
from .adam import Adam, AdamW
from .adam_family import Adamax, Lion, NAdam, RAdam
from .blockwise import Adam8bit, AdamW8bit, Lion8bit, SGD8bit
from .lbfgs import LBFGS
from .muon import Muon
from .optimizer import Optimizer
from .rprop import ASGD, Rprop
from .sgd import SGD

__all__ = [
    "ASGD",
    "LBFGS",
    "SGD",
    "Adadelta",
    "Adafactor",
    "Adagrad",
    "Adam",
    "Adam8bit",
    "AdamW",
    "AdamW8bit",
    "Adamax",
    "Lion",
    "Lion8bit",
    "Muon",
    "NAdam",
    "Optimizer",
    "RAdam",
    "RMSprop",
    "Rprop",
    "SGD8bit",
    "lr_scheduler",
    "swa_utils",
]
