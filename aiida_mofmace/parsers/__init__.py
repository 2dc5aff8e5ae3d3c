"""Parsers: from the files of a finished job to nodes and an exit code."""
