"""For every kind of fault in CONTRIBUTING.md's table, how the code was when the fault was there: one text in one file.

`benchmarks/fixes.py` undoes the fixes one at a time and runs the tests. Where a fault was more than one line, such as
an option that no command had, the smallest piece is undone that brings it back. A text that is no longer found exactly
once in its file fails `tests/benchmarks/test_fixes.py`: write the row for the code as it is now.
"""

import re
from dataclasses import dataclass
from pathlib import Path
from typing import Final

ROW: Final = re.compile(r"^\| (?!\*\*|kind |---)(.+?) \| (.+) \|$", re.MULTILINE)
TEST: Final = re.compile(r"`(tests/[^`]+::(\w+))`")


@dataclass(frozen=True)
class Fault:
    """One fix undone.

    Attributes:
        kind: as in the table.
        file: from the root.
        now: a text that is in the file once.
        undone: what it was.
        tests: those of the kind that must turn red, by name, or one case of them; all of the kind unless given.
    """

    kind: str
    file: str
    now: str
    undone: str
    tests: tuple[str, ...] = ()


def read_kinds(root: Path) -> dict[str, dict[str, str]]:
    """The kinds of the table, each with its tests: their full names by the names of their functions."""
    table = (root / "CONTRIBUTING.md").read_text("utf-8").partition("## Kinds of fault")[2]
    return {kind: {name: full for full, name in TEST.findall(tests)} for kind, tests in ROW.findall(table)}


