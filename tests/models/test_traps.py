"""The list of quantizer traps in published tokenizers, and for each one a test that would notice it here."""

from __future__ import annotations

from pathlib import Path

TESTS = Path(__file__).parents[1]
TRAPS = {
    # old sums overwrite a revived code
    1: "test_a_revived_code_is_not_overwritten_by_its_old_sums",
    # the threshold of revival is a number of latents, whatever the batch; all codes are revived at once
    2: "test_the_threshold_of_revival_does_not_depend_on_the_batch_size",
    # smoothed counts pull unused codes to the origin
    3: "test_codes_without_use_stay_where_they_are",
    # each rank averages its own latents
    4: "test_two_processes_learn_the_codebook_of_one_and_stay_equal_bit_by_bit",
    # the wrapper broadcasts buffers and so hides codebooks that differ
    5: "test_buffers_are_not_broadcast_and_unused_parameters_are_not_looked_for",
    # each rank starts from its own k-means
    6: "test_ranks_with_other_noise_and_other_first_latents_hold_equal_codebooks",
    # each rank revives with its own draw
    7: "test_ranks_with_other_noise_and_other_first_latents_hold_equal_codebooks",
    # ranks talk inside passes that only one of them makes, or in each micro batch
    8: "test_two_ranks_with_micro_batches_learn_what_one_learns_from_all_at_once",
    # the codebook moves while somebody else trains
    9: "test_nothing_but_training_changes_a_codebook",
    # a restored quantizer starts its codebook anew
    10: "test_the_k_means_start_puts_the_codes_into_the_data_and_is_remembered",
    # autocast is switched off for another device than the latents are on
    11: "test_autocast_and_half_precision_latents_change_no_code",
    # distances in half precision choose other codes
    12: "test_autocast_and_half_precision_latents_change_no_code",
    # digits are put together in half precision, or cut off instead of rounded
    13: "test_every_index_makes_the_round_trip",
    # the straight-through sum in half precision is no code vector
    14: "test_decoded_indices_are_the_values_of_the_training_pass",
    # the codebook moves before it quantises
    15: "test_latents_are_quantised_before_the_codebook_moves",
    # averages and a gradient move one codebook; weight decay shrinks it
    16: "test_weight_decay_draws_no_learnt_codes_together_not_even_those_of_a_copied_model",
    # losses are sums over pixels or latents
    17: "test_the_loss_is_a_mean_over_latents",
    # nobody knows which weight the commitment has
    18: "test_ema_quantizers_agree_over_twenty_training_steps",
    # usage is judged by single batches and ranks
    19: "test_a_hundred_batches_are_judged_as_one_and_not_each_alone",
    # usage means something else in each table
    20: "test_usage_is_the_share_of_codes_that_occur_and_bits_are_the_entropy_of_the_counts",
    # the entropy of use is that of one rank's latents
    21: "test_the_entropy_term_of_two_ranks_is_that_of_one_with_all_latents",
    # a norm or a convolution sees later frames
    22: "test_a_later_frame_changes_no_earlier_code_or_reconstruction",
    # clips of any length are taken and quietly padded
    23: "test_a_clip_of_one_and_s_k_frames_has_one_and_k_latent_steps",
    # a stream has other codes than the whole clip
    24: "test_any_chunks_give_the_codes_and_frames_of_the_whole_clip",
    # codes are of a type that cannot hold or index them
    26: "test_shapes_types_and_ranges_are_as_promised",
    # codebooks are averaged along with the weights
    27: "test_the_exported_weights_are_the_averaged_ones_beside_the_live_codebook",
    # the learning rate is so small that nothing is learnt
    28: "test_the_learning_rate_warms_up_and_decays_to_its_last_share",
    # parameters of the quantizer are not trained
    29: "test_every_parameter_receives_a_gradient",
    # parameters without a gradient, and a wrapper that looks for them in every step
    30: "test_buffers_are_not_broadcast_and_unused_parameters_are_not_looked_for",
    # training bypasses the wrapper, so that gradients are not averaged over ranks
    31: "test_one_process_with_the_same_batch_learns_the_same_codebook",
    # the rotation divides by a norm of zero
    32: "test_the_rotation_stays_finite_where_it_is_undefined",
}
"""By number. Trap 25, interpolation in half precision, does not apply: nothing interpolates."""


def test_each_trap_is_watched_by_a_test_that_is_there() -> None:
    sources = "".join(path.read_text() for path in TESTS.rglob("test_*.py"))
    assert sorted(TRAPS) == [number for number in range(1, 33) if number != 25]
    assert [name for name in TRAPS.values() if f"def {name}(" not in sources] == []


def test_nothing_interpolates() -> None:
    folder = TESTS.parent / "vqvideo" / "models" / "tokenizer"
    sources = [(folder / f"{name}.py").read_text() for name in ("backbones", "causal", "vqvae")]
    assert not any("interpolate" in source or "Upsample" in source for source in sources)
