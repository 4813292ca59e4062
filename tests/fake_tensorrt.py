"""Stand-ins for the modules `tensorrt` of versions 10 and 11, as far as engines are built with them.

What each version has follows NVIDIA's API: 11 has no flags of precision, no calibrators and no EXPLICIT_BATCH.
A graph is JSON: {"inputs": {name: shape}, "outputs": {...}, "types": [names], "layers": [names], "errors": [...],
"fails": message}. An engine is JSON too: all that the builder was told.
"""

import enum
import json
from types import ModuleType, SimpleNamespace

V10 = ["FP16", "BF16", "INT8", "OBEY_PRECISION_CONSTRAINTS", "PREFER_PRECISION_CONSTRAINTS"]
SHARED = ["TF32", "GPU_FALLBACK", "VERSION_COMPATIBLE", "STRIP_PLAN"]


class Tensor:
    def __init__(self, name, shape, dtype):
        self.name, self.shape, self.dtype = name, shape, SimpleNamespace(name=dtype)


class Layer:
    num_outputs = 1

    def __init__(self, name, kind, dtype):
        self.name, self.type, self.dtype = name, SimpleNamespace(name=kind), dtype

    def get_output(self, _):
        return Tensor(self.name, (), self.dtype)


class Network:
    def __init__(self, flags):
        self.strong, self.graph = bool(flags & 1 << 1), {}

    def _tensors(self, name):
        types = {"nms_out_1": "INT32"}
        return [Tensor(key, tuple(shape), types.get(key, "FLOAT")) for key, shape in self.graph[name].items()]

    @property
    def _layers(self):
        named = [Layer(name, kind, "FLOAT") for name, kind in self.graph.get("layers", {}).items()]
        return [*named, *(Layer(f"layer_{i}", "CAST", name) for i, name in enumerate(self.graph["types"]))]

    num_inputs = property(lambda self: len(self.graph["inputs"]))
    num_outputs = property(lambda self: len(self.graph["outputs"]))
    num_layers = property(lambda self: len(self._layers))

    def get_input(self, i):
        return self._tensors("inputs")[i]

    def get_output(self, i):
        return self._tensors("outputs")[i]

    def get_layer(self, i):
        return self._layers[i]


class ParserError:
    def __init__(self, parts):
        for name, value in {"node": 0, **parts}.items():
            setattr(self, name, lambda value=value: value)


class OnnxParser:
    def __init__(self, network, logger):
        self.network = network

    def parse(self, content):
        self.graph = self.network.graph = json.loads(content)
        return not self.num_errors

    num_errors = property(lambda self: len(self.graph.get("errors", [])))

    def get_error(self, i):
        return ParserError(self.graph["errors"][i])


class TimingCache:
    def __init__(self, content):
        self.content = bytes(content)

    def serialize(self):
        return self.content + b"+"


class Config:
    def __init__(self):
        self.flags, self.profiles, self.pools, self.cache = [], [], {}, None

    def set_flag(self, flag):
        self.flags.append(flag.name)

    def clear_flag(self, flag):
        self.flags.append(f"no {flag.name}")

    def add_optimization_profile(self, profile):
        self.profiles.append(profile)

    def set_memory_pool_limit(self, pool, limit):
        self.pools[pool.name] = limit

    def create_timing_cache(self, content):
        return TimingCache(content)

    def set_timing_cache(self, cache, ignore_mismatch):
        fits = not cache.content.startswith(b"other")
        self.cache = cache if fits else self.cache
        return fits

    def get_timing_cache(self):
        return self.cache


class Profile(dict):
    def set_shape(self, name, low, best, high):
        self[name] = [low, best, high]


def module(version):
    """The module of a version, such as 10.16.1.11."""
    major = int(version.partition(".")[0])

    class ILogger:
        Severity = enum.Enum("Severity", ["INTERNAL_ERROR", "ERROR", "WARNING", "INFO", "VERBOSE"])

    class IProgressMonitor:
        pass

    class Builder:
        num_DLA_cores = 2

        def __init__(self, logger):
            self.logger = logger

        def create_network(self, flags):
            return Network(flags)

        def create_builder_config(self):
            return Config()

        def create_optimization_profile(self):
            return Profile()

        def build_serialized_network(self, network, config):
            config.progress_monitor.phase_start("Building engine", None, 3)
            config.progress_monitor.phase_start("Timing tactics", "Building engine", 3)
            if failure := network.graph.get("fails"):
                self.logger.log(ILogger.Severity.ERROR, failure)
                return None
            calibrator = getattr(config, "int8_calibrator", None)
            told = {
                "strongly_typed": network.strong,
                "flags": config.flags,
                "profiles": config.profiles,
                "pools": config.pools,
                "cache": calibrator.read_calibration_cache().decode() if calibrator else None,
                "hardware": getattr(config, "hardware_compatibility_level", None),
                "dla": getattr(config, "DLA_core", None),
                "level": getattr(config, "builder_optimization_level", None),
            }
            return json.dumps(told, default=lambda item: item.name).encode()

    names = [*SHARED, *(V10 if major == 10 else [])]
    creation = {"EXPLICIT_BATCH": 0, "STRONGLY_TYPED": 1} if major == 10 else {"STRONGLY_TYPED": 1}
    made = ModuleType("tensorrt")
    made.__version__ = version
    made.ILogger, made.IProgressMonitor, made.Builder, made.OnnxParser = (
        ILogger,
        IProgressMonitor,
        Builder,
        OnnxParser,
    )
    made.BuilderFlag = enum.Enum("BuilderFlag", names)
    made.NetworkDefinitionCreationFlag = enum.IntEnum("NetworkDefinitionCreationFlag", creation)
    made.MemoryPoolType = enum.Enum("MemoryPoolType", ["WORKSPACE"])
    made.DeviceType = enum.Enum("DeviceType", ["GPU", "DLA"])
    levels = ["NONE", "AMPERE_PLUS", "SAME_COMPUTE_CAPABILITY"]
    made.HardwareCompatibilityLevel = enum.Enum("HardwareCompatibilityLevel", levels)
    if major == 10:
        made.IInt8EntropyCalibrator2 = type("IInt8EntropyCalibrator2", (), {})
    return made
