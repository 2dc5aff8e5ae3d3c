"""Fine-tuning with ``mace_run_train``, made to fail loudly and to stop when told."""
