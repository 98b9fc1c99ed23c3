"""R3: reasoning learned by reverse-curriculum reinforcement from outcome rewards alone.

Paper: 2402.05808. Importing this module needs no torch; using it does.
"""

from r3.demos import Demo, Encoded, Start

__all__ = ["Demo", "Encoded", "Start"]

__version__ = "1.0.0"
