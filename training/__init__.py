"""The recipe of the demo checkpoints, and fine-tuning of published ones. `python -m training --help`."""
