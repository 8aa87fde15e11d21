"""INT8: the strategies, and what each layer loses."""