REMEMBERED: Final = (
    Fault(
        "An index of other texts, or of another dictionary, is not the same index",
        "interp/features/index/index.py",
        "from interp.common.digests import StreamDigest, digest_of_data, is_stream\n",
        "from interp.common.digests import StreamDigest, is_stream\n"
        "digest_of_data = lambda data: StreamDigest(data).of_first(8)\n",
    ),
    Fault(
        "An index of other texts, or of another dictionary, is not the same index",
        "interp/features/index/digest.py",
        "for name, tensor in sorted(state.items()):",
        'for name, tensor in [("W_dec", state["W_dec"])]:',
    ),
    Fault(
        "A digest of data reads all of them",
        "interp/common/digests.py",
        "    digest.add(items_of(data))\n",
        '    each = max(1, len(data) // 1024) if hasattr(data, "__len__") else 1\n'
        "    digest.add(islice(items_of(data), 0, None, each))\n",
    ),
    Fault(
        "A checkpoint goes on only with what it was begun with",
        "interp/sae/training/member.py",
        '"normalisation": _digest(sae.normalisation)}',
        '"normalisation": None}',
        ("test_a_checkpoint_of_another_normalisation_of_other_texts_or_of_other_batches_of_them_is_refused",),
    ),
    Fault(
        "A checkpoint goes on only with what it was begun with",
        "interp/sae/training/run.py",
        '"digest of the data": source.digest and source.digest(),',
        '"digest of the data": None,',
        ("test_a_checkpoint_of_another_normalisation_of_other_texts_or_of_other_batches_of_them_is_refused",),
    ),
    Fault(
        "A checkpoint goes on only with what it was begun with",
        "interp/sae/training/run.py",
        "        self._check_read(state)\n",
        "",
        ("test_a_stream_that_does_not_begin_with_what_was_read_of_it_before_is_refused",),
    ),
    Fault(
        "A finished store harvested again with another text",
        "hooks/store/harvest.py",
        "        if block.name in done:\n            _check_same(task, block, done[block.name])\n",
        "        if block.name in done and block.number == 0:\n"
        "            _check_same(task, block, done[block.name])\n",
    ),
    Fault(
        "Weights changed since a model was loaded",
        "hooks/store/job.py",
        "fingerprint=fingerprint(self.model.hf),",
        "fingerprint=self.model.fingerprint,",
        ("test_weights_changed_since_are_not_mixed_into_a_store",),
    ),
    Fault(
        "Weights changed since a model was loaded",
        "hooks/store/harvest.py",
        "if fingerprint(task.model.hf) != settings.fingerprint:",
        "if False:",
        ("test_weights_changed_since_are_not_mixed_into_a_store",),
    ),
    Fault(
        "Weights changed since a model was loaded",
        "hooks/fingerprint.py",
        "for piece in weight.reshape(-1).split(_BLOCK):",
        "for piece in weight.reshape(-1)[:: max(1, weight.numel() // 1024)].split(_BLOCK):",
        ("test_the_fingerprint_changes_with_any_one_number_of_any_weight_and_comes_back_with_it",),
    ),
    Fault(
        "What is kept as a model's own under an edit that its weights do not show",
        "interp/memory/editing/edit.py",
        "        note_attached(model.hf, sorted({edit.method for edit in attached}))\n",
        "",
    ),
    Fault(
        "What an editor measured of a model before its weights changed",
        "interp/memory/editing/remembered.py",
        "now = fingerprint(model.hf)",
        'now = ""',
    ),
    Fault(
        "The report of another model of the same weights",
        "hooks/contract/check.py",
        "does = (model.structure.digest, implementation, training)",
        "does = (implementation, training)",
    ),
    Fault(
        "What is kept as a model's own, made inside a block of interventions",
        "hooks/running.py",
        "        if self.active and not self.resting:\n            raise WrongState",
        "        if not self.active and not self.resting:\n            raise WrongState",
        ("test_what_is_kept_as_a_models_own_is_refused_inside_a_block_and_leaves_no_file",),
    ),
    Fault(
        "What is kept as a model's own, made inside a block of interventions",
        "interp/sae/data/source.py",
        'return about | {"check_unchanged": check_unchanged, "changed_by"',
        'return about | {"check_unchanged": None, "changed_by"',
        ("test_what_is_kept_as_a_models_own_is_refused_inside_a_block_and_leaves_no_file",),
    ),
    Fault(
        "What is kept as a model's own, made inside a block of interventions",
        "interp/memory/editing/remembered.py",
        "    with model.running.at_rest(), suspend_edits(model):\n",
        "    with suspend_edits(model):\n",
        ("test_what_is_measured_once_for_a_model_is_measured_without_the_interventions_of_an_open_block",),
    ),
    Fault(
        "What is kept as a model's own, made inside a block of interventions",
        "interp/memory/editing/prompt_cache.py",
        "with model.running.at_rest(), named_outputs(model.hf):",
        "with named_outputs(model.hf):",
        ("test_a_text_put_before_all_others_inside_an_open_block_was_not_read_with_its_interventions",),
    ),
    Fault(
        "What is in a folder, made with other settings",
        "interp/commands/discover.py",
        "    if other:\n        of_it",
        "    if {*other} & {'model', 'site', 'latents'}:\n        of_it",
        ("test_another_setting_in_the_same_folder_is_refused_with_what_differs",),
    ),
    Fault(
        "What is in a folder, made with other settings",
        "interp/commands/discover.py",
        "    if not (out / SETTINGS).exists():\n        raise InvalidArgument(",
        "    if not (out / SETTINGS).exists():\n        return True\n        raise InvalidArgument(",
        ("test_an_autoencoder_of_which_nothing_says_what_made_it_is_refused",),
    ),
    Fault(
        "What is in a folder, made with other settings",
        "interp/commands/worlds.py",
        "if not _is_tuned(files[-1], run, model, steps):",
        "if not files[-1].exists():",
        ("test_a_guide_that_is_not_in_the_package_is_tuned_by_its_name_and_another_name_is_refused",),
    ),
    Fault(
        "What is in a folder, made with other settings",
        "interp/landmark/train.py",
        "    if not state_file.exists():\n        tokenizer_file.unlink",
        "    if state_file.is_dir():\n        tokenizer_file.unlink",
        ("test_a_tokenizer_of_a_run_that_left_no_state_is_learnt_again",),
    ),
    Fault(
        "Figures of a file that are another model's or another metric's",
        "interp/emergence/identity.py",
        "    if not folder.is_dir():\n",
        "    if folder.is_dir():\n",
        ("test_checkpoints_trained_again_into_the_same_folders_are_measured_again",),
    ),
    Fault(
        "Figures of a file that are another model's or another metric's",
        "interp/emergence/identity.py",
        "        return fingerprint(source.hf)\n",
        "        return source.fingerprint\n",
        ("test_a_model_whose_weights_changed_since_it_was_loaded_is_measured_again",),
    ),
    Fault(
        "Figures of a file that are another model's or another metric's",
        "interp/emergence/track.py",
        "    if other := [name for name in asked if held[name] != asked[name]]:\n",
        "    if other := [name for name in asked if name not in held]:\n",
        ("test_another_metric_under_the_same_name_or_other_names_are_refused_and_leave_the_file",),
    ),
    Fault(
        "Figures of a file that are another model's or another metric's",
        "interp/emergence/track.py",
        '            same |= held["found"].keys() - asked.keys()\n',
        "            pass\n",
        ("test_steps_that_are_not_asked_for_stay_in_the_file_unless_the_folders_were_trained_again",),
    ),
    Fault(
        "Rows of a store taken for consecutive tokens",
        "interp/memory/outside/token_memory.py",
        "    if (at := store.manifest.settings.at) != everywhere.name:\n",
        "    if not (at := store.manifest.settings.at):\n",
    ),
    Fault(
        "The fingerprint at loading taken for that of the weights now",
        "interp/teaching/comparison.py",
        "torch.equal(model.run(prompt), logits) and fingerprint(model.hf) == weights",
        "torch.equal(model.run(prompt), logits) and bool(weights)",
        ("test_a_way_that_leaves_something_in_a_weight_that_no_prompt_reaches_is_called_not_undone",),
    ),
    Fault(
        "The fingerprint at loading taken for that of the weights now",
        "interp/workbench/editing.py",
        "    value = fingerprint(session.model.hf) == edit.fingerprint\n",
        "    value = session.model.fingerprint == edit.fingerprint\n",
        ("test_undoing_one_of_two_edits_is_not_called_identical_and_the_recorded_line_says_the_same",),
    ),
    Fault(
        "A key that reads a part of what it names",
        "interp/commands/search.py",
        "    digest.add([[digest_of_sae(sae), sites, model.fingerprint, concept, seed, about, say, openings]])\n",
        "    digest.add([[digest_of_sae(sae), sites, model.fingerprint, repr(concept), seed, about, say, openings]])\n",
        ("test_a_search_of_other_texts_of_as_many_is_another_search",),
    ),
    Fault(
        "A key that reads a part of what it names",
        "interp/common/digests.py",
        "    if is_dataclass(value):\n",
        "    if is_dataclass(value) and not value:\n",
        ("test_a_concept_that_differs_in_one_text_label_mention_group_or_form_has_another_digest",),
    ),
    Fault(
        "A key that reads a part of what it names",
        "interp/common/digests.py",
        "    if isinstance(value, Tensor):\n        return digest_of_tensors(value)\n    if is_dataclass",
        "    if is_dataclass",
        ("test_a_tensor_inside_what_is_digested_counts_with_every_number",),
    ),
    Fault(
        "A thing kept that bears the fingerprint the model was loaded with, not that of the weights that made it",
        "hooks/capture.py",
        "made_of = fingerprint_now(model.hf), ",
        "made_of = model.fingerprint, ",
        ("test_what_is_made_bears_the_fingerprint_of_the_weights_that_made_it",),
    ),
    Fault(
        "A thing kept that bears the fingerprint the model was loaded with, not that of the weights that made it",
        "interp/memory/editing/covariance.py",
        "(fingerprint(model.hf), model.running.changed_by)",
        "(model.fingerprint, model.running.changed_by)",
        ("test_what_is_made_bears_the_fingerprint_of_the_weights_that_made_it",),
    ),
    Fault(
        "A thing kept that bears the fingerprint the model was loaded with, not that of the weights that made it",
        "interp/sae/data/source.py",
        "tuple(sites), model.name, fingerprint(model.hf))",
        "tuple(sites), model.name, model.fingerprint)",
        ("test_what_is_made_bears_the_fingerprint_of_the_weights_that_made_it",),
    ),
    Fault(
        "A thing kept that bears the fingerprint the model was loaded with, not that of the weights that made it",
        "hooks/fingerprint.py",
        "known[0] == count_writes(hf) else",
        "known[0] is not None else",
        (
            "test_a_weight_written_to_is_seen_without_reading_the_others_again",
            "test_what_is_made_bears_the_fingerprint_of_the_weights_that_made_it",
        ),
    ),
    Fault(
        "A thing kept that bears the fingerprint the model was loaded with, not that of the weights that made it",
        "interp/lenses/tuned.py",
        'about.get("weights", about["fingerprint"])',
        "model.fingerprint",
        ("test_a_lens_of_edited_weights_is_read_under_the_edit_and_refused_without_it",),
    ),
    Fault(
        "A thing made while a block changed the model that does not say so",
        "hooks/running.py",
        "held = {} if self.resting else self.active",
        "held = {}",
    ),
    Fault(
        "A thing made while a block changed the model that does not say so",
        "interp/lenses/jacobian.py",
        '        check_own("lens", self.changed_by)\n',
        "",
        ("test_what_was_made_inside_a_block_is_not_saved_as_the_models_own",),
    ),
)

