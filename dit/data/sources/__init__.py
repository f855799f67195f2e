"""Sources of image files. Each lists its images once, in a fixed order, and reads by position from any
thread.
"""
