"""What Skiff must do, sentence by sentence, each with its source and the tests that show it. A known gap is data.

A test is named `file::function`, without `tests/`; a function may be cut short, and then stands for all that begin so.
`gap` says what no test shows yet, and why; a requirement may have both. `test_requirements.py` checks every name.
"""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Requirement:
    """One sentence that must be true. `source`: where it was asked for."""

    id: str
    says: str
    source: str
    tests: tuple[str, ...] = ()
    gap: str = ""


def _r(number: str, says: str, source: str, *tests: str, gap: str = "") -> Requirement:
    return Requirement(number, says, source, tests, gap)


_GETS = "issue 2, what a user gets"
_DOOR = "issue 2, the MCP door"
_ENGINE = "issue 2, the engine"
_HANDS = "issue 2, the hands"
_SHOWN = "issue 2, shown by"
_FIGURES = "issue 2, figures"
_ALWAYS = "design, what is always true"
_AWKWARD = "design, the awkward points"
_ARROWS = "design, which way the arrows go"

_KEPT = "issue 4, bounds under load"

KEEPING = (
    _r(
        "kept-pages",
        "A page of a session's history reads the rows that stand on it, however long it is, in the wire's order.",
        _KEPT,
        "server/test_history.py::test_the_pages_together_are_the_whole_list_in_either_order",
        "server/test_history.py::test_a_page_",
        "server/test_history.py::test_a_place_where_nothing_stands_is_refused",
    ),
    _r(
        "kept-small",
        "What is kept stays small: old sessions go if the operator wants it, keys after a day; room is given back.",
        _KEPT,
        "server/test_upkeep.py::test_",
        "server/test_store.py::test_a_deleted_session_takes_everything_along",
    ),
    _r(
        "kept-room",
        "A disk that fills up is noticed before it hurts: nothing new is begun, turns end, both doors say what to do.",
        _KEPT,
        "scenarios/test_room.py::test_",
    ),
    _r(
        "kept-backup",
        "`skiff backup` copies a folder that is in use: all that was acknowledged, and a server goes on from the copy.",
        _KEPT,
        "e2e/test_backup.py::test_",
    ),
)

INVARIANTS = (
    _r(
        "true-1-log",
        "The log is the truth: everything else is a fold of it, and a last message is readable before its idle event.",
        f"{_ALWAYS} 1",
        "scenarios/test_turns.py::test_the_last_message_is_readable_before_the_session_is_idle",
        "server/test_events.py::test_what_only_the_engine_reads_is_in_no_public_part",
        "server/test_state.py::test_",
        "server/test_history.py::test_",
        "server/test_usage.py::test_",
    ),
    _r(
        "true-2-requests",
        "A turn never runs inside a request: a client that goes away changes nothing.",
        f"{_ALWAYS} 2",
        "server/test_mcp_door.py::test_a_client_that_times_out_changes_nothing",
        "server/test_mcp_door.py::test_a_call_that_is_cancelled_changes_nothing",
        "server/test_mcp_door.py::test_a_client_that_disconnects_changes_nothing",
        "server/test_mcp_http.py::test_a_host_whose_connection_breaks_changes_nothing",
        "server/test_mcp_door.py::test_work_goes_on_when_the_wait_is_over_and_wait_brings_its_result",
        "e2e/test_mcp_process.py::test_a_client_that_gives_up_or_cancels_changes_nothing",
    ),
    _r(
        "true-3-stateless",
        "Killed at any instruction, the next process folds the log and goes on.",
        f"{_ALWAYS} 3",
        "e2e/test_processes.py::test_a_command_outlives_a_killed_server_and_is_answered_with_its_real_result",
        "e2e/test_processes.py::test_a_result_that_came_while_no_server_was_there_is_fetched",
        "e2e/test_processes.py::test_a_model_request_that_died_with_the_server_is_made_again",
        "server/test_decide.py::test_the_next_step_follows_from_the_state_alone",
        "crash/test_matrix.py::test_killed_at_this_point_nothing_is_lost_and_nothing_is_done_twice",
    ),
    _r(
        "true-4-once",
        "A tool call takes effect at most once.",
        f"{_ALWAYS} 4",
        "contracts/test_sandbox.py::test_an_operation_asked_twice_runs_once",
        "sandbox/test_runner_journal.py::test_the_same_operation_sent_again_returns_the_kept_result_and_runs_once",
        "scenarios/test_interrupts.py::test_a_container_killed_in_mid_call_is_told_to_the_model",
        "e2e/test_processes.py::test_a_call_whose_sandbox_died_with_the_server_is_answered_in_words_and_never_run_again",
        "crash/test_matrix.py::test_killed_at_this_point_nothing_is_lost_and_nothing_is_done_twice",
        "scenarios/test_restarts.py::test_closed_at_any_event_it_loses_nothing_and_runs_nothing_twice",
        "scenarios/test_restarts.py::test_closed_with_an_interrupt_and_messages_waiting_it_does_them_first",
    ),
    _r(
        "true-5-secrets",
        "Model-written code never meets a secret of the server.",
        f"{_ALWAYS} 5",
        "contracts/test_sandbox.py::test_nothing_of_the_server_is_visible_inside",
        "sandbox/test_hostility.py::test_the_runner_cannot_be_read_traced_or_written_to",
        "providers/test_anthropic.py::test_an_invalid_key_is_refused_and_never_shown",
        "providers/test_anthropic.py::test_a_key_of_any_look_is_hidden_in_errors",
    ),
    _r(
        "true-6-bounds",
        "Nothing is unbounded, and reaching a bound says what to do.",
        f"{_ALWAYS} 6",
        "sandbox/test_hostility.py::test_endless_output_is_bounded_and_ends_with_its_time",
        "sandbox/test_runner_journal.py::test_a_full_journal_says_why_and_settling_makes_room",
        "sandbox/test_egress_mux.py::test_unread_data_of_all_streams_together_is_bounded",
        "scenarios/test_models.py::test_a_turn_that_goes_round_and_round_is_ended_by_its_bound",
        "providers/test_anthropic.py::test_silence_is_bounded",
        "scenarios/test_bounds.py::test_more_sessions_than_may_work_at_once_wait_their_turn_and_all_end",
        "scenarios/test_bounds.py::test_a_sandbox_too_many_stops_the_longest_idle_one_whose_files_stay",
    ),
    _r(
        "true-7-obeyed",
        "What is accepted is obeyed; what is not implemented is refused by name.",
        f"{_ALWAYS} 7",
        "test_docs.py::test_the_settings_example_is_obeyed",
        "test_docs.py::test_the_readme_names_what_is_refused",
        "sandbox/test_docker_backend.py::test_what_cannot_be_promised_is_refused_by_name",
        "server/test_mcp_door.py::test_what_is_not_known_is_refused_by_name",
        "server/test_settings.py::test_",
    ),
    _r(
        "true-8-doors",
        "Doors translate, nothing more: they call the same use-cases.",
        f"{_ALWAYS} 8",
        "test_layers.py::test_a_door_reaches_the_engine_through_the_use_cases_alone",
        "scenarios/test_two_doors.py::test_",
    ),
    _r(
        "true-9-contract",
        "Every sandbox backend passes one contract suite and declares what it cannot promise.",
        f"{_ALWAYS} 9",
        "contracts/test_sandbox.py::test_",
        "contracts/test_sandbox.py::test_backends_say_what_they_do_not_promise",
    ),
    _r(
        "true-10-silence",
        "Silence is bounded, not work.",
        f"{_ALWAYS} 10",
        "sandbox/test_channel.py::test_silence_fails_the_channel_and_a_frozen_sandbox_is_not_watched",
        "providers/test_anthropic.py::test_pings_count_as_signs_of_life",
    ),
    _r(
        "arrows",
        "Imports go one way; each library is imported in one place; pure modules have no means of doing anything.",
        _ARROWS,
        "test_layers.py::test_",
    ),
)