FILES: Final = (
    Fault(
        "One flipped bit in any file that is kept",
        "hooks/tensor_file.py",
        'if header.get("checksum") != _checksum(kind, header.get("format", ""), said, tensors):',
        'if "checksum" not in header:',
        ("test_one_flipped_bit_is_found_and_its_file_named[direction.safetensors]", "test_every_bit_of_a_file_counts"),
    ),
    Fault(
        "One flipped bit in any file that is kept",
        "hooks/json_file.py",
        "if not right or not isinstance(content, dict):",
        "if not isinstance(content, dict):",
        ("test_one_flipped_bit_is_found_and_its_file_named",),
    ),
    Fault(
        "One flipped bit in any file that is kept",
        "interp/features/index/catalogue.py",
        '            check_record(Path(folder) / name, recorded, f"remove {folder} and make the index again")\n',
        "            pass\n",
        ("test_one_flipped_bit_is_found_and_its_file_named[index/*]",),
    ),
    Fault(
        "One flipped bit in any file that is kept",
        "hooks/direction.py",
        '        write_tensors(path, KIND, {"vector": self.vector}, about)\n',
        '        write_tensors(path, KIND, {"vector": self.vector}, about)\n'
        '        Path(path).with_suffix(".json").write_text(str(about))\n',
        ("test_every_file_that_is_written_is_read_with_its_checksum_or_has_its_reason",),
    ),
    Fault(
        "Settings of a harvest that are changed or another's",
        "hooks/store/store.py",
        "        check_notes(self._folder, Manifest.read(self._folder))\n",
        "",
    ),
    Fault(
        "Torn, null, deep or foreign metadata",
        "hooks/json_file.py",
        "    except (ValueError, RecursionError) as error:\n"
        '        raise DamagedFile(f"{where} is damaged, it is no JSON',
        '    except MemoryError as error:\n        raise DamagedFile(f"{where} is damaged, it is no JSON',
        ("test_a_damaged_manifest_is_refused",),
    ),
    Fault(
        "Torn, null, deep or foreign metadata",
        "hooks/json_file.py",
        "    if not isinstance(found, dict):\n",
        "    if False:\n",
        ("test_a_damaged_manifest_is_refused",),
    ),
    Fault(
        "Torn, null, deep or foreign metadata",
        "hooks/tensor_file.py",
        "    except (SafetensorError, ValueError, OverflowError, KeyError, RuntimeError, RecursionError) as error:",
        "    except MemoryError as error:",
        ("test_what_is_no_such_file_is_refused_by_name",),
    ),
    Fault(
        "Torn, null, deep or foreign metadata",
        "hooks/tensor_file.py",
        "    kind.check(about, path)\n",
        "",
        ("test_a_field_that_is_missing_or_of_another_type_is_named",),
    ),
    Fault(
        "A manifest that claims absurd sizes",
        "hooks/store/columns.py",
        "        self._check_sizes()  # before anything of the size the manifest claims is held in memory\n",
        "",
    ),
    Fault(
        "Files written in place",
        "hooks/disk.py",
        "    with write_file(path) as partial:\n        partial.write_bytes(text.encode())\n",
        "    Path(path).write_bytes(text.encode())\n",
        ("test_a_text_whose_writing_fails_leaves_the_one_before",),
    ),
    Fault(
        "Files written in place",
        "hooks/disk.py",
        "            partial.mkdir(parents=True)\n            yield partial\n",
        "            whole.mkdir(parents=True, exist_ok=True)\n            yield whole\n",
        ("test_a_folder_of_files_appears_when_all_of_it_is_written",),
    ),
    Fault(
        "Two writers in one place",
        "hooks/store/folder.py",
        'with lock(self._path, "harvest") if self.local else nullcontext():',
        "with nullcontext():",
        ("test_two_harvests_at_once_do_not_write_to_one_place",),
    ),
    Fault(
        "Two writers in one place",
        "interp/sae/training/checkpoint.py",
        'with lock(self.folder, "training") if self.here.rank == 0 else nullcontext():',
        "with nullcontext():",
        ("test_two_trainings_at_once_do_not_write_to_one_checkpoint",),
    ),
    Fault(
        "Two writers in one place",
        "interp/features/index/index.py",
        '    with lock(folder if here.world == 1 else work, "index"):\n',
        "    if True:\n",
        ("test_two_indexes_at_once_are_not_written_to_one_place",),
    ),
    Fault(
        "A shard truncated while it is open",
        "hooks/store/folder.py",
        "        data, done = np.empty(max(0, stop - start), np.uint8), 0\n",
        '        return vars(self).setdefault("mapped", {}).setdefault(name, self.map(name))[start:stop]\n'
        "        data, done = np.empty(max(0, stop - start), np.uint8), 0\n",
    ),
    Fault(
        "Weights that are NaN, whole numbers or of another shape",
        "interp/sae/io/saelens.py",
        "        if not bool(tensor.isfinite().all()):\n",
        "        if False:\n",
        ("test_weights_that_are_not_finite_are_named",),
    ),
    Fault(
        "Weights that are NaN, whole numbers or of another shape",
        "interp/sae/io/saelens.py",
        "        if not tensor.is_floating_point():\n",
        "        if False:\n",
        ("test_weights_that_are_whole_numbers_or_of_another_shape_are_named",),
    ),
    Fault(
        "Weights that are NaN, whole numbers or of another shape",
        "interp/sae/io/saelens.py",
        "        if tensor.shape != expected[name]:\n",
        "        if False:\n",
        ("test_weights_that_are_whole_numbers_or_of_another_shape_are_named",),
    ),
    Fault(
        "Weights that are NaN, whole numbers or of another shape",
        "interp/sae/io/saelens.py",
        "    if found.shape != (sae.d_sae,) or not bool(found.isfinite().all()):\n",
        "    if False:\n",
        ("test_largest_activations_of_another_number_than_the_latents_are_named",),
    ),
    Fault(
        "A finished store on a disk that cannot be written to",
        "hooks/store/harvest.py",
        "        if _is_whole(task, settings, here):\n",
        "        if False:\n",
    ),
)

TEXT: Final = (
    Fault(
        "Words in scripts without spaces, composed or not",
        "interp/common/texts.py",
        'rf"{_EDGE}(?:{either}){_EDGE}", _WIDE |',
        r'rf"(?<!\w)(?:{either})(?!\w)", 0 |',
    ),
    Fault(
        "Words in scripts without spaces, composed or not",
        "interp/common/texts.py",
        "    composed, origin = _compose(text)\n",
        "    composed, origin = text, range(len(text) + 1)\n",
    ),
    Fault(
        "A word or number inside another",
        "interp/common/texts.py",
        'rf"{_EDGE}(?:{either}){_EDGE}", _WIDE |',
        r'rf"(?<!\w)(?:{either})(?!\w)", 0 |',
        ("test_a_word_is_not_found_inside_another_or_inside_a_number",),
    ),
    Fault(
        "A word or number inside another",
        "interp/memory/facts/fact.py",
        "return max((start for start, _, _ in find_phrases(self.prompt, [self.subject])), default=-1)",
        "return self.prompt.rfind(self.subject)",
        ("test_a_subject_is_found_as_a_word_and_no_part_of_another",),
    ),
    Fault(
        "A space put where the script has none",
        "interp/common/texts.py",
        "{'' if _UNSPACED.search(before) else ' '}",
        " ",
    ),
    Fault(
        "Tokens that are parts of a character",
        "hooks/pieces.py",
        "            if BROKEN not in written:\n",
        "            if True:\n",
    ),
    Fault(
        "Texts that read alike on both sides of a fold",
        "interp/common/texts.py",
        '    return " ".join(normalize("NFC", text).split())\n',
        "    return text\n",
    ),
    Fault(
        "Texts that read alike on both sides of a fold",
        "interp/features/search/concept.py",
        "self.groups or [*map(fold_text, self.texts)])",
        "self.groups or [*self.texts])",
        ("test_equal_texts_share_a_group",),
    ),
)

