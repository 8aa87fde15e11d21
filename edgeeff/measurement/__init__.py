"""Accuracy, latency, and the state of the machine they are measured on."""
