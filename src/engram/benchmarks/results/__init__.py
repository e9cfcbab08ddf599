"""What the benchmarks find, as plain data: no torch, so that tables and figures load at once. Times are in seconds, sizes in bytes."""

from engram.benchmarks.results.comparison import ComparedCase, Comparison, Ratio, TableSpeed, Variant
from engram.benchmarks.results.machine import Machine
from engram.benchmarks.results.measured import FEWEST, Measured
from engram.benchmarks.results.memory import MemoryCase, MemorySpeed
from engram.benchmarks.results.offload import NO_TABLE, PROCESS, ServingCase, ServingSpeed, TrainingCase, TrainingSpeed
from engram.benchmarks.results.pack import Pack, PackedTrials
from engram.benchmarks.results.prefix_sharing import PrefixSharing
from engram.benchmarks.results.train import COUNTED, PartTime, ProductTime, SideBySide, TrainSpeed

__all__ = [
    "COUNTED",
    "FEWEST",
    "NO_TABLE",
    "PROCESS",
    "ComparedCase",
    "Comparison",
    "Machine",
    "Measured",
    "MemoryCase",
    "MemorySpeed",
    "Pack",
    "PackedTrials",
    "PartTime",
    "PrefixSharing",
    "ProductTime",
    "Ratio",
    "ServingCase",
    "ServingSpeed",
    "SideBySide",
    "TableSpeed",
    "TrainSpeed",
    "TrainingCase",
    "TrainingSpeed",
    "Variant",
]
