//! The specification of every engine: one list of scenarios that runs against each of them.
//!
//! Scenarios use an engine only through [`fixture::Fixture`], which holds the engine, its events and its clock.

#![allow(clippy::unwrap_used, reason = "helpers of tests may fail as tests do")]

mod fixture;
#[allow(dead_code, reason = "scenarios leave the server alone, other tests do not")]
#[path = "../redis_server/mod.rs"]
mod redis_server;

mod dead_letters;
mod delivery;
mod events;
mod expiry;
mod history;
mod presence;
mod publish;
mod recovery;

/// Makes a test of every scenario for every engine.
macro_rules! conformance {
    ($($module:ident: $($scenario:ident),+ ;)+) => {
        mod memory {
            $($(
                #[tokio::test(start_paused = true)]
                async fn $scenario() {
                    crate::$module::$scenario(crate::fixture::Fixture::memory()).await;
                }
            )+)+
        }

        /// Time is real here, so scenarios that wait take that long.
        mod redis {
            $($(
                #[tokio::test]
                async fn $scenario() {
                    crate::$module::$scenario(crate::fixture::Fixture::redis().await).await;
                }
            )+)+
        }
    };
}

conformance! {
    delivery:
        subscribed_topics_deliver_and_others_do_not,
        unsubscribed_topics_are_silent,
        subscribing_twice_delivers_once,
        events_of_a_topic_keep_their_order,
        publications_arrive_whole;
    publish:
        offsets_count_from_one,
        topics_do_not_share_positions,
        publications_that_are_not_kept_have_no_position,
        publications_that_are_not_kept_leave_the_stream_alone,
        a_repeated_key_publishes_nothing_and_returns_the_first_result,
        a_key_without_history_is_remembered_too,
        a_key_belongs_to_one_topic,
        a_key_is_forgotten_after_its_time,
        an_old_version_is_suppressed,
        a_new_version_epoch_starts_over,
        publications_without_a_version_pass_and_change_no_version,
        a_version_survives_the_history,
        a_suppressed_version_uses_up_no_key,
        a_group_keeps_its_order,
        an_empty_group_is_nothing,
        what_is_suppressed_in_a_group_keeps_no_other_from_being_published,
        a_large_group_is_published_whole,
        a_group_equals_the_same_publications_one_by_one;
    recovery:
        a_topic_that_was_never_used_has_an_epoch_that_stays,
        asking_without_a_position_returns_the_top,
        a_reader_at_the_top_has_missed_nothing,
        a_reader_gets_all_that_it_missed,
        an_empty_epoch_matches_any,
        a_foreign_epoch_is_never_complete,
        a_position_above_the_top_is_never_complete,
        what_was_trimmed_makes_it_incomplete,
        a_limit_that_is_reached_makes_it_incomplete,
        a_removed_history_recovers_only_from_the_top,
        what_is_too_long_is_said_and_not_sent,
        what_was_missed_is_read_part_by_part,
        no_part_is_read_of_what_cannot_be_had;
    history:
        a_limit_of_zero_asks_for_the_position_alone,
        pages_go_forward,
        pages_go_backward,
        a_foreign_epoch_is_an_error,
        evicted_offsets_are_no_error,
        positions_outside_the_stream_are_no_error,
        pages_end_at_their_bytes,
        pages_that_are_cut_are_gone_on_from,
        only_the_newest_are_kept,
        a_smaller_size_trims_at_once,
        removing_keeps_epoch_and_top,
        removing_what_was_never_there_is_no_error;
    expiry:
        history_expires_as_a_whole,
        publishing_keeps_all_history_alive,
        epoch_and_top_outlive_the_history,
        a_lost_position_starts_a_new_epoch,
        publishing_keeps_the_position_alive,
        asking_keeps_the_position_alive,
        a_lost_position_loses_versions;
    presence:
        nobody_is_present_at_first,
        clients_are_present_until_removed,
        a_client_is_replaced_by_its_newer_self,
        a_client_that_changes_its_user_is_counted_right,
        many_become_present_together,
        a_list_that_is_too_long_is_refused,
        users_are_counted_once,
        anonymous_clients_are_one_user,
        topics_do_not_share_presence,
        presence_is_not_history,
        an_announced_leave_is_told_once,
        a_leave_that_is_not_announced_is_not_told,
        joins_and_leaves_keep_their_order,
        only_so_many_are_admitted,
        who_was_admitted_goes_without_a_word;
    events:
        the_first_occupies_and_the_last_vacates,
        repeats_are_said_once,
        events_of_users_have_their_own_names,
        reasons_are_told,
        only_what_is_wanted_is_written,
        members_with_events_are_present_as_others,
        many_join_together,
        who_comes_back_soon_was_never_away,
        what_was_read_is_removed,
        two_members_of_one_user_are_one,
        a_topic_without_events_has_no_outbox;
    dead_letters:
        what_was_refused_is_kept,
        letters_are_taken_once,
        a_retried_letter_is_posted_or_refused_again;
}
