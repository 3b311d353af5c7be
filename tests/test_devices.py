"""The cards as their drivers describe them: data with sources, the JSON that cuDNN takes, and which torch has kernels for which card."""

from __future__ import annotations

import ctypes
import importlib.util
import json
from collections.abc import Callable
from pathlib import Path

import pytest

import memest
from memest.errors import UsageError
from memest.libraries.cudnn.library import installed, plans
from memest.libraries.cudnn.question import Convolution, Direction
from memest.machines.architectures import ARCHITECTURES, capability_text
from memest.machines.devices import DEVICES, device_named, devices, gpu_of
from memest.machines.gpu import Device, Gpu
from memest.machines.reading import hardware, hardware_named
from memest.machines.versions import MODELLED
from memest.machines.wheels import WHEELS, least_capability, unsupported, wheel_for, wheels

FIGURES = ("deviceVer", "multiProcessorCount", "l2CacheSize", "smClockRateKHz", "memClockRateKHz",
           "maxThreadsPerSM", "maxCtasPerSM", "maxSharedMemoryPerBlockOptin", "reservedSharedMemoryPerBlock")  # fmt: skip
KNOWN = {  # descriptions written independently, from public specifications
    "a100-40gb": (800, 108, 41943040, 1410000, 1215000, 2048, 32, 166912, 1024),
    "h100-80gb": (900, 132, 52428800, 1980000, 2619000, 2048, 32, 232448, 1024),
    "quadro-rtx-6000": (750, 72, 6291456, 1770000, 7001000, 1024, 16, 65536, 0),
    "t4": (750, 40, 4194304, 1590000, 5001000, 1024, 16, 65536, 0),
    "v100-32gb": (700, 80, 6291456, 1530000, 877000, 2048, 32, 98304, 0),
}
NVIDIA = [e for e in hardware() if e.title.startswith("NVIDIA")]


@pytest.mark.parametrize("entry", NVIDIA, ids=lambda e: e.name)
def test_every_nvidia_card_of_the_catalogue_has_a_description_with_a_source(entry: memest.Hardware) -> None:
    device = device_named(entry.name)
    assert device is not None and device.source and device.source != "as given"
    assert device.memory_bytes == entry.usable_bytes
    assert device.threads_per_multiprocessor == device.architecture.threads_per_multiprocessor
    assert 5 <= device.multiprocessors <= 200 and 2**20 <= device.l2_bytes <= 2**28
    assert 700_000 < device.sm_clock_khz < 3_000_000 and 700_000 < device.memory_clock_khz < 15_000_000


def test_descriptions_are_of_cards_in_the_catalogue_and_no_other() -> None:
    assert set(devices()) == {e.name for e in NVIDIA}
    assert device_named("mi300x") is None and device_named("H100 80GB") == device_named("h100-80gb")
    raw = json.loads(DEVICES.read_text())["devices"]
    assert len({d["title"] for d in raw.values()}) == len(raw)
    assert {d["capability"] for d in raw.values()} <= {capability_text(c) for c in ARCHITECTURES}


@pytest.mark.parametrize("name", KNOWN)
def test_the_properties_of_known_cards(name: str) -> None:
    device = device_named(name)
    assert device is not None
    found = device.properties()
    assert tuple(found[f] for f in FIGURES) == KNOWN[name]
    common = {"regsPerBlock": 65536, "maxRegistersPerSM": 65536, "maxSharedMemoryPerBlock": 49152, "warpSize": 32, "driverVer": 13000}
    assert common.items() <= found.items() and found["deviceName"] == device.title and found["totalGlobalMem"] == device.memory_bytes
    assert json.loads(json.dumps(found)) == found
    assert device.properties(12080)["driverVer"] == 12080


