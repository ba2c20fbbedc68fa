"""From listed neurons to names and rates: CLIP, the judge of the planted world, or a vision-language model.

The stages are `annotate` and `evaluate`; `vlm` asks a model.
"""
