"""The science: programs that run on the compute machine, shipped with each job. Nothing here imports aiida."""
