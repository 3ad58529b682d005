"""Megatron-LM's command line, both ways: its flags as a Firstlight configuration, and a recipe as its flags."""
