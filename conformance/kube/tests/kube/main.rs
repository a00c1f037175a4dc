//! The registry in Kubernetes against a real API server.

mod access;
mod admission;
mod asking;
mod away;
mod caller;
mod changes;
mod definitions;
mod endpoints;
mod excluded;
mod measured;
mod namespaces;
mod networks;
mod nodes;
mod pods;
mod rights;
mod running;
mod scenarios;
mod services;

use std::process::ExitCode;
use std::time::Duration;

use nsm_lab::{runner, tests};

/// For one test: an API server starts in it, on a busy machine.
const BOUND: Duration = Duration::from_mins(3);
/// For what agents and the API server do by themselves.
pub(crate) const SOON: Duration = Duration::from_secs(20);

fn main() -> ExitCode {
    runner::main(
        tests![
            access::decides_who_serves_and_who_is_connected,
            access::of_services_that_say_nothing,
            access::lists_make_a_service_the_operators,
            admission::of_endpoints,
            admission::of_services,
            admission::of_events,
            admission::of_leases,
            admission::of_the_status_of_pods,
            definitions::good_and_bad_objects,
            definitions::one_without_status_and_schema,
            services::the_oldest_of_a_name_counts,
            endpoints::from_registration_to_unregistration,
            endpoints::belong_to_their_pod,
            endpoints::of_go_programs,
            endpoints::that_do_not_count_are_told,
            endpoints::outlive_older_objects_of_other_namespaces,
            endpoints::edited_and_deleted_by_hand,
            excluded::are_those_of_pods_and_services,
            nodes::see_each_others_endpoints,
            nodes::two_agents_of_one_name_are_told,
            nodes::a_lost_lease_takes_endpoints_along,
            nodes::a_killed_agent_knows_its_endpoints_again,
            nodes::a_pod_made_again_has_its_endpoints_name,
            away::what_was_seen_is_served_and_the_rest_waits,
            away::an_agent_starts_without_it,
            away::an_agent_restarts_without_it,
            namespaces::those_that_ask_are_files,
            networks::plans_follow_definitions,
            networks::what_was_made_is_told,
            networks::of_every_pod_are_asked_and_collected,
            networks::a_pod_that_asks_nothing_has_a_status,
            networks::a_pod_that_is_not_known_starts_when_it_is,
            changes::killed_before_it_attaches,
            changes::killed_when_it_has_attached,
            changes::killed_before_it_detaches,
            changes::killed_when_it_has_detached,
            changes::killed_in_the_middle_of_a_call,
            changes::killed_while_the_plugin_goes_on,
            changes::a_stop_waits_for_a_call,
            changes::a_stop_does_not_wait_for_a_call_that_hangs,
            changes::an_edit_that_was_not_carried_out_is_taken_back,
            changes::what_it_does_not_know_any_more_is_told_by_the_plugin,
            pods::on_the_hosts_network_are_told_so,
            pods::are_edited_by_nsmctl,
            rights::what_the_file_does_not_grant_is_denied,
            rights::what_is_granted_is_used,
            running::edits_attach_and_detach,
            running::a_pod_that_asked_nothing_gets_what_it_asks_for,
            running::what_cannot_be_had_is_told_and_tried_again,
            running::an_add_that_is_refused_is_told,
            running::a_namespaces_annotation_counts_as_it_was,
            running::edits_count_that_were_made_while_somebody_was_away,
            running::a_pod_that_ends_gets_nothing,
            running::a_hash_gives_nobody_another_pod,
            running::a_sandbox_made_again_is_looked_at_again,
            running::a_namespace_that_was_not_known_is_inherited_later,
            running::one_namespace_keeps_no_other_waiting,
            measured::edits_and_status,
            measured::memory_and_calls_at_rest,
            scenarios::payload_ethernet,
            scenarios::a_web_server_is_reached_by_both_families,
            scenarios::composition::of_five_endpoints,
            scenarios::moving::the_service_chooses_another_endpoint,
            scenarios::policies::choose_traffic_by_protocol_and_ports,
            scenarios::policies::endpoints_of_the_same_prefixes_share_the_traffic,
            scenarios::policies::mutually_aware_endpoints_give_the_same_addresses,
            rights::without_the_right_to_services,
        ],
        BOUND,
    )
}
