"""Hydra plugins of dit: the sweeper that makes a study's plan into jobs."""
