"""The operators of ONNX as differentiable functions of torch, one room for each kind of operator."""
