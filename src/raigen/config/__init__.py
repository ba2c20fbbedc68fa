"""The configuration of every stage: the Python API, the command line and the saved JSON are these dataclasses."""

from raigen.config.amplification import CONTROLLED, CONTROLS, METHODS, AmplifyConfig, StudioConfig
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
from raigen.config.fields import (
    CLIP,
    EMBLEMS,
    KINDS,
    OPENAI_URL,
    PORTRAITS,
    WORLDS,
    ModelAddress,
    address_of,
    identity,
)
from raigen.config.judging import AnnotateConfig, AskConfig, EvaluateConfig
from raigen.config.sae import SAEConfig, TrainConfig
from raigen.config.text_files import (
    UNSEEN,
    in_a_line,
    json_of,
    labels_of,
    lines_of,
    object_of,
    parsed,
    rows_of,
    shaped,
    text_of,
    visible,
)

__all__ = [
    "CLIP",
    "CONTROLLED",
    "CONTROLS",
    "DTYPES",
    "EMBLEMS",
    "KINDS",
    "METHODS",
    "MIN_IMAGES",
    "OFFLOADS",
    "OPENAI_URL",
    "PORTRAITS",
    "STAGES",
    "STAGE_CONFIGS",
    "UNSEEN",
    "WORLDS",
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
    "StudioConfig",
    "TrainConfig",
    "address_of",
    "identity",
    "in_a_line",
    "json_of",
    "labels_of",
    "lines_of",
    "object_of",
    "parsed",
    "rows_of",
    "shaped",
    "text_of",
    "visible",
]
