//! Faults on purpose: each must end in something whole, or in nothing at all and a clear error.

mod caller;
mod disk;
mod hostile;
mod kills;
mod strangers;
mod trespass;

use std::process::ExitCode;
use std::time::Duration;

use nsm_lab::{runner, tests};

/// The service that the tests' endpoints offer.
const SERVICE: &str = "icmp";
/// The interface that the tests' pods get.
const IFNAME: &str = "nsm-1";

fn main() -> ExitCode {
    let tests = tests![
        hostile::refusal_tries_the_next,
        hostile::nonsense_tries_the_next,
        hostile::silence_tries_the_next,
        hostile::silence_ends_at_the_timeout,
        hostile::death_in_the_middle_tries_the_next,
        hostile::bad_prefix,
        hostile::bad_route,
        hostile::ten_thousand_routes,
        hostile::default_route,
        hostile::default_route_in_other_words,
        hostile::overlapping_route,
        hostile::gateway_of_another_family,
        hostile::name_of_300_bytes,
        hostile::namespace_of_another,
        hostile::answer_for_another_connection,
        hostile::path_of_another,
        hostile::service_of_another,
        hostile::name_and_labels_of_another,
        strangers::nonsense_on_the_socket,
        strangers::requests_whose_callers_hang_up,
        strangers::reselect_storm,
        strangers::another_interface_name_each_time,
        strangers::crowd_of_one_pod,
        strangers::more_connections_than_a_pod_may_hold,
        strangers::more_calls_than_a_pod_may_have_open,
        strangers::watches_are_no_calls,
        strangers::names_that_forge_log_lines,
        strangers::as_much_as_is_allowed_and_one_more,
        trespass::segments_behind_the_agents,
        trespass::words_for_the_endpoints_namespace,
        trespass::sockets_of_others_endpoints,
        strangers::endpoint_named_for_another_service,
        strangers::private_socket_is_roots,
        disk::full,
        disk::damaged_record_is_set_aside,
        disk::newer_format_refuses_to_start,
        disk::another_boot_forgets_everything,
        kills::at_every_step_of_add,
        kills::at_every_step_of_del,
        kills::at_random_moments,
        kills::between_two_attachments_of_a_pod,
    ];
    runner::main(tests, Duration::from_mins(4))
}
