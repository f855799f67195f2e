"""Hydra plugins of dit: the local launcher."""
