"""Several processes that train one network: what one rank (process) of them holds, allocates and drops on top of its own step."""

from memest.runtimes.torch.step.parallel.alone import Alone as Alone
from memest.runtimes.torch.step.plan import Parallel as Parallel
from memest.runtimes.torch.step.plan import Replicate as Replicate
from memest.runtimes.torch.step.plan import Shard as Shard
