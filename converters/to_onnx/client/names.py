"""Where the graph and its data lie in a folder."""

GRAPH = "onnx/model.onnx"
# by the names that findings have
RUNTIMES = ("onnxruntime", "onnxruntime-genai", "transformers.js", "optimum-onnx")
DATA = "onnx/model.onnx_data"  # transformers.js wants <graph>_data, beside the graph
CODES = "ropeconv.codes"  # in a graph's metadata: how codes were chosen
