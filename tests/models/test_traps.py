"""The list of quantizer traps: what goes wrong in published tokenizers, and the tests that would notice it here."""

from __future__ import annotations

import ast
from pathlib import Path
from typing import NamedTuple

import pytest

TESTS = Path(__file__).parents[1]


class Trap(NamedTuple):
    """A mistake, and who catches it."""

    mistake: str
    caught_by: tuple[str, ...]
    """file::test."""


Q, RANKS, TWO, VQVAE = "test_quantizers", "test_traps_ranks", "test_two_processes", "test_vqvae"
TRAPS = {
    1: Trap("old sums overwrite a revived code", (f"{Q}::test_a_revived_code_is_not_overwritten_by_its_old_sums",)),
    2: Trap(
        "the threshold of revival is a number of latents, whatever the batch; all codes are revived at once",
        (
            f"{Q}::test_the_threshold_of_revival_does_not_depend_on_the_batch_size",
            f"{Q}::test_no_more_codes_are_revived_at_once_than_allowed",
        ),
    ),
    3: Trap("smoothed counts pull unused codes to the origin", (f"{Q}::test_codes_without_use_stay_where_they_are",)),
    4: Trap(
        "each rank averages its own latents",
        (
            f"{Q}::test_two_processes_learn_the_codebook_of_one_and_stay_equal_bit_by_bit",
            f"{RANKS}::test_two_ranks_with_micro_batches_learn_what_one_learns_from_all_at_once",
        ),
    ),
    5: Trap(
        "the wrapper broadcasts buffers and so hides codebooks that differ",
        (
            f"{RANKS}::test_buffers_are_not_broadcast_and_unused_parameters_are_not_looked_for",
            f"{TWO}::test_both_ranks_hold_the_same_codebook_bit_by_bit_after_every_step",
        ),
    ),
    6: Trap(
        "each rank starts from its own k-means",
        (f"{RANKS}::test_ranks_with_other_noise_and_other_first_latents_hold_equal_codebooks",),
    ),
    7: Trap(
        "each rank revives with its own draw",
        (
            f"{RANKS}::test_ranks_with_other_noise_and_other_first_latents_hold_equal_codebooks",
            f"{Q}::test_revival_is_keyed_by_seed_and_step_and_not_by_global_randomness",
        ),
    ),
    8: Trap(
        "ranks talk inside passes that only one of them makes, or in each micro batch",
        (
            f"{RANKS}::test_two_ranks_with_micro_batches_learn_what_one_learns_from_all_at_once",
            f"{Q}::test_two_micro_batches_are_one_big_batch",
            "test_trainer::test_accumulated_micro_batches_equal_one_large_batch_in_the_codebook_too",
        ),
    ),
    9: Trap(
        "the codebook moves while somebody else trains",
        (
            f"{Q}::test_nothing_but_training_changes_a_codebook",
            f"{VQVAE}::test_use_without_training_changes_nothing",
            "test_outside_quantizers::test_a_foreign_codebook_moves_in_training_passes_only",
        ),
    ),
    10: Trap(
        "a restored quantizer starts its codebook anew",
        (
            f"{Q}::test_the_k_means_start_puts_the_codes_into_the_data_and_is_remembered",
            f"{Q}::test_a_quantizer_restored_from_its_state_goes_on_as_if_never_stopped",
        ),
    ),
    11: Trap(
        "autocast is switched off for another device than the latents are on",
        (f"{Q}::test_autocast_and_half_precision_latents_change_no_code",),
    ),
    12: Trap(
        "distances in half precision choose other codes",
        (f"{Q}::test_autocast_and_half_precision_latents_change_no_code",),
    ),
    13: Trap(
        "digits are put together in half precision, or cut off instead of rounded",
        (
            f"{Q}::test_autocast_and_half_precision_latents_change_no_code",
            f"{Q}::test_every_index_makes_the_round_trip",
            f"{Q}::test_decoded_indices_are_the_values_of_the_training_pass",
            "test_reference::test_fsq_agrees",
            f"{Q}::test_all_codes_are_reached_and_all_values_are_bounded",
        ),
    ),
    14: Trap(
        "the straight-through sum in half precision is no code vector",
        (f"{Q}::test_decoded_indices_are_the_values_of_the_training_pass",),
    ),
    15: Trap(
        "the codebook moves before it quantises",
        (
            f"{Q}::test_latents_are_quantised_before_the_codebook_moves",
            f"{Q}::test_a_forward_pass_alone_leaves_codes_and_codebook_as_they_were",
        ),
    ),
    16: Trap(
        "averages and a gradient move one codebook; weight decay shrinks it",
        (
            f"{Q}::test_the_codebook_takes_no_gradient_and_no_optimizer_sees_it",
            "test_quantizer_kinds::test_a_learnt_codebook_is_not_drawn_to_the_origin_by_weight_decay",
        ),
    ),
    17: Trap(
        "losses are sums over pixels or latents",
        (f"{Q}::test_the_loss_is_a_mean_over_latents", "test_losses::test_the_reconstruction_loss_is_a_mean"),
    ),
    18: Trap(
        "nobody knows which weight the commitment has",
        (
            f"{Q}::test_the_commitment_loss_is_beta_times_the_mean_squared_error",
            "test_quantizer_kinds::test_the_original_loss_is_codebook_plus_beta_commitment",
            "test_reference::test_ema_quantizers_agree_over_twenty_training_steps",
        ),
    ),
    19: Trap(
        "usage is judged by single batches and ranks",
        (
            "test_code_usage::test_a_hundred_batches_are_judged_as_one_and_not_each_alone",
            "test_code_usage::test_two_ranks_report_the_figures_of_one",
        ),
    ),
    20: Trap(
        "usage means something else in each table",
        (
            "test_code_usage::test_usage_is_the_share_of_codes_that_occur_and_bits_are_the_entropy_of_the_counts",
            "test_evaluation_parts::test_the_tokenizers_figures_are_means_over_all_frames",
        ),
    ),
    21: Trap(
        "the entropy of use is that of one rank's latents",
        (f"{RANKS}::test_the_entropy_term_of_two_ranks_is_that_of_one_with_all_latents",),
    ),
    22: Trap(
        "a norm or a convolution sees later frames",
        (
            f"{VQVAE}::test_a_later_frame_changes_no_earlier_code_or_reconstruction",
            "test_backbones::test_a_later_frame_cannot_change_earlier_latents",
            "test_backbones::test_a_later_latent_cannot_change_earlier_frames",
        ),
    ),
    23: Trap(
        "clips of any length are taken and quietly padded",
        (
            f"{VQVAE}::test_a_clip_of_one_and_s_k_frames_has_one_and_k_latent_steps",
            f"{VQVAE}::test_any_other_length_is_refused_everywhere",
        ),
    ),
    24: Trap(
        "a stream has other codes than the whole clip",
        (
            f"{VQVAE}::test_a_stream_equals_the_whole_clip",
            "test_backbones::test_chunks_give_what_the_whole_gives",
        ),
    ),
    26: Trap(
        "codes are of a type that cannot hold or index them",
        (
            f"{Q}::test_shapes_types_and_ranges_are_as_promised",
            f"{Q}::test_codes_outside_the_codebook_are_refused",
            "test_codes::test_arrays_have_the_promised_types",
        ),
    ),
    27: Trap(
        "codebooks are averaged along with the weights",
        (
            "test_trainer::test_the_exported_weights_are_the_averaged_ones_beside_the_live_codebook",
            "test_trainer::test_an_average_follows_its_definition_and_leaves_buffers_alone",
        ),
    ),
    28: Trap(
        "the learning rate is so small that nothing is learnt",
        (
            "test_trainer::test_the_learning_rate_warms_up_and_decays_to_its_last_share",
            f"{VQVAE}::test_a_tokenizer_learns_moving_squares_and_uses_its_codes",
        ),
    ),
    29: Trap(
        "parameters of the quantizer are not trained",
        (
            f"{Q}::test_every_parameter_of_a_quantizer_learns",
            f"{VQVAE}::test_every_parameter_receives_a_gradient",
            "test_quantizer_kinds::test_gradient_steps_bring_the_codes_to_the_latents",
        ),
    ),
    30: Trap(
        "parameters without a gradient, and a wrapper that looks for them in every step",
        (
            f"{VQVAE}::test_every_parameter_receives_a_gradient",
            f"{RANKS}::test_buffers_are_not_broadcast_and_unused_parameters_are_not_looked_for",
        ),
    ),
    31: Trap(
        "training bypasses the wrapper, so that gradients are not averaged over ranks",
        (f"{TWO}::test_one_process_with_the_same_batch_learns_the_same_codebook",),
    ),
    32: Trap(
        "the rotation divides by a norm of zero",
        (
            "test_quantizer_kinds::test_the_rotation_stays_finite_where_it_is_undefined",
            "test_quantizer_kinds::test_the_rotation_gives_the_code_forward_and_turns_the_gradient_as_it_turns_the_latent",
        ),
    ),
}
NOT_APPLICABLE = {
    25: "interpolation in half precision: nothing interpolates, frames grow by moving channels into space"
}