USER = (
    _r(
        "demo",
        "`make demo` sends out an agent over stdio, shows progress, reads files back and says which model answered.",
        f"{_GETS} 1",
        "providers/test_scripted.py::test_the_demonstration_writes_a_program_that_really_runs",
        "e2e/test_commands.py::test_the_demonstration_brings_back_a_reply_and_a_file_without_a_key",
    ),
    _r(
        "commands",
        "`skiff` has the commands mcp, serve, demo, doctor, work, sandbox and sessions, with help.",
        f"{_GETS} 2",
        "test_docs.py::test_the_readme_has_every_command",
        "e2e/test_commands.py::test_",
    ),
    _r(
        "settings",
        "Settings come by flag, environment and one TOML file; an unknown key is refused.",
        f"{_GETS} 2",
        "test_docs.py::test_the_settings_example_is_obeyed",
        "test_docs.py::test_the_readme_has_every_setting",
        "server/test_settings.py::test_flags_win_over_the_environment_and_the_environment_over_the_file",
        "server/test_settings.py::test_a_wrong_file_is_refused_with_the_name_of_what_is_wrong",
        "server/test_settings.py::test_an_unknown_flag_is_refused",
    ),
    _r(
        "sdk-environment",
        "ANTHROPIC_API_KEY, ANTHROPIC_AUTH_TOKEN and ANTHROPIC_BASE_URL are honoured as the SDK honours them.",
        f"{_GETS} 2",
        "providers/test_anthropic.py::test_an_auth_token_and_a_base_url_of_the_environment_are_honoured",
        "providers/test_anthropic.py::test_no_key_at_all_says_which_variable_to_set",
    ),
    _r(
        "http-token",
        "`skiff serve` listens on 127.0.0.1 with a bearer token made at first start into a 0600 file.",
        f"{_GETS} 2",
        "server/test_mcp_http.py::test_without_the_right_token_nothing_is_told",
        "server/test_mcp_http.py::test_strange_hosts_and_origins_are_refused",
        "server/test_mcp_http.py::test_without_a_token_only_this_machine_is_served",
        "server/test_mcp_http.py::test_a_port_that_is_taken_is_said_so",
        "server/test_mcp_words.py::test_host_headers_are_those_of_this_machine_and_those_allowed",
        "e2e/test_commands.py::test_the_data_folder_is_closed_to_others_and_so_is_its_token",
    ),
    _r(
        "host-snippets",
        "There are exact snippets for Claude Desktop, Claude Code, VS Code, Cursor and Codex.",
        f"{_GETS} 3",
        "test_docs.py::test_snippets_parse",
        "test_docs.py::test_the_example_configuration_is_the_readmes",
    ),
)

DOOR = (
    _r(
        "tools",
        "The eleven tools have title, description, four annotations, typed output, and core ones are always loaded.",
        _DOOR,
        "test_docs.py::test_the_readme_has_every_tool_with_every_argument",
        "server/test_mcp_door.py::test_every_tool_has_title_description_annotations_and_schemas",
    ),
    _r(
        "both-eras",
        "Both protocol eras are spoken over stdio and Streamable HTTP.",
        _DOOR,
        "server/test_mcp_door.py::test_a_task_is_done_and_its_result_says_everything",
        "e2e/test_mcp_process.py::test_a_session_made_worked_and_read_over_stdio",
        "server/test_mcp_http.py::test_a_host_with_the_token_gets_its_work_done",
    ),
    _r(
        "agent-forms",
        "`agent` takes a saved name, inline fields, tools by name or category, and the declarative form.",
        _DOOR,
        "test_docs.py::test_examples_of_agents_and_environments_are_taken",
        "server/test_agents.py::test_",
        "server/test_spec.py::test_",
        "server/test_catalog.py::test_equal_agents_",
    ),
    _r(
        "environment-forms",
        "`environment` takes network none, limited or open, allowed hosts, image, cpu, memory, and `standard_sandbox`.",
        _DOOR,
        "test_docs.py::test_examples_of_agents_and_environments_are_taken",
        "server/test_environments.py::test_",
        "server/test_environment_rules.py::test_the_mcp_door_gets_packages_only_where_the_operator_lets_it",
    ),
    _r(
        "refused-by-name",
        "What is not there is refused by name; an unknown price gives a cost of null.",
        _DOOR,
        "test_docs.py::test_the_readme_names_what_is_refused",
        "providers/test_pricing.py::test_an_unknown_model_has_no_price",
        "server/test_mcp_door.py::test_what_is_not_known_is_refused_by_name",
    ),
    _r(
        "staged-files",
        "`files` are placed in the workspace before the work begins.",
        _DOOR,
        "scenarios/test_turns.py::test_a_task_is_worked_on_in_the_sandbox_and_its_reply_and_files_come_back",
        "server/test_mcp_door.py::test_files_are_placed_listed_and_read_back",
        "server/test_store.py::test_first_events_and_staged_files_are_stored_with_the_session",
        "server/test_workspace.py::test_",
    ),
    _r(
        "request-key",
        "A `request_key` given twice takes effect once.",
        f"{_DOOR}; {_AWKWARD}, asked twice",
        "scenarios/test_turns.py::test_a_request_key_asked_twice_makes_one_session_and_sends_one_message",
        "server/test_mcp_door.py::test_the_same_request_key_makes_one_session",
        "server/test_store.py::test_what_is_asked_twice_under_one_key_happens_once",
    ),
    _r(
        "progress",
        "Progress is told at least every ten seconds, says what the agent is doing, and its value grows.",
        _DOOR,
        "server/test_mcp_words.py::test_progress_grows_with_every_telling",
        "server/test_mcp_words.py::test_a_progress_message_",
        "server/test_mcp_door.py::test_progress_says_what_goes_on_with_growing_values",
        "server/test_mcp_words.py::test_news_is_told_at_most_four_times_a_second_and_silence_ends_after_ten",
    ),
    _r(
        "result-budget",
        "Results have a byte budget: head and tail with a pointer to the rest, never a silent cut.",
        _DOOR,
        "server/test_mcp_words.py::test_a_long_text_is_shown_as_head_and_tail_with_a_pointer_and_fits",
        "server/test_mcp_words.py::test_pages_of_a_transcript_hold_every_event_once_and_stay_in_the_budget",
        "server/test_mcp_words.py::test_a_long_event_is_shortened_in_a_page_and_read_whole_in_portions",
        "server/test_mcp_words.py::test_a_folder_is_listed_in_pages_that_fit",
        "server/test_mcp_door.py::test_a_long_reply_points_to_the_rest_of_it",
    ),
    _r(
        "read-workspace",
        "`read_workspace` lists a folder, reads a file or a range, shows an image; bounded, with a cursor.",
        _DOOR,
        "server/test_mcp_words.py::test_a_file_is_read_in_portions_without_losing_a_character",
        "server/test_mcp_words.py::test_binary_content_is_described_and_not_dumped",
        "sandbox/test_files.py::test_ten_thousand_files_and_strange_names_are_listed_page_by_page",
        "server/test_mcp_door.py::test_an_image_is_shown_as_an_image",
    ),
    _r(
        "door-errors",
        "Errors are tool errors that a model can act on, never a masked exception.",
        _DOOR,
        "server/test_mcp_door.py::test_what_is_not_known_is_refused_by_name",
        "server/test_mcp_door.py::test_an_unexpected_failure_is_told_and_logged",
        "server/test_mcp_door.py::test_a_model_that_fails_is_reported_with_its_reason",
    ),
    _r(
        "wait",
        "`wait` waits for one or many sessions, any or all of them.",
        _DOOR,
        "server/test_mcp_door.py::test_any_returns_with_the_first_and_all_with_the_last",
    ),
    _r(
        "tasks",
        "Hosts with the tasks extension get a task for a long call; it outlives the request and the server.",
        "reference, mcp.md section 2",
        "server/test_mcp_tasks.py::test_",
    ),
    _r(
        "resources",
        "Transcripts and files are resources too, and a prompt delegates a task.",
        "design, the house",
        "server/test_mcp_door.py::test_transcripts_and_files_are_resources",
        "server/test_mcp_door.py::test_the_delegate_prompt_carries_the_task",
    ),
    _r(
        "tools-list-fast",
        "`tools/list` answers fast: nothing slow is imported on that path.",
        _DOOR,
        "providers/test_anthropic.py::test_importing_the_provider_does_not_import_the_sdk",
        "server/test_mcp_door.py::test_tools_are_listed_before_anything_slow_is_imported_or_opened",
    ),
)

