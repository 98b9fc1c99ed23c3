from papercore.testing.fixtures import model_cache, one_thread

__all__ = ["model_cache", "one_thread"]
