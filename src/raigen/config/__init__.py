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
from raigen.config.discovery import DiscoverConfig, LookConfig, Pruning
from raigen.config.fields import CLIP, KINDS, OPENAI_URL, WORLD, ModelAddress, address_of, identity
from raigen.config.judging import AnnotateConfig, AskConfig, EvaluateConfig
from raigen.config.sae import SAEConfig, TrainConfig
from raigen.config.text_files import LONGEST_LABEL, json_of, lines_of, object_of, parsed, rows_of, shaped, text_of

__all__ = [
    "CLIP",
    "CONTROLLED",
    "CONTROLS",
    "DTYPES",
    "KINDS",
    "LONGEST_LABEL",
    "METHODS",
    "MIN_IMAGES",
    "OFFLOADS",
    "OPENAI_URL",
    "STAGES",
    "STAGE_CONFIGS",
    "WORLD",
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
    "LookConfig",
    "ModelAddress",
    "Pruning",
    "ReportConfig",
    "SAEConfig",
    "SearchConfig",
    "TrainConfig",
    "address_of",
    "identity",
    "json_of",
    "lines_of",
    "object_of",
    "parsed",
    "rows_of",
    "shaped",
    "text_of",
]
