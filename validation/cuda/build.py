"""The stand-in, built with g++ for the CUDA build of torch that an interpreter has; kept in the temporary folder until it changes.

Three libraries: ``libstandin.so``, which is loaded before all others and answers for the CUDA runtime, cuBLAS and cuDNN's handle (its
sources are in ``standin/``; every other function torch needs of them succeeds and does nothing), and ``libcuda.so.1`` and
``libnvidia-ml.so.1``, which a driver would bring.
"""

from __future__ import annotations

import hashlib
import re
import subprocess
import sys
import tempfile
from collections.abc import Iterable, Mapping
from pathlib import Path

SOURCES = Path(__file__).parent / "standin"
LINKED = ("c10_cuda", "torch_cuda", "torch_cuda_linalg", "torch_python", "torch_cpu")  # what of torch calls CUDA
ANSWERED = re.compile(r"(cublas|__cuda|cuda)\w+")
LATER = {  # what Triton and cuDNN ask of a driver to load and launch the kernels that they compile
    "cuCtxPopCurrent", "cuCtxPushCurrent", "cuCtxPushCurrent_v2", "cuCtxSetCurrent", "cuCtxSetLimit", "cuFuncSetAttribute",
    "cuFuncSetCacheConfig", "cuKernelSetAttribute", "cuLaunchKernelEx", "cuLibraryUnload", "cuLinkAddData", "cuLinkAddData_v2",
    "cuLinkCreate", "cuLinkDestroy", "cuModuleUnload",
}  # fmt: skip
NVML = {
    0: ("nvmlInit_v2", "nvmlDeviceGetHandleByPciBusId_v2", "nvmlSystemGetCudaDriverVersion_v2", "nvmlDeviceGetHandleByIndex_v2"),
    3: (  # not supported
        "nvmlDeviceGetComputeRunningProcesses", "nvmlDeviceGetComputeRunningProcesses_v3", "nvmlDeviceGetGpuFabricInfoV",
        "nvmlDeviceGetNvLinkRemoteDeviceType", "nvmlDeviceGetNvLinkRemotePciInfo_v2", "nvmlDeviceGetMemoryInfo",
        "nvmlDeviceGetMemoryInfo_v2",
    ),
}  # fmt: skip


def build(python: str) -> Path:
    """The folder that holds the stand-in for the torch of the interpreter ``python``."""
    packages = site_packages(python)
    sources = [*sorted(SOURCES.iterdir()), Path(__file__)]
    key = hashlib.sha256(b"".join([str(packages).encode(), torch_release(packages).encode(), *(p.read_bytes() for p in sources)]))
    folder = Path(tempfile.gettempdir()) / f"memest-stand-in-{key.hexdigest()[:12]}"
    if not (folder / "built").exists():
        folder.mkdir(exist_ok=True)
        _build(packages, [p for p in sources if p.suffix == ".cpp"], folder)
        (folder / "built").touch()
    return folder


def site_packages(python: str) -> Path:
    """Where that interpreter has its torch; SystemExit where it has none built for CUDA."""
    asked = "import importlib.util as u; s = u.find_spec('torch'); print(s.origin if s else '')"
    origin = subprocess.run([python, "-c", asked], check=True, capture_output=True, text=True).stdout.strip()
    packages = Path(origin).parent.parent
    if not origin or not (packages / "torch/lib/libtorch_cuda.so").exists():
        raise SystemExit(f"{python} has no torch that is built for CUDA; name one that has with --python")
    return packages


def torch_release(packages: Path) -> str:
    """The release of torch in a folder of packages, such as "2.14.1+cu130"."""
    text = (packages / "torch/version.py").read_text(encoding="utf-8")
    found = re.search(r"__version__ = '([^']+)'", text)
    return found[1] if found else ""


def _build(packages: Path, sources: Iterable[Path], folder: Path) -> None:
    headers = [packages / "nvidia/cu13/include", packages / "nvidia/cudnn/include", packages / "triton/backends/nvidia/include"]
    objects = [folder / f"{p.stem}.o" for p in sources]
    for source, made in zip(sources, objects, strict=True):
        options = ["-std=c++17", "-O1", "-fPIC", "-fvisibility=hidden", "-w", *(o for h in headers for o in ("-idirafter", str(h)))]
        _run("g++", *options, "-c", "-o", str(made), str(source))
    objects = [o for o in objects if o.stem != "driver"]
    have = _symbols("--defined-only", objects)
    needed = _symbols("-D", [packages / f"torch/lib/lib{name}.so" for name in LINKED], "--undefined-only")
    rest = sorted(name for name in needed - have if ANSWERED.fullmatch(name))
    _library(folder / "libstandin.so", {0: rest}, *map(str, objects), "-ldl")
    driver = _symbols("-D", [packages / "torch/lib/libcaffe2_nvrtc.so"], "--undefined-only")
    calls = sorted({name for name in driver if re.fullmatch(r"cu[A-Z]\w+", name)} | LATER)
    _library(folder / "libcuda.so.1", {0: calls}, str(folder / "driver.o"), "-Wl,-soname,libcuda.so.1")
    _library(folder / "libnvidia-ml.so.1", NVML, "-Wl,-soname,libnvidia-ml.so.1")


def _library(path: Path, constants: Mapping[int, Iterable[str]], *given: str) -> None:
    """A shared library of what is given and of functions that only return a number (given ones come first)."""
    lines = [
        f'extern "C" __attribute__((weak, visibility("default"))) int {n}() {{ return {v}; }}'
        for v, names in constants.items()
        for n in names
    ]
    rest = path.with_name(f"{path.name.partition('.')[0]}_rest.cpp")
    rest.write_text("\n".join(lines) + "\n", encoding="utf-8")
    _run("g++", "-std=c++17", "-O1", "-fPIC", "-w", "-shared", "-o", str(path), str(rest), *given)


def _symbols(kind: str, files: Iterable[Path], *more: str) -> set[str]:
    there = [str(p) for p in files if p.exists()]
    text = _run("nm", kind, *more, *there)
    return {line.split()[-1].partition("@")[0] for line in text.splitlines() if line.strip() and not line.endswith(":")}


def _run(*command: str) -> str:
    done = subprocess.run(command, check=False, capture_output=True, text=True)
    if done.returncode:
        raise SystemExit(f"{command[0]} fails: {done.stderr.strip()[-2000:]}")
    return done.stdout


if __name__ == "__main__":
    print(build(sys.argv[1] if len(sys.argv) > 1 else sys.executable))