def names_of_tests(file: str) -> set[str]:
    """Names of the test functions of a file."""
    tree = ast.parse(next(TESTS.rglob(f"{file}.py")).read_text())
    return {node.name for node in ast.walk(tree) if isinstance(node, ast.FunctionDef) and node.name.startswith("test_")}


def test_each_of_the_thirty_two_traps_is_watched_or_does_not_apply() -> None:
    assert sorted([*TRAPS, *NOT_APPLICABLE]) == list(range(1, 33))
    assert all(trap.mistake and trap.caught_by for trap in TRAPS.values())
    assert all(NOT_APPLICABLE.values())


@pytest.mark.parametrize("number", TRAPS)
def test_the_tests_that_watch_a_trap_exist(number: int) -> None:
    found = {file: names_of_tests(file) for file, _ in (name.split("::") for name in TRAPS[number].caught_by)}
    assert [name for name in TRAPS[number].caught_by if name.split("::")[1] not in found[name.split("::")[0]]] == []


def test_nothing_interpolates() -> None:
    """What makes trap 25 not apply."""
    sources = [
        (TESTS.parent / "vqvideo" / "models" / "tokenizer" / f"{name}.py").read_text()
        for name in ("backbones", "causal", "vqvae")
    ]
    assert sources
    assert not any("interpolate" in source or "Upsample" in source for source in sources)
