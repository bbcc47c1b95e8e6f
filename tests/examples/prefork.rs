//! The preforking web server of the examples, with real clients: what it serves, what it refuses, and what it comes through.

mod client;
mod ending;
mod hand_over;
mod listing;
mod requests;
mod server;
#[cfg(feature = "tokio")]
mod sibling;
mod workers;

use crate::support::{self, Trial};
use ending::*;
use hand_over::*;
use listing::*;
use requests::*;
#[cfg(feature = "tokio")]
use sibling::*;
use workers::*;

pub fn trials() -> Vec<Trial> {
    [own_trials(), siblings_trials()].into_iter().flatten().collect()
}

#[cfg(not(feature = "tokio"))]
fn siblings_trials() -> Vec<Trial> {
    Vec::new()
}

#[cfg(feature = "tokio")]
fn siblings_trials() -> Vec<Trial> {
    support::trials![
        every_worker_of_the_sibling_serves,
        killed_workers_of_the_sibling_are_replaced_under_load needs [WRK, Alone] within 60,
        workers_of_the_sibling_leave_when_the_master_is_killed,
        a_stop_of_the_sibling_finishes_the_request_under_way,
        without_its_fork_server_the_sibling_says_so_and_ends,
        the_sibling_says_how_it_is_used,
    ]
}

fn own_trials() -> Vec<Trial> {
    support::trials![
        served_bytes_equal_the_files needs [CURL],
        a_connection_is_kept_and_requests_may_be_sent_ahead,
        what_is_no_request_is_refused_and_the_worker_lives,
        no_way_leads_out_of_the_folder,
        a_folder_without_a_page_is_listed,
        a_list_is_made_of_links_to_what_is_there,
        a_huge_folder_is_listed_in_part,
        slow_clients_are_sent_away_and_hold_nobody_up,
        a_client_that_reads_nothing_is_sent_away,
        half_closed_clients_get_their_answers,
        a_worker_without_descriptors_goes_on_when_it_has_some,
        the_status_page_shows_what_each_worker_did,
        a_map_of_the_server_shows_no_bug,
        killed_workers_lose_their_own_requests_and_no_other needs [WRK, Alone] within 60,
        a_worker_that_hangs_is_replaced,
        a_worker_that_cannot_start_ends_the_server_with_the_reason,
        workers_that_leave_at_once_are_given_up,
        a_worker_that_cannot_be_forked_is_tried_again,
        workers_leave_when_the_master_is_killed,
        a_stop_finishes_the_requests_under_way,
        a_second_signal_ends_at_once,
        a_signal_that_comes_twice_at_once_is_one,
        a_stop_by_timeout_finishes_the_requests_under_way,
        what_takes_longer_than_the_grace_is_cut,
        ctrl_c_is_counted_once_though_the_workers_get_it_too,
        a_terminal_gets_a_line_that_is_redrawn,
        hand_overs_under_load_fail_no_request needs [WRK, Alone] within 60,
        a_successor_that_cannot_start_leaves_the_old_one_serving,
        a_stop_while_handing_over_stops_both,
        it_says_how_it_is_used,
    ]
}
