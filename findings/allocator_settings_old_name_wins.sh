#!/usr/bin/env bash
# torch's settings of the caching allocator: two names of the environment variable, both set.
#
# Guess: PYTORCH_ALLOC_CONF is the name of today, PYTORCH_CUDA_ALLOC_CONF an alias kept for older scripts. Where both are set the new name
#   wins, as the comment in torch's own header c10/core/AllocatorConfig.h has it, or the two are merged, key by key.
# Seen with torch 2.13.0, the same in its build for CPU:
#   - The old name wins, and the new one is not read at all: neither its other keys nor its mistakes show.
#   - It wins empty, too: PYTORCH_CUDA_ALLOC_CONF= turns off what PYTORCH_ALLOC_CONF sets.
#   - PYTORCH_HIP_ALLOC_CONF, the name for AMD's cards, wins over the new name in a build for neither vendor, too; the CUDA one over it.
# So expandable_segments or max_split_size_mb set under the new name does nothing where an image or a launcher still exports the old one.
set -euo pipefail
work=$(mktemp -d)
export TMPDIR="$work"
trap 'rm -rf "$work"' EXIT
python3 -m venv "$work/venv"
"$work/venv/bin/pip" install --quiet --disable-pip-version-check torch==2.13.0 numpy
cat > "$work/probe.py" <<'PYTHON'
import torch

try:
    print(torch._C._accelerator_getAllocatorSettings() or "nothing")
except ValueError as error:
    print("refused:", str(error).splitlines()[0])
PYTHON
unset PYTORCH_ALLOC_CONF PYTORCH_CUDA_ALLOC_CONF PYTORCH_HIP_ALLOC_CONF
settings() { env "$@" "$work/venv/bin/python" "$work/probe.py"; }
new=PYTORCH_ALLOC_CONF cuda=PYTORCH_CUDA_ALLOC_CONF hip=PYTORCH_HIP_ALLOC_CONF
seen="new: $(settings $new=max_split_size_mb:100)
new and cuda: $(settings $new=max_split_size_mb:100 $cuda=max_split_size_mb:200)
new and cuda, other keys: $(settings $new=max_split_size_mb:100 $cuda=garbage_collection_threshold:0.5)
new and empty cuda: $(settings $new=max_split_size_mb:100 $cuda=)
new and hip: $(settings $new=max_split_size_mb:100 $hip=max_split_size_mb:300)
new, cuda and hip: $(settings $new=max_split_size_mb:100 $cuda=max_split_size_mb:200 $hip=max_split_size_mb:300)
new is wrong: $(settings $new=max_split_size_mb:1)
new is wrong, and cuda: $(settings $new=max_split_size_mb:1 $cuda=max_split_size_mb:200)
new, and cuda is wrong: $(settings $new=max_split_size_mb:100 $cuda=max_split_size_mb:1)"
echo "torch $("$work/venv/bin/python" -c 'import torch; print(torch.__version__)'), settings in force:"
echo "$seen"
too_small="refused: CachingAllocator option max_split_size_mb too small, must be >= 20"
[ "$seen" = "new: max_split_size_mb:100
new and cuda: max_split_size_mb:200
new and cuda, other keys: garbage_collection_threshold:0.5
new and empty cuda: nothing
new and hip: max_split_size_mb:300
new, cuda and hip: max_split_size_mb:200
new is wrong: $too_small
new is wrong, and cuda: max_split_size_mb:200
new, and cuda is wrong: $too_small" ] || { echo "the behaviour has changed"; exit 1; }
