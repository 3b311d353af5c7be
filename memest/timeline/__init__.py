"""The timeline: a graph, its rows, a loss and an optimizer played as one step of training or inference."""

from memest.timeline.autocast import Autocast as Autocast
from memest.timeline.binding import bind as bind
from memest.timeline.caller import Caller as Caller
from memest.timeline.caller import operator_named as operator_named
from memest.timeline.neighbours import MULTIPLES as MULTIPLES
from memest.timeline.neighbours import sizes_that_run as sizes_that_run
from memest.timeline.player import Timeline as Timeline
from memest.timeline.player import play as play
from memest.timeline.recipe import Recipe as Recipe
