"""Reinforcement learning of language models in small exact pieces; each package owns its loop.

Rollouts are drawn (`sampling`), scored (`scoring`, by an `actor_critic`), made into advantages
(`estimators`), and change the policy (`update`); `checkpoints` let a killed run go on bit for bit.
What is imported is named in full, `papercore.rl.update`: nothing here is imported for its own sake.
"""
