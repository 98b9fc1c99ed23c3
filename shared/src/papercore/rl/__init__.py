"""Reinforcement learning of language models in small exact pieces; each package owns its loop."""
