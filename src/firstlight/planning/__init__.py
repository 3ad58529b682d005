"""Arithmetic about a run that needs no run: parameters, FLOPs, hardware peaks."""