ENGINE = (
    _r(
        "event-shape",
        "Every event is strictly one of the SDK's, in the order and with the ids and `processed_at` of the wire.",
        _ENGINE,
        "server/test_events.py::test_every_event_is_what_the_sdk_expects",
        "server/test_events.py::test_the_judge_refuses_unknown_fields_wrong_types_and_missing_fields",
        "server/test_events.py::test_a_sessions_whole_log_is_what_the_sdk_expects_in_the_order_of_the_wire",
        "server/test_events.py::test_inputs_wait_with_processed_at_null",
        "server/test_answer.py::test_blocks_become_events_in_their_order",
        "server/test_ids.py::test_",
    ),
    _r(
        "parallel-sessions",
        "Many sessions work at once and keep their work apart.",
        _ENGINE,
        "scenarios/test_turns.py::test_twenty_sessions_at_once_keep_their_work_apart",
    ),
    _r(
        "parallel-calls",
        "Several calls of one answer run side by side and are answered in order.",
        _ENGINE,
        "scenarios/test_turns.py::test_calls_of_one_answer_run_side_by_side_and_are_answered_in_their_order",
    ),
    _r(
        "steering",
        "Messages sent while a turn runs are queued and steered in.",
        _ENGINE,
        "scenarios/test_turns.py::test_a_message_sent_while_tools_run_is_steered_in_after_their_results",
        "scenarios/test_turns.py::test_a_message_sent_while_the_model_writes_is_answered_in_the_same_turn",
    ),
    _r(
        "interrupt",
        "An interrupt works while the model streams, while bash runs, and in between.",
        _ENGINE,
        "scenarios/test_interrupts.py::test_an_interrupt_",
        "server/test_mcp_door.py::test_interrupt_stops_the_turn_and_leaves_the_session_usable",
        "scenarios/test_interrupts.py::test_a_message_queued_behind_an_interrupt_starts_the_next_turn",
        "server/test_events.py::test_an_interrupted_session_logs_the_interrupt_before_its_idle_events",
    ),
    _r(
        "deltas",
        "The provider streams, with deltas to followers.",
        _ENGINE,
        "providers/test_anthropic.py::test_an_answer_streams_and_ends_with_the_whole_response",
        "server/test_log.py::test_text_comes_after_what_was_stored_before_it_and_before_the_event_that_holds_it",
        "server/test_log.py::test_who_does_not_ask_for_text_as_it_is_written_gets_none",
    ),
    _r(
        "prompt-cache",
        "The prefix is stable byte for byte, and cache reads and writes are counted in usage.",
        _ENGINE,
        "scenarios/test_turns.py::test_prompts_grow_by_appending_and_cache_reads_grow_with_them",
        "server/test_transcript.py::test_each_request_begins_with_the_bytes_of_the_one_before",
        "server/test_transcript.py::test_the_moving_end_and_the_end_before_it_carry_the_cache_marks",
        "providers/test_scripted.py::test_a_growing_conversation_reads_what_it_wrote_and_writes_only_what_is_new",
        "providers/test_scripted.py::test_one_changed_byte_in_the_tools_spoils_everything_after_it",
        "providers/test_anthropic.py::test_usage_tells_cache_reads_and_writes_by_lifetime",
    ),
    _r(
        "retries",
        "408, 409, 429, 5xx and cut streams are tried again with back-off, visible as events.",
        _ENGINE,
        "scenarios/test_models.py::test_a_passing_failure_shows_and_is_tried_again",
        "scenarios/test_failures.py::test_a_failure_has_its_event_its_tries_its_words_and_a_session_after_it",
        "server/test_retrying.py::test_the_wait_before_another_try_grows_is_spread_and_honours_the_provider",
        "providers/test_anthropic.py::test_every_error_status_has_its_class",
        "providers/test_anthropic.py::test_a_cut_stream_passes_and_the_next_try_succeeds",
        "providers/test_anthropic.py::test_a_rate_limit_says_how_long_to_wait",
    ),
    _r(
        "scripted-honest",
        "`scripted` is deterministic, keeps the API's rules, and prices prefixes by bytes as the real one does.",
        _ENGINE,
        "providers/test_scripted.py::test_the_same_conversation_gives_the_same_answer_on_both_ways",
        "providers/test_scripted.py::test_what_the_api_refuses_is_refused_in_its_words",
        "providers/test_scripted.py::test_every_event_is_strictly_one_of_the_sdk",
    ),
    _r(
        "server-tools",
        "web_search and web_fetch go through as the provider's own tools, counted and logged.",
        _ENGINE,
        "providers/test_anthropic.py::test_server_tools_are_the_newest_of_the_sdk_for_direct_use",
        "providers/test_anthropic.py::test_server_tool_blocks_citations_and_unknown_blocks_come_whole",
        "server/test_answer.py::test_the_providers_own_tools_are_logged_with_their_results_and_are_nobodys_calls",
        "server/test_spec.py::test_web_tools_reach_the_environments_hosts_only",
    ),
    _r(
        "bad-answers",
        "Malformed, cut-off, refused and unknown calls are answered in words and never run.",
        _ENGINE,
        "scenarios/test_models.py::test_a_refusal_ends_the_turn_and_its_calls_do_not_run",
        "scenarios/test_models.py::test_a_call_cut_off_by_the_answers_length_is_not_run",
        "scenarios/test_models.py::test_malformed_input_is_answered_with_an_error_that_the_model_can_act_on",
        "scenarios/test_models.py::test_wrong_arguments_and_unknown_tools_are_answered_without_a_sandbox_call",
        "scenarios/test_models.py::test_a_tool_that_the_agent_does_not_have_is_refused",
        "server/test_tools.py::test_a_wrong_call_is_answered_with_what_to_change",
    ),
    _r(
        "one-engine",
        "One process on a data folder is the engine; the others hand it their requests; a dead one is replaced.",
        _AWKWARD,
        "e2e/test_processes.py::test_two_hosts_on_one_data_folder_work_with_the_same_sessions",
        "e2e/test_processes.py::test_a_door_takes_over_when_the_engine_is_killed_and_the_turn_ends",
        "server/test_lock.py::test_",
        "server/test_doorbell.py::test_",
    ),
    _r(
        "store",
        "An append is whole or nothing, numbered without gaps, and refused to an engine that was replaced.",
        f"{_ENGINE}; {_AWKWARD}, log",
        "server/test_store.py::test_events_are_numbered_from_one_without_gaps_and_read_back_as_given",
        "server/test_store.py::test_an_append_on_a_head_that_moved_writes_nothing",
        "server/test_store.py::test_an_older_engine_can_write_nothing_more_while_inputs_still_come_in",
        "server/test_store.py::test_a_cancelled_writer_has_written_all_or_nothing",
        "server/test_store.py::test_a_full_disk_says_so_and_once_there_is_room_again_writing_goes_on",
    ),
    _r(
        "followers",
        "Every follower gets every event once and in order, and a slow one holds nobody up.",
        f"{_ENGINE}; {_ALWAYS} 6",
        "server/test_log.py::test_followers_get_every_event_once_and_in_order",
        "server/test_log.py::test_a_slow_followers_text_is_a_beginning_without_gaps",
        "server/test_log.py::test_a_poke_shows_what_another_process_wrote",
    ),
    _r(
        "host-closes",
        "A host that closes its server with turns running leaves `skiff work` behind, which finishes them.",
        _AWKWARD,
        "e2e/test_processes.py::test_a_host_that_closes_its_server_finds_the_turn_finished_by_a_successor",
        "e2e/test_processes.py::test_a_terminated_server_hands_its_turn_over_as_well",
    ),
    _r(
        "migrations",
        "Migrations are numbered and run once; a newer schema is refused.",
        _ENGINE,
        "e2e/test_mcp_process.py::test_a_data_folder_of_a_newer_schema_is_refused_in_words",
        "server/test_store.py::test_a_database_of_a_newer_program_is_refused_and_left_as_it_is",
        "server/test_store.py::test_migrating_twice_changes_nothing",
        gap="there is one migration yet, so none runs on a folder of an older version",
    ),
    _r(
        "delete",
        "Deleting a session removes its work, sandbox and files, at any moment of its life.",
        _AWKWARD,
        "scenarios/test_turns.py::test_a_session_deleted_while_it_works_takes_its_sandbox_along",
        "scenarios/test_turns.py::test_a_session_deleted_while_its_sandbox_is_made_leaves_nothing",
        "server/test_mcp_door.py::test_a_deleted_session_is_gone_even_while_it_runs",
    ),
)

