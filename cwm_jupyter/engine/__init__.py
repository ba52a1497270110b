"""What runs inside the servers: imported there from a copy, never by the kernel.

Modules here may import vLLM, LMCache and torch; nothing else in the package may.
"""
