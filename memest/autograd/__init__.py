"""Torch's autograd engine, on metadata: nodes, saved tensors, gradient buffers, the order in which all of it runs and dies."""

from memest.autograd.engine import Machine as Machine
from memest.autograd.nodes import AccumulateGrad as AccumulateGrad
from memest.autograd.nodes import Items as Items
from memest.autograd.nodes import Node as Node
from memest.autograd.saving import EndOfRecomputation as EndOfRecomputation
from memest.autograd.saving import Holder as Holder
from memest.autograd.saving import Keeping as Keeping
from memest.autograd.saving import kernel_ran as kernel_ran
from memest.autograd.saving import last_save as last_save
from memest.autograd.saving import numbers_of as numbers_of
