"""The page of a run: what was trained, on what, how it went, as one HTML file that needs no network.

This room turns plain facts (`facts.RunFacts`) into a page; `pipeline.reporting` gathers them from run folders.
"""
