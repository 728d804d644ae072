"""deburr: composable passes that make ONNX models smaller and faster."""