HANDS = (
    _r(
        "reattach",
        "A container is re-attached after a restart of the server, with the operation that runs in it.",
        _HANDS,
        "sandbox/test_docker_backend.py::test_closing_and_attaching_again_finds_the_same_life_and_the_running_operation",
        "sandbox/test_docker_backend.py::test_a_second_process_takes_over_what_the_first_left_running",
        "sandbox/test_runner_journal.py::test_a_new_owner_finds_running_and_finished_operations",
        "contracts/test_sandbox.py::test_a_sandbox_that_was_let_go_can_be_taken_over_again",
    ),
    _r(
        "pool",
        "A small warm pool is kept, as a setting says.",
        _HANDS,
        "sandbox/test_docker_backend.py::test_the_pool_hands_out_a_ready_sandbox_once_and_fills_up_again",
        "sandbox/test_docker_backend.py::test_leaving_removes_the_pool_and_keeps_the_sandboxes",
    ),
    _r(
        "persistent-bash",
        "Working directory, variables and background jobs live from call to call.",
        _HANDS,
        "sandbox/test_runner_shell.py::test_directory_variables_functions_aliases_and_jobs_live_from_call_to_call",
        "contracts/test_sandbox.py::test_a_command_returns_its_output_and_exit_code_and_the_shell_keeps_its_state",
    ),
    _r(
        "timeouts",
        "Timeouts and interrupts end the command's whole tree and leave the shell usable.",
        _HANDS,
        "sandbox/test_runner_shell.py::test_a_timeout_ends_the_whole_command_and_keeps_variables_and_older_jobs",
        "sandbox/test_runner_shell.py::test_whatever_a_command_starts_is_gone_afterwards_and_the_shell_is_usable",
        "contracts/test_sandbox.py::test_a_command_over_its_time_is_stopped_and_says_so",
        "scenarios/test_interrupts.py::test_a_command_over_its_timeout_is_stopped_with_its_tree_and_the_turn_goes_on",
    ),
    _r(
        "output",
        "Output is interleaved, binary-safe and bounded; over 100,000 characters it is spilled with a preview.",
        _HANDS,
        "sandbox/test_runner_shell.py::test_a_command_answers_with_output_of_both_streams_in_order",
        "sandbox/test_runner_shell.py::test_undecodable_bytes_come_back_as_they_were",
        "sandbox/test_runner_shell.py::test_long_output_is_spilled_whole_to_a_file_and_shown_by_its_ends",
    ),
    _r(
        "file-tools",
        "read, write, edit, glob and grep do what the wire's toolset says; images and PDFs come as content blocks.",
        _HANDS,
        "sandbox/test_files.py::test_read_returns_text_byte_for_byte",
        "sandbox/test_files.py::test_images_and_pdfs_come_as_bytes_with_their_type",
        "sandbox/test_files.py::test_edit_replaces_the_only_match_and_shows_it",
        "sandbox/test_files.py::test_edit_refuses_more_than_one_match_unless_told",
        "sandbox/test_search.py::test_patterns_match_as_doublestar_does",
        "sandbox/test_search.py::test_grep_gives_path_line_and_text_in_the_order_of_paths",
        "contracts/test_sandbox.py::test_every_file_operation_does_its_work_inside",
        "sandbox/test_runner_files.py::test_",
        "server/test_toolset.py::test_",
        "server/test_render.py::test_",
    ),
    _r(
        "hardening",
        "Non-root, no capabilities, no new privileges, read-only root, bounds, our own seccomp list, no host mounts.",
        _HANDS,
        "sandbox/test_docker_options.py::test_every_hardening_is_asked_for",
        "sandbox/test_docker_backend.py::test_every_hardening_is_in_effect_inside",
        "contracts/test_sandbox.py::test_inside_there_is_no_root_no_capability_and_a_filter",
        "contracts/test_sandbox.py::test_only_the_workspace_and_tmp_can_be_written",
        "contracts/test_sandbox.py::test_memory_is_bounded_where_promised_and_the_sandbox_lives_on",
        "contracts/test_sandbox.py::test_processes_are_bounded_where_promised",
        "sandbox/test_seccomp.py::test_",
    ),
    _r(
        "network",
        "No network unless opened; then the policy proxy: listed hosts, or public addresses only, checked at connect.",
        _HANDS,
        "contracts/test_sandbox.py::test_without_a_policy_there_is_no_network_but_loopback",
        "contracts/test_sandbox.py::test_a_limited_network_reaches_the_allowed_host_and_no_other",
        "sandbox/test_docker_options.py::test_an_opened_network_changes_the_runner_and_never_the_network_mode",
        "sandbox/test_egress_policy.py::test_",
        "sandbox/test_egress_dial.py::test_",
        "sandbox/test_egress_end_to_end.py::test_",
        "sandbox/test_egress_listener.py::test_",
    ),
    _r(
        "idle",
        "An idle sandbox is frozen and later stopped, and started again with its files.",
        _HANDS,
        "sandbox/test_docker_backend.py::test_an_idle_sandbox_is_frozen_unless_its_background_works",
        "sandbox/test_docker_backend.py::test_a_frozen_sandbox_thaws_at_the_next_call",
        "sandbox/test_docker_backend.py::test_a_stopped_sandbox_keeps_its_files_and_begins_a_new_life",
        "contracts/test_sandbox.py::test_files_survive_stop_and_attach_and_processes_do_not",
        "scenarios/test_bounds.py::test_an_idle_sandbox_is_stopped_and_the_next_message_starts_it_with_its_files",
    ),
    _r(
        "packing",
        "All that a session's sandbox holds goes out as one archive and comes back as it was, on every backend.",
        f"issue 4, housekeeping; {_AWKWARD}, sandbox verbs",
        "contracts/test_sandbox.py::test_what_was_packed_is_unpacked_as_it_was",
        "contracts/test_sandbox.py::test_half_an_archive_or_another_file_is_refused_and_leaves_nothing",
        "contracts/test_sandbox.py::test_packing_that_is_broken_off_changes_nothing",
        "contracts/test_sandbox.py::test_a_sandbox_that_nobody_is_attached_to_can_be_stopped",
        "sandbox/test_docker_options.py::test_a_container_that_packs_can_read_all_and_write_nothing_and_one_that_unpacks",
        "sandbox/test_hostility.py::test_a_workspace_replaced_by_links_is_packed_and_destroyed_without_following_them",
    ),
    _r(
        "lost",
        "A sandbox that is lost is replaced; its running calls are unknowable, and the model is told.",
        _AWKWARD,
        "scenarios/test_interrupts.py::test_a_container_removed_between_turns_is_made_again_around_its_files",
        "scenarios/test_interrupts.py::test_a_sandbox_process_killed_in_mid_call_is_told_to_the_model",
        "sandbox/test_docker_backend.py::test_a_lost_container_is_made_anew_around_its_workspace",
    ),
    _r(
        "ownership",
        "An installation finds what it left behind, and touches nothing of others.",
        f"{_HANDS}; {_AWKWARD}, ownership",
        "sandbox/test_docker_backend.py::test_collection_removes_what_nobody_knows_and_nothing_of_others",
        "sandbox/test_docker_backend.py::test_a_creation_that_is_cancelled_leaves_nothing_behind",
        "sandbox/test_docker_options.py::test_two_installations_never_share_a_name",
    ),
    _r(
        "image",
        "The image builds from a public base or the machine's own packages; a first need without it names the command.",
        _HANDS,
        "sandbox/test_docker_base.py::test_",
        "sandbox/test_docker_images.py::test_",
        gap="the build from nothing runs in `.ci/run` (make image), not in a test",
    ),
    _r(
        "engine-refusals",
        "What the container engine refuses becomes one of our errors, with what to do.",
        "style 11",
        "sandbox/test_docker_failure.py::test_",
        "sandbox/test_docker_attach.py::test_no_engine_at_the_socket_says_how_to_start_one",
        "sandbox/test_docker_images.py::test_an_engine_that_is_not_there_is_said_to_be_so",
    ),
    _r(
        "context",
        "The current Docker context is found.",
        _HANDS,
        "sandbox/test_docker_endpoint.py::test_the_current_context_of_a_desktop_is_followed",
        "sandbox/test_docker_endpoint.py::test_docker_host_comes_first",
    ),
    _r(
        "local",
        "The embedded sandbox says what it cannot promise, and refuses where the kernel forbids user namespaces.",
        _HANDS,
        "sandbox/test_local_backend.py::test_a_forbidden_user_namespace_is_explained_with_its_switch",
        "sandbox/test_local_backend.py::test_a_missing_bubblewrap_is_explained",
        "sandbox/test_local_backend.py::test_without_cgroups_the_lack_is_declared_and_processes_are_still_bounded",
        "contracts/test_sandbox.py::test_backends_say_what_they_do_not_promise",
    ),
    _r(
        "hostile-frames",
        "Every frame from the runner is hostile input.",
        "design, decisions",
        "sandbox/test_channel.py::test_a_lie_fails_the_channel_with_a_sandbox_error",
        "sandbox/test_channel.py::test_noise_is_passed_over",
        "sandbox/test_channel.py::test_checksums_made_to_be_computed_in_vain_are_bounded",
        "sandbox/test_docker_attach.py::test_",
        "sandbox/test_egress_mux.py::test_a_breach_resets_its_stream_and_no_other",
    ),
    _r(
        "epochs",
        "Only the newest owner of a runner is obeyed, and half a frame of a dead one hides nothing.",
        f"{_AWKWARD}, attach stream",
        "sandbox/test_runner_journal.py::test_a_lower_epoch_is_refused",
        "sandbox/test_runner_journal.py::test_half_a_frame_of_a_dead_owner_does_not_hide_the_next_owners_attach",
    ),
)

