"""Where a network may have to fit: accelerators and servers as data, and the verdict on a peak.

    hardware:
      lab-server:
        title: The lab's server
        kind: server                       # or accelerator
        tiers:                             # in the order they fill: DRAM first, persistent memory after it
          - {name: DRAM, bytes: 256GiB, usable: 250GiB, basis: free -b}
          - {name: PMem, bytes: 1TiB}
        source: the order of 2021

Promises: every entry of the catalogue names the source of its size and the rule behind what is usable. Vendors say GB and TB of memory
and mean powers of two (JEDEC JESD100B), so the catalogue writes GiB and TiB. ``usable`` is the total a program meets, where somebody
documented it: the CUDA runtime's total (torch prints it in hundredths of a GiB when memory runs out, so it is known to 5 MiB), else the
driver's; where nobody did it is the nominal size, and ``basis`` says so. Refuses to subtract what depends on the program: the CUDA
context, the caching allocator's rounding, the operating system: a verdict on an
accelerator names what is missing, and does not say that a step fits.
"""

from memest.hardware.claims import Claim, claim_on
from memest.hardware.entry import Hardware, Tier
from memest.hardware.reading import hardware, hardware_named, load_hardware
from memest.hardware.verdicts import TierUse, Verdict, budget, place_of, places, verdict

__all__ = [
    "Claim",
    "Hardware",
    "Tier",
    "TierUse",
    "Verdict",
    "budget",
    "claim_on",
    "hardware",
    "hardware_named",
    "load_hardware",
    "place_of",
    "places",
    "verdict",
]
