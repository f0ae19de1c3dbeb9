"""Files in: folders and hub ids, safetensors and PyTorch archives; lazy tensors, headers only."""
