"""The timeline: a graph, its rows, a loss and an optimizer played as one step of training or inference."""

from memest.runtimes.torch.step.autocast import Autocast as Autocast
from memest.runtimes.torch.step.caller import Caller as Caller
from memest.runtimes.torch.step.playing import play as play
from memest.runtimes.torch.step.recipe import Recipe as Recipe