HOSTILITY = (
    _r("fork-bomb", "A fork bomb ends.", _SHOWN, "sandbox/test_hostility.py::test_a_fork_bomb_"),
    _r("memory-hog", "A memory hog is killed.", _SHOWN, "sandbox/test_hostility.py::test_a_memory_hog_"),
    _r(
        "disk-fill",
        "Who fills the disk is stopped and told why.",
        _SHOWN,
        "sandbox/test_hostility.py::test_a_full_disk_stops_the_writer_and_says_why",
        "sandbox/test_hostility.py::test_one_file_cannot_pass_the_disk_bound",
        "sandbox/test_docker_disk.py::test_",
    ),
    _r("endless-output", "Endless output ends.", _SHOWN, "sandbox/test_hostility.py::test_endless_output_"),
    _r("stdin", "A reader of stdin sees its end.", _SHOWN, "sandbox/test_hostility.py::test_a_reader_of_stdin_"),
    _r("setsid", "setsid children die too.", _SHOWN, "sandbox/test_hostility.py::test_children_that_leave_session"),
    _r(
        "symlinks",
        "Links out of the workspace lead nowhere.",
        _SHOWN,
        "sandbox/test_hostility.py::test_links_out_of_the_workspace_are_refused_by_the_file_operations",
        "sandbox/test_hostility.py::test_a_workspace_replaced_by_links_is_packed_and_destroyed",
        "sandbox/test_files.py::test_a_host_cannot_be_led_out_of_the_workspace",
    ),
    _r(
        "binary-output",
        "Binary output is delivered or described.",
        _SHOWN,
        "sandbox/test_hostility.py::test_output_that_is_no_text_is_delivered_or_described",
    ),
    _r("many-files", "10,000 files are listed.", _SHOWN, "sandbox/test_hostility.py::test_ten_thousand_files_"),
    _r(
        "dead-in-mid-call",
        "A container that dies in mid-call is a clear result, and the session lives.",
        _SHOWN,
        "sandbox/test_hostility.py::test_a_sandbox_that_is_destroyed_in_mid_call_is_gone_for_its_caller",
        "scenarios/test_interrupts.py::test_a_container_killed_in_mid_call_is_told_to_the_model",
    ),
)

