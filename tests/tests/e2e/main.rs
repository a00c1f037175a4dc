//! The product end to end: real programs, real packets, in a lab.

mod addressing;
mod away;
mod check;
mod connecting;
mod contexts;
mod deleting;
mod endpoints;
mod garbage;
mod install;
mod liveness;
mod matches;
mod networks;
mod nodes;
mod operator;
mod pods;
mod restart;
mod sdk;
mod status;
mod unit;
mod versions;

use std::process::ExitCode;
use std::time::Duration;

use nsm_lab::{runner, tests};

/// The service that the tests' endpoints offer.
const SERVICE: &str = "icmp";
/// The interface that the tests' pods get.
const IFNAME: &str = "nsm-1";

#[expect(clippy::too_many_lines, reason = "the list of all tests")]
fn main() -> ExitCode {
    let tests = tests![
        connecting::add_ping_del,
        connecting::two_endpoints_share_four_clients,
        connecting::labels_choose_the_endpoint,
        connecting::ten_at_once,
        connecting::two_networks_in_one_pod,
        connecting::a_taken_name_fails_and_changes_nothing,
        connecting::no_endpoint_is_try_again_later,
        connecting::a_service_of_another_domain_is_refused,
        connecting::a_chained_result_is_extended,
        pods::two_services_in_one_annotation,
        pods::both_forms_and_the_namespaces,
        pods::mistakes_fail_by_name_and_change_nothing,
        pods::every_end_of_a_pod_ends_all_that_is_recorded_of_it,
        pods::who_asks_nothing_needs_no_agent,
        pods::who_may_ask_starts_whatever_the_agent_does,
        pods::an_owed_del_ends_all_of_a_pod,
        pods::a_default_route_and_dns_need_leave,
        pods::a_del_calls_off_the_add,
        pods::a_sandbox_made_again_is_one_client,
        pods::records_of_sandboxes,
        pods::behind_a_real_first_plugin,
        install::follows_the_original_through_the_agents_death,
        install::is_put_back_and_outlives_its_original,
        networks::a_list_of_a_file,
        networks::a_directory,
        networks::several_networks,
        networks::check_finds_what_is_gone,
        networks::many_at_once,
        networks::are_called_as_by_the_library,
        networks::of_subdirectories,
        networks::del_gets_what_add_got,
        networks::del_gets_the_result,
        networks::a_del_that_fails_is_repeated,
        networks::records_that_are_lost,
        networks::gc_by_the_runtimes_list,
        networks::gc_leaves_others_alone,
        networks::what_is_ended_is_not_ended_again,
        networks::del_waits_for_what_plugins_started,
        networks::what_a_reboot_left_is_freed,
        networks::another_plugin_is_not_called_for_ever,
        networks::lost_records_are_counted_and_found,
        networks::gc_counts_in_what_is_made,
        networks::gc_of_one_network_holds_up_no_other,
        networks::gc_of_one_pod_leaves_networks_their_time,
        networks::a_daemon_keeps_no_pod,
        networks::ports_and_bandwidth,
        networks::the_plugin_calls_no_api_server,
        networks::status_of_all,
        networks::made_by_multus,
        networks::made_by_multus_and_half_forgotten,
        networks::a_failure_undoes_all,
        networks::what_is_not_undone_is_owed,
        networks::a_second_add_changes_nothing,
        networks::a_foreign_interface_stays,
        networks::killed_on_the_way,
        networks::mistakes_are_refused_by_name,
        networks::keys_without_effect_are_told,
        networks::rule_by_rule,
        networks::services_beside_networks,
        networks::chained_too,
        networks::a_service_that_fails_undoes_networks,
        networks::planned_by_the_agent,
        networks::a_network_more_and_less,
        networks::one_that_fails_changes_nothing,
        networks::a_kill_between_its_steps_loses_no_route,
        networks::the_first_networks_default_stays,
        networks::a_default_moves_and_a_sibling_keeps_its_own,
        networks::a_default_where_the_first_has_none,
        networks::a_default_of_no_network_stays,
        addressing::ipv6_alone,
        addressing::both_families,
        addressing::a_full_pool_frees_what_is_deleted,
        addressing::a_chosen_mac_is_honoured,
        addressing::chosen_addresses_are_honoured_or_refused,
        addressing::a_chosen_address_chooses_the_endpoint,
        deleting::twice_before_and_after_everything,
        deleting::after_the_namespace_is_gone,
        deleting::with_another_configuration,
        deleting::during_add,
        deleting::an_add_whose_plugin_was_killed,
        deleting::a_request_that_ran_out_of_time,
        deleting::a_wire_that_is_ready_too_late,
        deleting::while_a_refresh_hangs,
        deleting::beside_an_endpoint_that_hangs,
        deleting::behind_an_endpoint_that_does_not_return,
        deleting::a_namespace_that_vanishes_is_noticed,
        check::whole_is_well,
        check::a_removed_address_is_found,
        check::a_removed_link_is_found,
        check::the_endpoints_address_is_looked_at,
        check::the_endpoints_route_is_looked_at,
        check::the_endpoints_neighbour_is_looked_at,
        contexts::policies_of_a_pod_end_with_del,
        contexts::policies_of_a_client_end_with_its_connection,
        contexts::a_client_goes_on_when_nobody_reads_its_output,
        contexts::name_servers_are_in_the_result,
        contexts::what_the_pod_reaches_is_not_given_again,
        contexts::a_pod_with_thousands_of_routes_is_served,
        contexts::an_endpoint_asks_for_a_refresh,
        contexts::an_endpoint_says_down,
        garbage::frees_what_the_runtime_forgot,
        garbage::an_absent_list_frees_only_lost_namespaces,
        garbage::other_networks_are_left_alone,
        status::of_an_agent_that_serves,
        status::of_no_agent,
        status::version_needs_no_agent,
        away::add_says_try_again_later,
        away::add_waits_for_the_agent,
        away::del_is_owed_and_worked_off,
        away::del_for_nothing_leaves_no_debt,
        away::a_hanging_one_is_not_waited_for,
        away::an_owed_del_that_fails_is_tried_again,
        away::add_works_off_its_owed_note_first,
        away::a_note_of_a_newer_format_is_left_alone,
        restart::traffic_continues_and_del_works,
        restart::orderly_end_keeps_the_wires,
        restart::endpoints_keep_their_clients,
        restart::an_endpoint_that_began_anew_meanwhile_is_noticed,
        restart::away_for_longer_than_connections_live,
        unit::under_systemd,
        unit::with_wrong_settings,
        liveness::an_interface_that_is_down,
        liveness::packets_of_one_family_that_are_dropped,
        matches::a_program_follows_them,
        versions::of_the_version_before,
        versions::of_a_later_version,
        versions::a_call_of_a_later_version_is_refused_by_its_kind,
        sdk::the_examples_of_its_documentation,
        sdk::a_client_whose_connection_was_deleted_gets_it_again,
        endpoints::killed_one_is_withdrawn,
        endpoints::killed_one_is_replaced_by_another,
        endpoints::restarted_one_gets_its_clients_back,
        endpoints::stopped_one_is_replaced_by_another,
        endpoints::a_silent_one_does_not_hold_up_del,
        endpoints::a_silent_one_is_left_in_time,
        endpoints::a_silent_one_that_wakes_up_serves_again,
        nodes::two_on_one_machine,
        nodes::a_second_agent_on_a_socket_refuses,
        nodes::a_second_agent_on_a_run_directory_refuses,
        operator::connections_in_every_format,
        operator::describe_explains_the_choice,
        operator::plan_changes_nothing,
        operator::plan_says_whom_the_next_add_asks,
        operator::endpoints_that_cannot_be_called_say_why,
        operator::check_looks_at_versions_privileges_and_kernel,
        operator::check_finds_a_dead_agent,
        operator::a_deleted_connection_is_closed,
        operator::watch_shows_changes,
        operator::metrics_and_health,
    ];
    runner::main(tests, Duration::from_mins(1))
}