PROBES: Final = (
    Fault(
        "scikit-learn's contract",
        "probes/estimator.py",
        "            return validate_data(self, x, reset=learn)\n",
        '            return __import__("numpy").asarray(x)\n',
        ("test_every_probe_of_two_dimensional_input_passes_scikit_learns_checks[Logistic]",),
    ),
    Fault(
        "scikit-learn's contract",
        "probes/arrays.py",
        "return result if isinstance(given, Tensor) else result.cpu().numpy()",
        "return result",
    ),
    Fault(
        "Labels and arrays as people have them",
        "probes/classifier.py",
        "        number, self.classes_ = number_labels(y, like=x)\n",
        "        if not isinstance(y, Tensor) or y.dtype != torch.bool:\n"
        '            raise InvalidArgument("labels of two classes are a tensor of bool")\n'
        "        number, self.classes_ = number_labels(y, like=x)\n",
        ("test_labels_of_any_two_kinds_come_back_as_they_were_given",),
    ),
    Fault(
        "Labels and arrays as people have them",
        "probes/arrays.py",
        "return result if isinstance(given, Tensor) else result.cpu().numpy()",
        "return result",
        ("test_tensors_in_give_tensors_and_arrays_in_give_arrays",),
    ),
    Fault(
        "NaN, complex rows, probes that are not fitted",
        "probes/estimator.py",
        "        check_finite(rows)\n        if learn:\n",
        "        if learn:\n            check_finite(rows)\n",
        ("test_nan_among_rows_to_score_is_refused",),
    ),
    Fault(
        "NaN, complex rows, probes that are not fitted",
        "probes/arrays.py",
        "    if rows.is_complex():\n",
        "    if False:\n",
        ("test_complex_rows_are_refused",),
    ),
    Fault(
        "NaN, complex rows, probes that are not fitted",
        "probes/estimator.py",
        'raise _not_fitted()(f"this',
        'raise RuntimeError(f"this',
        ("test_a_probe_that_is_not_fitted_raises_what_scikit_learn_and_we_both_know",),
    ),
    Fault(
        "Intervals of AUROC and balanced accuracy",
        "hooks/statistics.py",
        "return _group_estimate(ordered / pairs, drawn_ordered / drawn_pairs, group)",
        "return wilson(ordered / pairs, int(pairs))",
    ),
    Fault(
        "Estimates of what is no sample",
        "hooks/statistics.py",
        "    if not 0 <= p <= 1 or n < 1:\n",
        "    if n < 1:\n",
    ),
)

AUTOENCODERS: Final = (
    Fault(
        "SAELens's architectures, normalisations and checkpoints",
        "interp/sae/io/saelens.py",
        "sae.row_norm = RowNorm(normalisation) if normalisation in ROW_NORMS else None",
        "sae.row_norm = None",
        ("test_every_architecture_and_normalisation_of_saelens_is_read_as_it_computes",),
    ),
    Fault(
        "SAELens's architectures, normalisations and checkpoints",
        "interp/sae/io/saelens.py",
        '    if "topk_threshold" in weights:\n',
        "    if False:\n",
        ("test_a_training_checkpoint_of_saelens_is_read_as_what_it_infers_with",),
    ),
    Fault(
        "SAELens's architectures, normalisations and checkpoints",
        "interp/sae/io/saelens.py",
        'reads_centred = config.get("apply_b_dec_to_input", "transcoder" not in architecture)',
        "reads_centred = True",
        ("test_transcoders_of_saelens_are_loaded_and_compute_the_same",),
    ),
    Fault(
        "dictionary_learning's and sparsify's",
        "interp/sae/io/other_libraries.py",
        "if normalised and not norm.allclose(torch.ones_like(norm)):",
        "if False:",
        ("test_an_autoencoder_of_dictionary_learning_reads_x_less_its_bias_and_has_a_decoder_of_unit_rows",),
    ),
    Fault(
        "dictionary_learning's and sparsify's",
        "interp/sae/io/other_libraries.py",
        '    skip = "W_skip" in stored\n',
        "    skip = False\n",
        ("test_coders_of_sparsify_are_read_with_their_groups_and_linear_path",),
    ),
    Fault(
        "dictionary_learning's and sparsify's",
        "interp/sae/architectures/sparse_coder.py",
        '        if self.activation == "groupmax":\n',
        "        if False:\n",
        ("test_coders_of_sparsify_are_read_with_their_groups_and_linear_path",),
    ),
    Fault(
        "Hook names that are no site here",
        "interp/sae/io/saelens.py",
        "sae.sites = tuple(_site(name, where) for name in names) if site is None else (site,)",
        "sae.sites = tuple(_site(name, where) for name in names)",
    ),
)

ERRORS: Final = (
    Fault(
        "Arguments that do not fit, swapped or bare",
        "hooks/border.py",
        "        given = plan.check(args, kwargs)\n",
        "        given = None\n",
    ),
    Fault(
        "Arguments that do not fit, swapped or bare",
        "hooks/border.py",
        "lambda values, one=one: all(map(one, values))\n",
        "lambda values: True\n",
        ("test_one_of_any_number_of_arguments_that_does_not_fit_is_refused_and_no_swap_is_guessed",),
    ),
    Fault(
        "Numbers out of their range",
        "interp/sae/training/plan.py",
        "if self.clip is not None and not 0 < self.clip < math.inf:",
        "if self.clip is not None and self.clip <= 0:",
        ("test_a_rate_or_clip_that_is_not_finite_and_above_0_is_refused_and_not_called_divergence",),
    ),
    Fault(
        "Numbers out of their range",
        "hooks/border.py",
        "return lambda value: kind(value) and (not isinstance(value, Real) or bound.holds(float(value)))",
        "return kind",
        ("test_a_number_outside_its_range_is_refused_by_name_and_value",),
    ),
    Fault(
        "Raw errors and silent NaN",
        "hooks/border.py",
        "            names[name] = guard_function(thing)\n",
        "            names[name] = thing\n",
    ),
)

STATE: Final = (
    Fault(
        "Ctrl-C at any time",
        "hooks/temporary.py",
        "        self._take_back.append(undo)\n        do()\n",
        "        do()\n        self._take_back.append(undo)\n",
        ("test_an_interrupt_between_any_two_bytecodes_leaves_nothing_on_the_model",),
    ),
    Fault(
        "Ctrl-C at any time",
        "hooks/running.py",
        "            changes.make(lambda: None, lambda: here.passes.__delitem__(slice(depth, None)))  "
        "# an interrupted pass\n",
        "",
    ),
    Fault(
        "Blocks of other threads",
        "hooks/temporary.py",
        "return hook(module, *given) if get_ident() == thread else None",
        "return hook(module, *given)",
    ),
    Fault(
        "Memory over many rounds",
        "hooks/running.py",
        "        self._here.blocks = (*map(ref, self._blocks()), ref(block))\n",
        "        self._here.blocks = (*map(ref, self._blocks()), ref(block))\n"
        '        vars(self).setdefault("opened", []).append(block)\n',
    ),
    Fault(
        "A model saved with an edit next to its weights",
        "interp/memory/editing/edit.py",
        "        model.hf.save_pretrained = _Saving(model, edits)\n",
        "        pass\n",
    ),
)