WHOLE = (
    _r(
        "documents",
        "README, ARCHITECTURE, CONTRIBUTING and CHANGELOG are true of the code.",
        _SHOWN,
        "test_docs.py::test_",
    ),
    _r(
        "manifest",
        "Every requirement is tied to tests that exist, or declared a gap.",
        _SHOWN,
        "test_requirements.py::test_",
    ),
    _r(
        "conformance",
        "The MCP conformance suite and the inspector's command line pass.",
        _SHOWN,
        "e2e/test_referees.py::test_",
    ),
    _r(
        "wheel",
        "The wheel puts no modules called `server` and `sandbox` at the top of site-packages.",
        _SHOWN,
        gap="built and looked at by hand; a test would need the build tools' downloads",
    ),
    _r(
        "data-folder",
        "The data folder is closed to others (0700).",
        _SHOWN,
        "e2e/test_commands.py::test_the_data_folder_is_closed_to_others_and_so_is_its_token",
    ),
    _r(
        "figures",
        "`make bench` prints and stores every row with the other side of its ratio.",
        _FIGURES,
        "test_benchmarks.py::test_",
        gap="figures are measured, not tested: a loaded machine must not fail a test run",
    ),
)

PACKAGES = (
    _r(
        "packages-names",
        "Packages are names and versions of apt, npm and pip; more than that, and other managers, is refused by name.",
        "issue 3, environments",
        "sandbox/test_packages.py::test_",
        "sandbox/test_docker_packages.py::test_a_name_that_is_more_than_a_name_reaches_no_engine",
    ),
    _r(
        "packages-once",
        "Packages are installed once into a derived image, which every session of the environment reuses.",
        "issue 3, environments",
        "sandbox/test_docker_packages.py::test_packages_are_installed_once_and_used_by_every_sandbox_of_the_environment",
        "sandbox/test_docker_packages.py::test_a_package_that_does_not_exist_",
        "sandbox/test_docker_packages.py::test_an_installation_is_bounded_in_time_and_leaves_nothing_behind",
        "sandbox/test_docker_shelf.py::test_",
    ),
    _r(
        "packages-indexes",
        "Packages come from the indexes that this machine is configured with, and no image holds that configuration.",
        f"issue 3, environments; {_AWKWARD}, images",
        "sandbox/test_docker_indexes.py::test_",
        "sandbox/test_docker_packages.py::test_the_configuration_of_the_indexes_",
    ),
    _r(
        "ready-made",
        "Ready-made images are used by name and say size and build time; one that is not built names the command.",
        "issue 3, environments",
        "sandbox/test_docker_packages.py::test_a_ready_made_image_",
        gap="a test builds one, `databases`; `make images` builds all four",
    ),
)

CATALOG = (
    _r(
        "agents",
        "Agents are made, read back resolved, changed under a version, listed, archived; what cannot be is refused.",
        "issue 3, agents",
        "wire/test_agents.py::test_",
        "server/test_agent_rules.py::test_",
        "server/test_catalog.py::test_",
    ),
    _r(
        "environments",
        "Environments are made, read back resolved, changed in part, listed, archived, deleted; ready-made ones named.",
        "issue 3, environments",
        "wire/test_environments.py::test_",
        "server/test_environment_rules.py::test_",
        "server/test_catalog.py::test_",
    ),
)

