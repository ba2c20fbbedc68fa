"""From listed neurons to names and rates, by CLIP, the judge of the planted world, or a vision-language model.

The stages are `annotate` and `evaluate`; `judges` decides which images show an attribute; `vlm` asks a model.
"""
