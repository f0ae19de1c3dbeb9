"""Where the graph and its data lie in a folder."""

GRAPH = "onnx/model.onnx"
RUNTIMES = ("onnxruntime", "onnxruntime-genai")  # by the names that findings have
DATA = "onnx/model.onnx_data"  # transformers.js wants <graph>_data, beside the graph
