"""The timeline: a graph, its rows, a loss and an optimizer played as one step of training or inference."""

from memest.runtimes.torch.step.autocast import Autocast as Autocast
from memest.runtimes.torch.step.binding import bind as bind
from memest.runtimes.torch.step.caller import Caller as Caller
from memest.runtimes.torch.step.caller import operator_named as operator_named
from memest.runtimes.torch.step.neighbours import MULTIPLES as MULTIPLES
from memest.runtimes.torch.step.neighbours import sizes_that_run as sizes_that_run
from memest.runtimes.torch.step.playing import play as play
from memest.runtimes.torch.step.recipe import Recipe as Recipe