FILES = (
    _r(
        "files",
        "Files are uploaded to the disk, listed, retrieved, deleted; they expire; a torn upload leaves no trace.",
        "issue 3, files",
        "wire/test_files.py::test_",
        "server/test_blobs.py::test_",
    ),
    _r(
        "files-inputs",
        "What a session is given is a copy of its own, mounted where the agent can only read it, through every life.",
        f"issue 3, files; {_AWKWARD}, inputs",
        "contracts/test_sandbox.py::test_a_file_that_was_placed_is_there_whole_and_the_agent_can_only_read_it",
        "contracts/test_sandbox.py::test_what_was_placed_survives_stop_and_start_and_more_can_come_and_go",
        "contracts/test_sandbox.py::test_a_file_that_comes_shorter_than_it_said_is_refused",
        "wire/test_resources.py::test_a_file_",
        "wire/test_resources.py::test_files_outlive_a_crash_of_the_server_and_the_loss_of_the_sandbox",
    ),
    _r(
        "files-outputs",
        "Everything below the folder of outputs is a file of the session, and leads nowhere else.",
        "issue 3, files",
        "wire/test_files.py::test_what_a_session_writes_to_its_outputs_is_listed_and_downloaded",
        "wire/test_files.py::test_an_output_",
        "contracts/test_sandbox.py::test_outputs_",
        "contracts/test_sandbox.py::test_links_among_the_outputs_lead_the_host_nowhere",
        "server/test_outputs.py::test_",
        "wire/test_resources.py::test_a_door_beside_the_engine_gives_and_hands_out_too",
    ),
    _r(
        "session-resources",
        "The resources of a session are listed, added, updated, deleted; what is wrong with one is said by its name.",
        "issue 3, sessions",
        "wire/test_resources.py::test_",
    ),
    _r(
        "repositories",
        "A repository is fetched outside and checked out inside; its token is never in the sandbox; a failure is said.",
        "issue 3, sessions",
        "wire/test_resources.py::test_the_credential_fetches_and_is_nowhere_else",
        "wire/test_resources.py::test_a_repository_",
        "server/test_repositories.py::test_",
        gap="pushing comes with the sealed network; submodules and large-file pointers stay as they are",
    ),
)

SESSIONS = (
    _r(
        "rest-sessions",
        "Sessions are created, read, listed with every filter, updated, archived and deleted as on the hosted service.",
        "issue 3, sessions",
        "wire/test_sessions.py::test_",
        "server/test_requests.py::test_",
        "server/test_domains.py::test_",
        "server/test_session_rows.py::test_",
    ),
    _r(
        "rest-events",
        "Events are sent, and listed by type, time and page; a client's own tools and confirmations go round.",
        "issue 3, events",
        "wire/test_events.py::test_",
    ),
    _r(
        "rest-stream",
        "A stream has named events, pings, deltas for who asks, gap-free resume; a stalled reader is dropped and told.",
        "issue 3, events",
        "wire/test_stream.py::test_",
        "server/test_live.py::test_",
        "server/test_rest_stream.py::test_",
    ),
    _r(
        "rest-threads",
        "The primary thread has an object, events and a stream.",
        "issue 3, threads",
        "wire/test_threads.py::test_",
    ),
    _r(
        "two-doors",
        "A session begun through one door goes on through the other.",
        "issue 3, shown by",
        "scenarios/test_two_doors.py::test_",
    ),
    _r(
        "rest-followers",
        "A hundred streams on one busy session, twenty of them stalled: memory is bounded, the others lose nothing.",
        "issue 3, shown by",
        "scenarios/test_followers.py::test_",
    ),
)

ASKING = (
    _r(
        "asking",
        "A call that asks, or that is the client's own, parks the turn; it goes on when the last answer has come.",
        "issue 3, custom tools and confirmations",
        "scenarios/test_asking.py::test_",
        "scenarios/test_parked.py::test_",
        "server/test_decide.py::test_the_next_step_follows_from_the_state_alone",
        "server/test_state.py::test_a_parked_turn_",
        "server/test_transcript.py::test_the_model_hears_of_a_clients_tool_",
    ),
    _r(
        "asking-inputs",
        "What a client sends is checked against the wire and the session's state, and taken whole or not at all.",
        "issue 3, events",
        "server/test_inputs.py::test_",
    ),
    _r(
        "asking-respond",
        "No session is stuck over MCP: `respond` answers its calls, and every refusal says what to do.",
        "issue 3, custom tools and confirmations",
        "server/test_mcp_respond.py::test_",
    ),
)

FAST = (
    _r(
        "fast-writes",
        "A small write is made at once where the disk is fast, and never keeps the event loop waiting for others.",
        _FIGURES,
        "server/test_sqlite.py::test_",
    ),
    _r(
        "fast-streams",
        "A model's events are read whole from whatever portions they come in.",
        _FIGURES,
        "providers/test_sse.py::test_",
    ),
)

_REST = "issue 3, build"
WIRE = (
    _r(
        "rest-auth",
        "Bearer and x-api-key; keys are made, listed, revoked, hashed at rest; the checks come in the observed order.",
        f"{_REST}, auth",
        "wire/test_auth.py::test_",
        "server/test_keys.py::test_",
        "server/test_rest_door.py::test_the_checks_come_in_the_order_of_the_hosted_service",
        "server/test_rest_door.py::test_a_key_is_taken_as_bearer_and_as_x_api_key",
        "server/test_rest_door.py::test_the_beta_is_one_of_a_list_and_some_endpoints_need_none",
    ),
    _r(
        "rest-errors",
        "Errors have the wire's envelope, types, statuses and request ids, and never a stack trace.",
        f"{_REST}, errors",
        "wire/test_errors.py::test_",
        "server/test_rest_body.py::test_",
        "server/test_rest_door.py::test_errors_have_the_wires_types_codes_and_retry_headers",
        "server/test_role.py::test_without_an_engine_the_client_is_asked_to_come_again",
        "server/test_rest_door.py::test_what_went_wrong_inside_is_in_the_log",
    ),
    _r(
        "rest-queries",
        "Lists are paged by opaque cursors; parameters that nobody declared are refused by name.",
        f"{_REST}, errors",
        "server/test_rest_query.py::test_",
        "server/test_rest_paging.py::test_",
    ),
    _r(
        "rest-idempotency",
        "Idempotency-Key is honoured on every POST.",
        f"{_REST}, sessions",
        "wire/test_idempotency.py::test_",
        "server/test_rest_door.py::test_the_same_key_",
        "server/test_rest_door.py::test_an_endpoint_that_keeps_its_key_gets_it_with_the_requests_digest",
        "crash/test_matrix.py::test_killed_at_this_point_nothing_is_lost_and_nothing_is_done_twice",
    ),
    _r(
        "rest-watching",
        "/healthz and /readyz are open, /metrics needs the key; traces, and one structured log line a request.",
        _REST,
        "wire/test_health.py::test_",
        "wire/test_errors.py::test_the_log_has_one_line_of_json_a_request",
    ),
    _r(
        "rest-hostile",
        "Cut, endless, forged, revoked: a broken or hostile client gets a clear answer, costs little, leaves nothing.",
        _REST,
        "wire/test_hostile.py::test_",
        "server/test_rest_stream.py::test_a_stream_ends_when_its_key_is_revoked",
    ),
    _r(
        "rest-openapi",
        "An OpenAPI document of what is served is generated, and the server is fuzzed with it.",
        _REST,
        "wire/test_openapi.py::test_",
    ),
    _r(
        "rest-score-card",
        "The score card says of every endpoint of the SDK: served, refused by name, or missing.",
        "issue 3, shown by",
        "wire/test_scorecard.py::test_",
    ),
)

