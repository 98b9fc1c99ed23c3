"""RoTBench: how robust a model's tool calls are to noise in the names of tools and parameters."""
