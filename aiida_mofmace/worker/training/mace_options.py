"""The options of ``mace_run_train`` 0.3.16, so that a misspelt one is refused where mace is not installed.

The list is that of mace's own parser; a test holds the two together. On the compute machine the parser itself decides.
"""

from __future__ import annotations

__all__ = ["IDLE_OPTIONS", "MACE_OPTIONS"]

MACE_OPTIONS = frozenset(
    """
    E0s MLP_irreps add_local_electron_energy allow_random_padding_pt amsgrad apply_cutoff atomic_multipoles_max_l
    atomic_multipoles_smearing_width atomic_numbers avg_num_neighbors batch_size beta beta1_schedulefree
    beta2_schedulefree charges_key checkpoints_dir clip_grad compute_atomic_dipole compute_avg_num_neighbors
    compute_forces compute_polarizability compute_stress config config_type_weights correlation default_dtype device
    dipole_key dipole_weight distance_transform distributed downloads_dir dry_run edge_irreps elec_temp_key ema
    ema_decay embedding_specs enable_cueq enable_oeq energy_key energy_weight error_table eval_interval
    field_feature_max_l field_feature_norms field_feature_widths field_norm_factor field_readout_config field_si
    filter_type_pt fixedpoint_update_config force_mh_ft_lr forces_key forces_weight foundation_filter_elements
    foundation_head foundation_model foundation_model_elements foundation_model_kwargs foundation_model_readout
    freeze gate head_key heads hidden_irreps huber_delta include_electrostatic_self_interaction interaction
    interaction_first keep_checkpoints keep_isolated_atoms kspace_cutoff_factor launcher lbfgs les_arguments log_dir
    log_level lora lora_alpha lora_rank loss lr lr_factor lr_params_factors lr_scheduler_gamma max_L max_ell
    max_num_epochs mean model model_dir multi_processed_test multiheads_finetuning name num_channels
    num_cutoff_basis num_interactions num_radial_basis num_recursion_steps num_samples_pt num_workers only_cueq
    optimizer pair_repulsion patience pin_memory plot plot_frequency plot_interaction_e polarizability_key
    polarizability_weight pseudolabel_replay pseudolabel_replay_compute_stress pt_train_file pt_valid_file
    quadrupole_feature_corrections r_max radial_MLP radial_type real_pt_data_ratio_threshold restart_latest
    results_dir return_electrostatic_potentials save_all_checkpoints save_cpu scaling scheduler scheduler_patience
    seed skip_evaluate_heads start_swa statistics_file std stress_key stress_weight subselect_pt swa
    swa_dipole_weight swa_energy_weight swa_forces_weight swa_lr swa_polarizability_weight swa_stress_weight
    swa_virials_weight test_dir test_file total_charge_key total_spin_key train_file use_agnostic_product
    use_edge_irreps_first use_embedding_readout use_last_readout_only use_reduced_cg use_so3 valid_batch_size
    valid_file valid_fraction virials_key virials_weight wandb wandb_dir wandb_entity wandb_log_hypers wandb_name
    wandb_project weight_decay weight_pt_head work_dir
    """.split()  # noqa: SIM905
)

#: Options that mace takes without a word and that change nothing here, by the reason why.
IDLE_OPTIONS = {
    "the foundation model decides it": frozenset(
        """
        MLP_irreps apply_cutoff avg_num_neighbors compute_avg_num_neighbors correlation distance_transform edge_irreps
        gate hidden_irreps interaction interaction_first max_L max_ell num_channels num_cutoff_basis num_interactions
        num_radial_basis pair_repulsion r_max radial_MLP radial_type use_agnostic_product use_edge_irreps_first
        use_last_readout_only use_reduced_cg use_so3
        """.split()  # noqa: SIM905
    ),
    "it is meant for replay data that mace downloads": frozenset(
        "allow_random_padding_pt filter_type_pt num_samples_pt subselect_pt weight_pt_head".split()  # noqa: SIM905
    ),
    "it belongs to mace's own training loop, which is not run": frozenset(
        """
        keep_checkpoints multi_processed_test plot_frequency plot_interaction_e save_all_checkpoints
        skip_evaluate_heads wandb_dir wandb_entity wandb_log_hypers wandb_name wandb_project
        """.split()  # noqa: SIM905
    ),
}
