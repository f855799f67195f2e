"""Scaling laws fitted to (N, D, C, loss) points: laws, exact optima, intervals, hold-out; numpy alone."""
