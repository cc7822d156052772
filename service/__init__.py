"""The HTTP service: pools, labels and prompts, with state that survives whatever happens to the process.

Everything it computes is the library's; it adds state, safety and speed. Start it with ``icl-select serve``.
"""
