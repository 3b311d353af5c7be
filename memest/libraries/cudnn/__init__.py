"""cuDNN 9's choice of plans for convolutions, and the workspace they take.

>>> calls = torch_calls((32, 64, 56, 56), (64, 64, 3, 3), stride=(1, 1), padding=(1, 1), dilation=(1, 1))
>>> calls.grad_weight.direction
'bwd_filter'
"""

from memest.libraries.cudnn.asked import BFLOAT16_SINCE, candidates, workspace
from memest.libraries.cudnn.errata import passed_over
from memest.libraries.cudnn.question import Calls, Convolution, suggests_channels_last, torch_calls
from memest.libraries.cudnn.workspace import Workspace

__all__ = [
    "BFLOAT16_SINCE",
    "Calls",
    "Convolution",
    "Workspace",
    "candidates",
    "passed_over",
    "suggests_channels_last",
    "torch_calls",
    "workspace",
]
