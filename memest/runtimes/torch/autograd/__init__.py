"""Torch's autograd engine, on metadata: nodes, saved tensors, gradient buffers, the order in which all of it runs and dies."""

from memest.runtimes.torch.autograd.engine import Machine as Machine
from memest.runtimes.torch.autograd.nodes import AccumulateGrad as AccumulateGrad
from memest.runtimes.torch.autograd.nodes import Items as Items
from memest.runtimes.torch.autograd.nodes import Node as Node
from memest.runtimes.torch.autograd.nodes import with_history as with_history
from memest.runtimes.torch.autograd.saving import EndOfRecomputation as EndOfRecomputation
from memest.runtimes.torch.autograd.saving import Holder as Holder
from memest.runtimes.torch.autograd.saving import Keeping as Keeping
from memest.runtimes.torch.autograd.saving import PackedHolder as PackedHolder
from memest.runtimes.torch.autograd.saving import Part as Part
from memest.runtimes.torch.autograd.saving import kernel_ran as kernel_ran
from memest.runtimes.torch.autograd.saving import last_save as last_save
from memest.runtimes.torch.autograd.saving import numbers_of as numbers_of