STORIES = (
    _r(
        "quickstart",
        "The quickstart of the hosted service's documentation runs here with nothing changed but address and key.",
        "issue 3, shown by",
        "stories/test_quickstart.py::test_the_",
    ),
    _r(
        "sdk-helpers",
        "The SDK's own helpers work: the tool runner, messages put together from pieces, stream context managers.",
        "issue 3, shown by",
        "stories/test_helpers.py::test_",
        "wire/test_stream.py::test_the_sdk",
    ),
    _r(
        "rest-figures",
        "Figures are measured through the REST door too, each beside a bare Starlette or the bare SDK.",
        "issue 3, shown by",
        "test_benchmarks.py::test_every_group_can_be_measured_and_what_is_partly_left_out_is_a_group",
        gap="figures are measured, not tested: a loaded machine must not fail a test run",
    ),
)

CRASHES = (
    _r(
        "crash-matrix",
        "At every numbered point of a turn the server may be killed: nothing is lost, done twice or left over.",
        "issue 4, shown by",
        "crash/test_matrix.py::test_",
    ),
    _r(
        "crash-runner",
        "What a server that died left unsettled with a runner is named to the next owner, and forgotten.",
        "issue 4, crash safety",
        "contracts/test_sandbox.py::test_what_an_owner_left_unsettled_is_named_to_the_next_one",
        "crash/test_matrix.py::test_killed_at_this_point_nothing_is_lost_and_nothing_is_done_twice",
    ),
)

_FAULTS = "issue 4, model failures and fault tests"

FAULTS = (
    _r(
        "failures-table",
        "Every failure of a model has its event, its bounded tries, its state and its words, and a session after it.",
        _FAULTS,
        "scenarios/test_failures.py::test_",
        "server/test_retrying.py::test_",
        "providers/test_anthropic.py::test_a_conversation_that_does_not_fit_is_told_from_other_bad_requests",
        "providers/test_anthropic.py::test_a_provider_that_says_not_to_try_again_is_believed",
        "providers/test_anthropic.py::test_milliseconds_and_dates_are_understood_as_retry_after",
        "providers/test_anthropic.py::test_pings_alone_are_not_an_answer_for_ever",
    ),
    _r(
        "failures-waits",
        "A wait for another try is interrupted at once, takes messages along, and outlives a restart once.",
        _FAULTS,
        "scenarios/test_backoff.py::test_",
    ),
    _r(
        "failures-dying-model",
        "A model's server that dies at any event of its answer leaves one failed request, one try and a valid history.",
        _FAULTS,
        "scenarios/test_model_dies.py::test_",
        "providers/test_anthropic.py::test_a_stream_that_breaks_the_protocol_passes_as_a_breakdown",
        "providers/test_anthropic.py::test_an_answer_whose_connection_breaks_after_its_last_word_is_whole",
    ),
    _r(
        "faults-containers",
        "Containers that others kill, pause or remove, volumes too, give a clear result; the session goes on.",
        _FAULTS,
        "scenarios/test_sandbox_faults.py::test_",
        "scenarios/test_interrupts.py::test_a_container_killed_in_mid_call_is_told_to_the_model_and_the_session_goes_on",
        "scenarios/test_interrupts.py::test_a_container_removed_between_turns_is_made_again_around_its_files",
    ),
    _r(
        "faults-engine",
        "An engine that is restarted, killed or away: a command outlives it with live-restore, files always do.",
        _FAULTS,
        "scenarios/test_engine_faults.py::test_",
    ),
)

_MONEY = "issue 4, money and time"

MONEY = (
    _r(
        "money-budget-wire",
        "The wire's budget is given at creation, replaced, removed, reached and gone on from as the reference has it.",
        _MONEY,
        "wire/test_budgets.py::test_",
        "server/test_requests.py::test_a_budget_is_one_of_dollars",
        "server/test_requests.py::test_what_is_wrong_with_a_budget_is_named",
    ),
    _r(
        "money-budget-mcp",
        "Over MCP a budget is a number of dollars or any of four measures; results say what is left, and what to do.",
        _MONEY,
        "server/test_mcp_budget.py::test_",
    ),
    _r(
        "money-reservation",
        "A request is made where its worst case fits: nothing goes beyond a bound by more than one answer.",
        _MONEY,
        "server/test_budget.py::test_",
        "scenarios/test_money.py::test_sessions_at_once_stay_within_the_cap_together_and_wait_for_each_other",
        "wire/test_budgets.py::test_what_the_bound_leaves_is_what_the_answer_may_have",
        "wire/test_budgets.py::test_a_shorter_answer_leaves_the_cached_part_of_the_request_as_it_was",
    ),
    _r(
        "money-day",
        "Caps on a day bound all sessions together, through restarts and deletions, and let work go on the day after.",
        _MONEY,
        "scenarios/test_money.py::test_a_cap_",
        "server/test_mcp_budget.py::test_at_the_cap_for_the_day_a_result_says_when_it_goes_on",
    ),
    _r(
        "money-kept",
        "What was spent, and the work that waits for a higher budget, outlive the process.",
        _MONEY,
        "scenarios/test_money.py::test_what_was_spent_outlives_the_process",
        "scenarios/test_money.py::test_the_tokens_of_an_answer_that_was_interrupted_are_spent",
    ),
    _r(
        "money-prices",
        "Prices stand in one file with its date, for every model that the SDK names and that has one.",
        _MONEY,
        "providers/test_pricing.py::test_",
    ),
    _r(
        "money-stop",
        "`skiff stop` interrupts one session or all that are at work, whichever process drives them, or none.",
        _MONEY,
        "e2e/test_stop.py::test_",
    ),
)

REQUIREMENTS: tuple[Requirement, ...] = (
    *CRASHES,
    *MONEY,
    *FAULTS,
    *STORIES,
    *WIRE,
    *ASKING,
    *FAST,
    *CATALOG,
    *FILES,
    *SESSIONS,
    *KEEPING,
    *INVARIANTS,
    *USER,
    *DOOR,
    *ENGINE,
    *HANDS,
    *PACKAGES,
    *HOSTILITY,
    *WHOLE,
)
