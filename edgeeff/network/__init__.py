"""The EfficientNet family: description, torch module, checkpoints and training."""
