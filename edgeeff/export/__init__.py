"""torch to ONNX: float, INT8 as Q/DQ pairs, FP16, and the rules of TensorRT."""
