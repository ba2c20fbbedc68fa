"""Says which part of a dossier speaks to which published demand, in our own words; it claims that none is fulfilled."""

from typing import NamedTuple


class Demand(NamedTuple):
    """A demand of a published text: its `id` there, what it is about, the `sections` of audit.md that a reader looks at
    for it, and what is left to do for a person."""

    source: str
    id: str
    about: str
    sections: tuple[str, ...]
    left: str


NIST, EU, ISO = "NIST AI 600-1", "EU AI Act (Regulation 2024/1689)", "ISO/IEC 42005:2025"
FINDINGS, COMBINATIONS, JUDGES, METHOD, SCOPE = "Findings", "Combinations", "Judges", "Method and reach", "Scope"
MODEL, TOLERANCES, MITIGATION, RISK, SIGN_OFF = "Model", "Tolerances", "Mitigation", "Residual risk", "Sign-off"

CROSSWALK = (
    Demand(NIST, "MS-2.11-002", "measure how a system treats groups and subgroups differently", (FINDINGS, TOLERANCES),
           "say which groups matter here; an image model's rates are one kind of harm among several"),
    Demand(NIST, "MS-2.11-004", "look for sources of bias, also where groups overlap", (FINDINGS, COMBINATIONS),
           "look into the training data, which an audit of images cannot see"),
    Demand(NIST, "MS-2.13-001", "know how wrong the measurements themselves can be", (JUDGES, METHOD),
           "check the judge by hand if no one has"),
    Demand(NIST, "MS-4.2-003", "use methods that look inside a model to see why it decides as it does", (METHOD,),
           "judge whether the neurons explain enough for the purpose"),
    Demand(NIST, "MG-2.2-001", "compare outputs with the risks that the organization is willing to take",
           (TOLERANCES, RISK), "set the tolerances, and decide what follows if one is violated"),
    Demand(EU, "Art. 53(1)(a)", "technical documentation of a general-purpose model, with its tests and their results",
           (MODEL, METHOD, FINDINGS), "all other parts of the documentation"),
    Demand(EU, "Annex XI", "what the documentation holds: among it the tests, their criteria, results and limits",
           (METHOD, FINDINGS, JUDGES, RISK), "the training, the data, the computing and energy used"),
    Demand(ISO, "5.7", "thresholds for what an organization accepts", (TOLERANCES,), "set them"),
    Demand(ISO, "5.11", "approval of the assessment", (SIGN_OFF,), "sign, or refuse to"),
    Demand(ISO, "6.2", "the scope of an impact assessment", (SCOPE,), "uses, places and people beyond these prompts"),
    Demand(ISO, "6.3", "what the system is, what it can do, and what it is for", (MODEL, SCOPE, FINDINGS),
           "the purpose, and the uses that were not intended"),
)  # fmt: skip