SEEN: Final = (
    Fault(
        "Sentences of a page that are not true of it",
        "interp/show/dose.py",
        "intervals over prompts, Wilson's",
        "intervals, Wilson's",
    ),
    Fault(
        "Sentences of a page that are not true of it",
        "interp/show/generations.py",
        "{len(shown)} of {count_of(len(first), 'prompt')}",
        "each prompt",
    ),
    Fault(
        "Sentences of a page that are not true of it",
        "interp/show/steering.py",
        "A script next to the page draws its figures, and nothing is fetched.",
        "The page holds all it needs and fetches nothing.",
    ),
    Fault(
        "Heat maps that cannot be read: words shrunk to specks and left out of the hover, labels on top of one "
        "another, colours without a scale",
        "interp/show/heat.py",
        '        textfont={"size": 11},\n',
        "",
        ("test_columns_are_as_wide_as_their_longest_text",),
    ),
    Fault(
        "Heat maps that cannot be read: words shrunk to specks and left out of the hover, labels on top of one "
        "another, colours without a scale",
        "interp/show/heat.py",
        "len(columns) * max(20, round(LETTER * longest) + 8)",
        "0",
        ("test_columns_are_as_wide_as_their_longest_text",),
    ),
    Fault(
        "Heat maps that cannot be read: words shrunk to specks and left out of the hover, labels on top of one "
        "another, colours without a scale",
        "interp/show/heat.py",
        "        hovertext=texts,\n",
        "",
        ("test_a_long_text_is_cut_in_its_cell_and_whole_on_hover",),
    ),
    Fault(
        "Heat maps that cannot be read: words shrunk to specks and left out of the hover, labels on top of one "
        "another, colours without a scale",
        "interp/show/page.py",
        'part("scrolled", least, Markup(drawn)) if least else Markup(drawn)',
        "Markup(drawn)",
        ("test_a_page_scrolls_a_figure_that_is_wider_than_it",),
    ),
    Fault(
        "Heat maps that cannot be read: words shrunk to specks and left out of the hover, labels on top of one "
        "another, colours without a scale",
        "interp/show/heads.py",
        "{float(scores.control[layer, head]):.2g}",
        "{float(scores.control[layer, head]):.2f}",
        ("test_scores_that_are_small_are_not_written_as_nothing_and_full_colour_is_said",),
    ),
    Fault(
        "Silence while a model reads many texts",
        "interp/steering/dose_choice.py",
        "    progress: bool = True,\n) -> SuggestedDose:\n",
        ") -> SuggestedDose:\n",
        ("test_what_takes_a_model_and_many_texts_can_show_progress_or_has_its_reason",),
    ),
    Fault(
        "Silence while a model reads many texts",
        "interp/steering/damage.py",
        'progress_bar(texts, desc="steered", progress=progress)',
        '__import__("tqdm").tqdm(texts, desc="steered")',
        (
            "test_every_argument_called_progress_turns_a_bar_on_or_is_passed_to_what_has_one",
            "test_a_bar_is_on_stderr_unless_it_is_turned_off[measure_damage]",
        ),
    ),
    Fault(
        "Silence while a model reads many texts",
        "interp/steering/dose_choice.py",
        "sample(model, prompts, _never, [steering], dose, sampling, progress=False)",
        "sample(model, prompts, _never, [steering], dose, sampling)",
        ("test_every_call_of_what_shows_a_bar_says_whether_it_does",),
    ),
    Fault(
        "Two figures of one thing from different prompts",
        "interp/show/steering.py",
        "dose_panel(chosen or response, concept)",
        "dose_panel(response, concept)",
    ),
    Fault(
        "Commands without `--device` or `--json`",
        "interp/commands/capture.py",
        "    device: Device = None,\n",
        "",
    ),
    Fault(
        "Commands without `--device` or `--json`",
        "interp/commands/verb.py",
        "for name, of in OPTIONS.items()]\n",
        'for name, of in OPTIONS.items() if name != "as_json"]\n',
    ),
    Fault(
        "Mistakes that are found only after loading",
        "interp/commands/patch.py",
        "    if out is not None:\n        page_at(out)\n    over = ",
        "    over = ",
        (
            "test_a_mistake_is_reported_in_one_line_before_any_work_and_ends_with_code_2"
            "[patch no/model fog fig a b --out p.txt]",
        ),
    ),
    Fault(
        "Mistakes that are found only after loading",
        "interp/commands/arguments.py",
        "    if named and not named[0].endswith(kinds):\n",
        "    if False:\n",
        ("test_an_encoder_is_refused_by_its_config_before_its_weights_are_read",),
    ),
    Fault(
        "Mistakes that are found only after loading",
        "interp/commands/capture.py",
        "    check_sites(at)\n",
        "",
        ("test_a_misspelt_site_is_refused_before_the_model_is_looked_for",),
    ),
    Fault(
        "A slow start",
        "interp/commands/app.py",
        "from typer.core import TyperGroup\n",
        "from typer.core import TyperGroup\n\nfrom hooks import Model\n",
        ("test_help_needs_no_library",),
    ),
    Fault(
        "A slow start",
        "probes/labels.py",
        "from hooks.errors import InvalidArgument, InvalidType\n",
        "from sklearn.utils import column_or_1d\n\nfrom hooks.errors import InvalidArgument, InvalidType\n",
        ("test_importing_every_package_leaves_the_heavy_libraries_for_later",),
    ),
    Fault(
        "A rank or a token left out of what a command prints",
        "interp/commands/lens.py",
        """f"{row['rank']:>7}" if "rank" in row else ""\n""",
        """" " * 7 if "rank" in row else ""\n""",
        ("test_the_lens_command_prints_each_layers_divergence_and_the_rank_of_a_word",),
    ),
    Fault(
        "A rank or a token left out of what a command prints",
        "interp/commands/patch.py",
        """f" {place['token']!r}" if "token" in place else ""\n""",
        '""\n',
        ("test_the_patch_command_prints_the_largest_shares",),
    ),
    Fault(
        "A hub that does not answer",
        "interp/commands/arguments.py",
        "        socket.create_connection((str(hub.hostname), hub.port or 443), timeout=WAIT).close()\n",
        "        pass\n",
    ),
    Fault(
        "A longer name taken for a mention",
        "interp/steering/names.py",
        "            and not (self._is_short(self.forms[form]) and OF_A_NAME.match(text, end))\n",
        "",
        ("test_a_short_form_that_goes_on_as_a_longer_name_is_no_mention",),
    ),
    Fault(
        "A longer name taken for a mention",
        "interp/steering/names.py",
        "if not any(a < end and start < b and b - a > end - start for a, b, _ in theirs)\n",
        "if True\n",
        ("test_the_longer_name_of_another_thing_takes_the_words_it_shares",),
    ),
    Fault(
        "A dose that breaks the text",
        "interp/steering/dose_choice.py",
        "        if ratios[-1][1].value > most or not varied:\n            break\n",
        "        if ratios[-1][1].value > most or not varied:\n            continue\n",
        ("test_the_suggested_dose_is_the_last_before_the_first_that_is_not_fluent",),
    ),
    Fault(
        "A dose that breaks the text",
        "interp/steering/dose_choice.py",
        "        raise NoFluentDose(_too_large(min(doses, key=abs), ratios, most))\n",
        "        reached = min(doses, key=abs)\n",
        ("test_a_dose_that_breaks_the_text_is_refused_with_what_it_costs",),
    ),
    Fault(
        "Too few prompts to hold some out",
        "interp/commands/search.py",
        "    if prompts and len(openings) < FEWEST:\n",
        "    if prompts and len(openings) < 2:\n",
    ),
    Fault(
        "An audit that asked no neighbours",
        "interp/commands/audit.py",
        "    if not any(case.neighbours for case in asked):\n",
        "    if False:\n",
    ),
    Fault(
        "A token named by what it decodes to alone",
        "interp/atlas/space.py",
        "names = tuple(piece(tokenizer, i) for i in",
        "names = tuple(tokenizer.decode([i]) for i in",
    ),
    Fault(
        "A share of nothing",
        "interp/tuning/divergence.py",
        "return 1 - still / of if of > 0 else 0.0",
        "return 1 - still / max(of, 1e-12)",
        ("test_of_models_that_give_the_same_no_site_holds_anything_and_no_words_are_raised",),
    ),
    Fault(
        "A share of nothing",
        "interp/emergence/waves.py",
        "    if not bool(ordered.any()):\n        return 0.0\n",
        "",
        ("test_no_power_is_shared_unequally_by_none",),
    ),
    Fault(
        "Two detectors of the same texts compared by intervals of each alone",
        "interp/features/search/score.py",
        "drawn[:, :-1] - drawn[:, -1:], len",
        "drawn[:, :-1] - drawn[:, -1:].flip(0), len",
    ),
    Fault(
        "One prompt, text or pair on both sides of what is held out",
        "probes/code_length.py",
        "    ends = last[torch.searchsorted(last, known)].unique().tolist()\n",
        "    order, ends = torch.randperm(len(labels), generator=g), known.unique().tolist()\n",
        ("test_a_label_of_a_group_is_not_learnt_from_another_row_of_it",),
    ),
    Fault(
        "One prompt, text or pair on both sides of what is held out",
        "interp/clip/concept.py",
        "    return second & ~torch.isin(group, group[~second])\n",
        "    return second\n",
        ("test_a_caption_of_a_picture_that_chose_is_not_scored",),
    ),
    Fault(
        "What is there many times counted as as many cases",
        "interp/atlas/neighbours.py",
        "mean_over_groups(share, own)",
        "mean_over_groups(share, torch.arange(n))",
        ("test_copies_of_pictures_make_no_interval_narrower",),
    ),
    Fault(
        "What is in a folder, made with other settings",
        "interp/landmark/train.py",
        '(about | {"phases": begun_phases(phases, state["step"])}).items()',
        "about.items()",
        ("test_a_folder_of_other_phases_is_refused_unless_they_only_follow_what_is_done",),
    ),
    Fault(
        "One prompt, text or pair on both sides of what is held out",
        "interp/atlas/analogy.py",
        "    return apart.to(delta) @ delta / apart.sum(1, keepdim=True)\n",
        "    return (delta.sum(0) - delta) / (len(delta) - 1)\n",
        ("test_pairs_that_share_an_item_are_not_tried_on_each_other",),
    ),
    Fault(
        "What is there many times counted as as many cases",
        "interp/experts/words.py",
        "wilson(float(counts[i] / of_word[i]), int(texts[i]))",
        "wilson(float(counts[i] / of_word[i]), int(of_word[i]))",
        ("test_a_word_that_one_text_says_often_is_one_case_and_not_first",),
    ),
    Fault(
        "What is there many times counted as as many cases",
        "interp/experts/usage.py",
        "last.document.repeat_interleave(k))",
        "torch.arange(met.numel()))",
        ("test_repetition_and_settled_routing_have_texts_for_cases",),
    ),
    Fault(
        "A share of nothing",
        "interp/tuning/latent_scaling.py",
        "norms[:, 0] / norms[:, 1],",
        "norms[:, 0] / norms[:, 1].clamp_min(1e-12),",
        ("test_a_latent_without_a_row_is_exclusive_to_no_model_by_norms",),
    ),
    Fault(
        "What is there many times counted as as many cases",
        "interp/atlas/map_quality.py",
        "mean_over_groups(trustworthiness_of_rows(unit, xy, k), item)",
        "mean_over_groups(trustworthiness_of_rows(unit, xy, k), rows)",
        ("test_rows_of_one_picture_are_one_case_of_how_far_a_map_is_believed",),
    ),
    Fault(
        "Two conditions on the same prompts compared by intervals of each alone",
        "interp/context/hops.py",
        "        read, used = (any(e.low > 0 for e in of.values()) for of in (self.read, self.more))\n",
        "        read = any(e.low > 0 for e in self.read.values())\n"
        "        used = any(e.low > self.third[layer].high for layer, e in self.swapped.items())\n",
        ("test_a_bridge_is_used_where_the_swap_does_more_than_the_control_on_the_same_prompts",),
    ),
    Fault(
        "Two conditions on the same prompts compared by intervals of each alone",
        "interp/steering/samples.py",
        "means_at_once((shares[0] - shares[1])[:, None])[0]",
        "means_at_once((shares[0] - shares[1].flip(0))[:, None])[0]",
        ("test_naming_beyond_a_control_is_compared_prompt_by_prompt",),
    ),
    Fault(
        "Two conditions on the same prompts compared by intervals of each alone",
        "interp/steering/samples.py",
        "if len(prompts) > 1 and prompts == ",
        "if len(prompts) < 1 and prompts == ",
        ("test_a_ratio_of_perplexities_does_not_hang_on_how_prompts_differ",),
    ),
    Fault(
        "The best of several found by intervals that each hold alone",
        "interp/features/search/search.py",
        "zip(names, compare_all_scores(baselines, latents[0], seed=bench.seed), strict=True)",
        "zip(names, [compare_all_scores([one], latents[0], seed=bench.seed)[0] for one in baselines], strict=True)",
        ("test_what_a_search_says_of_its_best_baseline_holds_for_all_of_them_at_once",),
    ),
    Fault(
        "The best of several found by intervals that each hold alone",
        "interp/common/at_once.py",
        "/ error[moved]).amax(1)",
        "/ error[moved])[:, 0]",
        (
            "test_of_baselines_as_good_as_the_latent_one_is_called_better_in_one_search_of_forty",
            "test_layers_that_a_lens_reads_by_chance_alone_are_called_readable_once_in_twenty",
            "test_intervals_of_many_figures_hold_all_of_them_95_times_in_100_and_those_of_each_do_not",
        ),
    ),
    Fault(
        "A value outside its own interval, or an interval of one case",
        "hooks/statistics.py",
        'return f"{self.value:{spec}} ({self.ends(spec)})" if spec else str(self)',
        'return f"{self.value:{spec}} ({self.low:.3g} to {self.high:.3g})" if spec else str(self)',
        ("test_a_value_and_its_interval_have_the_same_digits_and_where_there_is_no_interval_it_says_so",),
    ),
    Fault(
        "A value outside its own interval, or an interval of one case",
        "interp/show/tuning.py",
        "nats ({e.ends()})",
        "nats ({e.low:.3f} to {e.high:.3f})",
        ("test_no_package_writes_the_ends_of_an_interval_by_itself",),
    ),
    Fault(
        "A report of more tokens than were read",
        "interp/sae/training/history.py",
        "        return min(self.dead_after, self.tokens)\n\n    @property\n    def explained",
        "        return self.dead_after\n\n    @property\n    def explained",
    ),
    Fault(
        "A warning, a control or a figure that is printed and in no document or page",
        "interp/commands/patch.py",
        'lead_with(warning, f"',
        'lead_with(None, f"',
        ("test_the_note_that_shares_say_little_is_in_the_document_and_leads_the_page",),
    ),
    Fault(
        "A warning, a control or a figure that is printed and in no document or page",
        "interp/commands/memory.py",
        '        "on_prompt": on_prompt,\n',
        '        "on_prompt": None,\n',
        ("test_every_decimal_that_a_command_prints_is_in_its_document",),
    ),
    Fault(
        "A warning, a control or a figure that is printed and in no document or page",
        "interp/commands/steer.py",
        "steer(self.model, random, chosen.dose):",
        "steer(self.model, steering, chosen.dose):",
        ("test_steering_shows_both_continuations_what_was_changed_and_its_transcript",),
    ),
    Fault(
        "The least p-value that so many permutations can give, and a control that cannot fail",
        "probes/grid.py",
        '(least if self.p_value < 1.5 * self.least_p_value else "")',
        '""',
    ),
    Fault(
        "Numbers out of their range",
        "probes/labels.py",
        'f"sample_weight holds {float(weight[odd[0]]):g} for row {int(odd[0])}: give finite weights of 0 or more"',
        '"sample_weight holds NaN, infinity or a number below 0: give weights of 0 or more"',
        ("test_what_is_refused_of_many_numbers_is_named_by_its_place_and_value",),
    ),
    Fault(
        "An error of the system without its file or advice",
        "interp/commands/verb.py",
        '" ".join(_say(error).split())',
        '" ".join(str(error).split())',
        ("test_an_error_of_the_system_names_the_file_what_was_wrong_and_what_to_do",),
    ),
)

