"""Asks vision-language models: at a server, in this process, or from a script."""
