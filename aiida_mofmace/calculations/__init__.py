"""Calculation jobs: put inputs into files, name the command, name what comes back."""
