"""From a prompt to images and activations: loads any diffusers pipeline and hooks one of its modules.

The stage is `capture`, in `raigen.diffusion.capture`.
"""
