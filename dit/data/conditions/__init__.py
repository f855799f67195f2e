"""Conditions of a data set's samples, as ``dit encode`` stores them: labels and encoded texts."""