def test_a_gpu_of_the_catalogue_knows_its_device_and_one_of_a_file_its_own_memory(tmp_path: Path) -> None:
    assert gpu_of(hardware_named("t4")) == Gpu(name="t4", memory_bytes=hardware_named("t4").usable_bytes, device=device_named("t4"))
    assert gpu_of(hardware_named("mi300x")).device is None
    assert hash(device_named("t4")) != hash(device_named("l4"))


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"multiprocessors": 0}, "multiprocessors is a whole number"),
        ({"l2_bytes": 1.5}, "l2_bytes is a whole number"),
        ({"title": ""}, "title is a text"),
        ({"capability": (8, 7)}, "compute capability 8.7 is not described; known are 3.7, 6.0"),
    ],
)
def test_what_no_device_is(change: dict[str, object], words: str) -> None:
    fields = {"title": "X", "capability": (8, 0), "multiprocessors": 1, "threads_per_multiprocessor": 2048, "l2_bytes": 2**20}
    plain = {**fields, "sm_clock_khz": 1, "memory_clock_khz": 1, "memory_bytes": 1}
    assert Device(**plain).architecture.name == "Ampere"  # type: ignore[arg-type]
    with pytest.raises(UsageError, match=words):
        Device(**{**plain, **change})  # type: ignore[arg-type]
    with pytest.raises(UsageError, match="device is a Device"):
        Gpu(name="x", memory_bytes=1, device="h100")  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("typed", "meant"),
    [
        ("h100", ("'h100-80gb'",)),
        ("a100", ("'a100-40gb'", "'a100-80gb'")),
        ("v100", ("'v100-16gb'", "'v100-32gb'")),
        ("rtx-3060", ("'rtx-3060-12gb'",)),
        ("rtx3080", ("'rtx-3080-10gb'",)),
        ("rtx6000", ("'rtx-6000-ada'", "'quadro-rtx-6000'")),
        ("1080ti", ("'gtx-1080-ti'",)),
        ("A6000", ("'rtx-a6000'",)),
        ("P100", ("'p100-16gb'",)),
    ],
)
def test_short_names_are_answered_with_those_meant(typed: str, meant: tuple[str, ...]) -> None:
    with pytest.raises(UsageError) as caught:
        hardware_named(typed)
    assert "did you mean" in str(caught.value) and all(name in str(caught.value) for name in meant) and "\n" not in str(caught.value)


# wheels ------------------------------------------------------------------------------------------------------------------


def test_every_modelled_torch_has_its_wheels_with_sources() -> None:
    raw = json.loads(WHEELS.read_text())
    assert all(raw["sources"].values())
    for version in MODELLED:
        first, *others = wheels(version)
        assert len({w.cuda for w in wheels(version)}) == len(wheels(version)) and all(w.cudnn <= first.cudnn for w in others)
        for wheel in wheels(version):
            assert least_capability(wheel.cudnn) <= min(wheel.capabilities), "a wheel's cuDNN has kernels for what the wheel is built for"
    assert (wheels((2, 9))[0].cuda, wheels((2, 11))[0].cudnn, wheels((2, 14))[0].cudnn) == ((12, 8), (9, 19), (9, 24))


@pytest.mark.parametrize(
    ("name", "torch", "cudnn", "words"),
    [
        ("h100-80gb", (2, 14), None, ""),
        ("rtx-4090", (2, 14), None, ""),  # 8.9 runs what is built for 8.6
        ("v100-32gb", (2, 9), None, ""),
        ("v100-32gb", (2, 14), None, "torch 2.14's wheel for CUDA 13.0 and cuDNN 9.24 have no kernels "
         "for Tesla V100-SXM2-32GB (Volta, 7.0); torch 2.14 for CUDA 12.6 with cuDNN 9.10 has them"),
        ("v100-32gb", (2, 14), (9, 10), "torch 2.14's wheel for CUDA 13.0 has no kernels"),
        ("v100-32gb", (2, 9), (9, 24), "cuDNN 9.24 has no kernels"),
        ("p100-16gb", (2, 9), None, "torch 2.9's wheel for CUDA 12.8 has no kernels"),
        ("k80", (2, 11), None, "no wheel of torch 2.9 or later has them"),
    ],
)  # fmt: skip
def test_a_card_that_torch_or_cudnn_no_longer_knows(name: str, torch: tuple[int, int], cudnn: tuple[int, int] | None, words: str) -> None:
    device = device_named(name)
    assert device is not None
    said = unsupported(device, torch, cudnn)
    assert words in said and bool(said) == bool(words) and "\n" not in said
    assert (wheel_for(torch, device) is None) == (name == "k80")