COUNTS: Final = (
    Fault(
        "One prompt, text or pair on both sides of what is held out",
        "interp/tuning/persona.py",
        "    fold = grouped_folds(group, y, 2, seed=0)\n",
        "    fold = torch.arange(len(x)) % 2\n",
        ("test_responses_that_hang_on_their_prompt_alone_separate_no_trait",),
    ),
    Fault(
        "One prompt, text or pair on both sides of what is held out",
        "interp/directions/refusal.py",
        '    positive = unique_texts(list_texts(positive, "positive texts"))\n',
        '    positive = list_texts(positive, "positive texts")\n',
        ("test_a_text_given_twice_does_not_judge_the_candidates_it_was_read_for",),
    ),
    Fault(
        "One prompt, text or pair on both sides of what is held out",
        "interp/steering/damage.py",
        "    texts = unique_texts(list_texts(texts))\n",
        "    texts = list_texts(texts)\n",
        ("test_damage_is_the_kl_and_loss_computed_by_hand",),
    ),
    Fault(
        "One prompt, text or pair on both sides of what is held out",
        "interp/atlas/analogy.py",
        "    if len({*numbers}) < len(numbers):\n",
        "    if not numbers:\n",
        ("test_what_has_no_answer_is_refused",),
    ),
    Fault(
        "What is there many times counted as as many cases",
        "interp/tuning/persona.py",
        "    x, group = torch.cat([*rows]), number_texts([*prompts[0], *prompts[1]])\n",
        "    x = torch.cat([*rows])\n    group = torch.arange(len(x))\n",
        ("test_responses_to_one_prompt_are_one_case_of_the_interval",),
    ),
    Fault(
        "What is there many times counted as as many cases",
        "interp/tuning/persona.py",
        '    prompts = check_unlike(list_texts(prompts, "prompts"), "prompts")\n    if len(prompts) < 3:',
        '    prompts = list_texts(prompts, "prompts")\n    if len(prompts) < 3:',
        ("test_monitoring_reads_the_last_token_of_each_prompt",),
    ),
    Fault(
        "What is there many times counted as as many cases",
        "interp/context/function_vectors.py",
        '    bare, labels = _prompts(task, min(n, len(task.pairs)), 0, "no demonstrations", seed)\n',
        '    bare, labels = _prompts(task, n, 0, "no demonstrations", seed)\n',
        ("test_prompts_of_one_pair_are_one_case_and_bare_prompts_are_asked_once_each",),
    ),
    Fault(
        "What is there many times counted as as many cases",
        "interp/context/demonstrations.py",
        "= {c: share_over_groups(of, group) for c, of in said.items()}",
        "= {c: share_over_groups(of, torch.arange(n)) for c, of in said.items()}",
        ("test_prompts_of_one_pair_are_one_case_and_bare_prompts_are_asked_once_each",),
    ),
    Fault(
        "Groups without rows counted among the groups",
        "hooks/statistics.py",
        "    return group.unique(return_inverse=True)[1]\n",
        "    return group\n",
    ),
    Fault(
        "Groups without rows counted among the groups",
        "probes/folds.py",
        "    g = torch.Generator().manual_seed(seed)\n    group = group.unique(return_inverse=True)[1]\n",
        "    g = torch.Generator().manual_seed(seed)\n",
    ),
    Fault(
        "A loss that hangs on what a text is batched with",
        "hooks/tokens.py",
        "        predicted[:, 1:] &= self.mask[:, :-1]\n",
        "",
    ),
    Fault(
        "A loss that hangs on what a text is batched with",
        "interp/landmark/guide/tune.py",
        "    kept = rows.mask[:, 1:] & rows.mask[:, :-1]\n",
        "    kept = rows.mask[:, 1:]\n",
    ),
    Fault(
        "An answer compared further than its own case asks",
        "interp/common/completion.py",
        "    return [row[:n] for row, n in zip(made, lengths, strict=True)]\n",
        "    return made\n",
    ),
    Fault(
        "A chance level of items that may not be answers",
        "interp/atlas/neighbours.py",
        "    allowed = (table.sum(0) - table)[own, y] / (n - table.sum(1)[own])\n",
        "    allowed = (table.sum(0)[y] - 1) / (n - 1)\n",
    ),
    Fault(
        "Labels of more texts than there are",
        "interp/experts/specialisation.py",
        "    if len(labels) != int(routing.document.max()) + 1 or",
        "    if len(labels) <= int(routing.document.max()) or",
    ),
    Fault(
        "A first token that every word has",
        "interp/tuning/naming.py",
        "if not is_blank(model.tokenizer, i)]",
        "if i >= 0]",
        ("test_a_word_is_named_by_its_first_token_with_text_however_the_tokenizer_writes_the_space",),
    ),
    Fault(
        "A first token that every word has",
        "interp/common/completion.py",
        "        if is_blank(model.tokenizer, token):\n",
        "        if token < 0:\n",
        ("test_a_first_token_that_every_answer_has_says_nothing_of_the_answer",),
    ),
    Fault(
        "A first token that every word has",
        "interp/circuits/metric.py",
        "    if is_blank(model.tokenizer, ids[0]):\n",
        "    if not ids:\n",
        ("test_answers_may_be_ids_and_the_first_token_of_a_word_is_its_first",),
    ),
    Fault(
        "Lines of pages and messages that the command does not take",
        "interp/commands/steer.py",
        'direction: Annotated[Path | None, typer.Option(help="A saved direction.")] = None',
        'direction: Annotated[Path | None, typer.Argument(help="A saved direction.")] = None',
        ("test_every_line_of_a_page_is_one_that_the_command_takes",),
    ),
    Fault(
        "Lines of pages and messages that the command does not take",
        "hooks/load.py",
        "`interp landmark train",
        "`interp landmark teach",
        ("test_every_line_in_a_docstring_or_message_is_one_that_the_command_takes",),
    ),
    Fault(
        "Options out of their range, or without effect, found late or by the names of functions",
        "interp/commands/circuit.py",
        "steps: Annotated[int, typer.Option(min=1, ",
        "steps: Annotated[int, typer.Option(",
        (
            "test_every_number_has_its_least_value_or_a_reason",
            "test_a_number_out_of_its_range_is_refused_by_the_name_of_its_option",
        ),
    ),
    Fault(
        "Options out of their range, or without effect, found late or by the names of functions",
        "interp/commands/circuit.py",
        "if thresholds and not wanted:",
        "if False:",
        ("test_what_cannot_be_is_refused_in_the_words_of_the_command_before_a_model_is_loaded",),
    ),
    Fault(
        "A table read as texts",
        "interp/commands/arguments.py",
        '(".csv", ".tsv", *TABLES)',
        '(".tsv", *TABLES)',
    ),
    Fault(
        "A result written over another",
        "interp/commands/checks.py",
        "any(path.iterdir())",
        "not any(path.iterdir())",
    ),
    Fault(
        "A log without a line while a step takes long",
        "interp/commands/arguments.py",
        '        typer.echo(f"{what} …", err=True)\n',
        "        pass\n",
    ),
    Fault(
        "A width of one head taken for that of a site, or rows of no one width put together",
        "interp/commands/discover.py",
        "source.widths[0]",
        "model.tap(source.sites[0]).shape[-1]",
    ),
    Fault(
        "An empty folder of a run that failed",
        "hooks/disk.py",
        "            _remove(Path(folder) / LOCK, made)\n",
        "            pass\n",
    ),
    Fault(
        "Plurals made by hand",
        "hooks/plurals.py",
        "if n == 1 else",
        "if n <= 1 else",
    ),
    Fault(
        "Half of a character, a file for a model's folder, a device that is not there, a number as a text",
        "hooks/encoding.py",
        "        _check_characters(text, number)\n",
        "",
        ("test_half_of_a_character_is_refused_wherever_texts_are_read",),
    ),
    Fault(
        "Half of a character, a file for a model's folder, a device that is not there, a number as a text",
        "hooks/load.py",
        "if Path(folder).is_file():",
        "if False:",
        ("test_a_file_in_place_of_the_folder_of_a_model_is_answered_with_its_folder",),
    ),
    Fault(
        "Half of a character, a file for a model's folder, a device that is not there, a number as a text",
        "hooks/devices.py",
        "except (RuntimeError, AssertionError)",
        "except AssertionError",
        ("test_a_device_that_is_not_there_is_refused_with_those_that_are",),
    ),
    Fault(
        "Half of a character, a file for a model's folder, a device that is not there, a number as a text",
        "probes/checks.py",
        '    check_number("C", C)\n',
        "",
        ("test_a_number_given_as_a_text_is_refused_by_name",),
    ),
    Fault(
        "A site named in another layer than the one that was misspelt",
        "hooks/site.py",
        'layer[0] if layer else "0"',
        '"0"',
    ),
    Fault(
        "A first token that every word has",
        "interp/memory/tracing/corruption.py",
        " if not is_blank(model.tokenizer, int(ids[0, i]))]",
        "]",
        ("test_what_is_traced_is_the_first_token_of_the_answer_that_has_text",),
    ),
    Fault(
        "Numbers out of their range",
        "interp/lenses/reading.py",
        'f"top is {top}: give a number of tokens from 1 to {model.d_vocab}"',
        '"give a number of tokens that the vocabulary has"',
        ("test_an_error_about_a_number_out_of_its_range_names_the_number_that_was_given",),
    ),
)

