"""What runs inside the fork server, started by `python -I -S`: the standard library, nothing else.

Its modules import each other relatively, because `papercore` is not importable there.
"""
