"""The configuration of every stage: the Python API, the command line and the saved JSON are these dataclasses."""

from raigen.config.amplifying import CONTROLLED, CONTROLS, METHODS, AmplifyConfig
from raigen.config.asking import AnnotateConfig, AskConfig, CompareConfig, EvaluateConfig
from raigen.config.auditing import STAGE_CONFIGS, STAGES, AuditConfig, ReportConfig
from raigen.config.checks import identity
from raigen.config.learning import DiscoverConfig, Pruning, SAEConfig, TrainConfig
from raigen.config.making import (
    DTYPES,
    MIN_IMAGES,
    OFFLOADS,
    CaptureConfig,
    HookpointsConfig,
    LoadConfig,
    SearchConfig,
)

__all__ = [
    "CONTROLLED",
    "CONTROLS",
    "DTYPES",
    "METHODS",
    "MIN_IMAGES",
    "OFFLOADS",
    "STAGES",
    "STAGE_CONFIGS",
    "AmplifyConfig",
    "AnnotateConfig",
    "AskConfig",
    "AuditConfig",
    "CaptureConfig",
    "CompareConfig",
    "DiscoverConfig",
    "EvaluateConfig",
    "HookpointsConfig",
    "LoadConfig",
    "Pruning",
    "ReportConfig",
    "SAEConfig",
    "SearchConfig",
    "TrainConfig",
    "identity",
]