# cuDNN itself ------------------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def finalizes() -> Callable[[Device], bool]:
    """Whether the cuDNN at hand takes a device's properties."""
    found = importlib.util.find_spec("nvidia")
    roots = [Path(p) for p in (found.submodule_search_locations or [])] if found else []
    libraries = [p for root in roots for p in (root / "cudnn" / "lib").glob("libcudnn.so.9")]
    if not libraries:
        pytest.skip("nvidia-cudnn is not installed")
    for root in roots:
        for needed in ("*/lib/libcudart.so.*", "*/lib/libnvrtc.so.*", "*/lib/libcublasLt.so.*"):
            for path in root.glob(needed):
                ctypes.CDLL(str(path), mode=ctypes.RTLD_GLOBAL)
    cudnn = ctypes.CDLL(str(libraries[0]))

    def finalizes(device: Device) -> bool:
        text, descriptor = json.dumps(device.properties()).encode(), ctypes.c_void_p()
        assert cudnn.cudnnBackendCreateDescriptor(38, ctypes.byref(descriptor)) == 0  # CUDNN_BACKEND_DEVICEPROP_DESCRIPTOR
        json_representation, char = 2702, 24
        assert cudnn.cudnnBackendSetAttribute(descriptor, json_representation, char, ctypes.c_int64(len(text)), text) == 0
        return bool(cudnn.cudnnBackendFinalize(descriptor) == 0)

    return finalizes


@pytest.mark.parametrize("name", devices())
def test_cudnn_takes_every_card_but_kepler(name: str, finalizes: Callable[[Device], bool]) -> None:
    assert finalizes(devices()[name]) == (name != "k80")


ALIKE = (
    ("p100-16gb", "gtx-1080-ti", "v100-32gb"),  # no kernels of their own any more
    ("t4", "gtx-1650", "rtx-2080"),
    ("rtx-2080-ti", "titan-rtx", "quadro-rtx-6000"),  # Turing with 60 multiprocessors or more
    ("a100-40gb", "a30", "a100-80gb-pcie"),
    ("rtx-3090", "rtx-a4000", "rtx-3060-12gb", "a10"),
    ("rtx-4090", "l4", "rtx-4060-8gb"),
    ("h100-80gb", "h100-80gb-pcie", "h200-141gb"),
)


def _convolution(direction: Direction, x: tuple[int, ...], w: tuple[int, ...], stride: int, padding: int, dtype: str) -> Convolution:
    spatial = tuple((n + 2 * padding - k) // stride + 1 for n, k in zip(x[2:], w[2:], strict=True))
    ones = (1,) * len(spatial)
    return Convolution(
        direction=direction,
        x=x,
        w=w,
        y=(x[0], w[0], *spatial),
        stride=tuple(stride * n for n in ones),
        padding=tuple(padding * n for n in ones),
        dilation=ones,
        dtype=dtype,
    )


QUESTIONS = [
    _convolution("fwd", (32, 64, 56, 56), (64, 64, 3, 3), 1, 1, "float32"),
    _convolution("bwd_data", (32, 64, 56, 56), (64, 64, 3, 3), 1, 1, "float16"),
    _convolution("bwd_filter", (32, 64, 56, 56), (64, 64, 3, 3), 1, 1, "float32"),
    _convolution("fwd", (2, 32, 32, 32, 32), (32, 32, 3, 3, 3), 1, 1, "float16"),
    _convolution("bwd_filter", (8, 3, 224, 224), (64, 3, 7, 7), 2, 3, "float32"),
]
TELLING = _convolution("fwd", (16, 1024, 7, 7), (32, 1024, 7, 7), 2, 3, "float32")


@pytest.mark.skipif(installed() != (9, 24), reason="needs cuDNN 9.24")
@pytest.mark.parametrize("names", ALIKE, ids=lambda names: names[0])
def test_cudnn_chooses_by_compute_capability_and_on_turing_by_the_card_being_large(names: tuple[str, ...]) -> None:
    for question in (*QUESTIONS, TELLING):
        answers = {plans(devices()[name], (9, 24), question) for name in names}
        assert len(answers) == 1 and answers != {None}
    large = [n for n, d in devices().items() if d.capability == (7, 5) and d.multiprocessors >= 60]
    assert set(ALIKE[2]) <= set(large) and not set(ALIKE[1]) & set(large)
    assert plans(devices()["t4"], (9, 24), TELLING) != plans(devices()["rtx-2080-ti"], (9, 24), TELLING)
