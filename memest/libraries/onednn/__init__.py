"""oneDNN v3.12 on x86-64: implementation choice, blocked layouts and scratchpads, from its own heuristics."""

from memest.libraries.onednn.problem import Convolution, Layout, Plan, channels_last_tag, layout, plain_tag

__all__ = ["Convolution", "Layout", "Plan", "channels_last_tag", "layout", "plain_tag", "plan_convolution"]

from memest.libraries.onednn.dispatch import plan_convolution
