"""One module a program, each with ``run(inputs, stop) -> results``."""
