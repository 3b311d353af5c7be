"""Several processes that train one network: what one rank (process) of them holds, allocates and drops on top of its own step."""

from memest.timeline.parallel.alone import Alone as Alone
from memest.timeline.parallel.plan import Parallel as Parallel
from memest.timeline.parallel.plan import Replicate as Replicate
from memest.timeline.parallel.plan import Shard as Shard