TESTS: Final = (
    Fault(
        "A threshold or latent chosen on the half that is reported",
        "interp/features/search/search.py",
        "    f1, threshold = ranking.best(y, bench.counts(bench.searched)[1])\n",
        "    f1, _ = ranking.best(y, bench.counts(bench.searched)[1])\n"
        "    threshold = Ranking(entries.at(bench.reported), sae.d_sae).best(*_other(bench))[1]\n",
        ("test_a_latent_is_reported_at_the_threshold_that_the_searched_half_gave",),
    ),
    Fault(
        "A threshold or latent chosen on the half that is reported",
        "interp/features/search/baselines.py",
        "    fitted = half & labels.counts & ~labels.apart\n",
        "    fitted = labels.counts & ~labels.apart\n",
        ("test_probes_know_the_searched_half_alone",),
    ),
    Fault(
        "What is missing computed once for all layers",
        "interp/memory/editing/multi_layer.py",
        "Layer(c, k, delta - moved, len(place.covariances) - number)",
        "Layer(c, k, delta, len(place.covariances) - number)",
    ),
    Fault(
        "What is missing computed once for all layers",
        "interp/memory/editing/multi_layer.py",
        "Layer(c, k, delta - moved, len(place.covariances) - number)",
        "Layer(c, k, delta - moved, len(place.covariances))",
    ),
    Fault(
        "A p-value without the search itself",
        "interp/features/search/search.py",
        "p_value=(1 + int((null >= f1.max()).sum())) / (1 + permutations),",
        "p_value=int((null >= f1.max()).sum()) / permutations,",
    ),
    Fault(
        "A divergence turned round",
        "interp/memory/evaluation/measurement.py",
        "kl = (before.log_probs.exp() * (before.log_probs - self.log_probs)).sum(-1).mean()",
        "kl = (self.log_probs.exp() * (self.log_probs - before.log_probs)).sum(-1).mean()",
    ),
    Fault(
        "A later intervention of a chain that loses the earlier ones",
        "hooks/intervene.py",
        "                new = new.index_put(place, self._change(one, new[place], rows))\n",
        "                new = new if passing.prefill else a\n"
        "                new = new.index_put(place, self._change(one, new[place], rows))\n",
    ),
    Fault(
        "An eraser that changes more than it must",
        "probes/leace.py",
        "basis, std = basis[:, real], variance[real].sqrt()",
        "basis, std = basis[:, real], (variance[real] + 0.1 * variance.mean()).sqrt()",
    ),
    Fault(
        "An estimate of edges that is not first order where what attention writes is normalised",
        "interp/circuits/edges/attribution.py",
        "held=self.slope.rules.norms_held)\n        return moves",
        "held=True)\n        return moves",
        ("test_as_the_corrupt_text_nears_the_clean_one_every_estimate_is_the_exact_effect",),
    ),
    Fault(
        "An estimate of edges that is not first order where what attention writes is normalised",
        "interp/circuits/edges/norm.py",
        "return self.gain.to(delta) * (plain - divided)",
        "return self.gain.to(delta) * plain",
    ),
    Fault(
        "A graph that silently lacks the edges into attention",
        "interp/circuits/edges/graph.py",
        "        _check_readers(model, layer)\n",
        "",
    ),
    Fault(
        "Directions and splits of logits that are read off something else than the stream",
        "interp/lenses/attribution.py",
        "    model.unembed(x)  # refuses a model whose logits are not read off this stream\n",
        "",
    ),
)

FAULTS: Final = (
    *REMEMBERED,
    *FILES,
    *TEXT,
    *PROBES,
    *AUTOENCODERS,
    *ERRORS,
    *STATE,
    *SEEN,
    *COUNTS,
    *TESTS,
)
