//! Programs over the upstream Go SDK against this repository's, through the agent.

mod lab;
mod memif;
mod mixed;
mod ours;
mod pair;
mod raw;
mod registries;
mod selection;
mod strangers;
mod trouble;

use std::process::ExitCode;
use std::time::Duration;

use nsm_lab::{runner, tests};

/// For one test: the longest waits for a token to expire.
const BOUND: Duration = Duration::from_mins(1);

fn main() -> ExitCode {
    // Once, where the module proxy can be reached: the tests run in processes without a network.
    if std::env::var_os("NSM_LAB_TEST").is_none()
        && let Err(error) = nsm_peers::tools::build_go_peers()
    {
        eprintln!("{error:#}");
        return ExitCode::FAILURE;
    }
    runner::main(
        tests![
            pair::request_ping_close,
            pair::refresh,
            pair::monitor_shows_no_more_than_one_connection,
            trouble::expiry_of_a_killed_client,
            trouble::heal_to_a_second_endpoint,
            trouble::heal_by_ping_alone,
            trouble::recovery_of_a_restarted_client,
            trouble::agent_restart_keeps_traffic,
            selection::match_decides,
            selection::endpoint_asked_for_by_name,
            selection::endpoint_refuses,
            selection::service_unknown,
            selection::second_candidate_after_a_refusal,
            mixed::go_client_our_endpoint,
            mixed::our_cni_go_endpoint,
            mixed::our_cni_heals_from_a_go_endpoint,
            mixed::our_cni_refreshes_at_a_go_endpoint,
            ours::monitor_and_close,
            ours::expiry_of_a_killed_client,
            ours::heal_to_a_second_endpoint,
            ours::recovery_of_a_restarted_client,
            ours::match_decides,
            ours::matches_that_change_move_those_who_named_nobody,
            ours::refusal,
            registries::services,
            registries::endpoints,
            registries::watches,
            registries::renewal,
            registries::an_operators_matches_survive,
            memif::files_both_ways,
            memif::kernel_client_of_a_memif_endpoint,
            strangers::file_named_but_not_passed,
            strangers::file_that_is_no_namespace,
            strangers::namespace_of_another,
            strangers::tls_hello,
            strangers::connection_of_another,
        ],
        BOUND,
    )
}
