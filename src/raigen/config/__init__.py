"""The configuration of every stage: the Python API, the command line and the saved JSON are these dataclasses."""

from raigen.config.amplification import CONTROLLED, CONTROLS, METHODS, AmplifyConfig
from raigen.config.audit import STAGE_CONFIGS, STAGES, AuditConfig, ReportConfig
from raigen.config.comparison import CompareConfig
from raigen.config.diffusion import (
    DTYPES,
    MIN_IMAGES,
    OFFLOADS,
    CaptureConfig,
    HookpointsConfig,
    LoadConfig,
    SearchConfig,
)
from raigen.config.discovery import DiscoverConfig, Pruning
from raigen.config.fields import identity
from raigen.config.judging import AnnotateConfig, AskConfig, EvaluateConfig
from raigen.config.sae import SAEConfig, TrainConfig

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
