"""What the backends share that run a model on a device of this machine."""
