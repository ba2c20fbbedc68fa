"""From a neuron to images that show it: steering, prompts, selection, and what each of them does.

The public functions are `amplify` and `steering`.
"""
